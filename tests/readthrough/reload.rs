//! Another catalog in place of the present one, under running requests.

use std::sync::Arc;
use std::time::Duration;

use seawall::catalog::policy::Policy;
use seawall::catalog::{Catalog, Declaration, Shape};
use seawall::readthrough::{Ask, Directives, Look};

use super::events::{followed, is_fresh, policy, poll, verdict};
use super::origin::{BOUNDS, Script, bench, declare};

#[tokio::test]
async fn queries_that_both_catalogs_have_keep_their_entries_and_their_flights() {
    let policy = Policy { timeout: Duration::from_secs(60), ..Policy::default() };
    let mut bench = bench(BOUNDS, policy.clone(), policy.clone());
    let first = bench.ask("a", b"k");
    bench.begun.recv().await.expect("a statement").end(Script::Answer("l", "[1]"));
    first.await.expect("no panic").expect("an answer");
    let (flying_a, flying_b) = (bench.ask("a", b"x"), bench.ask("b", b"y"));
    let statements = [bench.begun.recv().await, bench.begun.recv().await];

    // `a` is as it was, `b` is gone, `c` is new.
    let (a, b) = (bench.route("a"), bench.route("b"));
    let next: Vec<Declaration> = vec![a.query().declaration().clone(), declare("c", policy)];
    let catalog = bench.catalog.succeed(next);
    catalog.get("c").expect("declared").reshape(Shape::Ready(Arc::clone(&bench.prepared)));
    bench.read.replace(&catalog);

    assert!(Arc::ptr_eq(&a, &bench.route("a")), "the same route");
    assert!(bench.read.routes().find("b").is_none());
    assert_ne!(bench.route("c").number(), b.number(), "no entry of b's counts as one of c's");
    assert!(matches!(bench.look("a", b"k"), Look::Answer(_)), "its entries are where they were");
    for statement in statements {
        statement.expect("under way").end(Script::Answer("l", "[2]"));
    }
    for flying in [flying_a, flying_b] {
        assert_eq!(flying.await.expect("no panic").expect("an answer").entry.body(), b"[2]");
    }
    let new = bench.ask("c", b"k2");
    bench.begun.recv().await.expect("a statement").end(Script::Answer("l", "[3]"));
    assert!(new.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_request_under_way_is_answered_by_a_query_that_is_gone_and_its_answer_is_kept_only_where_it_asks_the_same() {
    for (keeps, changed) in
        [(true, Policy { ttl: Duration::from_secs(50), ..policy() }), (false, Policy { max_rows: 7, ..policy() })]
    {
        let mut bench = followed(BOUNDS, policy());
        let (route, arrived) = (bench.route("a"), bench.clock.now());
        let next = bench.catalog.succeed(vec![declare("a", changed)]);
        let query = next.get("a").expect("declared");
        query.reshape(Shape::Ready(Arc::clone(&bench.prepared)));
        query.judge(verdict("u"));
        bench.read.replace(&next);
        // Its body has arrived by now.
        let (read, prepared) = (Arc::clone(&bench.read), Arc::clone(&bench.prepared));
        let asked = tokio::spawn(async move {
            let ask = Ask { route: &route, prepared: &prepared, key: b"k", arrived, directives: Directives::default() };
            let Look::Rebuild(want) = read.look(&ask) else { panic!("nothing is stored") };
            read.read(&ask, want).await
        });
        bench.begun.recv().await.expect("a statement").end(Script::Under("100:100:", "[1]"));
        assert!(asked.await.expect("no panic").is_ok());
        assert_eq!(is_fresh(&bench, "a", b"k"), keeps);
        if keeps {
            poll(&bench, "106:106:", &[(105, "s.u")]);
            assert!(!is_fresh(&bench, "a", b"k"), "its tags are of the verdict in force");
        }
    }
}

#[test]
fn a_query_whose_declaration_changed_is_another_and_the_others_stay_what_they_are() {
    let (a, b) = (declare("a", Policy::default()), declare("b", Policy::default()));
    let before = Catalog::new(vec![a.clone(), b]);
    let changed = declare("b", Policy { ttl: Duration::from_secs(1), ..Policy::default() });
    let after = before.succeed(vec![a, changed]);
    let same = |name| Arc::ptr_eq(before.get(name).expect("declared"), after.get(name).expect("declared"));
    assert!(same("a") && !same("b"));
    assert!(after.iter().all(|q| Arc::ptr_eq(q, after.get(q.name()).expect("declared"))));
}

#[test]
fn what_asks_the_same_keeps_what_is_known_of_it_and_anything_else_begins_unprepared() {
    let short = Policy { ttl: Duration::from_secs(1), ..Policy::default() };
    let fewer = Policy { max_rows: 1, ..Policy::default() };
    let (a, b, c) = (declare("a", Policy::default()), declare("b", Policy::default()), declare("c", Policy::default()));
    let before = Catalog::new(vec![a, b, c.clone()]);
    for query in before.iter() {
        query.reshape(Shape::Broken(seawall::catalog::Broken { reason: "known".into() }));
    }
    let tagged = Declaration { claims: vec!["org".into()], ..c };
    let after = before.succeed(vec![declare("a", short), declare("b", fewer), tagged]);
    let known = |name| matches!(&**after.get(name).expect("declared").shape(), Shape::Broken(_));
    assert_eq!([known("a"), known("b"), known("c")], [true, false, false]);
}

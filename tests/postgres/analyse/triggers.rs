//! Seawall's triggers: which are wanted, which are there, and what an answer's tags are then.

use seawall::catalog::args::{self, KeyBuf};
use seawall::catalog::verdict::{Kind, Verdict, wanted};
use seawall::catalog::{Catalog, Declaration};

use super::{Bench, stated};

const TABLES: &str = "CREATE TABLE t (id int, kind text, n int); \
     CREATE TABLE p (id int, kind text) PARTITION BY LIST (kind); CREATE TABLE p1 PARTITION OF p DEFAULT; \
     CREATE TABLE base (id int); CREATE TABLE heir (extra int) INHERITS (base)";

fn queries() -> Vec<Declaration> {
    vec![
        stated("by_id", "SELECT n FROM t WHERE id = :id", &[("t", "id = :id")]),
        stated("by_both", "SELECT n FROM t WHERE id = :id AND kind = :k", &[("t", "kind = :k and id = :id")]),
        stated("all", "SELECT n FROM t", &[]),
        stated("part", "SELECT id FROM p1 WHERE id = :id", &[("p1", "id = :id")]),
        stated("heir", "SELECT id FROM heir WHERE extra = :e", &[("heir", "extra = :e")]),
        stated("chance", "SELECT n FROM t WHERE random() < 1", &[]),
    ]
}

#[tokio::test]
async fn triggers_are_wanted_on_every_member_of_a_family_by_the_columns_that_it_has() {
    let bench = Bench::new(TABLES).await;
    let (verdicts, _) = bench.all(queries()).await;
    let wanted = wanted(verdicts.iter().map(|v| &**v));
    let shown: Vec<String> = wanted.iter().map(|w| format!("{}.{} {:?}", w.schema, w.name, w.columns)).collect();
    assert_eq!(
        shown,
        [
            r"public.base []",
            r#"public.heir [["extra"]]"#,
            r#"public.p [["id"]]"#,
            r#"public.p1 [["id"]]"#,
            r#"public.t [["id"], ["id", "kind"]]"#,
        ]
    );
    for verdict in &verdicts {
        assert_eq!(verdict.kind(), Kind::TtlOnly, "none is there yet");
    }
    let missing: Vec<String> = verdicts[3].missing().map(|(relation, _)| relation.to_string()).collect();
    assert_eq!(missing, ["public.p", "public.p1"]);
    assert_eq!(verdicts[5].missing().count(), 0, "triggers would be of no use to it");
}

/// The tags of the answer for `params`, as a prepared query makes its key.
async fn tags(bench: &Bench, declaration: Declaration, params: &str) -> (Vec<String>, Verdict) {
    let name = declaration.name.clone();
    let catalog = Catalog::new(vec![declaration]);
    bench.postgres.prepare_all(&catalog).await.expect("it answers");
    bench.postgres.analyse_all(&catalog).await.expect("it answers");
    let query = catalog.get(&name).expect("it is there");
    let mut key = KeyBuf::new();
    let prepared = query.prepared().expect("it is prepared");
    args::key_from_json(&prepared, params.as_bytes(), &mut key).expect("good parameters");
    let verdict = query.verdict().expect("it is judged");
    (verdict.tags(&key).into_iter().map(Into::into).collect(), (*verdict).clone())
}

#[tokio::test]
async fn with_all_triggers_the_verdict_is_exact_and_answers_have_tags() {
    let bench = Bench::new(TABLES).await;
    for verdict in &bench.with_triggers(queries()).await[..5] {
        assert_eq!(verdict.kind(), Kind::Exact, "{verdict:#?}");
    }
    let [by_id, by_both, all, part, heir, chance] = queries().try_into().expect("six");
    let (by_042, _) = tags(&bench, by_id.clone(), r#"{"id": "042"}"#).await;
    assert_eq!(by_042, ["public.t:*", "public.t:id=42"]);
    assert_eq!(tags(&bench, by_id, r#"{"id": 42}"#).await.0, by_042);
    let both = tags(&bench, by_both, r#"{"id": 1, "k": "a b"}"#).await.0;
    assert_eq!(both, ["public.t:*", "public.t:id=1,kind=a%20b"]);
    assert_eq!(tags(&bench, all, "{}").await.0, ["public.t"]);
    let part = tags(&bench, part, r#"{"id": 7}"#).await.0;
    assert_eq!(part, ["public.p1:*", "public.p1:id=7", "public.p:*", "public.p:id=7"]);
    let heir = tags(&bench, heir, r#"{"e": 7}"#).await.0;
    assert_eq!(heir, ["public.base", "public.heir:*", "public.heir:extra=7"], "a parent can't announce it by rows");
    assert!(tags(&bench, chance, "{}").await.0.is_empty());
}

#[tokio::test]
async fn a_column_that_no_trigger_announces_is_the_table() {
    let bench = Bench::new(TABLES).await;
    let [by_id, by_both, ..] = <[Declaration; 6]>::try_from(queries()).expect("six");
    bench.with_triggers(vec![by_id]).await;
    let (by_less, verdict) = tags(&bench, by_both, r#"{"id": 1, "k": "x"}"#).await;
    assert_eq!((by_less, verdict.kind()), (vec!["public.t:*".into(), "public.t:id=1".into()], Kind::Exact));
    let by_n = stated("q", "SELECT id FROM t WHERE n = :n", &[("t", "n = :n")]);
    let (by_table, verdict) = tags(&bench, by_n, r#"{"n": 1}"#).await;
    assert_eq!((by_table, verdict.kind()), (vec!["public.t".into()], Kind::Exact));
}

#[tokio::test]
async fn a_trigger_that_is_gone_or_disabled_is_named_and_the_query_is_ttl_only() {
    let bench = Bench::new(TABLES).await;
    let by_id = || vec![stated("q", "SELECT n FROM t WHERE id = :id", &[("t", "id = :id")])];
    let wanted = wanted(bench.all(by_id()).await.0.iter().map(|v| &**v));
    for (sql, word) in [
        ("DROP TRIGGER seawall_update ON t", "for UPDATE is missing"),
        ("ALTER TABLE t DISABLE TRIGGER seawall_truncate", "for TRUNCATE is disabled, or not ENABLE ALWAYS"),
        ("ALTER TABLE t ENABLE TRIGGER seawall_insert", "for INSERT is disabled, or not ENABLE ALWAYS"),
        ("DROP SCHEMA seawall CASCADE", "run seawall migrate"),
        (
            "CREATE OR REPLACE TRIGGER seawall_delete AFTER DELETE ON t FOR EACH STATEMENT WHEN (false) \
             EXECUTE FUNCTION seawall.nothing('public.t')",
            "for DELETE is missing",
        ),
    ] {
        bench.install(&wanted).await;
        assert_eq!(bench.all(by_id()).await.0[0].kind(), Kind::Exact, "before {sql}");
        bench.run(sql).await;
        let verdict = bench.all(by_id()).await.0.remove(0);
        let missing: Vec<String> = verdict.missing().map(|(table, why)| format!("{table} {why}")).collect();
        assert_eq!((verdict.kind(), missing.len()), (Kind::TtlOnly, 1), "{sql}");
        assert!(missing[0].starts_with("public.t ") && missing[0].contains(word), "{sql}: {missing:?}");
        bench.run("DROP TRIGGER IF EXISTS seawall_delete ON t").await;
    }
}

#[tokio::test]
async fn a_renamed_table_answers_to_both_names() {
    let bench = Bench::new(TABLES).await;
    bench.with_triggers(vec![stated("q", "SELECT n FROM t WHERE id = :id", &[("t", "id = :id")])]).await;
    bench.run("ALTER TABLE t RENAME TO new").await;
    let renamed = stated("q", "SELECT n FROM new WHERE id = :id", &[("new", "id = :id")]);
    let tags = tags(&bench, renamed, r#"{"id": 1}"#).await.0;
    assert_eq!(tags, ["public.new:*", "public.new:id=1", "public.t:*", "public.t:id=1"]);
}

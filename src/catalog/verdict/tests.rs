//! Tags and wanted triggers, from verdicts written down by hand.

use super::super::args::KeyBuf;
use super::*;

fn relation(name: &str, oid: u32) -> Relation {
    Relation { schema: "s".into(), name: name.into(), oid }
}

fn texts(list: &[&str]) -> Vec<Box<str>> {
    list.iter().map(|text| (*text).into()).collect()
}

fn member(name: &str, oid: u32, columns: &[&str], announced: &[&[&str]]) -> Member {
    let relation = relation(name, oid);
    let triggers =
        Triggers::Installed { tag: relation.tag(), columns: announced.iter().map(|list| texts(list)).collect() };
    Member { relation, columns: texts(columns), triggers }
}

fn verdict(rows: Option<&[(&str, usize)]>, family: Vec<Member>) -> Verdict {
    let rows = rows.map(|rows| rows.iter().map(|(c, p)| RowKey { column: (*c).into(), param: *p }).collect());
    Verdict {
        shape: 1,
        at_best: Kind::Exact,
        reasons: vec![],
        dependencies: vec![Dependency { relation: family[0].relation.clone(), rows, family }],
        closure: Closure::default(),
        schema: SchemaFingerprint::default(),
    }
}

fn key(values: &[Option<&str>]) -> KeyBuf {
    let mut key = KeyBuf::from_slice(&[0; 8]);
    for value in values {
        match value {
            None => key.push(0),
            Some(value) => {
                key.push(1);
                let length = value.len();
                if length >= 128 {
                    key.push(u8::try_from(length & 127 | 128).expect("a byte"));
                    key.push(u8::try_from(length >> 7).expect("short enough"));
                } else {
                    key.push(u8::try_from(length).expect("a byte"));
                }
                key.extend_from_slice(value.as_bytes());
            }
        }
    }
    key
}

fn tags(verdict: &Verdict, values: &[Option<&str>]) -> Vec<String> {
    verdict.tags(&key(values)).into_iter().map(Into::into).collect()
}

#[test]
fn a_whole_table_is_its_tag_and_those_of_its_family() {
    let verdict = verdict(None, vec![member("t", 1, &[], &[]), member("part", 2, &[], &[&["id"]])]);
    assert_eq!(tags(&verdict, &[Some("42")]), ["s.part", "s.t"]);
}

#[test]
fn rows_are_their_value_and_what_concerns_every_row() {
    let verdict = verdict(
        Some(&[("a", 1), ("b", 0)]),
        vec![member("t", 1, &["a", "b"], &[&["a", "b"], &["a"]]), member("p", 2, &["a", "b"], &[&["b"], &["b", "c"]])],
    );
    assert_eq!(tags(&verdict, &[Some("x y"), Some("42")]), ["s.p:*", "s.p:b=x%20y", "s.t:*", "s.t:a=42,b=x%20y"]);
}

#[test]
fn what_is_not_announced_is_the_table() {
    let not_that = member("t", 1, &["a"], &[&["b"], &["a", "b"], &[]]);
    let without_the_column = member("p", 2, &[], &[&["a"]]);
    let verdict = verdict(Some(&[("a", 0)]), vec![not_that, without_the_column]);
    assert_eq!(tags(&verdict, &[Some("1")]), ["s.p", "s.t"]);
}

#[test]
fn null_and_a_value_too_long_are_concerned_by_every_row_alone() {
    let verdict = verdict(Some(&[("a", 0)]), vec![member("t", 1, &["a"], &[&["a"]])]);
    assert_eq!(tags(&verdict, &[None]), ["s.t:*"]);
    let longest = "x".repeat(200);
    assert_eq!(tags(&verdict, &[Some(&longest)]), ["s.t:*".to_owned(), format!("s.t:a={longest}")]);
    assert_eq!(tags(&verdict, &[Some(&"x".repeat(201))]), ["s.t:*"]);
}

#[test]
fn a_renamed_table_keeps_the_tag_that_its_triggers_announce() {
    let mut verdict = verdict(Some(&[("a", 0)]), vec![member("new", 1, &["a"], &[])]);
    verdict.dependencies[0].family[0].triggers =
        Triggers::Installed { tag: "s.old".into(), columns: vec![texts(&["a"])] };
    assert_eq!(tags(&verdict, &[Some("1")]), ["s.new:*", "s.new:a=1", "s.old:*", "s.old:a=1"]);
}

#[test]
fn a_missing_trigger_makes_it_ttl_only_and_is_still_wanted() {
    let mut verdict = verdict(Some(&[("a", 0)]), vec![member("t", 1, &["a"], &[&["a"]]), member("p", 2, &[], &[])]);
    assert_eq!(verdict.kind(), Kind::Exact);
    verdict.dependencies[0].family[1].triggers = Triggers::Missing("gone".into());
    assert_eq!(verdict.kind(), Kind::TtlOnly);
    assert_eq!(verdict.missing().map(|(r, why)| format!("{r} {why}")).collect::<Vec<_>>(), ["s.p gone"]);
    assert!(tags(&verdict, &[Some("1")]).is_empty());
    assert_eq!(wanted([&verdict]).len(), 2);
}

#[test]
fn nothing_is_wanted_for_a_query_that_events_cannot_keep_fresh() {
    let mut verdict = verdict(None, vec![member("t", 1, &[], &[])]);
    verdict.at_best = Kind::TtlOnly;
    verdict.dependencies[0].family[0].triggers = Triggers::Missing("gone".into());
    assert!(wanted([&verdict]).is_empty());
    assert_eq!(verdict.missing().count(), 0);
}

#[test]
fn triggers_of_several_queries_come_together_by_relation() {
    let one = verdict(Some(&[("b", 0)]), vec![member("t", 1, &["b"], &[])]);
    let two = verdict(Some(&[("a", 0)]), vec![member("t", 1, &["a"], &[]), member("a", 2, &[], &[])]);
    let three = verdict(None, vec![member("t", 1, &[], &[])]);
    let wanted = wanted([&one, &two, &three, &one]);
    let shown: Vec<_> = wanted.iter().map(|w| (w.relation, &*w.name, w.columns.clone())).collect();
    assert_eq!(shown, [(2, "a", vec![]), (1, "t", vec![texts(&["a"]), texts(&["b"])])]);
}

#[test]
fn a_closure_takes_in_another_once() {
    let mut closure = Closure { relations: vec![1, 3], ..Closure::default() };
    closure.extend(&Closure { relations: vec![2, 3], relation_names: texts(&["t"]), ..Closure::default() });
    assert_eq!((closure.relations, closure.relation_names), (vec![1, 2, 3], texts(&["t"])));
}

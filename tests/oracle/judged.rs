//! The judge over histories made by hand: both sides of the allowance, what is open, rolled back, deleted, moved, added up.

use std::collections::BTreeMap;
use std::time::Duration;

use super::history::{Commit, Demand, Histories, Key, Moment, Relation, ShownAndRolledBack, State};
use super::judge::{Answer, Fact, Filter, Label, Measure, Promised, Reader, Violation, judge, tells};

const ROW: Key = Key(Relation::Item, 1);
const OTHER: Key = Key(Relation::Item, 2);
const ALLOWANCE: Duration = ms(500);

const fn ms(n: u64) -> Moment {
    Duration::from_millis(n)
}

fn row(group: i64, version: i64) -> State {
    State::Row { group: Some(group), version }
}

fn histories() -> Histories {
    let mut histories = Histories::default();
    histories.initial(ROW, row(1, 10));
    histories.initial(OTHER, row(1, 10));
    histories
}

fn send(histories: &mut Histories, key: Key, state: State, sent: u64) -> Commit {
    histories.send(&BTreeMap::from([(key, state)]), ms(sent))
}

fn commit(histories: &mut Histories, key: Key, state: State, sent: u64, at: u64) {
    let commit = send(histories, key, state, sent);
    histories.committed(commit, ms(at));
}

fn shown(filter: Filter, shown: Option<i64>) -> Vec<Fact> {
    vec![Fact::Row { key: ROW, filter, shown }]
}

fn answer(reader: Reader, label: Label, sent: u64, received: u64, facts: Vec<Fact>) -> Answer {
    Answer { question: "q".into(), reader, label, sent: ms(sent), received: ms(received), facts }
}

fn ask(histories: &mut Histories, label: Label, sent: u64, received: u64, facts: Vec<Fact>) -> Option<Violation> {
    judge(histories, &answer(Reader::Bounded, label, sent, received, facts), Promised::within(ALLOWANCE))
}

fn hit(histories: &mut Histories, sent: u64, version: Option<i64>) -> Option<Violation> {
    ask(histories, Label::Hit, sent, sent + 1, shown(Filter::Any, version))
}

#[test]
fn a_hit_may_lack_a_write_for_the_allowance_and_not_a_moment_longer() {
    let mut histories = histories();
    commit(&mut histories, ROW, row(1, 11), 1_000, 1_001);
    assert_eq!(hit(&mut histories, 1_500, Some(10)), None, "499 ms after the acknowledgement");
    let wrong = hit(&mut histories, 1_501, Some(10)).expect("it is 500 ms old");
    assert!(wrong.to_string().contains("at least version 11 is demanded, visible 500ms before"), "{wrong}");
    assert!(wrong.to_string().contains("which was over 500ms before"), "{wrong}");
    assert_eq!(hit(&mut histories, 1_501, Some(11)), None);
}

#[test]
fn an_answer_that_waited_is_held_to_the_same() {
    let mut histories = histories();
    commit(&mut histories, ROW, row(1, 11), 1_000, 1_001);
    assert!(ask(&mut histories, Label::Filled, 1_500, 3_000, shown(Filter::Any, Some(10))).is_none());
    assert!(ask(&mut histories, Label::Filled, 1_501, 3_000, shown(Filter::Any, Some(10))).is_some());
}

#[test]
fn an_answer_that_says_it_is_old_may_be() {
    let mut histories = histories();
    commit(&mut histories, ROW, row(1, 11), 1_000, 1_001);
    assert_eq!(ask(&mut histories, Label::Stale, 9_000, 9_001, shown(Filter::Any, Some(10))), None);
}

#[test]
fn without_an_allowance_what_was_acknowledged_when_the_request_was_sent_is_there() {
    let mut histories = histories();
    commit(&mut histories, ROW, row(1, 11), 1_000, 1_001);
    let strict = |histories: &mut Histories, sent| {
        let answer = answer(Reader::Strict, Label::Hit, sent, sent + 1, shown(Filter::Any, Some(10)));
        judge(histories, &answer, Promised::within(Duration::ZERO))
    };
    assert_eq!(strict(&mut histories, 1_000), None);
    assert!(strict(&mut histories, 1_001).is_some());
}

#[test]
fn a_commit_without_an_answer_may_show_and_need_not() {
    let mut histories = histories();
    let open = send(&mut histories, ROW, row(1, 11), 1_000);
    assert_eq!(hit(&mut histories, 9_000, Some(10)), None);
    assert_eq!(hit(&mut histories, 9_001, Some(11)), None);
    // From then on it counts as visible, whatever its writer has heard.
    assert_eq!(hit(&mut histories, 9_501, Some(10)), None);
    assert!(hit(&mut histories, 9_502, Some(10)).is_some());
    assert_eq!(histories.rolled_back(open), Err(ShownAndRolledBack(ROW)));
}

#[test]
fn a_write_that_was_not_sent_or_was_rolled_back_is_shown_by_nobody() {
    let mut histories = histories();
    let open = send(&mut histories, ROW, row(1, 11), 1_000);
    assert!(ask(&mut histories, Label::Hit, 990, 999, shown(Filter::Any, Some(11))).is_some(), "before it was sent");
    assert_eq!(histories.rolled_back(open), Ok(()));
    assert!(hit(&mut histories, 1_010, Some(11)).is_some());
    assert_eq!(hit(&mut histories, 1_010, Some(10)), None);
}

#[test]
fn what_a_reader_was_shown_is_not_taken_back() {
    let mut histories = histories();
    let open = send(&mut histories, ROW, row(1, 11), 1_000);
    assert_eq!(ask(&mut histories, Label::Stale, 1_001, 1_002, shown(Filter::Any, Some(11))), None);
    histories.committed(open, ms(60_000));
    assert_eq!(hit(&mut histories, 1_501, Some(10)), None);
    assert!(hit(&mut histories, 1_502, Some(10)).is_some(), "its acknowledgement came late; the answer came before");
}

#[test]
fn a_row_that_was_deleted_or_moved_away_is_gone_in_time() {
    for gone in [State::Absent, row(2, 11), State::Row { group: None, version: 11 }] {
        let mut histories = histories();
        commit(&mut histories, ROW, gone, 1_000, 1_001);
        let group = |histories: &mut Histories, sent, version| {
            ask(histories, Label::Hit, sent, sent + 1, shown(Filter::Group(1), version))
        };
        assert_eq!(group(&mut histories, 1_500, Some(10)), None);
        assert!(group(&mut histories, 1_501, Some(10)).is_some());
        assert_eq!(group(&mut histories, 1_501, None), None);
    }
}

#[test]
fn a_row_that_came_back_is_judged_by_its_last_life() {
    let mut histories = histories();
    commit(&mut histories, ROW, State::Absent, 1_000, 1_001);
    commit(&mut histories, ROW, row(1, 12), 2_000, 2_001);
    assert_eq!(hit(&mut histories, 2_400, None), None, "within the allowance of its return");
    assert!(hit(&mut histories, 2_501, None).is_some());
    assert!(hit(&mut histories, 2_400, Some(10)).is_some(), "its first life is over for longer");
}

#[test]
fn totals_lie_between_the_least_and_the_greatest_that_could_be() {
    let total = |histories: &mut Histories, sent, measure, value| {
        let fact = Fact::Total { keys: vec![ROW, OTHER], filter: Filter::Any, measure, value };
        ask(histories, Label::Hit, sent, sent + 1, vec![fact]).is_none()
    };
    let mut histories = histories();
    commit(&mut histories, ROW, row(1, 15), 1_000, 1_001);
    for (value, holds) in [(19, false), (20, true), (25, true), (26, false)] {
        assert_eq!(total(&mut histories, 1_500, Measure::Sum, value), holds, "{value}");
    }
    for (value, holds) in [(24, false), (25, true), (26, false)] {
        assert_eq!(total(&mut histories, 1_501, Measure::Sum, value), holds, "{value}");
    }
    for (value, holds) in [(10, false), (15, true), (16, false)] {
        assert_eq!(total(&mut histories, 1_501, Measure::Max, value), holds, "{value}");
    }
    commit(&mut histories, OTHER, State::Absent, 2_000, 2_001);
    for (value, holds) in [(0, false), (1, true), (2, false)] {
        assert_eq!(total(&mut histories, 2_501, Measure::Count, value), holds, "{value}");
    }
}

#[test]
fn after_a_copy_of_an_earlier_time_was_restored_its_rows_are_the_right_ones() {
    let mut histories = histories();
    let copied = histories.copied();
    commit(&mut histories, ROW, row(1, 11), 1_000, 1_001);
    histories.replaced(&copied, ms(5_000), ms(5_010));
    assert_eq!(histories.current(ROW), row(1, 10));
    assert_eq!(hit(&mut histories, 5_509, Some(11)), None, "within the allowance");
    assert!(hit(&mut histories, 5_510, Some(11)).is_some());
    assert_eq!(hit(&mut histories, 5_510, Some(10)), None);
    assert_eq!(histories.past(OTHER).len(), 1, "what was the same has not changed");
}

/// Of a strict reader with a token.
fn after(histories: &mut Histories, own: Commit, sent: u64, received: u64, version: i64) -> Option<Violation> {
    let answer = answer(Reader::Strict, Label::Filled, sent, received, shown(Filter::Any, Some(version)));
    judge(histories, &answer, Promised { own: Some(own), ..Promised::within(Duration::ZERO) })
}

#[test]
fn who_brings_a_token_is_given_its_write_or_a_later_one_whenever_it_was_committed() {
    let mut histories = histories();
    let own = send(&mut histories, ROW, row(1, 11), 1_000);
    histories.committed(own, ms(1_001));
    assert!(after(&mut histories, own, 900, 1_000, 10).is_some(), "asked for while it ran, and not waited for");
    assert_eq!(after(&mut histories, own, 900, 1_000, 11), None);
    commit(&mut histories, ROW, row(1, 12), 2_000, 2_001);
    assert_eq!(after(&mut histories, own, 1_500, 2_000, 12), None);
    assert_eq!(after(&mut histories, own, 1_500, 2_000, 11), None);
    assert!(after(&mut histories, own, 2_001, 2_002, 11).is_some(), "it is as strict as others beside");
}

#[test]
fn a_token_of_a_history_that_is_lost_is_answered_in_it_or_not_at_all() {
    let mut histories = histories();
    let before = send(&mut histories, ROW, row(1, 11), 1_000);
    histories.committed(before, ms(1_001));
    let copied = histories.copied();
    let own = send(&mut histories, ROW, row(1, 12), 2_000);
    histories.committed(own, ms(2_001));
    assert_eq!(histories.lost(own), None);
    histories.replaced(&copied, ms(5_000), ms(5_010));
    assert!(histories.lost(own).is_some());
    assert_eq!(histories.lost(before), None, "the copy has it");
    assert_eq!(after(&mut histories, own, 4_000, 5_005, 12), None);
    assert!(after(&mut histories, own, 4_000, 5_005, 11).is_some(), "the copy lacks it");
    assert_eq!(after(&mut histories, before, 5_020, 5_025, 11), None);
    let strict = answer(Reader::Strict, Label::Filled, 4_000, 5_005, shown(Filter::Any, Some(11)));
    assert_eq!(judge(&mut histories, &strict, Promised::within(Duration::ZERO)), None, "who brings none is");
}

#[test]
fn an_answer_tells_where_a_bounded_one_might_have_lacked_what_it_was_judged_by() {
    let mut histories = histories();
    commit(&mut histories, ROW, row(1, 11), 1_000, 1_001);
    let told = |sent, filter| {
        tells(&histories, &answer(Reader::Strict, Label::Hit, sent, sent + 1, shown(filter, Some(11))), None, ALLOWANCE)
    };
    assert!(!told(1_000, Filter::Any), "not acknowledged when it was asked for");
    assert!(told(1_001, Filter::Any) && told(1_500, Filter::Any));
    assert!(!told(1_501, Filter::Any), "everybody must have it by now");
    assert!(!told(1_001, Filter::Group(2)), "of another group");
}

#[test]
fn what_is_forgotten_could_not_be_given_any_more() {
    let mut histories = histories();
    for n in 0..1_000 {
        commit(
            &mut histories,
            ROW,
            row(1, 100 + n),
            1_000 * u64::try_from(n).expect("positive"),
            1_000 * u64::try_from(n).expect("positive") + 1,
        );
    }
    assert!(histories.past(ROW).len() <= 257, "{}", histories.past(ROW).len());
    // A request that waits for a minute.
    let demand = Demand { needed: Some(ms(999_000 - 60_000)), own: None };
    assert_eq!(histories.window(ROW, demand, ms(999_000)).first().expect("a state").state, row(1, 100 + 938));
}

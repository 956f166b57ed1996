//! Both sides of each boundary, one at a time. What random histories make of all of it together is `tests/ledger_model.rs`.

use std::time::Duration;

use super::*;
use crate::clock::Moment;
use crate::stamp::{Lineage, Snapshot, Stamp};
use crate::tag::Tag;

mod required;

const BOUNDS: Bounds = Bounds { tags: 1000, xids: 10_000, listed: 3 };

fn snapshot(text: &str) -> Snapshot {
    Snapshot::parse(text).expect(text)
}

fn of(lineage: &str, text: &str) -> Stamp {
    Stamp { lineage: Lineage::new(lineage), snapshot: snapshot(text) }
}

fn stamp(text: &str) -> Stamp {
    of("a", text)
}

fn tag(text: &str) -> Tag {
    Tag::new(text)
}

fn poll_of(lineage: &str, text: &str, events: &[(u64, &str)]) -> Poll {
    Poll {
        sent: Moment::from_nanos(1_000),
        stamp: of(lineage, text),
        pruned: Some(100),
        events: events.iter().map(|&(xid, text)| Event { tag: tag(text), xid }).collect(),
        rows: Rows::All,
    }
}

fn poll(text: &str, events: &[(u64, &str)]) -> Poll {
    poll_of("a", text, events)
}

/// A ledger whose first poll saw everything below 100 and nothing else.
fn polled() -> Ledger {
    let ledger = Ledger::new(BOUNDS);
    assert_eq!(apply(&ledger, poll("100:100:", &[])), Applied::Events { tags: 0 });
    ledger
}

fn apply(ledger: &Ledger, poll: Poll) -> Applied {
    ledger.apply(&ledger.ask(), poll)
}

fn certifies(ledger: &Ledger, text: &str, tags: &[&str]) -> bool {
    let tags: Vec<Tag> = tags.iter().map(|text| tag(text)).collect();
    ledger.certify(&stamp(text), &tags)
}

#[test]
fn nothing_certifies_before_a_lineage_is_known_or_after_it_was_replaced() {
    let ledger = Ledger::default();
    assert!(!ledger.certify(&stamp("5:5:"), &[]));
    assert_eq!(ledger.adopt(&Lineage::new("a")), Adopted::First);
    assert!(ledger.certify(&stamp("5:5:"), &[]));
    let version = ledger.version();
    assert_eq!(ledger.adopt(&Lineage::new("a")), Adopted::Same);
    assert_eq!(ledger.version(), version);
    assert_eq!(ledger.adopt(&Lineage::new("b")), Adopted::Replaced);
    assert!(ledger.version() > version);
    assert!(!ledger.certify(&stamp("5:5:"), &[]));
}

#[test]
fn an_event_refuses_what_lacks_it_and_nothing_else() {
    let ledger = polled();
    assert_eq!(apply(&ledger, poll("106:106:", &[(105, "t:id=1")])), Applied::Events { tags: 1 });
    assert!(!certifies(&ledger, "105:105:", &["t:id=1"]));
    assert!(certifies(&ledger, "105:105:", &["t:id=2"]), "another row");
    assert!(certifies(&ledger, "100:106:100", &["t:id=1"]), "it was read after the write");
    assert!(!certifies(&ledger, "105:107:105", &["t:id=1"]), "it was read while the writer ran");
}

#[test]
fn an_event_of_everything_refuses_whatever_lacks_it_and_nothing_else() {
    let ledger = polled();
    assert_eq!(apply(&ledger, poll("106:106:", &[(103, "*")])), Applied::Events { tags: 1 });
    assert!(!certifies(&ledger, "103:103:", &["t"]));
    assert!(!certifies(&ledger, "103:103:", &[]));
    assert!(certifies(&ledger, "104:104:", &["t"]), "before the poll, after the event");
    assert!(!ledger.required(&[]).met_by(&stamp("103:103:")));
}

#[test]
fn a_late_event_costs_nobody_who_has_it() {
    let ledger = polled();
    apply(&ledger, poll("101:106:101", &[(105, "t")]));
    assert!(certifies(&ledger, "101:106:101", &["t"]));
    apply(&ledger, poll("106:106:", &[(101, "t")]));
    assert!(!certifies(&ledger, "101:106:101", &["t"]), "101 ended since");
    assert!(certifies(&ledger, "106:106:", &["t"]));
    assert!(
        !certifies(&ledger, "101:105:101", &["t"]),
        "105 is implied by 101, which ended after the cursor that saw 105"
    );
}

#[test]
fn an_event_that_its_own_poll_does_not_see_is_left_for_the_next() {
    let ledger = polled();
    assert_eq!(apply(&ledger, poll("105:106:105", &[(105, "t"), (106, "t")])), Applied::Events { tags: 0 });
    assert!(certifies(&ledger, "105:105:", &["t"]));
    assert_eq!(apply(&ledger, poll("107:107:", &[(105, "t"), (106, "t")])), Applied::Events { tags: 1 });
    assert!(!certifies(&ledger, "105:107:105", &["t"]));
    assert!(!certifies(&ledger, "106:106:", &["t"]));
}

#[test]
fn a_batch_up_to_the_bound_is_exact_and_one_above_is_a_barrier() {
    for (xids, exact) in [(101..104, true), (101..105, false)] {
        let ledger = polled();
        let events: Vec<_> = xids.map(|xid| (xid, "t")).collect();
        apply(&ledger, poll("110:110:", &events));
        assert_eq!(certifies(&ledger, "105:109:106", &["t"]), exact, "it has them all, and not what the poll saw");
        assert!(!certifies(&ledger, "103:103:", &["t"]));
        assert!(certifies(&ledger, "110:110:", &["t"]));
    }
}

#[test]
fn a_list_that_grows_one_by_one_becomes_a_barrier_at_the_same_bound() {
    let ledger = polled();
    for claimed in 101..104 {
        ledger.invalidate(&stamp("110:110:"), Some(claimed), &[tag("t")]);
    }
    assert_eq!(ledger.xids(), 3);
    assert!(certifies(&ledger, "105:109:106", &["t"]), "it has them all");
    ledger.invalidate(&stamp("110:110:"), Some(104), &[tag("t")]);
    assert_eq!(ledger.xids(), 0);
    assert!(!certifies(&ledger, "105:109:106", &["t"]) && certifies(&ledger, "110:110:", &["t"]));
}

#[test]
fn a_barrier_is_met_by_what_was_read_after_it_while_an_old_writer_runs_on() {
    let ledger = polled();
    assert_eq!(ledger.invalidate(&stamp("100:108:100"), None, &[tag("t")]), Invalidated::Barred);
    assert!(!certifies(&ledger, "100:107:100", &["t"]));
    assert!(certifies(&ledger, "100:108:100", &["t"]));
    assert!(certifies(&ledger, "100:107:100", &["u"]));
    let version = ledger.version();
    ledger.invalidate(&stamp("100:105:100"), None, &[tag("t")]);
    assert_eq!(ledger.version(), version, "an older barrier changes nothing");
    assert!(!certifies(&ledger, "100:107:100", &["t"]));
}

#[test]
fn a_late_barrier_drops_no_event_that_it_does_not_see() {
    for name in ["*", "t"] {
        let ledger = polled();
        apply(&ledger, poll("111:111:", &[(109, name)]));
        ledger.invalidate(&stamp("109:111:109"), None, &[tag(name)]);
        assert!(!certifies(&ledger, "109:111:109", &["t"]), "{name}: it lacks 109");
        assert!(certifies(&ledger, "111:111:", &["t"]), "{name}");
        ledger.invalidate(&stamp("111:111:"), None, &[tag(name)]);
        assert!(!certifies(&ledger, "109:111:109", &["t"]) && certifies(&ledger, "111:111:", &["t"]), "{name}");
    }
}

#[test]
fn an_invalidation_of_another_history_is_refused_and_of_the_first_is_not_lost() {
    assert_eq!(polled().invalidate(&of("b", "9:9:"), None, &[tag("t")]), Invalidated::OtherHistory);
    let ledger = Ledger::new(BOUNDS);
    assert_eq!(ledger.flush(&stamp("9:9:")), Invalidated::Barred);
    ledger.adopt(&Lineage::new("a"));
    assert!(!certifies(&ledger, "8:8:", &[]), "a fill that was sent before");
    assert!(certifies(&ledger, "9:9:", &[]));
}

#[test]
fn a_claimed_transaction_is_believed_within_its_window_only() {
    let far = 1u64 << 33;
    let window = far - (1 << 31);
    let text = format!("{far}:{}:{}", far + 10, far + 5);
    for (claimed, what) in [
        (window + 1, Invalidated::Exactly),
        (window, Invalidated::Barred),
        (far + 9, Invalidated::Exactly),
        (far + 10, Invalidated::Barred),
        (far + 5, Invalidated::Barred),
    ] {
        let ledger = Ledger::new(BOUNDS);
        apply(&ledger, poll(&format!("{far}:{far}:"), &[]));
        let after = stamp(&text);
        assert_eq!(ledger.invalidate(&after, Some(claimed), &[tag("t")]), what, "{claimed}");
        assert!(certifies(&ledger, &format!("{far}:{}:", far + 10), &["t"]));
        let has_it = format!("{far}:{}:", far + 10 - u64::from(claimed != far + 9));
        assert_eq!(certifies(&ledger, &has_it, &["t"]), what == Invalidated::Exactly, "{claimed}");
    }
    assert_eq!(Ledger::new(BOUNDS).invalidate(&stamp("9:9:"), Some(8), &[tag("t")]), Invalidated::Barred, "no cursor");
}

#[test]
fn a_claimed_transaction_outlasts_polls_that_have_not_seen_it() {
    let ledger = polled();
    assert_eq!(ledger.invalidate(&stamp("101:106:101"), Some(105), &[tag("t")]), Invalidated::Exactly);
    // Sent before 105 ended: it brings 103, and a stamp that sees 103 need not see 105.
    apply(&ledger, poll("101:104:101", &[(103, "t")]));
    assert!(!certifies(&ledger, "101:104:101", &["t"]));
    apply(&ledger, poll("101:106:101", &[(105, "t")]));
    apply(&ledger, poll("106:106:", &[(101, "t")]));
    assert!(!certifies(&ledger, "101:106:101", &["t"]));
    assert!(certifies(&ledger, "106:106:", &["t"]));
}

#[test]
fn r5_a_gap_is_where_pruning_passed_what_the_cursor_sees() {
    let running = |pruned: u64| {
        let ledger = polled();
        apply(&ledger, poll("103:110:103", &[]));
        let applied = apply(&ledger, Poll { pruned: Some(pruned), ..poll("120:120:", &[(115, "t")]) });
        (applied, certifies(&ledger, "119:119:", &["u"]), certifies(&ledger, "120:120:", &["u"]))
    };
    assert_eq!(running(103), (Applied::Events { tags: 1 }, true, true));
    assert_eq!(running(104), (Applied::Gap, false, true), "103 may have been pruned unseen");
    let still = polled();
    assert_eq!(apply(&still, Poll { pruned: Some(100), ..poll("120:120:", &[]) }), Applied::Events { tags: 0 });
    assert_eq!(apply(&still, Poll { pruned: Some(121), ..poll("130:130:", &[]) }), Applied::Gap);
}

#[test]
fn a_flood_is_a_flush_and_the_stream_goes_on_after_it() {
    let ledger = polled();
    let flood = Poll { rows: Rows::More, ..poll("110:110:", &[(105, "t")]) };
    assert_eq!(apply(&ledger, flood), Applied::Flood);
    assert!(!certifies(&ledger, "109:109:", &["u"]));
    assert!(certifies(&ledger, "110:110:", &["t"]));
    assert_eq!(ledger.cursor(), Some(snapshot("110:110:")));
    apply(&ledger, poll("120:120:", &[(115, "t")]));
    assert!(!certifies(&ledger, "110:110:", &["t"]) && certifies(&ledger, "110:110:", &["u"]));
}

#[test]
fn a_first_poll_takes_the_logs_horizon_and_what_was_flushed_before_it_stays_flushed() {
    let ledger = polled();
    assert!(certifies(&ledger, "100:100:", &["t"]), "a value of another pod, older than this one");
    assert!(!certifies(&ledger, "99:99:", &["t"]));
    let ledger = Ledger::new(BOUNDS);
    ledger.flush(&stamp("105:105:"));
    apply(&ledger, poll("110:110:", &[(107, "t")]));
    assert!(!certifies(&ledger, "104:104:", &["u"]));
    assert!(certifies(&ledger, "105:105:", &["u"]) && !certifies(&ledger, "105:105:", &["t"]));
    let no_log = Ledger::new(BOUNDS);
    apply(&no_log, Poll { pruned: None, ..poll("110:110:", &[]) });
    assert!(!certifies(&no_log, "109:109:", &[]) && certifies(&no_log, "110:110:", &[]));
}

#[test]
fn a_poll_counts_only_for_the_cursor_that_it_was_asked_with() {
    let ledger = polled();
    let asked = ledger.ask();
    apply(&ledger, poll("120:120:", &[]));
    let version = ledger.version();
    assert_eq!(ledger.apply(&asked, poll("110:110:", &[(105, "t")])), Applied::Superseded);
    assert_eq!((ledger.version(), ledger.cursor()), (version, Some(snapshot("120:120:"))));
}

#[test]
fn a_poll_that_does_not_cover_the_cursor_is_of_another_history_and_is_not_applied() {
    let ledger = polled();
    apply(&ledger, poll("110:120:110", &[]));
    let late = Moment::from_nanos(9_000);
    for text in ["110:119:110", "110:121:110,112"] {
        let other = Poll { sent: late, ..poll(text, &[(105, "t")]) };
        assert_eq!(apply(&ledger, other), Applied::OtherHistory, "{text}");
    }
    assert_eq!(ledger.lag(late), Some(Duration::from_micros(8)), "it doesn't count as a poll");
    assert!(certifies(&ledger, "100:100:", &["t"]));
    assert_eq!(apply(&ledger, poll("110:120:110", &[])), Applied::Events { tags: 0 }, "the same again covers it");
}

#[test]
fn a_new_lineage_begins_anew_and_fills_cannot_bring_the_old_one_back() {
    let ledger = polled();
    apply(&ledger, poll("110:110:", &[(105, "t")]));
    assert_eq!(ledger.adopt(&Lineage::new("b")), Adopted::Refused);
    assert_eq!(ledger.adopt(&Lineage::new("a")), Adopted::Same);
    let asked = ledger.ask();
    assert_eq!(ledger.apply(&asked, poll_of("b", "50:50:", &[(45, "t")])), Applied::NewHistory);
    assert!(!certifies(&ledger, "110:110:", &["t"]));
    assert!(!ledger.certify(&of("b", "49:49:"), &[tag("u")]), "older than what it began with");
    assert!(ledger.certify(&of("b", "50:50:"), &[tag("t")]));
    assert_eq!(ledger.adopt(&Lineage::new("a")), Adopted::Refused);
    assert_eq!(ledger.tags(), 0);
    assert_eq!(ledger.apply(&asked, poll_of("b", "60:60:", &[])), Applied::Superseded);
}

#[test]
fn a_first_poll_of_another_history_than_fills_found_is_believed_at_once() {
    let ledger = Ledger::new(BOUNDS);
    ledger.adopt(&Lineage::new("b"));
    let asked = ledger.ask();
    assert_eq!(ledger.apply(&asked, poll("110:110:", &[(105, "t")])), Applied::Events { tags: 1 });
    assert!(certifies(&ledger, "106:106:", &["t"]) && !certifies(&ledger, "105:105:", &["t"]));
}

#[test]
fn what_was_announced_in_a_history_that_fills_left_and_found_again_is_not_forgiven() {
    let ledger = Ledger::new(BOUNDS);
    ledger.adopt(&Lineage::new("a"));
    let asked = ledger.ask();
    ledger.invalidate(&stamp("110:110:"), None, &[tag("t")]);
    for lineage in ["b", "a"] {
        assert_eq!(ledger.adopt(&Lineage::new(lineage)), Adopted::Replaced);
    }
    assert_eq!(ledger.apply(&asked, poll("108:108:", &[])), Applied::Superseded, "read before it was announced");
    apply(&ledger, poll("112:112:", &[]));
    assert!(!certifies(&ledger, "109:109:", &["t"]), "the log says nothing of it");
    assert!(certifies(&ledger, "112:112:", &["t"]));
    ledger.forgo_stream();
    assert_eq!(ledger.adopt(&Lineage::new("a")), Adopted::First);
    apply(&ledger, poll("114:114:", &[]));
    assert!(!certifies(&ledger, "113:113:", &["t"]) && certifies(&ledger, "114:114:", &["t"]));
}

#[test]
fn the_version_rises_with_what_is_required_and_not_with_every_poll() {
    let ledger = polled();
    let version = ledger.version();
    apply(&ledger, poll("110:110:", &[]));
    assert_eq!(ledger.version(), version);
    apply(&ledger, poll("111:111:", &[(110, "t")]));
    assert_eq!(ledger.version(), version + 1);
    apply(&ledger, poll("111:111:", &[(110, "t"), (110, "t")]));
    assert_eq!(ledger.version(), version + 1, "known already");
    ledger.flush(&stamp("111:111:"));
    assert_eq!(ledger.version(), version + 2);
    ledger.flush(&stamp("111:111:"));
    assert_eq!(ledger.version(), version + 2, "flushed already");
}

#[test]
fn r6_blind_is_older_than_max_lag_and_whoever_was_never_polled() {
    let (sent, lag) = (Moment::from_nanos(1_000), Duration::from_nanos(500));
    let ledger = Ledger::new(BOUNDS);
    assert!(!ledger.follows());
    assert_eq!(ledger.version_unless_blind(sent, Duration::ZERO), Some(0), "nobody is to be silent");
    ledger.expect_stream();
    assert!(ledger.follows());
    assert_eq!((ledger.lag(sent), ledger.version_unless_blind(sent, lag)), (None, None));
    assert_eq!(ledger.version_unless_blind(sent, Duration::MAX), Some(0), "what lives by its ttl");
    apply(&ledger, poll("100:100:", &[]));
    assert_eq!(ledger.lag(sent + lag), Some(lag));
    assert_eq!(ledger.version_unless_blind(sent + lag, lag), Some(ledger.version()));
    assert_eq!(ledger.version_unless_blind(sent + lag + Duration::from_nanos(1), lag), None);
    ledger.expect_stream();
    assert_eq!(ledger.lag(sent), Some(Duration::ZERO), "followed already");
}

#[test]
fn without_its_stream_a_ledger_forgets_what_it_knew() {
    let ledger = polled();
    let version = ledger.version();
    assert!(certifies(&ledger, "100:100:", &["t"]));
    ledger.forgo_stream();
    assert!(ledger.version() > version && !certifies(&ledger, "100:100:", &["t"]));
    assert_eq!(ledger.adopt(&Lineage::new("b")), Adopted::First, "fills say again which history it is");
    let version = ledger.version();
    ledger.forgo_stream();
    assert_eq!(ledger.version(), version, "it has none");
    let ledger = Ledger::new(BOUNDS);
    ledger.expect_stream();
    ledger.adopt(&Lineage::new("a"));
    ledger.forgo_stream();
    assert!(certifies(&ledger, "5:5:", &["t"]), "nothing was known that could be lost");
}

#[test]
fn an_answer_is_outdated_since_the_version_after_the_last_that_it_was_certified_at() {
    fn at(nanos: u64, text: &str, events: &[(u64, &str)]) -> Poll {
        Poll { sent: Moment::from_nanos(nanos), ..poll(text, events) }
    }
    let ledger = Ledger::new(BOUNDS);
    apply(&ledger, at(1_000, "100:100:", &[]));
    apply(&ledger, at(2_000, "106:106:", &[(105, "t")]));
    let version = ledger.version();
    let now = Moment::from_nanos(9_000);
    assert_eq!(ledger.outdated_for(version, now), None, "it is not");
    apply(&ledger, at(3_000, "111:111:", &[(110, "t")]));
    apply(&ledger, at(4_000, "116:116:", &[(115, "t")]));
    // What a poll brings was not there when the poll before was sent.
    assert_eq!(ledger.outdated_for(version, now), Some(Duration::from_micros(7)));
    assert_eq!(ledger.outdated_for(version + 1, now), Some(Duration::from_micros(6)));
    for n in 0..1_020_u64 {
        apply(&ledger, at(5_000, &format!("{0}:{0}:", 120 + n), &[(119 + n, "t")]));
    }
    assert_eq!(ledger.version(), version + 1_022);
    assert_eq!(ledger.outdated_for(version, now), Some(Duration::from_micros(7)), "just remembered");
    apply(&ledger, at(5_000, "9999:9999:", &[(9998, "t")]));
    assert_eq!(ledger.outdated_for(version, now), Some(Duration::from_micros(7)));
    apply(&ledger, at(5_000, "10000:10000:", &[(9999, "t")]));
    assert_eq!(ledger.outdated_for(version, now), None, "too long ago");
}

#[test]
fn beyond_the_bound_of_tags_the_oldest_is_forgotten_and_the_horizon_stands_for_it() {
    let ledger = Ledger::new(Bounds { tags: 2, ..BOUNDS });
    apply(&ledger, poll("100:100:", &[]));
    apply(&ledger, poll("106:106:", &[(105, "t")]));
    apply(&ledger, poll("111:111:", &[(110, "u")]));
    assert!(certifies(&ledger, "105:105:", &["v"]), "two are kept");
    apply(&ledger, poll("116:116:", &[(115, "w")]));
    assert_eq!(ledger.tags(), 2);
    assert!(!certifies(&ledger, "105:105:", &["t"]), "forgotten, and not lost");
    assert!(!certifies(&ledger, "105:105:", &["v"]), "that is its price");
    assert!(certifies(&ledger, "106:106:", &["v"]));
    assert!(!certifies(&ledger, "106:106:", &["u"]));
    apply(&ledger, poll("121:121:", &[(120, "u")]));
    apply(&ledger, poll("126:126:", &[(125, "x")]));
    assert!(
        !certifies(&ledger, "115:115:", &["v"]) && certifies(&ledger, "116:116:", &["v"]),
        "w was the oldest, not u"
    );
}

#[test]
fn what_stands_behind_a_tag_counts_among_the_transaction_ids() {
    let ledger = Ledger::new(Bounds { xids: 4, ..BOUNDS });
    apply(&ledger, poll("100:100:", &[]));
    apply(&ledger, poll("101:106:101,102", &[(105, "t"), (104, "u")]));
    assert_eq!(ledger.xids(), 4, "two listed, two running in the one snapshot of both");
    apply(&ledger, poll("101:107:101,102", &[(106, "t")]));
    assert_eq!(ledger.xids(), 3, "u was the oldest, and would have made six");
    assert!(!certifies(&ledger, "100:100:", &["v"]));
    ledger.invalidate(&stamp("107:107:"), None, &[tag("t")]);
    assert_eq!((ledger.xids(), ledger.tags()), (0, 1), "a barrier with nobody running");
}

#[test]
fn a_flush_makes_what_is_known_redundant_and_it_is_swept_by_and_by() {
    let ledger = Ledger::new(BOUNDS);
    let names: Vec<String> = (0..100).map(|n| format!("t:{n}")).collect();
    let events: Vec<_> = names.iter().map(|name| (105, name.as_str())).collect();
    apply(&ledger, poll("106:106:", &events));
    assert_eq!(ledger.tags(), 100);
    ledger.flush(&stamp("106:106:"));
    assert!(ledger.tags() > 50, "at once it costs little");
    for _ in 0..10 {
        apply(&ledger, poll("106:106:", &[]));
    }
    assert_eq!((ledger.tags(), ledger.xids()), (0, 0));
    assert!(!certifies(&ledger, "105:105:", &["t:7"]));
}

#[test]
fn snapshots_that_no_primary_gave_lose_nothing() {
    let ledger = polled();
    ledger.invalidate(&stamp("105:110:105"), None, &[tag("t")]);
    ledger.invalidate(&stamp("104:110:104"), None, &[tag("t")]);
    assert!(!certifies(&ledger, "105:110:105", &["t"]) && !certifies(&ledger, "104:110:104", &["t"]));
    assert!(certifies(&ledger, "110:110:", &["t"]));
}

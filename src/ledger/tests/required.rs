//! R3: what a reader requires, and which flights are sure to meet it.

use super::*;

#[test]
fn r3_only_a_flight_sent_at_or_after_what_is_required_is_sure() {
    let ledger = polled();
    let tags = [tag("t")];
    let before = ledger.required(&tags);
    apply(&ledger, poll("106:106:", &[(105, "t")]));
    let event = ledger.required(&tags);
    assert!(!event.sure_of(&before), "it may have been read before 105 ended");
    assert!(before.sure_of(&event) && event.sure_of(&event));
    assert!(!event.met_by(&stamp("105:105:")) && event.met_by(&stamp("106:106:")));
    apply(&ledger, poll("111:111:", &[(110, "t")]));
    let later = ledger.required(&tags);
    assert!(event.sure_of(&later), "105 is in no list any more, and seen by the cursor");
    ledger.invalidate(&stamp("111:113:111"), None, &tags);
    let barred = ledger.required(&tags);
    assert!(!barred.sure_of(&later) && barred.sure_of(&barred));
    ledger.flush(&stamp("111:115:111"));
    let flushed = ledger.required(&tags);
    assert!(!flushed.sure_of(&barred) && barred.sure_of(&flushed));
    let token = ledger.required(&tags).and(114);
    assert!(token.sure_of(&flushed), "the flush saw it");
    assert!(!ledger.required(&tags).and(116).sure_of(&flushed));
}

#[test]
fn r3_forgetting_makes_no_flight_unsure_that_was_sent_after_the_event() {
    let ledger = Ledger::new(Bounds { tags: 1, ..BOUNDS });
    apply(&ledger, poll("100:100:", &[]));
    apply(&ledger, poll("106:106:", &[(105, "t")]));
    let sent = ledger.required(&[tag("t")]);
    apply(&ledger, poll("111:111:", &[(110, "u")]));
    assert!(ledger.required(&[tag("t")]).sure_of(&sent), "the horizon rose to a snapshot that it had");
}

#[test]
fn r3_across_histories_what_was_required_is_moot_and_a_cold_start_is_joined() {
    let ledger = Ledger::default();
    let first = ledger.required(&[]);
    ledger.adopt(&Lineage::new("a"));
    let before = ledger.required(&[]);
    assert!(before.sure_of(&first), "a cold start's flights are joined, whichever lands first");
    ledger.adopt(&Lineage::new("b"));
    let after = ledger.required(&[]);
    assert!(after.sure_of(&after) && !before.sure_of(&after) && !after.sure_of(&before));
    assert!(ledger.accepts(&after, &of("b", "5:5:")) && !ledger.accepts(&after, &of("a", "5:5:")));
    assert!(ledger.accepts(&before, &of("b", "5:5:")), "what was required of a history that is gone is moot");
    let ledger = Ledger::default();
    let first = ledger.required(&[tag("t")]);
    apply(&ledger, poll("106:106:", &[(105, "t")]));
    assert!(!ledger.required(&[tag("t")]).sure_of(&first), "sent before anything was known");
}

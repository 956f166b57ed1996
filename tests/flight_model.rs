//! Flights under shuttle: `src/cache/flight.rs` itself, compiled against shuttle's synchronisation, under random
//! interleavings. A failing schedule is printed, and `shuttle::replay` replays it.
//!
//! `SEAWALL_SHUTTLE_ITERATIONS` sets how many schedules each test tries (default 2,000; `make soak` sets more).
//! Not covered: the fill itself, deadlines, and what the read path does with an end; real tests do that.

#[path = "../src/cache"]
mod cache {
    mod shim {
        pub(super) use shuttle::sync::atomic::{AtomicUsize, Ordering};
        pub(super) use shuttle::sync::{Arc, Mutex, MutexGuard};
    }

    #[allow(dead_code, missing_docs)]
    pub(super) mod flight;
}

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cache::flight::{End, Flights, Join, Lead, Wait};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::{future, thread};

type Table = Flights<u8, u32, u32>;

fn check(test: impl Fn() + Send + Sync + 'static) {
    let iterations =
        std::env::var("SEAWALL_SHUTTLE_ITERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000usize);
    shuttle::check_random(test, iterations);
}

/// Joins, leading with `fill` in a task of its own where nobody does.
fn join(
    table: &std::sync::Arc<Table>,
    fills: &Arc<AtomicUsize>,
    sure: impl Fn(&u32) -> bool,
) -> Option<Wait<u8, u32, u32>> {
    match table.join(&1, sure) {
        Join::Leader(lead, wait) => {
            let fills = Arc::clone(fills);
            thread::spawn(move || {
                fills.fetch_add(1, Ordering::SeqCst);
                lead.sending().sent(7);
                lead.land(42);
            });
            Some(wait)
        }
        Join::Follower(wait) | Join::Blocked(wait) => Some(wait),
        Join::Full => None,
    }
}

fn ended<T: Clone>(wait: Wait<u8, u32, T>) -> End<T> {
    future::block_on(wait)
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn every_reader_gets_the_outcome_and_the_table_is_empty_afterwards() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(10, 2);
        let fills = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (table, fills) = (std::sync::Arc::clone(&table), Arc::clone(&fills));
                thread::spawn(move || {
                    let wait = join(&table, &fills, |_| true).expect("there is room");
                    assert_eq!(ended(wait), End::Landed(42));
                })
            })
            .collect();
        for reader in readers {
            reader.join().expect("no reader panics");
        }
        let n = fills.load(Ordering::SeqCst);
        assert!((1..=3).contains(&n), "{n} fills");
        assert_eq!((table.waiting(), table.flying()), (0, 0));
    });
}

#[test]
fn readers_that_come_before_it_lands_share_one_fill() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(10, 1);
        let Join::Leader(lead, first) = table.join(&1, |_| true) else { panic!("nobody flies") };
        let joined = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (table, joined) = (std::sync::Arc::clone(&table), Arc::clone(&joined));
                thread::spawn(move || {
                    let Join::Follower(wait) = table.join(&1, |_| true) else { panic!("it flies") };
                    joined.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(ended(wait), End::Landed(5));
                })
            })
            .collect();
        let leader = thread::spawn(move || {
            while joined.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
            assert_eq!(lead.waiters(), 3);
            lead.land(5);
        });
        assert_eq!(ended(first), End::Landed(5));
        for reader in readers {
            reader.join().expect("no reader panics");
        }
        leader.join().expect("no leader panics");
        assert_eq!((table.waiting(), table.flying()), (0, 0));
    });
}

#[test]
fn a_leader_that_is_dropped_aborts_everybody() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(10, 1);
        let Join::Leader(lead, first) = table.join(&1, |_| true) else { panic!("nobody flies") };
        let Join::Follower(second) = table.join(&1, |_| true) else { panic!("it flies") };
        let leader = thread::spawn(move || drop(lead));
        let other = thread::spawn(move || assert_eq!(ended(second), End::Aborted));
        assert_eq!(ended(first), End::Aborted);
        other.join().expect("no reader panics");
        leader.join().expect("no leader panics");
        assert!(matches!(table.join(&1, |_| true), Join::Leader(..)), "the next reader leads");
    });
}

#[test]
fn abandoned_resolves_only_when_nobody_is_left_and_then_nobody_can_join() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(10, 1);
        let Join::Leader(lead, first) = table.join(&1, |_| true) else { panic!("nobody flies") };
        let leaver = thread::spawn(move || drop(first));
        let comer = {
            let table = std::sync::Arc::clone(&table);
            thread::spawn(move || match table.join(&1, |_| true) {
                // In time: the flight is wanted again, and this reader gets its outcome.
                Join::Follower(wait) => Some(ended(wait)),
                // Too late: it leads its own.
                Join::Leader(lead, wait) => {
                    lead.land(9);
                    assert_eq!(ended(wait), End::Landed(9));
                    None
                }
                Join::Blocked(_) | Join::Full => panic!("one flight and room"),
            })
        };
        let leader = thread::spawn(move || {
            leaver.join().expect("leaving doesn't panic");
            let abandoned = poll_once(&mut Box::pin(lead.abandoned())).is_ready();
            lead.land(3);
            abandoned
        });
        let got = comer.join().expect("no reader panics");
        let abandoned = leader.join().expect("no leader panics");
        assert!(got.as_ref().is_none_or(|end| *end == End::Landed(3)));
        // Whoever joined as a follower had joined before the flight was abandoned, or it was not.
        assert!(!(abandoned && got.is_some()), "an abandoned flight had a follower");
        assert_eq!((table.waiting(), table.flying()), (0, 0));
    });
}

#[test]
fn a_leader_that_waits_to_be_abandoned_is_woken() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(10, 1);
        let Join::Leader(lead, first) = table.join(&1, |_| true) else { panic!("nobody flies") };
        let leader = thread::spawn(move || {
            future::block_on(lead.abandoned());
            drop(lead);
        });
        drop(first);
        leader.join().expect("woken");
        assert_eq!((table.waiting(), table.flying()), (0, 0));
    });
}

#[test]
fn the_end_of_an_abandoned_flight_leaves_its_successor_alone() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(10, 1);
        let Join::Leader(former, gone) = table.join(&1, |_| true) else { panic!("nobody flies") };
        drop(gone);
        let Join::Leader(lead, first) = table.join(&1, |_| true) else { panic!("the former is abandoned") };
        let former = thread::spawn(move || former.land(1));
        let comer = {
            let table = std::sync::Arc::clone(&table);
            thread::spawn(move || {
                let Join::Follower(wait) = table.join(&1, |_| true) else { panic!("its successor flies") };
                ended(wait)
            })
        };
        former.join().expect("landing in vain doesn't panic");
        let Join::Follower(second) = table.join(&1, |_| true) else { panic!("its successor flies") };
        let successor = thread::spawn(move || {
            while lead.waiters() < 3 {
                thread::yield_now();
            }
            lead.land(2);
        });
        assert_eq!(ended(first), End::Landed(2));
        assert_eq!(ended(second), End::Landed(2));
        assert_eq!(comer.join().expect("no reader panics"), End::Landed(2));
        successor.join().expect("no leader panics");
        assert_eq!((table.waiting(), table.flying()), (0, 0));
    });
}

#[test]
fn a_refresh_goes_on_without_waiters() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(10, 1);
        let lead = table.refresh(&1).expect("nobody flies");
        assert!(table.refresh(&1).is_none(), "one refresh at a time");
        let Join::Follower(wait) = table.join(&1, |_| true) else { panic!("it flies") };
        let leaver = thread::spawn(move || drop(wait));
        let leader = thread::spawn(move || {
            assert!(poll_once(&mut Box::pin(lead.abandoned())).is_pending());
            lead.land(1);
        });
        leaver.join().expect("leaving doesn't panic");
        leader.join().expect("no leader panics");
        assert_eq!(table.flying(), 0);
    });
}

#[test]
fn a_reader_that_leaves_and_wants_it_to_go_on_keeps_the_flight_from_being_abandoned() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(10, 1);
        let Join::Leader(lead, patient) = table.join(&1, |_| true) else { panic!("nobody flies") };
        let Join::Follower(other) = table.join(&1, |_| true) else { panic!("it flies") };
        let leavers = [thread::spawn(move || patient.leave_running()), thread::spawn(move || drop(other))];
        for leaver in leavers {
            leaver.join().expect("leaving doesn't panic");
        }
        assert!(poll_once(&mut Box::pin(lead.abandoned())).is_pending());
        assert!(matches!(table.join(&1, |_| true), Join::Follower(_)), "it can still be joined");
        lead.land(1);
        assert_eq!((table.waiting(), table.flying()), (0, 0));
    });
}

#[test]
fn who_may_only_follow_never_leads_and_gets_the_outcome_of_whom_it_follows() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(2, 1);
        assert!(table.follow(&1, |_| true).is_none());
        assert_eq!(table.waiting(), 0, "a place that is not taken is free again");
        let Join::Leader(lead, first) = table.join(&1, |_| true) else { panic!("nobody flies") };
        lead.sending().sent(1);
        assert!(table.follow(&1, |&known| known >= 2).is_none(), "it is sent, and not sure");
        let follower = {
            let table = std::sync::Arc::clone(&table);
            thread::spawn(move || {
                // Or it had landed before.
                if let Some(wait) = table.follow(&1, |_| true) {
                    assert_eq!(ended(wait), End::Landed(5));
                }
            })
        };
        let leader = thread::spawn(move || lead.land(5));
        assert_eq!(ended(first), End::Landed(5));
        follower.join().expect("no reader panics");
        leader.join().expect("no leader panics");
        assert_eq!((table.waiting(), table.flying()), (0, 0));
    });
}

#[test]
fn r3_at_most_two_flights_per_key_and_a_reader_that_neither_suits_waits_for_one_to_end() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(10, 1);
        let lead_of = |join: Join<u8, u32, u32>| -> (Lead<u8, u32, u32>, Wait<u8, u32, u32>) {
            let Join::Leader(lead, wait) = join else { panic!("this reader leads") };
            (lead, wait)
        };
        let (first, first_wait) = lead_of(table.join(&1, |_| true));
        first.sending().sent(1);
        let (second, second_wait) = lead_of(table.join(&1, |&known| known >= 2));
        // Not sent yet: whoever comes joins it, whatever they require.
        let Join::Follower(third_wait) = table.join(&1, |&known| known >= 9) else { panic!("it is not sent") };
        second.sending().sent(2);
        assert!(matches!(table.join(&1, |&known| known >= 2), Join::Follower(_)), "sure of the second");
        let Join::Blocked(blocked) = table.join(&1, |&known| known >= 3) else { panic!("neither is sure") };
        let pilots = [thread::spawn(move || first.land(10)), thread::spawn(move || second.land(20))];
        assert_eq!(ended(blocked), End::Landed(10));
        assert_eq!(ended(first_wait), End::Landed(10));
        assert_eq!(ended(second_wait), End::Landed(20));
        assert_eq!(ended(third_wait), End::Landed(20));
        for pilot in pilots {
            pilot.join().expect("no leader panics");
        }
        assert_eq!((table.waiting(), table.flying()), (0, 0));
    });
}

#[test]
fn the_bound_on_waiters_is_exact_and_places_come_back() {
    check(|| {
        let table: std::sync::Arc<Table> = Flights::new(2, 1);
        let Join::Leader(lead, one) = table.join(&1, |_| true) else { panic!("nobody flies") };
        let two = table.join(&1, |_| true);
        assert!(matches!(two, Join::Follower(_)));
        assert!(matches!(table.join(&1, |_| true), Join::Full));
        drop(two);
        assert!(matches!(table.join(&1, |_| true), Join::Follower(_)));
        drop(one);
        drop(lead);
        assert_eq!((table.waiting(), table.flying()), (0, 0));
    });
}

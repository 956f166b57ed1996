//! The ledger against random histories of a database, and an oracle that knows which writes each value contains.
//!
//! Transactions with savepoints, aborts, prepared and long ones, also at or above xmax; snapshots as Postgres takes them;
//! polls by snapshot difference, bounded, late, twice, reordered, lost and superseded; pruning; notifications with right,
//! wrong and no claims; pods that start anew; crashes, restarts, failovers; ledgers with tiny bounds beside unbounded ones.
//!
//! - Never fresh and wrong: what certifies lacks no announced and delivered write to what it depends on.
//! - Never refused without cause: an unbounded ledger certifies exactly what is not older than what it was told.
//! - A certified value stays certified while the version stands still, and what is read just now always is.
//! - `Required` asks for the same, is sure only of flights that must meet it, and of every flight sent after it.
//!
//! `SEAWALL_LEDGER_HISTORIES` sets how many histories are played (default 1,500; `make soak` plays more), and
//! `SEAWALL_SEED` plays the one of a failure. Not covered: interleavings within a change (`ledger_race.rs`), two histories
//! that share a lineage's text, and wrong claims of a user's own that name a transaction which has ended.

mod database;
mod fault;
mod history;
mod pod;
mod tally;
mod told;
mod want;

use fault::{Certify, FAULTS, Fault, READERS};
use history::{Weather, play};
use pod::certify;
use tally::{CASES, Tally};

/// What the ledger, or who feeds it, did wrong.
#[derive(Debug)]
pub enum Wrong {
    /// Fresh, and a write is missing.
    Fresh(String),
    /// Refused, and nothing is.
    WithoutCause(String),
    /// No longer certified at the version that it was certified at.
    Version(String),
    /// Said to be out of date for less long than it is.
    Outdated(String),
    /// `met_by` or `accepts`.
    Required(String),
    /// `sure_of`.
    Sure(String),
    /// An outcome that was not to be.
    Outcome(String),
    /// More held than the bounds allow.
    Unbounded(String),
}

/// Seeds that a fault may take to be caught.
const CAUGHT_WITHIN: u64 = 400;

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Plays many histories, or the one of `SEAWALL_SEED`.
fn play_many(weather: Weather) -> Tally {
    let one = number("SEAWALL_SEED");
    let histories = number("SEAWALL_LEDGER_HISTORIES").unwrap_or(1_500);
    let seeds = one.map_or(0..histories, |seed| seed..seed + 1);
    let mut tally = Tally::default();
    for seed in seeds {
        if let Err((wrong, trace)) = play(seed, weather, Fault::None, certify, &mut tally) {
            panic!("{trace}\n{weather:?} weather, SEAWALL_SEED={seed}: {wrong:?}");
        }
    }
    println!("{weather:?}: {tally:?}");
    tally
}

/// The first seed that catches it, and what was wrong.
fn catch(fault: Fault, certify: Certify) -> Option<(u64, Wrong)> {
    let mut tally = Tally::default();
    (0..CAUGHT_WITHIN)
        .find_map(|seed| play(seed, Weather::Rough, fault, certify, &mut tally).err().map(|(wrong, _)| (seed, wrong)))
}

#[test]
fn no_history_makes_an_answer_fresh_and_wrong_or_refuses_one_without_cause() {
    let tally = play_many(Weather::Rough);
    if number("SEAWALL_SEED").is_none() {
        for case in CASES {
            assert!(tally.count(case) > 0, "{case} was never met");
        }
    }
}

#[test]
fn without_bounds_and_barriers_only_a_missing_write_refuses_an_answer() {
    let tally = play_many(Weather::Calm);
    for never in ["gap", "flood", "new history", "barred", "required without a write missing"] {
        assert_eq!(tally.count(never), 0, "{never}");
    }
}

#[test]
fn every_wrong_way_to_feed_the_ledger_is_caught() {
    for fault in FAULTS {
        let caught = catch(fault, certify);
        println!("{fault:?}: {caught:?}");
        assert!(
            matches!(caught, Some((_, Wrong::Fresh(_) | Wrong::WithoutCause(_) | Wrong::Required(_)))),
            "{fault:?}: {caught:?}"
        );
    }
}

#[test]
fn every_wrong_way_to_certify_is_caught() {
    for (reader, certify) in READERS {
        let caught = catch(Fault::None, certify);
        println!("{reader}: {caught:?}");
        assert!(matches!(caught, Some((_, Wrong::Fresh(_) | Wrong::WithoutCause(_)))), "who {reader}: {caught:?}");
    }
}

//! What can be wrong with those who read the log and certify: each must be caught, or the oracle is worth nothing.

use std::sync::Arc;

use seawall::ledger::Ledger;
use seawall::stamp::{Snapshot, Stamp};
use seawall::tag::Tag;

/// How a reader asks whether what was read under a stamp is fresh.
pub type Certify = fn(&Ledger, &Stamp, &[Tag]) -> bool;

/// Something that is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The log is read from the cursor's xmax on, and not for what was running below it.
    RunningForgotten,
    /// Triggers announce the subtransaction that wrote.
    SubtransactionsLogged,
    /// A bounded poll does not say that there was more.
    FloodUnnoticed,
    /// The log's horizon is not read.
    PruningUnnoticed,
    /// Rows of `*` are passed over: orphans, and a user's own.
    EverythingOverlooked,
    /// A notification's snapshot is taken before the transaction ended.
    BarrierTooEarly,
    /// A client's claim is passed on as another's.
    WrongClaim,
}

pub const FAULTS: [Fault; 7] = [
    Fault::RunningForgotten,
    Fault::SubtransactionsLogged,
    Fault::FloodUnnoticed,
    Fault::PruningUnnoticed,
    Fault::EverythingOverlooked,
    Fault::BarrierTooEarly,
    Fault::WrongClaim,
];

/// Readers that get it wrong.
pub const READERS: [(&str, Certify); 6] = [
    ("does not certify", |_, _, _| true),
    ("asks for none of the tags", |ledger, stamp, _| ledger.certify(stamp, &[])),
    ("asks for all tags but the last", |ledger, stamp, tags| ledger.certify(stamp, &tags[..tags.len() - 1])),
    ("takes what was running for ended", |ledger, stamp, tags| {
        let ended = Snapshot::checked(stamp.snapshot.xmax(), stamp.snapshot.xmax(), Arc::default()).expect("in order");
        ledger.certify(&Stamp { lineage: stamp.lineage.clone(), snapshot: ended }, tags)
    }),
    ("believes in what ended below xmin alone", |ledger, stamp, tags| {
        ledger.certify(&Stamp { lineage: stamp.lineage.clone(), snapshot: stamp.snapshot.in_recovery() }, tags)
    }),
    ("takes every stamp for its own history's", |ledger, stamp, tags| {
        ledger
            .lineage()
            .is_some_and(|lineage| ledger.certify(&Stamp { lineage, snapshot: stamp.snapshot.clone() }, tags))
    }),
];

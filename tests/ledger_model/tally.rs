//! What happened in all the histories together: a run that never met a case has not tested it.

use std::collections::BTreeMap;

use seawall::ledger::{Applied, Invalidated};

/// How often each case was met.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

/// What a run of the rough histories must have met.
pub const CASES: [&str; 18] = [
    "events",
    "gap",
    "flood",
    "new history",
    "superseded",
    "exactly",
    "barred",
    "other history",
    "fresh",
    "missing a write",
    "forgotten",
    "required without a write missing",
    "sure",
    "not sure",
    "outdated since",
    "clean restart",
    "crash",
    "failover",
];

impl Tally {
    pub fn met(&mut self, case: &'static str) {
        *self.0.entry(case).or_default() += 1;
    }

    pub fn count(&self, case: &str) -> u64 {
        self.0.get(case).copied().unwrap_or(0)
    }

    pub fn applied(&mut self, applied: &Applied) {
        self.met(match applied {
            Applied::Events { .. } => "events",
            Applied::Gap => "gap",
            Applied::Flood => "flood",
            Applied::NewHistory => "new history",
            Applied::OtherHistory => "of no primary",
            Applied::Superseded => "superseded",
        });
    }

    pub fn invalidated(&mut self, invalidated: Invalidated) {
        self.met(match invalidated {
            Invalidated::Exactly => "exactly",
            Invalidated::Barred => "barred",
            Invalidated::OtherHistory => "other history",
        });
    }

    pub fn looked(&mut self, fresh: bool, exactly: bool, missing: bool) {
        self.met(match (fresh, exactly, missing) {
            (true, ..) => "fresh",
            (false, true, _) => "forgotten",
            (false, false, true) => "missing a write",
            (false, false, false) => "required without a write missing",
        });
    }

    pub fn compared(&mut self, sure: bool) {
        self.met(if sure { "sure" } else { "not sure" });
    }

    pub fn outdated(&mut self, known: bool) {
        if known {
            self.met("outdated since");
        }
    }
}

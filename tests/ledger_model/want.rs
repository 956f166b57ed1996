//! What readers require (R3), beside what the oracle says of it.

use seawall::ledger::{Ledger, Required};
use seawall::stamp::Lineage;

use super::Wrong;
use super::database::Read;
use super::tally::Tally;

/// What a reader requires, and when it took that.
#[derive(Debug)]
pub struct Want {
    pub required: Required,
    pub of_twin: Required,
    pub lineage: Option<Lineage>,
    pub tags: Vec<usize>,
    /// What the oracle says that a stamp must have come to.
    pub place: u64,
    pub token: bool,
    pub order: u64,
    /// What was required before all began anew is nothing that a later flight knows of, though the lineage came back.
    pub era: u64,
    /// What a statement reads that is sent at this moment and finds the server at once.
    pub at_once: Read,
}

impl Want {
    /// Whether what was `read` is accepted exactly if it contains what is required, or that is moot.
    pub fn accept(&self, read: &Read, ledger: &Ledger, in_force: Option<&Lineage>) -> Result<(), Wrong> {
        let same = self.lineage.as_ref().is_none_or(|lineage| *lineage == read.stamp.lineage);
        let (met, met_of_twin) = (self.required.met_by(&read.stamp), self.of_twin.met_by(&read.stamp));
        let enough = same && read.place >= self.place;
        if met_of_twin != enough || met && !enough {
            return Err(Wrong::Required(format!("{self:?}, met {met} and {met_of_twin} by {read:?}")));
        }
        let moot = !same && in_force == Some(&read.stamp.lineage);
        if ledger.accepts(&self.required, &read.stamp) != (met || moot) {
            return Err(Wrong::Required(format!("accepted {read:?}, in force {in_force:?}")));
        }
        Ok(())
    }

    /// Whether it joins `flight`, which depends on the same tags, only if that must meet it, and whenever it was sent after.
    pub fn join(&self, flight: &Self, tally: &mut Tally) -> Result<(), Wrong> {
        let sure = self.required.sure_of(&flight.required);
        let sure_of_twin = self.of_twin.sure_of(&flight.of_twin);
        let at_once = &flight.at_once;
        let of_its_history = self.lineage.as_ref() == Some(&at_once.stamp.lineage);
        let unmet = of_its_history && !self.required.met_by(&at_once.stamp);
        let short = of_its_history && self.place > at_once.place;
        if sure && unmet || sure_of_twin && short {
            return Err(Wrong::Sure(format!("place {} of {at_once:?}", self.place)));
        }
        let sent_after = self.order <= flight.order && self.era == flight.era && !self.token;
        if sent_after && !(sure && sure_of_twin) {
            return Err(Wrong::Sure(format!("not of what was sent after it: {:?}", self.required)));
        }
        tally.compared(sure);
        Ok(())
    }
}

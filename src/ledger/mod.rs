//! What is known of writes, and what therefore is fresh.
//!
//! Pure and bounded. In this version no events arrive, so the ledger holds the lineage and a version; the rules around
//! it (R1 store, R2 serve, R3 join) are in force already and will not move when tags, barriers and the horizon fill it.
//!
//! # Order
//! A change is made first and `version` raised last (Release). Readers read `version` first (Acquire), then certify, and
//! remember the version they read, never a newer one: what comes in between is caught at the next look. So no lock
//! spans ledger and store, and a hit with no change since costs one atomic load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::stamp::{Lineage, Stamp};

/// The ledger of a process.
#[derive(Debug, Default)]
pub struct Ledger {
    version: AtomicU64,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The history that stamps must belong to; none before the first fill.
    lineage: Option<Lineage>,
}

/// What a reader requires of an answer, taken at its arrival; immutable from then on (rule R3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Required {
    version: u64,
    lineage: Option<Lineage>,
}

impl Required {
    /// Whether a statement sent when `sent` was required is sure to meet this: it knew no less.
    pub fn sure_of(&self, sent: &Self) -> bool {
        // A lineage that became known since was the first: what was sent before belongs to it, or is not accepted.
        sent.version >= self.version || sent.lineage.is_none() || sent.lineage == self.lineage
    }
}

impl Ledger {
    /// The version now. It only grows.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether what was read under `stamp` contains every write known of. Read [`Ledger::version`] before.
    pub fn certify(&self, stamp: &Stamp) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.lineage.as_ref() == Some(&stamp.lineage)
    }

    /// Whether an answer read under `stamp` contains all that is `required`. Where another history has taken over since,
    /// what was required of the old one is moot, and an answer of the new one will do.
    pub fn accepts(&self, required: &Required, stamp: &Stamp) -> bool {
        required.lineage.as_ref().is_none_or(|lineage| *lineage == stamp.lineage) || self.certify(stamp)
    }

    /// What a reader that arrives now requires.
    pub fn required(&self) -> Required {
        let version = self.version();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        Required { version, lineage: known.lineage.clone() }
    }

    /// The history in force.
    pub fn lineage(&self) -> Option<Lineage> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).lineage.clone()
    }

    /// `stamp` with the ledger's own copy of its lineage where they are equal: stored stamps share one text.
    pub fn share(&self, mut stamp: Stamp) -> Stamp {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(lineage) = known.lineage.as_ref().filter(|known| **known == stamp.lineage) {
            stamp.lineage = lineage.clone();
        }
        stamp
    }

    /// Takes `lineage` for the history in force. If that is another than before, no older stamp certifies any more.
    pub fn adopt(&self, lineage: &Lineage) -> Adopted {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match &known.lineage {
            Some(present) if present == lineage => return Adopted::Same,
            Some(_) | None => {}
        }
        let first = known.lineage.replace(lineage.clone()).is_none();
        self.version.fetch_add(1, Ordering::Release);
        if first { Adopted::First } else { Adopted::Replaced }
    }
}

/// What [`Ledger::adopt`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It was in force already.
    Same,
    /// There was none.
    First,
    /// There was another: everything older is another history's.
    Replaced,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Snapshot;

    fn stamp(lineage: &str) -> Stamp {
        Stamp { lineage: Lineage::new(lineage), snapshot: Snapshot::parse("5:5:").expect("well-formed") }
    }

    #[test]
    fn nothing_certifies_before_a_lineage_is_known_or_after_it_was_replaced() {
        let ledger = Ledger::default();
        assert!(!ledger.certify(&stamp("a")));
        assert_eq!(ledger.adopt(&Lineage::new("a")), Adopted::First);
        assert!(ledger.certify(&stamp("a")));
        let version = ledger.version();
        assert_eq!(ledger.adopt(&Lineage::new("a")), Adopted::Same);
        assert_eq!(ledger.version(), version);
        assert_eq!(ledger.adopt(&Lineage::new("b")), Adopted::Replaced);
        assert!(ledger.version() > version);
        assert!(!ledger.certify(&stamp("a")));
    }

    #[test]
    fn r3_a_flight_sent_before_a_change_is_not_sure_and_one_sent_after_is() {
        let ledger = Ledger::default();
        let first = ledger.required();
        ledger.adopt(&Lineage::new("a"));
        let before = ledger.required();
        assert!(before.sure_of(&first), "a cold start's flights are joined, whichever lands first");
        ledger.adopt(&Lineage::new("b"));
        let after = ledger.required();
        assert!(after.sure_of(&after) && before.sure_of(&after));
        assert!(!after.sure_of(&before));
        assert!(ledger.accepts(&after, &stamp("b")) && !ledger.accepts(&after, &stamp("a")));
        assert!(ledger.accepts(&before, &stamp("b")), "what was required of a history that is gone is moot");
    }
}

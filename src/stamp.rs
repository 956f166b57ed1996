//! The stamp of a value: the MVCC snapshot it was read under, and the lineage that snapshot belongs to.
//!
//! Pure. A stamp answers two questions, and both are exact: did this value see transaction `x` ([`Stamp::sees`]),
//! and did it see everything that another snapshot saw ([`Stamp::covers`]). Across lineages both are false: transaction
//! ids repeat after a failover or a restore, and a snapshot of another history says nothing about this one.
//! What comes from outside is checked on the way in ([`Snapshot::parse`]); a malformed snapshot never becomes a stamp.

use std::fmt;
use std::sync::Arc;

/// A Postgres snapshot as `pg_current_snapshot()` gives it: `xmin:xmax:xip,…`.
///
/// Every transaction below `xmin` has ended; none from `xmax` on had ended; `xip` are those between that were running.
/// Invariant: `xmin <= xmax`, and `xip` is strictly ascending within `[xmin, xmax)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    xip: Arc<[u64]>,
}

/// Why a text is not a snapshot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// Not three fields separated by colons.
    #[error("a snapshot has the form xmin:xmax:xip")]
    Form,
    /// A field that is no 64-bit transaction id.
    #[error("{0:?} is not a transaction id")]
    Xid(String),
    /// `xmax` lies below `xmin`, or a running transaction outside of them, or out of order.
    #[error("the bounds or the running transactions are out of order")]
    Order,
}

impl Snapshot {
    /// Reads what Postgres prints.
    ///
    /// # Errors
    /// [`Malformed`] if it has another form or its parts are out of order.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut fields = text.split(':');
        let (Some(xmin), Some(xmax), Some(running), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(Malformed::Form);
        };
        let xid = |field: &str| {
            // `parse` takes a leading plus sign, Postgres never prints one.
            if field.starts_with('+') { None } else { field.parse::<u64>().ok() }
                .ok_or_else(|| Malformed::Xid(field.chars().take(32).collect()))
        };
        let (xmin, xmax) = (xid(xmin)?, xid(xmax)?);
        let xip: Arc<[u64]> = if running.is_empty() {
            Arc::default()
        } else {
            running.split(',').map(xid).collect::<Result<Vec<_>, _>>()?.into()
        };
        Self::checked(xmin, xmax, xip)
    }

    /// A snapshot of these parts.
    ///
    /// # Errors
    /// [`Malformed::Order`] where the type's invariant does not hold.
    pub fn checked(xmin: u64, xmax: u64, xip: Arc<[u64]>) -> Result<Self, Malformed> {
        let ascending = xip.windows(2).all(|pair| pair[0] < pair[1]);
        let within = xip.first().is_none_or(|&x| x >= xmin) && xip.last().is_none_or(|&x| x < xmax);
        if xmin <= xmax && ascending && within { Ok(Self { xmin, xmax, xip }) } else { Err(Malformed::Order) }
    }

    /// Whether what transaction `xid` wrote is visible under this snapshot, given that it committed.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.xip.binary_search(&xid).is_err())
    }

    /// Whether this snapshot sees every transaction that `other` sees. Exact and transitive; the snapshots of one
    /// primary form a chain under it.
    ///
    /// It is not `self.xmin >= other.xmax`: one long-running writer would then keep everything uncovered for its whole life.
    pub fn covers(&self, other: &Self) -> bool {
        self.xmax >= other.xmax
            && self.xip.iter().take_while(|&&x| x < other.xmax).all(|x| other.xip.binary_search(x).is_ok())
    }

    /// The snapshot that sees everything below `xid` and nothing else: `(xid : xid :)`.
    pub fn before(xid: u64) -> Self {
        Self { xmin: xid, xmax: xid, xip: Arc::default() }
    }

    /// What a snapshot taken in recovery is good for. A standby omits running transactions from what it prints, so
    /// nothing from `xmin` on counts as seen.
    pub fn in_recovery(&self) -> Self {
        Self::before(self.xmin)
    }

    /// The least snapshot that covers both. Where one covers the other, as of one primary one always does, it is that
    /// one.
    pub fn join(&self, other: &Self) -> Self {
        let (early, late) = if self.xmax <= other.xmax { (self, other) } else { (other, self) };
        if late.covers(early) {
            return late.clone();
        }
        let unseen = late.xip.iter().copied().filter(|&x| !early.sees(x)).collect();
        Self { xmin: early.xmin.max(late.xmin), xmax: late.xmax, xip: unseen }
    }

    /// Every transaction below had ended.
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    /// No transaction from here on had ended.
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Those between that were running, ascending.
    pub fn xip(&self) -> &[u64] {
        &self.xip
    }

    /// Running transactions listed, which is what a snapshot's size depends on.
    pub fn running(&self) -> usize {
        self.xip.len()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.xip.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{xid}")?;
        }
        Ok(())
    }
}

/// One history of one database: system identifier, timeline, database, start of the server, and the epoch where the
/// schema is installed. For equality only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage(Arc<str>);

impl Lineage {
    /// The lineage that the origin composed.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As composed; it names no host, role or password.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What every value carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Whose transaction ids these are.
    pub lineage: Lineage,
    /// What had ended when the value was read.
    pub snapshot: Snapshot,
}

impl Stamp {
    /// Whether the value contains what transaction `xid` of `lineage` wrote.
    pub fn sees(&self, lineage: &Lineage, xid: u64) -> bool {
        self.lineage == *lineage && self.snapshot.sees(xid)
    }

    /// Whether the value was read at or after `other` was, in the same history.
    pub fn covers(&self, other: &Self) -> bool {
        self.lineage == other.lineage && self.snapshot.covers(&other.snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).expect(text)
    }

    #[test]
    fn sees_what_had_ended_and_nothing_that_ran() {
        let s = snapshot("725:730:725,728");
        let seen: Vec<u64> = (720..735).filter(|&x| s.sees(x)).collect();
        assert_eq!(seen, [720, 721, 722, 723, 724, 726, 727, 729]);
    }

    #[test]
    fn a_long_running_writer_does_not_uncover_what_came_after_it_began() {
        let barrier = snapshot("725:730:725");
        assert!(snapshot("725:731:725").covers(&barrier), "still running in both");
        assert!(snapshot("731:731:").covers(&barrier), "ended since");
        assert!(!snapshot("725:731:725,727").covers(&barrier), "727 had ended for the barrier");
        assert!(!snapshot("725:729:725").covers(&barrier), "taken before");
    }

    #[test]
    fn across_lineages_nothing_is_seen_or_covered() {
        let stamp = |l: &str| Stamp { lineage: Lineage::new(l), snapshot: snapshot("5:5:") };
        assert!(stamp("a").covers(&stamp("a")));
        assert!(!stamp("a").covers(&stamp("b")));
        assert!(stamp("a").sees(&Lineage::new("a"), 4));
        assert!(!stamp("a").sees(&Lineage::new("b"), 4));
    }

    #[test]
    fn what_is_out_of_order_or_no_number_is_refused() {
        for (text, why) in [
            ("", Malformed::Form),
            ("1:2", Malformed::Form),
            ("1:2::", Malformed::Form),
            ("1:x:", Malformed::Xid("x".into())),
            ("+1:2:", Malformed::Xid("+1".into())),
            ("1:18446744073709551616:", Malformed::Xid("18446744073709551616".into())),
            ("3:2:", Malformed::Order),
            ("2:5:1", Malformed::Order),
            ("2:5:5", Malformed::Order),
            ("2:5:3,3", Malformed::Order),
            ("2:5:4,3", Malformed::Order),
        ] {
            assert_eq!(Snapshot::parse(text), Err(why), "{text:?}");
        }
        assert!(Snapshot::parse("2:5:2,4").is_ok(), "both ends of the range");
    }

    prop_compose! {
        fn any_snapshot()(xmin in 0u64..20, width in 0u64..12, bits in any::<u16>()) -> Snapshot {
            let xip: Vec<u64> = (xmin..xmin + width).filter(|x| bits >> (x - xmin) & 1 == 1).collect();
            Snapshot::checked(xmin, xmin + width, xip.into()).expect("made in order")
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn covers_is_seeing_all_that_the_other_sees(a in any_snapshot(), b in any_snapshot()) {
            // Transactions from xmax on are unseen, so a range beyond both decides it; xmax itself counts as a bound,
            // since a snapshot with a larger xmax was taken later even if all that lies between was running.
            let sees_all = (0..40).all(|x| !b.sees(x) || a.sees(x));
            prop_assert_eq!(a.covers(&b), sees_all && a.xmax >= b.xmax);
        }

        #[test]
        fn a_join_sees_what_either_sees_and_is_covered_by_all_that_cover_both(
            a in any_snapshot(), b in any_snapshot(), c in any_snapshot()
        ) {
            let join = a.join(&b);
            prop_assert!((0..40).all(|x| join.sees(x) == (a.sees(x) || b.sees(x))));
            prop_assert_eq!(c.covers(&join), c.covers(&a) && c.covers(&b));
            prop_assert_eq!(Snapshot::parse(&join.to_string()), Ok(join), "well-formed");
        }

        #[test]
        fn in_recovery_nothing_counts_as_seen_that_may_have_been_running(a in any_snapshot()) {
            let safe = a.in_recovery();
            prop_assert!((0..40).all(|x| safe.sees(x) == (x < a.xmin)));
            prop_assert!(a.covers(&safe));
        }

        #[test]
        fn printing_and_reading_give_the_same(a in any_snapshot()) {
            prop_assert_eq!(Snapshot::parse(&a.to_string()), Ok(a));
        }
    }
}

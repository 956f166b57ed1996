//! Faults on purpose, for the tests that ask whether the oracle of invalidation and the doorbell's model would notice.
//!
//! Compiled only with the feature `sabotage`, which no release has; without it every question here is answered "no" when the
//! program is built. With it, the environment says which fault this process has: `SEAWALL_SABOTAGE=no-certify`,
//! `cursor-xmin`, `no-lineage`, `strict-old-probe`, `snapshot-stragglers`, `no-stragglers` or `no-last-poll`.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Hits are not certified: what is within its ttl is fresh.
    NoCertify,
    /// The log is read from the cursor's xmax on: what ran while the cursor was taken is forgotten.
    CursorXmin,
    /// Answers and polls count as of the present history, whatever they are of.
    NoLineage,
    /// A pod that falls asleep waits for those that a snapshot's own list says run.
    SnapshotStragglers,
    /// A pod that falls asleep waits for nobody.
    NoStragglers,
    /// A pod that has nobody to wait for falls asleep without another poll.
    NoLastPoll,
    /// Strict readers make do with the last poll that was applied, also where it was sent before they came.
    StrictOldProbe,
}

/// Whether this process has that fault.
#[cfg(not(feature = "sabotage"))]
#[inline]
pub const fn is(_: Sabotage) -> bool {
    false
}

/// Whether this process has that fault.
///
/// # Panics
/// Where the environment names a fault that there isn't.
#[cfg(feature = "sabotage")]
pub fn is(sabotage: Sabotage) -> bool {
    use std::sync::LazyLock;
    static CHOSEN: LazyLock<Option<Sabotage>> = LazyLock::new(|| {
        let name = std::env::var("SEAWALL_SABOTAGE").ok()?;
        let chosen = match name.as_str() {
            "no-certify" => Sabotage::NoCertify,
            "cursor-xmin" => Sabotage::CursorXmin,
            "no-lineage" => Sabotage::NoLineage,
            "snapshot-stragglers" => Sabotage::SnapshotStragglers,
            "no-stragglers" => Sabotage::NoStragglers,
            "no-last-poll" => Sabotage::NoLastPoll,
            "strict-old-probe" => Sabotage::StrictOldProbe,
            other => panic!("SEAWALL_SABOTAGE={other}: there is no such fault"),
        };
        tracing::error!(?chosen, "this process is broken on purpose");
        Some(chosen)
    });
    *CHOSEN == Some(sabotage)
}

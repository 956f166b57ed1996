//! What came of a run, in numbers, so that one that saw nothing can't count as one that found nothing.

use std::fmt;
use std::time::Duration;

/// Whom a transaction found when it first announced something, and what had become of them when it was about to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nobody slept, then nor later.
    Awake,
    /// Somebody slept, and was rung.
    Asleep,
    /// Nobody slept, and somebody had fallen asleep by the commit: over this transaction, and is not rung.
    FellAsleep,
}

/// From commits to the pods that applied them.
#[derive(Clone, Debug, Default)]
pub struct Lags(Vec<Duration>);

impl Lags {
    pub fn add(&mut self, lag: Duration) {
        self.0.push(lag);
    }
}

impl fmt::Display for Lags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let Some(last) = sorted.len().checked_sub(1) else { return write!(f, "none") };
        let at = |share: usize| sorted[last * share / 1000].as_secs_f64() * 1e3;
        write!(
            f,
            "{} pods reached, p50 {:.1} ms, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, slowest {:.1}",
            sorted.len(),
            at(500),
            at(900),
            at(990),
            at(999),
            at(1000)
        )
    }
}

/// The numbers.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub rounds: u64,
    /// Transactions that announced something and committed.
    pub commits: u64,
    pub found_asleep: u64,
    pub fell_asleep: u64,
    /// Of the latter, those that committed while a pod waited for the lock.
    pub before_lock: u64,
    pub rolled_back: u64,
    pub cancelled: u64,
    pub killed: u64,
    pub listeners_killed: u64,
    pub pods_changed: u64,
    /// Rings that woke somebody for something to read.
    pub needed: u64,
    /// All that were heard.
    pub rings: u64,
    /// While no listener was killed.
    pub calm: Lags,
    /// While one was.
    pub disturbed: Lags,
}

/// Of what a run must have had, or it tells nothing.
const LEAST: u64 = 5;

impl Tally {
    /// A transaction that announced something has committed.
    pub fn committed(&mut self, found: Found) {
        self.commits += 1;
        self.found_asleep += u64::from(found == Found::Asleep);
        self.fell_asleep += u64::from(found == Found::FellAsleep);
    }

    fn least(&self) -> [(&'static str, u64, u64); 9] {
        [
            ("commits that found pods asleep", self.found_asleep, 2 * LEAST),
            ("commits that pods fell asleep over", self.fell_asleep, LEAST),
            ("commits before a pod had the lock", self.before_lock, 1),
            ("rollbacks", self.rolled_back, 1),
            ("cancelled transactions", self.cancelled, LEAST),
            ("killed writers", self.killed, 1),
            ("killed listeners", self.listeners_killed, 1),
            ("pods that left and joined", self.pods_changed, 1),
            ("rings that were needed", self.needed, LEAST),
        ]
    }

    /// Whether there was enough of everything.
    pub fn is_telling(&self) -> bool {
        self.least().iter().all(|(_, count, least)| count >= least)
    }

    /// Panics where something was missing.
    pub fn tells(&self) {
        for (what, count, least) in self.least() {
            assert!(count >= least, "{count} {what} are too few to tell");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} commits in {} rounds: {} found pods asleep, {} had pods fall asleep over them ({} before they had the lock)",
            self.commits, self.rounds, self.found_asleep, self.fell_asleep, self.before_lock
        )?;
        writeln!(
            f,
            "{} rolled back, {} cancelled, {} killed; {} listeners killed, {} pods left and joined; {} rings, {} needed",
            self.rolled_back,
            self.cancelled,
            self.killed,
            self.listeners_killed,
            self.pods_changed,
            self.rings,
            self.needed
        )?;
        writeln!(f, "commit to applied: {}", self.calm)?;
        write!(f, "with listeners killed: {}", self.disturbed)
    }
}

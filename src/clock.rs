//! Time, and the only place that reads it.
//!
//! Everything that ages in Seawall (ttl, backoff, blindness) ages on one clock: `CLOCK_BOOTTIME`, which goes on
//! while the machine is suspended, so that an entry can't come out of a suspended laptop or a paused guest younger
//! than it is. A [`Moment`] means something in this process only; it is never sent anywhere.
//!
//! Tests hold time in their hand with [`Clock::manual`]. Timers (deadlines of waits) are tokio's and not this clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A point on this process's clock, in nanoseconds since the machine booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` after boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it isn't.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    /// Saturates: a moment so far away never comes, which is what a ttl of centuries means.
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Self;

    /// Saturates at the boot of the machine.
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Where moments come from. Cloning is cheap; clones of a manual clock share their hands.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it. It starts at one hour, so that subtraction has room.
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(3_600_000_000_000))))
    }

    /// Now. About 25 ns: the kernel answers it without a system call.
    #[inline]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System => boottime(),
            Source::Manual(hands) => Moment(hands.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock forward; a system clock can't be moved, and is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(hands) = &self.0 {
            hands.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
    }
}

/// The time of day, since 1970: for what others date, such as tokens. Nothing of Seawall's own ages by it.
#[inline]
pub fn time_of_day() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(target_os = "linux")]
#[inline]
fn boottime() -> Moment {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Time since boot is neither negative nor over 584 years.
    Moment(t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs())
}

#[cfg(not(target_os = "linux"))]
fn boottime() -> Moment {
    use std::sync::OnceLock;
    use std::time::Instant;
    // Elsewhere: the monotonic clock, which on macOS goes on during sleep as well.
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    Moment(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual();
        let twin = clock.clone();
        let before = clock.now();
        assert_eq!(twin.now(), before);
        clock.advance(Duration::from_millis(5));
        assert_eq!(twin.now().since(before), Duration::from_millis(5));
    }

    #[test]
    fn since_is_never_negative_and_addition_saturates() {
        let (early, late) = (Moment::from_nanos(1), Moment::from_nanos(5));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.since(early), Duration::from_nanos(4));
        assert_eq!(late + Duration::MAX, Moment::from_nanos(u64::MAX));
        assert_eq!(late - Duration::from_nanos(4), early);
        assert_eq!(late - Duration::MAX, Moment::from_nanos(0));
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let clock = Clock::system();
        let first = clock.now();
        assert!(clock.now() >= first);
    }
}

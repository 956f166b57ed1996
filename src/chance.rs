//! Chance, and the only place that draws it.
//!
//! Lifetimes are spread, backoffs jittered and early refreshes decided by chance. Tests hold it in their hand with
//! [`Chance::seeded`], so that what they saw can be seen again. None of it is for secrets.

use std::sync::{Arc, Mutex, PoisonError};

/// Where draws come from. Cloning is cheap; clones of a seeded one share its sequence.
#[derive(Clone, Debug, Default)]
pub struct Chance(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    /// A generator per thread, seeded by the system.
    #[default]
    System,
    Seeded(Arc<Mutex<fastrand::Rng>>),
}

impl Chance {
    /// Unpredictable from run to run. A draw takes a few nanoseconds and no lock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// The same sequence for the same `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)))))
    }

    /// A number that nobody else draws.
    pub fn token(&self) -> u128 {
        match &self.0 {
            Source::System => fastrand::u128(..),
            Source::Seeded(sequence) => sequence.lock().unwrap_or_else(PoisonError::into_inner).u128(..),
        }
    }

    /// Uniform over 0 (included) to 1 (not included).
    #[inline]
    pub fn draw(&self) -> f64 {
        match &self.0 {
            Source::System => fastrand::f64(),
            Source::Seeded(sequence) => sequence.lock().unwrap_or_else(PoisonError::into_inner).f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_sequence_again_and_clones_share_it() {
        let (one, other) = (Chance::seeded(7), Chance::seeded(7));
        let twin = other.clone();
        let drawn: Vec<f64> = (0..4).map(|_| one.draw()).collect();
        assert_eq!(drawn, [other.draw(), twin.draw(), other.draw(), twin.draw()]);
        assert!(drawn.iter().all(|d| (0.0..1.0).contains(d)));
    }
}

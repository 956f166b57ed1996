//! What a request's `Cache-Control` asks for, within the query's bounds (RFC 9111, section 5.2.1).
//!
//! Parsed where HTTP is; here is what it means. Nothing in it makes an answer older than the query's windows allow, and
//! nothing in it forces a fill of a key more often than `min_refill_interval`: no client can cause a stampede.

use std::time::Duration;

/// A request's directives. The default is a request that says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// The oldest answer that will do. Zero, which `no-cache` means as well, validates: the statement must have been
    /// sent after the request arrived.
    pub max_age: Option<Duration>,
    /// How long after its lifetime an answer will still do.
    pub max_stale: Option<Duration>,
    /// Only what is stored.
    pub only_if_cached: bool,
}

impl Directives {
    /// Whether any fresh answer will do.
    #[inline]
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing stored will do.
    pub fn validate(&self) -> bool {
        self.max_age == Some(Duration::ZERO)
    }

    /// Whether an answer of this age is too old although it has just been validated.
    pub fn refuse_all_but_validated(&self, age: Duration) -> bool {
        !self.validate() && self.refuse_age(age)
    }

    /// Whether an answer of this age is too old.
    pub fn refuse_age(&self, age: Duration) -> bool {
        self.validate() || self.max_age.is_some_and(|most| age > most)
    }

    /// Whether an answer of this age, `past` the end of its lifetime, may be given while it is refreshed: a request that
    /// bounds the age wants no stale answer, unless it says how stale (RFC 9111, section 5.2.1.1).
    pub fn take_stale(&self, age: Duration, past: Duration) -> bool {
        match (self.max_age, self.max_stale) {
            (None, None) => true,
            (Some(_), None) => false,
            (_, Some(most)) => past <= most && !self.refuse_age(age),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn an_age_is_too_old_beyond_the_bound_and_always_where_it_is_zero() {
        let within = Directives { max_age: Some(S(10)), ..Directives::default() };
        assert!(!within.refuse_age(S(10)) && within.refuse_age(S(10) + Duration::from_nanos(1)));
        let validating = Directives { max_age: Some(S(0)), ..Directives::default() };
        assert!(validating.refuse_age(S(0)));
        assert!(!Directives::default().refuse_age(S(1 << 40)));
    }

    #[test]
    fn stale_answers_are_taken_by_those_who_say_nothing_and_those_who_say_how_stale() {
        let stale = |max_age: Option<u64>, max_stale: Option<u64>, age, past| {
            Directives { max_age: max_age.map(S), max_stale: max_stale.map(S), only_if_cached: false }
                .take_stale(S(age), S(past))
        };
        assert!(stale(None, None, 500, 400));
        assert!(!stale(Some(900), None, 500, 400));
        assert!(stale(None, Some(400), 500, 400) && !stale(None, Some(399), 500, 400));
        assert!(stale(Some(500), Some(400), 500, 400) && !stale(Some(499), Some(400), 500, 400));
        assert!(!stale(Some(0), Some(400), 0, 0), "who validates takes nothing that is stored");
    }
}

//! The breaker of connecting: pure bookkeeping of attempts, and the decision who may try.
//!
//! Closed, as many attempts may be under way as failures are missing to open it, so that a database that goes away under
//! load is tried [`FAILURES_TO_OPEN`] times and not once by everybody. Open, nobody may but the probes, which no request
//! waits for ([`super::reach`]). A success closes it, whoever had it.
//!
//! It guards opening connections and nothing else: what a connection that stands says of a query is no reason to give up
//! on the others. What makes them suspect is [`Breaker::trip`].

use std::time::Duration;

/// Failures in a row that open it: two may be a failover's tail, three are a state.
pub(super) const FAILURES_TO_OPEN: u32 = 3;

/// Whether the database is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// It is.
    #[default]
    Closed,
    /// Connections are refused, and a probe is finding out at this moment.
    HalfOpen,
    /// Connections are refused until a probe succeeds.
    Open,
}

/// An answer to who wants to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It may, and says how that went.
    Now,
    /// Those under way decide; ask again when one has ended.
    Later,
    /// It may not; the last failure's reason.
    Refused(String),
}

#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    under_way: u32,
    probes: u32,
    open: bool,
    last: String,
}

impl Breaker {
    /// Whether an attempt may be made.
    pub(super) fn admit(&mut self) -> Admitted {
        if self.open {
            return Admitted::Refused(self.last.clone());
        }
        if self.failures + self.under_way >= FAILURES_TO_OPEN {
            return Admitted::Later;
        }
        self.under_way += 1;
        Admitted::Now
    }

    /// An attempt that was admitted has ended, in nothing that says how the database is, unless that is said too.
    pub(super) fn ended(&mut self) {
        self.under_way -= 1;
    }

    /// A connection was made.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.open = false;
    }

    /// One was not.
    pub(super) fn failed(&mut self, reason: &str) {
        self.failures = (self.failures + 1).min(FAILURES_TO_OPEN);
        self.open |= self.failures == FAILURES_TO_OPEN;
        reason.clone_into(&mut self.last);
    }

    /// The database is away, however many failures there were.
    pub(super) fn trip(&mut self, reason: &str) {
        self.failures = FAILURES_TO_OPEN;
        self.open = true;
        reason.clone_into(&mut self.last);
    }

    pub(super) fn probe_began(&mut self) {
        self.probes += 1;
    }

    pub(super) fn probe_ended(&mut self) {
        self.probes -= 1;
    }

    /// Why it is open, if it is.
    pub(super) fn reason(&self) -> Option<&str> {
        self.open.then_some(&*self.last)
    }

    pub(super) fn state(&self) -> BreakerState {
        match (self.open, self.probes) {
            (false, _) => BreakerState::Closed,
            (true, 0) => BreakerState::Open,
            (true, _) => BreakerState::HalfOpen,
        }
    }
}

/// The pause before the probe number `n`; `jitter` is between 0 and 1.
///
/// The first is whole: with the attempts that opened it, no second has more than three. Later ones are half to all of
/// it: pods that lost the database together don't come back together.
pub(super) fn pause(probe_every: Duration, n: u32, jitter: f64) -> Duration {
    if n == 0 { probe_every } else { probe_every.mul_f64(0.5 + jitter / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &mut Breaker) {
        breaker.ended();
        breaker.failed("refused");
    }

    #[test]
    fn three_failures_open_it_and_then_nobody_may() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            assert_eq!((breaker.state(), breaker.admit()), (BreakerState::Closed, Admitted::Now));
            fail(&mut breaker);
        }
        assert_eq!((breaker.state(), breaker.reason()), (BreakerState::Open, Some("refused")));
        assert_eq!(breaker.admit(), Admitted::Refused("refused".into()));
    }

    #[test]
    fn everybody_at_once_is_three_attempts_and_each_that_fails_leaves_one_less() {
        let mut breaker = Breaker::default();
        let admitted = (0..100).filter(|_| breaker.admit() == Admitted::Now).count();
        assert_eq!(admitted, 3);
        fail(&mut breaker);
        assert_eq!(breaker.admit(), Admitted::Later, "two are under way, and would be two failures more");
        breaker.ended();
        breaker.succeeded();
        assert_eq!(
            [breaker.admit(), breaker.admit(), breaker.admit()],
            [Admitted::Now, Admitted::Now, Admitted::Later]
        );
    }

    #[test]
    fn an_attempt_that_was_given_up_is_no_failure() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            assert_eq!(breaker.admit(), Admitted::Now);
            breaker.ended();
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_success_closes_it_whoever_had_it_and_counting_begins_anew() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.admit(), Admitted::Now);
        breaker.trip("silence");
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.probe_began();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.probe_ended();
        breaker.failed("a probe's");
        assert_eq!((breaker.state(), breaker.reason()), (BreakerState::Open, Some("a probe's")));
        // The one from before it opened.
        breaker.ended();
        breaker.succeeded();
        assert_eq!((breaker.state(), breaker.reason()), (BreakerState::Closed, None));
        for _ in 0..2 {
            assert_eq!(breaker.admit(), Admitted::Now);
            fail(&mut breaker);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn no_second_has_more_than_three_attempts() {
        let second = Duration::from_secs(1);
        for jitter in [0.0, 0.5, 1.0] {
            // Three that open it in the moment zero, and its probes.
            let mut moments = vec![Duration::ZERO; 3];
            let mut at = Duration::ZERO;
            for n in 0..20 {
                at += pause(second, n, jitter);
                moments.push(at);
            }
            for first in &moments {
                let within = moments.iter().filter(|at| **at >= *first && **at < *first + second).count();
                assert!(within <= 3, "{within} from {first:?} with jitter {jitter}");
            }
            let longest = moments.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
            assert_eq!(longest, Some(second), "a database that is back waits no longer than this");
        }
    }
}

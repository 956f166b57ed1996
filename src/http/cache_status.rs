//! `Cache-Status` (RFC 9211) of an answer: where it came from, and by which rule an old one was given.
//!
//! What memory gives is a value out of a table, one per second of lifetime left or passed; only answers that were waited
//! for have theirs written for them.

use std::sync::LazyLock;

use http::{HeaderValue, StatusCode};

use super::problem::Code;
use super::response::Seconds;
use crate::cache::entry::Freshness;
use crate::readthrough::{By, Instead, Led, Source, Stored};
use crate::telemetry::metrics::Fallback;

/// `seawall; hit; ttl=27`.
static HIT: LazyLock<Seconds> = LazyLock::new(|| Seconds::new("seawall; hit; ttl=", ""));
/// `seawall; hit; ttl=27; detail=redis`.
static SHARED: LazyLock<Seconds> = LazyLock::new(|| Seconds::new("seawall; hit; ttl=", "; detail=redis"));
static REFILL_LIMITED: LazyLock<Seconds> =
    LazyLock::new(|| Seconds::new("seawall; hit; ttl=", "; detail=refill-limited"));
static WHILE_REVALIDATE: LazyLock<Seconds> =
    LazyLock::new(|| Seconds::new("seawall; hit; ttl=-", "; detail=stale-while-revalidate"));
static IF_ERROR: LazyLock<Seconds> = LazyLock::new(|| Seconds::new("seawall; hit; ttl=-", "; detail=stale-if-error"));
static MAX_STALE: LazyLock<Seconds> = LazyLock::new(|| Seconds::new("seawall; hit; ttl=-", "; detail=max-stale"));
static STALE_REFILL_LIMITED: LazyLock<Seconds> =
    LazyLock::new(|| Seconds::new("seawall; hit; ttl=-", "; detail=refill-limited"));

/// The field's value for an answer that came about by `source`.
#[inline]
pub(super) fn value(source: &Source) -> HeaderValue {
    match source {
        Source::Memory { stands: Freshness::Fresh(left), by: By::RefillLimited } => {
            REFILL_LIMITED.value(left.as_secs())
        }
        Source::Memory { by: By::Blind, .. } => HeaderValue::from_static("seawall; hit; detail=blind"),
        Source::Memory { by: By::Invalidated, .. } => HeaderValue::from_static("seawall; hit; detail=invalidated"),
        Source::Memory { stands: Freshness::Fresh(left), .. } => HIT.value(left.as_secs()),
        Source::Memory { stands: Freshness::Stale(past), by } => {
            let table = match by {
                By::Lifetime | By::WhileRevalidate | By::Blind | By::Invalidated => &WHILE_REVALIDATE,
                By::IfError => &IF_ERROR,
                By::MaxStale => &MAX_STALE,
                By::RefillLimited => &STALE_REFILL_LIMITED,
            };
            table.value(past.as_secs())
        }
        Source::Shared { left } => SHARED.value(left.as_secs()),
        Source::Old { led, why, instead } => old(*why, *led, instead),
        Source::Fill { led, why, stored } => HeaderValue::from_static(filled(*why, *stored, *led)),
    }
}

/// An old answer after a wait.
#[cold]
fn old(why: Fallback, led: Led, instead: &Instead) -> HeaderValue {
    let forwarded = match why {
        Fallback::Miss | Fallback::Expired | Fallback::Invalidated | Fallback::Blind => "stale",
        Fallback::Directive | Fallback::Strict => "request",
    };
    let collapsed = match led {
        Led::Own => "",
        Led::Others => "; collapsed",
    };
    let text = match instead {
        Instead::Nothing => format!("seawall; fwd={forwarded}{collapsed}; detail=wait-at-most"),
        Instead::Failure(error) => {
            let status: StatusCode = Code::of(error).status();
            format!("seawall; fwd={forwarded}; fwd-status={}{collapsed}; detail=stale-if-error", status.as_u16())
        }
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("seawall; fwd=stale; detail=stale-if-error"))
}

/// An answer that a fill brought.
const fn filled(why: Fallback, stored: Stored, led: Led) -> &'static str {
    match (why, stored, led) {
        (Fallback::Miss, Stored::Kept, Led::Own) => "seawall; fwd=uri-miss; stored",
        (Fallback::Miss, Stored::Kept, Led::Others) => "seawall; fwd=uri-miss; stored; collapsed",
        (Fallback::Miss, Stored::Passed, Led::Own) => "seawall; fwd=uri-miss",
        (Fallback::Miss, Stored::Passed, Led::Others) => "seawall; fwd=uri-miss; collapsed",
        (Fallback::Expired, Stored::Kept, Led::Own) => "seawall; fwd=stale; stored",
        (Fallback::Expired, Stored::Kept, Led::Others) => "seawall; fwd=stale; stored; collapsed",
        (Fallback::Expired, Stored::Passed, Led::Own) => "seawall; fwd=stale",
        (Fallback::Expired, Stored::Passed, Led::Others) => "seawall; fwd=stale; collapsed",
        (Fallback::Invalidated, Stored::Kept, Led::Own) => "seawall; fwd=stale; stored; detail=invalidated",
        (Fallback::Invalidated, Stored::Kept, Led::Others) => {
            "seawall; fwd=stale; stored; collapsed; detail=invalidated"
        }
        (Fallback::Invalidated, Stored::Passed, Led::Own) => "seawall; fwd=stale; detail=invalidated",
        (Fallback::Invalidated, Stored::Passed, Led::Others) => "seawall; fwd=stale; collapsed; detail=invalidated",
        (Fallback::Blind, Stored::Kept, Led::Own) => "seawall; fwd=stale; stored; detail=blind",
        (Fallback::Blind, Stored::Kept, Led::Others) => "seawall; fwd=stale; stored; collapsed; detail=blind",
        (Fallback::Blind, Stored::Passed, Led::Own) => "seawall; fwd=stale; detail=blind",
        (Fallback::Blind, Stored::Passed, Led::Others) => "seawall; fwd=stale; collapsed; detail=blind",
        (Fallback::Directive | Fallback::Strict, Stored::Kept, Led::Own) => "seawall; fwd=request; stored",
        (Fallback::Directive | Fallback::Strict, Stored::Kept, Led::Others) => {
            "seawall; fwd=request; stored; collapsed"
        }
        (Fallback::Directive | Fallback::Strict, Stored::Passed, Led::Own) => "seawall; fwd=request",
        (Fallback::Directive | Fallback::Strict, Stored::Passed, Led::Others) => "seawall; fwd=request; collapsed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readthrough::ReadError;
    use crate::readthrough::origin::OriginError;
    use std::time::Duration;

    fn memory(stands: Freshness, by: By) -> String {
        value(&Source::Memory { stands, by }).to_str().expect("text").to_owned()
    }

    #[test]
    fn what_memory_gives_says_by_which_rule_and_how_long_ago_it_expired() {
        let (left, past) = (Freshness::Fresh(Duration::from_millis(27_900)), Freshness::Stale(Duration::from_secs(3)));
        assert_eq!(memory(left, By::Lifetime), "seawall; hit; ttl=27");
        assert_eq!(memory(left, By::RefillLimited), "seawall; hit; ttl=27; detail=refill-limited");
        assert_eq!(memory(past, By::WhileRevalidate), "seawall; hit; ttl=-3; detail=stale-while-revalidate");
        assert_eq!(memory(past, By::IfError), "seawall; hit; ttl=-3; detail=stale-if-error");
        assert_eq!(memory(past, By::MaxStale), "seawall; hit; ttl=-3; detail=max-stale");
        assert_eq!(memory(past, By::RefillLimited), "seawall; hit; ttl=-3; detail=refill-limited");
        let just = Freshness::Stale(Duration::from_millis(999));
        assert_eq!(memory(just, By::IfError), "seawall; hit; ttl=0; detail=stale-if-error");
    }

    #[test]
    fn what_another_pod_had_filled_is_a_hit_from_redis() {
        let shared = value(&Source::Shared { left: Duration::from_millis(27_900) });
        assert_eq!(shared, "seawall; hit; ttl=27; detail=redis");
    }

    #[test]
    fn an_old_answer_after_a_wait_says_what_the_wait_brought() {
        let old = |why, led, instead| value(&Source::Old { led, why, instead }).to_str().expect("text").to_owned();
        let away = Instead::Failure(ReadError::Origin(OriginError::Away(String::new())));
        assert_eq!(
            old(Fallback::Expired, Led::Own, away.clone()),
            "seawall; fwd=stale; fwd-status=503; detail=stale-if-error"
        );
        assert_eq!(
            old(Fallback::Expired, Led::Others, Instead::Failure(ReadError::Deadline)),
            "seawall; fwd=stale; fwd-status=504; collapsed; detail=stale-if-error"
        );
        assert_eq!(
            old(Fallback::Directive, Led::Own, away),
            "seawall; fwd=request; fwd-status=503; detail=stale-if-error"
        );
        assert_eq!(old(Fallback::Expired, Led::Own, Instead::Nothing), "seawall; fwd=stale; detail=wait-at-most");
    }
}

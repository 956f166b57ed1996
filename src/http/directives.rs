//! `Cache-Control` of a request (RFC 9111, section 5.2.1), as far as Seawall honours it: `no-cache`, `max-age`, `max-stale`
//! and `only-if-cached`.
//!
//! What is not understood is ignored, as section 5.2 asks: an argument that is no number, and directives of others.
//! Of a directive that is given twice, the stricter counts.

use std::time::Duration;

use http::header::{self, HeaderMap};

use crate::readthrough::Directives;

/// The directives in `headers`. A request without the field costs one look-up.
#[inline]
pub(super) fn parse(headers: &HeaderMap) -> Directives {
    let mut directives = Directives::default();
    if headers.contains_key(header::CACHE_CONTROL) {
        for field in headers.get_all(header::CACHE_CONTROL) {
            field.as_bytes().split(|&b| b == b',').for_each(|part| read(part, &mut directives));
        }
    }
    directives
}

#[cold]
fn read(part: &[u8], into: &mut Directives) {
    let mut halves = part.splitn(2, |&b| b == b'=');
    let name = halves.next().unwrap_or_default().trim_ascii();
    let seconds = halves.next().map(|argument| seconds(argument.trim_ascii()));
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if is("no-cache") {
        into.max_age = Some(Duration::ZERO);
    } else if is("only-if-cached") {
        into.only_if_cached = true;
    } else if is("max-age") {
        if let Some(Some(most)) = seconds {
            into.max_age = Some(into.max_age.map_or(most, |before| before.min(most)));
        }
    } else if is("max-stale") {
        // Without an argument: however stale.
        if let Some(most) = seconds.unwrap_or(Some(Duration::MAX)) {
            into.max_stale = Some(into.max_stale.map_or(most, |before| before.min(most)));
        }
    }
}

/// `delta-seconds`, which a sender may quote; what overflows is as good as for ever (RFC 9111, section 1.2.2).
fn seconds(argument: &[u8]) -> Option<Duration> {
    let bare = argument.strip_prefix(b"\"").and_then(|a| a.strip_suffix(b"\"")).unwrap_or(argument);
    let digits = !bare.is_empty() && bare.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(bare).ok().filter(|_| digits)?;
    Some(number.parse().map_or(Duration::MAX, Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[&str]) -> Directives {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::CACHE_CONTROL, field.parse().expect("a header value"));
        }
        parse(&headers)
    }

    fn max_age(seconds: u64) -> Directives {
        Directives { max_age: Some(Duration::from_secs(seconds)), ..Directives::default() }
    }

    #[test]
    fn each_directive_is_read_in_any_case_and_place() {
        assert_eq!(of(&["no-cache"]), max_age(0));
        assert_eq!(of(&["max-age=0"]), max_age(0));
        assert_eq!(of(&["foo, MAX-AGE = 30 ,bar=2"]), max_age(30));
        assert_eq!(of(&["max-age=\"30\""]), max_age(30));
        assert_eq!(of(&["max-stale"]).max_stale, Some(Duration::MAX));
        assert_eq!(of(&["max-stale=5"]).max_stale, Some(Duration::from_secs(5)));
        assert!(of(&["x", "only-if-cached"]).only_if_cached);
    }

    #[test]
    fn the_stricter_of_two_counts_and_nonsense_is_ignored() {
        assert_eq!(of(&["max-age=30, max-age=20", "max-age=25"]), max_age(20));
        assert_eq!(of(&["max-age=30, no-cache"]), max_age(0));
        for nonsense in ["", ",,", "max-age", "max-age=", "max-age=x", "max-age=-1", "max-age=1.5", "no-cachex", "=3"] {
            assert!(of(&[nonsense]).are_none(), "{nonsense}");
        }
        assert_eq!(of(&["max-age=99999999999999999999999"]).max_age, Some(Duration::MAX));
        assert!(parse(&HeaderMap::new()).are_none());
    }
}

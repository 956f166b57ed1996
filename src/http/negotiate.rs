//! What the client says it takes and sends: `Accept` and `Content-Type`.

use http::header::{self, HeaderMap};

/// Whether an answer in `application/json` is acceptable. No `Accept` takes everything.
#[inline]
pub(super) fn accepts_json(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ACCEPT) {
        return true;
    }
    // RFC 9110 section 12.5.1: the most specific range that matches decides, and a weight of zero refuses.
    let mut best: Option<(u8, bool)> = None;
    for field in headers.get_all(header::ACCEPT) {
        let Ok(field) = field.to_str() else { continue };
        for range in field.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let specific = match parts.next() {
                Some(kind) if kind.eq_ignore_ascii_case("application/json") => 2,
                Some(kind) if kind.eq_ignore_ascii_case("application/*") => 1,
                Some("*/*") => 0,
                _ => continue,
            };
            let taken = !parts
                .filter_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")))
                .any(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
            if best.is_none_or(|(known, _)| specific > known) {
                best = Some((specific, taken));
            }
        }
    }
    best.is_some_and(|(_, taken)| taken)
}

/// Whether a body is said to be JSON in UTF-8.
pub(super) fn sends_json(headers: &HeaderMap) -> bool {
    let Some(Ok(kind)) = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::to_str) else { return false };
    let mut parts = kind.split(';').map(str::trim);
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| {
            let Some((name, value)) = parameter.split_once('=') else { return parameter.is_empty() };
            !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header value"));
        headers
    }

    #[test]
    fn json_is_acceptable_unless_it_is_refused_or_something_else_is_asked_for() {
        assert!(accepts_json(&HeaderMap::new()));
        for yes in
            ["*/*", "application/json", "application/*;q=0.1", "text/html, */*;q=0.8", "*/*;q=0, application/json"]
        {
            assert!(accepts_json(&with(header::ACCEPT, yes)), "{yes}");
        }
        for no in ["text/html", "application/json;q=0", "application/json;q=0, */*", "application/xml", ""] {
            assert!(!accepts_json(&with(header::ACCEPT, no)), "{no}");
        }
    }

    #[test]
    fn only_json_in_utf_8_is_taken() {
        for yes in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
            assert!(sends_json(&with(header::CONTENT_TYPE, yes)), "{yes}");
        }
        for no in ["text/plain", "application/json; charset=latin1", "application/x-www-form-urlencoded"] {
            assert!(!sends_json(&with(header::CONTENT_TYPE, no)), "{no}");
        }
        assert!(!sends_json(&HeaderMap::new()));
    }
}

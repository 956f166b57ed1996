//! What the client says it takes and sends: `Accept`, `Accept-Encoding` and `Content-Type`.

use http::header::{self, HeaderMap};

use crate::coding::{CODINGS, Coding, Codings};

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

/// The coding in which to send a body: of those that the client takes with the greatest weight, the first of `ours`. `None`: as
/// it is, which is what RFC 9110 section 12.5.3 makes of no `Accept-Encoding`, an empty one, and one that names nothing that
/// is known. That holds where the client refuses even that (`identity;q=0`): an answer in the wrong coding helps more than none.
#[inline]
pub(super) fn coding(headers: &HeaderMap, ours: Codings) -> Option<Coding> {
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return None;
    }
    let mut weights: [Option<u16>; CODINGS] = [None; CODINGS];
    let (mut others, mut identity) = (None, None);
    let members =
        headers.get_all(header::ACCEPT_ENCODING).into_iter().flat_map(|field| field.as_bytes().split(|&b| b == b','));
    for member in members {
        let mut parts = member.split(|&b| b == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts.next().map_or(Some(1000), weight).filter(|_| parts.next().is_none()).unwrap_or(0);
        if name == b"*" {
            others = Some(weight);
        } else if name.eq_ignore_ascii_case(b"identity") {
            identity = Some(weight);
        } else if let Some(coding) = Coding::named(name) {
            weights[coding as usize] = Some(weight);
        }
    }
    let weight_of = |coding: Coding| weights[coding as usize].or(others).unwrap_or(0);
    // Of equals the first, as in our order.
    let best = ours.iter().reduce(|best, next| if weight_of(next) > weight_of(best) { next } else { best })?;
    (weight_of(best) > 0 && weight_of(best) >= identity.unwrap_or(0)).then_some(best)
}

/// `q=0.5`, in thousandths (RFC 9110 section 12.4.2).
fn weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, digits) = match value {
        [whole @ (b'0' | b'1')] | [whole @ (b'0' | b'1'), b'.'] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let mut thousandths = u16::from(whole - b'0') * 1000;
    for (digit, unit) in digits.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.is_ascii_digit().then(|| digit - b'0')?) * unit;
    }
    (thousandths <= 1000).then_some(thousandths)
}

/// Whether the request says `Cache-Control: no-transform`: then the body is sent as Postgres made it.
#[inline]
pub(super) fn wants_no_transform(headers: &HeaderMap) -> bool {
    headers.get_all(header::CACHE_CONTROL).into_iter().any(|field| {
        field.as_bytes().split(|&b| b == b',').any(|member| member.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    })
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
    fn the_coding_is_the_clients_favourite_and_among_equals_ours() {
        let chosen = |value: &str| coding(&with(header::ACCEPT_ENCODING, value), Codings::all());
        let (zstd, brotli, gzip) = (Some(Coding::Zstd), Some(Coding::Brotli), Some(Coding::Gzip));
        for (value, expected) in [
            ("gzip", gzip),
            ("x-gzip", gzip),
            ("GZIP, Deflate", gzip),
            ("gzip, deflate, br", brotli),
            ("gzip, deflate, br, zstd", zstd),
            ("gzip;q=1.0, zstd;q=0.9", gzip),
            ("gzip;q=0.8, br;q=0.8;", gzip),
            ("gzip ; q=0.8 , br;Q=0.8", brotli),
            ("zstd;q=0, *", brotli),
            ("zstd;q=0.000, br;q=0., *;q=0.001", gzip),
            ("*", zstd),
            ("*;q=0", None),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", gzip),
            ("identity;q=0", None),
            ("", None),
            ("deflate", None),
            ("gzip;q=1.001", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=x", None),
            ("gzip;level=9", None),
            ("gzip;q=2", None),
            ("gzip;q=0.-", None),
            ("gzip;q=1.5", None),
            ("gzip;q=", None),
            (",,gzip,", gzip),
        ] {
            assert_eq!(chosen(value), expected, "{value}");
        }
        assert_eq!(coding(&HeaderMap::new(), Codings::all()), None);
        assert_eq!(coding(&with(header::ACCEPT_ENCODING, "gzip, br"), Codings::default()), None);
        let mut only = Codings::default();
        only.push(Coding::Gzip);
        assert_eq!(coding(&with(header::ACCEPT_ENCODING, "gzip, br, zstd"), only), gzip);
        let mut several = HeaderMap::new();
        several.append(header::ACCEPT_ENCODING, http::HeaderValue::from_static("gzip"));
        several.append(header::ACCEPT_ENCODING, http::HeaderValue::from_static("br"));
        assert_eq!(coding(&several, Codings::all()), brotli);
    }

    #[test]
    fn no_transform_is_a_member_of_its_own() {
        for (value, says) in [("no-transform", true), ("max-age=0, No-Transform", true), ("x-no-transform", false)] {
            assert_eq!(wants_no_transform(&with(header::CACHE_CONTROL, value)), says, "{value}");
        }
        assert!(!wants_no_transform(&HeaderMap::new()));
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

//! Parameters from the query part of a URI, as HTML forms encode them: `+` is a space, `%2B` is a plus.

use std::borrow::Cow;

use super::super::params::{self, ParamType, Refusal};
use super::{AllGiven, Bad, BadParam, Claims, Given, KeyBuf, MAX_NAME_CHARS, Prepared, Unkeyed, Written, build};

/// As [`key_from_uri_by`], for a caller of whom nothing is known.
///
/// # Errors
/// Every bad parameter once: those of the request in its order, then the missing ones.
pub fn key_from_uri(prepared: &Prepared, query: &str, key: &mut KeyBuf) -> Result<(), Vec<BadParam>> {
    key_from_uri_by(&Claims::none(), prepared, query, key).map_err(Unkeyed::into_parameters)
}

/// Builds the canonical key from the query part of a URI (without `?`, percent-encoded) and the caller's claims.
///
/// # Errors
/// The claim that the caller lacks; or every bad parameter once: those of the request in its order, then the missing ones.
pub fn key_from_uri_by(claims: &Claims, prepared: &Prepared, query: &str, key: &mut KeyBuf) -> Result<(), Unkeyed> {
    let mut given: AllGiven<&str> = AllGiven::new();
    let mut bad = Bad::default();
    for (position, pair) in query.split('&').enumerate().filter(|(_, pair)| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let find =
            |name: &str| prepared.params.iter().position(|param| *param.name == *name && param.claim().is_none());
        let found = match decoded(name) {
            Ok(name) => find(&name).ok_or(name),
            Err(what) => {
                let name: String = name.chars().take(MAX_NAME_CHARS).collect();
                let detail = format!("a parameter name has {what}");
                if !bad.found.iter().any(|(_, earlier)| earlier.param == name) && bad.unknown < super::MAX_UNKNOWN {
                    bad.unknown += 1;
                    bad.push(position, BadParam::new(&name, detail, ENCODING));
                }
                continue;
            }
        };
        match found {
            Ok(param) => given.push(Given { param, position, value }),
            Err(name) => bad.push_unknown(position, &name, &prepared.params),
        }
    }
    build(prepared, &mut given, bad, claims, key, |param, mine, key| {
        match mine {
            [one] => params::canonical_text(param, &value(one.value)?, key)?,
            all if matches!(param.kind, ParamType::Array(_)) => {
                let values = all.iter().map(|one| value(one.value)).collect::<Result<Vec<_>, _>>()?;
                params::canonical_texts(param, values.iter(), key)?;
            }
            all => {
                return Err(Refusal {
                    detail: format!("it is given {} times", all.len()),
                    hint: "give it once".to_owned(),
                });
            }
        }
        Ok(Written::Value)
    })
}

const ENCODING: &str = "percent-encode as UTF-8: %25 for a percent sign";

fn value(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    decoded(raw).map_err(|what| Refusal { detail: format!("its value has {what}"), hint: ENCODING.to_owned() })
}

/// Borrowed where nothing is escaped. Otherwise says what can't be decoded.
fn decoded(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    if !raw.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (Some(high), Some(low)) = (rest.first().copied().and_then(hex), rest.get(1).copied().and_then(hex))
                else {
                    return Err("an invalid percent-escape");
                };
                rest = &rest[2..];
                high << 4 | low
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| "invalid UTF-8")
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

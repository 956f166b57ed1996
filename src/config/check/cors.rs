//! The rules of `[cors]`: origins as browsers spell them, or none of them would ever match.

use super::auth::texts;
use crate::config::bounds;
use crate::config::read::{Place, Reader};
use crate::http::cors::Settings;

/// Most origins, and most fields: a request's is compared with each.
const MOST: usize = 256;

/// `[cors]`; `Some(None)`: there is no such section, and no other origin may read an answer.
#[expect(clippy::option_option, reason = "no good, or absent, or there")]
pub(super) fn check(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Option<Settings>> {
    if place.table.is_none() {
        return Some(None);
    }
    let origins = texts(reader, place, "origins", MOST);
    let allow_credentials = reader.flag(place, "allow_credentials");
    let max_age = reader.duration(place, "max_age", &bounds::CORS_MAX_AGE);
    let headers = texts(reader, place, "headers", MOST);
    let mut good = true;
    let mut report = |reader: &mut Reader<'_>, name: &str, message: String| {
        reader.report(&place.at(name), message);
        good = false;
    };
    if let Some(origins) = &origins {
        if origins.is_empty() {
            report(
                reader,
                "origins",
                "nobody is let in; write origins as [\"https://app.example\"], or [\"*\"]".into(),
            );
        }
        for origin in origins.iter().filter(|origin| *origin != "*") {
            if let Err(why) = check_origin(origin) {
                report(reader, "origins", format!("{why}; write scheme, host and port as \"https://app.example\""));
            }
        }
        let any = origins.iter().any(|origin| origin == "*");
        if any && origins.len() > 1 {
            report(reader, "origins", "\"*\" lets every origin in; write it alone, or leave it out".into());
        }
        if any && allow_credentials == Some(true) {
            let message = "browsers refuse credentials for \"*\"; name the origins, or leave allow_credentials out";
            report(reader, "allow_credentials", message.into());
        }
    }
    if headers.iter().flatten().any(|name| !is_field_name(name)) {
        report(reader, "headers", "one is no name of a field; write names as [\"x-request-id\"]".into());
    }
    let (origins, allow_credentials, max_age, headers) = (origins?, allow_credentials?, max_age?, headers?);
    let headers = UNDERSTOOD.iter().map(|name| (*name).to_owned()).chain(headers).collect();
    good.then_some(Some(Settings { origins, allow_credentials, max_age, headers }))
}

/// Fields that Seawall understands, of those that browsers ask about.
const UNDERSTOOD: [&str; 8] = [
    "authorization",
    "content-type",
    "cache-control",
    "if-none-match",
    "seawall-after",
    "seawall-debug",
    "traceparent",
    "tracestate",
];

fn check_origin(origin: &str) -> Result<(), &'static str> {
    let Some((scheme, authority)) = origin.split_once("://") else { return Err("an origin has no scheme") };
    if authority.contains(['/', '?', '#', '@']) {
        return Err("an origin ends with its host or port: no path, no slash, no user");
    }
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b);
    if authority.is_empty() || !authority.bytes().all(is_plain) {
        return Err("an origin's host is in lower case, in ASCII (xn--), and no pattern");
    }
    if !scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b)) || scheme.is_empty()
    {
        return Err("an origin's scheme is in lower case");
    }
    if matches!((scheme, authority.rsplit_once(':')), ("https", Some((_, "443"))) | ("http", Some((_, "80")))) {
        return Err("browsers leave out the port that is the scheme's own");
    }
    Ok(())
}

/// RFC 9110, section 5.6.2.
fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

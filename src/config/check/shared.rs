//! The rules of `[redis]`: the section makes the shared tier, and what it names can be tried.

use crate::config::read::{Place, Reader};
use crate::config::{Redis, Secret, bounds};

/// Longest namespace: it is in every key.
const NAMESPACE_MAX_BYTES: usize = 64;

/// `Some(None)`: there is no such section.
#[expect(clippy::option_option, reason = "no good, or absent, or there")]
pub(super) fn check(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Option<Redis>> {
    if place.table.is_none() {
        return Some(None);
    }
    let url = check_url(reader, place);
    let namespace = check_namespace(reader, place);
    let pool_size = reader.count(place, "pool_size", &bounds::REDIS_POOL_SIZE);
    let timeout = reader.duration(place, "timeout", &bounds::REDIS_TIMEOUT);
    Some(Some(Redis { url: url?, namespace: namespace?, pool_size: pool_size?, timeout: timeout? }))
}

/// Messages never hold a part of it: there may be a password in it.
fn check_url(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Secret> {
    let (text, given) = reader.text(place, "url")?;
    let message = if ["rediss://", "redis+sentinel://", "redis+cluster://"].iter().any(|it| text.starts_with(it)) {
        "not in force yet: this version speaks to one Redis, without TLS; write redis://"
    } else if is_url(&text) {
        return Some(Secret::new(text));
    } else {
        "it is no URL of a Redis; write one such as \"redis://HOST:6379\" or \"redis://USER:PASSWORD@HOST:6379/0\""
    };
    reader.report(&given.at, message);
    None
}

/// `redis://[user:password@]host[:port][/database]`
fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("redis://") else { return false };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    let (host, port) = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => server.split_once(':').map_or((server, None), |(host, port)| (host, Some(port))),
    };
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !host.is_empty()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0) && is_number(port))
        && (database.is_empty() || (is_number(database) && database.parse::<u16>().is_ok()))
}

fn check_namespace(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<String> {
    let (text, given) = reader.text(place, "namespace")?;
    let is_name = !text.is_empty()
        && text.len() <= NAMESPACE_MAX_BYTES
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !is_name {
        let message = format!("{} is no namespace; write 1 to 64 letters, digits, -, _ and .", given.shown);
        reader.report(&given.at, message);
    }
    is_name.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::is_url;

    #[test]
    fn urls_of_a_redis_are_taken_and_others_are_not() {
        for good in [
            "redis://h",
            "redis://h:6379",
            "redis://h/",
            "redis://h:1/15",
            "redis://:p@h",
            "redis://u:p%40@10.0.0.1:6379/0",
            "redis://[::1]:6379/2",
            "redis://[::1]",
        ] {
            assert!(is_url(good), "{good}");
        }
        for bad in [
            "",
            "redis://",
            "h:6379",
            "http://h",
            "redis://:6379",
            "redis://h:0",
            "redis://h:65536",
            "redis://h:+1",
            "redis://h:x",
            "redis://h/x",
            "redis://h/70000",
            "redis://h /",
            "redis://u@",
        ] {
            assert!(!is_url(bad), "{bad}");
        }
    }
}

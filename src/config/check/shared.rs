//! The rules of `[redis]`: the section makes the shared tier, and what it names can be tried.

use crate::config::read::{Place, Reader};
use crate::config::{Redis, Secret, bounds};
use crate::redis::url::Url;

/// Longest namespace: it is in every key.
const NAMESPACE_MAX_BYTES: usize = 64;

/// `Some(None)`: there is no such section.
#[expect(clippy::option_option, reason = "no good, or absent, or there")]
pub(super) fn check(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Option<Redis>> {
    if place.table.is_none() {
        return Some(None);
    }
    let url = check_url(reader, place);
    let tls_root_cert = reader.file(place, "tls_root_cert");
    if let (Some((url, _)), Ok(Some(_))) = (&url, &tls_root_cert)
        && !url.tls
    {
        let message = "it is unused without TLS; write rediss:// in redis.url, or remove it";
        reader.report(&place.at("tls_root_cert"), message);
    }
    let namespace = check_namespace(reader, place);
    let pool_size = reader.count(place, "pool_size", &bounds::REDIS_POOL_SIZE);
    let timeout = reader.duration(place, "timeout", &bounds::REDIS_TIMEOUT);
    Some(Some(Redis {
        url: url?.1,
        tls_root_cert: tls_root_cert.ok()?,
        namespace: namespace?,
        pool_size: pool_size?,
        timeout: timeout?,
    }))
}

/// Messages never hold a part of it: there may be a password in it.
fn check_url(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<(Url, Secret)> {
    let (text, given) = reader.text(place, "url")?;
    match Url::parse(&text) {
        Ok(url) => Some((url, Secret::new(text))),
        Err(wrong) => {
            for message in wrong {
                reader.report(&given.at, message);
            }
            None
        }
    }
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

//! The rules of `[postgres]`: one way to say how to encrypt, and no file that would be silently unused.

use super::connection;
use crate::config::read::{Given, Place, Reader};
use crate::config::{Database, Postgres, Secret, Tls, bounds};

const MODES: [(&str, Tls); 5] = [
    ("disable", Tls::Disable),
    ("prefer", Tls::Prefer),
    ("require", Tls::Require),
    ("verify-ca", Tls::VerifyCa),
    ("verify-full", Tls::VerifyFull),
];

/// Longest `timezone` and `search_path` in characters: PostgreSQL cuts names at 63 bytes, a path has a few of them.
const MAX_SETTING_CHARS: usize = 1024;

pub(super) fn check(reader: &mut Reader<'_>, place: &Place<'_>, database: Database) -> Option<Postgres> {
    let url = match database {
        Database::Configured => check_url(reader, place),
        Database::Embedded => Some(Url { rest: None, tls: None }),
    };
    let tls = check_tls(reader, place, url.as_ref());
    let migrate_url = match database {
        Database::Configured => check_other_url(reader, place, "migrate_url", tls),
        Database::Embedded => Some(None),
    };
    let listen_url = match database {
        Database::Configured => check_other_url(reader, place, "listen_url", tls),
        Database::Embedded => Some(None),
    };
    let tls_root_cert = reader.file(place, "tls_root_cert");
    let tls_client_cert = reader.file(place, "tls_client_cert");
    let tls_client_key = reader.file(place, "tls_client_key");
    if let (Ok(cert), Ok(key)) = (&tls_client_cert, &tls_client_key)
        && cert.is_some() != key.is_some()
    {
        let (there, missing) = if cert.is_some() {
            ("tls_client_cert", "postgres.tls_client_key")
        } else {
            ("tls_client_key", "postgres.tls_client_cert")
        };
        reader.report(&place.at(there), format!("it goes together with {missing}; set both or neither"));
    }
    if let (Some(Tls::Disable | Tls::Prefer | Tls::Require), Ok(Some(_))) = (tls, &tls_root_cert) {
        // libpq verifies by a root certificate that is there even with "require". To be silent about the difference
        // would leave a connection unverified that somebody believes verified.
        reader.report(
            &place.at("tls_root_cert"),
            "it is used only where the server is verified; set postgres.tls to \"verify-full\" or \"verify-ca\", or \
             remove it",
        );
    }
    if let (Some(Tls::Disable), Ok(Some(_))) = (tls, &tls_client_cert) {
        let message = "it is unused where TLS is disabled; set postgres.tls to \"require\" or more, or remove it";
        reader.report(&place.at("tls_client_cert"), message);
    }
    let pool_size = reader.count(place, "pool_size", &bounds::POOL_SIZE);
    let connect_timeout = reader.duration(place, "connect_timeout", &bounds::CONNECT_TIMEOUT);
    let search_path = check_setting(reader, place, "search_path");
    let timezone = check_setting(reader, place, "timezone").and_then(|timezone| {
        if timezone.is_empty() {
            reader.report(&place.at("timezone"), "it is empty; write a zone such as \"UTC\" or \"Europe/Berlin\"");
            return None;
        }
        Some(timezone)
    });
    let reconnect_max = reader.duration(place, "reconnect_max", &bounds::RECONNECT_MAX);
    Some(Postgres {
        url: url?.rest,
        migrate_url: migrate_url?,
        listen_url: listen_url?,
        pool_size: pool_size?,
        connect_timeout: connect_timeout?,
        search_path: Some(search_path?).filter(|path| !path.is_empty()),
        timezone: timezone?,
        reconnect_max: reconnect_max?,
        tls: tls?,
        tls_root_cert: tls_root_cert.ok()?,
        tls_client_cert: tls_client_cert.ok()?,
        tls_client_key: tls_client_key.ok()?,
    })
}

/// `postgres.url`, or `postgres.migrate_url`.
struct Url {
    /// Without its `sslmode`; `None` for the embedded database.
    rest: Option<Secret>,
    /// What the `sslmode` said.
    tls: Option<Tls>,
}

/// The connection string, if it is a good one.
fn check_url(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Url> {
    let (text, given) = reader.text(place, "url")?;
    if text.is_empty() {
        reader.report(&given.at, "it is empty; write a URL such as \"postgres://USER@HOST/DATABASE\"");
        return None;
    }
    parts(reader, &given, &text)
}

/// The URL `key`, if it is a good one or absent. It is encrypted as `url` is: of one server there is one truth.
#[expect(clippy::option_option, reason = "no good, or absent, or there")]
fn check_other_url(reader: &mut Reader<'_>, place: &Place<'_>, key: &str, tls: Option<Tls>) -> Option<Option<Secret>> {
    let (text, given) = reader.text(place, key)?;
    if text.is_empty() {
        return Some(None);
    }
    let url = parts(reader, &given, &text)?;
    if let (Some(own), Some(tls)) = (url.tls, tls)
        && own != tls
    {
        let message =
            "its sslmode is another than that of postgres.url or postgres.tls, which holds here, too; remove it";
        reader.report(&given.at, message);
        return None;
    }
    Some(url.rest)
}

/// The connection string without its `sslmode`.
fn parts(reader: &mut Reader<'_>, given: &Given, text: &str) -> Option<Url> {
    let split = match connection::split(text) {
        Ok(split) => split,
        Err(messages) => {
            for message in messages {
                reader.report(&given.at, message);
            }
            return None;
        }
    };
    let tls = match split.sslmode {
        None => None,
        Some(word) => {
            let known = MODES.iter().find(|(name, _)| *name == word);
            if known.is_none() {
                let message = "its sslmode is none of disable, prefer, require, verify-ca, verify-full; write one of \
                               these, or remove it and set postgres.tls";
                reader.report(&given.at, message);
            }
            Some(known?.1)
        }
    };
    Some(Url { rest: Some(Secret::new(split.rest)), tls })
}

/// The mode of `tls` or that of the URL, which is `None` if it was no good.
fn check_tls(reader: &mut Reader<'_>, place: &Place<'_>, url: Option<&Url>) -> Option<Tls> {
    let own = reader.choice(place, "tls", &MODES);
    match url?.tls {
        Some(_) if place.has("tls") => {
            let message = "postgres.url has an sslmode, too; remove one of the two";
            reader.report(&place.at("tls"), message);
            None
        }
        Some(mode) => Some(mode),
        None => own,
    }
}

/// A setting of the session: Postgres judges its meaning, but can't take every text.
fn check_setting(reader: &mut Reader<'_>, place: &Place<'_>, name: &str) -> Option<String> {
    let (text, given) = reader.text(place, name)?;
    if text.contains(char::is_control) {
        reader.report(&given.at, format!("{} has a control character in it; write it without", given.shown));
        return None;
    }
    if text.chars().count() > MAX_SETTING_CHARS {
        reader.report(&given.at, format!("{} is longer than 1024 characters; write less", given.shown));
        return None;
    }
    Some(text)
}

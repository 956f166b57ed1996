//! The second step: every rule. Sections are checked one by one and each to its end; a rule between two keys is applied
//! where both are sound, so that one mistake is one problem.

mod auth;
mod connection;
mod cors;
mod depends;
mod params;
mod postgres;
mod queries;
mod shared;
mod tls;

use std::net::{IpAddr, SocketAddr};

use sha2::{Digest as _, Sha256};

use crate::catalog::Declaration;
use crate::catalog::policy::Consistency;
use crate::coding::{Coding, Codings};

use super::keys::{self, Force, Section, TOP};
use super::problem::{Problems, segment};
use super::raw::{Table, Value};
use super::read::{At, Place, Reader, join};
use super::substitute::Sources;
use super::{Admin, Cache, Config, Database, Invalidation, Server, Source, bounds, suggest};

/// Checks everything in `root`.
pub(super) fn check(root: &Table, database: Database, sources: Sources<'_>) -> Result<Config, Problems> {
    let mut reader = Reader::new(sources);
    let reader = &mut reader;
    check_sections(reader, root);
    let sections = [
        Section::Server,
        Section::Admin,
        Section::Postgres,
        Section::Cache,
        Section::Invalidation,
        Section::Auth,
        Section::Cors,
        Section::Defaults,
    ];
    let [server, admin, postgres, cache, invalidation, auth, cors, defaults] =
        sections.map(|s| section(reader, root, s));
    let redis = section(reader, root, Section::Redis);
    let addresses = check_addresses(reader, &server);
    let server = check_server(reader, &server, addresses);
    let admin = check_admin(reader, &admin, addresses.1);
    let postgres = postgres::check(reader, &postgres, database);
    let redis = shared::check(reader, &redis);
    let cache = check_cache(reader, &cache, postgres.as_ref().map(|p| p.pool_size));
    let invalidation = check_invalidation(reader, &invalidation);
    let queries = queries::check(reader, root, &defaults);
    check_lags(reader, root, invalidation.as_ref(), queries.as_deref());
    let auth = auth::check(reader, &auth, &names(root));
    let cors = cors::check(reader, &cors);
    let problems = std::mem::take(&mut reader.problems);
    match (server, admin, postgres, cache, invalidation, auth.zip(cors), redis.zip(queries)) {
        (
            Some(server),
            Some(admin),
            Some(postgres),
            Some(cache),
            Some(invalidation),
            Some((auth, cors)),
            Some((redis, queries)),
        ) if problems.is_empty() => {
            Ok(Config { server, admin, postgres, redis, cache, invalidation, auth, cors, queries, files: vec![] })
        }
        _ => {
            debug_assert!(!problems.is_empty(), "whatever is missing has been reported");
            Err(Problems::new(problems))
        }
    }
}

/// The queries' names, as far as they are names of sections: a query that is no good is not also one that isn't there.
fn names(root: &Table) -> Vec<&str> {
    match root.get("queries").map(|entry| &entry.value) {
        Some(Value::Table(table)) => table.entries.iter().map(|entry| entry.name.as_str()).collect(),
        _ => vec![],
    }
}

/// What stands at the top of the file: sections that there are, and all of them tables.
fn check_sections(reader: &mut Reader<'_>, root: &Table) {
    for entry in &root.entries {
        let at = At { key: segment(&entry.name), line: Some(entry.line) };
        if !TOP.contains(&&*entry.name) {
            reader.report(&at, suggest::unknown_section(&entry.name));
        } else if !matches!(entry.value, Value::Table(_)) {
            let message = format!("this is {}; write a section that begins with [{}]", entry.value.kind(), entry.name);
            reader.report(&at, message);
        }
    }
}

/// The table of `section`, its keys checked for being known and in force.
fn section<'a>(reader: &mut Reader<'_>, root: &'a Table, section: Section) -> Place<'a> {
    let table = match root.get(section.path()).map(|e| &e.value) {
        Some(Value::Table(table)) => Some(table),
        // Absent, or reported with the sections.
        _ => None,
    };
    let place = Place::new(section, section.path(), table);
    check_keys(reader, &place);
    place
}

/// Reports keys of `place` that there are not, and those that are not in force.
fn check_keys(reader: &mut Reader<'_>, place: &Place<'_>) {
    for entry in place.table.iter().flat_map(|t| &t.entries) {
        let at = At { key: join(place.path, &entry.name), line: Some(entry.line) };
        match keys::find(place.section, &entry.name).map(|k| k.force) {
            Some(Force::Now) => {}
            Some(Force::Later(what)) => {
                reader.report(&at, format!("not in force yet: this version has no {what}; remove the key"));
            }
            None => reader.report(&at, suggest::unknown_key(place.section, &entry.name)),
        }
    }
}

/// `listen` and `admin_listen`.
fn check_addresses(reader: &mut Reader<'_>, place: &Place<'_>) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let listen = check_address(reader, place, "listen");
    let admin_listen = check_address(reader, place, "admin_listen");
    if let (Some(one), Some(other)) = (listen, admin_listen)
        && overlap(one, other)
    {
        // Named where the file has it: with only one of them set, that is the one to change.
        let name = if place.has("admin_listen") { "admin_listen" } else { "listen" };
        reader.report(&place.at(name), "listen and admin_listen would share a port; write another for one of them");
    }
    (listen, admin_listen)
}

fn check_server(
    reader: &mut Reader<'_>,
    place: &Place<'_>,
    (listen, admin_listen): (Option<SocketAddr>, Option<SocketAddr>),
) -> Option<Server> {
    let drain_delay = reader.duration(place, "drain_delay", &bounds::DRAIN_DELAY);
    let shutdown_grace = reader.duration(place, "shutdown_grace", &bounds::SHUTDOWN_GRACE);
    let max_connections = reader.count(place, "max_connections", &bounds::MAX_CONNECTIONS);
    let max_waiters = reader.count(place, "max_waiters", &bounds::MAX_WAITERS);
    let body_max_bytes = reader.size(place, "body_max_bytes", &bounds::BODY_MAX_BYTES);
    let expose_stamp = reader.flag(place, "expose_stamp");
    let compression = check_codings(reader, place);
    let compression_min_bytes = reader.size(place, "compression_min_bytes", &bounds::COMPRESSION_MIN_BYTES);
    let watch_config = reader.flag(place, "watch_config");
    let [tls_cert, tls_key, tls_client_ca] = tls::check(reader, place)?;
    Some(Server {
        listen: listen?,
        admin_listen: admin_listen?,
        drain_delay: drain_delay?,
        shutdown_grace: shutdown_grace?,
        max_connections: max_connections?,
        max_waiters: max_waiters?,
        body_max_bytes: body_max_bytes?,
        expose_stamp: expose_stamp?,
        compression: compression?,
        compression_min_bytes: compression_min_bytes?,
        watch_config: watch_config?,
        tls_cert,
        tls_key,
        tls_client_ca,
    })
}

/// `compression`: each coding once.
fn check_codings(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Codings> {
    if !place.has("compression") {
        return Some(Codings::all());
    }
    let mut codings = Codings::default();
    let mut good = true;
    for name in auth::texts(reader, place, "compression", usize::MAX)? {
        let message = match Coding::exactly(name.as_bytes()) {
            None => "one is no coding; write some of \"zstd\", \"br\" and \"gzip\", or [] for none".to_owned(),
            Some(coding) if !codings.push(coding) => format!("{name:?} is in it twice; write each once"),
            Some(_) => continue,
        };
        reader.report(&place.at("compression"), message);
        good = false;
    }
    good.then_some(codings)
}

fn check_address(reader: &mut Reader<'_>, place: &Place<'_>, name: &str) -> Option<SocketAddr> {
    let (text, given) = reader.text(place, name)?;
    let address = text.parse().ok();
    if address.is_none() {
        let message = format!(
            "{} is not an address; write an IP address and a port such as \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \
             \"[::1]:8080\"",
            given.shown
        );
        reader.report(&given.at, message);
    }
    address
}

/// Whether two listeners would want the same port. Port 0 is another one for each.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // An unspecified IPv6 address takes IPv4 in, too, as Linux has it by default.
    let all = |ip: IpAddr, of: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || of.is_ipv4());
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() != 0 && one.port() == other.port() && (a == b || all(a, b) || all(b, a))
}

fn check_admin(reader: &mut Reader<'_>, place: &Place<'_>, admin_listen: Option<SocketAddr>) -> Option<Admin> {
    let tls = tls::check(reader, place);
    let (text, given) = reader.text(place, "token_sha256")?;
    let mut token_sha256 = None;
    if text.is_empty() {
        if let Some(address) = admin_listen
            && !address.ip().to_canonical().is_loopback()
        {
            let message =
                format!("it is required, since server.admin_listen is not a loopback address; {DIGEST_REMEDY}");
            reader.report(&given.at, message);
            return None;
        }
    } else {
        token_sha256 = Some(check_digest(reader, &given.at, &text)?);
    }
    let [tls_cert, tls_key, tls_client_ca] = tls?;
    Some(Admin { token_sha256, tls_cert, tls_key, tls_client_ca })
}

/// How a digest is made.
const DIGEST_REMEDY: &str = "write the 64 hexadecimal digits alone that this prints: printf %s \"$TOKEN\" | sha256sum";

/// A token's digest.
fn check_digest(reader: &mut Reader<'_>, at: &At, text: &str) -> Option<[u8; 32]> {
    let Some(digest) = hex(text) else {
        let message = format!(
            "the value is not a SHA-256 digest; {DIGEST_REMEDY}; if it is the token itself, choose a new one: this one has \
             been written down"
        );
        reader.report(at, message);
        return None;
    };
    // What `sha256sum` says of an unset variable: everybody could make a request with an empty token.
    if digest[..] == Sha256::digest(b"")[..] {
        reader.report(at, format!("this is the digest of an empty token; set TOKEN first, then {DIGEST_REMEDY}"));
        return None;
    }
    Some(digest)
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

fn check_cache(reader: &mut Reader<'_>, place: &Place<'_>, pool_size: Option<usize>) -> Option<Cache> {
    let max_bytes = reader.size(place, "max_bytes", &bounds::MAX_BYTES);
    let entry_max_bytes = reader.size(place, "entry_max_bytes", &bounds::ENTRY_MAX_BYTES);
    if let (Some(entry), Some(all)) = (entry_max_bytes, max_bytes)
        && entry > all
    {
        // Only where the file sets it: the default is not above the least of max_bytes.
        let message = "it is more than cache.max_bytes, so the largest entries could never be stored; write less";
        reader.report(&place.at("entry_max_bytes"), message);
    }
    let compressed_max_bytes = reader.size(place, "compressed_max_bytes", &bounds::COMPRESSED_MAX_BYTES);
    let result_max_bytes = reader.size(place, "result_max_bytes", &bounds::RESULT_MAX_BYTES);
    let max_fills =
        if place.has("max_fills") { reader.count(place, "max_fills", &bounds::MAX_FILLS) } else { pool_size };
    let max_queued_fills = reader.count(place, "max_queued_fills", &bounds::MAX_QUEUED_FILLS);
    Some(Cache {
        max_bytes: max_bytes?,
        entry_max_bytes: entry_max_bytes?,
        compressed_max_bytes: compressed_max_bytes?,
        result_max_bytes: result_max_bytes?,
        max_fills: max_fills?,
        max_queued_fills: max_queued_fills?,
    })
}

/// A query whose `max_lag` is no longer than some polls would be blind most of the time.
fn check_lags(
    reader: &mut Reader<'_>,
    root: &Table,
    invalidation: Option<&Invalidation>,
    queries: Option<&[Declaration]>,
) {
    let Some(Invalidation { source, poll_interval, .. }) = invalidation else { return };
    if *source != Source::Log {
        for query in queries.unwrap_or_default().iter().filter(|query| query.policy.consistency == Consistency::Strict)
        {
            let at = At { key: join(&join("queries", &query.name), "consistency"), line: None };
            reader.report(&at, "strict needs the event log; set invalidation.source to \"log\", or write \"bounded\"");
        }
        return;
    }
    let Some(shortest) = queries.unwrap_or_default().iter().map(|query| query.policy.max_lag).min() else { return };
    if *poll_interval * POLLS_PER_LAG > shortest {
        let line = match root.get("invalidation").map(|entry| &entry.value) {
            Some(Value::Table(table)) => table.get("poll_interval").map(|entry| entry.line),
            _ => None,
        };
        let at = At { key: "invalidation.poll_interval".into(), line };
        let most = shortest / POLLS_PER_LAG;
        let message = format!(
            "it is {poll_interval:?}, and the shortest max_lag of a query {shortest:?}: between two polls it would be blind; \
             write at most \"{}ms\", or a longer max_lag",
            most.as_millis()
        );
        reader.report(&at, message);
    }
}

/// Polls within the shortest `max_lag` at least, so that one that is late makes nobody blind.
const POLLS_PER_LAG: u32 = 4;

fn check_invalidation(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Invalidation> {
    let retention = reader.duration(place, "retention", &bounds::RETENTION);
    let poll_interval = reader.duration(place, "poll_interval", &bounds::POLL_INTERVAL);
    let channel = reader.text(place, "channel").and_then(|(text, given)| {
        // As Postgres: a longer name would be cut, and another would be listened to.
        let is_name = (1..=63).contains(&text.len()) && !text.contains('\0');
        if !is_name {
            reader.report(&given.at, format!("{} is no channel; write a name of 1 to 63 bytes", given.shown));
        }
        is_name.then_some(text)
    });
    let source = reader.choice(place, "source", &SOURCES);
    let proactive = reader.count(place, "proactive", &bounds::PROACTIVE);
    let advisory_key = reader.integer(place, "advisory_key", &bounds::ADVISORY_KEY);
    Some(Invalidation {
        source: source?,
        channel: channel?,
        retention: retention?,
        poll_interval: poll_interval?,
        proactive: proactive?,
        advisory_key: advisory_key?,
    })
}

const SOURCES: [(&str, Source); 3] = [("log", Source::Log), ("notify", Source::Notify), ("none", Source::None)];

//! The rules of `[auth]`: who may ask what. Queries that it names have to be there, digests have to be digests, keys keys.

use std::collections::HashSet;
use std::num::NonZeroU32;

use serde_json::{Map, Value as Json};

use super::{check_digest, check_keys};
use crate::access::{Algorithm, Grant, JwtSettings, Limit, Settings, TokenSettings, VerifyingKey};
use crate::catalog::claims::Claims;
use crate::catalog::sql::is_name;
use crate::config::bounds;
use crate::config::keys::Section;
use crate::config::problem::quoted;
use crate::config::raw::{Table, Value};
use crate::config::read::{At, Place, Reader, join};
use crate::config::suggest;

/// Most claims that one query is told, or that one token has: each is a part of every key.
const MAX_CLAIMS: usize = 16;

/// Most digests of one token: the present one and its successor, and some for a rollout that was never finished.
const MAX_DIGESTS: usize = 8;

/// Longest JWKS file, in bytes: a hundred keys.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// `[auth]`; `Some(None)`: there is no such section, and everybody may ask everything. `known` are the queries' names.
#[expect(clippy::option_option, reason = "no good, or absent, or there")]
pub(super) fn check(reader: &mut Reader<'_>, place: &Place<'_>, known: &[&str]) -> Option<Option<Settings>> {
    if place.table.is_none() {
        return Some(None);
    }
    let anonymous = check_grant(reader, place, "anonymous", known);
    let tokens = check_tokens(reader, place, known);
    let jwt = check_jwt(reader, place, known);
    let settings = Settings { anonymous: anonymous?, tokens: tokens?, jwt: jwt? };
    if settings.tokens.is_empty() && settings.jwt.is_none() && settings.anonymous == Grant::Some(HashSet::new()) {
        let message = "nobody may ask anything; write [auth.tokens.NAME] or [auth.jwt], name queries in anonymous, or \
                       remove the section";
        reader.report(&At { key: "auth".into(), line: None }, message);
        return None;
    }
    Some(Some(settings))
}

fn check_tokens(reader: &mut Reader<'_>, place: &Place<'_>, known: &[&str]) -> Option<Vec<TokenSettings>> {
    let Some(table) = subtable(reader, place, "tokens", "[auth.tokens.NAME]")? else { return Some(vec![]) };
    let path = join(place.path, "tokens");
    let mut taken: HashSet<[u8; 32]> = HashSet::new();
    let checked: Vec<Option<TokenSettings>> = table
        .entries
        .iter()
        .map(|entry| {
            let at = At { key: join(&path, &entry.name), line: Some(entry.line) };
            let named = is_name(&entry.name);
            if !named {
                reader.report(
                    &at,
                    "this can't name a token; write a lowercase letter, then at most 62 of a-z, 0-9 and _",
                );
            }
            let Value::Table(own) = &entry.value else {
                reader.report(&at, format!("this is {}; write a section [auth.tokens.NAME]", entry.value.kind()));
                return None;
            };
            let own = Place::new(Section::Token, &at.key, Some(own));
            check_keys(reader, &own);
            let digests = check_digests(reader, &own, &mut taken);
            let grant = check_grant(reader, &own, "queries", known);
            let claims = check_claims(reader, &own);
            let limit = check_limit(reader, &own);
            named.then_some(())?;
            Some(TokenSettings {
                name: entry.name.as_str().into(),
                digests: digests?,
                grant: grant?,
                claims: claims?,
                limit: limit?,
            })
        })
        .collect();
    checked.into_iter().collect()
}

fn check_digests(reader: &mut Reader<'_>, place: &Place<'_>, taken: &mut HashSet<[u8; 32]>) -> Option<Vec<[u8; 32]>> {
    let at = place.at("sha256");
    let texts = texts(reader, place, "sha256", MAX_DIGESTS)?;
    if texts.is_empty() {
        reader.report(&at, format!("it is missing; {}", super::DIGEST_REMEDY));
        return None;
    }
    let digests: Vec<Option<[u8; 32]>> = texts
        .iter()
        .map(|text| {
            let digest = check_digest(reader, &at, text)?;
            let is_new = taken.insert(digest);
            if !is_new {
                reader.report(&at, "another token has this digest: which of the two a request means can't be told");
            }
            is_new.then_some(digest)
        })
        .collect();
    digests.into_iter().collect()
}

/// Queries by their names; `["*"]`: all.
fn check_grant(reader: &mut Reader<'_>, place: &Place<'_>, name: &str, known: &[&str]) -> Option<Grant> {
    let at = place.at(name);
    let names = items(reader, place, name, usize::MAX)?;
    if names.iter().any(|name| name.text == "*") {
        if names.len() > 1 {
            reader.report(&at, "\"*\" is every query, so the others say nothing; write [\"*\"] alone, or leave it out");
            return None;
        }
        return Some(Grant::All);
    }
    let mut good = true;
    for name in names.iter().filter(|name| !known.contains(&name.text.as_str())) {
        good = false;
        let message = match suggest::closest(&name.text, known.iter().copied()) {
            Some(close) => format!("there is no query {}; did you mean {close}?", name.shown),
            None => format!("there is no query {}; name queries that are declared, or [\"*\"] for all", name.shown),
        };
        reader.report(&at, message);
    }
    good.then(|| Grant::Some(names.into_iter().map(|name| name.text.into_boxed_str()).collect()))
}

/// What is known of a token's bearer: `{ org_id = 7 }`.
fn check_claims(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Claims> {
    let Some(table) = subtable(reader, place, "claims", "a table such as { org_id = 7 }")? else {
        return Some(Claims::none());
    };
    let path = join(place.path, "claims");
    let mut claims: Map<String, Json> = Map::new();
    let mut good = table.entries.len() <= MAX_CLAIMS;
    if !good {
        reader.report(&place.at("claims"), format!("these are more than {MAX_CLAIMS} claims; write fewer"));
    }
    for entry in &table.entries {
        let at = At { key: join(&path, &entry.name), line: Some(entry.line) };
        good &= check_claim_name(reader, &at, &entry.name, &quoted(&entry.name));
        match super::params::json(reader, &at, &entry.value) {
            Some(value) => drop(claims.insert(entry.name.clone(), value)),
            None => good = false,
        }
    }
    good.then(|| Claims::new(claims.iter().map(|(name, value)| (name.as_str(), value))))
}

/// Names of claims that a query is told.
pub(super) fn check_claim_names(reader: &mut Reader<'_>, place: &Place<'_>, name: &str) -> Option<Vec<Box<str>>> {
    let at = place.at(name);
    let names = items(reader, place, name, MAX_CLAIMS)?;
    let good = names.iter().filter(|name| !check_claim_name(reader, &at, &name.text, &name.shown)).count() == 0;
    let mut names: Vec<String> = names.into_iter().map(|name| name.text).collect();
    names.sort();
    names.dedup();
    good.then(|| names.into_iter().map(String::into_boxed_str).collect())
}

fn check_claim_name(reader: &mut Reader<'_>, at: &At, name: &str, shown: &str) -> bool {
    let good = is_name(name);
    if !good {
        let message = format!(
            "{shown} can't name a claim, which is a lowercase letter, then at most 62 of a-z, 0-9 and _; where tokens \
             have it is said in auth.jwt.claims"
        );
        reader.report(at, message);
    }
    good
}

fn check_limit(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Limit> {
    let rate = reader.count(place, "rate", &bounds::RATE);
    let burst = reader.count(place, "burst", &bounds::RATE);
    let concurrency = reader.count(place, "concurrency", &bounds::CONCURRENCY);
    let (rate, burst, concurrency) = (rate?, burst?, concurrency?);
    if burst > 0 && rate == 0 {
        reader.report(&place.at("burst"), "there is no rate that it would precede; set rate, or remove it");
        return None;
    }
    let bound = |n: usize| u32::try_from(n).ok().and_then(NonZeroU32::new);
    Some(Limit { rate: bound(rate), burst: bound(burst), concurrency: (concurrency > 0).then_some(concurrency) })
}

#[expect(clippy::option_option, reason = "no good, or absent, or there")]
fn check_jwt(reader: &mut Reader<'_>, place: &Place<'_>, known: &[&str]) -> Option<Option<JwtSettings>> {
    let Some(table) = subtable(reader, place, "jwt", "a section [auth.jwt]")? else { return Some(None) };
    let path = join(place.path, "jwt");
    let place = &Place::new(Section::Jwt, &path, Some(table));
    check_keys(reader, place);
    let keys = check_signing_keys(reader, place);
    let issuer = reader.text(place, "issuer").map(|(text, _)| (!text.is_empty()).then_some(text));
    let audiences = texts(reader, place, "audience", bounds::AUDIENCES);
    let leeway = reader.duration(place, "leeway", &bounds::LEEWAY);
    let grant = check_grant(reader, place, "queries", known);
    let places = check_places(reader, place);
    let limit = check_limit(reader, place);
    Some(Some(JwtSettings {
        keys: keys?,
        issuer: issuer?,
        audiences: audiences?,
        leeway: leeway?,
        grant: grant?,
        places: places?,
        limit: limit?,
    }))
}

/// `claims = { org_id = "/app_metadata/org_id" }`
fn check_places(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Vec<(Box<str>, String)>> {
    let what = "a table such as { org_id = \"/app/org_id\" }";
    let Some(table) = subtable(reader, place, "claims", what)? else { return Some(vec![]) };
    let path = join(place.path, "claims");
    let checked: Vec<Option<(Box<str>, String)>> = table
        .entries
        .iter()
        .map(|entry| {
            let at = At { key: join(&path, &entry.name), line: Some(entry.line) };
            let named = check_claim_name(reader, &at, &entry.name, &quoted(&entry.name));
            match &entry.value {
                Value::Text(pointer) if pointer.starts_with('/') => {
                    named.then(|| (entry.name.as_str().into(), pointer.clone()))
                }
                other => {
                    let message = format!(
                        "this is {}; write where tokens have it, as \"/org_id\" or \"/app_metadata/org_id\" (RFC 6901)",
                        other.kind()
                    );
                    reader.report(&at, message);
                    None
                }
            }
        })
        .collect();
    checked.into_iter().collect()
}

fn check_signing_keys(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Vec<VerifyingKey>> {
    let mut keys = vec![];
    let mut good = true;
    if let Some(table) = subtable(reader, place, "keys", "sections [auth.jwt.keys.KID]")? {
        let path = join(place.path, "keys");
        for entry in &table.entries {
            let at = At { key: join(&path, &entry.name), line: Some(entry.line) };
            match &entry.value {
                Value::Table(own) => {
                    let own = Place::new(Section::JwtKey, &at.key, Some(own));
                    match check_signing_key(reader, &own, &entry.name) {
                        Some(key) => keys.push(key),
                        None => good = false,
                    }
                }
                other => {
                    reader.report(&at, format!("this is {}; write a section [auth.jwt.keys.KID]", other.kind()));
                    good = false;
                }
            }
        }
    }
    match reader.file(place, "jwks_file") {
        Ok(None) => {}
        Ok(Some(path)) => {
            match read(&path).and_then(|text| VerifyingKey::from_jwks(&text).map_err(|e| e.to_string())) {
                Ok(set) => keys.extend(set),
                Err(why) => {
                    reader.report(
                        &place.at("jwks_file"),
                        format!("{why}; write the path to a file with a JSON Web Key Set"),
                    );
                    good = false;
                }
            }
        }
        Err(_reported) => good = false,
    }
    if good && keys.is_empty() {
        let message = "there is no key to verify tokens with; write [auth.jwt.keys.KID] or set jwks_file";
        reader.report(&At { key: place.path.to_owned(), line: None }, message);
        return None;
    }
    good.then_some(keys)
}

fn check_signing_key(reader: &mut Reader<'_>, place: &Place<'_>, id: &str) -> Option<VerifyingKey> {
    check_keys(reader, place);
    let algorithm = reader.choice(place, "algorithm", &Algorithm::NAMES);
    let secret = reader.text(place, "secret").map(|(text, _)| text);
    let file = reader.file(place, "public_key_file");
    let (algorithm, secret, file) = (algorithm?, secret?, file.ok()?);
    let (name, material) = match (algorithm, file) {
        (Algorithm::Hs256, None) if !secret.is_empty() => ("secret", secret.into_bytes()),
        (Algorithm::Hs256, _) => {
            reader.report(
                &place.at("secret"),
                "HS256 needs a secret, and nothing else; write it as \"${file:/run/secrets/jwt}\"",
            );
            return None;
        }
        (_, Some(path)) if secret.is_empty() => match read(&path) {
            Ok(text) => ("public_key_file", text),
            Err(why) => {
                reader.report(&place.at("public_key_file"), why);
                return None;
            }
        },
        _ => {
            reader.report(
                &place.at("public_key_file"),
                "this algorithm needs the path to a public key in PEM, and nothing else",
            );
            return None;
        }
    };
    VerifyingKey::new(id, algorithm, &material)
        .map_err(|why| reader.report(&place.at(name), format!("{why}; write another")))
        .ok()
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut bytes = vec![];
    let file = std::fs::File::open(path).map_err(|e| format!("it can't be opened: {e}"))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| format!("it can't be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err("it is longer than 256KiB".into()) } else { Ok(bytes) }
}

/// The table called `name`; `Some(None)`: there is none.
#[expect(clippy::option_option, reason = "no good, or absent, or there")]
fn subtable<'t>(reader: &mut Reader<'_>, place: &Place<'t>, name: &str, what: &str) -> Option<Option<&'t Table>> {
    match place.table.and_then(|table| table.get(name)).map(|entry| &entry.value) {
        None => Some(None),
        Some(Value::Table(table)) => Some(Some(table)),
        Some(other) => {
            reader.report(&place.at(name), format!("this is {}; write {what}", other.kind()));
            None
        }
    }
}

/// A text of a list, and how a message names it: as it is written in the file, never what came from outside.
struct Item {
    text: String,
    shown: String,
}

pub(super) fn texts(reader: &mut Reader<'_>, place: &Place<'_>, name: &str, most: usize) -> Option<Vec<String>> {
    Some(items(reader, place, name, most)?.into_iter().map(|item| item.text).collect())
}

/// A text, or a list of at most `most` texts; none where there is nothing.
fn items(reader: &mut Reader<'_>, place: &Place<'_>, name: &str, most: usize) -> Option<Vec<Item>> {
    let at = place.at(name);
    let items = match place.table.and_then(|table| table.get(name)).map(|entry| &entry.value) {
        None => return Some(vec![]),
        Some(Value::Array(items)) => items.iter().collect(),
        Some(one @ Value::Text(_)) => vec![one],
        Some(other) => {
            reader.report(&at, format!("this is {}; write a list of strings", other.kind()));
            return None;
        }
    };
    if items.len() > most {
        reader.report(&at, format!("these are more than {most}; write fewer"));
        return None;
    }
    let read: Vec<Option<Item>> = items
        .into_iter()
        .map(|item| match item {
            Value::Text(written) => reader.text_of(&at, written).map(|(text, _)| Item { text, shown: quoted(written) }),
            other => {
                reader.report(&at, format!("{} is in it; write strings in quotes", other.kind()));
                None
            }
        })
        .collect();
    read.into_iter().collect()
}

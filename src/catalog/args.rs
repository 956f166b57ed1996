//! From the parameters of a request to the canonical key of an entry, and back to values.
//!
//! A key is the fingerprint of the query's shape, eight bytes little-endian, then for each parameter in the order of the
//! statement either `0x00` for NULL, or `0x01`, the length of the value as LEB128, and its canonical text. GET and POST
//! with the same values give the same bytes. The caller's claims that are set for the fill follow in the same form.
//!
//! This is the path of every hit. A valid request without percent-escapes is read without allocation: values are
//! borrowed from the query string, the key grows on the stack, parameters are found by comparing names (there are few,
//! and no map is faster than that). Only a refusal allocates. Where there is one, the key is left empty.

mod json;
#[cfg(test)]
mod tests;
mod uri;

use smallvec::SmallVec;

use super::claims::{Claims, Value};
use super::params::{self, Param, Refusal};
use super::query::Prepared;
use super::sql::MAX_PARAMS;

pub use json::{key_from_json, key_from_json_by};
pub use uri::{key_from_uri, key_from_uri_by};

/// Where a key is built: 128 bytes on the stack are more than most keys need.
pub type KeyBuf = SmallVec<[u8; 128]>;

/// Most unknown names that one refusal lists. Known parameters are at most [`MAX_PARAMS`]; unknown ones are the client's
/// to multiply, and a suggestion for each is work.
const MAX_UNKNOWN: usize = 16;

/// Most known names that a hint lists.
const MAX_LISTED: usize = 20;

/// Longest name of the client's that is quoted, in characters.
const MAX_NAME_CHARS: usize = 64;

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unkeyed {
    /// Every bad parameter of the request.
    Parameters(Vec<BadParam>),
    /// The caller has not got a claim that the query takes, or it has a value that the query can't take.
    Claim(BadParam),
}

impl Unkeyed {
    /// As bad parameters, where claims are parameters like others.
    pub fn into_parameters(self) -> Vec<BadParam> {
        match self {
            Self::Parameters(bad) => bad,
            Self::Claim(bad) => vec![bad],
        }
    }
}

/// One bad parameter of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParam {
    /// Its name; of an unknown one, the name that was sent, cut to 64 characters. Empty where the request as a whole
    /// can't be read.
    pub param: String,
    /// What is wrong.
    pub detail: String,
    /// What to do instead; may be empty.
    pub hint: String,
}

impl BadParam {
    fn new(param: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { param: param.chars().take(MAX_NAME_CHARS).collect(), detail: detail.into(), hint: hint.into() }
    }

    fn of(param: &Param, refusal: Refusal) -> Self {
        Self::new(&param.name, refusal.detail, refusal.hint)
    }
}

/// A value as the request has it: which parameter it is for, and as which part of the request it came.
#[derive(Clone, Copy)]
struct Given<V> {
    param: usize,
    position: usize,
    value: V,
}

/// Room on the stack for as many values as there can be parameters; only a long repeated array needs more.
type AllGiven<V> = SmallVec<[Given<V>; MAX_PARAMS]>;

/// What is wrong with a request, by the place in it; allocates from the first one on.
#[derive(Default)]
struct Bad {
    found: Vec<(usize, BadParam)>,
    unknown: usize,
}

impl Bad {
    fn push(&mut self, position: usize, bad: BadParam) {
        self.found.push((position, bad));
    }

    #[cold]
    fn push_unknown(&mut self, position: usize, name: &str, known: &[Param]) {
        let name: String = name.chars().take(MAX_NAME_CHARS).collect();
        if self.unknown < MAX_UNKNOWN && !self.found.iter().any(|(_, earlier)| earlier.param == name) {
            self.unknown += 1;
            self.push(position, unknown(&name, known));
        }
    }

    /// In the order of the request.
    fn finish(mut self, key: &mut KeyBuf) -> Result<(), Vec<BadParam>> {
        if self.found.is_empty() {
            return Ok(());
        }
        key.clear();
        self.found.sort_by_key(|(position, _)| *position);
        Err(self.found.into_iter().map(|(_, bad)| bad).collect())
    }
}

/// Writes the key of `prepared` from the values given, in whatever order; `write` appends the canonical form of what was
/// given for one parameter, which is at least one value, and says whether it was NULL.
fn build<V: Copy>(
    prepared: &Prepared,
    given: &mut [Given<V>],
    mut bad: Bad,
    claims: &Claims,
    key: &mut KeyBuf,
    write: impl Fn(&Param, &[Given<V>], &mut KeyBuf) -> Result<Written, Refusal>,
) -> Result<(), Unkeyed> {
    key.clear();
    key.extend_from_slice(&prepared.fingerprint.to_le_bytes());
    // Mostly sorted already; and sorting in place allocates nothing.
    given.sort_unstable_by_key(|g| (g.param, g.position));
    let mut rest = &*given;
    for (index, param) in prepared.params.iter().enumerate() {
        if let Some(claim) = param.claim() {
            push_claim(key, param, claims.get(claim))?;
            continue;
        }
        let count = rest.iter().take_while(|g| g.param == index).count();
        let (mine, others) = rest.split_at(count);
        rest = others;
        let position = mine.first().map_or(usize::MAX, |g| g.position);
        if mine.is_empty() {
            match (&param.default, param.required) {
                (Some(default), _) => push_value(key, default.as_bytes()),
                (None, false) => key.push(NULL),
                (None, true) => bad.push(position, missing(param)),
            }
            continue;
        }
        let start = key.len();
        key.extend_from_slice(&[VALUE, 0]);
        match write(param, mine, key) {
            Ok(Written::Value) => close_value(key, start + 1),
            Ok(Written::Null) if !param.required => {
                key.truncate(start);
                key.push(NULL);
            }
            Ok(Written::Null) => bad.push(position, BadParam::new(&param.name, "it is null", "send a value")),
            Err(refusal) => bad.push(position, BadParam::of(param, refusal)),
        }
    }
    for setting in &prepared.settings {
        push_claim(key, setting, setting.claim().and_then(|claim| claims.get(claim)))?;
    }
    bad.finish(key).map_err(Unkeyed::Parameters)
}

/// Appends the value of a parameter that is a claim.
fn push_claim(key: &mut KeyBuf, param: &Param, value: Option<&Value>) -> Result<(), Unkeyed> {
    let Some(value) = value else {
        match (&param.default, param.required) {
            (Some(default), _) => push_value(key, default.as_bytes()),
            (None, false) => key.push(NULL),
            (None, true) => {
                key.clear();
                return Err(Unkeyed::Claim(BadParam::new(&param.name, "the caller has no such claim", "")));
            }
        }
        return Ok(());
    };
    let start = key.len();
    key.extend_from_slice(&[VALUE, 0]);
    if let Err(refusal) = value.write(param, key) {
        key.clear();
        return Err(Unkeyed::Claim(BadParam::of(param, refusal)));
    }
    close_value(key, start + 1);
    Ok(())
}

/// What was appended for a parameter.
enum Written {
    Value,
    /// Nothing: the value is NULL.
    Null,
}

const NULL: u8 = 0;
const VALUE: u8 = 1;

/// Writes the length of the value that was appended behind the byte `at`, making room where one byte is too few.
fn close_value(key: &mut KeyBuf, at: usize) {
    let (length, width) = leb128(key.len() - at - 1);
    key[at] = length[0];
    if width > 1 {
        key.insert_from_slice(at + 1, &length[1..width]);
    }
}

fn push_value(key: &mut KeyBuf, value: &[u8]) {
    let (length, width) = leb128(value.len());
    key.push(VALUE);
    key.extend_from_slice(&length[..width]);
    key.extend_from_slice(value);
}

/// Seven bits a byte, the lowest first; ten bytes hold 64 bits.
fn leb128(mut number: usize) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut width = 0;
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits fit a byte");
        number >>= 7;
        bytes[width] = if number == 0 { low } else { low | 0x80 };
        width += 1;
        if number == 0 {
            return (bytes, width);
        }
    }
}

/// The values that a key holds, in the order of the parameters; `None` is NULL. Ends early where the bytes are no key.
pub fn values(key: &[u8]) -> impl Iterator<Item = Option<&str>> {
    let mut rest = key.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (tag, after) = rest.split_first()?;
        if *tag == NULL {
            rest = after;
            return Some(None);
        }
        let mut length = 0_usize;
        let mut width = 0;
        loop {
            let byte = *after.get(width)?;
            length |= usize::from(byte & 0x7f).checked_shl(7 * u32::try_from(width).ok()?)?;
            width += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let value = after.get(width..width.checked_add(length)?)?;
        rest = &after[width + length..];
        Some(Some(std::str::from_utf8(value).ok()?))
    })
}

/// The canonical text of a declared default: it goes through the checks that a request's value goes through.
///
/// # Errors
/// The value is none of the parameter's type or out of its bounds, or it is null.
pub fn canonical_default(param: &Param, value: &serde_json::Value) -> Result<Box<str>, BadParam> {
    if value.is_null() {
        return Err(BadParam::new(&param.name, "its default is null", "leave it out, and set required = false"));
    }
    let raw = serde_json::value::to_raw_value(value)
        .map_err(|error| BadParam::new(&param.name, format!("its default is no JSON: {error}"), ""))?;
    let mut canonical = KeyBuf::new();
    params::canonical_json(param, &raw, &mut canonical).map_err(|refusal| BadParam::of(param, refusal))?;
    let text = std::str::from_utf8(&canonical).expect("canonical forms are made of UTF-8 pieces");
    Ok(text.into())
}

fn missing(param: &Param) -> BadParam {
    BadParam::new(&param.name, "it is missing", format!("send {}, of type {}", param.name, param.kind))
}

fn unknown(name: &str, known: &[Param]) -> BadParam {
    let known: Vec<&Param> = known.iter().filter(|param| param.claim().is_none()).collect();
    if known.is_empty() {
        return BadParam::new(name, "the query has no such parameter", "it takes none");
    }
    let lower = name.to_lowercase();
    let nearest = known
        .iter()
        .map(|param| (strsim::osa_distance(&lower, &param.name), &param.name))
        .min_by_key(|(distance, _)| *distance)
        // A third of the name may be wrong; beyond that a suggestion misleads.
        .filter(|(distance, nearest)| *distance <= (nearest.len() / 3).max(1));
    let mut hint = nearest.map_or_else(String::new, |(_, nearest)| format!("did you mean {nearest}? "));
    let listed: Vec<&str> = known.iter().take(MAX_LISTED).map(|param| &*param.name).collect();
    hint.push_str("it takes ");
    hint.push_str(&listed.join(", "));
    if known.len() > MAX_LISTED {
        hint.push_str(", …");
    }
    BadParam::new(name, "the query has no such parameter", hint)
}

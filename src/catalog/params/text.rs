//! Booleans, uuids, texts, enum labels, and the types that are passed on as they are.

use super::{KeyBuf, Refusal, quoted};

/// Most labels that a hint lists.
const LISTED_LABELS: usize = 10;

pub(super) fn boolean(raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    if !matches!(raw, "true" | "false") {
        return Err(Refusal::new(format!("{} is not of type bool", quoted(raw)), "send true or false"));
    }
    key.extend_from_slice(raw.as_bytes());
    Ok(())
}

/// As `uuid_in`: braces around it or not, a hyphen after any four digits or none.
pub(super) fn uuid(raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    let mut digits = [0_u8; 32];
    if !uuid_digits(raw, &mut digits) {
        return Err(Refusal::new(
            format!("{} is not of type uuid", quoted(raw)),
            "send 32 hexadecimal digits such as a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ));
    }
    for (at, digit) in digits.iter().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            key.push(b'-');
        }
        key.push(*digit);
    }
    Ok(())
}

fn uuid_digits(raw: &str, digits: &mut [u8; 32]) -> bool {
    let inner = match raw.strip_prefix('{') {
        Some(rest) => match rest.strip_suffix('}') {
            Some(inner) => inner,
            None => return false,
        },
        None => raw,
    };
    let mut found = 0;
    let mut hyphen_allowed = false;
    for byte in inner.bytes() {
        if byte == b'-' && hyphen_allowed {
            hyphen_allowed = false;
        } else if byte.is_ascii_hexdigit() && found < 32 {
            digits[found] = byte.to_ascii_lowercase();
            found += 1;
            hyphen_allowed = found % 4 == 0 && found < 32;
        } else {
            return false;
        }
    }
    found == 32
}

fn no_nul(raw: &str, kind: &str) -> Result<(), Refusal> {
    if raw.contains('\0') {
        return Err(Refusal::new(
            format!("{} holds a NUL character, which {kind} can't", quoted(raw)),
            "leave the NUL character out",
        ));
    }
    Ok(())
}

pub(super) fn text(raw: &str, max_length: Option<usize>, key: &mut KeyBuf) -> Result<(), Refusal> {
    no_nul(raw, "text")?;
    // As many bytes as characters are allowed can't be more characters than that.
    if let Some(max) = max_length.filter(|max| raw.len() > *max) {
        let length = raw.chars().count();
        if length > max {
            return Err(Refusal::new(
                format!("{} has {length} characters", quoted(raw)),
                format!("send at most {max} characters"),
            ));
        }
    }
    key.extend_from_slice(raw.as_bytes());
    Ok(())
}

pub(super) fn label(raw: &str, name: &str, labels: &[Box<str>], key: &mut KeyBuf) -> Result<(), Refusal> {
    if !labels.iter().any(|label| **label == *raw) {
        return Err(Refusal::new(format!("{} is no label of {name}", quoted(raw)), label_hint(raw, labels)));
    }
    key.extend_from_slice(raw.as_bytes());
    Ok(())
}

#[cold]
fn label_hint(raw: &str, labels: &[Box<str>]) -> String {
    let mut listed: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
    let shown = if listed.len() > LISTED_LABELS {
        let short: String = raw.chars().take(super::QUOTED_CHARS).collect();
        listed.sort_by_cached_key(|label| strsim::osa_distance(&short, label));
        listed.truncate(LISTED_LABELS);
        "the nearest labels are"
    } else {
        "the labels are"
    };
    format!("{shown} {}", listed.join(", "))
}

/// Types of which nothing is known here; Postgres reads the text. An empty one is refused as for numbers: hardly any
/// type has it, and in a URL it is mostly a forgotten value.
pub(super) fn other(raw: &str, name: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    if raw.is_empty() {
        return Err(Refusal::new(format!("an empty value is not of type {name}"), "send a value, or leave it out"));
    }
    no_nul(raw, name)?;
    key.extend_from_slice(raw.as_bytes());
    Ok(())
}

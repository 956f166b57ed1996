//! Connection strings: takes `sslmode` out, leaves every other option as it is, byte for byte.
//!
//! Both forms that Postgres knows, URL and key=value, are cut as tokio-postgres cuts them, since it reads what is left.
//! Messages never hold a part of the string: there are passwords in it.

use std::ops::Range;

use percent_encoding::percent_decode_str;

/// A connection string in two parts.
pub(super) struct Split {
    pub(super) rest: String,
    /// Of several the last one, as libpq has it.
    pub(super) sslmode: Option<String>,
}

/// Options of libpq that have a key here, and would be refused by tokio-postgres in words that don't say so.
const MOVED: [(&str, &str); 3] =
    [("sslrootcert", "tls_root_cert"), ("sslcert", "tls_client_cert"), ("sslkey", "tls_client_key")];

const NO_URL: &str = "this is neither a URL nor key=value pairs; write one such as \
                      \"postgres://USER@HOST/DATABASE\" or \"host=HOST user=USER dbname=DATABASE\"";

/// Splits `text`; every reason why it can't be one, without its content.
pub(super) fn split(text: &str) -> Result<Split, Vec<String>> {
    if text.contains('\0') {
        return Err(vec!["it has a NUL character in it, which Postgres can't take; write it without".to_owned()]);
    }
    let url = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let options = match url {
        Some(rest) => url_options(text, text.len() - rest.len()),
        None if text.contains("://") && !text.trim_start().split('=').next().is_some_and(is_word) => {
            return Err(vec!["the URL has another scheme; write postgres:// or postgresql://".to_owned()]);
        }
        None => pairs(text).filter(|options| !options.is_empty()).ok_or_else(|| vec![NO_URL.to_owned()])?,
    };
    let moved: Vec<String> = MOVED
        .iter()
        .filter(|(option, _)| options.iter().any(|o| o.name == *option))
        .map(|(option, key)| format!("{option} is not read from here; set postgres.{key} instead"))
        .collect();
    if !moved.is_empty() {
        return Err(moved);
    }
    let (modes, kept): (Vec<_>, Vec<_>) = options.iter().partition(|o| o.name == "sslmode");
    let Some(mode) = modes.last() else { return Ok(Split { rest: text.to_owned(), sslmode: None }) };
    let kept: Vec<&str> = kept.iter().map(|o| &text[o.at.clone()]).collect();
    let rest = match url {
        // The head ends before the question mark in front of the first option.
        Some(_) if kept.is_empty() => text[..options[0].at.start - 1].to_owned(),
        Some(_) => format!("{}{}", &text[..options[0].at.start], kept.join("&")),
        None => kept.join(" "),
    };
    Ok(Split { rest, sslmode: Some(mode.value.clone()) })
}

struct ConnectionOption {
    /// Without the separators around it.
    at: Range<usize>,
    name: String,
    value: String,
}

/// The options after the `?` of a URL whose scheme ends at `start`.
fn url_options(text: &str, start: usize) -> Vec<ConnectionOption> {
    // Credentials end at the first @, and may have a ? in them.
    let credentials = text[start..].find('@').map_or(start, |at| start + at);
    let Some(mut at) = text[credentials..].find('?').map(|at| credentials + at + 1) else { return Vec::new() };
    let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let mut options = Vec::new();
    for part in text[at..].split('&') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        options.push(ConnectionOption { at: at..at + part.len(), name: decode(name), value: decode(value) });
        at += part.len() + 1;
    }
    options
}

/// The pairs of a key=value string; `None` if it isn't one.
fn pairs(text: &str) -> Option<Vec<ConnectionOption>> {
    let mut options = Vec::new();
    let mut at = text.len() - text.trim_start().len();
    while at < text.len() {
        let start = at;
        let name_end = at + text[at..].find(|c: char| c.is_whitespace() || c == '=')?;
        let name = &text[at..name_end];
        let after = text[name_end..].trim_start().strip_prefix('=')?.trim_start();
        let (value, rest) = value(after)?;
        let end = text.len() - rest.len();
        at = text.len() - rest.trim_start().len();
        if !is_word(name) {
            return None;
        }
        options.push(ConnectionOption { at: start..end, name: name.to_owned(), value });
    }
    Some(options)
}

/// A value, quoted or not, with its backslashes resolved, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            c if c.is_whitespace() && !quoted => return Some((value, &text[at..])),
            c => value.push(c),
        }
    }
    (!quoted && !value.is_empty()).then_some((value, ""))
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.trim_end().bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, Option<String>) {
        let split = split(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        (split.rest, split.sslmode)
    }

    #[test]
    fn sslmode_is_taken_out_and_nothing_else_is_touched() {
        for (text, rest, mode) in [
            ("postgres://app@localhost/shop", "postgres://app@localhost/shop", None),
            ("postgresql:///shop?host=/run/pg", "postgresql:///shop?host=/run/pg", None),
            ("postgres://a@h/d?sslmode=require", "postgres://a@h/d", Some("require")),
            ("postgres://a@h/d?sslmode=require&user=b", "postgres://a@h/d?user=b", Some("require")),
            ("postgres://a@h/d?user=b&sslmode=verify-full", "postgres://a@h/d?user=b", Some("verify-full")),
            ("postgres://a@h/d?user=b&sslmode=disable&port=1", "postgres://a@h/d?user=b&port=1", Some("disable")),
            ("postgres://a@h/d?sslmode=disable&sslmode=require", "postgres://a@h/d", Some("require")),
            ("postgres://a@h/d?ssl%6Dode=verify%2Dca", "postgres://a@h/d", Some("verify-ca")),
            ("postgres://a:p?sslmode=x@h/d", "postgres://a:p?sslmode=x@h/d", None),
            ("postgres://a:p?q@h/d?sslmode=require", "postgres://a:p?q@h/d", Some("require")),
            ("postgres://a@h/d?user=b%26&sslmode=", "postgres://a@h/d?user=b%26", Some("")),
            ("host=h user=a", "host=h user=a", None),
            ("host=h sslmode=require user=a", "host=h user=a", Some("require")),
            ("sslmode = 'verify-ca'  host=h", "host=h", Some("verify-ca")),
            ("host=h password='sslmode=x \\' y' sslmode=disable", "host=h password='sslmode=x \\' y'", Some("disable")),
            ("host=h password=a\\ sslmode=b", "host=h password=a\\ sslmode=b", None),
            ("password=a://b host=h", "password=a://b host=h", None),
        ] {
            assert_eq!(parts(text), (rest.to_owned(), mode.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_without_quoting_them() {
        for text in [
            "hunter2",
            "mysql://app:hunter2@h/d",
            "host hunter2",
            "password='hunter2",
            "=hunter2",
            "a=hunter2\0",
            "http://x?a=hunter2",
            "hunter2\\",
            "Host=hunter2",
            "postgres://h/d?sslcert=hunter2",
            "sslkey=hunter2",
        ] {
            let problems = split(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(!problems.concat().contains("hunter2"), "{problems:?}");
        }
    }
}

//! `${VAR}`, `${VAR:-default}` and `${file:/run/secrets/x}` in string values; `$${` stands for `${`.
//!
//! Values are replaced after TOML has been parsed, one string at a time: a password with a quote or a newline in it
//! can't end the string, let alone add a key. What was put in is not looked at again, so a value with `${` in it is
//! just text. Keys are never replaced, and neither is SQL nor a parameter's type: SQL comes from the configuration
//! alone. As in a shell, `:-` gives its default where the variable is unset or empty; `${VAR}` takes an empty one.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Certificates;

/// Longest file that `${file:…}` takes, in bytes: a secret, a certificate's path, an address.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Where values come from.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    /// Relative files are found from here.
    pub(super) base_dir: &'a Path,
    /// The environment.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Every file that is named, for whoever watches them.
    pub(super) files: &'a RefCell<Vec<PathBuf>>,
    /// Whether those of the listeners are read.
    pub(super) certificates: Certificates,
}

impl Sources<'_> {
    /// The path of a file that the configuration names, remembered.
    pub(super) fn path(self, named: &str) -> PathBuf {
        let path = self.base_dir.join(named);
        self.files.borrow_mut().push(path.clone());
        path
    }
}

/// What became of a string.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Substituted {
    pub(super) text: String,
    /// Something came from outside of the file: the text must not be shown, and may stand for a number.
    pub(super) from_outside: bool,
}

/// Replaces everything in `text`.
///
/// # Errors
/// A message for each reference that can't be replaced; none holds a value.
pub(super) fn substitute(text: &str, sources: Sources<'_>) -> Result<Substituted, Vec<String>> {
    let mut out = String::with_capacity(text.len());
    let mut from_outside = false;
    let mut problems = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            problems.push("\"${\" has no end; close it with } or write $${ for the two characters".to_owned());
            rest = "";
            break;
        };
        from_outside = true;
        match resolve(&rest[at + 2..at + end], sources) {
            Ok(value) => out.push_str(&value),
            Err(message) => problems.push(message),
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    if problems.is_empty() { Ok(Substituted { text: out, from_outside }) } else { Err(problems) }
}

/// The value of what stands between `${` and `}`.
fn resolve(reference: &str, sources: Sources<'_>) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        return read(path, sources).map_err(|why| format!("{}: {why}", shown(reference)));
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.bytes().all(word) {
        return Err(format!(
            "{} names no variable; write ${{NAME}}, ${{NAME:-default}} or ${{file:PATH}}",
            shown(reference)
        ));
    }
    match (default, (sources.env)(name)) {
        (Some(default), _) if default.contains("${") => {
            Err(format!("{}: a default can't hold another reference", shown(reference)))
        }
        (Some(default), value) => Ok(value.filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())),
        (None, Some(value)) => Ok(value),
        (None, None) => Err(format!("the variable {name} is not set; set it or write ${{{name}:-default}}")),
    }
}

fn read(path: &str, sources: Sources<'_>) -> Result<String, String> {
    let file = File::open(sources.path(path)).map_err(|e| format!("the file can't be opened: {e}"))?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file at the bound from one beyond, without reading all of /dev/zero.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| format!("the file can't be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("the file is longer than 64KiB; name one that holds the value alone".to_owned());
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned())?;
    // Editors and `echo` end a file with a newline, which belongs to no secret. A second one is the operator's.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// The reference for a message, without its default: that may be a secret, too.
fn shown(reference: &str) -> String {
    let name = reference.split(":-").next().unwrap_or_default();
    let end = name.char_indices().nth(100).map_or(name.len(), |(end, _)| end);
    format!("${{{}}}", name[..end].escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}\"\n[x]".to_owned()),
            _ => None,
        }
    }

    fn run(text: &str) -> Result<String, Vec<String>> {
        substitute(
            text,
            Sources {
                base_dir: Path::new("/nonexistent"),
                env: &env,
                files: &RefCell::default(),
                certificates: Certificates::Verified,
            },
        )
        .map(|s| s.text)
    }

    #[test]
    fn references_are_replaced_and_nothing_else() {
        for (text, value) in [
            ("", ""),
            ("a $b {c} $$d $", "a $b {c} $$d $"),
            ("${HOST}", "db"),
            ("x-${HOST}-${HOST}", "x-db-db"),
            ("${NONE:-a:-b}", "a:-b"),
            ("${NONE:-}", ""),
            ("${EMPTY:-full}", "full"),
            ("${EMPTY}", ""),
            ("${HOST:-other}", "db"),
            ("$${HOST}", "${HOST}"),
            ("$$${HOST}", "$${HOST}"),
            ("${TRICK}", "${HOST}\"\n[x]"),
        ] {
            assert_eq!(run(text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn every_reference_that_fails_is_named() {
        let problems = run("${ONE} ${HOST} ${TWO} ${3} ${} ${file:gone} ${A:-${B}} ${open").unwrap_err();
        let all = problems.join("\n");
        for part in ["ONE", "TWO", "${3}", "${}", "${file:gone}", "another reference", "has no end"] {
            assert!(all.contains(part), "{part} is not in\n{all}");
        }
        assert_eq!(problems.len(), 7);
    }

    #[test]
    fn a_literal_is_not_from_outside() {
        let of = |text| {
            substitute(
                text,
                Sources {
                    base_dir: Path::new(""),
                    env: &env,
                    files: &RefCell::default(),
                    certificates: Certificates::Verified,
                },
            )
            .expect("it is well formed")
        };
        assert!(!of("$${HOST}").from_outside);
        assert!(of("${NONE:-5}").from_outside);
    }

    #[test]
    fn one_newline_at_the_end_of_a_file_is_dropped_and_64kib_are_its_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let with = |content: &[u8]| {
            std::fs::write(dir.path().join("s"), content).expect("a file");
            substitute(
                "${file:s}",
                Sources {
                    base_dir: dir.path(),
                    env: &env,
                    files: &RefCell::default(),
                    certificates: Certificates::Verified,
                },
            )
            .map(|s| s.text)
        };
        assert_eq!(with(b"pw").as_deref(), Ok("pw"));
        assert_eq!(with(b"pw\n").as_deref(), Ok("pw"));
        assert_eq!(with(b"pw\r\n").as_deref(), Ok("pw"));
        assert_eq!(with(b"pw\n\n").as_deref(), Ok("pw\n"));
        assert_eq!(with(b"").as_deref(), Ok(""));
        assert_eq!(with(&vec![b'x'; 65_536]).map(|s| s.len()), Ok(65_536));
        assert!(with(&vec![b'x'; 65_537]).unwrap_err()[0].contains("64KiB"));
        assert!(with(&[0xff, 0xfe]).unwrap_err()[0].contains("UTF-8"));
    }
}

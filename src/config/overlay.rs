//! A configuration's text with some keys set anew: for processes that the demo starts, each with addresses of its own.
//!
//! Nothing is checked here; whoever reads the result does that. Strings with `${…}` stay as they are.

use std::path::Path;

use toml::{Table, Value};

/// `text` with `set` (sections or queries by their path, a key and a string) and without `unset`. It may be read from any directory:
/// queries' files, which start from `base_dir`, are named in full. `None` where the text or a path in it is not TOML's or no table.
pub fn overlay(text: &str, base_dir: &Path, set: &[(&[&str], &str)], unset: &[&[&str]]) -> Option<String> {
    let mut document: Table = text.parse().ok()?;
    let base_dir = std::path::absolute(if base_dir.as_os_str().is_empty() { Path::new(".") } else { base_dir }).ok()?;
    if let Some(Value::Table(queries)) = document.get_mut("queries") {
        for (_, query) in queries {
            if let Some(Value::String(file)) = query.get_mut("sql_file") {
                let there = base_dir.join(&*file);
                there.to_str()?.clone_into(file);
            }
        }
    }
    for (path, value) in set {
        let (key, section) = path.split_last()?;
        table(&mut document, section)?.insert((*key).to_owned(), Value::String((*value).to_owned()));
    }
    for path in unset {
        let (key, section) = path.split_last()?;
        table(&mut document, section)?.remove(*key);
    }
    toml::to_string(&document).ok()
}

/// The table at `path`, made where there is none.
fn table<'a>(mut within: &'a mut Table, path: &[&str]) -> Option<&'a mut Table> {
    for name in path {
        within = within.entry(*name).or_insert_with(|| Value::Table(Table::new())).as_table_mut()?;
    }
    Some(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_and_removed_and_the_rest_stays() {
        let text =
            "[server]\nlisten = \"127.0.0.1:1\"\ntls_cert = \"c\"\n[queries.a]\nsql_file = \"a.sql\"\nttl = \"${T}\"\n";
        let set: &[(&[&str], &str)] = &[
            (&["server", "listen"], "127.0.0.1:2"),
            (&["redis", "url"], "redis://x"),
            (&["queries", "a", "timeout"], "1s"),
        ];
        let made = overlay(text, Path::new("/etc/seawall"), set, &[&["server", "tls_cert"]]).unwrap();
        let wanted = "[server]\nlisten = \"127.0.0.1:2\"\n[redis]\nurl = \"redis://x\"\n\
                      [queries.a]\nsql_file = \"/etc/seawall/a.sql\"\nttl = \"${T}\"\ntimeout = \"1s\"\n";
        assert_eq!(made.parse::<Table>().unwrap(), wanted.parse::<Table>().unwrap());
        assert_eq!(overlay("server = 1", Path::new("/"), set, &[]), None, "no table to set it in");
    }
}

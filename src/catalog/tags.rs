//! Texts of tags: what an event and an entry must spell alike to meet.
//!
//! `shop.products` is a table, `shop.products:id=42` the rows with that value, `shop.products:*` every row. Names and
//! values are percent-encoded: letters, digits and `_.~-` stay, every other byte of the UTF-8 becomes `%` and two
//! upper-case hexadecimal digits, so that what separates (`:`, `=`, `,`, a space) and what stands for everything (`*`)
//! never comes from data. The triggers' function `seawall.tag_text` does the same.
//! A name of the operator's own is taken as it is: `seawall.invalidate('region:eu')` is what its users write.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'~').remove(b'-');

/// A value over so many bytes has no row tag: its writes are announced as every row of the table.
pub const VALUE_MAX_BYTES: usize = 200;

/// Most tags of the operator's that a query has: each is looked up for every answer that is stored.
pub const MAX_TEMPLATES: usize = 16;

/// Before a tag: forget. No name of a table begins so (it would be encoded), and no tag of an operator's may.
const PURGE: char = '!';

/// Longest template in bytes: what it names has a bound like any value.
pub const TEMPLATE_MAX_BYTES: usize = 200;

/// A name or a value within a tag.
pub fn encoded(part: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(part, ENCODED)
}

/// The tag of a table.
pub fn table(schema: &str, name: &str) -> Box<str> {
    format!("{}.{}", encoded(schema), encoded(name)).into()
}

/// `:a=1,b=2` after the tag of a table; `columns` in the order of their names.
pub fn rows(table: &str, columns: &[(&str, &str)]) -> Box<str> {
    use fmt::Write as _;
    let mut tag = table.to_owned();
    for (i, (column, value)) in columns.iter().enumerate() {
        let separator = if i == 0 { ':' } else { ',' };
        write!(tag, "{separator}{}={}", encoded(column), encoded(value)).expect("writing to a String can't fail");
    }
    tag.into()
}

/// Every row of a table.
pub fn every_row(table: &str) -> Box<str> {
    format!("{table}:*").into()
}

/// What asks that answers which depend on `tag` be forgotten altogether, beside `tag` itself.
pub fn purge(tag: &str) -> String {
    format!("{PURGE}{tag}")
}

/// The tag of which `text` asks that what depends on it be forgotten, if it does.
pub fn purged(text: &str) -> Option<&str> {
    text.strip_prefix(PURGE)
}

/// What is meant by a tag that somebody wrote: a name without a colon may be a table's, so its rows are meant, too.
pub fn with_rows(tag: &str) -> Vec<Box<str>> {
    let mut meant = vec![Box::from(tag)];
    if tag != "*" && !tag.contains(':') {
        meant.push(every_row(tag));
    }
    meant
}

/// The table that a tag of rows is about: a write to these is one to the table, and triggers announce it by the rows alone.
/// A table's tag has a dot, so a name such as `region:eu` is not taken for one.
pub fn table_of(tag: &str) -> Option<&str> {
    tag.split_once(':').map(|(table, _)| table).filter(|table| table.contains('.'))
}

/// A tag of the operator's own, as `region:{region}`, whose parameters take the values of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// Index of a parameter of the statement.
    Param(usize),
}

impl Template {
    /// Reads `text`; `param` finds a parameter by its name, or says why there is none.
    ///
    /// # Errors
    /// Why the text is no tag, and the remedy.
    pub fn parse(text: &str, param: impl Fn(&str) -> Result<usize, String>) -> Result<Self, String> {
        if text.is_empty() || text.len() > TEMPLATE_MAX_BYTES {
            return Err(format!("a tag has 1 to {TEMPLATE_MAX_BYTES} bytes, and this one has {}", text.len()));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("a tag has no spaces and no control characters; write it without".into());
        }
        if text == "*" || text.starts_with(PURGE) || text.starts_with("query:") || text.starts_with("key:") {
            return Err("*, !…, query:… and key:… are Seawall's own; choose another name".into());
        }
        let mut parts = vec![];
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(['{', '}']).unwrap_or(rest.len());
            if end > 0 {
                parts.push(Part::Text(rest[..end].into()));
            }
            rest = &rest[end..];
            if rest.is_empty() {
                break;
            }
            let name = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let Some((name, after)) = name else {
                return Err("braces enclose a parameter's name; write {name}".into());
            };
            parts.push(Part::Param(param(name)?));
            rest = after;
        }
        Ok(Self { parts })
    }

    /// The tag for these values, in the order of the statement's parameters; `None` where one that it needs is NULL.
    pub fn tag(&self, values: &[Option<&str>]) -> Option<Box<str>> {
        let mut tag = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => tag.push_str(text),
                Part::Param(index) => tag.push_str(values.get(*index).copied().flatten()?),
            }
        }
        Some(tag.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_separates_never_comes_from_data() {
        assert_eq!(&*table("shop", "products"), "shop.products");
        assert_eq!(&*table("Sh op", "a:b=c,d%e*\u{e9}"), "Sh%20op.a%3Ab%3Dc%2Cd%25e%2A%C3%A9");
        assert_eq!(&*rows("s.t", &[("a", "x y"), ("b", "AZaz09_.~-")]), "s.t:a=x%20y,b=AZaz09_.~-");
        assert_eq!(&*every_row("s.t"), "s.t:*");
    }

    #[test]
    fn a_template_takes_values_and_is_nothing_for_null() {
        let param = |name: &str| if name == "r" { Ok(1) } else { Err(format!("no {name}")) };
        let template = Template::parse("region:{r}/{r}!", param).expect("a template");
        assert_eq!(template.tag(&[None, Some("e u")]).as_deref(), Some("region:e u/e u!"));
        assert_eq!(template.tag(&[Some("x"), None]), None);
        let plain = Template::parse("all", param).expect("a template");
        assert_eq!(plain.tag(&[]).as_deref(), Some("all"));
    }

    #[test]
    fn who_names_a_table_means_its_rows_and_a_purge_is_a_tag_of_its_own() {
        let meant = |tag| with_rows(tag).join(" ");
        assert_eq!((meant("s.t"), meant("s.t:id=1"), meant("*")), ("s.t s.t:*".into(), "s.t:id=1".into(), "*".into()));
        assert_eq!([table_of("s.t:*"), table_of("s.t"), table_of("region:eu")], [Some("s.t"), None, None]);
        assert_eq!(purge("s.t"), "!s.t");
        assert_eq!((purged("!s.t"), purged("s.t")), (Some("s.t"), None));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let param = |name: &str| if name == "r" { Ok(0) } else { Err(format!("no {name}")) };
        for text in ["", "a b", "a\u{7}", "*", "!x", "query:x", "key:1", "{", "}", "{r", "r}", "{x}", "{}", "{{r}}"] {
            assert!(Template::parse(text, param).is_err(), "{text}");
        }
        assert!(Template::parse(&"x".repeat(200), param).is_ok());
        assert!(Template::parse(&"x".repeat(201), param).is_err());
    }
}

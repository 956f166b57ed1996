//! What an operator states of a query's dependencies: `"shop.products" = "id = :id"`, or `true` for the whole table.
//!
//! Read with the lexer of the statement itself, so that names mean what they mean there: without quotes they are folded
//! to lower case, with quotes they stay as they are. Whether a table is there and a row statement is true, is for Postgres
//! to say: see [`super::verdict`].

use std::fmt;

use super::sql::CLAIMS;
use super::sql::lex::{Lexer, Token};

/// Most tables that one query states: as many joins are a report, and reports don't live in a cache.
pub const MAX_TABLES: usize = 64;

/// Most columns of one row statement: keys have fewer, and a trigger makes a text of each for each row it announces.
pub const MAX_COLUMNS: usize = 8;

/// Longest name of Postgres, in bytes (`NAMEDATALEN` less one). It cuts longer ones, which would name another table here.
const NAME_BYTES: usize = 63;

/// A table that a query depends on, as its operator states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depends {
    /// Which.
    pub relation: RelationName,
    /// Which of its rows.
    pub rows: Rows,
}

/// Rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All of them.
    Whole,
    /// Those whose columns equal parameters: column, and index of the parameter in the statement. By column, each once,
    /// never empty.
    Where(Vec<(Box<str>, usize)>),
}

/// The name of a table or view, as Postgres keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationName {
    /// `None`: it is looked for along the search path.
    pub schema: Option<Box<str>>,
    /// Its name there.
    pub name: Box<str>,
}

impl RelationName {
    /// Reads `products`, `shop.products` or `"Shop"."Products"`.
    ///
    /// # Errors
    /// Why the text names nothing, and the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::new(text);
        let first = reader.name()?;
        let second = if reader.take_if(".") { Some(reader.name()?) } else { None };
        if let Some(rest) = reader.rest() {
            return Err(format!("{rest:?} is too much; write \"schema.table\""));
        }
        Ok(match second {
            Some(name) => Self { schema: Some(first), name },
            None => Self { schema: None, name: first },
        })
    }
}

/// As SQL, every name in quotes.
impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quoted(schema))?;
        }
        f.write_str(&quoted(&self.name))
    }
}

/// `name` as a quoted identifier.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A column, and the name of the parameter that it equals.
pub type Equal = (Box<str>, Box<str>);

/// Reads `id = :id and region = :region`: columns and names of parameters, by column.
///
/// # Errors
/// Why the text is no such statement, and the remedy.
pub fn rows(text: &str) -> Result<Vec<Equal>, String> {
    let mut reader = Reader::new(text);
    let mut rows: Vec<Equal> = vec![];
    loop {
        let column = reader.name()?;
        if !reader.take_if("=") {
            return Err(reader.unexpected("= and a parameter"));
        }
        let param = reader.param()?;
        if rows.iter().any(|(known, _)| *known == column) {
            return Err(format!("the column {column} stands there twice; write it once"));
        }
        rows.push((column, param));
        if rows.len() > MAX_COLUMNS {
            return Err(format!("these are more than {MAX_COLUMNS} columns; write fewer, which is more rows"));
        }
        if !reader.take_if("and") {
            break;
        }
    }
    if reader.peek().is_some() {
        return Err(reader.unexpected("and, or the end"));
    }
    rows.sort();
    Ok(rows)
}

struct Reader<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    next: Option<(Token, &'a str, usize)>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let mut reader = Self { text, lexer: Lexer::new(text), next: None };
        reader.advance();
        reader
    }

    fn advance(&mut self) {
        self.next = self.lexer.next().map(|l| (l.kind, &self.text[l.start..l.end], l.start));
    }

    fn peek(&self) -> Option<&'a str> {
        self.next.map(|(_, text, _)| text)
    }

    fn rest(&self) -> Option<&'a str> {
        self.next.map(|(_, _, start)| self.text[start..].trim_end())
    }

    /// Passes the token that is `expected`: an operator's character, or a keyword in any case.
    fn take_if(&mut self, expected: &str) -> bool {
        let found = self.peek().is_some_and(|text| text.eq_ignore_ascii_case(expected));
        if found {
            self.advance();
        }
        found
    }

    fn name(&mut self) -> Result<Box<str>, String> {
        let name: Box<str> = match self.next {
            Some((Token::Word, text, _)) => text.to_ascii_lowercase().into(),
            Some((Token::Quoted, text, _)) if text.starts_with('"') => unquoted(text).into(),
            _ => return Err(self.unexpected("a name")),
        };
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(format!("a name has 1 to {NAME_BYTES} bytes, and this one has {}", name.len()));
        }
        self.advance();
        Ok(name)
    }

    fn param(&mut self) -> Result<Box<str>, String> {
        let name = match self.next {
            Some((Token::Colon, ..)) => self.lexer.take_name(),
            _ => None,
        };
        let Some(mut name) = name else { return Err(self.unexpected("a parameter such as :id")) };
        if &self.text[name.start..name.end] == CLAIMS
            && let Some(member) = self.lexer.take_member()
        {
            name.end = member.end;
        }
        let name = &self.text[name.start..name.end];
        self.advance();
        Ok(name.into())
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.peek() {
            Some(text) => format!("{expected} is expected where {text:?} stands; write \"column = :parameter\""),
            None => format!("{expected} is expected at the end; write \"column = :parameter\""),
        }
    }
}

/// What stands between the quotes of an identifier.
pub(crate) fn unquoted(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    inner.replace("\"\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> (Option<String>, String) {
        let name = RelationName::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        (name.schema.map(Into::into), name.name.into())
    }

    #[test]
    fn names_fold_as_in_postgres_and_quotes_keep_them() {
        assert_eq!(name("products"), (None, "products".into()));
        assert_eq!(name("Shop.PRODUCTS"), (Some("shop".into()), "products".into()));
        assert_eq!(name(r#" "Sh""op" . "a.b c" "#), (Some("Sh\"op".into()), "a.b c".into()));
        assert_eq!(RelationName::parse("Shop.\"a\"\"B\"").expect("a name").to_string(), r#""shop"."a""B""#);
        assert_eq!(name(&"x".repeat(63)).1.len(), 63);
    }

    #[test]
    fn what_names_no_table_is_refused() {
        for text in ["", ".", "a.", ".a", "a.b.c", "a b", "1a", "'a'", "\"\"", "\"a", "a;", "U&\"a\"", &"x".repeat(64)]
        {
            assert!(RelationName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rows_are_columns_that_equal_parameters() {
        let read = |text: &str| {
            let rows = rows(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            rows.into_iter().map(|(c, p)| format!("{c}={p}")).collect::<Vec<_>>().join(",")
        };
        assert_eq!(read("id = :id"), "id=id");
        assert_eq!(read("B=:y AND a = :x"), "a=x,b=y");
        assert_eq!(read("\"Id\" = :id and -- x\n z=:id"), "Id=id,z=id");
    }

    #[test]
    fn any_other_condition_is_refused() {
        for text in [
            "",
            "id",
            "id =",
            "id = 1",
            "id = :",
            "id = :a or b = :c",
            "id = :a,",
            "id = :a and",
            "id > :a",
            "(id = :a)",
            "id = :a and id = :b",
            "t.id = :a",
            ":a = id",
            "id = $1",
            "id == :a",
            "id = :a b",
        ] {
            assert!(rows(text).is_err(), "{text}");
        }
        let columns = |n: usize| (0..n).map(|i| format!("c{i} = :p")).collect::<Vec<_>>().join(" and ");
        assert!(rows(&columns(MAX_COLUMNS)).is_ok());
        assert!(rows(&columns(MAX_COLUMNS + 1)).is_err());
    }
}

//! The columns that rows are announced by: which types there are, and how a set of them is written in a trigger.
//!
//! Row tags exist only where the column's default equality implies equal text under every setting (int2, int4, int8, bool,
//! uuid, and text and varchar with a deterministic collation). Any other column is left to the table's tag.

use std::collections::BTreeSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stays as it is in a tag. The rule of `seawall.tag_text`, for names.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'~').remove(b'-');

/// Longest value that has a row tag, in bytes; the same in `seawall.tag_text`.
const VALUE_BYTES: usize = 200;

/// `text` as a part of a tag.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The tag of a table.
pub(super) fn table_tag(schema: &str, name: &str) -> String {
    format!("{}.{}", encode(schema), encode(name))
}

/// A type whose values have row tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::postgres) enum KeyType {
    Int2,
    Int4,
    Int8,
    Bool,
    Uuid,
    Text,
    Varchar,
}

const TYPES: [(KeyType, &str, u32); 7] = [
    (KeyType::Int2, "int2", 21),
    (KeyType::Int4, "int4", 23),
    (KeyType::Int8, "int8", 20),
    (KeyType::Bool, "bool", 16),
    (KeyType::Uuid, "uuid", 2950),
    (KeyType::Text, "text", 25),
    (KeyType::Varchar, "varchar", 1043),
];

impl KeyType {
    /// The type with this oid, which is the same in every database.
    pub(in crate::postgres) fn from_oid(oid: u32) -> Option<Self> {
        TYPES.iter().find(|(.., known)| *known == oid).map(|(kind, ..)| *kind)
    }

    fn named(name: &str) -> Option<Self> {
        TYPES.iter().find(|(_, known, _)| *known == name).map(|(kind, ..)| *kind)
    }

    /// As `pg_type` has it.
    pub(in crate::postgres) fn name(self) -> &'static str {
        TYPES.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| *name)
    }

    /// As `pg_type` has it, in every database.
    pub(super) fn oid(self) -> u32 {
        TYPES.iter().find(|(kind, ..)| *kind == self).map_or(0, |(.., oid)| *oid)
    }

    /// Whether a value's text may hold what a tag can't.
    pub(super) fn is_free_text(self) -> bool {
        matches!(self, Self::Text | Self::Varchar)
    }

    /// Bytes of a value in a tag at most.
    pub(super) fn tag_bytes(self) -> usize {
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => 20,
            Self::Bool => 5,
            Self::Uuid => 36,
            Self::Text | Self::Varchar => 3 * VALUE_BYTES,
        }
    }
}

/// Columns that rows are announced by together, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::postgres) struct KeyColumns(pub(super) Vec<(String, KeyType)>);

impl KeyColumns {
    /// The names, in order.
    pub(in crate::postgres) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// As a trigger's argument: `a=int4,b=text`.
    pub(super) fn argument(&self) -> String {
        let parts: Vec<String> =
            self.0.iter().map(|(name, kind)| format!("{}={}", encode(name), kind.name())).collect();
        parts.join(",")
    }

    /// Reads a trigger's argument; `None` where it is none of ours.
    pub(super) fn from_argument(text: &str) -> Option<Self> {
        let column = |part: &str| {
            let (name, kind) = part.split_once('=')?;
            Some((percent_decode_str(name).decode_utf8().ok()?.into_owned(), KeyType::named(kind)?))
        };
        text.split(',').map(column).collect::<Option<Vec<_>>>().map(Self)
    }
}

/// A column as the catalog has it.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_oid: u32,
    /// Whether equal means equal bytes.
    pub(super) deterministic: bool,
}

/// What rows can be announced by, of the sets that are `wanted` and those that are `installed`.
///
/// Installed sets are kept: some pod may rely on them. One whose columns are gone or have another type announces nothing any
/// more but every row, and goes. Of those wanted, the ones that can't be had come back as reasons.
pub(super) fn settle(
    wanted: &[Vec<Box<str>>],
    installed: &BTreeSet<KeyColumns>,
    columns: &[Column],
) -> (BTreeSet<KeyColumns>, Vec<String>) {
    let mut settled = BTreeSet::new();
    let mut reasons = Vec::new();
    let kept = installed.iter().map(|set| (set.names().map(Box::from).collect::<Vec<Box<str>>>(), false));
    for (mut names, is_wanted) in wanted.iter().cloned().map(|names| (names, true)).chain(kept) {
        names.sort();
        names.dedup();
        match resolve(&names, columns) {
            Ok(set) if set.0.is_empty() => {}
            Ok(set) => {
                settled.insert(set);
            }
            Err(reason) if is_wanted => reasons.push(reason),
            Err(_) => {}
        }
    }
    (settled, reasons)
}

fn resolve(names: &[Box<str>], columns: &[Column]) -> Result<KeyColumns, String> {
    let column = |name: &str| {
        let column = columns.iter().find(|c| c.name == name).ok_or_else(|| format!("there is no column {name}"))?;
        let kind = KeyType::from_oid(column.type_oid)
            .ok_or_else(|| format!("column {name}: equal values of its type may differ in text"))?;
        if kind.is_free_text() && !column.deterministic {
            return Err(format!("column {name}: its collation calls different texts equal"));
        }
        Ok((name.to_owned(), kind))
    };
    names.iter().map(|name| column(name)).collect::<Result<_, _>>().map(KeyColumns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        let column = |name: &str, type_oid, deterministic| Column { name: name.into(), type_oid, deterministic };
        vec![
            column("id", 23, true),
            column("Ü b", 25, true),
            column("ci", 25, false),
            column("price", 1700, true),
            column("day", 1082, true),
        ]
    }

    fn set(parts: &[(&str, KeyType)]) -> KeyColumns {
        KeyColumns(parts.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect())
    }

    #[test]
    fn an_argument_reads_as_it_was_written() {
        let columns = set(&[("a=,%", KeyType::Int8), ("Ü b", KeyType::Varchar)]);
        assert_eq!(columns.argument(), "a%3D%2C%25=int8,%C3%9C%20b=varchar");
        assert_eq!(KeyColumns::from_argument(&columns.argument()), Some(columns));
        assert_eq!(KeyColumns::from_argument("id=numeric"), None);
        assert_eq!(KeyColumns::from_argument("id"), None);
    }

    #[test]
    fn what_can_not_be_had_says_why_and_the_rest_is_had() {
        let wanted = [vec!["id".into()], vec!["price".into()], vec!["ci".into()], vec!["gone".into()], vec![]];
        let (settled, reasons) = settle(&wanted, &BTreeSet::new(), &columns());
        assert_eq!(settled, [set(&[("id", KeyType::Int4)])].into());
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        for (reason, name) in reasons.iter().zip(["price", "ci", "gone"]) {
            assert!(reason.contains(name), "{reason}");
        }
    }

    #[test]
    fn what_is_installed_stays_unless_it_can_not_be_announced() {
        let installed = [
            set(&[("Ü b", KeyType::Text), ("id", KeyType::Int4)]),
            set(&[("gone", KeyType::Int4)]),
            set(&[("id", KeyType::Int2)]),
        ];
        let (settled, reasons) = settle(&[vec!["id".into(), "Ü b".into()]], &installed.into(), &columns());
        let both = set(&[("id", KeyType::Int4), ("Ü b", KeyType::Text)]);
        assert_eq!(settled, [both, set(&[("id", KeyType::Int4)])].into(), "with the type of today, once");
        assert!(reasons.is_empty(), "{reasons:?}");
    }

    #[test]
    fn every_type_of_the_list_has_a_row_tag_and_no_other() {
        let known: Vec<u32> = (0..10_000).filter(|oid| KeyType::from_oid(*oid).is_some()).collect();
        assert_eq!(known, [16, 20, 21, 23, 25, 1043, 2950]);
    }
}

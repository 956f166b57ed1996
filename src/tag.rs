//! Tags: the names of what writes change and answers depend on.
//!
//! | text | announced by |
//! |---|---|
//! | `shop.products` | every write to the table |
//! | `shop.products:id=42` | a write to a row that had or has this value; columns in the order of their names: `:a=1,b=2` |
//! | `shop.products:*` | a write whose rows are not told apart |
//! | `query:product`, `key:…`, `*` | an invalidation by hand: a query, one key of it, everything |
//! | any other | the user's own |
//!
//! Pure. Names and values stand in the text as they are, unquoted. The ledger keeps a 64-bit hash of the text: the same on every
//! pod and in every version, since both sides compute it from the text alone. Two texts with one hash (or one text with
//! two readings, where a name holds a colon) share their invalidations; that refills too much and never too little.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

/// Longest value in a row tag, in bytes. A tag is part of the log's primary key, and a key that an index page can't hold
/// would fail the user's own write; writes of longer values announce the whole table instead.
pub const VALUE_BYTES: usize = 200;

/// Of the hash; any number will do that never changes.
const SEED: u64 = 0x5ea_3a11;

/// What stands for every row of a table, and alone for everything.
const ANY: &str = "*";

/// A tag, as the hash of its text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u64);

impl Tag {
    /// The tag of this text, whatever kind it is: what the log holds, what a user invalidates.
    pub fn new(text: &str) -> Self {
        Self::of_bytes(text.as_bytes())
    }

    /// The tag of a text as it came, which need not be text at all.
    pub fn of_bytes(text: &[u8]) -> Self {
        Self(xxh3_64_with_seed(text, SEED))
    }

    /// The table itself: for an answer that depends on all of it.
    pub fn table(schema: &str, table: &str) -> Self {
        Self::new(&format!("{schema}.{table}"))
    }

    /// Every row of the table: for an answer that depends on some of its rows, beside their tags.
    pub fn every_row(schema: &str, table: &str) -> Self {
        Self::new(&format!("{schema}.{table}:{ANY}"))
    }

    /// The rows of the table in which each of `columns` has its value, as Postgres prints it. The order in which they are
    /// given doesn't matter. `None` where a value is longer than [`VALUE_BYTES`]: writes of it announce
    /// [`Tag::every_row`], which is then all that there is to check.
    pub fn row(schema: &str, table: &str, columns: &[(&str, &str)]) -> Option<Self> {
        if columns.iter().any(|(_, value)| value.len() > VALUE_BYTES) {
            return None;
        }
        let mut columns: Vec<_> = columns.to_vec();
        columns.sort_unstable();
        let pairs: Vec<_> = columns.iter().map(|(column, value)| format!("{column}={value}")).collect();
        Some(Self::new(&format!("{schema}.{table}:{}", pairs.join(","))))
    }

    /// Every answer of a query.
    pub fn query(name: &str) -> Self {
        Self::new(&format!("query:{name}"))
    }

    /// One answer, by its canonical key.
    pub fn key(key: &[u8]) -> Self {
        Self::new(&Self::key_text(key))
    }

    /// The text of [`Tag::key`], which goes into the log.
    pub fn key_text(key: &[u8]) -> String {
        format!("key:{:032x}", xxh3_128(key))
    }

    /// Everything. Answers depend on it without saying so.
    pub fn everything() -> Self {
        Self::new(ANY)
    }

    /// The hash, evenly spread over all its bits.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({:016x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_its_text_and_stays_what_it_is() {
        assert_eq!(Tag::table("shop", "products"), Tag::new("shop.products"));
        assert_eq!(Tag::every_row("shop", "products"), Tag::new("shop.products:*"));
        assert_eq!(Tag::row("shop", "products", &[("id", "42")]), Some(Tag::new("shop.products:id=42")));
        assert_eq!(Tag::query("product"), Tag::new("query:product"));
        assert_eq!(Tag::key(b"k"), Tag::new(&Tag::key_text(b"k")));
        assert_eq!(Tag::everything(), Tag::new("*"));
        // Other pods may run another version: this number must never change.
        assert_eq!(Tag::new("shop.products:id=42").bits(), 14_236_314_088_563_359_339);
    }

    #[test]
    fn columns_are_named_in_their_own_order() {
        let tag = Tag::row("s", "t", &[("b", "2"), ("a", "1")]);
        assert_eq!(tag, Some(Tag::new("s.t:a=1,b=2")));
        assert_eq!(tag, Tag::row("s", "t", &[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn a_value_has_a_tag_up_to_the_bound_and_none_beyond() {
        assert!(Tag::row("s", "t", &[("a", &"x".repeat(VALUE_BYTES))]).is_some());
        assert!(Tag::row("s", "t", &[("b", "1"), ("a", &"x".repeat(VALUE_BYTES + 1))]).is_none());
        assert!(Tag::row("s", "t", &[("a", &"ü".repeat(VALUE_BYTES / 2 + 1))]).is_none(), "bytes, not characters");
    }
}

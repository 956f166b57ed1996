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
//! Pure. How a table's tags are spelt is for `catalog::tags` to say; here a text is a text. The ledger keeps a 64-bit hash of it:
//! the same on every pod and in every version, since both sides compute it from the text alone. Two texts with one hash share
//! their invalidations; that refills too much and never too little.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

/// Of the hash; any number will do that never changes.
const SEED: u64 = 0x5ea_3a11;

/// What stands for everything.
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

    /// The tag whose hash another pod has written down.
    pub const fn of_bits(bits: u64) -> Self {
        Self(bits)
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
        assert_eq!(Tag::query("product"), Tag::new("query:product"));
        assert_eq!(Tag::key(b"k"), Tag::new(&Tag::key_text(b"k")));
        assert_eq!(Tag::everything(), Tag::new("*"));
        // Other pods may run another version: this number must never change.
        assert_eq!(Tag::new("shop.products:id=42").bits(), 14_236_314_088_563_359_339);
    }
}

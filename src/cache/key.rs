//! The canonical key: which answer of which shape.
//!
//! The catalog writes it (fingerprint, then each parameter in canonical form); here it is bytes that hash and compare.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// An owned key, in a buffer of exactly its size that its clones share: thousands may wait for one. Look-ups borrow bytes
/// and own nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// The key of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// As the catalog wrote it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    /// A digest: parameters may be personal data and stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x})", xxhash_rust::xxh3::xxh3_64(&self.0))
    }
}

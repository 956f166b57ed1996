//! API tokens: secrets that the operator hands out, of which only digests are known here.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::limits::{Limit, Limits};
use super::{Caller, Grant};
use crate::catalog::claims::Claims;

/// What the configuration says of one.
#[derive(Clone, PartialEq)]
pub struct TokenSettings {
    /// Of its bearer, for metrics.
    pub name: Box<str>,
    /// SHA-256 of the token; several while it is replaced by another.
    pub digests: Vec<[u8; 32]>,
    /// What its bearer may ask.
    pub grant: Grant,
    /// What is known of its bearer.
    pub claims: Claims,
    /// How often and how many at a time.
    pub limit: Limit,
}

impl std::fmt::Debug for TokenSettings {
    /// Without digests: that of a weak token can be searched.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSettings").field("name", &self.name).field("grant", &self.grant).finish_non_exhaustive()
    }
}

/// The digest of a token.
#[inline]
pub(super) fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// All of them, by the beginnings of their digests. What can be learnt from how long a look takes is a part of the digest of a
/// token that was sent, which says nothing of the token that would have to be sent; the whole is compared in constant time.
#[derive(Debug)]
pub(super) struct Tokens(HashMap<u64, Vec<Known>, foldhash::fast::FixedState>);

struct Known {
    digest: [u8; 32],
    caller: Arc<Caller>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Known").field(&self.caller.number).finish()
    }
}

fn beginning(digest: &[u8; 32]) -> u64 {
    let (first, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    u64::from_le_bytes(*first)
}

impl Tokens {
    /// Callers are numbered from `first` on.
    pub(super) fn new(all: Vec<TokenSettings>, first: usize) -> Self {
        let mut by_beginning: HashMap<u64, Vec<Known>, _> = HashMap::default();
        for (place, token) in all.into_iter().enumerate() {
            let caller = Arc::new(Caller {
                number: first + place,
                grant: token.grant,
                claims: token.claims,
                limits: Arc::new(Limits::new(token.limit)),
            });
            for digest in token.digests {
                let known = Known { digest, caller: Arc::clone(&caller) };
                by_beginning.entry(beginning(&digest)).or_default().push(known);
            }
        }
        Self(by_beginning)
    }

    /// The bearer of the token of this digest.
    #[inline]
    pub(super) fn find(&self, digest: &[u8; 32]) -> Option<&Arc<Caller>> {
        let alike = self.0.get(&beginning(digest))?;
        alike.iter().find(|known| bool::from(known.digest.ct_eq(digest))).map(|known| &known.caller)
    }
}

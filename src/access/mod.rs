//! Who asks, and what they may ask.
//!
//! An [`Access`] is made from the configuration and never changes; a reload puts another in its place, and with it whatever
//! the old one remembered of tokens is forgotten. A request's credentials become a [`Caller`] here, or a refusal that says
//! nothing of what there is to be had.
//!
//! Secrets are not kept: of API tokens there are digests, of JWTs the keys that verify them. Nothing here is logged but names
//! that the configuration gives.

mod jwt;
mod limits;
mod tokens;

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub use jwt::{Algorithm, JwtSettings, KeyError, VerifyingKey};
pub use limits::{Limit, Limits, Place};
pub use tokens::TokenSettings;

use crate::catalog::claims::Claims;
use jwt::Jwt;
use tokens::Tokens;

/// Which queries somebody may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// All that there are, and those to come.
    All,
    /// These.
    Some(HashSet<Box<str>>),
}

impl Grant {
    /// Whether `query` is among them.
    #[inline]
    pub fn includes(&self, query: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(query),
        }
    }
}

/// What the configuration says of callers.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What may be asked without a token.
    pub anonymous: Grant,
    /// API tokens, by name.
    pub tokens: Vec<TokenSettings>,
    /// Tokens that others issue.
    pub jwt: Option<JwtSettings>,
}

/// The name that requests without a token go by, in metrics. No token can have it.
pub const ANONYMOUS: &str = "_anonymous";
/// The name that all bearers of JWTs go by: their own names would be labels without bound.
pub const JWT: &str = "_jwt";

/// Somebody who may ask something.
#[derive(Debug)]
pub struct Caller {
    /// Its place in [`Access::names`].
    pub number: usize,
    /// What it may ask.
    pub grant: Grant,
    /// What is known of it.
    pub claims: Claims,
    /// How often, and how many at a time.
    pub limits: Arc<Limits>,
}

/// Why nobody is let in. Which it was is told apart only where the credentials are good but for their time or purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are no credentials, and there would have to be.
    #[error("a token is required: Authorization: Bearer <token>")]
    Missing,
    /// The header is no bearer token.
    #[error("Authorization is not a bearer token: Authorization: Bearer <token>")]
    Malformed,
    /// No such token, or no such signature.
    #[error("the token is not known, or its signature is not that of a known key")]
    Unknown,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// It will be good.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is for others, or from others.
    #[error("the token is not for this service: its audience or issuer is another")]
    Elsewhere,
}

impl Refusal {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Malformed, Self::Unknown, Self::Expired, Self::NotYet, Self::Elsewhere];

    /// As metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// A caller that was let in: one that the configuration names, or one that is remembered.
#[derive(Debug)]
pub enum Admitted<'a> {
    /// Named; no count of references is touched, which every core would want.
    Named(&'a Arc<Caller>),
    /// The bearer of a JWT.
    Bearer(Arc<Caller>),
}

impl Admitted<'_> {
    /// It, to keep.
    pub fn to_owned(&self) -> Arc<Caller> {
        match self {
            Self::Named(caller) => Arc::clone(caller),
            Self::Bearer(caller) => Arc::clone(caller),
        }
    }
}

impl Deref for Admitted<'_> {
    type Target = Caller;

    #[inline]
    fn deref(&self) -> &Caller {
        match self {
            Self::Named(caller) => caller,
            Self::Bearer(caller) => caller,
        }
    }
}

/// Everybody who may ask anything.
#[derive(Debug)]
pub struct Access {
    anonymous: Arc<Caller>,
    tokens: Tokens,
    jwt: Option<Jwt>,
    names: Vec<Box<str>>,
}

/// The place of anonymous callers in [`Access::names`].
const ANONYMOUS_NUMBER: usize = 0;
/// That of JWTs' bearers.
const JWT_NUMBER: usize = 1;

impl Access {
    /// Of these settings.
    pub fn new(settings: Settings) -> Self {
        let mut names: Vec<Box<str>> = vec![ANONYMOUS.into(), JWT.into()];
        let first = names.len();
        names.extend(settings.tokens.iter().map(|token| token.name.clone()));
        let anonymous = Caller {
            number: ANONYMOUS_NUMBER,
            grant: settings.anonymous,
            claims: Claims::none(),
            limits: Arc::new(Limits::none()),
        };
        Self {
            anonymous: Arc::new(anonymous),
            tokens: Tokens::new(settings.tokens, first),
            jwt: settings.jwt.map(|jwt| Jwt::new(jwt, JWT_NUMBER)),
            names,
        }
    }

    /// Names of callers, for metrics: a caller's number is its place.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Whether `query` may be asked without a token, so that its answers are for everybody.
    #[inline]
    pub fn is_public(&self, query: &str) -> bool {
        self.anonymous.grant.includes(query)
    }

    /// Who presents the value of `Authorization`, or nobody in particular where there is none. `now` is the time of day, since
    /// 1970; what is remembered of a JWT ends by it.
    ///
    /// A digest for an API token, some hundred nanoseconds; a JWT costs a signature the first time, and a digest from then on.
    ///
    /// # Errors
    /// Why nobody is let in. A bad token is refused also where none is needed: whoever sends it means to be somebody.
    #[inline]
    pub fn admit(&self, authorization: Option<&[u8]>, now: Duration) -> Result<Admitted<'_>, Refusal> {
        let Some(value) = authorization else {
            return match &self.anonymous.grant {
                Grant::Some(none) if none.is_empty() => Err(Refusal::Missing),
                _ => Ok(Admitted::Named(&self.anonymous)),
            };
        };
        let token = bearer(value).ok_or(Refusal::Malformed)?;
        let digest = tokens::digest(token);
        if let Some(caller) = self.tokens.find(&digest) {
            return Ok(Admitted::Named(caller));
        }
        match &self.jwt {
            Some(jwt) => jwt.verify(token, &digest, now).map(Admitted::Bearer),
            None => Err(Refusal::Unknown),
        }
    }

    /// Whether `caller` is nobody in particular.
    #[inline]
    pub fn is_anonymous(&self, caller: &Caller) -> bool {
        caller.number == ANONYMOUS_NUMBER
    }
}

/// The token of `Bearer <token>`; the scheme in any case, as RFC 9110 (section 11.1) has it.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn access(anonymous: Grant) -> Access {
        let token = TokenSettings {
            name: "web".into(),
            digests: vec![tokens::digest(b"secret"), tokens::digest(b"next")],
            grant: Grant::Some(HashSet::from(["a".into()])),
            claims: Claims::none(),
            limit: Limit::default(),
        };
        Access::new(Settings { anonymous, tokens: vec![token], jwt: None })
    }

    #[test]
    fn only_the_token_itself_is_let_in() {
        let access = access(Grant::Some(HashSet::new()));
        let admit = |value: &str| access.admit(Some(value.as_bytes()), Duration::ZERO).map(|caller| caller.number);
        for good in ["Bearer secret", "bearer next", "BEARER  secret "] {
            assert_eq!(admit(good).map(|n| &*access.names()[n]), Ok("web"), "{good}");
        }
        for unknown in ["Bearer Secret", "Bearer secre", "Bearer secrets", "Bearer secret secret"] {
            assert_eq!(admit(unknown), Err(Refusal::Unknown), "{unknown}");
        }
        for malformed in
            ["", "Bearer", "Bearer ", "secret", "Basic secret", "Bearer\tsecret", "\u{e9}\u{e9}\u{e9}\u{e9}"]
        {
            assert_eq!(admit(malformed), Err(Refusal::Malformed), "{malformed}");
        }
        assert_eq!(access.admit(None, Duration::ZERO).map(|c| c.number), Err(Refusal::Missing));
    }

    #[test]
    fn without_a_token_only_what_is_for_all_is_to_be_had() {
        let access = access(Grant::Some(HashSet::from(["b".into()])));
        let nobody = access.admit(None, Duration::ZERO).expect("let in");
        assert!(access.is_anonymous(&nobody) && nobody.grant.includes("b") && !nobody.grant.includes("a"));
        assert!(access.is_public("b") && !access.is_public("a"));
        let bad = access.admit(Some(b"Bearer x"), Duration::ZERO);
        assert_eq!(bad.map(|c| c.number), Err(Refusal::Unknown), "who means to be somebody is not nobody");
    }
}

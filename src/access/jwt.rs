//! JSON Web Tokens (RFC 7519): who issued one is verified by a signature, and what it says is believed until it expires.
//!
//! Which algorithm a signature has to be of is said by the key, and never by the token: a token that names another is refused
//! before any key is used, so that a public key can't be taken for a shared secret, and `none` is nobody's. A token is verified
//! once and remembered, by its digest, until it expires; the memory is bounded, and what falls out of it is verified again.
//! Refused tokens are not remembered: each costs a signature at most.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};

use super::limits::{Limit, Limits};
use super::{Caller, Grant, Refusal};
use crate::catalog::claims::Claims;

/// Longest token that is looked at, in bytes: what common servers take for a whole header field. A kilobyte is usual.
const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Tokens that are remembered, and subjects whose limits are: about a kilobyte each.
const REMEMBERED: usize = 10_000;

/// Shortest secret for HS256, in bytes: that of the hash (RFC 7518, section 3.2).
const SECRET_MIN_BYTES: usize = 32;

/// A signature's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256; whoever can verify can also issue.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every one, by the name that tokens and configurations write.
    pub const NAMES: [(&'static str, Self); 4] =
        [("HS256", Self::Hs256), ("RS256", Self::Rs256), ("ES256", Self::Es256), ("EdDSA", Self::EdDsa)];

    fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// Why something is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret that can be guessed.
    #[error("the secret has {0} bytes, and HS256 needs at least 32")]
    ShortSecret(usize),
    /// Not a PEM of that kind of key.
    #[error("it is no public key of {0} in PEM")]
    NoPem(&'static str),
    /// Not a JWKS.
    #[error("it is no JSON Web Key Set")]
    NoJwks,
    /// A JWKS without any key that could be used.
    #[error("no key in it is one of HS256, RS256, ES256 or EdDSA, for signatures")]
    NoneUsable,
}

/// A key that signatures are verified with.
#[derive(Clone)]
pub struct VerifyingKey {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// What it was made of, digested: whether two are the same.
    made_of: [u8; 32],
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingKey").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, self.algorithm, self.made_of) == (&other.id, other.algorithm, other.made_of)
    }
}

impl VerifyingKey {
    /// The key that tokens name `id`: a secret for HS256, else a public key in PEM.
    ///
    /// # Errors
    /// The secret is short, or the PEM is none of such a key.
    pub fn new(id: &str, algorithm: Algorithm, material: &[u8]) -> Result<Self, KeyError> {
        let key = match algorithm {
            Algorithm::Hs256 if material.len() < SECRET_MIN_BYTES => {
                return Err(KeyError::ShortSecret(material.len()));
            }
            Algorithm::Hs256 => DecodingKey::from_secret(material),
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(material).map_err(|_| KeyError::NoPem("RS256"))?,
            Algorithm::Es256 => DecodingKey::from_ec_pem(material).map_err(|_| KeyError::NoPem("ES256"))?,
            Algorithm::EdDsa => DecodingKey::from_ed_pem(material).map_err(|_| KeyError::NoPem("EdDSA"))?,
        };
        Ok(Self { id: Some(id.into()), algorithm, key, made_of: super::tokens::digest(material) })
    }

    /// The keys of a JSON Web Key Set (RFC 7517) that are of a known algorithm and for signatures; others are left out.
    ///
    /// # Errors
    /// The text is no such set, or none of its keys can be used.
    pub fn from_jwks(text: &[u8]) -> Result<Vec<Self>, KeyError> {
        let set: JwkSet = serde_json::from_slice(text).map_err(|_| KeyError::NoJwks)?;
        let keys: Vec<Self> = set
            .keys
            .iter()
            .filter(|jwk| !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)))
            .filter_map(|jwk| {
                let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
                    (AlgorithmParameters::OctetKey(_), Some(KeyAlgorithm::HS256) | None) => Algorithm::Hs256,
                    (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS256) | None) => Algorithm::Rs256,
                    (AlgorithmParameters::EllipticCurve(curve), Some(KeyAlgorithm::ES256) | None)
                        if curve.curve == EllipticCurve::P256 =>
                    {
                        Algorithm::Es256
                    }
                    (AlgorithmParameters::OctetKeyPair(_), Some(KeyAlgorithm::EdDSA) | None) => Algorithm::EdDsa,
                    _ => return None,
                };
                let key = DecodingKey::from_jwk(jwk).ok()?;
                let made_of = super::tokens::digest(&serde_json::to_vec(jwk).ok()?);
                Some(Self { id: jwk.common.key_id.as_deref().map(Into::into), algorithm, key, made_of })
            })
            .collect();
        if keys.is_empty() { Err(KeyError::NoneUsable) } else { Ok(keys) }
    }
}

/// What the configuration says of JWTs.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtSettings {
    /// At least one.
    pub keys: Vec<VerifyingKey>,
    /// `iss` has to be this, where it is set.
    pub issuer: Option<String>,
    /// `aud` has to name one of these; empty: a token that names an audience is for others.
    pub audiences: Vec<String>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// What bearers may ask.
    pub grant: Grant,
    /// Where claims are in the token: name here, and JSON pointer (RFC 6901) there. Others are under their own names.
    pub places: Vec<(Box<str>, String)>,
    /// Of each subject (`sub`); of each token where it has none.
    pub limit: Limit,
}

#[derive(Debug)]
pub(super) struct Jwt {
    settings: JwtSettings,
    number: usize,
    remembered: Cache<[u8; 32], Arc<Remembered>>,
    limits: Cache<String, Arc<Limits>>,
}

#[derive(Debug)]
struct Remembered {
    caller: Arc<Caller>,
    /// Time of day, leeway included.
    until: Duration,
}

impl Jwt {
    pub(super) fn new(settings: JwtSettings, number: usize) -> Self {
        Self { settings, number, remembered: Cache::new(REMEMBERED), limits: Cache::new(REMEMBERED) }
    }

    /// The bearer of `token`, whose digest this is.
    pub(super) fn verify(&self, token: &[u8], digest: &[u8; 32], now: Duration) -> Result<Arc<Caller>, Refusal> {
        if let Some(known) = self.remembered.get(digest) {
            if now < known.until {
                return Ok(Arc::clone(&known.caller));
            }
            self.remembered.remove(digest);
            return Err(Refusal::Expired);
        }
        let known = Arc::new(self.read(token, now)?);
        self.remembered.insert(*digest, Arc::clone(&known));
        Ok(Arc::clone(&known.caller))
    }

    fn read(&self, token: &[u8], now: Duration) -> Result<Remembered, Refusal> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(Refusal::Unknown);
        }
        let header = decode_header(token).map_err(|_| Refusal::Unknown)?;
        // Extensions that must be understood (RFC 7515, section 4.1.11): none is.
        if header.crit.is_some() {
            return Err(Refusal::Unknown);
        }
        let key = self.key(header.kid.as_deref(), header.alg).ok_or(Refusal::Unknown)?;
        let decoded = decode::<Map<String, Value>>(token, &key.key, &signature_alone(key.algorithm));
        let claims = decoded.map_err(|_| Refusal::Unknown)?.claims;
        let until = self.validate(&claims, now)?;
        let caller = Caller {
            number: self.number,
            grant: self.settings.grant.clone(),
            limits: self.limits_of(&claims),
            claims: self.claims(claims),
        };
        Ok(Remembered { caller: Arc::new(caller), until })
    }

    /// Whether these claims are for now and for us (RFC 7519, section 4.1); and until when, leeway included.
    fn validate(&self, claims: &Map<String, Value>, now: Duration) -> Result<Duration, Refusal> {
        let leeway = self.settings.leeway;
        let until = moment(claims.get("exp").ok_or(Refusal::Unknown)?)?.saturating_add(leeway);
        if until <= now {
            return Err(Refusal::Expired);
        }
        if let Some(from) = claims.get("nbf")
            && moment(from)? > now.saturating_add(leeway)
        {
            return Err(Refusal::NotYet);
        }
        if let Some(issuer) = &self.settings.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Refusal::Elsewhere);
        }
        // StringOrURI (section 4.1.2). It is whose limits these are.
        if claims.get("sub").is_some_and(|subject| !subject.is_string()) {
            return Err(Refusal::Unknown);
        }
        let is_ours = |audience: &Value| {
            audience.as_str().is_some_and(|named| self.settings.audiences.iter().any(|ours| ours == named))
        };
        let is_for_us = match claims.get("aud") {
            None => self.settings.audiences.is_empty(),
            Some(Value::Array(audiences)) => audiences.iter().any(is_ours),
            Some(audience) => is_ours(audience),
        };
        if is_for_us { Ok(until) } else { Err(Refusal::Elsewhere) }
    }

    /// The one key that the token can be of: the one of its name. Where either has no name, the only one of its algorithm.
    fn key(&self, id: Option<&str>, algorithm: jsonwebtoken::Algorithm) -> Option<&VerifyingKey> {
        let mut alike = self.settings.keys.iter().filter(|key| key.algorithm.library() == algorithm);
        let named = alike.clone().find(|key| id.is_some() && key.id.as_deref() == id);
        let (first, second) = (alike.next()?, alike.next());
        named.or((second.is_none() && (id.is_none() || first.id.is_none())).then_some(first))
    }

    fn claims(&self, said: Map<String, Value>) -> Claims {
        let said = Value::Object(said);
        let mut found: HashMap<&str, &Value> = HashMap::new();
        for (name, value) in said.as_object().into_iter().flatten() {
            found.insert(name, value);
        }
        for (name, pointer) in &self.settings.places {
            // A claim that is to be elsewhere is not the one of its own name.
            match said.pointer(pointer) {
                Some(value) => found.insert(name, value),
                None => found.remove(&**name),
            };
        }
        Claims::new(found)
    }

    fn limits_of(&self, claims: &Map<String, Value>) -> Arc<Limits> {
        if self.settings.limit == Limit::default() {
            return Arc::new(Limits::none());
        }
        let Some(subject) = claims.get("sub").and_then(Value::as_str) else {
            return Arc::new(Limits::new(self.settings.limit));
        };
        let made = self.limits.get_or_insert_with(subject, || {
            Ok::<_, std::convert::Infallible>(Arc::new(Limits::new(self.settings.limit)))
        });
        match made {
            Ok(limits) => limits,
            Err(never) => match never {},
        }
    }
}

/// What the library verifies: the signature, by this algorithm and no other. The claims are looked at here, by the time that the
/// caller gives; and the library's way of reading numbers can't read those of a `serde_json` that keeps every digit, as ours does.
fn signature_alone(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm.library());
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// A NumericDate (RFC 7519, section 2): seconds since 1970, with or without decimals.
fn moment(value: &Value) -> Result<Duration, Refusal> {
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0).ok_or(Refusal::Unknown)?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests;

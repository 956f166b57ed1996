//! Tokens that are good, and every way in which one isn't.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::super::{Grant, Refusal};
use super::*;

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";
const NOW: Duration = Duration::from_secs(1_000_000);

struct Pair {
    algorithm: Algorithm,
    signing: EncodingKey,
    public: Vec<u8>,
}

/// A key pair of each algorithm with public keys.
fn pairs() -> Vec<Pair> {
    let made = |algorithm: Algorithm, kind: &'static rcgen::SignatureAlgorithm| {
        let pair = rcgen::KeyPair::generate_for(kind).expect("a key pair");
        let private = pair.serialize_pem();
        let signing = match algorithm {
            Algorithm::Es256 => EncodingKey::from_ec_pem(private.as_bytes()),
            _ => EncodingKey::from_ed_pem(private.as_bytes()),
        };
        Pair { algorithm, signing: signing.expect("a key"), public: pair.public_key_pem().into_bytes() }
    };
    let rsa = Pair {
        algorithm: Algorithm::Rs256,
        signing: EncodingKey::from_rsa_pem(include_bytes!("test-rsa-private.pem")).expect("a key"),
        public: include_bytes!("test-rsa-public.pem").to_vec(),
    };
    vec![made(Algorithm::Es256, &rcgen::PKCS_ECDSA_P256_SHA256), made(Algorithm::EdDsa, &rcgen::PKCS_ED25519), rsa]
}

fn settings(keys: Vec<VerifyingKey>) -> JwtSettings {
    JwtSettings {
        keys,
        issuer: None,
        audiences: vec![],
        leeway: Duration::from_secs(10),
        grant: Grant::All,
        places: vec![],
        limit: Limit::default(),
    }
}

fn shared() -> VerifyingKey {
    VerifyingKey::new("main", Algorithm::Hs256, SECRET).expect("a key")
}

fn sign(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let header = Header { kid: kid.map(Into::into), ..Header::new(algorithm.library()) };
    encode(&header, claims, key).expect("a token")
}

fn token(claims: &Value) -> String {
    sign(Algorithm::Hs256, Some("main"), &EncodingKey::from_secret(SECRET), claims)
}

fn verify_at(jwt: &Jwt, token: &str, now: Duration) -> Result<Arc<Caller>, Refusal> {
    jwt.verify(token.as_bytes(), &super::super::tokens::digest(token.as_bytes()), now)
}

fn verify(jwt: &Jwt, token: &str) -> Result<Arc<Caller>, Refusal> {
    verify_at(jwt, token, NOW)
}

fn why(result: Result<Arc<Caller>, Refusal>) -> Refusal {
    result.expect_err("refused")
}

#[test]
fn a_good_token_is_let_in_by_each_algorithm_and_no_key_verifies_anothers() {
    let pairs = pairs();
    let claims = json!({ "exp": 1_000_100, "org_id": 7 });
    for pair in &pairs {
        let key = VerifyingKey::new("k", pair.algorithm, &pair.public).expect("a key");
        let jwt = Jwt::new(settings(vec![shared(), key]), 1);
        let good = sign(pair.algorithm, Some("k"), &pair.signing, &claims);
        let caller = verify(&jwt, &good).unwrap_or_else(|why| panic!("{:?}: {why}", pair.algorithm));
        assert!(caller.claims.get("org_id").is_some() && caller.number == 1);
        let other = pairs.iter().find(|other| other.algorithm != pair.algorithm).expect("another");
        let foreign = sign(other.algorithm, Some("k"), &other.signing, &claims);
        assert_eq!(why(verify(&jwt, &foreign)), Refusal::Unknown);
    }
}

#[test]
fn a_public_key_is_no_secret_and_none_is_no_algorithm() {
    let claims = json!({ "exp": 1_000_100 });
    for pair in pairs() {
        let jwt = Jwt::new(settings(vec![VerifyingKey::new("k", pair.algorithm, &pair.public).expect("a key")]), 1);
        // The classical confusion: the public key, which everybody has, as the secret of HS256.
        let confused = sign(Algorithm::Hs256, Some("k"), &EncodingKey::from_secret(&pair.public), &claims);
        assert_eq!(why(verify(&jwt, &confused)), Refusal::Unknown);
        let good = sign(pair.algorithm, Some("k"), &pair.signing, &claims);
        let parts: Vec<&str> = good.split('.').collect();
        for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOT05FIn0", "eyJhbGciOiIifQ", "e30"] {
            for unsigned in [format!("{none}.{}.", parts[1]), format!("{none}.{}.{}", parts[1], parts[2])] {
                assert_eq!(why(verify(&jwt, &unsigned)), Refusal::Unknown, "{unsigned}");
            }
        }
    }
}

#[test]
fn a_token_that_was_touched_anywhere_is_unknown() {
    let jwt = Jwt::new(settings(vec![shared()]), 1);
    let good = token(&json!({ "exp": 1_000_100, "org_id": 7 }));
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let touched = String::from_utf8(bytes).expect("ASCII");
        assert_eq!(why(verify(&jwt, &touched)), Refusal::Unknown, "at {at}");
    }
    for cut in ["", ".", "..", "...", "a.b.c", "a.b", &good[..good.len() - 1], &format!("{good}.x"), &good[1..]] {
        assert_eq!(why(verify(&jwt, cut)), Refusal::Unknown, "{cut}");
    }
    assert!(verify(&jwt, &good).is_ok());
}

#[test]
fn time_is_looked_at_on_both_sides_of_each_bound_also_where_it_is_remembered() {
    let jwt = Jwt::new(settings(vec![shared()]), 1);
    let at = |claims: Value, now: u64| verify_at(&jwt, &token(&claims), Duration::from_secs(now)).map(|c| c.number);
    for _again in 0..2 {
        assert_eq!(at(json!({ "exp": 1000 }), 1009), Ok(1), "within the leeway");
        assert_eq!(at(json!({ "exp": 1000.9 }), 1010), Ok(1));
    }
    assert_eq!(at(json!({ "exp": 1000 }), 1010), Err(Refusal::Expired), "remembered, and over");
    assert_eq!(at(json!({ "exp": 1000 }), 1010), Err(Refusal::Expired), "forgotten, and over");
    assert_eq!(at(json!({ "exp": 2000, "nbf": 1500 }), 1489), Err(Refusal::NotYet));
    assert_eq!(at(json!({ "exp": 2000, "nbf": 1500 }), 1490), Ok(1));
    let malformed = [
        json!({}),
        json!({ "exp": "1000" }),
        json!({ "exp": -1 }),
        json!({ "exp": null }),
        json!({ "exp": [1] }),
        json!({ "exp": 2000, "nbf": "1" }),
        json!({ "exp": 2000, "nbf": -5 }),
        json!({ "exp": 2000, "sub": 7 }),
        json!({ "exp": 2000, "sub": null }),
    ];
    for claims in malformed {
        assert_eq!(at(claims.clone(), 10), Err(Refusal::Unknown), "{claims}");
    }
    assert_eq!(at(json!({ "exp": 1e300 }), u64::MAX / 2), Ok(1), "as good as never");
}

#[test]
fn audience_and_issuer_have_to_be_ours() {
    let ours = JwtSettings {
        issuer: Some("https://id".into()),
        audiences: vec!["seawall".into(), "shop".into()],
        ..settings(vec![shared()])
    };
    let (ours, any) = (Jwt::new(ours, 1), Jwt::new(settings(vec![shared()]), 1));
    let with = |jwt: &Jwt, mut claims: Value| {
        claims["exp"] = json!(2_000_000);
        verify(jwt, &token(&claims)).map(|caller| caller.number)
    };
    for good in [json!("seawall"), json!(["x", "shop"])] {
        assert_eq!(with(&ours, json!({ "iss": "https://id", "aud": good })), Ok(1));
    }
    for bad in [
        json!({ "iss": "https://id" }),
        json!({ "iss": "https://id", "aud": "x" }),
        json!({ "iss": "https://id", "aud": [] }),
        json!({ "iss": "https://id", "aud": 7 }),
        json!({ "iss": "https://id/", "aud": "shop" }),
        json!({ "iss": ["https://id"], "aud": "shop" }),
        json!({ "aud": "shop" }),
    ] {
        assert_eq!(with(&ours, bad.clone()), Err(Refusal::Elsewhere), "{bad}");
    }
    assert_eq!(with(&any, json!({ "iss": "anybody" })), Ok(1));
    assert_eq!(with(&any, json!({ "aud": "others" })), Err(Refusal::Elsewhere), "it says for whom it is: not us");
}

#[test]
fn a_key_is_found_by_its_name_and_while_keys_are_rotated_both_are_good() {
    let next = b"another secret of more than thirty-two bytes";
    let keys = vec![shared(), VerifyingKey::new("next", Algorithm::Hs256, next).expect("a key")];
    let jwt = Jwt::new(settings(keys), 1);
    let claims = json!({ "exp": 1_000_100 });
    let signed = |kid: Option<&str>, secret: &[u8]| {
        verify(&jwt, &sign(Algorithm::Hs256, kid, &EncodingKey::from_secret(secret), &claims)).map(|c| c.number)
    };
    assert_eq!(signed(Some("main"), SECRET), Ok(1));
    assert_eq!(signed(Some("next"), next), Ok(1));
    assert_eq!(signed(Some("main"), next), Err(Refusal::Unknown));
    assert_eq!(signed(Some("other"), SECRET), Err(Refusal::Unknown));
    assert_eq!(signed(None, SECRET), Err(Refusal::Unknown), "either could be meant");
    let one = Jwt::new(settings(vec![shared()]), 1);
    let unnamed = sign(Algorithm::Hs256, None, &EncodingKey::from_secret(SECRET), &claims);
    assert!(verify(&one, &unnamed).is_ok(), "only one can be meant");
}

#[test]
fn what_is_too_long_or_critical_is_not_looked_at() {
    let jwt = Jwt::new(settings(vec![shared()]), 1);
    let long = token(&json!({ "exp": 1_000_100, "x": "x".repeat(TOKEN_MAX_BYTES) }));
    assert_eq!(why(verify(&jwt, &long)), Refusal::Unknown);
    let critical = Header { crit: Some(vec!["b64".into()]), ..Header::new(jsonwebtoken::Algorithm::HS256) };
    let critical = encode(&critical, &json!({ "exp": 1_000_100 }), &EncodingKey::from_secret(SECRET)).expect("a token");
    assert_eq!(why(verify(&jwt, &critical)), Refusal::Unknown);
}

#[test]
fn claims_are_taken_from_where_the_configuration_says() {
    let nested = JwtSettings {
        places: vec![("org_id".into(), "/app/org".into()), ("sub".into(), "/nowhere".into())],
        ..settings(vec![shared()])
    };
    let jwt = Jwt::new(nested, 1);
    let claims = json!({ "exp": 1_000_100, "app": { "org": 9 }, "org_id": 1, "sub": "ann", "role": "x", "none": null });
    let caller = verify(&jwt, &token(&claims)).expect("let in");
    let expected = json!(9);
    assert!(caller.claims.get("org_id") == Claims::new([("org_id", &expected)]).get("org_id"));
    assert!(caller.claims.get("sub").is_none(), "what is to be elsewhere is not what goes by its name");
    assert!(caller.claims.get("role").is_some() && caller.claims.get("none").is_none());
}

#[test]
fn limits_are_a_subjects_over_all_of_its_tokens() {
    let limit = Limit { concurrency: Some(1), ..Limit::default() };
    let jwt = Jwt::new(JwtSettings { limit, ..settings(vec![shared()]) }, 1);
    let of = |sub: &str, exp: u64| {
        Arc::clone(&verify(&jwt, &token(&json!({ "exp": exp, "sub": sub }))).expect("let in").limits)
    };
    let (first, second, other) = (of("ann", 1_000_100), of("ann", 1_000_200), of("bob", 1_000_100));
    assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &other));
}

#[test]
fn keys_come_from_sets_and_what_is_none_is_refused() {
    let octets = "YSBzZWNyZXQgb2YgbW9yZSB0aGFuIHRoaXJ0eS10d28gYnl0ZXM";
    let secret = json!({ "kty": "oct", "kid": "s", "alg": "HS256", "k": octets });
    let encryption = json!({ "kty": "oct", "kid": "e", "use": "enc", "k": octets });
    let other = json!({ "kty": "oct", "kid": "o", "alg": "HS512", "k": octets });
    let set = |keys: &[&Value]| VerifyingKey::from_jwks(json!({ "keys": keys }).to_string().as_bytes());
    let keys = set(&[&encryption, &secret, &other]).expect("a key");
    assert_eq!(keys.len(), 1);
    let jwt = Jwt::new(settings(keys), 1);
    let named = sign(Algorithm::Hs256, Some("s"), &EncodingKey::from_secret(SECRET), &json!({ "exp": 1_000_100 }));
    assert!(verify(&jwt, &named).is_ok());
    assert_eq!(set(&[&encryption, &other]), Err(KeyError::NoneUsable));
    assert_eq!(VerifyingKey::from_jwks(b"{"), Err(KeyError::NoJwks));
    assert_eq!(VerifyingKey::new("k", Algorithm::Hs256, &[b'x'; 31]), Err(KeyError::ShortSecret(31)));
    assert!(VerifyingKey::new("k", Algorithm::Hs256, &[b'x'; 32]).is_ok());
    for (name, algorithm) in Algorithm::NAMES.into_iter().skip(1) {
        assert_eq!(VerifyingKey::new("k", algorithm, SECRET), Err(KeyError::NoPem(name)));
    }
}

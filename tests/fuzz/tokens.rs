//! Credentials of every shape, against a model of who may come in that is told how each was made.

use std::collections::HashSet;
use std::time::Duration;

use jsonwebtoken::{Algorithm as Signed, EncodingKey};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use seawall::access::{Access, Algorithm, Grant, JwtSettings, Limit, Settings, TokenSettings, VerifyingKey};
use seawall::catalog::claims::Claims;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::cases;

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";
const OTHER: &[u8] = b"another one of more than thirty-two bytes";
const API_TOKEN: &str = "an-api-token";
const NOW: u64 = 1_000_000;
const LEEWAY: u64 = 10;

fn access() -> Access {
    Access::new(Settings {
        anonymous: Grant::Some(HashSet::new()),
        tokens: vec![TokenSettings {
            name: "web".into(),
            digests: vec![Sha256::digest(API_TOKEN).into()],
            grant: Grant::All,
            claims: Claims::none(),
            limit: Limit::default(),
        }],
        jwt: Some(JwtSettings {
            keys: vec![VerifyingKey::new("main", Algorithm::Hs256, SECRET).expect("a key")],
            issuer: Some("us".into()),
            audiences: vec!["shop".into(), "all".into()],
            leeway: Duration::from_secs(LEEWAY),
            grant: Grant::All,
            places: vec![("org_id".into(), "/app/org".into())],
            limit: Limit::default(),
        }),
    })
}

fn admitted(access: &Access, authorization: &[u8]) -> bool {
    access.admit(Some(authorization), Duration::from_secs(NOW)).is_ok()
}

/// A part of a token, and whether it is as it has to be.
type Part = (Option<Value>, bool);

fn part(good: &[Value], bad: &[Value], absent: bool) -> impl Strategy<Value = Part> + use<> {
    let mut all: Vec<Part> = good.iter().map(|value| (Some(value.clone()), true)).collect();
    // As often good as bad, or hardly a token of so many parts would be good.
    let times = 3 * bad.len().max(1) / all.len().max(1);
    all = std::iter::repeat_n(all, times.max(1)).flatten().collect();
    all.extend(bad.iter().map(|value| (Some(value.clone()), false)));
    all.push((None, absent));
    select(all)
}

fn odd() -> Vec<Value> {
    vec![json!(null), json!([]), json!({}), json!(""), json!("1e400"), json!(true), json!([[["us"]]])]
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain(&[0, 0]).take(3).fold(0_usize, |word, &byte| word << 8 | usize::from(byte));
        for place in 0..=chunk.len() {
            out.push(DIGITS[word >> (18 - 6 * place) & 63] as char);
        }
    }
    out
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Signature {
    Good,
    OfAnotherKey,
    OfAnotherAlgorithm,
    OfNothing,
    Cut,
    Absent,
}

/// What is done to a token that was signed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    None,
    Padded,
    OneMorePart,
    OnePartLess,
    Flipped(u16),
    Long,
}

fn sign(signature: Signature, message: &str) -> String {
    let by = |key: &[u8], algorithm| {
        jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(key), algorithm).expect("signed")
    };
    match signature {
        Signature::Good => by(SECRET, Signed::HS256),
        Signature::OfAnotherKey => by(OTHER, Signed::HS256),
        Signature::OfAnotherAlgorithm => by(SECRET, Signed::HS512),
        Signature::OfNothing => base64(&Sha256::digest(message)),
        Signature::Cut => by(SECRET, Signed::HS256)[..42].to_owned(),
        Signature::Absent => String::new(),
    }
}

fn harmed(token: String, harm: Harm) -> Vec<u8> {
    let mut bytes = token.into_bytes();
    match harm {
        Harm::None => {}
        Harm::Padded => bytes.extend(b"=="),
        Harm::OneMorePart => bytes.extend(b".e30"),
        Harm::OnePartLess => bytes.truncate(bytes.iter().rposition(|&b| b == b'.').expect("two dots")),
        Harm::Flipped(at) => {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= 0x20;
        }
        Harm::Long => bytes.extend(std::iter::repeat_n(b'A', 1 << 20)),
    }
    bytes
}

fn with_odd(values: &[Value]) -> Vec<Value> {
    values.iter().cloned().chain(odd()).collect()
}

prop_compose! {
    /// A token, and whether it is good.
    fn token()(
        alg in part(&[json!("HS256")], &with_odd(&[json!("none"), json!("None"), json!("hs256"), json!("HS512"), json!("RS256"), json!("ES256"), json!("EdDSA"), json!(5)]), false),
        kid in part(&[json!("main")], &[json!("other"), json!("../main"), json!("main\u{0}")], true),
        crit in option::weighted(0.05, select(vec![json!(["exp"]), json!(["b64"])])),
        exp in part(&[json!(NOW + 1), json!(NOW - LEEWAY + 1), json!(4_000_000_000_u64), json!(1e300), json!(1_000_000.5)],
            &with_odd(&[json!(NOW - LEEWAY), json!(0), json!(-1), json!("4000000000"), json!(-1e300)]), false),
        nbf in part(&[json!(0), json!(NOW), json!(NOW + LEEWAY)], &with_odd(&[json!(NOW + LEEWAY + 1), json!("0"), json!(1e300), json!(-1)]), true),
        iss in part(&[json!("us")], &with_odd(&[json!("them"), json!(["us"]), json!("US")]), false),
        sub in part(&[json!("user"), json!("")], &[json!(7), json!({"id": 9}), json!(null), json!(["user"])], true),
        aud in part(&[json!("shop"), json!(["x", "all"]), json!(["shop", 5])], &with_odd(&[json!("sho"), json!(["x"]), json!({"shop": 1})]), false),
        claims in vec((select(vec!["org_id", "app", "jti", "roles"]), select(vec![json!(7), json!("x"), json!({"org": 9}), json!(null), json!([1, [2]]), json!(1e300)])), 0..3),
        signature in prop_oneof![
            12 => Just(Signature::Good),
            1 => Just(Signature::OfAnotherKey), 1 => Just(Signature::OfAnotherAlgorithm),
            1 => Just(Signature::OfNothing), 1 => Just(Signature::Cut), 1 => Just(Signature::Absent),
        ],
        harm in prop_oneof![
            20 => Just(Harm::None), 1 => Just(Harm::Padded), 1 => Just(Harm::OneMorePart), 1 => Just(Harm::OnePartLess),
            4 => any::<u16>().prop_map(Harm::Flipped), 1 => Just(Harm::Long),
        ],
    ) -> (Vec<u8>, bool, Harm) {
        let object = |fields: &[(&str, &Option<Value>)]| -> Map<String, Value> {
            fields.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value).clone()?))).collect()
        };
        let header = object(&[("alg", &alg.0), ("kid", &kid.0), ("crit", &crit), ("typ", &Some(json!("JWT")))]);
        let mut body = object(&[("exp", &exp.0), ("nbf", &nbf.0), ("iss", &iss.0), ("aud", &aud.0), ("sub", &sub.0)]);
        body.extend(claims.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let encoded = |part: Map<String, Value>| base64(Value::Object(part).to_string().as_bytes());
        let message = format!("{}.{}", encoded(header), encoded(body));
        let good = [&alg, &kid, &exp, &nbf, &iss, &aud, &sub].iter().all(|part| part.1)
            && crit.is_none() && signature == Signature::Good && harm == Harm::None;
        let token = format!("{message}.{}", sign(signature, &message));
        (harmed(token, harm), good, harm)
    }
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn a_jwt_lets_in_exactly_who_it_should((token, good, harm) in token()) {
        let value = [b"Bearer ", &token[..]].concat();
        let access = access();
        let now = admitted(&access, &value);
        prop_assert_eq!(now, good, "{:?}: {}", harm, utf8_percent_encode(&String::from_utf8_lossy(&token[..token.len().min(2000)]), NON_ALPHANUMERIC));
        // Nor is it remembered as anything else.
        prop_assert_eq!(admitted(&access, &value), good);
    }

    #[test]
    fn whatever_authorization_says_it_is_the_token_itself_that_lets_in(
        value in prop_oneof![
            vec(any::<u8>(), 0..80),
            ("(?i)bearer|basic|digest|", "[ \\t]{0,3}", prop_oneof![Just(API_TOKEN.to_owned()), "an-api-token[ -~]?", "[a-zA-Z0-9._=-]{0,60}"], "[ \\t]{0,2}")
                .prop_map(|(scheme, space, token, end)| format!("{scheme}{space}{token}{end}").into_bytes()),
        ]
    ) {
        let text = String::from_utf8_lossy(&value).into_owned();
        let is_it = text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "))
            && text[7..].trim_matches([' ', '\t']) == API_TOKEN;
        prop_assert_eq!(admitted(&access(), &value), is_it, "{:?}", text);
    }
}

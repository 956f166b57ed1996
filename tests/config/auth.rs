//! The rules of `[auth]`.

use seawall::access::Grant;

use super::{accepted, refused, refused_for};

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SECRET: &str = "a secret of more than thirty-two bytes";

fn token(rest: &str) -> String {
    format!("auth.tokens.web.sha256 = \"{DIGEST}\"\nauth.tokens.web.{rest}\n")
}

#[test]
fn without_the_section_everybody_may_ask_and_with_it_somebody_must_be_able_to() {
    assert_eq!(accepted("").auth, None);
    refused_for("auth.anonymous = []", "auth", "nobody may ask anything");
    let all = accepted("auth.anonymous = [\"*\"]").auth.expect("a section");
    assert_eq!(all.anonymous, Grant::All);
    let one = accepted("auth.anonymous = \"q\"").auth.expect("a section");
    assert!(one.anonymous.includes("q") && !one.anonymous.includes("r"));
}

#[test]
fn a_token_is_a_digest_and_what_its_bearer_may_do() {
    let text = format!(
        "[auth.tokens.web]\nsha256 = [\"{DIGEST}\", \"{}\"]\nqueries = [\"q\"]\nclaims = {{ org_id = 7, roles = [\"a\"] }}\n\
         rate = 100\nburst = 200\nconcurrency = 5\n",
        "0".repeat(64)
    );
    let settings = accepted(&text).auth.expect("a section");
    let web = &settings.tokens[0];
    assert_eq!((&*web.name, web.digests.len()), ("web", 2));
    assert!(web.grant.includes("q") && web.claims.get("org_id").is_some());
    assert_eq!((web.limit.rate.map(u32::from), web.limit.concurrency), (Some(100), Some(5)));
    assert!(!format!("{settings:?}").contains("9f86"), "no digest is printed");

    refused_for("auth.tokens.web.queries = [\"q\"]", "auth.tokens.web.sha256", "it is missing");
    refused_for("auth.tokens.web.sha256 = \"secret\"", "auth.tokens.web.sha256", "not a SHA-256 digest");
    refused_for(&format!("auth.tokens.web.sha256 = \"{EMPTY}\""), "auth.tokens.web.sha256", "an empty token");
    refused_for(&format!("auth.tokens.Web.sha256 = \"{DIGEST}\""), "auth.tokens.Web", "can't name a token");
    refused_for(
        &format!("auth.tokens.a.sha256 = \"{DIGEST}\"\nauth.tokens.b.sha256 = \"{DIGEST}\""),
        "auth.tokens.b.sha256",
        "another token has this digest",
    );
    refused_for(&token("queries = [\"qq\"]"), "auth.tokens.web.queries", "did you mean q?");
    refused_for(&token("queries = [\"*\", \"q\"]"), "auth.tokens.web.queries", "write [\"*\"] alone");
    refused_for(&token("queries = 5"), "auth.tokens.web.queries", "write a list of strings");
    refused_for(&token("querys = [\"q\"]"), "auth.tokens.web.querys", "did you mean queries?");
    refused_for(&token("claims = { Org = 7 }"), "auth.tokens.web.claims.Org", "can't name a claim");
    refused_for(&token("claims = 7"), "auth.tokens.web.claims", "a table such as");
    refused_for(&token("burst = 5"), "auth.tokens.web.burst", "there is no rate");
    refused_for(&token("rate = 1000001"), "auth.tokens.web.rate", "out of range");
    assert!(accepted(&token("rate = 1000000")).auth.is_some());
}

#[test]
fn a_jwt_needs_a_key_of_its_algorithm() {
    let key = |rest: &str| format!("auth.jwt.queries = [\"*\"]\nauth.jwt.keys.main.{rest}\n");
    let good = key(&format!("algorithm = \"HS256\"\nauth.jwt.keys.main.secret = \"{SECRET}\""));
    let settings = accepted(&good).auth.expect("a section").jwt.expect("tokens of others");
    assert_eq!((settings.keys.len(), settings.leeway.as_secs()), (1, 30));
    assert!(!format!("{settings:?}").contains("thirty"), "no secret is printed");

    refused_for("auth.jwt.queries = [\"*\"]", "auth.jwt", "no key to verify tokens with");
    refused_for("auth.jwt = 1", "auth.jwt", "a section [auth.jwt]");
    let short = key("algorithm = \"HS256\"\nauth.jwt.keys.main.secret = \"short\"");
    refused_for(&short, "auth.jwt.keys.main.secret", "needs at least 32");
    refused_for(&key("algorithm = \"HS256\""), "auth.jwt.keys.main.secret", "HS256 needs a secret");
    refused_for(&key("algorithm = \"RS256\""), "auth.jwt.keys.main.public_key_file", "a public key in PEM");
    refused_for(&key("algorithm = \"none\""), "auth.jwt.keys.main.algorithm", "is none of its values");
    refused_for(
        &key("algorithm = \"RS256\"\nauth.jwt.keys.main.public_key_file = \"Cargo.toml\""),
        "auth.jwt.keys.main.public_key_file",
        "no public key of RS256",
    );
    let file = |path: &str| format!("auth.jwt.jwks_file = \"{path}\"");
    refused_for(&file("Cargo.toml"), "auth.jwt.jwks_file", "no JSON Web Key Set");
    refused_for(&file("no/such"), "auth.jwt.jwks_file", "can't be read");
    let rsa = key("algorithm = \"RS256\"\nauth.jwt.keys.main.public_key_file = \"src/access/jwt/test-rsa-public.pem\"");
    assert!(accepted(&rsa).auth.is_some());
    refused_for(&format!("{good}auth.jwt.claims.org_id = \"org\""), "auth.jwt.claims.org_id", "RFC 6901");
    refused_for(&format!("{good}auth.jwt.leeway = \"2h\""), "auth.jwt.leeway", "out of range");
}

#[test]
fn claims_are_parameters_that_no_request_gives() {
    let config = accepted(
        "queries.q.sql = \"SELECT :claims.org_id::int4 + :a::int4\"\nqueries.q.claims = [\"role\", \"org_id\", \"role\"]\n\
         queries.q.tags = [\"org:{claims.org_id}\"]\nqueries.q.depends = { t = \"id = :claims.org_id and a = :a\" }\n\
         queries.q.params = { \"claims.org_id\" = \"int4\" }",
    );
    let query = &config.queries[0];
    assert_eq!(query.statement.params(), ["claims.org_id", "a"].map(Box::<str>::from));
    assert_eq!(query.claims, ["org_id", "role"].map(Box::<str>::from));
    refused_for("queries.q.sql = \"SELECT :claims\"", "queries.q.sql", "write :claims.name");
    refused_for("queries.q.sql = \"SELECT :claims.Org\"", "queries.q.sql", "no parameter name");
    refused_for("queries.q.sql = \"SELECT 1\"\nqueries.q.claims = [\"Org\"]", "queries.q.claims", "can't name a claim");
    let many: Vec<String> = (0..17).map(|n| format!("\"c{n}\"")).collect();
    let many = format!("queries.q.sql = \"SELECT 1\"\nqueries.q.claims = [{}]", many.join(","));
    refused_for(&many, "queries.q.claims", "more than 16");
}

#[test]
fn everything_that_is_wrong_with_it_is_said_at_once() {
    let problems = refused(
        "auth.anonymous = [\"x\", 5]\nauth.tokens.web.sha256 = \"\"\nauth.tokens.web.rate = -1\nauth.jwt.leeway = 5\n\
         auth.jwt.keys.main.algorithm = \"x\"",
    );
    let keys: Vec<&str> = problems.iter().map(|problem| &*problem.key).collect();
    for key in [
        "auth.anonymous",
        "auth.tokens.web.sha256",
        "auth.tokens.web.rate",
        "auth.jwt.leeway",
        "auth.jwt.keys.main.algorithm",
    ] {
        assert!(keys.contains(&key), "{key}: {problems:#?}");
    }
}

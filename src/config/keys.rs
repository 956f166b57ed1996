//! Every key of the configuration, as data: the one place that knows which there are.
//!
//! The check refuses what is not listed here, the suggestions come from here, absent keys get their default from here,
//! and the shipped `config.toml` is compared with it. Each key of the contract is listed from the first version on: one
//! that this version has no use for is refused by name, never ignored.

use Absent::{Example, Is, Required};
use Force::Now;
use Section::{
    Admin, Auth, Cache, Cors, Defaults, Invalidation, Jwt, JwtKey, Param, Postgres, Query, Redis, Server, Token,
};

/// Where a key may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `[server]`
    Server,
    /// `[admin]`
    Admin,
    /// `[postgres]`
    Postgres,
    /// `[redis]`
    Redis,
    /// `[cache]`
    Cache,
    /// `[invalidation]`
    Invalidation,
    /// `[auth]`
    Auth,
    /// `[auth.tokens.NAME]`
    Token,
    /// `[auth.jwt]`
    Jwt,
    /// `[auth.jwt.keys.KID]`
    JwtKey,
    /// `[cors]`
    Cors,
    /// `[defaults]`, and every query for itself.
    Defaults,
    /// `[queries.NAME]` alone.
    Query,
    /// `[queries.NAME.params.PARAM]`
    Param,
}

impl Section {
    /// How a key here is addressed, before its name.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Admin => "admin",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Cache => "cache",
            Self::Invalidation => "invalidation",
            Self::Auth => "auth",
            Self::Token => "auth.tokens.NAME",
            Self::Jwt => "auth.jwt",
            Self::JwtKey => "auth.jwt.keys.KID",
            Self::Cors => "cors",
            Self::Defaults => "defaults",
            Self::Query => "queries.NAME",
            Self::Param => "queries.NAME.params.PARAM",
        }
    }
}

/// The names that may stand at the top of the file.
pub const TOP: [&str; 10] =
    ["server", "admin", "postgres", "redis", "cache", "invalidation", "auth", "cors", "defaults", "queries"];

/// Whether a key has an effect in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// It has.
    Now,
    /// It is refused: this version has not got this capability.
    Later(&'static str),
}

/// What an absent key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// This value, as TOML. An empty string is the same as absence.
    Is(&'static str),
    /// It can't be absent.
    Required,
    /// Nothing; the value shown is an example.
    Example(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands.
    pub section: Section,
    /// Its name there.
    pub name: &'static str,
    /// Whether it has an effect.
    pub force: Force,
    /// What its absence means.
    pub default: Absent,
    /// What it does, in a line.
    pub meaning: &'static str,
}

impl Key {
    /// Whether its value is never shown. A digest is no secret by itself, but the token is easily put in its place.
    pub fn is_secret(&self) -> bool {
        matches!(self.name, "url" | "listen_url" | "migrate_url" | "token_sha256" | "sha256" | "secret")
    }
}

const fn key(section: Section, name: &'static str, force: Force, default: Absent, meaning: &'static str) -> Key {
    Key { section, name, force, default, meaning }
}

/// All of them, in the order of the reference.
pub static KEYS: &[Key] = &[
    key(Server, "listen", Now, Is(r#""127.0.0.1:8080""#), "where queries are answered"),
    key(Server, "admin_listen", Now, Is(r#""127.0.0.1:9090""#), "health, metrics, status, invalidation"),
    key(Server, "drain_delay", Now, Is(r#""0s""#), "after SIGTERM: connections are still accepted for so long"),
    key(Server, "shutdown_grace", Now, Is(r#""10s""#), "after that: running requests may finish for so long"),
    key(Server, "max_connections", Now, Is("20000"), "open connections; more are refused"),
    key(Server, "max_waiters", Now, Is("50000"), "requests waiting for fills; more are refused"),
    key(Server, "body_max_bytes", Now, Is(r#""64KiB""#), "largest body of a request"),
    key(Server, "expose_stamp", Now, Is("false"), "Seawall-Stamp on every answer"),
    key(
        Server,
        "compression",
        Now,
        Is(r#"["zstd", "br", "gzip"]"#),
        "codings of bodies, the preferred first; []: none",
    ),
    key(Server, "compression_min_bytes", Now, Is(r#""1KiB""#), "shorter bodies are sent as they are"),
    key(Server, "tls_cert", Now, Is(r#""""#), "PEM file with the certificate that clients see; empty: no TLS"),
    key(Server, "tls_key", Now, Is(r#""""#), "its key"),
    key(Server, "tls_client_ca", Now, Is(r#""""#), "PEM file: clients must show a certificate that it signed"),
    key(Server, "watch_config", Now, Is("true"), "a changed configuration is reloaded, as by SIGHUP"),
    key(
        Admin,
        "token_sha256",
        Now,
        Is(r#""""#),
        "SHA-256 of the admin token; required unless admin_listen is loopback",
    ),
    key(Admin, "tls_cert", Now, Is(r#""""#), "PEM file with the admin listener's certificate; empty: no TLS"),
    key(Admin, "tls_key", Now, Is(r#""""#), "its key"),
    key(Admin, "tls_client_ca", Now, Is(r#""""#), "PEM file: clients must show a certificate that it signed"),
    key(Postgres, "url", Now, Required, "URL or key=value connection string"),
    key(Postgres, "pool_size", Now, Is("8"), "connections to Postgres"),
    key(Postgres, "connect_timeout", Now, Is(r#""2s""#), "bounds connecting to one host"),
    key(Postgres, "search_path", Now, Is(r#""""#), "of every session; empty: the role's own"),
    key(Postgres, "timezone", Now, Is(r#""UTC""#), "shapes timestamptz in answers"),
    key(Postgres, "reconnect_max", Now, Is(r#""1s""#), "while Postgres is away it is probed this often"),
    key(Postgres, "tls", Now, Is(r#""prefer""#), "disable, prefer, require, verify-ca or verify-full"),
    key(Postgres, "tls_root_cert", Now, Is(r#""""#), "PEM file to verify by; empty: the platform's roots"),
    key(Postgres, "tls_client_cert", Now, Is(r#""""#), "PEM file that Seawall shows"),
    key(Postgres, "tls_client_key", Now, Is(r#""""#), "its key"),
    key(Postgres, "migrate_url", Now, Is(r#""""#), "for seawall migrate: the role that owns tables; empty: url"),
    key(Postgres, "listen_url", Now, Is(r#""""#), "direct connection for the event stream"),
    key(Redis, "url", Now, Is(r#""redis://127.0.0.1:6379""#), "the shared tier; the section makes it one"),
    key(Redis, "tls_root_cert", Now, Is(r#""""#), "PEM file to verify by; empty: the platform's roots"),
    key(Redis, "namespace", Now, Is(r#""shop""#), "prefix of its keys"),
    key(Redis, "pool_size", Now, Is("8"), "connections to Redis"),
    key(Redis, "timeout", Now, Is(r#""100ms""#), "bounds each call; beyond it Redis counts as away"),
    key(Cache, "max_bytes", Now, Is(r#""256MiB""#), "all stored answers"),
    key(Cache, "entry_max_bytes", Now, Is(r#""1MiB""#), "larger answers are given, not stored"),
    key(Cache, "compressed_max_bytes", Now, Is(r#""64MiB""#), "compressed bodies, beside max_bytes"),
    key(Cache, "result_max_bytes", Now, Is(r#""16MiB""#), "larger answers are refused"),
    key(Cache, "max_fills", Now, Is("8"), "concurrent rebuilds, all queries; default: postgres.pool_size"),
    key(Cache, "max_queued_fills", Now, Is("1024"), "rebuilds waiting for their turn; more are refused"),
    key(Invalidation, "source", Now, Is(r#""log""#), "log, notify or none: where events come from"),
    key(Invalidation, "channel", Now, Is(r#""seawall""#), "of LISTEN and NOTIFY"),
    key(Invalidation, "retention", Now, Is(r#""15m""#), "how long events are kept"),
    key(Invalidation, "poll_interval", Now, Is(r#""5ms""#), "between polls while events come"),
    key(Invalidation, "proactive", Now, Is("64"), "hot entries refreshed at once after their invalidation, at most"),
    key(Invalidation, "advisory_key", Now, Is("7309940371"), "the doorbell's lock"),
    key(Auth, "anonymous", Now, Is("[]"), "queries that may be asked without a token; [\"*\"]: all"),
    key(Auth, "tokens", Now, Example("{}"), "API tokens: a section for each, [auth.tokens.NAME]"),
    key(Auth, "jwt", Now, Example("{}"), "tokens that others issue: the section [auth.jwt]"),
    key(
        Token,
        "sha256",
        Now,
        Example(r#"["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]"#),
        "SHA-256 of the token; several while it is replaced",
    ),
    key(Token, "queries", Now, Is("[]"), "queries that its bearer may ask; [\"*\"]: all"),
    key(Token, "claims", Now, Example("{ org_id = 7 }"), "what queries know of its bearer, as :claims.org_id"),
    key(Token, "rate", Now, Is("0"), "requests a second; 0: any number"),
    key(Token, "burst", Now, Is("0"), "requests at once before the rate counts; 0: as many as rate"),
    key(Token, "concurrency", Now, Is("0"), "requests that may wait at a time; 0: any number"),
    key(Jwt, "issuer", Now, Is(r#""""#), "iss has to be this; empty: any"),
    key(Jwt, "audience", Now, Is("[]"), "aud has to name one of these; empty: tokens that name none"),
    key(Jwt, "leeway", Now, Is(r#""30s""#), "by how much clocks may differ"),
    key(Jwt, "queries", Now, Is("[]"), "queries that bearers may ask; [\"*\"]: all"),
    key(Jwt, "claims", Now, Example(r#"{ org_id = "/app_metadata/org_id" }"#), "where tokens have a claim (RFC 6901)"),
    key(Jwt, "jwks_file", Now, Is(r#""""#), "file with a JSON Web Key Set"),
    key(Jwt, "keys", Now, Example("{}"), "keys: a section for each, [auth.jwt.keys.KID]"),
    key(Jwt, "rate", Now, Is("0"), "requests a second of each subject; 0: any number"),
    key(Jwt, "burst", Now, Is("0"), "requests at once before the rate counts; 0: as many as rate"),
    key(Jwt, "concurrency", Now, Is("0"), "requests of a subject that may wait at a time; 0: any number"),
    key(JwtKey, "algorithm", Now, Example(r#""RS256""#), "HS256, RS256, ES256 or EdDSA"),
    key(JwtKey, "secret", Now, Is(r#""""#), "for HS256: at least 32 bytes"),
    key(JwtKey, "public_key_file", Now, Is(r#""""#), "for the others: a public key in PEM"),
    key(Cors, "origins", Now, Is("[]"), "origins whose scripts may read answers; [\"*\"]: any"),
    key(Cors, "allow_credentials", Now, Is("false"), "their requests may come with cookies and client certificates"),
    key(Cors, "max_age", Now, Is(r#""10m""#), "how long browsers may remember that they may"),
    key(Cors, "headers", Now, Is("[]"), "fields that requests may have beside those that Seawall understands"),
    key(Defaults, "ttl", Now, Is(r#""5m""#), "how long an answer is fresh"),
    key(Defaults, "jitter", Now, Is("0.1"), "share of ttl, both ways, drawn for each entry"),
    key(
        Defaults,
        "stale_while_revalidate",
        Now,
        Is(r#""30s""#),
        "after its ttl an old value is given for so long while it is refreshed",
    ),
    key(Defaults, "stale_if_error", Now, Is(r#""1h""#), "after its ttl an old value is given for so long on failure"),
    key(Defaults, "early_refresh", Now, Is("1.0"), "XFetch beta; 0 turns it off"),
    key(Defaults, "timeout", Now, Is(r#""2s""#), "bounds a whole rebuild: queue, pool, statement"),
    key(Defaults, "wait_at_most", Now, Is(r#""""#), "after this an old value is given while the rebuild runs on"),
    key(Defaults, "error_backoff", Now, Is(r#""1s""#), "how long a failure is remembered"),
    key(Defaults, "request_cache_control", Now, Is(r#""bounded""#), "ignore or bounded: Cache-Control of requests"),
    key(
        Defaults,
        "min_refill_interval",
        Now,
        Is(r#""1s""#),
        "the most often that clients' directives can force a fill of one key",
    ),
    key(Defaults, "client_ttl", Now, Is(r#""0s""#), "how long clients and CDNs may keep an answer without asking"),
    key(Defaults, "max_rows", Now, Is("10000"), "more rows are refused"),
    key(Defaults, "max_fills", Now, Is("8"), "concurrent rebuilds of one query"),
    key(Defaults, "result", Now, Is(r#""rows""#), "rows, row or value"),
    key(Defaults, "serve_invalidated", Now, Is(r#""0s""#), "an invalidated value is given while it is refreshed"),
    key(Defaults, "max_lag", Now, Is(r#""2s""#), "event stream silent for longer: blind"),
    key(Defaults, "on_blind", Now, Is(r#""bypass""#), "bypass or serve"),
    key(Defaults, "consistency", Now, Is(r#""bounded""#), "bounded or strict"),
    key(Defaults, "proactive_refresh", Now, Is("false"), "hot entries are refreshed at once after invalidation"),
    key(Query, "sql", Now, Example(r#""SELECT id, name FROM shop.products WHERE id = :id""#), "the statement"),
    key(Query, "sql_file", Now, Example(r#""queries/product.sql""#), "or a file with it, from this file's directory"),
    key(Query, "description", Now, Is(r#""""#), "what it is for, shown to client developers"),
    key(Query, "params", Now, Example(r#"{ id = "int4" }"#), "where the types that Postgres infers don't do"),
    key(Query, "depends", Now, Example(r#"{ "shop.products" = "id = :id" }"#), "tables that an answer depends on"),
    key(Query, "claims", Now, Example(r#"["org_id"]"#), "claims that policies of row-level security read"),
    key(Query, "tags", Now, Example(r#"["region:{region}"]"#), "names to invalidate by"),
    key(Param, "type", Now, Example(r#""int4""#), "overrides what Postgres infers"),
    key(Param, "default", Now, Example("20"), "the value of an absent parameter"),
    key(Param, "required", Now, Is("true"), "false: an absent parameter is NULL"),
    key(Param, "min", Now, Example("1"), "least value"),
    key(Param, "max", Now, Example("100"), "greatest value"),
    key(Param, "max_length", Now, Example("64"), "greatest length of a text, in characters"),
];

/// The keys that may stand in `section`: a query has its own and those of `[defaults]`.
pub fn of(section: Section) -> impl Iterator<Item = &'static Key> {
    let inherits = section == Section::Query;
    KEYS.iter().filter(move |k| k.section == section || (inherits && k.section == Section::Defaults))
}

/// The key called `name` in `section`.
pub fn find(section: Section, name: &str) -> Option<&'static Key> {
    of(section).find(|k| k.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_listed_twice_and_every_default_is_toml() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(!KEYS[..i].iter().any(|k| k.section == key.section && k.name == key.name), "{key:?}");
            if let Is(text) | Example(text) = key.default {
                assert!(toml::from_str::<toml::Table>(&format!("x = {text}")).is_ok(), "{key:?}");
            }
        }
    }

    #[test]
    fn a_query_takes_the_keys_of_defaults_and_defaults_not_those_of_a_query() {
        assert!(find(Query, "ttl").is_some());
        assert!(find(Query, "sql").is_some());
        assert!(find(Defaults, "sql").is_none());
    }
}

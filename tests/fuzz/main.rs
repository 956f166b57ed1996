//! What strangers send, in quantities that nobody sends by hand: bytes on a connection, and credentials.
//!
//! Every property holds for `SEAWALL_FUZZ_CASES` cases (fewer than of the parsers alone, since these are answered: 5,000 of
//! connections, 10,000 of credentials, unless set). Not covered: TLS handshakes, which are rustls's; and the admin listener, which
//! is not for strangers.

mod http;
#[allow(dead_code, unused_imports, reason = "each binary of tests uses its part")]
#[path = "../integration/support/mod.rs"]
mod support;
mod tokens;

use proptest::prelude::ProptestConfig;

/// As many cases as the variable says, else `unset`.
fn cases(unset: u32) -> ProptestConfig {
    let cases = std::env::var("SEAWALL_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(unset);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() }
}

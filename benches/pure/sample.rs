//! Values that the questions share: a stamp, an entry, a shape with some parameters.

use std::sync::Arc;
use std::time::Duration;

use seawall::cache::entry::{Draft, Entry};
use seawall::catalog::Prepared;
use seawall::catalog::params::{Param, ParamType};
use seawall::clock::Moment;
use seawall::stamp::{Lineage, Snapshot, Stamp};
use seawall::tag::Tag;

/// Of the form and length that Postgres gives.
pub const LINEAGE: &str = "7412345678901234567/00000001/16384/2026-01-01 00:00:00.000000+00";

/// When the entries of the sample are filled, and for how long they live from then on.
pub const FILLED: Moment = Moment::from_nanos(1_000_000_000);
pub const LIFETIME: Duration = Duration::from_secs(3_600);

/// A snapshot under which `running` transactions were running.
pub fn stamp(running: u64) -> Stamp {
    let xip = (0..running).map(|n| 1_000 + 2 * n).collect();
    let snapshot = Snapshot::checked(1_000, 1_000 + 2 * running, xip).expect("in order");
    Stamp { lineage: Lineage::new(LINEAGE), snapshot }
}

/// What an answer of one row of one table depends on: its query, its key, its row, every row.
pub fn tags() -> Arc<[Tag]> {
    ["query:product", "key:0", "shop.products:id=42", "shop.products:*"].into_iter().map(Tag::new).collect()
}

/// An entry of `body`, read under `stamp`, certified at `version`.
pub fn entry(body: Box<[u8]>, stamp: Stamp, version: u64) -> Entry {
    Entry::new(Draft {
        etag_seed: 0,
        route: 0,
        body: Some(body),
        stamp,
        tags: tags(),
        basis: 1,
        max_lag: LIFETIME,
        filled: FILLED,
        took: Duration::from_millis(1),
        lifetime: LIFETIME,
        early_refresh: 1.0,
        uses: None,
        certified: version,
    })
}

/// A shape with `params` parameters `p1`, `p2`, … of that type.
pub fn prepared(params: usize, kind: &ParamType) -> Prepared {
    let param = |n| Param {
        name: format!("p{n}").into(),
        kind: kind.clone(),
        default: None,
        required: true,
        min: None,
        max: None,
        max_length: None,
    };
    Prepared {
        params: (1..=params).map(param).collect(),
        settings: Vec::new(),
        columns: vec![],
        fingerprint: 0x5ea_3a11,
        wrapped: "".into(),
        warnings: vec![],
    }
}

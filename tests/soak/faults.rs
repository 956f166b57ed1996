//! What happens between the service and Postgres meanwhile, at random.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::chaos::{Chaos, Mode};

/// Breaks something, mends it, and begins again, until it is dropped. `made` counts what was done.
pub async fn inject(proxy: &Chaos, admin: &Client, rng: &mut Rng, made: &mut BTreeMap<&'static str, u32>) {
    loop {
        held(rng, 100..1500).await;
        let (name, mode) = match rng.u8(..8) {
            0 => ("away", Mode::Away),
            1 => ("refuse", Mode::Refuse),
            2 => ("reset", Mode::Reset),
            3 | 4 => ("black hole", Mode::BlackHole),
            5 => {
                let (bytes, every) = (rng.usize(1..4096), Duration::from_millis(rng.u64(1..20)));
                ("trickle", Mode::Trickle { bytes, every })
            }
            6 => ("cut", Mode::Cut { after: rng.usize(..200_000) }),
            _ => {
                *made.entry("terminate").or_default() += 1;
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE application_name = 'seawall' AND random() < 0.5";
                admin.execute(sql, &[]).await.expect("it may");
                continue;
            }
        };
        *made.entry(name).or_default() += 1;
        proxy.set(mode).await;
        held(rng, 20..2500).await;
        proxy.set(Mode::Pass).await;
    }
}

/// Leaves things as they are for so many milliseconds: how long a fault lasts is what it is.
async fn held(rng: &mut Rng, milliseconds: std::ops::Range<u64>) {
    let _ = timeout(Duration::from_millis(rng.u64(milliseconds)), pending::<()>()).await;
}

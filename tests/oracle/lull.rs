//! Times in which hardly anybody writes, so that pods fall asleep, and the doorbell that wakes them then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::timeout;

use super::http::Client;
use super::pod;
use super::world::World;

/// What has to happen in a run with a doorbell: somebody slept, was woken, and found what it was woken for.
pub const RINGS: &str = "rings that woke a pod";

/// Makes it quiet every now and then until the run ends, and counts what rang.
pub async fn now_and_then(world: &Arc<World>, pods: &[SocketAddr], mut rng: Rng) {
    let mut known = vec![0; pods.len()];
    while !world.is_over() {
        world.idle(Duration::from_millis(rng.u64(200..800))).await;
        world.quiet(true);
        world.idle(Duration::from_millis(rng.u64(300..900))).await;
        world.quiet(false);
        for (pod, known) in pods.iter().zip(&mut known) {
            // One that is paused is asked again next time.
            let mut admin = Client::new(*pod);
            let asked = pod::metric(&mut admin, "seawall_doorbells_total{needed=\"true\"}");
            let Ok(Some(rings)) = timeout(Duration::from_millis(100), asked).await else { continue };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            let rings = rings as u64;
            (*known..rings).for_each(|_| world.tally().fault(RINGS));
            *known = rings;
        }
    }
    world.quiet(false);
}

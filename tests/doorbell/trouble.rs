//! What happens to pods meanwhile.

use std::sync::atomic::Ordering;

use fastrand::Rng;
use tokio_postgres::Client;

use super::world::World;

/// Something that happens to pods.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    None,
    /// The session on which one listens is ended by the server.
    KillListener {
        after: f64,
        which: usize,
    },
    /// One joins, and another leaves.
    ChangePods {
        after: f64,
        which: usize,
    },
}

impl Trouble {
    /// Any.
    pub fn draw(rng: &mut Rng) -> Self {
        let (after, which) = (rng.f64() * 0.6, rng.usize(..));
        match rng.u32(0..16) {
            0..=1 => Self::KillListener { after, which },
            2 => Self::ChangePods { after, which },
            _ => Self::None,
        }
    }

    /// Happens; ends when it is over.
    pub async fn happen(self, world: &World, hand: &Client) {
        let pause = async |after: f64| {
            hand.batch_execute(&format!("SELECT pg_sleep({after})")).await.expect("a pause");
        };
        match self {
            Self::None => {}
            Self::KillListener { after, which } => {
                pause(after).await;
                let listeners = world.listeners().await;
                let Some(&pid) = listeners.get(which % listeners.len().max(1)) else { return };
                world.is_disturbed.store(true, Ordering::Relaxed);
                hand.batch_execute(&format!("SELECT pg_terminate_backend({pid})")).await.expect("a superuser may");
                assert!(world.all_listen_but(pid).await, "a pod listens no more");
                world.tally().listeners_killed += 1;
            }
            Self::ChangePods { after, which } => {
                pause(after).await;
                world.join().await;
                let pods = world.live().len();
                world.leave(which % (pods - 1));
                world.tally().pods_changed += 1;
            }
        }
    }
}

//! Through what pods share what they fill: real servers, which are broken in every way.

use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;

use super::chaos::{Chaos, Mode};
use super::redis::TestRedis;
use super::topology::{Masters, Watched};
use super::world::World;

/// What a plan says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    Nothing,
    /// One server, behind a network that breaks.
    Redis,
    /// A master with two replicas, watched by three sentinels.
    Sentinels,
    /// Three masters.
    Cluster,
}

/// The servers.
pub enum Sharing {
    One(TestRedis, Chaos),
    Watched(Watched),
    Masters(Masters),
}

/// How its faults count.
pub const FAULTS: &str = "faults of Redis";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Sharing {
    /// Starts what is planned.
    pub async fn start(shared: Shared) -> Option<Self> {
        match shared {
            Shared::Nothing => None,
            Shared::Redis => {
                let redis = TestRedis::start().await;
                let way = Chaos::before(redis.port());
                Some(Self::One(redis, way))
            }
            Shared::Sentinels => Some(Self::Watched(Watched::start().await)),
            Shared::Cluster => Some(Self::Masters(Masters::start().await)),
        }
    }

    /// The section of a pod's configuration.
    pub fn section(&self) -> String {
        match self {
            Self::One(_, way) => format!("[redis]\nurl = \"redis://127.0.0.1:{}\"\n", way.port),
            Self::Watched(watched) => watched.section(""),
            Self::Masters(masters) => masters.section(""),
        }
    }

    /// Breaks it and mends it again and again, until the run is over.
    pub async fn breaks(&mut self, world: &World, mut rng: Rng) {
        while !world.is_over() {
            world.idle(ms(rng.u64(300..1_000))).await;
            match self {
                Self::One(redis, way) => {
                    if rng.u8(0..3) == 0 {
                        cut_off(way, world, &mut rng).await;
                    } else {
                        break_one(redis, world, &mut rng).await;
                    }
                }
                Self::Watched(watched) => replace_the_master(watched, world, &mut rng).await,
                Self::Masters(masters) => break_a_cluster(masters, world, &mut rng).await,
            }
            world.tally().fault(FAULTS);
        }
    }
}

/// Killed and started empty or with what it once held, paused, flushed, full, made a replica, and what it holds exchanged and
/// harmed.
async fn break_one(redis: &mut TestRedis, world: &World, rng: &mut Rng) {
    match rng.u8(0..8) {
        0 => {
            redis.kill();
            world.idle(ms(rng.u64(0..500))).await;
            redis.restart().await;
        }
        1 => {
            redis.signal(Signal::STOP);
            world.idle(ms(rng.u64(50..1_500))).await;
            redis.signal(Signal::CONT);
        }
        2 => redis.ask(&["FLUSHALL"]).await,
        3 => {
            redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
            world.idle(ms(500)).await;
            redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
        }
        4 => {
            redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
            world.idle(ms(500)).await;
            redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        }
        5 => redis.dump().await,
        6 => redis.roll_back().await,
        _ => {
            let keys = redis.values().await;
            for pair in keys.chunks(2) {
                match pair {
                    [one, other] => redis.ask::<()>(&["COPY", one, other, "REPLACE"]).await,
                    rest => redis.ask::<()>(&["SET", &rest[0], "garbage", "PX", "60000"]).await,
                }
            }
        }
    }
}

/// Out of reach, slow, and ended in the middle of an answer.
async fn cut_off(way: &Chaos, world: &World, rng: &mut Rng) {
    let (mode, time) = match rng.u8(0..4) {
        0 => (Mode::BlackHole, ms(rng.u64(100..1_500))),
        1 => (Mode::Trickle { bytes: 100, every: ms(20) }, ms(rng.u64(200..1_000))),
        2 => (Mode::Cut { after: rng.usize(1..3_000) }, ms(rng.u64(200..600))),
        _ => (Mode::Reset, Duration::ZERO),
    };
    way.set(mode).await;
    world.idle(time).await;
    way.set(Mode::Pass).await;
}

/// Killed, paused for longer than sentinels bear, or told to go: another takes its place, and it comes back as its replica. One
/// that was paused is for a moment a master that nobody else takes for one, with what it held.
async fn replace_the_master(watched: &mut Watched, world: &World, rng: &mut Rng) {
    let port = watched.master().await;
    let is_master = |server: &TestRedis| server.port() == port;
    let at = watched.servers.iter().position(is_master).expect("one of them");
    let how = rng.u8(0..3);
    match how {
        0 => watched.servers[at].kill(),
        1 => watched.servers[at].signal(Signal::STOP),
        _ => watched.fail_over().await,
    }
    watched.has_another_than(port).await;
    match how {
        0 => watched.servers[at].restart().await,
        1 => watched.servers[at].signal(Signal::CONT),
        _ => {}
    }
    world.tally().fault("masters replaced");
}

/// A master is killed or paused for a moment, all of them are emptied, or some slots move.
async fn break_a_cluster(masters: &mut Masters, world: &World, rng: &mut Rng) {
    let at = rng.usize(0..3);
    match rng.u8(0..4) {
        0 => {
            masters.servers[at].kill();
            world.idle(ms(rng.u64(0..1_000))).await;
            masters.servers[at].restart().await;
            masters.agree().await;
        }
        1 => {
            masters.servers[at].signal(Signal::STOP);
            world.idle(ms(rng.u64(50..1_500))).await;
            masters.servers[at].signal(Signal::CONT);
            masters.agree().await;
        }
        2 => {
            for server in &masters.servers {
                server.ask::<()>(&["FLUSHALL"]).await;
            }
        }
        _ => {
            let to = (at + rng.usize(1..3)) % 3;
            let slots = masters.slots_with_keys(at).await;
            for &slot in &slots {
                masters.begin_to_move(slot, at, to).await;
            }
            world.idle(ms(rng.u64(0..500))).await;
            for &slot in &slots {
                masters.move_on(slot, at, to).await;
            }
            world.tally().fault("slots moved");
        }
    }
}

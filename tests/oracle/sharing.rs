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

    /// Breaks it and mends it again and again, until the run is over: every way once, in any order, and again.
    pub async fn breaks(&mut self, world: &World, mut rng: Rng) {
        let mut ways = vec![];
        while !world.is_over() {
            world.idle(ms(rng.u64(300..1_000))).await;
            if ways.is_empty() {
                ways = (0..self.ways()).collect();
                rng.shuffle(&mut ways);
            }
            let way = ways.pop().expect("some");
            let has_broken = match self {
                Self::One(redis, network) => break_one(redis, network, way, world, &mut rng).await,
                Self::Watched(watched) => replace_the_master(watched, way, world, &mut rng).await,
                Self::Masters(masters) => break_a_cluster(masters, way, world, &mut rng).await,
            };
            if has_broken {
                world.tally().fault(FAULTS);
            }
        }
    }

    fn ways(&self) -> u8 {
        match self {
            Self::One(..) => 11,
            Self::Watched(_) => 3,
            Self::Masters(_) => 4,
        }
    }
}

/// Killed and started empty or with what it once held, paused, flushed, full, made a replica, what it holds exchanged and harmed;
/// out of reach, slow, and ended in the middle of an answer. Whether there was anything to break.
async fn break_one(redis: &mut TestRedis, network: &Chaos, way: u8, world: &World, rng: &mut Rng) -> bool {
    match way {
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
        5 => {
            redis.dump().await;
            world.idle(ms(rng.u64(100..1_000))).await;
            redis.roll_back().await;
        }
        6 => {
            let keys = redis.values().await;
            for (n, pair) in keys.chunks(2).enumerate() {
                match pair {
                    [one, other] if n > 0 => redis.ask::<()>(&["COPY", one, other, "REPLACE"]).await,
                    harmed => redis.ask::<()>(&["SET", &harmed[0], "garbage", "PX", "60000"]).await,
                }
            }
            return !keys.is_empty();
        }
        7 => cut_off(network, Mode::BlackHole, ms(rng.u64(100..1_500)), world).await,
        8 => cut_off(network, Mode::Trickle { bytes: 100, every: ms(20) }, ms(rng.u64(200..1_000)), world).await,
        9 => cut_off(network, Mode::Cut { after: rng.usize(1..3_000) }, ms(rng.u64(200..600)), world).await,
        _ => cut_off(network, Mode::Reset, Duration::ZERO, world).await,
    }
    true
}

async fn cut_off(network: &Chaos, mode: Mode, time: Duration, world: &World) {
    network.set(mode).await;
    world.idle(time).await;
    network.set(Mode::Pass).await;
}

/// Killed, paused for longer than sentinels bear, or told to go: another takes its place, and it comes back as its replica. One
/// that was paused is for a moment a master that nobody else takes for one, with what it held.
async fn replace_the_master(watched: &mut Watched, way: u8, world: &World, rng: &mut Rng) -> bool {
    let port = watched.master().await;
    let is_master = |server: &TestRedis| server.port() == port;
    let at = watched.servers.iter().position(is_master).expect("one of them");
    world.idle(ms(rng.u64(0..300))).await;
    match way {
        0 => watched.servers[at].kill(),
        1 => watched.servers[at].signal(Signal::STOP),
        _ => watched.fail_over().await,
    }
    watched.has_another_than(port).await;
    match way {
        0 => watched.servers[at].restart().await,
        1 => watched.servers[at].signal(Signal::CONT),
        _ => {}
    }
    world.tally().fault("masters replaced");
    true
}

/// A master is killed or paused for a moment, all of them are emptied, or some slots move.
async fn break_a_cluster(masters: &mut Masters, way: u8, world: &World, rng: &mut Rng) -> bool {
    let at = rng.usize(0..3);
    match way {
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
            if slots.is_empty() {
                return false;
            }
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
    true
}

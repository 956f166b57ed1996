//! A run: rounds of writers, with quiet between them, until the time is over and there is enough to tell.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::script::Script;
use super::tally::Tally;
use super::trouble::Trouble;
use super::world::{Complaint, World};
use super::writer::{TABLES, Writer};

/// From the moment a writer was told that it has committed to that in which each pod has applied it.
///
/// A pod that is awake polls every 5 ms, one that waits for a straggler every 20 ms, and then ever more slowly, by about a third
/// of the time it has waited; transactions last two seconds or so here. One whose listener was killed is back within the second
/// that `reconnect_max` is. The rest is for a machine with much else to do. A wake-up that is lost waits for a safety poll,
/// minutes away, since nobody else rings before the round is over.
pub const BOUND: Duration = Duration::from_secs(5);

const WRITERS: u32 = 6;

/// Beyond its time, for what is missing.
const PATIENCE: Duration = Duration::from_secs(60);

/// One at a time: what they measure is time.
static ALONE: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// When a run in which nothing is wrong is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enough {
    /// With its time.
    Time,
    /// Not before it has had enough of everything to tell.
    Telling,
}

/// How a run is set up.
pub struct Plan {
    pub name: &'static str,
    /// Of `make test`; `SEAWALL_DOORBELL_SECONDS` overrules it.
    pub seconds: u64,
    pub enough: Enough,
    /// Makes another one of a function that rings, or leaves it as it is.
    pub rewrite: fn(&str) -> String,
    /// How many functions it changes at least.
    pub rewritten: usize,
}

impl Plan {
    /// Everything as it is installed.
    pub fn new(name: &'static str) -> Self {
        Self { name, seconds: 12, enough: Enough::Telling, rewrite: str::to_owned, rewritten: 0 }
    }
}

/// What came of it.
pub struct Run {
    pub complaints: Vec<Complaint>,
    pub tally: Tally,
}

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Runs `plan` until its time is over and there is enough to tell, or until something is wrong.
pub async fn run(plan: Plan) -> Run {
    let _alone = ALONE.lock().await;
    let seconds = number("SEAWALL_DOORBELL_SECONDS").unwrap_or(plan.seconds);
    let seed = number("SEAWALL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{}: {seconds} s with SEAWALL_SEED={seed}", plan.name);
    let mut rng = Rng::with_seed(seed);

    let world = World::create(TABLES).await;
    let hand = world.session().await;
    super::broken::rewrite(&hand, &plan).await;
    for _ in 0..2 + rng.usize(0..2) {
        world.join().await;
    }
    let mut writers = vec![];
    for number in 0..WRITERS {
        writers.push(Writer::new(&world, number).await);
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let is_over = || {
        let now = Instant::now();
        now >= end && (plan.enough == Enough::Time || world.tally().is_telling() || now >= end + PATIENCE)
    };
    while !is_over() && world.complaints().is_empty() {
        round(&world, &mut writers, &mut rng, &hand).await;
    }
    for writer in &writers {
        writer.is_clean().await;
    }
    while !world.live().is_empty() {
        world.leave(0);
    }
    let run = Run { complaints: world.complaints(), tally: world.tally().clone() };
    println!("{}", run.tally);
    for complaint in &run.complaints {
        println!("{complaint:?}");
    }
    run
}

/// Some write, at once and one after the other; then everybody waits until that has reached all pods.
async fn round(world: &World, writers: &mut [Writer], rng: &mut Rng, hand: &tokio_postgres::Client) {
    rng.shuffle(writers);
    // Most often one alone, once: no later one makes up for what is lost.
    let (many, times) = match rng.u32(0..10) {
        0..=5 => (1, 1),
        6..=7 => (2, 1 + rng.usize(0..2)),
        _ => (3 + rng.usize(0..=3), 1 + rng.usize(0..3)),
    };
    let playing: Vec<_> = writers[..many]
        .iter_mut()
        .map(|writer| {
            let scripts: Vec<Script> = (0..times).map(|_| Script::draw(rng)).collect();
            async move {
                for script in &scripts {
                    writer.play(script).await;
                }
            }
        })
        .collect();
    tokio::join!(join_all(playing), Trouble::draw(rng).happen(world, hand));
    world.all_have_reached().await;
    world.is_disturbed.store(false, Ordering::Relaxed);
    world.tally().rounds += 1;
    match rng.u32(0..10) {
        0..=5 => {}
        6..=7 => {
            let pause = rng.f64() * 0.6;
            hand.batch_execute(&format!("SELECT pg_sleep({pause})")).await.expect("a pause");
        }
        _ => world.everybody_sleeps().await,
    }
}

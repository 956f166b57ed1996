//! The same where pods share what they fill, and Redis is broken in every way: no wrong answer.

use std::time::Duration;

use rustix::process::Signal;

use super::run::{Plan, Run, Shared, run};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Answers that pods took from each other, over all of them.
async fn taken(run: &Run) -> f64 {
    let mut taken = 0.0;
    for pod in &run.pods {
        taken += pod.metric("seawall_shared_values_total{outcome=\"hit\"}").await;
    }
    taken
}

fn sharing(name: &'static str) -> Plan {
    Plan { pods: 3, shared: Shared::Answers, seconds: 10, ..Plan::new(name) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pods_take_from_each_other_lacks_no_write() {
    let run = run(sharing("shared"), async |_: &mut Run| {}).await;
    run.kept_its_promise();
    assert!(taken(&run).await >= 20.0, "they shared too little to tell");
}

/// Killed and started empty or with what it once held, paused, flushed, full, made a replica, and what it holds exchanged and
/// harmed.
async fn break_redis(run: &mut Run) {
    let world = run.world.clone();
    let redis = run.redis.as_mut().expect("there is one");
    while !world.is_over() {
        world.idle(ms(run.rng.u64(300..1_000))).await;
        match run.rng.u8(0..8) {
            0 => {
                redis.kill();
                world.idle(ms(run.rng.u64(0..500))).await;
                redis.restart().await;
            }
            1 => {
                redis.signal(Signal::STOP);
                world.idle(ms(run.rng.u64(50..1_500))).await;
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
        world.tally().fault("faults of Redis");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_break_in_every_way() {
    let run = run(Plan { breaks: &[("faults of Redis", 6)], ..sharing("Redis broken") }, break_redis).await;
    run.kept_its_promise();
    assert!(taken(&run).await >= 10.0, "they shared too little to tell");
}

//! The same while something breaks, again and again: what is fresh stays right, whatever becomes of the stream of events.
//!
//! Each fault ends with everything mended, and counts itself: a run in which nothing broke fails.

use std::time::Duration;

use super::chaos::Mode;
use super::cluster::Stop;
use super::lull::RINGS;
use super::run::{Between, Plan, Run, run};
use super::strict::FOREIGN;
use super::world::World;
use super::writer::Prepared;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The sessions by which pods hear of events.
const LISTENERS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                         WHERE application_name = 'seawall listener'";

/// The stream of events is cut, and goes on where it was.
pub async fn kill_the_listener_every_second(run: &mut Run) {
    let admin = run.world.session("postgres").await;
    while !run.world.is_over() {
        run.world.idle(ms(1_000)).await;
        let killed: i64 = admin.query_one(LISTENERS, &[]).await.expect("it stands").get(0);
        if killed > 0 {
            run.world.tally().fault("listeners killed");
        }
    }
}

/// What it takes to tell.
pub fn listener_killed() -> Plan {
    Plan { breaks: &[("listeners killed", 4), (RINGS, 2)], ..Plan::with_a_doorbell("listener killed") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_backend_may_be_killed_every_second() {
    let run = run(listener_killed(), kill_the_listener_every_second).await;
    run.kept_its_promise();
}

/// Killed and stopped by turns, with a prepared transaction that outlives it and commits when pods have filled again.
pub async fn kill_and_restart_postgres(run: &mut Run) {
    let mut number = 0;
    while !run.world.is_over() {
        run.world.has_hits().await;
        number += 1;
        let prepared = Prepared::new(&run.world, format!("across {number}"), &mut run.rng).await;
        let (how, what) = match number % 3 {
            0 => (Stop::Clean, "clean restarts"),
            _ => (Stop::Immediate, "kills of Postgres"),
        };
        run.world.cluster.stop(how).await;
        run.world.idle(ms(run.rng.u64(0..700))).await;
        run.world.cluster.resume().await;
        // What is filled now lacks what was prepared.
        if number % 2 == 0 {
            run.world.has_hits().await;
        } else {
            run.world.idle(ms(run.rng.u64(0..1_000))).await;
        }
        prepared.commit(&run.world).await;
        run.world.tally().fault(what);
    }
}

/// What it takes to tell.
pub fn crashes() -> Plan {
    Plan {
        seconds: 6,
        breaks: &[("kills of Postgres", 2), ("prepared transactions across it", 2), (FOREIGN, 1)],
        ..Plan::new("crashes")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_may_be_killed_and_restarted_with_transactions_prepared() {
    let run = run(crashes(), kill_and_restart_postgres).await;
    run.kept_its_promise();
}

/// One pod after the other stands still, with all that it holds.
pub async fn pause_the_service(run: &mut Run) {
    while !run.world.is_over() {
        run.world.idle(ms(run.rng.u64(200..1_000))).await;
        let pod = run.rng.usize(0..run.pods.len());
        run.pods[pod].pause();
        run.world.idle(ms(run.rng.u64(300..2_500))).await;
        run.pods[pod].resume();
        run.world.tally().fault("pauses");
    }
}

/// What it takes to tell.
pub fn paused() -> Plan {
    Plan { breaks: &[("pauses", 2), (RINGS, 1)], ..Plan::with_a_doorbell("paused") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_may_stand_still_for_seconds() {
    let run = run(paused(), pause_the_service).await;
    run.kept_its_promise();
}

/// What queries depend on is found out in one go, and again from the beginning where that is cut. After a TRUNCATE nothing is
/// kept until it has been; a network that stands for moments alone would never let it, and there would be nothing to judge.
/// So after every few faults it stands until there are hits again, which have to come.
pub async fn break_the_network(run: &mut Run) {
    const FAULTS_IN_A_ROW: u32 = 3;
    let chaos = run.chaos.as_ref().expect("planned");
    let mut faults = 0;
    while !run.world.is_over() {
        if faults % FAULTS_IN_A_ROW == 0 {
            run.world.has_hits().await;
        }
        faults += 1;
        run.world.idle(ms(run.rng.u64(200..800))).await;
        let (mode, time, what) = match run.rng.u32(0..6) {
            0 | 1 => (Mode::BlackHole, ms(run.rng.u64(200..2_500)), "black holes"),
            2 => (Mode::Trickle { bytes: 300, every: ms(20) }, ms(run.rng.u64(500..2_000)), "slow networks"),
            3 => (Mode::Cut { after: run.rng.usize(1..5_000) }, ms(run.rng.u64(200..600)), "cuts"),
            4 => (Mode::Away, ms(run.rng.u64(100..1_000)), "absences"),
            _ => (Mode::Reset, Duration::ZERO, "resets"),
        };
        chaos.set(mode).await;
        run.world.idle(time).await;
        chaos.set(Mode::Pass).await;
        let mut tally = run.world.tally();
        tally.fault(what);
        tally.fault("faults of the network");
    }
}

/// What it takes to tell.
pub fn network() -> Plan {
    Plan { between: Between::Chaos, seconds: 6, breaks: &[("faults of the network", 4)], ..Plan::new("network") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_may_stall_crawl_and_be_cut() {
    let run = run(network(), break_the_network).await;
    run.kept_its_promise();
}

/// One of the pods sleeps until the log has lost what it has not read.
pub async fn sleep_through_the_retention(run: &mut Run) {
    while !run.world.is_over() {
        run.world.idle(ms(run.rng.u64(500..1_500))).await;
        let pod = run.rng.usize(0..run.pods.len());
        run.pods[pod].pause();
        run.world.idle(ms(run.rng.u64(3_000..4_000))).await;
        run.pods[pod].resume();
        run.world.tally().fault("pauses");
    }
}

/// What it takes to tell.
pub fn pruned() -> Plan {
    let invalidation = "source = \"log\"\nretention = \"1s\"";
    Plan { pods: 2, invalidation, seconds: 6, breaks: &[("pauses", 2)], ..Plan::new("pruned") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pods_may_prune_all_the_time_and_what_was_pruned_unread_is_a_gap() {
    let run = run(pruned(), sleep_through_the_retention).await;
    run.kept_its_promise();
    somebody_had_a_gap(&run).await;
}

/// Pods did sleep for longer than events are kept.
pub async fn somebody_had_a_gap(run: &Run) {
    let mut gaps = 0.0;
    for pod in &run.pods {
        gaps += pod.metric("seawall_flushes_total{reason=\"gap\"}").await;
    }
    assert!(gaps >= 1.0, "nobody lost anything to pruning");
}

/// A copy of an earlier time takes the place of what there is: same server, same names, other rows.
pub async fn restore_a_copy(run: &mut Run) {
    let world = run.world.clone();
    while !world.is_over() {
        let gate = world.gate.write().await;
        world.cluster.stop(Stop::Clean).await;
        let (copy, copied) = (world.cluster.copy().await, world.histories().copied());
        world.cluster.resume().await;
        drop(gate);
        give_out_transaction_ids(&world).await;
        world.has_hits().await;

        let gate = world.gate.write().await;
        world.cluster.stop(if run.rng.bool() { Stop::Clean } else { Stop::Immediate }).await;
        world.cluster.restore(copy);
        let sent = world.now();
        world.cluster.resume().await;
        world.replaced(&copied, sent);
        drop(gate);
        world.tally().fault("copies restored");
        world.has_hits().await;
    }
}

/// What it takes to tell.
pub fn restored() -> Plan {
    Plan { seconds: 8, breaks: &[("copies restored", 1), (FOREIGN, 1)], ..Plan::new("restored") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_copy_may_be_restored_over_it() {
    let run = run(restored(), restore_a_copy).await;
    run.kept_its_promise();
}

/// The primary is gone, and its standby takes over: with all there was and what was prepared, or, every other time, without
/// what was written last. Then what that had read and given is no more, and its transactions' ids are given again.
pub async fn promote_a_standby(run: &mut Run) {
    let world = run.world.clone();
    let mut number = 0;
    while !world.is_over() {
        let standby = world.cluster.follow().await;
        world.has_hits().await;
        number += 1;
        if number % 2 == 0 {
            let prepared = Prepared::new(&world, format!("succession {number}"), &mut run.rng).await;
            let gate = world.gate.write().await;
            world.cluster.catch_up(&standby).await;
            world.cluster.succeed(standby).await;
            run.relay.as_ref().expect("planned").turn(world.cluster.port());
            drop(gate);
            world.has_hits().await;
            prepared.commit(&world).await;
        } else {
            let gate = world.gate.write().await;
            world.cluster.catch_up(&standby).await;
            world.cluster.detach(&standby).await;
            let copied = world.histories().copied();
            drop(gate);
            give_out_transaction_ids(&world).await;
            world.has_hits().await;

            let gate = world.gate.write().await;
            let sent = world.now();
            world.cluster.succeed(standby).await;
            run.relay.as_ref().expect("planned").turn(world.cluster.port());
            world.replaced(&copied, sent);
            drop(gate);
            world.tally().fault("promotions that lose writes");
            world.has_hits().await;
        }
        world.tally().fault("promotions");
    }
}

/// Thousands that nothing is written with: in a history that doesn't have them they are given out again.
async fn give_out_transaction_ids(world: &World) {
    let admin = world.session("postgres").await;
    let sql = "DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    admin.batch_execute(sql).await.expect("it stands");
}

/// What it takes to tell.
pub fn promoted() -> Plan {
    Plan {
        between: Between::Relay,
        seconds: 7,
        breaks: &[
            ("promotions", 2),
            ("promotions that lose writes", 1),
            ("prepared transactions across it", 1),
            (FOREIGN, 1),
        ],
        ..Plan::new("promoted")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_may_be_promoted() {
    let run = run(promoted(), promote_a_standby).await;
    run.kept_its_promise();
}

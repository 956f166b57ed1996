//! The same where pods share what they fill: while nothing breaks, while what they share by is broken in every way, while pods
//! die, and with everything else that goes wrong in the world beside it. No wrong answer.

use std::time::Duration;

use super::run::{Plan, Run, run, taken};
use super::sharing::{FAULTS, Shared};
use super::{ddl, faults};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// And they did share, while things broke.
fn kept_its_promise(run: &Run) {
    run.kept_its_promise();
    assert!(run.taken >= 10.0, "{} answers are too few to tell", run.taken);
}

fn sharing(name: &'static str) -> Plan {
    Plan { pods: 3, shared: Shared::Redis, seconds: 6, ..Plan::new(name) }
}

/// Runs `plan` over three pods, with `breaking` and what breaks Redis at once.
async fn with_redis_broken(plan: Plan, breaking: impl AsyncFnOnce(&mut Run)) -> Run {
    let breaks: Vec<_> = plan.breaks.iter().copied().chain([(FAULTS, 3)]).collect();
    let shared = match plan.shared {
        Shared::Nothing => Shared::Redis,
        planned => planned,
    };
    let name: &str = format!("{}, shared", plan.name).leak();
    let plan = Plan { name, pods: 3, shared, seconds: 4, breaks: breaks.leak(), ..plan };
    let run = run(plan, async |run: &mut Run| {
        let (world, mut sharing) = (run.world.clone(), run.sharing.take().expect("planned"));
        let rng = run.rng.fork();
        tokio::join!(sharing.breaks(&world, rng), breaking(run));
        run.sharing = Some(sharing);
    })
    .await;
    kept_its_promise(&run);
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pods_take_from_each_other_lacks_no_write() {
    let run = run(sharing("shared"), async |_: &mut Run| {}).await;
    kept_its_promise(&run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_break_in_every_way() {
    let plan = Plan { breaks: &[(FAULTS, 10)], ..sharing("Redis broken") };
    with_redis_broken(plan, async |_: &mut Run| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_may_be_replaced_by_sentinels() {
    let plan = Plan { shared: Shared::Sentinels, breaks: &[("masters replaced", 2)], ..sharing("Sentinels") };
    with_redis_broken(plan, async |_: &mut Run| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_a_cluster_may_move_and_its_masters_fail() {
    let plan = Plan { shared: Shared::Cluster, breaks: &[("slots moved", 1)], ..sharing("Cluster") };
    with_redis_broken(plan, async |_: &mut Run| {}).await;
}

/// Holders of leases among them; who takes a dead one's place begins with what the others share.
async fn kill_pods(run: &mut Run) {
    while !run.world.is_over() {
        run.world.idle(ms(run.rng.u64(300..1_500))).await;
        let pod = run.rng.usize(0..run.pods.len());
        run.taken += taken(&run.pods[pod]).await;
        run.pods[pod].is_replaced().await;
        run.world.tally().fault("pods killed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_may_be_killed_and_replaced() {
    let run = run(Plan { breaks: &[("pods killed", 3)], ..sharing("pods killed") }, kill_pods).await;
    kept_its_promise(&run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_backend_may_be_killed() {
    with_redis_broken(faults::listener_killed(), faults::kill_the_listener_every_second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_may_be_killed_and_restarted() {
    with_redis_broken(faults::crashes(), faults::kill_and_restart_postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_may_stand_still_with_the_leases_that_they_hold() {
    with_redis_broken(faults::paused(), faults::pause_the_service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "longer than most: make soak"]
async fn the_network_may_break() {
    with_redis_broken(faults::network(), faults::break_the_network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "longer than most: make soak"]
async fn what_was_pruned_unread_is_a_gap_for_what_was_shared() {
    let run = with_redis_broken(faults::pruned(), faults::sleep_through_the_retention).await;
    faults::somebody_had_a_gap(&run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_may_be_restored_over_what_pods_have_shared() {
    with_redis_broken(faults::restored(), faults::restore_a_copy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "longer than most: make soak"]
async fn a_standby_may_be_promoted_over_what_pods_have_shared() {
    with_redis_broken(faults::promoted(), faults::promote_a_standby).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "longer than most: make soak"]
async fn definitions_may_change_under_what_pods_have_shared() {
    with_redis_broken(ddl::definitions(), ddl::define_everything).await;
}

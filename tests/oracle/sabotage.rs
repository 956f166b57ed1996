//! The oracle is asked about services that are broken on purpose: each fault must be caught by the run that is made for it.
//!
//! They are runs like the others, but for the fault; what is caught elsewhere, too, is not asserted.

use super::changes::Truncates;
use super::faults::{promote_a_standby, restore_a_copy};
use super::judge::Reader;
use super::run::{Between, Plan, Run, run};

/// Seconds. What breaks has to break after something was kept that it makes wrong.
const PATIENCE: u64 = 60;

fn broken(name: &'static str, sabotage: &'static str) -> Plan {
    Plan { sabotage: Some(sabotage), truncates: Truncates::Never, seconds: PATIENCE, ..Plan::new(name) }
}

fn is_caught(run: &Run) {
    assert!(run.world.is_caught(), "the judge believed a broken service");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_certifies_nothing_is_caught() {
    is_caught(&run(broken("no certify", "no-certify"), async |_: &mut Run| {}).await);
}

/// By strict readers, too, whatever others find.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_readers_catch_a_service_that_certifies_nothing() {
    let plan = Plan { caught_by: Reader::Strict, ..broken("no certify, strict", "no-certify") };
    is_caught(&run(plan, async |_: &mut Run| {}).await);
}

/// By who asks right after a write, and nobody else: its promise is all that is broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_readers_alone_catch_a_service_that_validates_with_an_older_poll() {
    let plan = Plan { caught_by: Reader::Strict, ..broken("old probe", "strict-old-probe") };
    let run = run(plan, async |_: &mut Run| {}).await;
    is_caught(&run);
    assert!(run.world.violations().iter().all(|wrong| wrong.reader == Reader::Strict), "others had found it, too");
}

/// By transactions that commit after later ones have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_forgets_what_ran_while_it_looked_is_caught() {
    is_caught(&run(broken("cursor by xmin", "cursor-xmin"), async |_: &mut Run| {}).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_takes_a_restored_copy_for_the_same_history_is_caught() {
    is_caught(&run(broken("no lineage, restored", "no-lineage"), restore_a_copy).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_takes_a_successor_for_the_same_history_is_caught() {
    let plan = Plan { between: Between::Relay, ..broken("no lineage, promoted", "no-lineage") };
    is_caught(&run(plan, promote_a_standby).await);
}

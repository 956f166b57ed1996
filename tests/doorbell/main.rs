//! The doorbell's model: against real PostgreSQL, no commit waits for a pod longer than the bound, however pods fall asleep
//! and wake.
//!
//! Rounds of writers with transactions of every shape (`script`, `writer`), pods that are the service itself (`pod`), kills
//! and changes among them (`trouble`). Between rounds it is quiet, so a wake-up that is lost is not made up for by the next
//! ring: it shows as a commit that waits for `run::BOUND`. A run takes some seconds, or as many as `SEAWALL_DOORBELL_SECONDS`
//! says, with the chance of `SEAWALL_SEED`, which is printed; a seed brings the same transactions again, not the same
//! interleaving.
//!
//! What can't fail proves nothing: a run in which pods did not sleep, or nobody committed what they had fallen asleep over,
//! fails (`tally`), and writers (`broken`) and pods (`sabotage`, by the feature of that name) that are broken on purpose must
//! each be noticed by the same runs.
//!
//! Not covered: a session that is lost without a word, which the safety poll is for, and servers where transactions may be
//! prepared, where nobody sleeps.

mod broken;
#[path = "../support/eventually.rs"]
mod eventually;
mod pod;
mod run;
#[cfg(feature = "sabotage")]
mod sabotage;
mod script;
mod tally;
mod trouble;
mod world;
mod writer;

use run::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_waits_for_pods_that_fall_asleep_and_wake_all_the_time() {
    let run = run(Plan::new("as it is")).await;
    assert_eq!(run.complaints, []);
    run.tally.tells();
}

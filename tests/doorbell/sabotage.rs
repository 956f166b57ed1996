//! The model is asked about pods that are broken on purpose: the same run, in a process that has the fault, must fail.

use std::process::Command;

const MODEL: &str = "no_commit_waits_for_pods_that_fall_asleep_and_wake_all_the_time";

/// Seconds. A run ends with what it finds.
const PATIENCE: &str = "60";

/// Of the complaint that a run must end with, and not with another.
const WAITS: &str = "Waits(";

fn is_caught(fault: &str) {
    let output = Command::new(std::env::current_exe().expect("this one"))
        .args(["--exact", MODEL, "--nocapture"])
        .env("SEAWALL_SABOTAGE", fault)
        .env("SEAWALL_DOORBELL_SECONDS", PATIENCE)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(!output.status.success() && said.contains(WAITS), "the model believed a broken pod");
}

/// By a transaction at or above the snapshot's xmax, which is in no list of it.
#[test]
fn a_pod_that_takes_stragglers_from_its_snapshot_is_caught() {
    is_caught("snapshot-stragglers");
}

#[test]
fn a_pod_that_waits_for_no_stragglers_is_caught() {
    is_caught("no-stragglers");
}

/// By a transaction that commits between the poll before the lock and the lock.
#[test]
fn a_pod_that_does_not_poll_once_more_is_caught() {
    is_caught("no-last-poll");
}

//! Nothing is broken: what is written shows in time, and what makes it so is events and nothing else.

use serde_json::Value;

use super::lull::RINGS;
use super::questions::QUERIES;
use super::run::{Plan, Readers, Run, run};
use super::strict;

async fn in_peace(_: &mut Run) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_events_the_judge_finds_every_kind_of_query_wrong() {
    let invalidation = "source = \"none\"";
    let plan = Plan { invalidation, readers: Readers::Bounded, seconds: 5, ..Plan::new("without events") };
    let run = run(plan, in_peace).await;
    let tally = run.world.tally();
    for query in QUERIES {
        assert!(tally.queries[query.name].violations > 0, "{}: nobody noticed\n{tally}", query.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fresh_hit_lacks_a_write_that_the_promise_says_it_has() {
    let run =
        run(Plan { seconds: 12, alone: true, breaks: &[(RINGS, 3)], ..Plan::with_a_doorbell("calm") }, in_peace).await;
    run.kept_its_promise();
    let problems = run.world.tally().problems.clone();
    assert_eq!(problems.len(), 0, "nothing is broken, and nothing failed: {problems:?}");
    for (form, row) in &run.world.tally().strict {
        // A transaction may be held for about as long as its reader waits.
        let refused = row.refused.keys().find(|problem| **problem != "504 after_not_visible");
        assert_eq!(refused, None, "nothing is broken, and {form} was refused");
    }
    for query in strict::QUERIES {
        assert_eq!(run.pods[0].of(query.name).await["verdict"], query.verdict, "{}", query.name);
    }

    for query in QUERIES {
        let name = query.name;
        let series = format!("seawall_rebuilds_total{{query=\"{name}\",reason=\"invalidated\"}}");
        let refilled = run.pods[0].metric(&series).await;
        assert!(refilled >= 3.0, "{name}: {refilled} refills are too few to tell");
        let found = run.pods[0].of(name).await;
        assert_eq!(found["verdict"], query.verdict, "{found}");
        if query.verdict == "exact" {
            assert_eq!(found["reasons"], Value::Array(vec![]), "{name} depends on rows as it declares");
        }
    }
}

//! Writers that are broken on purpose: the functions that ring are replaced in the run's own database, and the run must notice.
//!
//! Not here: a trigger that rings before it puts its rows into the log. It is no worse, as the write itself has given the
//! transaction its id, by which pods wait for it; so what breaks by the order is announcing by hand.

use tokio_postgres::Client;

use super::run::{Enough, Plan, run};
use super::world::Complaint;

const RING: &str = "IF pg_catalog.current_setting('max_prepared_transactions')";
const RINGS_AND_LEAVES: &str = "END IF;";
const INSERT: &str = "INSERT INTO seawall.event";

/// A run ends with what it finds; it has as long as it needs.
const PATIENCE: u64 = 60;

/// Makes the chance of an interleaving large, and changes nothing else: who announces by hand waits until somebody has fallen
/// asleep, two seconds at most. It takes no transaction id.
const STRETCH: &str = "IF pg_catalog.pg_trigger_depth() = 0 THEN \
        FOR i IN 1..100 LOOP \
            EXIT WHEN EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted); \
            PERFORM pg_catalog.pg_sleep(0.02); \
        END LOOP; \
        PERFORM pg_catalog.pg_sleep(0.1); \
    END IF;\n    ";

/// Replaces the functions that ring, as `plan` has it.
pub async fn rewrite(client: &Client, plan: &Plan) {
    let sql = "SELECT pg_get_functiondef(oid) FROM pg_proc \
               WHERE pronamespace = 'seawall'::regnamespace AND prosrc LIKE '%pg_try_advisory_lock%'";
    let mut rewritten = 0;
    for row in client.query(sql, &[]).await.expect("they are there") {
        let present: &str = row.get(0);
        let definition = (plan.rewrite)(present);
        if definition != present {
            client.batch_execute(&definition).await.unwrap_or_else(|error| panic!("{error:?}: {definition}"));
            rewritten += 1;
        }
    }
    assert!(rewritten >= plan.rewritten, "{rewritten} functions are rewritten, of {}", plan.rewritten);
}

/// Before the ring, the ring, and what comes after it.
fn parts(definition: &str) -> (&str, &str, &str) {
    let (before, rest) = definition.split_at(definition.rfind(RING).expect("it rings"));
    let end = rest.find(RINGS_AND_LEAVES).expect("it is a statement") + RINGS_AND_LEAVES.len();
    let (ring, after) = rest.split_at(end);
    (before, ring, after)
}

fn in_two_statements(definition: &str) -> String {
    let (before, _, after) = parts(definition);
    // A millisecond, where it would be one or two thousandths of that: a cancel in a hundred hits those.
    let ring = "IF pg_catalog.pg_try_advisory_lock(seawall.doorbell_key()) THEN \
                    PERFORM pg_catalog.pg_sleep(0.001); \
                    PERFORM pg_catalog.pg_advisory_unlock(seawall.doorbell_key()); \
                ELSE PERFORM pg_catalog.pg_notify(seawall.doorbell_channel(), ''); END IF;";
    format!("{before}{ring}{after}")
}

fn silent(definition: &str) -> String {
    let (before, _, after) = parts(definition);
    format!("{before}NULL;{after}")
}

/// That by which all is announced by hand; triggers call it where they have announced the same before.
fn announce(definition: &str) -> Option<(&str, &str, &str, &str)> {
    if !definition.contains("FUNCTION seawall.announce(") {
        return None;
    }
    let (before, ring, after) = parts(definition);
    let (head, insert) = before.split_at(before.find(INSERT).expect("it inserts"));
    Some((head, insert, ring, after))
}

fn rings_before_it_has_an_id(definition: &str) -> String {
    let Some((head, insert, ring, after)) = announce(definition) else { return definition.to_owned() };
    format!("{head}{ring}\n    {STRETCH}{insert}{after}")
}

fn rings_much_later(definition: &str) -> String {
    let Some((head, insert, ring, after)) = announce(definition) else { return definition.to_owned() };
    format!("{head}{insert}{STRETCH}{ring}{after}")
}

fn broken(name: &'static str, rewrite: fn(&str) -> String, rewritten: usize) -> Plan {
    Plan { rewrite, rewritten, seconds: PATIENCE, ..Plan::new(name) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "sabotage"), ignore = "it takes a minute: make sabotage")]
async fn a_writer_that_rings_nobody_is_caught() {
    let run = run(broken("silent", silent, 2)).await;
    assert!(run.complaints.iter().any(|complaint| matches!(complaint, Complaint::Waits(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "sabotage"), ignore = "it takes a minute: make sabotage")]
async fn a_writer_that_looks_before_it_has_a_transaction_id_is_caught() {
    let run = run(broken("look, then announce", rings_before_it_has_an_id, 1)).await;
    assert!(run.complaints.iter().any(|complaint| matches!(complaint, Complaint::Waits(_))));
}

/// So it is the order that is caught above, and not the time between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "sabotage"), ignore = "it takes a minute: make sabotage")]
async fn a_writer_that_takes_its_time_before_it_rings_is_not_waited_for() {
    let plan = Plan { seconds: 8, enough: Enough::Time, ..broken("announce, then look", rings_much_later, 1) };
    let run = run(plan).await;
    assert_eq!(run.complaints, []);
    assert!(run.tally.found_asleep > 0, "nobody slept: that tells nothing");
}

/// It keeps the lock where it is cancelled between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "sabotage"), ignore = "it takes a minute: make sabotage")]
async fn a_writer_that_rings_in_two_statements_is_caught() {
    let run = run(broken("two statements", in_two_statements, 2)).await;
    assert!(run.complaints.iter().any(|complaint| matches!(complaint, Complaint::Leaks(_))));
}

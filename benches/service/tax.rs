//! What do writers pay?
//!
//! The same update of one row at random, with real flushes: without a trigger; with a plain trigger that notifies, which takes a
//! cluster-wide lock across the flush; and with Seawall's, while a pod is awake, while one sleeps and never wakes (a session
//! that holds its lock and listens), and with none at all. In turns, so that a slow spell of the disk hits all alike.

use std::fs;
use std::path::PathBuf;

use super::durable::Durable;
use super::process::Child;
use super::report::{grouped, median, table};
use super::shop::{self, Shop};

const ROUNDS: usize = 3;
const SECONDS: u32 = 3;
const WRITERS: [u32; 3] = [1, 16, 32];
const ROWS: u32 = 10_000;
/// Of one statement, where it is many.
const MANY: u32 = 1_000;

const TABLES: &str = "CREATE TABLE bare (id int PRIMARY KEY, n int); CREATE TABLE notified (id int PRIMARY KEY, n int); \
    CREATE TABLE ours (id int PRIMARY KEY, n int); \
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN PERFORM pg_notify('plain', NEW.id::text); RETURN NULL; END $$; \
    CREATE TRIGGER tell AFTER UPDATE ON notified FOR EACH ROW EXECUTE FUNCTION tell();";

struct Variant {
    name: &'static str,
    table: &'static str,
    pod: Pod,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pod {
    Absent,
    Awake,
    Asleep,
}

const VARIANTS: [Variant; 5] = [
    Variant { name: "no trigger", table: "bare", pod: Pod::Absent },
    Variant { name: "plain trigger, NOTIFY", table: "notified", pod: Pod::Absent },
    Variant { name: "Seawall, pod awake", table: "ours", pod: Pod::Awake },
    Variant { name: "Seawall, pod that always sleeps", table: "ours", pod: Pod::Asleep },
    Variant { name: "Seawall, no pod", table: "ours", pod: Pod::Absent },
];

pub async fn ask(shop: &Shop) -> String {
    let postgres = Durable::start();
    let client = shop::connect(&postgres.url()).await;
    client.batch_execute(TABLES).await.expect("the tables");
    for table in ["bare", "notified", "ours"] {
        let fill =
            format!("INSERT INTO {table} SELECT i, 0 FROM generate_series(1, {ROWS}) AS i; VACUUM ANALYZE {table}");
        for statement in fill.split(';') {
            client.batch_execute(statement).await.expect("filled");
        }
    }
    let query = "[queries.ours]\nsql = \"SELECT n FROM ours WHERE id = :id\"\nresult = \"value\"\ndepends = { ours = \"id = :id\" }\n";
    let config = shop.config_of(&postgres.url(), query);
    // Installs the triggers.
    drop(Child::seawall(&config).await);

    let mut rates = vec![vec![vec![]; WRITERS.len() + 1]; VARIANTS.len()];
    for _ in 0..ROUNDS {
        for (variant, rates) in VARIANTS.iter().zip(&mut rates) {
            let _pod = match variant.pod {
                Pod::Awake => Some(Child::seawall(&config).await),
                Pod::Absent | Pod::Asleep => None,
            };
            let sleeper = shop::connect(&postgres.url()).await;
            if variant.pod == Pod::Asleep {
                sleeper
                    .batch_execute("SELECT pg_advisory_lock_shared(seawall.doorbell_key()); LISTEN seawall")
                    .await
                    .expect("asleep");
            }
            if variant.table == "notified" {
                sleeper.batch_execute("LISTEN plain").await.expect("it listens");
            }
            for (clients, rates) in WRITERS.into_iter().zip(rates.iter_mut()) {
                rates.push(run(&postgres, &one_row(shop, variant.table), clients));
            }
            rates[WRITERS.len()].push(run(&postgres, &many_rows(shop, variant.table), 1));
        }
    }
    let rates: Vec<Vec<f64>> = rates.into_iter().map(|of| of.into_iter().map(median).collect()).collect();
    let rows = VARIANTS.iter().zip(&rates).map(|(variant, own)| {
        let shown =
            own.iter().zip(&rates[0]).map(|(tps, bare)| format!("{} ({:.0} %)", grouped(*tps), tps / bare * 100.0));
        std::iter::once(variant.name.to_owned()).chain(shown).collect()
    });
    format!(
        "Transactions/s of pgbench, prepared, fsync on, {ROUNDS} interleaved rounds of {SECONDS} s, medians; in parentheses the share of \
         what no trigger reaches.\n\n{}\nWithout a trigger there are {:.1} times as many commits as with plain NOTIFY at 32 writers; with \
         Seawall's and a pod awake {:.1} times.\n",
        table(&["", "1 writer", "16 writers", "32 writers", "1 writer of 1,000 rows"], rows),
        rates[0][2] / rates[1][2],
        rates[2][2] / rates[1][2],
    )
}

fn run(postgres: &Durable, script: &std::path::Path, clients: u32) -> f64 {
    // The connections of this process go on meanwhile: somebody listens.
    tokio::task::block_in_place(|| postgres.pgbench(script, clients, SECONDS))
}

fn one_row(shop: &Shop, table: &str) -> PathBuf {
    script(
        shop,
        &format!("one-{table}.sql"),
        &format!("\\set id random(1, {ROWS})\nUPDATE {table} SET n = n + 1 WHERE id = :id;\n"),
    )
}

fn many_rows(shop: &Shop, table: &str) -> PathBuf {
    let text = format!(
        "\\set id random(1, {})\nUPDATE {table} SET n = n + 1 WHERE id BETWEEN :id AND :id + {};\n",
        ROWS - MANY,
        MANY - 1
    );
    script(shop, &format!("many-{table}.sql"), &text)
}

fn script(shop: &Shop, name: &str, text: &str) -> PathBuf {
    let path = shop.file(name);
    fs::write(&path, text).expect("written");
    path
}

//! What do writers pay?
//!
//! The same update of one row at random, with real flushes: without a trigger; with a plain trigger that notifies, which takes a
//! cluster-wide lock across the flush; and with Seawall's, while a pod is awake, while one sleeps and never wakes (a session
//! that holds its lock and listens), and with none at all. Beside them the floor: a trigger that logs one constant row and looks
//! at nothing. In turns, so that a slow spell of the disk hits all alike.
//!
//! How much a lock across the flush costs depends on how long a flush takes, so all of it is asked twice: with this machine's
//! disk as it is, and with a millisecond more for each flush (`commit_delay`, which waits where the flush would, under the
//! same lock, and which commits that come meanwhile share).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::client;
use super::durable::Durable;
use super::process::Child;
use super::report::{Report, grouped, median, table};
use super::shop::{self, Shop};

const ROUNDS: usize = 3;
const SECONDS: u32 = 2;
const WRITERS: [u32; 3] = [1, 16, 32];
const ROWS: u32 = 10_000;
/// Of one statement, where it is many.
const MANY: u32 = 1_000;

const TABLES: &str = "CREATE TABLE bare (id int PRIMARY KEY, n int); CREATE TABLE notified (id int PRIMARY KEY, n int); \
    CREATE TABLE ours (id int PRIMARY KEY, n int); CREATE TABLE floor (id int PRIMARY KEY, n int); \
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN PERFORM pg_notify('plain', NEW.id::text); RETURN NULL; END $$; \
    CREATE TRIGGER tell AFTER UPDATE ON notified FOR EACH ROW EXECUTE FUNCTION tell();";

/// The least that any log costs. It has Seawall's table, and so comes after it.
const FLOOR: &str = "CREATE FUNCTION log_one() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN INSERT INTO seawall.event (tag) VALUES ('a constant') ON CONFLICT DO NOTHING; RETURN NULL; END $$; \
    CREATE TRIGGER log_one AFTER UPDATE ON floor FOR EACH STATEMENT EXECUTE FUNCTION log_one();";

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

const VARIANTS: [Variant; 6] = [
    Variant { name: "no trigger", table: "bare", pod: Pod::Absent },
    Variant { name: "plain trigger, NOTIFY", table: "notified", pod: Pod::Absent },
    Variant { name: "Seawall, pod awake", table: "ours", pod: Pod::Awake },
    Variant { name: "Seawall, pod that always sleeps", table: "ours", pod: Pod::Asleep },
    Variant { name: "Seawall, no pod", table: "ours", pod: Pod::Absent },
    Variant { name: "one constant row logged, nothing else", table: "floor", pod: Pod::Absent },
];

/// What is added to a flush, in microseconds, and how the report calls it.
const FLUSHES: [(u32, &str); 2] = [(0, "this disk"), (1_000, "1 ms slower")];

/// Of one variant, with one kind of flush.
struct Measured {
    /// Transactions a second by [`WRITERS`], then of statements of [`MANY`] rows.
    rates: Vec<f64>,
}

/// One bar.
pub struct Bar {
    pub flush: String,
    pub variant: String,
    pub writers: u32,
    pub per_second: f64,
}

/// The file of the raw figures.
pub const CSV: &str = "tax.csv";

impl Bar {
    /// What [`CSV`] holds.
    pub fn read_all(text: &str) -> Vec<Self> {
        let read = |line: &str| {
            let fields: Vec<&str> = line.split(';').collect();
            Self {
                flush: fields[0].into(),
                variant: fields[1].into(),
                writers: fields[2].parse().expect("a number"),
                per_second: fields[3].parse().expect("a number"),
            }
        };
        text.lines().skip(1).map(read).collect()
    }
}

pub async fn ask(shop: &Shop, report: &Report) -> String {
    let postgres = Durable::start();
    let client = shop::connect(&postgres.url()).await;
    client.batch_execute(TABLES).await.expect("the tables");
    for table in ["bare", "notified", "ours", "floor"] {
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
    client.batch_execute(FLOOR).await.expect("the floor");

    let mut text = format!(
        "Transactions/s of pgbench, prepared, fsync on, {ROUNDS} interleaved rounds of {SECONDS} s, medians; in parentheses the share of \
         what no trigger reaches.\n"
    );
    let mut csv = vec!["flush;variant;writers;per_second".to_owned()];
    for (delay, flush) in FLUSHES {
        for setting in ["commit_siblings = 0".to_owned(), format!("commit_delay = {delay}")] {
            client.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.expect("set");
        }
        client.batch_execute("SELECT pg_reload_conf()").await.expect("reloaded");
        let (measured, rang) = measure(shop, &postgres, &config).await;
        let bare = &measured[0].rates;
        let rows = VARIANTS.iter().zip(&measured).map(|(variant, own)| {
            let shown = own
                .rates
                .iter()
                .zip(bare)
                .map(|(tps, bare)| format!("{} ({:.0} %)", grouped(*tps), tps / bare * 100.0));
            std::iter::once(variant.name.to_owned()).chain(shown).collect()
        });
        let times = |variant: usize, writers: usize| measured[variant].rates[writers] / measured[1].rates[writers];
        let _ = write!(
            text,
            "\n**A flush takes what it takes on {flush}.**\n\n{}\nBeside plain NOTIFY there are {:.1} and {:.1} times as many commits \
             without a trigger at 16 and 32 writers, and {:.1} and {:.1} times as many with Seawall's and a pod awake; {:.2} % of \
             those commits rang.\n",
            table(&["", "1 writer", "16 writers", "32 writers", "1 writer of 1,000 rows"], rows),
            times(0, 1),
            times(0, 2),
            times(2, 1),
            times(2, 2),
            rang * 100.0,
        );
        for (variant, own) in VARIANTS.iter().zip(&measured) {
            let bars = WRITERS.iter().zip(&own.rates);
            csv.extend(bars.map(|(writers, tps)| format!("{flush};{};{writers};{tps:.1}", variant.name)));
        }
    }
    report.write(CSV, &(csv.join("\n") + "\n"));
    text
}

/// Every variant, and the share of commits that rang of those that were made while a pod was awake.
async fn measure(shop: &Shop, postgres: &Durable, config: &Path) -> (Vec<Measured>, f64) {
    let mut rates = vec![vec![vec![]; WRITERS.len() + 1]; VARIANTS.len()];
    let (mut rang, mut committed) = (0, 0.0);
    for _ in 0..ROUNDS {
        for (variant, rates) in VARIANTS.iter().zip(&mut rates) {
            let pod = match variant.pod {
                Pod::Awake => Some(Child::seawall(config).await),
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
                rates.push(run(postgres, &one_row(shop, variant.table), clients));
            }
            rates[WRITERS.len()].push(run(postgres, &many_rows(shop, variant.table), 1));
            if let Some(pod) = pod {
                let last: f64 = rates.iter().filter_map(|rates| rates.last()).sum();
                committed += last * f64::from(SECONDS);
                for needed in ["true", "false"] {
                    let series = format!("seawall_doorbells_total{{needed=\"{needed}\"}}");
                    rang += client::count(pod.admin_port(), &series).await;
                }
            }
        }
    }
    let measured = rates.into_iter().map(|of| Measured { rates: of.into_iter().map(median).collect() }).collect();
    (measured, rang as f64 / committed)
}

fn run(postgres: &Durable, script: &Path, clients: u32) -> f64 {
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

//! What everybody in a run shares: the database, the pods, who waits for whom, and what was found.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use seawall::postgres::embedded::{Embedded, EmbeddedOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_postgres::{Client, NoTls};

use super::pod::{self, Pod};
use super::run::BOUND;
use super::tally::{Found, Tally};

const DATABASE: &str = "model";

/// Pods fall asleep within a second of the last event; on a machine that does much else, within a few. One that met another's
/// lock tries again after five.
const PATIENCE: Duration = Duration::from_secs(30);

/// How finely waits are measured.
const SAMPLE: Duration = Duration::from_millis(1);

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// A pod had not applied a commit within the bound.
    Waits(String),
    /// A writer's session holds an advisory lock, and runs nothing.
    Leaks(String),
    /// Nobody writes, and pods don't fall asleep.
    Restless(String),
}

/// A transaction that announced something, and was told that it has committed.
#[derive(Clone, Debug)]
pub struct Commit {
    pub xid: u64,
    pub at: Instant,
    pub found: Found,
    pub what: String,
}

/// The world of a run.
pub struct World {
    cluster: Embedded,
    /// Looks at the server's views; nothing on it waits.
    observer: Client,
    /// Holds the doorbell's lock against pods, where somebody asks for it.
    pub gate: tokio::sync::Mutex<Client>,
    pods: Mutex<Vec<Arc<Pod>>>,
    names: AtomicUsize,
    watched: tokio::sync::Mutex<JoinSet<()>>,
    /// A listener was killed in this round.
    pub is_disturbed: AtomicBool,
    tally: Mutex<Tally>,
    complaints: Mutex<Vec<Complaint>>,
}

async fn connect(cluster: &Embedded) -> Client {
    let (client, connection) = tokio_postgres::connect(&cluster.url(DATABASE), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

fn ticks() -> Interval {
    let mut ticks = interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Asks until `is_so`, or until `within` is over: whether it was so in time.
async fn comes_true(within: Duration, mut is_so: impl AsyncFnMut() -> bool) -> bool {
    let began = Instant::now();
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let is_over = began.elapsed() >= within;
        if is_so().await {
            return true;
        }
        if is_over {
            return false;
        }
    }
}

impl World {
    /// A server of its own, with what is installed as `tables` and then `seawall migrate` do.
    pub async fn create(tables: &str) -> Arc<Self> {
        let options = EmbeddedOptions { preload_statements: false, ..EmbeddedOptions::default() };
        let cluster = Embedded::start(options).await.expect("tests need a PostgreSQL");
        cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.expect("a database");
        cluster.execute(DATABASE, tables).await.expect("tables");
        pod::install(&cluster.url(DATABASE)).await;
        let (observer, gate) = (connect(&cluster).await, connect(&cluster).await);
        Arc::new(Self {
            cluster,
            observer,
            gate: tokio::sync::Mutex::new(gate),
            pods: Mutex::default(),
            names: AtomicUsize::new(0),
            watched: tokio::sync::Mutex::default(),
            is_disturbed: AtomicBool::new(false),
            tally: Mutex::default(),
            complaints: Mutex::default(),
        })
    }

    /// A session of a superuser's.
    pub async fn session(&self) -> Client {
        connect(&self.cluster).await
    }

    /// What was counted.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("nobody panics with it")
    }

    /// Something is wrong.
    pub fn complain(&self, complaint: Complaint) {
        self.complaints.lock().expect("nobody panics with it").push(complaint);
    }

    /// What is wrong.
    pub fn complaints(&self) -> Vec<Complaint> {
        self.complaints.lock().expect("nobody panics with it").clone()
    }

    fn pods(&self) -> MutexGuard<'_, Vec<Arc<Pod>>> {
        self.pods.lock().expect("nobody panics with it")
    }

    /// Pods that are there.
    pub fn live(&self) -> Vec<Arc<Pod>> {
        self.pods().clone()
    }

    /// Another pod comes; commits are to reach it from when it follows.
    pub async fn join(&self) {
        let name = self.names.fetch_add(1, Ordering::Relaxed);
        let pod = Arc::new(Pod::start(&self.cluster.url(DATABASE), name).await);
        self.pods().push(pod);
    }

    /// One goes, the `place`th, and nobody waits for it any more.
    pub fn leave(&self, place: usize) {
        let pod = self.pods().remove(place);
        let (needed, all) = pod.rings();
        let mut tally = self.tally();
        tally.needed += needed;
        tally.rings += all;
        pod.leave();
    }

    async fn count(&self, sql: &str) -> i64 {
        self.observer.query_one(sql, &[]).await.expect("a count").get(0)
    }

    /// Who sleeps, or is about to: holders of the doorbell's lock.
    pub async fn sleepers(&self) -> i64 {
        self.count(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .await
    }

    /// Waits until a pod waits for the doorbell's lock; whether one does.
    pub async fn somebody_is_at_the_lock(&self) -> bool {
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND NOT granted";
        comes_true(PATIENCE, async || self.count(sql).await > 0).await
    }

    /// Waits until all pods sleep.
    pub async fn everybody_sleeps(&self) {
        let asleep = comes_true(PATIENCE, async || {
            let sleepers = self.sleepers().await;
            usize::try_from(sleepers) == Ok(self.pods().len()) || !self.complaints().is_empty()
        });
        if !asleep.await {
            let sleepers = self.sleepers().await;
            self.complain(Complaint::Restless(format!("{sleepers} of {} pods sleep", self.pods().len())));
        }
    }

    /// Waits until as many sessions listen as there are pods, and that of `gone` does not.
    pub async fn all_listen_but(&self, gone: i32) -> bool {
        let sql = format!(
            "SELECT count(*) FILTER (WHERE state = 'idle' AND query NOT LIKE 'LISTEN%') - 1000 * count(*) FILTER (WHERE pid = {gone}) \
             FROM pg_stat_activity WHERE application_name = 'seawall listener'"
        );
        comes_true(PATIENCE, async || usize::try_from(self.count(&sql).await) == Ok(self.pods().len())).await
    }

    /// The sessions on which pods listen.
    pub async fn listeners(&self) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'seawall listener' ORDER BY backend_start";
        self.observer.query(sql, &[]).await.expect("they are there").iter().map(|row| row.get(0)).collect()
    }

    /// A writer's session runs nothing: it holds no advisory lock.
    pub async fn holds_nothing(&self, pid: i32, after: &str) {
        let sql = format!("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = {pid}");
        let held = self.count(&sql).await;
        if held > 0 {
            self.complain(Complaint::Leaks(format!("{held} advisory locks are left by {after}")));
        }
    }

    /// Whether a transaction of which nobody was told what has become of it has committed.
    pub async fn has_committed(&self, xid: u64) -> bool {
        let sql = format!("SELECT pg_xact_status('{xid}')");
        let mut status = String::new();
        let ended = comes_true(PATIENCE, async || {
            status = self.observer.query_one(&sql, &[]).await.expect("a status").get(0);
            status != "in progress"
        });
        assert!(ended.await, "{xid} never ends");
        status == "committed"
    }

    /// From here on pods have as long as the bound to apply it.
    pub async fn watch(self: &Arc<Self>, commit: Commit) {
        self.tally().committed(commit.found);
        let world = Arc::clone(self);
        self.watched.lock().await.spawn(async move { world.reaches(commit).await });
    }

    /// Waits until every commit so far has reached every pod, or has waited for too long.
    pub async fn all_have_reached(&self) {
        let mut watched = self.watched.lock().await;
        while let Some(ended) = watched.join_next().await {
            ended.expect("watching goes on to the end");
        }
    }

    async fn reaches(&self, commit: Commit) {
        let mut waiting = self.live();
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            // Looked at before it is found too late: who was not running could not look.
            let is_over = commit.at.elapsed() >= BOUND;
            waiting.retain(|pod| !self.has_reached(&commit, pod) && !pod.has_left());
            if waiting.is_empty() {
                return;
            }
            if is_over {
                break;
            }
        }
        let sleepers = self.sleepers().await;
        for pod in waiting {
            self.complain(Complaint::Waits(format!(
                "{} waits for pod {} with its cursor {}, {sleepers} asleep: {:?}, {}",
                commit.xid,
                pod.name,
                pod.cursor(),
                commit.found,
                commit.what
            )));
        }
    }

    fn has_reached(&self, commit: &Commit, pod: &Pod) -> bool {
        let is_there = pod.sees(commit.xid);
        if is_there {
            let mut tally = self.tally();
            let is_disturbed = self.is_disturbed.load(Ordering::Relaxed);
            if is_disturbed { &mut tally.disturbed } else { &mut tally.calm }.add(commit.at.elapsed());
        }
        is_there
    }
}

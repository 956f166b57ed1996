//! Writers: transactions of every style, each of which knows its outcome before it gives its rows back.
//!
//! A COMMIT whose answer got lost has an outcome all the same. Once its backend is gone, the rows say which: nobody else
//! writes them, and each version is new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_util::SinkExt as _;
use tokio::time::Instant;
use tokio_postgres::{Client, Error};

use super::changes::Change;
use super::cluster::Prepares;
use super::draft::{Draft, Step};
use super::history::{Commit, Key, State};
use super::news::{Ended, Telling};
use super::schema::{self, WRITER};
use super::world::{Lease, World, retry};

/// Between two transactions of one writer, at most.
const PAUSE_MS: u64 = 20;

/// The same once in [`RESTS`] times: what takes long to answer is then fresh for a while.
const REST_MS: u64 = 500;

const RESTS: u32 = 15;

/// While it is quiet somebody writes once in so many milliseconds at most.
const QUIET_MS: u64 = 1_500;

/// Transactions of which one tells its id, or its token, before it ends.
const TELLS: u32 = 3;

/// A transaction that is held stays open for so long at most: three times the promised lag of most runs.
const HELD_MS: u64 = 1_500;

const WITHIN: Duration = Duration::from_secs(60);

/// How a transaction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// One statement, which commits by itself.
    Auto,
    /// All statements without a pause.
    Short,
    /// Pauses before its end, with everything done.
    Held,
    /// Is rolled back, or fails.
    Aborted,
    /// Is prepared, and committed or rolled back later.
    Prepared,
}

/// What a writer is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// One transaction after the other.
    Brisk,
    /// It keeps what it has done to itself for long.
    Slow,
}

impl Style {
    fn draw(manner: Manner, prepares: Prepares, rng: &mut Rng) -> Self {
        match (manner, rng.u32(0..10)) {
            (Manner::Brisk, 0..4) => Self::Auto,
            (Manner::Brisk, 4..8) => Self::Short,
            (Manner::Slow, 0..5) => Self::Held,
            (Manner::Slow, 5..9) if prepares == Prepares::Never => Self::Held,
            (Manner::Slow, 5..9) => Self::Prepared,
            _ => Self::Aborted,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Short => "short",
            Self::Held => "held",
            Self::Aborted => "aborted",
            Self::Prepared => "prepared",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed(Commit),
    RolledBack,
    /// The connection was lost; the rows told that it was committed.
    FoundCommitted(Commit),
    /// The same, and it was not.
    FoundRolledBack,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Committed(_) => "committed",
            Self::RolledBack => "rolled back",
            Self::FoundCommitted(_) => "lost, and was committed",
            Self::FoundRolledBack => "lost, and was rolled back",
        }
    }

    const fn end(self) -> Ended {
        match self {
            Self::Committed(commit) | Self::FoundCommitted(commit) => Ended::Committed(commit),
            Self::RolledBack | Self::FoundRolledBack => Ended::RolledBack,
        }
    }
}

/// Writes until the run ends.
pub async fn write(world: Arc<World>, manner: Manner, mut rng: Rng, number: usize) {
    let mut session = Session::open(&world).await;
    let mut count = 0_u64;
    while !world.is_over() {
        let pause = if rng.u32(0..RESTS) == 0 { REST_MS } else { PAUSE_MS };
        world.idle(Duration::from_millis(rng.u64(0..pause))).await;
        world.keep_quiet(Duration::from_millis(rng.u64(0..QUIET_MS))).await;
        let _gate = world.gate.read().await;
        let changes: Vec<Change> =
            (0..rng.usize(1..4)).map(|_| Change::draw(world.rules.truncates, &mut rng)).collect();
        let rows = changes.iter().flat_map(|change| change.rows()).collect();
        let Some(lease) = world.lease(rows) else { continue };
        let mut style = Style::draw(manner, world.rules.prepares, &mut rng);
        if changes.contains(&Change::Truncate) && matches!(style, Style::Held | Style::Prepared) {
            // It keeps every reader of the table out.
            style = Style::Short;
        }
        let (steps, writes) = {
            let mut draft = Draft::new(world.states(&lease), &world.versions, &mut rng);
            for (n, change) in changes.iter().enumerate() {
                if style == Style::Auto && n > 0 {
                    break;
                }
                if style != Style::Auto && draft.once_in(3) {
                    draft.within_savepoint(|draft| change.write(draft));
                } else {
                    change.write(&mut draft);
                }
            }
            draft.finish()
        };
        if style == Style::Auto && steps.len() > 1 {
            style = Style::Short;
        }
        count += 1;
        let gid = format!("oracle {number} {count}");
        let outcome = session.transact(&world, style, &steps, &writes, &gid, &mut rng).await;
        drop(lease);
        world.tally().wrote(style.name(), outcome.name());
        if session.client.is_closed() {
            session = Session::open(&world).await;
        }
    }
}

/// A prepared transaction that somebody will commit.
pub struct Prepared {
    session: Session,
    writes: BTreeMap<Key, State>,
    gid: String,
    _lease: Lease,
}

impl Prepared {
    /// Of one item's row, any that is free.
    pub async fn new(world: &Arc<World>, gid: String, rng: &mut Rng) -> Self {
        loop {
            let change = Change::Item(rng.i64(0..schema::ITEMS));
            let Some(lease) = world.lease(change.rows()) else {
                retry().await;
                continue;
            };
            let (steps, writes) = {
                let mut draft = Draft::new(world.states(&lease), &world.versions, rng);
                change.write(&mut draft);
                draft.finish()
            };
            let mut session = Session::open(world).await;
            let mut done = session.client.batch_execute("BEGIN").await;
            for step in &steps {
                if done.is_ok() {
                    done = session.run(step).await;
                }
            }
            if done.is_ok() && session.prepare(world, &gid).await {
                return Self { session, writes, gid, _lease: lease };
            }
        }
    }

    /// Commits it, on whatever server has it now.
    pub async fn commit(mut self, world: &World) {
        self.session.end_prepared(world, Some(&self.writes), &self.gid).await;
        world.tally().fault("prepared transactions across it");
    }
}

/// A connection, and the backend behind it.
struct Session {
    client: Client,
    backend: i32,
}

impl Session {
    async fn open(world: &World) -> Self {
        loop {
            let client = world.session(WRITER).await;
            // It may go again at once.
            if let Ok(row) = client.query_one("SELECT pg_backend_pid()", &[]).await {
                return Self { client, backend: row.get(0) };
            }
        }
    }

    async fn transact(
        &mut self,
        world: &World,
        style: Style,
        steps: &[Step],
        writes: &BTreeMap<Key, State>,
        gid: &str,
        rng: &mut Rng,
    ) -> Outcome {
        if style == Style::Auto {
            let commit = world.send(writes);
            return match self.run(&steps[0]).await {
                Ok(()) => {
                    world.committed(commit);
                    Outcome::Committed(commit)
                }
                Err(error) => self.conclude(world, commit, writes, &error).await,
            };
        }
        let mut done = self.client.batch_execute("BEGIN").await;
        for step in steps {
            if done.is_ok() {
                done = self.run(step).await;
            }
        }
        let mut telling = None;
        if done.is_ok() && rng.u32(0..TELLS) == 0 {
            done = self.tell(world, writes, rng).await.map(|told| telling = Some(told));
        }
        if style == Style::Held {
            world.idle(Duration::from_millis(rng.u64(0..HELD_MS))).await;
        }
        let outcome = match done {
            Ok(()) => self.end(world, style, writes, gid, rng).await,
            Err(error) => self.roll_back(world, Some(&error)).await,
        };
        if let Some(telling) = telling {
            telling.ended(outcome.end());
        }
        outcome
    }

    /// Tells strict readers what to ask for its writes by.
    async fn tell(&self, world: &World, writes: &BTreeMap<Key, State>, rng: &mut Rng) -> Result<Telling, Error> {
        let sql = if rng.bool() { "SELECT shop.token()" } else { "SELECT pg_current_xact_id()::text" };
        let row = self.client.query_one(sql, &[]).await?;
        Ok(world.news.writing(row.get(0), writes))
    }

    async fn end(
        &mut self,
        world: &World,
        style: Style,
        writes: &BTreeMap<Key, State>,
        gid: &str,
        rng: &mut Rng,
    ) -> Outcome {
        match style {
            Style::Aborted if rng.bool() => {
                let _ = self.client.batch_execute("SELECT 1 / 0").await;
                self.roll_back(world, None).await
            }
            Style::Aborted => self.roll_back(world, None).await,
            Style::Prepared => self.prepared(world, writes, gid, rng).await,
            Style::Auto | Style::Short | Style::Held => {
                let commit = world.send(writes);
                match self.client.batch_execute("COMMIT").await {
                    Ok(()) => {
                        world.committed(commit);
                        Outcome::Committed(commit)
                    }
                    Err(error) => self.conclude(world, commit, writes, &error).await,
                }
            }
        }
    }

    async fn run(&self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Run(sql) => self.client.batch_execute(sql).await,
            Step::Copy { sql, lines } => {
                let sink = self.client.copy_in(*sql).await?;
                let mut sink = std::pin::pin!(sink);
                sink.send(std::io::Cursor::new(lines.clone())).await?;
                sink.finish().await.map(|_| ())
            }
        }
    }

    /// Nothing of it will be seen, also where the connection is lost.
    async fn roll_back(&mut self, world: &World, cause: Option<&Error>) -> Outcome {
        if let Some(error) = cause {
            note(world, error);
        }
        if self.client.batch_execute("ROLLBACK").await.is_ok() {
            return Outcome::RolledBack;
        }
        self.replace(world).await;
        Outcome::FoundRolledBack
    }

    /// Waits until the backend has gone, whatever it was doing.
    async fn replace(&mut self, world: &World) {
        let old = self.backend;
        *self = Self::open(world).await;
        let deadline = Instant::now() + WITHIN;
        // Pids may be given again: to us, which is after its end.
        while self.backend != old {
            match self.client.query_one("SELECT count(*) FROM pg_stat_get_activity($1)", &[&old]).await {
                Ok(row) if row.get::<_, i64>(0) == 0 => return,
                Ok(_) => assert!(Instant::now() < deadline, "backend {old} outlives its connection"),
                Err(_) => *self = Self::open(world).await,
            }
            retry().await;
        }
    }

    /// What has become of a commit that failed, or whose answer is lost.
    async fn conclude(
        &mut self,
        world: &World,
        commit: Commit,
        writes: &BTreeMap<Key, State>,
        error: &Error,
    ) -> Outcome {
        note(world, error);
        self.replace(world).await;
        if writes.is_empty() || self.shows(world, writes).await {
            world.committed(commit);
            Outcome::FoundCommitted(commit)
        } else {
            world.rolled_back(commit);
            Outcome::FoundRolledBack
        }
    }

    /// Whether Postgres has these states: all of them or none.
    async fn shows(&mut self, world: &World, writes: &BTreeMap<Key, State>) -> bool {
        loop {
            match self.compare(writes).await {
                Ok((same, others)) if same == 0 || others == 0 => return others == 0,
                Ok((same, others)) => panic!("half a transaction: {same} rows of {writes:?} and not {others}"),
                Err(_) => *self = Self::open(world).await,
            }
        }
    }

    async fn compare(&self, writes: &BTreeMap<Key, State>) -> Result<(usize, usize), Error> {
        self.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let mut found = BTreeMap::new();
        let mut relations: Vec<_> = writes.keys().map(|key| key.0).collect();
        relations.dedup();
        for relation in relations {
            found.append(&mut schema::read(&self.client, relation).await?);
        }
        self.client.batch_execute("COMMIT").await?;
        let same = writes.iter().filter(|(key, state)| found.get(key).unwrap_or(&State::Absent) == *state).count();
        Ok((same, writes.len() - same))
    }

    async fn prepared(&mut self, world: &World, writes: &BTreeMap<Key, State>, gid: &str, rng: &mut Rng) -> Outcome {
        if !self.prepare(world, gid).await {
            return Outcome::FoundRolledBack;
        }
        world.idle(Duration::from_millis(rng.u64(0..HELD_MS))).await;
        match rng.u32(0..10) {
            0 => self.end_prepared(world, None, gid).await,
            _ => self.end_prepared(world, Some(writes), gid).await,
        }
    }

    /// Prepares the transaction that is open. False where it was rolled back.
    async fn prepare(&mut self, world: &World, gid: &str) -> bool {
        let Err(error) = self.client.batch_execute(&format!("PREPARE TRANSACTION '{gid}'")).await else { return true };
        note(world, &error);
        self.replace(world).await;
        self.is_prepared(world, gid).await
    }

    /// Commits the transaction that is prepared, if it says what it writes, or rolls it back; sooner or later.
    async fn end_prepared(&mut self, world: &World, writes: Option<&BTreeMap<Key, State>>, gid: &str) -> Outcome {
        let commit = writes.map(|writes| world.send(writes));
        let sql = format!("{} PREPARED '{gid}'", if commit.is_some() { "COMMIT" } else { "ROLLBACK" });
        let mut lost = false;
        while let Err(error) = self.client.batch_execute(&sql).await {
            note(world, &error);
            lost = true;
            self.replace(world).await;
            if !self.is_prepared(world, gid).await {
                break;
            }
        }
        let outcome = match (commit, lost) {
            (Some(commit), false) => Outcome::Committed(commit),
            (Some(commit), true) => Outcome::FoundCommitted(commit),
            (None, false) => Outcome::RolledBack,
            (None, true) => Outcome::FoundRolledBack,
        };
        if let Some(commit) = commit {
            world.committed(commit);
        }
        outcome
    }

    async fn is_prepared(&mut self, world: &World, gid: &str) -> bool {
        loop {
            let sql = "SELECT count(*) FROM pg_prepared_xacts WHERE gid = $1";
            match self.client.query_one(sql, &[&gid]).await {
                Ok(row) => return row.get::<_, i64>(0) > 0,
                Err(_) => *self = Self::open(world).await,
            }
        }
    }
}

fn note(world: &World, error: &Error) {
    let what =
        error.as_db_error().map_or_else(|| error.to_string(), |e| format!("{}: {}", e.code().code(), e.message()));
    *world.tally().problems.entry(format!("a write: {what}")).or_default() += 1;
}

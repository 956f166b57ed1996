//! A writer: a session that plays scripts, and tells of its commits.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls};

use super::script::{Blow, End, ROWS, Script, Step, Undo};
use super::tally::Found;
use super::world::{Commit, World};

/// What writers write.
pub const TABLES: &str = "CREATE TABLE stock (id int PRIMARY KEY, n int NOT NULL); \
    INSERT INTO stock SELECT id, 0 FROM generate_series(0, 999) AS id; \
    CREATE FUNCTION grind(own int, statements int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
        FOR i IN 1..statements LOOP UPDATE stock SET n = n + 1 WHERE id = own; END LOOP; \
        RETURN pg_current_xact_id()::text; \
    END $$";

/// Why a transaction didn't come to its end.
enum Stopped {
    Cancelled,
    /// The session is gone.
    Killed,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        match error.code() {
            Some(&SqlState::QUERY_CANCELED) => Self::Cancelled,
            Some(&SqlState::ADMIN_SHUTDOWN) | None => Self::Killed,
            Some(_) => panic!("a writer's statement fails: {error:?}"),
        }
    }
}

struct Session {
    client: Client,
    pid: i32,
}

impl Session {
    async fn open(world: &World) -> Self {
        let client = world.session().await;
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a number").get(0);
        Self { client, pid }
    }
}

/// A writer.
pub struct Writer {
    world: Arc<World>,
    session: Option<Session>,
    /// On which blows are timed: the server's clock.
    hand: Client,
    first_row: u32,
}

/// A transaction that runs.
struct Transaction<'a> {
    world: &'a Arc<World>,
    client: &'a Client,
    first_row: u32,
    /// Whom it found when it first announced something; until then, nobody has been looked for.
    found: Option<Found>,
    /// Known once it may commit.
    xid: Option<u64>,
}

impl Writer {
    pub async fn new(world: &Arc<World>, number: u32) -> Self {
        let hand = world.session().await;
        Self { world: Arc::clone(world), session: None, hand, first_row: number * ROWS }
    }

    /// Plays `script`, whatever is done to it meanwhile.
    pub async fn play(&mut self, script: &Script) {
        let present = self.session.take().filter(|session| !session.client.is_closed());
        let session = if let Some(session) = present { session } else { Session::open(&self.world).await };
        let mut transaction = Transaction {
            world: &self.world,
            client: &session.client,
            first_row: self.first_row,
            found: None,
            xid: None,
        };
        let (Script::Single { blow, .. } | Script::Block { blow, .. }) = script;
        let played = async {
            match script {
                Script::Single { step, .. } => transaction.single(step).await,
                Script::Block { steps, end, .. } => transaction.block(steps, *end).await,
            }
        };
        let (played, ()) = tokio::join!(played, self.strike(&session, *blow));
        let (found, xid) = (transaction.found, transaction.xid);
        match played {
            Ok(Some(at)) => self.committed(script, found, xid, at).await,
            Ok(None) => {}
            Err(Stopped::Cancelled) => {
                self.world.tally().cancelled += 1;
                // A blow that came late hits this one.
                while session.client.batch_execute("ROLLBACK").await.is_err() && !session.client.is_closed() {}
            }
            Err(Stopped::Killed) => {
                self.world.tally().killed += 1;
                if let Some(xid) = xid
                    && self.world.has_committed(xid).await
                {
                    self.committed(script, found, Some(xid), Instant::now()).await;
                }
                return;
            }
        }
        self.world.holds_nothing(session.pid, &format!("{script:?}")).await;
        self.session = Some(session);
    }

    /// Between transactions: the session holds no lock.
    pub async fn is_clean(&self) {
        if let Some(session) = &self.session {
            self.world.holds_nothing(session.pid, "the whole run").await;
        }
    }

    async fn committed(&self, script: &Script, found: Option<Found>, xid: Option<u64>, at: Instant) {
        let Some((xid, found)) = xid.zip(found) else { return };
        self.world.watch(Commit { xid, at, found, what: format!("{script:?}") }).await;
    }

    async fn strike(&self, session: &Session, blow: Option<Blow>) {
        match blow {
            None => {}
            Some(Blow::Cancel(after)) => {
                self.hand.batch_execute(&format!("SELECT pg_sleep({after})")).await.expect("a pause");
                let _ = session.client.cancel_token().cancel_query(NoTls).await;
            }
            Some(Blow::Kill(after)) => {
                let sql = format!("SELECT pg_terminate_backend({}) FROM pg_sleep({after})", session.pid);
                self.hand.batch_execute(&sql).await.expect("a superuser may");
            }
        }
    }
}

impl Transaction<'_> {
    /// When it had committed, by what it was told; `None`, where there is nothing that anybody is to know of.
    async fn single(&mut self, step: &Step) -> Result<Option<Instant>, Stopped> {
        self.look().await;
        let (first, id) = (self.first_row, "pg_current_xact_id()::text");
        let sql = match step {
            Step::Update { rows } => format!(
                "WITH written AS (UPDATE stock SET n = n + 1 WHERE id BETWEEN {first} AND {first} + {rows} - 1) SELECT {id}"
            ),
            Step::Grind { statements } => format!("SELECT grind({first}, {statements})"),
            _ => format!("SELECT {id} FROM (SELECT seawall.invalidate('public.stock') OFFSET 0) AS announced"),
        };
        let row = self.client.query_one(&sql, &[]).await?;
        let at = Instant::now();
        self.xid = Some(row.get::<_, &str>(0).parse().expect("a number"));
        Ok(Some(at))
    }

    /// Whom what it is about to announce finds.
    async fn look(&mut self) {
        if self.found.is_none() {
            self.found = Some(if self.world.sleepers().await == 0 { Found::Awake } else { Found::Asleep });
        }
    }

    async fn block(&mut self, steps: &[Step], end: End) -> Result<Option<Instant>, Stopped> {
        self.client.batch_execute("BEGIN").await?;
        self.steps(steps).await?;
        // What was rolled back to a savepoint is announced to nobody, and neither is its ring.
        let announced = "SELECT xid::text FROM seawall.event WHERE xid = pg_current_xact_id_if_assigned() LIMIT 1";
        let row = self.client.query_opt(announced, &[]).await?;
        let xid = row.map(|row| row.get::<_, &str>(0).parse().expect("a number"));
        match end {
            End::RollBack => {
                self.client.batch_execute("ROLLBACK").await?;
                self.world.tally().rolled_back += 1;
                Ok(None)
            }
            End::Commit => self.commit(xid).await,
            End::CommitBeforeLock => self.commit_before_lock(xid).await,
        }
    }

    async fn commit(&mut self, xid: Option<u64>) -> Result<Option<Instant>, Stopped> {
        self.xid = xid;
        if self.found == Some(Found::Awake) && self.world.sleepers().await > 0 {
            self.found = Some(Found::FellAsleep);
        }
        self.client.batch_execute("COMMIT").await?;
        Ok(xid.map(|_| Instant::now()))
    }

    /// 1. It has looked, and found nobody.
    /// 2. A pod polls for the last time before it falls asleep, and wants the lock, which somebody has.
    /// 3. It commits.
    /// 4. The pod gets the lock: nobody runs any more, and nobody has rung.
    async fn commit_before_lock(&mut self, xid: Option<u64>) -> Result<Option<Instant>, Stopped> {
        let world = self.world;
        let gate = world.gate.lock().await;
        let sql = "SELECT pg_try_advisory_lock(seawall.doorbell_key())";
        if !gate.query_one(sql, &[]).await.expect("asked").get::<_, bool>(0) {
            return self.commit(xid).await;
        }
        let is_there = world.somebody_is_at_the_lock().await;
        let committed = self.commit(xid).await;
        gate.batch_execute("SELECT pg_advisory_unlock(seawall.doorbell_key())").await.expect("unlocked");
        world.tally().before_lock +=
            u64::from(is_there && self.found != Some(Found::Asleep) && matches!(committed, Ok(Some(_))));
        committed
    }

    async fn steps(&mut self, steps: &[Step]) -> Result<(), Stopped> {
        for step in steps {
            self.step(step).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), Stopped> {
        let first = self.first_row;
        let sql = match step {
            Step::Update { rows } => {
                format!("UPDATE stock SET n = n + 1 WHERE id BETWEEN {first} AND {first} + {rows} - 1")
            }
            Step::Grind { statements } => format!("SELECT grind({first}, {statements})"),
            Step::Announce => "SELECT seawall.invalidate('public.stock')".to_owned(),
            Step::Pause(seconds) => {
                return Ok(self.client.batch_execute(&format!("SELECT pg_sleep({seconds})")).await?);
            }
            Step::UntilAsleep => {
                self.world.everybody_sleeps().await;
                return Ok(());
            }
            Step::Savepoint { steps, undo } => {
                self.client.batch_execute("SAVEPOINT a").await?;
                Box::pin(self.steps(steps)).await?;
                let end = match undo {
                    Undo::RollBack => "ROLLBACK TO a",
                    Undo::Release => "RELEASE a",
                };
                return Ok(self.client.batch_execute(end).await?);
            }
        };
        self.look().await;
        Ok(self.client.batch_execute(&sql).await?)
    }
}

//! A cluster: each command goes to the master that has its slot, and follows slots that move.
//!
//! A link has a connection to each master that it has needed; the map of slots is shared by all links. `MOVED` corrects the map at
//! once, and has it read anew behind the caller's back; `ASK` is followed for the one command. Commands that are sent again have
//! been refused before, not carried out.
//!
//! Not `redis`'s own client for clusters, for three reasons (decision 17): it sends `ASKING` and the command that needs it one
//! after the other, between which another call's command may take the permission on a shared connection; it follows no
//! redirection out of a transaction; and it holds everybody up while it reads the map and greets all servers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bb8_redis::redis::aio::{ConnectionLike, PubSub};
use bb8_redis::redis::{
    self, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, ServerError, ServerErrorKind, Value, pipe,
};
use tokio::sync::OnceCell;

use super::slots::{Map, redirection, slot_of_command, tag_in};
use super::wire::{Door, Wire, first_of};
use crate::redis::url::Address;

/// Redirections that one command follows: two while a slot moves, twice that for a move that ends in between, and one more.
const REDIRECTIONS: usize = 5;

/// Before a command is sent again whose keys are half here and half there: the time of a key's way.
const HALFWAY: Duration = Duration::from_millis(2);

/// From one reading of the map behind callers' backs to the next: while slots move, each redirection asks for one.
const PAUSE: Duration = Duration::from_millis(100);

/// What all links to a cluster know.
#[derive(Clone)]
pub(super) struct Cluster(Arc<Known>);

struct Known {
    seeds: Vec<Address>,
    door: Door,
    timeout: Duration,
    map: Mutex<Option<Map>>,
    /// The map may be wrong: a server that it names could not be reached.
    doubted: AtomicBool,
    /// Held while it is read.
    reading: tokio::sync::Mutex<()>,
    /// Held while it is read behind callers' backs, and for the pause that follows.
    behind: tokio::sync::Mutex<()>,
}

type Wires = HashMap<Address, Arc<OnceCell<Wire>>>;

/// One connection to each master.
#[derive(Clone)]
pub(in crate::redis) struct Link {
    cluster: Cluster,
    wires: Arc<Mutex<Wires>>,
    /// Who answered last: a script that it does not know is loaded there.
    last: Option<Address>,
}

/// Who gets a command next.
enum To {
    /// Whoever has the slot.
    Owner,
    /// This one, which has the slot.
    Moved(Address),
    /// This one, for once.
    Asked(Address),
}

/// What a server says instead of an answer.
enum Elsewhere {
    Moved(u16, Address),
    Ask(Address),
    /// Of several keys one is here and another there.
    Halfway,
    /// Refused where `ASK` had led.
    Back,
}

/// What is sent.
#[derive(Clone, Copy)]
enum Asked<'a> {
    Command(&'a Cmd),
    /// And which of its answers count: those behind the first so many, so many.
    Pipeline(&'a Pipeline, usize, usize),
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Address>, door: Door, timeout: Duration) -> Self {
        let (map, doubted) = (Mutex::default(), AtomicBool::default());
        let (reading, behind) = (tokio::sync::Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Known { seeds, door, timeout, map, doubted, reading, behind }))
    }

    /// A link to a cluster that is there.
    pub(super) async fn link(&self) -> Result<Link, RedisError> {
        let reading = self.0.reading.lock().await;
        if self.0.doubted.load(Ordering::Relaxed) || self.map(|map| map.is_none()) {
            self.read().await?;
        }
        drop(reading);
        Ok(Link { cluster: self.clone(), wires: Arc::default(), last: None })
    }

    /// Any server: what is published at one is heard at all of them.
    pub(super) async fn listen(&self) -> Result<PubSub, RedisError> {
        let door = &self.0.door;
        first_of(self.servers(), |address| async move { door.listen(&address).await }).await
    }

    fn map<T>(&self, look: impl FnOnce(&mut Option<Map>) -> T) -> T {
        look(&mut self.0.map.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that are known, in no order.
    fn servers(&self) -> Vec<Address> {
        let mut all = self.map(|map| map.as_ref().map_or(vec![], |map| map.masters().to_vec()));
        all.extend(self.0.seeds.iter().filter(|seed| !all.contains(seed)).cloned().collect::<Vec<_>>());
        fastrand::shuffle(&mut all);
        all
    }

    /// Reads the map from the first server that has one.
    async fn read(&self) -> Result<(), RedisError> {
        let door = &self.0.door;
        let map = first_of(self.servers(), |address| async move {
            let mut wire = door.open(&address).await?;
            let answer = redis::cmd("CLUSTER").arg("SLOTS").query_async::<Value>(&mut wire.connection).await?;
            Map::read(&answer, &address)
        });
        let map = map.await.map_err(|error| {
            let why = error.to_string();
            RedisError::from((ErrorKind::Io, "no server says who has the cluster's slots", why))
        })?;
        self.map(|known| *known = Some(map));
        self.0.doubted.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Has the map read anew, by nobody who waits for it. Where that is under way, it is enough.
    fn read_behind(&self) {
        let cluster = self.clone();
        tokio::spawn(async move {
            let Ok(_behind) = cluster.0.behind.try_lock() else { return };
            let read = async {
                let _reading = cluster.0.reading.lock().await;
                cluster.read().await
            };
            // What could not be read is corrected by further redirections.
            let _ = tokio::time::timeout(cluster.0.timeout, read).await;
            tokio::time::sleep(PAUSE).await;
        });
    }

    fn moved(&self, slot: u16, to: &Address) {
        self.map(|map| map.iter_mut().for_each(|map| map.moved(slot, to.clone())));
        self.read_behind();
    }

    fn owner(&self, slot: Option<u16>) -> Option<Address> {
        let slot = slot.unwrap_or_else(|| fastrand::u16(..));
        self.map(|map| map.as_ref().map(|map| map.owner(slot).clone()))
    }
}

impl Link {
    /// Writes a key that lives for `lives_ms` to each master: the cluster works if all of them take it.
    pub(super) async fn probe(&self, key: &str, lives_ms: u64) -> Result<(), RedisError> {
        let slots = self.cluster.map(|map| map.as_ref().map_or(vec![], Map::one_of_each));
        let writes = slots.into_iter().map(|slot| {
            let mut link = self.clone();
            let mut write = redis::cmd("SET");
            write.arg(format!("{key}:{{{}}}", tag_in(slot))).arg(1).arg("PX").arg(lives_ms);
            async move { write.query_async::<()>(&mut link).await }
        });
        futures_util::future::try_join_all(writes).await.map(drop)
    }

    /// The connection to `address`, which is made where there is none; by one caller, however many need it.
    async fn wire(&self, address: &Address) -> Result<Wire, RedisError> {
        let cell = {
            let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
            if !wires.contains_key(address) {
                let masters = self.cluster.servers();
                wires.retain(|address, _| masters.contains(address));
            }
            Arc::clone(wires.entry(address.clone()).or_default())
        };
        cell.get_or_try_init(|| self.cluster.0.door.open(address)).await.cloned()
    }

    async fn ask(&mut self, slot: Option<u16>, asked: Asked<'_>) -> Result<Vec<Value>, RedisError> {
        let mut to = To::Owner;
        let mut redirections = 0;
        loop {
            let (address, asking) = match to {
                // Without a key: where the last answer came from, which may have been that a script is not there.
                To::Owner if slot.is_none() && self.last.is_some() => (self.last.clone(), false),
                To::Owner => (self.cluster.owner(slot), false),
                To::Moved(address) => (Some(address), false),
                To::Asked(address) => (Some(address), true),
            };
            let address =
                address.ok_or_else(|| RedisError::from((ErrorKind::Io, "nobody has said who has its slots")))?;
            let answered = match self.wire(&address).await {
                Ok(wire) => asked.send(wire, asking).await,
                Err(error) => Err(error),
            };
            if answered.as_ref().is_err_and(super::is_about_the_connection) {
                self.cluster.0.doubted.store(true, Ordering::Relaxed);
            }
            let elsewhere = elsewhere(&answered, &address, asking).filter(|_| redirections < REDIRECTIONS);
            self.last = Some(address);
            redirections += 1;
            to = match elsewhere {
                None => return answered,
                Some(Elsewhere::Moved(slot, address)) => {
                    self.cluster.moved(slot, &address);
                    To::Moved(address)
                }
                Some(Elsewhere::Ask(address)) => To::Asked(address),
                Some(Elsewhere::Halfway) => {
                    tokio::time::sleep(HALFWAY).await;
                    To::Owner
                }
                Some(Elsewhere::Back) => To::Owner,
            };
        }
    }
}

impl Asked<'_> {
    /// With `asking`, the permission and what needs it are written as one, so that no other call's command comes between.
    async fn send(self, mut wire: Wire, asking: bool) -> Result<Vec<Value>, RedisError> {
        let connection = &mut wire.connection;
        if !asking {
            return match self {
                Self::Command(command) => Ok(vec![connection.req_packed_command(command).await?]),
                Self::Pipeline(pipeline, offset, count) => {
                    connection.req_packed_commands(pipeline, offset, count).await
                }
            };
        }
        let mut allowed = pipe();
        allowed.cmd("ASKING");
        let (offset, count) = match self {
            Self::Command(command) => {
                allowed.add_command(command.clone());
                (1, 1)
            }
            Self::Pipeline(pipeline, offset, count) => {
                // The permission holds for a transaction as a whole, if it comes before it.
                let transaction = pipeline.is_transaction();
                if transaction {
                    allowed.cmd("MULTI");
                }
                pipeline.cmd_iter().for_each(|command| {
                    allowed.add_command(command.clone());
                });
                if transaction {
                    allowed.cmd("EXEC");
                }
                (offset + 1, count)
            }
        };
        connection.req_packed_commands(&allowed, offset, count).await
    }
}

/// Whether `by` sends the caller on.
fn elsewhere(answered: &Result<Vec<Value>, RedisError>, by: &Address, asking: bool) -> Option<Elsewhere> {
    let says = |error: &ServerError| match error.kind()? {
        ServerErrorKind::Moved => {
            redirection(error.details()?, by).map(|(slot, address)| Elsewhere::Moved(slot, address))
        }
        ServerErrorKind::Ask => redirection(error.details()?, by).map(|(_, address)| Elsewhere::Ask(address)),
        ServerErrorKind::TryAgain => Some(Elsewhere::Halfway),
        // The slot has moved on, or back, while this was on its way; why, the commands in it were told.
        ServerErrorKind::ExecAbort if asking => Some(Elsewhere::Back),
        _ => None,
    };
    match answered {
        Ok(values) => {
            values.iter().find_map(|value| if let Value::ServerError(error) = value { says(error) } else { None })
        }
        // A transaction is given up for what its commands were told.
        Err(error) => error.clone().into_server_errors()?.iter().find_map(|(_, error)| says(error)),
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let answers = self.ask(slot_of_command(command), Asked::Command(command)).await?;
            Ok(answers.into_iter().next().unwrap_or(Value::Nil))
        })
    }

    /// All of its commands are about one slot.
    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let slot = pipeline.cmd_iter().find_map(slot_of_command);
        Box::pin(self.ask(slot, Asked::Pipeline(pipeline, offset, count)))
    }

    fn get_db(&self) -> i64 {
        0
    }
}

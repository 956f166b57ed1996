//! What writers tell strict readers, so that these can ask when it matters: at the moment that a write is acknowledged, and
//! with what its writer got inside its transaction.
//!
//! News is told and not kept: who isn't listening has missed it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};

use super::history::{Commit, Key, State};

/// More than are told while a reader looks away.
const KEPT: usize = 64;

/// Something to ask about.
#[derive(Clone)]
pub enum News {
    /// These rows were written, and the COMMIT was acknowledged just now.
    Committed(Arc<[Key]>),
    /// A transaction has written, and is about to end.
    Writing(Own),
}

/// How a transaction ended, once it has.
type End = Option<Ended>;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Committed(Commit),
    /// Nothing of it can be asked for.
    RolledBack,
}

/// What a client knows of a transaction of its own.
#[derive(Clone)]
pub struct Own {
    /// For `Seawall-After`.
    pub token: Arc<str>,
    /// What it makes of its rows.
    pub writes: Arc<BTreeMap<Key, State>>,
    end: watch::Receiver<End>,
}

impl Own {
    /// Whether it names the history that it was written in.
    pub fn names_its_history(&self) -> bool {
        self.token.contains(':')
    }

    /// Waits until its writer knows.
    pub async fn ended(&mut self) -> Ended {
        match self.end.wait_for(Option::is_some).await {
            Ok(end) => end.expect("waited for"),
            // Its writer has given up, so nothing was committed that it knows of.
            Err(_) => Ended::RolledBack,
        }
    }
}

/// Held by the writer of a transaction that was told of.
pub struct Telling(watch::Sender<End>);

impl Telling {
    /// It has ended.
    pub fn ended(self, end: Ended) {
        self.0.send_replace(Some(end));
    }
}

/// Where news is told.
pub struct Newsroom(broadcast::Sender<News>);

impl Default for Newsroom {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Newsroom {
    /// What is told from now on.
    pub fn listen(&self) -> broadcast::Receiver<News> {
        self.0.subscribe()
    }

    /// These were committed.
    pub fn committed(&self, keys: Vec<Key>) {
        let _ = self.0.send(News::Committed(keys.into()));
    }

    /// This is about to end.
    pub fn writing(&self, token: String, writes: &BTreeMap<Key, State>) -> Telling {
        let (sender, end) = watch::channel(None);
        let _ = self.0.send(News::Writing(Own { token: token.into(), writes: Arc::new(writes.clone()), end }));
        Telling(sender)
    }
}

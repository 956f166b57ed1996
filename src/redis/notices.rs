//! Notices: that something has become of a place, heard over one connection and told to those that wait for it.
//!
//! A notice names its place by digest and says no more; whoever waits looks again. Notices can be lost, so nobody relies on
//! one: waits are bounded by leases.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bb8_redis::redis::RedisError;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connect::Connector;

/// While nothing is heard, those that wait look again so often; a lost connection is back within some of these.
const UNHEARD: Duration = Duration::from_millis(50);

/// A connection that has brought nothing for so long is asked whether it is there: a middlebox may have forgotten it.
const SILENCE: Duration = Duration::from_secs(10);

type Digest = [u8; 32];

/// Who waits for which place.
#[derive(Default)]
pub(super) struct Notices {
    /// As many as flights wait, which the read path bounds.
    waiting: Mutex<HashMap<Digest, watch::Sender<()>>>,
    heard: AtomicBool,
}

/// A place in the table, taken out again by the last one that leaves.
struct Ear {
    notices: Arc<Notices>,
    digest: Digest,
    told: Option<watch::Receiver<()>>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut waiting = self.notices.waiting();
        drop(self.told.take());
        if waiting.get(&self.digest).is_some_and(|told| told.receiver_count() == 0) {
            waiting.remove(&self.digest);
        }
    }
}

impl Notices {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Digest, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves at the next notice of `digest`, and where none can be heard in a moment.
    pub(super) fn next(self: &Arc<Self>, digest: Digest) -> impl Future<Output = ()> + Send + use<> {
        let told = self.waiting().entry(digest).or_default().subscribe();
        let mut ear = Ear { notices: Arc::clone(self), digest, told: Some(told) };
        // After its place in the table: whoever finds the connection lost tells all that are in it.
        let heard = self.heard.load(Ordering::SeqCst);
        async move {
            let Some(told) = &mut ear.told else { return };
            if heard {
                let _ = told.changed().await;
            } else {
                let _ = timeout(UNHEARD, told.changed()).await;
            }
        }
    }

    fn tell(&self, digest: &[u8]) {
        let Ok(digest) = Digest::try_from(digest) else { return };
        if let Some(told) = self.waiting().get(&digest) {
            told.send_replace(());
        }
    }

    fn tell_all(&self) {
        self.waiting().values().for_each(|told| {
            told.send_replace(());
        });
    }

    /// Hears what comes over one connection, until it ends.
    pub(super) async fn hear(&self, connector: &Connector, channel: &str, within: Duration) -> Result<(), RedisError> {
        let slow = |_elapsed| RedisError::from((bb8_redis::redis::ErrorKind::Io, "no subscription in time"));
        let subscribed = async {
            let mut subscriber = connector.subscriber().await?;
            subscriber.subscribe(channel).await?;
            Ok::<_, RedisError>(subscriber)
        };
        let subscriber = timeout(within, subscribed).await.map_err(slow)??;
        let _heard = Heard::begins(self);
        let (mut asking, mut messages) = subscriber.split();
        loop {
            match timeout(SILENCE, messages.next()).await {
                Ok(Some(message)) => self.tell(message.get_payload_bytes()),
                Ok(None) => return Ok(()),
                Err(_silent) => timeout(within, asking.ping::<()>()).await.map_err(slow)??,
            }
        }
    }
}

/// While notices are heard. Whatever came before, and whatever is lost at its end, those that wait look for themselves.
struct Heard<'a>(&'a Notices);

impl<'a> Heard<'a> {
    fn begins(notices: &'a Notices) -> Self {
        notices.heard.store(true, Ordering::SeqCst);
        notices.tell_all();
        Self(notices)
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        self.0.heard.store(false, Ordering::SeqCst);
        self.0.tell_all();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt as _;

    use super::*;

    type Next = Pin<Box<dyn Future<Output = ()>>>;

    fn next(notices: &Arc<Notices>, digest: Digest) -> Next {
        Box::pin(notices.next(digest))
    }

    fn is_told(next: &mut Next) -> bool {
        next.now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_place_is_told_of_it_alone_and_leaves_no_trace() {
        let notices = Arc::new(Notices::default());
        let _heard = Heard::begins(&notices);
        let (a, b) = ([1; 32], [2; 32]);
        let (mut first, mut second, mut other) = (next(&notices, a), next(&notices, a), next(&notices, b));
        assert!(!is_told(&mut first), "nothing has come yet");
        notices.tell(&a);
        notices.tell(b"no digest");
        assert!(is_told(&mut first) && is_told(&mut second) && !is_told(&mut other));
        let mut late = next(&notices, a);
        assert!(!is_told(&mut late), "what came before it is nothing new");
        drop((first, second, late));
        assert_eq!(notices.waiting().keys().collect::<Vec<_>>(), [&b]);
        drop(other);
        assert!(notices.waiting().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_looks_again_when_the_connection_is_lost_and_when_it_is_back() {
        let notices = Arc::new(Notices::default());
        let heard = Heard::begins(&notices);
        let mut before = next(&notices, [1; 32]);
        assert!(!is_told(&mut before));
        drop(heard);
        assert!(is_told(&mut before));
        let mut between = next(&notices, [1; 32]);
        assert!(!is_told(&mut between));
        tokio::time::advance(UNHEARD + Duration::from_millis(1)).await;
        assert!(is_told(&mut between));
        let mut between = next(&notices, [1; 32]);
        assert!(!is_told(&mut between));
        let _heard = Heard::begins(&notices);
        assert!(is_told(&mut between));
    }
}

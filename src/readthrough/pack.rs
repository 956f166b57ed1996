//! Packed forms of stored answers: made once for an entry and a coding, off every request's path.
//!
//! Who asks for a form that isn't there is given the body as it is, and the form is made in the meantime: a client that takes
//! zstd takes JSON too, and nobody waits for a compressor. It is made when memory answers, never for what was just filled: what
//! is asked once is not worth it.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Readthrough;
use crate::cache::entry::{Entry, Packing};
use crate::cache::key::Key;
use crate::cache::packed::Packed;
use crate::coding::Coding;
use crate::telemetry::metrics::Packs;

/// Threads that pack at a time: half of the cores, so that hits keep theirs.
pub(super) fn places() -> Arc<Semaphore> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    Arc::new(Semaphore::new((cores / 2).max(1)))
}

impl Readthrough {
    /// `entry`'s body in `coding`, where it is there; `key` is the one that `entry` was found under. Else it is made for those
    /// who ask later, if `from_memory`, and if it was not found to be pointless.
    #[inline]
    pub fn packed(
        self: &Arc<Self>,
        key: &[u8],
        entry: &Arc<Entry>,
        coding: Coding,
        from_memory: bool,
    ) -> Option<Arc<Packed>> {
        let stands = entry.packing(coding);
        match stands {
            Packing::Pointless | Packing::UnderWay => return None,
            Packing::Made => {
                if let Some(packed) = self.store.packed(key, entry, coding) {
                    self.metrics.packed(coding, entry.body().len() - packed.bytes().len());
                    return Some(packed);
                }
            }
            Packing::Untried => {}
        }
        if from_memory {
            self.pack(key, entry, coding, stands);
        }
        None
    }

    #[cold]
    fn pack(self: &Arc<Self>, key: &[u8], entry: &Arc<Entry>, coding: Coding, stands: Packing) {
        let Ok(place) = Arc::clone(&self.packers).try_acquire_owned() else {
            return self.metrics.packs(coding, Packs::Refused);
        };
        if !entry.begin_packing(coding, stands) {
            return;
        }
        let (read, key, entry) = (Arc::clone(self), Key::new(key), Arc::clone(entry));
        tokio::task::spawn_blocking(move || {
            let kept = coding
                .pack(entry.body())
                .is_some_and(|bytes| read.store.keep_packed(&key, &entry, Packed::new(&entry, coding, bytes)));
            if !kept {
                entry.packs(coding, Packing::Pointless);
            }
            read.metrics.packs(coding, if kept { Packs::Kept } else { Packs::Pointless });
            drop(place);
        });
    }
}

//! Bodies of requests: read within bounds, and read away where nobody wants them.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

/// A body must arrive within this: parameters are small, and a client that trickles them holds a connection for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a body could not be read.
pub(super) enum Unreadable {
    /// It has more bytes than allowed.
    TooLong,
    /// It broke off, or its framing is malformed.
    Broken,
    /// It did not arrive in time.
    TooSlow,
}

/// The whole body, of `limit` bytes at most. What is too long is read away in the background: see [`discard`].
pub(super) async fn collect(body: Incoming, limit: u64) -> Result<Vec<u8>, Unreadable> {
    tokio::time::timeout(BODY_TIMEOUT, gather(body, limit)).await.map_err(|_| Unreadable::TooSlow)?
}

async fn gather(mut body: Incoming, limit: u64) -> Result<Vec<u8>, Unreadable> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unreadable::Broken)?.into_data() else { continue };
        if (whole.len() + data.len()) as u64 > limit {
            discard(body);
            return Err(Unreadable::TooLong);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// Enough for a client to have sent what was in its buffers, and short enough to be no loss.
const DISCARD_FOR: Duration = Duration::from_secs(2);
/// More than that is no mistake, and may be reset.
const DISCARD_BYTES: usize = 32 << 20;

/// Reads on at a body that nobody wants, within bounds, while the refusal is on its way. A connection that is closed with
/// unread bytes is reset, and a client that is still sending would lose the answer that tells it why.
pub(super) fn discard(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(DISCARD_FOR, async move {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    }));
}

//! A reply: the response of a request that was answered where it was called, or one that is still to come.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::pulse::Pulse;
use super::response::Response;

/// A response that is there, or one that takes a while.
pub enum Reply {
    /// Taken when polled.
    Ready(Option<Response>),
    /// Still to come.
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl Future for Reply {
    type Output = Result<Response, std::convert::Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Ready(response) => Poll::Ready(Ok(response.take().expect("a reply is polled to its end once"))),
            Self::Later(future) => future.as_mut().poll(cx).map(Ok),
        }
    }
}

impl Reply {
    /// The same, known to its connection as running while it is still to come.
    #[inline]
    pub(super) fn running(self, on: &Arc<Pulse>) -> Self {
        match self {
            Self::Ready(_) => self,
            Self::Later(future) => {
                let running = on.run();
                Self::Later(Box::pin(async move {
                    let response = future.await;
                    drop(running);
                    response
                }))
            }
        }
    }

    /// The same, with `change` made to the response.
    pub(super) fn map(self, change: impl FnOnce(&mut Response) + Send + 'static) -> Self {
        match self {
            Self::Ready(mut response) => {
                response.as_mut().map(change);
                Self::Ready(response)
            }
            Self::Later(future) => Self::Later(Box::pin(async move {
                let mut response = future.await;
                change(&mut response);
                response
            })),
        }
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Ready(Some(response))
    }
}

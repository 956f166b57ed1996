//! Problem documents for requests that hyper refuses by itself.
//!
//! A request line or header that can't be parsed never reaches the service: hyper answers it with a bare status, an
//! empty body and `Connection: close`. This wrapper around the socket recognises such an answer by its first bytes (our
//! own 4xx always have a body) and writes a problem document in its place. On every other write it looks at one byte,
//! and notes that the connection moves.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::problem::{Code, Problem};
use super::pulse::Pulse;
use super::read::Service;

/// A socket whose bare refusals are spelt out.
pub(super) struct Bare<T> {
    io: T,
    service: Arc<Service>,
    /// A refusal under way: its bytes, how many are written, and how many of hyper's they stand for.
    instead: Option<(Vec<u8>, usize, usize)>,
    pulse: Arc<Pulse>,
}

impl<T> Bare<T> {
    pub(super) fn new(io: T, service: Arc<Service>, pulse: Arc<Pulse>) -> Self {
        Self { io, service, instead: None, pulse }
    }

    /// Whether `head` is a refusal of hyper's own; then a problem document is to be written instead.
    #[cold]
    fn refuse(&mut self, head: &[u8]) -> bool {
        self.instead = self.refusal(head).map(|refusal| (refusal, 0, head.len()));
        self.instead.is_some()
    }

    fn refusal(&self, head: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(head).ok()?;
        if !text.ends_with("\r\n\r\n") || !text.contains("\r\ncontent-length: 0\r\n") {
            return None;
        }
        let problem = match text.get(9..12)? {
            "400" => Problem::new(Code::BadRequest, "the request line or a header is malformed"),
            "414" => Problem::new(Code::UriTooLong, "over 64 KiB"),
            "431" => Problem::new(Code::TooManyHeaders, "over 100 fields, or 24 KiB in all"),
            _ => return None,
        };
        self.service.unreadable();
        Some(spell(problem))
    }
}

/// A problem as the bytes of an HTTP/1.1 response that ends the connection.
pub(super) fn spell(problem: Problem) -> Vec<u8> {
    let response = problem.closing().respond_with(None);
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let body = response.into_body().into_bytes();
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

impl<T: Write + Unpin> Bare<T> {
    /// Writes on at the refusal; ready with the number of hyper's bytes it stands for.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((bytes, written, stands_for)) = &mut self.instead else { return Poll::Ready(Ok(0)) };
        while *written < bytes.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &bytes[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => *written += n,
            }
        }
        let stands_for = *stands_for;
        self.instead = None;
        Poll::Ready(Ok(stands_for))
    }
}

impl<T: Read + Unpin> Read for Bare<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

/// `HTTP/1.1 4`: where a client's mistake shows.
#[inline]
fn is_client_error(head: &[u8]) -> bool {
    head.get(9) == Some(&b'4') && head.starts_with(b"HTTP/1.")
}

impl<T: Write + Unpin> Write for Bare<T> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_some() {
            return self.poll_instead(cx);
        }
        if is_client_error(buf) && self.refuse(buf) {
            return self.poll_instead(cx);
        }
        self.pulse.beat();
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.first().map_or(&[][..], |first| first);
        if self.instead.is_some() || (is_client_error(first) && self.refuse(first)) {
            return self.poll_instead(cx);
        }
        self.pulse.beat();
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

//! Answers on their way out: bodies that are not copied, and heads.
//!
//! A body is a reference to the entry that holds it; hyper writes it from there with the head in one `writev`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body, Frame, SizeHint};

use crate::cache::entry::{ETAG_BYTES, Entry};
use crate::cache::packed::Packed;
use crate::coding::Coding;

/// RFC 9211.
pub static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// The snapshot that an answer was read under.
pub static SEAWALL_STAMP: HeaderName = HeaderName::from_static("seawall-stamp");
/// `1` asks for the stamp.
pub static SEAWALL_DEBUG: HeaderName = HeaderName::from_static("seawall-debug");
/// What the answer must contain: a token of a write.
pub static SEAWALL_AFTER: HeaderName = HeaderName::from_static("seawall-after");

/// A response of the query listener.
pub type Response = http::Response<ResponseBody>;

/// What a response carries: nothing, an entry's body, one of its packed forms, or bytes made for it.
#[derive(Debug, Default)]
pub struct ResponseBody(Option<Chunk>);

/// One contiguous piece.
#[derive(Debug)]
pub enum Chunk {
    /// The body of an entry, from an offset on.
    Entry(Arc<Entry>, usize),
    /// A packed form of one, from an offset on.
    Packed(Arc<Packed>, usize),
    /// Bytes of its own.
    Bytes(Bytes),
}

impl ResponseBody {
    /// The body of `entry`.
    #[inline]
    pub fn entry(entry: Arc<Entry>) -> Self {
        Self(if entry.body().is_empty() { None } else { Some(Chunk::Entry(entry, 0)) })
    }

    /// A packed form of a body.
    #[inline]
    pub fn packed(packed: Arc<Packed>) -> Self {
        Self(Some(Chunk::Packed(packed, 0)))
    }

    /// These bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { None } else { Some(Chunk::Bytes(bytes)) })
    }
}

impl ResponseBody {
    /// What there is of it, copied where it is an entry's: for the admin listener, which sends none of these.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            None => Bytes::new(),
            Some(Chunk::Bytes(bytes)) => bytes,
            Some(chunk) => Bytes::copy_from_slice(chunk.chunk()),
        }
    }
}

impl Buf for Chunk {
    #[inline]
    fn remaining(&self) -> usize {
        match self {
            Self::Entry(entry, from) => entry.body().len() - from,
            Self::Packed(packed, from) => packed.bytes().len() - from,
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        match self {
            Self::Entry(entry, from) => &entry.body()[*from..],
            Self::Packed(packed, from) => &packed.bytes()[*from..],
            Self::Bytes(bytes) => bytes,
        }
    }

    #[inline]
    fn advance(&mut self, n: usize) {
        match self {
            Self::Entry(entry, from) => {
                assert!(n <= entry.body().len() - *from, "advanced beyond the body's end");
                *from += n;
            }
            Self::Packed(packed, from) => {
                assert!(n <= packed.bytes().len() - *from, "advanced beyond the body's end");
                *from += n;
            }
            Self::Bytes(bytes) => bytes.advance(n),
        }
    }
}

impl Body for ResponseBody {
    type Data = Chunk;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Infallible>>> {
        Poll::Ready(self.0.take().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |chunk| chunk.remaining() as u64))
    }
}

/// Header values around a number of seconds, made once: an answer's age and what is left of its ttl change every second,
/// and formatting them for each hit would allocate for each.
pub struct Seconds {
    prefix: &'static str,
    suffix: &'static str,
    made: Box<[HeaderValue]>,
}

/// A good hour of seconds. Longer times are formatted when they are needed.
const SECONDS_MADE: usize = 4096;

/// `27`.
pub static AGE: LazyLock<Seconds> = LazyLock::new(|| Seconds::new("", ""));
/// `max-age=27`.
pub static MAX_AGE: LazyLock<Seconds> = LazyLock::new(|| Seconds::new("max-age=", ""));

/// `private, max-age=27`.
pub static PRIVATE_MAX_AGE: LazyLock<Seconds> = LazyLock::new(|| Seconds::new("private, max-age=", ""));

impl Seconds {
    /// Values of `prefix`, a number and `suffix`. A prefix that ends with a minus sign loses it before zero.
    pub fn new(prefix: &'static str, suffix: &'static str) -> Self {
        let made = (0..SECONDS_MADE as u64).map(|n| {
            // Lives as long as the process, as the statics do that hold it; its clones allocate nothing.
            let text: &'static str = Box::leak(spell(prefix, n, suffix).into_boxed_str());
            HeaderValue::from_static(text)
        });
        Self { prefix, suffix, made: made.collect() }
    }

    /// The value for `seconds`.
    #[inline]
    pub fn value(&self, seconds: u64) -> HeaderValue {
        match usize::try_from(seconds).ok().and_then(|n| self.made.get(n)) {
            Some(made) => made.clone(),
            None => {
                HeaderValue::try_from(spell(self.prefix, seconds, self.suffix)).unwrap_or(HeaderValue::from_static("0"))
            }
        }
    }
}

fn spell(prefix: &str, seconds: u64, suffix: &str) -> String {
    let prefix = if seconds == 0 { prefix.trim_end_matches('-') } else { prefix };
    format!("{prefix}{seconds}{suffix}")
}

/// The answer to HEAD: everything but the body, with its length.
pub fn headless(mut response: Response) -> Response {
    let length = response.body().size_hint().exact().unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    *response.body_mut() = ResponseBody::default();
    response
}

/// Whether `If-None-Match` names `etag`, that of a document that has one form.
pub fn matches(headers: &HeaderMap, etag: &[u8]) -> bool {
    candidates(headers).any(|candidate| candidate == b"*" || candidate == etag)
}

/// The tags in `If-None-Match`, each without its mark of weakness: the comparison is the weak one (RFC 9110 section 13.1.2).
fn candidates(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(header::IF_NONE_MATCH).into_iter();
    let tags = fields.flat_map(|field| field.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii));
    tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
}

/// The tag in `If-None-Match` by which the client has the body of `etag`: that tag itself, `*`, or that of a packed form of it.
pub fn matched(headers: &HeaderMap, etag: &[u8; ETAG_BYTES]) -> Option<Matched> {
    candidates(headers).find_map(|candidate| {
        if candidate == b"*" {
            return Some(Matched::Body);
        }
        match candidate.strip_prefix(&etag[..ETAG_BYTES - 1])?.strip_suffix(b"\"")? {
            b"" => Some(Matched::Body),
            form => form.strip_prefix(b"-").and_then(Coding::exactly).map(Matched::Packed),
        }
    })
}

/// Which representation of a body a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// The body as it is.
    Body,
    /// Its form in a coding.
    Packed(Coding),
}

/// A page of HTML that needs nothing from elsewhere.
pub fn html(status: http::StatusCode, page: String) -> Response {
    let mut response = Response::new(ResponseBody::bytes(page));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    response
}

/// A JSON document that is made for this request.
pub fn json(status: http::StatusCode, document: &serde_json::Value) -> Response {
    let mut response = Response::new(ResponseBody::bytes(document.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_the_same_from_the_table_and_beyond_it() {
        for n in [0, 9, 4095, 4096, 1_000_000] {
            assert_eq!(MAX_AGE.value(n), format!("max-age={n}").as_str());
            assert_eq!(AGE.value(n), n.to_string().as_str());
        }
        let past = Seconds::new("ttl=-", "; x");
        assert_eq!(past.value(0), "ttl=0; x");
        assert_eq!(past.value(3), "ttl=-3; x");
        assert_eq!(past.value(5000), "ttl=-5000; x");
    }

    #[test]
    fn if_none_match_takes_lists_stars_weak_tags_and_those_of_packed_forms() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, value.parse().expect("a header value"));
            headers
        };
        let etag = b"\"abcdefghijklmnopqrstuv\"";
        let a = "\"abcdefghijklmnopqrstuv\"";
        for yes in [a.to_owned(), "*".into(), format!("W/{a}"), format!("\"b\", {a}"), format!("\"b\" ,W/{a}")] {
            assert_eq!(matched(&with(&yes), etag), Some(Matched::Body), "{yes}");
        }
        for coding in Coding::ALL {
            let form = format!("\"abcdefghijklmnopqrstuv-{}\"", coding.as_str());
            for yes in [form.clone(), format!("W/{form}"), format!("\"b\", {form}")] {
                assert_eq!(matched(&with(&yes), etag), Some(Matched::Packed(coding)), "{yes}");
            }
        }
        let form = |suffix: &str| format!("\"abcdefghijklmnopqrstuv{suffix}\"");
        for no in
            ["\"b\"", "a", "", "W/\"b\", \"c\"", &form("-"), &form("-GZIP"), &form("-x-gzip"), &form("gzip"), &a[..23]]
        {
            assert_eq!(matched(&with(no), etag), None, "{no}");
        }
        assert_eq!(matched(&HeaderMap::new(), etag), None);
    }
}

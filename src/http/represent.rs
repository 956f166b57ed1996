//! An answer as a response: 200, 304, or the 404 that says that there is no row; in which coding; and for how long, and for whom, it
//! may be kept.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

use super::cache_status;
use super::gate::Audience;
use super::negotiate::{coding, wants_no_transform};
use super::problem::{Code, Problem};
use super::read::Service;
use super::response::{
    self, AGE, CACHE_STATUS, MAX_AGE, Matched, PRIVATE_MAX_AGE, Response, ResponseBody, SEAWALL_DEBUG, SEAWALL_STAMP,
};
use crate::cache::entry::{Entry, Freshness};
use crate::cache::packed::{self, Packed};
use crate::clock::Moment;
use crate::readthrough::{Answer, By, Route, Source};
use crate::stamp::Snapshot;

/// What a request asks of the representation.
pub(super) struct Asked<'a> {
    head: bool,
    pub(super) headers: &'a HeaderMap,
    /// The key that the answer is stored under, and its packed forms.
    key: &'a [u8],
    client_ttl: Duration,
    audience: Audience,
}

impl<'a> Asked<'a> {
    #[inline]
    pub(super) fn new(route: &Route, head: bool, headers: &'a HeaderMap, key: &'a [u8], audience: Audience) -> Self {
        Self { head, headers, key, client_ttl: route.query().policy().client_ttl, audience }
    }

    /// `Cache-Control` of the answer. Clients ask each time, unless `client_ttl` lets them keep a fresh answer: then for
    /// so long, and never beyond its lifetime. What is given although nobody vouches for it is kept by nobody.
    #[inline]
    fn lifetime(&self, entry: &Entry, source: &Source, age: u64, now: Moment) -> HeaderValue {
        let vouched = matches!(
            source,
            Source::Memory { by: By::Lifetime | By::RefillLimited, .. } | Source::Shared { .. } | Source::Fill { .. }
        );
        match entry.freshness(now) {
            Freshness::Fresh(left) if !self.client_ttl.is_zero() && vouched => {
                let seconds = age + self.client_ttl.min(left).as_secs();
                match self.audience {
                    Audience::Everybody => MAX_AGE.value(seconds),
                    Audience::Callers => PRIVATE_MAX_AGE.value(seconds),
                }
            }
            _ if self.audience == Audience::Callers => HeaderValue::from_static("private, no-cache"),
            _ => HeaderValue::from_static("no-cache"),
        }
    }
}

impl Service {
    /// The representation of an answer: 200, 304, or the 404 that says that there is no row.
    #[inline]
    pub(super) fn represent(&self, answer: Answer, asked: &Asked<'_>, now: Moment) -> Response {
        let Answer { entry, source } = answer;
        let mut response = if entry.is_absent() {
            Problem::new(Code::NoRow, "no row for these parameters").respond_with(None)
        } else {
            let mut response = Response::new(ResponseBody::default());
            // Six fields in one allocation each for table and entries, instead of growing into them.
            *response.headers_mut() = HeaderMap::with_capacity(8);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        };
        // Whether the representation depends on what the client takes depends on the body alone, so that every answer says it.
        let varies = !entry.is_absent() && entry.body().len() as u64 >= self.compression_min_bytes();
        let matched = if entry.is_absent() { None } else { response::matched(asked.headers, entry.etag()) };
        let packed = if varies && matched.is_none() { self.packed(&entry, &source, asked) } else { None };
        let headers = response.headers_mut();
        let etag = match (matched, &packed) {
            (Some(Matched::Packed(coding)), _) => HeaderValue::from_bytes(&packed::etag(entry.etag(), coding)),
            (_, Some(packed)) => HeaderValue::from_bytes(packed.etag()),
            (_, None) => HeaderValue::from_bytes(entry.etag()),
        };
        if let Ok(etag) = etag {
            headers.insert(header::ETAG, etag);
        }
        let age = entry.age(now).as_secs();
        headers.insert(header::AGE, AGE.value(age));
        headers.insert(header::CACHE_CONTROL, asked.lifetime(&entry, &source, age, now));
        headers.insert(CACHE_STATUS.clone(), cache_status::value(&source));
        let vary = match (asked.audience, varies) {
            (Audience::Callers, true) => Some("authorization, accept-encoding"),
            (Audience::Callers, false) => Some("authorization"),
            (Audience::Everybody, true) => Some("accept-encoding"),
            (Audience::Everybody, false) => None,
        };
        if let Some(vary) = vary {
            headers.insert(header::VARY, HeaderValue::from_static(vary));
        }
        if self.exposes_stamp() || asked.headers.get(&SEAWALL_DEBUG).is_some_and(|v| v == "1") {
            headers.insert(SEAWALL_STAMP.clone(), stamp_value(&entry.stamp().snapshot));
        }
        if matched.is_some() {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        if let Some(packed) = packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(packed.coding().as_str()));
            *response.body_mut() = ResponseBody::packed(packed);
        } else if !entry.is_absent() {
            *response.body_mut() = ResponseBody::entry(entry);
        }
        if asked.head { response::headless(response) } else { response }
    }
}

impl Service {
    /// The form of the body that the client likes best, where it is there.
    #[inline]
    fn packed(&self, entry: &Arc<Entry>, source: &Source, asked: &Asked<'_>) -> Option<Arc<Packed>> {
        let coding = coding(asked.headers, self.compression())?;
        if wants_no_transform(asked.headers) {
            return None;
        }
        let from_memory = matches!(source, Source::Memory { .. });
        self.read().packed(asked.key, entry, coding, from_memory)
    }
}

/// A snapshot in a header: over 256 bytes, the running transactions become a count.
fn stamp_value(snapshot: &Snapshot) -> HeaderValue {
    let mut text = snapshot.to_string();
    if text.len() > 256 {
        let bounds = text.match_indices(':').nth(1).map_or(0, |(at, _)| at + 1);
        text.truncate(bounds);
        // Writing to a String can't fail.
        let _ = write!(text, "({} running)", snapshot.running());
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unprintable"))
}

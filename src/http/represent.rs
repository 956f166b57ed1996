//! An answer as a response: 200, 304, or the 404 that says that there is no row; and for how long, and for whom, it may be kept.

use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

use super::cache_status;
use super::gate::Audience;
use super::problem::{Code, Problem};
use super::read::Service;
use super::response::{
    self, AGE, CACHE_STATUS, MAX_AGE, PRIVATE_MAX_AGE, Response, ResponseBody, SEAWALL_DEBUG, SEAWALL_STAMP,
};
use crate::cache::entry::{Entry, Freshness};
use crate::clock::Moment;
use crate::readthrough::{Answer, By, Route, Source};
use crate::stamp::Snapshot;

/// What a request asks of the representation.
pub(super) struct Asked<'a> {
    head: bool,
    pub(super) headers: &'a HeaderMap,
    client_ttl: Duration,
    audience: Audience,
}

impl<'a> Asked<'a> {
    #[inline]
    pub(super) fn new(route: &Route, head: bool, headers: &'a HeaderMap, audience: Audience) -> Self {
        Self { head, headers, client_ttl: route.query().policy().client_ttl, audience }
    }

    /// `Cache-Control` of the answer. Clients ask each time, unless `client_ttl` lets them keep a fresh answer: then for
    /// so long, and never beyond its lifetime. What is given although nobody vouches for it is kept by nobody.
    #[inline]
    fn lifetime(&self, entry: &Entry, source: &Source, age: u64, now: Moment) -> HeaderValue {
        let vouched =
            matches!(source, Source::Memory { by: By::Lifetime | By::RefillLimited, .. } | Source::Fill { .. });
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
        let headers = response.headers_mut();
        if let Ok(etag) = HeaderValue::from_bytes(entry.etag()) {
            headers.insert(header::ETAG, etag);
        }
        let age = entry.age(now).as_secs();
        headers.insert(header::AGE, AGE.value(age));
        headers.insert(header::CACHE_CONTROL, asked.lifetime(&entry, &source, age, now));
        headers.insert(CACHE_STATUS.clone(), cache_status::value(&source));
        if asked.audience == Audience::Callers {
            headers.insert(header::VARY, HeaderValue::from_static("authorization"));
        }
        if self.exposes_stamp() || asked.headers.get(&SEAWALL_DEBUG).is_some_and(|v| v == "1") {
            headers.insert(SEAWALL_STAMP.clone(), stamp_value(&entry.stamp().snapshot));
        }
        if !entry.is_absent() {
            if response::matches(asked.headers, entry.etag()) {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return response;
            }
            *response.body_mut() = ResponseBody::entry(entry);
        }
        if asked.head { response::headless(response) } else { response }
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

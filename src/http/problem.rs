//! Causes into responses: the one place with status codes for errors.
//!
//! Every error is a problem document (RFC 9457) with a stable code, and every code has a page that explains it
//! (`pages.rs`). Nothing of the database's own words is in it: these are in the log.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::response::{Response, ResponseBody};
use crate::access::Refusal;
use crate::catalog::args::{BadParam, Unkeyed};
use crate::clock::Moment;
use crate::readthrough::origin::OriginError;
use crate::readthrough::{Failed, ReadError};

macro_rules! codes {
    ($($variant:ident = $code:literal, $status:ident, $title:literal, $advice:literal;)+) => {
        /// Every error that a client can get.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $(#[doc = $title] $variant),+ }

        impl Code {
            /// All of them, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As clients match on it.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $code),+ } }

            /// The status that goes with it.
            pub const fn status(self) -> StatusCode { match self { $(Self::$variant => StatusCode::$status),+ } }

            /// The same for every occurrence.
            pub const fn title(self) -> &'static str { match self { $(Self::$variant => $title),+ } }

            /// What it means and what to do.
            pub const fn advice(self) -> &'static str { match self { $(Self::$variant => $advice),+ } }
        }
    };
}

codes! {
    UnknownPath = "unknown_path", NOT_FOUND, "There is nothing at this path",
        "Queries are at /v1/queries/{name}; GET /v1/queries lists them.";
    UnknownQuery = "unknown_query", NOT_FOUND, "There is no query of this name",
        "GET /v1/queries lists the queries. Queries are declared in config.toml by whoever runs the service.";
    Unauthorized = "unauthorized", UNAUTHORIZED, "A token is needed, and there is none or it is not accepted",
        "Send Authorization: Bearer <token>. Whoever runs the service gives tokens out. What may be asked without one, and whether there is what was asked for, is not said to whom is not known.";
    ClaimRefused = "claim_refused", FORBIDDEN, "The caller lacks a claim that the query takes",
        "The query's answers depend on who asks. The token has to carry the claim that detail names, with a value of its type.";
    TooManyRequests = "too_many_requests", TOO_MANY_REQUESTS, "The caller's rate or concurrency is used up",
        "Try again after the seconds in Retry-After. The bounds are rate, burst and concurrency of the token.";
    NoRow = "no_row", NOT_FOUND, "The query found no row",
        "The query ran and found nothing for these parameters. The answer is cached like any other.";
    BadParameter = "bad_parameter", BAD_REQUEST, "A parameter is missing, unknown or has a bad value",
        "The field errors names each parameter that is wrong, what is wrong with it, and what to send instead.";
    BadRequest = "bad_request", BAD_REQUEST, "The request can't be read",
        "The request line, a header or the framing of the body is malformed.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here",
        "The header Allow names the methods that are.";
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE, "The answer is JSON, which the request does not accept",
        "Send Accept: application/json, or none.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request did not arrive in time",
        "Send the whole body at once. A connection that sends its request too slowly is closed.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "The bound is server.body_max_bytes of the configuration.";
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The URI is too long",
        "Send the parameters as a JSON object in the body of a POST; it gives the same answer.";
    NotJson = "not_json", UNSUPPORTED_MEDIA_TYPE, "The body is not declared to be JSON",
        "Send Content-Type: application/json and a JSON object of parameters.";
    TooManyHeaders = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The header fields are too many or too large",
        "At most 100 fields are taken, and 24 KiB for the whole head.";
    TooManyRows = "too_many_rows", UNPROCESSABLE_ENTITY, "The answer has more rows than max_rows",
        "Ask for less, for instance with a parameter that limits the rows; or max_rows is raised in the configuration.";
    ResultTooLarge = "result_too_large", UNPROCESSABLE_ENTITY, "The answer is larger than result_max_bytes",
        "Ask for less, or cache.result_max_bytes is raised in the configuration.";
    BadConfig = "bad_config", UNPROCESSABLE_ENTITY, "The configuration can't be put in force",
        "The field errors names each key that is wrong and the remedy. The configuration that was in force still is.";
    NotOneRow = "not_one_row", INTERNAL_SERVER_ERROR, "The query found more than one row where it may find one",
        "The query is declared with result = row or value. Its SQL must not find more than one row.";
    QueryBroken = "query_broken", INTERNAL_SERVER_ERROR, "The query fails in the database",
        "The service's log and seawall check say why; it is for whoever runs the service to mend.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong inside Seawall",
        "This is a bug; the log has more. The next request tries again.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too many rebuilds or requests wait already",
        "Try again after the seconds in Retry-After. The bounds are max_fills, max_queued_fills and max_waiters.";
    NoConnection = "no_connection", SERVICE_UNAVAILABLE, "No connection to the database came free in time",
        "Try again after the seconds in Retry-After. The bound is postgres.pool_size.";
    OriginAway = "origin_away", SERVICE_UNAVAILABLE, "The database can't be reached",
        "Try again after the seconds in Retry-After. The service recovers by itself when the database is back.";
    OriginBehind = "origin_behind", SERVICE_UNAVAILABLE, "The database is not the primary of the known history",
        "Try again after the seconds in Retry-After. If it lasts, postgres.url leads to a standby.";
    LineageChanged = "lineage_changed", CONFLICT, "The token is of another history of the database",
        "The database has failed over, was restored or restarted since the token was made. What was written may be gone: read without Seawall-After, or write again.";
    AfterNotVisible = "after_not_visible", GATEWAY_TIMEOUT, "What the token names has not become visible in time",
        "Send Seawall-After once the transaction has committed. One that is still running, or never was, is waited for until the query's timeout.";
    NotCached = "not_cached", GATEWAY_TIMEOUT, "Nothing that is stored may be given",
        "The request said only-if-cached. Without it, the query is asked.";
    Deadline = "deadline", GATEWAY_TIMEOUT, "The rebuild did not end in time",
        "The query took longer than its timeout, queue included. It was cancelled in the database.";
}

impl Code {
    /// The code of a read that brought no answer.
    pub fn of(error: &ReadError) -> Self {
        match error {
            ReadError::Deadline | ReadError::Origin(OriginError::Timeout) => Self::Deadline,
            ReadError::QueueFull | ReadError::QueueDeadline | ReadError::TooManyWaiters | ReadError::Cancelled => {
                Self::Overloaded
            }
            ReadError::Panicked => Self::Internal,
            ReadError::Unprepared | ReadError::Origin(OriginError::Away(_) | OriginError::Conflict(_)) => {
                Self::OriginAway
            }
            ReadError::OriginBehind | ReadError::Origin(OriginError::Behind(_)) => Self::OriginBehind,
            ReadError::BrokenQuery | ReadError::Origin(OriginError::Broken(_)) => Self::QueryBroken,
            ReadError::LineageChanged => Self::LineageChanged,
            ReadError::NotVisible => Self::AfterNotVisible,
            ReadError::Origin(OriginError::Pool) => Self::NoConnection,
            ReadError::Origin(OriginError::TooManyRows { .. }) => Self::TooManyRows,
            ReadError::Origin(OriginError::TooLarge { .. }) => Self::ResultTooLarge,
            ReadError::Origin(OriginError::NotOneRow) => Self::NotOneRow,
            ReadError::Origin(OriginError::Refused(_)) => Self::BadParameter,
        }
    }
}

/// A problem about to become a response.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<BadParam>,
    retry_after: Option<u64>,
    allow: Option<&'static str>,
    challenge: Option<&'static str>,
    close: bool,
}

impl Problem {
    /// A problem of this kind; `detail` says what is particular to this occurrence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: vec![],
            retry_after: None,
            allow: None,
            challenge: None,
            close: false,
        }
    }

    /// No token, or no good one (RFC 6750, section 3).
    pub fn unauthorized(refusal: Refusal) -> Self {
        let challenge = match refusal {
            Refusal::Missing => "Bearer",
            Refusal::Malformed => "Bearer error=\"invalid_request\"",
            Refusal::Unknown | Refusal::Expired | Refusal::NotYet | Refusal::Elsewhere => {
                "Bearer error=\"invalid_token\""
            }
        };
        Self { challenge: Some(challenge), ..Self::new(Code::Unauthorized, refusal.to_string()) }
    }

    /// Why a request makes no key.
    pub fn unkeyed(why: Unkeyed) -> Self {
        match why {
            Unkeyed::Parameters(errors) => Self::parameters(errors),
            Unkeyed::Claim(bad) => Self::new(Code::ClaimRefused, format!("{}: {}", bad.param, bad.detail)),
        }
    }

    /// Bad parameters, all of them.
    pub fn parameters(errors: Vec<BadParam>) -> Self {
        let mut detail = String::from("bad:");
        for error in errors.iter().take(10) {
            let _ = write!(detail, " {}", if error.param.is_empty() { "the body" } else { &error.param });
        }
        Self { errors, ..Self::new(Code::BadParameter, detail) }
    }

    /// Names what is wrong, one by one.
    pub fn listing(self, errors: Vec<BadParam>) -> Self {
        Self { errors, ..self }
    }

    /// The wrong method; `allow` lists the right ones.
    pub fn method(method: &Method, allow: &'static str) -> Self {
        let shown: String = method.as_str().chars().take(32).collect();
        Self { allow: Some(allow), ..Self::new(Code::MethodNotAllowed, format!("{shown} is not one of: {allow}")) }
    }

    /// Closes the connection after the answer: what follows on it can't be trusted to be a request.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Asks the client to wait for this long, in whole seconds rounded up.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        self
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Why a read brought no answer.
    pub fn read(failed: &Failed, now: Moment) -> Self {
        let code = Code::of(&failed.error);
        let detail = match &failed.error {
            ReadError::Deadline | ReadError::Origin(OriginError::Timeout) => {
                "the rebuild was cancelled at its deadline".into()
            }
            ReadError::QueueFull => "the queue of rebuilds is full".into(),
            ReadError::QueueDeadline => "the rebuild's turn did not come in time".into(),
            ReadError::TooManyWaiters => "too many requests wait for rebuilds".into(),
            ReadError::Cancelled => "the rebuild was cancelled as this request came; try again".into(),
            ReadError::Panicked => "the rebuild ended in a panic; the next request tries again".into(),
            ReadError::LineageChanged => "its lineage is not the one in force".into(),
            ReadError::NotVisible => "no poll has seen the transaction".into(),
            ReadError::Unprepared => "the query has not been prepared since the start".into(),
            ReadError::OriginBehind | ReadError::Origin(OriginError::Behind(_)) => {
                "two connections in a row led to a standby or another history".into()
            }
            ReadError::BrokenQuery | ReadError::Origin(OriginError::Broken(_)) => {
                "the reason is in the service's log".into()
            }
            ReadError::Origin(OriginError::Away(_)) => "no connection could be made or kept".into(),
            ReadError::Origin(OriginError::Conflict(_)) => {
                "the database gave the statement up twice in favour of others".into()
            }
            ReadError::Origin(OriginError::Pool) => "every connection was busy until the deadline".into(),
            ReadError::Origin(OriginError::TooManyRows { limit }) => format!("the answer has more than {limit} rows"),
            ReadError::Origin(OriginError::TooLarge { bytes, limit }) => {
                format!("the answer has {bytes} bytes, and {limit} are allowed")
            }
            ReadError::Origin(OriginError::NotOneRow) => "the query found more than one row".into(),
            ReadError::Origin(OriginError::Refused(_)) => "the database refuses the value of a parameter".into(),
        };
        let problem = Self::new(code, detail);
        if code.status() != StatusCode::SERVICE_UNAVAILABLE {
            return problem;
        }
        let left = failed.until.map_or(Duration::ZERO, |until| until.since(now));
        problem.retry_after(left.max(Duration::from_secs(1)))
    }

    /// The response. `request` lends its `traceparent`, so that the problem can be found in a trace.
    pub fn respond(self, request: &HeaderMap) -> Response {
        self.respond_with(trace_id(request))
    }

    /// The response to a request of which nothing is known.
    pub fn respond_with(self, trace_id: Option<&str>) -> Response {
        let mut document = serde_json::json!({
            "type": format!("/problems/{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "detail": self.detail,
            "code": self.code.as_str(),
        });
        if !self.errors.is_empty() {
            document["errors"] = self
                .errors
                .iter()
                .map(|e| serde_json::json!({ "param": e.param, "detail": e.detail, "hint": e.hint }))
                .collect();
        }
        if let Some(seconds) = self.retry_after {
            document["retry_after"] = seconds.into();
        }
        if let Some(id) = trace_id {
            document["trace_id"] = id.into();
        }
        let mut response = Response::new(ResponseBody::bytes(document.to_string()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace id of a well-formed `traceparent` (W3C Trace Context, section 3.2).
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get(&TRACEPARENT)?.to_str().ok()?.split('-');
    let (version, id) = (fields.next()?, fields.next()?);
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let valid = version.len() == 2 && hex(version) && id.len() == 32 && hex(id) && id.bytes().any(|b| b != b'0');
    valid.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_every_one_is_an_error() {
        for (i, code) in Code::ALL.iter().enumerate() {
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert!(Code::ALL[..i].iter().all(|other| other.as_str() != code.as_str()), "{}", code.as_str());
        }
    }

    #[test]
    fn retry_after_is_rounded_up_and_at_least_a_second() {
        let now = Moment::from_nanos(0);
        let problem = |until| Problem::read(&Failed { error: OriginError::Pool.into(), until }, now).retry_after;
        assert_eq!(problem(None), Some(1));
        assert_eq!(problem(Some(Moment::from_nanos(1_000_000_001))), Some(2));
        assert_eq!(problem(Some(Moment::from_nanos(2_000_000_000))), Some(2));
    }

    #[test]
    fn nothing_of_the_databases_own_words_reaches_the_client() {
        for error in [
            OriginError::Away("host secret-db".into()),
            OriginError::Broken("relation secret".into()),
            OriginError::Refused("value secret".into()),
            OriginError::Conflict("process secret".into()),
            OriginError::Behind("secret".into()),
        ] {
            let problem = Problem::read(&ReadError::from(error).into(), Moment::from_nanos(0));
            assert!(!format!("{problem:?}").contains("secret"), "{problem:?}");
        }
    }

    #[test]
    fn a_malformed_traceparent_is_ignored() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT.clone(), value.parse().expect("a header value"));
            trace_id(&headers).map(str::to_owned)
        };
        let good = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(id(&format!("00-{good}-00f067aa0ba902b7-01")).as_deref(), Some(good));
        assert_eq!(id(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))), None);
        assert_eq!(id("00-XYZ-00f067aa0ba902b7-01"), None);
        assert_eq!(id("nonsense"), None);
    }
}

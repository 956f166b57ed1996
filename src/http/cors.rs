//! Browsers' requests from other origins (the Fetch standard's CORS protocol), where the configuration lets them.
//!
//! A preflight gets the same answer on every path, whether there is something or not, and needs no token: browsers send none
//! with it. What the answer says is made when the configuration is read; a request compares its `Origin` with a list.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::read::Service;
use super::reply::Reply;
use super::response::{Response, ResponseBody};

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// As browsers spell them: scheme, host, port unless it is the scheme's. `["*"]`: any.
    pub origins: Vec<String>,
    /// Whether cookies, client certificates and the like may come with a request; never with any origin.
    pub allow_credentials: bool,
    /// How long a browser may remember a preflight.
    pub max_age: Duration,
    /// Fields that requests may have, beside those that every request may.
    pub headers: Vec<String>,
}

/// Methods that something answers.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");

/// Fields of answers that scripts may read, beside those that they always may (`Cache-Control`, `Content-Type` and others).
const EXPOSED: HeaderValue = HeaderValue::from_static("ETag, Age, Cache-Status, Retry-After, Seawall-Stamp");

/// The settings as fields of answers.
pub struct Cors {
    /// `None`: any.
    origins: Option<Vec<HeaderValue>>,
    allow_credentials: bool,
    max_age: HeaderValue,
    headers: HeaderValue,
}

impl Cors {
    /// As `settings` say. What is no header value is in no request either, and is left out.
    pub fn new(settings: &Settings) -> Self {
        let any = settings.origins.iter().any(|origin| origin == "*");
        let value = |text: &str| HeaderValue::from_str(text).ok();
        Self {
            origins: (!any).then(|| settings.origins.iter().filter_map(|origin| value(origin)).collect()),
            allow_credentials: settings.allow_credentials,
            max_age: HeaderValue::from(settings.max_age.as_secs()),
            headers: value(&settings.headers.join(", ")).unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// Answers for `service`, and says whether the origin that asks may read it.
    #[cold]
    pub(super) fn answer(self: Arc<Self>, service: &Arc<Service>, request: Request<Incoming>) -> Reply {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let is_preflight = *request.method() == Method::OPTIONS
            && origin.is_some()
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if is_preflight {
            let mut response = Response::new(ResponseBody::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            if self.allow(origin.as_ref(), response.headers_mut()) {
                let headers = response.headers_mut();
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            }
            return response.into();
        }
        service.answer_any(request).map(move |response| {
            if self.allow(origin.as_ref(), response.headers_mut()) {
                response.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
        })
    }

    /// Whether `origin` may read the answer that has these fields; they say so, and whether it is another for others.
    fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        let allowed = match &self.origins {
            None => Some(HeaderValue::from_static("*")),
            Some(origins) => {
                headers.append(header::VARY, HeaderValue::from_static("origin"));
                origin.filter(|origin| origins.contains(origin)).cloned()
            }
        };
        let Some(allowed) = allowed.filter(|_| origin.is_some()) else { return false };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.allow_credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }
}

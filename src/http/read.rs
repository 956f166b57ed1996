//! The query listener's service: a request to an answer.
//!
//! A hit is answered where it is called, without an await: route, parameters, key, look-up, head. Everything else goes
//! into a boxed future. Each request is counted in exactly one outcome: a hit at once, any other by its `Tally`, which
//! counts also when the client leaves and the future is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::Method;
use http::header::HeaderMap;
use hyper::body::{Body, Incoming};

use super::body::{self, Unreadable};
use super::cors::{self, Cors};
use super::directives;
use super::gate::{self, Audience, Gate, Visitor};
use super::negotiate::{accepts_json, sends_json};
use super::problem::{Code, Problem};
use super::reply::Reply;
use super::represent::Asked;
use super::response::Response;
use super::strict::is_strict;
use super::tally::Tally;
use crate::access::Caller;
use crate::cache::entry::Freshness;
use crate::catalog::args::{self, KeyBuf};
use crate::catalog::{Prepared, RequestCacheControl, Shape};
use crate::clock::Moment;
use crate::coding::Codings;
use crate::readthrough::{Answer, Ask, By, Directives, Failed, Led, Look, ReadError, Readthrough, Route, Source, Want};
use crate::telemetry::metrics::{Fallback, Outcome, Served};

/// What the query listener needs to know of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a POST's body.
    pub body_max_bytes: u64,
    /// Whether every answer carries its stamp.
    pub expose_stamp: bool,
    /// What bodies are compressed by, the preferred first.
    pub compression: Codings,
    /// Shorter bodies are not.
    pub compression_min_bytes: u64,
}

/// Longer URIs are refused; a longer list of parameters goes into a body. Proxies commonly take 8 KiB as well.
const URI_MAX_BYTES: usize = 8 * 1024;

const QUERIES: &str = "/v1/queries/";

/// The query listener's service.
pub struct Service {
    read: Arc<Readthrough>,
    gate: ArcSwap<Gate>,
    cors: ArcSwapOption<Cors>,
    body_max_bytes: AtomicU64,
    exposes_stamp: AtomicBool,
    compression: ArcSwap<Codings>,
    /// Unreachable where there is no compression.
    compression_min_bytes: AtomicU64,
    ready: Arc<super::admin::Readiness>,
}

impl Service {
    /// The service over `read`, for whoever `gate` lets in.
    pub fn new(read: Arc<Readthrough>, gate: Gate, options: Options, ready: Arc<super::admin::Readiness>) -> Arc<Self> {
        let service = Self {
            read,
            gate: ArcSwap::from_pointee(gate),
            cors: ArcSwapOption::empty(),
            body_max_bytes: AtomicU64::default(),
            exposes_stamp: AtomicBool::default(),
            compression: ArcSwap::default(),
            compression_min_bytes: AtomicU64::default(),
            ready,
        };
        service.set(options);
        Arc::new(service)
    }

    /// Does as `options` say from now on.
    pub fn set(&self, options: Options) {
        self.body_max_bytes.store(options.body_max_bytes, Ordering::Relaxed);
        self.exposes_stamp.store(options.expose_stamp, Ordering::Relaxed);
        self.compression.store(Arc::new(options.compression));
        let none = options.compression == Codings::default();
        self.compression_min_bytes
            .store(if none { u64::MAX } else { options.compression_min_bytes }, Ordering::Relaxed);
    }

    /// Lets in whoever `gate` does from now on.
    pub fn guard(&self, gate: Gate) {
        self.gate.store(Arc::new(gate));
    }

    /// Lets scripts of other origins read answers as `settings` say from now on.
    pub fn share(&self, settings: Option<&cors::Settings>) {
        self.cors.store(settings.map(|settings| Arc::new(Cors::new(settings))));
    }

    /// Counts a request that hyper answered itself, since it could not be read.
    pub fn unreadable(&self) {
        self.read.unknown().metrics().request(Outcome::Rejected, Served::Memory, 0.0);
    }

    /// Answers a request.
    #[inline]
    pub fn answer(self: &Arc<Self>, request: http::Request<Incoming>) -> Reply {
        match &*self.cors.load() {
            None => self.answer_any(request),
            Some(cors) => Arc::clone(cors).answer(self, request),
        }
    }

    /// Answers a request, whoever may read it.
    #[inline]
    pub(super) fn answer_any(self: &Arc<Self>, request: http::Request<Incoming>) -> Reply {
        let started = self.read.clock().now();
        let uri = request.uri();
        let Some(name) = uri.path().strip_prefix(QUERIES) else { return self.elsewhere(&request, started) };
        let gate = self.gate.load();
        let visitor = match gate.admit(request.headers()) {
            Ok(visitor) => visitor,
            Err(problem) => return self.reject(self.read.unknown(), started, problem, request.headers()),
        };
        let routes = self.read.routes();
        let Some(route) = routes.find(name).filter(|route| visitor.may_ask(route)) else {
            return self.unknown_query(&request, &visitor, started);
        };
        if uri.query().is_some_and(|query| query.len() > URI_MAX_BYTES) {
            return self.reject(route, started, Problem::new(Code::UriTooLong, "over 8 KiB"), request.headers());
        }
        let method = request.method();
        let head = match *method {
            Method::GET => false,
            Method::HEAD => true,
            Method::POST => return self.post(Arc::clone(route), request, &visitor, started),
            _ => {
                return self.reject(route, started, Problem::method(method, "GET, HEAD, POST"), request.headers());
            }
        };
        if !accepts_json(request.headers()) {
            return self.reject(route, started, Problem::new(Code::NotAcceptable, "Accept"), request.headers());
        }
        let shape = route.query().shape();
        let Shape::Ready(prepared) = &**shape else {
            return self.fail(route, started, &unready(&shape).into(), request.headers());
        };
        let mut key = KeyBuf::new();
        let query = uri.query().unwrap_or_default();
        if let Err(why) = args::key_from_uri_by(visitor.claims(), prepared, query, &mut key) {
            return self.reject(route, started, Problem::unkeyed(why), request.headers());
        }
        let audience = visitor.audience(route, prepared);
        let directives = directives_of(route, request.headers());
        if is_strict(route, &directives, request.headers()) {
            let (parts, _) = request.into_parts();
            let (route, prepared) = (Arc::clone(route), Arc::clone(prepared));
            drop(shape);
            let asking = Asking { prepared, key, arrived: started, directives, audience };
            return self.placed(&visitor, |service| {
                service.strictly(Tally::new(Arc::clone(&self.read), route, started), asking, head, parts.headers)
            });
        }
        match self.read.look(&Ask { route, prepared, key: &key, arrived: started, directives }) {
            Look::Answer(answer) => {
                self.at_once(route, answer, &Asked::new(route, head, request.headers(), &key, audience), started)
            }
            Look::Withheld => self.reject(route, started, withheld(), request.headers()),
            Look::Rebuild(want) => {
                let (parts, _) = request.into_parts();
                let (route, prepared) = (Arc::clone(route), Arc::clone(prepared));
                drop(shape);
                let asking = Asking { prepared, key, arrived: started, directives, audience };
                self.placed(&visitor, |service| {
                    service.later(
                        Tally::new(Arc::clone(&service.read), route, started),
                        asking,
                        want,
                        head,
                        parts.headers,
                    )
                })
            }
        }
    }

    /// What takes a while, where the caller has a place left for it.
    fn placed(self: &Arc<Self>, visitor: &Visitor<'_>, reply: impl FnOnce(&Arc<Self>) -> Reply) -> Reply {
        match (visitor.wait(), reply(self)) {
            (Ok(Some(place)), Reply::Later(future)) => Reply::Later(Box::pin(async move {
                let response = future.await;
                drop(place);
                response
            })),
            // The reply counts itself as rejected when it is dropped.
            (Err(problem), Reply::Later(_)) => problem.respond_with(None).into(),
            (_, reply) => reply,
        }
    }

    /// An answer from memory.
    #[inline]
    fn at_once(&self, route: &Route, answer: Answer, asked: &Asked<'_>, started: Moment) -> Reply {
        let (outcome, served) = counted(&answer.source);
        let response = self.represent(answer, asked, started);
        let took = self.read.clock().now().since(started);
        route.metrics().request(outcome, served, took.as_secs_f64());
        response.into()
    }

    /// The rest of a request that memory had nothing for.
    fn later(self: &Arc<Self>, tally: Tally, asking: Asking, want: Want, head: bool, headers: HeaderMap) -> Reply {
        let service = Arc::clone(self);
        Reply::Later(Box::pin(async move {
            let asked = asking.asked(tally.route(), head, &headers);
            service.wait(tally, &asking, want, &asked).await
        }))
    }

    /// Whether every answer carries its stamp.
    #[inline]
    pub(super) fn exposes_stamp(&self) -> bool {
        self.exposes_stamp.load(Ordering::Relaxed)
    }

    /// What bodies are compressed by now.
    #[inline]
    pub(super) fn compression(&self) -> Codings {
        **self.compression.load()
    }

    /// Shorter bodies are sent as they are.
    #[inline]
    pub(super) fn compression_min_bytes(&self) -> u64 {
        self.compression_min_bytes.load(Ordering::Relaxed)
    }

    /// Who is let in now.
    pub(super) fn gate(&self) -> arc_swap::Guard<Arc<Gate>> {
        self.gate.load()
    }

    /// How far the process is in its life.
    pub(super) fn readiness(&self) -> &super::admin::Readiness {
        &self.ready
    }

    /// The read path.
    pub(super) fn read(&self) -> &Arc<Readthrough> {
        &self.read
    }

    pub(super) async fn wait(&self, tally: Tally, asking: &Asking, want: Want, asked: &Asked<'_>) -> Response {
        let answer = self.read.read(&asking.ask(tally.route()), want).await;
        match answer {
            Ok(answer) => self.answered(tally, answer, asked),
            Err(failed) => self.failed(tally, &failed, asked.headers),
        }
    }

    pub(super) fn answered(&self, tally: Tally, answer: Answer, asked: &Asked<'_>) -> Response {
        let (outcome, served) = counted(&answer.source);
        let response = self.represent(answer, asked, self.read.clock().now());
        tally.count(outcome, served);
        response
    }

    pub(super) fn failed(&self, tally: Tally, failed: &Failed, headers: &HeaderMap) -> Response {
        let response = Problem::read(failed, self.read.clock().now()).respond(headers);
        tally.count(refused(&response), Served::Postgres);
        response
    }

    fn post(
        self: &Arc<Self>,
        route: Arc<Route>,
        request: http::Request<Incoming>,
        visitor: &Visitor<'_>,
        started: Moment,
    ) -> Reply {
        let headers = request.headers();
        let limit = self.body_max_bytes.load(Ordering::Relaxed);
        let said = request.body().size_hint().lower();
        let refusal = if !sends_json(headers) {
            Some(Problem::new(Code::NotJson, "Content-Type"))
        } else if !accepts_json(headers) {
            Some(Problem::new(Code::NotAcceptable, "Accept"))
        } else if said > limit {
            Some(Problem::new(Code::BodyTooLarge, format!("{said} bytes, and {limit} are allowed")))
        } else if request.uri().query().is_some_and(|query| !query.is_empty()) {
            Some(Problem::new(
                Code::BadParameter,
                "a POST takes its parameters from the body alone; the URI has some too",
            ))
        } else {
            None
        };
        if let Some(problem) = refusal {
            // The body was not read; what follows on this connection would be taken for a request.
            let reply = self.reject(&route, started, problem.closing(), headers);
            body::discard(request.into_body());
            return reply;
        }
        let service = Arc::clone(self);
        let tally = Tally::new(Arc::clone(&self.read), route, started);
        let caller = visitor.to_owned();
        // Whether the query takes claims is known when its shape is, and until then it is taken for one that does.
        let prepared = tally.route().query().prepared();
        let audience = prepared.map_or(Audience::Callers, |prepared| visitor.audience(tally.route(), &prepared));
        let reply = Reply::Later(Box::pin(async move {
            let (parts, body) = request.into_parts();
            let asking =
                match service.parameters(&tally, caller.as_deref(), body, limit, &parts.headers, audience).await {
                    Ok(asking) => asking,
                    Err(problem) => return refuse(tally, problem, &parts.headers),
                };
            let asked = asking.asked(tally.route(), false, &parts.headers);
            if is_strict(tally.route(), &asking.directives, &parts.headers) {
                return service.answer_strictly(tally, &asking, &asked).await;
            }
            let looked = service.read.look(&asking.ask(tally.route()));
            match looked {
                Look::Answer(answer) => service.answered(tally, answer, &asked),
                Look::Withheld => refuse(tally, withheld(), &parts.headers),
                Look::Rebuild(want) => service.wait(tally, &asking, want, &asked).await,
            }
        }));
        self.placed(visitor, |_| reply)
    }

    /// Reads a POST's body and finds its key.
    async fn parameters(
        &self,
        tally: &Tally,
        caller: Option<&Caller>,
        body: Incoming,
        limit: u64,
        headers: &HeaderMap,
        audience: Audience,
    ) -> Result<Asking, Problem> {
        let body = match body::collect(body, limit).await {
            Ok(body) => body,
            Err(Unreadable::TooLong) => {
                return Err(Problem::new(Code::BodyTooLarge, format!("more than {limit} bytes")).closing());
            }
            Err(Unreadable::Broken) => {
                return Err(Problem::new(Code::BadRequest, "the body broke off or is malformed").closing());
            }
            Err(Unreadable::TooSlow) => {
                return Err(Problem::new(Code::RequestTimeout, "the body took over 10 s").closing());
            }
        };
        let prepared = {
            let shape = tally.route().query().shape();
            match &**shape {
                Shape::Ready(prepared) => Arc::clone(prepared),
                Shape::Pending | Shape::Broken(_) => {
                    return Err(Problem::read(&unready(&shape).into(), self.read.clock().now()));
                }
            }
        };
        let mut key = KeyBuf::new();
        args::key_from_json_by(gate::claims_of(caller), &prepared, &body, &mut key).map_err(Problem::unkeyed)?;
        let directives = directives_of(tally.route(), headers);
        // Its age is measured from when the question was known.
        Ok(Asking { prepared, key, arrived: self.read.clock().now(), directives, audience })
    }

    /// There is no such query, or not for this caller. What it gets doesn't tell which, and who isn't known learns neither.
    fn unknown_query(&self, request: &http::Request<Incoming>, visitor: &Visitor<'_>, started: Moment) -> Reply {
        if let Some(problem) = visitor.unless_somebody() {
            return self.reject(self.read.unknown(), started, problem, request.headers());
        }
        let shown: String = request.uri().path().chars().skip(QUERIES.len()).take(64).collect();
        let problem = Problem::new(Code::UnknownQuery, format!("{shown:?} is not declared"));
        self.reject(self.read.unknown(), started, problem, request.headers())
    }

    /// Refuses a request that no statement was run for.
    #[cold]
    pub(super) fn reject(&self, route: &Route, started: Moment, problem: Problem, headers: &HeaderMap) -> Reply {
        let response = problem.respond(headers);
        let took = self.read.clock().now().since(started);
        route.metrics().request(refused(&response), Served::Memory, took.as_secs_f64());
        response.into()
    }

    #[cold]
    fn fail(&self, route: &Route, started: Moment, failed: &Failed, headers: &HeaderMap) -> Reply {
        self.reject(route, started, Problem::read(failed, started), headers)
    }
}

/// A question, understood.
pub(super) struct Asking {
    prepared: Arc<Prepared>,
    key: KeyBuf,
    arrived: Moment,
    directives: Directives,
    audience: Audience,
}

impl Asking {
    pub(super) fn asked<'a>(&'a self, route: &Route, head: bool, headers: &'a HeaderMap) -> Asked<'a> {
        Asked::new(route, head, headers, &self.key, self.audience)
    }

    pub(super) fn ask<'a>(&'a self, route: &'a Arc<Route>) -> Ask<'a> {
        Ask { route, prepared: &self.prepared, key: &self.key, arrived: self.arrived, directives: self.directives }
    }
}

/// What the request asks of the answer's age, where the query lets it.
#[inline]
fn directives_of(route: &Route, headers: &HeaderMap) -> Directives {
    match route.query().policy().request_cache_control {
        RequestCacheControl::Bounded => directives::parse(headers),
        RequestCacheControl::Ignore => Directives::default(),
    }
}

/// What an answer counts as.
#[inline]
fn counted(source: &Source) -> (Outcome, Served) {
    match source {
        Source::Memory { stands: Freshness::Fresh(_), by: By::Lifetime | By::RefillLimited } => {
            (Outcome::Hit, Served::Memory)
        }
        Source::Memory { .. } => (Outcome::Stale, Served::Memory),
        Source::Shared { .. } => (Outcome::RedisHit, Served::Redis),
        Source::Old { .. } => (Outcome::Stale, Served::Postgres),
        Source::Fill { led: Led::Others, .. } => (Outcome::Collapsed, Served::Postgres),
        Source::Fill { led: Led::Own, why: Fallback::Directive | Fallback::Blind | Fallback::Strict, .. } => {
            (Outcome::Bypass, Served::Postgres)
        }
        Source::Fill { led: Led::Own, .. } => (Outcome::Miss, Served::Postgres),
    }
}

/// Refuses a request that no statement was run for.
pub(super) fn refuse(tally: Tally, problem: Problem, headers: &HeaderMap) -> Response {
    let response = problem.respond(headers);
    tally.count(refused(&response), Served::Memory);
    response
}

/// What a refusal counts as.
fn refused(response: &Response) -> Outcome {
    if response.status().is_server_error() { Outcome::Error } else { Outcome::Rejected }
}

/// Only what is stored was asked for.
pub(super) fn withheld() -> Problem {
    Problem::new(Code::NotCached, "the request said only-if-cached, and nothing that is stored may be given")
}

/// Why a query that isn't ready can't be asked.
fn unready(shape: &Shape) -> ReadError {
    match shape {
        Shape::Broken(_) => ReadError::BrokenQuery,
        Shape::Pending | Shape::Ready(_) => ReadError::Unprepared,
    }
}

//! Everything on the query listener that is no query: the list, what client developers read, health, the pages of problems.

use http::Method;
use http::header::{self, HeaderMap, HeaderValue};
use hyper::body::Incoming;

use super::gate::Gate;
use super::problem::{Code, Problem};
use super::read::Service;
use super::reply::Reply;
use super::response::{self, Response};
use super::{docs, list, openapi, pages};
use crate::clock::Moment;
use crate::readthrough::Route;

impl Service {
    /// Everything that is no query: the list, health, the pages of problems.
    #[cold]
    pub(super) fn elsewhere(&self, request: &http::Request<Incoming>, started: Moment) -> Reply {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let path = request.uri().path();
        let gate = self.gate();
        let mut response = match (path, path.strip_prefix("/problems/")) {
            ("/v1/queries" | "/openapi.json" | "/docs" | "/livez" | "/readyz", _) | (_, Some(_)) if !get => {
                Problem::method(request.method(), "GET, HEAD").respond(request.headers())
            }
            ("/v1/queries", _) => match gate.admit(request.headers()) {
                Ok(visitor) => list::queries(self.read(), &|route| visitor.may_ask(route)),
                Err(problem) => return self.reject(self.read().unknown(), started, problem, request.headers()),
            },
            ("/openapi.json" | "/docs", _) => match self.describe(&gate, path, request.headers()) {
                Ok(response) => response,
                Err(problem) => return self.reject(self.read().unknown(), started, problem, request.headers()),
            },
            ("/livez", _) => super::admin::alive(),
            // Reasons name queries, which not everybody is to know of.
            ("/readyz", _) if gate.is_guarded() => self.readiness().respond_briefly(self.read()),
            ("/readyz", _) => self.readiness().respond(self.read()),
            (_, Some(code)) => pages::problem(code),
            (_, None) => {
                let problem = Problem::new(Code::UnknownPath, "see GET /v1/queries, or /docs");
                return self.reject(self.read().unknown(), started, problem, request.headers());
            }
        };
        if gate.is_guarded() && matches!(path, "/v1/queries" | "/openapi.json" | "/docs") {
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("authorization"));
        }
        if *request.method() == Method::HEAD { response::headless(response).into() } else { response.into() }
    }

    /// What client developers read, of what the caller may ask. The page is there for whoever has no token yet, too: it asks for
    /// one.
    fn describe(&self, gate: &Gate, path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        let access = if gate.is_guarded() { openapi::Access::Guarded } else { openapi::Access::Open };
        let is_page = path == "/docs";
        let visitor = match gate.admit(headers) {
            Ok(visitor) => visitor,
            Err(_) if is_page && !headers.contains_key(header::AUTHORIZATION) => {
                return Ok(docs::page(self.read(), &|_| false, access));
            }
            Err(problem) => return Err(problem),
        };
        let sees = |route: &Route| visitor.may_ask(route);
        Ok(if is_page {
            docs::page(self.read(), &sees, access)
        } else {
            openapi::respond(self.read(), &sees, access, headers)
        })
    }
}

//! `GET /openapi.json`: the queries that the caller may ask as an OpenAPI 3.1 document, made from the types that Postgres has
//! told. Made for each request: it is asked for by people and generators, and it is different for each caller.

mod schema;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use super::problem::Code;
use super::response::{self, Response, ResponseBody};
use crate::catalog::params::{Param, ParamType};
use crate::catalog::{Prepared, ResultForm};
use crate::readthrough::{Readthrough, Route};
pub(super) use schema::example;

/// Whether callers need a token, for the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody may ask everything.
    Open,
    /// Some may.
    Guarded,
}

/// The document as a response; 304 where the request has it already.
pub(super) fn respond(
    read: &Readthrough,
    sees: &dyn Fn(&Route) -> bool,
    access: Access,
    headers: &HeaderMap,
) -> Response {
    let text = document(read, sees, access).to_string();
    let etag = format!("\"{:032x}\"", xxhash_rust::xxh3::xxh3_128(text.as_bytes()));
    let is_known = response::matches(headers, etag.as_bytes());
    let mut response = Response::new(if is_known { ResponseBody::default() } else { ResponseBody::bytes(text) });
    *response.status_mut() = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        fields.insert(header::ETAG, etag);
    }
    response
}

/// The document of what `sees` shows.
pub(super) fn document(read: &Readthrough, sees: &dyn Fn(&Route) -> bool, access: Access) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in read.routes().iter().filter(|route| sees(route)) {
        paths.insert(format!("/v1/queries/{}", route.query().name()), path(route, access));
    }
    paths.insert("/v1/queries".into(), list(access));
    for (path, summary) in [("/livez", "Whether the process turns."), ("/readyz", "Whether it is ready to be asked.")] {
        let answer = json!({ "description": "The state.", "content": { "application/json": { "schema": { "type": "object" } } } });
        let mut responses = json!({ "200": answer.clone() });
        if path == "/readyz" {
            responses["503"] = answer;
        }
        paths.insert(
            path.into(),
            json!({ "get": { "operationId": &path[1..], "summary": summary, "tags": ["service"], "security": [], "responses": responses } }),
        );
    }
    let mut components = json!({
        "schemas": { "Problem": problem_schema() },
        "headers": headers(),
        "responses": { "NotModified": {
            "description": "The representation that If-None-Match names is still the present one.",
            "headers": cached_headers()
        } },
    });
    if access == Access::Guarded {
        components["securitySchemes"] = json!({ "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API token, or a JWT."
        } });
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Seawall",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Named queries, answered as the JSON that Postgres made. The body of an answer is the result itself. \
                            Answers are kept, and say by Cache-Status (RFC 9211) where they came from; ask again with If-None-Match.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" }
        },
        "servers": [{ "url": "/" }],
        "tags": [{ "name": "queries" }, { "name": "service" }],
        "paths": paths,
        "components": components,
    })
}

fn list(access: Access) -> Value {
    let mut responses = json!({ "200": {
        "description": "Names, parameters, types and result columns.",
        "content": { "application/json": { "schema": {
            "type": "object",
            "properties": { "queries": { "type": "array", "items": { "type": "object" } } },
            "required": ["queries"]
        } } }
    } });
    if access == Access::Guarded {
        responses["401"] = problems(&[Code::Unauthorized]);
        responses["429"] = problems(&[Code::TooManyRequests]);
    }
    let mut operation = json!({ "operationId": "queries", "summary": "What can be asked.", "tags": ["service"], "responses": responses });
    secure(&mut operation, access);
    json!({ "get": operation })
}

fn secure(operation: &mut Value, access: Access) {
    if access == Access::Guarded {
        // Where a query may be asked without one, an empty requirement says so.
        operation["security"] = json!([{ "token": [] }, {}]);
    }
}

fn path(route: &Route, access: Access) -> Value {
    let query = route.query();
    let (name, declaration) = (query.name(), query.declaration());
    let prepared = query.prepared();
    let summary = declaration.description.lines().next().unwrap_or_default();
    let responses = responses(declaration.result, prepared.as_deref(), access);
    let asked: Vec<&Param> = prepared.iter().flat_map(|prepared| prepared.asked()).collect();
    let mut parameters: Vec<Value> = asked.iter().map(|param| in_query(param)).collect();
    parameters.extend(request_headers());
    let mut get = json!({
        "operationId": name,
        "tags": ["queries"],
        "parameters": parameters,
        "responses": responses,
    });
    let mut post = json!({
        "operationId": format!("{name}_post"),
        "tags": ["queries"],
        "parameters": request_headers(),
        "requestBody": body(&asked),
        "responses": responses,
    });
    for code in ["413", "415"] {
        let codes: &[Code] = if code == "413" { &[Code::BodyTooLarge] } else { &[Code::NotJson] };
        post["responses"][code] = problems(codes);
    }
    post["responses"]["408"] = problems(&[Code::RequestTimeout]);
    for operation in [&mut get, &mut post] {
        if !summary.is_empty() {
            operation["summary"] = json!(summary);
            operation["description"] = json!(declaration.description);
        }
        secure(operation, access);
    }
    json!({ "get": get, "post": post })
}

fn in_query(param: &Param) -> Value {
    let mut shown = json!({
        "name": param.name,
        "in": "query",
        "required": param.required && param.default.is_none(),
        "example": schema::example(param),
        "description": param.kind.to_string(),
    });
    match &param.kind {
        // As `ids=1&ids=2`; a JSON list does as well.
        ParamType::Array(_) => {
            shown["schema"] = schema::parameter(param);
            shown["style"] = json!("form");
            shown["explode"] = json!(true);
        }
        ParamType::Json | ParamType::Jsonb => {
            if let Some(object) = shown.as_object_mut() {
                object.remove("example");
            }
            shown["content"] = json!({ "application/json": { "schema": schema::parameter(param) } });
        }
        _ => {
            let mut schema = schema::parameter(param);
            // In a URI there is no null: it is absent.
            if let Some(Value::Array(kinds)) = schema.get("type").cloned() {
                schema["type"] = kinds.into_iter().next().unwrap_or_default();
            }
            shown["schema"] = schema;
        }
    }
    shown
}

fn body(asked: &[&Param]) -> Value {
    let properties: Map<String, Value> =
        asked.iter().map(|param| (param.name.to_string(), schema::parameter(param))).collect();
    let example: Map<String, Value> =
        asked.iter().map(|param| (param.name.to_string(), schema::example(param))).collect();
    let required: Vec<&str> =
        asked.iter().filter(|p| p.required && p.default.is_none()).map(|param| &*param.name).collect();
    json!({
        "required": true,
        "content": { "application/json": {
            "schema": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false
            },
            "example": example
        } }
    })
}

fn request_headers() -> Vec<Value> {
    let of = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema });
    let field = |name: &str, description: &str| of(name, description, json!({ "type": "string" }));
    vec![
        field("If-None-Match", "The ETag of an answer that the client has: 304 where it is still the present one."),
        field(
            "Cache-Control",
            "no-cache and max-age=0 validate, max-age=n and max-stale bound the age, only-if-cached never asks Postgres.",
        ),
        of(
            "Seawall-After",
            "What seawall.token() gave in a transaction: the answer contains that write.",
            json!({ "type": "string", "pattern": "^(.+:)?[0-9]{1,19}$" }),
        ),
        of("Seawall-Debug", "1: Seawall-Stamp on the answer.", json!({ "const": "1" })),
        field("traceparent", "W3C Trace Context; a problem document has its trace id."),
    ]
}

fn cached_headers() -> Value {
    let names = ["ETag", "Age", "Cache-Control", "Vary", "Cache-Status", "Seawall-Stamp"];
    let all: Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })))
        .collect();
    Value::Object(all)
}

fn headers() -> Value {
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "ETag": text("Of the body, and of the coding that it is sent in: an unchanged refill keeps it."),
        "Vary": text("Fields of the request that the answer depends on."),
        "Age": { "description": "Seconds since the answer was read.", "schema": { "type": "integer", "minimum": 0 } },
        "Cache-Control": text("For how long, and for whom, the answer may be kept without asking."),
        "Cache-Status": text("RFC 9211: a hit, stale and why, or forwarded to Postgres and why."),
        "Seawall-Stamp": text("The snapshot that the answer was read under, where it is asked for."),
        "Retry-After": { "description": "Seconds.", "schema": { "type": "integer", "minimum": 0 } },
        "Allow": text("The methods that there are."),
        "WWW-Authenticate": text("Bearer, and what is wrong with the token."),
    })
}

fn responses(form: ResultForm, prepared: Option<&Prepared>, access: Access) -> Value {
    let schema = prepared.map_or_else(|| json!({}), |prepared| schema::answer(form, prepared));
    let mut all = json!({
        "200": {
            "description": "The result.",
            "headers": cached_headers(),
            "content": { "application/json": { "schema": schema } }
        },
        "304": { "$ref": "#/components/responses/NotModified" },
        "400": problems(&[Code::BadParameter, Code::BadRequest]),
        "404": problems(if form == ResultForm::Rows { &[Code::UnknownQuery] } else { &[Code::NoRow, Code::UnknownQuery] }),
        "406": problems(&[Code::NotAcceptable]),
        "409": problems(&[Code::LineageChanged]),
        "414": problems(&[Code::UriTooLong]),
        "422": problems(&[Code::TooManyRows, Code::ResultTooLarge]),
        "431": problems(&[Code::TooManyHeaders]),
        "500": problems(&[Code::NotOneRow, Code::QueryBroken, Code::Internal]),
        "503": problems(&[Code::Overloaded, Code::NoConnection, Code::OriginAway, Code::OriginBehind]),
        "504": problems(&[Code::Deadline, Code::AfterNotVisible, Code::NotCached]),
    });
    if access == Access::Guarded {
        all["401"] = problems(&[Code::Unauthorized]);
        all["403"] = problems(&[Code::ClaimRefused]);
        all["429"] = problems(&[Code::TooManyRequests]);
    }
    all
}

fn problems(codes: &[Code]) -> Value {
    let description = codes.iter().map(|code| code.title()).collect::<Vec<_>>().join(". Or: ");
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let mut response = json!({
        "description": description,
        "content": { "application/problem+json": { "schema": {
            "allOf": [
                { "$ref": "#/components/schemas/Problem" },
                { "properties": { "code": { "enum": names } } }
            ]
        } } }
    });
    let field = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    let status = codes.first().map(|code| code.status());
    if matches!(status, Some(StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)) {
        response["headers"] = json!({ "Retry-After": field("Retry-After") });
    } else if status == Some(StatusCode::UNAUTHORIZED) {
        response["headers"] = json!({ "WWW-Authenticate": field("WWW-Authenticate") });
    } else if codes.contains(&Code::NoRow) {
        response["headers"] = cached_headers();
    }
    response
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457. What each code means is at its type, /problems/{code}.",
        "properties": {
            "type": { "type": "string", "format": "uri-reference" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "code": { "type": "string", "enum": Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>() },
            "errors": { "type": "array", "items": {
                "type": "object",
                "properties": {
                    "param": { "type": "string" },
                    "detail": { "type": "string" },
                    "hint": { "type": "string" }
                },
                "required": ["param", "detail", "hint"]
            } },
            "retry_after": { "type": "integer", "minimum": 0 },
            "trace_id": { "type": "string" }
        },
        "required": ["type", "title", "status", "detail", "code"]
    })
}

//! `POST /v1/invalidate`: an operator's request into tags, and what has become of it into a document.
//!
//! ```json
//! { "tags": ["shop.products:id=42", "region:eu"] }
//! { "query": "product", "params": { "id": 42 }, "mode": "purge" }
//! { "query": "product" }
//! { "all": true }
//! ```

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::problem::{Code, Problem};
use super::response::{self, Response};
use crate::catalog::args::{self, BadParam, KeyBuf};
use crate::catalog::claims::Claims;
use crate::catalog::sql::claim_of;
use crate::readthrough::{Mode, Reach, Readthrough};
use crate::tag::Tag;

/// Most tags of one request: each is a row of the log, and more are better said as a table, a query or all.
const MAX_TAGS: usize = 1_000;

/// Longest tag in bytes: with it a row of the log still fits its index.
const TAG_MAX_BYTES: usize = 1_000;

/// Largest body of a request: as many tags as there may be, of some sixty bytes each.
pub const BODY_MAX_BYTES: usize = 64 << 10;

const FIELDS: [&str; 5] = ["tags", "query", "params", "all", "mode"];

/// Invalidates what `body` says.
pub async fn respond(read: &Arc<Readthrough>, headers: &HeaderMap, body: &[u8]) -> Response {
    let (tags, mode) = match parse(read, body) {
        Ok(asked) => asked,
        Err(problem) => return problem.respond(headers),
    };
    match read.invalidate(&tags, mode).await {
        Ok(reach) => response::json(StatusCode::OK, &document(&tags, mode, reach)),
        Err(error) => {
            tracing::warn!(%error, "an invalidation by hand failed");
            Problem::read(&crate::readthrough::ReadError::Origin(error).into(), read.clock().now()).respond(headers)
        }
    }
}

fn document(tags: &[String], mode: Mode, reach: Reach) -> Value {
    let (reach, note) = match reach {
        Reach::Everywhere => ("all", "in the log, and in force in this process"),
        Reach::Logged => ("all", "in the log; this process's event stream has not come so far yet"),
        Reach::Notified => ("all", "in force in this process, and every other that listens has been notified"),
        Reach::Here => ("this", "in force in this process alone: there is no event log; see seawall migrate"),
    };
    let mode = match mode {
        Mode::Expire => "expire",
        Mode::Purge => "purge",
    };
    json!({ "tags": tags, "mode": mode, "pods": reach, "detail": note })
}

/// Tags, and what becomes of what depends on them; or everything that is wrong with the request.
fn parse(read: &Readthrough, body: &[u8]) -> Result<(Vec<String>, Mode), Problem> {
    let usage = "send {\"tags\": [\"…\"]}, {\"query\": \"…\", \"params\": {…}}, {\"query\": \"…\"} or {\"all\": true}";
    let object: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| Problem::parameters(vec![bad("", format!("the body is no JSON object: {error}"), usage)]))?;
    let mut wrong: Vec<BadParam> = object
        .keys()
        .filter(|key| !FIELDS.contains(&key.as_str()))
        .take(16)
        .map(|key| bad(key, "there is no such field", &format!("fields are {}", FIELDS.join(", "))))
        .collect();
    let mode = match object.get("mode") {
        None => Mode::Expire,
        Some(Value::String(text)) if text == "expire" => Mode::Expire,
        Some(Value::String(text)) if text == "purge" => Mode::Purge,
        Some(_) => {
            wrong.push(bad("mode", "it is neither of its two values", "write \"expire\" or \"purge\""));
            Mode::Expire
        }
    };
    let tags = match (object.get("tags"), object.get("query"), object.get("all")) {
        (Some(tags), None, None) => texts(tags),
        (None, Some(query), None) => return finish(wrong, of_query(read, query, object.get("params"))?, mode),
        (None, None, Some(Value::Bool(true))) => Ok(vec!["*".to_owned()]),
        (None, None, Some(_)) => Err(vec![bad("all", "it is not true", "write true, or leave it out")]),
        _ => Err(vec![bad("", "it takes one of tags, query and all", usage)]),
    };
    if object.contains_key("params") {
        wrong.push(bad("params", "there is no query that they are for", "name it in query"));
    }
    match tags {
        Ok(tags) => finish(wrong, tags, mode),
        Err(more) => {
            wrong.extend(more);
            Err(Problem::parameters(wrong))
        }
    }
}

fn finish(wrong: Vec<BadParam>, tags: Vec<String>, mode: Mode) -> Result<(Vec<String>, Mode), Problem> {
    if wrong.is_empty() { Ok((tags, mode)) } else { Err(Problem::parameters(wrong)) }
}

fn texts(tags: &Value) -> Result<Vec<String>, Vec<BadParam>> {
    let hint = "send an array of 1 to 1000 texts, as [\"shop.products:id=42\"]";
    let Some(list) = tags.as_array().filter(|list| (1..=MAX_TAGS).contains(&list.len())) else {
        return Err(vec![bad("tags", "it is no array of 1 to 1000 texts", hint)]);
    };
    let mut texts = vec![];
    for (place, tag) in list.iter().enumerate() {
        let name = format!("tags[{place}]");
        match tag.as_str() {
            None => return Err(vec![bad(&name, "it is no text", hint)]),
            Some(text) if text.is_empty() || text.len() > TAG_MAX_BYTES => {
                return Err(vec![bad(&name, format!("it has {} bytes", text.len()), "a tag has 1 to 1000 bytes")]);
            }
            Some(text) if text.starts_with('!') || text.chars().any(char::is_control) => {
                return Err(vec![bad(&name, "no tag begins with ! or has control characters", "write the tag alone")]);
            }
            Some(text) => texts.push(text.to_owned()),
        }
    }
    Ok(texts)
}

/// The tag of a query, or of one of its keys.
fn of_query(read: &Readthrough, query: &Value, params: Option<&Value>) -> Result<Vec<String>, Problem> {
    let routes = read.routes();
    let Some(route) = query.as_str().and_then(|name| routes.find(name)) else {
        return Err(Problem::new(Code::UnknownQuery, "GET /v1/queries lists what there is"));
    };
    let Some(params) = params else { return Ok(vec![format!("query:{}", route.query().name())]) };
    let Some(prepared) = route.query().prepared() else {
        return Err(Problem::new(
            Code::OriginAway,
            "the query has not been prepared; without params it can be invalidated",
        ));
    };
    // Here an operator says whose answer is meant: {"id": 42, "claims.org_id": 7}.
    let (mut own, mut claimed) = (Map::new(), Map::new());
    for (name, value) in params.as_object().into_iter().flatten() {
        match claim_of(name) {
            Some(claim) => claimed.insert(claim.to_owned(), value.clone()),
            None => own.insert(name.clone(), value.clone()),
        };
    }
    let given = if params.is_object() { Value::Object(own) } else { params.clone() };
    let claims = Claims::new(claimed.iter().map(|(name, value)| (name.as_str(), value)));
    let mut key = KeyBuf::new();
    args::key_from_json_by(&claims, &prepared, given.to_string().as_bytes(), &mut key)
        .map_err(|why| Problem::parameters(why.into_parameters()))?;
    Ok(vec![Tag::key_text(&key)])
}

fn bad(param: &str, detail: impl Into<String>, hint: &str) -> BadParam {
    BadParam { param: param.chars().take(64).collect(), detail: detail.into(), hint: hint.to_owned() }
}

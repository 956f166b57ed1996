//! `GET /v1/queries`: what can be asked.

use http::StatusCode;
use serde_json::{Value, json};

use super::response::{self, Response};
use crate::catalog::{Prepared, Shape};
use crate::readthrough::{Readthrough, Route};

/// Names, parameters, types and result columns, of what the caller sees. A broken query is listed as such, without the reason.
pub fn queries(read: &Readthrough, sees: &dyn Fn(&Route) -> bool) -> Response {
    let queries: Vec<Value> = read.routes().iter().filter(|route| sees(route)).map(|route| query(route)).collect();
    response::json(StatusCode::OK, &json!({ "queries": queries }))
}

fn query(route: &Route) -> Value {
    let query = route.query();
    let mut listed = json!({
        "name": query.name(),
        "path": format!("/v1/queries/{}", query.name()),
        "description": query.declaration().description,
        "result": query.declaration().result.as_str(),
        "status": status(&query.shape()),
    });
    if let Some(prepared) = query.prepared() {
        describe(&prepared, &mut listed);
    }
    listed
}

/// A shape in a word.
pub(super) fn status(shape: &Shape) -> &'static str {
    match shape {
        Shape::Ready(_) => "ready",
        Shape::Pending => "pending",
        Shape::Broken(_) => "broken",
    }
}

fn describe(prepared: &Prepared, listed: &mut Value) {
    listed["params"] = prepared
        .asked()
        .map(|param| {
            let mut shown = json!({
                "name": param.name,
                "type": param.kind.to_string(),
                "required": param.required && param.default.is_none(),
            });
            if let Some(default) = &param.default {
                shown["default"] = json!(default);
            }
            shown
        })
        .collect();
    listed["columns"] = prepared
        .columns
        .iter()
        .map(|column| json!({ "name": column.name, "type": column.type_name, "nullable": column.nullable }))
        .collect();
}

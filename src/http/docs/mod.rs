//! `GET /docs`: one page on which a developer reads what can be asked, and tries it. Nothing comes from elsewhere, and without
//! its script it is still a reference.
//!
//! Every text of the configuration is escaped; the script is the page's own, allowed by its digest. Where a token is needed, the
//! page is shown to everybody without queries, and asks for one: see `page.js`.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use http::StatusCode;
use http::header::{self, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::openapi::{self, Access};
use super::response::{self, Response};
use crate::catalog::params::{Param, ParamType};
use crate::catalog::{ResultForm, Shape};
use crate::readthrough::{Readthrough, Route};

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

/// The script by its digest, answers from here, and nothing else.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(JS));
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// The page of what `sees` shows.
pub(super) fn page(read: &Readthrough, sees: &dyn Fn(&Route) -> bool, access: Access) -> Response {
    let routes = read.routes();
    let shown: Vec<_> = routes.iter().filter(|route| sees(route)).collect();
    let mut nav = String::new();
    let mut sections = String::new();
    for route in &shown {
        // Names of queries are letters, digits and _.
        let _ = write!(nav, "<a href=\"#{0}\">{0}</a>", route.query().name());
        section(route, &mut sections);
    }
    if shown.is_empty() {
        sections.push_str(match access {
            Access::Open => "<p>No query is declared.</p>",
            Access::Guarded => "<p>Nothing can be asked without a token. Enter one above to see what it may ask.</p>",
        });
    }
    let token = match access {
        Access::Open => "",
        Access::Guarded => {
            "<form class=\"access js\"><div class=\"bar\"><label style=\"flex:1 1 16rem\">Token\
             <input type=\"password\" autocomplete=\"off\" placeholder=\"API token or JWT\"></label>\
             <button>Use it</button></div><p class=\"said soft\" role=\"status\"></p></form>"
        }
    };
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Seawall: what can be asked</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><style>{CSS}</style></head><body>\n\
         <header class=\"top\"><h1>What can be asked</h1><p class=\"soft\">Named queries, answered as the JSON that Postgres made. \
         For generators: <a href=\"/openapi.json\">OpenAPI 3.1</a>. Errors: <a href=\"/problems/\">problems</a>.</p>{token}</header>\n\
         <main><nav>{nav}</nav>{sections}</main>\n<footer>Seawall {version}</footer>\n<script>{JS}</script></body></html>\n",
        version = env!("CARGO_PKG_VERSION"),
    );
    let mut response = response::html(StatusCode::OK, html);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Text as HTML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn section(route: &Route, out: &mut String) {
    let query = route.query();
    let (name, declaration) = (query.name(), query.declaration());
    let form = match declaration.result {
        ResultForm::Rows => "a list of rows",
        ResultForm::Row => "one row, or 404",
        ResultForm::Value => "one value, or 404",
    };
    let state = match &**query.shape() {
        Shape::Ready(_) => "",
        Shape::Pending => "<span class=\"chip\">not prepared yet</span>",
        Shape::Broken(_) => "<span class=\"chip broken\">broken</span>",
    };
    let _ = write!(
        out,
        "<section id=\"{name}\"><header><h2>{name}</h2><span class=\"mono\">GET /v1/queries/{name}</span>\
         <span class=\"chip\">{form}</span>{state}</header><div>"
    );
    for paragraph in declaration.description.split("\n\n").filter(|text| !text.trim().is_empty()) {
        let _ = write!(out, "<p>{}</p>", escaped(paragraph));
    }
    if let Some(prepared) = query.prepared() {
        let asked: Vec<&Param> = prepared.asked().collect();
        if prepared.is_personal() {
            out.push_str("<p class=\"soft\">The answer depends on the claims of the caller's token.</p>");
        }
        if !asked.is_empty() {
            out.push_str("<h3>Parameters</h3><table class=\"wide\"><thead><tr><th>name</th><th>type</th><th>absent</th><th>bounds</th></tr></thead><tbody>");
            for param in &asked {
                parameter(param, out);
            }
            out.push_str("</tbody></table>");
        }
        out.push_str("<h3>Columns</h3><table><tbody>");
        for column in &prepared.columns {
            let null = if column.nullable { "may be null" } else { "never null" };
            let _ = write!(
                out,
                "<tr><td><code>{}</code></td><td class=\"mono\">{}</td><td class=\"soft\">{null}</td></tr>",
                escaped(&column.name),
                escaped(&column.type_name)
            );
        }
        out.push_str("</tbody></table><h3>Try it</h3>");
        let _ = write!(out, "<form class=\"try\" data-path=\"/v1/queries/{name}\"><div class=\"fields\">");
        for param in &asked {
            field(param, out);
        }
        out.push_str("</div><button class=\"js\">Ask</button></form><pre class=\"curl\"></pre><div class=\"answer\" aria-live=\"polite\"></div>");
    }
    out.push_str("</div></section>\n");
}

fn parameter(param: &Param, out: &mut String) {
    let absent = match (&param.default, param.required) {
        (Some(default), _) => format!("<code>{}</code>", escaped(default)),
        (None, true) => "required".to_owned(),
        (None, false) => "NULL".to_owned(),
    };
    let mut bounds: Vec<String> = vec![];
    bounds.extend(param.min.map(|min| format!("at least {min}")));
    bounds.extend(param.max.map(|max| format!("at most {max}")));
    bounds.extend(param.max_length.map(|length| format!("{length} characters")));
    if let ParamType::Enum(_, labels) = &param.kind {
        bounds.push(labels.iter().map(|label| escaped(label)).collect::<Vec<_>>().join(", "));
    }
    let _ = write!(
        out,
        "<tr><td><code>{}</code></td><td class=\"mono\">{}</td><td>{absent}</td><td class=\"soft\">{}</td></tr>",
        param.name,
        escaped(&param.kind.to_string()),
        bounds.join(", ")
    );
}

fn field(param: &Param, out: &mut String) {
    let name = &param.name;
    let value = match openapi::example(param) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let value = if param.required || param.default.is_some() { escaped(&value) } else { String::new() };
    let _ = write!(out, "<label>{name} <span class=\"soft\">{}</span>", escaped(&param.kind.to_string()));
    match &param.kind {
        ParamType::Bool => choices(name, param, ["true", "false"].into_iter(), out),
        ParamType::Enum(_, labels) => choices(name, param, labels.iter().map(|label| &**label), out),
        _ => {
            let _ = write!(out, "<input name=\"{name}\" value=\"{value}\" autocomplete=\"off\" spellcheck=\"false\">");
        }
    }
    out.push_str("</label>");
}

fn choices<'a>(name: &str, param: &Param, labels: impl Iterator<Item = &'a str>, out: &mut String) {
    let _ = write!(out, "<select name=\"{name}\">");
    if !param.required || param.default.is_some() {
        out.push_str("<option value=\"\">absent</option>");
    }
    for label in labels {
        let _ = write!(out, "<option>{}</option>", escaped(label));
    }
    out.push_str("</select>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(escaped("<b a='1' b=\"2\">&"), "&lt;b a=&#39;1&#39; b=&quot;2&quot;&gt;&amp;");
    }

    #[test]
    fn the_script_and_the_style_end_where_the_page_says() {
        assert!(!JS.contains("</script") && !JS.contains("<!--") && !CSS.contains("</style"));
        assert!(POLICY.to_str().is_ok_and(|policy| policy.contains("script-src 'sha256-")));
    }
}

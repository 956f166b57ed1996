//! The pages that problem documents point to: one per code, plain HTML without anything from elsewhere.

use std::fmt::Write as _;

use http::StatusCode;

use super::docs::escaped;
use super::problem::{Code, Problem};
use super::response::{self, Response};

const CSS: &str = include_str!("docs/page.css");

/// The page of the problem `code`, or of all of them for an empty one.
pub fn problem(code: &str) -> Response {
    if code.is_empty() {
        let all: String = Code::ALL.iter().map(|&code| section(code)).collect();
        let lead = "<p class=\"soft\">Every error is a problem document (RFC 9457) with one of these codes. Codes are stable: match on \
                    them, not on titles.</p>";
        return response::html(StatusCode::OK, page("Problems", lead, &all));
    }
    match Code::ALL.iter().find(|known| known.as_str() == code) {
        Some(&code) => {
            let lead = "<p class=\"soft\"><a href=\"/problems/\">All problems</a> · <a href=\"/docs\">What can be asked</a></p>";
            response::html(StatusCode::OK, page(code.title(), lead, &section(code)))
        }
        None => Problem::new(Code::UnknownPath, "no such problem; see /problems/").respond_with(None),
    }
}

/// Whether the same request may succeed later, by its status.
fn again(status: StatusCode) -> &'static str {
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            "Yes, after the seconds in <code>Retry-After</code>, with some jitter."
        }
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "Yes, but not at once: back off.",
        StatusCode::INTERNAL_SERVER_ERROR => "It won't help by itself: the operator has to look.",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "With another token.",
        StatusCode::CONFLICT => "Not as it is.",
        _ => "Not as it is: the request has to change.",
    }
}

fn section(code: Code) -> String {
    let status = code.status();
    let example = serde_json::json!({
        "type": format!("/problems/{}", code.as_str()),
        "title": code.title(),
        "status": status.as_u16(),
        "detail": "what is particular to this occurrence",
        "code": code.as_str(),
    });
    let mut text = format!(
        "<section id=\"{name}\"><header><h2><code>{name}</code></h2><span class=\"chip\">{status}</span></header><div>\
         <p><b>{title}.</b></p><p>{advice}</p><h3>Try again?</h3><p>{again}</p>",
        name = code.as_str(),
        title = escaped(code.title()),
        advice = escaped(code.advice()),
        again = again(status),
    );
    let pretty = serde_json::to_string_pretty(&example).unwrap_or_default();
    let _ = writeln!(text, "<h3>As a document</h3><pre>{}</pre></div></section>", escaped(&pretty));
    text
}

/// Titles and advice are constants; nothing of a request comes into a page.
fn page(title: &str, lead: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Seawall: {title}</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><style>{CSS}</style></head><body>\n\
         <header class=\"top\"><h1>{title}</h1>{lead}</header>\n<main>{content}</main></body></html>\n",
        title = escaped(title),
    )
}

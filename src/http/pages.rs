//! The pages that problem documents point to: one per code, plain HTML without anything from elsewhere.

use http::StatusCode;

use super::problem::{Code, Problem};
use super::response::{self, Response};

/// The page of the problem `code`, or of all of them for an empty one.
pub fn problem(code: &str) -> Response {
    if code.is_empty() {
        let all: String = Code::ALL.iter().map(|&code| section(code)).collect();
        return response::html(StatusCode::OK, page("Problems", &all));
    }
    match Code::ALL.iter().find(|known| known.as_str() == code) {
        Some(&code) => response::html(StatusCode::OK, page(code.title(), &section(code))),
        None => Problem::new(Code::UnknownPath, "no such problem; see /problems/").respond_with(None),
    }
}

fn section(code: Code) -> String {
    format!(
        "<h2><code>{code}</code></h2><p><b>{title}.</b> Status {status}.</p><p>{advice}</p>\n",
        code = code.as_str(),
        title = code.title(),
        status = code.status(),
        advice = code.advice(),
    )
}

/// Titles and advice are constants without markup of their own; nothing of a request comes into a page.
fn page(title: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Seawall: {title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>body{{font:16px/1.5 system-ui,sans-serif;\
         max-width:42rem;margin:3rem auto;padding:0 1rem;color:#1a2b3c}}code{{background:#eef3f7;padding:.1em .3em;\
         border-radius:3px}}h2{{margin-bottom:.2em;font-size:1.2rem}}</style></head><body>\n{content}</body></html>\n"
    )
}

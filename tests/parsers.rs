//! What clients and operators write, in quantities that nobody writes by hand.
//!
//! Every property holds for `SEAWALL_FUZZ_CASES` cases (10,000 unless set). Not covered: that Postgres reads a canonical
//! form as the value it came from, and that its lexer agrees with ours; both need a server.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use seawall::catalog::Prepared;
use seawall::catalog::args::{KeyBuf, key_from_json, key_from_uri, values};
use seawall::catalog::params::{Param, ParamType};
use seawall::catalog::sql::Statement;

fn config() -> ProptestConfig {
    let cases = std::env::var("SEAWALL_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Pieces that mean something to a lexer, whole and cut.
const FRAGMENTS: [&str; 72] = [
    "SELECT ",
    "select 1",
    "WITH a AS (",
    "VALUES",
    "1",
    "1.5e3",
    "12ab",
    "0x1F",
    "a",
    "é",
    "_b",
    "\"q\"",
    "\"",
    "\"\"",
    "'",
    "''",
    "'s'",
    "E'",
    "e'\\''",
    "\\",
    "\\'",
    "U&'",
    "U&\"",
    "B'01'",
    "N'x'",
    "$",
    "$$",
    "$t$",
    "$t",
    "$1",
    "a$b$",
    ":",
    "::",
    ":=",
    ":a",
    ":b1",
    ":Bad",
    ":e'",
    ":x",
    "[",
    "]",
    "[1:2]",
    "(",
    ")",
    "((",
    "))",
    ",",
    ".",
    ";",
    "--",
    "--\n",
    "-",
    "/*",
    "*/",
    "/",
    "*",
    "+",
    "\n",
    "\r",
    "\r\n",
    " ",
    "\t",
    "\u{b}",
    "\u{a0}",
    "\0",
    " AND ",
    "FOR UPDATE",
    " AS ",
    "INSERT INTO ",
    "json_object(",
    "__seawall_row",
    "FROM t",
];

fn sql() -> impl Strategy<Value = String> {
    // Half of them begin as a query does, and are balanced more often, so that enough are accepted.
    let balanced = select(vec![
        "(1)",
        "(:a)",
        "'x'",
        "E'\\''",
        "$$)$$",
        "\"(\"",
        "/* ( */",
        "/* /* */ ) */",
        "/* /* */",
        "-- (\n",
        "[1]",
        "[:a]",
        "1",
        ",",
        " ",
        "+",
        ";",
        "\n",
        ":a",
        ":b",
        "E'a'\n'\\')'",
        "--)\r",
        "::int4",
        "a",
        "f(",
        ")",
    ]);
    prop_oneof![
        vec(select(&FRAGMENTS[..]), 0..24).prop_map(|pieces| pieces.concat()),
        vec(select(&FRAGMENTS[..]), 0..8).prop_map(|pieces| format!("SELECT {}", pieces.concat())),
        vec(balanced, 0..16).prop_map(|pieces| format!("SELECT {}", pieces.concat())),
    ]
}

/// What is left of a statement when literals and comments are blanked, by a second reading of the manual: one regular
/// pass over characters, with nothing of the lexer in it. None where a literal or comment has no end.
fn bare(sql: &str) -> Option<String> {
    let chars: Vec<char> = sql.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let wordy = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if starts(at, "--") {
            while at < chars.len() && chars[at] != '\n' && chars[at] != '\r' {
                at += 1;
            }
            out.push(' ');
        } else if starts(at, "/*") {
            let mut depth = 0;
            loop {
                if starts(at, "/*") {
                    depth += 1;
                    at += 2;
                } else if starts(at, "*/") {
                    depth -= 1;
                    at += 2;
                } else if at < chars.len() {
                    at += 1;
                } else {
                    return None;
                }
                if depth == 0 {
                    break;
                }
            }
            out.push(' ');
        } else if c == '\'' || c == '"' {
            let escapes = c == '\'' && matches!(out.chars().last(), Some('e' | 'E')) && {
                let before = out.chars().rev().nth(1);
                before.is_none_or(|b| !wordy(b))
            };
            at += 1;
            loop {
                match chars.get(at) {
                    None => return None,
                    Some('\\') if escapes => at += 2,
                    Some(q) if *q == c && chars.get(at + 1) == Some(&c) => at += 2,
                    Some(q) if *q == c => {
                        at += 1;
                        // A string goes on after a newline, in the same kind.
                        let mut ahead = at;
                        let mut newline = false;
                        loop {
                            match chars.get(ahead) {
                                Some(' ' | '\t' | '\u{b}' | '\u{c}') => ahead += 1,
                                Some('\n' | '\r') => {
                                    newline = true;
                                    ahead += 1;
                                }
                                Some('-') if chars.get(ahead + 1) == Some(&'-') => {
                                    while ahead < chars.len() && chars[ahead] != '\n' && chars[ahead] != '\r' {
                                        ahead += 1;
                                    }
                                }
                                _ => break,
                            }
                        }
                        if c == '\'' && newline && chars.get(ahead) == Some(&'\'') {
                            at = ahead + 1;
                        } else {
                            break;
                        }
                    }
                    Some(_) => at += 1,
                }
            }
            out.push('\u{1}');
        } else if c == '$' && !out.chars().last().is_some_and(wordy_but_number(&out)) {
            let mut end = at + 1;
            while chars.get(end).is_some_and(|c| *c != '$' && wordy(*c)) {
                end += 1;
            }
            let tag: String = chars[at + 1..end].iter().collect();
            if chars.get(end) == Some(&'$') && !tag.starts_with(|c: char| c.is_ascii_digit()) {
                let delimiter = format!("${tag}$");
                at = end + 1;
                while !starts(at, &delimiter) {
                    if at >= chars.len() {
                        return None;
                    }
                    at += 1;
                }
                at += delimiter.chars().count();
                out.push('\u{1}');
            } else {
                out.push('$');
                at += 1;
            }
        } else {
            out.push(c);
            at += 1;
        }
    }
    Some(out)
}

/// Whether what stands before a `$` is a word that it belongs to, rather than a number or `$1`.
fn wordy_but_number(out: &str) -> impl Fn(char) -> bool {
    let run: String = out
        .chars()
        .rev()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii())
        .collect();
    let first = run.chars().next_back();
    move |c| {
        let belongs = c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        belongs && !first.is_some_and(|f| f.is_ascii_digit() || f == '$')
    }
}

/// None where parentheses or brackets go below zero or stay open.
fn balanced(bare: &str) -> bool {
    let mut open = Vec::new();
    bare.chars().all(|c| match c {
        '(' | '[' => {
            open.push(c);
            true
        }
        ')' => open.pop() == Some('('),
        ']' => open.pop() == Some('['),
        _ => true,
    }) && open.is_empty()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_accepted_text_stays_one_statement_in_its_wrapping(text in sql()) {
        let Ok(statement) = Statement::parse(&text) else { return Ok(()) };
        for sql in [statement.render(|_| None), statement.render(|_| Some("int4".to_owned()))] {
            let inner = bare(&sql);
            prop_assert!(inner.is_some(), "no end: {sql:?}");
            let inner = inner.unwrap_or_default();
            prop_assert!(balanced(&inner) && !inner.contains(';'), "{sql:?}");
            let wrapped = bare(&format!("SELECT x FROM ({sql}\n) AS __seawall_row")).unwrap_or_default();
            prop_assert_eq!(wrapped, format!("SELECT x FROM ({inner}\n) AS __seawall_row"));
        }
        let again = Statement::parse(statement.text());
        prop_assert_eq!(again, Ok(statement));
    }

    #[test]
    fn no_text_stops_the_lexer(text in any::<String>()) {
        let _ = Statement::parse(&text);
        let _ = Statement::parse(&format!("SELECT {text}"));
    }
}

fn param(name: &str, kind: ParamType) -> Param {
    Param { name: name.into(), kind, default: None, required: true, min: None, max: None, max_length: None }
}

fn prepared(params: Vec<Param>) -> Prepared {
    Prepared {
        params,
        settings: Vec::new(),
        columns: Vec::new(),
        fingerprint: 7,
        wrapped: Arc::from(""),
        warnings: Vec::new(),
    }
}

fn scalars() -> Vec<ParamType> {
    vec![
        ParamType::Bool,
        ParamType::Int2,
        ParamType::Int4,
        ParamType::Int8,
        ParamType::Numeric,
        ParamType::Float4,
        ParamType::Float8,
        ParamType::Uuid,
        ParamType::Text("text".into()),
        ParamType::Date,
        ParamType::Timestamp,
        ParamType::Timestamptz,
        ParamType::Json,
        ParamType::Jsonb,
        ParamType::Enum("size".into(), ["small", "large", ""].map(Into::into).into()),
        ParamType::Other("interval".into()),
    ]
}

fn escaped(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn only(key: &[u8]) -> String {
    values(key).next().flatten().unwrap_or_default().to_owned()
}

/// Texts that are near to what the types take, and some that are not.
fn raw() -> impl Strategy<Value = String> {
    prop_oneof![
        "[+-]?[0-9]{1,20}",
        "[+-]?[0-9]{0,6}\\.?[0-9]{0,6}([eE][+-]?[0-9]{1,4})?",
        any::<f64>().prop_map(|f| f.to_string()),
        any::<f32>().prop_map(|f| format!("{f:e}")),
        "(?i)[+-]?(nan|inf|infinity)",
        "true|false|small|large||null",
        "\\{?([0-9a-fA-F]{4}-?){8}\\}?",
        "[0-9]{4}-[01][0-9]-[0-3][0-9]",
        "[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,6})?)?(Z|[+-][01][0-9](:?[0-5][0-9])?)?",
        json().prop_map(|v| v.to_string()),
        json().prop_map(|v| serde_json::to_string_pretty(&v).unwrap_or_default()),
        "\\PC{0,12}",
        any::<String>(),
    ]
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            vec((any::<String>(), inner), 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_canonical_form_is_its_own(raw in raw()) {
        for kind in scalars() {
            let one = prepared(vec![param("p", kind)]);
            let (mut key, mut again) = (KeyBuf::new(), KeyBuf::new());
            if key_from_uri(&one, &format!("p={}", escaped(&raw)), &mut key).is_ok() {
                let canonical = only(&key);
                let result = key_from_uri(&one, &format!("p={}", escaped(&canonical)), &mut again);
                prop_assert_eq!(result, Ok(()), "{:?} became {:?}", raw, canonical);
                prop_assert_eq!(&key, &again, "{:?} became {:?}", raw, canonical);
            }
        }
    }

    #[test]
    fn get_and_post_agree(raw in raw()) {
        for kind in scalars() {
            // Of a json parameter in a body the value itself is the JSON; as a text it would be a JSON string.
            let is_json = matches!(kind, ParamType::Json | ParamType::Jsonb);
            if is_json && (raw.trim() == "null" || serde_json::from_str::<&serde_json::value::RawValue>(&raw).is_err()) {
                continue;
            }
            let body = if is_json { raw.clone() } else { serde_json::Value::from(raw.clone()).to_string() };
            let one = prepared(vec![param("p", kind.clone())]);
            let (mut get, mut post) = (KeyBuf::new(), KeyBuf::new());
            let by_get = key_from_uri(&one, &format!("p={}", escaped(&raw)), &mut get);
            let by_post = key_from_json(&one, format!("{{\"p\":{body}}}").as_bytes(), &mut post);
            prop_assert_eq!(by_get.is_ok(), by_post.is_ok(), "{:?} as {}: {:?} {:?}", raw, kind, by_get, by_post);
            prop_assert_eq!(get, post);
        }
    }

    #[test]
    fn arrays_of_get_and_post_agree(elements in vec(raw(), 0..6)) {
        for kind in scalars() {
            let one = prepared(vec![param("p", ParamType::Array(Box::new(kind.clone())))]);
            let array = serde_json::Value::from(elements.clone()).to_string();
            let (mut get, mut post, mut repeated) = (KeyBuf::new(), KeyBuf::new(), KeyBuf::new());
            let by_get = key_from_uri(&one, &format!("p={}", escaped(&array)), &mut get);
            let by_post = key_from_json(&one, format!("{{\"p\":{array}}}").as_bytes(), &mut post);
            prop_assert_eq!(by_get.is_ok(), by_post.is_ok());
            prop_assert_eq!(&get, &post);
            if elements.len() > 1 && !matches!(kind, ParamType::Json | ParamType::Jsonb) {
                let query = elements.iter().map(|e| format!("p={}", escaped(e))).collect::<Vec<_>>().join("&");
                let by_repeating = key_from_uri(&one, &query, &mut repeated);
                prop_assert_eq!(by_get.is_ok(), by_repeating.is_ok());
                prop_assert_eq!(get, repeated);
            }
        }
    }

    #[test]
    fn values_come_back_as_they_went_in(texts in vec(proptest::option::of("[^\\x00]{0,300}"), 0..8)) {
        let params = (0..texts.len())
            .map(|n| Param { required: false, ..param(&format!("p{n}"), ParamType::Text("text".into())) })
            .collect();
        let query: String =
            texts.iter().enumerate().rev().filter_map(|(n, t)| Some(format!("p{n}={}&", escaped(t.as_ref()?)))).collect();
        let mut key = KeyBuf::new();
        prop_assert_eq!(key_from_uri(&prepared(params), &query, &mut key), Ok(()));
        let back: Vec<Option<&str>> = values(&key).collect();
        prop_assert_eq!(back, texts.iter().map(Option::as_deref).collect::<Vec<_>>());
    }

    #[test]
    fn no_request_stops_the_service(query in "[a-d=&%+0-9\\[\\],\"]{0,60}|\\PC{0,40}", body in vec(any::<u8>(), 0..200)) {
        let mut kinds = scalars();
        kinds.push(ParamType::Array(Box::new(ParamType::Int4)));
        let params = kinds.into_iter().enumerate()
            .map(|(n, kind)| param(&String::from(char::from(b'a' + u8::try_from(n).unwrap_or(0))), kind)).collect();
        let all = prepared(params);
        let mut key = KeyBuf::new();
        let _ = key_from_uri(&all, &query, &mut key);
        let _ = key_from_json(&all, &body, &mut key);
        let _ = key_from_json(&all, query.as_bytes(), &mut key);
        let _ = values(&body).count();
    }

    #[test]
    fn no_json_body_stops_the_service(body in json(), name in "[a-d]") {
        let all = prepared(scalars().into_iter().zip(["a", "b", "c", "d"]).map(|(kind, name)| param(name, kind)).collect());
        let mut key = KeyBuf::new();
        let _ = key_from_json(&all, body.to_string().as_bytes(), &mut key);
        let _ = key_from_json(&all, format!("{{\"{name}\":{body}}}").as_bytes(), &mut key);
    }
}

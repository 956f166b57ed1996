//! Keys from requests: equal where the values are, and every refusal at once.

use std::sync::Arc;

use super::super::params::ParamType;
use super::*;

fn param(name: &str, kind: ParamType) -> Param {
    Param { name: name.into(), kind, default: None, required: true, min: None, max: None, max_length: None }
}

fn prepared(params: Vec<Param>) -> Prepared {
    Prepared {
        params,
        settings: Vec::new(),
        columns: Vec::new(),
        fingerprint: 0x0102_0304_0506_0708,
        wrapped: Arc::from(""),
        warnings: Vec::new(),
    }
}

fn shop() -> Prepared {
    let optional = Param { required: false, ..param("note", ParamType::Text("text".into())) };
    let with_default = Param { default: Some("10".into()), ..param("limit", ParamType::Int4) };
    prepared(vec![
        param("id", ParamType::Int4),
        optional,
        param("ids", ParamType::Array(Box::new(ParamType::Int4))),
        with_default,
    ])
}

fn uri(prepared: &Prepared, query: &str) -> Result<Vec<u8>, Vec<BadParam>> {
    let mut key = KeyBuf::new();
    let result = key_from_uri(prepared, query, &mut key);
    assert_eq!(result.is_err(), key.is_empty(), "a refused request leaves no key");
    result.map(|()| key.to_vec())
}

fn json(prepared: &Prepared, body: &str) -> Result<Vec<u8>, Vec<BadParam>> {
    let mut key = KeyBuf::new();
    let result = key_from_json(prepared, body.as_bytes(), &mut key);
    assert_eq!(result.is_err(), key.is_empty(), "a refused request leaves no key");
    result.map(|()| key.to_vec())
}

fn names(result: Result<Vec<u8>, Vec<BadParam>>) -> Vec<String> {
    result.expect_err("it was taken").into_iter().map(|bad| bad.param).collect()
}

#[track_caller]
fn refused(result: Result<Vec<u8>, Vec<BadParam>>, param: &str, detail: &str, hint: &str) {
    let bad = result.expect_err("it was taken");
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(bad[0].param, param, "{bad:?}");
    assert!(bad[0].detail.contains(detail) && bad[0].hint.contains(hint), "{bad:?}");
}

#[test]
fn a_key_is_the_fingerprint_and_then_each_value() {
    let key = uri(&shop(), "id=042&ids=[1,2]").unwrap();
    assert_eq!(key, b"\x08\x07\x06\x05\x04\x03\x02\x01\x01\x0242\x00\x01\x05{1,2}\x01\x0210");
    assert_eq!(values(&key).collect::<Vec<_>>(), [Some("42"), None, Some("{1,2}"), Some("10")]);
    let key = uri(&prepared(Vec::new()), "").unwrap();
    assert_eq!(key.len(), 8);
    assert_eq!(values(&key).count(), 0);
}

#[test]
fn get_and_post_give_the_same_key() {
    let shop = shop();
    let key = uri(&shop, "id=42&ids=[1,2]&note=a+b%C3%A9%2B").unwrap();
    for query in ["ids=1&note=a%20b%c3%a9%2b&id=%2B42&ids=2", "&&limit=010&id=42&&ids=1&ids=%32&note=a+bé%2B&"] {
        assert_eq!(uri(&shop, query).as_ref(), Ok(&key), "{query}");
    }
    for body in [
        r#"{"id":42,"ids":[1,2],"note":"a bé+"}"#,
        " { \"\\u0069d\" : \"042\" , \"note\":\"a b\\u00e9+\", \"limit\":10, \"ids\":[\"1\",2] }\n",
    ] {
        assert_eq!(json(&shop, body).as_ref(), Ok(&key), "{body}");
    }
}

#[test]
fn a_value_of_any_length_comes_back() {
    let text = prepared(vec![param("a", ParamType::Text("text".into())), param("b", ParamType::Int4)]);
    for length in [0, 1, 126, 127, 128, 129, 16383, 16384, 70_000] {
        let value = "x".repeat(length);
        let key = uri(&text, &format!("b=7&a={value}")).unwrap();
        assert_eq!(values(&key).collect::<Vec<_>>(), [Some(&*value), Some("7")]);
        assert_eq!(json(&text, &format!("{{\"a\":\"{value}\",\"b\":7}}")), Ok(key));
    }
}

#[test]
fn absent_is_the_default_else_null_else_refused() {
    let shop = shop();
    let key = uri(&shop, "id=1&ids=[]").unwrap();
    assert_eq!(values(&key).collect::<Vec<_>>(), [Some("1"), None, Some("{}"), Some("10")]);
    assert_eq!(json(&shop, r#"{"id":1,"ids":[],"note":null}"#), Ok(key));
    assert_eq!(names(uri(&shop, "")), ["id", "ids"]);
    assert_eq!(names(json(&shop, "{}")), ["id", "ids"]);
    refused(json(&shop, r#"{"id":null,"ids":[]}"#), "id", "null", "send a value");
}

#[test]
fn an_empty_value_is_a_text_and_nothing_else() {
    let shop = shop();
    let key = uri(&shop, "id=1&ids=[]&note=").unwrap();
    assert_eq!(values(&key).nth(1), Some(Some("")));
    assert_eq!(uri(&shop, "id=1&ids=[]&note"), Ok(key));
    refused(uri(&shop, "id=&ids=[]"), "id", "not of type int4", "42");
    refused(uri(&shop, "id=1&ids="), "ids", "empty", "ids=[]");
}

#[test]
fn every_bad_parameter_is_named_once_in_the_order_of_the_request() {
    let shop = shop();
    assert_eq!(names(uri(&shop, "limit=x&zzz=1&ids=y&zzz=2&limit=3&note=%zz")), ["limit", "zzz", "ids", "note", "id"]);
    assert_eq!(names(json(&shop, r#"{"limit":"x","zzz":1,"ids":2,"limit":3}"#)), ["limit", "zzz", "ids", "id"]);
}

#[test]
fn an_unknown_name_gets_the_nearest_and_the_known_ones() {
    refused(uri(&shop(), "id=1&ids=1&limt=3"), "limt", "no such", "did you mean limit? it takes id, note, ids, limit");
    refused(uri(&shop(), "id=1&ids=1&elephant=3"), "elephant", "no such", "it takes id");
    refused(uri(&prepared(Vec::new()), "x=1"), "x", "no such", "it takes none");
    let long = "é".repeat(65);
    refused(uri(&prepared(Vec::new()), &format!("{long}=1")), &"é".repeat(64), "no such", "");
    let flood = (0..1000).map(|n| format!("x{n}=1")).collect::<Vec<_>>().join("&");
    assert_eq!(names(uri(&prepared(Vec::new()), &flood)).len(), 16);
}

#[test]
fn a_repeated_scalar_is_refused() {
    refused(uri(&shop(), "id=1&ids=1&id=1"), "id", "2 times", "once");
    refused(json(&shop(), r#"{"id":1,"ids":[],"\u0069d":1}"#), "id", "2 times", "once");
    refused(json(&shop(), r#"{"id":1,"ids":[1],"ids":[2]}"#), "ids", "2 times", "JSON array");
}

#[test]
fn what_cannot_be_decoded_is_named() {
    let shop = shop();
    for value in ["%", "%4", "%g0", "%0g", "a%"] {
        refused(uri(&shop, &format!("id=1&ids=1&note={value}")), "note", "percent-escape", "%25");
    }
    refused(uri(&shop, "id=1&ids=1&note=%ff"), "note", "invalid UTF-8", "UTF-8");
    refused(uri(&shop, "id=1&ids=1&n%=x"), "n%", "a parameter name has an invalid percent-escape", "%25");
    refused(uri(&shop, "id=1&ids=1&note=%00"), "note", "NUL", "NUL");
}

#[test]
fn a_body_is_one_json_object() {
    let shop = shop();
    for (body, detail) in [
        ("", "empty"),
        (" \n", "empty"),
        ("[1]", "no object"),
        ("null", "no object"),
        ("nope", "not one JSON object"),
        ("{\"id\":1", "not one JSON object"),
        ("{\"id\":1}{}", "not one JSON object"),
        ("{\"id\":1} x", "not one JSON object"),
        ("{\"id\":01}", "not one JSON object"),
        ("{id:1}", "not one JSON object"),
    ] {
        refused(json(&shop, body), "", detail, "one JSON object");
    }
    let mut key = KeyBuf::new();
    let bad = key_from_json(&shop, b"{\"note\":\"\xff\"}", &mut key).unwrap_err();
    assert!(bad[0].detail.contains("UTF-8"));
    assert_eq!(names(json(&prepared(Vec::new()), &format!("{{\"a\":{}", "[".repeat(60_000)))), [""]);
}

#[test]
fn a_default_goes_through_the_same_checks() {
    let limit = Param { max: Some(100.0), ..param("limit", ParamType::Int4) };
    assert_eq!(canonical_default(&limit, &serde_json::json!("010")).as_deref(), Ok("10"));
    assert_eq!(canonical_default(&limit, &serde_json::json!(101)).unwrap_err().param, "limit");
    assert!(canonical_default(&limit, &serde_json::Value::Null).unwrap_err().hint.contains("required = false"));
    let ids = param("ids", ParamType::Array(Box::new(ParamType::Text("text".into()))));
    assert_eq!(canonical_default(&ids, &serde_json::json!(["a", null])).as_deref(), Ok("{a,NULL}"));
}

#[test]
fn what_is_no_key_ends_early() {
    assert_eq!(values(b"").count(), 0);
    assert_eq!(values(b"12345678\x01\x05ab").count(), 0);
    assert_eq!(values(b"12345678\x00\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01").count(), 1);
    assert_eq!(values(b"12345678\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").count(), 0);
}

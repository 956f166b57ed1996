//! The canonical form of each type, and both sides of each boundary.

use super::*;

fn param(kind: ParamType) -> Param {
    Param { name: "p".into(), kind, default: None, required: true, min: None, max: None, max_length: None }
}

fn text_of(param: &Param, raw: &str) -> Result<String, Refusal> {
    let mut key = KeyBuf::new();
    canonical_text(param, raw, &mut key).map(|()| String::from_utf8(key.to_vec()).unwrap())
}

fn json_of(param: &Param, raw: &str) -> Result<String, Refusal> {
    let mut key = KeyBuf::new();
    let raw: &RawValue = serde_json::from_str(raw).unwrap();
    canonical_json(param, raw, &mut key).map(|()| String::from_utf8(key.to_vec()).unwrap())
}

#[track_caller]
fn same(kind: ParamType, raw: &[&str], canonical: &str) {
    let param = param(kind);
    for raw in raw {
        assert_eq!(text_of(&param, raw).as_deref(), Ok(canonical), "{raw} as {}", param.kind);
    }
}

#[track_caller]
fn refused(kind: ParamType, raw: &[&str], hint: &str) {
    let param = param(kind);
    for raw in raw {
        let refusal = text_of(&param, raw).expect_err(raw);
        assert!(refusal.hint.contains(hint), "{raw} as {}: {refusal:?}", param.kind);
    }
}

fn array(element: ParamType) -> ParamType {
    ParamType::Array(Box::new(element))
}

fn text() -> ParamType {
    ParamType::Text("text".into())
}

#[test]
fn names_are_those_of_postgres() {
    assert_eq!(array(ParamType::Int4).to_string(), "int4[]");
    assert_eq!(ParamType::Timestamptz.to_string(), "timestamptz");
    assert_eq!(ParamType::Enum("shop.size".into(), Box::default()).to_string(), "shop.size");
}

#[test]
fn an_integer_has_one_form() {
    same(ParamType::Int4, &["42", "042", "+42", "+00042"], "42");
    same(ParamType::Int4, &["0", "-0", "+0", "000"], "0");
    same(ParamType::Int8, &["-007"], "-7");
    refused(ParamType::Int4, &["42.0", "4e1"], "whole number");
    refused(ParamType::Int4, &["", "-", "0x1f", "1_000", "42 ", "٤", "--1"], "such as 42");
    refused(ParamType::Int4, &[" 42"], "%2B");
}

#[test]
fn integers_end_at_the_bounds_of_their_type() {
    same(ParamType::Int2, &["32767"], "32767");
    same(ParamType::Int2, &["-32768"], "-32768");
    refused(ParamType::Int2, &["32768", "-32769"], "from -32768 to 32767");
    same(ParamType::Int4, &["2147483647"], "2147483647");
    refused(ParamType::Int4, &["2147483648", "-2147483649"], "from -2147483648 to 2147483647");
    same(ParamType::Int8, &["9223372036854775807"], "9223372036854775807");
    same(ParamType::Int8, &["-9223372036854775808"], "-9223372036854775808");
    refused(ParamType::Int8, &["9223372036854775808", "-9223372036854775809", "99999999999999999999"], "from -922");
}

#[test]
fn bounds_are_allowed_values() {
    let bounded = |kind| Param { min: Some(1.0), max: Some(10.5), ..param(kind) };
    for kind in [ParamType::Int4, ParamType::Numeric, ParamType::Float8, ParamType::Float4] {
        let bounded = bounded(kind);
        assert!(text_of(&bounded, "1").is_ok() && text_of(&bounded, "10").is_ok());
        assert_eq!(text_of(&bounded, "0").unwrap_err().hint, "send at least 1");
        assert_eq!(text_of(&bounded, "11").unwrap_err().hint, "send at most 10.5");
    }
    assert!(text_of(&bounded(ParamType::Numeric), "10.5").is_ok());
    assert!(text_of(&bounded(ParamType::Numeric), "NaN").is_err());
    assert!(text_of(&bounded(ParamType::Float8), "Infinity").is_err());
    assert!(text_of(&bounded(array(ParamType::Int4)), "[1,11]").unwrap_err().detail.starts_with("element 2: "));
    let exact = Param { max: Some(9_007_199_254_740_992.0), ..param(ParamType::Int8) };
    assert!(text_of(&exact, "9007199254740992").is_ok());
    assert!(text_of(&exact, "9007199254740993").is_err());
}

#[test]
fn a_numeric_keeps_its_scale() {
    same(ParamType::Numeric, &["1.50", "+1.50", "001.50", "0.150e1", "150e-2", "15.0e-1"], "1.50");
    same(ParamType::Numeric, &["1.50e1", "15.0"], "15.0");
    same(ParamType::Numeric, &["1.5e3", "1500", "1500."], "1500");
    same(ParamType::Numeric, &[".5", "0.5", "5e-1"], "0.5");
    same(ParamType::Numeric, &["1e-3"], "0.001");
    same(ParamType::Numeric, &["0", "-0", "0e5", "0e999999", "00."], "0");
    same(ParamType::Numeric, &["-0.00", "0e-2", "0.000e1"], "0.00");
    same(ParamType::Numeric, &["-12.5"], "-12.5");
    same(ParamType::Numeric, &["nan", "NaN"], "NaN");
    same(ParamType::Numeric, &["-inf", "-INFINITY"], "-Infinity");
    same(ParamType::Numeric, &["+infinity"], "Infinity");
    refused(ParamType::Numeric, &["", ".", "e5", "1e", "1e+", "1.2.3", "-nan", "0x1", "1 "], "such as");
}

#[test]
fn a_numeric_has_at_most_a_thousand_digits_written_out() {
    for (fits, too_long) in [("1e999", "1e1000"), ("1e-999", "1e-1000"), ("0e-999", "0e-1000")] {
        assert!(text_of(&param(ParamType::Numeric), fits).is_ok(), "{fits}");
        refused(ParamType::Numeric, &[too_long], "1000 digits");
    }
    refused(ParamType::Numeric, &["1e999999", "1e-999999", "1e99999999999999999999999999", "-1e2147483648"], "1000");
    same(ParamType::Numeric, &[&format!("{}1", "0".repeat(5000))], "1");
}

#[test]
fn a_float_is_the_shortest_text_of_its_value() {
    same(ParamType::Float8, &["1.5", "1.50", "15e-1", "+01.5"], "1.5");
    same(ParamType::Float8, &["0.1", "0.1000000000000000055"], "0.1");
    same(ParamType::Float8, &["1e300", "10e299"], "1e300");
    same(ParamType::Float8, &["100", "1e2"], "100");
    same(ParamType::Float4, &["0.1", "0.100000001"], "0.1");
    same(ParamType::Float4, &["16777217", "16777216"], "16777216");
    same(ParamType::Float8, &["-0", "-0.0"], "-0");
    same(ParamType::Float8, &["nan"], "NaN");
    same(ParamType::Float4, &["-inf"], "-Infinity");
    same(ParamType::Float8, &["5e-324", "4.9e-324"], "5e-324");
    same(ParamType::Float8, &["0e-999"], "0");
    same(ParamType::Float4, &["3.4028235e38"], "3.4028235e38");
    refused(ParamType::Float8, &["1e309", "-1e309", "1e-400"], "fits the type");
    refused(ParamType::Float4, &["3.5e38", "1e-46"], "fits the type");
    refused(ParamType::Float8, &["", ".", "1f", "-nan", "0x1p3", "1e"], "such as");
}

#[test]
fn a_boolean_is_true_or_false() {
    same(ParamType::Bool, &["true"], "true");
    refused(ParamType::Bool, &["", "TRUE", "t", "1", "yes"], "true or false");
    assert_eq!(json_of(&param(ParamType::Bool), "true").as_deref(), Ok("true"));
    assert!(json_of(&param(ParamType::Bool), "1").is_err());
}

#[test]
fn a_uuid_is_lower_case_with_hyphens() {
    const UUID: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    same(
        ParamType::Uuid,
        &[
            UUID,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ],
        UUID,
    );
    refused(
        ParamType::Uuid,
        &[
            "",
            "{}",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a1",
            "a0eebc999c0b4ef8bb6d6bb9bd380a111",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
            "-a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0e-ebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc99--9c0b4ef8bb6d6bb9bd380a11",
            "g0eebc999c0b4ef8bb6d6bb9bd380a11",
        ],
        "hexadecimal",
    );
}

#[test]
fn a_text_is_taken_as_it_is_up_to_its_length_in_characters() {
    same(text(), &[" É'\"\n"], " É'\"\n");
    same(text(), &[""], "");
    refused(text(), &["a\0b"], "NUL");
    let short = Param { max_length: Some(2), ..param(text()) };
    assert!(text_of(&short, "éé").is_ok());
    assert_eq!(text_of(&short, "ééé").unwrap_err().hint, "send at most 2 characters");
    assert!(json_of(&short, "42").unwrap_err().detail.contains("is a number, and text is expected"));
    assert_eq!(json_of(&param(text()), r#""\u00e9\n""#).as_deref(), Ok("é\n"));
    assert!(json_of(&param(text()), r#""\ud800""#).unwrap_err().detail.contains("surrogate"));
    assert!(json_of(&param(text()), r#""\u0000""#).unwrap_err().detail.contains("NUL"));
}

#[test]
fn a_long_value_is_quoted_in_part() {
    let refusal = text_of(&param(ParamType::Int4), &"é".repeat(65)).unwrap_err();
    assert_eq!(refusal.detail.matches('é').count(), 64);
}

#[test]
fn a_date_is_iso_and_in_the_calendar() {
    for day in ["2024-02-29", "2000-02-29", "0001-01-01", "9999-12-31", "2023-04-30"] {
        same(ParamType::Date, &[day], day);
    }
    refused(
        ParamType::Date,
        &["2023-02-29", "1900-02-29", "0000-01-01", "2023-04-31", "2023-13-01", "2023-00-10"],
        "day",
    );
    refused(
        ParamType::Date,
        &["", "2023-1-1", "20230101", "01/02/2023", "2023-01-01 ", "10000-01-01", "today"],
        "YYYY",
    );
}

#[test]
fn a_timestamp_has_a_space_and_no_superfluous_zeros() {
    same(
        ParamType::Timestamp,
        &["2024-01-02T03:04", "2024-01-02 03:04:00", "2024-01-02T03:04:00.000"],
        "2024-01-02 03:04:00",
    );
    same(ParamType::Timestamp, &["2024-01-02T23:59:59.120000"], "2024-01-02 23:59:59.12");
    same(ParamType::Timestamp, &["2024-01-02T23:59:59.123456"], "2024-01-02 23:59:59.123456");
    refused(ParamType::Timestamp, &["2024-01-02T03:04:05.1234567"], "microseconds");
    refused(
        ParamType::Timestamp,
        &["2024-01-02T03:04Z", "2024-01-02T03:04+02", "2024-01-02 03:04:05 02"],
        "timestamptz",
    );
    refused(ParamType::Timestamp, &["2024-01-02T24:00", "2024-01-02T23:60", "2024-01-02T23:59:60"], "send a time");
    refused(
        ParamType::Timestamp,
        &["", "2024-01-02", "2024-01-02t03:04", "2024-01-02T03:04:05.", "2024-01-02é03:04"],
        "YYYY",
    );
}

#[test]
fn a_timestamptz_is_in_utc() {
    same(
        ParamType::Timestamptz,
        &[
            "2024-01-02T03:04:05Z",
            "2024-01-02 05:04:05+02",
            "2024-01-02T05:04:05.0+02:00",
            "2024-01-02T05:04:05+0200",
            "2024-01-01T21:34:05-05:30",
            "2024-01-02 03:04:05-00",
        ],
        "2024-01-02 03:04:05+00",
    );
    same(ParamType::Timestamptz, &["2024-03-01T00:30+01", "2024-02-29T23:30Z"], "2024-02-29 23:30:00+00");
    same(ParamType::Timestamptz, &["2023-12-31T20:00:00.5-15:59"], "2024-01-01 11:59:00.5+00");
    same(ParamType::Timestamptz, &["0001-01-01T02:00+02"], "0001-01-01 00:00:00+00");
    refused(ParamType::Timestamptz, &["0001-01-01T01:59+02", "9999-12-31T23:00-01"], "0001 to 9999");
    refused(ParamType::Timestamptz, &["2024-01-02T03:04:05 02:00"], "%2B");
    refused(ParamType::Timestamptz, &["2024-01-02T03:04:05"], "append Z");
    refused(ParamType::Timestamptz, &["2024-01-02T03:04+16", "2024-01-02T03:04+02:60", "2024-01-02T03:04+2"], "YYYY");
}

#[test]
fn json_loses_its_white_space_and_nothing_else() {
    let raw = " { \"a b\" : [ 1.50 , -0 , \"x \\\" \\u0041\" , null ], \"a b\" : { } }\n";
    let canonical = "{\"a b\":[1.50,-0,\"x \\\" \\u0041\",null],\"a b\":{}}";
    same(ParamType::Json, &[raw, canonical], canonical);
    same(ParamType::Jsonb, &[raw, canonical], canonical);
    assert_eq!(json_of(&param(ParamType::Json), raw).as_deref(), Ok(canonical));
    assert_eq!(json_of(&param(ParamType::Json), "\"42\"").as_deref(), Ok("\"42\""));
    same(ParamType::Json, &["null"], "null");
    refused(ParamType::Json, &["", "{", "[1,]", "{'a':1}", "1 2", "abc", "\"a\nb\"", "01"], "send JSON");
}

#[test]
fn json_is_nested_at_most_128_deep() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(text_of(&param(ParamType::Json), &nested(128)).is_ok());
    refused(ParamType::Json, &[&nested(129), &nested(100_000)], "128 levels");
    refused(ParamType::Jsonb, &[&nested(129)], "128 levels");
}

#[test]
fn jsonb_refuses_what_postgres_cannot_store() {
    refused(ParamType::Jsonb, &[r#"["\u0000"]"#], "leave it out");
    refused(ParamType::Jsonb, &[r#"{"\ud800":1}"#], "Unicode");
    refused(ParamType::Jsonb, &["1e999999"], "1000 digits");
    same(ParamType::Jsonb, &[r#""\\u0000""#], r#""\\u0000""#);
    same(ParamType::Jsonb, &[r#""\ud83d\ude00""#], r#""\ud83d\ude00""#);
    same(ParamType::Json, &[r#""\u0000""#], r#""\u0000""#);
}

#[test]
fn an_enum_takes_its_labels() {
    let size = ParamType::Enum("size".into(), ["small", "large"].map(Into::into).into());
    same(size.clone(), &["large"], "large");
    refused(size, &["", "Large", "medium"], "the labels are small, large");
    let many = ParamType::Enum("n".into(), (0..50).map(|n| format!("label{n}").into()).collect());
    let hint = text_of(&param(many), "label4x").unwrap_err().hint;
    assert!(hint.starts_with("the nearest labels are label4") && hint.matches("label").count() == 11, "{hint}");
}

#[test]
fn an_array_is_a_literal_of_postgres() {
    same(array(ParamType::Int4), &["[1,2]", " [ \"01\" , \"+2\" ]"], "{1,2}");
    same(array(ParamType::Int4), &["[]"], "{}");
    same(array(ParamType::Int4), &["5", "[5]"], "{5}");
    same(array(ParamType::Int4), &["[1,null]"], "{1,NULL}");
    same(array(ParamType::Bool), &["[true,false]"], "{true,false}");
    same(array(ParamType::Int4), &["[[1,2],[3,4]]"], "{{1,2},{3,4}}");
    same(
        array(text()),
        &[r#"["a","", "null", "a b", "a,b", "{", "\"", "\\", "é"]"#],
        r#"{a,"","null","a b","a,b","{","\"","\\",é}"#,
    );
    same(array(ParamType::Jsonb), &["[[1, 2],{\"a\":1}]"], r#"{"[1,2]","{\"a\":1}"}"#);
    same(array(ParamType::Timestamp), &["[\"2024-01-02T03:04\"]"], "{\"2024-01-02 03:04:00\"}");
    refused(array(ParamType::Int4), &[""], "p=[]");
    refused(array(ParamType::Int4), &["[1,", "[1]]"], "write p=[…]");
    refused(array(ParamType::Int4), &["[1.0]"], "whole number");
    refused(array(text()), &["[1]"], "JSON string");
    assert!(json_of(&param(array(ParamType::Int4)), "1").unwrap_err().hint.contains("JSON array of int4"));
}

#[test]
fn repeated_texts_are_elements() {
    let of = |raw: &[&str]| {
        let mut key = KeyBuf::new();
        canonical_texts(&param(array(text())), raw.iter(), &mut key).map(|()| String::from_utf8(key.to_vec()).unwrap())
    };
    assert_eq!(of(&["a", "[b]", ""]).as_deref(), Ok("{a,[b],\"\"}"));
    assert!(of(&["a"; 1000]).is_ok());
    assert!(of(&["a"; 1001]).is_err());
}

#[test]
fn an_array_is_rectangular_and_bounded() {
    for uneven in ["[[1],[2,3]]", "[[1],2]", "[1,[2]]", "[[1],null]", "[[[1]],[2]]"] {
        refused(array(ParamType::Int4), &[uneven], "one length");
    }
    refused(array(ParamType::Int4), &["[[]]", "[[],[]]"], "only the whole array");
    same(array(ParamType::Int4), &["[[[[[[1]]]]]]"], "{{{{{{1}}}}}}");
    refused(array(ParamType::Int4), &["[[[[[[[1]]]]]]]"], "at most 6");
    let flat = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    assert!(text_of(&param(array(ParamType::Int4)), &flat(1000)).is_ok());
    refused(array(ParamType::Int4), &[&flat(1001), &format!("[{0},{0}]", flat(501))], "at most 1000");
    assert!(text_of(&param(array(ParamType::Int4)), &format!("[{0},{0}]", flat(500))).is_ok());
}

#[test]
fn other_types_go_to_postgres_as_they_are() {
    let interval = ParamType::Other("interval".into());
    same(interval.clone(), &["1 day "], "1 day ");
    refused(interval.clone(), &[""], "send a value");
    refused(interval.clone(), &["\0"], "NUL");
    assert_eq!(json_of(&param(interval.clone()), "42").as_deref(), Ok("42"));
    assert!(json_of(&param(interval), "{}").is_err());
}

#[test]
fn a_number_in_json_keeps_its_digits() {
    assert_eq!(
        json_of(&param(ParamType::Numeric), "12345678901234567890.123456789012345678900").as_deref(),
        Ok("12345678901234567890.123456789012345678900")
    );
    assert_eq!(json_of(&param(ParamType::Int8), "9223372036854775807").as_deref(), Ok("9223372036854775807"));
    assert_eq!(json_of(&param(ParamType::Int4), "\"042\"").as_deref(), Ok("42"));
    assert!(json_of(&param(ParamType::Int4), "42.0").unwrap_err().hint.contains("whole number"));
    assert!(json_of(&param(ParamType::Int4), "true").unwrap_err().hint.contains("JSON number"));
    assert_eq!(json_of(&param(ParamType::Float8), "1E5").as_deref(), Ok("100000"));
}

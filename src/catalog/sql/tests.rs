//! What is found in a text, what is refused, and where.

use super::*;

fn params(text: &str) -> Vec<String> {
    Statement::parse(text)
        .unwrap_or_else(|p| panic!("{text}: {p:?}"))
        .params()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn rendered(text: &str) -> String {
    Statement::parse(text).unwrap_or_else(|p| panic!("{text}: {p:?}")).render(|_| None)
}

fn cast_to(kind: &str, text: &str) -> String {
    Statement::parse(text).unwrap_or_else(|p| panic!("{text}: {p:?}")).render(|_| Some(kind.to_owned()))
}

fn problems(text: &str) -> Vec<String> {
    let problems = Statement::parse(text).err().unwrap_or_else(|| panic!("{text} was accepted"));
    problems.into_iter().map(|p| format!("{}:{} {}", p.line, p.column, p.message)).collect()
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let found = problems(text);
    assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
}

#[test]
fn a_name_used_twice_is_one_parameter() {
    let text = "SELECT :b, :a, :b";
    assert_eq!(params(text), ["b", "a"]);
    assert_eq!(rendered(text), "SELECT $1, $2, $1");
    assert_eq!(Statement::parse(text).unwrap().text(), text);
}

#[test]
fn strings_comments_and_quoted_names_hold_no_parameters() {
    for text in [
        "SELECT ':a'",
        "SELECT 'it''s :a'",
        "SELECT ''':a'''",
        r"SELECT E'\':a'",
        r"SELECT e'\\\':a'",
        r"SELECT '\', 1",
        "SELECT E'x'\n  '\\':a'",
        "SELECT E'x' -- it's\n -- :b\r\n '\\':a'",
        r"SELECT U&'\0041 :a'",
        r"SELECT U&'\'",
        "SELECT B'01', X'1F', N':a'",
        "SELECT $$ :a ' $$",
        "SELECT $tag$ :a $$ $tagg$ ' $tag$",
        "SELECT $é$ :a $é$",
        "SELECT 1 AS \":a \"\" :b\"",
        "SELECT 1 AS U&\":a\"",
        "SELECT 1 -- :a",
        "SELECT 1 /* :a /* ' */ :b */ + 1",
        "SELECT 1 /*/ :a */",
        "SELECT 1 */* :a */ 2",
        "SELECT 1 -- :a\r+ 2",
        "SELECT x::text, y :: int4",
        "SELECT f(a := 1)",
    ] {
        assert_eq!(params(text), [""; 0], "{text}");
    }
}

#[test]
fn parameters_stand_wherever_a_value_may() {
    for text in [
        "SELECT :a",
        "SELECT(:a)",
        "SELECT 1 WHERE 1=:a",
        "SELECT 1 WHERE true AND:a",
        "SELECT :a::text",
        "SELECT f(x => :a, y := :a)",
        "SELECT '' :a",
        "SELECT E'x' '\\':a",
        "SELECT eE'\\':a",
        "SELECT /* c */:a-- c",
        "SELECT x$y$ , :a , z$y$ FROM t",
        "SELECT -:a",
        "SELECT 1 --\r:a",
    ] {
        assert_eq!(params(text), ["a"], "{text}");
    }
}

#[test]
fn a_parameter_named_like_a_prefix_of_strings_is_a_parameter() {
    assert_eq!(params(r"SELECT :e'\' || :x'\'"), ["e", "x"]);
    assert_eq!(rendered(r"SELECT :u&'x'"), "SELECT $1&'x'");
}

#[test]
fn a_colon_after_a_value_in_brackets_is_a_slice() {
    for text in
        ["arr[1:2]", "arr[lo:hi]", "arr[lo : hi]", "arr[f(1):\"Hi\"]", "arr[x[1]:hi]", "arr[lo::int:hi]", "arr[:2]"]
    {
        assert_eq!(params(&format!("SELECT {text} FROM t")), [""; 0], "{text}");
    }
    for (text, expected) in [
        ("arr[:i]", &["i"][..]),
        ("arr[1: :hi]", &["hi"]),
        ("arr[:lo: :hi]", &["lo", "hi"]),
        ("arr[:lo:hi]", &["lo"]),
        ("arr[:lo::int4::hi]", &["lo"]),
        ("arr[1+:i]", &["i"]),
        ("arr[f(:i):2]", &["i"]),
        ("ARRAY[:a,:b]", &["a", "b"]),
        ("ARRAY[x AND :a, NOT :b]", &["a", "b"]),
        ("ARRAY[CASE WHEN :a THEN :b ELSE :c END]", &["a", "b", "c"]),
        ("ARRAY[now() AT TIME ZONE :z]", &["z"]),
        ("ARRAY(SELECT x WHERE y=z AND x < :a)", &["a"]),
        ("arr[(SELECT x LIMIT :n)]", &["n"]),
    ] {
        assert_eq!(params(&format!("SELECT {text} FROM t")), expected, "{text}");
    }
}

#[test]
fn a_colon_after_a_key_of_json_object_separates() {
    assert_eq!(
        params("SELECT json_object('a':b, 'c': :d, :e: f, 'g' VALUE :h, value: :i, (lower(:j)):k)"),
        ["d", "e", "h", "i", "j"]
    );
    assert_eq!(params("SELECT json_object(:keys, :values)"), ["keys", "values"]);
}

#[test]
fn a_parameter_is_set_off_from_a_word_before_it() {
    assert_eq!(rendered("SELECT 1 WHERE x AND:a"), "SELECT 1 WHERE x AND $1");
    assert_eq!(rendered("SELECT 1:a"), "SELECT 1 $1");
    assert_eq!(rendered("SELECT é:a:b"), "SELECT é $1 $2");
    assert_eq!(rendered("SELECT 1 WHERE x=:a"), "SELECT 1 WHERE x=$1");
}

#[test]
fn a_cast_takes_nothing_of_what_follows() {
    assert_eq!(cast_to("int4", "SELECT :a::text"), "SELECT ($1::int4)::text");
    assert_eq!(cast_to("int4[]", "SELECT :a[1]"), "SELECT ($1::int4[])[1]");
    assert_eq!(cast_to("int8", "SELECT 1 FETCH FIRST :n ROWS ONLY"), "SELECT 1 FETCH FIRST ($1::int8) ROWS ONLY");
    let statement = Statement::parse("SELECT :a, :b").unwrap();
    assert_eq!(statement.render(|i| (i == 1).then(|| "text".to_owned())), "SELECT $1, ($2::text)");
}

#[test]
fn semicolons_and_comments_at_the_end_are_left_out() {
    for text in ["SELECT 1", "SELECT 1;", " SELECT 1 ; -- x\n; /* ; */ ;\n", "SELECT 1 -- it's ) (", "SELECT 1/* ; */"]
    {
        assert_eq!(rendered(text).trim_start(), "SELECT 1", "{text}");
    }
    assert_eq!(rendered("SELECT ';' -- a\n, 2;"), "SELECT ';' -- a\n, 2");
}

#[test]
fn a_second_statement_is_refused_where_it_begins() {
    assert_eq!(problems("SELECT 1;\n SELECT 2"), ["2:2 a second statement begins here: a query is one statement"]);
    refused("SELECT (1;)", "second statement");
    refused("; SELECT 1", "remove it");
    assert_eq!(problems("SELECT 1; DROP TABLE t; SELECT 2").len(), 2);
}

#[test]
fn nothing_breaks_out_of_the_subquery() {
    assert!(problems("SELECT 1) AS x, (SELECT 2")[0].contains("closes nothing"));
    refused("SELECT 1) --", "closes nothing");
    refused("SELECT (1", "never closed");
    refused("SELECT a[1", "never closed");
    assert!(problems("SELECT a[1)]")[0].contains("`]` is missing"));
    assert!(problems("SELECT (a]")[1].contains("closes nothing"));
    refused("SELECT 1]", "closes nothing");
    refused("SELECT 'x", "this string has no end");
    refused("SELECT ('x", "this string has no end");
    refused(r"SELECT E'\'", "this string has no end");
    assert!(problems(r"SELECT '\') AS x, (SELECT '")[0].contains("closes nothing"));
    refused("SELECT $a$ x $b$", "this dollar quote has no end");
    refused("SELECT \"x", "this quoted identifier has no end");
    refused("SELECT 1 /* /* */", "this comment has no end");
    // One string in Postgres; read as two, the parenthesis would seem to be inside of one.
    refused("SELECT E'a'\n'\\'' ) --'", "closes nothing");
    assert!(problems("SELECT 1 -- \r) x, (SELECT 1")[0].contains("closes nothing"));
}

#[test]
fn a_number_that_servers_read_differently_is_refused() {
    for text in [r"SELECT 1E'\''", "SELECT 12abc", "SELECT 1_", "SELECT 0xg", "SELECT 1.5.6", "SELECT 1e5x"] {
        assert!(problems(text).iter().any(|p| p.contains("runs into a word")), "{text}");
    }
    for number in ["1", "1.", ".5", "1.5", "1e5", "1.5e-10", "1_000", "0x1F", "0b01", "0o17", "1e+5", "1-2", "1$$a$$"] {
        assert!(Statement::parse(&format!("SELECT {number}")).is_ok(), "{number}");
    }
}

#[test]
fn a_name_is_lower_case_and_at_most_63_characters() {
    refused("SELECT :Name", "write :name");
    refused("SELECT :_x", "is no parameter name");
    refused("SELECT :aé", "is no parameter name");
    refused("SELECT :a$b", "is no parameter name");
    refused("SELECT : a", "write :name");
    refused("SELECT :'a'", "without quotes");
    refused("SELECT 12:30", "write :name");
    refused("SELECT $1", "write :name");
    refused("SELECT $e'\\''", "begins nothing");
    let longest = "n".repeat(63);
    assert_eq!(params(&format!("SELECT :{longest}")), [longest.as_str()]);
    refused(&format!("SELECT :{longest}n"), "is no parameter name");
}

#[test]
fn limits_hold_on_both_sides() {
    let many = |n: usize| format!("SELECT {}", (0..n).map(|i| format!(":p{i}")).collect::<Vec<_>>().join(","));
    assert_eq!(params(&many(MAX_PARAMS)).len(), MAX_PARAMS);
    refused(&format!("{}, :p100", many(MAX_PARAMS + 2)), "more than 100 parameters");
    let long = |n: usize| format!("SELECT '{}'", "x".repeat(n - 9));
    assert!(Statement::parse(&long(MAX_TEXT_BYTES)).is_ok());
    refused(&long(MAX_TEXT_BYTES + 1), "65537 bytes");
    assert!(problems(&format!("SELECT {}", ")".repeat(1000))).len() <= 100);
    refused("SELECT '\0'", "NUL");
}

#[test]
fn a_query_begins_with_a_reading_verb() {
    for text in [
        "select 1",
        "Values (1)",
        "TABLE t",
        "WITH a AS (SELECT 1) TABLE a",
        "(SELECT 1) UNION SELECT 2",
        "((VALUES (1)))",
    ] {
        assert!(Statement::parse(text).is_ok(), "{text}");
    }
    refused("DELETE FROM t", "not with DELETE");
    refused("(INSERT INTO t VALUES (1))", "not with INSERT");
    refused("42", "not with 42");
    for text in ["", " \n", "-- x", "/* */;", ";;", "()"] {
        refused(text, "empty");
    }
}

#[test]
fn a_with_that_writes_is_refused() {
    for text in [
        "WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a",
        "WITH a(x) AS NOT MATERIALIZED (update t SET x = 1 RETURNING x) SELECT * FROM a",
        "WITH a AS MATERIALIZED (DELETE FROM t RETURNING *) SELECT * FROM a",
        "WITH a AS (WITH b AS (SELECT 1) MERGE INTO t USING b ON true) SELECT 1",
        "WITH a AS (SELECT 1), b AS (DELETE FROM t RETURNING 1) SELECT 1",
        "WITH a AS (SELECT 1) DELETE FROM t",
        "SELECT 1 FROM (WITH a AS (DELETE FROM t RETURNING 1) SELECT 1) x",
    ] {
        refused(text, "writes");
    }
    for text in [
        "WITH delete AS (SELECT 1), update AS (SELECT 2) SELECT count(*) insert FROM delete",
        "SELECT sum(x) OVER w FROM t WINDOW w AS (PARTITION BY update)",
        "WITH RECURSIVE a AS (SELECT 1 UNION SELECT update FROM a) SEARCH DEPTH FIRST BY x SET y SELECT * FROM a",
    ] {
        assert!(Statement::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn a_row_lock_is_refused() {
    for clause in ["UPDATE", "SHARE", "NO KEY UPDATE", "KEY SHARE", "/* */ update of t nowait"] {
        refused(&format!("SELECT * FROM t FOR {clause}"), "locks rows");
        refused(&format!("SELECT * FROM (SELECT * FROM t FOR {clause}) x"), "locks rows");
    }
    assert!(Statement::parse("SELECT substring(x FROM 1 FOR share) FROM t").is_ok());
    assert!(Statement::parse("SELECT \"for\" update FROM t").is_ok());
}

#[test]
fn the_name_of_the_wrapping_alias_is_reserved() {
    refused("SELECT 1 AS __seawall_row", "reserved");
    refused("SELECT 1 AS __SEAWALL_ROW", "reserved");
    refused("SELECT 1 AS \"__seawall_row\"", "reserved");
    assert!(Statement::parse("SELECT '__seawall_row', 1 AS __seawall_rows, 2 AS \"__SEAWALL_ROW\"").is_ok());
}

#[test]
fn all_problems_are_reported_in_order_with_their_places() {
    let text = "SELECT :Bad,\n  é, $1)\nFROM t;\nSELECT 'x";
    let found: Vec<_> = problems(text).iter().map(|p| p.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(found, ["1:8", "2:6", "2:8", "4:1", "4:8"], "{:?}", problems(text));
}

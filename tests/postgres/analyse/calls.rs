//! What calling functions does to a verdict.

use seawall::catalog::verdict::Kind;

use super::{Bench, stated, tables, unkept_for};

const FUNCTIONS: &str = "CREATE TABLE t (id int, at timestamptz, name text); \
     CREATE FUNCTION stable_sql(i int) RETURNS SETOF t LANGUAGE sql STABLE AS 'SELECT * FROM t WHERE id = i'; \
     CREATE FUNCTION atomic(i int) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT name FROM t WHERE id = i; END; \
     CREATE FUNCTION stable_plpgsql() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT count(*) FROM t); END'; \
     CREATE FUNCTION volatile_sql() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
     CREATE FUNCTION immutable_sql(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT max(id) FROM t'; \
     CREATE FUNCTION greater(a int, b int) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN a > b; END'; \
     CREATE OPERATOR <%> (FUNCTION = greater, LEFTARG = int, RIGHTARG = int); \
     CREATE FUNCTION add(a int, b int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN a + b; END'; \
     CREATE AGGREGATE total(int) (SFUNC = add, STYPE = int); \
     CREATE AGGREGATE plain_total(int) (SFUNC = int4pl, STYPE = int); \
     CREATE VIEW v AS SELECT id, stable_plpgsql() AS n FROM t";

#[tokio::test]
async fn what_time_and_chance_decide_is_ttl_only() {
    let bench = Bench::new(FUNCTIONS).await;
    for (sql, word) in [
        ("SELECT now() AS at", "now(), whose result changes with time"),
        ("SELECT id FROM t WHERE at > current_timestamp - interval '1 day'", "changes with time"),
        ("SELECT CURRENT_DATE AS today", "changes with time"),
        ("SELECT LOCALTIME(2) AS t", "changes with time"),
        ("SELECT age(at) AS a FROM t", "whose result changes with time"),
        ("SELECT id FROM t WHERE at > 'today'", "changes with time"),
        ("SELECT id FROM t WHERE at > timestamptz ' Yesterday 12:00'", "changes with time"),
        ("SELECT random() AS r", "random(), which is volatile"),
        ("SELECT gen_random_uuid() AS u", "volatile"),
        ("SELECT pg_sleep(0) IS NULL AS s", "volatile"),
        ("SELECT volatile_sql() AS n", "mark it STABLE"),
        ("SELECT id FROM t TABLESAMPLE system (50)", "TABLESAMPLE"),
        ("SELECT to_regclass('t') IS NULL AS gone", "server's state"),
        ("SELECT table_to_xml('t', true, true, '')::text AS x", "server's state"),
        ("SELECT immutable_sql(:i) AS n", "marked IMMUTABLE"),
    ] {
        unkept_for(&bench.one(sql).await, word);
    }
}

#[tokio::test]
async fn what_computes_is_exact() {
    let bench = Bench::new(&format!("CREATE EXTENSION citext; CREATE EXTENSION pg_trgm; {FUNCTIONS}")).await;
    for sql in [
        "SELECT json_agg(t) AS j, to_char(max(at), 'YYYY') AS y, concat(min(name), 1) AS c FROM t",
        "SELECT age(at, at) AS a, date_trunc('day', at) AS d, at::date AS e, CURRENT_USER AS me FROM t",
        "SELECT id FROM t WHERE name::citext = :name ORDER BY similarity(name, :name)",
        "SELECT plain_total(id) AS n, array_agg(id ORDER BY name) AS ids, percentile_disc(0.5) WITHIN GROUP (ORDER BY id) AS m FROM t",
        "SELECT id FROM t TABLESAMPLE system (50) REPEATABLE (1)",
        "SELECT id, rank() OVER (ORDER BY name) AS r FROM t",
        "SELECT g, to_tsvector('english', name) @@ to_tsquery('english', :q) AS m FROM t, generate_series(1, 2) g",
    ] {
        let verdict = bench.one(sql).await;
        assert_eq!(verdict.at_best, Kind::Exact, "{sql}: {:?}", verdict.reasons);
        assert_eq!(tables(&verdict), ["public.t"], "{sql}");
    }
}

#[tokio::test]
async fn what_cannot_be_looked_into_needs_its_operators_word() {
    let bench = Bench::new(FUNCTIONS).await;
    for sql in [
        "SELECT id FROM stable_sql(:i)",
        "SELECT atomic(:i) AS n",
        "SELECT id, n FROM v WHERE id = :i",
        "SELECT id FROM t WHERE id <%> :i",
        "SELECT total(id) AS n FROM t WHERE id < :i",
    ] {
        unkept_for(&bench.one(sql).await, "can't be looked into; say in depends");
        let verdict = bench.of(stated("q", sql, &[("t", "true")])).await;
        assert_eq!(verdict.at_best, Kind::Declared, "{sql}: {:?}", verdict.reasons);
        assert_eq!(tables(&verdict), ["public.t"], "{sql}");
    }
    unkept_for(&bench.of(stated("q", "SELECT volatile_sql() AS n", &[("t", "true")])).await, "volatile");
    unkept_for(&bench.of(stated("q", "SELECT immutable_sql(:i) AS n", &[("t", "true")])).await, "marked IMMUTABLE");
}

#[tokio::test]
async fn rows_that_only_a_function_reads_are_taken_at_their_operators_word() {
    let bench = Bench::new(FUNCTIONS).await;
    let rows: &[super::Stated] = &[("t", "id = :i")];
    let believed = bench.of(stated("q", "SELECT id FROM stable_sql(:i)", rows)).await;
    assert_eq!((believed.at_best, tables(&believed)), (Kind::Declared, vec!["public.t:id".to_owned()]));
    // Where it is seen to read others, a word is not enough.
    let sql = "SELECT s.id, (SELECT count(*) FROM t) AS n FROM stable_sql(:i) s";
    let seen = bench.of(stated("q", sql, rows)).await;
    assert_eq!((seen.at_best, tables(&seen)), (Kind::Declared, vec!["public.t".to_owned()]));
    // And where nothing can hide, there is nothing to take a word for.
    let unread = bench.of(stated("q", "SELECT :i::int AS i", rows)).await;
    assert_eq!((unread.at_best, tables(&unread)), (Kind::Exact, vec!["public.t".to_owned()]));
    assert!(unread.reasons[0].contains("does not read it"), "{:?}", unread.reasons);
}

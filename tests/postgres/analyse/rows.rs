//! Which row declarations are borne out, and which are not.

use super::{Bench, Stated, stated, tables, typed};

const TABLES: &str = "CREATE EXTENSION citext; CREATE COLLATION folds (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
     CREATE DOMAIN item AS int; CREATE TYPE size AS ENUM ('s', 'l'); \
     CREATE TABLE p (id int PRIMARY KEY, big int8, small int2, category int, kind varchar(10), name text, active bool, u uuid, \
       price numeric, padded char(5), at timestamptz, day date, f float8, dom item, size size, tags text[]); \
     CREATE TABLE x (id int, name text, code citext, folded text COLLATE folds); \
     CREATE TABLE c (id int PRIMARY KEY, slug text); CREATE TABLE o (id int PRIMARY KEY, product int, n int); \
     CREATE VIEW v AS SELECT * FROM p WHERE active; CREATE VIEW vv AS SELECT v.*, c.slug FROM v LEFT JOIN c ON c.id = v.category; \
     CREATE VIEW best AS SELECT DISTINCT ON (category) * FROM p ORDER BY category, price; \
     CREATE TABLE parts (id int, region text, n int) PARTITION BY LIST (region); \
     CREATE TABLE eu PARTITION OF parts FOR VALUES IN ('eu'); CREATE TABLE rest PARTITION OF parts DEFAULT PARTITION BY HASH (id); \
     CREATE TABLE rest0 PARTITION OF rest FOR VALUES WITH (MODULUS 1, REMAINDER 0); \
     CREATE TABLE base (id int, n int); CREATE TABLE heir (extra text) INHERITS (base); \
     CREATE SCHEMA other; CREATE TABLE other.p (id int)";

/// Statements whose declaration the plan bears out.
const ACCEPTED: &[(&str, Stated)] = &[
    ("SELECT name FROM p WHERE id = :id", ("p", "id = :id")),
    ("SELECT name FROM p WHERE :id = id", ("p", "id = :id")),
    ("SELECT name FROM p WHERE id = :id::int8", ("p", "id = :id")),
    ("SELECT name FROM p WHERE big = :id::int4", ("p", "big = :id")),
    ("SELECT name FROM p WHERE small = :id", ("p", "small = :id")),
    ("SELECT name FROM p WHERE NOT id <> :id", ("p", "id = :id")),
    ("SELECT name FROM p WHERE id IN (:id)", ("p", "id = :id")),
    ("SELECT name FROM p WHERE kind = :kind", ("p", "kind = :kind")),
    ("SELECT id FROM p WHERE name = :name", ("p", "name = :name")),
    ("SELECT id FROM p WHERE active = :active", ("p", "active = :active")),
    ("SELECT id FROM p WHERE u = :u", ("p", "u = :u")),
    ("SELECT id FROM p WHERE (id, category) = (:id, :c)", ("p", "id = :id and category = :c")),
    ("SELECT id FROM p WHERE id = :id AND category = :c AND price > 3", ("p", "category = :c")),
    ("SELECT id FROM p WHERE id = :id AND (price > 3 OR active)", ("p", "id = :id")),
    ("SELECT count(*) AS n, max(price) AS m FROM p WHERE category = :c", ("p", "category = :c")),
    ("SELECT category, count(*) AS n FROM p GROUP BY category HAVING category = :c", ("p", "category = :c")),
    ("SELECT id, rank() OVER (ORDER BY price) AS r FROM p WHERE category = :c", ("p", "category = :c")),
    ("SELECT DISTINCT ON (kind) kind, id FROM p WHERE category = :c ORDER BY kind, price", ("p", "category = :c")),
    ("SELECT id FROM p WHERE category = :c ORDER BY price DESC LIMIT :n OFFSET 1", ("p", "category = :c")),
    ("SELECT * FROM (SELECT id, name FROM p) q WHERE id = :id", ("p", "id = :id")),
    ("SELECT id, slug FROM vv WHERE id = :id", ("p", "id = :id")),
    ("SELECT id, price FROM best WHERE category = :c", ("p", "category = :c")),
    ("WITH q AS (SELECT id FROM p) SELECT id FROM q WHERE id = :id", ("p", "id = :id")),
    ("WITH q AS MATERIALIZED (SELECT id FROM p WHERE id = :id) SELECT id FROM q", ("p", "id = :id")),
    ("WITH unused AS (SELECT id FROM p) SELECT id FROM p WHERE id = :id", ("p", "id = :id")),
    ("SELECT p.id, c.slug FROM p JOIN c ON c.id = p.category WHERE p.id = :id", ("p", "id = :id")),
    ("SELECT p.id, c.slug FROM c LEFT JOIN p ON p.category = c.id WHERE c.id = :c", ("p", "category = :c")),
    ("SELECT p.id, o.n FROM p JOIN o ON o.product = p.id WHERE p.id = :id", ("o", "product = :id")),
    ("SELECT a.id FROM p a JOIN p b ON a.id = b.id WHERE a.id = :id", ("p", "id = :id")),
    ("SELECT a.id FROM p a, p b WHERE a.id = :id AND b.id = :id", ("p", "id = :id")),
    ("SELECT id FROM p WHERE id = :id UNION ALL SELECT small FROM p WHERE id = :id AND active", ("p", "id = :id")),
    ("SELECT id FROM c WHERE EXISTS (SELECT FROM p WHERE id = :id)", ("p", "id = :id")),
    (
        "SELECT id FROM p a WHERE id = :id AND NOT EXISTS (SELECT FROM p b WHERE b.id = :id AND b.price > a.price)",
        ("p", "id = :id"),
    ),
    ("SELECT (SELECT max(price) FROM p WHERE category = :c) AS m", ("p", "category = :c")),
    (
        "SELECT c.id, s.n FROM c, LATERAL (SELECT count(*) AS n FROM p WHERE category = :c AND kind = c.slug) s",
        ("p", "category = :c"),
    ),
    ("SELECT \"P 1\".id FROM p AS \"P 1\" WHERE \"P 1\".id = :id", ("p", "id = :id")),
    ("SELECT id, (SELECT max(id) FROM other.p) AS m FROM p WHERE id = :id", ("public.p", "id = :id")),
    ("SELECT id FROM parts WHERE id = :id", ("parts", "id = :id")),
    ("SELECT id FROM parts WHERE region = :r", ("parts", "region = :r")),
    ("SELECT id FROM eu WHERE id = :id", ("eu", "id = :id")),
    ("SELECT id FROM base WHERE id = :id", ("base", "id = :id")),
    ("SELECT id FROM heir WHERE extra = :e", ("heir", "extra = :e")),
];

/// Statements whose declaration the plan doesn't bear out, or whose columns rows can't be told by.
const REFUSED: &[(&str, Stated, &str)] = &[
    ("SELECT name FROM p", ("p", "id = :id"), ""),
    ("SELECT id, (SELECT max(price) FROM p) AS m FROM p WHERE id = :id", ("p", "id = :id"), "without regard to id"),
    (
        "SELECT id FROM p WHERE price = (SELECT max(price) FROM p) AND id = :id",
        ("p", "id = :id"),
        "without regard to id",
    ),
    ("SELECT a.id FROM p a JOIN p b ON a.category = b.category WHERE a.id = :id", ("p", "id = :id"), "the"),
    (
        "SELECT id FROM p a WHERE id = :id AND NOT EXISTS (SELECT FROM p b WHERE b.price > a.price)",
        ("p", "id = :id"),
        "as b reads rows",
    ),
    ("SELECT id FROM best WHERE id = :id", ("p", "id = :id"), "without regard to id"),
    (
        "SELECT * FROM (SELECT DISTINCT ON (kind) id, kind FROM p ORDER BY kind, price) q WHERE id = :id",
        ("p", "id = :id"),
        "",
    ),
    ("SELECT * FROM (SELECT id, rank() OVER (ORDER BY price) AS r FROM p) q WHERE id = :id", ("p", "id = :id"), ""),
    ("SELECT * FROM (SELECT id FROM p ORDER BY price LIMIT 3) q WHERE id = :id", ("p", "id = :id"), ""),
    ("SELECT * FROM (SELECT id FROM p OFFSET 0) q WHERE id = :id", ("p", "id = :id"), ""),
    ("WITH q AS MATERIALIZED (SELECT id FROM p) SELECT id FROM q WHERE id = :id", ("p", "id = :id"), ""),
    ("SELECT p.name FROM o JOIN p ON p.id = o.product WHERE o.id = :id", ("p", "id = :id"), "without regard to id"),
    ("SELECT (SELECT name FROM p WHERE p.id = o.product) AS name FROM o WHERE o.product = :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id = :id OR category = 3", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id = :id OR id = :other", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id IN (:id, :other)", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id = ANY (ARRAY[:id, 2])", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id BETWEEN :id AND :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id >= :id AND id <= :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id <> :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id IS NOT DISTINCT FROM :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE (id = :id) IS TRUE", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE CASE WHEN active THEN id ELSE 0 END = :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE coalesce(id, 0) = :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id + 0 = :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id = :id + 1", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id = (SELECT :id::int)", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id = :other AND category = :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id = :id AND false", ("p", "id = :id"), "no scan"),
    ("SELECT c.id FROM c LEFT JOIN p ON p.id = c.id AND c.id = :id", ("p", "id = :id"), ""),
    ("SELECT p.id FROM p LEFT JOIN c ON p.id = :id", ("p", "id = :id"), ""),
    ("SELECT id FROM p WHERE id = :id UNION SELECT id FROM p", ("p", "id = :id"), ""),
    ("SELECT id FROM p EXCEPT SELECT id FROM p WHERE id = :id", ("p", "id = :id"), ""),
    (
        "WITH RECURSIVE t AS (SELECT id FROM p WHERE id = :id UNION SELECT p.category FROM p, t WHERE p.id = t.id) SELECT id FROM t",
        ("p", "id = :id"),
        "",
    ),
    ("SELECT id FROM p TABLESAMPLE bernoulli (50) REPEATABLE (1) WHERE id = :id", ("p", "id = :id"), "where they lie"),
    ("SELECT c.id FROM c LEFT JOIN p ON p.id = c.id WHERE c.slug = :s", ("p", "id = :s"), "family of types"),
    ("SELECT c.id FROM c LEFT JOIN p ON p.id = c.id WHERE c.id = :id", ("p", "id = :id"), "no scan"),
    ("SELECT id FROM p WHERE id = :id::numeric", ("p", "id = :id"), "family of types"),
    ("SELECT id FROM p WHERE id::text = :id", ("p", "id = :id"), "family of types"),
    ("SELECT id FROM p WHERE name = :name AND lower(name) = 'x'", ("p", "kind = :name"), "without regard to kind"),
    ("SELECT id FROM p WHERE name = :name::varchar", ("p", "name = :name"), "without regard to name"),
    ("SELECT id FROM p WHERE lower(name) = :name", ("p", "name = :name"), ""),
    ("SELECT id FROM p WHERE name LIKE :name", ("p", "name = :name"), ""),
    ("SELECT id FROM p WHERE name COLLATE folds = :name", ("p", "name = :name"), "the collation folds"),
    ("SELECT id FROM p WHERE name = :name ORDER BY kind COLLATE folds", ("p", "name = :name"), "the collation folds"),
    ("SELECT id FROM x WHERE name = :name AND code = 'x'", ("x", "name = :name"), "the operator"),
    ("SELECT id FROM x WHERE folded = :name", ("x", "folded = :name"), "finds texts equal"),
    ("SELECT id FROM x WHERE code = :name", ("x", "code = :name"), "print differently"),
    ("SELECT id FROM p WHERE price = :x", ("p", "price = :x"), "print differently"),
    ("SELECT id FROM p WHERE padded = :x", ("p", "padded = :x"), "print differently"),
    ("SELECT id FROM p WHERE at = :x", ("p", "at = :x"), "print differently"),
    ("SELECT id FROM p WHERE day = :x", ("p", "day = :x"), "print differently"),
    ("SELECT id FROM p WHERE f = :x", ("p", "f = :x"), "print differently"),
    ("SELECT id FROM p WHERE dom = :x", ("p", "dom = :x"), "print differently"),
    ("SELECT id FROM p WHERE size = :x", ("p", "size = :x"), "print differently"),
    ("SELECT id FROM p WHERE tags = :x", ("p", "tags = :x"), "print differently"),
    ("SELECT id FROM p WHERE id = :id", ("p", "gone = :id"), "no column gone"),
    ("SELECT id FROM p WHERE id = :id", ("p", "ctid = :id"), "no column ctid"),
    ("SELECT id FROM vv WHERE id = :id", ("v", "id = :id"), "a view"),
    ("SELECT id FROM p WHERE id = :id", ("c", "id = :id"), "does not read it"),
    ("SELECT id FROM parts WHERE n = 1 AND :r::text = 'eu'", ("parts", "region = :r"), "without regard to region"),
    (
        "SELECT id FROM parts WHERE id = :id UNION ALL SELECT id FROM rest0",
        ("parts", "id = :id"),
        "without regard to id",
    ),
    ("SELECT id FROM base WHERE id = :id UNION ALL SELECT id FROM heir", ("base", "id = :id"), "without regard to id"),
];

#[tokio::test]
async fn a_declaration_that_every_scan_bears_out_is_believed() {
    let bench = Bench::new(TABLES).await;
    let declarations =
        ACCEPTED.iter().enumerate().map(|(i, (sql, rows))| stated(&format!("q{i}"), sql, &[*rows])).collect();
    let (verdicts, _) = bench.all(declarations).await;
    let mut wrong = vec![];
    for ((sql, (table, rows)), verdict) in ACCEPTED.iter().zip(&verdicts) {
        let mut columns: Vec<&str> =
            rows.split(" and ").map(|part| part.split(" =").next().expect("a column")).collect();
        columns.sort_unstable();
        let table = if table.contains('.') { (*table).to_owned() } else { format!("public.{table}") };
        if !tables(verdict).contains(&format!("{table}:{}", columns.join(","))) {
            wrong.push(format!("{sql}: {:?}", verdict.reasons));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn any_other_is_the_whole_table_and_says_why() {
    let bench = Bench::new(TABLES).await;
    // A parameter that the text doesn't use can't be declared.
    let cases: Vec<_> = REFUSED
        .iter()
        .filter(|(sql, (_, rows), _)| {
            rows.split(" and ").all(|part| sql.contains(part.split("= ").nth(1).expect("a parameter")))
        })
        .collect();
    assert_eq!(cases.len(), REFUSED.len() - 1);
    let declarations =
        cases.iter().enumerate().map(|(i, (sql, rows, _))| stated(&format!("q{i}"), sql, &[*rows])).collect();
    let (verdicts, _) = bench.all(declarations).await;
    let mut wrong = vec![];
    for ((sql, _, word), verdict) in cases.iter().zip(&verdicts) {
        let whole = tables(verdict).iter().all(|table| !table.contains(':'));
        let why = verdict.reasons.join("; ");
        if !whole || !why.contains("counts as a whole: ") || !why.contains(word) {
            wrong.push(format!("{sql}: {:?} {why}", tables(verdict)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_declared_cast_that_changes_values_is_not_seen_through() {
    let bench = Bench::new(TABLES).await;
    let rows: &[Stated] = &[("p", "name = :name")];
    let sql = "SELECT id FROM p WHERE name = :name";
    let plain = bench.of(typed(stated("q", sql, rows), &[("name", "text")])).await;
    assert_eq!(tables(&plain), ["public.p:name"]);
    let cut = bench.of(typed(stated("q", sql, rows), &[("name", "varchar(3)")])).await;
    assert_eq!(tables(&cut), ["public.p"]);
}

//! The database that writers and readers share: its tables, its roles, its first rows, and how a row's state is read.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Error};

use super::ddl::DEFINITIONS;
use super::history::{Histories, Key, Relation, State};

/// The database.
pub const DATABASE: &str = "oracle";

/// Owns schema `shop` and installs schema `seawall`; no superuser, so definitions are found by their fingerprint alone.
pub const OWNER: &str = "owner";

/// What pods connect as.
pub const SERVICE: &str = "service";

/// What writers connect as: it has no grant on schema `seawall`.
pub const WRITER: &str = "writer";

pub const ITEMS: i64 = 24;
/// Of items, and of parts, each of which has a partition.
pub const GROUPS: i64 = 4;
pub const NOTES: i64 = 48;
pub const PARTS: i64 = 24;
pub const ANIMALS: i64 = 12;
/// More than three times what is announced row by row.
pub const BULK: i64 = 200;
pub const BULK_CHILDREN: i64 = 40;
/// Of each partition of `grown`.
pub const GROWN: i64 = 4;

/// The groups of [`Relation::Animal`]: which table the row is in.
pub const TABLES_OF_ANIMALS: [&str; 3] = ["shop.animal", "shop.cat", "shop.dog"];

/// As the superuser, in the new database.
pub const ROLES: &str = "
    CREATE ROLE owner LOGIN; CREATE ROLE service LOGIN; CREATE ROLE writer LOGIN;
    GRANT CREATE ON DATABASE oracle TO owner;
    CREATE SCHEMA shop AUTHORIZATION owner;
    GRANT USAGE ON SCHEMA shop TO writer, service;
    ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA shop GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLES TO writer;
    ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA shop GRANT SELECT ON TABLES TO service";

/// As the owner, by whom a writer's token is asked for: the writer may not. A note belongs to the item of its number modulo [`ITEMS`], a child to the bulk row of its number.
pub const TABLES: &str = "
    CREATE TABLE shop.item (id int4 PRIMARY KEY, grp int8 NOT NULL, v int8 NOT NULL);
    CREATE INDEX ON shop.item (grp);
    CREATE TABLE shop.note (id int4 PRIMARY KEY, item int4 NOT NULL REFERENCES shop.item ON DELETE CASCADE, v int8 NOT NULL);
    CREATE VIEW shop.item_seen AS SELECT id, grp, v FROM shop.item WHERE grp IN (1, 2);
    CREATE VIEW shop.item_seen_twice AS SELECT id, v FROM shop.item_seen;
    CREATE TABLE shop.part (id int4, grp int4, v int8 NOT NULL, PRIMARY KEY (id, grp)) PARTITION BY LIST (grp);
    CREATE TABLE shop.part_0 PARTITION OF shop.part FOR VALUES IN (0);
    CREATE TABLE shop.part_1 PARTITION OF shop.part FOR VALUES IN (1);
    CREATE TABLE shop.part_2 PARTITION OF shop.part FOR VALUES IN (2);
    CREATE TABLE shop.part_3 PARTITION OF shop.part FOR VALUES IN (3);
    CREATE TABLE shop.animal (id int4 NOT NULL, v int8 NOT NULL);
    CREATE TABLE shop.cat () INHERITS (shop.animal);
    CREATE TABLE shop.dog () INHERITS (shop.animal);
    CREATE TABLE shop.bulk (id int4 PRIMARY KEY, v int8 NOT NULL);
    CREATE TABLE shop.bulk_child (id int4 PRIMARY KEY REFERENCES shop.bulk ON DELETE CASCADE, v int8 NOT NULL);
    CREATE TABLE shop.grown (id int4 NOT NULL, grp int4 NOT NULL, v int8 NOT NULL) PARTITION BY LIST (grp);
    CREATE TABLE shop.grown_0 PARTITION OF shop.grown FOR VALUES IN (0);
    CREATE FUNCTION shop.slowly(seconds float8) RETURNS bool LANGUAGE plpgsql STABLE AS
        $$ BEGIN PERFORM pg_sleep(seconds); RETURN true; END $$;
    CREATE FUNCTION shop.token() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN seawall.token(); END $$";

/// Every row's first state, all with version 1.
pub fn initial() -> Histories {
    let mut histories = Histories::default();
    let mut rows = |relation, numbers: std::ops::Range<i64>, group: &dyn Fn(i64) -> Option<i64>| {
        for id in numbers {
            histories.initial(Key(relation, id), State::Row { group: group(id), version: 1 });
        }
    };
    rows(Relation::Item, 0..ITEMS, &|id| Some(id % GROUPS));
    rows(Relation::Note, 0..NOTES, &|id| Some(id % ITEMS));
    rows(Relation::Part, 0..PARTS, &|id| Some(id % GROUPS));
    rows(Relation::Animal, 0..ANIMALS, &|id| Some(id % 3));
    rows(Relation::Bulk, 0..BULK, &|_| None);
    rows(Relation::BulkChild, 0..BULK_CHILDREN, &|_| None);
    rows(Relation::Grown, 0..GROWN, &|_| Some(0));
    rows(Relation::Definition, 0..DEFINITIONS, &|_| None);
    histories
}

/// The rows of [`initial`], as the owner.
pub fn rows() -> String {
    format!(
        "INSERT INTO shop.item SELECT id, id % {GROUPS}, 1 FROM generate_series(0, {ITEMS} - 1) AS id;
         INSERT INTO shop.note SELECT id, id % {ITEMS}, 1 FROM generate_series(0, {NOTES} - 1) AS id;
         INSERT INTO shop.part SELECT id, id % {GROUPS}, 1 FROM generate_series(0, {PARTS} - 1) AS id;
         INSERT INTO shop.animal SELECT id, 1 FROM generate_series(0, {ANIMALS} - 1, 3) AS id;
         INSERT INTO shop.cat SELECT id, 1 FROM generate_series(1, {ANIMALS} - 1, 3) AS id;
         INSERT INTO shop.dog SELECT id, 1 FROM generate_series(2, {ANIMALS} - 1, 3) AS id;
         INSERT INTO shop.bulk SELECT id, 1 FROM generate_series(0, {BULK} - 1) AS id;
         INSERT INTO shop.bulk_child SELECT id, 1 FROM generate_series(0, {BULK_CHILDREN} - 1) AS id;
         INSERT INTO shop.grown SELECT id, 0, 1 FROM generate_series(0, {GROWN} - 1) AS id"
    )
}

/// What reads all rows of a relation as identity, group and version.
fn select(relation: Relation) -> &'static str {
    match relation {
        Relation::Item => "SELECT id::int8, grp::int8, v FROM shop.item",
        Relation::Note => "SELECT id::int8, item::int8, v FROM shop.note",
        Relation::Part => "SELECT id::int8, grp::int8, v FROM shop.part",
        Relation::Animal => {
            "SELECT id::int8, CASE tableoid::regclass::text WHEN 'shop.cat' THEN 1 WHEN 'shop.dog' THEN 2 ELSE 0 END::int8, \
             v FROM shop.animal"
        }
        Relation::Bulk => "SELECT id::int8, NULL::int8, v FROM shop.bulk",
        Relation::BulkChild => "SELECT id::int8, NULL::int8, v FROM shop.bulk_child",
        Relation::Grown => "SELECT id::int8, grp::int8, v FROM shop.grown",
        Relation::Definition => "SELECT NULL::int8, NULL::int8, NULL::int8 WHERE false",
    }
}

/// The rows of a relation as they are in Postgres now; what isn't there is absent.
///
/// # Errors
/// The server has gone.
pub async fn read(client: &Client, relation: Relation) -> Result<BTreeMap<Key, State>, Error> {
    let rows = client.query(select(relation), &[]).await?;
    Ok(rows
        .iter()
        .map(|row| (Key(relation, row.get(0)), State::Row { group: row.get(1), version: row.get(2) }))
        .collect())
}

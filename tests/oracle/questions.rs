//! The queries that pods are configured with, what each depends on, and what an answer says about which rows.

use std::fmt::Write as _;

use serde::Deserialize;

use super::history::{Histories, Key, Relation, State};
use super::judge::{Fact, Filter, Measure};
use super::schema::{ANIMALS, BULK, BULK_CHILDREN, GROUPS, ITEMS, NOTES, PARTS};

/// A query.
#[derive(Clone, Copy)]
pub struct Query {
    pub name: &'static str,
    sql: &'static str,
    /// Lines of its section beside `sql`.
    settings: &'static str,
    /// What `/status` says of it.
    pub verdict: &'static str,
    /// Its parameter's values are below this; none where that is 0.
    pub values: i64,
    parameter: &'static str,
    about: About,
}

/// What its rows are, or what is added up.
#[derive(Clone, Copy)]
pub enum About {
    /// The row of the parameter.
    Row(Relation),
    /// Those whose group is the parameter.
    Group(Relation),
    /// Those of a group.
    Only(Relation, i64),
    /// Those of either.
    Either(Relation, i64, i64),
    /// All.
    Every(Relation),
    /// An item, and its notes beside it.
    ItemAndNotes,
    /// The count, the sum and the greatest version of a group.
    GroupTotal(Relation),
    /// The same of all.
    Total(Relation),
    /// The one version that a definition makes it show.
    Definition(i64),
}

/// One of them, with the value of its parameter.
#[derive(Clone, Copy)]
pub struct Question {
    pub query: &'static Query,
    value: i64,
}

/// A query without a parameter, whose freshness is exact.
pub const fn query(name: &'static str, sql: &'static str, settings: &'static str, about: About) -> Query {
    Query { name, sql, settings, verdict: "exact", values: 0, parameter: "", about }
}

/// The same, believed where nothing can be seen.
pub const fn declared(of: Query) -> Query {
    Query { verdict: "declared", ..of }
}

/// The same, of which nothing is known.
pub const fn timed(of: Query) -> Query {
    Query { verdict: "ttl-only", ..of }
}

/// The same, of this parameter.
pub const fn with(parameter: &'static str, values: i64, of: Query) -> Query {
    Query { values, parameter, ..of }
}

/// All that every run asks.
pub static QUERIES: &[Query] = &[
    with(
        "id",
        ITEMS,
        query(
            "item_row",
            "SELECT id, v FROM shop.item WHERE id = :id",
            "depends = { \"shop.item\" = \"id = :id\" }",
            About::Row(Relation::Item),
        ),
    ),
    with(
        "grp",
        GROUPS,
        query(
            "item_group",
            "SELECT id, v FROM shop.item WHERE grp = :grp ORDER BY id",
            "depends = { \"shop.item\" = \"grp = :grp\" }",
            About::Group(Relation::Item),
        ),
    ),
    // Old answers are given while it is refreshed; they say so, and what says nothing is as fresh as elsewhere.
    with(
        "grp",
        GROUPS,
        query(
            "item_group_lax",
            "SELECT id, v FROM shop.item WHERE grp = :grp ORDER BY v",
            "depends = { \"shop.item\" = \"grp = :grp\" }\nserve_invalidated = \"300ms\"\nstale_while_revalidate = \"1s\"\n\
         on_blind = \"serve\"\nttl = \"2s\"\nwait_at_most = \"20ms\"\nstale_if_error = \"1m\"",
            About::Group(Relation::Item),
        ),
    ),
    query("items", "SELECT id, v FROM shop.item", "", About::Every(Relation::Item)),
    query("item_view", "SELECT id, v FROM shop.item_seen_twice", "", About::Either(Relation::Item, 1, 2)),
    query(
        "item_cte",
        "WITH chosen AS (SELECT * FROM shop.item WHERE grp = 0 UNION ALL SELECT * FROM shop.item WHERE grp = 3) \
         SELECT id, v FROM chosen ORDER BY v",
        "",
        About::Either(Relation::Item, 0, 3),
    ),
    // 20 ms of nothing before the table is read, under the snapshot from before.
    with(
        "grp",
        GROUPS,
        query(
            "item_slow",
            "SELECT id, v FROM shop.item WHERE grp = :grp AND (SELECT count(*) FROM generate_series(1, 100000)) > 0",
            "",
            About::Group(Relation::Item),
        ),
    ),
    with(
        "grp",
        GROUPS,
        declared(query(
            "item_declared",
            "SELECT id, v FROM shop.item WHERE grp = :grp AND (SELECT shop.slowly(0.03))",
            "depends = { \"shop.item\" = true }",
            About::Group(Relation::Item),
        )),
    ),
    with(
        "id",
        ITEMS,
        query(
            "item_notes",
            "SELECT i.id, i.v, n.id AS note, n.v AS note_v FROM shop.item i LEFT JOIN shop.note n ON n.item = i.id \
         WHERE i.id = :id",
            "depends = { \"shop.item\" = \"id = :id\", \"shop.note\" = true }",
            About::ItemAndNotes,
        ),
    ),
    with(
        "grp",
        GROUPS,
        query(
            "item_total",
            "SELECT count(*) AS n, coalesce(sum(v), 0)::int8 AS s, coalesce(max(v), 0) AS m FROM shop.item WHERE grp = :grp",
            "depends = { \"shop.item\" = \"grp = :grp\" }",
            About::GroupTotal(Relation::Item),
        ),
    ),
    with(
        "id",
        NOTES,
        query(
            "note_row",
            "SELECT id, v FROM shop.note WHERE id = :id",
            "depends = { \"shop.note\" = \"id = :id\" }",
            About::Row(Relation::Note),
        ),
    ),
    with(
        "item",
        ITEMS,
        query(
            "note_group",
            "SELECT id, v FROM shop.note WHERE item = :item",
            "depends = { \"shop.note\" = \"item = :item\" }",
            About::Group(Relation::Note),
        ),
    ),
    with(
        "id",
        PARTS,
        query(
            "part_row",
            "SELECT id, v FROM shop.part WHERE id = :id",
            "depends = { \"shop.part\" = \"id = :id\" }",
            About::Row(Relation::Part),
        ),
    ),
    with(
        "grp",
        GROUPS,
        query("part_group", "SELECT id, v FROM shop.part WHERE grp = :grp", "", About::Group(Relation::Part)),
    ),
    query("part_one", "SELECT id, v FROM shop.part_1", "", About::Only(Relation::Part, 1)),
    query(
        "part_total",
        "SELECT count(*) AS n, coalesce(sum(v), 0)::int8 AS s, coalesce(max(v), 0) AS m FROM shop.part",
        "",
        About::Total(Relation::Part),
    ),
    query("animals", "SELECT id, v FROM shop.animal", "", About::Every(Relation::Animal)),
    with(
        "id",
        ANIMALS,
        query(
            "animal_row",
            "SELECT id, v FROM shop.animal WHERE id = :id",
            "depends = { \"shop.animal\" = \"id = :id\" }",
            About::Row(Relation::Animal),
        ),
    ),
    query("cats", "SELECT id, v FROM shop.cat", "", About::Only(Relation::Animal, 1)),
    query("only_animals", "SELECT id, v FROM ONLY shop.animal", "", About::Only(Relation::Animal, 0)),
    with(
        "id",
        BULK,
        query(
            "bulk_row",
            "SELECT id, v FROM shop.bulk WHERE id = :id",
            "depends = { \"shop.bulk\" = \"id = :id\" }",
            About::Row(Relation::Bulk),
        ),
    ),
    query(
        "bulk_total",
        "SELECT count(*) AS n, coalesce(sum(v), 0)::int8 AS s, coalesce(max(v), 0) AS m FROM shop.bulk",
        "",
        About::Total(Relation::Bulk),
    ),
    with(
        "id",
        BULK_CHILDREN,
        query(
            "child_row",
            "SELECT id, v FROM shop.bulk_child WHERE id = :id",
            "depends = { \"shop.bulk_child\" = \"id = :id\" }",
            About::Row(Relation::BulkChild),
        ),
    ),
    query("grown", "SELECT id, v FROM shop.grown", "", About::Every(Relation::Grown)),
];

/// The sections of these queries.
pub fn toml(queries: &[Query]) -> String {
    queries.iter().fold(String::new(), |mut toml, Query { name, sql, settings, .. }| {
        writeln!(toml, "[queries.{name}]\nsql = \"\"\"{sql}\"\"\"\n{settings}").expect("a String takes it");
        toml
    })
}

#[derive(Deserialize)]
struct Shown {
    id: i64,
    v: i64,
    note: Option<i64>,
    note_v: Option<i64>,
}

#[derive(Deserialize)]
struct Defined {
    v: Version,
}

/// Of a type that DDL changes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Version {
    Number(i64),
    Text(String),
}

#[derive(Deserialize)]
struct Added {
    n: i64,
    s: i64,
    m: i64,
}

impl Question {
    /// Any about `query`.
    pub fn draw(query: &'static Query, rng: &mut fastrand::Rng) -> Self {
        Self { query, value: rng.i64(0..query.values.max(1)) }
    }

    /// Each about `query`.
    pub fn all(query: &'static Query) -> impl Iterator<Item = Self> {
        (0..query.values.max(1)).map(move |value| Self { query, value })
    }

    /// One about `query` whose answer shows a row that has become this, if there is one.
    pub fn about(query: &'static Query, key: Key, state: State, rng: &mut fastrand::Rng) -> Option<Self> {
        let Key(relation, id) = key;
        // Of a row that has gone its group isn't known here: any, then.
        let group = |rng: &mut fastrand::Rng| state.group().unwrap_or_else(|| rng.i64(0..query.values));
        let value = match query.about {
            About::Row(own) if own == relation => id,
            About::Group(own) | About::GroupTotal(own) if own == relation => group(rng),
            About::ItemAndNotes if relation == Relation::Item => id,
            About::ItemAndNotes if relation == Relation::Note => id % ITEMS,
            About::Only(own, _) | About::Either(own, ..) | About::Every(own) | About::Total(own) if own == relation => {
                0
            }
            About::Definition(row) if relation == Relation::Definition && row == id => 0,
            _ => return None,
        };
        Some(Self { query, value })
    }

    /// Whether what it shows is what definitions make of rows.
    pub fn is_by_definition(&self) -> bool {
        matches!(self.query.about, About::Definition(_))
    }

    /// Its path.
    pub fn path(&self) -> String {
        let Query { name, parameter, .. } = self.query;
        if parameter.is_empty() {
            return format!("/v1/queries/{name}");
        }
        format!("/v1/queries/{name}?{parameter}={}", self.value)
    }

    /// What the body of an answer says.
    ///
    /// # Errors
    /// It is no answer to this question.
    pub fn facts(&self, body: &[u8], histories: &Histories) -> Result<Vec<Fact>, serde_json::Error> {
        let rows = |relation, filter| listed(body, histories.keys_of(relation), filter);
        match self.query.about {
            About::Row(relation) => listed(body, vec![Key(relation, self.value)], Filter::Any),
            About::Group(relation) => rows(relation, Filter::Group(self.value)),
            About::Only(relation, group) => rows(relation, Filter::Group(group)),
            About::Either(relation, one, other) => rows(relation, Filter::Groups(one, other)),
            About::Every(relation) => rows(relation, Filter::Any),
            About::ItemAndNotes => self.item_and_notes(body),
            About::GroupTotal(relation) => total(body, &histories.keys_of(relation), Filter::Group(self.value)),
            About::Definition(row) => defined(body, Key(Relation::Definition, row)),
            About::Total(relation) => total(body, &histories.keys_of(relation), Filter::Any),
        }
    }

    fn item_and_notes(&self, body: &[u8]) -> Result<Vec<Fact>, serde_json::Error> {
        let rows: Vec<Shown> = serde_json::from_slice(body)?;
        let item = rows.first().map(|row| row.v);
        let mut facts = vec![Fact::Row { key: Key(Relation::Item, self.value), filter: Filter::Any, shown: item }];
        facts.extend((0..NOTES).filter(|note| note % ITEMS == self.value).map(|note| {
            let shown = rows.iter().find(|row| row.note == Some(note)).and_then(|row| row.note_v);
            Fact::Row { key: Key(Relation::Note, note), filter: Filter::Any, shown }
        }));
        Ok(facts)
    }
}

fn listed(body: &[u8], keys: Vec<Key>, filter: Filter) -> Result<Vec<Fact>, serde_json::Error> {
    let rows: Vec<Shown> = serde_json::from_slice(body)?;
    let shown = |key: Key| rows.iter().find(|row| row.id == key.1).map(|row| row.v);
    Ok(keys.into_iter().map(|key| Fact::Row { key, filter, shown: shown(key) }).collect())
}

fn defined(body: &[u8], key: Key) -> Result<Vec<Fact>, serde_json::Error> {
    let rows: Vec<Defined> = serde_json::from_slice(body)?;
    let shown = rows.first().map(|row| match &row.v {
        Version::Number(n) => *n,
        Version::Text(text) => text.parse().unwrap_or(-1),
    });
    Ok(vec![Fact::Row { key, filter: Filter::Any, shown }])
}

fn total(body: &[u8], keys: &[Key], filter: Filter) -> Result<Vec<Fact>, serde_json::Error> {
    let [Added { n, s, m }] = serde_json::from_slice(body)?;
    let fact = |measure, value: i64| Fact::Total { keys: keys.to_vec(), filter, measure, value: value.into() };
    Ok(vec![fact(Measure::Count, n), fact(Measure::Sum, s), fact(Measure::Max, m)])
}

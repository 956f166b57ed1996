//! Definitions that change answers without any row being written: each form is a row whose version DDL sets.
//!
//! They are run by the owner of the tables, one after the other, and each in one transaction, so that what a form shows is
//! the last that was committed. A new partition has no triggers until `seawall migrate` has run again: meanwhile its query
//! is ttl-only and says so, and what it answers is not judged.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Client;

use super::eventually::eventually;
use super::history::{Key, Relation, State};
use super::pod;
use super::questions::{About, Query, declared, query};
use super::run::{Plan, Readers, Run, run};
use super::schema::{GROWN, OWNER};

const WITHIN: Duration = Duration::from_secs(30);

/// Policies tell these rows apart: a walled table has so many.
const WALLED: i64 = 10_000;

/// A way of changing what is answered. Its number is that of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    ReplacedView,
    ReplacedFunction,
    RefreshedView,
    RenamedValue,
    Attached,
    DroppedPolicy,
    ColumnsType,
    RenamedTables,
    BehindAView,
    Quiet,
    NewPartition,
}

const FORMS: [Form; 11] = [
    Form::ReplacedView,
    Form::ReplacedFunction,
    Form::RefreshedView,
    Form::RenamedValue,
    Form::Attached,
    Form::DroppedPolicy,
    Form::ColumnsType,
    Form::RenamedTables,
    Form::BehindAView,
    Form::Quiet,
    Form::NewPartition,
];

/// Rows of definitions: as many as there are forms, and the tables that are attached, renamed and hidden.
pub const DEFINITIONS: i64 = 13;

const ATTACHED_A: i64 = 10;
const ATTACHED_B: i64 = 11;
const HIDDEN: i64 = 12;

const fn row(form: Form) -> i64 {
    form as i64
}

fn tables() -> String {
    format!(
        "CREATE TABLE shop.d_anchor AS SELECT 1 AS id;
         CREATE VIEW shop.d_view AS SELECT id, 1::int8 AS v FROM shop.d_anchor;
         CREATE FUNCTION shop.d_function() RETURNS int8 LANGUAGE sql STABLE AS 'SELECT 1::int8';
         CREATE TABLE shop.d_source AS SELECT 1::int8 AS v;
         CREATE MATERIALIZED VIEW shop.d_refreshed AS SELECT v FROM shop.d_source;
         CREATE TYPE shop.d_enum AS ENUM ('1');
         CREATE TABLE shop.d_values AS SELECT '1'::shop.d_enum AS v;
         CREATE TABLE shop.d_parent (grp int4, v int8) PARTITION BY LIST (grp);
         CREATE TABLE shop.d_attached_a AS SELECT 1 AS grp, 1::int8 AS v;
         CREATE TABLE shop.d_attached_b AS SELECT 1 AS grp, 1::int8 AS v;
         ALTER TABLE shop.d_parent ATTACH PARTITION shop.d_attached_a FOR VALUES IN (1);
         CREATE TABLE shop.d_walled AS SELECT v FROM generate_series(1::int8, {WALLED}) AS v;
         ALTER TABLE shop.d_walled ENABLE ROW LEVEL SECURITY;
         CREATE POLICY d_policy ON shop.d_walled USING (v = 1);
         CREATE FUNCTION shop.d_let_in() RETURNS SETOF int8 LANGUAGE plpgsql STABLE AS
             'BEGIN RETURN QUERY SELECT v FROM shop.d_walled; END';
         CREATE TABLE shop.d_typed AS SELECT 1::int8 AS v;
         CREATE TABLE shop.d_named AS SELECT 1::int8 AS v;
         CREATE TABLE shop.d_hidden AS SELECT 1::int8 AS v;
         CREATE TABLE shop.d_behind AS SELECT 1::int8 AS v;
         CREATE VIEW shop.d_before AS SELECT v FROM shop.d_behind;
         CREATE TABLE shop.d_quiet AS SELECT 1::int8 AS v"
    )
}

const fn definition(name: &'static str, sql: &'static str, row: i64) -> Query {
    query(name, sql, "", About::Definition(row))
}

/// What shows them.
static QUERIES: &[Query] = &[
    definition("d_view", "SELECT v FROM shop.d_view", row(Form::ReplacedView)),
    declared(query(
        "d_function",
        "SELECT shop.d_function() AS v FROM shop.d_anchor",
        "depends = { \"shop.d_anchor\" = true }",
        About::Definition(row(Form::ReplacedFunction)),
    )),
    definition("d_refreshed", "SELECT v FROM shop.d_refreshed", row(Form::RefreshedView)),
    definition("d_enum", "SELECT v FROM shop.d_values", row(Form::RenamedValue)),
    definition("d_parent", "SELECT v FROM shop.d_parent", row(Form::Attached)),
    definition("d_attached_a", "SELECT v FROM shop.d_attached_a", ATTACHED_A),
    definition("d_attached_b", "SELECT v FROM shop.d_attached_b", ATTACHED_B),
    // Behind a function, where policies that tell callers apart aren't looked for: these tell nobody apart.
    declared(query(
        "d_walled",
        "SELECT v FROM shop.d_let_in() AS v",
        "depends = { \"shop.d_walled\" = true }",
        About::Definition(row(Form::DroppedPolicy)),
    )),
    definition("d_typed", "SELECT v FROM shop.d_typed", row(Form::ColumnsType)),
    definition("d_named", "SELECT v FROM shop.d_named", row(Form::RenamedTables)),
    definition("d_hidden", "SELECT v FROM shop.d_hidden", HIDDEN),
    definition("d_before", "SELECT v FROM shop.d_before", row(Form::BehindAView)),
    definition("d_quiet", "SELECT v FROM shop.d_quiet", row(Form::Quiet)),
];

/// Statements in one transaction, and what they make visible.
struct Definition {
    /// What is written before, in a transaction of its own, and shown by nobody.
    before: Option<String>,
    sql: String,
    shows: BTreeMap<i64, i64>,
}

/// The `n`th of this form, with a version that was never there.
fn define(form: Form, n: i64, version: i64, run: &Run) -> Definition {
    let own = |sql: String| Definition { before: None, sql, shows: BTreeMap::from([(row(form), version)]) };
    let shown =
        |row: i64| run.world.histories().current(Key(Relation::Definition, row)).version().expect("it is there");
    match form {
        Form::ReplacedView => {
            own(format!("CREATE OR REPLACE VIEW shop.d_view AS SELECT id, {version}::int8 AS v FROM shop.d_anchor"))
        }
        Form::ReplacedFunction => own(format!(
            "CREATE OR REPLACE FUNCTION shop.d_function() RETURNS int8 LANGUAGE sql STABLE AS 'SELECT {version}::int8'"
        )),
        Form::RefreshedView => Definition {
            before: Some(format!("UPDATE shop.d_source SET v = {version}")),
            ..own("REFRESH MATERIALIZED VIEW shop.d_refreshed".to_owned())
        },
        Form::RenamedValue => {
            own(format!("ALTER TYPE shop.d_enum RENAME VALUE '{}' TO '{version}'", shown(row(form))))
        }
        Form::Attached => {
            let (gone, comes, table) = match n % 2 {
                0 => ("d_attached_a", "d_attached_b", ATTACHED_B),
                _ => ("d_attached_b", "d_attached_a", ATTACHED_A),
            };
            Definition {
                before: None,
                sql: format!(
                    "ALTER TABLE shop.d_parent DETACH PARTITION shop.{gone}; UPDATE shop.{comes} SET v = {version}; \
                     ALTER TABLE shop.d_parent ATTACH PARTITION shop.{comes} FOR VALUES IN (1)"
                ),
                shows: BTreeMap::from([(row(form), version), (table, version)]),
            }
        }
        Form::DroppedPolicy => {
            let v = n + 2;
            assert!(v <= WALLED, "the walled table has no more rows");
            Definition {
                before: None,
                sql: format!(
                    "DROP POLICY d_policy ON shop.d_walled; CREATE POLICY d_policy ON shop.d_walled USING (v = {v})"
                ),
                shows: BTreeMap::from([(row(form), v)]),
            }
        }
        Form::ColumnsType => {
            let of = if n % 2 == 0 { "int4" } else { "int8" };
            own(format!("ALTER TABLE shop.d_typed ALTER COLUMN v TYPE {of} USING {version}"))
        }
        // What was written there counts, and is shown under another name. The version of the one is then the other's.
        Form::RenamedTables => Definition {
            before: None,
            sql: "ALTER TABLE shop.d_named RENAME TO d_other; ALTER TABLE shop.d_hidden RENAME TO d_named; \
                  ALTER TABLE shop.d_other RENAME TO d_hidden"
                .to_owned(),
            shows: BTreeMap::from([(row(form), shown(HIDDEN)), (HIDDEN, shown(row(form)))]),
        },
        Form::BehindAView => own(format!("UPDATE shop.d_behind{} SET v = {version}", "_".repeat(usize::from(n % 2 == 0)))),
        Form::Quiet => own(format!(
            "ALTER TABLE shop.d_quiet DISABLE TRIGGER USER; UPDATE shop.d_quiet SET v = {version};
             DO $$ DECLARE name text; BEGIN
                 FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.d_quiet'::regclass AND NOT tgisinternal LOOP
                     EXECUTE format('ALTER TABLE shop.d_quiet ENABLE ALWAYS TRIGGER %I', name);
                 END LOOP; END $$"
        )),
        Form::NewPartition => unreachable!("it is more than a transaction"),
    }
}

/// Runs `sql` in one transaction that shows `writes`, again where it met with a deadlock.
async fn commit(run: &Run, owner: &Client, sql: &str, writes: &BTreeMap<Key, State>) {
    loop {
        let commit = run.world.send(writes);
        match owner.batch_execute(sql).await {
            Ok(()) => return run.world.committed(commit),
            Err(error) => {
                let cause = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
                run.world.rolled_back(commit);
                assert_eq!(cause.code().code(), "40P01", "{sql}: {cause}");
            }
        }
    }
}

/// A row of its own in a new partition: written through the parent, and directly once triggers are there.
async fn add_a_partition(run: &Run, owner: &Client, n: i64) {
    let (key, group) = (Key(Relation::Grown, GROWN + n), n + 1);
    let state = |version| BTreeMap::from([(key, State::Row { group: Some(group), version })]);
    run.world.histories().initial(key, State::Absent);
    run.world.judge_not("grown");
    let version = run.world.version();
    let sql = format!(
        "CREATE TABLE shop.grown_{group} PARTITION OF shop.grown FOR VALUES IN ({group}); \
         INSERT INTO shop.grown VALUES ({}, {group}, {version})",
        key.1
    );
    commit(run, owner, &sql, &state(version)).await;
    for pod in &run.pods {
        pod.judges("grown", "ttl-only", WITHIN).await;
    }
    eventually("migrated", WITHIN, async || pod::run("migrate", &run.toml).await).await;
    for pod in &run.pods {
        pod.judges("grown", "exact", WITHIN).await;
    }
    run.world.judge_again("grown");
    let version = run.world.version();
    commit(run, owner, &format!("UPDATE shop.grown_{group} SET v = {version}"), &state(version)).await;
}

async fn define_again_and_again(run: &mut Run, forms: &[Form]) {
    let owner = run.world.session(OWNER).await;
    let mut forms = forms.to_vec();
    let mut n = 0;
    while !run.world.is_over() {
        run.rng.shuffle(&mut forms);
        for &form in &forms {
            if run.world.is_over() {
                return;
            }
            run.world.idle(Duration::from_millis(run.rng.u64(100..700))).await;
            if form == Form::NewPartition {
                add_a_partition(run, &owner, n).await;
            } else {
                if form == Form::BehindAView {
                    let (from, to) = if n % 2 == 0 { ("d_behind", "d_behind_") } else { ("d_behind_", "d_behind") };
                    owner.batch_execute(&format!("ALTER TABLE shop.{from} RENAME TO {to}")).await.expect("renamed");
                }
                if form == Form::RenamedTables {
                    let version = run.world.version();
                    let hidden =
                        BTreeMap::from([(Key(Relation::Definition, HIDDEN), State::Row { group: None, version })]);
                    commit(run, &owner, &format!("UPDATE shop.d_hidden SET v = {version}"), &hidden).await;
                }
                let Definition { before, sql, shows } = define(form, n, run.world.version(), run);
                if let Some(before) = before {
                    owner.batch_execute(&before).await.expect("written");
                }
                let state = |version| State::Row { group: None, version };
                let writes = shows.into_iter().map(|(row, v)| (Key(Relation::Definition, row), state(v))).collect();
                commit(run, &owner, &sql, &writes).await;
            }
            run.world.tally().fault("definitions");
        }
        n += 1;
    }
}

fn plan(name: &'static str) -> Plan {
    Plan { queries: QUERIES, tables: tables(), seconds: 6, ..Plan::new(name) }
}

/// What it takes to tell.
pub fn definitions() -> Plan {
    Plan { breaks: &[("definitions", 11)], ..plan("definitions") }
}

/// All that queries read, one after the other.
pub async fn define_everything(run: &mut Run) {
    define_again_and_again(run, &FORMS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_definition_may_change_under_it() {
    let run = run(definitions(), define_everything).await;
    run.kept_its_promise();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_nobody_notices_is_found_by_the_judge() {
    let plan = Plan {
        invalidation: "source = \"none\"",
        readers: Readers::Bounded,
        seconds: 6,
        breaks: &[("definitions", 22)],
        ..plan("definitions without events")
    };
    // Whether a partition has triggers is nothing that this service asks.
    let transactions: Vec<Form> = FORMS.into_iter().filter(|form| *form != Form::NewPartition).collect();
    let run = run(plan, async |run: &mut Run| define_again_and_again(run, &transactions).await).await;
    let tally = run.world.tally();
    for query in QUERIES {
        assert!(tally.queries[query.name].violations > 0, "{}: nobody noticed\n{tally}", query.name);
    }
}

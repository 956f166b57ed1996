//! Kinds of writes: which rows each needs for itself, and the statements that it may be made of.

use std::fmt::Write as _;

use fastrand::Rng;

use super::draft::Draft;
use super::history::{Key, Relation, State};
use super::schema::{ANIMALS, BULK, BULK_CHILDREN, GROUPS, GROWN, ITEMS, NOTES, PARTS, TABLES_OF_ANIMALS};

/// A write, with what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An item; where it goes, its notes go.
    Item(i64),
    /// The notes of an item, which is made if it is not there.
    Notes(i64),
    /// A row of a partitioned table.
    Part(i64),
    /// A row of a table that others inherit from, or of one of these.
    Animal(i64),
    /// Many rows at once, from and to.
    Bulk(i64, i64),
    /// A row that refers to one of these.
    BulkChild(i64),
    /// All of these.
    Truncate,
    /// A row of a partitioned table that grows, by the parent.
    Grown(i64),
}

/// Whether tables are truncated. It gives them new files, which is a change of their definition: nothing of what was kept
/// outlives it, and what others broke is mended with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncates {
    Sometimes,
    #[cfg_attr(not(feature = "sabotage"), expect(dead_code, reason = "a fault is to be caught without its help"))]
    Never,
}

impl Change {
    /// Any.
    pub fn draw(truncates: Truncates, rng: &mut Rng) -> Self {
        match rng.u32(0..1000) {
            0..300 => Self::Item(rng.i64(0..ITEMS)),
            300..450 => Self::Notes(rng.i64(0..ITEMS)),
            450..650 => Self::Part(rng.i64(0..PARTS)),
            650..800 => Self::Animal(rng.i64(0..ANIMALS)),
            800..880 => {
                // On both sides of what is announced row by row.
                let rows = if rng.bool() { rng.i64(1..8) } else { rng.i64(60..120) };
                let from = rng.i64(0..=BULK - rows);
                Self::Bulk(from, from + rows)
            }
            880..940 => Self::BulkChild(rng.i64(0..BULK_CHILDREN)),
            940..942 if truncates == Truncates::Sometimes => Self::Truncate,
            _ => Self::Grown(rng.i64(0..GROWN)),
        }
    }

    /// The rows that nobody else may write meanwhile.
    pub fn rows(self) -> Vec<Key> {
        let notes = |item: i64| (0..NOTES).filter(move |note| note % ITEMS == item).map(|n| Key(Relation::Note, n));
        let bulk = |from: i64, to: i64| {
            let children = (from..to.min(BULK_CHILDREN)).map(|n| Key(Relation::BulkChild, n));
            (from..to).map(|n| Key(Relation::Bulk, n)).chain(children)
        };
        match self {
            Self::Item(id) | Self::Notes(id) => std::iter::once(Key(Relation::Item, id)).chain(notes(id)).collect(),
            Self::Part(id) => vec![Key(Relation::Part, id)],
            Self::Animal(id) => vec![Key(Relation::Animal, id)],
            Self::Bulk(from, to) => bulk(from, to).collect(),
            Self::BulkChild(id) => vec![Key(Relation::BulkChild, id), Key(Relation::Bulk, id)],
            Self::Truncate => bulk(0, BULK).collect(),
            Self::Grown(id) => vec![Key(Relation::Grown, id)],
        }
    }

    /// Its statements.
    pub fn write(self, draft: &mut Draft<'_>) {
        match self {
            Self::Item(id) => item(draft, id),
            Self::Notes(item) => notes(draft, item),
            Self::Part(id) => part(draft, id),
            Self::Animal(id) => animal(draft, id),
            Self::Bulk(from, to) => bulk(draft, from, to),
            Self::BulkChild(id) => bulk_child(draft, id),
            Self::Truncate => truncate(draft),
            Self::Grown(id) => {
                let version = draft.version();
                draft.run(format!("UPDATE shop.grown SET v = {version} WHERE id = {id}"));
                draft.set(Key(Relation::Grown, id), in_group(0, version));
            }
        }
    }
}

const fn in_group(group: i64, version: i64) -> State {
    State::Row { group: Some(group), version }
}

const fn plain(version: i64) -> State {
    State::Row { group: None, version }
}

fn item(draft: &mut Draft<'_>, id: i64) {
    let key = Key(Relation::Item, id);
    let (v, drawn) = (draft.version(), draft.rng.i64(0..GROUPS));
    let State::Row { group: Some(group), .. } = draft.state(key) else {
        let values = format!("({id}, {drawn}, {v})");
        match draft.rng.u32(0..4) {
            0 => draft
                .run(format!("INSERT INTO shop.item VALUES {values} ON CONFLICT (id) DO UPDATE SET v = excluded.v")),
            1 => draft.run(merge_item(&values, "DO NOTHING")),
            2 => draft.copy("COPY shop.item (id, grp, v) FROM STDIN", format!("{id}\t{drawn}\t{v}\n")),
            _ => draft.run(format!("INSERT INTO shop.item VALUES {values}")),
        }
        return draft.set(key, in_group(drawn, v));
    };
    let kept = format!("({id}, {group}, {v})");
    match draft.rng.u32(0..12) {
        0 | 1 => {
            let merged = merge_item(&kept, "DELETE");
            let deleted = format!("DELETE FROM shop.item WHERE id = {id}");
            let sql = if draft.rng.bool() { merged } else { deleted };
            draft.run(sql);
            for note in (0..NOTES).filter(|note| note % ITEMS == id) {
                draft.set(Key(Relation::Note, note), State::Absent);
            }
            return draft.set(key, State::Absent);
        }
        2 | 3 => {
            draft.run(format!("UPDATE shop.item SET grp = {drawn}, v = {v} WHERE id = {id}"));
            return draft.set(key, in_group(drawn, v));
        }
        4 => draft.run(format!("INSERT INTO shop.item VALUES {kept} ON CONFLICT (id) DO UPDATE SET v = excluded.v")),
        5 => draft.run(merge_item(&kept, "UPDATE SET v = new.v")),
        6 if group == 1 || group == 2 => draft.run(format!("UPDATE shop.item_seen SET v = {v} WHERE id = {id}")),
        7 => draft.run(format!(
            "WITH changed AS (UPDATE shop.item SET v = {v} WHERE id = {id} RETURNING id) SELECT count(*) FROM changed"
        )),
        _ => draft.run(format!("UPDATE shop.item SET v = {v} WHERE id = {id}")),
    }
    draft.set(key, in_group(group, v));
}

fn merge_item(values: &str, matched: &str) -> String {
    format!(
        "MERGE INTO shop.item AS old USING (VALUES {values}) AS new (id, grp, v) ON old.id = new.id \
         WHEN MATCHED THEN {matched} WHEN NOT MATCHED THEN INSERT VALUES (new.id, new.grp, new.v)"
    )
}

fn notes(draft: &mut Draft<'_>, id: i64) {
    if draft.state(Key(Relation::Item, id)) == State::Absent {
        let (v, group) = (draft.version(), draft.rng.i64(0..GROUPS));
        draft.run(format!("INSERT INTO shop.item VALUES ({id}, {group}, {v})"));
        draft.set(Key(Relation::Item, id), in_group(group, v));
    }
    let (v, mut lines) = (draft.version(), String::new());
    for note in (0..NOTES).filter(|note| note % ITEMS == id) {
        let key = Key(Relation::Note, note);
        if draft.state(key) == State::Absent {
            writeln!(lines, "{note}\t{id}\t{v}").expect("a String takes it");
        } else if draft.once_in(3) {
            draft.run(format!("DELETE FROM shop.note WHERE id = {note}"));
            draft.set(key, State::Absent);
            continue;
        } else {
            draft.run(format!("UPDATE shop.note SET v = {v} WHERE id = {note}"));
        }
        draft.set(key, in_group(id, v));
    }
    if !lines.is_empty() {
        draft.copy("COPY shop.note (id, item, v) FROM STDIN", lines);
    }
}

fn part(draft: &mut Draft<'_>, id: i64) {
    let key = Key(Relation::Part, id);
    let (v, drawn) = (draft.version(), draft.rng.i64(0..GROUPS));
    let State::Row { group: Some(group), .. } = draft.state(key) else {
        match draft.rng.u32(0..3) {
            0 => draft.run(format!("INSERT INTO shop.part VALUES ({id}, {drawn}, {v})")),
            1 => draft.copy("COPY shop.part (id, grp, v) FROM STDIN", format!("{id}\t{drawn}\t{v}\n")),
            _ => draft.run(format!("INSERT INTO shop.part_{drawn} VALUES ({id}, {drawn}, {v})")),
        }
        return draft.set(key, in_group(drawn, v));
    };
    let place = if draft.rng.bool() { "shop.part".to_owned() } else { format!("shop.part_{group}") };
    match draft.rng.u32(0..10) {
        0 => {
            draft.run(format!("DELETE FROM {place} WHERE id = {id}"));
            draft.set(key, State::Absent);
        }
        1 | 2 => {
            draft.run(format!("UPDATE shop.part SET grp = {drawn}, v = {v} WHERE id = {id}"));
            draft.set(key, in_group(drawn, v));
        }
        3 => {
            // By hand, from one partition to another.
            draft.run(format!("DELETE FROM shop.part_{group} WHERE id = {id}"));
            draft.run(format!("INSERT INTO shop.part_{drawn} VALUES ({id}, {drawn}, {v})"));
            draft.set(key, in_group(drawn, v));
        }
        4 => {
            draft.run(format!(
                "INSERT INTO {place} VALUES ({id}, {group}, {v}) ON CONFLICT (id, grp) DO UPDATE SET v = excluded.v"
            ));
            draft.set(key, in_group(group, v));
        }
        _ => {
            draft.run(format!("UPDATE {place} SET v = {v} WHERE id = {id}"));
            draft.set(key, in_group(group, v));
        }
    }
}

fn animal(draft: &mut Draft<'_>, id: i64) {
    let key = Key(Relation::Animal, id);
    let (v, to) = (draft.version(), draft.rng.usize(0..TABLES_OF_ANIMALS.len()));
    let (table, number) = (TABLES_OF_ANIMALS[to], i64::try_from(to).expect("small"));
    let State::Row { group: Some(group), .. } = draft.state(key) else {
        draft.run(format!("INSERT INTO {table} VALUES ({id}, {v})"));
        return draft.set(key, in_group(number, v));
    };
    let own = TABLES_OF_ANIMALS[usize::try_from(group).expect("a table's number")];
    match draft.rng.u32(0..8) {
        0 => {
            draft.run(format!("DELETE FROM shop.animal WHERE id = {id}"));
            draft.set(key, State::Absent);
        }
        1 => {
            let gone = format!("WITH gone AS (DELETE FROM ONLY {own} WHERE id = {id} RETURNING id)");
            draft.run(format!("{gone} INSERT INTO {table} SELECT id, {v} FROM gone"));
            draft.set(key, in_group(number, v));
        }
        2..5 => {
            draft.run(format!("UPDATE ONLY {own} SET v = {v} WHERE id = {id}"));
            draft.set(key, in_group(group, v));
        }
        _ => {
            draft.run(format!("UPDATE shop.animal SET v = {v} WHERE id = {id}"));
            draft.set(key, in_group(group, v));
        }
    }
}

fn bulk(draft: &mut Draft<'_>, from: i64, to: i64) {
    let (v, last) = (draft.version(), to - 1);
    let range = format!("id BETWEEN {from} AND {last}");
    // Of those that are there, all are changed or deleted; or all are written, whether or not they are there.
    let (sql, deletes, makes) = match draft.rng.u32(0..8) {
        0 => (format!("DELETE FROM shop.bulk WHERE {range}"), true, false),
        1..4 => (
            format!(
                "INSERT INTO shop.bulk SELECT id, {v} FROM generate_series({from}, {last}) AS id \
                 ON CONFLICT (id) DO UPDATE SET v = excluded.v"
            ),
            false,
            true,
        ),
        _ => (format!("UPDATE shop.bulk SET v = {v} WHERE {range}"), false, false),
    };
    draft.run(sql);
    for id in from..to {
        let key = Key(Relation::Bulk, id);
        if deletes {
            draft.set(key, State::Absent);
            if id < BULK_CHILDREN {
                draft.set(Key(Relation::BulkChild, id), State::Absent);
            }
        } else if makes || draft.state(key) != State::Absent {
            draft.set(key, plain(v));
        }
    }
}

fn bulk_child(draft: &mut Draft<'_>, id: i64) {
    let (v, key, parent) = (draft.version(), Key(Relation::BulkChild, id), Key(Relation::Bulk, id));
    if draft.state(parent) == State::Absent {
        draft.run(format!("INSERT INTO shop.bulk VALUES ({id}, {v})"));
        draft.set(parent, plain(v));
    } else if draft.once_in(4) {
        draft.run(format!("DELETE FROM shop.bulk WHERE id = {id}"));
        draft.set(parent, State::Absent);
        return draft.set(key, State::Absent);
    }
    let values = format!("INSERT INTO shop.bulk_child VALUES ({id}, {v})");
    draft.run(format!("{values} ON CONFLICT (id) DO UPDATE SET v = excluded.v"));
    draft.set(key, plain(v));
}

fn truncate(draft: &mut Draft<'_>) {
    let v = draft.version();
    let children_alone = draft.once_in(3);
    if children_alone {
        draft.run("TRUNCATE shop.bulk_child".to_owned());
    } else {
        draft.run("TRUNCATE shop.bulk CASCADE".to_owned());
        draft.run(format!("INSERT INTO shop.bulk SELECT id, {v} FROM generate_series(0, {BULK} - 1) AS id"));
        (0..BULK).for_each(|id| draft.set(Key(Relation::Bulk, id), plain(v)));
    }
    (0..BULK_CHILDREN).for_each(|id| draft.set(Key(Relation::BulkChild, id), State::Absent));
}

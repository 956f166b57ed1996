//! What a query's freshness rests on: its verdict, the tables it depends on, and from these the tags of an answer and the
//! triggers that have to be there.
//!
//! Pure: Postgres has been asked by whoever made the [`Verdict`]. Everything here errs on the side of more: a tag too many
//! costs a refill, a tag too few is a wrong answer that counts as fresh.
//!
//! # Which tables
//!
//! An event carries the tag of the relation that a statement named, and that may be any relation whose rows, or whose
//! descendants' rows, the query reads. So a dependency has a *family*: the relation, its descendants, and every ancestor of
//! any of them. (The other parent of a child is neither ancestor nor descendant, and an UPDATE that names it changes the
//! child's rows all the same.)

use std::collections::BTreeMap;
use std::fmt;

use super::args;
use super::tags;

/// What a query's freshness rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Every write that could change an answer is announced, and that is proved.
    Exact,
    /// The same, as far as the operator's word is true: the query calls what can't be looked into.
    Declared,
    /// The ttl alone.
    TtlOnly,
}

impl Kind {
    /// As configuration, metrics and reports write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Declared => "declared",
            Self::TtlOnly => "ttl-only",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The verdict on one query of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The fingerprint of the shape that was looked at; of any other shape it says nothing.
    pub shape: u64,
    /// What the query allows, were all triggers there.
    pub at_best: Kind,
    /// Why it is no better, and what else an operator should know. Sentences, for reports.
    pub reasons: Vec<String>,
    /// By schema and name.
    pub dependencies: Vec<Dependency>,
    /// What the verdict was found in. While it stays as it is, so does the verdict.
    pub closure: Closure,
    /// Of this query alone: see [`Verdict::found_in`].
    pub schema: SchemaFingerprint,
}

/// A table that a query depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The one that the query reads.
    pub relation: Relation,
    /// The rows, where the operator states them and the plan proves it; by column. `None`: the whole table.
    pub rows: Option<Vec<RowKey>>,
    /// The relation and its family, by schema and name; empty for a materialized view, which has no triggers.
    pub family: Vec<Member>,
}

/// A column that equals a parameter in every row that a query reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowKey {
    /// Its name.
    pub column: Box<str>,
    /// Index of the parameter.
    pub param: usize,
}

/// A relation of Postgres.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relation {
    /// Its schema's name.
    pub schema: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its row in `pg_class`.
    pub oid: u32,
}

impl Relation {
    /// What an event of it carries.
    pub fn tag(&self) -> Box<str> {
        tags::table(&self.schema, &self.name)
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A relation whose writes are announced, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub relation: Relation,
    /// Columns of the dependency's rows that it has, of a type whose equality is that of texts: what its triggers can
    /// announce. All of them, or none.
    pub columns: Vec<Box<str>>,
    /// Its triggers.
    pub triggers: Triggers,
}

/// Seawall's triggers on a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Triggers {
    /// They are there and enabled.
    Installed {
        /// The tag that they announce. It is the relation's own unless that has been renamed since.
        tag: Box<str>,
        /// Lists of columns, each in order, by which they announce rows.
        columns: Vec<Vec<Box<str>>>,
    },
    /// Some are not, or not for every writer: why, in a few words.
    Missing(Box<str>),
}

/// Triggers that a relation needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its row in `pg_class`.
    pub relation: u32,
    /// Its schema's name.
    pub schema: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Lists of columns to announce rows by, each in the order of the columns' names.
    pub columns: Vec<Vec<Box<str>>>,
}

/// Rows of the catalogs that a verdict was found in. All lists are sorted and without repetition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// Tables, views and the families of tables.
    pub relations: Vec<u32>,
    /// Their names: another relation of the same name may come to stand before one in the search path.
    pub relation_names: Vec<Box<str>>,
    /// Functions, those of operators and aggregates included.
    pub functions: Vec<u32>,
    /// Their names.
    pub function_names: Vec<Box<str>>,
    /// Types that are not built in.
    pub types: Vec<u32>,
}

impl Closure {
    /// Takes in what `other` has.
    pub fn extend(&mut self, other: &Self) {
        fn merge<T: Clone + Ord>(into: &mut Vec<T>, from: &[T]) {
            into.extend_from_slice(from);
            into.sort();
            into.dedup();
        }
        merge(&mut self.relations, &other.relations);
        merge(&mut self.relation_names, &other.relation_names);
        merge(&mut self.functions, &other.functions);
        merge(&mut self.function_names, &other.function_names);
        merge(&mut self.types, &other.types);
    }
}

/// A hash over the rows of a [`Closure`]: equal as long as no definition in it has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SchemaFingerprint(pub u128);

impl fmt::Display for SchemaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Verdict {
    /// The verdict with its own fingerprint: the hash over the closure as it was read, and what the verdict says. Pods that have
    /// it in common share the query's answers. What is said is in it too, since not all of it comes out of the closure: a proof
    /// rests on a plan, and whether tables announce their writes on how events are to come.
    #[must_use]
    pub fn found_in(mut self, definitions: SchemaFingerprint) -> Self {
        let says = format!("{definitions} {:?} {:?}", self.at_best, self.dependencies);
        self.schema = SchemaFingerprint(xxhash_rust::xxh3::xxh3_128(says.as_bytes()));
        self
    }

    /// Whether it says the same as `other`, whatever it was found in.
    pub fn says_as(&self, other: &Self) -> bool {
        let parts = |of: &Self| (of.shape, of.at_best);
        parts(self) == parts(other) && self.reasons == other.reasons && self.dependencies == other.dependencies
    }

    /// What the freshness rests on with the triggers as they are: without one of them, on the ttl.
    pub fn kind(&self) -> Kind {
        if self.missing().next().is_some() { Kind::TtlOnly } else { self.at_best }
    }

    /// Relations whose triggers are missing, and why. None where triggers would be of no use.
    pub fn missing(&self) -> impl Iterator<Item = (&Relation, &str)> {
        self.needed().flat_map(|dependency| &dependency.family).filter_map(|member| match &member.triggers {
            Triggers::Installed { .. } => None,
            Triggers::Missing(why) => Some((&member.relation, &**why)),
        })
    }

    fn needed(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().filter(|_| self.at_best != Kind::TtlOnly)
    }

    /// The tags that the answer of `key` depends on, sorted; empty where its freshness rests on the ttl.
    ///
    /// A NULL equals nothing: rows are never found by it, and only what is announced of every row concerns the answer. The
    /// same goes for a value that is too long to be announced. Where a trigger does not announce the columns of a row
    /// dependency, but some of them, rows with those are more than are read; where it announces none, the table is.
    pub fn tags(&self, key: &[u8]) -> Vec<Box<str>> {
        if self.kind() == Kind::TtlOnly {
            return vec![];
        }
        let values: Vec<Option<&str>> = args::values(key).collect();
        let mut tags = vec![];
        for dependency in &self.dependencies {
            for member in &dependency.family {
                let (announced, own) = (announced(dependency, member), member.relation.tag());
                // What the triggers say, and what somebody who invalidates by hand says.
                let Triggers::Installed { tag, .. } = &member.triggers else { continue };
                for table in [tag, &own] {
                    push(table, announced, dependency, &values, &mut tags);
                }
            }
        }
        tags.sort();
        tags.dedup();
        tags
    }
}

fn push(
    table: &str,
    announced: Option<&[Box<str>]>,
    dependency: &Dependency,
    values: &[Option<&str>],
    tags: &mut Vec<Box<str>>,
) {
    let Some(columns) = announced else {
        tags.push(table.into());
        return;
    };
    let rows = dependency.rows.iter().flatten().filter(|row| columns.contains(&row.column));
    let bound: Option<Vec<(&str, &str)>> = rows.map(|row| value(row, values)).collect();
    if let Some(bound) = bound {
        tags.push(tags::rows(table, &bound));
    }
    tags.push(tags::every_row(table));
}

/// The most telling list of columns that a member's triggers announce of a dependency's rows.
fn announced<'a>(dependency: &Dependency, member: &'a Member) -> Option<&'a [Box<str>]> {
    let rows = dependency.rows.as_ref()?;
    let Triggers::Installed { columns: lists, .. } = &member.triggers else { return None };
    let told = |column: &str| {
        member.columns.iter().any(|own| **own == *column) && rows.iter().any(|row| *row.column == *column)
    };
    let usable = lists.iter().filter(|list| !list.is_empty() && list.iter().all(|column| told(column)));
    usable.max_by_key(|list| list.len()).map(Vec::as_slice)
}

fn value<'a>(row: &'a RowKey, values: &[Option<&'a str>]) -> Option<(&'a str, &'a str)> {
    let value = values.get(row.param).copied().flatten()?;
    (value.len() <= tags::VALUE_MAX_BYTES).then_some((&*row.column, value))
}

/// The triggers that `verdicts` need, by schema and name; of queries that events can't keep fresh, none.
pub fn wanted<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> Vec<Wanted> {
    let mut wanted: BTreeMap<&Relation, Vec<Vec<Box<str>>>> = BTreeMap::new();
    for dependency in verdicts.into_iter().flat_map(Verdict::needed) {
        for member in &dependency.family {
            let lists = wanted.entry(&member.relation).or_default();
            if !member.columns.is_empty() && !lists.contains(&member.columns) {
                lists.push(member.columns.clone());
            }
        }
    }
    wanted
        .into_iter()
        .map(|(relation, mut columns)| {
            columns.sort();
            Wanted { relation: relation.oid, schema: relation.schema.clone(), name: relation.name.clone(), columns }
        })
        .collect()
}

#[cfg(test)]
mod tests;

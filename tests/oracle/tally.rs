//! What came of it all, in numbers: so that a run that saw nothing can't count as one that found nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::judge::Label;
use super::questions::Query;

/// Of one query.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub hits: u64,
    pub filled: u64,
    pub collapsed: u64,
    pub stale: u64,
    /// Answers without content.
    pub errors: u64,
    pub violations: u64,
    /// The longest that a write was visible that a hit lacked.
    pub lag: Duration,
}

/// Of strict readers of one form.
#[derive(Clone, Debug, Default)]
pub struct Strict {
    /// Stored answers, validated since they were asked for.
    pub hits: u64,
    pub filled: u64,
    pub collapsed: u64,
    /// Stored answers that say that they are none, within `min_refill_interval`.
    pub limited: u64,
    /// Of those, hits and others, what was judged by a write that a bounded answer might have lacked.
    pub telling: u64,
    pub violations: u64,
    /// Answers without content, by their codes.
    pub refused: BTreeMap<String, u64>,
}

/// Of all queries, writes and faults.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub queries: BTreeMap<&'static str, Row>,
    /// By how they are asked for.
    pub strict: BTreeMap<&'static str, Strict>,
    /// By what they were and how they ended.
    pub writes: BTreeMap<(&'static str, &'static str), u64>,
    pub faults: BTreeMap<&'static str, u64>,
    /// Why answers were old, as they say.
    pub old: BTreeMap<String, u64>,
    /// The codes of problems, and what failed otherwise.
    pub problems: BTreeMap<String, u64>,
}

impl Tally {
    /// An answer was judged.
    pub fn answered(&mut self, query: &'static str, label: Label, lag: Duration, is_wrong: bool) {
        let row = self.queries.entry(query).or_default();
        *match label {
            Label::Hit => &mut row.hits,
            Label::Filled => &mut row.filled,
            Label::Collapsed => &mut row.collapsed,
            Label::Stale => &mut row.stale,
        } += 1;
        row.lag = row.lag.max(lag);
        row.violations += u64::from(is_wrong);
    }

    /// A strict answer was judged; whether a bounded one might have lacked what it was judged by.
    pub fn answered_strictly(&mut self, form: &'static str, label: Label, tells: bool, is_wrong: bool) {
        let row = self.strict.entry(form).or_default();
        *match label {
            Label::Hit => &mut row.hits,
            Label::Filled => &mut row.filled,
            Label::Collapsed => &mut row.collapsed,
            Label::Stale => &mut row.limited,
        } += 1;
        row.telling += u64::from(tells);
        row.violations += u64::from(is_wrong);
    }

    /// A strict reader was given no answer.
    pub fn refused(&mut self, form: &'static str, problem: String) {
        *self.strict.entry(form).or_default().refused.entry(problem).or_default() += 1;
    }

    /// The hits, or the telling answers, of the form that has had fewest.
    pub fn least_strict(&self, forms: &[&str]) -> u64 {
        let least = |form: &&str| self.strict.get(form).map_or(0, |row| row.hits.min(row.telling));
        forms.iter().map(least).min().unwrap_or(u64::MAX)
    }

    /// The hits of the query that has had fewest.
    pub fn least_hits(&self, queries: &[&Query]) -> u64 {
        let hits = |query: &&Query| self.queries.get(query.name).map_or(0, |row| row.hits);
        queries.iter().map(hits).min().unwrap_or(0)
    }

    /// Whether each of these has happened so often.
    pub fn has_broken(&self, least: &[(&str, u64)]) -> bool {
        least.iter().all(|(what, times)| self.faults.get(what).is_some_and(|count| count >= times))
    }

    /// All hits.
    pub fn hits(&self) -> u64 {
        self.queries.values().map(|row| row.hits).sum()
    }

    /// An answer says why it is old.
    pub fn is_old(&mut self, status: &str) {
        let detail = status.rsplit("detail=").next().unwrap_or_default();
        *self.old.entry(detail.to_owned()).or_default() += 1;
    }

    /// An answer has no content.
    pub fn failed(&mut self, query: &'static str, problem: String) {
        self.queries.entry(query).or_default().errors += 1;
        *self.problems.entry(problem).or_default() += 1;
    }

    /// A transaction ended.
    pub fn wrote(&mut self, style: &'static str, end: &'static str) {
        *self.writes.entry((style, end)).or_default() += 1;
    }

    /// Something was broken, or mended.
    pub fn fault(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:>18}{:>9}{:>9}{:>10}{:>9}{:>9}{:>9}{:>9}",
            "", "hits", "filled", "collapsed", "stale", "errors", "wrong", "lag"
        )?;
        for (query, row) in &self.queries {
            let Row { hits, filled, collapsed, stale, errors, violations, lag } = row;
            let lag = lag.as_millis();
            writeln!(
                out,
                "{query:>18}{hits:>9}{filled:>9}{collapsed:>10}{stale:>9}{errors:>9}{violations:>9}{lag:>6} ms"
            )?;
        }
        for (form, row) in &self.strict {
            let Strict { hits, filled, collapsed, limited, telling, violations, refused } = row;
            writeln!(
                out,
                "{form:>18}{hits:>9}{filled:>9}{collapsed:>10}{limited:>9}{:>9}{violations:>9}; {telling} tell; refused: {refused:?}",
                refused.values().sum::<u64>()
            )?;
        }
        for ((style, end), count) in &self.writes {
            writeln!(out, "{style:>18} {end}: {count}")?;
        }
        writeln!(out, "faults: {:?}", self.faults)?;
        writeln!(out, "old: {:?}", self.old)?;
        write!(out, "problems: {:?}", self.problems)
    }
}

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

/// Of all queries, writes and faults.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub queries: BTreeMap<&'static str, Row>,
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

    /// The hits of the query that has had fewest.
    pub fn least_hits(&self, queries: &[&Query]) -> u64 {
        let hits = |query: &&Query| self.queries.get(query.name).map_or(0, |row| row.hits);
        queries.iter().map(hits).min().unwrap_or(0)
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
        for ((style, end), count) in &self.writes {
            writeln!(out, "{style:>18} {end}: {count}")?;
        }
        writeln!(out, "faults: {:?}", self.faults)?;
        writeln!(out, "old: {:?}", self.old)?;
        write!(out, "problems: {:?}", self.problems)
    }
}

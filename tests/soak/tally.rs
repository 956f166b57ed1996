//! What clients saw, in the words that the service counts in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::http::Answer;

/// The outcomes of `seawall_requests_total` that this version has, but `redis_hit`.
pub const OUTCOMES: [&str; 7] = ["hit", "stale", "collapsed", "miss", "bypass", "rejected", "error"];

/// What an answer says of how it was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// This outcome.
    Outcome(&'static str),
    /// `hit` or `stale`: within the second in which it expired, an answer that a directive's limit brought out says
    /// `ttl=0` on either side.
    HitOrStale,
}

/// What `answer` says.
pub fn seen(answer: &Answer) -> Seen {
    let Some(how) = answer.header("cache-status") else {
        return Seen::Outcome(if answer.status >= 500 { "error" } else { "rejected" });
    };
    let mut parts = how.split("; ").skip(1);
    let first = parts.next().unwrap_or_else(|| panic!("{how:?} says nothing"));
    let rest: Vec<&str> = parts.collect();
    let has = |part: &str| rest.contains(&part);
    let stale = ["detail=stale-while-revalidate", "detail=stale-if-error", "detail=max-stale", "detail=wait-at-most"];
    match first {
        _ if stale.iter().any(|part| has(part)) => Seen::Outcome("stale"),
        "hit" if has("detail=refill-limited") && has("ttl=0") => Seen::HitOrStale,
        "hit" if has("detail=refill-limited") && rest.iter().any(|part| part.starts_with("ttl=-")) => {
            Seen::Outcome("stale")
        }
        "hit" => Seen::Outcome("hit"),
        _ if has("collapsed") => Seen::Outcome("collapsed"),
        "fwd=request" => Seen::Outcome("bypass"),
        "fwd=uri-miss" | "fwd=stale" => Seen::Outcome("miss"),
        _ => panic!("{how:?} is nothing that is documented"),
    }
}

/// One query's.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub outcomes: BTreeMap<&'static str, u64>,
    pub hit_or_stale: u64,
    /// Requests whose client left: each is counted once, as `rejected` if it was noticed, else as what it would have got.
    pub left: u64,
    pub slowest: Duration,
}

/// All of them, by query.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub BTreeMap<&'static str, Row>);

impl Tally {
    pub fn answered(&mut self, query: &'static str, seen: Seen, took: Duration) {
        let row = self.0.entry(query).or_default();
        match seen {
            Seen::Outcome(outcome) => *row.outcomes.entry(outcome).or_default() += 1,
            Seen::HitOrStale => row.hit_or_stale += 1,
        }
        row.slowest = row.slowest.max(took);
    }

    pub fn left(&mut self, query: &'static str) {
        self.0.entry(query).or_default().left += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (query, row) in &other.0 {
            let own = self.0.entry(query).or_default();
            for (outcome, n) in &row.outcomes {
                *own.outcomes.entry(outcome).or_default() += n;
            }
            own.hit_or_stale += row.hit_or_stale;
            own.left += row.left;
            own.slowest = own.slowest.max(row.slowest);
        }
    }

    pub fn requests(&self) -> u64 {
        self.0.values().map(|row| row.outcomes.values().sum::<u64>() + row.hit_or_stale + row.left).sum()
    }

    /// Where the service counted something else than clients saw; `counted` gives a query's requests by outcome.
    pub fn differences(&self, counted: impl Fn(&str, &str) -> u64) -> Vec<String> {
        let mut wrong = vec![];
        for (query, row) in &self.0 {
            let seen = |outcome| row.outcomes.get(outcome).copied().unwrap_or(0);
            let extra: BTreeMap<&str, i128> = OUTCOMES
                .iter()
                .map(|outcome| (*outcome, i128::from(counted(query, outcome)) - i128::from(seen(*outcome))))
                .collect();
            // What clients can't tell apart, or didn't wait for, is somewhere among these; everything else is exact.
            let (ambiguous, left) = (i128::from(row.hit_or_stale), i128::from(row.left));
            let hits = extra["hit"] + extra["stale"];
            let leavers = extra["rejected"] + extra["error"];
            let exact = ["collapsed", "miss", "bypass"].iter().all(|outcome| extra[outcome] == 0);
            let within = [extra["hit"], extra["stale"], extra["rejected"], extra["error"]].iter().all(|n| *n >= 0);
            if !exact || !within || hits != ambiguous || leavers != left {
                wrong.push(format!("{query}: counted more than was seen: {extra:?}; {row:?}"));
            }
        }
        wrong
    }
}

//! The judge: whether an answer may call itself fresh.
//!
//! An answer is taken apart into facts. A fact about one row holds if the row had a state that shows it, from the last one
//! that the promise demands (visible `allowance` before the request was sent) to the last one that could be there at all
//! (its COMMIT sent before the answer came). A fact about many at once, such as a sum, holds if it lies between the least and
//! the greatest that these states could make. So a violation is always one; what an aggregate hides may pass.
//!
//! Strict readers have no allowance, and bring what a transaction has written that must be in the answer, too.
//!
//! Answers that say themselves that they are old are not judged, but what any answer shows was visible when it came, and
//! later answers have to contain it: nothing goes back behind what a reader was shown longer than the allowance ago.
//!
//! Pure: no clock, no IO.

use std::fmt;
use std::time::Duration;

use super::history::{Change, Commit, Demand, Histories, Key, Moment, State};

/// Which rows an answer is about, of those it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All.
    Any,
    /// Those of a group.
    Group(i64),
    /// Those of either.
    Groups(i64, i64),
}

impl Filter {
    /// The version that an answer shows for a row in this state; `None` where it shows no such row.
    pub fn shows(self, state: State) -> Option<i64> {
        let passes = match self {
            Self::Any => true,
            Self::Group(group) => state.group() == Some(group),
            Self::Groups(one, other) => state.group().is_some_and(|group| group == one || group == other),
        };
        state.version().filter(|_| passes)
    }
}

/// What is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// One for each row.
    Count,
    /// The rows' versions.
    Sum,
    /// The greatest version; 0 where there is no row.
    Max,
}

/// Something that an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It shows the row with this version, or not among those it is about.
    Row { key: Key, filter: Filter, shown: Option<i64> },
    /// Of these rows it shows the count, the sum or the greatest.
    Total { keys: Vec<Key>, filter: Filter, measure: Measure, value: i128 },
}

/// How an answer was labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A hit that says nothing else.
    Hit,
    /// It waited for a statement that was sent for it.
    Filled,
    /// It waited for a statement that was sent for another reader.
    Collapsed,
    /// It says that it is old.
    Stale,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Who takes what is fresh within `max_lag`.
    Bounded,
    /// Who takes nothing that lacks a write which was acknowledged before it asked.
    Strict,
}

/// What an answer was promised to contain.
#[derive(Clone, Copy, Debug)]
pub struct Promised {
    /// For how long a write may have been visible, when the request was sent, that it lacks; `None`: nothing is promised of
    /// its age.
    pub allowance: Option<Duration>,
    /// A transaction whose writes the request asked for.
    pub own: Option<Commit>,
}

impl Promised {
    /// What lacks no write that was visible for so long.
    pub const fn within(allowance: Duration) -> Self {
        Self { allowance: Some(allowance), own: None }
    }

    fn of(self, answer: &Answer) -> Demand {
        let needed = self.allowance.and_then(|allowance| answer.sent.checked_sub(allowance));
        Demand { needed, own: self.own }
    }
}

/// An answer with its moments.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was asked.
    pub question: String,
    pub reader: Reader,
    pub label: Label,
    /// Before the request was sent.
    pub sent: Moment,
    /// After the last byte came.
    pub received: Moment,
    pub facts: Vec<Fact>,
}

/// An answer that broke the promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    pub question: String,
    pub reader: Reader,
    pub label: Label,
    pub sent: Moment,
    pub received: Moment,
    pub promised: String,
    pub fact: Fact,
    pub why: String,
}

/// Judges `answer`, and notes what it shows. Nothing where it says that it is old.
pub fn judge(histories: &mut Histories, answer: &Answer, promised: Promised) -> Option<Violation> {
    let demand = promised.of(answer);
    let mut wrong = None;
    for fact in &answer.facts {
        let why = match answer.label {
            Label::Stale => None,
            Label::Hit | Label::Filled | Label::Collapsed => contradiction(histories, fact, demand, answer),
        };
        if let (None, Some(why)) = (&wrong, why) {
            wrong = Some(Violation {
                question: answer.question.clone(),
                reader: answer.reader,
                label: answer.label,
                sent: answer.sent,
                received: answer.received,
                promised: format!("{promised:?}"),
                fact: fact.clone(),
                why,
            });
        }
    }
    for fact in &answer.facts {
        if let Fact::Row { key, filter, shown: Some(version) } = fact {
            // The first change that it can be: it claims the least.
            let window = histories.window(*key, demand, answer.received);
            if let Some(change) = window.iter().find(|change| filter.shows(change.state) == Some(*version)) {
                histories.show(*key, change.commit, answer.received);
            }
        }
    }
    wrong
}

/// For how long the writes were visible, before the request was sent, that a hit lacks; within the allowance.
pub fn lag(histories: &Histories, answer: &Answer, allowance: Duration) -> Duration {
    let demand = Promised::within(allowance).of(answer);
    let lacks = |fact: &Fact| {
        let Fact::Row { key, filter, shown } = fact else { return Duration::ZERO };
        let window = histories.window(*key, demand, answer.received);
        let mut later = window.iter().rev().take_while(|change| filter.shows(change.state) != *shown);
        let first = later.by_ref().last().and_then(|change| change.visible);
        first.map_or(Duration::ZERO, |at| answer.sent.saturating_sub(at))
    };
    answer.facts.iter().map(lacks).max().unwrap_or_default()
}

/// Whether a promise with this allowance would have let the answer lack a write that it was judged by, `own` or another.
pub fn tells(histories: &Histories, answer: &Answer, own: Option<Commit>, allowance: Duration) -> bool {
    let (lax, strict) = (Promised::within(allowance).of(answer), Promised::within(Duration::ZERO).of(answer));
    answer.facts.iter().any(|fact| {
        let Fact::Row { key, filter, .. } = fact else { return false };
        let own = own.and_then(|own| histories.past(*key).iter().find(|change| change.commit == own.0));
        if own.is_some_and(|own| own.visible.is_none_or(|at| at + allowance > answer.sent)) {
            return true;
        }
        let demanded = |demand| histories.window(*key, demand, answer.received)[0];
        let (lax, strict) = (demanded(lax), demanded(strict));
        lax.commit != strict.commit && filter.shows(lax.state) != filter.shows(strict.state)
    })
}

fn contradiction(histories: &Histories, fact: &Fact, demand: Demand, answer: &Answer) -> Option<String> {
    match fact {
        Fact::Row { key, filter, shown } => {
            let window = histories.window(*key, demand, answer.received);
            let holds = window.iter().any(|change| filter.shows(change.state) == *shown);
            (!holds).then(|| explain(histories, *key, *filter, *shown, &window, answer))
        }
        Fact::Total { keys, filter, measure, value } => {
            let (mut least, mut most) = (0, 0);
            for key in keys {
                let window = histories.window(*key, demand, answer.received);
                let measured = window.iter().map(|change| match (filter.shows(change.state), measure) {
                    (None, _) => 0,
                    (Some(_), Measure::Count) => 1,
                    (Some(version), Measure::Sum | Measure::Max) => i128::from(version),
                });
                let (low, high) = measured.fold((i128::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
                match measure {
                    Measure::Count | Measure::Sum => (least, most) = (least + low, most + high),
                    Measure::Max => (least, most) = (least.max(low), most.max(high)),
                }
            }
            (!(least..=most).contains(value))
                .then(|| format!("{measure:?} over {} rows is {value}, and not within {least} to {most}", keys.len()))
        }
    }
}

/// What the row was when, beside what was shown.
fn explain(
    histories: &Histories,
    key: Key,
    filter: Filter,
    shown: Option<i64>,
    window: &[Change],
    answer: &Answer,
) -> String {
    let past = histories.past(key);
    let named = |version: Option<i64>| version.map_or("no such row".to_owned(), |v| format!("version {v}"));
    let demanded = window.first().expect("a row has a state");
    let missing = match demanded.visible {
        Some(at) => format!("visible {:?} before the request was sent", answer.sent.saturating_sub(at)),
        None => "whose outcome is open".to_owned(),
    };
    let found = past.iter().rev().find(|change| filter.shows(change.state) == shown);
    let when = match found {
        None => "which it never had".to_owned(),
        Some(change) if change.sent > answer.received => "which was not sent yet".to_owned(),
        Some(change) => {
            let next = past.iter().find(|later| later.commit > change.commit).and_then(|later| later.visible);
            let gone = next.map_or(Duration::ZERO, |at| answer.sent.saturating_sub(at));
            format!("which was over {gone:?} before the request was sent")
        }
    };
    format!(
        "{key:?} is shown as {}, {when}; at least {} is demanded, {missing}, commit {}",
        named(shown),
        named(filter.shows(demanded.state)),
        demanded.commit
    )
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?}, {:?} {} sent at {:?}, answered after {:?}, {}: {}",
            self.reader,
            self.label,
            self.question,
            self.sent,
            self.received.saturating_sub(self.sent),
            self.promised,
            self.why
        )
    }
}

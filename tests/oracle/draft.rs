//! A transaction before it runs: its statements, and what they make of the rows that its writer has leased.
//!
//! Nobody else writes these rows, so what each statement will do is known beforehand; a savepoint that is rolled back takes
//! its part of that knowledge with it. Pure but for chance.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use fastrand::Rng;

use super::history::{Key, State};

/// What is sent to Postgres in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Run(String),
    /// `COPY ... FROM STDIN`, and its lines.
    Copy {
        sql: &'static str,
        lines: String,
    },
}

/// Statements, and the states that they lead to.
pub struct Draft<'a> {
    pub rng: &'a mut Rng,
    versions: &'a AtomicI64,
    /// Of all rows that are leased.
    states: BTreeMap<Key, State>,
    before: BTreeMap<Key, State>,
    steps: Vec<Step>,
    savepoints: usize,
}

impl<'a> Draft<'a> {
    /// Of a writer that holds the leases of `states`, as they are.
    pub fn new(states: BTreeMap<Key, State>, versions: &'a AtomicI64, rng: &'a mut Rng) -> Self {
        Self { rng, versions, before: states.clone(), states, steps: vec![], savepoints: 0 }
    }

    /// A version that no write ever had.
    pub fn version(&self) -> i64 {
        self.versions.fetch_add(1, Ordering::Relaxed)
    }

    /// The row as it is at this point of the transaction.
    pub fn state(&self, key: Key) -> State {
        *self.states.get(&key).unwrap_or_else(|| panic!("{key:?} is not leased"))
    }

    /// From this point on the row is that.
    pub fn set(&mut self, key: Key, state: State) {
        let known = self.states.insert(key, state);
        assert!(known.is_some(), "{key:?} is not leased");
    }

    /// One more statement.
    pub fn run(&mut self, sql: String) {
        self.steps.push(Step::Run(sql));
    }

    /// One more COPY.
    pub fn copy(&mut self, sql: &'static str, lines: String) {
        self.steps.push(Step::Copy { sql, lines });
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u32) -> bool {
        self.rng.u32(0..n) == 0
    }

    /// What `write` does, within a savepoint that is kept or rolled back.
    pub fn within_savepoint(&mut self, write: impl FnOnce(&mut Self)) {
        self.savepoints += 1;
        let name = format!("s{}", self.savepoints);
        self.run(format!("SAVEPOINT {name}"));
        let states = self.states.clone();
        write(self);
        if self.rng.bool() {
            self.states = states;
            self.run(format!("ROLLBACK TO {name}"));
        } else {
            self.run(format!("RELEASE {name}"));
        }
    }

    /// The statements, and the rows that they change to what.
    pub fn finish(self) -> (Vec<Step>, BTreeMap<Key, State>) {
        let Self { states, before, steps, .. } = self;
        (steps, states.into_iter().filter(|(key, state)| before.get(key) != Some(state)).collect())
    }
}

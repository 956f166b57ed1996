//! What a transaction does, by chance, and what is done to it.

use fastrand::Rng;

/// Rows that each writer has for itself, so that none waits for another.
pub const ROWS: u32 = 100;

/// A step of a transaction.
#[derive(Clone, Debug)]
pub enum Step {
    /// So many rows of its own are updated by one statement.
    Update { rows: u32 },
    /// So many statements, in one that may be cancelled in any of them.
    Grind { statements: u32 },
    /// By hand, and nothing is written.
    Announce,
    /// Steps under a savepoint, to which it rolls back, or which it releases.
    Savepoint { steps: Vec<Step>, undo: Undo },
    /// Seconds, by the server's clock.
    Pause(f64),
    /// Until every pod has fallen asleep, over this transaction.
    UntilAsleep,
}

/// What becomes of a savepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    RollBack,
    Release,
}

/// How a transaction ends, if nothing is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    /// While a pod that has found nothing to read waits for the doorbell's lock.
    CommitBeforeLock,
    RollBack,
}

/// What is done to a session while it writes, after so many seconds.
#[derive(Clone, Copy, Debug)]
pub enum Blow {
    Cancel(f64),
    Kill(f64),
}

/// A transaction.
#[derive(Clone, Debug)]
pub enum Script {
    /// One statement without a block around it, so that the commit is its own.
    Single {
        step: Step,
        blow: Option<Blow>,
    },
    Block {
        steps: Vec<Step>,
        end: End,
        blow: Option<Blow>,
    },
}

/// Pods fall asleep after a quarter of a second without events: half of the pauses are over before, half last about as long.
fn pause(rng: &mut Rng) -> f64 {
    if rng.bool() { rng.f64() * 0.1 } else { 0.15 + rng.f64() * 0.5 }
}

fn write(rng: &mut Rng) -> Step {
    match rng.u32(0..10) {
        0..=4 => Step::Update { rows: 1 },
        5 => Step::Update { rows: 1 + rng.u32(0..ROWS) },
        6 => Step::Grind { statements: 1 + rng.u32(0..50) },
        _ => Step::Announce,
    }
}

fn steps(rng: &mut Rng, depth: u32) -> Vec<Step> {
    let step = |rng: &mut Rng| match rng.u32(0..10) {
        0..=4 => write(rng),
        5..=6 => Step::Pause(pause(rng)),
        7 => Step::UntilAsleep,
        _ if depth < 2 => {
            let undo = if rng.bool() { Undo::RollBack } else { Undo::Release };
            Step::Savepoint { steps: steps(rng, depth + 1), undo }
        }
        _ => write(rng),
    };
    (0..=rng.u32(0..4)).map(|_| step(rng)).collect()
}

impl Script {
    /// Any.
    pub fn draw(rng: &mut Rng) -> Self {
        let after = |rng: &mut Rng| rng.f64() * rng.f64() * 0.1;
        match rng.u32(0..20) {
            0..=4 => Self::Single { step: write(rng), blow: None },
            // What a pod falls asleep over.
            5..=8 => {
                let steps = vec![write(rng), Step::UntilAsleep];
                Self::Block { steps, end: End::Commit, blow: None }
            }
            9..=10 => Self::Block { steps: vec![write(rng)], end: End::CommitBeforeLock, blow: None },
            11..=12 => {
                let step = Step::Grind { statements: 600 + rng.u32(0..600) };
                Self::Single { step, blow: Some(Blow::Cancel(after(rng))) }
            }
            13..=14 => {
                let mut steps = steps(rng, 0);
                steps.push(write(rng));
                let blow = if rng.bool() { Blow::Cancel(after(rng)) } else { Blow::Kill(after(rng)) };
                Self::Block { steps, end: End::Commit, blow: Some(blow) }
            }
            15 => Self::Block { steps: steps(rng, 0), end: End::RollBack, blow: None },
            _ => Self::Block { steps: steps(rng, 0), end: End::Commit, blow: None },
        }
    }
}

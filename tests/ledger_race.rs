//! The ledger under shuttle: `src/ledger` itself, compiled against shuttle's synchronisation, one writer or two beside
//! readers, under random interleavings. A failing schedule is printed, and `shuttle::replay` replays it.
//!
//! A reader reads the version, certifies, and remembers the version that it read. No interleaving may leave it with a
//! version at which its stamp was no longer certified. The writer says which: after each change it asks the ledger itself
//! and notes from which version on a stamp is refused; what is refused once stays refused.
//!
//! `SEAWALL_SHUTTLE_ITERATIONS` sets how many schedules each test tries (default 2,000; `make soak` sets more). Not
//! covered: weak memory. Shuttle's atomics are sequentially consistent, and following a pointer is one step here, so what
//! Acquire and Release are for is argued in the code and not tried. What a history as a whole makes of the ledger is
//! `ledger_model`.

#[path = "../src/ledger"]
mod ledger {
    mod shim {
        pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
        pub(super) use shuttle::sync::{Mutex, MutexGuard};
        pub(super) use std::sync::PoisonError;

        use std::sync::Arc;

        /// A pointer that is followed and replaced in one step each.
        pub(super) struct Swap<T>(Mutex<Arc<T>>);

        impl<T> Swap<T> {
            pub(super) fn new(value: T) -> Self {
                Self(Mutex::new(Arc::new(value)))
            }

            pub(super) fn load(&self) -> Arc<T> {
                Arc::clone(&self.0.lock().expect("nobody panics"))
            }

            pub(super) fn store(&self, value: Arc<T>) {
                *self.0.lock().expect("nobody panics") = value;
            }
        }
    }

    #[allow(dead_code)]
    mod apply;
    mod book;
    mod history;
    mod known;
    #[allow(dead_code)]
    mod payload;
    #[allow(dead_code)]
    mod required;
    #[allow(dead_code)]
    mod state;

    pub use apply::{Beside, Event, Poll, Rows};
    pub use book::Bounds;
    pub use payload::Payload;
    pub use required::Required;
    pub use state::Ledger;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ledger::{Beside, Bounds, Event, Ledger, Payload, Poll, Required, Rows};
use seawall::clock::Moment;
use seawall::stamp::{Lineage, Snapshot, Stamp};
use seawall::tag::Tag;
use seawall::{clock, sabotage, stamp, tag};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

/// Places where a schedule of the second kind changes its mind.
const PREEMPTIONS: usize = 3;

/// Half of the schedules are a coin at every step; the other half run long stretches and switch in a few places
/// (Burckhardt, Kothari, Musuvathi, Nagarakatte, ASPLOS 2010), which is how a whole change falls between two steps of a
/// reader.
fn check(test: impl Fn() + Send + Sync + Clone + 'static) {
    let iterations =
        std::env::var("SEAWALL_SHUTTLE_ITERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000usize);
    shuttle::check_random(test.clone(), iterations / 2);
    shuttle::check_pct(test, iterations / 2, PREEMPTIONS);
}

fn read(text: &str) -> Stamp {
    read_of("a", text)
}

fn read_of(lineage: &str, text: &str) -> Stamp {
    Stamp { lineage: Lineage::new(lineage), snapshot: Snapshot::parse(text).expect(text) }
}

fn poll(stamp: Stamp, events: &[(u64, &str)]) -> Poll {
    let events = events.iter().map(|&(xid, text)| Event { tag: Tag::new(text), xid }).collect();
    Poll { sent: Moment::from_nanos(1_000), stamp, pruned: Some(100), events, rows: Rows::All }
}

fn apply(ledger: &Ledger, poll: Poll) {
    ledger.apply(&ledger.ask(), poll);
}

/// What a reader found: a stamp, what it depends on, and from which version on it is refused.
struct Entry {
    stamp: Stamp,
    tags: Vec<Tag>,
    refused_from: AtomicU64,
}

/// A ledger after its first poll, and entries of every age.
struct Scene {
    ledger: Ledger,
    entries: Vec<Entry>,
    /// Changes begun, and over.
    begun: AtomicU64,
    over: AtomicU64,
}

impl Scene {
    fn new(bounds: Bounds) -> Arc<Self> {
        let ledger = Ledger::new(bounds);
        apply(&ledger, poll(read("100:100:"), &[]));
        apply(&ledger, poll(read("106:106:"), &[(105, "t"), (104, "v")]));
        let texts = ["100:100:", "105:105:", "106:106:", "109:111:109", "111:111:", "116:116:"];
        let entry = |stamp: Stamp, tag: &str| Entry {
            stamp,
            tags: vec![Tag::new(tag), Tag::new("w")],
            refused_from: AtomicU64::new(u64::MAX),
        };
        let ours = texts.iter().flat_map(|text| ["t", "u", "v"].map(|tag| entry(read(text), tag)));
        let of_the_next = ["50:50:", "60:60:"].map(|text| entry(read_of("b", text), "t"));
        let entries = ours.chain(of_the_next).collect();
        let scene = Self { ledger, entries, begun: AtomicU64::new(0), over: AtomicU64::new(0) };
        scene.note();
        Arc::new(scene)
    }

    /// What is refused now is refused from this version on, or an earlier one. Says nothing while somebody changes
    /// something: what is refused for that belongs to the next version.
    fn note(&self) {
        let begun = self.begun.load(Ordering::SeqCst);
        if self.over.load(Ordering::SeqCst) != begun {
            return;
        }
        let version = self.ledger.version();
        // One of a history that may come is refused until then, and certified after.
        let of_the_next = |entry: &&Entry| {
            entry.stamp.lineage.as_str() == "b" && self.ledger.lineage().as_ref() != Some(&entry.stamp.lineage)
        };
        let refused = |entry: &&Entry| !of_the_next(entry) && !self.ledger.certify(&entry.stamp, &entry.tags);
        let refused: Vec<&Entry> = self.entries.iter().filter(refused).collect();
        if self.begun.load(Ordering::SeqCst) == begun {
            for entry in refused {
                entry.refused_from.fetch_min(version, Ordering::SeqCst);
            }
        }
    }

    fn change(&self, how: impl FnOnce(&Ledger)) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        how(&self.ledger);
        self.over.fetch_add(1, Ordering::SeqCst);
        self.note();
    }

    /// Some look at some entries, as the read path does. What was remembered: entry and version.
    fn look(&self) -> Vec<(usize, u64)> {
        let mut remembered = vec![];
        for _ in 0..2 {
            let which = thread_rng().gen_range(0..self.entries.len());
            let entry = &self.entries[which];
            let version = self.ledger.version();
            let required = self.ledger.required(&entry.tags);
            if self.ledger.certify(&entry.stamp, &entry.tags) {
                remembered.push((which, version));
            }
            if required.met_by(&entry.stamp) && required.lineage() == Some(&entry.stamp.lineage) {
                remembered.push((which, version));
            }
        }
        remembered
    }

    fn remembered_wrongly(&self, remembered: &[(usize, u64)]) -> Option<String> {
        remembered.iter().find_map(|&(which, version)| {
            let entry = &self.entries[which];
            let from = entry.refused_from.load(Ordering::SeqCst);
            (version >= from).then(|| format!("{:?} at {version}, refused from {from}", entry.stamp))
        })
    }
}

/// Any change that a ledger knows of. History goes forward: no poll brings one back that is gone.
fn any_change(ledger: &Ledger) {
    let asked = ledger.ask();
    let some_tag = || ["t", "u", "v", "w", "*"][thread_rng().gen_range(0..5)];
    let event = |xid: u64| (xid, some_tag());
    let polled = |poll: Poll| {
        ledger.apply(&asked, poll);
    };
    let text = ["111:111:", "116:116:"][thread_rng().gen_range(0..2)];
    match thread_rng().gen_range(0..8) {
        _ if asked.lineage == Some(Lineage::new("b")) => polled(poll(read_of("b", text), &[event(109)])),
        // The list is replaced, or added to; where bounds are tiny others are forgotten.
        0 | 1 => polled(poll(read(text), &[event(110), event(109)])),
        2 => polled(poll(read("116:116:"), &[event(115), event(110)])),
        // A barrier in place of a list.
        3 => {
            ledger.invalidate(&read("109:111:109"), None, &[Tag::new(some_tag())]);
        }
        4 => {
            ledger.invalidate(&read("111:111:"), Some(109), &[Tag::new(some_tag())]);
        }
        5 => {
            ledger.flush(&read("111:111:"));
        }
        6 => polled(Poll { rows: Rows::More, ..poll(read("116:116:"), &[]) }),
        _ => polled(poll(read_of("b", "55:55:"), &[])),
    }
}

const ROOMY: Bounds = Bounds { tags: 100, xids: 1_000, listed: 10 };
const TINY: Bounds = Bounds { tags: 1, xids: 3, listed: 1 };

fn readers_beside(bounds: Bounds, writers: usize) {
    let scene = Scene::new(bounds);
    let writers: Vec<_> = (0..writers)
        .map(|_| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                for _ in 0..2 {
                    scene.change(any_change);
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.look())
        })
        .collect();
    let remembered: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().expect("no reader panics")).collect();
    for writer in writers {
        writer.join().expect("no writer panics");
    }
    assert_eq!(scene.remembered_wrongly(&remembered), None);
}

#[test]
fn no_reader_remembers_a_version_at_which_its_stamp_is_refused() {
    check(|| readers_beside(ROOMY, 1));
}

#[test]
fn forgetting_leaves_no_moment_at_which_nothing_stands_for_what_is_forgotten() {
    check(|| readers_beside(TINY, 1));
}

#[test]
fn writers_take_turns_and_lose_none_of_each_others_changes() {
    check(|| readers_beside(TINY, 2));
    check(|| readers_beside(ROOMY, 2));
}

/// Applies one `change` to a ledger of `bounds` that knows of an event of `tag`, beside a reader of what lacks it.
fn refused_all_the_while(bounds: Bounds, tag: &'static str, change: fn(&Ledger)) {
    check(move || {
        let ledger = Arc::new(Ledger::new(bounds));
        apply(&ledger, poll(read("100:100:"), &[]));
        apply(&ledger, poll(read("106:106:"), &[(105, tag)]));
        let (lacks, tags) = (read("105:105:"), [Tag::new("t")]);
        let refuses = |ledger: &Ledger| !ledger.certify(&lacks, &tags) && !ledger.required(&tags).met_by(&lacks);
        assert!(refuses(&ledger));
        let writer = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || change(&ledger))
        };
        assert!(refuses(&ledger), "midway");
        writer.join().expect("no writer panics");
        assert!(refuses(&ledger), "afterwards");
    });
}

#[test]
fn what_is_forgotten_is_refused_before_and_after_and_all_the_while() {
    let change: fn(&Ledger) = |ledger| apply(ledger, poll(read("111:111:"), &[(110, "u")]));
    refused_all_the_while(Bounds { tags: 1, ..ROOMY }, "t", change);
    refused_all_the_while(Bounds { xids: 1, ..ROOMY }, "t", change);
    refused_all_the_while(Bounds { tags: 1, ..ROOMY }, "*", change);
}

#[test]
fn what_is_replaced_or_flushed_is_refused_before_and_after_and_all_the_while() {
    for tag in ["t", "*"] {
        refused_all_the_while(ROOMY, tag, |ledger| {
            apply(ledger, poll(read("111:111:"), &[(110, "t"), (110, "*")]));
        });
        refused_all_the_while(ROOMY, tag, |ledger| {
            ledger.invalidate(&read("111:111:"), None, &[Tag::new("t"), Tag::new("*")]);
        });
        refused_all_the_while(ROOMY, tag, |ledger| {
            ledger.flush(&read("111:111:"));
        });
        refused_all_the_while(Bounds { listed: 1, ..ROOMY }, tag, |ledger| {
            apply(ledger, poll(read("111:111:"), &[(110, "t"), (109, "t"), (110, "*"), (109, "*")]));
        });
        refused_all_the_while(ROOMY, tag, |ledger| apply(ledger, poll(read_of("b", "55:55:"), &[])));
    }
}

#[test]
fn r6_who_finds_the_stream_seeing_finds_what_it_saw_and_what_was_heard_beside_it() {
    let events: fn(&Ledger, Poll) = |ledger, poll| {
        let event = Event { tag: Tag::new("t"), xid: 110 };
        apply(ledger, Poll { events: vec![event], ..poll });
    };
    let heard: fn(&Ledger, Poll) = |ledger, poll| {
        ledger.apply_beside(&ledger.ask(), poll, Beside::Heard(&[Payload::parse("t")]));
    };
    let lost: fn(&Ledger, Poll) = |ledger, poll| {
        ledger.apply_beside(&ledger.ask(), poll, Beside::Lost);
    };
    for comes in [events, heard, lost] {
        check(move || {
            let scene = Scene::new(ROOMY);
            let before = scene.ledger.version();
            let (later, lag) = (Moment::from_nanos(9_000), Duration::from_nanos(500));
            let writer = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || comes(&scene.ledger, Poll { sent: later, ..poll(read("111:111:"), &[]) }))
            };
            let version = scene.ledger.version_unless_blind(later, lag);
            assert!(version.is_none_or(|version| version > before), "{version:?}");
            let certified = scene.ledger.certify(&read("106:106:"), &[Tag::new("t")]);
            assert!(version.is_none() || !certified, "it lacks what the stream has come to");
            writer.join().expect("no writer panics");
            assert_eq!(scene.ledger.version_unless_blind(later, lag), Some(before + 1));
            assert!(!scene.ledger.certify(&read("106:106:"), &[Tag::new("t")]));
            assert!(scene.ledger.certify(&read("111:111:"), &[Tag::new("t")]));
        });
    }
}

#[test]
fn r3_a_flight_that_is_sent_while_an_event_comes_is_sure_only_if_it_must_see_it() {
    check(|| {
        let scene = Scene::new(TINY);
        let writer = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || apply(&scene.ledger, poll(read("111:111:"), &[(110, "t")])))
        };
        let tags = [Tag::new("t")];
        let sent: Required = scene.ledger.required(&tags);
        writer.join().expect("no writer panics");
        let reader = scene.ledger.required(&tags);
        // Its stamp may be as old as the poll before, unless it knew of the event.
        let knew = !sent.met_by(&read("106:106:"));
        assert!(!reader.sure_of(&sent) || knew || sent.sure_of(&reader) && !reader.met_by(&read("106:106:")));
        assert!(sent.sure_of(&reader), "what was required before is met by what is sent after");
    });
}

/// How a reader gets it wrong that certifies first and reads the version then.
#[test]
fn a_reader_that_reads_the_version_last_is_caught() {
    static CAUGHT: AtomicBool = AtomicBool::new(false);
    check(|| {
        let scene = Scene::new(ROOMY);
        let writer = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.change(|ledger| apply(ledger, poll(read("111:111:"), &[(110, "t")]))))
        };
        let which = 6;
        let entry = &scene.entries[which];
        assert_eq!((entry.stamp.clone(), entry.tags[0]), (read("106:106:"), Tag::new("t")));
        let certified = scene.ledger.certify(&entry.stamp, &entry.tags);
        let remembered = certified.then(|| (which, scene.ledger.version()));
        writer.join().expect("no writer panics");
        CAUGHT.fetch_or(scene.remembered_wrongly(remembered.as_slice()).is_some(), Ordering::SeqCst);
    });
    assert!(CAUGHT.load(Ordering::SeqCst));
}

//! How does the running service behave under load: what does a hit cost, what does a stampede or an expiry do, how large is
//! an entry, what do events cost and how soon are they in force, and what does cost grow with?
//!
//! `make bench` asks all of it; `cargo bench --bench service -- expiry cost` only those, after `cargo build --release`. One
//! question a file, each with its own figures. The service has one core, the load generator the other; Postgres, which
//! hits don't reach, takes what is free. Servers that are compared run in turns, so that a slow spell of the machine hits
//! both alike.
//!
//! `target/bench/` has the result: a section per question, `report.md` of all of them, the raw figures of the two
//! pictures as CSV, and the pictures. Nothing is measured by `-- pictures`, which draws them again from the raw figures,
//! and by `-- publish` (`make pictures`), which also puts them and the sections, all or those that are named, into `docs/`.

mod bare;
mod client;
mod cost;
mod durable;
mod events;
mod expiry;
mod hits;
mod memory;
mod naive;
mod picture;
mod process;
mod report;
mod shop;
mod stampede;
mod strict;
mod tax;
mod wrk;

use std::time::Instant;

use report::Report;
use seawall::postgres::embedded::{Embedded, EmbeddedOptions};

/// In the order in which they are asked and reported. Cost is last, since it leaves a million keys behind.
const QUESTIONS: [&str; 8] = ["hits", "stampede", "memory", "expiry", "events", "strict", "tax", "cost"];

fn main() {
    if bare::is_asked_for() {
        return bare::serve();
    }
    if naive::is_asked_for() {
        return naive::serve();
    }
    // Cargo adds flags of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let Some(unknown) =
        words.iter().find(|w| !QUESTIONS.contains(&w.as_str()) && !report::COMMANDS.contains(&w.as_str()))
    {
        panic!("{unknown:?} is none of {QUESTIONS:?} and {:?}", report::COMMANDS);
    }
    let questions: Vec<&str> = QUESTIONS.into_iter().filter(|q| words.iter().any(|word| word == q)).collect();
    let questions = if questions.is_empty() { QUESTIONS.to_vec() } else { questions };
    let commanded = |command: &str| words.iter().any(|word| word == command);

    let report = Report::open();
    if !report::COMMANDS.into_iter().any(commanded) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(ask(&questions, &report));
    }
    picture::draw_all(&report);
    let whole = report.compose(&QUESTIONS);
    if commanded("publish") {
        report.publish(&questions);
    } else {
        println!("{whole}");
    }
}

async fn ask(questions: &[&str], report: &Report) {
    let postgres = Embedded::start(EmbeddedOptions::default()).await.expect("a Postgres");
    // Only now: Postgres keeps the cores that it was started with.
    process::pin_this_process();
    let shop = shop::Shop::open(&postgres).await;
    for &question in questions {
        let begun = Instant::now();
        let section = match question {
            "hits" => hits::ask(&shop).await,
            "stampede" => stampede::ask(&shop).await,
            "memory" => memory::ask(&shop).await,
            "expiry" => expiry::ask(&shop, report).await,
            "events" => events::ask(&shop).await,
            "strict" => strict::ask(&shop).await,
            "tax" => tax::ask(&shop, report).await,
            "cost" => cost::ask(&shop, report).await,
            other => unreachable!("{other} is no question"),
        };
        report.write(&format!("{question}.md"), &section);
        eprintln!("bench: {question} took {:.0} s", begun.elapsed().as_secs_f64());
    }
    drop(shop);
    postgres.stop().await.expect("stopped");
}

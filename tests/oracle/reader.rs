//! Readers that take what is fresh: they ask anything of any pod, and have each answer judged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::http::{Client, Response};
use super::judge::{Answer, Label, Reader};
use super::label::label;
use super::questions::{Query, Question};
use super::world::World;

/// Between two questions of one reader, at most.
const PAUSE_MS: u64 = 6;

/// Questions about the same, after each other: an answer that was just filled is asked for again.
const IN_A_ROW: usize = 4;

/// Asks until the run ends.
pub async fn read(world: Arc<World>, pods: Vec<SocketAddr>, queries: &'static [&'static Query], mut rng: Rng) {
    let mut clients: Vec<Client> = pods.into_iter().map(Client::new).collect();
    while !world.is_over() {
        let question = Question::draw(queries[rng.usize(0..queries.len())], &mut rng);
        for _ in 0..rng.usize(1..=IN_A_ROW) {
            let pod = rng.usize(0..clients.len());
            ask(&world, &mut clients[pod], question).await;
            world.idle(Duration::from_millis(rng.u64(0..PAUSE_MS))).await;
        }
    }
}

/// Asks once, and has the answer judged. False where there is none.
pub async fn ask(world: &World, client: &mut Client, question: Question) -> bool {
    let (path, sent) = (question.path(), world.now());
    let response = match client.get(&path).await {
        Ok(response) if response.status == 200 => response,
        Ok(response) => {
            world.tally().failed(question.query.name, problem(&response));
            return false;
        }
        Err(error) => {
            world.tally().failed(question.query.name, error.to_string());
            return false;
        }
    };
    let received = world.now();
    let status = response.header("cache-status").unwrap_or_default();
    let label = label(status).unwrap_or_else(|| panic!("{path}: nobody may give that: Cache-Status: {status}"));
    if label == Label::Stale {
        world.tally().is_old(status);
    }
    let facts = question.facts(&response.body, &world.histories());
    let facts = facts.unwrap_or_else(|error| panic!("{path}: {error}: {}", response.text()));
    let stamp = response.header("seawall-stamp").unwrap_or("no stamp");
    let question_text = format!("{path} ({status}; stamp {stamp})");
    let answer = Answer { question: question_text, reader: Reader::Bounded, label, sent, received, facts };
    world.judge(question.query.name, &answer);
    true
}

/// What a response says that has no answer: its status and code.
pub fn problem(response: &Response) -> String {
    let document: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
    format!("{} {}", response.status, document["code"].as_str().unwrap_or("without a code"))
}

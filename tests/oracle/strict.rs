//! Strict readers: nothing that they are given lacks a write that was acknowledged before they asked, by whatever form they ask.
//!
//! They ask when it matters: when a COMMIT has just been acknowledged, and with the token of a transaction that runs still or
//! has just ended. What they are given is Postgres's answer or one that was validated since they asked; or they are refused,
//! with 503, 504 or, for a token of a history that is gone, 409. Nothing old, whatever it says of itself, but for who asks with
//! `no-cache` within `min_refill_interval`, where the event stream can't be asked.
//!
//! Their probes make pods poll, and keep them from being blind; others are to be judged without that, too. So strict readers
//! ask for a while, and then don't.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::timeout;

use super::history::{Commit, Key, Relation, State};
use super::http::Client;
use super::judge::{Answer, Label, Reader};
use super::label::label;
use super::news::{Ended, News, Own};
use super::questions::{About, Query, Question, query, timed, with};
use super::reader::problem;
use super::schema::{BULK, GROUPS, ITEMS, PARTS};
use super::world::World;

/// They ask for so long, and then are silent for as long.
const SPELL: Duration = Duration::from_millis(400);

/// Where nothing is told for so long they ask anything.
const NEWS_WITHIN: Duration = Duration::from_millis(20);

/// Between two questions of one reader, at most.
const PAUSE_MS: u64 = 4;

/// The second finds what the first had filled.
const IN_A_ROW: usize = 3;

/// A way of asking for an answer that lacks nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The query says so.
    Query,
    /// The request validates.
    NoCache,
    /// The request brings a transaction.
    After,
}

/// Transactions that one who asks with tokens remembers, and asks for again when they are over for long, or their history is.
const REMEMBERED: usize = 8;

/// What has to happen where histories end: somebody asked with a token of one.
pub const FOREIGN: &str = "tokens of another history refused";

/// All forms, a reader of each; those with tokens wait for what they ask for, so there are two.
pub const FORMS: [Form; 4] = [Form::Query, Form::NoCache, Form::After, Form::After];

impl Form {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Query => "strict query",
            Self::NoCache => "no-cache",
            Self::After => "Seawall-After",
        }
    }

    /// Whether one who asks so may be refused with this.
    fn may_be_refused(self, problem: &str) -> bool {
        problem.starts_with("503 ")
            || problem.starts_with("504 ")
            || self == Self::After && problem == "409 lineage_changed"
    }
}

const STRICT: &str = "consistency = \"strict\"";

/// Those that say so. Every window for old answers is open, and none of them is for strict readers.
pub static QUERIES: &[Query] = &[
    with(
        "id",
        ITEMS,
        query(
            "item_row_strict",
            "SELECT id, v FROM shop.item WHERE id = :id",
            "consistency = \"strict\"\ndepends = { \"shop.item\" = \"id = :id\" }\nserve_invalidated = \"300ms\"\n\
             stale_while_revalidate = \"1s\"\non_blind = \"serve\"\nttl = \"2s\"\nwait_at_most = \"20ms\"\nstale_if_error = \"1m\"\n\
             proactive_refresh = true",
            About::Row(Relation::Item),
        ),
    ),
    query("items_strict", "SELECT id, v FROM shop.item", STRICT, About::Every(Relation::Item)),
    // Slow enough that others come while it is filled, and join or don't.
    with(
        "grp",
        GROUPS,
        query(
            "item_slow_strict",
            "SELECT id, v FROM shop.item WHERE grp = :grp AND (SELECT count(*) FROM generate_series(1, 100000)) > 0",
            STRICT,
            About::Group(Relation::Item),
        ),
    ),
    with(
        "id",
        PARTS,
        query(
            "part_row_strict",
            "SELECT id, v FROM shop.part WHERE id = :id",
            "consistency = \"strict\"\ndepends = { \"shop.part\" = \"id = :id\" }",
            About::Row(Relation::Part),
        ),
    ),
    with(
        "id",
        BULK,
        query(
            "bulk_row_strict",
            "SELECT id, v FROM shop.bulk WHERE id = :id",
            "consistency = \"strict\"\ndepends = { \"shop.bulk\" = \"id = :id\" }",
            About::Row(Relation::Bulk),
        ),
    ),
    query("grown_strict", "SELECT id, v FROM shop.grown", STRICT, About::Every(Relation::Grown)),
    // No event makes what it stores wrong, so nothing that is stored will do; nor does a fill that others had sent before.
    timed(with(
        "grp",
        GROUPS,
        query(
            "item_timed_strict",
            "SELECT id, v FROM shop.item WHERE grp = :grp AND now() IS NOT NULL \
             AND (SELECT count(*) FROM generate_series(1, 20000)) > 0",
            STRICT,
            About::Group(Relation::Item),
        ),
    )),
];

/// Asks until the run ends.
pub async fn read(
    world: Arc<World>,
    pods: Vec<SocketAddr>,
    form: Form,
    queries: &'static [&'static Query],
    mut rng: Rng,
) {
    let mut clients: Vec<Client> = pods.into_iter().map(Client::new).collect();
    let mut remembered: VecDeque<Own> = VecDeque::new();
    while !world.is_over() {
        if (world.now().as_millis() / SPELL.as_millis()).is_multiple_of(2) {
            world.idle(Duration::from_millis(rng.u64(0..20))).await;
            continue;
        }
        let again = remembered.get(rng.usize(0..REMEMBERED)).filter(|_| rng.u32(0..4) == 0).cloned();
        let is_new = again.is_none();
        let drawn = match again {
            Some(own) => {
                let keys: Vec<Key> = own.writes.keys().copied().collect();
                about(&world, &keys, Some(&own), queries, &mut rng).map(|question| (question, Some(own)))
            }
            None => draw(&world, form, queries, &mut rng).await,
        };
        let Some((question, mut own)) = drawn else { continue };
        for _ in 0..rng.usize(1..=IN_A_ROW) {
            let pod = rng.usize(0..clients.len());
            ask(&world, &mut clients[pod], form, question, own.as_mut()).await;
            world.idle(Duration::from_millis(rng.u64(0..PAUSE_MS))).await;
        }
        if let Some(own) = own.filter(|_| is_new) {
            remembered.truncate(REMEMBERED - 1);
            remembered.push_front(own);
        }
    }
}

/// A question that matters now, and what to bring along.
async fn draw(
    world: &World,
    form: Form,
    queries: &'static [&'static Query],
    rng: &mut Rng,
) -> Option<(Question, Option<Own>)> {
    // What was told before is old by now.
    let mut news = world.news.listen();
    let told = timeout(NEWS_WITHIN, async {
        loop {
            match (news.recv().await, form) {
                (Ok(News::Committed(keys)), Form::Query | Form::NoCache) => return Some((keys, None)),
                (Ok(News::Writing(own)), Form::After) => {
                    return Some((own.writes.keys().copied().collect(), Some(own)));
                }
                (Ok(_), _) => {}
                (Err(_), _) => return None,
            }
        }
    });
    match told.await {
        Ok(told) => {
            let (keys, mut own) = told?;
            if let Some(own) = own.as_mut().filter(|_| rng.bool()) {
                own.ended().await;
            }
            Some((about(world, &keys, own.as_ref(), queries, rng)?, own))
        }
        Err(_) if form == Form::After => None,
        Err(_) => Some((Question::draw(queries[rng.usize(0..queries.len())], rng), None)),
    }
}

/// A question about one of these rows.
fn about(
    world: &World,
    keys: &[Key],
    own: Option<&Own>,
    queries: &'static [&'static Query],
    rng: &mut Rng,
) -> Option<Question> {
    let key = *keys.get(rng.usize(0..keys.len().max(1)))?;
    let state: State = match own {
        Some(own) => own.writes[&key],
        None => world.histories().current(key),
    };
    let found: Vec<Question> = queries.iter().filter_map(|query| Question::about(query, key, state, rng)).collect();
    found.get(rng.usize(0..found.len().max(1))).copied()
}

/// Asks once, and has the answer judged. False where there is none.
pub async fn ask(
    world: &World,
    client: &mut Client,
    form: Form,
    question: Question,
    mut own: Option<&mut Own>,
) -> bool {
    let fields = match (form, &own) {
        (Form::NoCache, _) => "Cache-Control: no-cache\r\n".to_owned(),
        (_, Some(own)) => format!("Seawall-After: {}\r\n", own.token),
        (Form::Query | Form::After, None) => String::new(),
    };
    let (path, sent) = (question.path(), world.now());
    let response = match client.get_with(&path, &fields).await {
        Ok(response) if response.status == 200 => response,
        Ok(response) => {
            let problem = problem(&response);
            assert!(form.may_be_refused(&problem), "{path} {fields}: {problem}: {}", response.text());
            let mut tally = world.tally();
            if response.status == 409 {
                tally.fault(FOREIGN);
            }
            tally.refused(form.name(), problem);
            return false;
        }
        Err(error) => {
            world.tally().refused(form.name(), error.to_string());
            return false;
        }
    };
    let received = world.now();
    let status = response.header("cache-status").unwrap_or_default();
    let label = label(status).unwrap_or_else(|| panic!("{path}: nobody may give that: Cache-Status: {status}"));
    let is_limited = form == Form::NoCache && status.ends_with("; detail=refill-limited");
    assert!(label != Label::Stale || is_limited, "{path} {fields}: nobody may give that: Cache-Status: {status}");
    let own = match &mut own {
        Some(own) => committed(world, own).await,
        None => None,
    };
    let facts = question.facts(&response.body, &world.histories());
    let facts = facts.unwrap_or_else(|error| panic!("{path}: {error}: {}", response.text()));
    let stamp = response.header("seawall-stamp").unwrap_or("no stamp");
    let asked = format!("{path} {} ({status}; stamp {stamp})", fields.trim_end());
    let answer = Answer { question: asked, reader: Reader::Strict, label, sent, received, facts };
    world.judge_strictly(form, question.query.name, question.is_by_definition(), &answer, own);
    true
}

/// What the answer must contain of what the client brought. A bare id means whichever history answers: where that has lost the
/// transaction, another one's.
async fn committed(world: &World, own: &mut Own) -> Option<Commit> {
    match own.ended().await {
        Ended::Committed(commit) if own.names_its_history() || world.histories().lost(commit).is_none() => Some(commit),
        Ended::Committed(_) | Ended::RolledBack => None,
    }
}

//! A run: a database, pods, writers and readers for a time, what is broken meanwhile, and what must have come of it.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::changes::Truncates;
use super::chaos::Chaos;
use super::cluster::{Cluster, Prepares};
use super::eventually::eventually;
use super::history::Relation;
use super::http::Client;
use super::judge::Reader;
use super::lull;
use super::pod::{self, Pod};
use super::questions::{self, QUERIES, Query, Question};
use super::reader::{self, ask};
use super::relay::Relay;
use super::schema::{self, DATABASE, OWNER, SERVICE};
use super::sharing::{Shared, Sharing};
use super::strict::{self, Form};
use super::world::{Promise, Rules, World};
use super::writer::{self, Manner};

const WRITERS: [Manner; 5] = [Manner::Brisk, Manner::Brisk, Manner::Brisk, Manner::Slow, Manner::Slow];
const READERS: usize = 8;
const WITHIN: Duration = Duration::from_secs(60);

/// Of each query, or a run has shown nothing of it; it goes on until there are as many. What takes long to fill has few
/// while everything is written.
const LEAST_HITS: u64 = 5;

/// So many at a time as there are cores, and no more than do any good: what is promised holds however busy a machine is, but who has
/// no time to answer shows nothing. One that holds the service to never failing is alone.
static CORES: LazyLock<u32> = LazyLock::new(|| {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)).clamp(1, 4)
});
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(*CORES as usize));

/// What is promised in all runs: small, so that what is lost shows.
pub const PROMISE: Promise = Promise { max_lag: Duration::from_millis(500), timeout: Duration::from_secs(2) };

/// How a run is set up.
pub struct Plan {
    pub name: &'static str,
    /// Of `make test`; `SEAWALL_ORACLE_SECONDS` overrules it.
    pub seconds: u64,
    pub pods: usize,
    /// Lines of `[invalidation]`.
    pub invalidation: &'static str,
    /// Beside those of every run.
    pub queries: &'static [Query],
    /// DDL of these, as the owner.
    pub tables: String,
    pub between: Between,
    pub truncates: Truncates,
    /// Where transactions are never prepared pods have a doorbell, and times in which they fall asleep.
    pub prepares: Prepares,
    /// Through what pods share what they fill.
    pub shared: Shared,
    /// Whether some readers are strict; it takes a log.
    pub readers: Readers,
    /// What has to break, and how often at least; the run goes on until it has.
    pub breaks: &'static [(&'static str, u64)],
    /// Whether no other run is beside it.
    pub alone: bool,
    pub sabotage: Option<&'static str>,
    /// Whose answers have to show how it is broken.
    pub caught_by: Reader,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    Bounded,
    BoundedAndStrict,
}

/// What is between pods and Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    Nothing,
    /// A network that breaks.
    Chaos,
    /// An address that moves from server to server.
    Relay,
}

impl Plan {
    /// A run of one pod, as everybody would set it up.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            seconds: 6,
            pods: 1,
            invalidation: "source = \"log\"",
            queries: &[],
            tables: String::new(),
            between: Between::Nothing,
            truncates: Truncates::Sometimes,
            prepares: Prepares::Sometimes,
            shared: Shared::Nothing,
            readers: Readers::BoundedAndStrict,
            breaks: &[],
            alone: false,
            sabotage: None,
            caught_by: Reader::Bounded,
        }
    }

    /// The same with a doorbell, and pods that fall asleep soon.
    pub fn with_a_doorbell(name: &'static str) -> Self {
        let invalidation = "source = \"log\"\npoll_interval = \"1ms\"";
        Self { invalidation, prepares: Prepares::Never, ..Self::new(name) }
    }

    /// The forms in which strict readers ask.
    fn forms(&self) -> &'static [Form] {
        match self.readers {
            Readers::Bounded => &[],
            Readers::BoundedAndStrict => &strict::FORMS,
        }
    }

    /// What only strict readers ask.
    fn strict(&self) -> &'static [Query] {
        match self.readers {
            Readers::Bounded => &[],
            Readers::BoundedAndStrict => strict::QUERIES,
        }
    }
}

/// A run that is under way, for what breaks it.
pub struct Run {
    pub world: Arc<World>,
    pub pods: Vec<Pod>,
    pub rng: Rng,
    pub chaos: Option<Chaos>,
    pub relay: Option<Relay>,
    pub sharing: Option<Sharing>,
    /// Answers that pods took from each other while things broke; whoever ends a pod counts what it had taken.
    pub taken: f64,
    breaks: &'static [(&'static str, u64)],
    forms: Vec<&'static str>,
    /// What pods and `seawall migrate` are configured with.
    pub toml: String,
}

impl Run {
    /// Nothing was found; and every query was asked, with hits to find something in.
    pub fn kept_its_promise(&self) {
        let (found, tally) = (self.world.violations().len(), self.world.tally());
        assert_eq!(found, 0, "answers broke the promise");
        assert!(tally.has_broken(self.breaks), "{:?} broke, and it takes {:?} to tell", tally.faults, self.breaks);
        for (name, row) in &tally.queries {
            assert!(row.hits >= LEAST_HITS, "{name}: {} hits are too few to tell", row.hits);
        }
        let least = tally.least_strict(&self.forms);
        assert!(
            least >= LEAST_HITS,
            "{least} hits, or telling answers, to a form of strict readers are too few\n{tally}"
        );
    }

    /// What was found, with what pods say of themselves where that is anything, or too little to tell: that may be their doing.
    async fn tells(&self, is_broken: bool) {
        for violation in self.world.violations().iter().take(10) {
            println!("{violation}");
        }
        let is_telling = is_broken || self.world.tally().least_strict(&self.forms) >= LEAST_HITS;
        if !self.world.violations().is_empty() || !is_telling {
            self.show().await;
        }
    }

    /// What pods say of themselves, for who has to find out.
    async fn show(&self) {
        for pod in &self.pods {
            println!("{}", pod.status().await);
            for line in pod
                .log()
                .lines()
                .filter(|line| !line.contains("a query works, but") && !line.contains("a rebuild failed"))
            {
                println!("{line}");
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn configured(plan: &Plan, invalidation: &str, cluster: &Cluster, port: u16) -> String {
    let url = |role: &str, port: u16| format!("postgres://{role}@127.0.0.1:{port}/{DATABASE}");
    let lag = PROMISE.max_lag.as_millis();
    let timeout = PROMISE.timeout.as_millis();
    format!(
        "[postgres]\nurl = \"{}\"\nmigrate_url = \"{}\"\npool_size = 6\n[invalidation]\n{}\n\
         [defaults]\nttl = \"1h\"\nmax_lag = \"{lag}ms\"\ntimeout = \"{timeout}ms\"\nerror_backoff = \"50ms\"\n\
         stale_while_revalidate = \"0s\"\nstale_if_error = \"0s\"\n{}{}{}",
        url(SERVICE, port),
        url(OWNER, cluster.port()),
        invalidation,
        questions::toml(QUERIES),
        questions::toml(plan.queries),
        questions::toml(plan.strict()),
    )
}

/// What pods share by, what they are configured with, and the pods.
async fn start(plan: &Plan, cluster: &Cluster, port: u16) -> (Option<Sharing>, String, Vec<Pod>) {
    let sharing = Sharing::start(plan.shared).await;
    let section = sharing.as_ref().map(Sharing::section).unwrap_or_default();
    let toml = configured(plan, plan.invalidation, cluster, port) + &section;
    // Also where pods don't read it: writers do the same in every run.
    let with_log = configured(plan, "source = \"log\"", cluster, port);
    pod::run("migrate", &with_log).await.unwrap_or_else(|error| panic!("{error}"));
    let pods = join_all((0..plan.pods).map(|_| Pod::start(&toml, plan.sabotage))).await;
    (sharing, toml, pods)
}

/// Runs `plan` with `breaking` beside it, until the time is over and what `breaking` is at is done.
/// Afterwards everything was asked once more, and is judged, too.
pub async fn run(plan: Plan, breaking: impl AsyncFnOnce(&mut Run)) -> Run {
    let turns = if plan.alone { *CORES } else { 1 };
    let _turn = TURNS.acquire_many(turns).await.expect("never closed");
    let seconds = number("SEAWALL_ORACLE_SECONDS").unwrap_or(plan.seconds);
    let seed = number("SEAWALL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{}: {seconds} s with SEAWALL_SEED={seed}", plan.name);
    let mut rng = Rng::with_seed(seed);

    let begun = Instant::now();
    let cluster = Cluster::start(plan.prepares).await;
    set_up(&cluster, &plan).await;
    let (mut chaos, mut relay) = (None, None);
    let port = match plan.between {
        Between::Nothing => cluster.port(),
        Between::Chaos => chaos.insert(Chaos::before(cluster.port())).port,
        Between::Relay => relay.insert(Relay::before(cluster.port()).await).port,
    };
    let (sharing, toml, pods) = start(&plan, &cluster, port).await;
    let Plan { truncates, prepares, sabotage, caught_by, .. } = plan;
    let world = World::new(cluster, Rules { promise: PROMISE, truncates, prepares, sabotage, caught_by });
    let forms: Vec<&'static str> = plan.forms().iter().map(|form| form.name()).collect();
    let breaks = plan.breaks;
    let mut run = Run {
        world: Arc::clone(&world),
        pods,
        rng: rng.fork(),
        chaos,
        relay,
        sharing,
        taken: 0.0,
        breaks,
        forms: forms.clone(),
        toml,
    };

    let queries: Vec<&'static Query> = QUERIES.iter().chain(plan.queries).collect();
    let queries: &'static [&'static Query] = queries.leak();
    let only_strict: &'static [&'static Query] = plan.strict().iter().collect::<Vec<_>>().leak();
    let all: &'static [&'static Query] = [queries, only_strict].concat().leak();
    let addresses: Vec<_> = run.pods.iter().map(|pod| pod.queries).collect();
    let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
    for (n, manner) in WRITERS.into_iter().enumerate() {
        writers.spawn(writer::write(Arc::clone(&world), manner, rng.fork(), n));
    }
    for _ in 0..READERS {
        readers.spawn(reader::read(Arc::clone(&world), addresses.clone(), queries, rng.fork()));
    }
    for form in plan.forms() {
        let queries = match form {
            Form::Query => only_strict,
            Form::NoCache => queries,
            Form::After => all,
        };
        readers.spawn(strict::read(Arc::clone(&world), addresses.clone(), *form, queries, rng.fork()));
    }
    let lulls = {
        let (world, mut rng) = (Arc::clone(&world), rng.fork());
        let admins: Vec<_> = run.pods.iter().map(|pod| pod.admin).collect();
        async move {
            if prepares == Prepares::Never {
                lull::now_and_then(&world, &admins, rng.fork()).await;
            }
        }
    };
    // What is broken on purpose has as long as it needs, and no longer.
    let is_broken = plan.sabotage.is_some();
    let time = {
        let world = Arc::clone(&world);
        async move {
            let deadline = world.now() + Duration::from_secs(seconds);
            let enough = || {
                let tally = world.tally();
                let has_hits = tally.least_hits(queries).min(tally.least_strict(&forms)) >= LEAST_HITS;
                is_broken || has_hits && tally.has_broken(plan.breaks)
            };
            while world.now() < deadline || !enough() && world.now() < deadline + WITHIN {
                if is_broken && world.is_caught() {
                    break;
                }
                world.idle(Duration::from_millis(20)).await;
            }
            world.end();
        }
    };
    tokio::join!(time, lulls, breaking(&mut run));
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer knows what became of each of its writes");
    }
    while let Some(ended) = readers.join_next().await {
        ended.expect("every answer makes sense");
    }
    for pod in &run.pods {
        run.taken += taken(pod).await;
    }
    agrees(&world).await;
    // What is broken on purpose need not come round.
    if !is_broken {
        converges(&mut run, queries, only_strict).await;
    }
    println!("{}\n{}: {:?} in all", world.tally(), plan.name, begun.elapsed());
    run.tells(is_broken).await;
    run
}

async fn set_up(cluster: &Cluster, plan: &Plan) {
    let admin = cluster.session("postgres", "postgres").await;
    admin.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await.expect("a database");
    let admin = cluster.session("postgres", DATABASE).await;
    admin.batch_execute(schema::ROLES).await.expect("roles");
    let owner = cluster.session(OWNER, DATABASE).await;
    for sql in [schema::TABLES, &schema::rows(), &plan.tables] {
        owner.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    }
}

/// Answers that a pod took from others.
pub async fn taken(pod: &Pod) -> f64 {
    pod.metric("seawall_shared_values_total{outcome=\"hit\"}").await
}

/// Once nothing is written or broken any more, everything can be asked of every pod, and is answered within the promise.
async fn converges(run: &mut Run, queries: &[&'static Query], only_strict: &[&'static Query]) {
    join_all(run.pods.iter().map(async |pod| {
        let mut client = Client::new(pod.queries);
        for question in queries.iter().flat_map(|query| Question::all(query)) {
            eventually(&question.path(), WITHIN, async || {
                let answered = ask(&run.world, &mut client, question).await;
                answered.then_some(()).ok_or_else(|| format!("{:?}", run.world.tally().problems))
            })
            .await;
        }
        for question in only_strict.iter().flat_map(|query| Question::all(query)) {
            eventually(&question.path(), WITHIN, async || {
                let answered = strict::ask(&run.world, &mut client, Form::Query, question, None).await;
                answered.then_some(()).ok_or_else(|| format!("{:?}", run.world.tally().strict))
            })
            .await;
        }
    }))
    .await;
}

/// What writers know of the rows is what Postgres has: else the judge judges by something else.
async fn agrees(world: &World) {
    let client = world.session("postgres").await;
    let known = world.histories().all();
    let relations = [
        Relation::Item,
        Relation::Note,
        Relation::Part,
        Relation::Animal,
        Relation::Bulk,
        Relation::BulkChild,
        Relation::Grown,
    ];
    for relation in relations {
        let there = schema::read(&client, relation).await.expect("it stands");
        for (key, state) in known.iter().filter(|(key, _)| key.0 == relation) {
            let found = there.get(key).copied().unwrap_or(super::history::State::Absent);
            assert_eq!(found, *state, "{key:?}: what Postgres has, and what its writers know");
        }
    }
}

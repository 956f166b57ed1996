//! Answers that pods share through a master that sentinels name, through a cluster, and over TLS: all of it real, under load,
//! and with each part taken away. No wrong answer, no failed request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;

use super::support::client::get;
use super::support::database;
use super::support::eventually::eventually;
use super::support::ports;
use super::support::redis::TestRedis;
use super::support::service::{TestService, migrate, plan};
use super::support::topology::{MASTER, Masters, Sentinel, Watched};

const WITHIN: Duration = Duration::from_secs(30);

/// Within which values are shared again after a master has died.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// Answers live so shortly that pods ask Redis all the time, and longer there than it takes the other pod to ask.
const QUERIES: &str = "[invalidation]\nsource = \"log\"\n[defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"300ms\"\n\
    stale_while_revalidate = \"0s\"\n[queries.product]\n\
    sql = \"SELECT id, price::float8 AS price FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n";

/// Products that are asked for.
const PRODUCTS: u64 = 40;

/// The one whose price is changed.
const WRITTEN: u64 = 7;

async fn shared(pod: &TestService, outcome: &str) -> f64 {
    pod.metric(&format!("seawall_shared_values_total{{outcome=\"{outcome}\"}}")).await
}

async fn product(pod: &TestService, id: u64) {
    let answer = get(pod.queries, &format!("/v1/queries/product?id={id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Waits until `pod` has found what the other one had filled, from now on.
async fn finds(pod: &TestService) {
    let before = shared(pod, "hit").await;
    eventually("the pod finds what another has filled", WITHIN, async || match shared(pod, "hit").await - before {
        found if found >= 3.0 => Ok(()),
        found => Err((found, pod.read.degraded())),
    })
    .await;
}

async fn is_up(pod: &TestService, wanted: f64) {
    eventually("it is seen", WITHIN, async || match pod.metric("seawall_redis_up").await {
        now if now == wanted => Ok(()),
        now => Err((now, pod.read.degraded())),
    })
    .await;
}

/// Two pods that share, and readers and a writer that never stop.
struct Busy {
    pods: [Arc<TestService>; 2],
    over: Arc<AtomicBool>,
    readers: JoinSet<u64>,
    writer: tokio::task::JoinHandle<u64>,
}

impl Busy {
    async fn start(section: &str) -> Self {
        let database = database().await;
        let config = format!("{section}{QUERIES}");
        migrate(&plan(&database.url, &config)).await;
        let first = Arc::new(plan(&database.url, &config).start().await);
        let pods = [first, Arc::new(plan(&database.url, &config).start().await)];
        let over = Arc::new(AtomicBool::new(false));
        // The price that every reader may expect at least: it is raised when both pods have heard of it.
        let floor = Arc::new(AtomicU64::new(0));
        let client = database.client().await;
        client
            .batch_execute(&format!("UPDATE shop.products SET price = 1 WHERE id = {WRITTEN}"))
            .await
            .expect("written");
        let writer = tokio::task::spawn_blocking({
            let (pods, over, floor) = (pods.clone(), Arc::clone(&over), Arc::clone(&floor));
            // On a thread of its own: what waits for pods can't be sent from one to another.
            let on = tokio::runtime::Handle::current();
            move || {
                on.block_on(async move {
                    let mut price = 1;
                    while !over.load(Ordering::Relaxed) {
                        price += 1;
                        let write = format!("UPDATE shop.products SET price = {price} WHERE id = {WRITTEN}");
                        client.batch_execute(&write).await.expect("written");
                        for pod in &pods {
                            pod.catch_up(&client).await;
                        }
                        floor.store(price, Ordering::SeqCst);
                    }
                    price
                })
            }
        });
        let mut readers = JoinSet::new();
        for (pod, reader) in pods.iter().flat_map(|pod| (0..4).map(move |reader| (pod, reader))) {
            let (address, over, floor) = (pod.queries, Arc::clone(&over), Arc::clone(&floor));
            readers.spawn(async move {
                let mut asked = 0;
                while !over.load(Ordering::Relaxed) {
                    // Every other one is for what is written.
                    let id = if asked % 2 == 0 { WRITTEN } else { 1 + (asked / 2 + 10 * reader) % PRODUCTS };
                    let expected = floor.load(Ordering::SeqCst);
                    let answer = get(address, &format!("/v1/queries/product?id={id}")).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let row = answer.json();
                    assert_eq!(row["id"], id);
                    if id == WRITTEN {
                        let price = row["price"].as_f64().expect("a price");
                        assert!(price >= expected as f64, "{price} where {expected} was known: {answer:?}");
                    }
                    asked += 1;
                }
                asked
            });
        }
        let busy = Self { pods, over, readers, writer };
        busy.all_find().await;
        busy
    }

    async fn all_find(&self) {
        for pod in &self.pods {
            finds(pod).await;
        }
    }

    /// That pods were given.
    async fn leases(&self) -> f64 {
        let series = "seawall_leases_total{outcome=\"acquired\"}";
        self.pods[0].metric(series).await + self.pods[1].metric(series).await
    }

    async fn all_are_up(&self, wanted: f64) {
        for pod in &self.pods {
            is_up(pod, wanted).await;
        }
    }

    /// Ends it; panics with what a reader has found.
    async fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let mut asked = 0;
        while let Some(reader) = self.readers.join_next().await {
            asked += reader.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        let written = self.writer.await.expect("no panic");
        println!("{asked} answers, {written} writes, none wrong");
        assert!(asked > 100 && written > 10, "{asked} answers, {written} writes: no load");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_is_followed_by_another_and_values_are_back_within_ten_seconds() {
    let mut watched = Watched::start().await;
    let busy = Busy::start(&watched.section("")).await;
    let keys: Vec<String> = watched.servers[0].ask(&["KEYS", "*"]).await;
    assert_eq!(keys, [""; 0], "the number of the database is heeded");
    let replaced = watched.master().await;
    assert_eq!(replaced, watched.servers[0].port());

    let killed = Instant::now();
    watched.servers[0].kill();
    busy.all_are_up(0.0).await;
    for pod in &busy.pods {
        let ready = get(pod.admin, "/readyz").await;
        assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("degraded")));
    }
    busy.all_are_up(1.0).await;
    let leases = busy.leases().await;
    busy.all_find().await;
    eventually("leases are given again", WITHIN, async || match busy.leases().await - leases {
        n if n >= 1.0 => Ok(()),
        n => Err(n),
    })
    .await;
    let took = killed.elapsed();
    println!("values and leases were shared again {took:?} after the master was killed");
    assert!(took < BACK_WITHIN, "{took:?}");
    assert_ne!(watched.master().await, replaced);

    // It comes back, as a master of nobody, and becomes a replica.
    watched.servers[0].restart().await;
    busy.all_find().await;
    eventually("it becomes a replica", WITHIN, async || {
        // Sentinels end every connection of one that they demote.
        let info = watched.servers[0].try_ask::<String>(&["INFO", "replication"]).await.map_err(|e| e.to_string())?;
        if info.contains("role:slave") && info.contains("master_link_status:up") { Ok(()) } else { Err(info) }
    })
    .await;
    busy.all_find().await;
    // One that lives is replaced: what it still has of connections leads to a replica now.
    let replaced = watched.master().await;
    watched.fail_over().await;
    watched.has_another_than(replaced).await;
    busy.all_find().await;
    busy.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_are_away_or_lie_are_passed_over() {
    let (master, stranger) = (TestRedis::start().await, TestRedis::start().await);
    // Its master is the replica of somebody who is not there.
    stranger.ask::<()>(&["REPLICAOF", "127.0.0.1", &ports::free().to_string()]).await;
    let (honest, liar) = (Sentinel::start(master.port(), 1, "").await, Sentinel::start(stranger.port(), 1, "").await);
    let others = [ports::free(), master.port(), liar.port()].map(|port| format!("127.0.0.1:{port}")).join(",");
    let database = database().await;
    let start = async |sentinels: &str| {
        let url = format!("redis+sentinel://{sentinels}/{MASTER}");
        let config = format!("[redis]\nurl = \"{url}\"\n{}", QUERIES.replace("300ms", "1h"));
        migrate(&plan(&database.url, &config)).await;
        plan(&database.url, &config).start().await
    };
    for _ in 0..3 {
        let pod = start(&format!("{others},127.0.0.1:{}", honest.port())).await;
        product(&pod, 1).await;
        is_up(&pod, 1.0).await;
        assert_eq!(shared(&pod, "failed").await, 0.0);
    }
    // Where nobody else is there, nothing is shared, and it is said why.
    let pod = start(&others).await;
    for id in 1..=10 {
        product(&pod, id).await;
    }
    is_up(&pod, 0.0).await;
    let ready = get(pod.admin, "/readyz").await.text();
    assert!(ready.contains("no sentinel leads to the master"), "{ready}");
    let keys: Vec<String> = stranger.ask(&["KEYS", "*"]).await;
    assert_eq!(keys, [""; 0]);
}

/// Which of `masters` has the most answers, and their slots.
async fn live_slots(masters: &Masters) -> (usize, Vec<u16>) {
    let mut found = vec![];
    for at in 0..masters.servers.len() {
        found.push((at, masters.slots_with_keys(at).await));
    }
    found.into_iter().max_by_key(|(_, slots)| slots.len()).expect("three")
}

/// How often `server` has said or heard what `section` of INFO counts as `line`.
async fn counted(server: &TestRedis, section: &str, line: &str) -> u64 {
    let info: String = server.ask(&["INFO", section]).await;
    let count =
        info.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(':')?.split('=').nth(1).map(str::to_owned));
    count
        .map_or(0, |count| count.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a count"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_a_cluster_move_under_load_and_no_request_fails() {
    let masters = Masters::start().await;
    let busy = Busy::start(&masters.section("")).await;
    let (from, slots) = live_slots(&masters).await;
    let to = (from + 1) % 3;
    assert!(!slots.is_empty());
    for &slot in &slots {
        masters.begin_to_move(slot, from, to).await;
    }
    // Answers expire meanwhile, and who looks for them is sent on for once.
    eventually("readers are sent on", WITHIN, async || {
        match counted(&masters.servers[to], "commandstats", "cmdstat_asking").await {
            n if n >= 50 => Ok(()),
            n => Err(n),
        }
    })
    .await;
    busy.all_find().await;
    for &slot in &slots {
        masters.move_on(slot, from, to).await;
    }
    eventually("readers are sent on for good", WITHIN, async || {
        match counted(&masters.servers[from], "errorstats", "errorstat_MOVED").await {
            n if n >= 1 => Ok(()),
            n => Err(n),
        }
    })
    .await;
    busy.all_find().await;
    for pod in &busy.pods {
        // A script over the keys of a place is refused while some of them are here and others there: its pod fills for itself.
        // That is about a slot, and no reason to leave the others alone.
        is_up(pod, 1.0).await;
    }
    // The map is corrected: nobody is sent on any more, however many ask.
    let sent_on = async || counted(&masters.servers[from], "errorstats", "errorstat_MOVED").await;
    eventually("nobody is sent on any more", WITHIN, async || {
        let (before, first) = (sent_on().await, takes(&busy.pods[0]).await);
        eventually("they ask", WITHIN, async || match takes(&busy.pods[0]).await - first {
            more if more >= 200.0 => Ok(()),
            more => Err(more),
        })
        .await;
        let now = sent_on().await;
        if now == before { Ok(()) } else { Err((before, now)) }
    })
    .await;
    busy.end().await;
}

/// Looks that Redis has answered.
async fn takes(pod: &TestService) -> f64 {
    pod.metric("seawall_redis_duration_seconds_count{call=\"take\"}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lacks_a_master_is_left_alone_until_it_is_whole() {
    let mut masters = Masters::start().await;
    let busy = Busy::start(&masters.section("")).await;
    masters.servers[2].kill();
    busy.all_are_up(0.0).await;
    // The others would take a probe, and calls: there are none of these as long as one is away.
    let before = [takes(&busy.pods[0]).await, takes(&busy.pods[1]).await];
    eventually("the others have given it up", WITHIN, async || {
        let info: String = masters.servers[0].ask(&["CLUSTER", "NODES"]).await;
        if info.contains("master,fail ") { Ok(()) } else { Err(info) }
    })
    .await;
    busy.all_are_up(0.0).await;
    assert_eq!([takes(&busy.pods[0]).await, takes(&busy.pods[1]).await], before);
    masters.servers[2].restart().await;
    masters.agree().await;
    busy.all_are_up(1.0).await;
    busy.all_find().await;
    busy.end().await;
}

/// A pod whose answers live long, and its Redis.
async fn pod_with(redis: &TestRedis) -> TestService {
    let database = database().await;
    let config = format!("{}{}", redis.section("timeout = \"400ms\""), QUERIES.replace("300ms", "1h"));
    migrate(&plan(&database.url, &config)).await;
    plan(&database.url, &config).start().await
}

/// Asks for 300 products at once, so that there are several connections to Redis.
async fn burst(pod: &TestService, first: u64) {
    let mut asked = JoinSet::new();
    for id in first..first + 300 {
        let address = pod.queries;
        asked.spawn(async move { get(address, &format!("/v1/queries/product?id={id}")).await.status });
    }
    while let Some(status) = asked.join_next().await {
        let status = status.expect("no panic");
        assert!(status == 200 || status == 404, "{status}");
    }
}

/// The connections over which pods call, by the numbers that Redis gives them; those that listen are others.
async fn callers(redis: &TestRedis) -> Vec<u64> {
    let clients: String = redis.ask(&["CLIENT", "LIST"]).await;
    let of = |line: &str, field: &str| line.split(' ').find_map(|it| it.strip_prefix(field).map(str::to_owned));
    let calling = clients.lines().filter(|line| {
        let is_ours = of(line, "cmd=").is_some_and(|cmd| cmd.starts_with("client"));
        !is_ours && of(line, "flags=").is_some_and(|flags| flags == "N")
    });
    calling.map(|line| of(line, "id=").and_then(|id| id.parse().ok()).expect("a number")).collect()
}

/// Has `pod` make several, and says which they are.
async fn several(pod: &TestService, redis: &TestRedis) -> Vec<u64> {
    let mut next = 10_001;
    eventually("there are several", WITHIN, async || {
        burst(pod, next).await;
        next += 300;
        let calling = callers(redis).await;
        if calling.len() >= 2 { Ok(calling) } else { Err(calling) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_no_connection_from_before_it_is_used_again() {
    let redis = TestRedis::start().await;
    let pod = pod_with(&redis).await;
    let before = several(&pod, &redis).await;
    redis.signal(Signal::STOP);
    // One call finds out, over one of them. The others stand, and whatever was said on them may be answered late.
    product(&pod, 1_001).await;
    is_up(&pod, 0.0).await;
    redis.signal(Signal::CONT);
    is_up(&pod, 1.0).await;
    burst(&pod, 2_001).await;
    eventually("they are closed", WITHIN, async || {
        let now = callers(&redis).await;
        let stands = now.iter().any(|id| before.contains(id));
        if stands || now.is_empty() { Err((before.clone(), now)) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_started_again_is_one_outage_however_many_connections_there_were() {
    let mut redis = TestRedis::start().await;
    let pod = pod_with(&redis).await;
    several(&pod, &redis).await;
    redis.kill();
    burst(&pod, 1_001).await;
    is_up(&pod, 0.0).await;
    redis.restart().await;
    is_up(&pod, 1.0).await;
    let failed = shared(&pod, "failed").await;
    burst(&pod, 2_001).await;
    assert_eq!(shared(&pod, "failed").await, failed, "{:?}", pod.read.degraded());
}

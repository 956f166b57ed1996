//! `seawall demo --pods N`: the same incident, with Seawall as several pods that share a Redis.
//!
//! Postgres, Redis and pods are processes of their own on this machine. The stampede comes over all pods at once; then a price
//! changes; then a pod is killed and comes back. What reached Postgres is counted there, as in the demo of one process; who
//! answered what, the pods say.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::load::{self, Client};
use super::pods::{Common, Counts, Pod, free_address};
use super::processes::Processes;
use super::report::{self, ClusterReport, Death, Side, Spread};
use super::{Args, Counter, DemoError, PRODUCTS, QUERY, URI, WRITTEN, play_naive, say, start_postgres};
use crate::cli::{FAILED, StopSignal};
use crate::config::Config;
use crate::postgres::embedded::Embedded;

/// A start of Redis takes some milliseconds.
const REDIS_WITHIN: Duration = Duration::from_secs(10);

/// Far longer than any change takes to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Requests at a time, for each pod that stays while another one dies.
const STEADY: usize = 2;

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seawall.
    pub program: PathBuf,
    /// The file of the configuration; where there is none, the one that ships with Seawall.
    pub config: PathBuf,
    /// At least two.
    pub pods: u32,
    /// Redis.
    pub redis_server: PathBuf,
}

/// Postgres, Redis and pods. Dropped, all of them end.
pub struct Cluster {
    program: PathBuf,
    pods: Vec<Pod>,
    redis: SocketAddr,
    redis_pid: u32,
    /// Before Postgres, which pods would miss.
    processes: Processes,
    postgres: Embedded,
}

/// Plays, then stays up until it is told to stop.
pub(super) async fn demo(config: &Config, args: Args, pods: u32) -> u8 {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("seawall: where this program is can't be found out: {error}");
            return FAILED;
        }
    };
    let options = Options { program, config: args.config.config, pods, redis_server: args.redis_server };
    let mut stop = StopSignal::new();
    let told = async {
        let tell = |line: &str| say(line);
        let mut cluster = Cluster::start(config, &options, &tell).await?;
        say(&cluster.play(config, args.requests, &tell).await?);
        if !args.once {
            say(&report::cluster_invitation(&cluster.pods, cluster.redis, cluster.redis_pid, &cluster.url()));
            std::future::pending::<()>().await;
        }
        Ok::<_, DemoError>(cluster)
    };
    tokio::select! {
        played = told => match played {
            Ok(cluster) => {
                cluster.stop().await;
                0
            }
            Err(error) => {
                eprintln!("seawall: {error}");
                FAILED
            }
        },
        // What runs ends with the future that owns it.
        () = stop.told() => {
            say("\nstopped");
            0
        }
    }
}

impl Cluster {
    /// Starts all of it.
    ///
    /// # Errors
    /// [`DemoError`] where a part does not come up; the logs stay behind then.
    pub async fn start(
        config: &Config,
        options: &Options,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Self, DemoError> {
        tell(&format!("Starting a private Postgres with a sample shop, a private Redis, and {} pods …", options.pods));
        let mut processes = Processes::new()?;
        // First, since it is what may be missing.
        let (redis, redis_pid) = start_redis(&options.redis_server, &mut processes).await?;
        let postgres = start_postgres().await?;
        let url = postgres.url("postgres");
        super::super::migrate::bring_up(config, &url).await.map_err(|error| DemoError::Database(error.to_string()))?;
        let text = match std::fs::read_to_string(&options.config) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                include_str!("../../../config.toml").to_owned()
            }
            read => read?,
        };
        let common = Common {
            text: &text,
            base_dir: options.config.parent().unwrap_or(Path::new("")),
            postgres: &url,
            redis: &format!("redis://{redis}"),
        };
        let pods = (1..=options.pods).map(|n| Pod::new(n, &common, &processes)).collect::<Result<Vec<_>, _>>()?;
        let program = options.program.clone();
        let mut cluster = Self { program, pods, redis, redis_pid, processes, postgres };
        if let Err(error) = cluster.start_pods().await {
            cluster.processes.keep_logs();
            return Err(error);
        }
        Ok(cluster)
    }

    async fn start_pods(&mut self) -> Result<(), DemoError> {
        for pod in &self.pods {
            pod.start(&self.program, &mut self.processes)?;
        }
        for pod in &self.pods {
            pod.ready(&mut self.processes).await?;
        }
        Ok(())
    }

    /// Its pods.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    fn url(&self) -> String {
        self.postgres.url("postgres")
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.pods.iter().map(|pod| pod.queries).collect()
    }

    /// Plays all of it and reports; `tell` gets progress, a line at a time.
    ///
    /// # Errors
    /// [`DemoError`] where a part could not be played to its end; the logs stay behind then.
    pub async fn play(
        &mut self,
        config: &Config,
        requests: u32,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<ClusterReport, DemoError> {
        let played = self.play_all(config, requests, tell).await;
        if played.is_err() {
            self.processes.keep_logs();
            tell(&format!("The logs of Redis and of the pods: {}/*.log", self.processes.directory().display()));
        }
        played
    }

    async fn play_all(
        &mut self,
        config: &Config,
        requests: u32,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<ClusterReport, DemoError> {
        let count = Counter::new(&self.postgres);
        tell(&format!("{} requests for {URI}, which is stored nowhere.\n", report::thousands(u64::from(requests))));
        let naive = play_naive(config, &self.postgres, &count, requests, tell).await?;
        tell("2. Seawall: of all pods one asks, everybody else shares its answer.");
        let (seawall, pods) = self.stampede(&count, requests, tell).await?;
        tell("3. A price changes in Postgres, and nobody tells the pods.");
        let spread = self.price_change().await?;
        tell("4. A pod is killed, and started again.");
        let death = self.death().await?;
        Ok(ClusterReport { requests, naive, seawall, pods, spread, death })
    }

    async fn stampede(
        &self,
        count: &Counter<'_>,
        requests: u32,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(Side, Vec<Counts>), DemoError> {
        let before_pods = self.counts(QUERY).await?;
        let before = count.read().await?;
        let latencies = load::run(&self.addresses(), URI, requests, tell).await?;
        let side = Side { database: count.read().await? - before, latencies };
        let pods = self.counts(QUERY).await?.into_iter().zip(before_pods).map(|(after, before)| after - before);
        Ok((side, pods.collect()))
    }

    /// What each pod has done for `query`.
    async fn counts(&self, query: &str) -> Result<Vec<Counts>, DemoError> {
        let mut counts = Vec::new();
        for pod in &self.pods {
            counts.push(pod.counts(query).await?);
        }
        Ok(counts)
    }

    /// Writes to a row that all pods have an answer of, and asks them until they have the new one.
    async fn price_change(&self) -> Result<Spread, DemoError> {
        let uri = product(WRITTEN);
        let mut clients = Vec::new();
        let mut before = Vec::new();
        for pod in &self.pods {
            let mut client = Client::connect(pod.queries).await?;
            before.push(client.get(&uri).await?.body);
            clients.push(client);
        }
        let statements = async || -> Result<u64, DemoError> {
            Ok(self.counts("product").await?.iter().map(|counts| counts.statements).sum())
        };
        let asked = statements().await?;
        let update = format!("UPDATE shop.products SET price = price + 1 WHERE id = {WRITTEN}");
        self.postgres.execute("postgres", &update).await.map_err(|error| DemoError::Database(error.to_string()))?;
        let committed = Instant::now();
        let shown = clients.into_iter().zip(before).map(async |(mut client, before)| -> Result<Duration, DemoError> {
            while client.get(&product(WRITTEN)).await?.body == before {
                if committed.elapsed() > SEEN_WITHIN {
                    return Err(DemoError::Database("the write did not reach the answers within ten seconds".into()));
                }
            }
            Ok(committed.elapsed())
        });
        let visible = futures_util::future::join_all(shown).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Spread { update, visible, statements: statements().await? - asked })
    }

    /// Kills the last pod while the others are asked all the time, and starts it again.
    async fn death(&mut self) -> Result<Death, DemoError> {
        let Some((victim, others)) = self.pods.split_last() else { return Err(DemoError::NoQuery) };
        let steady = Steady::start(others.iter().map(|pod| pod.queries));
        steady.answers(100).await?;
        self.processes.kill(&victim.name)?;
        let at_death = steady.answered();
        // So that there are many without it, however fast it is back.
        steady.answers(at_death + 500).await?;
        let begun = Instant::now();
        victim.start(&self.program, &mut self.processes)?;
        victim.ready(&mut self.processes).await?;
        let ready = begun.elapsed();
        let first = Client::connect(victim.queries).await?.get(&product(WRITTEN)).await?;
        let statements = victim.counts("product").await?.statements;
        let (answered, failed) = steady.stop().await;
        Ok(Death { pod: victim.name.clone(), answered, failed, ready, cache_status: first.cache_status, statements })
    }

    /// Ends all of it.
    pub async fn stop(self) {
        drop(self.processes);
        if let Err(error) = self.postgres.stop().await {
            tracing::warn!(%error, "the private Postgres did not stop cleanly");
        }
    }
}

fn product(id: u32) -> String {
    format!("/v1/queries/product?id={id}")
}

async fn start_redis(program: &Path, processes: &mut Processes) -> Result<(SocketAddr, u32), DemoError> {
    const NAME: &str = "redis";
    let address = free_address()?;
    let mut command = Command::new(program);
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(processes.directory());
    let pid =
        processes.start(NAME, command).map_err(|source| DemoError::NoRedis { program: program.to_owned(), source })?;
    let begun = Instant::now();
    while !pong(address).await.unwrap_or(false) {
        if processes.ended(NAME).is_some() || begun.elapsed() > REDIS_WITHIN {
            processes.keep_logs();
            return Err(DemoError::process(NAME, processes));
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok((address, pid))
}

/// Whether a Redis answers there.
async fn pong(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut answer)).await??;
    Ok(&answer == b"+PONG\r\n")
}

/// Requests without a pause, for products one after the other.
struct Steady {
    count: Arc<Count>,
    running: JoinSet<()>,
}

#[derive(Default)]
struct Count {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Steady {
    fn start(addresses: impl Iterator<Item = SocketAddr>) -> Self {
        let count = Arc::<Count>::default();
        let mut running = JoinSet::new();
        for address in addresses.flat_map(|address| [address; STEADY]) {
            running.spawn(ask_steadily(address, Arc::clone(&count)));
        }
        Self { count, running }
    }

    fn answered(&self) -> u64 {
        self.count.answered.load(Ordering::Relaxed)
    }

    /// Waits until there have been so many.
    async fn answers(&self, wanted: u64) -> Result<(), DemoError> {
        let begun = Instant::now();
        while self.answered() < wanted {
            if begun.elapsed() > SEEN_WITHIN {
                return Err(DemoError::Io(std::io::Error::other("the pods do not answer")));
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Answered and failed.
    async fn stop(mut self) -> (u64, u64) {
        self.count.stop.store(true, Ordering::Relaxed);
        while self.running.join_next().await.is_some() {}
        (self.answered(), self.count.failed.load(Ordering::Relaxed))
    }
}

async fn ask_steadily(address: SocketAddr, count: Arc<Count>) {
    let mut client = None;
    for id in (1..=PRODUCTS).cycle() {
        if count.stop.load(Ordering::Relaxed) {
            return;
        }
        let answer = async {
            let mut asking = match client.take() {
                Some(client) => client,
                None => Client::connect(address).await?,
            };
            let answer = asking.get(&product(id)).await?;
            client = Some(asking);
            Ok::<_, std::io::Error>(answer)
        };
        let counted =
            if answer.await.is_ok_and(|answer| answer.status.is_success()) { &count.answered } else { &count.failed };
        counted.fetch_add(1, Ordering::Relaxed);
        // It shares the machine's cores with what it asks.
        sleep(Duration::from_millis(1)).await;
    }
}

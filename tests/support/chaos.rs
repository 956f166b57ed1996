//! A TCP proxy before Postgres that breaks the connection in every way that networks do, and mends it again.
//!
//! Its [`Mode`] is set at any moment and holds for connections that stand and for those to come. What a mode holds back
//! is not lost: it passes when the mode lets it, as TCP would deliver it after a partition. An end that closes meanwhile
//! is noticed, so that [`Chaos::open`] is what the client still has open.
//!
//! A mode is in force when [`Chaos::set`] returns: whatever is sent afterwards meets it.

#![allow(dead_code, reason = "each binary of tests uses its part")]

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// Nobody listens, and those that stood are reset: the machine is up and the server is not. Attempts are refused by
    /// the kernel, and so are not among [`Chaos::attempts`].
    Away,
    /// Who connects is reset at once; those that stand go on.
    Refuse,
    /// Those that stand are reset, once; who connects passes.
    Reset,
    /// Connections are accepted, and nothing comes back, on those that stand neither; nothing is closed.
    BlackHole,
    /// So many bytes pass in either direction, and then so many more after each pause.
    Trickle {
        /// Bytes at a time.
        bytes: usize,
        /// The pause.
        every: Duration,
    },
    /// Each connection ends, in order and in the middle of whatever the server is saying, after so many more bytes from it.
    Cut {
        /// Bytes from the server.
        after: usize,
    },
}

/// A mode, and the how-manieth; connections from before the last one that resets are reset.
#[derive(Clone, Copy, Debug)]
struct Setting {
    number: u64,
    mode: Mode,
    reset_before: u64,
}

/// Before one server. Dropped, it listens no more, and every connection ends.
pub struct Chaos {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
    in_force: watch::Receiver<u64>,
    accepting: AbortHandle,
}

struct Shared {
    server: u16,
    setting: watch::Sender<Setting>,
    cancels_held: watch::Sender<bool>,
    cancels_delivered: AtomicU64,
    received: AtomicU64,
    open: AtomicUsize,
    /// Connections that have not ended: since which setting, and a number.
    standing: watch::Sender<BTreeSet<(u64, u64)>>,
    attempts: Mutex<Vec<Instant>>,
}

impl Chaos {
    /// Before the server at `port` of this machine.
    pub fn before(port: u16) -> Self {
        // Bound and never listening: it keeps the port while nobody listens there.
        let kept = bound(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = kept.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            server: port,
            setting: watch::Sender::new(Setting { number: 0, mode: Mode::Pass, reset_before: 0 }),
            cancels_held: watch::Sender::new(false),
            cancels_delivered: AtomicU64::new(0),
            received: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            standing: watch::Sender::default(),
            attempts: Mutex::default(),
        });
        let (applied, in_force) = watch::channel(0);
        let listener = listen(address).expect("the port is ours");
        let accepting = tokio::spawn(accept(Arc::clone(&shared), kept, address, listener, applied)).abort_handle();
        Self { port: address.port(), shared, in_force, accepting }
    }

    /// From now on it does this.
    pub async fn set(&self, mode: Mode) {
        let mut number = 0;
        self.shared.setting.send_modify(|setting| {
            number = setting.number + 1;
            let resets = matches!(mode, Mode::Reset | Mode::Away);
            *setting = Setting { number, mode, reset_before: if resets { number } else { setting.reset_before } };
        });
        // The listener is closed, or open again; and what is to be reset has been.
        self.in_force.clone().wait_for(|applied| *applied >= number).await.expect("it accepts as long as this lives");
        let before = self.shared.setting.borrow().reset_before;
        let mut standing = self.shared.standing.subscribe();
        let gone = standing.wait_for(|born| born.range(..(before, 0)).next().is_none()).await;
        gone.expect("its sender is here");
    }

    /// When somebody connected, requests to cancel included.
    pub fn attempts(&self) -> Vec<Instant> {
        self.shared.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The most attempts from `begun` to before `ended` that fell within one window.
    pub fn most_attempts_between(&self, begun: Instant, ended: Instant, window: Duration) -> usize {
        let attempts: Vec<Instant> = self.attempts().into_iter().filter(|at| (begun..ended).contains(at)).collect();
        let within = |first: Instant| attempts.iter().filter(|at| **at >= first && **at < first + window).count();
        attempts.iter().map(|first| within(*first)).max().unwrap_or(0)
    }

    /// The same until now.
    pub fn most_attempts(&self, begun: Instant, window: Duration) -> usize {
        self.most_attempts_between(begun, Instant::now(), window)
    }

    /// Connections that the client has not closed and this has not ended.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Bytes that the server has sent through it.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Acquire)
    }

    /// From now on requests to cancel are taken and not passed on.
    pub fn hold_cancels(&self) {
        self.shared.cancels_held.send_replace(true);
    }

    /// Those that were held pass.
    pub fn release_cancels(&self) {
        self.shared.cancels_held.send_replace(false);
    }

    /// Requests to cancel that the server has carried out.
    pub fn cancels_delivered(&self) -> u64 {
        self.shared.cancels_delivered.load(Ordering::Acquire)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared
            .setting
            .send_modify(|setting| *setting = Setting { number: u64::MAX, mode: Mode::Away, reset_before: u64::MAX });
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Two sockets may have one address as long as at most one of them listens.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bound(address)?.listen(1024)
}

async fn accept(
    shared: Arc<Shared>,
    _kept: TcpSocket,
    address: SocketAddr,
    first: TcpListener,
    applied: watch::Sender<u64>,
) {
    let mut listener = Some(first);
    let mut settings = shared.setting.subscribe();
    let mut connected = 0;
    loop {
        let setting = *settings.borrow_and_update();
        listener = match (setting.mode, listener) {
            (Mode::Away, _) => None,
            (_, Some(listener)) => Some(listener),
            (_, None) => Some(listen(address).expect("the port is kept")),
        };
        applied.send_replace(setting.number);
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = settings.changed() => if changed.is_err() { return },
            accepted = accepted => {
                let Ok((client, _)) = accepted else { continue };
                shared.attempts.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                let _ = client.set_nodelay(true);
                connected += 1;
                let standing = Standing::new(&shared, (setting.number, connected));
                tokio::spawn(connection(client, standing, Arc::clone(&shared)));
            }
        }
    }
}

/// Counts a connection that the client has open.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection that has not ended.
struct Standing {
    shared: Arc<Shared>,
    born: (u64, u64),
}

impl Standing {
    fn new(shared: &Arc<Shared>, born: (u64, u64)) -> Self {
        shared.standing.send_modify(|standing| {
            standing.insert(born);
        });
        Self { shared: Arc::clone(shared), born }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.shared.standing.send_modify(|standing| {
            standing.remove(&self.born);
        });
    }
}

/// How one direction, and with it the connection, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// One side closed, and the other was told.
    Closed,
    /// It is to be reset.
    Reset,
    /// It was cut.
    Cut,
}

async fn connection(mut client: TcpStream, standing: Standing, shared: Arc<Shared>) {
    let open = Open::new(&shared);
    let mode = shared.setting.borrow().mode;
    let end = if matches!(mode, Mode::Refuse | Mode::Away) {
        drop(open);
        End::Reset
    } else {
        carry(&mut client, standing.born.0, &shared, open).await
    };
    if end == End::Reset {
        // Closed with this, it is reset instead of ended in order.
        let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
    }
    drop(client);
    drop(standing);
}

/// What a request to cancel begins with, after its length.
const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();

/// Bytes that are held back in one direction at most; what is more waits in the sockets.
const HELD_AT_MOST: usize = 1024 * 1024;

async fn carry(client: &mut TcpStream, born: u64, shared: &Arc<Shared>, open: Open) -> End {
    let (from_client, to_client) = client.split();
    let mut up = Pump::new(from_client, born, shared);
    up.open = Some(open);
    // The first words say whether it is a request to cancel; nothing is passed on before.
    if let Some(end) = up.first_words().await {
        return end;
    }
    let cancels = up.held[4..8] == CANCEL;
    if cancels {
        let mut held = shared.cancels_held.subscribe();
        let mut settings = shared.setting.subscribe();
        tokio::select! {
            _ = held.wait_for(|held| !held) => {}
            _ = settings.wait_for(|setting| born < setting.reset_before) => return End::Reset,
        }
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", shared.server)).await else { return End::Reset };
    let _ = server.set_nodelay(true);
    let (from_server, to_server) = server.split();
    let mut down = Pump::new(from_server, born, shared);
    down.is_answer = true;
    let mut upwards = std::pin::pin!(up.run(to_server));
    let mut downwards = std::pin::pin!(down.run(to_client));
    let end = tokio::select! {
        end = &mut downwards => end,
        end = &mut upwards => if end == End::Closed { downwards.await } else { end },
    };
    if cancels {
        // The server closes a request to cancel once it has sent the signal.
        shared.cancels_delivered.fetch_add(1, Ordering::AcqRel);
    }
    end
}

/// One direction.
struct Pump<'a> {
    from: ReadHalf<'a>,
    shared: &'a Arc<Shared>,
    settings: watch::Receiver<Setting>,
    born: u64,
    is_answer: bool,
    /// Held by the direction that the client closes.
    open: Option<Open>,
    held: Vec<u8>,
    ended: bool,
}

impl<'a> Pump<'a> {
    fn new(from: ReadHalf<'a>, born: u64, shared: &'a Arc<Shared>) -> Self {
        let settings = shared.setting.subscribe();
        Self { from, shared, settings, born, is_answer: false, open: None, held: vec![], ended: false }
    }

    /// What becomes of this connection under `setting`, if it ends.
    fn ends(&self, setting: Setting) -> Option<End> {
        (self.born < setting.reset_before).then_some(End::Reset)
    }

    async fn read(&mut self) -> io::Result<()> {
        self.held.reserve(16 * 1024);
        let read = self.from.read_buf(&mut self.held).await;
        if !matches!(read, Ok(1..)) {
            self.ended = true;
            self.open = None;
        } else if self.is_answer {
            self.shared.received.fetch_add(*read.as_ref().unwrap_or(&0) as u64, Ordering::AcqRel);
        }
        read.map(|_| ())
    }

    /// Reads the first eight bytes and waits until they may pass.
    async fn first_words(&mut self) -> Option<End> {
        loop {
            let setting = *self.settings.borrow_and_update();
            if let Some(end) = self.ends(setting) {
                return Some(end);
            }
            if self.held.len() >= 8 && setting.mode != Mode::BlackHole {
                return None;
            }
            if self.ended && self.held.len() < 8 {
                return Some(End::Closed);
            }
            let mut settings = self.settings.clone();
            tokio::select! {
                biased;
                _ = settings.changed() => {}
                read = self.read(), if !self.ended && self.held.len() < HELD_AT_MOST => if read.is_err() { return Some(End::Reset) },
            }
        }
    }

    async fn run(mut self, mut to: WriteHalf<'_>) -> End {
        let mut setting = *self.settings.borrow_and_update();
        let mut budget = budget(setting.mode, self.is_answer);
        let mut ticks = ticks(setting.mode);
        loop {
            if let Some(end) = self.ends(setting) {
                return end;
            }
            if budget == 0 && matches!(setting.mode, Mode::Cut { .. }) {
                let _ = to.shutdown().await;
                return End::Cut;
            }
            if self.ended && self.held.is_empty() && setting.mode != Mode::BlackHole {
                let _ = to.shutdown().await;
                return End::Closed;
            }
            let may = self.held.len().min(budget);
            let mut settings = self.settings.clone();
            // Taken out, so that reading and writing can be awaited together.
            let next = std::mem::take(&mut self.held);
            let mut wrote = 0;
            tokio::select! {
                biased;
                _ = settings.changed() => {
                    setting = *self.settings.borrow_and_update();
                    budget = self::budget(setting.mode, self.is_answer);
                    ticks = self::ticks(setting.mode);
                }
                written = to.write(&next[..may]), if may > 0 => match written {
                    Ok(n) => wrote = n,
                    Err(_) => return End::Reset,
                },
                () = tick(&mut ticks) => budget = self::budget(setting.mode, self.is_answer),
                read = self.read(), if !self.ended && next.len() < HELD_AT_MOST => if read.is_err() { return End::Reset },
            }
            if budget != usize::MAX {
                budget -= wrote;
            }
            let read = std::mem::replace(&mut self.held, next);
            self.held.drain(..wrote);
            self.held.extend(read);
        }
    }
}

/// Bytes that may pass now.
fn budget(mode: Mode, is_answer: bool) -> usize {
    match mode {
        Mode::BlackHole => 0,
        Mode::Trickle { bytes, .. } => bytes,
        Mode::Cut { after } if is_answer => after,
        Mode::Pass | Mode::Away | Mode::Refuse | Mode::Reset | Mode::Cut { .. } => usize::MAX,
    }
}

fn ticks(mode: Mode) -> Option<Interval> {
    let Mode::Trickle { every, .. } = mode else { return None };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    Some(ticks)
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

//! The proxy that breaks connections, held against a server that echoes: what it claims to break, it breaks.

#[path = "support/chaos.rs"]
mod chaos;
#[path = "support/eventually.rs"]
mod eventually;

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use chaos::{Chaos, Mode};
use eventually::eventually;

/// Long enough for a slow machine.
const WITHIN: Duration = Duration::from_secs(10);
/// What has not come by then doesn't come: the echo answers within a millisecond.
const SILENCE: Duration = Duration::from_millis(100);

async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    port
}

async fn dial(proxy: &Chaos) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", proxy.port)).await
}

/// Says `words` and reads as many bytes back.
async fn exchange(stream: &mut TcpStream, words: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(words).await?;
    let mut heard = vec![0; words.len()];
    timeout(WITHIN, stream.read_exact(&mut heard)).await.expect("an answer or an end")?;
    Ok(heard)
}

const WORDS: &[u8] = b"eight or more bytes";

async fn standing(proxy: &Chaos) -> TcpStream {
    let mut stream = dial(proxy).await.expect("a connection");
    assert_eq!(exchange(&mut stream, WORDS).await.expect("an answer"), WORDS);
    stream
}

#[tokio::test]
async fn a_black_hole_accepts_and_says_nothing_and_what_it_held_passes_afterwards() {
    let proxy = Chaos::before(echo().await);
    let mut stood = standing(&proxy).await;
    proxy.set(Mode::BlackHole).await;
    let mut new = dial(&proxy).await.expect("it accepts");
    for stream in [&mut stood, &mut new] {
        stream.write_all(WORDS).await.expect("it takes");
        assert!(timeout(SILENCE, stream.read_u8()).await.is_err(), "nothing comes and nothing is closed");
    }
    assert_eq!((proxy.open(), proxy.attempts().len()), (2, 2));
    proxy.set(Mode::Pass).await;
    for stream in [&mut stood, &mut new] {
        let mut heard = vec![0; WORDS.len()];
        timeout(WITHIN, stream.read_exact(&mut heard)).await.expect("in time").expect("an answer");
        assert_eq!(heard, WORDS);
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_black_hole_is_no_longer_open() {
    let proxy = Chaos::before(echo().await);
    let stood = standing(&proxy).await;
    proxy.set(Mode::BlackHole).await;
    let new = dial(&proxy).await.expect("it accepts");
    eventually("both are open", WITHIN, async || if proxy.open() == 2 { Ok(()) } else { Err(proxy.open()) }).await;
    drop((stood, new));
    eventually("none is open", WITHIN, async || if proxy.open() == 0 { Ok(()) } else { Err(proxy.open()) }).await;
}

#[tokio::test]
async fn away_nobody_listens_and_those_that_stood_are_reset_and_it_comes_back_on_the_same_port() {
    let proxy = Chaos::before(echo().await);
    let mut stood = standing(&proxy).await;
    for _ in 0..3 {
        proxy.set(Mode::Away).await;
        assert_eq!(dial(&proxy).await.expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
        let end = timeout(WITHIN, stood.read_u8()).await.expect("an end");
        assert_eq!(end.expect_err("reset").kind(), ErrorKind::ConnectionReset);
        proxy.set(Mode::Pass).await;
        stood = standing(&proxy).await;
    }
    assert_eq!(proxy.attempts().len(), 4, "what nobody heard is not counted");
}

#[tokio::test]
async fn refusing_leaves_those_that_stand_alone_and_resetting_those_that_come() {
    let proxy = Chaos::before(echo().await);
    let mut stood = standing(&proxy).await;
    proxy.set(Mode::Refuse).await;
    assert_eq!(exchange(&mut stood, WORDS).await.expect("an answer"), WORDS);
    let begun = Instant::now();
    for _ in 0..5 {
        if let Ok(mut refused) = dial(&proxy).await {
            assert!(exchange(&mut refused, WORDS).await.is_err());
        }
    }
    assert_eq!(proxy.most_attempts(begun, WITHIN), 5);
    proxy.set(Mode::Reset).await;
    assert_eq!(stood.read_u8().await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    let mut new = standing(&proxy).await;
    assert_eq!(exchange(&mut new, WORDS).await.expect("an answer"), WORDS);
}

#[tokio::test]
async fn a_cut_ends_each_connection_after_exactly_so_many_bytes() {
    let proxy = Chaos::before(echo().await);
    let mut stood = standing(&proxy).await;
    proxy.set(Mode::Cut { after: 5 }).await;
    let mut new = dial(&proxy).await.expect("a connection");
    for stream in [&mut stood, &mut new] {
        stream.write_all(WORDS).await.expect("it takes");
        let mut heard = vec![];
        // The server's end may still be writing when both are closed.
        let _ = timeout(WITHIN, stream.read_to_end(&mut heard)).await.expect("an end");
        assert_eq!(heard, &WORDS[..5]);
    }
    assert!(proxy.received() >= 3 * 5);
}

#[tokio::test]
async fn bytes_trickle_at_the_pace_that_was_set() {
    let proxy = Chaos::before(echo().await);
    let mut stood = standing(&proxy).await;
    proxy.set(Mode::Trickle { bytes: 2, every: Duration::from_millis(20) }).await;
    let begun = Instant::now();
    assert_eq!(exchange(&mut stood, b"twelve bytes").await.expect("an answer"), b"twelve bytes");
    // Two at once, and five pauses for the rest, in either direction at the same time.
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
}

//! Ports for servers that a test starts and that bind them a moment later.
//!
//! Below those that the kernel gives to connections, of which thousands are made meanwhile; and none twice in one process: two servers
//! that were given one port are one server that answers for both.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_000;
const PORTS: u32 = 20_000;

/// A port of loopback that nobody listens on, and that nobody else here is given.
pub fn free() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run at once begin at different places.
    let begin = std::process::id().wrapping_mul(619);
    for _ in 0..PORTS {
        let port = FIRST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(port).expect("a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS} is free");
}

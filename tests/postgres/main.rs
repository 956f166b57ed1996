//! The origin against real servers: what it sends, what it refuses, how it fails and comes back.

mod analyse;
mod answers;
mod bounds;
mod cancel;
mod failures;
mod outage;
mod prepare;
mod sessions;
mod supervise;
mod support;
mod surroundings;
mod tls;

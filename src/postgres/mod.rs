//! The origin: PostgreSQL. The only module that knows `tokio_postgres`, `deadpool` and `rustls`.
//!
//! [`Postgres`] implements the read path's port: it prepares queries, runs the one statement of a fill on a pooled
//! session whose settings are pinned, and cancels it in the server when nobody wants it any more.

#[cfg(feature = "embedded")]
pub mod embedded;
mod execute;
mod origin;
mod prepare;
mod session;
mod settings;
mod sqlstate;
mod tls;

pub use origin::Postgres;
pub use settings::{Settings, SettingsError, TlsMode};

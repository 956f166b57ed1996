//! The whole service over real PostgreSQL, which the harness starts: one cluster for this process, a database per test.

mod answers;
mod auth;
mod clients;
mod compression;
mod cors;
mod doorbell;
mod expiry;
mod https;
mod idle;
mod leases;
mod lifecycle;
mod log;
mod measures;
mod nonsense;
mod notify;
mod openapi;
mod origin;
mod outage;
mod outage_load;
mod pooler;
mod reload;
mod shared;
mod stampede;
mod strict;
mod support;
mod writes;

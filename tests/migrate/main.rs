//! Migrations against real servers: what is installed, what writes announce, and that no write fails for it.

mod command;
mod definitions;
mod epoch;
mod hostile;
mod install;
mod locks;
mod partitions;
mod replication;
mod support;
mod uninstall;
mod upgrade;
mod writes;

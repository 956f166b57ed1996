//! Arguments to command, outcome to exit code; no logic.

use std::process::ExitCode;

use clap::Parser as _;
use seawall::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}

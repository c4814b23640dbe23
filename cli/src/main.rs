//! `refloat`, the companion on the laptop and in CI.
//!
//! ```text
//! args ──▶ session ──▶ verb ──▶ connection ──▶ the agent
//!                        │
//!                        └────▶ printer (the only thing that prints) ──▶ exit code
//! ```
//!
//! Owns the command line, pairing, the walk and upload of a source, and how a deployment is told. Decides nothing about
//! releases: that is the agent's. Unix-only code is in [`unix`] alone.

mod args;
mod connection;
mod exit;
mod failure;
mod fetch;
mod git;
mod home;
mod outcome;
mod planning;
mod printer;
mod session;
mod span;
mod table;
mod unix;
mod upload;
mod verb;
mod words;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;

use args::Cli;
use exit::Exit;
use failure::Failure;
use home::Home;
use printer::Printer;
use session::Session;

fn main() -> ExitCode {
    let started = Instant::now();
    let cli = Cli::parse();
    let printer = Printer::new(&cli.global);
    match perform(&cli, &printer, started) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            printer.failure(&failure);
            failure.exit.into()
        }
    }
}

/// One thread is enough for what is waited for; hashing and compressing have their own.
fn perform(cli: &Cli, printer: &Printer, started: Instant) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::local("start", &e))?;
    let session = Session { global: &cli.global, printer, home: Home::find()?, started };
    let done = runtime.block_on(verb::perform(&session, &cli.verb));
    // A thread that waits for standard input must not keep the program from ending.
    runtime.shutdown_background();
    done
}

//! `refloatd`, the agent.

use std::path::Path;
use std::process::ExitCode;

use refloat_agent::store;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        // The agent calls itself: opens a store where it can be killed. See `store::probe`.
        [verb, folder] if *verb == *store::SUBCOMMAND => store::run_probe(Path::new(folder)),
        _ => ExitCode::SUCCESS,
    }
}

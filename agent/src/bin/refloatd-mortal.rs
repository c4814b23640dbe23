//! `refloatd` that is killed right after an effect: `REFLOAT_KILL_AFTER=N`, counted from 0 and from the acceptance of the
//! first deployment on. Everything else is the agent's own program.

use std::process::ExitCode;

use refloat_agent::faults::{Faults, Mode};

fn main() -> ExitCode {
    let after = std::env::var("REFLOAT_KILL_AFTER").ok().and_then(|text| text.parse().ok());
    match after {
        Some(n) => refloat_agent::command::main_with(Box::new(move |ports| {
            Faults::kill_process(n, Mode::CrashAfter).wrap(ports)
        })),
        None => ExitCode::from(2),
    }
}

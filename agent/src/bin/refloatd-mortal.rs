//! `refloatd` that is killed right after an effect: `REFLOAT_KILL_AFTER=N`, counted from 0 and from the acceptance of the
//! first deployment on; or stopped there until somebody lets it go on: `REFLOAT_STOP_AFTER=N`. Everything else is the agent's
//! own program.

use std::process::ExitCode;

use refloat_agent::faults::{Faults, Mode};

fn main() -> ExitCode {
    let number = |variable| std::env::var(variable).ok().and_then(|text| text.parse().ok());
    let killed = number("REFLOAT_KILL_AFTER").map(|n| (n, Mode::CrashAfter));
    match killed.or_else(|| number("REFLOAT_STOP_AFTER").map(|n| (n, Mode::StopAfter))) {
        Some((n, mode)) => {
            refloat_agent::command::main_with(Box::new(move |ports| Faults::kill_process(n, mode).wrap(ports)))
        }
        None => ExitCode::from(2),
    }
}

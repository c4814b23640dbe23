//! `refloatd`, the agent.
//!
//! Exit codes: 0 after what was asked, 1 when it could not be done, 2 for wrong arguments, 3 for a damaged store (only
//! the hidden probe), 64 for a configuration that cannot be used.

use std::process::ExitCode;

fn main() -> ExitCode {
    refloat_agent::command::main()
}

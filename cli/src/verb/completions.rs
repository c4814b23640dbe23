//! `refloat completions`

use clap::CommandFactory as _;

use crate::args::{Cli, Completions};
use crate::exit::Exit;
use crate::session::Session;

pub(super) fn perform(session: &Session<'_>, args: &Completions) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "refloat", &mut script);
    session.printer.raw(true, &script);
    Exit::Done
}

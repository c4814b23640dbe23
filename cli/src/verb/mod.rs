//! The verbs, one file each.

mod activate;
mod cancel;
mod completions;
mod deploy;
mod destroy;
mod diff;
mod domains;
mod env;
mod follow;
mod logs;
mod open;
mod pair;
mod plan;
mod releases;
mod restart;
mod rollback;
mod run;
mod servers;
mod show;
mod status;
mod stop;
mod version;
mod whoami;

use crate::args::Verb;
use crate::exit::{CODES, Exit};
use crate::failure::Failure;
use crate::printer::Tone;
use crate::session::Session;

/// Does what was asked for.
///
/// # Errors
/// The verb's failure.
pub(crate) async fn perform(session: &Session<'_>, verb: &Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Pair(args) => Box::pin(pair::perform(session, args)).await,
        Verb::Servers(args) => servers::perform(session, args),
        Verb::Deploy(args) => Box::pin(deploy::perform(session, args)).await,
        Verb::Plan(args) => plan::perform(session, args),
        Verb::Rollback(args) => Box::pin(rollback::perform(session, args)).await,
        Verb::Activate(args) => Box::pin(activate::perform(session, args)).await,
        Verb::Releases(args) => Box::pin(releases::perform(session, args)).await,
        Verb::Show(args) => Box::pin(show::perform(session, args)).await,
        Verb::Diff(args) => Box::pin(diff::perform(session, args)).await,
        Verb::Status(args) => Box::pin(status::perform(session, args)).await,
        Verb::Logs(args) => Box::pin(logs::perform(session, args)).await,
        Verb::Env(args) => Box::pin(env::perform(session, args)).await,
        Verb::Domains(args) => Box::pin(domains::perform(session, args)).await,
        Verb::Open(args) => Box::pin(open::perform(session, args)).await,
        Verb::Cancel(args) => Box::pin(cancel::perform(session, args)).await,
        Verb::Restart(args) => Box::pin(restart::perform(session, args)).await,
        Verb::Stop(args) => Box::pin(stop::perform(session, args)).await,
        Verb::Destroy(args) => Box::pin(destroy::perform(session, args)).await,
        Verb::Run(args) => Box::pin(run::perform(session, args)).await,
        Verb::Whoami => Box::pin(whoami::perform(session)).await,
        Verb::Version => Box::pin(version::perform(session)).await,
        Verb::Completions(args) => Ok(completions::perform(session, args)),
        Verb::ExitCodes => {
            session.printer.result(Tone::Plain, CODES);
            Ok(Exit::Done)
        }
    }
}

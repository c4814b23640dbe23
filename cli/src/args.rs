//! The command line: every verb and option, and nothing of what they do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::exit::CODES;

/// Puts an app on your own server, and back on its feet when a release breaks it.
#[derive(Debug, Parser)]
#[command(name = "refloat", version, after_long_help = CODES, disable_help_subcommand = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Print JSON: one object, or one per line for what goes on for a while.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The paired server to talk to, by its name in `refloat servers`.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) server: Option<String>,
    /// Reach the server through ssh, without pairing and without an open port.
    #[arg(long, global = true, value_name = "ssh://user@host[:port]", conflicts_with = "server")]
    pub(crate) via: Option<String>,
    /// Talk to the agent on this machine through its socket.
    #[arg(long, global = true, value_name = "PATH", conflicts_with_all = ["server", "via"])]
    pub(crate) socket: Option<PathBuf>,
    /// No colour, even on a terminal.
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Say nothing but the result and what went wrong.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Pair this device with a server: `refloatd pair` there prints the code.
    Pair(Pair),
    /// The servers that this device is paired with.
    Servers(Servers),
    /// Send the source, build it on the server and make it serve.
    Deploy(Deploy),
    /// What a deploy would build and run, and why. Needs no server.
    Plan(Plan),
    /// Go back to the release that served before.
    Rollback(Rollback),
    /// Make any release serve.
    #[command(override_usage = "refloat activate [APP] rN")]
    Activate(Activate),
    /// The releases of an app, newest first.
    Releases(Releases),
    /// One release: what runs in it and when it served.
    #[command(override_usage = "refloat show [APP] [rN]")]
    Show(Show),
    /// What is different between two releases.
    #[command(override_usage = "refloat diff [APP] rA rB")]
    Diff(Diff),
    /// What serves now, as Docker and the edge say.
    Status(App),
    /// What the app printed.
    Logs(Logs),
    /// The variables of an app. Values go in and never come back.
    Env(Env),
    /// The domains of an app.
    Domains(Domains),
    /// The app's address, and a browser on it.
    Open(App),
    /// Cancel the deployment that runs.
    Cancel(Mutating),
    /// New instances of what serves, without a failed request.
    Restart(Mutating),
    /// Stop the app; its data stays.
    Stop(Mutating),
    /// Remove the app: its releases, domains and variables.
    Destroy(Destroy),
    /// A one-off command in the serving release, with its environment.
    Run(Run),
    /// Who you are to the server.
    Whoami,
    /// The version of this program and of the server.
    Version,
    /// A completion script for your shell.
    Completions(Completions),
    /// What the exit codes mean.
    #[command(hide = true, about = CODES)]
    ExitCodes,
}

/// An app.
#[derive(Debug, Clone, Args)]
pub(crate) struct App {
    /// The app; as a rule it is known from the folder.
    pub(crate) app: Option<String>,
}

/// An app that is changed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Mutating {
    /// The app; as a rule it is known from the folder.
    pub(crate) app: Option<String>,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// Why something is done.
#[derive(Debug, Clone, Args)]
pub(crate) struct Why {
    /// Why, for the history.
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
}

/// `refloat pair`
#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// The server's name or address; the port is 7443 when none is given.
    #[arg(value_name = "SERVER[:PORT]")]
    pub(crate) server: String,
    /// What `refloatd pair` printed on the server; `-` reads it from standard input.
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// What to call the server here.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// `refloat servers`
#[derive(Debug, Args)]
pub(crate) struct Servers {
    #[command(subcommand)]
    pub(crate) command: Option<ServersCommand>,
}

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(crate) enum ServersCommand {
    /// List them.
    List,
    /// Talk to this one unless told otherwise.
    Use {
        /// Its name here.
        name: String,
    },
    /// Forget this one, and the key that belongs to it.
    Remove {
        /// Its name here.
        name: String,
    },
}

/// `refloat deploy`
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The app; as a rule it is known from the folder.
    pub(crate) app: Option<String>,
    /// The folder; the current one when none is given.
    pub(crate) dir: Option<PathBuf>,
    /// Send what was built elsewhere; nothing is built on the server.
    #[arg(long, value_name = "DIR")]
    pub(crate) prebuilt: Option<PathBuf>,
    /// Make a release though nothing changed.
    #[arg(long)]
    pub(crate) force: bool,
    /// Make the release, but do not make it serve.
    #[arg(long)]
    pub(crate) no_activate: bool,
    /// Return as soon as the server has accepted it.
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// `refloat plan`
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The folder; the current one when none is given.
    pub(crate) dir: Option<PathBuf>,
    /// Plan for what was built elsewhere.
    #[arg(long, value_name = "DIR", conflicts_with = "dir")]
    pub(crate) prebuilt: Option<PathBuf>,
}

/// `refloat rollback`
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The app; as a rule it is known from the folder.
    pub(crate) app: Option<String>,
    /// To this release instead of the one before.
    #[arg(long, value_name = "rN", value_parser = release)]
    pub(crate) to: Option<u32>,
    /// To the last release with other code.
    #[arg(long, conflicts_with = "to")]
    pub(crate) code: bool,
    /// Only say what it would undo.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// `refloat activate`
#[derive(Debug, Args)]
pub(crate) struct Activate {
    /// The app, when it is not known from the folder, then the release.
    #[arg(value_name = "[APP] rN", num_args = 1..=2, required = true)]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// `refloat releases`
#[derive(Debug, Args)]
pub(crate) struct Releases {
    /// The app; as a rule it is known from the folder.
    pub(crate) app: Option<String>,
    /// How many.
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

/// `refloat show`
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The app, when it is not known from the folder, then the release; the serving one when none is given.
    #[arg(value_name = "[APP] [rN]", num_args = 0..=2)]
    pub(crate) words: Vec<String>,
}

/// `refloat diff`
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The app, when it is not known from the folder, then two releases.
    #[arg(value_name = "[APP] rA rB", num_args = 2..=3, required = true)]
    pub(crate) words: Vec<String>,
}

/// `refloat logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The app; as a rule it is known from the folder.
    pub(crate) app: Option<String>,
    /// Of this release, also one that no longer runs.
    #[arg(long, value_name = "rN", value_parser = release)]
    pub(crate) release: Option<u32>,
    /// Of this process only.
    #[arg(long, value_name = "NAME")]
    pub(crate) process: Option<String>,
    /// How many lines from the end.
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) tail: u32,
    /// Go on with what it prints next.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `refloat env`
#[derive(Debug, Args)]
pub(crate) struct Env {
    #[command(subcommand)]
    pub(crate) command: EnvCommand,
}

/// Which app's environment, how and why.
#[derive(Debug, Args)]
pub(crate) struct EnvChange {
    /// The app; as a rule it is known from the folder.
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// Make the release without making it serve.
    #[arg(long)]
    pub(crate) no_deploy: bool,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// What to do with the variables.
#[derive(Debug, Subcommand)]
pub(crate) enum EnvCommand {
    /// The names that are set. Values are never shown.
    List(App),
    /// Set variables: one command, one release.
    ///
    /// `NAME=-` reads the value from standard input; `NAME` alone asks for it without showing it.
    #[command(override_usage = "refloat env set [APP] NAME=VALUE...")]
    Set {
        /// The app, when it is not known from the folder, then the variables.
        #[arg(value_name = "[APP] NAME=VALUE", required = true)]
        words: Vec<String>,
        #[command(flatten)]
        change: EnvChange,
    },
    /// Remove variables.
    #[command(override_usage = "refloat env unset [APP] NAME...")]
    Unset {
        /// The app in lower case, when it is not known from the folder, then the names.
        #[arg(value_name = "[APP] NAME", required = true)]
        words: Vec<String>,
        #[command(flatten)]
        change: EnvChange,
    },
    /// Set all variables of a `.env` file.
    #[command(override_usage = "refloat env import [APP] FILE")]
    Import {
        /// The app, when it is not known from the folder, then the file; `-` is standard input.
        #[arg(value_name = "[APP] FILE", num_args = 1..=2, required = true)]
        words: Vec<String>,
        #[command(flatten)]
        change: EnvChange,
    },
}

/// `refloat domains`
#[derive(Debug, Args)]
pub(crate) struct Domains {
    #[command(subcommand)]
    pub(crate) command: DomainsCommand,
}

/// What to do with the domains.
#[derive(Debug, Subcommand)]
pub(crate) enum DomainsCommand {
    /// List them.
    List(App),
    /// Add domains.
    #[command(override_usage = "refloat domains add [APP] DOMAIN...")]
    Add {
        /// The app, when it is not known from the folder, then the domains.
        #[arg(value_name = "[APP] DOMAIN", required = true)]
        words: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
    /// Remove domains.
    #[command(override_usage = "refloat domains remove [APP] DOMAIN...")]
    Remove {
        /// The app, when it is not known from the folder, then the domains.
        #[arg(value_name = "[APP] DOMAIN", required = true)]
        words: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
}

/// `refloat destroy`
#[derive(Debug, Args)]
pub(crate) struct Destroy {
    /// The app.
    pub(crate) app: String,
    /// The app's name again, so that nothing is asked.
    #[arg(long, value_name = "NAME")]
    pub(crate) yes: Option<String>,
    /// Remove its volumes too: the data is gone then.
    #[arg(long)]
    pub(crate) volumes: bool,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// `refloat run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The app; as a rule it is known from the folder.
    pub(crate) app: Option<String>,
    /// The process whose image and environment are used.
    #[arg(long, value_name = "NAME")]
    pub(crate) process: Option<String>,
    /// The command.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) why: Why,
}

/// `refloat completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// `r7`, also written `7`.
pub(crate) fn release(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('r').unwrap_or(text);
    match digits.parse::<u32>() {
        Ok(number) if number > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(format!("{text:?} is not a release: they are called r1, r2, …")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn releases_are_written_with_or_without_the_letter() {
        assert_eq!(release("r12"), Ok(12));
        assert_eq!(release("12"), Ok(12));
        for wrong in ["", "r", "r0", "0", "-1", "r-1", "+3", "r+3", "x3", "r4294967296"] {
            assert!(release(wrong).is_err(), "{wrong}");
        }
    }
}

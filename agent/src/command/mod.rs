//! `refloatd`'s subcommands: arguments in one place, one file per verb.

mod dial_stdio;
mod init;
mod pair;
mod run;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, EXIT_CODE};
use crate::paths::Paths;
use crate::store;
use crate::wiring::Wrap;

/// The version that this program says it has.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const WRONG_ARGUMENTS: u8 = 2;
/// Where systemd looks for the units of a server.
const UNIT_FOLDERS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// The agent of Refloat: runs on the server, deploys apps and switches traffic to them.
#[derive(Debug, Parser)]
#[command(name = "refloatd", version, disable_help_subcommand = true)]
struct Args {
    /// Configuration file [default: /etc/refloat/refloatd.toml, if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes what the agent needs on this server: certificate authority, root key, ledger. Safe to repeat.
    Init,
    /// Runs the agent until it is told to end.
    Run {
        /// Also start the edge, which carries the public traffic, and replace it when it dies.
        #[arg(long)]
        with_edge: bool,
    },
    /// Prints a one-time code that pairs one device with this server.
    Pair,
    /// Connects standard input and output with the running agent, for `refloat --via ssh://root@SERVER`.
    DialStdio,
    /// Prints the version.
    Version,
}

/// Runs what the arguments ask for.
#[must_use]
pub fn main() -> ExitCode {
    main_with(Box::new(|ports| ports))
}

/// The same, with something between the driver and its ports.
#[must_use]
pub fn main_with(wrap: Wrap) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The store's probe gets one argument from the agent itself and needs no configuration.
    if let [_, verb, folder] = arguments.as_slice()
        && verb == store::SUBCOMMAND
    {
        return store::run_probe(Path::new(folder));
    }
    match Args::try_parse_from(arguments) {
        Ok(args) => dispatch(args, wrap),
        Err(error) => {
            // Help and version are asked for and go to standard output; nothing can be done about a closed one.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(WRONG_ARGUMENTS) } else { ExitCode::SUCCESS }
        }
    }
}

fn dispatch(args: Args, wrap: Wrap) -> ExitCode {
    if matches!(args.verb, Verb::Version) {
        say(&format!("refloatd {VERSION}"));
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return bad_configuration(&error),
    };
    let named = args.config.as_deref();
    let done = match args.verb {
        Verb::Init => init::init(&config, named),
        Verb::Run { with_edge } => run::run(config, named, with_edge, wrap),
        Verb::Pair => pair::pair(&config, named),
        Verb::DialStdio => dial_stdio::dial_stdio(&config),
        Verb::Version => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn bad_configuration(error: &ConfigError) -> ExitCode {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    complain(&format!("{error}{source}"));
    ExitCode::from(EXIT_CODE)
}

fn paths(config: &Config) -> Paths {
    Paths { state: config.state_dir.clone(), run: config.run_dir.clone() }
}

/// The same program again, with the same configuration: "refloatd --config FILE pair".
fn again(named: Option<&Path>, verb: &str) -> String {
    match named {
        Some(file) => format!("refloatd --config {} {verb}", file.display()),
        None => format!("refloatd {verb}"),
    }
}

/// How the agent is started here: by its unit where there is one, unless another configuration was named.
fn start(named: Option<&Path>) -> String {
    let unit = UNIT_FOLDERS.iter().any(|folder| Path::new(folder).join("refloatd.service").exists());
    if unit && named.is_none() {
        return "systemctl enable --now refloat-edge refloatd".to_owned();
    }
    again(named, "run --with-edge")
}

/// A line for whoever typed the command. A closed standard output ends nothing.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "refloatd: {text}");
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context as _;
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime could be started")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed_and_the_configuration_may_stand_anywhere() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
        for line in [["refloatd", "--config", "/x", "pair"], ["refloatd", "pair", "--config", "/x"]] {
            let args = Args::try_parse_from(line).unwrap();
            assert_eq!(args.config.as_deref(), Some(Path::new("/x")));
        }
    }
}

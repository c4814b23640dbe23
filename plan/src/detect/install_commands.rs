//! The commands that install, strict or lenient by what is known of the lockfile, and what is tried when one fails.
//!
//! What is tried next is announced in the build's output. npm is only asked again when its log names the trouble that the
//! next command is for: a package that does not exist is not looked for twice.

use super::lockfile::{Lockfile, State};
use super::package_manager::Manager;

/// One command of a chain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attempt {
    /// The command.
    pub(crate) line: String,
    /// The error code in npm's log of the command before that it helps against; `None`: against any.
    pub(crate) against: Option<&'static str>,
}

/// What npm calls peers that do not fit together.
const PEERS: &str = "ERESOLVE";
/// What npm calls a lockfile that is not what package.json says.
const DRIFTED: &str = "EUSAGE";

/// How far a lockfile is trusted.
#[derive(Clone, Copy, PartialEq)]
enum Trust {
    /// It is what package.json says.
    Full,
    /// It could not be compared.
    Unknown,
    /// It is not, or there is none.
    None,
}

/// The chain that installs everything.
pub(crate) fn all(manager: Manager, lock: Option<&Lockfile>) -> Vec<Attempt> {
    let trust = match lock.map(|l| &l.state) {
        Some(State::Matches) => Trust::Full,
        Some(State::Unchecked(_)) => Trust::Unknown,
        _ => Trust::None,
    };
    match manager {
        Manager::Npm => npm(trust),
        Manager::Pnpm => {
            let store = "--store-dir /root/.local/share/pnpm/store";
            let strict = format!("pnpm install --frozen-lockfile {store}");
            either(trust, &strict, &format!("pnpm install --no-frozen-lockfile {store}"))
        }
        Manager::YarnClassic => {
            let lenient = if lock.is_some() { "" } else { " --no-lockfile" };
            let lenient = format!("yarn install --non-interactive{lenient}");
            either(trust, "yarn install --frozen-lockfile --non-interactive", &lenient)
        }
        Manager::YarnBerry => {
            // What a version writes into the same format differs in details, and the strict install allows none.
            let trust = if trust == Trust::Full { Trust::Unknown } else { trust };
            either(trust, "yarn install --immutable", "yarn install --no-immutable")
        }
        Manager::Bun => either(trust, "bun install --frozen-lockfile", "bun install"),
    }
}

/// The chain that installs what production needs, where the manager has a flag for it.
pub(crate) fn production(manager: Manager, lock: Option<&Lockfile>) -> Option<Vec<Attempt>> {
    let flag = match manager {
        Manager::Npm => "--omit=dev",
        Manager::Pnpm => "--prod",
        Manager::YarnClassic | Manager::Bun => "--production",
        Manager::YarnBerry => return None,
    };
    let with_flag = |attempt: Attempt| Attempt { line: format!("{} {flag}", attempt.line), ..attempt };
    Some(all(manager, lock).into_iter().map(with_flag).collect())
}

fn npm(trust: Trust) -> Vec<Attempt> {
    let against = |line: &str, against| Attempt { line: line.to_owned(), against };
    match trust {
        // That it is in step with package.json was seen, but npm's own rules decide, and they change with its version.
        Trust::Full => vec![
            against("npm ci", None),
            against("npm install", Some(DRIFTED)),
            against("npm ci --legacy-peer-deps", Some(PEERS)),
        ],
        Trust::Unknown => vec![
            against("npm ci", None),
            against("npm install", Some(DRIFTED)),
            against("npm install --legacy-peer-deps", Some(PEERS)),
        ],
        Trust::None => vec![against("npm install", None), against("npm install --legacy-peer-deps", Some(PEERS))],
    }
}

fn either(trust: Trust, strict: &str, lenient: &str) -> Vec<Attempt> {
    let lines: &[&str] = match trust {
        Trust::Full => &[strict],
        Trust::Unknown => &[strict, lenient],
        Trust::None => &[lenient],
    };
    lines.iter().map(|line| Attempt { line: (*line).to_owned(), against: None }).collect()
}

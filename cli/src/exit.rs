//! How the program ends: every code is documented, in `refloat help exit-codes` too.

use std::process::ExitCode;

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done; after a deploy: it is live, as seen from here and from the server.
    Done,
    /// It failed and nothing changed.
    Failed,
    /// The command line is wrong. The number is clap's own.
    Usage,
    /// It is live, but not everything that shows it could be seen.
    Unverified,
    /// It is committed and will serve, but does not yet.
    NotYetServed,
    /// It was cancelled, a newer one took its place, or Ctrl-C ended the watching (then it goes on).
    Cancelled,
    /// The server does not allow it.
    Denied,
    /// The server cannot be reached.
    Unreachable,
    /// `refloat.toml` or the source is wrong.
    Configuration,
    /// The code of the command that `refloat run` ran.
    Program(u8),
}

/// What `refloat help exit-codes` prints.
pub(crate) const CODES: &str = "\
Exit codes:
   0  done; after a deploy: live, fetched from here and from the server
   1  failed, nothing changed
   2  the command line is wrong
  10  live, but that could not be seen from everywhere
  11  committed, not yet served: the server goes on trying
  12  cancelled, superseded by a newer deploy, or Ctrl-C ended the watching (the deployment goes on)
  13  denied: the server does not allow it
  14  the server cannot be reached
  64  refloat.toml, or the source itself, is wrong
`refloat run` ends with the code of the command that it ran.";

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unverified => 10,
            Self::NotYetServed => 11,
            Self::Cancelled => 12,
            Self::Denied => 13,
            Self::Unreachable => 14,
            Self::Configuration => 64,
            Self::Program(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_in_the_help() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Unverified,
            Exit::NotYetServed,
            Exit::Cancelled,
            Exit::Denied,
            Exit::Unreachable,
            Exit::Configuration,
        ];
        let explained: Vec<String> = CODES
            .lines()
            .skip(1)
            .filter(|line| line.starts_with(' '))
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        assert_eq!(explained, all.map(|exit| exit.code().to_string()));
    }
}

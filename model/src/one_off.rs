//! One-off containers: a command that was run once with the image and the environment of a release.
//!
//! Deliberately absent: the command's arguments. They may hold what nobody may read later, so only their number is kept.

use minicbor::{Decode, Encode};

use crate::id::{OneOffId, ProcessName, ReleaseNumber};

/// Most bytes of a program's name that are kept.
pub const MAX_PROGRAM_BYTES: usize = 200;

/// What was run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OneOff {
    /// Its identity.
    #[n(0)]
    pub id: OneOffId,
    /// The release whose image and environment it has.
    #[n(1)]
    pub release: ReleaseNumber,
    /// The process whose image it is.
    #[n(2)]
    pub process: ProcessName,
    /// The program, at most [`MAX_PROGRAM_BYTES`] of its name.
    #[n(3)]
    pub program: String,
    /// How many arguments it had.
    #[n(4)]
    pub arguments: u32,
    /// Why, in the words of whoever asked.
    #[n(5)]
    pub reason: String,
}

impl OneOff {
    /// Of a whole command: its first word is the program.
    #[must_use]
    pub fn of(id: OneOffId, release: ReleaseNumber, process: ProcessName, command: &[String], reason: String) -> Self {
        let program = command.first().map(String::as_str).unwrap_or_default();
        let end = program.floor_char_boundary(MAX_PROGRAM_BYTES);
        let arguments = u32::try_from(command.len().saturating_sub(1)).unwrap_or(u32::MAX);
        Self { id, release, process, program: program[..end].to_owned(), arguments, reason }
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum OneOffEnd {
    /// By itself, with this exit code.
    #[n(0)]
    Exited(#[n(0)] i64),
    /// It could not be started, or was ended; why.
    #[n(1)]
    Cut(#[n(0)] String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_command_only_the_program_is_kept() {
        let words = ["psql", "postgres://shop:hunter2@db/shop"].map(str::to_owned);
        let web = ProcessName::new("web").unwrap();
        let kept = OneOff::of(OneOffId([1; 16]), ReleaseNumber(1), web.clone(), &words, String::new());
        assert_eq!((kept.program.as_str(), kept.arguments), ("psql", 1));
        assert!(!format!("{kept:?}").contains("hunter2"));
        let long = OneOff::of(OneOffId([1; 16]), ReleaseNumber(1), web, &["ä".repeat(150)], String::new());
        assert_eq!(long.program, "ä".repeat(100));
    }
}

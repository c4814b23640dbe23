//! What a fake container does once it runs.

use crate::docker::RunState;

/// What a container does from its start on. Times are tokio's, so that a paused clock decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// The TCP port that it listens on; 0 for none.
    pub port: u16,
    /// When it listens, in milliseconds after its start; `None`: never.
    pub listens_after_ms: Option<u64>,
    /// What it answers to a request.
    pub status: u16,
    /// When it ends by itself, and how.
    pub ends: Option<(u64, RunState)>,
    /// What it prints at its start: whether to stderr, and the line.
    pub lines: Vec<(bool, String)>,
    /// What it uses while it runs.
    pub memory_bytes: u64,
    /// Whether it has to be killed after the grace period of a stop.
    pub ignores_sigterm: bool,
}

impl Behaviour {
    /// Answers 200 on the port from its start on.
    #[must_use]
    pub fn serving(port: u16) -> Self {
        Self {
            port,
            listens_after_ms: Some(0),
            status: 200,
            ends: None,
            lines: Vec::new(),
            memory_bytes: 32 * 1024 * 1024,
            ignores_sigterm: false,
        }
    }

    /// Answers 200 on the port after a while.
    #[must_use]
    pub fn slow(port: u16, listens_after_ms: u64) -> Self {
        Self { listens_after_ms: Some(listens_after_ms), ..Self::serving(port) }
    }

    /// Runs and never listens: a worker, or a release that never gets healthy.
    #[must_use]
    pub fn silent() -> Self {
        Self { listens_after_ms: None, ..Self::serving(0) }
    }

    /// Answers every request with this status.
    #[must_use]
    pub fn answering(port: u16, status: u16) -> Self {
        Self { status, ..Self::serving(port) }
    }

    /// Ends by itself.
    #[must_use]
    pub fn crashing(after_ms: u64, code: i64) -> Self {
        Self { ends: Some((after_ms, RunState::Exited(code))), ..Self::silent() }
    }

    /// The same, with these lines on stdout.
    #[must_use]
    pub fn printing(mut self, lines: &[&str]) -> Self {
        self.lines.extend(lines.iter().map(|line| (false, (*line).to_owned())));
        self
    }
}

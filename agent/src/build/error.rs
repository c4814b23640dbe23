//! Why a build failed, as it is told to a person: what happened, the last lines, and what to type next.

use std::error::Error as _;

use refloat_model::Failure;
use refloat_plan::tree::TreeError;

use crate::cas::CasError;
use crate::cgroup::limits::Bytes;
use crate::docker::EngineError;
use crate::public::PublishError;

/// Most lines of evidence.
const MAX_LINES: usize = 20;

/// Why there is no result. Whatever served before still serves.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The project cannot be planned.
    #[error("{message}")]
    NotPlanned {
        /// What is the matter and what to do, in sentences.
        message: String,
        /// What was looked for, when nothing was recognised.
        lines: Vec<String>,
    },
    /// The plan has a value that cannot run.
    #[error("the process {process:?} cannot be run: {problem}")]
    BadProcess {
        /// Which.
        process: String,
        /// What is wrong with it, a fragment.
        problem: String,
    },
    /// Variables that `refloat.toml` requires are not set.
    #[error("refloat.toml requires {} to be set, and {} not", names.join(", "), if names.len() == 1 { "it is" } else { "they are" })]
    EnvMissing {
        /// Their names, sorted.
        names: Vec<String>,
    },
    /// A command of the build failed.
    #[error("the build failed at {step}")]
    Failed {
        /// Its text.
        step: String,
        /// What it printed last.
        lines: Vec<String>,
    },
    /// It was killed for its memory.
    #[error("the build needs more memory than it may use{}: it was stopped at {step}", cap(*cap_bytes))]
    OutOfMemory {
        /// Where.
        step: String,
        /// What it printed last.
        lines: Vec<String>,
        /// The cap in bytes, where there is one.
        cap_bytes: Option<u64>,
    },
    /// It took too long.
    #[error("the build was stopped after {limit_s} seconds{}", at(step))]
    TimedOut {
        /// The limit in seconds.
        limit_s: u64,
        /// Where it was, or empty.
        step: String,
    },
    /// The disk is too full.
    #[error(
        "{} is left on the server's disk at {path}, {} is needed to {}",
        Bytes(*free_bytes),
        Bytes(*needed_bytes),
        if *running { "go on with the build; it was stopped" } else { "begin a build" }
    )]
    DiskFull {
        /// Where.
        path: String,
        /// What is left.
        free_bytes: u64,
        /// What must be left.
        needed_bytes: u64,
        /// Whether the build was running.
        running: bool,
    },
    /// It was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// The uploaded project cannot be read.
    #[error("the uploaded project cannot be read")]
    Source(#[source] CasError),
    /// The build's files cannot be published.
    #[error("the site cannot be published")]
    Publish(#[source] PublishError),
    /// The engine failed.
    #[error("Docker could not do it")]
    Engine(#[source] EngineError),
    /// The server's own disk, or a thread that is gone.
    #[error("the server could not {doing}")]
    Server {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

fn cap(bytes: Option<u64>) -> String {
    bytes.map(|bytes| format!(" ({} on this server)", Bytes(bytes))).unwrap_or_default()
}

fn at(step: &str) -> String {
    if step.is_empty() { String::new() } else { format!(", at {step}") }
}

impl BuildError {
    /// Stable, for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotPlanned { .. } | Self::BadProcess { .. } => "NOT_PLANNED",
            Self::EnvMissing { .. } => "ENV_MISSING",
            Self::Failed { .. } => "BUILD_FAILED",
            Self::OutOfMemory { .. } => "BUILD_OUT_OF_MEMORY",
            Self::TimedOut { .. } => "BUILD_TIMED_OUT",
            Self::DiskFull { .. } => "DISK_FULL",
            Self::Cancelled => "CANCELLED",
            Self::Source(CasError::Lost { .. }) => "SOURCE_LOST",
            Self::Source(_) => "SOURCE_REFUSED",
            Self::Publish(_) => "PUBLISH_FAILED",
            Self::Engine(EngineError::Unreachable(_) | EngineError::Timeout { .. }) => "DOCKER_UNREACHABLE",
            Self::Engine(_) => "DOCKER_REFUSED",
            Self::Server { .. } => "SERVER",
        }
    }

    /// A sentence with its causes.
    #[must_use]
    pub fn message(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// What was printed last, at most 20 lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        match self {
            Self::Failed { lines, .. } | Self::OutOfMemory { lines, .. } | Self::NotPlanned { lines, .. } => {
                &lines[lines.len().saturating_sub(MAX_LINES)..]
            }
            _ => &[],
        }
    }

    /// One command to type, or empty.
    #[must_use]
    pub fn next_command(&self) -> String {
        match self {
            // Kept for the deploy that follows: there may be no release yet that could be made with it.
            Self::EnvMissing { names } => format!("refloat env set --no-deploy {}=VALUE", names.join("=VALUE ")),
            // Built elsewhere, the output is small and needs no memory here.
            Self::OutOfMemory { .. } => "refloat deploy --prebuilt DIR".to_owned(),
            Self::NotPlanned { .. } | Self::BadProcess { .. } => "refloat plan".to_owned(),
            Self::DiskFull { .. } => "docker system df".to_owned(),
            Self::Source(CasError::Tree(TreeError::LinkLeaves { .. })) => String::new(),
            Self::Cancelled | Self::Source(_) | Self::Engine(_) | Self::Server { .. } => "refloat deploy".to_owned(),
            Self::Failed { .. } | Self::TimedOut { .. } | Self::Publish(_) => String::new(),
        }
    }

    /// As a deployment records it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure {
            reason: self.reason().to_owned(),
            message: self.message(),
            next_command: self.next_command(),
            lines: self.lines().to_vec(),
        }
    }

    pub(super) fn server(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Server { doing, source }
    }

    /// The engine's failure in our words. `cap_bytes` is the memory cap that held; `killed`, whether the kernel counted
    /// a kill during the build.
    pub(super) fn from_engine(error: EngineError, cap_bytes: Option<u64>, killed: bool) -> Self {
        match error {
            EngineError::BuildFailed { step, lines, out_of_memory } => {
                if out_of_memory || killed || lines.iter().any(|line| tells_heap(line)) {
                    Self::OutOfMemory { step, lines, cap_bytes }
                } else {
                    Self::Failed { step, lines }
                }
            }
            EngineError::Cancelled => Self::Cancelled,
            other => Self::Engine(other),
        }
    }
}

/// V8 gives up at a limit of its own, which it derives from the memory that it sees: no kill, but the same cause.
fn tells_heap(line: &str) -> bool {
    line.contains("JavaScript heap out of memory") || line.contains("Reached heap limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(out_of_memory: bool, line: &str) -> EngineError {
        EngineError::BuildFailed { step: "[3/5] RUN npm run build".into(), lines: vec![line.into()], out_of_memory }
    }

    #[test]
    fn a_build_without_memory_says_the_cap_and_points_to_prebuilt_output() {
        let heap = "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory";
        for (error, killed) in [(failed(true, ""), false), (failed(false, ""), true), (failed(false, heap), false)] {
            let error = BuildError::from_engine(error, Some(576 << 20), killed);
            assert_eq!(
                error.message(),
                "the build needs more memory than it may use (576 MiB on this server): it was stopped at [3/5] RUN npm run build"
            );
            assert_eq!(error.next_command(), "refloat deploy --prebuilt DIR");
            assert_eq!(error.reason(), "BUILD_OUT_OF_MEMORY");
        }
        assert!(matches!(
            BuildError::from_engine(failed(false, "error TS2304"), None, false),
            BuildError::Failed { .. }
        ));
    }

    #[test]
    fn a_full_disk_says_how_full_and_whether_the_build_ran() {
        let full = |running| {
            let (free_bytes, needed_bytes) = (300 << 20, 1 << 30);
            BuildError::DiskFull { path: "/var/lib/docker".into(), free_bytes, needed_bytes, running }.message()
        };
        assert_eq!(
            full(false),
            "300 MiB is left on the server's disk at /var/lib/docker, 1 GiB is needed to begin a build"
        );
        assert!(full(true).ends_with("1 GiB is needed to go on with the build; it was stopped"));
    }

    #[test]
    fn a_failure_holds_the_last_twenty_lines_and_its_causes() {
        let lines = (0..30).map(|n| n.to_string()).collect();
        let failure = BuildError::Failed { step: "RUN false".into(), lines }.failure();
        assert_eq!((failure.lines.len(), failure.lines[0].as_str()), (20, "10"));
        let publish = BuildError::Publish(PublishError::Empty).message();
        assert!(publish.starts_with("the site cannot be published: there is no file to publish"), "{publish}");
    }
}

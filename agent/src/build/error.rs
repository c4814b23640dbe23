//! Why a build failed, as it is told to a person: what happened, the last lines, and what to type next.

use std::error::Error as _;

use refloat_model::Failure;
use refloat_plan::tree::TreeError;

use super::install::{self, Heard, Trouble};
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
    /// The packages of the app cannot be installed.
    #[error("{trouble}")]
    NotInstalled {
        /// Why.
        trouble: Trouble,
        /// What was printed last.
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
            Self::Failed { .. } | Self::NotInstalled { .. } => "BUILD_FAILED",
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
            Self::Failed { lines, .. }
            | Self::NotInstalled { lines, .. }
            | Self::OutOfMemory { lines, .. }
            | Self::NotPlanned { lines, .. } => &lines[lines.len().saturating_sub(MAX_LINES)..],
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
            Self::NotInstalled { trouble, .. } => trouble.next_command(),
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
    /// a kill during the build; `heard`, what the build said.
    pub(super) fn from_engine(error: EngineError, cap_bytes: Option<u64>, killed: bool, heard: &Heard) -> Self {
        match error {
            EngineError::BuildFailed { step, lines, out_of_memory } => {
                let is_chain = step.contains(CHAIN);
                let step = heard.command().filter(|_| is_chain).map_or_else(|| short(&step), str::to_owned);
                if out_of_memory || killed || lines.iter().any(|line| tells_heap(line)) {
                    return Self::OutOfMemory { step, lines, cap_bytes };
                }
                let lines = evidence(lines);
                match heard.trouble() {
                    Some(trouble) => Self::NotInstalled { trouble, lines },
                    None => Self::Failed { step, lines },
                }
            }
            EngineError::Cancelled => Self::Cancelled,
            other => Self::Engine(other),
        }
    }
}

/// What stands between the commands of a chain in a generated build.
const CHAIN: &str = " || {";

/// A step as a person would type it: without mounts, and without what is only tried when its command fails.
pub(super) fn short(step: &str) -> String {
    let Some((stage, command)) = step.split_once("RUN ") else { return step.to_owned() };
    let command = command.split(CHAIN).next().unwrap_or(command);
    let words: Vec<&str> = command.split_whitespace().skip_while(|word| word.starts_with("--")).collect();
    format!("{stage}RUN {}", words.join(" "))
}

/// The lines that tell something. The engine's last word repeats the step as it stands in the Dockerfile.
fn evidence(lines: Vec<String>) -> Vec<String> {
    let end = |line: String| match line.split_once("did not complete successfully: ") {
        Some((process, how)) if process.starts_with("process \"") => format!("it ended with {how}"),
        _ => line,
    };
    lines.into_iter().filter(|line| !install::is_noise(line)).map(end).collect()
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
            let error = BuildError::from_engine(error, Some(576 << 20), killed, &Heard::default());
            assert_eq!(
                error.message(),
                "the build needs more memory than it may use (576 MiB on this server): it was stopped at [3/5] RUN npm run build"
            );
            assert_eq!(error.next_command(), "refloat deploy --prebuilt DIR");
            assert_eq!(error.reason(), "BUILD_OUT_OF_MEMORY");
        }
        assert!(matches!(
            BuildError::from_engine(failed(false, "error TS2304"), None, false, &Heard::default()),
            BuildError::Failed { .. }
        ));
    }

    const CHAINED: &str = "[build 2/4] RUN --mount=type=cache,target=/root/.npm npm ci  || { grep -rqs 'code EUSAGE' /tmp/npm-logs && npm install; }";

    fn told(said: &[&str], lines: &[&str]) -> Failure {
        let mut heard = Heard::default();
        said.iter().for_each(|line| heard.take(line));
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let error = EngineError::BuildFailed { step: CHAINED.into(), lines, out_of_memory: false };
        BuildError::from_engine(error, None, false, &heard).failure()
    }

    #[test]
    fn a_package_that_is_not_there_is_one_sentence_with_a_command() {
        let said = [
            "npm error code E404",
            "npm error 404 Not Found - GET https://registry.npmjs.org/left/-/left-4.2.0.tgz",
            "npm error 404  'left@https://registry.npmjs.org/left/-/left-4.2.0.tgz' is not in this registry.",
        ];
        let failure = told(&said, &["npm warn deprecated right@1.0.0", "npm error", said[0]]);
        assert_eq!(
            failure.message,
            "registry.npmjs.org has no left@4.2.0, which the app's own package.json or lockfile asks for: it was \
             withdrawn, or is private. Remove it or take another one, then deploy again"
        );
        assert_eq!((failure.reason.as_str(), failure.next_command.as_str()), ("BUILD_FAILED", "npm uninstall left"));
        assert_eq!(failure.lines, ["npm error code E404"]);
    }

    #[test]
    fn a_step_that_failed_is_told_as_its_command_and_not_as_the_line_of_a_dockerfile() {
        let ended = format!("process \"/bin/sh -c {CHAINED}\" did not complete successfully: exit code: 1");
        let failure = told(&[], &["gyp failed", &ended]);
        assert_eq!(failure.message, "the build failed at [build 2/4] RUN npm ci");
        assert_eq!(failure.lines, ["gyp failed", "it ended with exit code: 1"]);
        let second = told(&["refloat: that install failed; now trying: npm install"], &[]);
        assert_eq!(second.message, "the build failed at npm install");
        assert_eq!(short("[2/5] COPY --from=x a || { b"), "[2/5] COPY --from=x a || { b");
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

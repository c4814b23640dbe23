//! Opens a store where it can do no harm, and checks every record of it.
//!
//! `refloatd __probe-store FOLDER` is the other end: it answers with its exit code and one line on standard output.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::StoreError;
use super::records::Store;
use super::sled_shelf::SledShelf;
use super::worker::Worker;

/// The hidden subcommand of `refloatd`.
pub const SUBCOMMAND: &str = "__probe-store";
/// Exit code for a store that does not check out.
const DAMAGED: u8 = 3;
/// Longest line that a probe may answer with, in bytes.
const MAX_ANSWER_BYTES: u64 = 4096;
/// Between the end of its output and its end a process has microseconds to live.
const POLL: Duration = Duration::from_millis(1);

/// How a store is tried before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeWith {
    /// In a child process, which can be killed: the path of a `refloatd`.
    Executable(PathBuf),
    /// On a thread of this process, which cannot: only for tests without a `refloatd`.
    ThisThread,
}

impl ProbeWith {
    /// This very program, also when its file was replaced by an upgrade.
    #[must_use]
    pub fn this_program() -> Self {
        Self::Executable(PathBuf::from("/proc/self/exe"))
    }

    /// Whether the store in a folder opens and checks out in time.
    pub(super) fn probe(&self, folder: &Path, within: Duration) -> Result<(), StoreError> {
        match self {
            Self::Executable(program) => probe_in_child(program, folder, within),
            Self::ThisThread => {
                let folder = folder.to_owned();
                let worker = Worker::start(move || open_examined(&folder), within);
                worker.map(drop)
            }
        }
    }
}

/// What the child process does.
#[must_use]
pub fn run(folder: &Path) -> ExitCode {
    match open_examined(folder) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent reads the exit code too; a closed pipe loses only the reason.
            let _ = writeln!(std::io::stdout(), "{error}");
            ExitCode::from(DAMAGED)
        }
    }
}

fn open_examined(folder: &Path) -> Result<Store, StoreError> {
    let store = Store::on(Box::new(SledShelf::open(folder)?));
    store.examine()?;
    Ok(store)
}

fn probe_in_child(program: &Path, folder: &Path, within: Duration) -> Result<(), StoreError> {
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| StoreError::Gone(format!("could not be tried with {}: {error}", program.display())))?;
    let began = Instant::now();
    let answer = read_answer(&mut child, within);
    let ended = answer.is_ok() && has_ended(&mut child, within.saturating_sub(began.elapsed()));
    if !ended {
        // It may have just gone by itself.
        let _ = child.kill();
    }
    // It has ended, or was killed and ends at once.
    let status = child.wait().map_err(|error| StoreError::Gone(format!("could not be tried: {error}")))?;
    let answer = answer?;
    if status.success() {
        return Ok(());
    }
    let reason = if answer.is_empty() { format!("could not be opened ({status})") } else { answer };
    Err(StoreError::Damaged(reason))
}

/// Whether the child ends in time, its output being at its end already.
fn has_ended(child: &mut Child, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while let Ok(None) = child.try_wait() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

/// What the child says until it ends.
fn read_answer(child: &mut Child, within: Duration) -> Result<String, StoreError> {
    let Some(output) = child.stdout.take() else { return Err(StoreError::Gone("could not be tried".to_owned())) };
    let (said, answer) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        // Whatever could be read is what it said.
        let _ = output.take(MAX_ANSWER_BYTES).read_to_string(&mut text);
        let _ = said.send(text.trim().to_owned());
    });
    answer.recv_timeout(within).map_err(|error| match error {
        RecvTimeoutError::Timeout => StoreError::Gone(format!("did not open within {} ms", within.as_millis())),
        RecvTimeoutError::Disconnected => StoreError::Gone("could not be tried".to_owned()),
    })
}

//! One kept line: a JSON object, so that any tool can read the files.

use refloat_model::{InstanceName, ProcessName, ReleaseNumber};
use serde::{Deserialize, Serialize};

use crate::docker::LogLine;

/// A line as it is kept. Readers ignore fields that they do not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLine {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// The container.
    pub instance: String,
    /// Whether it came from stderr.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stderr: bool,
    /// The text.
    pub text: String,
}

/// A kept line with where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The line.
    pub line: KeptLine,
    /// The process.
    pub process: ProcessName,
    /// The release.
    pub release: ReleaseNumber,
}

impl KeptLine {
    pub(super) fn of(line: &LogLine, instance: &InstanceName) -> Self {
        Self { at_ms: line.at_ms, instance: instance.as_str().to_owned(), stderr: line.stderr, text: line.text.clone() }
    }

    pub(super) fn write_to(&self, bytes: &mut Vec<u8>) {
        // Numbers, booleans and strings always have a form in JSON.
        if serde_json::to_writer(&mut *bytes, self).is_ok() {
            bytes.push(b'\n');
        }
    }

    /// Reads lines; a torn one, after a crash in the middle of a write, is left out.
    pub(super) fn read_all(bytes: &[u8]) -> impl DoubleEndedIterator<Item = Self> + '_ {
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
    }
}

//! What containers print, as lines with a time.
//!
//! The engine keeps a line longer than 16 KiB as several; each of them is a line here. Bytes that are no UTF-8 are
//! replaced.

use bollard::container::LogOutput;
use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};
use refloat_model::InstanceName;
use tokio::sync::mpsc;

use super::connect::{Fault, READ_TIMEOUT_MS, next_within};
use super::container::unix_ms;
use super::engine::{EngineError, LogLine};
use super::real::DockerEngine;

/// Longest line in bytes.
pub(super) const MAX_LINE_BYTES: usize = 16 * 1024;
/// Most lines that one call answers.
const MAX_TAIL_LINES: u32 = 10_000;
const WHAT: &str = "its output";

impl DockerEngine {
    pub(super) async fn tail_lines(&self, name: &InstanceName, lines: u32) -> Result<Vec<LogLine>, EngineError> {
        let lines = lines.min(MAX_TAIL_LINES).to_string();
        let options = every_line().tail(&lines).build();
        let mut output = Box::pin(self.docker().await?.logs(name.as_str(), Some(options)));
        let mut tail = Vec::new();
        while let Some(piece) =
            next_within(WHAT, READ_TIMEOUT_MS, &mut output).await.map_err(|f| f.about(WHAT, name.as_str()))?
        {
            tail.push(line(&piece));
        }
        Ok(tail)
    }

    pub(super) async fn follow_lines(
        &self,
        name: &InstanceName,
        since_ms: u64,
        to: mpsc::Sender<LogLine>,
    ) -> Result<(), EngineError> {
        tokio::select! {
            // Nothing is lost: what was read and not sent has nobody to read it.
            () = to.closed() => Ok(()),
            ended = self.send_lines(name, since_ms, &to) => ended.map_err(|f| f.about(WHAT, name.as_str())),
        }
    }

    async fn send_lines(&self, name: &InstanceName, since_ms: u64, to: &mpsc::Sender<LogLine>) -> Result<(), Fault> {
        use futures_util::StreamExt;
        let mut output = Box::pin(self.docker().await?.logs(name.as_str(), Some(following(since_ms))));
        // No limit on the wait: an app may be silent for a week.
        while let Some(piece) = output.next().await {
            let line = line(&piece?);
            if line.at_ms >= since_ms && to.send(line).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn every_line() -> LogsOptionsBuilder {
    LogsOptionsBuilder::default().stdout(true).stderr(true).timestamps(true)
}

fn following(since_ms: u64) -> LogsOptions {
    let since_s = i32::try_from(since_ms / 1_000).unwrap_or(i32::MAX);
    every_line().follow(true).since(since_s).tail("all").build()
}

/// The engine writes "2026-01-31T12:00:00.000000000Z text".
fn line(piece: &LogOutput) -> LogLine {
    let text = String::from_utf8_lossy(piece.as_ref());
    let (at, text) = text.split_once(' ').unwrap_or((&text, ""));
    let text = bounded(text.trim_end_matches(['\n', '\r']));
    LogLine { at_ms: unix_ms(at), stderr: matches!(piece, LogOutput::StdErr { .. }), text: text.to_owned() }
}

/// At most [`MAX_LINE_BYTES`], cut between characters.
pub(super) fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_LINE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> LogLine {
        line(&LogOutput::StdErr { message: text.to_vec().into() })
    }

    #[test]
    fn a_line_has_its_time_and_no_end() {
        let wanted = LogLine { at_ms: 1_500, stderr: true, text: "GET / 200".to_owned() };
        assert_eq!(read(b"1970-01-01T00:00:01.500000000Z GET / 200\r\n"), wanted);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_end_the_output() {
        assert_eq!(read(b"1970-01-01T00:00:01Z a\xffb\n").text, "a\u{fffd}b");
        assert_eq!(read(b"").text, "");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = "ä".repeat(MAX_LINE_BYTES);
        assert_eq!(bounded(&long).len(), MAX_LINE_BYTES);
        let odd = format!("x{long}");
        assert_eq!(bounded(&odd).len(), MAX_LINE_BYTES - 1);
    }
}

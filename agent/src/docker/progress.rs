//! What BuildKit says while it builds, folded into steps, lines and, in the end, why it failed. Pure.

use std::collections::{HashMap, VecDeque};

use bollard::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog};

use super::engine::{BuildOutput, EngineError};
use super::logs::{MAX_LINE_BYTES, bounded};

/// Lines of a failed step that are kept for the person who asked for the build.
const TAIL_LINES: usize = 20;
/// More steps than any build has; further ones are not shown.
const MAX_STEPS: usize = 4_096;

/// The state of one build.
#[derive(Debug, Default)]
pub(super) struct Progress {
    steps: HashMap<String, Step>,
    failed: Option<String>,
}

#[derive(Debug, Default)]
struct Step {
    name: String,
    shown: Shown,
    done: bool,
    error: String,
    /// Output without an end of line yet, of stdout and stderr.
    partial: [Vec<u8>; 2],
    tail: VecDeque<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Shown {
    #[default]
    No,
    Started,
    Cached,
}

impl Progress {
    /// What a message adds.
    pub(super) fn apply(&mut self, status: &StatusResponse) -> Vec<BuildOutput> {
        let mut output = Vec::new();
        for vertex in &status.vertexes {
            self.vertex(vertex, &mut output);
        }
        for log in &status.logs {
            self.log(log, &mut output);
        }
        output
    }

    /// Why the build failed, from the engine's last word and what was seen before.
    pub(super) fn failure(&self, message: &str) -> EngineError {
        let failed = self.failed.as_ref().and_then(|digest| self.steps.get(digest));
        let step = failed.map_or_else(|| "reading the Dockerfile".to_owned(), |step| step.name.clone());
        let error = failed.map_or(message, |step| step.error.as_str());
        let mut lines: Vec<String> = failed.map(Step::last_lines).unwrap_or_default();
        let out_of_memory = [message, error].into_iter().any(tells_memory) || lines.iter().any(|l| tells_killed(l));
        lines.extend(bounded(message).lines().map(str::to_owned));
        let excess = lines.len().saturating_sub(TAIL_LINES);
        EngineError::BuildFailed { step, lines: lines.split_off(excess), out_of_memory }
    }

    fn vertex(&mut self, vertex: &Vertex, output: &mut Vec<BuildOutput>) {
        if !self.steps.contains_key(&vertex.digest) && self.steps.len() >= MAX_STEPS {
            return;
        }
        let step = self.steps.entry(vertex.digest.clone()).or_default();
        step.name = bounded(&vertex.name).to_owned();
        step.done |= vertex.completed.is_some();
        if !vertex.error.is_empty() {
            step.error = bounded(&vertex.error).to_owned();
            // One failure cancels the other steps, and these report errors of their own.
            let canceled = vertex.error.contains("context canceled");
            if self.failed.is_none() || !canceled {
                self.failed = Some(vertex.digest.clone());
            }
        }
        if vertex.completed.is_some() {
            step.flush(output);
        }
        let shows = if vertex.cached { Shown::Cached } else { Shown::Started };
        let is_news = match step.shown {
            Shown::No => vertex.started.is_some(),
            // The base image is only looked up: that it is there already is no news.
            Shown::Started => vertex.cached && !vertex.name.contains("] FROM "),
            Shown::Cached => false,
        };
        if is_news && is_step(&vertex.name) {
            step.shown = shows;
            output.push(self.step(&vertex.name, vertex.cached));
        }
    }

    fn step(&self, name: &str, cached: bool) -> BuildOutput {
        let known = || self.steps.values().filter(|step| is_step(&step.name));
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let done = count(known().filter(|step| step.done).count());
        BuildOutput::Step { text: bounded(name).to_owned(), done, total: count(known().count()), cached }
    }

    fn log(&mut self, log: &VertexLog, output: &mut Vec<BuildOutput>) {
        if let Some(step) = self.steps.get_mut(&log.vertex) {
            step.take(&log.msg, usize::from(log.stream == 2), output);
        }
    }
}

impl Step {
    fn take(&mut self, bytes: &[u8], stream: usize, output: &mut Vec<BuildOutput>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.grow(&rest[..end], stream);
            self.end_line(stream, output);
            rest = &rest[end + 1..];
        }
        self.grow(rest, stream);
    }

    /// What does not fit into a line is dropped.
    fn grow(&mut self, bytes: &[u8], stream: usize) {
        let partial = &mut self.partial[stream];
        let room = MAX_LINE_BYTES.saturating_sub(partial.len());
        partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, stream: usize, output: &mut Vec<BuildOutput>) {
        let bytes = std::mem::take(&mut self.partial[stream]);
        let text = String::from_utf8_lossy(&bytes);
        let line = bounded(last_overwrite(&text)).to_owned();
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        output.push(BuildOutput::Line(line));
    }

    fn flush(&mut self, output: &mut Vec<BuildOutput>) {
        for stream in 0..self.partial.len() {
            if !self.partial[stream].is_empty() {
                self.end_line(stream, output);
            }
        }
    }

    fn last_lines(&self) -> Vec<String> {
        let pending = self.partial.iter().filter(|bytes| !bytes.is_empty());
        let pending = pending.map(|bytes| bounded(last_overwrite(&String::from_utf8_lossy(bytes))).to_owned());
        self.tail.iter().cloned().chain(pending).collect()
    }
}

/// What a person wrote ("[2/7] RUN npm ci"), and the end, which takes long for a large image. BuildKit's own
/// preparations are neither.
fn is_step(name: &str) -> bool {
    name == "exporting to image" || (name.starts_with('[') && !name.starts_with("[internal]"))
}

/// A progress bar writes its line many times, each after a carriage return.
fn last_overwrite(line: &str) -> &str {
    line.trim_end_matches('\r').rsplit('\r').next().unwrap_or(line)
}

/// How BuildKit and the shell tell that the kernel killed a step.
fn tells_memory(message: &str) -> bool {
    const SIGNS: [&str; 5] =
        ["exit code: 137", "cannot allocate memory", "ResourceExhausted", "signal: killed", "out of memory"];
    SIGNS.iter().any(|sign| message.contains(sign))
}

/// How npm, a shell, compilers and Node tell it in their output when the step itself ends with another code.
fn tells_killed(line: &str) -> bool {
    const SIGNS: [&str; 4] = ["SIGKILL", "out of memory", "Cannot allocate memory", "MemoryError"];
    line.trim() == "Killed" || SIGNS.iter().any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any time: the client does not export its type.
    fn time<T: Default>() -> Option<T> {
        Some(T::default())
    }

    fn vertex(digest: &str, name: &str) -> Vertex {
        Vertex { digest: digest.into(), name: name.into(), started: time(), ..Vertex::default() }
    }

    fn vertexes(vertexes: Vec<Vertex>) -> StatusResponse {
        StatusResponse { vertexes, ..StatusResponse::default() }
    }

    fn log(vertex: &str, stream: i64, text: &str) -> StatusResponse {
        let log = VertexLog { vertex: vertex.into(), stream, msg: text.into(), ..VertexLog::default() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    fn step(text: &str, done: u32, total: u32, cached: bool) -> BuildOutput {
        BuildOutput::Step { text: text.into(), done, total, cached }
    }

    fn line(text: &str) -> BuildOutput {
        BuildOutput::Line(text.into())
    }

    #[test]
    fn a_step_is_told_once_and_preparations_are_not() {
        let mut progress = Progress::default();
        let first = vertexes(vec![
            vertex("a", "[internal] load"),
            vertex("d", "copy /context /"),
            vertex("b", "[1/2] FROM busybox"),
        ]);
        assert_eq!(progress.apply(&first), [step("[1/2] FROM busybox", 0, 1, false)]);
        let ended = Vertex { completed: time(), ..vertex("b", "[1/2] FROM busybox") };
        assert_eq!(
            progress.apply(&vertexes(vec![ended, vertex("c", "[2/2] RUN x")])),
            [step("[2/2] RUN x", 1, 2, false)]
        );
    }

    #[test]
    fn a_step_that_turns_out_to_be_cached_says_so() {
        let mut progress = Progress::default();
        let cached = Vertex { cached: true, completed: time(), ..vertex("b", "[2/2] RUN x") };
        assert_eq!(progress.apply(&vertexes(vec![cached.clone()])), [step("[2/2] RUN x", 1, 1, true)]);
        assert_eq!(progress.apply(&vertexes(vec![cached])), []);
    }

    #[test]
    fn pieces_become_lines_per_stream_and_the_rest_comes_with_the_end_of_the_step() {
        let mut progress = Progress::default();
        progress.apply(&vertexes(vec![vertex("b", "[1/1] RUN x")]));
        assert_eq!(progress.apply(&log("b", 1, "on")), []);
        assert_eq!(progress.apply(&log("b", 2, "warning\n")), [line("warning")]);
        assert_eq!(progress.apply(&log("b", 1, "e\ntwo\n10%\r20%\r30%")), [line("one"), line("two")]);
        let ended = Vertex { completed: time(), ..vertex("b", "[1/1] RUN x") };
        assert_eq!(progress.apply(&vertexes(vec![ended])), [line("30%")]);
    }

    #[test]
    fn a_line_without_an_end_stays_bounded() {
        let mut progress = Progress::default();
        progress.apply(&vertexes(vec![vertex("b", "[1/1] RUN x")]));
        for _ in 0..100 {
            progress.apply(&log("b", 1, &"x".repeat(1_000)));
        }
        assert_eq!(progress.steps["b"].partial[0].len(), MAX_LINE_BYTES);
    }

    #[test]
    fn a_failure_names_its_step_and_its_last_20_lines() {
        let mut progress = Progress::default();
        progress.apply(&vertexes(vec![vertex("b", "[2/2] RUN npm ci")]));
        for n in 0..100 {
            progress.apply(&log("b", 1, &format!("line {n}\n")));
        }
        let failed = Vertex { error: "exit code: 1".into(), completed: time(), ..vertex("b", "[2/2] RUN npm ci") };
        let other = Vertex { error: "context canceled".into(), ..vertex("c", "[other 1/1] RUN y") };
        progress.apply(&vertexes(vec![failed, other]));
        let EngineError::BuildFailed { step, lines, out_of_memory } = progress.failure("exit code: 1") else {
            panic!()
        };
        assert_eq!((step.as_str(), lines.len(), out_of_memory), ("[2/2] RUN npm ci", 20, false));
        assert_eq!((lines[18].as_str(), lines[19].as_str()), ("line 99", "exit code: 1"));
    }

    #[test]
    fn a_step_that_was_killed_at_its_limit_is_recognised() {
        let failing = |error: &str, output: &str| {
            let mut progress = Progress::default();
            progress.apply(&vertexes(vec![vertex("b", "[1/1] RUN x")]));
            progress.apply(&log("b", 2, output));
            progress.apply(&vertexes(vec![Vertex { error: error.into(), ..vertex("b", "[1/1] RUN x") }]));
            matches!(progress.failure(error), EngineError::BuildFailed { out_of_memory: true, .. })
        };
        assert!(failing("did not complete successfully: exit code: 137", ""));
        assert!(failing("did not complete successfully: cannot allocate memory", ""));
        assert!(failing("exit code: 1", "npm error signal SIGKILL\n"));
        assert!(failing("exit code: 1", "Killed\n"));
        assert!(!failing("exit code: 1", "the test Killed two mutants\n"));
    }

    #[test]
    fn a_dockerfile_that_cannot_be_read_fails_before_any_step() {
        let EngineError::BuildFailed { step, lines, .. } = Progress::default().failure("unknown instruction: RUNN")
        else {
            panic!()
        };
        assert_eq!((step.as_str(), lines), ("reading the Dockerfile", vec!["unknown instruction: RUNN".to_owned()]));
    }
}

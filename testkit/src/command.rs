//! A finished command, and how to ask for one that must succeed.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// When it was started.
    pub started: Instant,
    /// From start to end.
    pub took: Duration,
}

impl Finished {
    /// Runs a command to its end, without input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        let line = describe(command);
        let started = Instant::now();
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| cannot_start(&line, &error));
        Self::from_output(line, started, output)
    }

    /// Waits for what [`begin`] began.
    ///
    /// # Panics
    /// When it cannot be waited for.
    #[must_use]
    pub fn end_of(begun: Child) -> Self {
        let (line, started) = (format!("process {}", begun.id()), Instant::now());
        let output = begun.wait_with_output().expect("a child can be waited for");
        Self::from_output(line, started, output)
    }

    fn from_output(line: String, started: Instant, output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            line,
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            started,
            took: started.elapsed(),
        }
    }

    /// The same, if it ended with this code.
    ///
    /// # Panics
    /// When it ended with another one: the message has all that it said.
    #[must_use]
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// [`Self::expect_code`] of 0.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn success(self) -> Self {
        self.expect_code(0)
    }

    /// Both streams, standard output first.
    #[must_use]
    pub fn all_output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The same, if both streams together contain the text.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.all_output().contains(text), "{text:?} is not in what was said\n{self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, code, stdout, stderr, took, .. } = self;
        write!(f, "$ {line}\n(code {code} after {took:.1?})\n-- stdout\n{stdout}-- stderr\n{stderr}")
    }
}

/// Starts a command without input; what it says is kept for [`Finished::end_of`].
///
/// # Panics
/// When it cannot be started.
pub fn begin(command: &mut Command) -> Child {
    let line = describe(command);
    let begun = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    begun.unwrap_or_else(|error| cannot_start(&line, &error))
}

/// Runs a program of the system that must succeed, and returns its output without the last line's end.
///
/// # Panics
/// When it cannot be started or fails.
#[track_caller]
pub fn system(program: &str, arguments: &[&str]) -> String {
    Finished::of(Command::new(program).args(arguments)).success().stdout.trim_end().to_owned()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[expect(clippy::panic, reason = "the harness panics")]
fn cannot_start(line: &str, error: &std::io::Error) -> ! {
    panic!("cannot start {line}: {error}")
}

//! Runs `refloat` to its end and writes down what it said.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A run of the program with a configuration folder and a current folder of its own.
pub(crate) struct Program {
    config: TempDir,
    pub(crate) folder: TempDir,
    socket: Option<std::path::PathBuf>,
}

/// What it said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    /// One that knows no server.
    pub(crate) fn alone() -> Self {
        let folder = || tempfile::tempdir().expect("a folder");
        Self { config: folder(), folder: folder(), socket: None }
    }

    /// One that talks to the agent behind this socket.
    pub(crate) fn at(socket: &Path) -> Self {
        Self { socket: Some(socket.to_owned()), ..Self::alone() }
    }

    /// Writes a file into the current folder.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// Where it keeps what it remembers.
    pub(crate) fn config(&self) -> &Path {
        self.config.path()
    }

    /// Runs it without input.
    pub(crate) fn run(&self, words: &[&str]) -> Said {
        self.run_with(words, "")
    }

    /// Runs it with this input.
    pub(crate) fn run_with(&self, words: &[&str], input: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refloat"));
        command.args(words).current_dir(self.folder.path()).env_clear();
        command.env("REFLOAT_CONFIG_DIR", self.config.path()).env("HOME", self.config.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("USER", "anna");
        command.env("REFLOAT_SOCKET", self.socket.as_deref().unwrap_or(Path::new("")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A program that does not want its input may have gone.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        Said {
            code: output.status.code().expect("no signal ended it"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Said {
    /// All of it, without what may be different in every run: how long something took here, how well it was
    /// compressed, and ports.
    pub(crate) fn story(&self) -> String {
        let Self { code, stdout, stderr } = self;
        without_chance(&format!("-- stdout\n{stdout}-- stderr\n{stderr}-- exit {code}\n"))
    }

    /// The objects on standard output.
    pub(crate) fn objects(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("every line is an object")).collect()
    }
}

fn without_chance(text: &str) -> String {
    let text = replace_after(text, "took ", span_length);
    let text = replace_after(&text, "from here in ", span_length);
    let text = replace_after(&text, "Sent ", |rest| rest.find(" of ").unwrap_or(0));
    replace_after(&text, "127.0.0.1:", |rest| rest.bytes().take_while(u8::is_ascii_digit).count())
}

/// "38 ms", "3.2 s"
fn span_length(rest: &str) -> usize {
    let number = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let unit = rest[number..].bytes().take_while(|b| matches!(b, b' ' | b'm' | b's')).count();
    if number == 0 { 0 } else { number + unit }
}

/// Puts `[…]` in place of so many bytes behind each marker.
fn replace_after(text: &str, marker: &str, length: impl Fn(&str) -> usize) -> String {
    let mut parts = text.split(marker);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        replaced.push_str(marker);
        let length = length(part);
        replaced.push_str(if length > 0 { "[…]" } else { "" });
        replaced.push_str(&part[length..]);
    }
    replaced
}

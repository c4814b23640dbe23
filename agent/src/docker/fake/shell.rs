//! The few words of a shell that the contract's containers and builds use.

use super::behaviour::Behaviour;
use crate::docker::RunState;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// `echo`.
    Say { stderr: bool, text: String },
    /// `sleep`, in milliseconds.
    Wait(u64),
    /// `cat`: the input until its end.
    CopyInput,
    /// `exit`, `true`, `false`.
    Exit(i64),
    /// `httpd -p PORT`, until it is stopped.
    Serve(u16),
}

/// What a container's command does; `None` when it is no shell and no server.
pub(super) fn acts_of(command: &[String]) -> Option<Vec<Act>> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match plain(&words) {
        ["sh", "-c", script] => Some(parse(script)),
        ["httpd", ..] => Some(vec![act(&words.join(" "))]),
        _ => None,
    }
}

/// A script's commands.
pub(super) fn parse(script: &str) -> Vec<Act> {
    script
        .split([';', '\n'])
        .flat_map(|part| part.split("&&"))
        .map(str::trim)
        .filter(|c| !c.is_empty())
        .map(act)
        .collect()
}

/// What a container does whose command is this script.
pub(super) fn behaviour(acts: &[Act]) -> Behaviour {
    let (mut lines, mut waited_ms) = (Vec::new(), 0);
    for act in acts {
        match act {
            Act::Say { stderr, text } => lines.push((*stderr, text.clone())),
            Act::Wait(ms) => waited_ms += ms,
            Act::CopyInput => {}
            Act::Exit(code) => return ends(waited_ms, *code, lines),
            Act::Serve(port) => return Behaviour { lines, ..Behaviour::slow(*port, waited_ms) },
        }
    }
    ends(waited_ms, 0, lines)
}

fn ends(after_ms: u64, code: i64, lines: Vec<(bool, String)>) -> Behaviour {
    Behaviour { lines, ends: Some((after_ms, RunState::Exited(code))), ..Behaviour::silent() }
}

fn act(command: &str) -> Act {
    let (command, stderr) = match command.strip_suffix(">&2") {
        Some(rest) => (rest.trim(), true),
        None => (command, false),
    };
    let words: Vec<&str> = command.split_whitespace().filter(|word| *word != "exec").collect();
    let number = |word: Option<&&str>| word.and_then(|w| w.parse().ok());
    match plain(&words) {
        ["echo", text @ ..] => Act::Say { stderr, text: text.join(" ").replace(['\'', '"'], "") },
        ["sleep", seconds, ..] => Act::Wait(number(Some(seconds)).unwrap_or(0_u64) * 1_000),
        ["cat"] => Act::CopyInput,
        ["exit", code] => Act::Exit(number(Some(code)).and_then(|n: u64| i64::try_from(n).ok()).unwrap_or(0)),
        ["false"] => Act::Exit(1),
        ["httpd", options @ ..] => {
            Act::Serve(number(options.last()).and_then(|n: u64| u16::try_from(n).ok()).unwrap_or(80))
        }
        _ => Act::Wait(0),
    }
}

/// Without the path and the `busybox` before a command.
fn plain<'a, 'w>(words: &'w [&'a str]) -> &'w [&'a str] {
    match words {
        [first, rest @ ..] if first.ends_with("busybox") => rest,
        all => all,
    }
}

//! The only thing that prints.
//!
//! Standard output carries data and results, standard error everything else: messages, progress, failures. Colour is on
//! a terminal only, and nothing needs it to be understood. Without a terminal progress is a plain line now and then.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use console::Style;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::args::Global;
use crate::failure::Failure;

/// How often progress is told where it cannot be drawn.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How often a drawn line moves.
const TICK: Duration = Duration::from_millis(120);

/// How a piece of text is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing special.
    Plain,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It may hurt.
    Warn,
    /// Less important than what is around it.
    Dim,
}

/// Prints.
#[derive(Debug)]
pub(crate) struct Printer {
    json: bool,
    quiet: bool,
    out_colour: bool,
    err_colour: bool,
    err_terminal: bool,
    drawn: Mutex<Drawn>,
}

#[derive(Debug)]
struct Drawn {
    bar: Option<ProgressBar>,
    plain_at: Option<Instant>,
}

impl Printer {
    /// As the command line and the terminals say.
    pub(crate) fn new(global: &Global) -> Self {
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let wanted = !global.no_color && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        Self {
            json: global.json,
            quiet: global.quiet,
            out_colour: wanted && out,
            err_colour: wanted && err,
            err_terminal: err,
            drawn: Mutex::new(Drawn { bar: None, plain_at: None }),
        }
    }

    /// Whether results are JSON.
    pub(crate) fn json_wanted(&self) -> bool {
        self.json
    }

    /// Whether a person can be asked: nobody is, unless both ends are a terminal.
    pub(crate) fn can_ask(&self) -> bool {
        !self.json && self.err_terminal && std::io::stdin().is_terminal()
    }

    /// A line of the result.
    pub(crate) fn result(&self, tone: Tone, line: &str) {
        if !self.json {
            self.out(&paint(tone, line, self.out_colour));
        }
    }

    /// The result as one object.
    pub(crate) fn object(&self, value: &Value) {
        if self.json {
            self.out(&value.to_string());
        }
    }

    /// A message, unless nobody wants to hear any.
    pub(crate) fn say(&self, tone: Tone, line: &str) {
        if !self.json && !self.quiet {
            self.err(&paint(tone, line, self.err_colour));
        }
    }

    /// A message that must be seen.
    pub(crate) fn warn(&self, line: &str) {
        self.err(&paint(Tone::Warn, line, self.err_colour));
    }

    /// A line of an outcome that went wrong.
    pub(crate) fn wrong(&self, tone: Tone, line: &str) {
        if !self.json {
            self.err(&paint(tone, line, self.err_colour));
        }
    }

    /// Bytes that a program on the server wrote, as they are.
    pub(crate) fn raw(&self, to_stdout: bool, bytes: &[u8]) {
        if to_stdout {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(bytes).and_then(|()| out.flush());
        } else {
            let mut err = std::io::stderr().lock();
            let _ = err.write_all(bytes).and_then(|()| err.flush());
        }
    }

    /// Asks for a line.
    ///
    /// # Errors
    /// When the terminal does not give one.
    pub(crate) fn ask(&self, question: &str) -> Result<String, Failure> {
        let terminal = self.question(question)?;
        terminal.read_line().map_err(|e| Failure::local("read your answer", &e))
    }

    /// Asks for a line that nobody is to see.
    ///
    /// # Errors
    /// When the terminal does not give one.
    pub(crate) fn ask_secret(&self, question: &str) -> Result<String, Failure> {
        let terminal = self.question(question)?;
        terminal.read_secure_line().map_err(|e| Failure::local("read your answer", &e))
    }

    fn question(&self, question: &str) -> Result<console::Term, Failure> {
        let terminal = console::Term::stderr();
        terminal.write_str(question).map_err(|e| Failure::local("ask you", &e))?;
        Ok(terminal)
    }

    /// A verb's failure.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.end_progress();
        if self.json {
            self.out(&failure_json(failure).to_string());
            return;
        }
        let paint = |tone, line: &str| self.err(&paint(tone, line, self.err_colour));
        paint(Tone::Bad, &clean(&failure.what));
        for line in &failure.lines {
            paint(Tone::Dim, &format!("  {}", clean(line)));
        }
        if !failure.still_fine.is_empty() {
            paint(Tone::Plain, &format!("Still fine: {}", clean(&failure.still_fine)));
        }
        if !failure.next.is_empty() {
            paint(Tone::Plain, &format!("Next: {}", clean(&failure.next)));
        }
    }

    /// What goes on right now, without a count.
    pub(crate) fn doing(&self, what: &str) {
        self.progress(what, 0, 0, "");
    }

    /// How far something is. `total` is 0 when it is not known.
    pub(crate) fn progress(&self, what: &str, done: u64, total: u64, unit: &str) {
        if self.json || self.quiet {
            return;
        }
        let text = progress_text(what, done, total, unit);
        let mut drawn = self.drawn();
        if self.err_terminal {
            let bar = drawn.bar.get_or_insert_with(spinner);
            bar.set_message(text);
        } else if total > 0 && drawn.plain_at.is_none_or(|at| at.elapsed() >= PLAIN_PROGRESS_EVERY) {
            let first = drawn.plain_at.replace(Instant::now()).is_none();
            drop(drawn);
            if !first {
                self.err(&format!("  {text}"));
            }
        }
    }

    /// Nothing goes on any more.
    pub(crate) fn end_progress(&self) {
        let mut drawn = self.drawn();
        drawn.plain_at = None;
        if let Some(bar) = drawn.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn out(&self, line: &str) {
        self.beside_progress(|| {
            let mut out = std::io::stdout().lock();
            // Whoever closed the pipe does not want the rest.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        });
    }

    fn err(&self, line: &str) {
        self.beside_progress(|| {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }

    fn beside_progress(&self, print: impl FnOnce()) {
        let bar = self.drawn().bar.clone();
        match bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

fn progress_text(what: &str, done: u64, total: u64, unit: &str) -> String {
    let what = clean(what);
    match (total, unit) {
        (0, _) => what,
        (_, "bytes") => format!("{what} {} of {}", HumanBytes(done), HumanBytes(total)),
        _ => format!("{what} ({done} of {total} {unit})"),
    }
}

fn paint(tone: Tone, line: &str, colour: bool) -> String {
    let style = match tone {
        Tone::Plain => return line.to_owned(),
        Tone::Good => Style::new().green(),
        Tone::Bad => Style::new().red().bold(),
        Tone::Warn => Style::new().yellow(),
        Tone::Dim => Style::new().dim(),
    };
    style.force_styling(colour).apply_to(line).to_string()
}

/// Text from elsewhere without anything that could move a cursor or set a title.
pub(crate) fn clean(text: &str) -> String {
    let text = console::strip_ansi_codes(text);
    text.chars().filter(|c| *c == '\t' || !c.is_control()).collect()
}

fn failure_json(failure: &Failure) -> Value {
    serde_json::json!({
        "error": {
            "reason": failure.reason,
            "message": failure.what,
            "still_fine": failure.still_fine,
            "next_command": failure.next,
            "lines": failure.lines,
        },
        "exit": failure.exit.code(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_move_the_cursor_or_set_a_title() {
        assert_eq!(clean("a\x1b[2Jb\x1b]0;title\x07c\rd\x08e\tf"), "abcde\tf");
    }

    #[test]
    fn progress_says_how_far_it_is_when_that_is_known() {
        assert_eq!(progress_text("Sending", 512, 2048, "bytes"), "Sending 512 B of 2.00 KiB");
        assert_eq!(progress_text("Building", 3, 9, "steps"), "Building (3 of 9 steps)");
        assert_eq!(progress_text("Building", 3, 0, ""), "Building");
    }
}

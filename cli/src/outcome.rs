//! How a deployment ended, in words. Pure: from the outcome and what was seen from here to lines and an exit code.

use std::time::Duration;

use refloat_proto::v1::{Fetched, Outcome, OutcomeKind, Problem};

use crate::exit::Exit;
use crate::fetch::{Here, Seen};
use crate::printer::{Tone, clean};
use crate::span::{micros, millis, span};

/// Most lines of evidence that are shown.
const MAX_LINES: usize = 20;
/// A rollback from it says that nothing is before it.
const FIRST_RELEASE: u32 = 1;

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// deploy, rollback, activate, restart, stop, destroy, domains, env.
    pub(crate) kind: String,
    /// The app.
    pub(crate) app: String,
    /// The release that served before; 0 when none did.
    pub(crate) before: u32,
    /// Nothing was to be changed.
    pub(crate) dry_run: bool,
    /// The release was only to be made.
    pub(crate) only_made: bool,
    /// Volumes were to go too.
    pub(crate) volumes: bool,
    /// Where the server is reached from here; `None` when it is this host.
    pub(crate) host: Option<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Whether it is the result, for standard output.
    pub(crate) result: bool,
    /// How it is meant.
    pub(crate) tone: Tone,
    /// Its text.
    pub(crate) text: String,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// In this order.
    pub(crate) lines: Vec<Line>,
    /// How the program ends.
    pub(crate) exit: Exit,
}

impl Told {
    fn new(exit: Exit) -> Self {
        Self { lines: Vec::new(), exit }
    }

    fn result(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.lines.push(Line { result: true, tone, text: text.into() });
        self
    }

    fn message(mut self, tone: Tone, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.lines.push(Line { result: false, tone, text });
        }
        self
    }

    fn messages(self, tone: Tone, texts: impl IntoIterator<Item = String>) -> Self {
        texts.into_iter().fold(self, |told, text| told.message(tone, text))
    }
}

/// Tells an outcome that was `took` in coming.
pub(crate) fn tell(asked: &Asked, outcome: &Outcome, here: Option<&Here>, took: Duration) -> Told {
    match outcome.kind() {
        OutcomeKind::Live => live(asked, outcome, here, took),
        OutcomeKind::LiveUnverified => unverified(asked, outcome, here),
        OutcomeKind::CommittedNotServed => not_yet_served(asked, outcome),
        OutcomeKind::Cancelled => given_up(asked, outcome, "was cancelled"),
        OutcomeKind::Superseded => given_up(asked, outcome, "gave way to a newer deploy"),
        OutcomeKind::Unchanged => Told::new(Exit::Done)
            .result(Tone::Good, format!("Nothing changed: r{} serves.", outcome.serving))
            .message(Tone::Dim, addresses(outcome)),
        OutcomeKind::Done => done(asked, outcome),
        OutcomeKind::Failed | OutcomeKind::Unspecified => failed(asked, outcome),
    }
}

fn live(asked: &Asked, outcome: &Outcome, here: Option<&Here>, took: Duration) -> Told {
    let release = outcome.serving;
    if asked.kind != "deploy" && asked.kind != "env" {
        let how = match asked.kind.as_str() {
            "rollback" => "serves again",
            "restart" => "serves with new instances",
            _ => "serves",
        };
        let line = format!("r{release} {how} ({})", timing(outcome, took));
        return Told::new(Exit::Done).result(Tone::Good, line).messages(Tone::Warn, downtimes(outcome));
    }
    let bad = here.is_some_and(Here::is_bad);
    let told = match bad {
        false => Told::new(Exit::Done).result(Tone::Good, live_line(outcome, here)),
        true => Told::new(Exit::Unverified)
            .result(Tone::Warn, format!("r{release} is live, but not as seen from here: {}", seen(outcome, here)))
            .message(Tone::Plain, advice(here)),
    };
    told.messages(Tone::Dim, instead(here))
        .messages(Tone::Plain, more_addresses(outcome))
        .messages(Tone::Warn, downtimes(outcome))
        .messages(Tone::Plain, emergency(asked, outcome))
}

fn live_line(outcome: &Outcome, here: Option<&Here>) -> String {
    match outcome.addresses.first() {
        Some(_) => format!("r{} is live: {}", outcome.serving, seen(outcome, here)),
        None => format!("r{} is live", outcome.serving),
    }
}

/// The address, and what it answered: from here and from the server.
fn seen(outcome: &Outcome, here: Option<&Here>) -> String {
    let address = outcome.addresses.first().map(|a| clean(a)).unwrap_or_default();
    let from_here = here.map(|here| match &here.seen {
        Seen::Answered { status, duration_us } => format!("{status} from here in {}", micros(*duration_us)),
        Seen::Nothing { error } => format!("no answer from here: {}", clean(error)),
        Seen::NotAsked { because } => format!("not fetched from here: {because}"),
    });
    let from_server = outcome.fetched.iter().find(|f| outcome.addresses.first() == Some(&f.address));
    let from_server = from_server.or(outcome.fetched.first()).map(fetched);
    let both: Vec<String> = from_here.into_iter().chain(from_server).collect();
    if both.is_empty() { address } else { format!("{address} ({})", both.join(", ")) }
}

fn fetched(fetched: &Fetched) -> String {
    match fetched.status {
        0 => format!("no answer from the server: {}", clean(&fetched.error)),
        status => format!("{status} from the server in {}", micros(fetched.duration_us)),
    }
}

fn advice(here: Option<&Here>) -> String {
    match here.map(|here| &here.seen) {
        Some(Seen::Nothing { .. }) => {
            "The server itself reaches it. Look at the firewall of the server and of its provider: the address's port \
             must be open."
                .to_owned()
        }
        _ => {
            "Something between here and the server answers in its place, or the app fails for this address.".to_owned()
        }
    }
}

fn instead(here: Option<&Here>) -> Option<String> {
    here.and_then(|here| here.instead.as_ref()).map(|text| format!("From here it was fetched {text}."))
}

fn more_addresses(outcome: &Outcome) -> Vec<String> {
    outcome.addresses.iter().skip(1).map(|address| format!("Also at {}", clean(address))).collect()
}

fn addresses(outcome: &Outcome) -> String {
    outcome.addresses.iter().map(|a| clean(a)).collect::<Vec<_>>().join(" ")
}

fn downtimes(outcome: &Outcome) -> Vec<String> {
    let line =
        |d: &refloat_proto::v1::Downtime| format!("{} was down for {}", clean(&d.process), millis(d.duration_ms));
    outcome.downtimes.iter().map(line).collect()
}

fn timing(outcome: &Outcome, took: Duration) -> String {
    match outcome.timings.iter().find(|timing| timing.what == "server") {
        Some(server) => format!("took {}; {} on the server", span(took), micros(server.duration_us)),
        None => format!("took {}", span(took)),
    }
}

/// The line for an emergency, as it is typed from anywhere. The first release has nothing to go back to.
fn emergency(asked: &Asked, outcome: &Outcome) -> Option<String> {
    if outcome.serving <= FIRST_RELEASE {
        return None;
    }
    let command = match outcome.emergency.as_str() {
        "" => format!("refloat rollback {}", asked.app),
        command => clean(command),
    };
    Some(match &asked.host {
        _ if command.starts_with("ssh ") => format!("If it breaks: {command}"),
        Some(host) => format!("If it breaks: ssh root@{host} {command}"),
        None => format!("If it breaks: {command}"),
    })
}

fn unverified(asked: &Asked, outcome: &Outcome, here: Option<&Here>) -> Told {
    let line = format!("r{} is live, but that could not be verified: {}", outcome.serving, seen(outcome, here));
    let told = Told::new(Exit::Unverified).result(Tone::Warn, line).messages(Tone::Dim, instead(here));
    problem(told, outcome.problem.as_ref())
        .messages(Tone::Warn, downtimes(outcome))
        .messages(Tone::Plain, emergency(asked, outcome))
}

fn not_yet_served(asked: &Asked, outcome: &Outcome) -> Told {
    let what = match outcome.release {
        0 => format!("The {}", asked.kind),
        release => format!("r{release}"),
    };
    let line = format!("{what} is committed, but not yet served. The server goes on trying.");
    problem(Told::new(Exit::NotYetServed).result(Tone::Warn, line), outcome.problem.as_ref())
        .messages(Tone::Warn, downtimes(outcome))
}

fn given_up(asked: &Asked, outcome: &Outcome, how: &str) -> Told {
    let line = format!("{} {how}. {}", subject(asked, outcome), untouched(asked, outcome));
    let told = Told::new(Exit::Cancelled).message(Tone::Warn, line);
    problem(told, outcome.problem.as_ref()).messages(Tone::Warn, downtimes(outcome))
}

fn failed(asked: &Asked, outcome: &Outcome) -> Told {
    let line = match asked.kind.as_str() {
        "deploy" | "rollback" | "activate" | "restart" | "env" | "" => {
            format!("{} did not go live. {}", subject(asked, outcome), untouched(asked, outcome))
        }
        kind => format!("The {kind} failed. {}", serving_now(asked, outcome)),
    };
    problem(Told::new(Exit::Failed).message(Tone::Bad, line), outcome.problem.as_ref())
        .messages(Tone::Warn, downtimes(outcome))
}

/// What this was about: a release, or what was asked for when none was made.
fn subject(asked: &Asked, outcome: &Outcome) -> String {
    match (outcome.release, asked.kind.as_str()) {
        (0, "env") => "The change of the environment".to_owned(),
        (0, "") => "The deployment".to_owned(),
        (0, kind) => format!("The {kind}"),
        (release, "restart") => format!("The restart of r{release}"),
        (release, _) => format!("r{release}"),
    }
}

/// "r6 still serves; 0 visitors saw r7."
fn untouched(asked: &Asked, outcome: &Outcome) -> String {
    let seen = match outcome.release {
        _ if asked.kind == "restart" => "it".to_owned(),
        0 => "it".to_owned(),
        release => format!("r{release}"),
    };
    format!("{}; 0 visitors saw {seen}.", serving_now(asked, outcome).trim_end_matches('.'))
}

fn serving_now(asked: &Asked, outcome: &Outcome) -> String {
    match (outcome.serving, asked.before) {
        (0, 0) => "Nothing served before.".to_owned(),
        (0, _) => "Nothing serves now.".to_owned(),
        (serving, _) => format!("r{serving} still serves."),
    }
}

fn done(asked: &Asked, outcome: &Outcome) -> Told {
    let app = &asked.app;
    let told = Told::new(Exit::Done);
    let told = match asked.kind.as_str() {
        _ if asked.dry_run => told.message(Tone::Dim, "That was a dry run: nothing changed."),
        "deploy" => told
            .result(Tone::Good, format!("r{} is made and does not serve.", outcome.release))
            .message(Tone::Plain, format!("Make it serve: refloat activate {app} r{}", outcome.release)),
        "env" if outcome.release == 0 => told.result(Tone::Good, "Kept for the first deploy."),
        "env" if asked.only_made => told
            .result(
                Tone::Good,
                format!("r{} is made and does not serve; the next deploy has the values too.", outcome.release),
            )
            .message(Tone::Plain, format!("Make it serve: refloat activate {app} r{}", outcome.release)),
        "env" => told.result(Tone::Good, "The environment is changed."),
        "stop" => told
            .result(Tone::Good, format!("{app} is stopped; its data stays."))
            .message(Tone::Plain, format!("Start it again: refloat restart {app}")),
        "destroy" if asked.volumes => told.result(Tone::Good, format!("{app} is gone, and its volumes with it.")),
        "destroy" => told.result(Tone::Good, format!("{app} is gone; its volumes stay.")),
        "domains" if outcome.addresses.is_empty() => {
            told.result(Tone::Good, format!("The domains of {app} are changed. It answers there once it serves."))
        }
        "domains" => told.result(Tone::Good, format!("{app} answers at: {}", addresses(outcome))),
        _ => told.result(Tone::Good, "Done."),
    };
    told.messages(Tone::Warn, downtimes(outcome))
}

/// Cause, the app's last lines, what is still fine, one command.
fn problem(told: Told, problem: Option<&Problem>) -> Told {
    let Some(problem) = problem else { return told };
    let from = problem.lines.len().saturating_sub(MAX_LINES);
    let lines = problem.lines[from..].iter().map(|line| format!("  {}", clean(line)));
    let next = match problem.next_command.as_str() {
        "" => String::new(),
        command => format!("Next: {}", clean(command)),
    };
    told.message(Tone::Plain, clean(&problem.message)).messages(Tone::Dim, lines).message(Tone::Plain, next)
}

#[cfg(test)]
mod tests {
    use refloat_proto::v1::{Downtime, Timing};

    use super::*;

    fn asked(kind: &str, before: u32) -> Asked {
        Asked {
            kind: kind.to_owned(),
            app: "shop".to_owned(),
            before,
            host: Some("vps".to_owned()),
            ..Asked::default()
        }
    }

    fn outcome(kind: OutcomeKind, release: u32, serving: u32) -> Outcome {
        Outcome { kind: kind.into(), release, serving, ..Outcome::default() }
    }

    fn text(told: &Told) -> Vec<&str> {
        told.lines.iter().map(|line| line.text.as_str()).collect()
    }

    fn first(asked: &Asked, outcome: &Outcome) -> String {
        tell(asked, outcome, None, Duration::from_millis(38)).lines[0].text.clone()
    }

    #[test]
    fn a_failed_deploy_says_first_what_still_serves_and_that_nobody_saw_it() {
        for (kind, release, serving, before, line) in [
            ("deploy", 7, 6, 6, "r7 did not go live. r6 still serves; 0 visitors saw r7."),
            ("deploy", 0, 6, 6, "The deploy did not go live. r6 still serves; 0 visitors saw it."),
            ("deploy", 1, 0, 0, "r1 did not go live. Nothing served before; 0 visitors saw r1."),
            ("deploy", 0, 0, 0, "The deploy did not go live. Nothing served before; 0 visitors saw it."),
            ("deploy", 2, 0, 1, "r2 did not go live. Nothing serves now; 0 visitors saw r2."),
            ("rollback", 5, 6, 6, "r5 did not go live. r6 still serves; 0 visitors saw r5."),
            ("env", 0, 6, 6, "The change of the environment did not go live. r6 still serves; 0 visitors saw it."),
            ("restart", 6, 6, 6, "The restart of r6 did not go live. r6 still serves; 0 visitors saw it."),
            ("stop", 0, 6, 6, "The stop failed. r6 still serves."),
        ] {
            let outcome = outcome(OutcomeKind::Failed, release, serving);
            assert_eq!(first(&asked(kind, before), &outcome), line);
        }
    }

    #[test]
    fn a_failure_goes_on_with_cause_evidence_downtime_and_one_command() {
        let lines = (1..=25).map(|n| format!("line {n}")).collect();
        let problem = Problem {
            message: "web ended with exit code 1.".to_owned(),
            next_command: "refloat logs shop --release r7".to_owned(),
            lines,
            ..Problem::default()
        };
        let downtimes = vec![Downtime { process: "web".to_owned(), duration_ms: 3200 }];
        let outcome = Outcome { problem: Some(problem), downtimes, ..outcome(OutcomeKind::Failed, 7, 6) };
        let told = tell(&asked("deploy", 6), &outcome, None, Duration::ZERO);
        let text = text(&told);
        assert_eq!(told.exit, Exit::Failed);
        assert_eq!(text[1], "web ended with exit code 1.");
        assert_eq!((text[2], text[21]), ("  line 6", "  line 25"));
        assert_eq!(text[22..], ["Next: refloat logs shop --release r7", "web was down for 3.2 s"]);
    }

    #[test]
    fn a_rollback_says_how_long_it_took_here_and_there() {
        let timings = vec![Timing { what: "server".to_owned(), duration_us: 12_000 }];
        let outcome = Outcome { timings, ..outcome(OutcomeKind::Live, 1, 1) };
        assert_eq!(first(&asked("rollback", 2), &outcome), "r1 serves again (took 38 ms; 12 ms on the server)");
    }

    #[test]
    fn what_is_live_but_not_from_here_is_unverified() {
        let address = "http://192.0.2.1/".to_owned();
        let fetched = vec![Fetched { address: address.clone(), status: 200, duration_us: 3000, ..Fetched::default() }];
        let outcome = Outcome { addresses: vec![address.clone()], fetched, ..outcome(OutcomeKind::Live, 2, 2) };
        let here = |seen| Here { address: address.clone(), seen, instead: None };
        let fine = here(Seen::Answered { status: 200, duration_us: 12_000 });
        let told = tell(&asked("deploy", 1), &outcome, Some(&fine), Duration::ZERO);
        assert_eq!(told.exit, Exit::Done);
        assert_eq!(
            text(&told),
            [
                "r2 is live: http://192.0.2.1/ (200 from here in 12 ms, 200 from the server in 3 ms)",
                "If it breaks: ssh root@vps refloat rollback shop"
            ]
        );
        let dead = here(Seen::Nothing { error: "connection refused".to_owned() });
        let told = tell(&asked("deploy", 1), &outcome, Some(&dead), Duration::ZERO);
        assert_eq!(told.exit, Exit::Unverified);
        assert_eq!(
            text(&told)[0],
            "r2 is live, but not as seen from here: http://192.0.2.1/ \
             (no answer from here: connection refused, 200 from the server in 3 ms)"
        );
    }

    #[test]
    fn every_kind_of_outcome_has_its_code() {
        for (kind, exit) in [
            (OutcomeKind::Live, Exit::Done),
            (OutcomeKind::LiveUnverified, Exit::Unverified),
            (OutcomeKind::CommittedNotServed, Exit::NotYetServed),
            (OutcomeKind::Failed, Exit::Failed),
            (OutcomeKind::Unspecified, Exit::Failed),
            (OutcomeKind::Cancelled, Exit::Cancelled),
            (OutcomeKind::Superseded, Exit::Cancelled),
            (OutcomeKind::Unchanged, Exit::Done),
            (OutcomeKind::Done, Exit::Done),
        ] {
            assert_eq!(tell(&asked("deploy", 1), &outcome(kind, 2, 1), None, Duration::ZERO).exit, exit, "{kind:?}");
        }
    }
}

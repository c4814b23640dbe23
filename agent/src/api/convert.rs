//! Wire and domain, converted in one place: what comes in is checked here, what goes out is named here.

use std::collections::BTreeMap;

use refloat_model::{
    Activation, AppName, Backend, Change, DeploymentId, Generation, HostName, Origin, Outcome, Principal, Process,
    ProcessKind, ProcessName, ReleaseNumber, ReleaseRecord, SourceDigest,
};
use refloat_proto::v1 as wire;
use tonic::Status;

use super::status;
use crate::deploy::request::{Ask, Submit};
use crate::deploy::update::{Accepted, Fetched, Numbered, Report, Update};
use crate::docker::Secrets;

const MAX_REASON_CHARS: usize = 500;
const MAX_TEXT_CHARS: usize = 200;
const MAX_VARIABLES: usize = 500;
const MAX_VARIABLE_NAME_BYTES: usize = 128;
/// Linux refuses a longer single string of a new program's environment.
const MAX_VARIABLE_VALUE_BYTES: usize = 128 * 1024 - 256;
const MAX_DOMAINS: usize = 100;
const GIT_COMMIT_DIGITS: usize = 40;

// ---- from the wire ------------------------------------------------------------------------------------------------

/// A mutation's key and reason.
///
/// # Errors
/// When there is no key, or it is no UUID, or the reason is too long.
pub fn mutation(given: Option<wire::Mutation>) -> Result<(DeploymentId, String), Status> {
    let given = given.ok_or_else(|| status::invalid("the request has no idempotency key"))?;
    let key = &given.idempotency_key;
    let id = (key.len() == 36).then(|| DeploymentId::parse(key)).flatten();
    let id = id.ok_or_else(|| status::invalid("the idempotency key is not a UUID"))?;
    if given.reason.chars().count() > MAX_REASON_CHARS {
        return Err(status::invalid(format!("the reason is longer than {MAX_REASON_CHARS} characters")));
    }
    Ok((id, given.reason))
}

/// An app's name; empty stands for the only app.
///
/// # Errors
/// When it is no name of an app.
pub fn app(given: &str) -> Result<Option<AppName>, Status> {
    optional(given, AppName::new)
}

/// A process's name; empty stands for the usual one.
///
/// # Errors
/// When it is no name of a process.
pub fn process(given: &str) -> Result<Option<ProcessName>, Status> {
    optional(given, ProcessName::new)
}

fn optional<T>(
    given: &str,
    parse: impl FnOnce(String) -> Result<T, refloat_model::NameError>,
) -> Result<Option<T>, Status> {
    if given.is_empty() {
        return Ok(None);
    }
    parse(given.to_owned()).map(Some).map_err(|error| status::bad_name(&error))
}

/// A release's number; 0 stands for the usual one.
#[must_use]
pub fn release(number: u32) -> Option<ReleaseNumber> {
    (number > 0).then_some(ReleaseNumber(number))
}

/// 32 bytes.
///
/// # Errors
/// When there are more or fewer.
pub fn digest(given: &[u8], what: &str) -> Result<[u8; 32], Status> {
    given.try_into().map_err(|_| status::invalid(format!("{what} is not a digest of 32 bytes")))
}

/// A whole mutation.
///
/// # Errors
/// When a part of it cannot be used.
pub fn submit(given: Option<wire::Mutation>, app_name: &str, ask: Ask, by: &Principal) -> Result<Submit, Status> {
    let (id, reason) = mutation(given)?;
    Ok(Submit { app: app(app_name)?, id, ask, by: by.clone(), reason })
}

/// What a deploy asks for.
///
/// # Errors
/// When a digest cannot be used.
pub fn deploy(request: &mut wire::DeployRequest) -> Result<Ask, Status> {
    let local_plan = match request.local_plan.as_slice() {
        [] => None,
        bytes => Some(digest(bytes, "the local plan")?),
    };
    Ok(Ask::Deploy {
        source: SourceDigest(digest(&request.source, "the source")?),
        force: request.force,
        no_activate: request.no_activate,
        prebuilt: request.prebuilt,
        origin: origin(request.origin.take().unwrap_or_default()),
        local_plan,
    })
}

/// Where a source came from: text for people, so that it is cut and cleaned instead of refused.
fn origin(given: wire::Origin) -> Origin {
    let commit = given.git_commit.to_ascii_lowercase();
    let is_commit = commit.len() == GIT_COMMIT_DIGITS && commit.bytes().all(|b| b.is_ascii_hexdigit());
    Origin {
        host: printable(&given.host),
        git_commit: if is_commit { commit } else { String::new() },
        git_subject: printable(&given.git_subject),
        git_dirty: given.git_dirty,
        folder: printable(&given.folder),
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect()
}

/// What a change of domains asks for.
///
/// # Errors
/// When a name is no host name, or there are too many.
pub fn domains(add: &[String], remove: &[String]) -> Result<Ask, Status> {
    if add.len() + remove.len() > MAX_DOMAINS {
        return Err(status::invalid(format!("more than {MAX_DOMAINS} domains in one request")));
    }
    if add.is_empty() && remove.is_empty() {
        return Err(status::invalid("no domain was named"));
    }
    let hosts = |names: &[String]| {
        let host = |name: &String| HostName::new(name).map_err(|error| status::bad_name(&error));
        names.iter().map(host).collect::<Result<Vec<_>, _>>()
    };
    Ok(Ask::Domains { add: hosts(add)?, remove: hosts(remove)? })
}

/// What a change of the environment asks for. No message ever says anything of a value.
///
/// # Errors
/// When a name or value cannot be used, or there are too many.
pub fn env(set: Vec<wire::EnvValue>, unset: Vec<String>, no_deploy: bool) -> Result<Ask, Status> {
    if set.len() + unset.len() > MAX_VARIABLES {
        return Err(status::invalid(format!("more than {MAX_VARIABLES} variables in one request")));
    }
    if set.is_empty() && unset.is_empty() {
        return Err(status::invalid("no variable was named"));
    }
    let mut values = BTreeMap::new();
    for wire::EnvValue { name, value } in set {
        check_variable(&name)?;
        if value.len() > MAX_VARIABLE_VALUE_BYTES || value.contains('\0') {
            let message =
                format!("the value of {name} is longer than {MAX_VARIABLE_VALUE_BYTES} bytes or has a zero byte");
            return Err(status::invalid(message));
        }
        if values.insert(name.clone(), value).is_some() {
            return Err(status::invalid(format!("{name} is set twice")));
        }
    }
    for name in &unset {
        check_variable(name)?;
        if values.contains_key(name) {
            return Err(status::invalid(format!("{name} is both set and unset")));
        }
    }
    Ok(Ask::Env { set: Secrets(values), unset, no_deploy })
}

fn check_variable(name: &str) -> Result<(), Status> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if first && rest && name.len() <= MAX_VARIABLE_NAME_BYTES {
        return Ok(());
    }
    let shown: String = printable(name).chars().take(60).collect();
    Err(status::invalid(format!(
        "\"{shown}\" cannot be the name of a variable: use letters, digits and \"_\", not starting with a digit"
    )))
}

// ---- to the wire --------------------------------------------------------------------------------------------------

/// One update of a deployment.
#[must_use]
pub fn event(numbered: Numbered) -> wire::DeploymentEvent {
    wire::DeploymentEvent {
        sequence: numbered.sequence,
        at_unix_ms: numbered.at_ms,
        event: Some(update(numbered.update)),
    }
}

fn update(update: Update) -> wire::deployment_event::Event {
    use wire::deployment_event::Event;
    match update {
        Update::Accepted(it) => Event::Accepted(accepted(it)),
        Update::Phase(phase, detail) => Event::Phase(wire::PhaseChanged { phase: phase.word().to_owned(), detail }),
        Update::Progress { what, done, total, unit } => {
            Event::Progress(wire::Progress { what, done, total, unit: unit.to_owned() })
        }
        Update::Output { source, process, line } => {
            Event::Output(wire::OutputLine { source: source.to_owned(), process, line })
        }
        Update::Note { warn, text } => {
            Event::Note(wire::Note { level: if warn { "warn" } else { "info" }.to_owned(), text })
        }
        Update::Ended(report) => Event::Outcome(outcome(*report)),
    }
}

fn accepted(it: Accepted) -> wire::Accepted {
    wire::Accepted {
        deployment: it.deployment.to_string(),
        app: it.app.to_string(),
        kind: it.kind.to_owned(),
        serving: number(it.serving),
        target: number(it.target),
        cancelled: it.cancelled.map(|id| id.to_string()).unwrap_or_default(),
        undoes: it.undoes.into_iter().map(change).collect(),
    }
}

fn outcome(report: Report) -> wire::Outcome {
    let (kind, problem) = kind_and_problem(report.outcome, &report.still_fine);
    wire::Outcome {
        kind: kind.into(),
        serving: number(report.serving),
        release: number(report.release),
        problem,
        addresses: report.addresses,
        fetched: report.fetched.into_iter().map(fetched).collect(),
        timings: report.timings.into_iter().map(|(what, took)| wire::Timing { what, duration_us: us(took) }).collect(),
        downtimes: report
            .downtimes
            .into_iter()
            .map(|(process, took)| wire::Downtime { process: process.to_string(), duration_ms: us(took) / 1_000 })
            .collect(),
        undone: report.undone.into_iter().map(change).collect(),
        emergency: report.emergency,
        generation: Some(generation(report.generation)),
    }
}

fn kind_and_problem(outcome: Outcome, still_fine: &str) -> (wire::OutcomeKind, Option<wire::Problem>) {
    use wire::OutcomeKind as Kind;
    let problem = |reason: &str, message: String, next_command: &str, lines| {
        Some(wire::Problem {
            reason: reason.to_owned(),
            still_fine: still_fine.to_owned(),
            next_command: next_command.to_owned(),
            lines,
            message,
        })
    };
    match outcome {
        Outcome::Live => (Kind::Live, None),
        Outcome::LiveUnverified(why) => (Kind::LiveUnverified, problem("UNVERIFIED", why, "refloat status", vec![])),
        Outcome::CommittedNotServed(why) => {
            (Kind::CommittedNotServed, problem("NOT_SERVED_YET", why, "refloat status", vec![]))
        }
        Outcome::Failed(failure) => {
            let it = problem(&failure.reason, failure.message, &failure.next_command, failure.lines);
            (Kind::Failed, it)
        }
        Outcome::Cancelled { by } => {
            (Kind::Cancelled, problem("CANCELLED", format!("It was cancelled by {by}."), "", vec![]))
        }
        Outcome::Superseded { by } => {
            let message = format!("A newer deployment ({by}) took its place in the queue.");
            (Kind::Superseded, problem("SUPERSEDED", message, "", vec![]))
        }
        Outcome::Unchanged => (Kind::Unchanged, None),
        Outcome::Done => (Kind::Done, None),
    }
}

fn fetched(it: Fetched) -> wire::Fetched {
    let (status, error) = match it.result {
        Ok(status) => (u32::from(status), String::new()),
        Err(error) => (0, error),
    };
    wire::Fetched { address: it.address, status, duration_us: us(it.took), error }
}

fn us(took: std::time::Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// A release's number, 0 for none.
#[must_use]
pub fn number(release: Option<ReleaseNumber>) -> u32 {
    release.map_or(0, |number| number.0)
}

/// A difference.
#[must_use]
pub fn change(it: Change) -> wire::Change {
    wire::Change { what: it.what.to_owned(), text: it.text }
}

/// A generation.
#[must_use]
pub fn generation(it: Generation) -> wire::Generation {
    wire::Generation { epoch: it.epoch.0, number: it.number }
}

/// A release for a list. `parent` is looked up by the caller, who has the list.
#[must_use]
pub fn summary(
    record: &ReleaseRecord,
    serving: Option<ReleaseNumber>,
    parent: Option<ReleaseNumber>,
    standby: &str,
) -> wire::ReleaseSummary {
    wire::ReleaseSummary {
        number: record.number.0,
        id: record.identity.id.0.to_vec(),
        created_at_unix_ms: record.meta.created_at_ms,
        author: record.release.author.0.clone(),
        origin: Some(origin_out(&record.meta.origin)),
        changes: record.meta.changes.iter().map(|line| recorded_change(line)).collect(),
        parent: number(parent),
        build_ms: record.meta.build_ms,
        serves: serving == Some(record.number),
        standby: standby.to_owned(),
        activated_at_unix_ms: record.activations.last().map_or(0, |activation| activation.at_ms),
        kind: record.meta.kind.clone(),
        first_took_ms: record.first_took_ms,
    }
}

fn origin_out(it: &Origin) -> wire::Origin {
    wire::Origin {
        host: it.host.clone(),
        git_commit: it.git_commit.clone(),
        git_subject: it.git_subject.clone(),
        git_dirty: it.git_dirty,
        folder: it.folder.clone(),
    }
}

/// The record keeps a difference as its sentence; its kind stands before the colon.
fn recorded_change(text: &str) -> wire::Change {
    let what = match text.split_once(':') {
        Some(("env", _)) => "env",
        _ if text.starts_with("process ") => "processes",
        Some((_, rest)) if rest.trim() == "routes" => "routes",
        Some((_, rest)) if rest.trim() == "volumes" => "volumes",
        Some((_, rest)) if rest.trim_start().starts_with("limits") => "resources",
        Some((_, rest)) if rest.trim() == "settings" => "processes",
        _ => "code",
    };
    wire::Change { what: what.to_owned(), text: text.to_owned() }
}

/// A time at which a release began to serve.
#[must_use]
pub fn activation(it: &Activation) -> wire::ActivationView {
    wire::ActivationView {
        at_unix_ms: it.at_ms,
        by: it.by.name.clone(),
        from: it.by.from.clone(),
        reason: it.reason.clone(),
        kind: it.kind.clone(),
        generation: Some(generation(it.generation)),
        took_ms: it.took_ms,
    }
}

/// A process of a release.
#[must_use]
pub fn process_view(it: &Process) -> wire::ProcessView {
    let (backend, digest, port) = match &it.backend {
        Backend::Instance { image, port, .. } => ("instance", image.to_string(), *port),
        Backend::Files { tree, .. } => ("files", tree.to_string(), 0),
    };
    wire::ProcessView {
        name: it.name.to_string(),
        kind: kind_word(it.kind).to_owned(),
        exclusive: it.exclusive,
        backend: backend.to_owned(),
        digest,
        port: u32::from(port),
        routes: it.routes.iter().map(ToString::to_string).collect(),
        volumes: it.volumes.iter().map(|volume| format!("{} at {}", volume.name, volume.path)).collect(),
        memory_mib: it.resources.memory_mib,
        health: health_text(it),
        capabilities: given_back(&it.backend),
    }
}

fn given_back(backend: &Backend) -> Vec<String> {
    match backend {
        Backend::Instance { capabilities, .. } => capabilities.iter().map(|c| c.name().to_owned()).collect(),
        Backend::Files { .. } => Vec::new(),
    }
}

fn kind_word(kind: ProcessKind) -> &'static str {
    match kind {
        ProcessKind::Web => "web",
        ProcessKind::Worker => "worker",
        ProcessKind::Cron => "cron",
    }
}

fn health_text(process: &Process) -> String {
    let seconds = process.health.start_timeout_ms / 1_000;
    match (&process.backend, &process.health.path) {
        (Backend::Files { .. }, _) => String::new(),
        (Backend::Instance { port: 0, .. }, _) => format!("runs, within {seconds} s"),
        (Backend::Instance { .. }, Some(path)) => format!("GET {path} below 400, within {seconds} s"),
        (Backend::Instance { .. }, None) => format!("the port answers, within {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0a1b2c3d-0000-4000-8000-0123456789ab";

    fn with_key(key: &str) -> Option<wire::Mutation> {
        Some(wire::Mutation { idempotency_key: key.into(), reason: String::new(), client: String::new() })
    }

    fn value(name: &str, value: &str) -> wire::EnvValue {
        wire::EnvValue { name: name.into(), value: value.into() }
    }

    #[test]
    fn a_mutation_needs_a_uuid() {
        assert_eq!(mutation(with_key(KEY)).unwrap().0.to_string(), KEY);
        for bad in ["", "x", "0a1b2c3d00004000800000123456789ab", &KEY.replace('0', "g")] {
            assert_eq!(mutation(with_key(bad)).unwrap_err().message(), "the idempotency key is not a UUID");
        }
        assert!(mutation(None).is_err());
    }

    #[test]
    fn names_of_variables_are_checked_and_no_refusal_says_a_value() {
        assert!(env(vec![value("A_1", "x")], vec!["B".into()], false).is_ok());
        let secret = "hunter2\0";
        for (set, unset) in [
            (vec![value("1A", secret)], vec![]),
            (vec![value("", secret)], vec![]),
            (vec![value("A B", secret)], vec![]),
            (vec![value("A", secret)], vec![]),
            (vec![value("A", "hunter2"), value("A", "hunter2")], vec![]),
            (vec![value("A", "hunter2")], vec!["A".to_owned()]),
            (vec![], vec!["A-B".to_owned()]),
            (vec![], vec![]),
        ] {
            let refused = env(set, unset, false).unwrap_err();
            assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
        }
    }

    #[test]
    fn what_is_for_people_is_cleaned_and_cut() {
        let given = wire::Origin {
            git_subject: format!("fix\u{1b}[31m{}", "x".repeat(500)),
            git_commit: "not a commit".into(),
            ..wire::Origin::default()
        };
        let read = origin(given);
        assert_eq!(read.git_commit, "");
        assert_eq!((read.git_subject.chars().count(), read.git_subject.contains('\u{1b}')), (200, false));
    }

    #[test]
    fn every_difference_that_the_model_words_keeps_its_kind() {
        for (text, what) in [
            ("the code", "code"),
            ("env: STRIPE_KEY changed", "env"),
            ("process worker added", "processes"),
            ("web: routes", "routes"),
            ("web: volumes", "volumes"),
            ("web: limits (memory 512 MiB, then 256 MiB)", "resources"),
            ("web: settings", "processes"),
        ] {
            assert_eq!(recorded_change(text).what, what, "{text}");
        }
    }

    #[test]
    fn a_failure_carries_its_evidence_and_what_is_still_fine() {
        let failure = refloat_model::Failure {
            reason: "UNHEALTHY".into(),
            message: "web did not answer".into(),
            next_command: "refloat logs a".into(),
            lines: vec!["boom".into()],
        };
        let (kind, problem) = kind_and_problem(Outcome::Failed(failure), "r6 still serves");
        let problem = problem.unwrap();
        assert_eq!((kind, problem.still_fine.as_str()), (wire::OutcomeKind::Failed, "r6 still serves"));
        assert_eq!((problem.reason.as_str(), problem.lines.len()), ("UNHEALTHY", 1));
    }
}

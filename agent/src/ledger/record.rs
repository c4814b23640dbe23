//! The one file that turns a model [`Entry`] into the ledger's [`Record`] and back.
//!
//! Reading refuses whatever writing would not have produced: a missing field, a name that is no name, a number out of
//! range. Some facts are in a record once though the model holds them twice: who asked for a deployment and when it was
//! accepted are the record's own author and time. The journal therefore folds what was *read back*, never what was
//! handed in, so that a store that was kept and a store that was rebuilt are equal.

use refloat_model::{
    Action, AppName, AppRoutes, Canonical, DeployAction, Deployment, DeploymentId, Entry, EnvId, EnvVariable, Epoch,
    Event, Failure, Generation, HostName, InstanceName, InstanceRecord, OneOff, OneOffEnd, OneOffId, Origin, Outcome,
    Principal, ProcessName, Release, ReleaseMeta, ReleaseNumber, SourceDigest, TableDigest, Via,
};
use refloat_proto::ledger::v1 as wire;
use wire::record::Event as WireEvent;

/// Why a record cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record's {field} {problem}")]
pub struct RecordError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A fact.
    Entry(Box<Entry>),
    /// The beginning of a segment.
    Checkpoint {
        /// The ledger's epoch.
        epoch: Epoch,
        /// Number of the segment.
        segment: u64,
    },
}

/// Writes an entry as the record with this sequence number.
///
/// # Errors
/// When the entry holds what a record cannot say.
pub fn from_entry(sequence: u64, entry: &Entry) -> Result<wire::Record, RecordError> {
    let record = wire::Record {
        sequence,
        at_unix_ms: entry.at_ms,
        by: Some(from_principal(&entry.by)),
        event: Some(from_event(entry)?),
    };
    // What would be refused on reading is refused now, before it is durable.
    to_content(&record)?;
    Ok(record)
}

/// Writes the first record of a segment.
#[must_use]
pub fn from_checkpoint(sequence: u64, at_ms: u64, epoch: Epoch, segment: u64) -> wire::Record {
    wire::Record {
        sequence,
        at_unix_ms: at_ms,
        by: Some(from_principal(&Principal::agent())),
        event: Some(WireEvent::Checkpoint(wire::Checkpoint { epoch: epoch.0, segment })),
    }
}

/// Reads a record.
///
/// # Errors
/// When it is malformed.
pub fn to_content(record: &wire::Record) -> Result<Content, RecordError> {
    let by = to_principal(record.by.as_ref().ok_or_else(|| missing("by"))?)?;
    let event = record.event.as_ref().ok_or_else(|| missing("event"))?;
    if let WireEvent::Checkpoint(checkpoint) = event {
        return Ok(Content::Checkpoint { epoch: Epoch(checkpoint.epoch), segment: checkpoint.segment });
    }
    let event = to_event(event, &by, record.at_unix_ms)?;
    Ok(Content::Entry(Box::new(Entry { at_ms: record.at_unix_ms, by, event })))
}

fn missing(field: &'static str) -> RecordError {
    RecordError { field, problem: "is missing".to_owned() }
}

fn bad(field: &'static str, problem: impl Into<String>) -> RecordError {
    RecordError { field, problem: problem.into() }
}

fn from_event(entry: &Entry) -> Result<WireEvent, RecordError> {
    Ok(match &entry.event {
        Event::HostInitialised { host_id, epoch } => {
            WireEvent::HostInitialised(wire::HostInitialised { host_id: host_id.to_vec(), epoch: epoch.0 })
        }
        Event::ClientPaired { serial, name, role, not_after_ms } => WireEvent::ClientPaired(wire::ClientPaired {
            serial: serial.clone(),
            name: name.clone(),
            role: role.clone(),
            not_after_unix_ms: *not_after_ms,
        }),
        Event::AppCreated { app, subnet } => {
            WireEvent::AppCreated(wire::AppCreated { app: app.to_string(), subnet: u32::from(*subnet) })
        }
        Event::DeploymentAccepted { app, deployment } => {
            WireEvent::DeploymentAccepted(from_accepted(app, deployment, entry)?)
        }
        Event::DeploymentResumed { app, deployment } => WireEvent::DeploymentResumed(wire::DeploymentResumed {
            app: app.to_string(),
            deployment: deployment.0.to_vec(),
        }),
        Event::ReleaseCreated { deployment, number, release, meta } => {
            WireEvent::ReleaseCreated(from_release(*deployment, *number, release, meta))
        }
        Event::InstancePlanned { app, instance } => WireEvent::InstancePlanned(from_instance(app, instance)),
        Event::InstanceRemoved { app, instance } => {
            WireEvent::InstanceRemoved(wire::InstanceRemoved { app: app.to_string(), instance: instance.to_string() })
        }
        Event::HandoverBegan { app, deployment, process } => WireEvent::HandoverBegan(wire::HandoverBegan {
            app: app.to_string(),
            deployment: deployment.0.to_vec(),
            process: process.to_string(),
        }),
        Event::HandoverEnded { app, deployment, process, completed } => WireEvent::HandoverEnded(wire::HandoverEnded {
            app: app.to_string(),
            deployment: deployment.0.to_vec(),
            process: process.to_string(),
            completed: *completed,
        }),
        Event::RoutesCommitted { app, deployment, activates, routes, generation, table } => {
            WireEvent::RoutesCommitted(wire::RoutesCommitted {
                app: app.to_string(),
                deployment: deployment.0.to_vec(),
                activates: from_optional_number(*activates),
                routes: routes.as_ref().map(Canonical::to_canonical).unwrap_or_default(),
                epoch: generation.epoch.0,
                generation: generation.number,
                table: table.0.to_vec(),
            })
        }
        Event::DomainsSet { app, domains } => {
            WireEvent::DomainsSet(wire::DomainsSet { app: app.to_string(), domains: texts(domains) })
        }
        Event::EnvSealed { app, env, variables } => WireEvent::EnvSealed(wire::EnvSealed {
            app: app.to_string(),
            env: env.0.to_vec(),
            variables: variables.iter().map(from_variable).collect(),
        }),
        Event::DeploymentEnded { app, deployment, outcome } => WireEvent::DeploymentEnded(wire::DeploymentEnded {
            app: app.to_string(),
            deployment: deployment.0.to_vec(),
            outcome: Some(from_outcome(outcome)),
        }),
        Event::AppDestroyed { app } => WireEvent::AppDestroyed(wire::AppDestroyed { app: app.to_string() }),
        Event::OneOffBegan { app, one_off } => WireEvent::OneOffBegan(wire::OneOffBegan {
            app: app.to_string(),
            one_off: one_off.id.0.to_vec(),
            release: one_off.release.0,
            process: one_off.process.to_string(),
            program: one_off.program.clone(),
            arguments: one_off.arguments,
            reason: one_off.reason.clone(),
        }),
        Event::OneOffEnded { app, id, end } => WireEvent::OneOffEnded(wire::OneOffEnded {
            app: app.to_string(),
            one_off: id.0.to_vec(),
            end: Some(match end {
                OneOffEnd::Exited(code) => wire::one_off_ended::End::ExitCode(*code),
                OneOffEnd::Cut(why) => wire::one_off_ended::End::Cut(why.clone()),
            }),
        }),
    })
}

fn to_event(event: &WireEvent, by: &Principal, at_ms: u64) -> Result<Event, RecordError> {
    Ok(match event {
        WireEvent::HostInitialised(e) => {
            Event::HostInitialised { host_id: array("host_id", &e.host_id)?, epoch: Epoch(e.epoch) }
        }
        WireEvent::ClientPaired(e) => Event::ClientPaired {
            serial: e.serial.clone(),
            name: e.name.clone(),
            role: e.role.clone(),
            not_after_ms: e.not_after_unix_ms,
        },
        WireEvent::AppCreated(e) => Event::AppCreated { app: to_app(&e.app)?, subnet: narrow("subnet", e.subnet)? },
        WireEvent::DeploymentAccepted(e) => {
            Event::DeploymentAccepted { app: to_app(&e.app)?, deployment: to_accepted(e, by, at_ms)? }
        }
        WireEvent::DeploymentResumed(e) => {
            Event::DeploymentResumed { app: to_app(&e.app)?, deployment: to_deployment_id(&e.deployment)? }
        }
        WireEvent::ReleaseCreated(e) => to_release(e)?,
        WireEvent::InstancePlanned(e) => Event::InstancePlanned { app: to_app(&e.app)?, instance: to_instance(e)? },
        WireEvent::InstanceRemoved(e) => {
            Event::InstanceRemoved { app: to_app(&e.app)?, instance: to_instance_name(&e.instance)? }
        }
        WireEvent::HandoverBegan(e) => Event::HandoverBegan {
            app: to_app(&e.app)?,
            deployment: to_deployment_id(&e.deployment)?,
            process: to_process(&e.process)?,
        },
        WireEvent::HandoverEnded(e) => Event::HandoverEnded {
            app: to_app(&e.app)?,
            deployment: to_deployment_id(&e.deployment)?,
            process: to_process(&e.process)?,
            completed: e.completed,
        },
        WireEvent::RoutesCommitted(e) => to_commit(e)?,
        WireEvent::DomainsSet(e) => {
            Event::DomainsSet { app: to_app(&e.app)?, domains: ascending("domains", to_hosts(&e.domains)?)? }
        }
        WireEvent::EnvSealed(e) => to_env(e)?,
        WireEvent::DeploymentEnded(e) => Event::DeploymentEnded {
            app: to_app(&e.app)?,
            deployment: to_deployment_id(&e.deployment)?,
            outcome: to_outcome(e.outcome.as_ref().ok_or_else(|| missing("outcome"))?)?,
        },
        WireEvent::AppDestroyed(e) => Event::AppDestroyed { app: to_app(&e.app)? },
        WireEvent::OneOffBegan(e) => Event::OneOffBegan { app: to_app(&e.app)?, one_off: to_one_off(e)? },
        WireEvent::OneOffEnded(e) => Event::OneOffEnded {
            app: to_app(&e.app)?,
            id: OneOffId(array("one_off", &e.one_off)?),
            end: match e.end.as_ref().ok_or_else(|| missing("end"))? {
                wire::one_off_ended::End::ExitCode(code) => OneOffEnd::Exited(*code),
                wire::one_off_ended::End::Cut(why) => OneOffEnd::Cut(why.clone()),
            },
        },
        WireEvent::Checkpoint(_) => return Err(bad("event", "is a checkpoint inside a segment")),
    })
}

fn to_one_off(e: &wire::OneOffBegan) -> Result<OneOff, RecordError> {
    Ok(OneOff {
        id: OneOffId(array("one_off", &e.one_off)?),
        release: to_number("release", e.release)?,
        process: to_process(&e.process)?,
        program: e.program.clone(),
        arguments: e.arguments,
        reason: e.reason.clone(),
    })
}

fn from_principal(by: &Principal) -> wire::Principal {
    use wire::principal::Via as W;
    let via = match &by.via {
        Via::Certificate(serial) => W::CertificateSerial(serial.clone()),
        Via::Socket(uid) => W::SocketUid(*uid),
        Via::Agent => W::Agent(true),
        Via::PairingCode => W::PairingCode(true),
    };
    wire::Principal { name: by.name.clone(), from: by.from.clone(), via: Some(via) }
}

fn to_principal(by: &wire::Principal) -> Result<Principal, RecordError> {
    use wire::principal::Via as W;
    let via = match by.via.as_ref().ok_or_else(|| missing("by.via"))? {
        W::CertificateSerial(serial) => Via::Certificate(serial.clone()),
        W::SocketUid(uid) => Via::Socket(*uid),
        W::Agent(set) => marker("by.agent", *set).map(|()| Via::Agent)?,
        W::PairingCode(set) => marker("by.pairing_code", *set).map(|()| Via::PairingCode)?,
    };
    Ok(Principal { name: by.name.clone(), via, from: by.from.clone() })
}

fn from_accepted(
    app: &AppName,
    deployment: &Deployment,
    entry: &Entry,
) -> Result<wire::DeploymentAccepted, RecordError> {
    if deployment.by != entry.by {
        return Err(bad("by", "is not who asked for the deployment"));
    }
    if deployment.committed || !deployment.handovers.is_empty() || deployment.resumed != 0 {
        return Err(bad("deployment", "has already run when it is accepted"));
    }
    Ok(wire::DeploymentAccepted {
        app: app.to_string(),
        deployment: deployment.id.0.to_vec(),
        reason: deployment.reason.clone(),
        serving_before: from_optional_number(deployment.serving_before),
        action: Some(from_action(&deployment.action)),
    })
}

fn to_accepted(e: &wire::DeploymentAccepted, by: &Principal, at_ms: u64) -> Result<Deployment, RecordError> {
    let action = to_action(e.action.as_ref().ok_or_else(|| missing("action"))?)?;
    Ok(Deployment {
        id: to_deployment_id(&e.deployment)?,
        by: by.clone(),
        reason: e.reason.clone(),
        accepted_at_ms: at_ms,
        serving_before: to_optional_number(e.serving_before),
        release: action.target(),
        action,
        committed: false,
        handovers: Vec::new(),
        resumed: 0,
    })
}

fn from_action(action: &Action) -> wire::deployment_accepted::Action {
    use wire::deployment_accepted::Action as W;
    match action {
        Action::Deploy(deploy) => W::Deploy(wire::Deploy {
            source: deploy.source.0.to_vec(),
            force: deploy.force,
            no_activate: deploy.no_activate,
            prebuilt: deploy.prebuilt,
            origin: Some(from_origin(&deploy.origin)),
        }),
        Action::Rollback(number) => W::RollbackTo(number.0),
        Action::Activate(number) => W::Activate(number.0),
        Action::ChangeEnv { env, no_activate, names } => {
            W::ChangeEnv(wire::ChangeEnv { env: env.0.to_vec(), no_activate: *no_activate, names: names.clone() })
        }
        Action::Restart => W::Restart(true),
        Action::Stop => W::Stop(true),
        Action::Destroy { volumes } => W::Destroy(wire::Destroy { volumes: *volumes }),
        Action::SetDomains(domains) => W::SetDomains(wire::SetDomains { domains: texts(domains) }),
    }
}

fn to_action(action: &wire::deployment_accepted::Action) -> Result<Action, RecordError> {
    use wire::deployment_accepted::Action as W;
    Ok(match action {
        W::Deploy(deploy) => Action::Deploy(DeployAction {
            source: SourceDigest(array("source", &deploy.source)?),
            force: deploy.force,
            no_activate: deploy.no_activate,
            prebuilt: deploy.prebuilt,
            origin: to_origin(deploy.origin.as_ref())?,
        }),
        W::RollbackTo(number) => Action::Rollback(to_number("rollback_to", *number)?),
        W::Activate(number) => Action::Activate(to_number("activate", *number)?),
        W::ChangeEnv(change) => Action::ChangeEnv {
            env: EnvId(array("env", &change.env)?),
            no_activate: change.no_activate,
            names: change.names.clone(),
        },
        W::Restart(set) => marker("restart", *set).map(|()| Action::Restart)?,
        W::Stop(set) => marker("stop", *set).map(|()| Action::Stop)?,
        W::Destroy(destroy) => Action::Destroy { volumes: destroy.volumes },
        W::SetDomains(set) => Action::SetDomains(to_hosts(&set.domains)?),
    })
}

fn from_origin(origin: &Origin) -> wire::Origin {
    wire::Origin {
        host: origin.host.clone(),
        git_commit: origin.git_commit.clone(),
        git_subject: origin.git_subject.clone(),
        git_dirty: origin.git_dirty,
        folder: origin.folder.clone(),
    }
}

fn to_origin(origin: Option<&wire::Origin>) -> Result<Origin, RecordError> {
    let origin = origin.ok_or_else(|| missing("origin"))?;
    Ok(Origin {
        host: origin.host.clone(),
        git_commit: origin.git_commit.clone(),
        git_subject: origin.git_subject.clone(),
        git_dirty: origin.git_dirty,
        folder: origin.folder.clone(),
    })
}

fn from_release(
    deployment: DeploymentId,
    number: ReleaseNumber,
    release: &Release,
    meta: &ReleaseMeta,
) -> wire::ReleaseCreated {
    wire::ReleaseCreated {
        deployment: deployment.0.to_vec(),
        number: number.0,
        release: release.to_canonical(),
        created_at_unix_ms: meta.created_at_ms,
        origin: Some(from_origin(&meta.origin)),
        build_ms: meta.build_ms,
        changes: meta.changes.clone(),
        kind: meta.kind.clone(),
        build_env: meta.build_env.clone(),
    }
}

fn to_release(e: &wire::ReleaseCreated) -> Result<Event, RecordError> {
    Ok(Event::ReleaseCreated {
        deployment: to_deployment_id(&e.deployment)?,
        number: to_number("number", e.number)?,
        release: Release::from_canonical(&e.release).map_err(|why| bad("release", format!("is unreadable: {why}")))?,
        meta: ReleaseMeta {
            created_at_ms: e.created_at_unix_ms,
            origin: to_origin(e.origin.as_ref())?,
            build_ms: e.build_ms,
            changes: e.changes.clone(),
            kind: e.kind.clone(),
            build_env: e.build_env.clone(),
        },
    })
}

fn from_instance(app: &AppName, instance: &InstanceRecord) -> wire::InstancePlanned {
    wire::InstancePlanned {
        app: app.to_string(),
        name: instance.name.to_string(),
        process: instance.process.to_string(),
        release: instance.release.0,
        spec: instance.spec.to_vec(),
        attempt: instance.attempt,
        ip: u32::from_be_bytes(instance.ip),
        port: u32::from(instance.port),
    }
}

fn to_instance(e: &wire::InstancePlanned) -> Result<InstanceRecord, RecordError> {
    Ok(InstanceRecord {
        name: to_instance_name(&e.name)?,
        process: to_process(&e.process)?,
        release: to_number("release", e.release)?,
        spec: array("spec", &e.spec)?,
        attempt: e.attempt,
        ip: e.ip.to_be_bytes(),
        port: narrow("port", e.port)?,
    })
}

fn to_commit(e: &wire::RoutesCommitted) -> Result<Event, RecordError> {
    let routes = match e.routes.as_slice() {
        [] => None,
        bytes => Some(AppRoutes::from_canonical(bytes).map_err(|why| bad("routes", format!("are unreadable: {why}")))?),
    };
    Ok(Event::RoutesCommitted {
        app: to_app(&e.app)?,
        deployment: to_deployment_id(&e.deployment)?,
        activates: to_optional_number(e.activates),
        routes,
        generation: Generation { epoch: Epoch(e.epoch), number: e.generation },
        table: TableDigest(array("table", &e.table)?),
    })
}

fn from_variable(variable: &EnvVariable) -> wire::EnvVariable {
    wire::EnvVariable {
        name: variable.name.clone(),
        sealed: variable.sealed.to_vec(),
        fingerprint: variable.fingerprint.to_vec(),
        changed_at_unix_ms: variable.changed_at_ms,
        changed_by: variable.changed_by.clone(),
    }
}

fn to_env(e: &wire::EnvSealed) -> Result<Event, RecordError> {
    let variable = |v: &wire::EnvVariable| {
        Ok(EnvVariable {
            name: v.name.clone(),
            sealed: array("sealed", &v.sealed)?,
            fingerprint: array("fingerprint", &v.fingerprint)?,
            changed_at_ms: v.changed_at_unix_ms,
            changed_by: v.changed_by.clone(),
        })
    };
    let variables = e.variables.iter().map(variable).collect::<Result<Vec<_>, RecordError>>()?;
    if variables.windows(2).any(|pair| pair[0].name >= pair[1].name) {
        return Err(bad("variables", "are not in order"));
    }
    Ok(Event::EnvSealed { app: to_app(&e.app)?, env: EnvId(array("env", &e.env)?), variables })
}

fn from_outcome(outcome: &Outcome) -> wire::deployment_ended::Outcome {
    use wire::deployment_ended::Outcome as W;
    match outcome {
        Outcome::Live => W::Live(true),
        Outcome::LiveUnverified(why) => W::LiveUnverified(why.clone()),
        Outcome::CommittedNotServed(why) => W::CommittedNotServed(why.clone()),
        Outcome::Failed(failure) => W::Failed(wire::Failure {
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            next_command: failure.next_command.clone(),
            lines: failure.lines.clone(),
        }),
        Outcome::Cancelled { by } => W::CancelledBy(by.clone()),
        Outcome::Superseded { by } => W::SupersededBy(by.0.to_vec()),
        Outcome::Unchanged => W::Unchanged(true),
        Outcome::Done => W::Done(true),
    }
}

fn to_outcome(outcome: &wire::deployment_ended::Outcome) -> Result<Outcome, RecordError> {
    use wire::deployment_ended::Outcome as W;
    Ok(match outcome {
        W::Live(set) => marker("live", *set).map(|()| Outcome::Live)?,
        W::LiveUnverified(why) => Outcome::LiveUnverified(why.clone()),
        W::CommittedNotServed(why) => Outcome::CommittedNotServed(why.clone()),
        W::Failed(failure) => Outcome::Failed(Failure {
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            next_command: failure.next_command.clone(),
            lines: failure.lines.clone(),
        }),
        W::CancelledBy(by) => Outcome::Cancelled { by: by.clone() },
        W::SupersededBy(id) => Outcome::Superseded { by: to_deployment_id(id)? },
        W::Unchanged(set) => marker("unchanged", *set).map(|()| Outcome::Unchanged)?,
        W::Done(set) => marker("done", *set).map(|()| Outcome::Done)?,
    })
}

fn from_optional_number(number: Option<ReleaseNumber>) -> u32 {
    number.map_or(0, |n| n.0)
}

fn to_optional_number(number: u32) -> Option<ReleaseNumber> {
    (number != 0).then_some(ReleaseNumber(number))
}

fn to_number(field: &'static str, number: u32) -> Result<ReleaseNumber, RecordError> {
    to_optional_number(number).ok_or_else(|| bad(field, "is release 0"))
}

fn marker(field: &'static str, set: bool) -> Result<(), RecordError> {
    if set { Ok(()) } else { Err(bad(field, "is present and false")) }
}

fn narrow(field: &'static str, number: u32) -> Result<u16, RecordError> {
    u16::try_from(number).map_err(|_| bad(field, format!("is {number}, the largest is {}", u16::MAX)))
}

fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], RecordError> {
    bytes.try_into().map_err(|_| bad(field, format!("has {} bytes instead of {N}", bytes.len())))
}

fn ascending<T: Ord>(field: &'static str, values: Vec<T>) -> Result<Vec<T>, RecordError> {
    if values.windows(2).all(|pair| pair[0] < pair[1]) { Ok(values) } else { Err(bad(field, "are not in order")) }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn to_app(name: &str) -> Result<AppName, RecordError> {
    AppName::new(name).map_err(|why| bad("app", format!("is refused: {why}")))
}

fn to_process(name: &str) -> Result<ProcessName, RecordError> {
    ProcessName::new(name).map_err(|why| bad("process", format!("is refused: {why}")))
}

fn to_instance_name(name: &str) -> Result<InstanceName, RecordError> {
    InstanceName::parse(name).map_err(|why| bad("instance", format!("is refused: {why}")))
}

fn to_deployment_id(bytes: &[u8]) -> Result<DeploymentId, RecordError> {
    array("deployment", bytes).map(DeploymentId)
}

fn to_hosts(names: &[String]) -> Result<Vec<HostName>, RecordError> {
    names.iter().map(|name| HostName::new(name).map_err(|why| bad("domains", format!("are refused: {why}")))).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::journal::sample::{History, ada};

    const NOW_MS: u64 = 1_700_000_000_000;

    fn all() -> Vec<Entry> {
        let mut events = History::default().of_every_kind();
        events.push(Event::HostInitialised { host_id: [9; 16], epoch: Epoch(1) });
        let vias = [Via::Certificate("0a".to_owned()), Via::Socket(0), Via::Agent, Via::PairingCode];
        let by = |n: usize| Principal { via: vias[n % vias.len()].clone(), ..ada() };
        let entry = |(n, mut event): (usize, Event)| {
            if let Event::DeploymentAccepted { deployment, .. } = &mut event {
                deployment.by = by(n);
                deployment.accepted_at_ms = NOW_MS;
            }
            Entry { at_ms: NOW_MS, by: by(n), event }
        };
        events.into_iter().enumerate().map(entry).collect()
    }

    #[test]
    fn every_kind_of_entry_reads_back_as_it_was_written() {
        for entry in all() {
            let bytes = from_entry(7, &entry).unwrap().encode_to_vec();
            let record = wire::Record::decode(bytes.as_slice()).unwrap();
            assert_eq!(record.sequence, 7);
            assert_eq!(to_content(&record), Ok(Content::Entry(Box::new(entry))));
        }
    }

    #[test]
    fn the_sample_history_has_every_kind_of_event() {
        let kinds: std::collections::BTreeSet<String> = all()
            .iter()
            .map(|e| format!("{:?}", e.event).split([' ', '{']).next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(kinds.len(), 17, "{kinds:?}");
    }

    #[test]
    fn a_checkpoint_reads_back() {
        let record = from_checkpoint(1, NOW_MS, Epoch(3), 2);
        assert_eq!(to_content(&record), Ok(Content::Checkpoint { epoch: Epoch(3), segment: 2 }));
    }

    /// Refused with this field named.
    fn refused(field: &str, change: impl Fn(&mut wire::Record)) {
        let mut tried = 0;
        for entry in all() {
            let mut record = from_entry(1, &entry).unwrap();
            let before = record.clone();
            change(&mut record);
            if record != before {
                tried += 1;
                let error = to_content(&record).expect_err(field);
                assert_eq!(error.field, field);
            }
        }
        assert!(tried > 0, "{field}: no record has it");
    }

    #[test]
    fn a_record_with_a_part_missing_or_malformed_is_refused_by_name() {
        use WireEvent as E;
        refused("by", |r| r.by = None);
        refused("by.via", |r| r.by.as_mut().unwrap().via = None);
        refused("by.agent", |r| {
            if let Some(via @ wire::principal::Via::Agent(true)) = &mut r.by.as_mut().unwrap().via {
                *via = wire::principal::Via::Agent(false);
            }
        });
        refused("event", |r| r.event = None);
        macro_rules! each {
            ($field:literal, $kind:ident, $e:ident => $change:expr) => {
                refused($field, |r| {
                    if let Some(E::$kind($e)) = &mut r.event {
                        $change;
                    }
                });
            };
        }
        each!("host_id", HostInitialised, e => e.host_id.push(0));
        each!("app", AppCreated, e => e.app = "../etc".to_owned());
        each!("subnet", AppCreated, e => e.subnet = 65_536);
        each!("deployment", DeploymentResumed, e => e.deployment.clear());
        each!("action", DeploymentAccepted, e => e.action = None);
        each!("outcome", DeploymentEnded, e => e.outcome = None);
        each!("number", ReleaseCreated, e => e.number = 0);
        each!("release", ReleaseCreated, e => e.release.push(0));
        each!("release", ReleaseCreated, e => e.release[0] = 9);
        each!("origin", ReleaseCreated, e => e.origin = None);
        each!("port", InstancePlanned, e => e.port = 65_536);
        each!("release", InstancePlanned, e => e.release = 0);
        each!("spec", InstancePlanned, e => e.spec.clear());
        each!("instance", InstanceRemoved, e => e.instance = "postgres".to_owned());
        each!("process", HandoverBegan, e => e.process = "Worker".to_owned());
        each!("table", RoutesCommitted, e => e.table.clear());
        each!("domains", DomainsSet, e => e.domains.reverse());
        each!("domains", DomainsSet, e => e.domains[0] = "10.0.0.1".to_owned());
        each!("variables", EnvSealed, e => e.variables.reverse());
        each!("sealed", EnvSealed, e => e.variables[0].sealed.clear());
        each!("env", EnvSealed, e => e.env.clear());
        each!("one_off", OneOffBegan, e => e.one_off.clear());
        each!("end", OneOffEnded, e => e.end = None);
        refused("routes", |r| {
            if let Some(E::RoutesCommitted(e)) = &mut r.event
                && !e.routes.is_empty()
            {
                e.routes.pop();
            }
        });
    }

    #[test]
    fn an_entry_that_could_not_be_read_back_is_not_written() {
        let unsorted = Event::EnvSealed {
            app: crate::journal::sample::app("shop"),
            env: EnvId([0; 32]),
            variables: crate::journal::sample::variables().into_iter().rev().collect(),
        };
        let error = from_entry(1, &Entry { at_ms: 1, by: ada(), event: unsorted }).unwrap_err();
        assert_eq!(error.field, "variables");
    }
}

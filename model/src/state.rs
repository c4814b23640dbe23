//! What the ledger's events add up to: the records that everything is read from, and the one fold that makes them.
//!
//! The fold is pure: it reads and writes records through [`Records`], which a store implements over whatever holds
//! bytes. It trusts the ledger: an event was checked before it was appended, so an event that does not fit the records
//! is a [`FoldError`] (the store is set aside and rebuilt, or the program is wrong), never something to work around.

use minicbor::{Decode, Encode};

use crate::deployment::{Action, Deployment, Outcome};
use crate::event::{Entry, EnvVariable, Event, InstanceRecord, ReleaseIdentity, ReleaseMeta};
use crate::id::{AppName, DeploymentId, EnvId, Epoch, Generation, OneOffId, ReleaseNumber};
use crate::one_off::{OneOff, OneOffEnd};
use crate::principal::Principal;
use crate::release::Release;
use crate::route::{HostName, RouteTable};

/// Most activations that a release's record keeps; the ledger has them all.
pub const MAX_ACTIVATIONS_KEPT: usize = 50;

/// The host's own record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Default)]
pub struct HostState {
    /// Random, 16 bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub host_id: [u8; 16],
    /// The ledger's epoch.
    #[n(1)]
    pub epoch: Epoch,
    /// The committed route table.
    #[n(2)]
    pub table: RouteTable,
    /// Apps and the /26 that each has, sorted by app.
    #[n(3)]
    pub subnets: Vec<(AppName, u16)>,
    /// Paired clients.
    #[n(4)]
    pub clients: Vec<Client>,
}

/// A paired client.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Client {
    /// Serial number in hexadecimal.
    #[n(0)]
    pub serial: String,
    /// The name that it chose.
    #[n(1)]
    pub name: String,
    /// Its role.
    #[n(2)]
    pub role: String,
    /// End of validity, Unix time in milliseconds.
    #[n(3)]
    pub not_after_ms: u64,
}

/// One app's record: small, whatever its history.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AppState {
    /// Its name.
    #[n(0)]
    pub app: AppName,
    /// Which /26 of the host's network.
    #[n(1)]
    pub subnet: u16,
    /// The newest release, or none.
    #[n(2)]
    pub newest: Option<ReleaseNumber>,
    /// The release that serves, or none.
    #[n(3)]
    pub serving: Option<ReleaseNumber>,
    /// Since when it serves, Unix time in milliseconds.
    #[n(4)]
    pub serving_since_ms: u64,
    /// Whether `refloat stop` is in force.
    #[n(5)]
    pub stopped: bool,
    /// Its domains, sorted.
    #[n(6)]
    pub domains: Vec<HostName>,
    /// The newest environment: what the next release gets.
    #[n(7)]
    pub env: Option<EnvId>,
    /// The deployment that runs.
    #[n(8)]
    pub deployment: Option<Deployment>,
    /// Every container that may exist.
    #[n(9)]
    pub instances: Vec<InstanceRecord>,
    /// The release that the serving one displaced, for its standby.
    #[n(10)]
    pub displaced: Option<ReleaseNumber>,
    /// Highest attempt that any instance of this app has had.
    #[n(11)]
    pub attempt: u32,
    /// Commands that were begun and have not ended.
    #[n(12)]
    pub one_offs: Vec<OneOffId>,
}

impl AppState {
    /// The release that visitors get; none while the app is stopped.
    #[must_use]
    pub fn serves(&self) -> Option<ReleaseNumber> {
        self.serving.filter(|_| !self.stopped)
    }
}

/// One release's record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReleaseRecord {
    /// Its number.
    #[n(0)]
    pub number: ReleaseNumber,
    /// All of it.
    #[n(1)]
    pub release: Release,
    /// Its identity.
    #[n(2)]
    pub identity: ReleaseIdentity,
    /// What people want to know about it.
    #[n(3)]
    pub meta: ReleaseMeta,
    /// What served when it was first activated: where a rollback from it goes.
    #[n(4)]
    pub predecessor: Option<ReleaseNumber>,
    /// When it began to serve, oldest first, the newest [`MAX_ACTIVATIONS_KEPT`].
    #[n(5)]
    pub activations: Vec<Activation>,
    /// Whether it was rolled back from and has not served since: no rollback goes there.
    #[n(6)]
    pub rolled_back: bool,
    /// From the acceptance until it served for the first time, in milliseconds by the agent's clock.
    #[n(7)]
    pub first_took_ms: u64,
}

/// From this moment the release served.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Activation {
    /// Unix time in milliseconds.
    #[n(0)]
    pub at_ms: u64,
    /// Who asked.
    #[n(1)]
    pub by: Principal,
    /// Why.
    #[n(2)]
    pub reason: String,
    /// `deploy`, `rollback`, `activate` or `env`.
    #[n(3)]
    pub kind: String,
    /// The table's generation.
    #[n(4)]
    pub generation: Generation,
    /// From the acceptance to this moment, in milliseconds by the agent's clock.
    #[n(5)]
    pub took_ms: u64,
}

/// One deployment's record, running or ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeploymentRecord {
    /// Its app.
    #[n(0)]
    pub app: AppName,
    /// All of it.
    #[n(1)]
    pub deployment: Deployment,
    /// How it ended.
    #[n(2)]
    pub outcome: Option<Outcome>,
    /// When it ended, Unix time in milliseconds; 0 while it runs.
    #[n(3)]
    pub ended_at_ms: u64,
}

/// One environment's record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Default)]
pub struct EnvRecord {
    /// Its variables, sorted by name.
    #[n(0)]
    pub variables: Vec<EnvVariable>,
}

/// One command's record, running or ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OneOffRecord {
    /// What was run.
    #[n(0)]
    pub one_off: OneOff,
    /// Who asked.
    #[n(1)]
    pub by: Principal,
    /// When it began, Unix time in milliseconds.
    #[n(2)]
    pub began_at_ms: u64,
    /// How it ended.
    #[n(3)]
    pub end: Option<OneOffEnd>,
    /// When it ended, Unix time in milliseconds; 0 while it runs.
    #[n(4)]
    pub ended_at_ms: u64,
}

/// Where the fold reads and writes. Writes of one entry become visible together with the entry's position, or not at all.
pub trait Records {
    /// What a failing read is.
    type Error;
    /// The host's record; the default before the first event.
    fn host(&self) -> Result<HostState, Self::Error>;
    /// One app's record.
    fn app(&self, app: &AppName) -> Result<Option<AppState>, Self::Error>;
    /// One release's record.
    fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<ReleaseRecord>, Self::Error>;
    /// One deployment's record.
    fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRecord>, Self::Error>;
    /// One command's record.
    fn one_off(&self, app: &AppName, id: OneOffId) -> Result<Option<OneOffRecord>, Self::Error>;
    /// Keeps the host's record.
    fn put_host(&mut self, host: HostState);
    /// Keeps an app's record.
    fn put_app(&mut self, app: AppState);
    /// Forgets an app, its releases, environments, deployments and commands.
    fn forget_app(&mut self, app: &AppName) -> Result<(), Self::Error>;
    /// Keeps a release's record.
    fn put_release(&mut self, app: &AppName, release: ReleaseRecord);
    /// Keeps a deployment's record.
    fn put_deployment(&mut self, id: DeploymentId, deployment: DeploymentRecord);
    /// Keeps an environment's record.
    fn put_env(&mut self, app: &AppName, env: EnvId, record: EnvRecord);
    /// Keeps a command's record.
    fn put_one_off(&mut self, app: &AppName, record: OneOffRecord);
}

/// Why an entry cannot be folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError<E> {
    /// The records could not be read.
    #[error("the records cannot be read")]
    Read(#[source] E),
    /// The event does not fit what is there.
    #[error("the event does not fit the records: {0}")]
    DoesNotFit(&'static str),
}

/// Folds one entry into the records.
///
/// # Errors
/// When a record cannot be read or the event does not fit.
pub fn apply<R: Records>(records: &mut R, entry: &Entry) -> Result<(), FoldError<R::Error>> {
    match &entry.event {
        Event::HostInitialised { host_id, epoch } => {
            let mut host = records.host().map_err(FoldError::Read)?;
            host.host_id = *host_id;
            host.epoch = *epoch;
            host.table.generation.epoch = *epoch;
            records.put_host(host);
            Ok(())
        }
        Event::ClientPaired { serial, name, role, not_after_ms } => {
            let mut host = records.host().map_err(FoldError::Read)?;
            let client =
                Client { serial: serial.clone(), name: name.clone(), role: role.clone(), not_after_ms: *not_after_ms };
            host.clients.push(client);
            records.put_host(host);
            Ok(())
        }
        Event::AppCreated { app, subnet } => create_app(records, app, *subnet),
        Event::DeploymentAccepted { app, deployment } => {
            let record =
                DeploymentRecord { app: app.clone(), deployment: deployment.clone(), outcome: None, ended_at_ms: 0 };
            records.put_deployment(deployment.id, record);
            // One that never got its turn is recorded while another runs.
            with_app(records, app, |state| {
                state.deployment.get_or_insert_with(|| deployment.clone());
            })
        }
        Event::DeploymentResumed { app, deployment } => {
            with_deployment(records, app, *deployment, |d| d.resumed = d.resumed.saturating_add(1))
        }
        Event::ReleaseCreated { deployment, number, release, meta } => {
            create_release(records, *deployment, *number, release, meta)
        }
        Event::InstancePlanned { app, instance } => with_app(records, app, |state| {
            state.instances.retain(|i| i.name != instance.name);
            state.instances.push(instance.clone());
            state.attempt = state.attempt.max(instance.attempt);
        }),
        Event::InstanceRemoved { app, instance } => {
            with_app(records, app, |state| state.instances.retain(|i| i.name != *instance))
        }
        Event::HandoverBegan { app, deployment, process } => with_deployment(records, app, *deployment, |d| {
            if !d.handovers.contains(process) {
                d.handovers.push(process.clone());
            }
        }),
        Event::HandoverEnded { app, deployment, process, completed: _ } => {
            with_deployment(records, app, *deployment, |d| d.handovers.retain(|p| p != process))
        }
        Event::RoutesCommitted { .. } => commit(records, entry),
        Event::DomainsSet { app, domains } => with_app(records, app, |state| state.domains.clone_from(domains)),
        Event::EnvSealed { app, env, variables } => {
            records.put_env(app, *env, EnvRecord { variables: variables.clone() });
            with_app(records, app, |state| state.env = Some(*env))
        }
        Event::DeploymentEnded { app, deployment, outcome } => {
            end_deployment(records, app, *deployment, outcome, entry.at_ms)
        }
        Event::AppDestroyed { app } => {
            let mut host = records.host().map_err(FoldError::Read)?;
            host.subnets.retain(|(name, _)| name != app);
            records.put_host(host);
            records.forget_app(app).map_err(FoldError::Read)
        }
        Event::OneOffBegan { app, one_off } => begin_one_off(records, app, one_off, entry),
        Event::OneOffEnded { app, id, end } => end_one_off(records, app, *id, end, entry.at_ms),
    }
}

fn with_app<R: Records>(
    records: &mut R,
    app: &AppName,
    change: impl FnOnce(&mut AppState),
) -> Result<(), FoldError<R::Error>> {
    let mut state = records.app(app).map_err(FoldError::Read)?.ok_or(FoldError::DoesNotFit("there is no such app"))?;
    change(&mut state);
    records.put_app(state);
    Ok(())
}

/// Changes a deployment in both places that hold it: its own record and, while it runs, its app's.
fn with_deployment<R: Records>(
    records: &mut R,
    app: &AppName,
    id: DeploymentId,
    change: impl Fn(&mut Deployment),
) -> Result<(), FoldError<R::Error>> {
    let mut record = records
        .deployment(&id)
        .map_err(FoldError::Read)?
        .ok_or(FoldError::DoesNotFit("there is no such deployment"))?;
    change(&mut record.deployment);
    records.put_deployment(id, record);
    with_app(records, app, |state| {
        if let Some(running) = state.deployment.as_mut().filter(|d| d.id == id) {
            change(running);
        }
    })
}

fn create_app<R: Records>(records: &mut R, app: &AppName, subnet: u16) -> Result<(), FoldError<R::Error>> {
    let mut host = records.host().map_err(FoldError::Read)?;
    if host.subnets.iter().any(|(name, taken)| name == app || *taken == subnet) {
        return Err(FoldError::DoesNotFit("the app or its network exists already"));
    }
    host.subnets.push((app.clone(), subnet));
    host.subnets.sort();
    records.put_host(host);
    records.put_app(AppState {
        app: app.clone(),
        subnet,
        newest: None,
        serving: None,
        serving_since_ms: 0,
        stopped: false,
        domains: Vec::new(),
        env: None,
        deployment: None,
        instances: Vec::new(),
        displaced: None,
        attempt: 0,
        one_offs: Vec::new(),
    });
    Ok(())
}

fn create_release<R: Records>(
    records: &mut R,
    deployment: DeploymentId,
    number: ReleaseNumber,
    release: &Release,
    meta: &ReleaseMeta,
) -> Result<(), FoldError<R::Error>> {
    let app = release.app.clone();
    let identity = ReleaseIdentity { id: release.id(), content: release.content_id() };
    let record = ReleaseRecord {
        number,
        release: release.clone(),
        identity,
        meta: meta.clone(),
        predecessor: None,
        rolled_back: false,
        first_took_ms: 0,
        activations: Vec::new(),
    };
    records.put_release(&app, record);
    with_app(records, &app, |state| state.newest = Some(number))?;
    with_deployment(records, &app, deployment, |d| d.release = Some(number))
}

fn commit<R: Records>(records: &mut R, entry: &Entry) -> Result<(), FoldError<R::Error>> {
    let Event::RoutesCommitted { app, deployment, activates, routes, generation, table } = &entry.event else {
        return Err(FoldError::DoesNotFit("not a commit"));
    };
    let mut host = records.host().map_err(FoldError::Read)?;
    let next = host.table.with(app, routes.clone());
    if next.generation != *generation || next.table_digest() != *table {
        return Err(FoldError::DoesNotFit("the committed table does not follow from the one before"));
    }
    host.table = next;
    records.put_host(host);
    let stopped = routes.as_ref().is_some_and(|r| r.serving == crate::route::AppServing::Stopped);
    let mut displaced = None;
    with_app(records, app, |state| {
        state.stopped = stopped;
        if let Some(number) = activates
            && state.serving != Some(*number)
        {
            displaced = state.serving;
            state.displaced = state.serving;
            state.serving = Some(*number);
            state.serving_since_ms = entry.at_ms;
        }
    })?;
    with_deployment(records, app, *deployment, |d| {
        d.committed = true;
        d.handovers.clear();
    })?;
    match activates {
        Some(number) => activate(records, app, *number, displaced, *deployment, *generation, entry),
        None => Ok(()),
    }
}

fn activate<R: Records>(
    records: &mut R,
    app: &AppName,
    number: ReleaseNumber,
    displaced: Option<ReleaseNumber>,
    deployment: DeploymentId,
    generation: Generation,
    entry: &Entry,
) -> Result<(), FoldError<R::Error>> {
    let cause = records.deployment(&deployment).map_err(FoldError::Read)?.map(|d| d.deployment);
    let rollback = cause.as_ref().is_some_and(|d| matches!(d.action, Action::Rollback(_)));
    let mut record = records
        .release(app, number)
        .map_err(FoldError::Read)?
        .ok_or(FoldError::DoesNotFit("there is no such release"))?;
    let took_ms = cause.as_ref().map_or(0, |d| entry.at_ms.saturating_sub(d.accepted_at_ms));
    if record.activations.is_empty() {
        record.predecessor = displaced;
        record.first_took_ms = took_ms;
    }
    record.rolled_back = false;
    record.activations.push(Activation {
        at_ms: entry.at_ms,
        by: entry.by.clone(),
        reason: cause.as_ref().map(|d| d.reason.clone()).unwrap_or_default(),
        took_ms,
        kind: cause.map(|d| d.action.kind().to_owned()).unwrap_or_default(),
        generation,
    });
    let surplus = record.activations.len().saturating_sub(MAX_ACTIVATIONS_KEPT);
    record.activations.drain(..surplus);
    let env = record.release.env;
    records.put_release(app, record);
    if rollback
        && let Some(mut left) =
            displaced.map(|n| records.release(app, n)).transpose().map_err(FoldError::Read)?.flatten()
    {
        left.rolled_back = true;
        records.put_release(app, left);
    }
    // A rollback takes the environment back with the code: the next release starts from what serves.
    with_app(records, app, |state| state.env = Some(env))
}

fn end_deployment<R: Records>(
    records: &mut R,
    app: &AppName,
    id: DeploymentId,
    outcome: &Outcome,
    at_ms: u64,
) -> Result<(), FoldError<R::Error>> {
    let mut record = records
        .deployment(&id)
        .map_err(FoldError::Read)?
        .ok_or(FoldError::DoesNotFit("there is no such deployment"))?;
    record.outcome = Some(outcome.clone());
    record.ended_at_ms = at_ms;
    records.put_deployment(id, record);
    with_app(records, app, |state| {
        if state.deployment.as_ref().is_some_and(|d| d.id == id) {
            state.deployment = None;
        }
    })
}

fn begin_one_off<R: Records>(
    records: &mut R,
    app: &AppName,
    one_off: &OneOff,
    entry: &Entry,
) -> Result<(), FoldError<R::Error>> {
    if records.one_off(app, one_off.id).map_err(FoldError::Read)?.is_some() {
        return Err(FoldError::DoesNotFit("that command was begun before"));
    }
    let record = OneOffRecord {
        one_off: one_off.clone(),
        by: entry.by.clone(),
        began_at_ms: entry.at_ms,
        end: None,
        ended_at_ms: 0,
    };
    records.put_one_off(app, record);
    with_app(records, app, |state| state.one_offs.push(one_off.id))
}

fn end_one_off<R: Records>(
    records: &mut R,
    app: &AppName,
    id: OneOffId,
    end: &OneOffEnd,
    at_ms: u64,
) -> Result<(), FoldError<R::Error>> {
    let record = records.one_off(app, id).map_err(FoldError::Read)?;
    let mut record = record.ok_or(FoldError::DoesNotFit("there is no such command"))?;
    record.end = Some(end.clone());
    record.ended_at_ms = at_ms;
    records.put_one_off(app, record);
    with_app(records, app, |state| state.one_offs.retain(|running| *running != id))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

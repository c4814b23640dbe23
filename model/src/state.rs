//! What the ledger's events add up to: the records that everything is read from, and the one fold that makes them.
//!
//! The fold is pure: it reads and writes records through [`Records`], which a store implements over whatever holds
//! bytes. It trusts the ledger: an event was checked before it was appended, so an event that does not fit the records
//! is a [`FoldError`] (the store is set aside and rebuilt, or the program is wrong), never something to work around.

use minicbor::{Decode, Encode};

use crate::deployment::{Deployment, Outcome};
use crate::event::{Entry, EnvVariable, Event, InstanceRecord, ReleaseIdentity, ReleaseMeta};
use crate::id::{AppName, DeploymentId, EnvId, Epoch, Generation, ReleaseNumber};
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
    /// Keeps the host's record.
    fn put_host(&mut self, host: HostState);
    /// Keeps an app's record.
    fn put_app(&mut self, app: AppState);
    /// Forgets an app, its releases, environments and deployments.
    fn forget_app(&mut self, app: &AppName) -> Result<(), Self::Error>;
    /// Keeps a release's record.
    fn put_release(&mut self, app: &AppName, release: ReleaseRecord);
    /// Keeps a deployment's record.
    fn put_deployment(&mut self, id: DeploymentId, deployment: DeploymentRecord);
    /// Keeps an environment's record.
    fn put_env(&mut self, app: &AppName, env: EnvId, record: EnvRecord);
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
    let mut record = records
        .release(app, number)
        .map_err(FoldError::Read)?
        .ok_or(FoldError::DoesNotFit("there is no such release"))?;
    if record.activations.is_empty() {
        record.predecessor = displaced;
    }
    record.activations.push(Activation {
        at_ms: entry.at_ms,
        by: entry.by.clone(),
        reason: cause.as_ref().map(|d| d.reason.clone()).unwrap_or_default(),
        kind: cause.map(|d| d.action.kind().to_owned()).unwrap_or_default(),
        generation,
    });
    let surplus = record.activations.len().saturating_sub(MAX_ACTIVATIONS_KEPT);
    record.activations.drain(..surplus);
    let env = record.release.env;
    records.put_release(app, record);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;
    use crate::deployment::{Action, Failure};
    use crate::id::{EnvId, PlanDigest, ReleaseId, SourceDigest};
    use crate::release::Author;
    use crate::route::{AppRoutes, AppServing};

    #[derive(Default, Clone, PartialEq, Debug)]
    struct Plain {
        host: HostState,
        apps: BTreeMap<AppName, AppState>,
        releases: BTreeMap<(AppName, ReleaseNumber), ReleaseRecord>,
        deployments: BTreeMap<DeploymentId, DeploymentRecord>,
        envs: BTreeMap<(AppName, EnvId), EnvRecord>,
    }

    impl Records for Plain {
        type Error = Infallible;
        fn host(&self) -> Result<HostState, Infallible> {
            Ok(self.host.clone())
        }
        fn app(&self, app: &AppName) -> Result<Option<AppState>, Infallible> {
            Ok(self.apps.get(app).cloned())
        }
        fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<ReleaseRecord>, Infallible> {
            Ok(self.releases.get(&(app.clone(), number)).cloned())
        }
        fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRecord>, Infallible> {
            Ok(self.deployments.get(id).cloned())
        }
        fn put_host(&mut self, host: HostState) {
            self.host = host;
        }
        fn put_app(&mut self, app: AppState) {
            self.apps.insert(app.app.clone(), app);
        }
        fn forget_app(&mut self, app: &AppName) -> Result<(), Infallible> {
            self.apps.remove(app);
            self.releases.retain(|(of, _), _| of != app);
            self.deployments.retain(|_, record| record.app != *app);
            self.envs.retain(|(of, _), _| of != app);
            Ok(())
        }
        fn put_release(&mut self, app: &AppName, release: ReleaseRecord) {
            self.releases.insert((app.clone(), release.number), release);
        }
        fn put_deployment(&mut self, id: DeploymentId, deployment: DeploymentRecord) {
            self.deployments.insert(id, deployment);
        }
        fn put_env(&mut self, app: &AppName, env: EnvId, record: EnvRecord) {
            self.envs.insert((app.clone(), env), record);
        }
    }

    /// Records with what is needed to write the next event.
    #[derive(Clone)]
    struct Host {
        records: Plain,
        now_ms: u64,
        deployments: u8,
    }

    fn shop() -> AppName {
        AppName::new("shop").unwrap()
    }

    fn routes(number: u32, serving: AppServing) -> AppRoutes {
        AppRoutes {
            app: shop(),
            release: ReleaseNumber(number),
            release_id: ReleaseId([0; 32]),
            hosts: Vec::new(),
            catch_all: true,
            serving,
            routes: Vec::new(),
        }
    }

    impl Host {
        fn with_app() -> Self {
            let mut host = Self { records: Plain::default(), now_ms: 100, deployments: 0 };
            host.apply(Event::HostInitialised { host_id: [1; 16], epoch: Epoch(1) }).unwrap();
            host.apply(Event::AppCreated { app: shop(), subnet: 0 }).unwrap();
            host
        }

        fn apply(&mut self, event: Event) -> Result<(), FoldError<Infallible>> {
            self.now_ms += 1;
            apply(&mut self.records, &Entry { at_ms: self.now_ms, by: Principal::agent(), event })
        }

        fn accept(&mut self, action: Action) -> DeploymentId {
            self.deployments += 1;
            let id = DeploymentId([self.deployments; 16]);
            let deployment = Deployment {
                id,
                action,
                by: Principal::agent(),
                reason: "why".to_owned(),
                accepted_at_ms: 0,
                serving_before: None,
                release: None,
                committed: false,
                handovers: Vec::new(),
                resumed: 0,
            };
            self.apply(Event::DeploymentAccepted { app: shop(), deployment }).unwrap();
            id
        }

        fn create_release(&mut self, deployment: DeploymentId, number: u32) {
            let release = Release {
                app: shop(),
                source: SourceDigest([1; 32]),
                plan: PlanDigest([2; 32]),
                processes: Vec::new(),
                env: EnvId([3; 32]),
                parent: None,
                author: Author("ada".to_owned()),
            };
            let meta = ReleaseMeta {
                created_at_ms: 1,
                origin: Default::default(),
                build_ms: 1,
                changes: Vec::new(),
                kind: "deploy".to_owned(),
            };
            self.apply(Event::ReleaseCreated { deployment, number: ReleaseNumber(number), release, meta }).unwrap();
        }

        /// The commit that follows from what is there.
        fn commit(&self, deployment: DeploymentId, activates: Option<u32>, routes: Option<AppRoutes>) -> Event {
            let table = self.records.host.table.with(&shop(), routes.clone());
            Event::RoutesCommitted {
                app: shop(),
                deployment,
                activates: activates.map(ReleaseNumber),
                routes,
                generation: table.generation,
                table: table.table_digest(),
            }
        }

        fn activate(&mut self, deployment: DeploymentId, number: u32) {
            let commit = self.commit(deployment, Some(number), Some(routes(number, AppServing::Serving)));
            self.apply(commit).unwrap();
            self.end(deployment, Outcome::Live);
        }

        fn end(&mut self, deployment: DeploymentId, outcome: Outcome) {
            self.apply(Event::DeploymentEnded { app: shop(), deployment, outcome }).unwrap();
        }

        fn deploy(&mut self, number: u32) {
            let id = self.accept(Action::Restart);
            self.create_release(id, number);
            self.activate(id, number);
        }

        fn rollback(&mut self, to: u32) {
            let id = self.accept(Action::Rollback(ReleaseNumber(to)));
            self.activate(id, to);
        }

        fn state(&self) -> &AppState {
            &self.records.apps[&shop()]
        }

        fn release(&self, number: u32) -> &ReleaseRecord {
            &self.records.releases[&(shop(), ReleaseNumber(number))]
        }

        fn predecessor(&self, number: u32) -> Option<u32> {
            self.release(number).predecessor.map(|n| n.0)
        }
    }

    #[test]
    fn a_release_descends_from_what_served_when_it_was_first_activated_and_keeps_that() {
        let mut host = Host::with_app();
        host.deploy(1);
        host.deploy(2);
        host.rollback(1);
        host.deploy(3);
        assert_eq!([1, 2, 3].map(|n| host.predecessor(n)), [None, Some(1), Some(1)]);
        host.rollback(2);
        assert_eq!([1, 2, 3].map(|n| host.predecessor(n)), [None, Some(1), Some(1)]);
        assert_eq!(host.state().displaced, Some(ReleaseNumber(3)));
    }

    #[test]
    fn activating_what_serves_displaces_nothing_and_is_still_kept() {
        let mut host = Host::with_app();
        host.deploy(1);
        host.deploy(2);
        let since = host.state().serving_since_ms;
        host.rollback(2);
        let state = host.state();
        assert_eq!((state.serving, state.displaced), (Some(ReleaseNumber(2)), Some(ReleaseNumber(1))));
        assert_eq!(state.serving_since_ms, since);
        assert_eq!((host.release(2).activations.len(), host.predecessor(2)), (2, Some(1)));
    }

    #[test]
    fn an_activation_says_when_who_why_and_how() {
        let mut host = Host::with_app();
        host.deploy(1);
        host.deploy(2);
        host.rollback(1);
        let last = host.release(1).activations.last().unwrap();
        assert_eq!((last.reason.as_str(), last.kind.as_str(), last.generation.number), ("why", "rollback", 3));
        assert_eq!((last.at_ms, &last.by), (host.state().serving_since_ms, &Principal::agent()));
    }

    #[test]
    fn a_release_keeps_its_newest_activations_only() {
        let mut host = Host::with_app();
        host.deploy(1);
        host.deploy(2);
        for _ in 0..MAX_ACTIVATIONS_KEPT {
            host.rollback(1);
            host.rollback(2);
        }
        let kept = &host.release(2).activations;
        assert_eq!(kept.len(), MAX_ACTIVATIONS_KEPT);
        assert_eq!(kept.last().unwrap().generation, host.records.host.table.generation);
        assert_eq!(host.predecessor(2), Some(1), "the first activation is gone, what it displaced is not");
    }

    #[test]
    fn a_commit_with_another_generation_or_table_does_not_fit_and_changes_nothing() {
        let mut host = Host::with_app();
        let id = host.accept(Action::Restart);
        host.create_release(id, 1);
        let right = host.commit(id, Some(1), Some(routes(1, AppServing::Serving)));
        let Event::RoutesCommitted { generation, table, .. } = right.clone() else { unreachable!() };
        let wrong = |change: &dyn Fn(&mut Generation, &mut crate::id::TableDigest)| {
            let mut event = right.clone();
            if let Event::RoutesCommitted { generation, table, .. } = &mut event {
                change(generation, table);
            }
            event
        };
        let wrongs = [
            wrong(&|generation, _| *generation = generation.next()),
            wrong(&|generation, _| generation.number -= 1),
            wrong(&|generation, _| generation.epoch = Epoch(2)),
            wrong(&|_, table| table.0[31] ^= 1),
        ];
        for event in wrongs {
            let before = host.records.clone();
            assert!(matches!(host.apply(event), Err(FoldError::DoesNotFit(_))));
            assert_eq!(host.records, before);
        }
        host.apply(right).unwrap();
        assert_eq!((host.records.host.table.generation, host.records.host.table.table_digest()), (generation, table));
        assert!(host.state().deployment.as_ref().is_some_and(|d| d.committed));
    }

    #[test]
    fn stop_and_what_ends_it_are_told_by_the_committed_routes() {
        let mut host = Host::with_app();
        host.deploy(1);
        for (serving, stopped) in [(AppServing::Stopped, true), (AppServing::Serving, false)] {
            let id = host.accept(Action::Stop);
            let commit = host.commit(id, None, Some(routes(1, serving)));
            host.apply(commit).unwrap();
            host.end(id, Outcome::Done);
            assert_eq!((host.state().stopped, host.state().serving), (stopped, Some(ReleaseNumber(1))));
        }
        assert_eq!(host.release(1).activations.len(), 1);
    }

    #[test]
    fn handovers_and_resumptions_are_kept_in_both_places_until_they_end() {
        let mut host = Host::with_app();
        let id = host.accept(Action::Restart);
        let process = crate::id::ProcessName::new("worker").unwrap();
        let began = Event::HandoverBegan { app: shop(), deployment: id, process: process.clone() };
        host.apply(began.clone()).unwrap();
        host.apply(began).unwrap();
        host.apply(Event::DeploymentResumed { app: shop(), deployment: id }).unwrap();
        let running = host.state().deployment.clone().unwrap();
        assert_eq!((running.handovers.len(), running.resumed), (1, 1), "beginning twice is one handover");
        assert_eq!(host.records.deployments[&id].deployment, running);
        host.apply(Event::HandoverEnded { app: shop(), deployment: id, process, completed: false }).unwrap();
        assert_eq!(host.records.deployments[&id].deployment.handovers, []);
    }

    #[test]
    fn a_deployment_that_ended_leaves_the_app_free_and_its_outcome_behind() {
        let mut host = Host::with_app();
        let id = host.accept(Action::Restart);
        let failure = Failure {
            reason: "UNHEALTHY".to_owned(),
            message: "no answer".to_owned(),
            next_command: String::new(),
            lines: Vec::new(),
        };
        let outcome = Outcome::Failed(failure);
        host.end(id, outcome.clone());
        assert_eq!(host.state().deployment, None);
        let record = &host.records.deployments[&id];
        assert_eq!((record.outcome.as_ref(), record.ended_at_ms), (Some(&outcome), host.now_ms));
    }

    #[test]
    fn a_deployment_that_never_got_its_turn_leaves_the_running_one_alone() {
        let mut host = Host::with_app();
        let running = host.accept(Action::Restart);
        let waiting = host.accept(Action::Restart);
        assert_eq!(host.state().deployment.as_ref().map(|d| d.id), Some(running));
        host.end(waiting, Outcome::Superseded { by: DeploymentId([9; 16]) });
        assert_eq!(host.state().deployment.as_ref().map(|d| d.id), Some(running));
        assert!(host.records.deployments[&waiting].outcome.is_some());
    }

    #[test]
    fn a_destroyed_app_leaves_nothing_and_frees_its_network() {
        let mut host = Host::with_app();
        let untouched = Host::with_app().records.host.subnets;
        host.deploy(1);
        host.apply(Event::EnvSealed { app: shop(), env: EnvId([3; 32]), variables: Vec::new() }).unwrap();
        let id = host.accept(Action::Destroy { volumes: false });
        let commit = host.commit(id, None, None);
        host.apply(commit).unwrap();
        host.apply(Event::AppDestroyed { app: shop() }).unwrap();
        let Plain { host: record, apps, releases, deployments, envs } = host.records.clone();
        assert!(apps.is_empty() && releases.is_empty() && deployments.is_empty() && envs.is_empty());
        assert_eq!((record.subnets.len(), record.table.apps.len()), (0, 0));
        assert_eq!(record.table.generation.number, 2, "the table never goes back");
        host.apply(Event::AppCreated { app: shop(), subnet: 0 }).unwrap();
        assert_eq!(host.records.host.subnets, untouched);
    }

    #[test]
    fn an_event_about_what_is_not_there_does_not_fit() {
        let mut host = Host::with_app();
        let id = host.accept(Action::Restart);
        let (nobody, nothing) = (AppName::new("nobody").unwrap(), DeploymentId([99; 16]));
        let events = [
            Event::AppCreated { app: shop(), subnet: 9 },
            Event::AppCreated { app: nobody.clone(), subnet: 0 },
            Event::DomainsSet { app: nobody.clone(), domains: Vec::new() },
            Event::DeploymentEnded { app: shop(), deployment: nothing, outcome: Outcome::Done },
            Event::DeploymentResumed { app: shop(), deployment: nothing },
            host.commit(id, Some(7), Some(routes(7, AppServing::Serving))),
        ];
        for event in events {
            let answer = host.clone().apply(event.clone());
            assert!(matches!(answer, Err(FoldError::DoesNotFit(_))), "{event:?}");
        }
    }

    #[test]
    fn an_instance_that_is_planned_again_is_one_and_the_highest_attempt_is_kept() {
        let mut host = Host::with_app();
        let process = crate::id::ProcessName::new("web").unwrap();
        let instance = |attempt| InstanceRecord {
            name: crate::id::InstanceName::derive(&shop(), &process, &[1; 32], attempt),
            process: process.clone(),
            release: ReleaseNumber(1),
            spec: [1; 32],
            attempt,
            ip: [10, 201, 0, 2],
            port: 80,
        };
        for attempt in [3, 3, 1] {
            host.apply(Event::InstancePlanned { app: shop(), instance: instance(attempt) }).unwrap();
        }
        assert_eq!((host.state().instances.len(), host.state().attempt), (2, 3));
        host.apply(Event::InstanceRemoved { app: shop(), instance: instance(3).name }).unwrap();
        assert_eq!((host.state().instances.len(), host.state().attempt), (1, 3));
    }
}

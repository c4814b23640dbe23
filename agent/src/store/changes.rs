//! What a run of entries changes: typed records over a store that is only read, until they are written in one batch.

use std::collections::BTreeMap;

use refloat_model::{
    AppName, AppState, DeploymentId, DeploymentRecord, EnvId, EnvRecord, HostState, OneOffId, OneOffRecord, Records,
    ReleaseNumber, ReleaseRecord,
};

use super::StoreError;
use super::records::Store;
use super::shelf::Change;
use super::{key, value};

/// Records that were changed and not written. `None` is a record that is forgotten.
#[derive(Debug, Default)]
pub(super) struct Changes {
    host: Option<HostState>,
    apps: BTreeMap<AppName, Option<AppState>>,
    releases: BTreeMap<(AppName, ReleaseNumber), Option<ReleaseRecord>>,
    deployments: BTreeMap<DeploymentId, Option<DeploymentRecord>>,
    /// The app of every deployment that is forgotten: what is written then does not say it any more.
    forgotten: BTreeMap<DeploymentId, AppName>,
    envs: BTreeMap<(AppName, EnvId), Option<EnvRecord>>,
    one_offs: BTreeMap<(AppName, OneOffId), Option<OneOffRecord>>,
}

/// Changes over the store that they are about.
pub(super) struct Overlay<'a> {
    pub(super) under: &'a Store,
    pub(super) changes: &'a mut Changes,
}

impl Records for Overlay<'_> {
    type Error = StoreError;

    fn host(&self) -> Result<HostState, StoreError> {
        match &self.changes.host {
            Some(host) => Ok(host.clone()),
            None => self.under.host(),
        }
    }

    fn app(&self, app: &AppName) -> Result<Option<AppState>, StoreError> {
        match self.changes.apps.get(app) {
            Some(changed) => Ok(changed.clone()),
            None => self.under.app(app),
        }
    }

    fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<ReleaseRecord>, StoreError> {
        match self.changes.releases.get(&(app.clone(), number)) {
            Some(changed) => Ok(changed.clone()),
            None => self.under.release(app, number),
        }
    }

    fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRecord>, StoreError> {
        match self.changes.deployments.get(id) {
            Some(changed) => Ok(changed.clone()),
            None => self.under.deployment(id),
        }
    }

    fn one_off(&self, app: &AppName, id: OneOffId) -> Result<Option<OneOffRecord>, StoreError> {
        match self.changes.one_offs.get(&(app.clone(), id)) {
            Some(changed) => Ok(changed.clone()),
            None => self.under.one_off(app, id),
        }
    }

    fn put_host(&mut self, host: HostState) {
        self.changes.host = Some(host);
    }

    fn put_app(&mut self, app: AppState) {
        self.changes.apps.insert(app.app.clone(), Some(app));
    }

    fn forget_app(&mut self, app: &AppName) -> Result<(), StoreError> {
        for number in self.under.release_numbers(app)? {
            self.changes.releases.insert((app.clone(), number), None);
        }
        for id in self.under.deployment_ids(app)? {
            self.changes.deployments.insert(id, None);
            self.changes.forgotten.insert(id, app.clone());
        }
        for env in self.under.env_ids(app)? {
            self.changes.envs.insert((app.clone(), env), None);
        }
        for id in self.under.one_off_ids(app)? {
            self.changes.one_offs.insert((app.clone(), id), None);
        }
        self.changes.forget(app);
        Ok(())
    }

    fn put_release(&mut self, app: &AppName, release: ReleaseRecord) {
        self.changes.releases.insert((app.clone(), release.number), Some(release));
    }

    fn put_deployment(&mut self, id: DeploymentId, deployment: DeploymentRecord) {
        self.changes.deployments.insert(id, Some(deployment));
    }

    fn put_env(&mut self, app: &AppName, env: EnvId, record: EnvRecord) {
        self.changes.envs.insert((app.clone(), env), Some(record));
    }

    fn put_one_off(&mut self, app: &AppName, record: OneOffRecord) {
        self.changes.one_offs.insert((app.clone(), record.one_off.id), Some(record));
    }
}

impl Changes {
    /// Forgets what these changes themselves have put for an app.
    fn forget(&mut self, app: &AppName) {
        self.apps.insert(app.clone(), None);
        self.releases.iter_mut().filter(|((of, _), _)| of == app).for_each(|(_, record)| *record = None);
        self.envs.iter_mut().filter(|((of, _), _)| of == app).for_each(|(_, record)| *record = None);
        self.one_offs.iter_mut().filter(|((of, _), _)| of == app).for_each(|(_, record)| *record = None);
        for (id, record) in &mut self.deployments {
            if record.as_ref().is_some_and(|r| r.app == *app) {
                *record = None;
                self.forgotten.insert(*id, app.clone());
            }
        }
    }

    /// The same as keys and bytes.
    pub(super) fn encode(self) -> Vec<Change> {
        let mut out = Vec::new();
        out.extend(self.host.map(|host| put(key::HOST.to_vec(), Some(&host))));
        out.extend(self.apps.iter().map(|(app, record)| put(key::app(app), record.as_ref())));
        let releases = self.releases.iter();
        out.extend(releases.map(|((app, number), record)| put(key::release(app, *number), record.as_ref())));
        out.extend(self.envs.iter().map(|((app, env), record)| put(key::env(app, env), record.as_ref())));
        out.extend(self.one_offs.iter().map(|((app, id), record)| put(key::one_off(app, *id), record.as_ref())));
        for (id, record) in &self.deployments {
            out.push(put(key::deployment(id), record.as_ref()));
            out.extend(record.as_ref().map(|r| put(key::deployment_of(&r.app, id), Some(&()))));
        }
        for (id, app) in &self.forgotten {
            if self.deployments.get(id).is_none_or(Option::is_none) {
                out.push((key::deployment_of(app, id), None));
            }
        }
        out
    }
}

fn put<T: minicbor::Encode<()>>(key: Vec<u8>, record: Option<&T>) -> Change {
    let bytes = record.map(|record| value::encode(&key, record));
    (key, bytes)
}

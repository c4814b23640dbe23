//! From what was asked to an action: names become numbers, values become sealed references, and what cannot be is denied.
//!
//! Done when a request's turn comes, not when it arrives: "the release before" means before what serves then.

use refloat_model::admission::Denial;
use refloat_model::difference::{self, Side};
use refloat_model::lineage;
use refloat_model::{
    Action, AppState, Change, DeployAction, EnvRecord, Event, HostName, Principal, ReleaseNumber, ReleaseRecord,
};

use super::ports::{Ports, VaultError};
use super::request::Ask;
use crate::docker::Secrets;
use crate::journal::JournalError;

/// Most releases that lineage looks at.
const MAX_HISTORY: usize = 10_000;

/// What a request comes to.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) action: Action,
    pub(super) undoes: Vec<Change>,
}

/// Why it comes to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unresolved {
    #[error(transparent)]
    Denied(#[from] Denial),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Resolves a request against the app as it is now.
pub(super) async fn resolve(
    ports: &Ports,
    state: &AppState,
    ask: &Ask,
    by: &Principal,
) -> Result<Resolved, Unresolved> {
    let action = match ask {
        Ask::Deploy { source, force, no_activate, prebuilt, origin, local_plan: _ } => {
            needs_no_domain(ports, state).await?;
            Action::Deploy(DeployAction {
                source: *source,
                force: *force,
                no_activate: *no_activate,
                prebuilt: *prebuilt,
                origin: origin.clone(),
            })
        }
        Ask::Rollback { to, code, .. } => Action::Rollback(rollback_target(ports, state, *to, *code).await?),
        Ask::Activate(number) => Action::Activate(existing(ports, state, *number).await?),
        Ask::Restart => serving(state).map(|_| Action::Restart)?,
        Ask::Stop => serving(state).map(|_| Action::Stop)?,
        Ask::Destroy { volumes, .. } => Action::Destroy { volumes: *volumes },
        Ask::Domains { add, remove } => Action::SetDomains(domains(ports, state, add, remove).await?),
        Ask::Env { set, unset, no_deploy } => seal(ports, state, by, set, unset, *no_deploy).await?,
    };
    let undoes = undoes(ports, state, &action).await?;
    Ok(Resolved { action, undoes })
}

fn serving(state: &AppState) -> Result<ReleaseNumber, Denial> {
    state.serving.ok_or_else(|| Denial::NothingServes(state.app.clone()))
}

async fn existing(ports: &Ports, state: &AppState, number: ReleaseNumber) -> Result<ReleaseNumber, Unresolved> {
    if ports.journal.release(&state.app, number).await?.is_none() {
        return Err(Denial::NoSuchRelease { app: state.app.clone(), number }.into());
    }
    if state.serving == Some(number) && !state.stopped {
        return Err(Denial::AlreadyServes(number).into());
    }
    Ok(number)
}

/// Where a rollback goes.
pub(super) async fn rollback_target(
    ports: &Ports,
    state: &AppState,
    to: Option<ReleaseNumber>,
    code: bool,
) -> Result<ReleaseNumber, Unresolved> {
    if let Some(number) = to {
        return existing(ports, state, number).await;
    }
    let serving = serving(state)?;
    let mut known: Vec<ReleaseRecord> = Vec::new();
    let mut next = Some(serving);
    while let Some(number) = next.filter(|n| known.len() < MAX_HISTORY && known.iter().all(|r| r.number != *n)) {
        let Some(record) = ports.journal.release(&state.app, number).await? else { break };
        // Without --code the first step that was not rolled back from is all there is to know.
        next = record.predecessor.filter(|_| code || known.is_empty() || record.rolled_back);
        known.push(record);
    }
    let find = |number| known.iter().find(|r| r.number == number);
    lineage::rollback_target(serving, code, find).map_err(|e| Denial::Nowhere(e).into())
}

/// What is different between what serves and what an action makes serve.
pub(super) async fn undoes(ports: &Ports, state: &AppState, action: &Action) -> Result<Vec<Change>, Unresolved> {
    let (Some(target), Some(serving)) = (action.target(), state.serving) else { return Ok(Vec::new()) };
    let (Some(from), Some(to)) =
        (ports.journal.release(&state.app, serving).await?, ports.journal.release(&state.app, target).await?)
    else {
        return Ok(Vec::new());
    };
    let env_from = ports.journal.env(&state.app, &from.release.env).await?.unwrap_or_default();
    let env_to = ports.journal.env(&state.app, &to.release.env).await?.unwrap_or_default();
    Ok(difference::changes(
        Side { release: &from.release, env: &env_from.variables },
        Side { release: &to.release, env: &env_to.variables },
    ))
}

/// An app without a domain answers every address; there is room for one such app.
pub(super) async fn needs_no_domain(ports: &Ports, state: &AppState) -> Result<(), Unresolved> {
    if !state.domains.is_empty() {
        return Ok(());
    }
    match ports.journal.host().await?.table.apps.iter().find(|a| a.catch_all && a.app != state.app) {
        Some(first) => Err(Denial::NeedsDomain { first: first.app.clone(), second: state.app.clone() }.into()),
        None => Ok(()),
    }
}

async fn domains(
    ports: &Ports,
    state: &AppState,
    add: &[HostName],
    remove: &[HostName],
) -> Result<Vec<HostName>, Unresolved> {
    if let Some(host) = remove.iter().find(|h| !state.domains.contains(h)) {
        return Err(Denial::NotItsDomain { host: host.clone(), app: state.app.clone() }.into());
    }
    for other in ports.journal.apps().await?.iter().filter(|a| a.app != state.app) {
        if let Some(host) = add.iter().find(|h| other.domains.contains(h)) {
            return Err(Denial::DomainTaken { host: host.clone(), app: other.app.clone() }.into());
        }
    }
    let mut all: Vec<HostName> = state.domains.iter().filter(|h| !remove.contains(h)).chain(add).cloned().collect();
    all.sort();
    all.dedup();
    let removed = all.is_empty() && !state.domains.is_empty();
    match ports.journal.host().await?.table.apps.iter().find(|a| a.catch_all && a.app != state.app) {
        Some(first) if removed => {
            Err(Denial::NeedsDomain { first: first.app.clone(), second: state.app.clone() }.into())
        }
        _ => Ok(all),
    }
}

async fn seal(
    ports: &Ports,
    state: &AppState,
    by: &Principal,
    set: &Secrets,
    unset: &[String],
    no_deploy: bool,
) -> Result<Action, Unresolved> {
    let base = match &state.env {
        Some(env) => ports.journal.env(&state.app, env).await?.unwrap_or_default(),
        None => EnvRecord::default(),
    };
    let (env, variables) = ports.vault.seal(&state.app, by, &base, set, unset).await?;
    if state.env != Some(env) {
        ports.journal.append(by, Event::EnvSealed { app: state.app.clone(), env, variables }).await?;
    }
    let names = set.0.keys().chain(unset).cloned().collect();
    Ok(Action::ChangeEnv { env, no_activate: no_deploy, names })
}

//! The door: finds or makes the app, hands the request to its task, and hands out watches.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use async_trait::async_trait;
use refloat_model::admission::Denial;
use refloat_model::{AppName, AppState, DeploymentId, Event, Outcome, Principal, ReleaseNumber};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::info;

use super::app_task::{AppTask, Message, Refused, Request, Running, RunningCell, empty_report};
use super::driver::Context;
use super::feed::{Feed, Watch};
use super::ports::{Ports, Settings};
use super::request::{Ask, Denied, Submit};
use super::resolve;
use super::sequencer::Sequencer;
use super::standby_memory::StandbyMemory;
use super::update::{Accepted, Update};
use crate::build::MakeRoom;
use crate::journal::JournalError;

/// Most deployments whose updates are kept in memory.
const MAX_FEEDS: usize = 100;

/// Handle to everything that deploys.
#[derive(Debug, Clone)]
pub struct Deployments {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployments").finish_non_exhaustive()
    }
}

struct Inner {
    ports: Ports,
    settings: Arc<Settings>,
    sequencer: Sequencer,
    standby: StandbyMemory,
    apps: Mutex<HashMap<AppName, App>>,
    feeds: Mutex<VecDeque<(DeploymentId, AppName, Feed)>>,
    /// One app is made at a time, so that two never take one network.
    making: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct App {
    messages: mpsc::Sender<Message>,
    running: RunningCell,
}

/// What runs for an app.
#[derive(Debug, Clone)]
pub struct AppOverview {
    /// The app.
    pub app: AppName,
    /// The deployment.
    pub deployment: DeploymentId,
    /// `deploy`, `rollback`, …
    pub kind: &'static str,
    /// Its phase's word.
    pub phase: &'static str,
    /// When it was accepted, Unix time in milliseconds.
    pub started_at_ms: u64,
    /// Who asked.
    pub by: String,
}

impl Deployments {
    /// Starts the sequencer and a task for every app; interrupted deployments go on.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn start(ports: Ports, settings: Settings) -> Result<Self, JournalError> {
        let sequencer = Sequencer::start(Arc::clone(&ports.journal), Arc::clone(&ports.edge));
        let apps = ports.journal.apps().await?;
        let inner = Inner {
            ports,
            settings: Arc::new(settings),
            sequencer,
            standby: StandbyMemory::default(),
            apps: Mutex::default(),
            feeds: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        };
        let this = Self { inner: Arc::new(inner) };
        for app in apps {
            this.end_interrupted(&app).await;
            this.start_app(&app);
        }
        Ok(this)
    }

    fn start_app(&self, state: &AppState) -> App {
        let running = RunningCell::default();
        if let Some(left) = &state.deployment {
            let feed = self.feed_of(left.id, &state.app);
            *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running {
                id: left.id,
                kind: left.action.kind(),
                began_at_ms: left.accepted_at_ms,
                by: left.by.name.clone(),
                feed,
            });
        }
        let context = self.context(&state.app);
        let app = App { messages: AppTask::start(context, Arc::clone(&running)), running };
        self.apps().insert(state.app.clone(), app.clone());
        app
    }

    pub(super) fn context(&self, app: &AppName) -> Context {
        Context {
            ports: self.inner.ports.clone(),
            settings: Arc::clone(&self.inner.settings),
            sequencer: self.inner.sequencer.clone(),
            standby: self.inner.standby.clone(),
            app: app.clone(),
            doomed: Arc::default(),
        }
    }

    fn apps(&self) -> std::sync::MutexGuard<'_, HashMap<AppName, App>> {
        self.inner.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The feed of a deployment, made when it is new.
    fn feed_of(&self, id: DeploymentId, app: &AppName) -> Feed {
        let mut feeds = self.inner.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, feed)) = feeds.iter().find(|(known, _, _)| *known == id) {
            return feed.clone();
        }
        let feed = Feed::default();
        feeds.push_back((id, app.clone(), feed.clone()));
        if feeds.len() > MAX_FEEDS {
            feeds.pop_front();
        }
        feed
    }

    /// Accepts a request and answers with its updates. The same id again answers with the same updates.
    ///
    /// # Errors
    /// Why it was not accepted; nothing has changed then.
    pub async fn submit(&self, submit: Submit) -> Result<Watch, Denied> {
        if let Some(watch) = self.watch(submit.id).await {
            return Ok(watch);
        }
        if let Some(watch) = self.dry_run(&submit).await? {
            return Ok(watch);
        }
        let state = self.find_or_make(&submit).await?;
        let app = self.apps().get(&state.app).filter(|a| !a.messages.is_closed()).cloned();
        let app = app.unwrap_or_else(|| self.start_app(&state));
        let feed = self.feed_of(submit.id, &state.app);
        let (answer, answered) = oneshot::channel();
        let request = Request {
            id: submit.id,
            ask: submit.ask,
            by: submit.by,
            reason: submit.reason,
            feed: feed.clone(),
            began: Instant::now(),
            cancelled: None,
            answer: Some(answer),
        };
        let sent = app.messages.send(Message::Submit(Box::new(request))).await.is_ok();
        let answer = if sent { answered.await.ok() } else { None };
        match answer {
            Some(Ok(())) => Ok(feed.watch()),
            Some(Err(refused)) => {
                self.forget(submit.id);
                Err(denied(refused, state.serves()))
            }
            None => {
                self.forget(submit.id);
                Err(denied(Refused::Failed("the agent is shutting down".to_owned()), state.serves()))
            }
        }
    }

    fn forget(&self, id: DeploymentId) {
        self.inner.feeds.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _, _)| *known != id);
    }

    /// The updates of a deployment that runs, or has ended.
    pub async fn watch(&self, id: DeploymentId) -> Option<Watch> {
        let known = {
            let feeds = self.inner.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            feeds.iter().find(|(known, _, _)| *known == id).map(|(_, _, feed)| feed.watch())
        };
        if known.is_some() {
            return known;
        }
        let record = self.inner.ports.journal.deployment(&id).await.ok().flatten()?;
        let outcome = record.outcome?;
        let feed = self.feed_of(id, &record.app);
        let deployment = record.deployment;
        feed.push(
            deployment.accepted_at_ms,
            Update::Accepted(Accepted {
                deployment: id,
                app: record.app.clone(),
                kind: deployment.action.kind(),
                serving: deployment.serving_before,
                target: deployment.action.target(),
                cancelled: None,
                undoes: Vec::new(),
            }),
        );
        let state = self.inner.ports.journal.app(&record.app).await.ok().flatten();
        let mut report = empty_report(outcome);
        report.serving = state.and_then(|s| s.serving);
        report.release = deployment.release;
        feed.push(record.ended_at_ms, Update::Ended(Box::new(report)));
        Some(feed.watch())
    }

    /// The updates of an app's newest deployment that is still in memory.
    pub async fn watch_app(&self, app: &AppName) -> Option<Watch> {
        let feeds = self.inner.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.iter().rev().find(|(_, name, _)| name == app).map(|(_, _, feed)| feed.watch())
    }

    /// Cancels what runs or waits for an app, unless it is committed.
    ///
    /// # Errors
    /// When the app cannot be told.
    pub async fn cancel(&self, app: Option<&AppName>, by: &Principal) -> Result<Option<DeploymentId>, Denied> {
        let state = self.existing(app).await?;
        let Some(app) = self.apps().get(&state.app).cloned() else { return Ok(None) };
        let (answer, answered) = oneshot::channel();
        let message = Message::Cancel { by: format!("{} (cancel)", by.name), answer };
        if app.messages.send(message).await.is_err() {
            return Ok(None);
        }
        Ok(answered.await.ok().flatten())
    }

    /// What runs now.
    pub async fn overview(&self) -> Vec<AppOverview> {
        let apps: Vec<(AppName, App)> = self.apps().iter().map(|(n, a)| (n.clone(), a.clone())).collect();
        apps.into_iter()
            .filter_map(|(app, handle)| {
                let running = handle.running.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
                Some(AppOverview {
                    app,
                    deployment: running.id,
                    kind: running.kind,
                    phase: running.feed.phase().unwrap_or(refloat_model::Phase::Queued).word(),
                    started_at_ms: running.began_at_ms,
                    by: running.by,
                })
            })
            .collect()
    }

    // ---- apps ------------------------------------------------------------------------------------------------

    async fn find_or_make(&self, submit: &Submit) -> Result<AppState, Denied> {
        let makes = matches!(submit.ask, Ask::Deploy { .. })
            || matches!(&submit.ask, Ask::Domains { add, .. } if !add.is_empty());
        let Some(name) = submit.app.as_ref().filter(|_| makes) else {
            return self.existing(submit.app.as_ref()).await;
        };
        let _one = self.inner.making.lock().await;
        if let Some(state) = self.journal_app(name).await? {
            return Ok(state);
        }
        self.make(name, submit).await
    }

    /// Whether a deploy would be accepted as things are: asked before its source is sent.
    ///
    /// # Errors
    /// Why it would not.
    pub async fn may_deploy(&self, app: &AppName) -> Result<(), Denied> {
        match self.journal_app(app).await? {
            None => self.room_for(app, true).await.map(drop),
            Some(state) => {
                let allowed = resolve::needs_no_domain(&self.inner.ports, &state).await;
                allowed.map_err(|error| denied(Refused::from(error), state.serves()))
            }
        }
    }

    /// The network that a new app would get.
    async fn room_for(&self, name: &AppName, deploys: bool) -> Result<u16, Denied> {
        let host = self.inner.ports.journal.host().await.map_err(unreadable)?;
        let catch_all = host.table.apps.iter().find(|a| a.catch_all);
        if let Some(first) = catch_all.filter(|_| deploys) {
            let denial = Denial::NeedsDomain { first: first.app.clone(), second: name.clone() };
            return Err(denied(Refused::Denied(denial), None));
        }
        let routes = self.inner.ports.routes.routes();
        let subnet = self.inner.settings.network.free(&host.subnets, &routes);
        subnet.map_err(|denial| denied(Refused::Denied(denial), None))
    }

    async fn make(&self, name: &AppName, submit: &Submit) -> Result<AppState, Denied> {
        let journal = &self.inner.ports.journal;
        let subnet = self.room_for(name, matches!(submit.ask, Ask::Deploy { .. })).await?;
        journal.append(&submit.by, Event::AppCreated { app: name.clone(), subnet }).await.map_err(unreadable)?;
        info!(app = %name, subnet, "app created");
        let state = self.journal_app(name).await?;
        state.ok_or_else(|| denied(Refused::Denied(Denial::NoSuchApp(name.clone())), None))
    }

    async fn journal_app(&self, name: &AppName) -> Result<Option<AppState>, Denied> {
        self.inner.ports.journal.app(name).await.map_err(unreadable)
    }

    /// The named app, or the only one.
    pub(super) async fn existing(&self, app: Option<&AppName>) -> Result<AppState, Denied> {
        let deny = |denial| Err(denied(Refused::Denied(denial), None));
        match app {
            Some(name) => match self.journal_app(name).await? {
                Some(state) => Ok(state),
                None => deny(Denial::NoSuchApp(name.clone())),
            },
            None => {
                let mut apps = self.inner.ports.journal.apps().await.map_err(unreadable)?;
                match (apps.pop(), apps.is_empty()) {
                    (None, _) => deny(Denial::NoApps),
                    (Some(only), true) => Ok(only),
                    (Some(last), false) => {
                        deny(Denial::WhichApp(apps.into_iter().map(|a| a.app).chain([last.app]).collect()))
                    }
                }
            }
        }
    }

    // ---- dry runs --------------------------------------------------------------------------------------------

    async fn dry_run(&self, submit: &Submit) -> Result<Option<Watch>, Denied> {
        let notes = match &submit.ask {
            Ask::Rollback { dry_run: true, to, code } => return self.dry_rollback(submit, *to, *code).await.map(Some),
            Ask::Destroy { dry_run: true, volumes } => self.would_destroy(submit, *volumes).await?,
            _ => return Ok(None),
        };
        let state = self.existing(submit.app.as_ref()).await?;
        Ok(Some(self.dry_feed(submit, &state, None, Vec::new(), notes)))
    }

    async fn dry_rollback(&self, submit: &Submit, to: Option<ReleaseNumber>, code: bool) -> Result<Watch, Denied> {
        let state = self.existing(submit.app.as_ref()).await?;
        let ports = &self.inner.ports;
        let failed = |error| denied(Refused::from(error), state.serves());
        let target = resolve::rollback_target(ports, &state, to, code).await.map_err(failed)?;
        let action = refloat_model::Action::Rollback(target);
        let undoes = resolve::undoes(ports, &state, &action).await.map_err(failed)?;
        Ok(self.dry_feed(submit, &state, Some(target), undoes, Vec::new()))
    }

    async fn would_destroy(&self, submit: &Submit, volumes: bool) -> Result<Vec<String>, Denied> {
        let state = self.existing(submit.app.as_ref()).await?;
        let ports = &self.inner.ports;
        let releases = ports.journal.releases(&state.app, usize::MAX).await.map_err(unreadable)?.len();
        let kept = ports.engine.volumes(&state.app).await.unwrap_or_default();
        let mut lines =
            vec![format!("{releases} releases and their images"), format!("{} containers", state.instances.len())];
        lines.extend(state.domains.iter().map(|d| format!("the domain {d}")));
        lines.extend(kept.into_iter().map(|v| match volumes {
            true => format!("the volume {v} WITH ITS DATA"),
            false => format!("(the volume {v} stays)"),
        }));
        lines.push("every value of its environment".to_owned());
        lines.push("(its uploaded sources and published files stay on the server's disk)".to_owned());
        Ok(lines)
    }

    fn dry_feed(
        &self,
        submit: &Submit,
        state: &AppState,
        target: Option<ReleaseNumber>,
        undoes: Vec<refloat_model::Change>,
        notes: Vec<String>,
    ) -> Watch {
        let feed = Feed::default();
        let now_ms = self.inner.ports.clock.now_ms();
        let accepted = Accepted {
            deployment: submit.id,
            app: state.app.clone(),
            kind: submit.ask.kind(),
            serving: state.serving,
            target,
            cancelled: None,
            undoes,
        };
        feed.push(now_ms, Update::Accepted(accepted));
        for text in notes {
            feed.push(now_ms, Update::Note { warn: false, text });
        }
        let mut report = empty_report(Outcome::Done);
        report.serving = state.serving;
        report.release = target;
        feed.push(now_ms, Update::Ended(Box::new(report)));
        feed.watch()
    }
}

/// Lets the builder, which is made before the dispatcher, ask it for room.
#[derive(Debug, Default)]
pub struct StandbyRoom(OnceLock<Weak<Inner>>);

impl StandbyRoom {
    /// From now on room is made by these apps.
    pub fn of(&self, deployments: &Deployments) {
        // Set once, by the composition of the daemon; a second time changes nothing.
        self.0.set(Arc::downgrade(&deployments.inner)).ok();
    }
}

#[async_trait]
impl MakeRoom for StandbyRoom {
    async fn make_room(&self) {
        if let Some(inner) = self.0.get().and_then(Weak::upgrade) {
            Deployments { inner }.make_room().await;
        }
    }
}

/// Makes room for a build: every app gives up its warm standby.
#[async_trait]
impl MakeRoom for Deployments {
    async fn make_room(&self) {
        let apps: Vec<App> = self.apps().values().cloned().collect();
        let evicted = apps.iter().map(|app| async {
            let (answer, answered) = oneshot::channel();
            if app.messages.send(Message::Evict { answer }).await.is_ok() {
                answered.await.ok();
            }
        });
        futures_util::future::join_all(evicted).await;
    }
}

fn unreadable(error: JournalError) -> Denied {
    denied(Refused::Failed(error.to_string()), None)
}

/// What is fine after something that did not begin.
pub(super) fn untouched(serving: Option<ReleaseNumber>) -> String {
    match serving {
        Some(number) => format!("{number} still serves; nothing was changed"),
        None => "nothing was changed".to_owned(),
    }
}

pub(super) fn denied(refused: Refused, serving: Option<ReleaseNumber>) -> Denied {
    let still_fine = untouched(serving);
    match refused {
        Refused::Denied(denial) => Denied {
            reason: denial.reason(),
            message: denial.to_string(),
            still_fine,
            next_command: denial.next_command(),
        },
        Refused::Env(message) => {
            Denied { reason: "ENV", message, still_fine, next_command: "refloat env list".to_owned() }
        }
        Refused::Failed(message) => {
            Denied { reason: "LEDGER", message, still_fine, next_command: "systemctl restart refloatd".to_owned() }
        }
    }
}

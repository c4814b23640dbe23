//! One task per app: the only writer of that app's state.
//!
//! ```text
//!             ┌────────────── waiting (one deploy, the newest; others in turn) ◀── Submit
//!             ▼
//!  Resting ──start──▶ Running ──ended──▶ Resting
//!  (keeper)            (driver)
//! ```
//!
//! The keeper runs while the app rests, the driver while a deployment runs; never both.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use refloat_model::admission::{self, Denial, Pending, Urgency, Verdict};
use refloat_model::{Deployment, DeploymentId, Event, Failure, Generation, Outcome, Phase, Principal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::driver::{Context, Driver};
use super::feed::Feed;
use super::gate::Gate;
use super::keeper;
use super::request::Ask;
use super::resolve::{self, Unresolved};
use super::update::{Accepted, Report, Update};

/// A request on its way.
pub(super) struct Request {
    pub(super) id: DeploymentId,
    pub(super) ask: Ask,
    pub(super) by: Principal,
    pub(super) reason: String,
    pub(super) feed: Feed,
    pub(super) began: Instant,
    /// The deployment that was cancelled for it.
    pub(super) cancelled: Option<DeploymentId>,
    /// Told once whether it was accepted; `None` when that has been told.
    pub(super) answer: Option<oneshot::Sender<Result<(), Refused>>>,
}

/// Why a request was not accepted.
#[derive(Debug)]
pub(super) enum Refused {
    Denied(Denial),
    /// The change of the environment makes no sense, or a value cannot be sealed.
    Env(String),
    /// The journal did not accept it.
    Failed(String),
}

impl From<Unresolved> for Refused {
    fn from(error: Unresolved) -> Self {
        match error {
            Unresolved::Denied(denial) => Self::Denied(denial),
            Unresolved::Journal(error) => Self::Failed(error.to_string()),
            Unresolved::Vault(error) => Self::Env(error.to_string()),
        }
    }
}

/// What the task is told.
pub(super) enum Message {
    Submit(Box<Request>),
    Cancel { by: String, answer: oneshot::Sender<Option<DeploymentId>> },
    Evict { answer: oneshot::Sender<()> },
}

/// What runs, for `status`.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) id: DeploymentId,
    pub(super) kind: &'static str,
    pub(super) began_at_ms: u64,
    pub(super) by: String,
    pub(super) feed: Feed,
}

/// Shared with the dispatcher.
pub(super) type RunningCell = Arc<Mutex<Option<Running>>>;

struct Active {
    pending: Pending,
    gate: Arc<Gate>,
    feed: Feed,
    driver: JoinHandle<()>,
}

struct Keeper {
    halt: CancellationToken,
    task: JoinHandle<()>,
}

/// The task.
pub(super) struct AppTask {
    context: Context,
    waiting: VecDeque<Box<Request>>,
    active: Option<Active>,
    keeper: Option<Keeper>,
    running: RunningCell,
}

impl AppTask {
    /// Starts the task, which first goes on with a deployment that an earlier agent left.
    pub(super) fn start(context: Context, running: RunningCell) -> mpsc::Sender<Message> {
        let (sender, receiver) = mpsc::channel(64);
        let task = Self { context, waiting: VecDeque::new(), active: None, keeper: None, running };
        tokio::spawn(task.run(receiver));
        sender
    }

    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        self.resume().await;
        loop {
            if self.active.is_none() {
                match self.waiting.pop_front() {
                    Some(request) => {
                        self.begin(*request).await;
                        continue;
                    }
                    None if self.is_gone().await => return,
                    None => self.rest(),
                }
            }
            tokio::select! {
                // Cancel-safe: a message that was not received stays in the channel.
                message = messages.recv() => match message {
                    Some(message) => self.handle(message).await,
                    None => return self.halt_keeper().await,
                },
                // Cancel-safe: joining again is joining the same.
                whole = ended(&mut self.active) => self.finished(whole).await,
            }
        }
    }

    /// Whether the app was destroyed.
    async fn is_gone(&self) -> bool {
        matches!(self.context.ports.journal.app(&self.context.app).await, Ok(None))
    }

    fn rest(&mut self) {
        if self.keeper.is_none() {
            let halt = CancellationToken::new();
            let task = tokio::spawn(keeper::keep(self.context.clone(), halt.clone()));
            self.keeper = Some(Keeper { halt, task });
        }
    }

    async fn halt_keeper(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.halt.cancel();
            if let Err(error) = keeper.task.await {
                error!(app = %self.context.app, %error, "the keeper ended by itself");
            }
        }
    }

    async fn finished(&mut self, whole: bool) {
        let active = self.active.take();
        if let Some(active) = active.filter(|_| !whole) {
            self.end_broken(active).await;
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A driver that ended by a mistake of ours has told nobody: an outcome is recorded, so that the next agent does not go
    /// on with it, and told.
    async fn end_broken(&self, active: Active) {
        let state = self.context.ports.journal.app(&self.context.app).await.ok().flatten();
        let Some(left) = state.and_then(|state| state.deployment).filter(|left| left.id == active.pending.id) else {
            return;
        };
        let why = "the agent made a mistake, which is in its log".to_owned();
        let outcome = if left.committed {
            Outcome::LiveUnverified(why)
        } else {
            let next_command = "journalctl -u refloatd -n 50".to_owned();
            Outcome::Failed(Failure { reason: "INTERNAL".to_owned(), message: why, next_command, lines: Vec::new() })
        };
        let event =
            Event::DeploymentEnded { app: self.context.app.clone(), deployment: left.id, outcome: outcome.clone() };
        if let Err(error) = self.context.ports.journal.append(&Principal::agent(), event).await {
            error!(app = %self.context.app, %error, "the outcome of a broken deployment is not recorded");
        }
        let report = Report { release: left.release, ..self.report(outcome).await };
        let update = Update::Ended(Box::new(report));
        active.feed.push(self.context.ports.clock.now_ms(), update);
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Submit(request) => self.submit(request).await,
            Message::Cancel { by, answer } => {
                let cancelled = self.active.as_ref().filter(|a| a.gate.cancel(&by)).map(|a| a.pending.id);
                let waiting = self.cancel_waiting(&by).await;
                let _gone = answer.send(cancelled.or(waiting));
            }
            Message::Evict { answer } => self.evict(answer).await,
        }
    }

    /// Gives up warm standby, unless a deployment may be about to use it.
    async fn evict(&mut self, answer: oneshot::Sender<()>) {
        let phase = self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|r| r.feed.phase());
        if self.active.is_some() && phase.is_some_and(|p| p > Phase::Building) {
            let _gone = answer.send(());
            return;
        }
        self.halt_keeper().await;
        if let Err(stop) = keeper::evict(&self.context).await {
            info!(app = %self.context.app, ?stop, "standby could not be stopped");
        }
        let context = self.context.clone();
        tokio::spawn(async move {
            keeper::wait_stopped(&context).await;
            let _gone = answer.send(());
        });
    }

    async fn cancel_waiting(&mut self, by: &str) -> Option<DeploymentId> {
        let first = self.waiting.front().map(|r| r.id);
        for request in std::mem::take(&mut self.waiting) {
            self.end_waiting(*request, Outcome::Cancelled { by: by.to_owned() }).await;
        }
        first
    }

    async fn submit(&mut self, mut request: Box<Request>) {
        let urgency = Urgency::of(request.ask.kind());
        let running = self.active.as_ref().map(|a| (a.pending, a.gate.is_open()));
        let waiting: Vec<Pending> = self.waiting.iter().map(|r| pending(r)).collect();
        match admission::admit(urgency, running, &waiting) {
            Verdict::Start => self.begin(*request).await,
            Verdict::Deny(denial) => refuse(&mut request, Refused::Denied(denial)),
            Verdict::Wait { place, superseded } => {
                let outcome = Outcome::Superseded { by: request.id };
                self.end_those(&superseded, &outcome).await;
                accept(&mut request);
                self.say_queued(&request);
                self.waiting.insert(place.min(self.waiting.len()), request);
            }
            Verdict::CancelRunning { place, cancelled } => {
                let by = format!("{} ({})", request.by.name, request.ask.kind());
                self.end_those(&cancelled, &Outcome::Cancelled { by: by.clone() }).await;
                let running = self.active.as_ref().filter(|active| active.gate.cancel(&by));
                request.cancelled = running.map(|active| active.pending.id);
                accept(&mut request);
                self.waiting.insert(place.min(self.waiting.len()), request);
            }
        }
    }

    fn say_queued(&self, request: &Request) {
        let behind = self.active.as_ref().map(|a| format!("waits for {:?}", a.pending.id)).unwrap_or_default();
        request.feed.push(self.context.ports.clock.now_ms(), Update::Phase(Phase::Queued, behind));
    }

    async fn end_those(&mut self, ids: &[DeploymentId], outcome: &Outcome) {
        for request in std::mem::take(&mut self.waiting) {
            if ids.contains(&request.id) {
                self.end_waiting(*request, outcome.clone()).await;
            } else {
                self.waiting.push_back(request);
            }
        }
    }

    /// Of something that never ran: what serves is what served.
    async fn report(&self, outcome: Outcome) -> Report {
        let state = self.context.ports.journal.app(&self.context.app).await.ok().flatten();
        let serving = state.and_then(|state| state.serves());
        let still_fine = serving.map(|number| format!("{number} still serves")).unwrap_or_default();
        Report { serving, still_fine, ..empty_report(outcome) }
    }

    async fn end_waiting(&self, request: Request, outcome: Outcome) {
        let report = self.report(outcome).await;
        request.feed.push(self.context.ports.clock.now_ms(), Update::Ended(Box::new(report)));
    }

    /// A request's turn: resolve it, record it, run it.
    async fn begin(&mut self, mut request: Request) {
        self.halt_keeper().await;
        match self.accept(&request).await {
            Ok((deployment, accepted)) => {
                accept(&mut request);
                request.feed.push(deployment.accepted_at_ms, Update::Accepted(accepted));
                let local_plan = match request.ask {
                    Ask::Deploy { local_plan, .. } => local_plan,
                    _ => None,
                };
                self.drive(deployment, request.feed, request.began, local_plan);
            }
            Err(refused) => refuse(&mut request, refused),
        }
    }

    async fn accept(&self, request: &Request) -> Result<(Deployment, Accepted), Refused> {
        let ports = &self.context.ports;
        let failed = |e: crate::journal::JournalError| Refused::Failed(e.to_string());
        let state = ports.journal.app(&self.context.app).await.map_err(failed)?;
        let state = state.ok_or_else(|| Refused::Denied(Denial::NoSuchApp(self.context.app.clone())))?;
        let resolved = resolve::resolve(ports, &state, &request.ask, &request.by).await?;
        let deployment = Deployment {
            id: request.id,
            by: request.by.clone(),
            reason: request.reason.clone(),
            accepted_at_ms: ports.clock.now_ms(),
            serving_before: state.serving,
            release: resolved.action.target(),
            action: resolved.action,
            committed: false,
            handovers: Vec::new(),
            resumed: 0,
        };
        let event = Event::DeploymentAccepted { app: self.context.app.clone(), deployment: deployment.clone() };
        ports.journal.append(&request.by, event).await.map_err(failed)?;
        let accepted = self.accepted(&deployment, request.cancelled, resolved.undoes);
        Ok((deployment, accepted))
    }

    fn accepted(
        &self,
        deployment: &Deployment,
        cancelled: Option<DeploymentId>,
        undoes: Vec<refloat_model::Change>,
    ) -> Accepted {
        Accepted {
            deployment: deployment.id,
            app: self.context.app.clone(),
            kind: deployment.action.kind(),
            serving: deployment.serving_before,
            target: deployment.action.target(),
            cancelled,
            undoes,
        }
    }

    fn drive(&mut self, deployment: Deployment, feed: Feed, began: Instant, local_plan: Option<[u8; 32]>) {
        let gate = Arc::new(Gate::default());
        if deployment.committed {
            // Nothing leads back from a commit; closing an open gate cannot fail.
            gate.close().ok();
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running {
            id: deployment.id,
            kind: deployment.action.kind(),
            began_at_ms: deployment.accepted_at_ms,
            by: deployment.by.name.clone(),
            feed: feed.clone(),
        });
        let pending = Pending { id: deployment.id, urgency: Urgency::of(deployment.action.kind()) };
        let mut driver = Driver::new(self.context.clone(), deployment, Arc::clone(&gate), feed.clone(), began);
        driver.local_plan = local_plan;
        self.active = Some(Active { pending, gate, feed, driver: tokio::spawn(driver.run()) });
    }

    /// Goes on with what an earlier agent left.
    async fn resume(&mut self) {
        let Ok(Some(state)) = self.context.ports.journal.app(&self.context.app).await else { return };
        let Some(mut deployment) = state.deployment else { return };
        let event = Event::DeploymentResumed { app: self.context.app.clone(), deployment: deployment.id };
        if let Err(error) = self.context.ports.journal.append(&Principal::agent(), event).await {
            error!(app = %self.context.app, %error, "an interrupted deployment cannot be gone on with");
            return;
        }
        deployment.resumed = deployment.resumed.saturating_add(1);
        info!(app = %self.context.app, deployment = ?deployment.id, kind = deployment.action.kind(), "going on with an interrupted deployment");
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let feed = running.map(|r| r.feed).unwrap_or_default();
        feed.push(self.context.ports.clock.now_ms(), Update::Accepted(self.accepted(&deployment, None, Vec::new())));
        self.drive(deployment, feed, Instant::now(), None);
    }
}

/// Whether the driver came to its end, once it has.
async fn ended(active: &mut Option<Active>) -> bool {
    match active {
        Some(active) => {
            let ended = (&mut active.driver).await;
            if let Err(error) = &ended {
                error!(deployment = ?active.pending.id, %error, "the driver ended without an outcome");
            }
            ended.is_ok()
        }
        None => std::future::pending().await,
    }
}

fn pending(request: &Request) -> Pending {
    Pending { id: request.id, urgency: Urgency::of(request.ask.kind()) }
}

fn accept(request: &mut Request) {
    if let Some(answer) = request.answer.take() {
        let _gone = answer.send(Ok(()));
    }
}

/// Tells a caller who still listens, or ends the feed of one that was told to wait.
fn refuse(request: &mut Request, refused: Refused) {
    match request.answer.take() {
        Some(answer) => {
            let _gone = answer.send(Err(refused));
        }
        None => {
            let (reason, message, next_command) = match refused {
                Refused::Denied(d) => (d.reason().to_owned(), d.to_string(), d.next_command()),
                Refused::Env(why) => ("ENV".to_owned(), why, "refloat env list".to_owned()),
                Refused::Failed(why) => ("LEDGER".to_owned(), why, "systemctl restart refloatd".to_owned()),
            };
            let failure = Failure { reason, message, next_command, lines: Vec::new() };
            request.feed.push(0, Update::Ended(Box::new(empty_report(Outcome::Failed(failure)))));
        }
    }
}

/// A report of something that never ran.
pub(super) fn empty_report(outcome: Outcome) -> Report {
    Report {
        outcome,
        serving: None,
        release: None,
        still_fine: String::new(),
        addresses: Vec::new(),
        fetched: Vec::new(),
        timings: Vec::new(),
        downtimes: Vec::new(),
        undone: Vec::new(),
        emergency: String::new(),
        generation: Generation::default(),
    }
}

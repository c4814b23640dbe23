//! Follows a deployment from its first event to its outcome.
//!
//! ```text
//! ask ──▶ events ──▶ outcome ──▶ fetched from here ──▶ told
//!           │ ▲
//!      lost │ │ Watch with the same key; what was seen already is skipped
//!           ▼ │
//!         connect again, a few times
//! ```
//!
//! The deployment belongs to the server. Ctrl-C and a lost connection end the watching, never the deployment.

use std::time::Duration;

use refloat_proto::v1::deployment_event::Event;
use refloat_proto::v1::deployment_service_client::DeploymentServiceClient;
use refloat_proto::v1::{
    Accepted, ActivateRequest, ChangeEnvRequest, DeployRequest, DeploymentEvent, DestroyRequest, Note, Outcome,
    OutcomeKind, OutputLine, PhaseChanged, RestartRequest, RollbackRequest, SetDomainsRequest, StopRequest,
    WatchRequest,
};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::exit::Exit;
use crate::failure::{Failure, is_transport};
use crate::fetch::{Here, fetch};
use crate::outcome::{Asked, Told, tell};
use crate::printer::{Tone, clean};
use crate::session::{Link, Session};
use crate::span::millis;

/// How long to wait before each attempt to find a lost deployment again.
const RECONNECT_AFTER: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// Phases of a deploy that were shorter are not worth a line; of anything else, [`LONG_PHASE_MS`].
const SHORT_PHASE_MS: u64 = 100;
const LONG_PHASE_MS: u64 = 1000;

/// What is asked of the server.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Make a release and activate it.
    Deploy(DeployRequest),
    /// Go back.
    Rollback(RollbackRequest),
    /// Activate any release.
    Activate(ActivateRequest),
    /// New instances.
    Restart(RestartRequest),
    /// Stop it.
    Stop(StopRequest),
    /// Remove it.
    Destroy(DestroyRequest),
    /// Other domains.
    Domains(SetDomainsRequest),
    /// Another environment.
    Env(ChangeEnvRequest),
}

impl Ask {
    async fn send(&self, channel: Channel) -> Result<Streaming<DeploymentEvent>, Status> {
        let mut client = DeploymentServiceClient::new(channel);
        let answer = match self.clone() {
            Self::Deploy(request) => client.deploy(request).await,
            Self::Rollback(request) => client.rollback(request).await,
            Self::Activate(request) => client.activate(request).await,
            Self::Restart(request) => client.restart(request).await,
            Self::Stop(request) => client.stop(request).await,
            Self::Destroy(request) => client.destroy(request).await,
            Self::Domains(request) => client.set_domains(request).await,
            Self::Env(request) => client.change_env(request).await,
        };
        answer.map(tonic::Response::into_inner)
    }

    fn key(&self) -> String {
        let mutation = match self {
            Self::Deploy(request) => &request.mutation,
            Self::Rollback(request) => &request.mutation,
            Self::Activate(request) => &request.mutation,
            Self::Restart(request) => &request.mutation,
            Self::Stop(request) => &request.mutation,
            Self::Destroy(request) => &request.mutation,
            Self::Domains(request) => &request.mutation,
            Self::Env(request) => &request.mutation,
        };
        mutation.as_ref().map(|m| m.idempotency_key.clone()).unwrap_or_default()
    }

    fn asked(&self, host: Option<String>) -> Asked {
        let (kind, app) = match self {
            Self::Deploy(request) => ("deploy", &request.app),
            Self::Rollback(request) => ("rollback", &request.app),
            Self::Activate(request) => ("activate", &request.app),
            Self::Restart(request) => ("restart", &request.app),
            Self::Stop(request) => ("stop", &request.app),
            Self::Destroy(request) => ("destroy", &request.app),
            Self::Domains(request) => ("domains", &request.app),
            Self::Env(request) => ("env", &request.app),
        };
        Asked {
            kind: kind.to_owned(),
            app: app.clone(),
            before: 0,
            dry_run: matches!(self, Self::Rollback(r) if r.dry_run) || matches!(self, Self::Destroy(r) if r.dry_run),
            only_made: matches!(self, Self::Deploy(r) if r.no_activate) || matches!(self, Self::Env(r) if r.no_deploy),
            volumes: matches!(self, Self::Destroy(r) if r.volumes),
            host,
        }
    }
}

/// How following ended.
enum Heard {
    /// The deployment ended.
    Outcome(Box<Outcome>),
    /// Ctrl-C.
    Interrupted,
    /// Nobody wants to watch any longer.
    Detached,
}

/// Follows what is asked to its end and tells it.
///
/// # Errors
/// When the server denies it or cannot be reached.
pub(crate) async fn follow(session: &Session<'_>, link: &Link, ask: &Ask) -> Result<Exit, Failure> {
    Follower::new(session, link, ask, Watching::default()).run().await.map(|(exit, _)| exit)
}

/// How a deployment is watched.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    /// Only until the server has accepted it.
    pub(crate) detach: bool,
    /// Notes that were told already: the server makes the same plan again.
    pub(crate) told: Vec<String>,
}

/// As [`follow`], and returns the app that the server named.
///
/// # Errors
/// As there.
pub(crate) async fn follow_app(
    session: &Session<'_>,
    link: &Link,
    ask: &Ask,
    watching: Watching,
) -> Result<(Exit, String), Failure> {
    Follower::new(session, link, ask, watching).run().await
}

struct Follower<'a> {
    session: &'a Session<'a>,
    link: &'a Link,
    ask: &'a Ask,
    asked: Asked,
    watching: Watching,
    seen: u64,
    phase: Option<(String, u64)>,
    outcome_event: Value,
}

impl<'a> Follower<'a> {
    fn new(session: &'a Session<'a>, link: &'a Link, ask: &'a Ask, watching: Watching) -> Self {
        let asked = ask.asked(link.target.host());
        Self { session, link, ask, asked, watching, seen: 0, phase: None, outcome_event: Value::Null }
    }

    async fn run(mut self) -> Result<(Exit, String), Failure> {
        // Cancel-safe: what was not taken is in the server's keeping, and nobody listens any more.
        let heard = tokio::select! {
            heard = self.listen() => heard,
            _ = tokio::signal::ctrl_c() => Ok(Heard::Interrupted),
        };
        self.session.printer.end_progress();
        let exit = match heard? {
            Heard::Outcome(outcome) => self.end(&outcome).await,
            Heard::Interrupted => {
                self.say_detached();
                Exit::Cancelled
            }
            Heard::Detached => {
                self.say_detached();
                Exit::Done
            }
        };
        Ok((exit, self.asked.app))
    }

    /// Until the outcome, over as many connections as it takes.
    async fn listen(&mut self) -> Result<Heard, Failure> {
        let mut lost = match self.ask.send(self.link.channel.clone()).await {
            Ok(events) => match self.hear(events).await {
                Ok(heard) => return Ok(heard),
                Err(status) => status,
            },
            Err(status) => status,
        };
        for pause in RECONNECT_AFTER {
            if !is_lost(&lost) {
                return Err(lost.into());
            }
            self.session.printer.doing("The connection is lost; looking for the deployment again");
            tokio::time::sleep(pause).await;
            lost = match self.find_again().await {
                Ok(events) => match self.hear(events).await {
                    Ok(heard) => return Ok(heard),
                    Err(status) => status,
                },
                Err(status) => status,
            };
        }
        Err(if is_lost(&lost) { self.lost(&lost) } else { lost.into() })
    }

    /// The same deployment over a new connection. One that the server does not know was never accepted: asking again
    /// with the same key is safe.
    async fn find_again(&self) -> Result<Streaming<DeploymentEvent>, Status> {
        let link = self.session.reach(self.link.target.clone()).await;
        let link = link.map_err(|failure| Status::unavailable(failure.what))?;
        let request = WatchRequest { deployment: self.ask.key(), app: self.asked.app.clone() };
        match DeploymentServiceClient::new(link.channel.clone()).watch(request).await {
            Ok(events) => Ok(events.into_inner()),
            Err(status) if status.code() == Code::NotFound => self.ask.send(link.channel).await,
            Err(status) => Err(status),
        }
    }

    fn lost(&self, status: &Status) -> Failure {
        let failure = Failure::from(status.clone());
        let what = format!("The connection to the server is lost ({}). The deployment goes on there.", failure.what);
        Failure::new(Exit::Unreachable, what).next(self.command("status"))
    }

    async fn hear(&mut self, mut events: Streaming<DeploymentEvent>) -> Result<Heard, Status> {
        while let Some(event) = events.message().await? {
            // An agent that was restarted counts from 1 again: an outcome is never one that was seen.
            let is_outcome = matches!(event.event, Some(Event::Outcome(_)));
            if event.sequence != 0 && event.sequence <= self.seen && !is_outcome {
                continue;
            }
            self.seen = event.sequence.max(self.seen);
            if let Some(heard) = self.take(event) {
                return Ok(heard);
            }
        }
        Err(Status::unavailable("the stream ended without an outcome"))
    }

    fn take(&mut self, event: DeploymentEvent) -> Option<Heard> {
        let json = event_json(&event);
        let at = event.at_unix_ms;
        let event = event.event?;
        if let Event::Outcome(outcome) = event {
            self.end_phase(at);
            self.outcome_event = json;
            return Some(Heard::Outcome(Box::new(outcome)));
        }
        self.session.printer.object(&json);
        match event {
            Event::Accepted(accepted) => {
                self.accepted(accepted);
                return self.watching.detach.then_some(Heard::Detached);
            }
            Event::Phase(phase) => self.phase(&phase, at),
            Event::Progress(p) => self.session.printer.progress(&p.what, p.done, p.total, &p.unit),
            Event::Output(line) => self.output(&line),
            Event::Note(note) => self.note(&note),
            Event::Outcome(_) => {}
        }
        None
    }

    fn accepted(&mut self, accepted: Accepted) {
        let printer = self.session.printer;
        self.asked.app = clean(&accepted.app);
        self.asked.before = accepted.serving;
        if !accepted.kind.is_empty() {
            self.asked.kind = clean(&accepted.kind);
        }
        if !accepted.cancelled.is_empty() {
            printer.say(Tone::Warn, "Cancelled the deployment that was running.");
        }
        if let Some(title) = self.undoing(&accepted) {
            self.list(&title);
            for change in &accepted.undoes {
                self.list(&format!("  {}", clean(&change.text)));
            }
        }
    }

    /// What stands above the differences.
    fn undoing(&self, accepted: &Accepted) -> Option<String> {
        let Accepted { serving, target, undoes, .. } = accepted;
        let from_to = format!("r{serving} → r{target}");
        match (self.asked.kind.as_str(), undoes.is_empty()) {
            ("rollback", false) => Some(format!("Rolling back {}, {from_to}. It undoes:", self.asked.app)),
            ("rollback", true) => Some(format!("Rolling back {}, {from_to}.", self.asked.app)),
            ("activate", false) => Some(format!("Activating in {}, {from_to}. What changes:", self.asked.app)),
            ("destroy", false) => Some(format!("With {} go:", self.asked.app)),
            _ => None,
        }
    }

    /// In a dry run the list is the result.
    fn list(&self, line: &str) {
        match self.asked.dry_run {
            true => self.session.printer.result(Tone::Plain, line),
            false => self.session.printer.say(Tone::Plain, line),
        }
    }

    fn phase(&mut self, phase: &PhaseChanged, at: u64) {
        self.end_phase(at);
        let what = phase_words(&phase.phase);
        let detail = clean(&phase.detail);
        let doing = if detail.is_empty() { what.clone() } else { format!("{what}: {detail}") };
        if phase.phase != "ended" {
            self.session.printer.doing(&doing);
            self.phase = Some((what, at));
        }
    }

    fn end_phase(&mut self, at: u64) {
        let Some((what, since)) = self.phase.take() else { return };
        let took = at.saturating_sub(since);
        let shown_from = if self.asked.kind == "deploy" { SHORT_PHASE_MS } else { LONG_PHASE_MS };
        if took >= shown_from {
            self.session.printer.say(Tone::Plain, &format!("  {what:<28} {}", millis(took)));
        }
    }

    fn output(&self, line: &OutputLine) {
        let source = if line.process.is_empty() { &line.source } else { &line.process };
        self.session.printer.say(Tone::Dim, &format!("  {} | {}", clean(source), clean(&line.line)));
    }

    fn note(&self, note: &Note) {
        if self.watching.told.contains(&note.text) {
            return;
        }
        let text = clean(&note.text);
        match note.level.as_str() {
            "warn" if self.session.printer.json_wanted() => {}
            "warn" => self.session.printer.warn(&format!("Warning: {text}")),
            _ if self.asked.dry_run => self.list(&text),
            _ => self.session.printer.say(Tone::Plain, &text),
        }
    }

    async fn end(&mut self, outcome: &Outcome) -> Exit {
        let here = self.look_from_here(outcome).await;
        let took = self.session.started.elapsed();
        let told = tell(&self.asked, outcome, here.as_ref(), took);
        self.print(&told);
        let mut event = std::mem::take(&mut self.outcome_event);
        if let Value::Object(fields) = &mut event {
            fields.insert("exit".to_owned(), json!(told.exit.code()));
            fields.insert("took_ms".to_owned(), json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
            fields.insert("from_here".to_owned(), json!(here));
        }
        self.session.printer.object(&event);
        told.exit
    }

    /// Only what put another release before visitors is worth the time.
    async fn look_from_here(&self, outcome: &Outcome) -> Option<Here> {
        let live = matches!(outcome.kind(), OutcomeKind::Live | OutcomeKind::LiveUnverified);
        let address =
            outcome.addresses.first().filter(|_| live && matches!(self.asked.kind.as_str(), "deploy" | "env"));
        match address {
            Some(address) => Some(fetch(address, self.asked.host.as_deref()).await),
            None => None,
        }
    }

    fn print(&self, told: &Told) {
        let printer = self.session.printer;
        let well = told.exit == Exit::Done;
        for line in &told.lines {
            match (line.result, well) {
                (true, _) => printer.result(line.tone, &line.text),
                (false, true) if line.tone != Tone::Warn => printer.say(line.tone, &line.text),
                (false, _) => printer.wrong(line.tone, &line.text),
            }
        }
    }

    fn say_detached(&self) {
        let (watch, stop) = (self.command("status"), self.command("cancel"));
        self.session.printer.wrong(Tone::Plain, &format!("The deployment goes on. Watch: {watch}; stop it: {stop}"));
        self.session.printer.object(&json!({ "detached": true, "watch": watch, "cancel": stop }));
    }

    fn command(&self, verb: &str) -> String {
        format!("refloat {verb} {}", self.asked.app).trim_end().to_owned()
    }
}

/// A connection that is gone, as opposed to an answer of the server, which has details.
fn is_lost(status: &Status) -> bool {
    is_transport(status) || status.code() == Code::Unavailable && status.details().is_empty()
}

fn phase_words(phase: &str) -> String {
    match phase {
        "queued" => "Waiting for its turn",
        "planning" => "Planning",
        "building" => "Building",
        "preparing" => "Starting it",
        "gating" => "Waiting until it is healthy",
        "handover" => "Handing over",
        "staging" => "Preparing the switch",
        "committed" => "Committed",
        "applying" => "Switching",
        "verifying" => "Checking what serves",
        other => return clean(other),
    }
    .to_owned()
}

/// The event as one flat object: `{"sequence": 1, "at_unix_ms": …, "accepted": {…}}`.
fn event_json(event: &DeploymentEvent) -> Value {
    let mut value = json!(event);
    if let Value::Object(fields) = &mut value
        && let Some(Value::Object(inner)) = fields.remove("event")
    {
        fields.extend(inner);
    }
    value
}

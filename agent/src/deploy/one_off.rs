//! One-off containers: a command with the image and the environment of the serving release, attached, removed after.

use refloat_model::admission::Denial;
use refloat_model::{
    AppName, AppState, Backend, Event, Failure, InstanceName, InstanceRecord, OneOff, OneOffEnd, OneOffId,
    OneOffRecord, Principal, Process, ProcessName, ReleaseRecord, planning,
};
use tracing::{info, warn};

use super::app_task::Refused;
use super::dispatcher::{Deployments, denied, untouched};
use super::request::Denied;
use super::stop::Stop;
use crate::docker::{RunIo, RunRequest};

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its identity: the same one again is not run again.
    pub id: OneOffId,
    /// Who asked.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// The app; `None` stands for the only one.
    pub app: Option<AppName>,
    /// The process whose image it runs in; `None`: the first that is a container.
    pub process: Option<ProcessName>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
}

impl Deployments {
    /// Runs a command; answers its exit code. That it began is durable before it does, and how it ended after.
    ///
    /// Ends by itself when nobody reads the output any more. It is not to be dropped before: then only the next start of
    /// the agent records the end.
    ///
    /// # Errors
    /// Why it was not run, or was ended.
    pub async fn run(&self, command: Command, io: RunIo) -> Result<i64, Denied> {
        let state = self.existing(command.app.as_ref()).await?;
        let record = self.serving(&state).await?;
        let process = pick(&record, command.process.as_ref()).ok_or_else(|| no_container(&state))?;
        let (app, id, by) = (&state.app, command.id, &command.by);
        let one_off = OneOff::of(id, record.number, process.name.clone(), &command.argv, command.reason.clone());
        let program = one_off.program.clone();
        self.begin(&state, by, one_off).await?;
        info!(%app, release = %record.number, process = %process.name, program, by = by.name, "command began");
        let ran = self.run_in(&state, &record, process, &command, io).await;
        let end = match &ran {
            Ok(code) => OneOffEnd::Exited(*code),
            Err(failure) => OneOffEnd::Cut(failure.message.clone()),
        };
        info!(%app, release = %record.number, program, ?end, "command ended");
        self.end(app, by, id, end).await;
        ran.map_err(|failure| not_run(&state, failure))
    }

    async fn run_in(
        &self,
        state: &AppState,
        record: &ReleaseRecord,
        process: &Process,
        command: &Command,
        io: RunIo,
    ) -> Result<i64, Failure> {
        let context = self.context(&state.app);
        let spec = planning::runtime_spec(context.settings.host_id, &record.release, process);
        // A name of its own: one that is still being removed must not stand in the way.
        let attempt = uuid::Uuid::new_v4().as_fields().0;
        let instance = InstanceRecord {
            name: InstanceName::derive(&state.app, &process.name, &spec, attempt),
            process: process.name.clone(),
            release: record.number,
            spec,
            attempt,
            // The engine picks one: nothing is routed to it.
            ip: [0; 4],
            port: 0,
        };
        let spec = super::ready::instance_spec(&context, record, process, &instance).await;
        let mut spec = spec.map_err(Failure::from)?;
        spec.command.clone_from(&command.argv);
        let request = RunRequest { spec, tty: command.tty };
        let ran = context.ports.engine.run(request, io).await;
        ran.map_err(|error| Failure::from(Stop::from(error)))
    }

    /// The ledger decides whether it is the first with its identity.
    async fn begin(&self, state: &AppState, by: &Principal, one_off: OneOff) -> Result<(), Denied> {
        let journal = self.context(&state.app).ports.journal;
        let id = one_off.id;
        let Err(error) = journal.append(by, Event::OneOffBegan { app: state.app.clone(), one_off }).await else {
            return Ok(());
        };
        match journal.one_off(&state.app, id).await {
            Ok(Some(before)) => Err(again(state, &before)),
            _ => Err(denied(Refused::Failed(error.to_string()), state.serves())),
        }
    }

    async fn end(&self, app: &AppName, by: &Principal, id: OneOffId, end: OneOffEnd) {
        let journal = self.context(app).ports.journal;
        if let Err(error) = journal.append(by, Event::OneOffEnded { app: app.clone(), id, end }).await {
            warn!(%app, %error, "the end of a command is not recorded; the next start of the agent does it");
        }
    }

    /// Records the end of what an agent before this one had begun. Its containers are housekeeping's.
    pub(super) async fn end_interrupted(&self, state: &AppState) {
        for id in &state.one_offs {
            let end = OneOffEnd::Cut("the agent was restarted meanwhile".to_owned());
            self.end(&state.app, &Principal::agent(), *id, end).await;
        }
    }

    async fn serving(&self, state: &AppState) -> Result<ReleaseRecord, Denied> {
        let nothing = || denied(Refused::Denied(Denial::NothingServes(state.app.clone())), None);
        let number = state.serving.ok_or_else(nothing)?;
        let record = self.context(&state.app).ports.journal.release(&state.app, number).await;
        record.map_err(|e| denied(Refused::Failed(e.to_string()), state.serving))?.ok_or_else(nothing)
    }
}

fn pick<'a>(record: &'a ReleaseRecord, name: Option<&ProcessName>) -> Option<&'a Process> {
    match name {
        Some(name) => record.release.process(name).filter(|p| matches!(p.backend, Backend::Instance { .. })),
        None => record.release.instance_processes().next(),
    }
}

/// The app itself is as it was: only the command did not run.
fn not_run(state: &AppState, failure: Failure) -> Denied {
    Denied {
        reason: "COMMAND_NOT_RUN",
        message: format!("the command did not run: {}", failure.message),
        still_fine: untouched(state.serves()),
        next_command: failure.next_command,
    }
}

/// Its output went to whoever asked first; running it twice could do twice what was meant once.
fn again(state: &AppState, before: &OneOffRecord) -> Denied {
    let program = &before.one_off.program;
    let ended = match &before.end {
        None => "it still runs".to_owned(),
        Some(OneOffEnd::Exited(code)) => format!("it ended with exit code {code}"),
        Some(OneOffEnd::Cut(why)) => format!("it did not end by itself: {why}"),
    };
    Denied {
        reason: "COMMAND_RUN_BEFORE",
        message: format!("this very request was sent before; {program} was run once, and {ended}"),
        still_fine: untouched(state.serves()),
        next_command: format!("refloat run {} -- {program}", state.app),
    }
}

fn no_container(state: &AppState) -> Denied {
    Denied {
        reason: "NO_CONTAINER",
        message: format!("{} has no such process that runs as a container", state.app),
        still_fine: "nothing was changed".to_owned(),
        next_command: format!("refloat show {}", state.app),
    }
}

//! One-off containers: a command with the image and the environment of the serving release, attached, removed after.

use refloat_model::admission::Denial;
use refloat_model::{
    AppState, Backend, Failure, InstanceName, InstanceRecord, Process, ProcessName, ReleaseRecord, planning,
};

use super::app_task::Refused;
use super::dispatcher::{Deployments, denied, untouched};
use super::request::Denied;
use super::stop::Stop;
use crate::docker::{RunIo, RunRequest};
use refloat_model::AppName;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Command {
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
    /// Runs a command; answers its exit code.
    ///
    /// # Errors
    /// Why it was not run.
    pub async fn run(&self, command: Command, io: RunIo) -> Result<i64, Denied> {
        let state = self.existing(command.app.as_ref()).await?;
        let record = self.serving(&state).await?;
        let process = pick(&record, command.process.as_ref()).ok_or_else(|| no_container(&state))?;
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
        let spec = super::ready::instance_spec(&context, &record, process, &instance).await;
        let mut spec = spec.map_err(|stop| not_run(&state, Failure::from(stop)))?;
        spec.command = command.argv;
        let request = RunRequest { spec, tty: command.tty };
        let ran = context.ports.engine.run(request, io).await;
        ran.map_err(|error| not_run(&state, Failure::from(Stop::from(error))))
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

fn no_container(state: &AppState) -> Denied {
    Denied {
        reason: "NO_CONTAINER",
        message: format!("{} has no such process that runs as a container", state.app),
        still_fine: "nothing was changed".to_owned(),
        next_command: format!("refloat show {}", state.app),
    }
}

//! One-off containers: `run` and the reading out of an image. They are removed whatever happens.

use std::collections::HashMap;

use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use refloat_model::ImageDigest;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::connect::{CHANGE_TIMEOUT_MS, Fault, READ_TIMEOUT_MS, START_TIMEOUT_MS, next_within, within};
use super::container::{create_body, without_values};
use super::engine::{EngineError, RunIo, RunRequest};
use super::labels::{self, filter};
use super::real::DockerEngine;

const RUN: &str = "to run the command";
const REMOVE: &str = "to remove the one-off container";

/// A container that goes with this value, also when its task is dropped. What a killed agent leaves is removed by
/// [`DockerEngine::remove_leftovers`].
pub(super) struct OneOff {
    docker: Docker,
    name: String,
    armed: bool,
}

impl OneOff {
    /// Never started; an image made from nothing has no command, so it gets one that does not exist.
    pub(super) async fn for_export(engine: &DockerEngine, image: &ImageDigest) -> Result<Self, EngineError> {
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            entrypoint: Some(vec!["/never-started".to_owned()]),
            network_disabled: Some(true),
            labels: Some(engine.host.of_one_off()),
            ..ContainerCreateBody::default()
        };
        let name = format!("refloat-export-{}", uuid::Uuid::new_v4().simple());
        Self::create(engine, "to open the image", name, body)
            .await
            .map_err(|f| f.about("to open the image", &format!("the image {image}")))
    }

    async fn create(
        engine: &DockerEngine,
        what: &'static str,
        name: String,
        body: ContainerCreateBody,
    ) -> Result<Self, Fault> {
        let docker = engine.docker().await?.clone();
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        // Armed first: a create that timed out may have happened.
        let mut one_off = Self { docker: docker.clone(), name, armed: true };
        match within(what, CHANGE_TIMEOUT_MS, docker.create_container(Some(options), body)).await {
            Ok(_) => Ok(one_off),
            Err(fault) => {
                one_off.armed = matches!(fault, Fault::Lost(_));
                Err(fault)
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn remove(mut self, engine: &DockerEngine) -> Result<(), EngineError> {
        let removed = engine.remove_any(REMOVE, &self.name).await;
        self.armed = removed.is_err();
        removed
    }
}

impl Drop for OneOff {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (docker, name) = (self.docker.clone(), std::mem::take(&mut self.name));
        runtime.spawn(async move {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let _ = within(REMOVE, CHANGE_TIMEOUT_MS, docker.remove_container(&name, Some(options))).await;
        });
    }
}

impl DockerEngine {
    pub(super) async fn run_one_off(&self, request: RunRequest, io: RunIo) -> Result<i64, EngineError> {
        let name = request.spec.name.to_string();
        let container = OneOff::create(self, RUN, name, run_body(&request, self)).await.map_err(|f| {
            without_values(f.about(RUN, &format!("the image {}", request.spec.image)), &request.spec.env)
        })?;
        let ended = self.attached(container.name(), io).await;
        let removed = container.remove(self).await;
        let code = ended.map_err(|f| without_values(f.refused(RUN), &request.spec.env))?;
        removed.map(|()| code)
    }

    /// Attaches before the start, so that no output is missed; ends with the container or when nobody reads.
    async fn attached(&self, name: &str, io: RunIo) -> Result<i64, Fault> {
        let docker = self.docker().await?;
        let options =
            AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).stderr(true).build();
        let AttachContainerResults { output, input } =
            within(RUN, START_TIMEOUT_MS, docker.attach_container(name, Some(options))).await?;
        within(RUN, START_TIMEOUT_MS, docker.start_container(name, None::<StartContainerOptions>)).await?;
        let feeding = feed(io.stdin, input);
        let reading = read(output, io.output);
        tokio::select! {
            // Output ends with the container; input that is not yet sent has nobody to read it.
            read = reading => read?,
            never = feeding => match never {},
        }
        self.exit_code(name).await
    }

    async fn exit_code(&self, name: &str) -> Result<i64, Fault> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut answers = Box::pin(self.docker().await?.wait_container(name, Some(options)).map(code_of));
        let code = next_within(RUN, READ_TIMEOUT_MS, &mut answers).await?;
        code.ok_or_else(|| Fault::Answered { status: 500, message: "no exit code was answered".to_owned() })
    }

    /// Removes the one-off containers that an agent left behind when it was killed: those made before this moment, in Unix
    /// time and milliseconds.
    ///
    /// # Errors
    /// When the engine cannot be reached or refuses.
    pub async fn remove_leftovers(&self, before_ms: u64) -> Result<usize, EngineError> {
        let filters: HashMap<_, _> = filter(labels::ONE_OFF, self.host.as_str());
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = within(REMOVE, READ_TIMEOUT_MS, self.docker().await?.list_containers(Some(options)))
            .await
            .map_err(|f| f.refused(REMOVE))?;
        // The engine counts in whole seconds.
        let before_s = i64::try_from(before_ms / 1000).unwrap_or(i64::MAX);
        let old = found.into_iter().filter(|container| container.created.is_some_and(|created| created < before_s));
        let ids: Vec<_> = old.filter_map(|container| container.id).collect();
        for id in &ids {
            self.remove_any(REMOVE, id).await?;
        }
        Ok(ids.len())
    }
}

fn run_body(request: &RunRequest, engine: &DockerEngine) -> ContainerCreateBody {
    ContainerCreateBody {
        tty: Some(request.tty),
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..create_body(&request.spec, &engine.host, engine.host.of_one_off())
    }
}

/// Ends by being dropped. When the sender is gone the command sees the end of its input.
async fn feed(
    mut stdin: mpsc::Receiver<Vec<u8>>,
    mut input: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
) -> std::convert::Infallible {
    while let Some(bytes) = stdin.recv().await {
        if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
            break;
        }
    }
    let _ = input.shutdown().await;
    std::future::pending().await
}

async fn read(
    mut output: std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<LogOutput, Error>> + Send>>,
    to: mpsc::Sender<(bool, Vec<u8>)>,
) -> Result<(), Fault> {
    let gone =
        || Fault::Answered { status: 499, message: "nobody reads its output any more; it was killed".to_owned() };
    loop {
        let piece = tokio::select! {
            // A piece that was just read is lost with its reader.
            () = to.closed() => return Err(gone()),
            piece = output.next() => piece,
        };
        let Some(piece) = piece.transpose()? else { return Ok(()) };
        let stderr = matches!(piece, LogOutput::StdErr { .. });
        to.send((stderr, piece.into_bytes().to_vec())).await.map_err(|_| gone())?;
    }
}

/// The client answers an exit code that is not 0 as an error.
fn code_of(answer: Result<bollard::models::ContainerWaitResponse, Error>) -> Result<i64, Error> {
    match answer {
        Ok(ended) => Ok(ended.status_code),
        Err(Error::DockerContainerWaitError { error, code }) if error.is_empty() => Ok(code),
        Err(error) => Err(error),
    }
}

//! Builds through BuildKit: the context is streamed from disk, the output as it comes, and a cancelled build stops.
//!
//! A build runs on a small runtime of its own. The client serves BuildKit's session in tasks that it never ends by
//! itself; they and their connections go with that runtime, whether the build succeeds, fails or is cancelled.

use std::collections::HashMap;
use std::path::Path;

use bollard::Docker;
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::{BuildImageOptions, BuilderVersion};
use futures_util::Stream;
use refloat_model::ImageDigest;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::connect::{BUILD_IDLE_TIMEOUT_MS, Fault, next_within};
use super::engine::{BuildOutput, BuildRequest, EngineError};
use super::labels::{self, HostLabel};
use super::progress::Progress;
use super::real::DockerEngine;

const WHAT: &str = "to build";
/// Bytes of the context that are read at once.
const CONTEXT_CHUNK_BYTES: usize = 64 * 1024;

impl DockerEngine {
    pub(super) async fn build_image(
        &self,
        request: BuildRequest,
        output: mpsc::Sender<BuildOutput>,
        cancel: CancellationToken,
    ) -> Result<ImageDigest, EngineError> {
        let docker = with_cgroup(self.docker().await?.clone(), request.cgroup_parent.as_deref())?;
        let context = open(&request.context).await?;
        let options = options(&request, &self.host);
        let apart = Apart::start()?;
        let build = apart.runtime()?.spawn(follow(docker, options, context, output));
        tokio::select! {
            () = cancel.cancelled() => Err(EngineError::Cancelled),
            ended = build => ended.map_err(|e| refused(format!("the build's task ended early: {e}")))?,
        }
    }
}

async fn follow(
    docker: Docker,
    options: BuildImageOptions,
    context: tokio::fs::File,
    output: mpsc::Sender<BuildOutput>,
) -> Result<ImageDigest, EngineError> {
    let context = bollard::body_try_stream(ReaderStream::with_capacity(context, CONTEXT_CHUNK_BYTES));
    let messages = docker.build_image(options, None, Some(context));
    read(Box::pin(messages), output).await
}

async fn read<S>(mut messages: S, output: mpsc::Sender<BuildOutput>) -> Result<ImageDigest, EngineError>
where
    S: Stream<Item = Result<BuildInfo, bollard::errors::Error>> + Unpin,
{
    let (mut progress, mut image) = (Progress::default(), None);
    loop {
        match next_within(WHAT, BUILD_IDLE_TIMEOUT_MS, &mut messages).await {
            Ok(None) => break,
            Ok(Some(message)) => match message.aux {
                Some(BuildInfoAux::BuildKit(status)) => {
                    for piece in progress.apply(&status) {
                        // Nobody listens any more: the build goes on, its result counts.
                        let _ = output.send(piece).await;
                    }
                }
                Some(BuildInfoAux::Default(id)) => image = id.id,
                None => {}
            },
            Err(Fault::Answered { message, .. }) => return Err(progress.failure(&message)),
            Err(Fault::Lost(error)) => return Err(error),
        }
    }
    let image = image.ok_or_else(|| refused("it ended without an image".to_owned()))?;
    ImageDigest::new(image).map_err(|e| refused(e.to_string()))
}

fn options(request: &BuildRequest, host: &HostLabel) -> BuildImageOptions {
    BuildImageOptions {
        dockerfile: request.dockerfile.clone(),
        // Held by a tag from its first moment, until a release keeps it: the engine collects what has none.
        t: Some(format!("{}:{}", host.fresh_repository(), uuid::Uuid::new_v4().simple())),
        buildargs: Some(request.args.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
        // Not the host's label: containers inherit the labels of their image, whoever starts them.
        labels: Some(HashMap::from([(labels::APP.to_owned(), request.app.to_string())])),
        rm: true,
        version: BuilderVersion::BuilderBuildKit,
        session: Some(uuid::Uuid::new_v4().simple().to_string()),
        ..BuildImageOptions::default()
    }
}

async fn open(path: &Path) -> Result<tokio::fs::File, EngineError> {
    tokio::fs::File::open(path).await.map_err(|e| refused(format!("the build's files cannot be read: {e}")))
}

/// The client has no such option, so it is added to the request's address.
fn with_cgroup(docker: Docker, cgroup: Option<&str>) -> Result<Docker, EngineError> {
    let Some(cgroup) = cgroup else { return Ok(docker) };
    if !cgroup.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.:".contains(&b)) {
        return Err(refused(format!("{cgroup:?} is no name of a control group")));
    }
    let parameter = format!("cgroupparent={cgroup}");
    Ok(docker.with_request_modifier(move |mut request| {
        if let Some(uri) = with_parameter(request.uri(), &parameter) {
            *request.uri_mut() = uri;
        }
        request
    }))
}

/// The address of a build with one more parameter; `None` for every other request.
fn with_parameter(uri: &http::Uri, parameter: &str) -> Option<http::Uri> {
    let query = uri.query().filter(|_| uri.path() == "/build")?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("/build?{query}&{parameter}").parse().ok()?);
    http::Uri::from_parts(parts).ok()
}

fn refused(message: String) -> EngineError {
    EngineError::Refused { what: WHAT, message }
}

/// A runtime whose tasks end when this value goes.
struct Apart(Option<Runtime>);

impl Apart {
    fn start() -> Result<Self, EngineError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("refloat-build").enable_all().build();
        runtime.map(|runtime| Self(Some(runtime))).map_err(|e| refused(format!("no thread can be started: {e}")))
    }

    fn runtime(&self) -> Result<&Runtime, EngineError> {
        self.0.as_ref().ok_or_else(|| refused("its thread is gone".to_owned()))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_s_address_gets_its_control_group_and_no_other_does() {
        let extended = |uri: &'static str| {
            with_parameter(&http::Uri::from_static(uri), "cgroupparent=/refloat/build").map(|uri| uri.to_string())
        };
        let wanted = "unix://2f76/build?q=false&t=a&cgroupparent=/refloat/build".to_owned();
        assert_eq!(extended("unix://2f76/build?q=false&t=a"), Some(wanted));
        assert_eq!(extended("unix://2f76/session"), None);
    }

    #[test]
    fn a_control_group_that_could_change_the_address_is_refused() {
        let docker = || {
            Docker::connect_with_custom_transport(
                |_| async { unreachable!() },
                None::<String>,
                1,
                bollard::API_DEFAULT_VERSION,
            )
            .unwrap()
        };
        for bad in ["a&b", "a b", "a#b", "a%26b"] {
            assert!(with_cgroup(docker(), Some(bad)).is_err(), "{bad}");
        }
        assert!(with_cgroup(docker(), Some("/refloat/build")).is_ok());
        assert!(with_cgroup(docker(), Some("refloat-build.slice")).is_ok());
    }
}

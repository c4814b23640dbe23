//! Builds through BuildKit: the context is streamed from disk, the output as it comes, and a cancelled build stops.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::buildkit::v1::{SolveRequest, SolveResponse, StatusRequest};
use refloat_model::ImageDigest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use super::buildkit::{BuildKit, context_url};
use super::connect::{BUILD_IDLE_TIMEOUT_MS, in_time};
use super::engine::{BuildOutput, BuildRequest, EngineError};
use super::labels::{self, HostLabel};
use super::progress::Progress;
use super::real::DockerEngine;

const WHAT: &str = "to build";
/// How long the output of a build that has ended is waited for.
const LAST_WORDS_TIMEOUT_MS: u64 = 5_000;

impl DockerEngine {
    pub(super) async fn build_image(
        &self,
        request: BuildRequest,
        output: mpsc::Sender<BuildOutput>,
        cancel: CancellationToken,
    ) -> Result<ImageDigest, EngineError> {
        tokio::select! {
            // The connections go with the build's future, and BuildKit stops what has no client.
            () = cancel.cancelled() => Err(EngineError::Cancelled),
            built = self.build_to_end(request, output) => built,
        }
    }

    async fn build_to_end(
        &self,
        request: BuildRequest,
        output: mpsc::Sender<BuildOutput>,
    ) -> Result<ImageDigest, EngineError> {
        readable(&request.context).await?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let buildkit = BuildKit::open(self.socket(), &id, &request.context).await?;
        let mut progress = Progress::default();
        let solved = solve(&buildkit.control, solve_request(&request, &self.host, id), &mut progress, &output).await?;
        match solved {
            Ok(response) => image_of(response),
            // A status of the client's own has a cause, one that BuildKit answered has none.
            Err(status) if std::error::Error::source(&status).is_some() => {
                Err(EngineError::Unreachable(format!("the connection broke during the build ({})", status.message())))
            }
            Err(status) => Err(progress.failure(status.message())),
        }
    }
}

/// Asks for the build and reads what it says until both have ended.
async fn solve(
    control: &ControlClient<Channel>,
    request: SolveRequest,
    progress: &mut Progress,
    output: &mpsc::Sender<BuildOutput>,
) -> Result<Result<SolveResponse, Status>, EngineError> {
    let (mut asking, watching) = (control.clone(), control.clone());
    let mut watched = pin!(watch(watching, request.r#ref.clone(), progress, output));
    let mut solved = pin!(asking.solve(request));
    let answer = tokio::select! {
        watched = &mut watched => {
            watched?;
            in_time(WHAT, BUILD_IDLE_TIMEOUT_MS, solved).await?
        }
        solved = &mut solved => {
            let _ = tokio::time::timeout(Duration::from_millis(LAST_WORDS_TIMEOUT_MS), watched).await;
            solved
        }
    };
    Ok(answer.map(tonic::Response::into_inner))
}

/// Ends when the build has said everything. A broken stream is no failure of its own: the solve tells.
async fn watch(
    mut control: ControlClient<Channel>,
    id: String,
    progress: &mut Progress,
    output: &mpsc::Sender<BuildOutput>,
) -> Result<(), EngineError> {
    let Ok(stream) = control.status(StatusRequest { r#ref: id }).await else { return Ok(()) };
    let mut stream = stream.into_inner();
    while let Ok(Some(status)) = in_time(WHAT, BUILD_IDLE_TIMEOUT_MS, stream.message()).await? {
        for piece in progress.apply(&status) {
            // Nobody listens any more: the build goes on, its result counts.
            let _ = output.send(piece).await;
        }
    }
    Ok(())
}

fn solve_request(request: &BuildRequest, host: &HostLabel, id: String) -> SolveRequest {
    // Held by a tag from its first moment, until a release keeps it: the engine collects what has none.
    let tag = format!("{}:{id}", host.fresh_repository());
    SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: attributes(request, &id),
        // The engine's own exporter, into its own image store. The newer field is unknown to engines before 25.
        exporter_deprecated: "moby".to_owned(),
        exporter_attrs_deprecated: HashMap::from([("name".to_owned(), tag)]),
        r#ref: id.clone(),
        session: id,
        ..SolveRequest::default()
    }
}

/// What the Dockerfile frontend is told.
fn attributes(request: &BuildRequest, id: &str) -> HashMap<String, String> {
    let mut attributes = HashMap::from([
        ("context".to_owned(), context_url(id)),
        ("filename".to_owned(), request.dockerfile.clone()),
        // Not the host's label: containers inherit the labels of their image, whoever starts them.
        (format!("label:{}", labels::APP), request.app.to_string()),
    ]);
    attributes.extend(request.args.0.iter().map(|(name, value)| (format!("build-arg:{name}"), value.clone())));
    attributes.extend(request.cgroup_parent.iter().map(|group| ("cgroup-parent".to_owned(), group.clone())));
    attributes
}

/// The engine's exporter answers the id of the image under this name.
fn image_of(mut response: SolveResponse) -> Result<ImageDigest, EngineError> {
    let id = response.exporter_response.remove("containerimage.digest");
    let id = id.ok_or_else(|| refused("it ended without an image".to_owned()))?;
    ImageDigest::new(id).map_err(|e| refused(e.to_string()))
}

async fn readable(context: &std::path::Path) -> Result<(), EngineError> {
    let opened = tokio::fs::File::open(context).await;
    opened.map(|_| ()).map_err(|e| refused(format!("the build's files cannot be read: {e}")))
}

fn refused(message: String) -> EngineError {
    EngineError::Refused { what: WHAT, message }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use refloat_model::AppName;

    use super::*;
    use crate::docker::Secrets;

    fn request() -> BuildRequest {
        BuildRequest {
            app: AppName::new("shop").unwrap(),
            context: "/nonexistent".into(),
            dockerfile: "docker/Dockerfile".to_owned(),
            args: Secrets(BTreeMap::from([("VITE_KEY".to_owned(), "v4lue".to_owned())])),
            cgroup_parent: Some("/refloat-build".to_owned()),
        }
    }

    #[test]
    fn a_build_runs_in_its_control_group_and_its_arguments_are_nothing_else() {
        let attributes = attributes(&request(), "0123");
        assert_eq!(attributes["cgroup-parent"], "/refloat-build");
        assert_eq!(attributes["filename"], "docker/Dockerfile");
        assert_eq!(attributes["label:dev.refloat.app"], "shop");
        let holders: Vec<_> = attributes.iter().filter(|(_, v)| v.contains("v4lue")).map(|(name, _)| name).collect();
        assert_eq!(holders, ["build-arg:VITE_KEY"]);
    }

    #[test]
    fn a_build_that_is_not_capped_names_no_control_group() {
        let attributes = attributes(&BuildRequest { cgroup_parent: None, ..request() }, "0123");
        assert!(!attributes.contains_key("cgroup-parent"));
    }

    #[test]
    fn two_builds_never_read_their_files_from_one_address() {
        assert_ne!(attributes(&request(), "1")["context"], attributes(&request(), "2")["context"]);
    }

    #[test]
    fn a_fresh_image_is_held_by_a_tag_of_this_agent() {
        let host = HostLabel::new([0xab; 16]);
        let solve = solve_request(&request(), &host, "0123".to_owned());
        assert_eq!(solve.exporter_attrs_deprecated["name"], "refloat-abababab/fresh_build:0123");
        assert_eq!((solve.r#ref.as_str(), solve.session.as_str()), ("0123", "0123"));
    }

    #[test]
    fn an_answer_without_an_image_is_no_success() {
        assert!(image_of(SolveResponse::default()).is_err());
    }
}

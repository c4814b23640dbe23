//! An agent that plays back what it was told to say and writes down what it was asked.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message as _;
use refloat_plan::tree::{Digest, Directory, Node};
use refloat_proto::v1::app_service_server::{AppService, AppServiceServer};
use refloat_proto::v1::deployment_event::Event;
use refloat_proto::v1::deployment_service_server::{DeploymentService, DeploymentServiceServer};
use refloat_proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use refloat_proto::v1::release_service_server::{ReleaseService, ReleaseServiceServer};
use refloat_proto::v1::source_service_server::{SourceService, SourceServiceServer};
use refloat_proto::v1::{self as wire, DeploymentEvent, Outcome, OutcomeKind};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Events = tokio_stream::Iter<std::vec::IntoIter<Result<DeploymentEvent, Status>>>;

/// What the agent says and was asked.
#[derive(Default)]
pub(crate) struct Script {
    /// Events of every deployment; what follows [`Status`] comes over the next connection.
    pub(crate) events: Vec<Result<DeploymentEvent, Status>>,
    /// Instead of any event.
    pub(crate) denial: Option<Status>,
    pub(crate) status: wire::GetStatusResponse,
    pub(crate) releases: wire::ListReleasesResponse,
    pub(crate) release: wire::GetReleaseResponse,
    pub(crate) diff: wire::DiffReleasesResponse,
    pub(crate) env: wire::ListEnvResponse,
    pub(crate) logs: Vec<wire::LogLine>,
    pub(crate) cancelled: wire::CancelResponse,
    /// Objects that were uploaded.
    pub(crate) objects: HashMap<Digest, Vec<u8>>,
    /// How many objects each upload carried.
    pub(crate) uploads: Vec<usize>,
    /// How many digests each question named.
    pub(crate) questions: Vec<usize>,
    /// Every mutation, for people: "rollback shop to 0".
    pub(crate) asked: Vec<String>,
    /// Idempotency keys, in order.
    pub(crate) keys: Vec<String>,
    /// The last deploy.
    pub(crate) deploy: Option<wire::DeployRequest>,
    /// What `run` got: its command and its input.
    pub(crate) ran: (Vec<String>, Vec<u8>),
}

/// The agent, until it is dropped.
pub(crate) struct FakeAgent {
    script: Arc<Mutex<Script>>,
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Mutex<Script>>);

impl FakeAgent {
    /// Starts one behind a socket of its own.
    pub(crate) fn start(script: Script) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let script = Arc::new(Mutex::new(script));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(async { UnixListener::bind(socket(folder.path())) }).expect("a socket");
        let serving = router(&Service(Arc::clone(&script))).serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(serving);
        Self { script, folder, _runtime: runtime }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// What it says and was asked.
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("nobody panicked")
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

/// All services.
pub(crate) fn router(service: &Service) -> tonic::transport::server::Router {
    tonic::transport::Server::builder()
        .add_service(DeploymentServiceServer::new(service.clone()))
        .add_service(AppServiceServer::new(service.clone()))
        .add_service(ReleaseServiceServer::new(service.clone()))
        .add_service(IdentityServiceServer::new(service.clone()))
        .add_service(SourceServiceServer::new(service.clone()))
}

/// Milliseconds of Unix time so many seconds ago.
pub(crate) fn seconds_ago(seconds: u64) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later") - Duration::from_secs(seconds);
    u64::try_from(since.as_millis()).expect("it fits")
}

/// Events with sequence numbers, a second apart.
pub(crate) fn events(list: Vec<Event>) -> Vec<Result<DeploymentEvent, Status>> {
    let number = |(index, event)| {
        let sequence = index as u64 + 1;
        Ok(DeploymentEvent { sequence, at_unix_ms: 1_000_000 + sequence * 1000, event: Some(event) })
    };
    list.into_iter().enumerate().map(number).collect()
}

/// The first event.
pub(crate) fn accepted(kind: &str, serving: u32, target: u32, undoes: &[(&str, &str)]) -> Event {
    Event::Accepted(wire::Accepted {
        deployment: "7d444840-9dc0-11d1-b245-5ffdce74fad2".to_owned(),
        app: "shop".to_owned(),
        kind: kind.to_owned(),
        serving,
        target,
        undoes: changes(undoes),
        ..Default::default()
    })
}

/// Changes from pairs of kind and text.
pub(crate) fn changes(list: &[(&str, &str)]) -> Vec<wire::Change> {
    list.iter().map(|(what, text)| wire::Change { what: (*what).to_owned(), text: (*text).to_owned() }).collect()
}

/// A phase.
pub(crate) fn phase(phase: &str) -> Event {
    Event::Phase(wire::PhaseChanged { phase: phase.to_owned(), detail: String::new() })
}

/// A line of output.
pub(crate) fn output(source: &str, process: &str, line: &str) -> Event {
    Event::Output(wire::OutputLine { source: source.to_owned(), process: process.to_owned(), line: line.to_owned() })
}

/// The last event.
pub(crate) fn outcome(kind: OutcomeKind, release: u32, serving: u32) -> Outcome {
    Outcome { kind: kind.into(), release, serving, ..Default::default() }
}

/// A status with a problem beside it, as the agent sends it.
pub(crate) fn denied(code: Code, message: &str, still_fine: &str, next_command: &str) -> Status {
    let problem = wire::Problem {
        reason: "DENIED".to_owned(),
        still_fine: still_fine.to_owned(),
        next_command: next_command.to_owned(),
        ..Default::default()
    };
    let type_url = "type.googleapis.com/refloat.v1.Problem".to_owned();
    let details = vec![prost_types::Any { type_url, value: problem.encode_to_vec() }];
    let detail = tonic_types::Status { code: code as i32, message: message.to_owned(), details };
    Status::with_details(code, message, detail.encode_to_vec().into())
}

impl Service {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().expect("nobody panicked")
    }

    /// Plays the events up to a break.
    fn play(&self, mutation: Option<&wire::Mutation>, asked: String) -> Answer<Events> {
        let mut script = self.script();
        script.asked.push(asked);
        script.keys.extend(mutation.map(|m| m.idempotency_key.clone()));
        if let Some(denial) = &script.denial {
            return Err(denial.clone());
        }
        let end = script.events.iter().position(Result::is_err).map_or(script.events.len(), |at| at + 1);
        let played: Vec<_> = script.events.drain(..end).collect();
        Ok(Response::new(tokio_stream::iter(played)))
    }
}

#[tonic::async_trait]
impl DeploymentService for Service {
    type DeployStream = Events;
    type RollbackStream = Events;
    type ActivateStream = Events;
    type RestartStream = Events;
    type StopStream = Events;
    type DestroyStream = Events;
    type SetDomainsStream = Events;
    type ChangeEnvStream = Events;
    type WatchStream = Events;

    async fn deploy(&self, request: Request<wire::DeployRequest>) -> Answer<Events> {
        let it = request.into_inner();
        self.script().deploy = Some(it.clone());
        self.play(it.mutation.as_ref(), format!("deploy {}", it.app))
    }

    async fn rollback(&self, request: Request<wire::RollbackRequest>) -> Answer<Events> {
        let it = request.into_inner();
        let text = format!("rollback {:?} to {} code {} dry_run {}", it.app, it.to, it.code, it.dry_run);
        self.play(it.mutation.as_ref(), text)
    }

    async fn activate(&self, request: Request<wire::ActivateRequest>) -> Answer<Events> {
        let it = request.into_inner();
        self.play(it.mutation.as_ref(), format!("activate {} {}", it.app, it.release))
    }

    async fn restart(&self, request: Request<wire::RestartRequest>) -> Answer<Events> {
        let it = request.into_inner();
        self.play(it.mutation.as_ref(), format!("restart {}", it.app))
    }

    async fn stop(&self, request: Request<wire::StopRequest>) -> Answer<Events> {
        let it = request.into_inner();
        self.play(it.mutation.as_ref(), format!("stop {}", it.app))
    }

    async fn destroy(&self, request: Request<wire::DestroyRequest>) -> Answer<Events> {
        let it = request.into_inner();
        let text = format!("destroy {} volumes {} dry_run {}", it.app, it.volumes, it.dry_run);
        self.play(it.mutation.as_ref(), text)
    }

    async fn set_domains(&self, request: Request<wire::SetDomainsRequest>) -> Answer<Events> {
        let it = request.into_inner();
        self.play(it.mutation.as_ref(), format!("domains {} add {:?} remove {:?}", it.app, it.add, it.remove))
    }

    async fn change_env(&self, request: Request<wire::ChangeEnvRequest>) -> Answer<Events> {
        let it = request.into_inner();
        let set: Vec<String> = it.set.iter().map(|v| format!("{}={}", v.name, v.value)).collect();
        self.play(it.mutation.as_ref(), format!("env {} set {set:?} unset {:?} {}", it.app, it.unset, it.no_deploy))
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Answer<Events> {
        let it = request.into_inner();
        self.script().keys.push(it.deployment);
        self.play(None, "watch".to_owned())
    }

    async fn cancel(&self, _: Request<wire::CancelRequest>) -> Answer<wire::CancelResponse> {
        Ok(Response::new(self.script().cancelled.clone()))
    }
}

#[tonic::async_trait]
impl AppService for Service {
    type LogsStream = tokio_stream::Iter<std::vec::IntoIter<Result<wire::LogLine, Status>>>;
    type RunStream = tokio_stream::Iter<std::vec::IntoIter<Result<wire::RunOutput, Status>>>;

    async fn list_apps(&self, _: Request<wire::ListAppsRequest>) -> Answer<wire::ListAppsResponse> {
        Ok(Response::new(wire::ListAppsResponse { apps: self.script().status.apps.clone() }))
    }

    async fn get_status(&self, request: Request<wire::GetStatusRequest>) -> Answer<wire::GetStatusResponse> {
        self.script().asked.push(format!("status {:?}", request.into_inner().app));
        Ok(Response::new(self.script().status.clone()))
    }

    async fn list_env(&self, _: Request<wire::ListEnvRequest>) -> Answer<wire::ListEnvResponse> {
        Ok(Response::new(self.script().env.clone()))
    }

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Answer<Self::LogsStream> {
        let it = request.into_inner();
        let mut script = self.script();
        script.asked.push(format!("logs {} r{} {} {} {}", it.app, it.release, it.process, it.tail, it.follow));
        let lines: Vec<_> = script.logs.iter().cloned().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(lines)))
    }

    async fn run(&self, request: Request<Streaming<wire::RunInput>>) -> Answer<Self::RunStream> {
        use wire::run_input::Input;
        use wire::run_output::Output;
        let mut input = request.into_inner();
        let (mut command, mut bytes) = (Vec::new(), Vec::new());
        while let Some(message) = input.message().await? {
            match message.input {
                Some(Input::Start(start)) => command = start.command,
                Some(Input::Stdin(more)) => bytes.extend(more),
                Some(Input::EndOfInput(_)) | None => break,
            }
        }
        self.script().ran = (command, bytes.clone());
        let outputs = [Output::Stdout(bytes), Output::Stderr(b"to stderr\n".to_vec()), Output::ExitCode(7)];
        let outputs = outputs.into_iter().map(|output| Ok(wire::RunOutput { output: Some(output) }));
        Ok(Response::new(tokio_stream::iter(outputs.collect::<Vec<_>>())))
    }
}

#[tonic::async_trait]
impl ReleaseService for Service {
    async fn list_releases(&self, _: Request<wire::ListReleasesRequest>) -> Answer<wire::ListReleasesResponse> {
        Ok(Response::new(self.script().releases.clone()))
    }

    async fn get_release(&self, request: Request<wire::GetReleaseRequest>) -> Answer<wire::GetReleaseResponse> {
        let it = request.into_inner();
        self.script().asked.push(format!("show {:?} {}", it.app, it.release));
        Ok(Response::new(self.script().release.clone()))
    }

    async fn diff_releases(&self, request: Request<wire::DiffReleasesRequest>) -> Answer<wire::DiffReleasesResponse> {
        let it = request.into_inner();
        self.script().asked.push(format!("diff {:?} {} {}", it.app, it.a, it.b));
        Ok(Response::new(self.script().diff.clone()))
    }
}

#[tonic::async_trait]
impl IdentityService for Service {
    async fn pair(&self, _: Request<wire::PairRequest>) -> Answer<wire::PairResponse> {
        Err(Status::permission_denied("this agent does not pair"))
    }

    async fn who_am_i(&self, _: Request<wire::WhoAmIRequest>) -> Answer<wire::WhoAmIResponse> {
        Ok(Response::new(wire::WhoAmIResponse {
            name: "root".to_owned(),
            role: "admin".to_owned(),
            via: "socket".to_owned(),
            not_after_unix_ms: 0,
            server_version: "0.1.0".to_owned(),
            host: "vps".to_owned(),
        }))
    }

    async fn create_pairing_code(
        &self,
        _: Request<wire::CreatePairingCodeRequest>,
    ) -> Answer<wire::CreatePairingCodeResponse> {
        Err(Status::unimplemented("not here"))
    }
}

#[tonic::async_trait]
impl SourceService for Service {
    async fn missing(&self, request: Request<wire::MissingRequest>) -> Answer<wire::MissingResponse> {
        let it = request.into_inner();
        let mut script = self.script();
        script.questions.push(it.directories.len() + it.files.len());
        let lacks = |digest: &Vec<u8>| !script.objects.contains_key(digest.as_slice());
        let directories = it.directories.iter().filter(|d| lacks(d)).cloned().collect();
        let files = it.files.iter().filter(|d| lacks(d)).cloned().collect();
        Ok(Response::new(wire::MissingResponse { directories, files }))
    }

    async fn upload(&self, request: Request<Streaming<wire::UploadRequest>>) -> Answer<wire::UploadResponse> {
        let mut stream = request.into_inner();
        let mut pressed = Vec::new();
        while let Some(message) = stream.message().await? {
            assert!(message.data.len() <= 256 << 10, "a message of {} bytes", message.data.len());
            pressed.extend(message.data);
        }
        let mut frames = Vec::new();
        zstd::Decoder::new(pressed.as_slice()).and_then(|mut d| d.read_to_end(&mut frames)).expect("one zstd stream");
        let mut script = self.script();
        let objects = store(&mut script.objects, &frames);
        script.uploads.push(objects);
        Ok(Response::new(wire::UploadResponse { objects: objects as u64, bytes: frames.len() as u64 }))
    }
}

/// Stores the objects of frames, and insists on their order and digests.
fn store(objects: &mut HashMap<Digest, Vec<u8>>, mut frames: &[u8]) -> usize {
    let mut count = 0;
    while let [kind, rest @ ..] = frames {
        let (digest, rest) = rest.split_first_chunk::<32>().expect("a digest");
        let (length, rest) = rest.split_first_chunk::<8>().expect("a length");
        let (bytes, rest) = rest.split_at(usize::try_from(u64::from_be_bytes(*length)).expect("it fits"));
        match kind {
            1 => {
                assert_eq!(Directory::digest_of(bytes), *digest);
                let directory = Directory::decode(bytes, 0).expect("a directory without links that climb");
                let held = directory.entries.iter().all(|entry| match &entry.node {
                    Node::File { digest, .. } | Node::Directory { digest } => objects.contains_key(digest),
                    Node::Symlink { .. } => true,
                });
                assert!(held, "children come before their directory");
            }
            kind => {
                assert_eq!(*kind, 2, "a frame is a directory or a file");
                assert_eq!(blake3::hash(bytes).as_bytes(), digest);
            }
        }
        objects.insert(*digest, bytes.to_vec());
        count += 1;
        frames = rest;
    }
    count
}

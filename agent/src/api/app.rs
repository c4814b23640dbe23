//! What is there now, kept output, and one-off commands.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use refloat_model::{AppName, OneOffId, ProcessName, ReleaseNumber};
use refloat_proto::v1::app_service_server::AppService;
use refloat_proto::v1::{
    EnvName, GetStatusRequest, GetStatusResponse, ListAppsRequest, ListAppsResponse, ListEnvRequest, ListEnvResponse,
    LogLine, LogsRequest, RunInput, RunOutput, RunStart, run_input, run_output,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::release::find_app;
use super::survey::Survey;
use super::{Ports, convert, gate, status};
use crate::app_logs::cursor::Cursor;
use crate::app_logs::line::Source;
use crate::app_logs::{AppLogs, DEFAULT_TAIL, MAX_TAIL, Stream as LogStream};
use crate::deploy::one_off::Command;
use crate::docker::RunIo;

const LINES_AHEAD: usize = 256;
const PIECES_AHEAD: usize = 16;
const MAX_ARGUMENTS: usize = 256;
const MAX_ARGUMENT_BYTES: usize = 64 << 10;
/// A follower also looks for a release that serves since.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

type Lines = Pin<Box<dyn Stream<Item = Result<LogLine, Status>> + Send>>;
type Output = Pin<Box<dyn Stream<Item = Result<RunOutput, Status>> + Send>>;

/// The service.
#[derive(Debug)]
pub struct Apps {
    ports: Arc<Ports>,
}

impl Apps {
    /// The service over these ports.
    #[must_use]
    pub fn new(ports: Arc<Ports>) -> Self {
        Self { ports }
    }
}

#[tonic::async_trait]
impl AppService for Apps {
    type LogsStream = Lines;
    type RunStream = Output;

    async fn list_apps(&self, _: Request<ListAppsRequest>) -> Result<Response<ListAppsResponse>, Status> {
        let apps = self.ports.journal.apps().await.map_err(|error| status::journal(&error))?;
        let survey = Survey::take(&self.ports).await?;
        let apps = try_join_all(apps.iter().map(|app| survey.app(&self.ports, app))).await?;
        Ok(Response::new(ListAppsResponse { apps }))
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let name = request.into_inner().app;
        let apps = if name.is_empty() {
            self.ports.journal.apps().await.map_err(|error| status::journal(&error))?
        } else {
            vec![find_app(self.ports.journal.as_ref(), &name).await?]
        };
        let survey = Survey::take(&self.ports).await?;
        let (apps, host) =
            tokio::join!(try_join_all(apps.iter().map(|app| survey.app(&self.ports, app))), survey.host(&self.ports));
        Ok(Response::new(GetStatusResponse { apps: apps?, host: Some(host) }))
    }

    async fn list_env(&self, request: Request<ListEnvRequest>) -> Result<Response<ListEnvResponse>, Status> {
        let app = find_app(self.ports.journal.as_ref(), &request.into_inner().app).await?;
        let Some(env) = app.env else {
            return Ok(Response::new(ListEnvResponse::default()));
        };
        let record = self.ports.journal.env(&app.app, &env).await.map_err(|error| status::journal(&error))?;
        let name = |variable: refloat_model::EnvVariable| EnvName {
            name: variable.name,
            changed_at_unix_ms: variable.changed_at_ms,
            changed_by: variable.changed_by,
        };
        let names = record.unwrap_or_default().variables.into_iter().map(name).collect();
        Ok(Response::new(ListEnvResponse { names }))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Lines>, Status> {
        let it = request.into_inner();
        let app = find_app(self.ports.journal.as_ref(), &it.app).await?;
        let process = convert::process(&it.process)?;
        let fixed = convert::release(it.release);
        let newest = app.deployment.as_ref().and_then(|deployment| deployment.release).or(app.newest);
        // Before anything serves, what is being tried is what one wants to see.
        let Some(release) = fixed.or(app.serving).or(newest) else {
            return Err(status::denial(&refloat_model::admission::Denial::NothingServes(app.app)));
        };
        let tail = match usize::try_from(it.tail).unwrap_or(MAX_TAIL) {
            0 => DEFAULT_TAIL,
            tail => tail.min(MAX_TAIL),
        };
        let (to, lines) = mpsc::channel(LINES_AHEAD);
        let reader = Reader {
            ports: Arc::clone(&self.ports),
            changes: self.ports.logs.changes(),
            app: app.app,
            process,
            release,
            fixed: fixed.is_some(),
            cursors: Vec::new(),
            to,
        };
        tokio::spawn(reader.run(tail, it.follow));
        Ok(Response::new(Box::pin(ReceiverStream::new(lines))))
    }

    async fn run(&self, request: Request<Streaming<RunInput>>) -> Result<Response<Output>, Status> {
        let by = gate::known(&request)?.principal.clone();
        let mut input = request.into_inner();
        let first = input.message().await?.and_then(|message| message.input);
        let Some(run_input::Input::Start(start)) = first else {
            return Err(status::invalid("the first message of a run must be its start"));
        };
        let command = one_off(start, by)?;
        let (stdin_to, stdin) = mpsc::channel(PIECES_AHEAD);
        let (output, output_from) = mpsc::channel(PIECES_AHEAD);
        let (to, answer) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(feed(input, stdin_to));
        let ports = Arc::clone(&self.ports);
        tokio::spawn(async move {
            let ran = ports.runs.run(command, RunIo { stdin, output });
            let (code, ()) = tokio::join!(ran, pass_output(output_from, to.clone()));
            let last = match code {
                Ok(code) => Ok(run_output::Output::ExitCode(i32::try_from(code).unwrap_or(-1))),
                Err(denied) => Err(status::denied(denied)),
            };
            // A client that went away has no use for the code.
            let _ = to.send(last.map(|output| RunOutput { output: Some(output) })).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answer))))
    }
}

fn one_off(start: RunStart, by: refloat_model::Principal) -> Result<Command, Status> {
    let (key, reason) = convert::mutation(start.mutation)?;
    let bytes: usize = start.command.iter().map(String::len).sum();
    if start.command.is_empty() || start.command.len() > MAX_ARGUMENTS || bytes > MAX_ARGUMENT_BYTES {
        let message = format!("a command has 1 to {MAX_ARGUMENTS} words of {MAX_ARGUMENT_BYTES} bytes in all");
        return Err(status::invalid(message));
    }
    Ok(Command {
        id: OneOffId(key.0),
        reason,
        app: convert::app(&start.app)?,
        process: convert::process(&start.process)?,
        argv: start.command,
        tty: start.tty,
        by,
    })
}

/// Hands input on until it ends: the sender's end is the end of input.
async fn feed(mut input: Streaming<RunInput>, to: mpsc::Sender<Vec<u8>>) {
    while let Ok(Some(message)) = input.message().await {
        match message.input {
            Some(run_input::Input::Stdin(bytes)) => {
                if to.send(bytes).await.is_err() {
                    return;
                }
            }
            Some(run_input::Input::EndOfInput(_)) | None => return,
            Some(run_input::Input::Start(_)) => {}
        }
    }
}

async fn pass_output(mut from: mpsc::Receiver<(bool, Vec<u8>)>, to: mpsc::Sender<Result<RunOutput, Status>>) {
    loop {
        let piece = tokio::select! {
            // Nobody is there any more: the command sees it by this channel, also one that prints nothing.
            () = to.closed() => return,
            piece = from.recv() => piece,
        };
        let Some((stderr, bytes)) = piece else { return };
        let output = if stderr { run_output::Output::Stderr(bytes) } else { run_output::Output::Stdout(bytes) };
        if to.send(Ok(RunOutput { output: Some(output) })).await.is_err() {
            return;
        }
    }
}

/// Reads kept output for one call.
struct Reader {
    ports: Arc<Ports>,
    changes: watch::Receiver<u64>,
    app: AppName,
    process: Option<ProcessName>,
    release: ReleaseNumber,
    /// Whether the release was named: else whatever serves is followed.
    fixed: bool,
    cursors: Vec<(LogStream, Cursor)>,
    to: mpsc::Sender<Result<LogLine, Status>>,
}

impl Reader {
    async fn run(mut self, tail: usize, follow: bool) {
        // Cursors first: what is kept in between is shown twice rather than never.
        self.open(true).await;
        let first = self.tail(tail).await;
        if !self.send(first).await || !follow {
            return;
        }
        while !self.to.is_closed() {
            let changed = tokio::time::timeout(LOOK_AGAIN, self.changes.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
            if !self.fixed && changed.is_err() {
                self.look_for_serving().await;
            }
            self.open(false).await;
            let fresh = self.fresh().await;
            if !self.send(fresh).await {
                return;
            }
        }
    }

    async fn look_for_serving(&mut self) {
        if let Ok(Some(app)) = self.ports.journal.app(&self.app).await
            && let Some(serving) = app.serving
        {
            self.release = serving;
        }
    }

    /// Opens what is not open yet: at its end when the tail is still to be read, else at its beginning.
    async fn open(&mut self, at_end: bool) {
        let (app, release, process) = (self.app.clone(), self.release, self.process.clone());
        let known: Vec<LogStream> = self.cursors.iter().map(|(stream, _)| stream.clone()).collect();
        let opened = self.blocking(move |logs| {
            let new = logs.streams(&app, release, process.as_ref()).into_iter().filter(|it| !known.contains(it));
            let place =
                |stream: &LogStream| if at_end { Cursor::at_end(&logs.file(stream)) } else { Cursor::default() };
            new.map(|stream| (stream.clone(), place(&stream))).collect::<Vec<_>>()
        });
        let opened = opened.await;
        self.cursors.extend(opened);
    }

    async fn tail(&self, lines: usize) -> Vec<Source> {
        let (app, release, process) = (self.app.clone(), self.release, self.process.clone());
        self.blocking(move |logs| logs.tail(&app, release, process.as_ref(), lines)).await
    }

    async fn fresh(&mut self) -> Vec<Source> {
        let mut cursors = std::mem::take(&mut self.cursors);
        let (cursors, mut lines) = self
            .blocking(move |logs| {
                let mut lines = Vec::new();
                for (stream, cursor) in &mut cursors {
                    let read = cursor.read(&logs.file(stream));
                    let source = |line| Source { line, process: stream.process.clone(), release: stream.release };
                    lines.extend(read.into_iter().map(source));
                }
                (cursors, lines)
            })
            .await;
        self.cursors = cursors;
        lines.sort_by_key(|source| source.line.at_ms);
        lines
    }

    async fn blocking<T: Default + Send + 'static>(&self, read: impl FnOnce(&AppLogs) -> T + Send + 'static) -> T {
        let logs = Arc::clone(&self.ports.logs);
        tokio::task::spawn_blocking(move || read(&logs)).await.unwrap_or_default()
    }

    /// Whether the client is still there.
    async fn send(&self, lines: Vec<Source>) -> bool {
        for Source { line, process, release } in lines {
            let line = LogLine {
                at_unix_ms: line.at_ms,
                process: process.to_string(),
                release: release.0,
                stream: if line.stderr { "stderr" } else { "stdout" }.to_owned(),
                line: line.text,
                instance: line.instance,
            };
            if self.to.send(Ok(line)).await.is_err() {
                return false;
            }
        }
        true
    }
}

//! `refloat run`: a one-off command in the serving release. Its output is ours, its exit code too.

use std::io::Read as _;

use refloat_proto::v1::app_service_client::AppServiceClient;
use refloat_proto::v1::run_input::Input;
use refloat_proto::v1::run_output::Output;
use refloat_proto::v1::{RunInput, RunStart};
use serde_json::json;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;

use crate::args::Run;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::{Session, mutation};

const PIECE_BYTES: usize = 64 << 10;
/// Pieces of input that may wait for the connection.
const MAX_WAITING: usize = 4;
/// What shells use for a code that is none.
const NO_CODE: u8 = 255;

pub(super) async fn perform(session: &Session<'_>, args: &Run) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let start = RunStart {
        mutation: Some(mutation(&args.why)),
        app: session.app(args.app.as_deref()),
        process: args.process.clone().unwrap_or_default(),
        command: args.command.clone(),
        tty: false,
    };
    let (to_server, input) = mpsc::channel(MAX_WAITING);
    let first = RunInput { input: Some(Input::Start(start)) };
    to_server.send(first).await.map_err(|e| Failure::local("begin", &e))?;
    std::thread::spawn(move || forward_input(&to_server));
    let mut client = AppServiceClient::new(link.channel);
    let mut output = client.run(ReceiverStream::new(input)).await?.into_inner();
    while let Some(message) = output.message().await? {
        match message.output {
            Some(Output::Stdout(bytes)) => show(session, true, &bytes),
            Some(Output::Stderr(bytes)) => show(session, false, &bytes),
            Some(Output::ExitCode(code)) => {
                session.printer.object(&json!({ "exit_code": code }));
                return Ok(Exit::Program(u8::try_from(code).unwrap_or(NO_CODE)));
            }
            None => {}
        }
    }
    Err(Failure::new(Exit::Unreachable, "The connection ended before the command did. It was stopped."))
}

fn show(session: &Session<'_>, to_stdout: bool, bytes: &[u8]) {
    if session.printer.json_wanted() {
        let name = if to_stdout { "stdout" } else { "stderr" };
        session.printer.object(&json!({ name: String::from_utf8_lossy(bytes) }));
    } else {
        session.printer.raw(to_stdout, bytes);
    }
}

/// Until our input ends or the server no longer wants any.
fn forward_input(to_server: &Sender<RunInput>) {
    let mut stdin = std::io::stdin().lock();
    let mut piece = vec![0; PIECE_BYTES];
    let send = |input| to_server.blocking_send(RunInput { input: Some(input) }).is_ok();
    loop {
        match stdin.read(&mut piece) {
            Ok(0) => break,
            Ok(count) if send(Input::Stdin(piece[..count].to_vec())) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
    send(Input::EndOfInput(true));
    // The stream of input stays open: closing it would say that we went away.
    std::thread::park();
}

//! Asks the server what it lacks, level by level, and sends that.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use refloat_plan::tree::Digest;
use refloat_proto::v1::source_service_client::SourceServiceClient;
use refloat_proto::v1::{MissingRequest, MissingResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::frames::{CLOSED, Counters, Lacking, order, total_bytes, write};
use super::tree::Source;
use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::Printer;

/// Digests in one question: well below what the server takes, and below 4 MiB of message.
const MAX_ASKED: usize = 50_000;
/// Messages that may wait for the connection.
const MAX_WAITING: usize = 4;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Files and directories.
    pub(crate) objects: usize,
    /// Before compression.
    pub(crate) bytes: u64,
    /// After it.
    pub(crate) sent_bytes: u64,
}

/// Makes sure that the server holds the source of an app.
///
/// # Errors
/// When the app could not be deployed there, a file changes meanwhile, the server refuses something, or the connection breaks.
pub(crate) async fn send(
    channel: Channel,
    app: &str,
    source: &Arc<Source>,
    printer: &Printer,
) -> Result<Sent, Failure> {
    let mut client = SourceServiceClient::new(channel);
    let lacking = lacking(&mut client, app, source).await?;
    let frames = order(source, &lacking);
    let counters = Arc::new(Counters::default());
    let total = total_bytes(source, &frames);
    let objects = frames.len();
    if objects > 0 {
        let (pieces, waiting) = mpsc::channel(MAX_WAITING);
        let (own_source, own_counters) = (Arc::clone(source), Arc::clone(&counters));
        let writing = tokio::task::spawn_blocking(move || write(&own_source, &frames, pieces, &own_counters));
        let upload = client.upload(ReceiverStream::new(waiting));
        let progress = show_progress(printer, &counters, total);
        tokio::select! {
            done = both(writing, upload) => done?,
            () = progress => {}
        }
        printer.end_progress();
    }
    Ok(Sent { objects, bytes: total, sent_bytes: counters.sent.load(Ordering::Relaxed) })
}

/// A file that changed ends the upload; a server that ended it says why.
async fn both<T>(
    writing: tokio::task::JoinHandle<Result<(), Failure>>,
    upload: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<(), Failure> {
    let written = async {
        match writing.await {
            Ok(Err(failure)) if &*failure.reason != CLOSED => Err(failure),
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::new(Exit::Failed, "Reading the source ended unexpectedly.")),
        }
    };
    let uploaded = async { upload.await.map(drop).map_err(Failure::from) };
    tokio::try_join!(written, uploaded).map(drop)
}

async fn show_progress(printer: &Printer, counters: &Counters, total: u64) {
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        printer.progress("Sending", counters.read.load(Ordering::Relaxed), total, "bytes");
    }
}

/// From the root down: what lies below a directory that the server holds is never asked about.
async fn lacking(client: &mut SourceServiceClient<Channel>, app: &str, source: &Source) -> Result<Lacking, Failure> {
    let mut lacking = Lacking::default();
    let mut directories = vec![source.root];
    let mut files: Vec<Digest> = Vec::new();
    let mut asked = HashSet::from([source.root]);
    while !directories.is_empty() || !files.is_empty() {
        let missing = ask(client, app, &directories, &files).await?;
        lacking.files.extend(digests(&missing.files));
        (directories, files) = (Vec::new(), Vec::new());
        for digest in digests(&missing.directories) {
            lacking.directories.insert(digest);
            let Some(record) = source.directories.get(&digest) else { continue };
            directories.extend(record.directories.iter().filter(|d| asked.insert(**d)));
            files.extend(record.files.iter().filter(|f| asked.insert(**f)));
        }
    }
    Ok(lacking)
}

async fn ask(
    client: &mut SourceServiceClient<Channel>,
    app: &str,
    directories: &[Digest],
    files: &[Digest],
) -> Result<MissingResponse, Failure> {
    let mut all = MissingResponse::default();
    let mut add = |missing: MissingResponse| {
        all.directories.extend(missing.directories);
        all.files.extend(missing.files);
    };
    if directories.len() + files.len() <= MAX_ASKED {
        add(answer(client.missing(question(app, directories, files))).await?);
        return Ok(all);
    }
    for part in directories.chunks(MAX_ASKED) {
        add(answer(client.missing(question(app, part, &[]))).await?);
    }
    for part in files.chunks(MAX_ASKED) {
        add(answer(client.missing(question(app, &[], part))).await?);
    }
    Ok(all)
}

fn question(app: &str, directories: &[Digest], files: &[Digest]) -> MissingRequest {
    let list = |digests: &[Digest]| digests.iter().map(|digest| digest.to_vec()).collect();
    MissingRequest { directories: list(directories), files: list(files), app: app.to_owned() }
}

/// What is no digest was not asked about.
fn digests(list: &[Vec<u8>]) -> impl Iterator<Item = Digest> {
    list.iter().filter_map(|bytes| bytes.as_slice().try_into().ok())
}

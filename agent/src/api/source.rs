//! Uploads by content.

use std::sync::Arc;

use bytes::Bytes;
use refloat_proto::v1::source_service_server::SourceService;
use refloat_proto::v1::{MissingRequest, MissingResponse, UploadRequest, UploadResponse};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Request, Response, Status, Streaming};

use super::port::Digest;
use super::{Ports, convert, status};

/// Objects in one question.
const MAX_OBJECTS: usize = 100_000;
/// Bytes in one piece of an upload.
const MAX_PIECE_BYTES: usize = 1 << 20;
/// Pieces between the network and the disk.
const PIECES_AHEAD: usize = 4;
/// Uploads at the same time: each decompresses and hashes on a thread of its own.
const MAX_UPLOADS: usize = 4;

/// The service.
#[derive(Debug)]
pub struct SourceApi {
    ports: Arc<Ports>,
    uploads: Semaphore,
}

impl SourceApi {
    /// The service over these ports.
    #[must_use]
    pub fn new(ports: Arc<Ports>) -> Self {
        Self { ports, uploads: Semaphore::new(MAX_UPLOADS) }
    }
}

fn digests(given: &[impl AsRef<[u8]>]) -> Result<Vec<Digest>, Status> {
    given.iter().map(|bytes| convert::digest(bytes.as_ref(), "one of the objects")).collect()
}

fn vecs(digests: Vec<Digest>) -> Vec<Vec<u8>> {
    digests.into_iter().map(|digest| digest.to_vec()).collect()
}

/// Hands the pieces of an upload on. Ends early when nobody reads them any more.
async fn forward(mut from: Streaming<UploadRequest>, to: mpsc::Sender<Bytes>) -> Result<(), Status> {
    while let Some(piece) = from.message().await? {
        if piece.data.len() > MAX_PIECE_BYTES {
            return Err(status::invalid(format!("a piece of the upload is larger than {MAX_PIECE_BYTES} bytes")));
        }
        if to.send(Bytes::from(piece.data)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl SourceService for SourceApi {
    async fn missing(&self, request: Request<MissingRequest>) -> Result<Response<MissingResponse>, Status> {
        let MissingRequest { directories, files, app } = request.into_inner();
        if directories.len() + files.len() > MAX_OBJECTS {
            return Err(status::invalid(format!("more than {MAX_OBJECTS} objects in one request")));
        }
        let (directories, files) = (digests(&directories)?, digests(&files)?);
        if let Some(app) = convert::app(&app)? {
            self.ports.deployments.may_deploy(&app).await.map_err(status::denied)?;
        }
        let missing = self.ports.sources.missing(directories, files).await;
        let (directories, files) = missing.map_err(|error| status::source(&error))?;
        Ok(Response::new(MissingResponse { directories: vecs(directories), files: vecs(files) }))
    }

    async fn upload(&self, request: Request<Streaming<UploadRequest>>) -> Result<Response<UploadResponse>, Status> {
        let busy = || status::too_many("TOO_MANY_UPLOADS", format!("{MAX_UPLOADS} uploads are under way already"));
        let _place = self.uploads.try_acquire().map_err(|_| busy())?;
        let (to, pieces) = mpsc::channel(PIECES_AHEAD);
        let receive = self.ports.sources.receive(pieces);
        let (forwarded, received) = tokio::join!(forward(request.into_inner(), to), receive);
        // What the receiver refused explains more than the pipe that broke after it.
        let (objects, bytes) = match (forwarded, received) {
            (Ok(()), received) => received.map_err(|error| status::source(&error))?,
            (Err(broken), _) => return Err(broken),
        };
        Ok(Response::new(UploadResponse { objects, bytes }))
    }
}

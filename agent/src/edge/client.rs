//! The edge over its Unix socket. It connects when it is first asked and again after every loss. No call waits for
//! long: a deployment would rather be told "not served yet" than wait for an edge that hangs.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use refloat_model::route::MAX_TABLE_BYTES;
use refloat_model::{AppName, Canonical as _, Epoch, Generation, InstanceName, RouteTable, TableDigest, TableError};
use refloat_proto::edge::v1 as wire;
use refloat_proto::edge::v1::control_client::ControlClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};

use super::{Edge, EdgeError, EdgeStatus};

/// How long a question may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long staging may take: the edge opens every tree and syncs its table to disk. An edge that hangs must not hold up a
/// rollback for longer: the commit does not need it.
const STAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the swap may take: everything is open by then.
const APPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// The edge's client. Clones share the connection.
#[derive(Debug, Clone)]
pub struct EdgeClient {
    control: ControlClient<Channel>,
}

impl EdgeClient {
    /// A client of the edge behind this socket, which need not be there yet. Must be called within a runtime.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is never looked at: the connector knows where to go.
        let channel = Endpoint::from_static("http://edge.invalid")
            .connect_timeout(CALL_TIMEOUT)
            .connect_with_connector_lazy(connector);
        Self { control: ControlClient::new(channel) }
    }

    fn control(&self) -> ControlClient<Channel> {
        self.control.clone()
    }
}

async fn call<T>(asked: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    within(CALL_TIMEOUT, asked).await
}

async fn within<T>(limit: Duration, asked: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs()))),
    }
}

fn unreachable(status: &Status) -> EdgeError {
    let source = std::error::Error::source(status).map(|source| format!(": {}", innermost(source)));
    EdgeError::Unreachable(format!("{}{}", status.message(), source.unwrap_or_default()))
}

fn innermost(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn malformed(what: &str) -> EdgeError {
    EdgeError::Unreachable(format!("its answer has no {what}"))
}

fn version(given: Option<wire::TableVersion>) -> Result<(Generation, TableDigest), EdgeError> {
    let given = given.ok_or_else(|| malformed("table version"))?;
    let digest = TableDigest::from_slice(&given.digest).ok_or_else(|| malformed("table digest"))?;
    Ok((Generation { epoch: Epoch(given.epoch), number: given.number }, digest))
}

#[async_trait]
impl Edge for EdgeClient {
    async fn status(&self) -> Result<EdgeStatus, EdgeError> {
        let answer = call(self.control().get_status(wire::GetStatusRequest {})).await.map_err(|s| unreachable(&s))?;
        let (active, active_digest) = version(answer.active)?;
        Ok(EdgeStatus {
            active,
            active_digest,
            rss_bytes: answer.rss_bytes,
            version: answer.version,
            listen: answer.listen,
        })
    }

    async fn stage(&self, table: &RouteTable) -> Result<(), EdgeError> {
        let table = table.to_canonical();
        // Ended half-way as too large, a message looks like an edge that is gone.
        if table.len() > MAX_TABLE_BYTES {
            return Err(EdgeError::Refused(TableError::TooLarge.to_string()));
        }
        match within(STAGE_TIMEOUT, self.control().stage(wire::StageRequest { table })).await {
            Ok(_) => Ok(()),
            // Breaks a rule, or is not newer than what is active: the same table would be refused again.
            Err(status) => Err(refused_or_unreachable(&status)),
        }
    }

    async fn apply(&self, generation: Generation, table: TableDigest) -> Result<(), EdgeError> {
        let version =
            wire::TableVersion { epoch: generation.epoch.0, number: generation.number, digest: table.0.to_vec() };
        match within(APPLY_TIMEOUT, self.control().apply(wire::ApplyRequest { version: Some(version) })).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::FailedPrecondition => Err(EdgeError::NotStaged),
            Err(status) if status.code() == Code::InvalidArgument => {
                Err(EdgeError::Refused(status.message().to_owned()))
            }
            Err(status) => Err(unreachable(&status)),
        }
    }

    async fn hold(&self, app: &AppName, deadline_ms: u32) -> Result<(), EdgeError> {
        let request = wire::HoldRequest { app: app.to_string(), deadline_ms };
        call(self.control().hold(request)).await.map(|_| ()).map_err(|status| refused_or_unreachable(&status))
    }

    async fn release(&self, app: &AppName) -> Result<(), EdgeError> {
        let request = wire::ReleaseRequest { app: app.to_string() };
        call(self.control().release(request)).await.map(|_| ()).map_err(|status| refused_or_unreachable(&status))
    }

    async fn in_flight(&self, instances: &[InstanceName]) -> Result<Vec<u32>, EdgeError> {
        let request = wire::InFlightRequest { instances: instances.iter().map(ToString::to_string).collect() };
        let answer = call(self.control().in_flight(request)).await.map_err(|status| refused_or_unreachable(&status))?;
        let count = |name: &InstanceName| {
            answer.counts.iter().find(|count| count.instance == name.as_str()).map_or(0, |count| count.requests)
        };
        Ok(instances.iter().map(count).collect())
    }
}

fn refused_or_unreachable(status: &Status) -> EdgeError {
    match status.code() {
        // Out of range: larger than a message may be.
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            EdgeError::Refused(status.message().to_owned())
        }
        _ => unreachable(status),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use refloat_proto::edge::v1::control_server::{Control, ControlServer};
    use tokio::net::UnixListener;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::Request;

    use super::*;

    /// Answers every call with the next status of a list, and what it can without one.
    #[derive(Clone, Default)]
    struct Scripted(Arc<Mutex<VecDeque<Code>>>);

    impl Scripted {
        fn next(&self) -> Result<(), Status> {
            match self.0.lock().unwrap().pop_front() {
                Some(code) => Err(Status::new(code, "as told")),
                None => Ok(()),
            }
        }
    }

    #[tonic::async_trait]
    impl Control for Scripted {
        async fn get_status(
            &self,
            _: Request<wire::GetStatusRequest>,
        ) -> Result<Response<wire::GetStatusResponse>, Status> {
            self.next()?;
            let active = wire::TableVersion { epoch: 1, number: 7, digest: vec![9; 32] };
            let status = wire::GetStatusResponse { active: Some(active), version: "1".into(), ..Default::default() };
            Ok(Response::new(status))
        }
        async fn stage(&self, _: Request<wire::StageRequest>) -> Result<Response<wire::StageResponse>, Status> {
            self.next().map(|()| Response::new(Default::default()))
        }
        async fn apply(&self, _: Request<wire::ApplyRequest>) -> Result<Response<wire::ApplyResponse>, Status> {
            self.next().map(|()| Response::new(Default::default()))
        }
        async fn hold(&self, _: Request<wire::HoldRequest>) -> Result<Response<wire::HoldResponse>, Status> {
            self.next().map(|()| Response::new(Default::default()))
        }
        async fn release(&self, _: Request<wire::ReleaseRequest>) -> Result<Response<wire::ReleaseResponse>, Status> {
            self.next().map(|()| Response::new(Default::default()))
        }
        async fn in_flight(
            &self,
            request: Request<wire::InFlightRequest>,
        ) -> Result<Response<wire::InFlightResponse>, Status> {
            self.next()?;
            let last = request.into_inner().instances.pop().unwrap();
            let counts = vec![wire::in_flight_response::Count { instance: last, requests: 3 }];
            Ok(Response::new(wire::InFlightResponse { counts }))
        }
    }

    fn serve(socket: &Path, edge: Scripted) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(ControlServer::new(edge));
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        })
    }

    #[tokio::test]
    async fn answers_of_the_edge_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("edge.sock");
        let edge = Scripted::default();
        let _server = serve(&socket, edge.clone());
        let client = EdgeClient::new(&socket);
        let table = RouteTable::default();
        let stage = async |code| {
            edge.0.lock().unwrap().push_back(code);
            client.stage(&table).await.unwrap_err()
        };
        assert_eq!(stage(Code::InvalidArgument).await, EdgeError::Refused("as told".into()));
        assert_eq!(stage(Code::FailedPrecondition).await, EdgeError::Refused("as told".into()));
        assert_eq!(stage(Code::OutOfRange).await, EdgeError::Refused("as told".into()));
        assert_eq!(stage(Code::Internal).await, EdgeError::Unreachable("as told".into()));
        edge.0.lock().unwrap().push_back(Code::FailedPrecondition);
        assert_eq!(client.apply(table.generation, table.table_digest()).await, Err(EdgeError::NotStaged));
        assert_eq!(client.apply(table.generation, table.table_digest()).await, Ok(()));
        let status = client.status().await.unwrap();
        assert_eq!((status.active.number, status.active_digest), (7, TableDigest([9; 32])));
        let names = ["refloat-a", "refloat-b"].map(|name| InstanceName::parse(name).unwrap());
        assert_eq!(client.in_flight(&names).await, Ok(vec![0, 3]));
    }

    #[tokio::test]
    async fn an_edge_that_comes_late_or_comes_back_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("edge.sock");
        let client = EdgeClient::new(&socket);
        assert!(matches!(client.status().await, Err(EdgeError::Unreachable(_))));
        let server = serve(&socket, Scripted::default());
        assert!(client.status().await.is_ok());
        server.abort();
        let _ = server.await;
        std::fs::remove_file(&socket).unwrap();
        let _server = serve(&socket, Scripted::default());
        // The first call after a loss may still find the broken connection.
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(client.status().await.is_ok());
        }
        assert!(answers[2], "{answers:?}");
    }
}

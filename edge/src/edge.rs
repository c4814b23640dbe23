//! A running edge: starting it in order, ending it in order.
//!
//! Start: lock and read the state folder → open what the last table names → bind → control socket → accept.
//! End: stop accepting → idle connections close, busy ones finish → after the drain time whatever is left is dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use refloat_proto::edge::v1::control_server::ControlServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::clients::Clients;
use crate::config::Config;
use crate::control::ControlService;
use crate::limits::{MAX_CONNECTIONS, MAX_CONTROL_BYTES, POOL_SWEEP, Timeouts};
use crate::listener::{Acceptor, ListenError, adopt, bind, bind_control};
use crate::router::{MissingTree, Prepared, Router};
use crate::shared::Shared;
use crate::site::Trees;
use crate::table_store::{Restored, StoreError, TableStore};
use crate::tables::Tables;
use crate::upstream::Upstreams;

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder.
    #[error("the state folder cannot be used")]
    State(#[source] StoreError),
    /// A socket.
    #[error("a socket is missing")]
    Listen(#[source] ListenError),
    /// The access log.
    #[error("the access log cannot be started")]
    AccessLog(#[source] std::io::Error),
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    listen: Vec<SocketAddr>,
    stop: CancellationToken,
    stop_control: CancellationToken,
    tasks: TaskTracker,
    control: tokio::task::JoinHandle<()>,
    socket: PathBuf,
    log_writer: JoinHandle<()>,
    timeouts: Timeouts,
}

impl Edge {
    /// Starts an edge. It serves the last table when this returns.
    ///
    /// # Errors
    /// What it could not get hold of.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let store = TableStore::open(&config.state_dir).map_err(StartError::State)?;
        let (log, log_writer) = AccessLog::start(config.access_log).map_err(StartError::AccessLog)?;
        let (upstreams, trees) = (Upstreams::default(), Trees::new(config.public_dir));
        let table = restore(&store, &upstreams, &trees);
        let shared = Arc::new(Shared {
            router: Router::new(table),
            upstreams,
            trees,
            log,
            timeouts: config.timeouts,
            requests_total: AtomicU64::new(0),
        });
        let listeners = open_listeners(config.listen, config.inherited).map_err(StartError::Listen)?;
        let listen: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        let socket = bind_control(&config.control).map_err(StartError::Listen)?;
        let (stop, stop_control, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let tables = Arc::new(Tables::new(shared.clone(), store));
        let service = ControlService::new(shared.clone(), tables, listen.clone());
        let control = tokio::spawn(serve_control(service, socket, stop_control.clone()));
        tokio::spawn(sweep(shared.clone(), stop.clone()));
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let clients = Clients::new(config.client_limit);
        let acceptor = Acceptor { shared, stop: stop.clone(), slots, clients, tasks: tasks.clone() };
        for listener in listeners {
            tasks.spawn(acceptor.clone().run(listener));
        }
        tracing::info!(?listen, "the edge serves");
        let (socket, timeouts) = (config.control, config.timeouts);
        Ok(Self { listen, stop, stop_control, tasks, control, socket, log_writer, timeouts })
    }

    /// Addresses that carry public traffic.
    #[must_use]
    pub fn listen(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// Ends the edge: no new connection, what is in flight may finish within the drain time.
    pub async fn shut_down(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.timeouts.drain, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "connections did not end in time");
        }
        self.stop_control.cancel();
        let _ = self.control.await;
        let _ = std::fs::remove_file(&self.socket);
        // Connections that did not end still hold the log; its writer is then left to the end of the process.
        if self.tasks.is_empty() {
            let _ = tokio::task::spawn_blocking(|| self.log_writer.join()).await;
        }
    }
}

/// Opens the last table, without the agent and whatever of it can still be served.
fn restore(store: &TableStore, upstreams: &Upstreams, trees: &Trees) -> Prepared {
    let table = match store.restore() {
        Restored::Fresh => return Prepared::default(),
        Restored::Lost => return Prepared::lost(),
        Restored::Last(table) | Restored::Previous(table) => table,
    };
    tracing::info!(generation = %table.generation, apps = table.apps.len(), "restored the last table");
    Prepared::new(&table, upstreams, trees, MissingTree::Serve503).unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "the last table cannot be opened");
        Prepared::lost()
    })
}

fn open_listeners(
    addresses: Vec<SocketAddr>,
    inherited: Vec<std::net::TcpListener>,
) -> Result<Vec<TcpListener>, ListenError> {
    inherited.into_iter().map(adopt).chain(addresses.into_iter().map(bind)).collect()
}

async fn serve_control(service: ControlService, socket: UnixListener, stop: CancellationToken) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<ControlServer<ControlService>>().await;
    let control = ControlServer::new(service).max_decoding_message_size(MAX_CONTROL_BYTES);
    let served = tonic::transport::Server::builder()
        .add_service(health)
        .add_service(control)
        .serve_with_incoming_shutdown(UnixListenerStream::new(socket), stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(error = &error as &dyn std::error::Error, "the control socket failed");
    }
}

/// Closes idle connections to instances before the apps do.
async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(POOL_SWEEP);
    while tokio::select! { _ = ticks.tick() => true, () = stop.cancelled() => false } {
        shared.upstreams.sweep();
    }
}

//! An agent in this process, and clients of every kind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use refloat_agent::api::listener::{SocketListener, TlsListener, bind};
use refloat_agent::api::port::{
    ChangedFile, DeploymentsPort, Digest, HostFacts, HostPort, RunPort, SourceError, SourcesPort, Updates,
};
use refloat_agent::api::{self, Ports};
use refloat_agent::app_logs::AppLogs;
use refloat_agent::clock::ManualClock;
use refloat_agent::deploy::AppOverview;
use refloat_agent::deploy::one_off::Command;
use refloat_agent::deploy::request::{Denied, Submit};
use refloat_agent::docker::RunIo;
use refloat_agent::docker::fake::FakeDocker;
use refloat_agent::edge::fake::FakeEdge;
use refloat_agent::identity::authority::{Authority, ClientRequest, Issued, SERVER_NAME};
use refloat_agent::identity::pairing::Pairing;
use refloat_agent::journal::{Journal as _, MemoryDisk, MemoryJournal};
use refloat_agent::network::HostRoute;
use refloat_model::{AppName, DeploymentId, Event, Principal, SourceDigest};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

/// A certificate chain and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(crate) struct Agent {
    pub(crate) authority: Arc<Authority>,
    pub(crate) clock: ManualClock,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) docker: FakeDocker,
    pub(crate) edge: FakeEdge,
    pub(crate) logs: Arc<AppLogs>,
    address: SocketAddr,
    socket: PathBuf,
    end: CancellationToken,
    _folder: tempfile::TempDir,
}

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

impl Agent {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(now_ms());
        let authority = Arc::new(Authority::create(folder.path(), now_ms()).unwrap());
        let journal = Arc::new(MemoryJournal::open(&MemoryDisk::new(), Arc::new(clock.clone())).unwrap());
        let (to, accepted) = mpsc::channel(16);
        let tls = TlsListener::new(&authority, Arc::new(clock.clone())).unwrap();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let socket = folder.path().join("agent.sock");
        let local = SocketListener::bind(&socket).await.unwrap();
        tokio::spawn(tls.run(listener, to.clone()));
        tokio::spawn(local.run(to));
        let (docker, edge) = (FakeDocker::new(), FakeEdge::default());
        let logs = Arc::new(AppLogs::new(&folder.path().join("logs")));
        let stub = Arc::new(Stub(HostFacts { host: "server".into(), ..HostFacts::default() }));
        let ports = Ports {
            journal: Arc::clone(&journal) as _,
            engine: Arc::new(docker.agent([7; 16])),
            edge: Arc::new(edge.clone()),
            deployments: Arc::clone(&stub) as _,
            runs: Arc::clone(&stub) as _,
            sources: Arc::clone(&stub) as _,
            host: stub,
            logs: Arc::clone(&logs),
            authority: Arc::clone(&authority),
            pairing: Arc::new(Pairing::new(folder.path())),
            clock: Arc::new(clock.clone()),
        };
        let end = CancellationToken::new();
        tokio::spawn(api::serve(ports, accepted, end.clone()));
        Self { authority, clock, journal, docker, edge, logs, address, socket, end, _folder: folder }
    }

    /// A certificate that was issued at this time, and is on the list of clients or not.
    pub(crate) async fn client(&self, issued_at_ms: u64, role: Option<&str>) -> Identity {
        let (identity, issued) = issue(&self.authority, issued_at_ms);
        if let Some(role) = role {
            let event = Event::ClientPaired {
                serial: issued.serial,
                name: "anna@laptop".into(),
                role: role.into(),
                not_after_ms: issued.not_after_ms,
            };
            self.journal.append(&Principal::agent(), event).await.unwrap();
        }
        identity
    }

    pub(crate) async fn over_tls(&self, identity: Option<Identity>) -> Result<Channel, String> {
        let config = client_config(&self.authority, identity);
        self.over_tls_with(config).await
    }

    pub(crate) async fn over_tls_with(&self, config: rustls::ClientConfig) -> Result<Channel, String> {
        let (config, address) = (Arc::new(config), self.address);
        let connector = tower::service_fn(move |_: Uri| {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
            async move {
                let stream = TcpStream::connect(address).await?;
                let stream = connector.connect(ServerName::try_from(SERVER_NAME).unwrap(), stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://agent.invalid");
        endpoint.connect_with_connector(connector).await.map_err(|e| format!("{e:?}"))
    }

    pub(crate) async fn over_socket(&self) -> Channel {
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://agent.invalid").connect_with_connector(connector).await.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// A key of ours and a request for it.
pub(crate) fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    (key, request)
}

pub(crate) fn issue(authority: &Authority, at_ms: u64) -> (Identity, Issued) {
    let (key, request) = request();
    let issued = authority.issue(&ClientRequest::parse(&request).unwrap(), "anna@laptop", at_ms).unwrap();
    (identity(&issued.pem, &key), issued)
}

pub(crate) fn identity(pem: &str, key: &KeyPair) -> Identity {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    (vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

pub(crate) fn trusting(
    authority: &Authority,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

pub(crate) fn client_config(authority: &Authority, identity: Option<Identity>) -> rustls::ClientConfig {
    let builder = trusting(authority);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Denies what it is asked: these tests end at the door.
struct Stub(HostFacts);

fn denied() -> Denied {
    Denied { reason: "STUB", message: "a stub".into(), still_fine: String::new(), next_command: String::new() }
}

#[async_trait]
impl DeploymentsPort for Stub {
    async fn submit(&self, _: Submit) -> Result<Updates, Denied> {
        Err(denied())
    }
    async fn watch(&self, _: DeploymentId) -> Option<Updates> {
        None
    }
    async fn watch_app(&self, _: &AppName) -> Option<Updates> {
        None
    }
    async fn cancel(&self, _: Option<&AppName>, _: &Principal) -> Result<Option<DeploymentId>, Denied> {
        Err(denied())
    }
    async fn may_deploy(&self, _: &AppName) -> Result<(), Denied> {
        Ok(())
    }
    async fn running(&self) -> Vec<AppOverview> {
        Vec::new()
    }
}

#[async_trait]
impl RunPort for Stub {
    async fn run(&self, _: Command, _: RunIo) -> Result<i64, Denied> {
        Err(denied())
    }
}

#[async_trait]
impl SourcesPort for Stub {
    async fn missing(&self, _: Vec<Digest>, _: Vec<Digest>) -> Result<(Vec<Digest>, Vec<Digest>), SourceError> {
        Err(SourceError::Failed("a stub".into()))
    }
    async fn receive(&self, _: mpsc::Receiver<bytes::Bytes>) -> Result<(u64, u64), SourceError> {
        Err(SourceError::Failed("a stub".into()))
    }
    async fn compare(
        &self,
        _: SourceDigest,
        _: SourceDigest,
        _: usize,
    ) -> Result<(Vec<ChangedFile>, bool), SourceError> {
        Err(SourceError::Failed("a stub".into()))
    }
}

#[async_trait]
impl HostPort for Stub {
    fn facts(&self) -> &HostFacts {
        &self.0
    }
    async fn build_cap(&self) -> String {
        String::new()
    }
    fn routes(&self) -> Vec<HostRoute> {
        Vec::new()
    }
    async fn store(&self) -> String {
        String::new()
    }
}

//! Pairing over real TLS, and mutual TLS afterwards.

use std::sync::{Arc, Mutex};

use refloat_proto::v1 as wire;
use refloat_proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use crate::program::Program;

type Issuer = rcgen::Issuer<'static, rcgen::KeyPair>;

/// A server that pairs whoever has the code, and knows whom it paired.
struct PairingServer {
    address: String,
    /// As `refloatd pair` prints it.
    code: String,
    asked: Arc<Mutex<Vec<wire::PairRequest>>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Service {
    code: String,
    issuer: Arc<(CertificateDer<'static>, Issuer)>,
    asked: Arc<Mutex<Vec<wire::PairRequest>>>,
}

fn authority() -> (CertificateDer<'static>, Issuer) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let certificate = parameters.self_signed(&key).expect("signed").der().clone();
    (certificate, rcgen::Issuer::new(parameters, key))
}

fn printed(secret: [u8; 16], authority: &CertificateDer<'_>) -> String {
    let bytes = [&secret[..], &blake3::hash(authority).as_bytes()[..16]].concat();
    let text = data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase();
    let groups: Vec<&str> = (0..text.len()).step_by(4).map(|at| &text[at..text.len().min(at + 4)]).collect();
    groups.join("-")
}

fn server_config(authority: &CertificateDer<'static>, issuer: &Issuer) -> ServerConfig {
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec!["agent.refloat.internal".to_owned()]).expect("a name");
    let leaf = parameters.signed_by(&key, issuer).expect("signed").der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).expect("a root");
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let clients = clients.allow_unauthenticated().build().expect("a verifier");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = builder.with_client_cert_verifier(clients).with_single_cert(vec![leaf, authority.clone()], key);
    let mut config = config.expect("a configuration");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

impl PairingServer {
    fn start() -> Self {
        let (certificate, issuer) = authority();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&certificate, &issuer)));
        let code = printed([7; 16], &certificate);
        let asked = Arc::default();
        let service =
            Service { code: code.clone(), issuer: Arc::new((certificate, issuer)), asked: Arc::clone(&asked) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (connected, connections) = tokio::sync::mpsc::channel(8);
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                // Who does not like our certificate goes away in the middle of it.
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = connected.send(Ok::<_, std::io::Error>(Stream(stream))).await;
                }
            }
        });
        let incoming = tokio_stream::wrappers::ReceiverStream::new(connections);
        let server = tonic::transport::Server::builder().add_service(IdentityServiceServer::new(service));
        runtime.spawn(server.serve_with_incoming(incoming));
        Self { address, code, asked, _runtime: runtime }
    }

    fn asked(&self) -> Vec<wire::PairRequest> {
        self.asked.lock().expect("nobody panicked").clone()
    }
}

/// A TLS connection that says whether its client showed a certificate.
struct Stream(tokio_rustls::server::TlsStream<tokio::net::TcpStream>);

#[derive(Clone)]
struct Shown(bool);

impl tonic::transport::server::Connected for Stream {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        Shown(self.0.get_ref().1.peer_certificates().is_some())
    }
}

impl tokio::io::AsyncRead for Stream {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Stream {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tonic::async_trait]
impl IdentityService for Service {
    async fn pair(&self, request: Request<wire::PairRequest>) -> Result<Response<wire::PairResponse>, Status> {
        let it = request.into_inner();
        self.asked.lock().expect("nobody panicked").push(it.clone());
        if it.code != self.code {
            return Err(Status::permission_denied("The code is wrong or was used already."));
        }
        let signing = rcgen::CertificateSigningRequestParams::from_pem(&it.csr_pem).expect("a request");
        let certificate = signing.signed_by(&self.issuer.1).expect("signed");
        let pem = |der: &[u8]| {
            let text = data_encoding::BASE64.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        Ok(Response::new(wire::PairResponse {
            certificate_pem: certificate.pem(),
            ca_pem: pem(&self.issuer.0),
            server_name: "agent.refloat.internal".to_owned(),
            host: "vps".to_owned(),
            not_after_unix_ms: 1_763_820_192_000,
        }))
    }

    async fn who_am_i(&self, request: Request<wire::WhoAmIRequest>) -> Result<Response<wire::WhoAmIResponse>, Status> {
        if !request.extensions().get::<Shown>().is_some_and(|shown| shown.0) {
            return Err(Status::unauthenticated("who are you?"));
        }
        Ok(Response::new(wire::WhoAmIResponse {
            name: "anna@laptop".to_owned(),
            role: "admin".to_owned(),
            via: "certificate".to_owned(),
            host: "vps".to_owned(),
            ..Default::default()
        }))
    }

    async fn create_pairing_code(
        &self,
        _: Request<wire::CreatePairingCodeRequest>,
    ) -> Result<Response<wire::CreatePairingCodeResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[test]
fn a_code_is_exchanged_for_a_certificate_that_the_server_then_knows() {
    let server = PairingServer::start();
    let program = Program::alone();
    let said = program.run(&["pair", &server.address, "--code", &server.code.to_uppercase(), "--name", "vps"]);
    insta::assert_snapshot!(said.story());
    let said = program.run(&["whoami"]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "anna@laptop, admin on vps, by certificate\n"),
        "{}",
        said.stderr
    );
    let listed = program.run(&["servers"]);
    assert!(listed.stdout.contains("vps") && listed.stdout.contains("default"), "{}", listed.stdout);
    let asked = server.asked();
    assert!(asked[0].name.starts_with("anna@"), "{}", asked[0].name);
    assert!(!asked[0].csr_pem.contains("PRIVATE"));
    use std::os::unix::fs::PermissionsExt as _;
    let key = std::fs::metadata(program.config().join("servers/vps/key.pem")).expect("a key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_server_that_is_not_the_codes_never_sees_the_code() {
    let server = PairingServer::start();
    let other = printed([7; 16], &authority().0);
    let said = Program::alone().run(&["pair", &server.address, "--code", &other]);
    assert_eq!(said.code, 13, "{}", said.stderr);
    assert!(said.stderr.contains("The code was not sent."), "{}", said.stderr);
    assert!(server.asked().is_empty());
}

#[test]
fn a_code_that_the_server_does_not_know_leaves_nothing_behind() {
    let server = PairingServer::start();
    // The same authority, another secret.
    let mut code = server.code.clone();
    let first = if code.starts_with('a') { "b" } else { "a" };
    code.replace_range(..1, first);
    let program = Program::alone();
    let said = program.run(&["pair", &server.address, "--code", "-"]);
    assert_eq!(said.code, 2, "no code on standard input");
    let said = program.run_with(&["pair", &server.address, "--code", "-"], &code);
    assert_eq!(said.code, 13, "{}", said.stderr);
    assert!(said.stderr.contains("The code is wrong or was used already."), "{}", said.stderr);
    assert!(program.run(&["servers"]).stdout.is_empty());
}

#[test]
fn another_server_at_the_paired_address_is_not_believed() {
    let (server, other) = (PairingServer::start(), PairingServer::start());
    let program = Program::alone();
    let paired = program.run(&["pair", &server.address, "--code", &server.code, "--name", "vps"]);
    assert_eq!(paired.code, 0, "{}", paired.stderr);
    let file = program.config().join("servers/vps/server.toml");
    let text = std::fs::read_to_string(&file).expect("it is there").replace(&server.address, &other.address);
    std::fs::write(&file, text).expect("written");
    let said = program.run(&["whoami"]);
    assert_eq!(said.code, 14, "{}", said.stderr);
    assert!(said.stderr.contains("is not the server that this device was paired with"), "{}", said.stderr);
}

#[test]
fn nothing_that_listens_is_said_as_such() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let code = printed([7; 16], &authority().0);
    let said = Program::alone().run(&["pair", &address, "--code", &code]);
    assert_eq!(said.code, 14);
    assert!(said.stderr.contains("Nothing listens there: is refloatd running?"), "{}", said.stderr);
}

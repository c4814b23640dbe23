//! Mutual TLS to a paired server: only the authority of the pairing counts, and the name in the certificate is fixed.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Address, CONNECT_TIMEOUT};
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::home::server::Credentials;

const HTTP2: &[u8] = b"h2";

/// The one provider of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Connects to a paired server.
pub(super) async fn connect(
    address: &Address,
    server_name: &str,
    credentials: &Credentials,
) -> Result<TlsStream<TcpStream>, Failure> {
    let config = configuration(credentials).map_err(|e| {
        Failure::new(Exit::Failed, format!("The pairing's files cannot be used: {}", chain(&*e)))
            .next("refloat pair SERVER --code CODE")
    })?;
    let stream = dial(address).await?;
    handshake(stream, address, server_name, config).await.map_err(|error| not_the_server(address, &error))
}

fn configuration(credentials: &Credentials) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(credentials.ca.as_bytes())?)?;
    let chain = CertificateDer::pem_slice_iter(credentials.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    let resolver: &dyn ResolvesClientCert = &*config.client_auth_cert_resolver;
    debug_assert!(resolver.has_certs(), "a paired device shows its certificate");
    Ok(config)
}

/// Opens a connection without waiting for more bytes before it sends the few that there are.
pub(super) async fn dial(address: &Address) -> Result<TcpStream, Failure> {
    let connecting = TcpStream::connect((address.host.as_str(), address.port));
    let connected = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)),
        Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer")),
    };
    connected.map_err(|error| unreachable_server(address, &error))
}

/// TLS over a connection.
pub(super) async fn handshake(
    stream: TcpStream,
    address: &Address,
    server_name: &str,
    mut config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    config.alpn_protocols = vec![HTTP2.to_vec()];
    let name = ServerName::try_from(server_name.to_owned()).map_err(std::io::Error::other)?;
    let shaking = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(CONNECT_TIMEOUT, shaking).await {
        Ok(shaken) => shaken,
        Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("{address} does not answer in TLS"))),
    }
}

fn unreachable_server(address: &Address, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "Nothing listens there: is refloatd running?",
        std::io::ErrorKind::TimedOut => "A firewall may be in the way: the agent's port is 7443.",
        _ => "Check the name and your network.",
    };
    Failure::new(Exit::Unreachable, format!("Cannot reach {address}: {error}. {hint}"))
        .still_fine("What serves goes on serving.")
        .next(format!("refloat --via ssh://root@{} status", address.host))
}

fn not_the_server(address: &Address, error: &std::io::Error) -> Failure {
    let rustls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::InvalidCertificate(_)) => {
            let what = format!("{address} is not the server that this device was paired with: {error}");
            Failure::new(Exit::Unreachable, what).reason("WRONG_SERVER").next("refloat pair SERVER --code CODE")
        }
        Some(rustls::Error::AlertReceived(_)) => {
            let what = format!("{address} does not accept this device's certificate: {error}");
            Failure::new(Exit::Denied, what).next("refloat pair SERVER --code CODE")
        }
        _ => unreachable_server(address, error),
    }
}

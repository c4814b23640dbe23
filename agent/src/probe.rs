//! Looks once whether an instance answers, from where the edge connects.
//!
//! Owns the port [`Probe`] and its implementation over TCP. Deliberately absent: trying again and deciding when a
//! start has taken too long (the driver's), and following redirects (a redirect is an answer).

use std::fmt;
use std::net::SocketAddrV4;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use refloat_model::Health;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// How long one attempt may take. An app that answers its health path slower than this is not ready for visitors.
pub const ATTEMPT_TIMEOUT_MS: u32 = 2_000;

/// Looks whether an instance answers.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// One attempt. `host` is the name that a visitor would use: apps refuse names that they do not know.
    async fn probe(&self, address: SocketAddrV4, health: &Health, host: &str) -> Seen;
}

/// What one attempt saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The connection was accepted, and nothing more was asked for.
    Accepted,
    /// The health path was answered with this status.
    Answered(u16),
    /// Nothing listens on the port.
    Refused,
    /// Nothing came within this time.
    Silent {
        /// How long was waited.
        timeout_ms: u32,
    },
    /// The connection was closed or broke before an answer, or the answer was no HTTP.
    Broken(String),
}

impl Seen {
    /// Whether the instance may receive visitors.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        match self {
            Self::Accepted => true,
            Self::Answered(status) => *status < 400,
            Self::Refused | Self::Silent { .. } | Self::Broken(_) => false,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("connection accepted"),
            Self::Answered(status) => write!(f, "answered {status}"),
            Self::Refused => f.write_str("connection refused: nothing listens on the port"),
            Self::Silent { timeout_ms } => write!(f, "no answer within {timeout_ms} ms"),
            Self::Broken(how) => write!(f, "no HTTP answer: {how}"),
        }
    }
}

/// Looks over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpProbe;

#[async_trait]
impl Probe for TcpProbe {
    async fn probe(&self, address: SocketAddrV4, health: &Health, host: &str) -> Seen {
        let attempt = attempt(address, health.path.as_deref(), host);
        let seen = tokio::time::timeout(Duration::from_millis(ATTEMPT_TIMEOUT_MS.into()), attempt).await;
        seen.unwrap_or(Seen::Silent { timeout_ms: ATTEMPT_TIMEOUT_MS })
    }
}

async fn attempt(address: SocketAddrV4, path: Option<&str>, host: &str) -> Seen {
    let stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => return Seen::Refused,
        Err(e) => return Seen::Broken(e.to_string()),
    };
    match path {
        None => Seen::Accepted,
        Some(path) => get(stream, path, host).await.unwrap_or_else(|e| Seen::Broken(e.to_string())),
    }
}

async fn get(stream: TcpStream, path: &str, host: &str) -> Result<Seen, hyper::Error> {
    let request = http::Request::get(path)
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, "refloat-probe")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else { return Ok(Seen::Broken(format!("{path:?} is no path to ask for"))) };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _driver = Driver(tokio::spawn(connection).abort_handle());
    let answer = sender.send_request(request).await?;
    Ok(Seen::Answered(answer.status().as_u16()))
}

/// The task that moves the connection's bytes ends with the attempt.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks into the fake engine.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone)]
pub struct FakeProbe(pub crate::docker::fake::FakeDocker);

#[cfg(any(test, feature = "testing"))]
#[async_trait]
impl Probe for FakeProbe {
    async fn probe(&self, address: SocketAddrV4, health: &Health, _host: &str) -> Seen {
        use crate::docker::fake::Answer;
        match (self.0.answer(address), &health.path) {
            (Answer::Refused, _) => Seen::Refused,
            // The kernel accepts for a paused process.
            (Answer::Silent | Answer::Status(_), None) => Seen::Accepted,
            (Answer::Status(status), Some(_)) => Seen::Answered(status),
            (Answer::Silent, Some(_)) => {
                tokio::time::sleep(Duration::from_millis(ATTEMPT_TIMEOUT_MS.into())).await;
                Seen::Silent { timeout_ms: ATTEMPT_TIMEOUT_MS }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::docker::fake::FakeDocker;

    fn health(path: Option<&str>) -> Health {
        Health { path: path.map(str::to_owned), ..Health::default() }
    }

    /// Answers one connection with these bytes and tells what was asked.
    async fn answering(answer: &'static str) -> (SocketAddrV4, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let n = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        (address, asked)
    }

    async fn seen(answer: &'static str) -> Seen {
        let (address, _) = answering(answer).await;
        TcpProbe.probe(address, &health(Some("/")), "shop.example").await
    }

    #[tokio::test]
    async fn a_status_below_400_is_healthy_and_one_above_is_named() {
        let ok = seen("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!((ok.is_healthy(), ok), (true, Seen::Answered(204)));
        let moved = seen("HTTP/1.1 301 Moved\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!((moved.is_healthy(), moved), (true, Seen::Answered(301)));
        let broken = seen("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!((broken.is_healthy(), broken.to_string()), (false, "answered 500".to_owned()));
    }

    #[tokio::test]
    async fn the_visitor_s_name_and_the_health_path_are_asked_for() {
        let (address, asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        TcpProbe.probe(address, &health(Some("/up?x=1")), "shop.example").await;
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("GET /up?x=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("\r\nhost: shop.example\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        drop(listener);
        assert_eq!(TcpProbe.probe(address, &health(None), "x").await, Seen::Refused);
        assert!(!Seen::Refused.is_healthy());
    }

    #[tokio::test]
    async fn without_a_health_path_an_accepted_connection_is_enough() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        assert_eq!(TcpProbe.probe(address, &health(None), "x").await, Seen::Accepted);
    }

    #[tokio::test]
    async fn an_answer_that_is_no_http_is_not_healthy() {
        assert!(matches!(seen("SSH-2.0-OpenSSH\r\n").await, Seen::Broken(_)));
        assert!(matches!(seen("").await, Seen::Broken(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_accepts_and_says_nothing_is_silent() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        let seen = TcpProbe.probe(address, &health(Some("/")), "x").await;
        assert_eq!(seen, Seen::Silent { timeout_ms: ATTEMPT_TIMEOUT_MS });
    }

    #[tokio::test(start_paused = true)]
    async fn the_fake_sees_nothing_where_no_container_is() {
        let probe = FakeProbe(FakeDocker::new());
        let address = SocketAddrV4::new(Ipv4Addr::new(10, 201, 0, 2), 8080);
        assert_eq!(probe.probe(address, &health(None), "x").await, Seen::Refused);
    }
}

//! Fetches an app's address from here, as a visitor would: one request over HTTP/1.1.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpStream, lookup_host};

use crate::failure::chain;

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// A resolver that does not answer must not hold up the news that the release is live.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
const HTTP_PORT: u16 = 80;
/// Where a server reaches itself.
const OWN_ADDRESS: &str = "127.0.0.1";
const FIRST_FAILING_STATUS: u16 = 500;

/// What was seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Here {
    /// The address.
    pub(crate) address: String,
    /// What was answered.
    pub(crate) seen: Seen,
    /// The server's own address, when the app's could not be used from here, and why.
    pub(crate) instead: Option<String>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Seen {
    /// A status.
    Answered {
        /// The status.
        status: u16,
        /// Until the head of the answer was here.
        duration_us: u64,
    },
    /// Nothing.
    Nothing {
        /// Why.
        error: String,
    },
    /// It was not asked.
    NotAsked {
        /// Why.
        because: String,
    },
}

impl Here {
    /// Whether visitors who are where we are get no answer.
    pub(crate) fn is_bad(&self) -> bool {
        match &self.seen {
            Seen::Answered { status, .. } => *status >= FIRST_FAILING_STATUS,
            Seen::Nothing { .. } => true,
            Seen::NotAsked { .. } => false,
        }
    }
}

/// Where a connection goes to, and why there when it is not the address itself.
struct Way {
    host: String,
    port: u16,
    instead: Option<String>,
}

/// Fetches `address`; `server` is where the server itself is reached, when it is not this host.
pub(crate) async fn fetch(address: &str, server: Option<&str>) -> Here {
    let here = |seen, instead| Here { address: address.to_owned(), seen, instead };
    let uri = match address.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => uri,
        _ => return here(Seen::NotAsked { because: "only http:// is fetched from here".to_owned() }, None),
    };
    let way = way(&uri, server).await;
    let started = Instant::now();
    let seen = match tokio::time::timeout(FETCH_TIMEOUT, request(&uri, &way)).await {
        Ok(Ok(status)) => Seen::Answered { status, duration_us: micros(started.elapsed()) },
        Ok(Err(error)) => Seen::Nothing { error: chain(&*error) },
        Err(_) => Seen::Nothing { error: format!("no answer within {} s", FETCH_TIMEOUT.as_secs()) },
    };
    here(seen, way.instead)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The address itself, unless its name is not known here or means another host here than there. Without a `server` this is the
/// server: it reaches its own edge whether or not the name is known.
async fn way(uri: &Uri, server: Option<&str>) -> Way {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(HTTP_PORT);
    let elsewhere = server.is_some_and(|server| host != server);
    let server = server.unwrap_or(OWN_ADDRESS);
    let because = if elsewhere && means_own_host(&host) && !means_own_host(server) {
        "which is the server's own name for itself"
    } else if elsewhere && is_private(&host) {
        "which is the server's address in a network of its own"
    } else {
        let found = lookup_host((host.as_str(), port));
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, found).await.map(|known| known.is_ok());
        match found {
            Ok(true) => return Way { host, port, instead: None },
            Ok(false) => "whose name is not known here yet",
            Err(_) => "whose name could not be looked up in time",
        }
    };
    Way { host: server.to_owned(), port, instead: Some(format!("through {server} instead of {host}, {because}")) }
}

fn means_own_host(host: &str) -> bool {
    let own = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(own)
}

/// An address that means something only in the network it is used in, such as that of a server behind NAT.
fn is_private(host: &str) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => false,
    }
}

async fn request(uri: &Uri, way: &Way) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((way.host.as_str(), way.port)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let authority = uri.authority().map(hyper::http::uri::Authority::as_str).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, concat!("refloat/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let status = sender.send_request(request).await?.status().as_u16();
    connection.abort();
    Ok(status)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request, and returns what was asked.
    async fn answer_once(listener: TcpListener, answer: &'static str) -> String {
        let (mut stream, _) = listener.accept().await.expect("a visitor");
        let mut asked = vec![0; 4096];
        let read = stream.read(&mut asked).await.expect("a request");
        stream.write_all(answer.as_bytes()).await.expect("an answer");
        String::from_utf8_lossy(&asked[..read]).into_owned()
    }

    #[tokio::test]
    async fn the_status_is_what_a_visitor_gets() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("an address"));
        let server = tokio::spawn(answer_once(listener, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"));
        let here = fetch(&address, None).await;
        assert!(matches!(here.seen, Seen::Answered { status: 404, .. }), "{here:?}");
        assert!(!here.is_bad());
        server.await.expect("it answered");
    }

    #[tokio::test]
    async fn a_name_that_is_not_known_is_asked_for_at_the_server_also_on_the_server_itself() {
        for server in [Some("127.0.0.1"), None] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let edge = tokio::spawn(answer_once(listener, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
            let here = fetch(&format!("http://shop.invalid:{port}/"), server).await;
            assert!(matches!(here.seen, Seen::Answered { status: 200, .. }), "{here:?}");
            assert!(here.instead.is_some_and(|text| text.contains("127.0.0.1")));
            let asked = edge.await.expect("it answered").to_lowercase();
            assert!(asked.contains(&format!("host: shop.invalid:{port}\r\n")), "{asked}");
        }
    }

    #[tokio::test]
    async fn nothing_and_a_failing_status_are_bad_and_https_is_not_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("an address"));
        drop(listener);
        assert!(fetch(&address, None).await.is_bad());
        let here = fetch("https://shop.example.com/", None).await;
        assert!(matches!(here.seen, Seen::NotAsked { .. }));
        assert!(!here.is_bad());
    }
}

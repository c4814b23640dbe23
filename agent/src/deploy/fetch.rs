//! Fetches an address through the edge, as a visitor does.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::ports::Fetch;

/// The real one: one connection, one request.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpFetch;

#[async_trait]
impl Fetch for HttpFetch {
    async fn get(&self, at: SocketAddr, host: &str, path: &str) -> Result<u16, String> {
        let stream = TcpStream::connect(at).await.map_err(|e| format!("cannot connect to {at}: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(connection);
        let host = if at.port() == 80 { host.to_owned() } else { format!("{host}:{}", at.port()) };
        let request = Request::get(path)
            .header("host", host)
            .header("user-agent", concat!("refloatd/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        // The status is all that is wanted; the rest of the answer is not waited for.
        connection.abort();
        Ok(response.status().as_u16())
    }
}

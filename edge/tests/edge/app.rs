//! Apps behind the edge: a script per connection, and everything that was received.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

type Seen = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// An app on a port of its own.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    /// Every request as it arrived: head, and body without its framing.
    pub(crate) seen: Seen,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    /// Answers every request with what `respond` makes of its head and body.
    pub(crate) async fn answering(respond: impl Fn(&str, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let respond = Arc::new(respond);
        let seen = Seen::default();
        let log = seen.clone();
        let mut app = Self::script(move |stream| {
            let (respond, log) = (respond.clone(), log.clone());
            async move {
                let mut peer = Peer::new(stream);
                while let Some((head, body)) = peer.request().await {
                    let answer = respond(&head, &body);
                    log.lock().unwrap().push((head, body));
                    if peer.stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        app.seen = seen;
        app
    }

    /// Answers 200 with `name` as body.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::answering(move |_, _| ok(name)).await
    }

    /// Hands every connection to a script.
    pub(crate) async fn script<F, Fut>(script: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(script(stream));
            }
        });
        Self { address, seen: Seen::default(), task }
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> (String, Vec<u8>) {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }
}

pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The app's end of one connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..))
    }

    async fn until(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(text.len()).position(|w| w == text) {
                let rest = self.buffer.split_off(at + text.len());
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        let rest = self.buffer.split_off(length);
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    pub(crate) async fn head(&mut self) -> Option<String> {
        self.until(b"\r\n\r\n").await.map(|head| String::from_utf8(head).unwrap())
    }

    /// One whole request; `None` when the connection ends.
    pub(crate) async fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head().await?;
        let lower = head.to_ascii_lowercase();
        let mut body = Vec::new();
        if let Some((_, rest)) = lower.split_once("\r\ncontent-length: ") {
            let length = rest.split("\r\n").next().unwrap().parse().unwrap();
            body = self.exactly(length).await?;
        } else if lower.contains("\r\ntransfer-encoding: chunked\r\n") {
            loop {
                let line = String::from_utf8(self.until(b"\r\n").await?).unwrap();
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                body.extend(self.exactly(size).await?);
                assert_eq!(self.exactly(2).await?, b"\r\n");
                if size == 0 {
                    break;
                }
            }
        }
        Some((head, body))
    }
}

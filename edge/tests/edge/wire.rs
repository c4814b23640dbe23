//! A client that says exactly what a test writes and reads exactly one response at a time.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Nothing in a test takes this long; it keeps a broken one from hanging.
pub(crate) const HANG_GUARD: Duration = Duration::from_secs(60);

pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|l| l.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
    }

    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(HANG_GUARD, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("the edge says nothing"), Ok(1..))
    }

    /// Everything until the edge closes, with what was read already.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads until the text has come.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.buffer.windows(text.len()).position(|w| w == text.as_bytes()) {
                let rest = self.buffer.split_off(at + text.len());
                let read = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8_lossy(&read).into_owned();
            }
            let so_far = String::from_utf8_lossy(&self.buffer).into_owned();
            assert!(self.fill().await, "closed before {text:?}: {so_far:?}");
        }
    }

    /// One response; `None` when the edge closed before a byte of it.
    pub(crate) async fn try_answer(&mut self, has_body: bool) -> Option<Answer> {
        while self.buffer.is_empty() {
            if !self.fill().await {
                return None;
            }
        }
        let head = self.until("\r\n\r\n").await;
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let none = !has_body || (100..200).contains(&status) || status == 204 || status == 304;
        if none {
            return Some(answer);
        }
        if let Some(length) = answer.field("content-length").map(|v| v.parse::<usize>().unwrap()) {
            answer.body = self.exactly(length).await;
        } else if answer.field("transfer-encoding") == Some("chunked") {
            answer.body = self.chunked().await;
        } else {
            answer.body = self.rest().await;
        }
        Some(answer)
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer(true).await.expect("the edge closed without an answer")
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill().await, "cut off after {} of {length} bytes", self.buffer.len());
        }
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    async fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.until("\r\n").await;
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            body.extend(self.exactly(size).await);
            assert_eq!(self.until("\r\n").await, "\r\n");
            if size == 0 {
                return body;
            }
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        self.answer().await
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    Wire::open(address).await.get(path).await
}

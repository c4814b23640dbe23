//! Answers that the edge gives itself: pages, redirects and files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::SystemTime;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::access_log::Line;
use crate::body::flush;
use crate::connection::{After, Client};
use crate::head::{RequestHead, Verb, Version};
use crate::limits::{FILE_READ_BYTES, RETRY_AFTER_SECONDS};
use crate::page::{Page, reason};

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its fields but those of framing and connection.
    pub fields: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// There is none and none is announced (304).
    None,
    /// A text; may be empty.
    Text(String),
    /// A part of a file.
    File(FilePart),
}

/// A part of an open file.
#[derive(Debug)]
pub struct FilePart {
    /// The file.
    pub file: File,
    /// What was read of the part already.
    pub read: Vec<u8>,
    /// Where the rest begins, in bytes.
    pub offset: u64,
    /// Bytes of the whole part.
    pub length: u64,
}

impl FilePart {
    /// Reads the next piece. Blocking.
    fn read_next(mut self, left: u64) -> io::Result<Self> {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(FILE_READ_BYTES);
        self.read.resize(want, 0);
        let got = self.file.read_at(&mut self.read, self.offset)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read.truncate(got);
        self.offset += got as u64;
        Ok(self)
    }

    /// Begins a part: reads its first piece. Blocking.
    ///
    /// # Errors
    /// When the file cannot be read or is shorter.
    pub fn begin(file: File, offset: u64, length: u64) -> io::Result<Self> {
        let part = Self { file, read: Vec::new(), offset, length };
        if length == 0 { Ok(part) } else { part.read_next(length) }
    }
}

impl Reply {
    /// An answer with an empty body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, fields: Vec::new(), body: Body::Text(String::new()) }
    }

    /// A page of the edge's own.
    #[must_use]
    pub fn page(page: Page, html: bool) -> Self {
        let (kind, text) = page.body(html);
        let mut fields = vec![("Content-Type", kind.to_owned()), ("Cache-Control", "no-store".to_owned())];
        if page.status() == 503 {
            fields.push(("Retry-After", RETRY_AFTER_SECONDS.to_string()));
        }
        Self { status: page.status(), fields, body: Body::Text(text) }
    }

    fn length(&self) -> Option<u64> {
        match &self.body {
            Body::None => None,
            Body::Text(text) => Some(text.len() as u64),
            Body::File(part) => Some(part.length),
        }
    }

    /// Writes the head.
    pub fn write_head(&self, out: &mut BytesMut, version: Version, keep: bool) {
        out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).as_bytes());
        for (name, value) in &self.fields {
            put_field(out, name.as_bytes(), value.as_bytes());
        }
        put_field(out, b"X-Content-Type-Options", b"nosniff");
        if let Some(length) = self.length() {
            put_field(out, b"Content-Length", length.to_string().as_bytes());
        }
        put_date(out);
        put_connection(out, version, keep);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes one field.
pub fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the time.
pub fn put_date(out: &mut BytesMut) {
    put_field(out, b"Date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
}

/// Writes what becomes of the connection, where the version does not say it already.
pub fn put_connection(out: &mut BytesMut, version: Version, keep: bool) {
    match (version, keep) {
        (_, false) => put_field(out, b"Connection", b"close"),
        (Version::Http10, true) => put_field(out, b"Connection", b"keep-alive"),
        (Version::Http11, true) => {}
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Client<R, W> {
    /// Answers with a page, in the form that the client can show.
    pub async fn page(&mut self, page: Page, head: &RequestHead, line: &mut Line) -> After {
        let html = head.all("accept").any(|accept| accept.contains("text/html"));
        self.reply(Reply::page(page, html), head, line).await
    }

    /// Answers. A request whose body was not read ends the connection: nothing else tells where the next one starts.
    pub async fn reply(&mut self, reply: Reply, head: &RequestHead, line: &mut Line) -> After {
        let keep = head.keep_alive && !head.body.has_body() && !self.stop.is_cancelled();
        line.status = reply.status;
        self.out.clear();
        reply.write_head(&mut self.out, head.version, keep);
        let with_body = head.verb != Verb::Head;
        let idle = self.shared.timeouts.body_idle;
        let sent = match reply.body {
            Body::Text(text) if with_body => {
                self.out.extend_from_slice(text.as_bytes());
                flush(&mut self.out, &mut self.sink, idle, &mut line.bytes).await.is_ok()
            }
            Body::File(part) if with_body => self.send_file(part, &mut line.bytes).await,
            _ => flush(&mut self.out, &mut self.sink, idle, &mut line.bytes).await.is_ok(),
        };
        match (sent, keep) {
            (false, _) => After::Abort,
            (true, true) => After::Keep,
            (true, false) => After::Close,
        }
    }

    async fn send_file(&mut self, mut part: FilePart, written: &mut u64) -> bool {
        let idle = self.shared.timeouts.body_idle;
        let mut left = part.length;
        loop {
            left = left.saturating_sub(part.read.len() as u64);
            // Each write may wait for long, by thousands at once: the piece is then in memory once, not twice. The
            // first one leaves together with the head.
            let piece = std::mem::take(&mut part.read);
            if self.out.is_empty() {
                self.out = BytesMut::from(bytes::Bytes::from(piece));
            } else {
                self.out.extend_from_slice(&piece);
                drop(piece);
            }
            if flush(&mut self.out, &mut self.sink, idle, written).await.is_err() {
                return false;
            }
            if left == 0 {
                return true;
            }
            part = match tokio::task::spawn_blocking(move || part.read_next(left)).await {
                Ok(Ok(part)) => part,
                Ok(Err(error)) => {
                    tracing::error!(%error, "a published file cannot be read to its end");
                    return false;
                }
                Err(_) => return false,
            };
        }
    }
}

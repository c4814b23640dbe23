//! One request to an instance and its response back.
//!
//! Two futures run side by side and the first to end decides: one carries the request up and then watches whether the
//! client goes away, the other waits for the response and carries it down. So an app may answer before it has read the
//! upload, and an upload that breaks off ends the exchange.
//!
//! ```text
//!            ┌─ carry request ── watch client ──▶ client gone or broken: abort
//! attempt ───┤
//!            └─ read head ── carry response ────▶ done | upgraded | no answer
//!                   └─ nothing came, connection was reused, request repeatable: once more, on a new connection
//! ```
//!
//! Heads are rebuilt, never copied: what one connection agreed on stays on it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::access_log::Line;
use crate::body::{Decoder, Encoding, PumpError, Source, flush, pump};
use crate::connection::{After, Client};
use crate::head::{Framing, HeadError, RequestHead, ResponseHead, Verb, Version, find_end};
use crate::limits::{HEAD_READ_BYTES, MAX_INTERIM_RESPONSES, Timeouts};
use crate::page::Page;
use crate::reply::{put_connection, put_date, put_field};
use crate::tunnel;
use crate::upstream::{Link, Upstream};

/// What both sides of an exchange see of each other.
#[derive(Debug, Default)]
struct Progress {
    /// The whole request was written.
    uploaded: AtomicBool,
    /// The status whose head the client has seen a byte of; 0 before.
    status: AtomicU16,
}

/// How an exchange with an instance ended.
#[derive(Debug)]
enum Outcome {
    /// The response is with the client.
    Done { keep: bool, reusable: bool },
    /// A WebSocket begins.
    Upgraded(ResponseHead),
    /// The instance did not answer, or broke off.
    Upstream(UpstreamError),
    /// The client is gone, or takes nothing.
    Client,
    /// The client's body is not one.
    BadBody(Page),
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
enum UpstreamError {
    #[error("it cannot be connected to")]
    Connect(#[source] std::io::Error),
    #[error("it closed the connection without a byte")]
    Silent,
    #[error("it broke off")]
    BrokeOff(#[source] std::io::Error),
    #[error("its response is malformed")]
    Head(#[source] HeadError),
    #[error("it takes too long")]
    TooSlow,
    #[error("its body is cut off or malformed")]
    Body(#[source] PumpError),
    #[error("it upgraded the connection unasked")]
    Unasked,
    #[error("it sent too many interim responses")]
    Interim,
}

/// Forwards a request and carries the response back.
pub async fn forward<R, W>(client: &mut Client<R, W>, head: &RequestHead, upstream: &Upstream, line: &mut Line) -> After
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // Nothing of a body may have been taken from the client when a request is sent again.
    let repeatable = head.verb.is_idempotent() && !head.body.has_body() && !head.upgrades;
    let mut link = match connect(upstream, client.shared.timeouts.connect, upstream.idle_link(repeatable)).await {
        Ok(link) => link,
        Err(error) => return no_answer(client, head, upstream, &error, line).await,
    };
    loop {
        let progress = Progress::default();
        let outcome = exchange(client, head, &mut link, &progress, line).await;
        line.status = progress.status.load(Ordering::Relaxed);
        match outcome {
            Outcome::Done { keep, reusable } => {
                if reusable {
                    upstream.put_back(link);
                }
                return if keep { After::Keep } else { After::Close };
            }
            Outcome::Upgraded(response) => return upgrade(client, link, &response, line).await,
            Outcome::Upstream(UpstreamError::Silent | UpstreamError::BrokeOff(_))
                if repeatable && link.reused && line.status == 0 =>
            {
                link = match connect(upstream, client.shared.timeouts.connect, None).await {
                    Ok(link) => link,
                    Err(error) => return no_answer(client, head, upstream, &error, line).await,
                };
            }
            Outcome::Upstream(error) => return no_answer(client, head, upstream, &error, line).await,
            Outcome::BadBody(page) if line.status == 0 => return client.page(page, head, line).await,
            Outcome::BadBody(_) | Outcome::Client => return After::Abort,
        }
    }
}

async fn connect(upstream: &Upstream, within: Duration, idle: Option<Link>) -> Result<Link, UpstreamError> {
    match idle {
        Some(link) => Ok(link),
        None => upstream.connect(within).await.map_err(UpstreamError::Connect),
    }
}

/// A page while the client has seen nothing; afterwards only a cut connection says that the rest is missing.
async fn no_answer<R, W>(
    client: &mut Client<R, W>,
    head: &RequestHead,
    upstream: &Upstream,
    error: &UpstreamError,
    line: &mut Line,
) -> After
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    tracing::warn!(instance = %upstream.name, error = error as &dyn std::error::Error, "an instance did not answer");
    if line.status != 0 {
        return After::Abort;
    }
    let page = if matches!(error, UpstreamError::TooSlow) { Page::TooSlow } else { Page::NoAnswer };
    client.page(page, head, line).await
}

async fn upgrade<R, W>(client: &mut Client<R, W>, link: Link, response: &ResponseHead, line: &mut Line) -> After
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    client.out.clear();
    put_status(&mut client.out, response);
    put_field(&mut client.out, b"Connection", b"upgrade");
    put_field(&mut client.out, b"Upgrade", b"websocket");
    client.out.extend_from_slice(b"\r\n");
    line.status = response.status;
    let timeouts = client.shared.timeouts;
    if flush(&mut client.out, &mut client.sink, timeouts.body_idle, &mut line.bytes).await.is_ok() {
        tunnel::run(&mut client.source, &mut client.sink, link, &timeouts, &mut line.bytes).await;
    }
    After::Abort
}

/// Runs both directions until one decides.
async fn exchange<R, W>(
    client: &mut Client<R, W>,
    head: &RequestHead,
    link: &mut Link,
    progress: &Progress,
    line: &mut Line,
) -> Outcome
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let timeouts = client.shared.timeouts;
    let mut request = BytesMut::with_capacity(1024);
    put_request(&mut request, head, client.peer, link);
    if head.expects_continue && client.source.buffer.is_empty() {
        let invite = invite_body(&mut request, &mut link.sink, &mut client.sink, &timeouts).await;
        if let Err(outcome) = invite {
            return outcome;
        }
    }
    client.out.clear();
    let up = carry_request(&mut client.source, head, &mut link.sink, request, &timeouts, progress);
    let stopping = client.stop.is_cancelled();
    let down =
        Downward { head, timeouts: &timeouts, progress, stopping, out: &mut client.out, written: &mut line.bytes };
    let down = down.carry(&mut link.source, &mut client.sink);
    tokio::select! {
        // The response first: a client that leaves in the moment of its last byte was served. The other future is
        // dropped; what it read is in the buffers, and the connection it wrote to is given up unless it had finished.
        biased;
        outcome = down => outcome,
        outcome = up => outcome,
    }
}

/// Sends the head up and only then tells the client to send its body.
async fn invite_body<U, W>(
    request: &mut BytesMut,
    up: &mut U,
    client: &mut W,
    timeouts: &Timeouts,
) -> Result<(), Outcome>
where
    U: AsyncWrite + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut written = 0;
    flush(request, up, timeouts.body_idle, &mut written)
        .await
        .map_err(|error| Outcome::Upstream(UpstreamError::Body(error)))?;
    let mut invitation = BytesMut::from(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]);
    flush(&mut invitation, client, timeouts.body_idle, &mut written).await.map_err(|_| Outcome::Client)
}

/// Carries the request up; completes only when the client is gone or its body is broken.
async fn carry_request<R, U>(
    source: &mut Source<R>,
    head: &RequestHead,
    sink: &mut U,
    mut out: BytesMut,
    timeouts: &Timeouts,
    progress: &Progress,
) -> Outcome
where
    R: AsyncRead + Unpin,
    U: AsyncWrite + Unpin,
{
    let encoding = if head.body == Framing::Chunked { Encoding::Chunked } else { Encoding::Plain };
    let mut decoder = Decoder::new(head.body);
    let mut written = 0;
    match pump(source, &mut decoder, encoding, sink, &mut out, timeouts.body_idle, &mut written).await {
        Ok(()) => {
            progress.uploaded.store(true, Ordering::Release);
            source.gone().await;
            Outcome::Client
        }
        // The app has stopped reading. It may have answered: the other direction finds out.
        Err(error) if error.is_write() => std::future::pending().await,
        Err(PumpError::Malformed(_)) => Outcome::BadBody(Page::BadRequest(400)),
        Err(PumpError::ReadTimeout) => Outcome::BadBody(Page::BadRequest(408)),
        Err(_) => Outcome::Client,
    }
}

/// The way of the response.
struct Downward<'a> {
    head: &'a RequestHead,
    timeouts: &'a Timeouts,
    progress: &'a Progress,
    stopping: bool,
    out: &'a mut BytesMut,
    written: &'a mut u64,
}

impl Downward<'_> {
    async fn carry<R, W>(mut self, source: &mut Source<R>, sink: &mut W) -> Outcome
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let response = match self.final_head(source, sink).await {
            Ok(response) => response,
            Err(outcome) => return outcome,
        };
        if response.status == 101 {
            return match self.head.upgrades && response.upgrades() {
                true => Outcome::Upgraded(response),
                false => Outcome::Upstream(UpstreamError::Unasked),
            };
        }
        let framing = response.framing(self.head.verb);
        let encoding = encoding_for(framing, self.head.version);
        let delimited_by_close = encoding == Encoding::Plain && matches!(framing, Framing::Chunked | Framing::Close);
        let uploaded = self.progress.uploaded.load(Ordering::Acquire);
        let keep = self.head.keep_alive && uploaded && !delimited_by_close && !self.stopping;
        put_response(self.out, &response, self.head, framing, keep);
        self.progress.status.store(response.status, Ordering::Relaxed);
        let mut decoder = Decoder::new(framing);
        let (idle, before) = (self.timeouts.body_idle, *self.written);
        match pump(source, &mut decoder, encoding, sink, self.out, idle, self.written).await {
            Ok(()) => {}
            Err(error) if error.is_write() => return Outcome::Client,
            Err(error) => {
                if *self.written == before {
                    // The head had not left yet: a page can still say what happened.
                    self.progress.status.store(0, Ordering::Relaxed);
                }
                return Outcome::Upstream(UpstreamError::Body(error));
            }
        }
        let uploaded = self.progress.uploaded.load(Ordering::Acquire);
        let reusable = uploaded && response.keep_alive && decoder.is_done() && source.buffer.is_empty();
        Outcome::Done { keep, reusable }
    }

    /// Reads heads until one is not interim, and passes interim ones on to whom they mean something.
    async fn final_head<R, W>(&mut self, source: &mut Source<R>, sink: &mut W) -> Result<ResponseHead, Outcome>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..MAX_INTERIM_RESPONSES {
            let response = self.read_head(source).await.map_err(Outcome::Upstream)?;
            match response.status {
                // The edge has said `100 Continue` itself.
                100 => {}
                102..=199 if self.head.version == Version::Http11 => {
                    put_status(self.out, &response);
                    self.out.extend_from_slice(b"\r\n");
                    let idle = self.timeouts.body_idle;
                    flush(self.out, sink, idle, self.written).await.map_err(|_| Outcome::Client)?;
                }
                102..=199 => {}
                _ => return Ok(response),
            }
        }
        Err(Outcome::Upstream(UpstreamError::Interim))
    }

    async fn read_head<R: AsyncRead + Unpin>(&self, source: &mut Source<R>) -> Result<ResponseHead, UpstreamError> {
        let mut scanned = 0;
        loop {
            if !source.buffer.is_empty()
                && let Some(end) = find_end(&source.buffer, &mut scanned).map_err(UpstreamError::Head)?
            {
                return ResponseHead::parse(source.buffer.split_to(end).freeze()).map_err(UpstreamError::Head);
            }
            match timeout(self.timeouts.response_head, source.fill(HEAD_READ_BYTES)).await {
                // While the upload runs the app need not answer; the upload has a limit of its own.
                Err(_) if !self.progress.uploaded.load(Ordering::Acquire) => {}
                Err(_) => return Err(UpstreamError::TooSlow),
                Ok(Ok(0)) if source.buffer.is_empty() => return Err(UpstreamError::Silent),
                Ok(Ok(0)) => return Err(UpstreamError::Head(HeadError::Syntax)),
                Ok(Ok(_)) => {}
                Ok(Err(error)) if source.buffer.is_empty() => return Err(UpstreamError::BrokeOff(error)),
                Ok(Err(error)) => return Err(UpstreamError::Body(PumpError::Read(error))),
            }
        }
    }
}

fn encoding_for(framing: Framing, version: Version) -> Encoding {
    match (framing, version) {
        (Framing::Chunked | Framing::Close, Version::Http11) => Encoding::Chunked,
        _ => Encoding::Plain,
    }
}

/// The head that the instance gets.
fn put_request(out: &mut BytesMut, head: &RequestHead, client: IpAddr, link: &Link) {
    out.extend_from_slice(head.method().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(head.path().as_bytes());
    out.extend_from_slice(head.query().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    match head.authority() {
        Some(authority) => {
            put_field(out, b"Host", authority.as_bytes());
            put_field(out, b"X-Forwarded-Host", authority.as_bytes());
        }
        // HTTP/1.0 without Host: the instance is asked by its address.
        None => put_field(out, b"Host", link.peer().as_bytes()),
    }
    for field in head.end_to_end() {
        put_field(out, field.name, field.value);
    }
    match head.body {
        Framing::Length(length) => put_field(out, b"Content-Length", length.to_string().as_bytes()),
        Framing::Chunked => put_field(out, b"Transfer-Encoding", b"chunked"),
        Framing::None | Framing::Close => {}
    }
    if head.upgrades {
        put_field(out, b"Connection", b"upgrade");
        put_field(out, b"Upgrade", b"websocket");
    }
    put_field(out, b"X-Forwarded-For", client.to_string().as_bytes());
    put_field(out, b"X-Forwarded-Proto", b"http");
    out.extend_from_slice(b"\r\n");
}

/// Status line and end-to-end fields.
fn put_status(out: &mut BytesMut, response: &ResponseHead) {
    out.extend_from_slice(format!("HTTP/1.1 {} ", response.status).as_bytes());
    out.extend_from_slice(response.reason());
    out.extend_from_slice(b"\r\n");
    for field in response.end_to_end() {
        put_field(out, field.name, field.value);
    }
}

/// The head that the client gets.
fn put_response(out: &mut BytesMut, response: &ResponseHead, head: &RequestHead, framing: Framing, keep: bool) {
    put_status(out, response);
    if !response.has_date() {
        put_date(out);
    }
    match (framing, response.declared) {
        (Framing::Length(length), _) => put_field(out, b"Content-Length", length.to_string().as_bytes()),
        (Framing::Chunked | Framing::Close, _) if head.version == Version::Http11 => {
            put_field(out, b"Transfer-Encoding", b"chunked");
        }
        // What a GET would have brought.
        (Framing::None, Some(Framing::Length(length))) if head.verb == Verb::Head && response.status != 204 => {
            put_field(out, b"Content-Length", length.to_string().as_bytes());
        }
        _ => {}
    }
    put_connection(out, head.version, keep);
    out.extend_from_slice(b"\r\n");
}

//! One client connection: read a head, have it answered, again.
//!
//! Generic over the stream, so that TLS stands in front of the same code. Every request is bound to the table that is
//! active at its own head, also on a connection that was opened long before.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use crate::access_log::{Line, shortened};
use crate::body::Source;
use crate::files;
use crate::head::{HeadError, RequestHead, find_end};
use crate::limits::{HEAD_READ_BYTES, MAX_LINGER_BYTES};
use crate::page::Page;
use crate::proxy;
use crate::reply::Reply;
use crate::router::{Backend, Bound, Unbound};
use crate::shared::Shared;

/// The client's side of one connection.
#[derive(Debug)]
pub struct Client<R, W> {
    /// What it sends.
    pub source: Source<R>,
    /// Where answers go.
    pub sink: W,
    /// What is about to be written.
    pub out: BytesMut,
    /// Its address.
    pub peer: IpAddr,
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// Cancelled when the edge is about to end.
    pub stop: CancellationToken,
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request.
    Keep,
    /// An orderly end: the client gets to read the answer.
    Close,
    /// An end at once: the client is gone, or must notice that the answer is not whole.
    Abort,
}

enum Next {
    Head(RequestHead),
    Refuse(Page),
    Gone,
}

/// Serves one connection until it ends.
pub async fn serve<S>(stream: S, peer: IpAddr, shared: Arc<Shared>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (read, sink) = tokio::io::split(stream);
    let peer = peer.to_canonical();
    let mut client = Client { source: Source::new(read), sink, out: BytesMut::new(), peer, shared, stop };
    let mut after = After::Keep;
    let mut first = true;
    while after == After::Keep {
        after = match client.next_head(first).await {
            Next::Head(head) => client.answer(&head).await,
            Next::Refuse(page) => client.refuse(page).await,
            Next::Gone => After::Abort,
        };
        first = false;
    }
    if after == After::Close {
        client.linger().await;
    }
}

impl<S: AsyncRead + AsyncWrite + Send> Client<ReadHalf<S>, WriteHalf<S>> {
    async fn answer(&mut self, head: &RequestHead) -> After {
        let started = Instant::now();
        let mut line = Line {
            time: SystemTime::now(),
            client: self.peer,
            app: None,
            release: None,
            upstream: None,
            host: shortened(head.host().unwrap_or("")),
            method: head.method().to_owned(),
            path: shortened(head.path()),
            status: 0,
            bytes: 0,
            duration_us: 0,
        };
        self.shared.requests_total.fetch_add(1, Ordering::Relaxed);
        let after = self.dispatch(head, &mut line).await;
        line.duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.log.push(line);
        after
    }

    async fn dispatch(&mut self, head: &RequestHead, line: &mut Line) -> After {
        if head.is_asterisk {
            return self.reply(Reply::empty(200), head, line).await;
        }
        let shared = self.shared.clone();
        let bound = match shared.router.bind(head.host(), head.path()).await {
            Ok(bound) => bound,
            Err(unbound) => return self.page(page_for(unbound, line), head, line).await,
        };
        line.app = Some(bound.app.name.clone());
        line.release = Some(bound.app.release);
        let Bound { backend, lease, .. } = bound;
        let after = match backend {
            Backend::Instance(upstream) => {
                line.upstream = Some(upstream.name.clone());
                proxy::forward(self, head, &upstream, line).await
            }
            Backend::Files(site) => {
                let reply = files::answer(&site, head).await;
                self.reply(reply, head, line).await
            }
            Backend::Missing => self.page(Page::NotReady, head, line).await,
        };
        drop(lease);
        after
    }
}

fn page_for(unbound: Unbound, line: &mut Line) -> Page {
    let (app, page) = match unbound {
        Unbound::NoApp => return Page::NoApp,
        Unbound::Lost => return Page::NotReady,
        Unbound::NoRoute(app) => (app, Page::NoRoute),
        Unbound::Stopped(app) => (app, Page::Stopped),
        Unbound::Held(app, _) => (app, Page::Restarting),
    };
    line.app = Some(app.name.clone());
    line.release = Some(app.release);
    page
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Client<R, W> {
    async fn next_head(&mut self, first: bool) -> Next {
        let timeouts = self.shared.timeouts;
        let idle = if first { timeouts.head } else { timeouts.keep_alive };
        if self.source.buffer.is_empty() {
            // An idle connection keeps no large buffer: thousands of them may wait.
            self.source.buffer = BytesMut::new();
            self.out = BytesMut::new();
            tokio::select! {
                // Reading is cancel-safe; what arrives in the moment of a stop is not served, as if it came later.
                biased;
                () = self.stop.cancelled() => return Next::Gone,
                read = tokio::time::timeout(idle, self.source.fill(HEAD_READ_BYTES)) => {
                    if !matches!(read, Ok(Ok(1..))) {
                        return Next::Gone;
                    }
                }
            }
        }
        match tokio::time::timeout(timeouts.head, self.read_head()).await {
            Ok(next) => next,
            Err(_) => Next::Refuse(Page::BadRequest(408)),
        }
    }

    async fn read_head(&mut self) -> Next {
        let mut scanned = 0;
        let mut blank_lines = 0;
        loop {
            match self.source.buffer.as_ref() {
                // One empty line before a request is an old client's habit (RFC 9112, 2.2).
                [b'\r', b'\n', ..] if blank_lines == 0 => {
                    self.source.buffer.advance(2);
                    blank_lines += 1;
                    continue;
                }
                [] | [b'\r'] => {}
                buffer => match find_end(buffer, &mut scanned) {
                    Ok(Some(end)) => {
                        let bytes = self.source.buffer.split_to(end).freeze();
                        return RequestHead::parse(bytes).map_or_else(refusal, Next::Head);
                    }
                    Ok(None) => {}
                    Err(error) => return refusal(error),
                },
            }
            match self.source.fill(HEAD_READ_BYTES).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Next::Gone,
            }
        }
    }

    /// Answers what is not a request, and ends.
    async fn refuse(&mut self, page: Page) -> After {
        let mut reply = Reply::page(page, false);
        if page.status() == 405 {
            reply.fields.push(("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned()));
        }
        reply.write_head(&mut self.out, crate::head::Version::Http11, false);
        let mut written = 0;
        let idle = self.shared.timeouts.linger;
        if let crate::reply::Body::Text(text) = &reply.body {
            self.out.extend_from_slice(text.as_bytes());
        }
        match crate::body::flush(&mut self.out, &mut self.sink, idle, &mut written).await {
            Ok(()) => After::Close,
            Err(_) => After::Abort,
        }
    }

    /// Ends the writing side and reads on for a moment: closing with unread bytes would reset the connection, and the
    /// client would lose the answer.
    async fn linger(&mut self) {
        let _ = self.sink.shutdown().await;
        let drain = async {
            let mut left = MAX_LINGER_BYTES;
            loop {
                self.source.buffer.clear();
                match self.source.fill(HEAD_READ_BYTES).await {
                    Ok(n @ 1..) if n < left => left -= n,
                    _ => return,
                }
            }
        };
        let _ = tokio::time::timeout(self.shared.timeouts.linger, drain).await;
    }
}

fn refusal(error: HeadError) -> Next {
    tracing::debug!(%error, "refused a head");
    Next::Refuse(Page::BadRequest(error.status()))
}

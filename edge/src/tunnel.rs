//! An upgraded connection: bytes both ways until both sides have ended or neither says anything.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::body::{Source, write_some};
use crate::limits::{BODY_READ_BYTES, Timeouts};
use crate::upstream::Link;

/// Carries bytes until the connection is over; `written` counts those that went to the client.
pub async fn run<R, W>(source: &mut Source<R>, sink: &mut W, link: Link, timeouts: &Timeouts, written: &mut u64)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Link { source: mut up_source, sink: mut up_sink, .. } = link;
    let active = AtomicBool::new(true);
    let mut unneeded = 0;
    let up = carry(source, &mut up_sink, timeouts, &active, &mut unneeded);
    let down = carry(&mut up_source, sink, timeouts, &active, written);
    tokio::pin!(up, down);
    // One side's end leaves the other a moment to say its last words; its failure ends both.
    tokio::select! {
        ended = &mut up => if ended { let _ = timeout(timeouts.tunnel_half_closed, down).await; },
        ended = &mut down => if ended { let _ = timeout(timeouts.tunnel_half_closed, up).await; },
    }
}

/// One direction. Whether it ended in order.
async fn carry<R, W>(
    source: &mut Source<R>,
    sink: &mut W,
    timeouts: &Timeouts,
    active: &AtomicBool,
    written: &mut u64,
) -> bool
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        while !source.buffer.is_empty() {
            match write_some(&source.buffer, sink, timeouts.body_idle).await {
                Ok(n) => {
                    source.buffer.advance(n);
                    *written += n as u64;
                }
                Err(_) => return false,
            }
        }
        match timeout(timeouts.tunnel_idle, source.fill(BODY_READ_BYTES)).await {
            Ok(Ok(0)) => return sink.shutdown().await.is_ok(),
            Ok(Ok(_)) => active.store(true, Ordering::Relaxed),
            Ok(Err(_)) => return false,
            // The other direction may have been busy.
            Err(_) if active.swap(false, Ordering::Relaxed) => {}
            Err(_) => return false,
        }
    }
}

//! The access log: one line of JSON per request on standard output.
//!
//! A request never waits for its line. Lines go through a bounded queue to a thread of its own; when the queue is full a
//! line is counted instead, and the writer reports how many are missing. A closed output ends nothing.

use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use refloat_model::{AppName, InstanceName, ReleaseNumber};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limits::{ACCESS_LOG_QUEUE, MAX_LOGGED_TEXT_BYTES};

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// When its head was whole.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// Who asked.
    pub client: IpAddr,
    /// Which app.
    #[serde(serialize_with = "option_text")]
    pub app: Option<AppName>,
    /// Which release of it.
    #[serde(serialize_with = "option_text")]
    pub release: Option<ReleaseNumber>,
    /// Which instance answered.
    #[serde(serialize_with = "option_text")]
    pub upstream: Option<InstanceName>,
    /// The host asked for.
    pub host: String,
    /// The method.
    pub method: String,
    /// The path without its query, which may hold secrets.
    pub path: String,
    /// The status; 0 when the client went before there was one.
    pub status: u16,
    /// Bytes sent to the client, head included.
    pub bytes: u64,
    /// From the whole head to the last byte, in microseconds.
    pub duration_us: u64,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    match OffsetDateTime::from(*time).format(&Rfc3339) {
        Ok(text) => serializer.serialize_str(&text),
        Err(_) => serializer.serialize_none(),
    }
}

fn option_text<T: ToString, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_str(&value.to_string()),
        None => serializer.serialize_none(),
    }
}

/// Cuts a text for the log.
#[must_use]
pub fn shortened(text: &str) -> String {
    text.chars().take(MAX_LOGGED_TEXT_BYTES).collect()
}

/// The way to the writer.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer. It ends when every handle is dropped and the queue is empty.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(sink: Box<dyn Write + Send>) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, lines) = sync_channel(ACCESS_LOG_QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = dropped.clone();
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&lines, &counter, BufWriter::new(sink)))?;
        Ok((Self { queue, dropped }, writer))
    }

    /// Hands a line over, or counts it as missing.
    pub fn push(&self, line: Line) {
        if self.queue.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_lines(lines: &Receiver<Line>, dropped: &AtomicU64, mut out: impl Write) {
    while let Ok(line) = lines.recv() {
        // A broken output must not end the edge and there is nowhere to report it.
        let _ = write_line(&mut out, &line);
        while let Ok(line) = lines.try_recv() {
            let _ = write_line(&mut out, &line);
        }
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let _ = writeln!(out, "{{\"dropped_lines\":{missing}}}");
        }
        let _ = out.flush();
    }
}

fn write_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

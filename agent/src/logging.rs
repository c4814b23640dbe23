//! The agent's own log: to the journal under systemd, else to standard error.
//!
//! Fields of events and of the spans around them become fields of the journal (`APP=`, `DEPLOYMENT=`, `RELEASE=`,
//! `STEP=`, `GENERATION=`), so that `journalctl APP=shop` works. The journal's socket blocks when the journal is stuck:
//! a thread of its own writes to it from a bounded queue, and what does not fit is counted and said later.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use log::kv::{Error as KvError, Key, Source, Value, VisitSource};
use systemd_journal_logger::JournalLog;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// Records between the agent and the journal.
const QUEUE: usize = 4_096;
const DEFAULT_FILTER: &str = "info,h2=warn,hyper=warn,tower=warn,bollard=warn";

/// Begins to log. `RUST_LOG` says how much.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let registry = tracing_subscriber::registry().with(filter_fn(tells_no_secret)).with(filter);
    // A second start, in tests, leaves the first in place.
    let _ = match journal() {
        Some(layer) => registry.with(layer).try_init(),
        None => {
            let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
            registry.with(stderr).try_init()
        }
    };
}

/// The Docker client logs whole requests and answers below this level, environments included: never, whatever
/// `RUST_LOG` says.
fn tells_no_secret(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("bollard") || *metadata.level() <= Level::INFO
}

fn journal() -> Option<JournalLayer> {
    if !systemd_journal_logger::connected_to_journal() {
        return None;
    }
    let journal = JournalLog::new().ok()?.with_syslog_identifier("refloatd".to_owned());
    let (to, entries) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    let thread = std::thread::Builder::new().name("refloat-log".to_owned());
    thread.spawn(move || write(&journal, &entries, &counted)).ok()?;
    Some(JournalLayer { to, dropped })
}

fn write(journal: &JournalLog, entries: &Receiver<Entry>, dropped: &AtomicU64) {
    for entry in entries {
        // A journal that cannot be reached has nobody to tell.
        let _ = entry.send_to(journal);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} records of the log were dropped: the journal did not keep up");
            let _ = Entry { level: log::Level::Warn, target: module_path!(), text, fields: Fields::default() }
                .send_to(journal);
        }
    }
}

/// One record on its way to the journal.
struct Entry {
    level: log::Level,
    target: &'static str,
    text: String,
    fields: Fields,
}

impl Entry {
    fn send_to(&self, journal: &JournalLog) -> std::io::Result<()> {
        journal.journal_send(
            &log::Record::builder()
                .level(self.level)
                .target(self.target)
                .args(format_args!("{}", self.text))
                .key_values(&self.fields)
                .build(),
        )
    }
}

/// Names and values; the innermost span's count.
#[derive(Debug, Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Source for Fields {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), KvError> {
        self.0.iter().try_for_each(|(name, value)| visitor.visit_pair(Key::from_str(name), Value::from(value.as_str())))
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.0.insert(field.name(), text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

struct JournalLayer {
    to: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JournalLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let entry = entry(event, &context);
        match self.to.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn entry<S: Subscriber + for<'a> LookupSpan<'a>>(event: &Event<'_>, context: &Context<'_, S>) -> Entry {
    let normalized = event.normalized_metadata();
    let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
    let mut fields = Fields::default();
    for span in context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
        if let Some(of_span) = span.extensions().get::<Fields>() {
            fields.0.extend(of_span.0.clone());
        }
    }
    event.record(&mut fields);
    fields.0.retain(|name, _| !name.starts_with("log."));
    let mut text = fields.0.remove("message").unwrap_or_default();
    // Whoever reads only the messages wants to know of what, and the cause.
    for (name, value) in fields.0.iter().filter(|(name, _)| **name != "error") {
        let _ = write!(text, " {name}={value}");
    }
    if let Some(error) = fields.0.get("error") {
        let _ = write!(text, ": {error}");
    }
    Entry { level: level(*metadata.level()), target: event.metadata().target(), text, fields }
}

fn level(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Info,
        Level::DEBUG => log::Level::Debug,
        Level::TRACE => log::Level::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(queue: usize, log: impl FnOnce()) -> (Vec<Entry>, u64) {
        let (to, entries) = sync_channel(queue);
        let dropped = Arc::new(AtomicU64::new(0));
        let layer = JournalLayer { to, dropped: Arc::clone(&dropped) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        (entries.try_iter().collect(), dropped.load(Ordering::Relaxed))
    }

    #[test]
    fn what_the_docker_client_sends_is_never_logged_whatever_is_asked_for() {
        // One process may have a logger already; then that one carries the records too.
        let _ = tracing_log::LogTracer::init();
        let (to, entries) = sync_channel(10);
        let layer = JournalLayer { to, dropped: Arc::default() };
        let everything = EnvFilter::new("trace,bollard::docker=trace");
        let registry = tracing_subscriber::registry().with(filter_fn(tells_no_secret)).with(everything).with(layer);
        tracing::subscriber::with_default(registry, || {
            log::debug!(target: "bollard::docker", "KEY=s3cret");
            log::trace!(target: "bollard::read", "KEY=s3cret");
            log::warn!(target: "bollard::docker", "a warning");
            log::debug!(target: "elsewhere", "a detail");
        });
        let texts: Vec<_> = entries.try_iter().map(|entry| entry.text).collect();
        assert_eq!(texts, ["a warning", "a detail"]);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outside")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn fields_of_spans_and_events_go_along_and_the_innermost_counts() {
        let (entries, _) = logged(10, || {
            let span = tracing::info_span!("deployment", app = "shop", release = 3, step = tracing::field::Empty);
            let _entered = span.enter();
            span.record("step", "gating");
            let error = Outer(std::io::Error::other("the cause"));
            tracing::warn!(release = 4, error = &error as &dyn std::error::Error, "it failed");
        });
        let entry = &entries[0];
        assert_eq!(
            (entry.level, entry.text.as_str()),
            (log::Level::Warn, "it failed app=shop release=4 step=gating: outside: the cause")
        );
        let get = |name| entry.fields.0.get(name).map(String::as_str);
        assert_eq!((get("app"), get("release"), get("step")), (Some("shop"), Some("4"), Some("gating")));
    }

    #[test]
    fn a_stuck_journal_costs_records_and_never_blocks() {
        let (entries, dropped) = logged(2, || (0..5).for_each(|n| tracing::info!(n, "x")));
        assert_eq!((entries.len(), dropped), (2, 3));
    }
}

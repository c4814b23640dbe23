//! A deployment's updates: kept while it is recent, replayed to whoever watches, live from then on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::update::{Numbered, Update};

/// Most updates that are kept of one deployment. Beyond it the oldest lines of output are dropped; a watcher sees the
/// hole in the numbers.
const MAX_KEPT: usize = 10_000;

/// Where a deployment writes and watchers read.
#[derive(Debug, Clone, Default)]
pub(super) struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    updates: VecDeque<Numbered>,
    last: u64,
    ended: bool,
}

impl Feed {
    /// Adds an update. What comes after the end is dropped.
    pub(super) fn push(&self, at_ms: u64, update: Update) {
        {
            let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.ended {
                return;
            }
            kept.last += 1;
            kept.ended = matches!(update, Update::Ended(_));
            let sequence = kept.last;
            kept.updates.push_back(Numbered { sequence, at_ms, update });
            if kept.updates.len() > MAX_KEPT
                && let Some(place) = kept.updates.iter().position(|n| matches!(n.update, Update::Output { .. }))
            {
                kept.updates.remove(place);
            }
        }
        self.shared.changed.notify_waiters();
    }

    /// A reader from the first update on.
    pub(super) fn watch(&self) -> Watch {
        Watch { feed: self.clone(), seen: 0 }
    }

    /// The newest phase, for `status`.
    pub(super) fn phase(&self) -> Option<refloat_model::Phase> {
        let kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.updates.iter().rev().find_map(|n| match n.update {
            Update::Phase(phase, _) => Some(phase),
            _ => None,
        })
    }

    fn after(&self, seen: u64) -> Option<Option<Numbered>> {
        let kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.updates.iter().find(|n| n.sequence > seen) {
            Some(next) => Some(Some(next.clone())),
            None if kept.ended => Some(None),
            None => None,
        }
    }
}

/// Reads a deployment's updates in order.
#[derive(Debug)]
pub struct Watch {
    feed: Feed,
    seen: u64,
}

impl Watch {
    /// The next update; `None` after the last. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Numbered> {
        loop {
            let feed = self.feed.clone();
            let changed = feed.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(next) = self.feed.after(self.seen) {
                if let Some(update) = &next {
                    self.seen = update.sequence;
                }
                return next;
            }
            changed.await;
        }
    }
}

//! Memory that warm standby holds on this host: every app's keeper notes its own and sees what the others hold.
//!
//! The budget is the host's. What was displaced last has the first claim on it: that is where the next rollback goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use refloat_model::{AppName, InstanceName};

/// Shared by every keeper.
#[derive(Debug, Clone, Default)]
pub(super) struct StandbyMemory(Arc<Mutex<BTreeMap<AppName, Vec<Held>>>>);

/// What one warm instance holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) instance: InstanceName,
    /// When its release was displaced, Unix time in milliseconds.
    pub(super) since_ms: u64,
    pub(super) bytes: u64,
}

impl StandbyMemory {
    /// All that an app holds from now on.
    pub(super) fn note(&self, app: &AppName, held: Vec<Held>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_empty() {
            all.remove(app);
        } else {
            all.insert(app.clone(), held);
        }
    }

    /// Bytes held by whatever has an earlier claim than this.
    pub(super) fn before(&self, this: &Held) -> u64 {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rank = |held: &Held| (std::cmp::Reverse(held.since_ms), held.instance.clone());
        let others = all.values().flatten().filter(|other| rank(other) < rank(this));
        others.fold(0, |sum, other| sum.saturating_add(other.bytes))
    }
}

#[cfg(test)]
mod tests {
    use refloat_model::ProcessName;

    use super::*;

    fn held(app: &str, since_ms: u64, bytes: u64) -> Held {
        let instance =
            InstanceName::derive(&AppName::new(app).unwrap(), &ProcessName::new("web").unwrap(), &[0; 32], 1);
        Held { instance, since_ms, bytes }
    }

    #[test]
    fn what_was_displaced_last_comes_first_and_ties_have_an_order() {
        let memory = StandbyMemory::default();
        let (old, new, tie) = (held("a", 1, 100), held("b", 2, 20), held("c", 2, 3));
        for (app, held) in [("a", &old), ("b", &new), ("c", &tie)] {
            memory.note(&AppName::new(app).unwrap(), vec![held.clone()]);
        }
        assert_eq!((memory.before(&new), memory.before(&tie), memory.before(&old)), (0, 20, 23));
        memory.note(&AppName::new("b").unwrap(), Vec::new());
        assert_eq!((memory.before(&tie), memory.before(&old)), (0, 3));
    }
}

//! The driver's questions about published trees and stored sources, answered from disk.

use std::sync::Arc;

use async_trait::async_trait;
use refloat_model::{SourceDigest, TreeDigest};

use super::ports::Trees;
use crate::cas::Cas;
use crate::public::Publisher;

/// Trees and sources on this host's disk.
pub struct StoredTrees {
    publisher: Arc<dyn Publisher>,
    cas: Arc<Cas>,
}

impl std::fmt::Debug for StoredTrees {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredTrees").finish_non_exhaustive()
    }
}

impl StoredTrees {
    /// What this publisher published and this store holds.
    pub fn new(publisher: Arc<dyn Publisher>, cas: Arc<Cas>) -> Self {
        Self { publisher, cas }
    }
}

#[async_trait]
impl Trees for StoredTrees {
    async fn is_published(&self, tree: &TreeDigest) -> bool {
        matches!(self.publisher.contains(*tree).await, Ok(true))
    }

    async fn changed_paths(&self, from: &SourceDigest, to: &SourceDigest, limit: usize) -> Vec<String> {
        let (cas, from, to) = (Arc::clone(&self.cas), from.0, to.0);
        let found = tokio::task::spawn_blocking(move || cas.difference(&from, &to, limit)).await;
        // For people only: a source that is not kept any more has no list, and that is no failure.
        let Ok(Ok((found, _))) = found else { return Vec::new() };
        found.into_iter().map(|d| format!("{} {}", String::from_utf8_lossy(&d.path), d.became.word())).collect()
    }
}

//! [`SourcesPort`] over the content-addressed store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use refloat_model::SourceDigest;
use tokio::sync::mpsc;

use super::port::{ChangedFile, Digest, SourceError, SourcesPort};
use crate::cas::{Cas, CasError, StoredNode, StoredTree};
use crate::upload::{self, UploadError};

/// The store.
#[derive(Debug, Clone)]
pub struct StoredSources {
    cas: Arc<Cas>,
}

impl StoredSources {
    /// Sources in this store.
    #[must_use]
    pub fn new(cas: Arc<Cas>) -> Self {
        Self { cas }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cas) -> Result<T, CasError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let cas = Arc::clone(&self.cas);
        match tokio::task::spawn_blocking(move || work(&cas)).await {
            Ok(done) => done.map_err(|error| stored(&error)),
            Err(_) => Err(SourceError::Failed("The server was interrupted while it read a source.".to_owned())),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    let full =
        io.is_some_and(|e| matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded));
    full || error.source().is_some_and(is_full)
}

fn stored(error: &CasError) -> SourceError {
    match error {
        CasError::Io { .. } if is_full(error) => SourceError::NoRoom(chain(error)),
        CasError::Io { .. } => SourceError::Failed(chain(error)),
        _ => SourceError::Refused(chain(error)),
    }
}

fn uploaded(error: &UploadError) -> SourceError {
    match error {
        UploadError::Object { source, .. } | UploadError::Sync(source) => match stored(source) {
            SourceError::Refused(_) => SourceError::Refused(chain(error)),
            SourceError::NoRoom(_) => SourceError::NoRoom(chain(error)),
            SourceError::Failed(_) => SourceError::Failed(chain(error)),
        },
        UploadError::DiskFull { .. } => SourceError::NoRoom(chain(error)),
        UploadError::Interrupted => SourceError::Failed(chain(error)),
        _ => SourceError::Refused(chain(error)),
    }
}

#[async_trait]
impl SourcesPort for StoredSources {
    async fn missing(
        &self,
        directories: Vec<Digest>,
        files: Vec<Digest>,
    ) -> Result<(Vec<Digest>, Vec<Digest>), SourceError> {
        let missing = self.blocking(move |cas| cas.missing(&directories, &files)).await?;
        Ok((missing.directories, missing.files))
    }

    async fn receive(&self, pieces: mpsc::Receiver<Bytes>) -> Result<(u64, u64), SourceError> {
        let received = upload::receive(Arc::clone(&self.cas), pieces).await.map_err(|error| uploaded(&error))?;
        Ok((received.objects, received.bytes))
    }

    async fn compare(
        &self,
        from: SourceDigest,
        to: SourceDigest,
        limit: usize,
    ) -> Result<(Vec<ChangedFile>, bool), SourceError> {
        self.blocking(move |cas| Ok(compare(&cas.walk(&from.0)?, &cas.walk(&to.0)?, limit))).await
    }
}

/// Paths that differ, in order, at most `limit`, and whether there are more. Folders follow from their files.
fn compare(from: &StoredTree, to: &StoredTree, limit: usize) -> (Vec<ChangedFile>, bool) {
    let files = |tree: &StoredTree| -> BTreeMap<Vec<u8>, StoredNode> {
        let files = tree.entries.iter().filter(|entry| entry.node != StoredNode::Directory);
        files.map(|entry| (entry.path.clone(), entry.node.clone())).collect()
    };
    let (before, after) = (files(from), files(to));
    let mut changed: BTreeMap<&Vec<u8>, &'static str> = BTreeMap::new();
    for (path, node) in &before {
        match after.get(path) {
            None => changed.insert(path, "removed"),
            Some(other) if other != node => changed.insert(path, "changed"),
            Some(_) => None,
        };
    }
    changed.extend(after.keys().filter(|path| !before.contains_key(*path)).map(|path| (path, "added")));
    let truncated = changed.len() > limit;
    let file =
        |(path, kind): (&Vec<u8>, &'static str)| ChangedFile { path: String::from_utf8_lossy(path).into_owned(), kind };
    (changed.into_iter().take(limit).map(file).collect(), truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cas::StoredEntry;

    fn tree(files: &[(&str, u8)]) -> StoredTree {
        let entry = |(path, content): &(&str, u8)| StoredEntry {
            path: path.as_bytes().to_vec(),
            node: StoredNode::File { digest: [*content; 32], size: 1, executable: false },
        };
        StoredTree { root: [0; 32], entries: files.iter().map(entry).collect() }
    }

    #[test]
    fn files_that_differ_are_named_in_order_up_to_the_limit() {
        let (from, to) = (tree(&[("a", 1), ("b", 1), ("c", 1)]), tree(&[("a", 1), ("b", 2), ("d", 1)]));
        let (files, truncated) = compare(&from, &to, 10);
        let named: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.kind)).collect();
        assert_eq!((named, truncated), (vec![("b", "changed"), ("c", "removed"), ("d", "added")], false));
        let (files, truncated) = compare(&from, &to, 2);
        assert_eq!((files.len(), truncated), (2, true));
    }
}

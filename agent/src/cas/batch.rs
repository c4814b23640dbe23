//! Objects that become durable together: the disk syncs many files at once much faster than one after the other.

use std::collections::HashMap;
use std::io;

use refloat_plan::tree::Digest;

use super::objects::Writer;

/// Most objects that wait: each holds a file open.
const MAX_WAITING: usize = 64;
/// Most bytes that wait.
const MAX_WAITING_BYTES: u64 = 32 << 20;
/// How many are synced at once.
const THREADS: usize = 8;

/// Objects that are written and not yet visible. Dropped, they leave nothing.
#[derive(Debug, Default)]
pub struct Batch {
    waiting: Vec<(Writer, Digest)>,
    sizes: HashMap<Digest, u64>,
    bytes: u64,
}

impl Batch {
    /// Size of an object that waits.
    #[must_use]
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.sizes.get(digest).copied()
    }

    /// Adds an object under a digest that the caller has computed from its bytes. When enough wait, all become visible.
    ///
    /// # Errors
    /// As [`Batch::flush`].
    pub fn add(&mut self, writer: Writer, digest: Digest) -> io::Result<()> {
        if self.sizes.contains_key(&digest) {
            return Ok(());
        }
        self.sizes.insert(digest, writer.written());
        self.bytes += writer.written();
        self.waiting.push((writer, digest));
        if self.waiting.len() >= MAX_WAITING || self.bytes >= MAX_WAITING_BYTES { self.flush() } else { Ok(()) }
    }

    /// Syncs what waits and makes it visible, in the order in which it was added. The names are durable after
    /// [`super::Objects::sync`].
    ///
    /// # Errors
    /// When an object cannot be synced or renamed. Those before it are visible, it and those after it are gone.
    pub fn flush(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.sizes.clear();
        self.bytes = 0;
        let share = waiting.len().div_ceil(THREADS).max(1);
        std::thread::scope(|scope| {
            let sync = |some: &[(Writer, Digest)]| some.iter().try_for_each(|(writer, _)| writer.sync());
            let threads: Vec<_> = waiting.chunks(share).map(|some| scope.spawn(move || sync(some))).collect();
            let lost = || Err(io::Error::other("a thread that syncs files ended early"));
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| lost()))
        })?;
        waiting.into_iter().try_for_each(|(writer, digest)| writer.install(&digest))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::cas::objects::{Layout, Objects, open_folder, open_temporary};

    #[test]
    fn objects_of_a_batch_are_visible_after_its_flush_and_gone_when_it_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let parent = open_folder(root.path(), 0o700).unwrap();
        let temporary = open_temporary(&parent).unwrap();
        let layout = Layout { shards: true, mode: 0o600 };
        let objects = Arc::new(Objects::open(&parent, "blob", temporary, layout).unwrap());
        let add = |batch: &mut Batch, n: usize| {
            let bytes = n.to_be_bytes();
            let digest = *blake3::hash(&bytes).as_bytes();
            let mut writer = objects.writer().unwrap();
            writer.write_all(&bytes).unwrap();
            batch.add(writer, digest).unwrap();
            digest
        };
        let mut batch = Batch::default();
        let digests: Vec<_> = (0..MAX_WAITING + 5).map(|n| add(&mut batch, n)).collect();
        let visible = || digests.iter().filter(|digest| objects.size(digest).unwrap() == Some(8)).count();
        assert_eq!(visible(), MAX_WAITING, "a full batch is flushed by itself");
        assert_eq!((batch.size(&digests[MAX_WAITING]), batch.size(&digests[0])), (Some(8), None));
        batch.flush().unwrap();
        assert_eq!(visible(), MAX_WAITING + 5);

        let dropped = add(&mut batch, 1_000);
        drop(batch);
        assert_eq!(objects.size(&dropped).unwrap(), None);
        assert_eq!(parent.open_dir("temporary").unwrap().entries().unwrap().count(), 0);
    }
}

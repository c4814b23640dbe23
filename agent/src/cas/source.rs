//! A stored tree as a planner sees it, and the planner over it.

use std::collections::BTreeMap;
use std::io::Read;

use refloat_plan::source::{ListedFile, Listing, MAX_READ_BYTES, Source};
use refloat_plan::tree::Digest;

use super::sources::Cas;
use super::tree::{StoredEntry, StoredNode, StoredTree};

/// A stored tree that a planner can read. Blocks on the disk.
#[derive(Debug)]
pub struct TreeSource<'a> {
    cas: &'a Cas,
    listing: Listing,
    digests: BTreeMap<&'a [u8], &'a Digest>,
}

impl<'a> TreeSource<'a> {
    /// Over a tree that was walked.
    #[must_use]
    pub fn new(cas: &'a Cas, tree: &'a StoredTree) -> Self {
        let (mut files, mut links, mut digests) = (Vec::new(), Vec::new(), BTreeMap::new());
        for StoredEntry { path, node } in &tree.entries {
            match node {
                StoredNode::File { digest, size, executable } => {
                    files.push(ListedFile { path: path.clone(), size: *size, executable: *executable });
                    digests.insert(path.as_slice(), digest);
                }
                StoredNode::Symlink { .. } => links.push(path.clone()),
                StoredNode::Directory => {}
            }
        }
        Self { cas, listing: Listing::new(files, links), digests }
    }
}

impl Source for TreeSource<'_> {
    fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Verified: a file that is damaged on this disk is not there.
    fn read(&self, path: &[u8]) -> Option<Vec<u8>> {
        let digest = self.digests.get(path)?;
        let file = self.cas.file(digest, path).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_READ_BYTES + 1).read_to_end(&mut bytes).ok()?;
        let whole = bytes.len() as u64 <= MAX_READ_BYTES && blake3::hash(&bytes).as_bytes() == *digest;
        whole.then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use refloat_plan::tree::{Directory, Entry, Node};

    use super::*;

    #[test]
    fn a_planner_sees_files_and_links_and_reads_only_what_is_whole_and_small() {
        let root = tempfile::tempdir().unwrap();
        let cas = Arc::new(Cas::open(root.path()).unwrap());
        let mut intake = cas.intake();
        let mut entries = Vec::new();
        let large = vec![b'l'; usize::try_from(MAX_READ_BYTES).unwrap() + 1];
        for (name, bytes) in [(&b"caf\xe9"[..], &b"bytes"[..]), (b"damaged", b"good"), (b"large", &large)] {
            let digest = *blake3::hash(bytes).as_bytes();
            let mut writer = intake.file_writer(&digest, bytes.len() as u64).unwrap();
            writer.write(bytes).unwrap();
            intake.file(writer).unwrap();
            let node = Node::File { digest, size: bytes.len() as u64, executable: false };
            entries.push(Entry { name: name.to_vec(), node });
        }
        entries.push(Entry { name: b"link".to_vec(), node: Node::Symlink { target: b"large".to_vec() } });
        let encoded = Directory { entries }.encode();
        let digest = Directory::digest_of(&encoded);
        intake.directory(&digest, &encoded).unwrap();
        intake.finish().unwrap();
        std::fs::write(root.path().join("file").join(blake3::hash(b"good").to_hex().as_str()), b"evil").unwrap();

        let tree = cas.walk(&digest).unwrap();
        let source = TreeSource::new(&cas, &tree);
        let paths: Vec<_> = source.listing().files.iter().map(|file| file.path.as_slice()).collect();
        assert_eq!(paths, [&b"caf\xe9"[..], b"damaged", b"large"]);
        assert_eq!(source.listing().links, [b"link".to_vec()]);
        assert_eq!(source.read(b"caf\xe9").as_deref(), Some(&b"bytes"[..]));
        for unread in [&b"damaged"[..], b"large", b"link", b"none"] {
            assert_eq!(source.read(unread), None, "{}", String::from_utf8_lossy(unread));
        }
    }
}

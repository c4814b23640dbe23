//! A stored tree, walked: every path of it with what is there, within the limits.

use refloat_plan::tree::{Digest, Entry, MAX_FILES, MAX_TREE_BYTES, Node};

use super::sources::{Cas, CasError};

/// Longest path in bytes: the kernel's PATH_MAX without its NUL, or no build could open the file.
pub const MAX_PATH_BYTES: u64 = 4_095;
/// Most bytes of all paths together: what a walk may hold in memory.
pub const MAX_PATHS_BYTES: u64 = 64 << 20;

/// Every entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTree {
    /// Its root.
    pub root: Digest,
    /// Everything in it: a directory before what it contains, siblings by name as bytes.
    pub entries: Vec<StoredEntry>,
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its path below the root, segments separated by `/`.
    pub path: Vec<u8>,
    /// What it is.
    pub node: StoredNode,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredNode {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its content.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link that stays within the tree.
    Symlink {
        /// Where it points, relative to its directory.
        target: Vec<u8>,
    },
}

impl StoredTree {
    /// What lies below a folder (without slashes at its ends; empty is the root), with paths relative to it.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn below(&self, folder: &str) -> Result<Vec<StoredEntry>, CasError> {
        if folder.is_empty() {
            return Ok(self.entries.clone());
        }
        let is_it = |entry: &StoredEntry| entry.path == folder.as_bytes() && entry.node == StoredNode::Directory;
        if !self.entries.iter().any(is_it) {
            return Err(CasError::NoFolder(folder.to_owned()));
        }
        let prefix = format!("{folder}/");
        let inner = |entry: &StoredEntry| {
            let path = entry.path.strip_prefix(prefix.as_bytes())?.to_vec();
            Some(StoredEntry { path, node: entry.node.clone() })
        };
        Ok(self.entries.iter().filter_map(inner).collect())
    }
}

impl Cas {
    /// Walks a tree from its root and checks every rule that needs the whole: depth, count, size.
    ///
    /// # Errors
    /// When a part is lost or a limit is passed.
    pub fn walk(&self, root: &Digest) -> Result<StoredTree, CasError> {
        let mut walk = Walk { cas: self, entries: Vec::new(), tree_bytes: 0, path_bytes: 0 };
        walk.directory(root, &[], 0)?;
        Ok(StoredTree { root: *root, entries: walk.entries })
    }
}

struct Walk<'a> {
    cas: &'a Cas,
    entries: Vec<StoredEntry>,
    tree_bytes: u64,
    path_bytes: u64,
}

impl Walk<'_> {
    fn directory(&mut self, digest: &Digest, path: &[u8], depth: usize) -> Result<(), CasError> {
        for entry in self.cas.directory(digest, depth, path)?.entries {
            let path = join(path, &entry.name);
            self.entry(&entry, path.clone())?;
            if let Node::Directory { digest } = entry.node {
                self.directory(&digest, &path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, path: Vec<u8>) -> Result<(), CasError> {
        self.path_bytes += path.len() as u64;
        limit("bytes in one path", path.len() as u64, MAX_PATH_BYTES)?;
        limit("bytes in all paths", self.path_bytes, MAX_PATHS_BYTES)?;
        // Folders count too: one small record can stand for any number of empty folders.
        limit("files and folders", self.entries.len() as u64 + 1, MAX_FILES as u64)?;
        let node = match &entry.node {
            Node::Directory { .. } => StoredNode::Directory,
            Node::Symlink { target } => StoredNode::Symlink { target: target.clone() },
            Node::File { digest, size, executable } => {
                self.tree_bytes += size;
                limit("bytes", self.tree_bytes, MAX_TREE_BYTES)?;
                StoredNode::File { digest: *digest, size: *size, executable: *executable }
            }
        };
        self.entries.push(StoredEntry { path, node });
        Ok(())
    }
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), CasError> {
    if found > limit { Err(CasError::OverLimit { what, found, limit }) } else { Ok(()) }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

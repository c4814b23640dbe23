//! A tree of static files, by content: what a build published and the edge serves.
//!
//! The index names every file of the tree by the hash of its content. The files themselves lie in one flat,
//! content-addressed folder, so that two releases share what they have in common and no path of a tree ever
//! becomes a path of the host: the edge looks a request up in the index and opens a file by its hash.

use minicbor::{Decode, Encode};

use crate::canonical::Canonical;
use crate::id::TreeDigest;

/// Most files in one tree.
pub const MAX_TREE_FILES: usize = 100_000;

/// The index of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FileTree {
    /// Every file, sorted by path.
    #[n(0)]
    pub files: Vec<TreeFile>,
}

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TreeFile {
    /// Path below the root without a leading slash, segments separated by `/`, as UTF-8.
    #[n(0)]
    pub path: String,
    /// Size in bytes.
    #[n(1)]
    pub size: u64,
    /// BLAKE3 of the content: its name in the blob folder and its `ETag`.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub blob: [u8; 32],
}

impl Canonical for FileTree {
    const DOMAIN: &'static str = "refloat file tree 1";
    const SCHEMA: u8 = 1;
}

impl FileTree {
    /// Identity of the tree.
    #[must_use]
    pub fn tree_digest(&self) -> TreeDigest {
        TreeDigest(self.digest())
    }
}

//! What a planner is given: a listing of the source and the text of the few files that it asks for.
//!
//! Paths are bytes relative to the root, segments separated by `/`, without a leading slash: exports contain names that
//! are not UTF-8. Whoever holds the source implements [`Source`]; [`MemorySource`] is for tests and for callers that have
//! everything in memory anyway.

use std::collections::BTreeMap;

/// Largest file that a planner can read, in bytes.
pub const MAX_READ_BYTES: u64 = 1 << 20;

/// A source tree.
pub trait Source {
    /// Every file below the root, sorted by path as bytes.
    fn listing(&self) -> &Listing;

    /// The content of one file; `None` when it is not there, is no regular file, or is larger than [`MAX_READ_BYTES`].
    fn read(&self, path: &[u8]) -> Option<Vec<u8>>;
}

/// What is in a source tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Every regular file, sorted by path as bytes, no path twice.
    pub files: Vec<ListedFile>,
    /// Every symbolic link, sorted by path as bytes. A planner follows none.
    pub links: Vec<Vec<u8>>,
}

/// One file of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Path below the root.
    pub path: Vec<u8>,
    /// Size in bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

impl Listing {
    /// A listing of files in any order.
    #[must_use]
    pub fn new(mut files: Vec<ListedFile>, mut links: Vec<Vec<u8>>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        links.sort();
        links.dedup();
        Self { files, links }
    }

    /// The file at that path.
    #[must_use]
    pub fn file(&self, path: &[u8]) -> Option<&ListedFile> {
        self.files.binary_search_by(|f| f.path.as_slice().cmp(path)).ok().map(|at| &self.files[at])
    }

    /// The files below a folder, which is given without slashes at its ends; empty is the root.
    #[must_use]
    pub fn below(&self, folder: &[u8]) -> &[ListedFile] {
        if folder.is_empty() {
            return &self.files;
        }
        let mut prefix = folder.to_vec();
        prefix.push(b'/');
        let from = self.files.partition_point(|f| f.path.as_slice() < prefix.as_slice());
        let length = self.files[from..].partition_point(|f| f.path.starts_with(&prefix));
        &self.files[from..from + length]
    }
}

/// A source tree in memory.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    listing: Listing,
    contents: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemorySource {
    /// A source of these files, none of them executable.
    pub fn new<P: Into<Vec<u8>>, C: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, C)>) -> Self {
        let contents: BTreeMap<Vec<u8>, Vec<u8>> = files.into_iter().map(|(p, c)| (p.into(), c.into())).collect();
        let listed = |(path, content): (&Vec<u8>, &Vec<u8>)| ListedFile {
            path: path.clone(),
            size: content.len() as u64,
            executable: false,
        };
        Self { listing: Listing::new(contents.iter().map(listed).collect(), Vec::new()), contents }
    }
}

impl Source for MemorySource {
    fn listing(&self) -> &Listing {
        &self.listing
    }

    fn read(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.contents.get(path).filter(|c| c.len() as u64 <= MAX_READ_BYTES).cloned()
    }
}

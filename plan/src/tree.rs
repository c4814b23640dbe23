//! The source tree by content: a Merkle tree of directories, so that an unchanged subtree costs one hash.
//!
//! A directory's digest covers the names, kinds, modes, sizes and digests of what is in it, and no time at all: a fresh
//! checkout of the same commit has the same root. Names are bytes, because exports contain names that are not UTF-8.
//!
//! Decoding refuses every tree that could leave its root: a name with a separator, `.`, `..`, an empty name, and a
//! symbolic link whose target is absolute or climbs above the root.

use minicbor::{Decode, Encode};

/// The schema byte that stands before a directory's encoding.
pub const DIRECTORY_SCHEMA: u8 = 1;
/// Longest name of one entry in bytes: the limit of ext4.
pub const MAX_NAME_BYTES: usize = 255;
/// Most entries in one directory.
pub const MAX_ENTRIES: usize = 50_000;
/// Most directories below one another.
pub const MAX_DEPTH: usize = 64;
/// Largest single file in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 30;
/// Most files in one tree.
pub const MAX_FILES: usize = 100_000;
/// Largest tree in bytes.
pub const MAX_TREE_BYTES: u64 = 4 << 30;

/// BLAKE3 of a directory's encoding (under the domain `refloat directory 1`) or of a file's bytes (plain BLAKE3).
pub type Digest = [u8; 32];

/// One directory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Default)]
pub struct Directory {
    /// Its entries, sorted by name as bytes, no name twice.
    #[n(0)]
    pub entries: Vec<Entry>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// What it is.
    #[n(1)]
    pub node: Node,
}

/// What an entry is. Devices, sockets and pipes do not exist here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Node {
    /// A regular file.
    #[n(0)]
    File {
        /// BLAKE3 of its bytes.
        #[cbor(n(0), with = "minicbor::bytes")]
        digest: Digest,
        /// Its size in bytes.
        #[n(1)]
        size: u64,
        /// Whether its owner may execute it: the only part of a mode that travels.
        #[n(2)]
        executable: bool,
    },
    /// A directory.
    #[n(1)]
    Directory {
        /// Its digest.
        #[cbor(n(0), with = "minicbor::bytes")]
        digest: Digest,
    },
    /// A symbolic link that stays within the tree.
    #[n(2)]
    Symlink {
        /// Its target, relative.
        #[cbor(n(0), with = "minicbor::bytes")]
        target: Vec<u8>,
    },
}

/// Why bytes are not a directory of a source tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Not the encoding of a directory.
    #[error("the directory record is malformed: {0}")]
    Malformed(String),
    /// A name that no entry may have.
    #[error("{0:?} cannot be the name of a file")]
    BadName(String),
    /// Not in byte order, or a name twice.
    #[error("the directory's entries are not in order at {0:?}")]
    Unsorted(String),
    /// A link that could leave the tree.
    #[error("the link {link:?} points to {target:?}, outside the project")]
    LinkLeaves {
        /// Its name.
        link: String,
        /// Where it points.
        target: String,
    },
    /// A limit.
    #[error("{what}: {found} is over the limit of {limit}")]
    OverLimit {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much may be.
        limit: u64,
    },
}

impl Directory {
    /// The directory's encoding: schema byte, then CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![DIRECTORY_SCHEMA];
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => bytes,
            Err(error) => unreachable!("encoding to memory failed: {error}"),
        }
    }

    /// The digest of an encoded directory.
    #[must_use]
    pub fn digest_of(encoded: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("refloat directory 1");
        hasher.update(encoded);
        *hasher.finalize().as_bytes()
    }

    /// Decodes and checks a directory that lies `depth` levels below the root (0 is the root itself).
    ///
    /// # Errors
    /// When it is malformed, not in its one form, or could leave the tree.
    pub fn decode(bytes: &[u8], depth: usize) -> Result<Self, TreeError> {
        let body = match bytes.split_first() {
            Some((&DIRECTORY_SCHEMA, body)) => body,
            _ => return Err(TreeError::Malformed("unknown schema".to_owned())),
        };
        let directory: Self = minicbor::decode(body).map_err(|e| TreeError::Malformed(e.to_string()))?;
        directory.check(depth)?;
        if directory.encode() != bytes {
            return Err(TreeError::Malformed("not the deterministic form".to_owned()));
        }
        Ok(directory)
    }

    /// Checks names, order, links and limits of a directory that lies `depth` levels below the root.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self, depth: usize) -> Result<(), TreeError> {
        let over =
            |what, found: usize, limit: usize| TreeError::OverLimit { what, found: found as u64, limit: limit as u64 };
        if depth > MAX_DEPTH {
            return Err(over("folders within folders", depth, MAX_DEPTH));
        }
        if self.entries.len() > MAX_ENTRIES {
            return Err(over("files in one folder", self.entries.len(), MAX_ENTRIES));
        }
        for entry in &self.entries {
            entry.check(depth)?;
        }
        match self.entries.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            Some(pair) => Err(TreeError::Unsorted(lossy(&pair[1].name))),
            None => Ok(()),
        }
    }
}

impl Entry {
    fn check(&self, depth: usize) -> Result<(), TreeError> {
        let name = &self.name;
        let bad = name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0);
        if bad || name.len() > MAX_NAME_BYTES {
            return Err(TreeError::BadName(lossy(name)));
        }
        match &self.node {
            Node::File { size, .. } if *size > MAX_FILE_BYTES => {
                Err(TreeError::OverLimit { what: "bytes in one file", found: *size, limit: MAX_FILE_BYTES })
            }
            Node::Symlink { target } if !stays_inside(target, depth) => {
                Err(TreeError::LinkLeaves { link: lossy(name), target: lossy(target) })
            }
            _ => Ok(()),
        }
    }
}

/// Whether a link in a directory `depth` levels below the root stays within the root, by name. A target that climbs
/// after it descended is refused too: what it passes through may itself be a link.
fn stays_inside(target: &[u8], depth: usize) -> bool {
    if target.is_empty() || target.starts_with(b"/") || target.contains(&0) || target.len() > 4096 {
        return false;
    }
    let mut climbed = 0;
    let mut descended = false;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if descended => return false,
            b".." => climbed += 1,
            _ => descended = true,
        }
    }
    climbed <= depth
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &[u8], node: Node) -> Directory {
        Directory { entries: vec![Entry { name: name.to_vec(), node }] }
    }

    fn file() -> Node {
        Node::File { digest: [1; 32], size: 3, executable: false }
    }

    #[test]
    fn a_directory_decodes_only_from_its_own_bytes() {
        let directory = with(b"caf\xe9=[x]", file());
        let bytes = directory.encode();
        assert_eq!(Directory::decode(&bytes, 0), Ok(directory));
        for cut in 0..bytes.len() {
            assert!(Directory::decode(&bytes[..cut], 0).is_err());
        }
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert!(with(name, file()).check(0).is_err(), "{name:?}");
        }
    }

    #[test]
    fn links_may_climb_as_far_as_the_root_and_no_further() {
        let link = |target: &str| with(b"l", Node::Symlink { target: target.as_bytes().to_vec() });
        for (target, depth, ok) in [
            ("a", 0, true),
            ("a/b", 0, true),
            ("..", 0, false),
            ("../a", 1, true),
            ("../../a", 1, false),
            ("a/../../b", 1, false),
            ("/etc/passwd", 5, false),
            ("", 0, false),
        ] {
            assert_eq!(link(target).check(depth).is_ok(), ok, "{target} at depth {depth}");
        }
    }

    #[test]
    fn entries_are_in_byte_order_and_no_name_stands_twice() {
        let entry = |name: &[u8]| Entry { name: name.to_vec(), node: file() };
        assert!(Directory { entries: vec![entry(b"a"), entry(b"b")] }.check(0).is_ok());
        assert!(Directory { entries: vec![entry(b"b"), entry(b"a")] }.check(0).is_err());
        assert!(Directory { entries: vec![entry(b"a"), entry(b"a")] }.check(0).is_err());
    }
}

//! What was built from what: so that the same source, plan and arguments again need no build.
//!
//! Derived and small: a memo that is missing, damaged or of another version is a build that is done again, and every
//! answer is checked against the engine and the publication before it is used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minicbor::{Decode, Encode};
use refloat_model::{AppName, ImageDigest, PlanDigest, SourceDigest, TreeDigest};
use zeroize::Zeroizing;

use crate::docker::Secrets;
use crate::durable;

/// The schema that this program writes. Another one is not read: the build is done again.
const SCHEMA: u8 = 1;
/// Largest memo in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Most memos; the oldest go.
const MAX_MEMOS: usize = 500;

/// Names what goes into a build. A keyed hash: nobody without the key can try values of variables against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoKey(blake3::Hash);

/// Everything that a plan's builds made, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Memo {
    /// One for each build.
    #[n(0)]
    pub made: Vec<Made>,
    /// Sentences from publishing.
    #[n(1)]
    pub notes: Vec<String>,
}

/// What one build made.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Made {
    /// Its name in the plan.
    #[n(0)]
    pub name: String,
    /// The result.
    #[n(1)]
    pub artifact: Artifact,
}

/// The result of one build.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Artifact {
    /// An image in the engine.
    #[n(0)]
    Image {
        /// Its identity.
        #[n(0)]
        digest: ImageDigest,
    },
    /// A published tree.
    #[n(1)]
    Tree {
        /// Its identity.
        #[n(0)]
        digest: TreeDigest,
        /// How many files it has.
        #[n(1)]
        files: u64,
        /// Their bytes.
        #[n(2)]
        bytes: u64,
    },
}

/// The memos on disk. Calls block shortly.
pub struct Memos {
    folder: PathBuf,
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Memos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memos").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Memos {
    /// Opens the folder, made when it is missing. The key is a secret of this server.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: &Path, key: [u8; 32]) -> io::Result<Self> {
        durable::make_dir(folder, 0o700)?;
        Ok(Self { folder: folder.to_owned(), key: Zeroizing::new(key) })
    }

    /// The key of a build with these arguments. The app is part of it: images carry its label.
    #[must_use]
    pub fn key(&self, app: &AppName, source: SourceDigest, plan: PlanDigest, arguments: &Secrets) -> MemoKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        field(b"refloat build memo 1");
        field(app.as_str().as_bytes());
        field(&source.0);
        field(&plan.0);
        for (name, value) in &arguments.0 {
            field(name.as_bytes());
            field(value.as_bytes());
        }
        MemoKey(hasher.finalize())
    }

    /// What was built under a key, or `None`.
    #[must_use]
    pub fn load(&self, key: MemoKey) -> Option<Memo> {
        let path = self.path(key);
        if fs::metadata(&path).ok()?.len() > MAX_BYTES {
            return None;
        }
        let bytes = fs::read(&path).ok()?;
        let (checksum, body) = bytes.split_first_chunk::<32>()?;
        let (schema, memo) = body.split_first()?;
        let whole = blake3::hash(body) == *checksum && *schema == SCHEMA;
        if whole { minicbor::decode(memo).ok() } else { None }
    }

    /// Keeps what was built. The oldest memos go when there are too many.
    ///
    /// # Errors
    /// When it cannot be written: the next deploy builds again.
    pub fn save(&self, key: MemoKey, memo: &Memo) -> io::Result<()> {
        let mut body = vec![SCHEMA];
        minicbor::encode(memo, &mut body).map_err(|e| io::Error::other(e.to_string()))?;
        let bytes = [blake3::hash(&body).as_bytes().as_slice(), &body].concat();
        durable::replace(&self.path(key), &bytes, 0o600)?;
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let mut memos: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            memos.push((entry.metadata()?.modified()?, entry.path()));
        }
        memos.sort();
        let excess = memos.len().saturating_sub(MAX_MEMOS);
        memos.iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn path(&self, key: MemoKey) -> PathBuf {
        self.folder.join(key.0.to_hex().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memo() -> Memo {
        let digest = TreeDigest([3; 32]);
        let tree = Made { name: "web".into(), artifact: Artifact::Tree { digest, files: 2, bytes: 3 } };
        let digest = ImageDigest::new(format!("sha256:{}", "a".repeat(64))).unwrap();
        let image = Made { name: "api".into(), artifact: Artifact::Image { digest } };
        Memo { made: vec![tree, image], notes: vec!["note".into()] }
    }

    fn secrets(pairs: &[(&str, &str)]) -> Secrets {
        Secrets(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn what_was_saved_is_loaded_and_nothing_under_another_key() {
        let folder = tempfile::tempdir().unwrap();
        let memos = Memos::open(&folder.path().join("builds"), [1; 32]).unwrap();
        let app = AppName::new("app").unwrap();
        let (source, plan) = (SourceDigest([1; 32]), PlanDigest([2; 32]));
        let key = memos.key(&app, source, plan, &secrets(&[("A", "1")]));
        assert_eq!(memos.load(key), None);
        memos.save(key, &memo()).unwrap();
        assert_eq!(memos.load(key), Some(memo()));

        let other = AppName::new("other").unwrap();
        let others = [
            memos.key(&other, source, plan, &secrets(&[("A", "1")])),
            memos.key(&app, SourceDigest([9; 32]), plan, &secrets(&[("A", "1")])),
            memos.key(&app, source, PlanDigest([9; 32]), &secrets(&[("A", "1")])),
            memos.key(&app, source, plan, &secrets(&[("A", "2")])),
            memos.key(&app, source, plan, &secrets(&[("A", ""), ("1", "")])),
            memos.key(&app, source, plan, &secrets(&[])),
            Memos::open(folder.path(), [2; 32]).unwrap().key(&app, source, plan, &secrets(&[("A", "1")])),
        ];
        assert!(others.iter().all(|other| *other != key));
    }

    #[test]
    fn a_damaged_memo_is_a_build_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let memos = Memos::open(folder.path(), [1; 32]).unwrap();
        let key = MemoKey(blake3::hash(b"x"));
        memos.save(key, &memo()).unwrap();
        let whole = fs::read(memos.path(key)).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(memos.path(key), &flipped).unwrap();
            assert_eq!(memos.load(key), None, "byte {at} flipped");
            fs::write(memos.path(key), &whole[..at]).unwrap();
            assert_eq!(memos.load(key), None, "cut at {at}");
        }
    }

    #[test]
    fn memos_do_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let memos = Memos::open(folder.path(), [1; 32]).unwrap();
        for n in 0..MAX_MEMOS {
            fs::write(memos.path(MemoKey(blake3::hash(&n.to_be_bytes()))), b"old").unwrap();
        }
        let key = MemoKey(blake3::hash(b"new"));
        memos.save(key, &memo()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MAX_MEMOS);
        assert!(memos.load(key).is_some());
    }
}

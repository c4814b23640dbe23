//! Published trees: opening an index, and what a path means in it. Pure but for opening.
//!
//! A request's path is looked up in the index and a file is opened by the hash that the index gives, so that no path
//! of a request ever becomes a path of the host. `files` turns what is decided here into an answer.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use refloat_model::{Canonical as _, CanonicalError, FileTree, StaticRules, TreeDigest, TreeFile};

use crate::limits::MAX_TREE_INDEX_BYTES;

/// Why a tree cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Its index cannot be read.
    #[error("the index of {tree} cannot be read")]
    Read {
        /// Which tree.
        tree: TreeDigest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its index is not one.
    #[error("the index of {tree} is damaged")]
    Index {
        /// Which tree.
        tree: TreeDigest,
        /// Why.
        #[source]
        source: CanonicalError,
    },
    /// Its index is another tree's, or is not sorted.
    #[error("the index of {tree} is not the one that the name says")]
    Digest {
        /// Which tree.
        tree: TreeDigest,
    },
    /// A file that the index names is not there in its size.
    #[error("{path} of {tree} is not there")]
    Blob {
        /// Which tree.
        tree: TreeDigest,
        /// Which file.
        path: String,
    },
}

/// An opened tree.
#[derive(Debug)]
pub struct Tree {
    index: FileTree,
    blobs: PathBuf,
}

/// A tree with the rules of one route.
#[derive(Debug)]
pub struct Site {
    /// The files.
    pub tree: Arc<Tree>,
    /// How paths become files.
    pub rules: StaticRules,
}

/// Opened trees, shared between tables that name the same one.
#[derive(Debug)]
pub struct Trees {
    public_dir: PathBuf,
    open: Mutex<HashMap<TreeDigest, Weak<Tree>>>,
}

impl Trees {
    /// Trees below a folder.
    #[must_use]
    pub fn new(public_dir: PathBuf) -> Self {
        Self { public_dir, open: Mutex::default() }
    }

    /// Opens a tree and checks its index, and that every file it names is there in its size. Blocking.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(&self, digest: &TreeDigest) -> Result<Arc<Tree>, SiteError> {
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(digest).and_then(Weak::upgrade);
        if let Some(tree) = known {
            return Ok(tree);
        }
        let tree = Arc::new(Tree::open(&self.public_dir, digest)?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, tree| tree.strong_count() > 0);
        open.insert(*digest, Arc::downgrade(&tree));
        Ok(tree)
    }
}

impl Tree {
    fn open(public_dir: &Path, digest: &TreeDigest) -> Result<Self, SiteError> {
        let tree = *digest;
        let bytes = read_bounded(&public_dir.join("tree").join(digest.to_hex()))
            .map_err(|source| SiteError::Read { tree, source })?;
        let index = FileTree::from_canonical(&bytes).map_err(|source| SiteError::Index { tree, source })?;
        if index.tree_digest() != tree || !index.files.is_sorted_by(|a, b| a.path < b.path) {
            return Err(SiteError::Digest { tree });
        }
        let opened = Self { index, blobs: public_dir.join("blob") };
        let absent = |file: &&TreeFile| {
            let meta = fs::symlink_metadata(opened.blob_path(file));
            !meta.is_ok_and(|m| m.is_file() && m.len() == file.size)
        };
        match opened.index.files.iter().find(absent) {
            Some(file) => Err(SiteError::Blob { tree, path: file.path.clone() }),
            None => Ok(opened),
        }
    }

    /// The file at a path without leading slash.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&TreeFile> {
        self.index.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|i| &self.index.files[i])
    }

    /// Where the content of a file lies.
    #[must_use]
    pub fn blob_path(&self, file: &TreeFile) -> PathBuf {
        let name = TreeDigest(file.blob).to_hex();
        self.blobs.join(&name[..2]).join(name)
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_TREE_INDEX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a path of a request is in a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved<'a> {
    /// A file, answered with 200.
    File {
        /// Which.
        file: &'a TreeFile,
        /// How long it may be kept.
        caching: Caching,
    },
    /// A folder that was asked for without its slash.
    AddSlash,
    /// Nothing: 404, with a file as body when the site has one.
    NotFound(Option<&'a TreeFile>),
}

/// What `Cache-Control` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// The name changes with the content.
    Immutable,
    /// Kept, and asked for anew each time: a page or a service worker must never outlive a switch.
    Revalidate,
    /// The same for everything else, and shared caches may keep it.
    PublicRevalidate,
}

impl Caching {
    /// The value of `Cache-Control`.
    #[must_use]
    pub fn header(self) -> &'static str {
        match self {
            Self::Immutable => "public, max-age=31536000, immutable",
            Self::Revalidate => "no-cache",
            Self::PublicRevalidate => "public, max-age=0, must-revalidate",
        }
    }
}

impl Site {
    /// Finds the file for a decoded path, which starts with `/`.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Resolved<'_> {
        let Some(relative) = path.strip_prefix('/') else { return self.not_found() };
        if is_hidden(relative) {
            return self.not_found();
        }
        if let Some(file) = self.exact(relative) {
            return self.found(path, file);
        }
        if !relative.is_empty()
            && !relative.ends_with('/')
            && self.tree.file(&format!("{relative}/index.html")).is_some()
        {
            return Resolved::AddSlash;
        }
        match self.fallback(path, relative) {
            Some(file) => self.found("/index.html", file),
            None => self.not_found(),
        }
    }

    fn exact(&self, relative: &str) -> Option<&TreeFile> {
        if relative.is_empty() || relative.ends_with('/') {
            return self.tree.file(&format!("{relative}index.html"));
        }
        let named = self.tree.file(relative);
        let clean = || {
            // `/docs` with both docs.html and docs/index.html is the folder.
            let is_folder = self.tree.file(&format!("{relative}/index.html")).is_some();
            if is_folder { None } else { self.tree.file(&format!("{relative}.html")) }
        };
        named.or_else(clean)
    }

    /// A page path of a single-page app: no extension in its last segment, not below an excluded prefix.
    fn fallback(&self, path: &str, relative: &str) -> Option<&TreeFile> {
        let last = relative.rsplit('/').next().unwrap_or(relative);
        let excluded = self.rules.no_fallback.iter().any(|prefix| prefix.matches(path));
        if last.contains('.') || excluded {
            return None;
        }
        self.rules.fallback.as_deref().and_then(|name| self.tree.file(name))
    }

    fn not_found(&self) -> Resolved<'_> {
        Resolved::NotFound(self.rules.not_found.as_deref().and_then(|name| self.tree.file(name)))
    }

    fn found<'a>(&'a self, path: &str, file: &'a TreeFile) -> Resolved<'a> {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        let immutable = self.rules.immutable.iter().any(|prefix| prefix.matches(path)) && carries_hash(name);
        let caching = if is_page_or_worker(name) {
            Caching::Revalidate
        } else if immutable {
            Caching::Immutable
        } else {
            Caching::PublicRevalidate
        };
        Resolved::File { file, caching }
    }
}

/// `/.env`, `/.git/config`, `/a/.htpasswd`: never served, also when a build published them. `.well-known` is.
fn is_hidden(relative: &str) -> bool {
    let mut segments = relative.split('/');
    let first = segments.next().unwrap_or("");
    (first.starts_with('.') && first != ".well-known") || segments.any(|segment| segment.starts_with('.'))
}

fn is_page_or_worker(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_page = [".html", ".htm", ".xhtml"].iter().any(|suffix| name.ends_with(suffix));
    let stem = name.strip_suffix(".js").or_else(|| name.strip_suffix(".mjs"));
    let is_worker =
        stem.is_some_and(|s| s.ends_with("sw") || s.ends_with("service-worker") || s.ends_with("serviceworker"));
    is_page || is_worker
}

/// Whether a file name carries a hash of its content, as bundlers write it: `index-BxC4dE9f.js`, `main.3f2a1b9c.css`.
#[must_use]
pub fn carries_hash(name: &str) -> bool {
    let Some((stem, _)) = name.split_once('.').map(|_| name.rsplit_once('.').unwrap_or((name, ""))) else {
        return false;
    };
    let stem = stem.strip_suffix(".js").or_else(|| stem.strip_suffix(".css")).unwrap_or(stem);
    // Vite writes eight characters of base64url, which may hold a hyphen themselves.
    let tail = stem.len().checked_sub(9).and_then(|at| stem.get(at..));
    let vite = tail.is_some_and(|t| (t.starts_with('-') || t.starts_with('.')) && looks_random(&t[1..]));
    let word = stem.rsplit(['-', '.', '_']).next().unwrap_or(stem);
    let hex = word.len() >= 8
        && word.bytes().all(|b| b.is_ascii_hexdigit())
        && word.bytes().any(|b| b.is_ascii_digit())
        && word.bytes().any(|b| b.is_ascii_alphabetic());
    vite || hex || (word.len() >= 10 && looks_random(word))
}

/// Not a word and not a date: letters of both cases after the first, or letters and digits mixed.
fn looks_random(text: &str) -> bool {
    let allowed = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let inner_upper = text.bytes().skip(1).any(|b| b.is_ascii_uppercase());
    let lower = text.bytes().any(|b| b.is_ascii_lowercase());
    allowed && digits < text.len() && (digits > 0 || (inner_upper && lower))
}

#[cfg(test)]
mod tests {
    use refloat_model::PathPrefix;

    use super::*;

    fn site(paths: &[&str]) -> Site {
        let mut files: Vec<TreeFile> =
            paths.iter().map(|p| TreeFile { path: (*p).to_owned(), size: 0, blob: [0; 32] }).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let tree = Arc::new(Tree { index: FileTree { files }, blobs: PathBuf::new() });
        let prefix = |text: &str| PathPrefix::new(text).unwrap();
        let rules = StaticRules {
            fallback: Some("index.html".to_owned()),
            not_found: Some("404.html".to_owned()),
            no_fallback: vec![prefix("/api")],
            immutable: vec![prefix("/assets")],
        };
        Site { tree, rules }
    }

    fn answer(site: &Site, path: &str) -> String {
        match site.resolve(path) {
            Resolved::File { file, caching } => format!("{} {caching:?}", file.path),
            Resolved::AddSlash => "slash".to_owned(),
            Resolved::NotFound(Some(file)) => format!("404 {}", file.path),
            Resolved::NotFound(None) => "404".to_owned(),
        }
    }

    #[test]
    fn a_path_becomes_a_file_by_the_rules() {
        let site = site(&[
            "index.html",
            "404.html",
            "about.html",
            "docs/index.html",
            "docs.html",
            "sw.js",
            "logo.png",
            "assets/index-BxC4dE9f.js",
            "assets/logo.svg",
            ".env",
            ".well-known/security.txt",
            "a/.git/config",
        ]);
        for (path, expected) in [
            ("/", "index.html Revalidate"),
            ("/index.html", "index.html Revalidate"),
            ("/about", "about.html Revalidate"),
            ("/docs", "slash"),
            ("/docs/", "docs/index.html Revalidate"),
            ("/sw.js", "sw.js Revalidate"),
            ("/logo.png", "logo.png PublicRevalidate"),
            ("/assets/index-BxC4dE9f.js", "assets/index-BxC4dE9f.js Immutable"),
            ("/assets/logo.svg", "assets/logo.svg PublicRevalidate"),
            ("/users/7", "index.html Revalidate"),
            ("/users/7/", "index.html Revalidate"),
            ("/assets/gone-BxC4dE9f.js", "404 404.html"),
            ("/users/john.doe", "404 404.html"),
            ("/api", "404 404.html"),
            ("/api/users", "404 404.html"),
            ("/apix", "index.html Revalidate"),
            ("/.env", "404 404.html"),
            ("/.envoy", "404 404.html"),
            ("/a/.git/config", "404 404.html"),
            ("/.well-known/security.txt", ".well-known/security.txt PublicRevalidate"),
            ("//about", "index.html Revalidate"),
        ] {
            assert_eq!(answer(&site, path), expected, "{path}");
        }
    }

    #[test]
    fn only_names_with_a_hash_are_immutable() {
        for hashed in [
            "index-BxC4dE9f.js",
            "index-DiwrgTda.css",
            "vendor-C-4kd_9a.js",
            "main.3f2a1b9c.js",
            "1234-abcdef0123456789.js",
            "index-BxC4dE9f.js.map",
            "logo.a1b2c3d4e5.svg",
        ] {
            assert!(carries_hash(hashed), "{hashed}");
        }
        for plain in [
            "index.js",
            "logo-Homepage.png",
            "photo-20240101.png",
            "background.jpg",
            "README",
            "some-library.min.js",
            "a-somewhere.js",
        ] {
            assert!(!carries_hash(plain), "{plain}");
        }
    }
}

//! Static trees for the edge: what a build or a folder of the source publishes.
//!
//! ```text
//! PUBLIC/blob/<2 hex>/<64 hex>   content, named by its plain BLAKE3, mode 0644
//! PUBLIC/tree/<64 hex>           index: canonical bytes of a `FileTree`, named by its `TreeDigest`, mode 0644
//! PUBLIC/temporary/              what is being written; emptied at start
//! ```
//!
//! The edge opens a file by its hash, so no path of a tree is ever a path of this host. The index is renamed into place
//! last, after everything it names is on disk: a tree that is there is complete.
//!
//! What is published is decided in [`assembly`], purely: regular files with UTF-8 names; links become copies of what
//! they point to within the tree; dot-files stay private, `.well-known` excepted.
//!
//! Deliberately absent: removal. Which trees are still reached is known elsewhere.

pub mod archive;
pub mod assembly;
pub mod folder;
pub mod publisher;

pub use assembly::{Assembly, MAX_PUBLISHED_BYTES};
pub use publisher::{Publication, PublishError, Published, Publisher};

//! Uploaded sources, by content.
//!
//! ```text
//! CAS/directory/<64 hex>   one directory record of a source tree (`refloat_plan::tree`)
//! CAS/file/<64 hex>        the bytes of one file, named by their plain BLAKE3
//! CAS/temporary/           what is being written; emptied at start
//! ```
//!
//! Owns what is stored ([`Cas`]), how it comes in ([`Intake`]), how a planner
//! reads it ([`TreeSource`]), how a tree is walked ([`StoredTree`]) and how it becomes the context of a build
//! ([`context`]).
//!
//! Two rules hold at all times. An object is visible only when it is complete, verified and on disk: temporary file →
//! fsync → rename, and the folder is synced before an upload is acknowledged. A directory is stored only when everything
//! below it is, so one look-up answers for a whole subtree. Where a disk broke the second rule,
//! [`Cas::forget_dependents`] mends it: what reached the lost object is asked for again.
//!
//! Deliberately absent: any path of the uploaded tree as a path of this host. Names of the tree exist in records only.

pub mod batch;
pub mod context;
pub mod difference;
pub mod ignore;
pub mod intake;
pub mod objects;
pub mod source;
pub mod sources;
pub mod tree;

pub use batch::Batch;
pub use context::{ContextSize, ContextSpec};
pub use difference::{Became, Differing};
pub use intake::{FileWriter, Intake};
pub use objects::{Objects, Writer};
pub use source::TreeSource;
pub use sources::{Cas, CasError, Missing};
pub use tree::{StoredEntry, StoredNode, StoredTree};

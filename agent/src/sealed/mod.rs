//! Sealed values: the secrets of apps' environments, the only place on this host where they are kept by us.
//!
//! ```text
//! sealed/root.key            32 random bytes, made by `refloatd init`, readable by its owner only
//! sealed/values/3f…c2        one value: a random key of its own under the root key, and the value under that key
//! ```
//!
//! Everything else (ledger, store, release, API) names a value by its random id and by a fingerprint: a keyed hash
//! that tells a change from none and is useless for guessing without the root key. A value is bound to its app, its
//! variable and its id: a file that was moved or renamed does not open.
//!
//! Erasing overwrites the value's key before the file goes. That is as much as a file system lets a program do: copies
//! that a file system, a disk or a backup made before are out of reach.
//!
//! The calls here block on the disk; async callers use a blocking thread.

pub mod env;
mod secret;
mod vault;

pub use env::{EnvChange, EnvChangeError, NewEnv};
pub use secret::SecretValue;
pub use vault::{Fingerprint, MAX_VALUE_BYTES, Sealed, SealedError, SealedId, Vault};

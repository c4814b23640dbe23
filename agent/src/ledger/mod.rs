//! The ledger: the append-only, hash-chained record of every mutation on this host, and the only truth.
//!
//! ```text
//! ledger/lock            one agent per ledger
//! ledger/00000001.log    [checkpoint][record][record]…      each record names the hash of the one before,
//! ledger/00000002.log    [checkpoint][record]…              across segments too
//! ```
//!
//! What holds:
//! - A record is acknowledged after `fdatasync` returned, never before. A failed write or sync closes the ledger until
//!   the agent starts again: after one, nothing is known about what is on the disk, and trying again would turn
//!   "unknown" into a lie.
//! - On opening every segment is read and checked. A torn tail (the one record that was being written when power or
//!   process went) is cut off: it was never acknowledged. Anything else that does not check out is an error that
//!   names segment and offset; nothing is removed.
//! - A full disk is met before a write, not by it: space is reserved ahead of the end ([`room`]).
//!
//! Deliberately absent: telemetry, values of secrets, and any index. What the records add up to is the store's.

pub mod disk;
pub mod frame;
pub mod record;
pub mod room;
pub mod segment;
#[cfg(test)]
mod tests;
mod writer;

pub use writer::{AppendError, Draft, Ledger, LedgerError, LedgerOptions, LedgerReport, ReplayError, TornTail};

/// A place in the ledger: after the record with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Position {
    /// Number of the record, from 1; 0 is before the first.
    #[n(0)]
    pub sequence: u64,
    /// Its hash.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: frame::Hash,
}

impl Position {
    /// Before the first record.
    pub const GENESIS: Self = Self { sequence: 0, hash: frame::GENESIS };
}

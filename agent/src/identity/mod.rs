//! Who calls: the agent's own certificate authority, pairing, callers and what each may do.
//!
//! ```text
//! TLS handshake ──▶ tls: possession is proved ──▶ trust: whose certificate is it? ─┐
//! Unix socket ────▶ peer's user id ────────────────────────────────────────────────┴▶ Caller
//!                                                                                        │
//!                           permission: table of methods × callers ◀─────────────────────┘
//! ```
//!
//! Owns the files below `pki/`. A certificate counts only while its serial number is in the ledger's list of clients:
//! what the authority signed and the ledger does not know is refused. Deliberately absent: passwords, tokens, and any
//! way to construct a listener without a trust store.

pub mod authority;
pub mod caller;
pub mod pairing;
pub mod permission;
pub mod rate;
pub mod renewal;
pub mod tls;
pub mod trust;
pub mod user;

//! The way of a source to the server: walked, hashed, asked about, and only what is missing is sent.
//!
//! ```text
//! walk (what belongs to the source) ──▶ tree (digests, bottom up) ──▶ Missing, level by level ──▶ one Upload stream
//! ```
//!
//! Times of files matter nowhere: a fresh checkout of the same commit sends nothing.

mod docker_ignore;
mod frames;
mod hash;
mod send;
mod tree;
mod walk;

pub(crate) use send::{Sent, send};
pub(crate) use tree::Source;
pub(crate) use walk::{Folder, Item, Rules, Walked, walk};

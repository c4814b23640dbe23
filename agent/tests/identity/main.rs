//! Who may call what, and pairing: the real services over real TLS and a real Unix socket, with a journal in memory and
//! fakes for Docker and the edge.
#![allow(clippy::unwrap_used, clippy::panic)]

mod agent;
mod pairing;
mod table;

//! Who may call what, pairing, and what the services say: the real ones over real TLS and a real Unix socket, with a journal in memory and
//! fakes for Docker and the edge.
#![allow(clippy::unwrap_used, clippy::panic)]

mod agent;
mod pairing;
mod reading;
mod table;

//! The whole edge in one process: real sockets, real files, apps that are scripts.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod app;
mod control;
mod crowd;
mod files;
mod heads;
mod process;
mod proxying;
mod rig;
mod switching;
mod wire;

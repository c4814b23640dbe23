//! A harness for real programs. Never shipped.
//!
//! The harness ([`host`], [`laptop`], [`load`]) runs the programs as a person would: `refloatd` and `refloat-edge` with
//! a state folder, ports and a network of their own, `refloat` with a configuration folder of its own, and a steady
//! stream of requests against the edge. It blocks and it panics: whoever uses it is a test or a demonstration.

pub mod binaries;
pub mod command;
pub mod engine;
pub mod eventually;
pub mod fetch;
pub mod host;
pub mod laptop;
pub mod load;
pub mod meter;
pub mod namespace;
pub mod project;
pub mod reservation;
pub mod ssh_server;

pub use eventually::eventually;

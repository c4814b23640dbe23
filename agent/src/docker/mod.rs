//! The container engine behind one port.
//!
//! Owns every call to Docker. Only `real` and the private files beside it name bollard; everything else speaks [`Engine`] and its types, so that the
//! driver's tests run over a fake and the contract suite holds the fake to the real one.
//!
//! Deliberately absent: a shell, the `docker` program, published ports, and any way to pass engine options that
//! [`InstanceSpec`] does not name.

pub mod engine;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod labels;
pub mod real;

mod build;
mod buildkit;
mod connect;
mod container;
mod host_config;
mod image;
mod logs;
mod network;
mod progress;
mod run;
mod volume;

pub use connect::DEFAULT_SOCKET;
pub use engine::*;
pub use host_config::OWN_CAPABILITIES;
pub use real::DockerEngine;

//! The container engine behind one port.
//!
//! Owns every call to Docker. Only `real` names bollard; everything else speaks [`Engine`] and its types, so that the
//! driver's tests run over a fake and the contract suite holds the fake to the real one.
//!
//! Deliberately absent: a shell, the `docker` program, published ports, and any way to pass engine options that
//! [`InstanceSpec`] does not name.

pub mod engine;

pub use engine::*;

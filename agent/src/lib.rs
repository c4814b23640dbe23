//! The agent: effects. It holds the Docker socket and the ledger, decides what serves, and never proxies a byte.
//!
//! `request → admission → plan → step → effect → observation → status`: decisions come from `refloat-model`, every
//! effect goes through a port ([`docker::Engine`], [`edge::Edge`], …), so that the same driver runs over fakes with
//! paused time and over the real things.

pub mod api;
pub mod app_logs;
pub mod build;
pub mod cas;
pub mod cgroup;
pub mod clock;
pub mod command;
pub mod config;
pub mod daemon;
pub mod deploy;
pub mod docker;
pub mod durable;
pub mod edge;
#[cfg(any(test, feature = "testing"))]
pub mod faults;
pub mod host;
pub mod housekeeping;
pub mod identity;
pub mod journal;
pub mod ledger;
pub mod logging;
pub mod network;
pub mod paths;
pub mod probe;
pub mod public;
pub mod sealed;
pub mod store;
pub mod upload;
pub mod wiring;

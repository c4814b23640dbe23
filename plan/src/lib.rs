//! From source to build plan, pure: what an app is, how it is built and what runs.
//!
//! Owns the source tree's encoding ([`tree`]), `refloat.toml` ([`settings`]) and detection ([`detect`]). The CLI plans
//! locally so that `refloat plan` needs no server; the agent plans the uploaded tree with the same function, and the
//! agent's plan is the one that counts.
//!
//! **Architecture invariant:** nothing here reads a disk, a network or a clock. A planner gets a listing and asks for the
//! few files that it wants to read; whoever holds the source answers.

pub mod capability;
pub mod detect;
mod error;
mod label;
pub mod never_sent;
pub mod plan;
pub mod render;
pub mod settings;
pub mod source;
pub mod tree;

pub use detect::{Request, plan};
pub use error::{PlanError, PlanErrorKind};

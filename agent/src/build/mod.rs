//! From an uploaded source to backends: images in the engine, trees for the edge.
//!
//! ```text
//!            plan            memo: same source, plan and arguments?
//! source ──▶ Plan ──▶ key ──▶ yes, and all of it still there ───────────────────────────▶ Built
//!                      │ no                                                                ▲
//!                      ▼                                                                   │
//!              turn (one build per host) → room → cap → disk ──▶ context → engine ─ image ─┤
//!                                                                            └ export → publish ─ tree
//!                                                    a folder of the source ─▶ publish ─ tree
//! ```
//!
//! Owns the port [`Builder`], its implementation over the engine and the publication, the memo of what was built, the
//! limits of time and disk, and every sentence that a failed build is told with.
//!
//! Deliberately absent: what a plan says (`refloat-plan`), how the engine is spoken to ([`crate::docker`]), and any
//! value of an environment on disk: the memo's key is a keyed hash.

pub mod builder;
pub mod engine_builder;
pub mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod install;
pub mod memo;
pub mod planner;
pub mod processes;
mod run;
pub mod space;
pub mod turn;

pub use builder::{BuildJob, BuildProgress, Builder, Built, BuiltImage, BuiltTree, MakeRoom};
pub use engine_builder::{EngineBuilder, Parts, Settings};
pub use error::BuildError;
pub use memo::MemoKey;
pub use planner::{Planner, SourcePlanner};

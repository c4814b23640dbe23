//! Deployments: from a request to an outcome.
//!
//! ```text
//!            submit                 one task per app, the only writer of its state
//! caller ────────────▶ dispatcher ────────────────▶ app task ──▶ driver ──▶ ports (engine, builder, probe, …)
//!    ▲                                                 │                       │
//!    └────────── Watch (numbered updates) ◀────────────┴───────────────────────┤
//!                                                                              ▼
//!                                       sequencer: the one owner of the route table (stage → commit → apply)
//! ```
//!
//! Decisions are in `refloat-model` (admission, planning, lineage, standby); files here do what was decided.

mod app_task;
pub mod dispatcher;
mod driver;
mod feed;
pub mod fetch;
mod gate;
mod handover;
mod keeper;
pub mod one_off;
pub mod ports;
mod ready;
mod refused_right;
pub mod request;
mod resolve;
pub mod sealed_vault;
mod sequencer;
mod standby_memory;
mod stop;
pub mod stored;
pub mod update;
mod verify;

pub use dispatcher::{AppOverview, Deployments, StandbyRoom};
pub use feed::Watch;

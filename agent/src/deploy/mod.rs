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

pub mod request;
pub mod update;

//! What holds for every history, not only for those of the tables.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "properties/admission.rs"]
mod admission;
#[path = "properties/planning.rs"]
mod planning;
#[path = "properties/standby.rs"]
mod standby;

//! `refloat-edge`, the data plane: the only process that touches public traffic.
//!
//! A request's way through the files: [`listener`] with [`clients`] → [`connection`] → [`head`] → [`router`] →
//! [`proxy`] with [`upstream`] and [`body`], or [`files`] with [`site`] → [`access_log`]. The agent's way: [`control`] →
//! [`tables`] → [`table_store`], then the router.
//!
//! **Architecture invariants:** the edge never touches Docker, the ledger or the store. It serves without the agent,
//! also after a restart. A request is bound to one table, once, at its head.

pub mod access_log;
pub mod body;
pub mod clients;
pub mod config;
pub mod connection;
pub mod control;
pub mod edge;
pub mod files;
pub mod head;
pub mod hold;
pub mod inflight;
pub mod limits;
pub mod listener;
pub mod page;
pub mod proxy;
pub mod reply;
pub mod router;
pub mod shared;
pub mod site;
pub mod table_store;
pub mod tables;
pub mod tunnel;
pub mod upstream;

pub use config::{Args, Config};
pub use edge::Edge;

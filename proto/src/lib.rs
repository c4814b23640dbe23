//! The wire contract: generated types, services and the descriptors that reflection serves. No behaviour.
//!
//! Three packages: `refloat.v1` between CLI and agent, `refloat.edge.v1` between agent and edge, and
//! `refloat.ledger.v1`, the bodies of the ledger's records. A test keeps a snapshot of the descriptors: a field that
//! is removed or renumbered fails it.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]

mod json;

/// Between CLI and agent. What the server answers with can be written as JSON.
pub mod v1 {
    tonic::include_proto!("refloat.v1");

    impl std::fmt::Debug for EnvValue {
        /// Names the variable, never its value.
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("EnvValue").field("name", &self.name).finish_non_exhaustive()
        }
    }
}

/// Between agent and edge.
pub mod edge {
    pub mod v1 {
        tonic::include_proto!("refloat.edge.v1");
    }
}

/// On the agent's disk.
pub mod ledger {
    pub mod v1 {
        tonic::include_proto!("refloat.ledger.v1");
    }
}

/// Every descriptor, for reflection and for the contract's snapshot.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

//! What the ledger records: every mutation, as a fact that has happened.
//!
//! An event never holds a secret value. It says enough to rebuild everything that is read, and no more.

use std::net::Ipv4Addr;

use crate::deployment::{Deployment, Origin, Outcome};
use crate::id::{
    AppName, ContentId, DeploymentId, EnvId, Epoch, Generation, InstanceName, OneOffId, ProcessName, ReleaseId,
    ReleaseNumber, TableDigest,
};
use crate::one_off::{OneOff, OneOffEnd};
use crate::principal::Principal;
use crate::release::Release;
use crate::route::{AppRoutes, HostName};

/// A fact with who and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Unix time in milliseconds by the agent's clock. Order comes from the ledger, never from this.
    pub at_ms: u64,
    /// Who caused it.
    pub by: Principal,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first record: the ledger belongs to this host.
    HostInitialised {
        /// Random, 16 bytes.
        host_id: [u8; 16],
        /// Starts at 1.
        epoch: Epoch,
    },
    /// A client got a certificate.
    ClientPaired {
        /// Serial number in hexadecimal.
        serial: String,
        /// The name that it chose.
        name: String,
        /// Its role.
        role: String,
        /// End of validity, Unix time in milliseconds.
        not_after_ms: u64,
    },
    /// An app exists from now on, with a network of its own.
    AppCreated {
        /// The app.
        app: AppName,
        /// Which /26 of the host's network.
        subnet: u16,
    },
    /// A deployment began.
    DeploymentAccepted {
        /// The app.
        app: AppName,
        /// The attempt.
        deployment: Deployment,
    },
    /// A restarted agent goes on with a deployment.
    DeploymentResumed {
        /// The app.
        app: AppName,
        /// The attempt.
        deployment: DeploymentId,
    },
    /// A release exists from now on.
    ReleaseCreated {
        /// The deployment that made it.
        deployment: DeploymentId,
        /// Its number.
        number: ReleaseNumber,
        /// All of it.
        release: Release,
        /// What people want to know about it.
        meta: ReleaseMeta,
    },
    /// An instance is about to be created with this address.
    InstancePlanned {
        /// The app.
        app: AppName,
        /// All that is kept about it.
        instance: InstanceRecord,
    },
    /// An instance and its address are gone.
    InstanceRemoved {
        /// The app.
        app: AppName,
        /// Its name.
        instance: InstanceName,
    },
    /// An exclusive process is about to be stopped so that its successor can start.
    HandoverBegan {
        /// The app.
        app: AppName,
        /// The deployment.
        deployment: DeploymentId,
        /// The process.
        process: ProcessName,
    },
    /// The successor runs, or the predecessor runs again.
    HandoverEnded {
        /// The app.
        app: AppName,
        /// The deployment.
        deployment: DeploymentId,
        /// The process.
        process: ProcessName,
        /// Whether the successor runs.
        completed: bool,
    },
    /// The commit: from now on this is what the edge is to serve.
    RoutesCommitted {
        /// The app whose routes changed.
        app: AppName,
        /// The deployment that changed them.
        deployment: DeploymentId,
        /// The release that serves from now on; `None` when the change leaves that as it was.
        activates: Option<ReleaseNumber>,
        /// The app's routes; `None` removes it from the table.
        routes: Option<AppRoutes>,
        /// The table's new generation.
        generation: Generation,
        /// Digest of the whole table.
        table: TableDigest,
    },
    /// Domains of an app, all of them.
    DomainsSet {
        /// The app.
        app: AppName,
        /// The domains, sorted.
        domains: Vec<HostName>,
    },
    /// An environment was sealed; it takes effect with a release that names it.
    EnvSealed {
        /// The app.
        app: AppName,
        /// Its identity.
        env: EnvId,
        /// Its variables, sorted by name.
        variables: Vec<EnvVariable>,
    },
    /// A deployment has its outcome.
    DeploymentEnded {
        /// The app.
        app: AppName,
        /// The attempt.
        deployment: DeploymentId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Nothing of an app is left.
    AppDestroyed {
        /// The app.
        app: AppName,
    },
    /// A command is about to be run once.
    OneOffBegan {
        /// The app.
        app: AppName,
        /// What is run.
        one_off: OneOff,
    },
    /// It has ended, and its container is gone or will be removed.
    OneOffEnded {
        /// The app.
        app: AppName,
        /// Which.
        id: OneOffId,
        /// How.
        end: OneOffEnd,
    },
}

/// What people want to know about a release and what its identity does not cover.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct ReleaseMeta {
    /// When it was made, Unix time in milliseconds.
    #[n(0)]
    pub created_at_ms: u64,
    /// Where its source came from.
    #[n(1)]
    pub origin: Origin,
    /// How long its build took, in milliseconds.
    #[n(2)]
    pub build_ms: u64,
    /// Differences from its parent, at most 20 lines.
    #[n(3)]
    pub changes: Vec<String>,
    /// How it came to be: `deploy` or `env`.
    #[n(4)]
    pub kind: String,
    /// Names of the variables that its build reads: another value of one of them is another build.
    #[n(5)]
    pub build_env: Vec<String>,
}

/// One container, as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct InstanceRecord {
    /// Its name.
    #[n(0)]
    pub name: InstanceName,
    /// Its process.
    #[n(1)]
    pub process: ProcessName,
    /// The release that it was first made for.
    #[n(2)]
    pub release: ReleaseNumber,
    /// Digest of its runtime specification: releases that share it share the instance.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub spec: [u8; 32],
    /// Rises when a release gets new instances (`restart`, or a standby that did not wake).
    #[n(4)]
    pub attempt: u32,
    /// Its fixed address.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub ip: [u8; 4],
    /// Its port, 0 when it has none.
    #[n(6)]
    pub port: u16,
}

impl InstanceRecord {
    /// Its fixed address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.ip)
    }
}

/// One variable of an environment: where its sealed value is, never the value.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct EnvVariable {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Name of the sealed file: random, so that two apps with one value share nothing.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub sealed: [u8; 16],
    /// Keyed hash of the value: tells a change from none, useless for guessing without the root key.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub fingerprint: [u8; 32],
    /// When it got this value, Unix time in milliseconds.
    #[n(3)]
    pub changed_at_ms: u64,
    /// Who gave it this value.
    #[n(4)]
    pub changed_by: String,
}

impl Event {
    /// The app that it is about.
    #[must_use]
    pub fn app(&self) -> Option<&AppName> {
        match self {
            Self::HostInitialised { .. } | Self::ClientPaired { .. } => None,
            Self::ReleaseCreated { release, .. } => Some(&release.app),
            Self::AppCreated { app, .. }
            | Self::DeploymentAccepted { app, .. }
            | Self::DeploymentResumed { app, .. }
            | Self::InstancePlanned { app, .. }
            | Self::InstanceRemoved { app, .. }
            | Self::HandoverBegan { app, .. }
            | Self::HandoverEnded { app, .. }
            | Self::RoutesCommitted { app, .. }
            | Self::DomainsSet { app, .. }
            | Self::EnvSealed { app, .. }
            | Self::DeploymentEnded { app, .. }
            | Self::OneOffBegan { app, .. }
            | Self::OneOffEnded { app, .. }
            | Self::AppDestroyed { app } => Some(app),
        }
    }
}

/// Identity of a release in both its forms, for lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct ReleaseIdentity {
    /// Author and parent included.
    #[n(0)]
    pub id: ReleaseId,
    /// What runs.
    #[n(1)]
    pub content: ContentId,
}

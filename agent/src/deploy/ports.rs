//! Everything that a deployment does to the world, as one value.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use refloat_model::standby::StandbyPolicy;
use refloat_model::{AppName, EnvId, EnvRecord, EnvVariable, Principal, SourceDigest, TreeDigest};

use crate::build::Builder;
use crate::clock::Clock;
use crate::docker::{Engine, Secrets};
use crate::edge::Edge;
use crate::journal::Journal;
use crate::network::{HostRoute, Subnet};
use crate::probe::Probe;

/// The ports.
#[derive(Clone)]
pub struct Ports {
    /// Facts.
    pub journal: Arc<dyn Journal>,
    /// Containers.
    pub engine: Arc<dyn Engine>,
    /// The data plane.
    pub edge: Arc<dyn Edge>,
    /// From source to images and trees.
    pub builder: Arc<dyn Builder>,
    /// Health, from where the edge connects.
    pub probe: Arc<dyn Probe>,
    /// Published trees and stored sources.
    pub trees: Arc<dyn Trees>,
    /// Sealed values.
    pub vault: Arc<dyn Vault>,
    /// Addresses as a visitor sees them.
    pub fetch: Arc<dyn Fetch>,
    /// What apps have written.
    pub output: Arc<dyn Output>,
    /// What the host reaches already.
    pub routes: Arc<dyn Routes>,
    /// Wall-clock time, for records only.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// Published trees and stored sources, as the driver asks about them.
#[async_trait]
pub trait Trees: Send + Sync + 'static {
    /// Whether the whole tree is there for the edge to serve.
    async fn is_published(&self, tree: &TreeDigest) -> bool;
    /// Paths that differ between two sources, at most `limit`, for people.
    async fn changed_paths(&self, from: &SourceDigest, to: &SourceDigest, limit: usize) -> Vec<String>;
}

/// What the host reaches already.
pub trait Routes: Send + Sync + 'static {
    /// The networks, as they are now.
    fn routes(&self) -> Vec<HostRoute>;
}

/// Sealed values of environments.
#[async_trait]
pub trait Vault: Send + Sync + 'static {
    /// Opens every value of an environment.
    async fn open(&self, app: &AppName, env: &EnvRecord) -> Result<Secrets, VaultError>;
    /// Seals a change over an environment: its identity and its variables. The same values give the same identity.
    async fn seal(
        &self,
        app: &AppName,
        by: &Principal,
        base: &EnvRecord,
        set: &Secrets,
        unset: &[String],
    ) -> Result<(EnvId, Vec<EnvVariable>), VaultError>;
    /// Erases every value of an app.
    async fn erase(&self, app: &AppName, variables: &[EnvVariable]) -> Result<(), VaultError>;
}

/// What apps have written, as far as the driver touches it.
#[async_trait]
pub trait Output: Send + Sync + 'static {
    /// Forgets all of an app.
    async fn forget(&self, app: &AppName);
}

/// Why a value cannot be sealed or opened. Never says anything of the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VaultError(pub String);

/// Fetches an address as a visitor does, through the edge.
#[async_trait]
pub trait Fetch: Send + Sync + 'static {
    /// `GET path` at the socket address with that `Host`. The status, or why there is none.
    async fn get(&self, at: SocketAddr, host: &str, path: &str) -> Result<u16, String>;
}

/// What the configuration says about deployments.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The host's identity, from the ledger.
    pub host_id: [u8; 16],
    /// What every app gets its network of.
    pub network: Subnet,
    /// MTU of the apps' networks in bytes.
    pub mtu: u16,
    /// Name or address under which visitors reach this server.
    pub public_host: String,
    /// What is kept warm.
    pub standby: StandbyPolicy,
    /// How long a displaced instance may finish its requests.
    pub drain_timeout: Duration,
    /// How long an app may take to end after SIGTERM, in milliseconds.
    pub stop_grace_ms: u32,
    /// How often an app at rest is compared with what it should be.
    pub reconcile_every: Duration,
    /// Root's line for an emergency: "ssh root@203.0.113.7 refloat rollback". Empty when nobody has said how this server is
    /// reached: the client knows how it did.
    pub emergency: String,
}

//! What the services need of the rest of the agent, as traits: tests bring their own.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use refloat_model::{AppName, DeploymentId, Principal, SourceDigest};
use tokio::sync::mpsc;
use tokio_stream::Stream;

use crate::deploy::AppOverview;
use crate::deploy::one_off::Command;
use crate::deploy::request::{Denied, Submit};
use crate::deploy::update::Numbered;
use crate::network::{HostRoute, Subnet};

/// A deployment's updates, from the first to the last.
pub type Updates = Pin<Box<dyn Stream<Item = Numbered> + Send>>;

/// Everything that changes what serves.
#[async_trait]
pub trait DeploymentsPort: Send + Sync + 'static {
    /// Begins a deployment, or finds the one with the same id.
    async fn submit(&self, submit: Submit) -> Result<Updates, Denied>;
    /// The updates of a deployment that runs or has ended.
    async fn watch(&self, id: DeploymentId) -> Option<Updates>;
    /// The updates of an app's newest deployment.
    async fn watch_app(&self, app: &AppName) -> Option<Updates>;
    /// Cancels what runs for an app before its commit.
    async fn cancel(&self, app: Option<&AppName>, by: &Principal) -> Result<Option<DeploymentId>, Denied>;
    /// Whether a deploy of an app would be accepted as things are.
    async fn may_deploy(&self, app: &AppName) -> Result<(), Denied>;
    /// What runs now.
    async fn running(&self) -> Vec<AppOverview>;
}

/// One-off containers of the serving release.
#[async_trait]
pub trait RunPort: Send + Sync + 'static {
    /// Runs a command with the release's image and environment, attached; answers its exit code.
    async fn run(&self, command: Command, io: crate::docker::RunIo) -> Result<i64, Denied>;
}

/// BLAKE3 of an object of a source tree.
pub type Digest = [u8; 32];

/// Uploaded sources.
#[async_trait]
pub trait SourcesPort: Send + Sync + 'static {
    /// Which of these directories and files are not held whole.
    async fn missing(
        &self,
        directories: Vec<Digest>,
        files: Vec<Digest>,
    ) -> Result<(Vec<Digest>, Vec<Digest>), SourceError>;
    /// Stores the objects of one upload; answers how many and how many bytes.
    async fn receive(&self, pieces: mpsc::Receiver<Bytes>) -> Result<(u64, u64), SourceError>;
    /// Files that differ, at most `limit`, and whether there are more.
    async fn compare(
        &self,
        from: SourceDigest,
        to: SourceDigest,
        limit: usize,
    ) -> Result<(Vec<ChangedFile>, bool), SourceError>;
}

/// One file that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// Its path, as text.
    pub path: String,
    /// `added`, `removed` or `changed`.
    pub kind: &'static str,
}

/// Why a source was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It breaks a rule: a sentence for the one who sent it.
    #[error("{0}")]
    Refused(String),
    /// There is no room for it.
    #[error("{0}")]
    NoRoom(String),
    /// The server could not read or write.
    #[error("{0}")]
    Failed(String),
}

/// What the agent knows about its host.
#[async_trait]
pub trait HostPort: Send + Sync + 'static {
    /// What does not change while the agent runs.
    fn facts(&self) -> &HostFacts;
    /// How builds are capped, or that they are not.
    async fn build_cap(&self) -> String;
    /// What the host reaches already.
    fn routes(&self) -> Vec<HostRoute>;
    /// "ok", or what of the store was rebuilt and why.
    async fn store(&self) -> String;
}

/// What does not change while the agent runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The host's own name.
    pub host: String,
    /// The agent's version.
    pub version: String,
    /// Addresses that the agent listens on.
    pub listen: Vec<String>,
    /// Name or address under which visitors reach this server.
    pub public_host: String,
    /// Folder whose file system holds the state.
    pub state_dir: std::path::PathBuf,
    /// What every app gets its network of.
    pub network: Subnet,
}

//! The port over Docker: one method, one call into the file that owns the noun.

use std::path::Path;

use async_trait::async_trait;
use bollard::Docker;
use refloat_model::{AppName, ImageDigest, InstanceName, ReleaseNumber};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connect::{Connection, READ_TIMEOUT_MS, within};
use super::engine::{
    BuildOutput, BuildRequest, Engine, EngineError, EngineInfo, ImageInfo, InstanceSpec, LogLine, NetworkSpec,
    Observed, Restart, RunIo, RunRequest,
};
use super::labels::HostLabel;

/// Docker, over its socket.
#[derive(Debug)]
pub struct DockerEngine {
    connection: Connection,
    pub(super) host: HostLabel,
}

impl DockerEngine {
    /// Connects when it is first used, so that the agent can start before Docker does.
    #[must_use]
    pub fn lazy(socket: Option<&Path>, host_id: [u8; 16]) -> Self {
        Self { connection: Connection::new(socket), host: HostLabel::new(host_id) }
    }

    /// Connects now.
    ///
    /// # Errors
    /// When nobody answers on the socket.
    pub async fn connect(socket: Option<&Path>, host_id: [u8; 16]) -> Result<Self, EngineError> {
        let engine = Self::lazy(socket, host_id);
        engine.docker().await?;
        Ok(engine)
    }

    /// Names and labels of this agent's things.
    #[must_use]
    pub fn host(&self) -> &HostLabel {
        &self.host
    }

    pub(super) async fn docker(&self) -> Result<&Docker, EngineError> {
        self.connection.client().await
    }

    pub(super) fn socket(&self) -> &Path {
        self.connection.socket()
    }

    async fn read_info(&self) -> Result<EngineInfo, EngineError> {
        const WHAT: &str = "its settings";
        let docker = self.docker().await?;
        let info = within(WHAT, READ_TIMEOUT_MS, docker.info()).await.map_err(|f| f.refused(WHAT))?;
        Ok(EngineInfo {
            version: info.server_version.unwrap_or_default(),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            cgroup_driver: info.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
            cgroup_version: info.cgroup_version.and_then(|version| version.to_string().parse().ok()).unwrap_or(1),
            data_root: info.docker_root_dir.unwrap_or_default().into(),
        })
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.read_info().await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), EngineError> {
        self.ensure_app_network(network).await
    }

    async fn remove_network(&self, app: &AppName) -> Result<(), EngineError> {
        self.remove_app_network(app).await
    }

    async fn create(&self, spec: &InstanceSpec) -> Result<(), EngineError> {
        self.create_container(spec).await
    }

    async fn start(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.start_container(name).await
    }

    async fn stop(&self, name: &InstanceName, grace_ms: u32) -> Result<(), EngineError> {
        self.stop_container(name, grace_ms).await
    }

    async fn pause(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.pause_container(name).await
    }

    async fn unpause(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.unpause_container(name).await
    }

    async fn remove(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.remove_container(name).await
    }

    async fn set_restart(&self, name: &InstanceName, restart: Restart) -> Result<(), EngineError> {
        self.set_restart_policy(name, restart).await
    }

    async fn inspect(&self, name: &InstanceName) -> Result<Option<Observed>, EngineError> {
        self.observe(name).await
    }

    async fn list(&self) -> Result<Vec<Observed>, EngineError> {
        self.observe_all().await
    }

    async fn tail(&self, name: &InstanceName, lines: u32) -> Result<Vec<LogLine>, EngineError> {
        self.tail_lines(name, lines).await
    }

    async fn follow(&self, name: &InstanceName, since_ms: u64, to: mpsc::Sender<LogLine>) -> Result<(), EngineError> {
        self.follow_lines(name, since_ms, to).await
    }

    async fn memory_bytes(&self, name: &InstanceName) -> Result<u64, EngineError> {
        self.memory_of(name).await
    }

    async fn image(&self, digest: &ImageDigest) -> Result<Option<ImageInfo>, EngineError> {
        self.image_info(digest).await
    }

    async fn keep_image(&self, digest: &ImageDigest, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        self.tag_for_release(digest, app, release).await
    }

    async fn release_image(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        self.untag(&self.host.release_tag(app, release)).await
    }

    async fn build(
        &self,
        request: BuildRequest,
        output: mpsc::Sender<BuildOutput>,
        cancel: CancellationToken,
    ) -> Result<ImageDigest, EngineError> {
        self.build_image(request, output, cancel).await
    }

    async fn export(&self, image: &ImageDigest, to: mpsc::Sender<Vec<u8>>) -> Result<(), EngineError> {
        self.export_image(image, to).await
    }

    async fn ensure_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError> {
        self.ensure_app_volume(app, volume).await
    }

    async fn volumes(&self, app: &AppName) -> Result<Vec<String>, EngineError> {
        self.app_volumes(app).await
    }

    async fn remove_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError> {
        self.remove_app_volume(app, volume).await
    }

    async fn run(&self, request: RunRequest, io: RunIo) -> Result<i64, EngineError> {
        self.run_one_off(request, io).await
    }
}

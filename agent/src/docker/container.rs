//! Containers: made once under their derived name, and every change doable again.
//!
//! Deliberately absent: a decision about when (the driver's) and what a container may do (`host_config`).

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerStatsResponse,
    EndpointIpamConfig, EndpointSettings, HealthConfig, NetworkSettings, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StatsOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::{TryStreamExt, stream};
use refloat_model::{AppName, ImageDigest, InstanceName, ProcessName};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::connect::{
    CHANGE_TIMEOUT_MS, FREEZE_TIMEOUT_MS, Fault, READ_TIMEOUT_MS, START_TIMEOUT_MS, STOP_MARGIN_MS, next_within, within,
};
use super::engine::{EngineError, InstanceSpec, Observed, Restart, RunState, Secrets};
use super::host_config::{host_config, restart_of, restart_update};
use super::labels::{self, HostLabel, filter, unhex};
use super::real::DockerEngine;

/// How many containers are looked at at once when all are listed.
const INSPECT_AT_ONCE: usize = 8;

/// What two containers under one name have to agree on to be one instance.
const IDENTITY: [&str; 4] = [labels::APP, labels::PROCESS, labels::SPEC, labels::HOST];

impl DockerEngine {
    pub(super) async fn create_container(&self, spec: &InstanceSpec) -> Result<(), EngineError> {
        const WHAT: &str = "to create the container";
        let wanted = self.host.of_instance(spec);
        match self.try_create(WHAT, spec, create_body(spec, &self.host, wanted.clone())).await {
            Err(fault) if fault.is_status(409) => self.adopt(WHAT, spec, &wanted).await,
            Err(fault) if fault.is_status(404) => Err(EngineError::NotFound(format!("the image {}", spec.image))),
            answer => answer.map_err(|f| without_values(f.refused(WHAT), &spec.env)),
        }
    }

    async fn adopt(
        &self,
        what: &'static str,
        spec: &InstanceSpec,
        wanted: &HashMap<String, String>,
    ) -> Result<(), EngineError> {
        let found = self.raw_inspect(spec.name.as_str()).await?;
        let labels = found.and_then(|c| c.config).and_then(|c| c.labels).unwrap_or_default();
        if IDENTITY.iter().all(|key| labels.get(*key) == wanted.get(*key)) {
            return Ok(());
        }
        let message = format!(
            "there is a container named {} that is not this one. Look at it with: docker inspect {}",
            spec.name, spec.name
        );
        Err(EngineError::Refused { what, message })
    }

    pub(super) async fn try_create(
        &self,
        what: &'static str,
        spec: &InstanceSpec,
        body: ContainerCreateBody,
    ) -> Result<(), Fault> {
        let options = CreateContainerOptionsBuilder::default().name(spec.name.as_str()).build();
        let call = self.docker().await?.create_container(Some(options), body);
        within(what, CHANGE_TIMEOUT_MS, call).await.map(|_| ())
    }

    pub(super) async fn start_container(&self, name: &InstanceName) -> Result<(), EngineError> {
        const WHAT: &str = "to start the container";
        let docker = self.docker().await?;
        let call = docker.start_container(name.as_str(), None::<StartContainerOptions>);
        match within(WHAT, START_TIMEOUT_MS, call).await {
            Err(fault) if fault.is_status(409) && self.is(name, RunState::Paused).await? => {
                self.unpause_container(name).await
            }
            answer => answer.map_err(|f| f.about(WHAT, name.as_str())),
        }
    }

    pub(super) async fn stop_container(&self, name: &InstanceName, grace_ms: u32) -> Result<(), EngineError> {
        const WHAT: &str = "to stop the container";
        if self.is(name, RunState::Paused).await? {
            self.unpause_container(name).await?;
        }
        let grace_s = i32::try_from(grace_ms.div_ceil(1_000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(grace_s).build();
        let call = self.docker().await?.stop_container(name.as_str(), Some(options));
        let timeout_ms = grace_ms.saturating_add(STOP_MARGIN_MS);
        within(WHAT, timeout_ms, call).await.map_err(|f| f.about(WHAT, name.as_str()))
    }

    pub(super) async fn pause_container(&self, name: &InstanceName) -> Result<(), EngineError> {
        const WHAT: &str = "to pause the container";
        let call = self.docker().await?.pause_container(name.as_str());
        match within(WHAT, FREEZE_TIMEOUT_MS, call).await {
            Err(Fault::Answered { .. }) if self.is(name, RunState::Paused).await? => Ok(()),
            answer => answer.map_err(|f| f.about(WHAT, name.as_str())),
        }
    }

    pub(super) async fn unpause_container(&self, name: &InstanceName) -> Result<(), EngineError> {
        const WHAT: &str = "to unpause the container";
        let call = self.docker().await?.unpause_container(name.as_str());
        match within(WHAT, FREEZE_TIMEOUT_MS, call).await {
            Err(Fault::Answered { .. }) if self.is(name, RunState::Running).await? => Ok(()),
            answer => answer.map_err(|f| f.about(WHAT, name.as_str())),
        }
    }

    pub(super) async fn remove_container(&self, name: &InstanceName) -> Result<(), EngineError> {
        const WHAT: &str = "to remove the container";
        let Some(found) = self.raw_inspect(name.as_str()).await? else { return Ok(()) };
        if !self.host.owns(&found.config.and_then(|c| c.labels).unwrap_or_default()) {
            let message = format!("{name} belongs to another agent or to nobody");
            return Err(EngineError::Refused { what: WHAT, message });
        }
        self.remove_any(WHAT, name.as_str()).await
    }

    /// Removes a container whoever made it, with the volumes that have no name.
    pub(super) async fn remove_any(&self, what: &'static str, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match within(what, CHANGE_TIMEOUT_MS, self.docker().await?.remove_container(name, Some(options))).await {
            Err(fault) if fault.is_status(404) => Ok(()),
            // Somebody removes it already: the engine answers once it is gone.
            Err(fault) if fault.is_status(409) => self.wait_gone(what, name).await,
            answer => answer.map_err(|f| f.refused(what)),
        }
    }

    async fn wait_gone(&self, what: &'static str, name: &str) -> Result<(), EngineError> {
        use bollard::query_parameters::WaitContainerOptionsBuilder;
        let options = WaitContainerOptionsBuilder::default().condition("removed").build();
        let mut answers = Box::pin(self.docker().await?.wait_container(name, Some(options)));
        // Its exit code comes as an error and says nothing about the removal; whether it is there does.
        let _ = next_within(what, CHANGE_TIMEOUT_MS, &mut answers).await;
        match self.raw_inspect(name).await? {
            None => Ok(()),
            Some(_) => Err(EngineError::Refused { what, message: format!("{name} is still there") }),
        }
    }

    pub(super) async fn set_restart_policy(&self, name: &InstanceName, restart: Restart) -> Result<(), EngineError> {
        const WHAT: &str = "to change the restart policy";
        let found = self.raw_inspect(name.as_str()).await?;
        let current = found.ok_or_else(|| EngineError::NotFound(name.to_string()))?.host_config.unwrap_or_default();
        let call = self.docker().await?.update_container(name.as_str(), restart_update(&current, restart));
        within(WHAT, CHANGE_TIMEOUT_MS, call).await.map_err(|f| f.about(WHAT, name.as_str()))
    }

    pub(super) async fn observe(&self, name: &InstanceName) -> Result<Option<Observed>, EngineError> {
        Ok(self.raw_inspect(name.as_str()).await?.and_then(|found| observed(found, &self.host)))
    }

    pub(super) async fn observe_all(&self) -> Result<Vec<Observed>, EngineError> {
        const WHAT: &str = "to list the containers";
        let filters = filter(labels::HOST, self.host.as_str());
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = within(WHAT, READ_TIMEOUT_MS, self.docker().await?.list_containers(Some(options)))
            .await
            .map_err(|f| f.refused(WHAT))?;
        let ids = found.into_iter().filter_map(|c| c.id).map(Ok::<_, EngineError>);
        let inspected: Vec<_> = stream::iter(ids)
            .map_ok(|id| async move { self.raw_inspect(&id).await })
            .try_buffer_unordered(INSPECT_AT_ONCE)
            .try_collect()
            .await?;
        let mut all: Vec<_> = inspected.into_iter().flatten().filter_map(|c| observed(c, &self.host)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    pub(super) async fn memory_of(&self, name: &InstanceName) -> Result<u64, EngineError> {
        const WHAT: &str = "its memory";
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stats = Box::pin(self.docker().await?.stats(name.as_str(), Some(options)));
        let stats = next_within(WHAT, READ_TIMEOUT_MS, &mut stats).await.map_err(|f| f.about(WHAT, name.as_str()))?;
        Ok(stats.as_ref().map_or(0, memory_in_use))
    }

    pub(super) async fn raw_inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        const WHAT: &str = "to look at the container";
        let call = self.docker().await?.inspect_container(name, None::<InspectContainerOptions>);
        match within(WHAT, READ_TIMEOUT_MS, call).await {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.is_status(404) => Ok(None),
            Err(fault) => Err(fault.refused(WHAT)),
        }
    }

    async fn is(&self, name: &InstanceName, wanted: RunState) -> Result<bool, EngineError> {
        let found = self.raw_inspect(name.as_str()).await?;
        Ok(found.and_then(|c| c.state).is_some_and(|state| run_state(&state) == wanted))
    }
}

/// What the engine is asked to make.
pub(super) fn create_body(
    spec: &InstanceSpec,
    host: &HostLabel,
    labels: HashMap<String, String>,
) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.to_string()),
        cmd: (!spec.command.is_empty()).then(|| spec.command.clone()),
        env: Some(spec.env.0.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels),
        // The agent probes from where the edge connects; the image's own check would run beside it for nothing.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host_config(spec, host)),
        networking_config: Some(networking(spec, host)),
        ..ContainerCreateBody::default()
    }
}

/// `0.0.0.0` leaves the address to the engine: a one-off container needs none that is known.
fn networking(spec: &InstanceSpec, host: &HostLabel) -> NetworkingConfig {
    let fixed = EndpointIpamConfig { ipv4_address: Some(spec.ip.to_string()), ..EndpointIpamConfig::default() };
    let endpoint = EndpointSettings {
        ipam_config: (!spec.ip.is_unspecified()).then_some(fixed),
        aliases: Some(spec.aliases.clone()),
        ..EndpointSettings::default()
    };
    NetworkingConfig { endpoints_config: Some(HashMap::from([(host.network(&spec.app), endpoint)])) }
}

/// The engine quotes what it refuses, and that may be a variable.
pub(super) fn without_values(error: EngineError, env: &Secrets) -> EngineError {
    let EngineError::Refused { what, mut message } = error else { return error };
    for value in env.0.values().filter(|value| !value.is_empty()) {
        message = message.replace(value.as_str(), "…");
    }
    EngineError::Refused { what, message }
}

/// `None` for what is not this agent's or has labels that no instance has.
fn observed(found: ContainerInspectResponse, host: &HostLabel) -> Option<Observed> {
    let labels = found.config.and_then(|c| c.labels).unwrap_or_default();
    if !host.owns(&labels) {
        return None;
    }
    let label = |key: &str| labels.get(key).map(String::as_str);
    let app = AppName::new(label(labels::APP)?).ok()?;
    let state = found.state.unwrap_or_default();
    Some(Observed {
        name: InstanceName::parse(found.name?.trim_start_matches('/')).ok()?,
        process: ProcessName::new(label(labels::PROCESS)?).ok()?,
        release: label(labels::RELEASE)?.parse().ok()?,
        state: run_state(&state),
        image: ImageDigest::new(found.image?).ok()?,
        ip: found.network_settings.and_then(|n| address(&n, &host.network(&app))),
        spec_digest: unhex(label(labels::SPEC)?)?,
        restart: restart_of(found.host_config.and_then(|c| c.restart_policy).as_ref()),
        restart_count: found.restart_count.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        started_at_ms: state.started_at.as_deref().map_or(0, unix_ms),
        app,
    })
}

fn address(settings: &NetworkSettings, network: &str) -> Option<Ipv4Addr> {
    let endpoint = settings.networks.as_ref()?.get(network)?;
    let fixed = endpoint.ipam_config.as_ref().and_then(|c| c.ipv4_address.as_deref());
    [fixed, endpoint.ip_address.as_deref()].into_iter().flatten().find_map(|text| text.parse().ok())
}

fn run_state(state: &ContainerState) -> RunState {
    use ContainerStateStatusEnum as Status;
    let exit = || match state.oom_killed {
        Some(true) => RunState::OutOfMemory,
        _ => RunState::Exited(state.exit_code.unwrap_or(-1)),
    };
    match state.status.unwrap_or(Status::EMPTY) {
        Status::CREATED => RunState::Created,
        Status::RUNNING | Status::STOPPING => RunState::Running,
        Status::PAUSED => RunState::Paused,
        Status::RESTARTING => RunState::Restarting,
        Status::EXITED => exit(),
        Status::REMOVING | Status::DEAD | Status::EMPTY => RunState::Dead,
    }
}

/// Unix time in milliseconds; 0 for the year 1 that the engine writes for "never".
pub(super) fn unix_ms(text: &str) -> u64 {
    let at = OffsetDateTime::parse(text, &Rfc3339).map_or(0, |at| at.unix_timestamp_nanos() / 1_000_000);
    u64::try_from(at).unwrap_or(0)
}

/// Without the page cache that the kernel would give back at once, as `docker stats` counts.
fn memory_in_use(stats: &ContainerStatsResponse) -> u64 {
    let Some(memory) = &stats.memory_stats else { return 0 };
    let counted = |key: &str| memory.stats.as_ref().and_then(|s| s.get(key)).copied();
    let cache = counted("total_inactive_file").or_else(|| counted("inactive_file")).unwrap_or(0);
    memory.usage.unwrap_or(0).saturating_sub(cache)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_refusal_never_quotes_a_value() {
        let env = Secrets(BTreeMap::from([("KEY".to_owned(), "s3cret".to_owned()), ("E".to_owned(), String::new())]));
        let error = EngineError::Refused { what: "x", message: "invalid variable: KEY=s3cret".to_owned() };
        assert_eq!(without_values(error, &env).to_string(), "Docker refused x: invalid variable: KEY=…");
    }

    #[test]
    fn a_container_that_never_started_started_at_zero() {
        assert_eq!(unix_ms("0001-01-01T00:00:00Z"), 0);
        assert_eq!(unix_ms("1970-01-01T00:00:01.234567891Z"), 1_234);
        assert_eq!(unix_ms("nonsense"), 0);
    }

    #[test]
    fn a_container_that_was_killed_at_its_memory_limit_is_told_from_one_that_failed() {
        let exited = |oom| ContainerState {
            status: Some(ContainerStateStatusEnum::EXITED),
            oom_killed: Some(oom),
            exit_code: Some(137),
            ..ContainerState::default()
        };
        assert_eq!(run_state(&exited(true)), RunState::OutOfMemory);
        assert_eq!(run_state(&exited(false)), RunState::Exited(137));
    }
}

//! Making a release's instances ready: observed, created, started or woken, and healthy by probe.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use refloat_model::planning::{self, Ready, Seen};
use refloat_model::{
    AppState, Backend, Event, Failure, Health, InstanceName, InstanceRecord, Phase, Process, ProcessName, ReleaseRecord,
};
use tokio::time::Instant;

use super::driver::{Driver, routed_instances};
use super::handover::Handed;
use super::ports::Settings;
use super::refused_right;
use super::stop::Stop;
use super::update::Update;
use crate::docker::{InstanceSpec, NetworkSpec, RunState};
use crate::probe;

/// How long a woken or started standby may take to answer before a new instance takes its place.
const STANDBY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a process without a port must run to count as healthy.
const PORTLESS_SETTLES: Duration = Duration::from_secs(2);
/// First and longest pause between two probes: quick apps are seen quickly, slow ones are not hammered.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// How often a candidate's container is looked at while its probe fails.
const INSPECT_EVERY: Duration = Duration::from_millis(500);
/// Exit code of what was ended by SIGKILL.
const KILLED: i64 = 137;
/// Lines of output that go with a failure.
const EVIDENCE_LINES: u32 = 20;

/// A process's instances, by process.
pub(super) type Instances = Vec<(ProcessName, InstanceRecord)>;

impl Driver {
    /// Makes every instance of a release ready; exclusive ones by handover, last.
    pub(super) async fn make_ready(
        &mut self,
        record: &ReleaseRecord,
        fresh: bool,
        handed: &mut Vec<Handed>,
    ) -> Result<Instances, Stop> {
        let mut instances = Instances::new();
        let processes: Vec<Process> = record.release.instance_processes().cloned().collect();
        if !processes.is_empty() {
            self.ensure_network(&processes).await?;
        }
        for process in processes.iter().filter(|p| !p.exclusive) {
            let instance = self.ready(record, process, fresh).await?;
            instances.push((process.name.clone(), instance));
        }
        for process in processes.iter().filter(|p| p.exclusive) {
            let instance = self.hand_over(record, process, fresh, handed).await?;
            instances.push((process.name.clone(), instance));
        }
        Ok(instances)
    }

    async fn ensure_network(&mut self, processes: &[Process]) -> Result<(), Stop> {
        // A release whose instances are all there needs no look at its network: this is the warm path.
        let state = self.app_state().await?;
        if state.instances.len() >= processes.len() && state.serving.is_some() {
            return Ok(());
        }
        self.ensure_network_now().await
    }

    async fn ensure_network_now(&mut self) -> Result<(), Stop> {
        let state = self.app_state().await?;
        let network = NetworkSpec {
            app: self.context.app.clone(),
            base: self.context.settings.network.base_of(state.subnet),
            mtu: self.context.settings.mtu,
        };
        let engine = self.context.ports.engine.clone();
        self.cancellable(engine.ensure_network(&network)).await??;
        Ok(())
    }

    /// Makes the instance of one process ready.
    pub(super) async fn ready(
        &mut self,
        record: &ReleaseRecord,
        process: &Process,
        fresh: bool,
    ) -> Result<InstanceRecord, Stop> {
        let mut replace = self.wants_new(record, process, fresh).await?;
        loop {
            let recorded = self.recorded(record, process).await?;
            let seen = match &recorded {
                Some(instance) => self.observe(&instance.name).await?,
                None => Seen::Missing,
            };
            let ready = planning::readiness(recorded.is_some(), seen, replace);
            let instance = match self.carry_out(ready, record, process, recorded).await {
                // A standby that Docker cannot bring back is as good as one that does not answer.
                Err(Stop::Failed(failure)) if matches!(ready, Ready::Wake | Ready::Start) && !replace => {
                    self.say_replaced(process, &failure);
                    replace = true;
                    continue;
                }
                carried_out => carried_out?,
            };
            let is_new = matches!(ready, Ready::New | Ready::Recreate);
            match self.wait_healthy(&instance, process, is_new).await? {
                Ok(()) => return Ok(instance),
                Err(failure) if is_new => return Err(Stop::Failed(failure)),
                Err(failure) => {
                    self.say_replaced(process, &failure);
                    replace = true;
                }
            }
        }
    }

    fn say_replaced(&self, process: &Process, failure: &Failure) {
        let text = format!("{} did not come back ({}); starting a new one", process.name, failure.message);
        self.say(Update::Note { warn: true, text });
    }

    /// Whether a restart still has to make its new instance: it has when the newest one is the one that is routed.
    async fn wants_new(&self, record: &ReleaseRecord, process: &Process, fresh: bool) -> Result<bool, Stop> {
        if !fresh {
            return Ok(false);
        }
        let host = self.context.ports.journal.host().await?;
        let routed = routed_instances(host.table.app(&self.context.app));
        let newest = self.recorded(record, process).await?;
        let before = newest.is_none_or(|i| routed.contains(&i.name) || process.routes.is_empty());
        Ok(before)
    }

    async fn recorded(&self, record: &ReleaseRecord, process: &Process) -> Result<Option<InstanceRecord>, Stop> {
        let spec = planning::runtime_spec(self.context.settings.host_id, &record.release, process);
        let state = self.app_state().await?;
        Ok(planning::newest_instance(&state.instances, &spec).cloned())
    }

    /// What a recorded instance is seen to do.
    pub(super) async fn observe(&self, name: &InstanceName) -> Result<Seen, Stop> {
        if self.is_doomed(name) {
            return Ok(Seen::Broken);
        }
        let engine = &self.context.ports.engine;
        let observed = self.cancellable(engine.inspect(name)).await??;
        Ok(match observed.map(|o| o.state) {
            None => Seen::Missing,
            Some(RunState::Running) => Seen::Running,
            Some(RunState::Paused) => Seen::Paused,
            Some(RunState::Created | RunState::Exited(_) | RunState::OutOfMemory) => Seen::Stopped,
            Some(RunState::Restarting | RunState::Dead) => Seen::Broken,
        })
    }

    async fn carry_out(
        &mut self,
        ready: Ready,
        record: &ReleaseRecord,
        process: &Process,
        recorded: Option<InstanceRecord>,
    ) -> Result<InstanceRecord, Stop> {
        let engine = self.context.ports.engine.clone();
        let instance = match (ready, recorded) {
            (Ready::Probe, Some(instance)) => instance,
            (Ready::Wake, Some(instance)) => {
                self.cancellable(engine.unpause(&instance.name)).await??;
                instance
            }
            (Ready::Start, Some(instance)) => {
                self.cancellable(engine.start(&instance.name)).await??;
                instance
            }
            (Ready::Recreate, Some(instance)) => {
                self.create(record, process, &instance).await?;
                instance
            }
            (_, _) => {
                let instance = self.plan_instance(record, process).await?;
                self.create(record, process, &instance).await?;
                instance
            }
        };
        Ok(instance)
    }

    /// Records a new instance with its address before anything of it exists.
    async fn plan_instance(&self, record: &ReleaseRecord, process: &Process) -> Result<InstanceRecord, Stop> {
        let state = self.app_state().await?;
        let host = self.context.ports.journal.host().await?;
        let spec = planning::runtime_spec(self.context.settings.host_id, &record.release, process);
        let attempt = state.attempt.saturating_add(1);
        let mut taken: Vec<[u8; 4]> = state.instances.iter().map(|i| i.ip).collect();
        let routed = host.table.apps.iter().flat_map(|a| &a.routes).filter_map(|r| r.target.address());
        taken.extend(routed.map(|a| a.ip().octets()));
        let base = self.context.settings.network.base_of(state.subnet).octets();
        let ip = planning::free_address(base, &taken).ok_or_else(|| {
            Stop::failed("NO_ADDRESS", "every address of the app's network is in use", "refloat restart")
        })?;
        let Backend::Instance { port, .. } = process.backend else {
            return Err(Stop::failed("NOT_A_CONTAINER", "a process of static files has no container", ""));
        };
        let instance = InstanceRecord {
            name: InstanceName::derive(&self.context.app, &process.name, &spec, attempt),
            process: process.name.clone(),
            release: record.number,
            spec,
            attempt,
            ip,
            port,
        };
        self.append(Event::InstancePlanned { app: self.context.app.clone(), instance: instance.clone() }).await?;
        Ok(instance)
    }

    async fn create(
        &mut self,
        record: &ReleaseRecord,
        process: &Process,
        instance: &InstanceRecord,
    ) -> Result<(), Stop> {
        self.ensure_network_now().await?;
        let spec = instance_spec(&self.context, record, process, instance).await?;
        let engine = self.context.ports.engine.clone();
        for (volume, _) in &spec.volumes {
            self.cancellable(engine.ensure_volume(&self.context.app, volume)).await??;
        }
        self.cancellable(engine.create(&spec)).await??;
        self.cancellable(engine.start(&instance.name)).await??;
        Ok(())
    }

    /// Waits until an instance is healthy; the inner result says why it is not.
    #[tracing::instrument(name = "step", skip_all, fields(step = Phase::Gating.word()))]
    pub(super) async fn wait_healthy(
        &mut self,
        instance: &InstanceRecord,
        process: &Process,
        is_new: bool,
    ) -> Result<Result<(), Failure>, Stop> {
        if is_new {
            self.enter(Phase::Gating, process.name.as_str());
        }
        let limit = if is_new {
            Duration::from_millis(process.health.start_timeout_ms.into())
        } else {
            STANDBY_TIMEOUT.min(Duration::from_millis(process.health.start_timeout_ms.into()))
        };
        if instance.port == 0 {
            return self.wait_settled(instance, process).await;
        }
        let host = visitor_host(&self.app_state().await?, &self.context.settings);
        let deadline = Instant::now() + limit;
        let mut pause = PROBE_PAUSE.0;
        let mut inspected = Instant::now();
        let address = SocketAddrV4::new(Ipv4Addr::from(instance.ip), instance.port);
        let gate = Passes::of(process, is_new);
        let mut passed = 0;
        loop {
            let probe = self.context.ports.probe.clone();
            let seen = self.cancellable(probe.probe(address, &gate.health, &host)).await?;
            passed = if gate.is_passed(&seen) { passed + 1 } else { 0 };
            if passed >= gate.wanted {
                return Ok(Ok(()));
            }
            if passed > 0 {
                continue;
            }
            if inspected.elapsed() >= INSPECT_EVERY {
                inspected = Instant::now();
                if let Some(ended) = self.ended(&instance.name, process).await? {
                    return Ok(Err(self.failure(instance, process, "EXITED", &ended).await));
                }
            }
            if Instant::now() >= deadline {
                let within = format!("did not get healthy within {} s: {seen}", limit.as_secs());
                return Ok(Err(self.failure(instance, process, "UNHEALTHY", &within).await));
            }
            self.cancellable(tokio::time::sleep(pause)).await?;
            pause = (pause * 2).min(PROBE_PAUSE.1);
        }
    }

    async fn wait_settled(
        &mut self,
        instance: &InstanceRecord,
        process: &Process,
    ) -> Result<Result<(), Failure>, Stop> {
        self.cancellable(tokio::time::sleep(PORTLESS_SETTLES)).await?;
        match self.ended(&instance.name, process).await? {
            Some(ended) => Ok(Err(self.failure(instance, process, "EXITED", &ended).await)),
            None => Ok(Ok(())),
        }
    }

    /// How a container ended, when it did.
    async fn ended(&self, name: &InstanceName, process: &Process) -> Result<Option<String>, Stop> {
        let observed = self.cancellable(self.context.ports.engine.inspect(name)).await??;
        let limit = format!(
            "its memory limit of {} MiB; [process.{}] memory in refloat.toml raises it",
            process.resources.memory_mib, process.name
        );
        Ok(match observed.map(|o| o.state) {
            None => Some("its container is gone".to_owned()),
            Some(RunState::Exited(0)) => Some("ended by itself (exit code 0): it must keep running".to_owned()),
            // Docker does not always learn that it was memory.
            Some(RunState::Exited(KILLED)) => Some(format!("was killed (exit code {KILLED}), most likely for {limit}")),
            Some(RunState::OutOfMemory) => Some(format!("was killed for going over {limit}")),
            Some(RunState::Exited(code)) => Some(format!("ended with exit code {code}")),
            Some(RunState::Dead) => Some("cannot be started by Docker".to_owned()),
            Some(RunState::Created | RunState::Running | RunState::Paused | RunState::Restarting) => None,
        })
    }

    async fn failure(&self, instance: &InstanceRecord, process: &Process, reason: &str, what: &str) -> Failure {
        let tail = self.context.ports.engine.tail(&instance.name, EVIDENCE_LINES).await.unwrap_or_default();
        let release = self.deployment.release.map(|n| format!(" --release {n}")).unwrap_or_default();
        let lines: Vec<String> = tail.into_iter().map(|l| l.text).collect();
        let refused = refused_right::hint(process, &lines).map(|hint| format!(". {hint}")).unwrap_or_default();
        Failure {
            reason: reason.to_owned(),
            message: format!("{} {what}{refused}", process.name),
            next_command: format!("refloat logs {}{release}", self.context.app),
            lines,
        }
    }
}

/// What an instance must answer, and how often in a row.
struct Passes {
    health: Health,
    /// Whether an answer with any status will do.
    any_status: bool,
    wanted: u32,
}

impl Passes {
    /// A new instance passes its declared check. One that slept must answer requests, twice: the kernel accepts
    /// connections for a process that is about to end because the world went on without it (its database hung up), and
    /// such a process may get one answer out.
    fn of(process: &Process, is_new: bool) -> Self {
        let any_status = !is_new && process.health.path.is_none();
        let path = process.health.path.clone().or_else(|| any_status.then(|| "/".to_owned()));
        let wanted = if is_new { 1 } else { 2 };
        Self { health: Health { path, ..process.health.clone() }, any_status, wanted }
    }

    fn is_passed(&self, seen: &probe::Seen) -> bool {
        seen.is_healthy() || (self.any_status && matches!(seen, probe::Seen::Answered(_)))
    }
}

/// The name that a visitor uses: apps refuse names that they do not know.
pub(super) fn visitor_host(state: &AppState, settings: &Settings) -> String {
    state.domains.first().map_or_else(|| settings.public_host.clone(), ToString::to_string)
}

/// Everything that a container is made from.
pub(super) async fn instance_spec(
    context: &super::driver::Context,
    record: &ReleaseRecord,
    process: &Process,
    instance: &InstanceRecord,
) -> Result<InstanceSpec, Stop> {
    let Backend::Instance { image, command, port, hardening, writable_root, capabilities } = &process.backend else {
        return Err(Stop::failed("NOT_A_CONTAINER", "a process of static files has no container", ""));
    };
    let env = context.ports.journal.env(&context.app, &record.release.env).await?.unwrap_or_default();
    let mut env = context.ports.vault.open(&context.app, &env).await?;
    if *port != 0 {
        env.0.entry("PORT".to_owned()).or_insert_with(|| port.to_string());
    }
    Ok(InstanceSpec {
        name: instance.name.clone(),
        app: context.app.clone(),
        process: process.name.clone(),
        release: instance.release,
        image: image.clone(),
        command: command.clone(),
        env,
        ip: Ipv4Addr::from(instance.ip),
        aliases: vec![format!("{}.{}.internal", process.name, instance.release)],
        resources: process.resources,
        hardening: *hardening,
        writable_root: *writable_root,
        capabilities: capabilities.clone(),
        volumes: process.volumes.iter().map(|v| (v.name.to_string(), v.path.clone())).collect(),
        spec_digest: instance.spec,
    })
}

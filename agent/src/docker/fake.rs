//! A container engine in memory, held to the real one by the contract suite. For tests; never shipped.
//!
//! [`FakeDocker`] is the engine: it outlives agents, as Docker does. [`FakeDocker::agent`] is one agent's view of it.
//! Everything that takes time takes tokio's, so that a paused clock decides; nothing runs in the background. What a
//! container does is scripted per image ([`Behaviour`]), or read from its command where that is a small shell script.
//! What goes wrong is planned per call ([`Fault`]).

mod behaviour;
mod container;
mod fault;
mod image;
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use refloat_model::{AppName, ImageDigest, InstanceName, ReleaseNumber};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use behaviour::Behaviour;
use container::{Clock, Container};
use fault::{At, Faults};
pub use fault::{Call, Fault};
use image::{Image, Recipe};
use shell::Act;

use super::engine::{
    BuildOutput, BuildRequest, Engine, EngineError, EngineInfo, ImageInfo, InstanceSpec, LogLine, NetworkSpec,
    Observed, Restart, RunIo, RunRequest, RunState,
};
use super::labels::HostLabel;

/// The folder that it says its images are in.
pub const DATA_ROOT: &str = "/fake/docker";

/// What a call that timed out says it waited.
const TIMEOUT_MS: u32 = 60_000;

/// The engine. Cloning it is another handle on the same one.
#[derive(Debug, Clone)]
pub struct FakeDocker {
    daemon: Arc<Mutex<Daemon>>,
    changes: watch::Sender<u64>,
    crashes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Daemon {
    born: Instant,
    up: bool,
    containers: BTreeMap<InstanceName, Container>,
    networks: BTreeMap<(String, AppName), Ipv4Addr>,
    volumes: BTreeSet<(String, AppName, String)>,
    images: BTreeMap<ImageDigest, Image>,
    built: BTreeSet<[u8; 32]>,
    faults: Faults,
}

/// What an address answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nobody has the address, or nothing listens on the port.
    Refused,
    /// The container is paused.
    Silent,
    /// Something listens and answers requests with this status.
    Status(u16),
}

impl Default for FakeDocker {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeDocker {
    /// An engine that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        let daemon = Daemon {
            born: Instant::now(),
            up: true,
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeSet::new(),
            images: BTreeMap::new(),
            built: BTreeSet::new(),
            faults: Faults::default(),
        };
        Self { daemon: Arc::new(Mutex::new(daemon)), changes: watch::Sender::new(0), crashes: watch::Sender::new(0) }
    }

    /// One agent's view. A second one with the same id is the same agent after a restart.
    #[must_use]
    pub fn agent(&self, host_id: [u8; 16]) -> FakeEngine {
        FakeEngine { docker: self.clone(), host: HostLabel::new(host_id).as_str().to_owned() }
    }

    /// An image whose containers behave like this, whatever their command. The same name is the same image.
    pub fn image(&self, name: &str, behaviour: Behaviour) -> ImageDigest {
        let digest = image::digest_of(name.as_bytes());
        let mut image = Image::empty();
        image.info.exposed_ports = Some(behaviour.port).filter(|port| *port != 0).into_iter().collect();
        image.behaviour = Some(behaviour);
        self.lock().images.insert(digest.clone(), image);
        digest
    }

    /// The next call of this kind goes wrong.
    pub fn fail_next(&self, call: Call, fault: Fault) {
        self.lock().faults.plan(At::Next(call), fault);
    }

    /// The n-th effect, counted from 0 since the engine was made, goes wrong.
    pub fn fail_effect(&self, n: u64, fault: Fault) {
        self.lock().faults.plan(At::Effect(n), fault);
    }

    /// How many calls have changed something, or tried to.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.lock().faults.effects()
    }

    /// How often this was called.
    #[must_use]
    pub fn count(&self, call: Call) -> usize {
        self.lock().faults.calls().iter().filter(|made| **made == call).count()
    }

    /// Every call so far, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().faults.calls().to_vec()
    }

    /// Returns when a planned crash has struck. The test then drops the agent and makes another one.
    pub async fn crashed(&self) {
        let mut crashes = self.crashes.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _ = crashes.wait_for(|n| *n > 0).await;
        self.crashes.send_replace(0);
    }

    /// Takes the engine down or up. Containers go on, as with live-restore.
    pub fn set_up(&self, up: bool) {
        self.lock().up = up;
        self.changed();
    }

    /// Restarts the host: what the engine starts by itself runs, the rest has ended.
    pub fn reboot(&self) {
        let mut daemon = self.lock();
        let clock = daemon.clock();
        for container in daemon.containers.values_mut() {
            let was_up = container.is_up(clock);
            container.end(RunState::Exited(137), clock);
            if was_up && container.restart == Restart::UnlessStopped {
                container.start(clock);
            }
        }
        drop(daemon);
        self.changed();
    }

    /// Ends a container from outside of the agent: `docker kill`, the OOM killer.
    pub fn end(&self, name: &InstanceName, how: RunState) {
        let mut daemon = self.lock();
        let clock = daemon.clock();
        if let Some(container) = daemon.containers.get_mut(name) {
            container.end(how, clock);
        }
        drop(daemon);
        self.changed();
    }

    /// What a connection to the address sees now.
    #[must_use]
    pub fn answer(&self, address: SocketAddrV4) -> Answer {
        let mut daemon = self.lock();
        let clock = daemon.clock();
        for container in daemon.containers.values_mut().filter(|c| c.spec.ip == *address.ip()) {
            match container.state(clock) {
                RunState::Running if container.listens(address.port(), clock) => {
                    return Answer::Status(container.behaviour.status);
                }
                RunState::Paused if container.behaviour.port == address.port() => return Answer::Silent,
                _ => {}
            }
        }
        Answer::Refused
    }

    /// Whether something answers at the address.
    #[must_use]
    pub fn is_listening(&self, ip: Ipv4Addr, port: u16) -> bool {
        matches!(self.answer(SocketAddrV4::new(ip, port)), Answer::Status(_))
    }

    /// The tags of an image.
    #[must_use]
    pub fn tags(&self, digest: &ImageDigest) -> Vec<String> {
        self.lock().images.get(digest).map(|image| image.tags.iter().cloned().collect()).unwrap_or_default()
    }

    /// The specification that a container was made from, environment included.
    #[must_use]
    pub fn spec(&self, name: &InstanceName) -> Option<InstanceSpec> {
        self.lock().containers.get(name).map(|container| container.spec.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Daemon> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }
}

impl Daemon {
    fn clock(&self) -> Clock {
        Clock { now: Instant::now(), born: self.born }
    }

    fn container(&mut self, name: &InstanceName) -> Result<&mut Container, EngineError> {
        self.containers.get_mut(name).ok_or_else(|| EngineError::NotFound(name.to_string()))
    }

    fn behaviour(&self, spec: &InstanceSpec) -> Behaviour {
        let image = self.images.get(&spec.image);
        let scripted = image.and_then(|image| image.behaviour.clone());
        let port = image.and_then(|image| image.info.exposed_ports.first().copied()).unwrap_or(8080);
        scripted
            .or_else(|| shell::acts_of(&spec.command).map(|acts| shell::behaviour(&acts)))
            .unwrap_or_else(|| Behaviour::serving(port))
    }

    fn known_image(&self, digest: &ImageDigest) -> Result<&Image, EngineError> {
        self.images.get(digest).ok_or_else(|| EngineError::NotFound(format!("the image {digest}")))
    }
}

/// One agent's view of the fake engine.
#[derive(Debug, Clone)]
pub struct FakeEngine {
    docker: FakeDocker,
    host: String,
}

impl FakeEngine {
    /// A call that is done at once: faults, then the engine's own answer.
    async fn call<T>(
        &self,
        call: Call,
        act: impl FnOnce(&mut Daemon, Clock) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let fault = self.enter(call).await?;
        let answer = {
            let mut daemon = self.docker.lock();
            let clock = daemon.clock();
            act(&mut daemon, clock)
        };
        self.leave(fault, answer).await
    }

    /// What goes wrong before a call is done; answers what goes wrong after it.
    async fn enter(&self, call: Call) -> Result<Option<Fault>, EngineError> {
        tokio::task::yield_now().await;
        let (up, fault) = {
            let mut daemon = self.docker.lock();
            (daemon.up, daemon.faults.count(call))
        };
        match fault {
            _ if !up => Err(EngineError::Unreachable("the fake engine is down".to_owned())),
            Some(Fault::Before(error)) => Err(error),
            Some(Fault::CrashBefore) => self.crash().await,
            other => Ok(other),
        }
    }

    async fn leave<T>(&self, fault: Option<Fault>, answer: Result<T, EngineError>) -> Result<T, EngineError> {
        self.docker.changed();
        match fault {
            Some(Fault::After(error)) => Err(error),
            Some(Fault::TimeoutAfter) => {
                Err(EngineError::Timeout { what: "the fake engine's answer", timeout_ms: TIMEOUT_MS })
            }
            Some(Fault::CrashAfter) => self.crash().await,
            _ => answer,
        }
    }

    async fn crash<T>(&self) -> Result<T, EngineError> {
        self.docker.crashes.send_modify(|n| *n += 1);
        std::future::pending().await
    }

    /// Sends what the container has printed since the first `seen` lines; answers how many it has printed now.
    async fn send_since(
        &self,
        name: &InstanceName,
        seen: usize,
        since_ms: u64,
        to: &mpsc::Sender<LogLine>,
    ) -> Result<Followed, EngineError> {
        let (lines, up, next_change) = {
            let mut daemon = self.docker.lock();
            let clock = daemon.clock();
            let container = daemon.container(name)?;
            let (up, next) = (container.is_up(clock), container.next_change(clock));
            (container.lines.clone(), up, next)
        };
        for line in lines.iter().skip(seen).filter(|line| line.at_ms >= since_ms) {
            if to.send(line.clone()).await.is_err() {
                return Ok(Followed { seen: lines.len(), ended: true, next_change: None });
            }
        }
        Ok(Followed { seen: lines.len(), ended: !up, next_change })
    }

    async fn perform(&self, recipe: &Recipe, output: &mpsc::Sender<BuildOutput>) -> Result<(), EngineError> {
        let total = u32::try_from(recipe.instructions.len()).unwrap_or(u32::MAX);
        for (instruction, done) in recipe.instructions.iter().zip(0..) {
            let cached = !self.docker.lock().built.insert(instruction.chain);
            let text = instruction.text.clone();
            let _ = output.send(BuildOutput::Step { text, done, total, cached }).await;
            if cached {
                continue;
            }
            let result = run_step(&instruction.text, &instruction.acts, output).await;
            if result.is_err() {
                self.docker.lock().built.remove(&instruction.chain);
            }
            result?;
        }
        Ok(())
    }
}

struct Followed {
    seen: usize,
    ended: bool,
    next_change: Option<Instant>,
}

async fn run_step(step: &str, acts: &[Act], output: &mpsc::Sender<BuildOutput>) -> Result<(), EngineError> {
    let mut lines = Vec::new();
    for act in acts {
        match act {
            Act::Say { text, .. } => {
                lines.push(text.clone());
                let _ = output.send(BuildOutput::Line(text.clone())).await;
            }
            Act::Wait(ms) => tokio::time::sleep(Duration::from_millis(*ms)).await,
            Act::Exit(0) => return Ok(()),
            Act::Exit(code) => {
                lines.push(format!("did not complete successfully: exit code: {code}"));
                let lines = lines.split_off(lines.len().saturating_sub(20));
                return Err(EngineError::BuildFailed { step: step.to_owned(), lines, out_of_memory: *code == 137 });
            }
            Act::CopyInput | Act::Serve(_) => {}
        }
    }
    Ok(())
}

async fn run_acts(acts: &[Act], mut io: RunIo) -> Result<i64, EngineError> {
    let gone = || refused("to run the command", "nobody reads its output any more; it was killed");
    for act in acts {
        match act {
            Act::Say { stderr, text } => {
                io.output.send((*stderr, format!("{text}\n").into_bytes())).await.map_err(|_| gone())?;
            }
            Act::Wait(ms) => tokio::select! {
                () = io.output.closed() => return Err(gone()),
                () = tokio::time::sleep(Duration::from_millis(*ms)) => {}
            },
            Act::CopyInput => {
                while let Some(bytes) = io.stdin.recv().await {
                    io.output.send((false, bytes)).await.map_err(|_| gone())?;
                }
            }
            Act::Exit(code) => return Ok(*code),
            Act::Serve(_) => {
                io.output.closed().await;
                return Err(gone());
            }
        }
    }
    Ok(0)
}

#[async_trait]
impl Engine for FakeEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.call(Call::Info, |_, _| {
            Ok(EngineInfo {
                version: "0.0.0-fake".to_owned(),
                live_restore: true,
                cgroup_driver: "cgroupfs".to_owned(),
                cgroup_version: 2,
                data_root: DATA_ROOT.into(),
            })
        })
        .await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), EngineError> {
        const WHAT: &str = "to create the app's network";
        let (key, base) = ((self.host.clone(), network.app.clone()), network.base);
        self.call(Call::EnsureNetwork, |daemon, _| match daemon.networks.get(&key) {
            Some(found) if *found == base => Ok(()),
            Some(found) => Err(refused(WHAT, &format!("the network has {found}, not {base}"))),
            None if daemon.networks.values().any(|taken| *taken == base) => {
                Err(refused(WHAT, &format!("{base}/26 is in use by another network of this server")))
            }
            None => {
                daemon.networks.insert(key, base);
                Ok(())
            }
        })
        .await
    }

    async fn remove_network(&self, app: &AppName) -> Result<(), EngineError> {
        let key = (self.host.clone(), app.clone());
        self.call(Call::RemoveNetwork, |daemon, clock| {
            let mut containers = daemon.containers.values_mut();
            if containers.any(|c| c.host == key.0 && c.spec.app == key.1 && c.is_up(clock)) {
                return Err(refused("to remove the app's network", "something is attached to it"));
            }
            daemon.networks.remove(&key);
            Ok(())
        })
        .await
    }

    async fn create(&self, spec: &InstanceSpec) -> Result<(), EngineError> {
        let host = self.host.clone();
        self.call(Call::Create, |daemon, _| {
            daemon.known_image(&spec.image)?;
            if let Some(found) = daemon.containers.get(&spec.name) {
                let same = found.host == host
                    && (&found.spec.app, &found.spec.process) == (&spec.app, &spec.process)
                    && found.spec.spec_digest == spec.spec_digest;
                let message = format!("there is a container named {} that is not this one", spec.name);
                return if same { Ok(()) } else { Err(refused("to create the container", &message)) };
            }
            let named = spec.volumes.iter().map(|(name, _)| (host.clone(), spec.app.clone(), name.clone()));
            daemon.volumes.extend(named);
            let behaviour = daemon.behaviour(spec);
            daemon.containers.insert(spec.name.clone(), Container::new(&host, spec.clone(), behaviour));
            Ok(())
        })
        .await
    }

    async fn start(&self, name: &InstanceName) -> Result<(), EngineError> {
        const WHAT: &str = "to start the container";
        self.call(Call::Start, |daemon, clock| {
            let container = daemon.container(name)?;
            let (ip, network) = (container.spec.ip, (container.host.clone(), container.spec.app.clone()));
            if !daemon.networks.contains_key(&network) {
                return Err(EngineError::NotFound(name.to_string()));
            }
            let mut others = daemon.containers.iter_mut().filter(|(other, _)| *other != name);
            if !ip.is_unspecified() && others.any(|(_, c)| c.spec.ip == ip && c.is_up(clock)) {
                return Err(refused(WHAT, "Address already in use"));
            }
            daemon.container(name)?.start(clock);
            Ok(())
        })
        .await
    }

    async fn stop(&self, name: &InstanceName, grace_ms: u32) -> Result<(), EngineError> {
        let fault = self.enter(Call::Stop).await?;
        let stubborn = {
            let mut daemon = self.docker.lock();
            let clock = daemon.clock();
            daemon.container(name).map(|c| c.is_up(clock) && c.behaviour.ignores_sigterm)
        };
        if stubborn == Ok(true) {
            tokio::time::sleep(Duration::from_millis(grace_ms.into())).await;
        }
        let answer = stubborn.map(|stubborn| {
            let mut daemon = self.docker.lock();
            let clock = daemon.clock();
            if let Ok(container) = daemon.container(name) {
                container.end(RunState::Exited(if stubborn { 137 } else { 143 }), clock);
            }
        });
        self.leave(fault, answer).await
    }

    async fn pause(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.call(Call::Pause, |daemon, clock| {
            let paused = daemon.container(name)?.pause(clock);
            if paused { Ok(()) } else { Err(refused("to pause the container", "it does not run")) }
        })
        .await
    }

    async fn unpause(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.call(Call::Unpause, |daemon, clock| {
            let runs = daemon.container(name)?.unpause(clock);
            if runs { Ok(()) } else { Err(refused("to unpause the container", "it is not paused")) }
        })
        .await
    }

    async fn remove(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.call(Call::Remove, |daemon, _| match daemon.containers.get(name) {
            Some(found) if found.host != self.host => {
                Err(refused("to remove the container", "it belongs to another agent"))
            }
            _ => {
                daemon.containers.remove(name);
                Ok(())
            }
        })
        .await
    }

    async fn set_restart(&self, name: &InstanceName, restart: Restart) -> Result<(), EngineError> {
        self.call(Call::SetRestart, |daemon, clock| {
            daemon.container(name)?.set_restart(restart, clock);
            Ok(())
        })
        .await
    }

    async fn inspect(&self, name: &InstanceName) -> Result<Option<Observed>, EngineError> {
        self.call(Call::Inspect, |daemon, clock| {
            let ours = daemon.containers.get_mut(name).filter(|container| container.host == self.host);
            Ok(ours.map(|container| container.observed(clock)))
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Observed>, EngineError> {
        self.call(Call::List, |daemon, clock| {
            let ours = daemon.containers.values_mut().filter(|container| container.host == self.host);
            Ok(ours.map(|container| container.observed(clock)).collect())
        })
        .await
    }

    async fn tail(&self, name: &InstanceName, lines: u32) -> Result<Vec<LogLine>, EngineError> {
        self.call(Call::Tail, |daemon, clock| {
            let container = daemon.container(name)?;
            container.state(clock);
            let skipped = container.lines.len().saturating_sub(usize::try_from(lines).unwrap_or(usize::MAX));
            Ok(container.lines[skipped..].to_vec())
        })
        .await
    }

    async fn follow(&self, name: &InstanceName, since_ms: u64, to: mpsc::Sender<LogLine>) -> Result<(), EngineError> {
        let fault = self.enter(Call::Follow).await?;
        let mut changes = self.docker.changes.subscribe();
        let mut seen = 0;
        let answer = loop {
            changes.mark_unchanged();
            let next = match self.send_since(name, seen, since_ms, &to).await {
                Ok(followed) if followed.ended => break Ok(()),
                Ok(followed) => followed,
                Err(error) => break Err(error),
            };
            seen = next.seen;
            tokio::select! {
                () = to.closed() => break Ok(()),
                // Missing a change is impossible: it was marked before the lines were read.
                _ = changes.changed() => {}
                () = until(next.next_change) => {}
            }
        };
        self.leave(fault, answer).await
    }

    async fn memory_bytes(&self, name: &InstanceName) -> Result<u64, EngineError> {
        self.call(Call::MemoryBytes, |daemon, clock| {
            let container = daemon.container(name)?;
            Ok(if container.is_up(clock) { container.behaviour.memory_bytes } else { 0 })
        })
        .await
    }

    async fn image(&self, digest: &ImageDigest) -> Result<Option<ImageInfo>, EngineError> {
        self.call(Call::Image, |daemon, _| Ok(daemon.images.get(digest).map(|image| image.info.clone()))).await
    }

    async fn keep_image(&self, digest: &ImageDigest, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        let tag = tag(&self.host, app, release);
        self.call(Call::KeepImage, |daemon, _| {
            daemon.known_image(digest)?;
            for image in daemon.images.values_mut() {
                image.tags.remove(&tag);
            }
            if let Some(image) = daemon.images.get_mut(digest) {
                image.tags.insert(tag);
            }
            Ok(())
        })
        .await
    }

    async fn release_image(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        let tag = tag(&self.host, app, release);
        self.call(Call::ReleaseImage, |daemon, _| {
            let Some((digest, image)) = daemon.images.iter_mut().find(|(_, image)| image.tags.contains(&tag)) else {
                return Ok(());
            };
            let (digest, last) = (digest.clone(), image.tags.len() == 1);
            if last && daemon.containers.values().any(|container| container.spec.image == digest) {
                return Err(refused("to remove the image", "a container is using it"));
            }
            image.tags.remove(&tag);
            if last {
                daemon.images.remove(&digest);
            }
            Ok(())
        })
        .await
    }

    async fn build(
        &self,
        request: BuildRequest,
        output: mpsc::Sender<BuildOutput>,
        cancel: CancellationToken,
    ) -> Result<ImageDigest, EngineError> {
        let fault = self.enter(Call::Build).await?;
        let recipe = image::read(&request.context, &request.dockerfile)?;
        let built = tokio::select! {
            () = cancel.cancelled() => Err(EngineError::Cancelled),
            built = self.perform(&recipe, &output) => built,
        };
        let answer = built.map(|()| {
            self.docker.lock().images.entry(recipe.digest.clone()).or_insert(recipe.image);
            recipe.digest
        });
        self.leave(fault, answer).await
    }

    async fn export(&self, image: &ImageDigest, to: mpsc::Sender<Vec<u8>>) -> Result<(), EngineError> {
        const CHUNK_BYTES: usize = 1_024;
        let archive = self.call(Call::Export, |daemon, _| daemon.known_image(image)?.archive()).await?;
        for chunk in archive.chunks(CHUNK_BYTES) {
            if to.send(chunk.to_vec()).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn ensure_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError> {
        let key = (self.host.clone(), app.clone(), volume.to_owned());
        self.call(Call::EnsureVolume, |daemon, _| {
            daemon.volumes.insert(key);
            Ok(())
        })
        .await
    }

    async fn volumes(&self, app: &AppName) -> Result<Vec<String>, EngineError> {
        self.call(Call::Volumes, |daemon, _| {
            let ours = daemon.volumes.iter().filter(|(host, of, _)| (host, of) == (&self.host, app));
            Ok(ours.map(|(_, _, name)| name.clone()).collect())
        })
        .await
    }

    async fn remove_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError> {
        let key = (self.host.clone(), app.clone(), volume.to_owned());
        self.call(Call::RemoveVolume, |daemon, _| {
            let mut users = daemon.containers.values().filter(|c| c.host == key.0 && c.spec.app == key.1);
            if users.any(|c| c.spec.volumes.iter().any(|(name, _)| *name == key.2)) {
                return Err(refused("to remove the volume", "a container is using it"));
            }
            daemon.volumes.remove(&key);
            Ok(())
        })
        .await
    }

    async fn run(&self, request: RunRequest, io: RunIo) -> Result<i64, EngineError> {
        let fault = self.enter(Call::Run).await?;
        let known = self.docker.lock().known_image(&request.spec.image).map(|_| ());
        let answer = match known {
            Ok(()) => run_acts(&shell::acts_of(&request.spec.command).unwrap_or_default(), io).await,
            Err(error) => Err(error),
        };
        self.leave(fault, answer).await
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn tag(host: &str, app: &AppName, release: ReleaseNumber) -> String {
    format!("{host}/{app}:{release}")
}

fn refused(what: &'static str, message: &str) -> EngineError {
    EngineError::Refused { what, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use refloat_model::{Hardening, Health, ProcessName, Resources};

    use super::*;
    use crate::docker::Secrets;
    use crate::probe::{FakeProbe, Probe, Seen};

    const HOST: [u8; 16] = [1; 16];
    const IP: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 2);

    fn spec(image: ImageDigest) -> InstanceSpec {
        let (app, process) = (AppName::new("shop").unwrap(), ProcessName::new("web").unwrap());
        InstanceSpec {
            name: InstanceName::derive(&app, &process, &[1; 32], 0),
            app,
            process,
            release: ReleaseNumber(1),
            image,
            command: vec![],
            env: Secrets::default(),
            ip: IP,
            aliases: vec![],
            resources: Resources::default(),
            hardening: Hardening::Generated,
            writable_root: false,
            capabilities: Vec::new(),
            volumes: vec![],
            spec_digest: [1; 32],
        }
    }

    /// An engine with a container of this behaviour, started.
    async fn started(behaviour: Behaviour) -> (FakeDocker, FakeEngine, InstanceName) {
        let docker = FakeDocker::new();
        let (engine, spec) = (docker.agent(HOST), spec(docker.image("v1", behaviour)));
        let network = NetworkSpec { app: spec.app.clone(), base: Ipv4Addr::new(10, 201, 0, 0), mtu: 1_500 };
        engine.ensure_network(&network).await.unwrap();
        engine.create(&spec).await.unwrap();
        engine.start(&spec.name).await.unwrap();
        (docker, engine, spec.name)
    }

    fn unreachable() -> EngineError {
        EngineError::Unreachable("planned".to_owned())
    }

    async fn pass(ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_container_listens_when_its_time_has_come() {
        let (docker, engine, name) = started(Behaviour::slow(3000, 500)).await;
        let probe = FakeProbe(docker.clone());
        let (address, health) = (SocketAddrV4::new(IP, 3000), Health { path: Some("/".into()), ..Health::default() });
        pass(499).await;
        assert_eq!(probe.probe(address, &health, "x").await, Seen::Refused);
        pass(1).await;
        assert_eq!(probe.probe(address, &health, "x").await, Seen::Answered(200));
        assert!(!docker.is_listening(IP, 80));
        engine.pause(&name).await.unwrap();
        assert!(matches!(probe.probe(address, &health, "x").await, Seen::Silent { .. }));
        engine.stop(&name, 0).await.unwrap();
        assert_eq!(probe.probe(address, &health, "x").await, Seen::Refused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_before_leaves_nothing_and_a_fault_after_leaves_it_done() {
        let (docker, engine, name) = started(Behaviour::serving(3000)).await;
        docker.fail_next(Call::Stop, Fault::Before(unreachable()));
        assert_eq!(engine.stop(&name, 0).await, Err(unreachable()));
        assert_eq!(engine.inspect(&name).await.unwrap().unwrap().state, RunState::Running);
        docker.fail_next(Call::Stop, Fault::TimeoutAfter);
        assert!(matches!(engine.stop(&name, 0).await, Err(EngineError::Timeout { .. })));
        assert_eq!(engine.inspect(&name).await.unwrap().unwrap().state, RunState::Exited(143));
        engine.stop(&name, 0).await.unwrap();
        assert_eq!((docker.count(Call::Stop), docker.effects()), (3, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_crashed_never_hears_and_the_next_one_sees_what_was_done() {
        let (docker, engine, name) = started(Behaviour::serving(3000)).await;
        let next = docker.effects();
        docker.fail_effect(next, Fault::CrashAfter);
        let paused = name.clone();
        let agent = tokio::spawn(async move { engine.pause(&paused).await });
        docker.crashed().await;
        assert!(!agent.is_finished());
        agent.abort();
        let again = docker.agent(HOST);
        assert_eq!(again.inspect(&name).await.unwrap().unwrap().state, RunState::Paused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reboot_starts_only_what_the_engine_starts_by_itself() {
        let (docker, engine, name) = started(Behaviour::serving(3000)).await;
        engine.set_restart(&name, Restart::UnlessStopped).await.unwrap();
        docker.reboot();
        assert_eq!(engine.inspect(&name).await.unwrap().unwrap().state, RunState::Running);
        engine.set_restart(&name, Restart::No).await.unwrap();
        docker.reboot();
        assert_eq!(engine.inspect(&name).await.unwrap().unwrap().state, RunState::Exited(137));
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_down_does_nothing_and_its_containers_go_on() {
        let (docker, engine, name) = started(Behaviour::serving(3000)).await;
        docker.set_up(false);
        assert!(matches!(engine.stop(&name, 0).await, Err(EngineError::Unreachable(_))));
        assert!(docker.is_listening(IP, 3000));
        docker.set_up(true);
        assert_eq!(engine.list().await.unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_ignores_sigterm_takes_its_grace() {
        let stubborn = Behaviour { ignores_sigterm: true, ..Behaviour::serving(3000) };
        let (_docker, engine, name) = started(stubborn).await;
        let before = Instant::now();
        engine.stop(&name, 8_000).await.unwrap();
        assert_eq!(before.elapsed(), Duration::from_secs(8));
        assert_eq!(engine.inspect(&name).await.unwrap().unwrap().state, RunState::Exited(137));
    }
}

//! The keeper: an app at rest is made to be what the journal says, again and again.
//!
//! It brings back serving instances that stopped, decides what becomes of displaced ones (drain, then standby), and
//! removes what nothing needs: candidates of a failed deployment, replaced instances, old standby. It runs only while
//! no deployment of the app does.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::PoisonError;
use std::time::Duration;

use refloat_model::planning::{self, Seen};
use refloat_model::standby::{self, Displaced, Standby};
use refloat_model::{AppState, Event, InstanceName, InstanceRecord, Principal, Process, ReleaseRecord};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::driver::{Context, routed_instances};
use super::standby_memory::Held;
use super::stop::Stop;
use crate::docker::{Observed, Restart, RunState};

/// How often a draining instance is asked for its requests.
const DRAIN_POLL: Duration = Duration::from_millis(200);
/// How long Docker may take beyond the grace period of a stop.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// How long a compensated process may take to answer before requests go on regardless.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Keeps one app until it is halted. An effect that has begun ends first, so that a deployment which follows sees what
/// is there; only a stop, which may take long, goes on beside it, marked as doomed.
pub(super) async fn keep(context: Context, halt: CancellationToken) {
    let mut released = false;
    let mut unrouted = Unrouted::default();
    while !halt.is_cancelled() {
        // At rest nothing holds requests; a handover whose agent died, or that could not tell the edge, may have left it so.
        released = released || context.ports.edge.release(&context.app).await.is_ok();
        let pause = match pass(&context, &halt, &mut unrouted).await {
            Ok(pause) => pause,
            Err(stop) => {
                debug!(app = %context.app, ?stop, "the app could not be looked after");
                context.settings.reconcile_every
            }
        };
        tokio::select! {
            () = halt.cancelled() => return,
            () = tokio::time::sleep(if released { pause } else { pause.min(DRAIN_POLL) }) => {}
        }
    }
}

/// Since when this keeper has seen instances without a route: a drain is timed by this, not by a clock that may be set.
#[derive(Debug, Default)]
struct Unrouted(HashMap<InstanceName, Instant>);

impl Unrouted {
    fn age(&mut self, name: &InstanceName) -> Duration {
        self.0.entry(name.clone()).or_insert_with(Instant::now).elapsed()
    }
}

/// One look: what was off is put right. Answers when to look again.
async fn pass(context: &Context, halt: &CancellationToken, unrouted: &mut Unrouted) -> Result<Duration, Stop> {
    let Some(state) = context.ports.journal.app(&context.app).await? else {
        return Ok(context.settings.reconcile_every);
    };
    let observed = context.ports.engine.list().await?;
    let observed: Vec<Observed> = observed.into_iter().filter(|o| o.app == context.app).collect();
    let serving = serving_instances(context, &state).await?;
    for (process, instance, record) in &serving {
        if halt.is_cancelled() {
            return Ok(Duration::ZERO);
        }
        keep_serving(context, &state, process, instance, record, &observed).await?;
    }
    if state.deployment.is_some() {
        // It ended without a record, because the ledger is closed: its commit may be on the disk, and then the next agent
        // routes to what looks like a candidate here.
        return Ok(context.settings.reconcile_every);
    }
    if !edge_follows(context).await? {
        // It may still send requests to what was displaced.
        return Ok(DRAIN_POLL * 5);
    }
    let serving_names: Vec<InstanceName> = serving.iter().map(|(_, i, _)| i.name.clone()).collect();
    let mut keep = serving_names.clone();
    let mut pause = context.settings.reconcile_every;
    let mut displaced = displaced_instances(context, &state).await?;
    displaced.retain(|(_, instance, _)| !keep.contains(&instance.name));
    keep.extend(displaced.iter().map(|(_, instance, _)| instance.name.clone()));
    let all_held = note_standby(context, &state, &displaced, &observed).await;
    for (process, instance, record) in displaced {
        if halt.is_cancelled() {
            return Ok(Duration::ZERO);
        }
        if let Some(seen) = observed.iter().find(|o| o.name == instance.name)
            && let Some(held) = all_held.iter().find(|held| held.instance == instance.name)
        {
            let next = keep_standby(context, &process, &record, seen, held, unrouted).await?;
            pause = pause.min(next);
        }
    }
    remove_surplus(context, &state, &observed, &keep, halt, unrouted).await.map(|next| pause.min(next))
}

/// What Docker says, in the planner's words.
pub(super) fn seen(state: RunState) -> Seen {
    match state {
        RunState::Running => Seen::Running,
        RunState::Paused => Seen::Paused,
        RunState::Created | RunState::Exited(_) | RunState::OutOfMemory => Seen::Stopped,
        RunState::Restarting | RunState::Dead => Seen::Broken,
    }
}

type Kept = Vec<(Process, InstanceRecord, ReleaseRecord)>;

/// The instances that the serving release runs in: the routed ones, and the newest of each process without a route.
async fn serving_instances(context: &Context, state: &AppState) -> Result<Kept, Stop> {
    let host = context.ports.journal.host().await?;
    let routed = routed_instances(host.table.app(&context.app));
    instances_of(context, state, state.serving, &routed).await
}

async fn displaced_instances(context: &Context, state: &AppState) -> Result<Kept, Stop> {
    instances_of(context, state, state.displaced, &[]).await
}

async fn instances_of(
    context: &Context,
    state: &AppState,
    number: Option<refloat_model::ReleaseNumber>,
    prefer: &[InstanceName],
) -> Result<Kept, Stop> {
    let Some(number) = number else { return Ok(Vec::new()) };
    let Some(record) = context.ports.journal.release(&context.app, number).await? else { return Ok(Vec::new()) };
    let mut out = Kept::new();
    for process in record.release.instance_processes() {
        let spec = planning::runtime_spec(context.settings.host_id, &record.release, process);
        let preferred = state.instances.iter().find(|i| i.spec == spec && prefer.contains(&i.name));
        if let Some(instance) = preferred.or_else(|| planning::newest_instance(&state.instances, &spec)) {
            out.push((process.clone(), instance.clone(), record.clone()));
        }
    }
    Ok(out)
}

/// Whether the edge serves what is committed.
async fn edge_follows(context: &Context) -> Result<bool, Stop> {
    let committed = context.ports.journal.host().await?.table;
    let status = context.ports.edge.status().await;
    Ok(status.is_ok_and(|status| status.active_digest == committed.table_digest()))
}

/// Stops whatever else runs of an exclusive process; whether there was anything.
fn stop_others(context: &Context, process: &Process, instance: &InstanceRecord, observed: &[Observed]) -> bool {
    let others = observed.iter().filter(|o| o.process == process.name && o.name != instance.name && is_up(o));
    others.map(|other| stop_aside(context, &other.name)).count() > 0
}

async fn keep_serving(
    context: &Context,
    state: &AppState,
    process: &Process,
    instance: &InstanceRecord,
    record: &ReleaseRecord,
    observed: &[Observed],
) -> Result<(), Stop> {
    let engine = &context.ports.engine;
    let found = observed.iter().find(|o| o.name == instance.name);
    if state.stopped {
        if found.is_some_and(|o| matches!(o.state, RunState::Running | RunState::Restarting | RunState::Paused)) {
            engine.set_restart(&instance.name, Restart::No).await?;
            stop_aside(context, &instance.name);
        }
        return Ok(());
    }
    let runs = matches!(found.map(|o| seen(o.state)), Some(Seen::Running | Seen::Broken));
    if process.exclusive && !runs && stop_others(context, process, instance, observed) {
        // Never two at once: it is started when the other has ended.
        return Ok(());
    }
    match found.map(|o| seen(o.state)) {
        None => {
            warn!(app = %context.app, instance = %instance.name, "a serving instance is gone; it is made again");
            let spec = super::ready::instance_spec(context, record, process, instance).await?;
            engine.ensure_network(&network(context, state)).await?;
            engine.create(&spec).await?;
            engine.start(&instance.name).await?;
        }
        Some(Seen::Paused) => engine.unpause(&instance.name).await?,
        Some(Seen::Stopped) => {
            warn!(app = %context.app, instance = %instance.name, "a serving instance does not run; it is started");
            engine.start(&instance.name).await?;
        }
        Some(Seen::Running | Seen::Broken | Seen::Missing) => {}
    }
    if found.is_none_or(|o| o.restart != Restart::UnlessStopped) {
        engine.set_restart(&instance.name, Restart::UnlessStopped).await?;
    }
    Ok(())
}

fn network(context: &Context, state: &AppState) -> crate::docker::NetworkSpec {
    crate::docker::NetworkSpec {
        app: context.app.clone(),
        base: context.settings.network.base_of(state.subnet),
        mtu: context.settings.mtu,
    }
}

/// Drains a displaced instance, then keeps it as the evidence says. Answers when to look again.
async fn keep_standby(
    context: &Context,
    process: &Process,
    record: &ReleaseRecord,
    observed: &Observed,
    held: &Held,
    unrouted: &mut Unrouted,
) -> Result<Duration, Stop> {
    if is_doomed(context, &observed.name) {
        return Ok(context.settings.reconcile_every);
    }
    if drains(context, unrouted, &observed.name).await {
        return Ok(DRAIN_POLL);
    }
    let env = context.ports.journal.env(&context.app, &record.release.env).await?.unwrap_or_default();
    let env_names: Vec<String> = env.variables.into_iter().map(|v| v.name).collect();
    let displaced = Displaced {
        process,
        env_names: &env_names,
        age_ms: context.ports.clock.now_ms().saturating_sub(held.since_ms),
        memory_bytes: held.bytes,
        others_bytes: context.standby.before(held),
    };
    let (standby, changes_in_ms) = standby::decide(displaced, context.settings.standby);
    let engine = &context.ports.engine;
    if observed.restart != Restart::No {
        engine.set_restart(&observed.name, Restart::No).await?;
    }
    match (standby, observed.state) {
        (Standby::Paused, RunState::Running) => {
            engine.pause(&observed.name).await?;
            info!(app = %context.app, instance = %observed.name, release = %record.number, "standby is paused");
        }
        (Standby::Running, RunState::Paused) => engine.unpause(&observed.name).await?,
        (Standby::Stopped, _) => {
            stop_aside(context, &observed.name);
            info!(app = %context.app, instance = %observed.name, release = %record.number, "standby is stopped");
        }
        _ => {}
    }
    Ok(changes_in_ms
        .map_or(context.settings.reconcile_every, Duration::from_millis)
        .min(context.settings.reconcile_every))
}

/// Whether requests are still in flight to it and it may go on with them.
async fn drains(context: &Context, unrouted: &mut Unrouted, name: &InstanceName) -> bool {
    if unrouted.age(name) >= context.settings.drain_timeout {
        return false;
    }
    match context.ports.edge.in_flight(std::slice::from_ref(name)).await {
        Ok(counts) => counts.first().is_some_and(|c| *c > 0),
        // The edge is away: what it carries cannot be known, so the instance gets its time.
        Err(_) => true,
    }
}

fn is_up(observed: &Observed) -> bool {
    matches!(observed.state, RunState::Running | RunState::Paused | RunState::Restarting)
}

/// Tells every app's keeper what this one's standby holds.
async fn note_standby(context: &Context, state: &AppState, displaced: &Kept, observed: &[Observed]) -> Vec<Held> {
    let mut all = Vec::new();
    for (_, instance, _) in displaced {
        if observed.iter().any(|o| o.name == instance.name && is_up(o)) {
            let bytes = context.ports.engine.memory_bytes(&instance.name).await.unwrap_or_default();
            all.push(Held { instance: instance.name.clone(), since_ms: state.serving_since_ms, bytes });
        }
    }
    context.standby.note(&context.app, all.clone());
    all
}

/// Stops an instance beside everything else: a stop may take as long as the app's grace period, and no deployment waits
/// for that. Until it has ended nobody relies on the instance.
pub(super) fn stop_aside(context: &Context, name: &InstanceName) {
    if !context.doomed.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
        return;
    }
    let (engine, grace_ms) = (context.ports.engine.clone(), context.settings.stop_grace_ms);
    let (doomed, name) = (context.doomed.clone(), name.clone());
    tokio::spawn(async move {
        if let Err(error) = engine.stop(&name, grace_ms).await {
            warn!(instance = %name, %error, "an instance that is not needed could not be stopped; it is tried again");
        }
        doomed.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    });
}

fn is_doomed(context: &Context, name: &InstanceName) -> bool {
    context.doomed.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
}

async fn remove_surplus(
    context: &Context,
    state: &AppState,
    observed: &[Observed],
    keep: &[InstanceName],
    halt: &CancellationToken,
    unrouted: &mut Unrouted,
) -> Result<Duration, Stop> {
    let mut pause = context.settings.reconcile_every;
    for surplus in planning::surplus(&state.instances, keep) {
        if halt.is_cancelled() {
            return Ok(Duration::ZERO);
        }
        if is_doomed(context, &surplus.name) || drains(context, unrouted, &surplus.name).await {
            pause = DRAIN_POLL;
            continue;
        }
        if observed.iter().any(|o| o.name == surplus.name && o.state == RunState::Running) {
            stop_aside(context, &surplus.name);
            pause = DRAIN_POLL;
            continue;
        }
        context.ports.engine.remove(&surplus.name).await?;
        let event = Event::InstanceRemoved { app: context.app.clone(), instance: surplus.name.clone() };
        context.ports.journal.append(&Principal::agent(), event).await?;
    }
    for stray in observed.iter().filter(|o| state.instances.iter().all(|i| i.name != o.name)) {
        warn!(app = %context.app, instance = %stray.name, "a container of this app is in no record; it is removed");
        context.ports.engine.remove(&stray.name).await?;
    }
    Ok(pause)
}

/// Gives up warm standby to free memory: what is paused or running beside the serving release is stopped. Answers at
/// once; the instances are doomed from then on.
pub(super) async fn evict(context: &Context) -> Result<(), Stop> {
    let Some(state) = context.ports.journal.app(&context.app).await? else { return Ok(()) };
    let serving = serving_instances(context, &state).await?;
    for (_, instance, _) in displaced_instances(context, &state).await? {
        if serving.iter().any(|(_, s, _)| s.name == instance.name)
            || drains(context, &mut Unrouted::default(), &instance.name).await
        {
            continue;
        }
        let observed = context.ports.engine.inspect(&instance.name).await?;
        if observed.is_some_and(|o| matches!(o.state, RunState::Running | RunState::Paused)) {
            info!(app = %context.app, instance = %instance.name, "standby is stopped to make room for a build");
            stop_aside(context, &instance.name);
        }
    }
    Ok(())
}

/// Waits until no instance of the app is being stopped, within a bound.
pub(super) async fn wait_stopped(context: &Context) {
    let deadline = Instant::now() + Duration::from_millis(context.settings.stop_grace_ms.into()) + STOP_MARGIN;
    let any = || !context.doomed.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
    while any() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until an instance answers its probe, within a bound.
pub(super) async fn wait_answering(context: &Context, instance: &InstanceRecord, process: &Process) {
    let deadline = Instant::now() + ANSWERS_WITHIN;
    let address = SocketAddrV4::new(Ipv4Addr::from(instance.ip), instance.port);
    while instance.port != 0 && Instant::now() < deadline {
        if context.ports.probe.probe(address, &process.health, &context.settings.public_host).await.is_healthy() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

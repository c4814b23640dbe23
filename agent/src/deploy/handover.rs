//! The handover of an exclusive process: its predecessor is stopped before it starts, and started again when it fails.
//!
//! ```text
//!  hold requests ─▶ HandoverBegan (durable) ─▶ stop old ─▶ new ready ─▶ … commit ─▶ release requests
//!                                                  │ any failure before the commit
//!                                                  ▼
//!                                stop new ─▶ start old ─▶ HandoverEnded ─▶ release requests
//! ```

use std::time::Duration;

use refloat_model::planning::{self, Seen};
use refloat_model::{Event, InstanceName, InstanceRecord, Phase, Process, ReleaseRecord};
use tokio::time::Instant;
use tracing::{error, warn};

use super::driver::{Driver, routed_instances};
use super::stop::Stop;
use crate::docker::EngineError;
use crate::edge::MAX_HOLD;

/// How long the edge holds requests by itself, beyond the start of the new and of the old process.
const HOLD_MARGIN: Duration = Duration::from_secs(30);

/// A handover that has begun.
#[derive(Debug)]
pub(super) struct Handed {
    process: Process,
    old: Option<InstanceRecord>,
    new_spec: [u8; 32],
    since: Instant,
}

impl Driver {
    /// Makes an exclusive process ready, by handover when a predecessor runs.
    pub(super) async fn hand_over(
        &mut self,
        record: &ReleaseRecord,
        process: &Process,
        fresh: bool,
        handed: &mut Vec<Handed>,
    ) -> Result<InstanceRecord, Stop> {
        let spec = planning::runtime_spec(self.context.settings.host_id, &record.release, process);
        let old = self.predecessor(process).await?;
        let unchanged = old.as_ref().is_some_and(|o| o.spec == spec) && !fresh;
        if unchanged || old.is_none() {
            return self.ready(record, process, fresh).await;
        }
        self.begin(process, old, spec, handed).await?;
        self.ready(record, process, fresh).await
    }

    /// The instance of the serving release for a process of that name.
    async fn predecessor(&self, process: &Process) -> Result<Option<InstanceRecord>, Stop> {
        let state = self.app_state().await?;
        let Some(serving) = self.serving_record(&state).await? else { return Ok(None) };
        let Some(before) = serving.release.process(&process.name) else { return Ok(None) };
        let spec = planning::runtime_spec(self.context.settings.host_id, &serving.release, before);
        let host = self.context.ports.journal.host().await?;
        let routed = routed_instances(host.table.app(&self.context.app));
        let routed = state.instances.iter().find(|i| i.spec == spec && routed.contains(&i.name));
        Ok(routed.or_else(|| planning::newest_instance(&state.instances, &spec)).cloned())
    }

    #[tracing::instrument(name = "step", skip_all, fields(step = Phase::HandingOver.word()))]
    async fn begin(
        &mut self,
        process: &Process,
        old: Option<InstanceRecord>,
        new_spec: [u8; 32],
        handed: &mut Vec<Handed>,
    ) -> Result<(), Stop> {
        self.enter(Phase::HandingOver, process.name.as_str());
        let hold = Duration::from_millis(u64::from(process.health.start_timeout_ms) * 2) + HOLD_MARGIN;
        let hold_ms = u32::try_from(hold.min(MAX_HOLD).as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = self.context.ports.edge.hold(&self.context.app, hold_ms).await {
            warn!(%error, "the edge does not hold requests: they fail during the handover");
        }
        handed.push(Handed { process: process.clone(), old: old.clone(), new_spec, since: Instant::now() });
        self.append(Event::HandoverBegan {
            app: self.context.app.clone(),
            deployment: self.deployment.id,
            process: process.name.clone(),
        })
        .await?;
        if let Some(old) = old {
            let engine = self.context.ports.engine.clone();
            let grace_ms = self.context.settings.stop_grace_ms;
            self.cancellable(engine.stop(&old.name, grace_ms)).await??;
        }
        Ok(())
    }

    /// After the commit: requests go on, and the downtime is known.
    pub(super) async fn finish_handovers(&mut self, handed: &[Handed]) {
        self.let_requests_go_on(handed).await;
        for one in handed {
            self.was_down(&one.process, one.since);
        }
    }

    /// Before the commit: the old processes run again. Not cancellable: it ends within their start time.
    pub(super) async fn compensate(&mut self, handed: &[Handed]) {
        for one in handed {
            if let Err(error) = self.bring_back(one).await {
                error!(process = %one.process.name, ?error, "the process that was stopped for its successor does not run again");
            }
            self.was_down(&one.process, one.since);
        }
        self.let_requests_go_on(handed).await;
    }

    async fn let_requests_go_on(&self, handed: &[Handed]) {
        if handed.is_empty() {
            return;
        }
        if let Err(error) = self.context.ports.edge.release(&self.context.app).await {
            warn!(%error, "the edge was not told to let requests go on; it does by itself when the hold is over");
        }
    }

    async fn bring_back(&mut self, one: &Handed) -> Result<(), Stop> {
        let engine = self.context.ports.engine.clone();
        let state = self.app_state().await?;
        let is_old = |name: &InstanceName| one.old.as_ref().is_some_and(|o| o.name == *name);
        for new in state.instances.iter().filter(|i| i.spec == one.new_spec && !is_old(&i.name)) {
            match engine.stop(&new.name, self.context.settings.stop_grace_ms).await {
                // It was recorded and never made.
                Ok(()) | Err(EngineError::NotFound(_)) => {}
                // It may still run: the old one must not start beside it. The keeper tries again.
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(old) = &one.old {
            match engine.inspect(&old.name).await?.map(|o| super::keeper::seen(o.state)) {
                Some(Seen::Paused) => engine.unpause(&old.name).await?,
                _ => engine.start(&old.name).await?,
            }
            super::keeper::wait_answering(&self.context, old, &one.process).await;
        }
        self.append(Event::HandoverEnded {
            app: self.context.app.clone(),
            deployment: self.deployment.id,
            process: one.process.name.clone(),
            completed: false,
        })
        .await
    }
}

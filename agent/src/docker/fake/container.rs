//! One container of the fake engine: its state is a function of what was asked and of the time.

use std::time::Duration;

use tokio::time::Instant;

use super::behaviour::Behaviour;
use crate::docker::{InstanceSpec, LogLine, Observed, Restart, RunState};

/// How long the engine waits before it starts a crashed container again.
const RESTART_AFTER_MS: u64 = 1_000;
/// Lines that a container's output keeps.
const KEPT_LINES: usize = 10_000;

#[derive(Debug)]
pub(super) struct Container {
    pub(super) host: String,
    pub(super) spec: InstanceSpec,
    pub(super) behaviour: Behaviour,
    pub(super) lines: Vec<LogLine>,
    pub(super) restart: Restart,
    restart_count: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Running { since: Instant },
    Paused { since: Instant },
    Ended { since: Instant, how: RunState },
}

impl Container {
    pub(super) fn new(host: &str, spec: InstanceSpec, behaviour: Behaviour) -> Self {
        Self {
            host: host.to_owned(),
            spec,
            behaviour,
            lines: Vec::new(),
            restart: Restart::No,
            restart_count: 0,
            phase: Phase::Created,
        }
    }

    pub(super) fn start(&mut self, clock: Clock) {
        self.settle(clock);
        match self.phase {
            Phase::Created | Phase::Ended { .. } => self.begin(clock.now, clock),
            Phase::Paused { since } => self.phase = Phase::Running { since },
            Phase::Running { .. } => {}
        }
    }

    pub(super) fn end(&mut self, how: RunState, clock: Clock) {
        self.settle(clock);
        if let Phase::Running { since } | Phase::Paused { since } = self.phase {
            self.phase = Phase::Ended { since, how };
        }
    }

    /// Whether it is paused afterwards.
    pub(super) fn pause(&mut self, clock: Clock) -> bool {
        self.settle(clock);
        if let Phase::Running { since } = self.phase {
            self.phase = Phase::Paused { since };
        }
        matches!(self.phase, Phase::Paused { .. })
    }

    /// Whether it runs afterwards.
    pub(super) fn unpause(&mut self, clock: Clock) -> bool {
        self.settle(clock);
        if let Phase::Paused { since } = self.phase {
            self.phase = Phase::Running { since };
        }
        matches!(self.phase, Phase::Running { .. })
    }

    pub(super) fn set_restart(&mut self, restart: Restart, clock: Clock) {
        self.settle(clock);
        self.restart = restart;
    }

    pub(super) fn state(&mut self, clock: Clock) -> RunState {
        self.settle(clock);
        match self.phase {
            Phase::Created => RunState::Created,
            Phase::Running { since } if since > clock.now => RunState::Restarting,
            Phase::Running { .. } => RunState::Running,
            Phase::Paused { .. } => RunState::Paused,
            Phase::Ended { how, .. } => how,
        }
    }

    pub(super) fn is_up(&mut self, clock: Clock) -> bool {
        matches!(self.state(clock), RunState::Running | RunState::Paused | RunState::Restarting)
    }

    pub(super) fn listens(&mut self, port: u16, clock: Clock) -> bool {
        self.settle(clock);
        let Phase::Running { since } = self.phase else { return false };
        let up_ms = clock.now.checked_duration_since(since).map(|up| up.as_millis());
        let ready = self.behaviour.listens_after_ms.zip(up_ms).is_some_and(|(after, up)| up >= u128::from(after));
        ready && port != 0 && self.behaviour.port == port
    }

    /// When it changes by itself next.
    pub(super) fn next_change(&mut self, clock: Clock) -> Option<Instant> {
        self.settle(clock);
        match (self.phase, self.behaviour.ends) {
            (Phase::Running { since }, Some((after_ms, _))) => Some(since + Duration::from_millis(after_ms)),
            _ => None,
        }
    }

    pub(super) fn observed(&mut self, clock: Clock) -> Observed {
        let state = self.state(clock);
        let since = match self.phase {
            Phase::Created => None,
            Phase::Running { since } | Phase::Paused { since } | Phase::Ended { since, .. } => Some(since),
        };
        Observed {
            name: self.spec.name.clone(),
            app: self.spec.app.clone(),
            process: self.spec.process.clone(),
            release: self.spec.release,
            state,
            image: self.spec.image.clone(),
            ip: Some(self.spec.ip),
            spec_digest: self.spec.spec_digest,
            restart: self.restart,
            restart_count: self.restart_count,
            started_at_ms: since.map_or(0, |since| clock.unix_ms(since)),
        }
    }

    fn begin(&mut self, at: Instant, clock: Clock) {
        self.phase = Phase::Running { since: at };
        let at_ms = clock.unix_ms(at);
        let line = |(stderr, text): &(bool, String)| LogLine { at_ms, stderr: *stderr, text: text.clone() };
        self.lines.extend(self.behaviour.lines.iter().map(line));
        let excess = self.lines.len().saturating_sub(KEPT_LINES);
        self.lines.drain(..excess);
    }

    /// Does what the time has done: ends it, and starts it again where its restart policy says so.
    fn settle(&mut self, clock: Clock) {
        while let (Phase::Running { since }, Some((after_ms, how))) = (self.phase, self.behaviour.ends) {
            let ended = since + Duration::from_millis(after_ms);
            if ended > clock.now {
                return;
            }
            if self.restart == Restart::No {
                self.phase = Phase::Ended { since, how };
            } else {
                self.restart_count += 1;
                self.begin(ended + Duration::from_millis(RESTART_AFTER_MS), clock);
            }
        }
    }
}

/// Tokio's time, and where it lies in Unix time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: Instant,
    pub(super) born: Instant,
}

impl Clock {
    /// 2023-11-14, so that a fake's times are the same in every run.
    const BORN_UNIX_MS: u64 = 1_700_000_000_000;

    pub(super) fn unix_ms(self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.born).as_millis();
        Self::BORN_UNIX_MS.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

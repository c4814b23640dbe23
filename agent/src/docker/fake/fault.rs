//! What goes wrong, and at which call.

use crate::docker::EngineError;

/// A method of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Call {
    Info,
    EnsureNetwork,
    RemoveNetwork,
    Create,
    Start,
    Stop,
    Pause,
    Unpause,
    Remove,
    SetRestart,
    Inspect,
    List,
    Tail,
    Follow,
    MemoryBytes,
    Image,
    KeepImage,
    ReleaseImage,
    Build,
    Export,
    EnsureVolume,
    Volumes,
    RemoveVolume,
    Run,
}

impl Call {
    /// Whether it changes something: the calls that a crash-prefix test counts.
    #[must_use]
    pub fn is_effect(self) -> bool {
        !matches!(
            self,
            Self::Info
                | Self::Inspect
                | Self::List
                | Self::Tail
                | Self::Follow
                | Self::MemoryBytes
                | Self::Image
                | Self::Volumes
        )
    }
}

/// What goes wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and says so.
    Before(EngineError),
    /// It is done, and this is answered.
    After(EngineError),
    /// It is done, and the answer does not come in time.
    TimeoutAfter,
    /// The agent dies before it: the call never returns, [`super::FakeDocker::crashed`] does.
    CrashBefore,
    /// The agent dies after it.
    CrashAfter,
}

/// Which call a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The next one of this kind.
    Next(Call),
    /// The n-th effect, counted from 0 since the engine was made.
    Effect(u64),
}

/// The faults that are still to come, and what was called.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<(At, Fault)>,
    calls: Vec<Call>,
    effects: u64,
}

impl Faults {
    pub(super) fn plan(&mut self, at: At, fault: Fault) {
        self.planned.push((at, fault));
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    pub(super) fn effects(&self) -> u64 {
        self.effects
    }

    /// Counts a call and takes the fault that was planned for it.
    pub(super) fn count(&mut self, call: Call) -> Option<Fault> {
        let number = self.effects;
        self.calls.push(call);
        self.effects += u64::from(call.is_effect());
        let hit = |at: &At| match at {
            At::Next(wanted) => *wanted == call,
            At::Effect(n) => call.is_effect() && *n == number,
        };
        let index = self.planned.iter().position(|(at, _)| hit(at))?;
        Some(self.planned.remove(index).1)
    }
}

//! Why a deployment stops before its commit, in one type.

use refloat_model::Failure;

use super::ports::VaultError;
use super::sequencer::SwitchError;
use crate::build::BuildError;
use crate::docker::EngineError;
use crate::journal::JournalError;

/// Why a deployment stops before its commit.
#[derive(Debug)]
pub(super) enum Stop {
    /// Somebody cancelled it.
    Cancelled(String),
    /// It cannot go on; what served before still serves.
    Failed(Failure),
    /// The ledger does not accept records any more: nothing more can be promised.
    Ledger(JournalError),
}

impl Stop {
    /// A failure without evidence.
    pub(super) fn failed(reason: &str, message: impl Into<String>, next_command: impl Into<String>) -> Self {
        Self::Failed(Failure {
            reason: reason.to_owned(),
            message: message.into(),
            next_command: next_command.into(),
            lines: Vec::new(),
        })
    }
}

/// For what is told and recorded nowhere else.
impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        let (reason, message, next_command) = match stop {
            Stop::Failed(failure) => return failure,
            Stop::Cancelled(by) => ("CANCELLED", format!("cancelled by {by}"), "refloat status"),
            Stop::Ledger(error) => ("LEDGER", error.to_string(), "systemctl restart refloatd"),
        };
        Self { reason: reason.to_owned(), message, next_command: next_command.to_owned(), lines: Vec::new() }
    }
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        let (reason, next) = match &error {
            JournalError::Closed(_) | JournalError::NotDurable(_) => return Self::Ledger(error),
            // The ledger is open, and there is always room for an outcome.
            JournalError::NoRoom(_) => ("DISK_FULL", "df -h"),
            JournalError::Refused(_) | JournalError::Store(_) => ("LEDGER", "journalctl -u refloatd -n 50"),
        };
        Self::failed(reason, error.to_string(), next)
    }
}

impl From<VaultError> for Stop {
    fn from(error: VaultError) -> Self {
        Self::failed("SEALED_VALUE", error.to_string(), "refloat env list")
    }
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        let (reason, next) = match &error {
            EngineError::Unreachable(_) => ("DOCKER_UNREACHABLE", "systemctl status docker"),
            EngineError::Timeout { .. } => ("DOCKER_TIMEOUT", "systemctl status docker"),
            EngineError::NotFound(_) => ("NOT_IN_DOCKER", "refloat deploy"),
            EngineError::BuildFailed { .. } => ("BUILD_FAILED", "refloat plan"),
            EngineError::Cancelled => return Self::Cancelled("the engine".to_owned()),
            EngineError::Refused { .. } => ("DOCKER_REFUSED", "refloat status"),
        };
        Self::failed(reason, error.to_string(), next)
    }
}

impl From<SwitchError> for Stop {
    fn from(error: SwitchError) -> Self {
        match error {
            SwitchError::Refused(_) => Self::failed("ROUTES_REFUSED", error.to_string(), "refloat status"),
            SwitchError::Ledger(error) => Self::Ledger(error),
            SwitchError::Gone => Self::Cancelled("the agent's shutdown".to_owned()),
        }
    }
}

impl From<BuildError> for Stop {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Cancelled => Self::Cancelled("a newer request".to_owned()),
            error => Self::Failed(error.failure()),
        }
    }
}

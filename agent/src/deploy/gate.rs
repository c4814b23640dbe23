//! The gate before the commit: either somebody cancels a deployment or it commits, never both.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Shared by a deployment's driver and its app's task.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    token: CancellationToken,
}

#[derive(Debug, Default, Clone)]
enum State {
    #[default]
    Open,
    Cancelled(String),
    Closed,
}

impl Gate {
    /// Cancels the deployment unless it is about to commit. Answers whether it is cancelled now.
    pub(super) fn cancel(&self, by: &str) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Open => {
                *state = State::Cancelled(by.to_owned());
                self.token.cancel();
                true
            }
            State::Cancelled(_) => true,
            State::Closed => false,
        }
    }

    /// Closes the gate: from here only the commit's own failure leads back.
    ///
    /// # Errors
    /// Who cancelled it, when somebody was faster.
    pub(super) fn close(&self) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Cancelled(by) => Err(by.clone()),
            State::Open | State::Closed => {
                *state = State::Closed;
                Ok(())
            }
        }
    }

    /// Whether the deployment can still be cancelled.
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Open)
    }

    /// Who cancelled it.
    pub(super) fn cancelled_by(&self) -> Option<String> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Cancelled(by) => Some(by.clone()),
            State::Open | State::Closed => None,
        }
    }

    /// Fires when it is cancelled.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_first_wins_and_the_other_is_told() {
        let cancelled = Gate::default();
        assert!(cancelled.cancel("anna"));
        assert_eq!(cancelled.close(), Err("anna".to_owned()));
        let committed = Gate::default();
        assert_eq!(committed.close(), Ok(()));
        assert!(!committed.cancel("anna"));
        assert!(!committed.token().is_cancelled());
    }
}

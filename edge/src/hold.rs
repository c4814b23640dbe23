//! Holding the requests of an app while its exclusive process is handed over.
//!
//! A hold is a gate with a deadline. Requests that come to a closed gate wait in a bounded queue and are bound to a
//! table after it opened, never before. When the deadline passes the hold is over: those that waited are answered 503.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use refloat_model::AppName;
use tokio::sync::watch;

use crate::limits::MAX_HELD_PER_APP;

/// Why a held request was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// [`MAX_HELD_PER_APP`] wait already.
    #[error("too many requests wait for the app")]
    Full,
    /// The deadline passed.
    #[error("the app did not come back in time")]
    Deadline,
}

#[derive(Debug, Clone, Copy)]
enum Gate {
    Closed { until: Instant },
    Open,
}

#[derive(Debug)]
struct Hold {
    gate: watch::Sender<Gate>,
    waiting: Arc<AtomicU32>,
}

/// Every hold.
#[derive(Debug, Default)]
pub struct Holds {
    held: Mutex<HashMap<AppName, Hold>>,
    /// Lets a request of an edge without holds pass without the lock.
    count: AtomicUsize,
}

/// A request's place in the queue.
#[derive(Debug)]
pub struct Ticket {
    gate: watch::Receiver<Gate>,
    waiting: Arc<AtomicU32>,
}

impl Holds {
    /// Closes the gate of an app, or moves the deadline of a closed one.
    pub fn hold(&self, app: &AppName, until: Instant) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get(app) {
            Some(hold) => {
                hold.gate.send_replace(Gate::Closed { until });
            }
            None => {
                let gate = watch::Sender::new(Gate::Closed { until });
                held.insert(app.clone(), Hold { gate, waiting: Arc::default() });
            }
        }
        self.count.store(held.len(), Ordering::SeqCst);
    }

    /// Opens the gate; says how many waited.
    pub fn release(&self, app: &AppName) -> u32 {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = held.remove(app);
        self.count.store(held.len(), Ordering::SeqCst);
        hold.map_or(0, |hold| {
            hold.gate.send_replace(Gate::Open);
            hold.waiting.load(Ordering::SeqCst)
        })
    }

    /// A ticket when the app is held at `now`. A hold whose deadline passed is forgotten.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn ticket(&self, app: &AppName, now: Instant) -> Result<Option<Ticket>, HoldError> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Ok(None);
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hold) = held.get(app) else { return Ok(None) };
        let Gate::Closed { until } = *hold.gate.borrow() else { return Ok(None) };
        if now >= until {
            held.remove(app);
            self.count.store(held.len(), Ordering::SeqCst);
            return Ok(None);
        }
        if hold.waiting.load(Ordering::SeqCst) >= MAX_HELD_PER_APP {
            return Err(HoldError::Full);
        }
        hold.waiting.fetch_add(1, Ordering::SeqCst);
        Ok(Some(Ticket { gate: hold.gate.subscribe(), waiting: hold.waiting.clone() }))
    }
}

impl Ticket {
    /// Waits until the gate opens.
    ///
    /// # Errors
    /// When the deadline, as it was last moved, passes first.
    pub async fn wait(mut self) -> Result<(), HoldError> {
        loop {
            let Gate::Closed { until } = *self.gate.borrow_and_update() else { return Ok(()) };
            tokio::select! {
                // Both arms only look; dropping either loses nothing.
                changed = self.gate.changed() => if changed.is_err() { return Err(HoldError::Deadline) },
                () = tokio::time::sleep_until(until.into()) => {
                    let moved = matches!(*self.gate.borrow(), Gate::Closed { until: now } if now > until);
                    let opened = matches!(*self.gate.borrow(), Gate::Open);
                    if !moved && !opened {
                        return Err(HoldError::Deadline);
                    }
                }
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn app() -> AppName {
        AppName::new("app").unwrap()
    }

    #[tokio::test]
    async fn a_held_request_goes_on_when_released() {
        let holds = Holds::default();
        assert!(holds.ticket(&app(), Instant::now()).unwrap().is_none());
        holds.hold(&app(), Instant::now() + Duration::from_secs(60));
        let ticket = holds.ticket(&app(), Instant::now()).unwrap().unwrap();
        assert_eq!(holds.release(&app()), 1);
        assert_eq!(ticket.wait().await, Ok(()));
        assert_eq!(holds.release(&app()), 0, "releasing what is not held succeeds");
    }

    #[tokio::test]
    async fn the_deadline_ends_the_hold() {
        let holds = Holds::default();
        let until = Instant::now() + Duration::from_millis(5);
        holds.hold(&app(), until);
        let ticket = holds.ticket(&app(), Instant::now()).unwrap().unwrap();
        assert_eq!(ticket.wait().await, Err(HoldError::Deadline));
        assert!(holds.ticket(&app(), until).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_second_hold_moves_the_deadline_of_those_who_wait() {
        let holds = Holds::default();
        holds.hold(&app(), Instant::now() + Duration::from_millis(5));
        let ticket = holds.ticket(&app(), Instant::now()).unwrap().unwrap();
        holds.hold(&app(), Instant::now() + Duration::from_secs(600));
        let waiting = tokio::time::timeout(Duration::from_millis(50), ticket.wait()).await;
        assert!(waiting.is_err(), "it still waits after the first deadline");
    }

    #[test]
    fn the_queue_is_bounded() {
        let holds = Holds::default();
        holds.hold(&app(), Instant::now() + Duration::from_secs(60));
        let tickets: Vec<_> =
            (0..MAX_HELD_PER_APP).map(|_| holds.ticket(&app(), Instant::now()).unwrap().unwrap()).collect();
        assert!(matches!(holds.ticket(&app(), Instant::now()), Err(HoldError::Full)));
        drop(tickets);
        assert!(holds.ticket(&app(), Instant::now()).unwrap().is_some());
    }
}

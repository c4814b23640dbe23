//! One build at a time per host, first come, first served.

use std::sync::{Mutex, PoisonError};

use refloat_model::AppName;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::builder::BuildProgress;
use super::error::BuildError;

/// Whose turn it is.
#[derive(Debug)]
pub struct Turn {
    /// Fair: waiters are served in the order they came.
    place: Semaphore,
    holder: Mutex<Option<AppName>>,
}

/// A turn. It ends when this is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    turn: &'a Turn,
    _place: SemaphorePermit<'a>,
}

impl Default for Turn {
    fn default() -> Self {
        Self { place: Semaphore::new(1), holder: Mutex::new(None) }
    }
}

impl Turn {
    /// Waits for a turn, and says for whom it waits.
    ///
    /// # Errors
    /// When it is cancelled while it waits.
    pub async fn take(
        &self,
        app: &AppName,
        progress: &mpsc::Sender<BuildProgress>,
        cancel: &CancellationToken,
    ) -> Result<Held<'_>, BuildError> {
        let place = match self.place.try_acquire() {
            Ok(place) => place,
            Err(_) => {
                let text = format!("waits for the build of {}", self.holder_name());
                // Nobody has to listen.
                let _ = progress.send(BuildProgress::Note { warn: false, text }).await;
                tokio::select! {
                    () = cancel.cancelled() => return Err(BuildError::Cancelled),
                    place = self.place.acquire() => place.map_err(|_| BuildError::Cancelled)?,
                }
            }
        };
        *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(app.clone());
        Ok(Held { turn: self, _place: place })
    }

    fn holder_name(&self) -> String {
        let holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        holder.as_ref().map_or_else(|| "another app".to_owned(), ToString::to_string)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.turn.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first_says_so_and_can_be_cancelled() {
        let turn = Arc::new(Turn::default());
        let (sender, mut said) = mpsc::channel(4);
        let app = |name: &str| AppName::new(name).unwrap();
        let never = CancellationToken::new();
        let first = turn.take(&app("one"), &sender, &never).await.unwrap();

        let cancel = CancellationToken::new();
        let waiting = {
            let (turn, sender, cancel) = (Arc::clone(&turn), sender.clone(), cancel.clone());
            tokio::spawn(async move { turn.take(&app("two"), &sender, &cancel).await.map(|_| ()) })
        };
        let text = "waits for the build of one".to_owned();
        assert_eq!(said.recv().await, Some(BuildProgress::Note { warn: false, text }));
        cancel.cancel();
        assert!(matches!(waiting.await.unwrap(), Err(BuildError::Cancelled)));

        drop(first);
        drop(turn.take(&AppName::new("three").unwrap(), &sender, &never).await.unwrap());
        assert!(said.try_recv().is_err(), "a free turn is taken without a word");
    }
}

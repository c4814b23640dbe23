//! What is left lying by what was cut off: one-off containers of a killed agent, images that no release has kept, output
//! of apps that are gone.
//!
//! Tidies at the start and once a day, and is never in a hurry: an engine that does not answer is asked again. Deliberately
//! absent: instances, volumes and everything else that a release or a record names; that is the keeper's.

use std::sync::Arc;
use std::time::Duration;

use refloat_model::AppName;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app_logs::AppLogs;
use crate::docker::{DockerEngine, EngineError};
use crate::journal::Journal;

/// How often is tidied.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// How soon it is tried again when something does not answer.
const AGAIN: Duration = Duration::from_secs(60);

/// What is tidied.
pub struct House {
    /// Containers and images.
    pub engine: Arc<DockerEngine>,
    /// Output of apps.
    pub logs: Arc<AppLogs>,
    /// What still exists.
    pub journal: Arc<dyn Journal>,
    /// When this agent began, Unix time in milliseconds: one-off containers that are older are nobody's.
    pub began_at_ms: u64,
}

/// Tidies until the token is cancelled.
pub async fn run(house: House, end: CancellationToken) {
    loop {
        let pause = match tidy(&house).await {
            Ok(()) => EVERY,
            Err(error) => {
                warn!(%error, "what was left lying is not removed yet");
                AGAIN
            }
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn tidy(house: &House) -> Result<(), EngineError> {
    forget_output(house).await;
    let containers = house.engine.remove_leftovers(house.began_at_ms).await?;
    let images = house.engine.remove_stale_builds().await?;
    if containers + images > 0 {
        info!(containers, images, "what interrupted work had left lying is removed");
    }
    Ok(())
}

/// Output of apps that were destroyed while it could not be removed.
async fn forget_output(house: &House) {
    let Ok(apps) = house.journal.apps().await else { return };
    let known: Vec<AppName> = apps.into_iter().map(|app| app.app).collect();
    let logs = Arc::clone(&house.logs);
    let forgotten = tokio::task::spawn_blocking(move || logs.forget_all_but(&known)).await;
    if let Ok(Err(error)) = forgotten {
        warn!(%error, "the output of apps that are gone cannot be removed");
    }
}

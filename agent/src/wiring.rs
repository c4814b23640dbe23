//! The driver's part of the composition root: from the agent's parts to what deploys.

use std::sync::Arc;

use async_trait::async_trait;
use refloat_model::{AppName, DeploymentId, Principal};

use crate::api::port::{DeploymentsPort, OneOff, RunPort, Running, Updates};
use crate::daemon::Parts;
use crate::deploy::request::{Denied, Submit};
use crate::docker::RunIo;

/// Says how builds are capped.
pub type BuildCapText = Box<dyn Fn() -> String + Send + Sync>;

/// What deploys.
pub struct Driver {
    /// Everything that changes what serves.
    pub deployments: Arc<dyn DeploymentsPort>,
    /// One-off containers.
    pub runs: Arc<dyn RunPort>,
    /// How builds are capped.
    pub build_cap: BuildCapText,
}

/// Builds the driver.
///
/// # Errors
/// When a part of it cannot be had.
pub async fn driver(parts: Parts) -> anyhow::Result<Driver> {
    // DRIVER: `Deployments::start(ports, settings)` takes this one's place.
    drop(parts);
    let none = Arc::new(NoDriver);
    Ok(Driver {
        deployments: Arc::clone(&none) as Arc<dyn DeploymentsPort>,
        runs: none,
        build_cap: Box::new(|| "builds are NOT capped: this agent does not build".to_owned()),
    })
}

/// Denies everything: what the services have while there is no driver.
#[derive(Debug)]
struct NoDriver;

fn no_driver() -> Denied {
    Denied {
        reason: "NO_DRIVER",
        message: "This agent cannot deploy.".to_owned(),
        still_fine: "Nothing was changed.".to_owned(),
        next_command: String::new(),
    }
}

#[async_trait]
impl DeploymentsPort for NoDriver {
    async fn submit(&self, _: Submit) -> Result<Updates, Denied> {
        Err(no_driver())
    }

    async fn watch(&self, _: DeploymentId) -> Option<Updates> {
        None
    }

    async fn watch_app(&self, _: &AppName) -> Option<Updates> {
        None
    }

    async fn cancel(&self, _: Option<&AppName>, _: &Principal) -> Result<Option<DeploymentId>, Denied> {
        Err(no_driver())
    }

    async fn running(&self) -> Vec<Running> {
        Vec::new()
    }
}

#[async_trait]
impl RunPort for NoDriver {
    async fn run(&self, _: OneOff, _: RunIo) -> Result<i64, Denied> {
        Err(no_driver())
    }
}

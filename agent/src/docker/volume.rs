//! Named volumes: they outlive every container and are removed only by name.

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};
use refloat_model::AppName;

use super::connect::{CHANGE_TIMEOUT_MS, READ_TIMEOUT_MS, within};
use super::engine::EngineError;
use super::labels::{self, filter};
use super::real::DockerEngine;

impl DockerEngine {
    pub(super) async fn ensure_app_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError> {
        const WHAT: &str = "to create the volume";
        let wanted = self.host.of_volume(app, volume);
        let name = self.host.volume(app, volume);
        let request =
            VolumeCreateRequest { name: Some(name.clone()), labels: Some(wanted.clone()), ..Default::default() };
        // The engine answers with the one that is there already, whatever its labels.
        let made = within(WHAT, CHANGE_TIMEOUT_MS, self.docker().await?.create_volume(request))
            .await
            .map_err(|f| f.refused(WHAT))?;
        if wanted.iter().all(|(key, value)| made.labels.get(key) == Some(value)) {
            return Ok(());
        }
        Err(EngineError::Refused { what: WHAT, message: format!("there is a volume {name} that is not this app's") })
    }

    pub(super) async fn app_volumes(&self, app: &AppName) -> Result<Vec<String>, EngineError> {
        const WHAT: &str = "to list the volumes";
        let mut filters = filter(labels::HOST, self.host.as_str());
        filters.entry("label".to_owned()).or_default().push(format!("{}={app}", labels::APP));
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let found = within(WHAT, READ_TIMEOUT_MS, self.docker().await?.list_volumes(Some(options)))
            .await
            .map_err(|f| f.refused(WHAT))?;
        let volumes = found.volumes.unwrap_or_default();
        let mut names: Vec<_> = volumes.into_iter().filter_map(|mut v| v.labels.remove(labels::VOLUME)).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) async fn remove_app_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError> {
        const WHAT: &str = "to remove the volume";
        let name = self.host.volume(app, volume);
        let call = self.docker().await?.remove_volume(&name, None::<RemoveVolumeOptions>);
        match within(WHAT, CHANGE_TIMEOUT_MS, call).await {
            Err(fault) if fault.is_status(404) => Ok(()),
            answer => answer.map_err(|f| f.refused(WHAT)),
        }
    }
}

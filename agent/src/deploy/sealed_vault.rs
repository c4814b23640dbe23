//! The driver's vault over the sealed files: blocking disk work on a blocking thread, errors without a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use refloat_model::{AppName, EnvId, EnvRecord, EnvVariable, Principal};

use super::ports::{Vault, VaultError};
use crate::clock::Clock;
use crate::docker::Secrets;
use crate::sealed::{self, EnvChange, SecretValue};

/// Sealed values on this host's disk.
pub struct SealedVault {
    files: Arc<sealed::Vault>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for SealedVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedVault").finish_non_exhaustive()
    }
}

impl SealedVault {
    /// The vault over these files.
    pub fn new(files: Arc<sealed::Vault>, clock: Arc<dyn Clock>) -> Self {
        Self { files, clock }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&sealed::Vault) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let files = Arc::clone(&self.files);
        let done = tokio::task::spawn_blocking(move || job(&files)).await;
        done.unwrap_or_else(|_| Err(VaultError("the vault's thread ended".to_owned())))
    }
}

fn error(error: &dyn std::error::Error) -> VaultError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    VaultError(text)
}

#[async_trait]
impl Vault for SealedVault {
    async fn open(&self, app: &AppName, env: &EnvRecord) -> Result<Secrets, VaultError> {
        if env.variables.is_empty() {
            return Ok(Secrets::default());
        }
        let (app, variables) = (app.clone(), env.variables.clone());
        self.blocking(move |files| {
            let mut open = BTreeMap::new();
            for variable in variables {
                let value = files.open_value(&app, &variable.sealed, &variable.name).map_err(|e| error(&e))?;
                open.insert(variable.name, value.as_str().to_owned());
            }
            Ok(Secrets(open))
        })
        .await
    }

    async fn seal(
        &self,
        app: &AppName,
        by: &Principal,
        base: &EnvRecord,
        set: &Secrets,
        unset: &[String],
    ) -> Result<(EnvId, Vec<EnvVariable>), VaultError> {
        let set = set.0.iter().map(|(name, value)| (name.clone(), SecretValue::new(value.clone()))).collect();
        let change = EnvChange { set, unset: unset.iter().cloned().collect() };
        let (app, base, by, now_ms) = (app.clone(), base.clone(), by.name.clone(), self.clock.now_ms());
        self.blocking(move |files| {
            let new = change.apply(files, &app, &base, now_ms, &by).map_err(|e| error(&e))?;
            Ok((new.env, new.variables))
        })
        .await
    }

    async fn erase(&self, _app: &AppName, variables: &[EnvVariable]) -> Result<(), VaultError> {
        let ids: Vec<sealed::SealedId> = variables.iter().map(|v| v.sealed).collect();
        self.blocking(move |files| ids.iter().try_for_each(|id| files.erase(id).map_err(|e| error(&e)))).await
    }
}

//! Which app a folder is: what `refloat.toml` says, else what was deployed from it last.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Home, read_file, write_file};
use crate::failure::Failure;

/// Folders that are remembered at most; the file must not grow for ever.
const MAX_FOLDERS: usize = 500;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Folders {
    /// Absolute path of a folder → app.
    apps: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct OnlyApp {
    app: Option<String>,
}

impl Home {
    /// The app of a folder, when it is known.
    pub(crate) fn app_of(&self, folder: &Path) -> Option<String> {
        app_in_configuration(folder).or_else(|| {
            let path = std::fs::canonicalize(folder).ok()?;
            self.folders().apps.get(path.to_str()?).cloned()
        })
    }

    /// Remembers which app was deployed from a folder. A folder whose path is not text is not remembered.
    pub(crate) fn remember(&self, folder: &Path, app: &str) -> Result<(), Failure> {
        let Some(path) = std::fs::canonicalize(folder).ok().and_then(|p| p.into_os_string().into_string().ok()) else {
            return Ok(());
        };
        let mut folders = self.folders();
        if folders.apps.get(&path).is_some_and(|known| known == app) {
            return Ok(());
        }
        folders.apps.insert(path, app.to_owned());
        if folders.apps.len() > MAX_FOLDERS {
            folders.apps.retain(|path, _| Path::new(path).is_dir());
        }
        let text = toml::to_string(&folders).map_err(|e| Failure::local("remember the folder", &e))?;
        write_file(&self.path("folders.toml"), text.as_bytes(), false)
    }

    /// What cannot be read is forgotten: it is a convenience.
    fn folders(&self) -> Folders {
        let text = read_file(&self.path("folders.toml")).ok().flatten();
        text.and_then(|text| toml::from_str(&text).ok()).unwrap_or_default()
    }
}

/// Only the name; whether the rest of the file is right is a deploy's business.
fn app_in_configuration(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("refloat.toml")).ok()?;
    toml::from_str::<OnlyApp>(&text).ok()?.app
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_app_before_what_is_remembered() {
        let (config, project) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let home = Home::at(config.path());
        assert_eq!(home.app_of(project.path()), None);
        home.remember(project.path(), "remembered").expect("it can be written");
        assert_eq!(home.app_of(project.path()), Some("remembered".to_owned()));
        std::fs::write(project.path().join("refloat.toml"), "schema = 1\napp = \"named\"\n").expect("written");
        assert_eq!(home.app_of(project.path()), Some("named".to_owned()));
    }
}

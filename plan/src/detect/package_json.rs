//! `package.json`, as far as a plan needs it. A value of the wrong type is as good as absent, as for npm's own tools.

use std::collections::BTreeMap;

use serde_json::Value;

use super::folder::Folder;
use crate::error::PlanError;

/// Name of the file.
pub(crate) const FILE_NAME: &str = "package.json";

/// Names and what is wanted of them.
pub(crate) type Specs = BTreeMap<String, String>;

/// One `package.json`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manifest {
    /// `name`.
    pub(crate) name: Option<String>,
    /// `main`.
    pub(crate) main: Option<String>,
    /// `scripts`.
    pub(crate) scripts: Specs,
    /// `dependencies`.
    pub(crate) dependencies: Specs,
    /// `devDependencies`.
    pub(crate) dev_dependencies: Specs,
    /// `optionalDependencies`.
    pub(crate) optional_dependencies: Specs,
    /// `packageManager`.
    pub(crate) package_manager: Option<String>,
    /// `engines.node`.
    pub(crate) engines_node: Option<String>,
    /// `volta.node`.
    pub(crate) volta_node: Option<String>,
    /// `workspaces`, or `workspaces.packages`.
    pub(crate) workspaces: Vec<String>,
    /// Whether pnpm is told here which packages may run install scripts.
    pub(crate) pnpm_settings: bool,
}

impl Manifest {
    /// Reads a folder's manifest; `None` when it has none.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub(crate) fn read(folder: &Folder<'_>) -> Result<Option<Self>, PlanError> {
        if !folder.has(FILE_NAME) {
            return Ok(None);
        }
        let path = folder.join(FILE_NAME);
        let text = folder
            .text(FILE_NAME)
            .ok_or_else(|| PlanError::source(format!("{path} is larger than 1 MiB."), "Check what became of it."))?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => Ok(Some(Self::from(&Value::Object(object)))),
            Ok(_) => Err(PlanError::source(format!("{path} is no JSON object."), "Restore it from your builder.")),
            Err(error) => Err(PlanError::source(
                format!("{path} is not valid JSON: {error}."),
                "Correct that line and run the command again; `npm pkg get name` checks it too.",
            )),
        }
    }

    /// Whether a package is wanted, for whatever.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.dependencies.contains_key(name)
            || self.dev_dependencies.contains_key(name)
            || self.optional_dependencies.contains_key(name)
    }

    /// The first of these packages that is wanted.
    pub(crate) fn wants_any<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.wants(name))
    }

    /// Everything that an install installs, by name. What production needs wins.
    pub(crate) fn all(&self) -> Specs {
        let mut all = self.dev_dependencies.clone();
        all.extend(self.optional_dependencies.clone());
        all.extend(self.dependencies.clone());
        all
    }

    /// The text of a script that is not empty.
    pub(crate) fn script(&self, name: &str) -> Option<&str> {
        self.scripts.get(name).map(|s| s.trim()).filter(|s| !s.is_empty())
    }

    /// Scripts that an install runs, in their order.
    pub(crate) fn install_scripts(&self) -> Vec<(&'static str, &str)> {
        ["preinstall", "install", "postinstall", "prepare"]
            .into_iter()
            .filter_map(|name| self.script(name).map(|text| (name, text)))
            .collect()
    }
}

impl From<&Value> for Manifest {
    fn from(value: &Value) -> Self {
        let workspaces = value.get("workspaces").map(|w| w.get("packages").unwrap_or(w));
        Self {
            name: text(value.get("name")),
            main: text(value.get("main")),
            scripts: specs(value.get("scripts")),
            dependencies: specs(value.get("dependencies")),
            dev_dependencies: specs(value.get("devDependencies")),
            optional_dependencies: specs(value.get("optionalDependencies")),
            package_manager: text(value.get("packageManager")),
            engines_node: text(value.pointer("/engines/node")),
            volta_node: text(value.pointer("/volta/node")),
            workspaces: workspaces
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|v| text(Some(v)))
                .collect(),
            pnpm_settings: value.get("pnpm").is_some(),
        }
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(|s| s.trim().to_owned()).filter(|s| !s.is_empty())
}

/// The entries of an object whose values are text.
pub(crate) fn specs(value: Option<&Value>) -> Specs {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, spec)| Some((name.clone(), spec.as_str()?.to_owned()))).collect()
}

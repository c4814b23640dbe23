//! What the app is called: `refloat.toml`, then package.json, then the folder.

use super::Detection;
use super::folder::Folder;
use super::package_json::Manifest;
use crate::error::PlanError;
use crate::label::app_label;

/// Names that templates of the builders carry: they say nothing about the app.
const TEMPLATE_NAMES: [&str; 16] = [
    "app",
    "base44-app",
    "bolt-expo-starter",
    "client",
    "frontend",
    "my-app",
    "my-project",
    "my-v0-project",
    "nextjs-template",
    "package",
    "react-app",
    "rest-express",
    "tanstack-start-ts",
    "vite-project",
    "vite-react-typescript-starter",
    "vite_react_shadcn_ts",
];

/// The app's name, a valid label.
pub(crate) fn choose(
    detection: &mut Detection<'_>,
    folder: &Folder<'_>,
    folder_name: &str,
) -> Result<String, PlanError> {
    if let Some(name) = &detection.settings.app {
        let name = name.clone();
        detection.findings.decide(format!("app name: {name}"), "refloat.toml says so");
        return Ok(name);
    }
    let package = Manifest::read(folder)?.and_then(|m| m.name);
    let own = package.as_deref().filter(|name| !TEMPLATE_NAMES.contains(name)).and_then(app_label);
    if let Some(label) = own {
        detection.findings.decide(format!("app name: {label}"), "the name in package.json");
        return Ok(label);
    }
    let because = match &package {
        Some(name) => format!("the folder's name; \"{name}\" in package.json is that of a template"),
        None => "the folder's name".to_owned(),
    };
    match app_label(folder_name) {
        Some(label) => {
            detection.findings.decide(format!("app name: {label}"), because);
            Ok(label)
        }
        None => {
            detection
                .findings
                .decide("app name: app", "neither package.json nor the folder has a name that can be used");
            Ok("app".to_owned())
        }
    }
}

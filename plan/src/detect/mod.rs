//! What an app is and how it is built and run, found out from its source alone.
//!
//! ```text
//!  refloat.toml ──▶ what it declares itself ─────────────────────────┐
//!  --prebuilt ────▶ prebuilt                                         │
//!  Dockerfile ────▶ dockerfile (when it is one for this app)         ├─▶ draft ─▶ overrides ─▶ Plan
//!  package.json ──▶ beyond? → vite (+ node_server) → node_server     │
//!  folders ───────▶ frontend/ + backend/, or the one that has an app │
//!  index.html ────▶ static_folder                                    ┘
//!  nothing ───────▶ PlanError with what was looked for
//! ```
//!
//! Every step leaves its reason in [`findings`]. Nothing of the source is run or fully parsed: what is not said literally
//! is "not known", and a default with a reason takes its place.

mod app_name;
mod beyond;
mod build_env;
mod builder;
mod dockerfile;
mod dockerfile_text;
mod draft;
mod findings;
mod folder;
mod hosting_files;
mod install_commands;
mod install_scripts;
mod js_text;
mod lockfile;
mod node_server;
mod node_version;
mod overrides;
mod package_json;
mod package_manager;
mod page_with_api;
mod pattern;
mod prebuilt;
mod recognise;
mod serverless;
mod source_text;
mod start_script;
mod static_folder;
mod vite;
mod vite_config;
mod workspace;

use crate::error::PlanError;
use crate::plan::Plan;
use crate::settings::{FILE_NAME, SCHEMA, Settings};
use crate::source::Source;
use findings::Findings;
use folder::{Folder, normal};

/// What is asked of a planner beside the source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Name of the folder that the source comes from: the app's name when nothing else gives one.
    pub folder_name: String,
    /// Whether the source is output that was built elsewhere.
    pub prebuilt: bool,
}

/// Plans the build and the processes of a source.
///
/// # Errors
/// When `refloat.toml` or package.json cannot be used, or the kind of app is unknown or cannot be built yet.
pub fn plan(source: &dyn Source, request: &Request) -> Result<Plan, PlanError> {
    let settings = Settings::read(source)?;
    let mut detection = Detection { source, settings: &settings, findings: Findings::default() };
    let root = Folder::at(source, settings.build.folder.as_deref().unwrap_or_default());
    if root.is_empty() {
        return Err(empty(&root));
    }
    detection.note_schema();
    let app = app_name::choose(&mut detection, &root, &request.folder_name)?;
    let draft = recognise::draft(&mut detection, &root, request.prebuilt)?;
    let draft = overrides::apply(&mut detection, draft)?;
    hosting_files::note(&mut detection, &root, &draft);
    let mut required_env = settings.env.required.clone();
    required_env.sort();
    required_env.dedup();
    let Findings { reasons, notes, .. } = detection.findings;
    Ok(Plan {
        app,
        builder: builder::recognise(&root).map(str::to_owned),
        shape: draft.shape,
        builds: draft.builds,
        processes: draft.processes,
        reasons,
        notes,
        build_env: draft.env.names,
        build_env_defaults: draft.env.defaults,
        required_env,
    })
}

/// What every detector works on.
struct Detection<'a> {
    source: &'a dyn Source,
    settings: &'a Settings,
    findings: Findings,
}

impl Detection<'_> {
    fn note_schema(&mut self) {
        let there = self.source.listing().file(FILE_NAME.as_bytes()).is_some();
        if there && self.settings.schema.is_none() {
            self.findings.note(format!("refloat.toml has no schema; it is read as `schema = {SCHEMA}`."));
        }
    }

    /// Whether `refloat.toml` says itself how what lies in a folder is built.
    fn is_declared(&self, folder: &Folder<'_>) -> bool {
        self.settings.process.values().any(|process| {
            let own = process.folder.as_deref().map(normal);
            let dockerfile = process.dockerfile.as_deref().map(normal);
            let beside = dockerfile.as_deref().map(|d| d.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned());
            dockerfile.is_some() && own.or(beside).as_deref() == Some(folder.path())
        })
    }
}

fn empty(root: &Folder<'_>) -> PlanError {
    match root.path() {
        "" => PlanError::source("There is no file to deploy.", "Run the command in the folder of your app."),
        path => PlanError::settings(
            format!("refloat.toml: build.folder: there is no folder \"{path}\" with files in it."),
            "Correct the path; it is read from the folder of refloat.toml. An ignore file may leave it out too.",
        ),
    }
}

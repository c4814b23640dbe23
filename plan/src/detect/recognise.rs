//! Which shape a source has: the order in which shapes are tried, and what is said when none fits.

use super::Detection;
use super::beyond;
use super::dockerfile;
use super::draft::Draft;
use super::folder::Folder;
use super::node_server::{self, Place, Role};
use super::package_json::Manifest;
use super::page_with_api::{self, API_FOLDERS, PAGE_FOLDERS};
use super::{prebuilt, serverless, static_folder, vite};
use crate::error::{PlanError, PlanErrorKind};
use crate::settings::ProcessSettings;

/// Most folders that are looked into when the root has no app.
const MAX_FOLDERS: usize = 40;

/// What `refloat.toml` declares itself, joined with what is found where it leaves something open.
pub(crate) fn draft(detection: &mut Detection<'_>, root: &Folder<'_>, is_prebuilt: bool) -> Result<Draft, PlanError> {
    let declared = declared(detection)?;
    if let Some(draft) = declared.as_ref().filter(|d| serves_root(detection, d)) {
        return Ok(Draft { shape: draft.shape.clone(), ..declared.unwrap_or_default() });
    }
    let mut found = if is_prebuilt { prebuilt::find(detection, root)? } else { found(detection, root)? };
    if let Some(mut declared) = declared {
        found.builds.retain(|b| !declared.builds.iter().any(|d| d.name() == b.name()));
        found.processes.retain(|p| !declared.processes.iter().any(|d| d.name == p.name));
        declared.shape = format!("{} and {}", found.shape, declared.shape);
        let shape = declared.shape.clone();
        found.join(declared);
        found.shape = shape;
    }
    Ok(found)
}

/// Builds and processes of which `refloat.toml` says what they are made of.
fn declared(detection: &mut Detection<'_>) -> Result<Option<Draft>, PlanError> {
    let mut draft = Draft::default();
    if let Some(path) = &detection.settings.build.dockerfile {
        let context = detection.settings.build.folder.as_deref();
        draft.join(dockerfile::named(detection, path, context, "web", "app")?);
    }
    for (name, process) in &detection.settings.process {
        if let Some(part) = declared_process(detection, name, process)? {
            draft.join(part);
        }
    }
    draft.shape = match draft.builds.as_slice() {
        [] => return Ok(None),
        builds if builds.iter().all(|b| matches!(b, crate::plan::Build::Folder { .. })) => "static folder".to_owned(),
        _ => "own Dockerfile".to_owned(),
    };
    Ok(Some(draft))
}

fn declared_process(
    detection: &mut Detection<'_>,
    name: &str,
    process: &ProcessSettings,
) -> Result<Option<Draft>, PlanError> {
    if let Some(path) = &process.dockerfile {
        return dockerfile::named(detection, path, process.folder.as_deref(), name, name).map(Some);
    }
    let Some(files) = &process.files else { return Ok(None) };
    let folder = Folder::at(detection.source, files);
    if folder.is_empty() {
        return Err(PlanError::settings(
            format!("refloat.toml: process.{name}.files: there is no folder \"{files}\" with files in it."),
            "Correct the path; it is read from the folder of refloat.toml. An ignore file may leave it out too.",
        ));
    }
    detection.findings.decide(format!("{name} publishes {}", folder.shown()), "refloat.toml says so");
    let mut draft = static_folder::draft(detection, &folder, process.fallback.as_deref());
    draft.processes.iter_mut().for_each(|p| name.clone_into(&mut p.name));
    rename_files(&mut draft, name);
    Ok(Some(draft))
}

fn rename_files(draft: &mut Draft, to: &str) {
    for build in &mut draft.builds {
        if let crate::plan::Build::Folder { name, .. } = build {
            to.clone_into(name);
        }
    }
    for process in &mut draft.processes {
        if let crate::plan::BackendPlan::Files { build, .. } = &mut process.backend {
            to.clone_into(build);
        }
    }
}

/// Whether what is declared answers at `/`, so that nothing has to be found.
fn serves_root(detection: &Detection<'_>, draft: &Draft) -> bool {
    draft.processes.iter().any(|process| {
        let settings = detection.settings.process.get(&process.name);
        let worker = settings.is_some_and(|s| s.kind.as_deref() == Some("worker"));
        let routes = settings.and_then(|s| s.routes.as_ref()).unwrap_or(&process.routes);
        !worker && routes.iter().any(|r| r == "/")
    })
}

fn found(detection: &mut Detection<'_>, root: &Folder<'_>) -> Result<Draft, PlanError> {
    if let Some(draft) = dockerfile::find(detection, root)? {
        return Ok(draft);
    }
    serverless::note(detection, root);
    let manifest = Manifest::read(root)?;
    if let Some(manifest) = &manifest {
        beyond::of_package(root, manifest)?;
        if vite::is_vite(root, manifest) && has_page(root) {
            refuse_other_server(detection, root)?;
            return page_with_api::of_page(detection, root, manifest, root);
        }
    }
    if let Some(draft) = parts(detection, root)? {
        return Ok(draft);
    }
    if let Some(manifest) = &manifest {
        if vite::is_vite(root, manifest) {
            refuse_other_server(detection, root)?;
            return page_with_api::of_page(detection, root, manifest, root);
        }
        if let Some(draft) = server(detection, root, manifest)? {
            return Ok(draft);
        }
    }
    if let Some(draft) = static_folder::find(detection, root) {
        return Ok(draft);
    }
    beyond::of_files(root)?;
    match only_app(detection, root)? {
        Some(draft) => Ok(draft),
        None => Err(nothing(root)),
    }
}

/// Whether the page of a Vite package lies in it, and not in a folder with a package of its own.
fn has_page(folder: &Folder<'_>) -> bool {
    folder.has("index.html") || !PAGE_FOLDERS.iter().any(|name| folder.has(&format!("{name}/package.json")))
}

fn refuse_other_server(detection: &Detection<'_>, root: &Folder<'_>) -> Result<(), PlanError> {
    for name in API_FOLDERS {
        let folder = root.inner(name);
        if !folder.has("package.json") && !detection.is_declared(&folder) {
            beyond::of_server_beside(&folder)?;
        }
    }
    Ok(())
}

/// A page and a server in folders of their own.
fn parts(detection: &mut Detection<'_>, root: &Folder<'_>) -> Result<Option<Draft>, PlanError> {
    for name in PAGE_FOLDERS {
        let page = root.inner(name);
        let Some(manifest) = Manifest::read(&page)? else { continue };
        let other = API_FOLDERS
            .iter()
            .map(|n| root.inner(n))
            .find_map(|f| beyond::other_language(&f).map(|(what, _)| (f, what)));
        if let Err(mut error) = beyond::of_package(&page, &manifest) {
            if let Some((folder, what)) = other {
                error.message = format!(
                    "{} Beside it, {} has {what}, which it cannot build yet either.",
                    error.message,
                    folder.path()
                );
            }
            return Err(error);
        }
        if vite::is_vite(&page, &manifest) {
            refuse_other_server(detection, root)?;
            detection
                .findings
                .decide(format!("the page lies in {name}"), format!("{name}/package.json is built by Vite"));
            return page_with_api::of_page(detection, &page, &manifest, root).map(Some);
        }
    }
    Ok(None)
}

fn server(detection: &mut Detection<'_>, folder: &Folder<'_>, manifest: &Manifest) -> Result<Option<Draft>, PlanError> {
    match node_server::find(detection, folder, manifest, Place::Own) {
        Some(server) => {
            let role = Role {
                build: "app",
                process: "web",
                routes: vec!["/".to_owned()],
                prebuilt: false,
                beside_page: false,
            };
            node_server::draft(detection, folder, manifest, &server, role).map(Some)
        }
        None => Ok(None),
    }
}

/// The one folder directly below the root that holds an app.
fn only_app(detection: &mut Detection<'_>, root: &Folder<'_>) -> Result<Option<Draft>, PlanError> {
    let names = root.folders();
    let apps: Vec<&String> =
        names.iter().take(MAX_FOLDERS).filter(|n| root.has(&format!("{n}/package.json"))).collect();
    let [name] = apps.as_slice() else { return Ok(None) };
    let folder = root.inner(name);
    let Some(manifest) = Manifest::read(&folder)? else { return Ok(None) };
    detection.findings.decide(format!("the app lies in {name}"), "no other folder has a package.json");
    beyond::of_package(&folder, &manifest)?;
    if vite::is_vite(&folder, &manifest) {
        return page_with_api::of_page(detection, &folder, &manifest, &folder).map(Some);
    }
    server(detection, &folder, &manifest)
}

fn nothing(root: &Folder<'_>) -> PlanError {
    let mut error = PlanError::new(
        PlanErrorKind::NotRecognised,
        format!("No app was recognised in {}.", root.shown()),
        "Run the command in the folder of your app, add a Dockerfile, or deploy a folder that is built already: `refloat deploy --prebuilt DIR`.",
    );
    error.looked_for = [
        "a Dockerfile for this app",
        "package.json with vite, for a page",
        "package.json with a start script, or server.js, for a Node server",
        "frontend/ and backend/ with a package.json each",
        "index.html, for a folder of static files",
    ]
    .map(str::to_owned)
    .to_vec();
    error
}

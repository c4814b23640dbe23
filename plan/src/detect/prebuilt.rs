//! Output that was built elsewhere: nothing is installed for a build and nothing is built.

use super::Detection;
use super::draft::Draft;
use super::folder::Folder;
use super::node_server::{self, Place, Role};
use super::package_json::Manifest;
use super::pattern::patterns;
use super::{dockerfile, static_folder};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::BackendPlan;

patterns! {
    MODULE = r#"<script\b[^>]*\btype=["']?module["']?[^>]*\bsrc=["']?\.?/?([^"'\s>]+)|<script\b[^>]*\bsrc=["']?\.?/?([^"'\s>]+)["']?[^>]*\btype=["']?module"#;
    HASHED = r#"[-.][A-Za-z0-9_-]{8,}\.m?js$"#;
}

/// Finds out what the output is.
pub(crate) fn find(detection: &mut Detection<'_>, folder: &Folder<'_>) -> Result<Draft, PlanError> {
    detection.findings.decide("nothing is built", "--prebuilt says that it was built elsewhere");
    if let Some(draft) = dockerfile::find(detection, folder)? {
        return Ok(draft);
    }
    let manifest = Manifest::read(folder)?;
    if let Some(manifest) = manifest.as_ref().filter(|m| m.script("start").is_some() || !folder.has("index.html"))
        && let Some(server) = node_server::find(detection, folder, manifest, Place::Own)
    {
        let role =
            Role { build: "app", process: "web", routes: vec!["/".to_owned()], prebuilt: true, beside_page: false };
        let mut draft = node_server::draft(detection, folder, manifest, &server, role)?;
        draft.shape = "Node server, built elsewhere".to_owned();
        return Ok(draft);
    }
    if folder.has("index.html") {
        return Ok(pages(detection, folder));
    }
    Err(nothing(folder))
}

fn pages(detection: &mut Detection<'_>, folder: &Folder<'_>) -> Draft {
    let hashed = hashed_script(folder);
    let fallback = hashed.is_some() && only_page(folder) && !folder.has("404.html");
    if fallback {
        detection.findings.decide(
            "unknown pages answer with index.html",
            "it is the only page, and its script finds the others in the browser",
        );
    }
    let mut draft = static_folder::draft(detection, folder, fallback.then_some("index.html"));
    draft.shape = "static files, built elsewhere".to_owned();
    if let (Some(top), Some(process)) = (hashed, draft.processes.first_mut())
        && let BackendPlan::Files { immutable, .. } = &mut process.backend
    {
        detection
            .findings
            .decide(format!("/{top} is cached for ever"), "its files carry a hash of their content in their names");
        immutable.push(format!("/{top}"));
    }
    draft
}

/// The folder of the script that the page loads, when its name carries a hash and everything beside it does too.
fn hashed_script(folder: &Folder<'_>) -> Option<String> {
    let page = folder.text("index.html")?;
    let found = MODULE.captures(&page)?;
    let script = found.get(1).or_else(|| found.get(2))?.as_str();
    let (top, _) = script.split_once('/')?;
    let inner = folder.inner(top);
    let scripts: Vec<String> = inner.file_names().iter().filter(|n| n.ends_with("js")).map(|n| n.to_string()).collect();
    let all = HASHED.is_match(script) && scripts.iter().all(|name| HASHED.is_match(name));
    (all && crate::label::is_prefix(&format!("/{top}"))).then(|| top.to_owned())
}

fn only_page(folder: &Folder<'_>) -> bool {
    folder.files().filter(|(path, _)| path.ends_with(b".html")).count() == 1
}

fn nothing(folder: &Folder<'_>) -> PlanError {
    let mut error = PlanError::new(
        PlanErrorKind::NotRecognised,
        format!("Nothing in {} can be served as it is.", folder.shown()),
        "Give the folder that your build wrote, such as `refloat deploy --prebuilt dist`.",
    );
    error.looked_for = vec![
        "Dockerfile".to_owned(),
        "package.json with a start script, for a server".to_owned(),
        "index.html, for pages".to_owned(),
    ];
    error
}

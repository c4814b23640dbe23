//! A folder of pages that needs no build.

use super::Detection;
use super::draft::{Draft, web};
use super::folder::Folder;
use crate::plan::{BackendPlan, Build};

/// Folders that hold the pages when the root does not, the best first.
const FOLDERS: [&str; 9] = ["public", "site", "www", "html", "static", "dist", "build", "out", "docs"];

/// The pages of a folder, or of the one folder in it that has them.
pub(crate) fn find(detection: &mut Detection<'_>, folder: &Folder<'_>) -> Option<Draft> {
    let (place, because) = if folder.has("index.html") {
        (folder.clone(), "index.html is there and nothing has to be built".to_owned())
    } else {
        let name = FOLDERS.into_iter().find(|name| folder.has(&format!("{name}/index.html")))?;
        (folder.inner(name), format!("index.html lies in {name} and nothing has to be built"))
    };
    detection.findings.decide("a folder of static files", because);
    Some(draft(detection, &place, None))
}

/// Publishes a folder as it is; `fallback` answers unknown pages.
pub(crate) fn draft(detection: &mut Detection<'_>, folder: &Folder<'_>, fallback: Option<&str>) -> Draft {
    let not_found = folder.has("404.html") && fallback.is_none();
    if not_found {
        detection.findings.decide("unknown addresses answer with 404.html", "it is there");
    }
    let build = Build::Folder { name: "web".to_owned(), folder: folder.path().to_owned() };
    let backend = BackendPlan::Files {
        build: "web".to_owned(),
        fallback: fallback.map(str::to_owned),
        not_found: not_found.then(|| "404.html".to_owned()),
        no_fallback: if fallback.is_some() { vec!["/api".to_owned()] } else { Vec::new() },
        immutable: Vec::new(),
    };
    Draft::of("static folder", build, web("web", backend, &["/"]))
}

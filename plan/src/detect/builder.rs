//! Which builder exported a source. It changes nothing but what is said.

use super::folder::Folder;
use super::package_json::Manifest;

/// The builder's name, by what it leaves behind.
pub(crate) fn recognise(folder: &Folder<'_>) -> Option<&'static str> {
    let manifests: Vec<Manifest> =
        ["", "frontend"].iter().filter_map(|name| Manifest::read(&folder.inner(name)).ok().flatten()).collect();
    let wants = |package: &str| manifests.iter().any(|m| m.wants(package));
    let starts = |prefix: &str| manifests.iter().any(|m| m.all().keys().any(|name| name.starts_with(prefix)));
    let readme = folder.text("README.md").unwrap_or_default();
    let requirements = folder.text("backend/requirements.txt").unwrap_or_default();
    if starts("@base44/") || folder.has_folder("base44") {
        Some("Base44")
    } else if folder.has_folder(".emergent") || requirements.contains("emergentintegrations") {
        Some("Emergent")
    } else if folder.has_folder(".bolt") {
        Some("Bolt")
    } else if wants("lovable-tagger")
        || starts("@lovable.dev/")
        || folder.has_folder(".lovable")
        || readme.contains("lovable.dev")
    {
        Some("Lovable")
    } else if readme.contains("v0.dev") || readme.contains("v0.app") {
        Some("v0")
    } else {
        None
    }
}

//! A page and the Node server behind it: two processes of one app at one address.

use super::Detection;
use super::draft::Draft;
use super::folder::Folder;
use super::node_server::{self, FRAMEWORKS, Place, Role, Server};
use super::package_json::Manifest;
use super::vite;
use super::vite_config::{self, ViteConfig};
use crate::error::PlanError;

/// Folders that hold a server next to a page.
pub(crate) const API_FOLDERS: [&str; 8] =
    ["server", "api", "backend", "apps/api", "apps/server", "apps/backend", "packages/server", "packages/api"];
/// Folders that hold a page next to a server.
pub(crate) const PAGE_FOLDERS: [&str; 10] = [
    "frontend",
    "client",
    "web",
    "ui",
    "app",
    "apps/web",
    "apps/frontend",
    "apps/client",
    "packages/client",
    "packages/web",
];

/// A server that belongs to a page.
struct Api<'a> {
    folder: Folder<'a>,
    manifest: Manifest,
    server: Server,
    beside_page: bool,
}

/// A Vite page, with its server when there is one.
pub(crate) fn of_page(
    detection: &mut Detection<'_>,
    page: &Folder<'_>,
    manifest: &Manifest,
    around: &Folder<'_>,
) -> Result<Draft, PlanError> {
    detection.findings.decide("Vite", format!("{} depends on it", page.join("package.json")));
    let config = vite_config::read(page);
    match api(detection, page, manifest, around)? {
        Some(api) if api.beside_page && api.server.serves_pages() => whole(detection, &api),
        Some(api) => both(detection, page, manifest, &config, &api),
        None => {
            note_forwarded(detection, &config, &[]);
            vite::draft(detection, page, manifest, &config, &[])
        }
    }
}

fn api<'a>(
    detection: &mut Detection<'_>,
    page: &Folder<'a>,
    manifest: &Manifest,
    around: &Folder<'a>,
) -> Result<Option<Api<'a>>, PlanError> {
    for name in API_FOLDERS {
        let folder = around.inner(name);
        if folder.path() == page.path() || detection.is_declared(&folder) {
            continue;
        }
        // A package.json that only says which kind of module it is, is no package: the root's packages are meant.
        let is_own = |own: &Manifest| !own.all().is_empty() || manifest.wants_any(&FRAMEWORKS).is_none();
        if let Some(own) = Manifest::read(&folder)?.filter(is_own)
            && !vite::is_vite(&folder, &own)
            && let Some(server) = node_server::find(detection, &folder, &own, Place::Own)
        {
            detection
                .findings
                .decide("a server beside the page", format!("{} starts one", folder.join("package.json")));
            return Ok(Some(Api { folder, manifest: own, server, beside_page: false }));
        }
    }
    if manifest.wants_any(&FRAMEWORKS).is_none() && !has_server_file(page) {
        explain_start(detection, page, manifest);
        return Ok(None);
    }
    Ok(node_server::find(detection, page, manifest, Place::BesidePage).map(|server| {
        detection.findings.decide("a server beside the page", "the same package.json has both");
        Api { folder: page.clone(), manifest: manifest.clone(), server, beside_page: true }
    }))
}

/// Says why a `start` script that everybody would expect to run does not.
fn explain_start(detection: &mut Detection<'_>, page: &Folder<'_>, manifest: &Manifest) {
    if let Some(script) = manifest.script("start") {
        let start = super::start_script::read(page, manifest, script, true).start;
        node_server::refuse_start(detection, "start", &start);
    }
}

fn has_server_file(page: &Folder<'_>) -> bool {
    let files = [
        "server.js",
        "server.mjs",
        "server.cjs",
        "server.ts",
        "server/index.js",
        "server/index.mjs",
        "server/index.ts",
        "server/server.js",
    ];
    page.first_of(&files).is_some()
}

/// One server that answers with the pages too.
fn whole(detection: &mut Detection<'_>, api: &Api<'_>) -> Result<Draft, PlanError> {
    detection.findings.decide("one process", "the server answers with the pages that Vite builds");
    let role = Role { build: "app", process: "web", routes: vec!["/".to_owned()], prebuilt: false, beside_page: false };
    let mut draft = node_server::draft(detection, &api.folder, &api.manifest, &api.server, role)?;
    draft.shape = "Node server with a Vite page".to_owned();
    Ok(draft)
}

fn both(
    detection: &mut Detection<'_>,
    page: &Folder<'_>,
    manifest: &Manifest,
    config: &ViteConfig,
    api: &Api<'_>,
) -> Result<Draft, PlanError> {
    let routes = routes(detection, config, api);
    note_forwarded(detection, config, &routes);
    // What holds for one package holds for both processes.
    let parts = if api.beside_page { [None, None] } else { [Some("web"), Some("api")] };
    detection.findings.part = parts[0];
    let mut draft = vite::draft(detection, page, manifest, config, &routes)?;
    detection.findings.part = parts[1];
    let role = Role { build: "api", process: "api", routes, prebuilt: false, beside_page: api.beside_page };
    draft.join(node_server::draft(detection, &api.folder, &api.manifest, &api.server, role)?);
    detection.findings.part = None;
    draft.shape = "Vite single-page app with a Node API".to_owned();
    Ok(draft)
}

/// What goes to the server: what the development server forwards to this computer, else `/api`.
fn routes(detection: &mut Detection<'_>, config: &ViteConfig, api: &Api<'_>) -> Vec<String> {
    let local = config.proxies.iter().filter(|p| p.is_local()).map(|p| p.prefix.clone());
    let mut routes: Vec<String> = local.filter(|r| crate::label::is_prefix(r) && r != "/").collect();
    let file = config.file.unwrap_or("vite.config");
    let mut because = format!("{file} forwards it to the server in development");
    if routes.is_empty() {
        routes.push("/api".to_owned());
        because = format!("the usual path; {file} forwards none");
    }
    detection.findings.decide(format!("{} goes to the server", routes.join(", ")), because);
    let more: Vec<String> = api
        .server
        .socket_routes(&api.manifest)
        .into_iter()
        .filter(|r| !routes.iter().any(|known| is_below(r, known)))
        .collect();
    if !more.is_empty() {
        detection.findings.decide(format!("{} goes to the server", more.join(", ")), "it listens for sockets there");
    }
    routes.extend(more);
    routes
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The development server forwards requests; in production nobody does.
fn note_forwarded(detection: &mut Detection<'_>, config: &ViteConfig, served: &[String]) {
    let file = config.file.unwrap_or("vite.config");
    for proxy in &config.proxies {
        let target = proxy.target.as_deref().unwrap_or("a server");
        if !served.contains(&proxy.prefix) {
            detection.findings.warn(format!(
                "In development {file} forwards {} to {target}; in production nothing does, and the page gets an error there.",
                proxy.prefix
            ));
        } else if proxy.rewritten {
            detection.findings.warn(format!(
                "In development {file} changes the path of {} before the server gets it; here the server gets it unchanged and must know it.",
                proxy.prefix
            ));
        }
    }
}

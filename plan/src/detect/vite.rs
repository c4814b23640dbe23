//! A page that Vite builds: files, no container.

use super::Detection;
use super::build_env;
use super::dockerfile_text::{Recipe, tree};
use super::draft::{Draft, ignored, web};
use super::folder::{Folder, normal};
use super::node_version;
use super::package_json::Manifest;
use super::package_manager::{self, Manager};
use super::pattern::patterns;
use super::source_text::SourceText;
use super::vite_config::{self, ViteConfig};
use crate::error::PlanError;
use crate::plan::{BackendPlan, Build};

patterns! {
    OUT_DIR_OPTION = r#"--outDir[ =]+["']?([A-Za-z0-9._/-]+)"#;
    REDIRECTS = r#"location\s*\.\s*(?:replace|assign)\s*\(|\blocation(?:\.href)?\s*=|http-equiv=["']refresh"#;
}

/// Whether a package is built by Vite.
pub(crate) fn is_vite(package: &Folder<'_>, manifest: &Manifest) -> bool {
    manifest.wants("vite") || (vite_config::read(package).file.is_some() && manifest.script("build").is_some())
}

/// The files of a Vite page and the process that serves them.
pub(crate) fn draft(
    detection: &mut Detection<'_>,
    package: &Folder<'_>,
    manifest: &Manifest,
    config: &ViteConfig,
    api_routes: &[String],
) -> Result<Draft, PlanError> {
    let settings = detection.settings;
    let node = node_version::choose(settings.build.node.as_deref(), package, manifest, &mut detection.findings);
    let install =
        package_manager::choose(settings.build.package_manager.as_deref(), package, manifest, &mut detection.findings)?;
    let build = build_line(detection, manifest, install.manager);
    let output = output(detection, manifest, config);
    let text = SourceText::of(package, &[]);
    let env = build_env::of_vite(package, &config.text, &text, &settings.env.public, &mut detection.findings);
    let recipe =
        Recipe { node, install: Some(&install), package: &install.package, build: Some(&build), variables: &env.names };
    let web_build = Build::Tree {
        name: "web".to_owned(),
        dockerfile: tree(&recipe, &output),
        context: install.root.path().to_owned(),
        ignore: ignored(&install.package, Some(&output)),
    };
    note_base(detection, config);
    let backend = files(detection, package, config, api_routes);
    let mut draft = Draft::of("Vite single-page app", web_build, web("web", backend, &["/"]));
    draft.env = env;
    Ok(draft)
}

fn build_line(detection: &mut Detection<'_>, manifest: &Manifest, manager: Manager) -> String {
    let (line, because) = match (&detection.settings.build.command, manifest.script("build")) {
        (Some(command), _) => (command.clone(), "refloat.toml says so".to_owned()),
        (None, Some(script)) => (manager.run("build"), format!("the script \"build\" is \"{script}\"")),
        (None, None) => (manager.exec("vite build"), "package.json has no script \"build\"".to_owned()),
    };
    detection.findings.decide(format!("build: {line}"), because);
    line
}

fn output(detection: &mut Detection<'_>, manifest: &Manifest, config: &ViteConfig) -> String {
    let option = manifest.script("build").and_then(|s| OUT_DIR_OPTION.captures(s)).map(|c| normal(&c[1]));
    let file = config.file.unwrap_or("vite.config");
    let (folder, because) = if let Some(output) = &detection.settings.build.output {
        (normal(output), "refloat.toml says so".to_owned())
    } else if let Some(option) = option.filter(|o| !o.split('/').any(|s| s == "..")) {
        (option, "the script \"build\" says so".to_owned())
    } else if let Some(output) = &config.out_dir {
        (output.clone(), format!("{file} says so"))
    } else {
        let root = if config.root.is_empty() { "dist".to_owned() } else { format!("{}/dist", config.root) };
        let computed =
            format!("{file} computes it, and Vite's default is taken; `output` under [build] in refloat.toml says it");
        (root, if config.out_dir_computed { computed } else { "Vite's default".to_owned() })
    };
    detection.findings.decide(format!("output folder: {folder}"), because);
    folder
}

fn note_base(detection: &mut Detection<'_>, config: &ViteConfig) {
    let file = config.file.unwrap_or("vite.config");
    match config.base.as_deref() {
        None | Some("/") => {}
        Some(base @ ("./" | "")) => detection.findings.note(format!(
            "{file} sets base to \"{base}\": a page whose address has more than one part, such as /shop/1, looks for its files in /shop and stays white when it is opened directly. Remove it unless the app has no such pages."
        )),
        Some(base) => detection.findings.warn(format!(
            "{file} sets base to \"{base}\": the page will look for its files below that address and stay white at \"/\". Remove it, or build with --base=/."
        )),
    }
}

fn files(
    detection: &mut Detection<'_>,
    package: &Folder<'_>,
    config: &ViteConfig,
    api_routes: &[String],
) -> BackendPlan {
    let pages = package.inner(&config.root);
    let (fallback, not_found) = fallback(detection, &pages);
    let mut no_fallback: Vec<String> = api_routes.iter().cloned().chain(["/api".to_owned()]).collect();
    no_fallback.extend(config.proxies.iter().map(|p| p.prefix.clone()));
    no_fallback.retain(|prefix| crate::label::is_prefix(prefix) && prefix != "/");
    no_fallback.sort();
    no_fallback.dedup();
    BackendPlan::Files {
        build: "web".to_owned(),
        fallback,
        not_found,
        no_fallback,
        immutable: immutable(detection, &pages, &config.assets_dir),
    }
}

/// A real 404 page means that unknown addresses are errors; one that sends the visitor elsewhere is the trick of hosts
/// without a fallback.
fn fallback(detection: &mut Detection<'_>, pages: &Folder<'_>) -> (Option<String>, Option<String>) {
    match pages.text("public/404.html") {
        Some(text) if !REDIRECTS.is_match(&text) => {
            detection.findings.decide("unknown addresses answer with 404.html", "public/404.html is there");
            (None, Some("404.html".to_owned()))
        }
        found => {
            let because = match found {
                Some(_) => "public/404.html only sends visitors back to the app, which is not needed here",
                None => "the app finds its pages in the browser",
            };
            detection.findings.decide("unknown pages answer with index.html", because);
            (Some("index.html".to_owned()), None)
        }
    }
}

fn immutable(detection: &mut Detection<'_>, pages: &Folder<'_>, assets: &str) -> Vec<String> {
    let prefix = format!("/{assets}");
    if pages.has_folder(&format!("public/{assets}")) {
        detection.findings.decide(
            format!("{prefix} is not cached for ever"),
            format!("public/{assets} has files whose names do not change with their content"),
        );
        return Vec::new();
    }
    if crate::label::is_prefix(&prefix) && prefix != "/" { vec![prefix] } else { Vec::new() }
}

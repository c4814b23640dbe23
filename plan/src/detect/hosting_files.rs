//! Files that another host would read: what of them is not applied here.
//!
//! The fallback of a single-page app is what they mostly hold: nothing is said of it where the plan has it anyway. Keys about
//! the build are the business of the plan.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Detection;
use super::draft::Draft;
use super::findings::listed;
use super::folder::Folder;
use crate::plan::{BackendPlan, Build};

/// Where the files lie that a build copies into its output.
const PUBLIC: &str = "public";
/// Most paths that are named for each kind of rule.
const MAX_PATHS: usize = 3;
/// What `vercel.json` asks for beside rules about paths.
const VERCEL_EXTRAS: [&str; 4] = ["crons", "cleanUrls", "trailingSlash", "functions"];
/// The same of `netlify.toml`.
const NETLIFY_EXTRAS: [&str; 4] = ["edge_functions", "plugins", "context", "functions"];

/// One rule about a path.
struct Rule {
    from: String,
    to: String,
}

/// Reads one folder's files.
struct Reader {
    /// Whether the plan answers unknown pages with `index.html`.
    falls_back: bool,
}

/// Warns of what the root and the folders that are built or published hold.
pub(crate) fn note(detection: &mut Detection<'_>, root: &Folder<'_>, draft: &Draft) {
    let mut folders = BTreeSet::from([root.path().to_owned()]);
    for build in &draft.builds {
        match build {
            // An own Dockerfile brings its own server.
            Build::Image { own: true, .. } => {}
            Build::Image { context: folder, .. }
            | Build::Tree { context: folder, .. }
            | Build::Folder { folder, .. } => {
                folders.insert(folder.clone());
            }
        }
    }
    if draft.builds.iter().all(|build| matches!(build, Build::Image { own: true, .. })) {
        return;
    }
    let falls_back = draft.processes.iter().any(|p| matches!(&p.backend, BackendPlan::Files { fallback: Some(_), .. }));
    let reader = Reader { falls_back };
    let found: Vec<String> =
        folders.iter().flat_map(|path| reader.of_folder(&Folder::at(detection.source, path))).collect();
    if !found.is_empty() {
        detection.findings.warn(format!("Not applied here, because another host would read it: {}.", found.join("; ")));
    }
}

impl Reader {
    /// What is not applied, a text for each file.
    fn of_folder(&self, folder: &Folder<'_>) -> Vec<String> {
        let public = folder.inner(PUBLIC);
        let texts = |name: &'static str| {
            [folder, &public].into_iter().filter_map(move |place| Some((place.join(name), place.text(name)?)))
        };
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        found.extend(texts("_redirects").map(|(path, text)| (path, self.of_rules("redirects of", &redirects(&text)))));
        found.extend(texts("_headers").map(|(path, text)| (path, of_paths("headers for", header_paths(&text)))));
        let vercel = folder.text("vercel.json").and_then(|text| serde_json::from_str::<Value>(&text).ok());
        found.extend(vercel.map(|json| (folder.join("vercel.json"), self.of_vercel(&json))));
        let netlify = folder.text("netlify.toml").and_then(|text| toml::from_str::<Value>(&text).ok());
        found.extend(netlify.map(|table| (folder.join("netlify.toml"), self.of_netlify(&table))));
        let told = |(path, what): (String, Vec<String>)| format!("{path} has {}", listed(&what, what.len()));
        found.into_iter().filter(|(_, what)| !what.is_empty()).map(told).collect()
    }

    fn of_vercel(&self, json: &Value) -> Vec<String> {
        let mut what = self.of_rules("redirects of", &rules(json, "redirects", "source", "destination"));
        what.extend(self.of_rules("rewrites of", &rules(json, "rewrites", "source", "destination")));
        what.extend(self.of_rules("routes of", &rules(json, "routes", "src", "dest")));
        what.extend(of_paths(
            "headers for",
            rules(json, "headers", "source", "").into_iter().map(|r| r.from).collect(),
        ));
        what.extend(VERCEL_EXTRAS.iter().filter(|key| is_set(json, key)).map(|key| (*key).to_owned()));
        what
    }

    fn of_netlify(&self, table: &Value) -> Vec<String> {
        let mut what = self.of_rules("redirects of", &rules(table, "redirects", "from", "to"));
        what.extend(of_paths("headers for", rules(table, "headers", "for", "").into_iter().map(|r| r.from).collect()));
        what.extend(NETLIFY_EXTRAS.iter().filter(|key| is_set(table, key)).map(|key| (*key).to_owned()));
        what
    }

    /// Rules other than that every page is answered with `index.html`, where that is done anyway.
    fn of_rules(&self, kind: &str, rules: &[Rule]) -> Vec<String> {
        let is_fallback =
            |rule: &&Rule| matches!(rule.to.trim_start_matches('/'), "" | "index.html") && rule.from.contains('*');
        of_paths(
            kind,
            rules.iter().filter(|rule| !(self.falls_back && is_fallback(rule))).map(|rule| rule.from.clone()).collect(),
        )
    }
}

/// Whether a key has a value that asks for something.
fn is_set(json: &Value, key: &str) -> bool {
    !matches!(json.get(key), None | Some(Value::Null | Value::Bool(false)))
}

/// The rules of a list; one without a path, such as `{ "handle": "filesystem" }`, is none.
fn rules(json: &Value, list: &str, from: &str, to: &str) -> Vec<Rule> {
    let text = |rule: &Value, key: &str| rule.get(key).and_then(Value::as_str).map(str::to_owned);
    let rule = |it: &Value| Some(Rule { from: text(it, from)?, to: text(it, to).unwrap_or_default() });
    json.get(list).and_then(Value::as_array).into_iter().flatten().filter_map(rule).collect()
}

/// `/old /new 301`, one a line; between the two may stand `id=:id`.
fn redirects(text: &str) -> Vec<Rule> {
    let rule = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let from = words.next()?.to_owned();
        let to = words.find(|word| word.starts_with('/') || word.contains("://"))?.to_owned();
        Some(Rule { from, to })
    };
    text.lines().filter_map(rule).collect()
}

/// Paths stand at the beginning of a line, their headers below, indented.
fn header_paths(text: &str) -> Vec<String> {
    let is_path = |line: &&str| line.starts_with('/') || line.starts_with("http");
    text.lines().filter(is_path).map(|line| line.trim().to_owned()).collect()
}

fn of_paths(kind: &str, mut paths: Vec<String>) -> Vec<String> {
    paths.dedup();
    paths.iter_mut().for_each(|path| *path = path.chars().take(60).collect());
    if paths.is_empty() { Vec::new() } else { vec![format!("{kind} {}", listed(&paths, MAX_PATHS))] }
}

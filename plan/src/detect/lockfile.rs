//! Lockfiles: what they say about the packages of a project, and whether that still is what `package.json` says.
//!
//! A lockfile that drifted fails a strict install; one that matches gives the same packages again. Which one it is can be
//! seen from the text of both, before anything is built.

use std::collections::BTreeMap;

use serde_json::Value;

use super::folder::Folder;
use super::js_text::strict_json;
use super::package_json::{Manifest, Specs, specs};

/// A kind of lockfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Npm,
    Pnpm,
    Yarn,
    Bun,
    /// Bun's old format: binary, so that nothing can be compared.
    BunBinary,
}

/// Names of lockfiles, the best evidence first when several are equally good: npm is what the image has.
pub(crate) const KINDS: [(&str, Kind); 6] = [
    ("package-lock.json", Kind::Npm),
    ("npm-shrinkwrap.json", Kind::Npm),
    ("pnpm-lock.yaml", Kind::Pnpm),
    ("yarn.lock", Kind::Yarn),
    ("bun.lock", Kind::Bun),
    ("bun.lockb", Kind::BunBinary),
];

/// Whether a lockfile is what `package.json` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It is.
    Matches,
    /// It cannot be told, and why.
    Unchecked(&'static str),
    /// It is not: the packages that differ, sorted.
    Drifted(Vec<String>),
    /// It is, and yet a strict install fails: these packages, sorted, are needed by others of it and stand nowhere in it.
    Incomplete(Vec<String>),
    /// It lacks what an install on Linux needs, or is no lockfile: better none.
    Unusable(&'static str),
}

/// One lockfile of a folder.
#[derive(Debug, Clone)]
pub(crate) struct Lockfile {
    /// Its name.
    pub(crate) file: &'static str,
    /// Its kind.
    pub(crate) kind: Kind,
    /// Whether it fits.
    pub(crate) state: State,
    /// Version of its format, as it stands in it.
    pub(crate) format: Option<String>,
}

/// Begins the format of a lockfile that a later yarn wrote.
const BERRY: &str = "berry ";

impl Lockfile {
    /// The format's version when a later yarn wrote it; empty when it does not say.
    pub(crate) fn berry_format(&self) -> Option<&str> {
        self.format.as_deref().and_then(|format| format.strip_prefix(BERRY))
    }
}

/// The manifests that one lockfile is for, by folder from the lockfile's own; empty for its own.
pub(crate) type Manifests<'a> = BTreeMap<String, &'a Manifest>;

/// Every lockfile of a folder.
pub(crate) fn all(folder: &Folder<'_>, manifests: &Manifests<'_>) -> Vec<Lockfile> {
    KINDS.iter().filter(|(file, _)| folder.has(file)).map(|(file, kind)| read(folder, file, *kind, manifests)).collect()
}

fn read(folder: &Folder<'_>, file: &'static str, kind: Kind, manifests: &Manifests<'_>) -> Lockfile {
    let text = if kind == Kind::BunBinary { None } else { folder.text(file) };
    let (state, format) = match (kind, text) {
        (Kind::BunBinary, _) => (State::Unchecked("its format is binary"), None),
        (_, None) => (State::Unchecked("it is larger than 1 MiB"), None),
        (Kind::Npm, Some(text)) => npm(&text, manifests, peers(folder)),
        (Kind::Pnpm, Some(text)) => pnpm(&text, manifests),
        (Kind::Yarn, Some(text)) => yarn(&text, manifests),
        (Kind::Bun, Some(text)) => bun(&text, manifests),
    };
    Lockfile { file, kind, state, format }
}

/// Whether npm installs what packages want beside them.
#[derive(Clone, Copy, PartialEq)]
enum Peers {
    Installed,
    Left,
}

/// A lockfile that was made without peers is complete for the one who installs without them.
fn peers(folder: &Folder<'_>) -> Peers {
    let settings = folder.text(".npmrc").unwrap_or_default();
    let setting = |line: &str| line.split_whitespace().collect::<String>();
    match settings.lines().any(|line| setting(line) == "legacy-peer-deps=true") {
        true => Peers::Left,
        false => Peers::Installed,
    }
}

fn npm(text: &str, manifests: &Manifests<'_>, peers: Peers) -> (State, Option<String>) {
    let Ok(lock) = serde_json::from_str::<Value>(text) else { return (State::Unusable("it is not valid JSON"), None) };
    let format = lock.get("lockfileVersion").and_then(Value::as_u64).map(|v| v.to_string());
    let Some(packages) = lock.get("packages").and_then(Value::as_object) else {
        return (npm_1(&lock, manifests), format);
    };
    if packages.contains_key("node_modules/rollup")
        && !packages.contains_key("node_modules/@rollup/rollup-linux-x64-gnu")
        && packages.keys().any(|key| key.starts_with("node_modules/@rollup/rollup-"))
    {
        return (State::Unusable("it was made on another system and lacks the packages for Linux"), format);
    }
    let of = |path: &str| packages.get(path).map(locked_by_npm);
    let state = match compare(manifests, of, Extra::Allowed) {
        State::Matches => complete(packages, peers),
        other => other,
    };
    (state, format)
}

/// Whether each package finds what it needs where Node looks for it. Older versions of npm and other tools leave peers
/// out, which `npm ci` refuses.
fn complete(packages: &serde_json::Map<String, Value>, peers: Peers) -> State {
    let mut missing: Vec<String> = packages
        .iter()
        .filter(|(path, _)| path.contains("node_modules/"))
        .filter(|(_, entry)| !["link", "optional", "inBundle"].iter().any(|flag| entry.get(flag).is_some()))
        .flat_map(|(path, entry)| needs(entry, peers).filter(|name| !is_found(packages, path, name)))
        .cloned()
        .collect();
    missing.sort();
    missing.dedup();
    if missing.is_empty() { State::Matches } else { State::Incomplete(missing) }
}

fn needs(entry: &Value, peers: Peers) -> impl Iterator<Item = &String> {
    let names = |section: &str| entry.get(section).and_then(Value::as_object).into_iter().flat_map(|all| all.keys());
    let may_lack = |name: &String| {
        let meta = entry.get("peerDependenciesMeta").and_then(|all| all.get(name));
        meta.and_then(|meta| meta.get("optional")).and_then(Value::as_bool) == Some(true)
    };
    let peers = names("peerDependencies").filter(move |name| peers == Peers::Installed && !may_lack(name));
    names("dependencies").chain(peers)
}

fn is_found(packages: &serde_json::Map<String, Value>, from: &str, name: &str) -> bool {
    let mut at = from;
    loop {
        let separator = if at.is_empty() { "" } else { "/" };
        if packages.contains_key(&format!("{at}{separator}node_modules/{name}")) {
            return true;
        }
        if at.is_empty() {
            return false;
        }
        at = at.rfind("node_modules/").map_or("", |end| at[..end].trim_end_matches('/'));
    }
}

fn locked_by_npm(entry: &Value) -> Specs {
    let mut all = specs(entry.get("devDependencies"));
    all.extend(specs(entry.get("optionalDependencies")));
    all.extend(specs(entry.get("dependencies")));
    all
}

/// The first format knows no ranges, only names.
fn npm_1(lock: &Value, manifests: &Manifests<'_>) -> State {
    let Some(locked) = lock.get("dependencies").and_then(Value::as_object) else {
        let nothing = manifests.values().all(|m| m.all().is_empty());
        return if nothing { State::Matches } else { State::Unusable("it lists no packages") };
    };
    let missing = |m: &&Manifest| m.all().into_keys().filter(|name| !locked.contains_key(name)).collect::<Vec<_>>();
    drifted(manifests.values().flat_map(missing).collect())
}

/// Whether packages that only the lockfile has make a strict install fail.
#[derive(Clone, Copy, PartialEq)]
enum Extra {
    Allowed,
    Drift,
}

fn compare(manifests: &Manifests<'_>, locked: impl Fn(&str) -> Option<Specs>, extra: Extra) -> State {
    let mut different = Vec::new();
    for (path, manifest) in manifests {
        let (wanted, locked) = (manifest.all(), locked(path).unwrap_or_default());
        different.extend(wanted.iter().filter(|(name, spec)| locked.get(*name) != Some(*spec)).map(|(n, _)| n.clone()));
        if extra == Extra::Drift {
            different.extend(locked.into_keys().filter(|name| !wanted.contains_key(name)));
        }
    }
    drifted(different)
}

fn drifted(mut different: Vec<String>) -> State {
    different.sort();
    different.dedup();
    if different.is_empty() { State::Matches } else { State::Drifted(different) }
}

fn bun(text: &str, manifests: &Manifests<'_>) -> (State, Option<String>) {
    let Ok(lock) = serde_json::from_str::<Value>(&strict_json(text)) else {
        return (State::Unusable("it cannot be read"), None);
    };
    let of = |path: &str| lock.get("workspaces").and_then(|w| w.get(path)).map(locked_by_npm);
    let format = lock.get("lockfileVersion").and_then(Value::as_u64).map(|v| v.to_string());
    (compare(manifests, of, Extra::Drift), format)
}

/// Reads the few lines that matter by their indentation; the rest of the YAML is of no interest here.
fn pnpm(text: &str, manifests: &Manifests<'_>) -> (State, Option<String>) {
    let format = text.lines().find_map(|l| l.strip_prefix("lockfileVersion:")).map(|v| unquoted(v).to_owned());
    let importers = pnpm_importers(text);
    let of = |path: &str| importers.get(if path.is_empty() { "." } else { path }).cloned();
    if format.is_none() {
        return (State::Unusable("it has no version"), None);
    }
    (compare(manifests, of, Extra::Drift), format)
}

fn pnpm_importers(text: &str) -> BTreeMap<String, Specs> {
    let mut importers: BTreeMap<String, Specs> = BTreeMap::new();
    let (mut top, mut importer, mut section, mut name) = (String::new(), ".".to_owned(), String::new(), String::new());
    for line in text.lines() {
        let body = line.trim_start();
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let Some((key, value)) = yaml_entry(body) else { continue };
        let indent = line.len() - body.len();
        if indent == 0 {
            (top, section, importer) = (key.clone(), key, ".".to_owned());
            continue;
        }
        // Below `importers:` everything lies two levels deeper than in a lockfile of a single project.
        let level = if top == "importers" { indent.checked_sub(4) } else { Some(indent) };
        match level {
            None => importer = key,
            Some(0) => section = key,
            Some(2) => {
                name = key;
                if section == "specifiers" {
                    importers.entry(importer.clone()).or_default().insert(name.clone(), value);
                }
            }
            Some(4) if key == "specifier" && section.to_ascii_lowercase().ends_with("dependencies") => {
                importers.entry(importer.clone()).or_default().insert(name.clone(), value);
            }
            _ => {}
        }
    }
    importers
}

fn yaml_entry(body: &str) -> Option<(String, String)> {
    let (key, value) = match body.as_bytes().first()? {
        quote @ (b'\'' | b'"') => {
            let end = body[1..].find(char::from(*quote))? + 1;
            (&body[1..end], body[end + 1..].strip_prefix(':')?)
        }
        _ => body.split_once(':')?,
    };
    Some((key.to_owned(), unquoted(value).to_owned()))
}

fn unquoted(value: &str) -> &str {
    let value = value.trim();
    let inner = |quote: char| value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote));
    inner('\'').or_else(|| inner('"')).unwrap_or(value)
}

/// `  version: 8` below `__metadata:`; empty when it is not there.
fn berry_format(text: &str) -> &str {
    let below = text.lines().skip_while(|line| !line.starts_with("__metadata:")).skip(1);
    let mut below = below.take_while(|line| line.starts_with(' '));
    below.find_map(|line| line.trim().strip_prefix("version:")).map(str::trim).unwrap_or_default()
}

/// A lockfile of yarn names every `package@range` that it answers, in both of its formats.
fn yarn(text: &str, manifests: &Manifests<'_>) -> (State, Option<String>) {
    let berry = text.contains("__metadata:");
    let format = Some(if berry { format!("{BERRY}{}", berry_format(text)) } else { "1".to_owned() });
    if !berry && !text.contains("yarn lockfile v1") && text.trim().is_empty() {
        return (State::Unusable("it is empty"), format);
    }
    let answered: std::collections::BTreeSet<String> = text
        .lines()
        .filter(|line| !line.starts_with([' ', '#']) && line.ends_with(':'))
        .flat_map(|line| {
            line.trim_end_matches(':').split(',').map(|key| key.trim().trim_matches('"').to_owned()).collect::<Vec<_>>()
        })
        // Berry joins the ranges of one entry within one pair of quotes.
        .flat_map(|key| key.split(", ").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let found = |name: &str, spec: &str| {
        answered.contains(&format!("{name}@{spec}"))
            || answered.contains(&format!("{name}@npm:{spec}"))
            || spec.starts_with("workspace:")
    };
    let missing = |m: &&Manifest| m.all().into_iter().filter(|(n, s)| !found(n, s)).map(|(n, _)| n).collect::<Vec<_>>();
    (drifted(manifests.values().flat_map(missing).collect()), format)
}

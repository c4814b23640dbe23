//! What an install reads apart from the manifests: patches, schemas, scripts of the project.
//!
//! The install is a layer of its own, so that a change in the source does not repeat it. That only works when everything
//! that it reads is copied before it, and nothing else is.

use std::collections::BTreeSet;

use super::findings::Findings;
use super::folder::{Folder, normal};
use super::lockfile::Manifests;
use super::package_json::Manifest;

/// Settings of package managers, next to the lockfile.
const SETTINGS: [&str; 9] = [
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    "pnpm-workspace.yaml",
    ".pnpmfile.cjs",
    "bunfig.toml",
    ".yarn/releases",
    ".yarn/plugins",
    ".yarn/patches",
];
/// Most steps from a script to the scripts that it runs.
const MAX_STEPS: usize = 4;

/// The files and folders that an install from that folder reads; `None` when it may read anything.
pub(crate) fn reads(
    root: &Folder<'_>,
    manifests: &Manifests<'_>,
    lock: Option<&str>,
    findings: &mut Findings,
) -> Option<Vec<String>> {
    let mut reads: BTreeSet<String> = manifests
        .keys()
        .map(|folder| if folder.is_empty() { "package.json".to_owned() } else { format!("{folder}/package.json") })
        .collect();
    reads.extend(lock.map(str::to_owned));
    reads.extend(SETTINGS.iter().filter(|s| exists(root, s)).map(|s| (*s).to_owned()));
    for (folder, manifest) in manifests {
        let here = if folder.is_empty() { root.clone() } else { root.inner(folder) };
        let Some(more) = of_package(&here, manifest) else {
            findings.decide(
                "the install comes after the whole source",
                "an install script of package.json builds the project",
            );
            return None;
        };
        reads.extend(more.into_iter().map(|path| normal(&format!("{folder}/{path}"))));
    }
    match reads.iter().find(|path| !is_plain(path)) {
        Some(_) => {
            findings.decide("the install comes after the whole source", "a file that it reads has an unusual name");
            None
        }
        None => Some(reads.into_iter().collect()),
    }
}

fn of_package(folder: &Folder<'_>, manifest: &Manifest) -> Option<BTreeSet<String>> {
    let mut reads = BTreeSet::new();
    for (_, script) in manifest.install_scripts() {
        of_script(folder, manifest, script, MAX_STEPS, &mut reads)?;
    }
    reads.extend(manifest.all().values().filter_map(|spec| local_package(folder, spec)));
    if folder.has_folder("patches") {
        reads.insert("patches".to_owned());
    }
    Some(reads)
}

/// A package that lies in the project: `file:./lib`.
fn local_package(folder: &Folder<'_>, spec: &str) -> Option<String> {
    let path =
        spec.strip_prefix("file:").or_else(|| spec.strip_prefix("link:")).or_else(|| spec.strip_prefix("portal:"))?;
    let path = normal(path);
    (!path.is_empty() && !path.split('/').any(|s| s == "..") && exists(folder, &path)).then_some(path)
}

/// What a script reads; `None` when it builds the project.
fn of_script(
    folder: &Folder<'_>,
    manifest: &Manifest,
    script: &str,
    steps: usize,
    reads: &mut BTreeSet<String>,
) -> Option<()> {
    let steps = steps.checked_sub(1)?;
    for command in script.split(['&', ';', '|']) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            [] => continue,
            ["npm" | "pnpm" | "yarn" | "bun", "run", name, ..] | ["yarn" | "pnpm", name, ..]
                if manifest.script(name).is_some() =>
            {
                of_script(folder, manifest, manifest.script(name)?, steps, reads)?;
            }
            ["tsc" | "vite" | "webpack" | "rollup" | "tsup" | "next", ..] => return None,
            ["prisma", ..] | ["npx" | "bunx", "prisma", ..] if folder.has_folder("prisma") => {
                reads.insert("prisma".to_owned());
            }
            _ => reads.extend(words.iter().filter_map(|w| mentioned(folder, w))),
        }
    }
    Some(())
}

/// The file or top folder of the project that a word names.
fn mentioned(folder: &Folder<'_>, word: &str) -> Option<String> {
    let path = normal(word.trim_matches(['"', '\'']));
    if path.is_empty() || path.split('/').any(|s| s == "..") {
        return None;
    }
    let found = [path.clone(), format!("{path}.js"), format!("{path}.mjs"), format!("{path}.cjs")]
        .into_iter()
        .find(|p| exists(folder, p))?;
    Some(match found.split_once('/') {
        // A script may need what lies beside it.
        Some((top, _)) => top.to_owned(),
        None => found,
    })
}

fn exists(folder: &Folder<'_>, path: &str) -> bool {
    folder.has(path) || folder.has_folder(path)
}

/// Whether a path means itself in a Dockerfile.
pub(crate) fn is_plain(path: &str) -> bool {
    !path.is_empty() && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@/+".contains(&b))
}

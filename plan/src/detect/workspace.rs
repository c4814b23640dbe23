//! Packages that are installed together: where the one lockfile of a workspace lies, and who belongs to it.

use std::collections::BTreeMap;

use super::folder::Folder;
use super::lockfile::KINDS;
use super::package_json::Manifest;
use crate::error::PlanError;

/// Most members that are looked at: each of them is a file to read.
const MAX_MEMBERS: usize = 100;

/// The folder where a package is installed from, with its manifest: its own, unless it belongs to the root's workspace
/// and has no lockfile of its own.
pub(crate) fn install_root<'a>(package: &Folder<'a>, manifest: &Manifest) -> Result<(Folder<'a>, Manifest), PlanError> {
    let root = package.root();
    let own_lock = KINDS.iter().any(|(file, _)| package.has(file));
    if !package.path().is_empty()
        && !own_lock
        && let Some(root_manifest) = Manifest::read(&root)?
        && patterns(&root, &root_manifest).iter().any(|p| covers(p, package.path()))
    {
        return Ok((root, root_manifest));
    }
    Ok((package.clone(), manifest.clone()))
}

/// The members of a workspace by folder; empty when it is none.
pub(crate) fn members(root: &Folder<'_>, manifest: &Manifest) -> Result<BTreeMap<String, Manifest>, PlanError> {
    let patterns = patterns(root, manifest);
    let mut members = BTreeMap::new();
    if patterns.is_empty() {
        return Ok(members);
    }
    let found = root.files().filter_map(|(path, _)| std::str::from_utf8(path).ok()?.strip_suffix("/package.json"));
    for folder in found.filter(|f| !crate::never_sent::has_never_sent_part(f.as_bytes())) {
        let taken = patterns.iter().any(|p| covers(p, folder)) && !patterns.iter().any(|p| excludes(p, folder));
        if taken
            && members.len() < MAX_MEMBERS
            && let Some(member) = Manifest::read(&root.inner(folder))?
        {
            members.insert(folder.to_owned(), member);
        }
    }
    Ok(members)
}

fn patterns(root: &Folder<'_>, manifest: &Manifest) -> Vec<String> {
    let mut patterns = manifest.workspaces.clone();
    patterns.extend(root.text("pnpm-workspace.yaml").map(|text| pnpm_packages(&text)).unwrap_or_default());
    patterns
}

/// The list under `packages:`.
fn pnpm_packages(text: &str) -> Vec<String> {
    let below = text.lines().skip_while(|l| !l.starts_with("packages:")).skip(1);
    below
        .take_while(|l| l.starts_with([' ', '-']) || l.trim().is_empty())
        .filter_map(|l| l.trim().strip_prefix('-'))
        .map(|item| item.split(" #").next().unwrap_or(item).trim().trim_matches(['"', '\'']).to_owned())
        .collect()
}

fn excludes(pattern: &str, folder: &str) -> bool {
    pattern.strip_prefix('!').is_some_and(|rest| covers(rest, folder))
}

/// Whether a pattern of folders covers one: `*` is one segment, `**` any number of them.
fn covers(pattern: &str, folder: &str) -> bool {
    let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
    let pattern: Vec<&str> = pattern.split('/').take(16).collect();
    let folder: Vec<&str> = folder.split('/').take(64).collect();
    segments(&pattern, &folder)
}

fn segments(pattern: &[&str], folder: &[&str]) -> bool {
    match (pattern, folder) {
        ([], []) => true,
        (["**"], _) => true,
        ([head, rest @ ..], [first, below @ ..]) if *head != "**" => segment(head, first) && segments(rest, below),
        (["**", rest @ ..], _) => (0..=folder.len()).any(|skip| segments(rest, &folder[skip..])),
        _ => false,
    }
}

fn segment(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_folders_as_npm_and_pnpm_mean_them() {
        assert!(covers("packages/*", "packages/a") && !covers("packages/*", "packages/a/b"));
        assert!(covers("apps/**", "apps/a/b") && covers("./client", "client") && covers("client/", "client"));
        assert!(!covers("client", "clients") && covers("pkg-*", "pkg-x"));
        assert!(!covers("!x", "x") && excludes("!x", "x"));
    }

    #[test]
    fn the_list_of_packages_is_read_and_nothing_else() {
        assert_eq!(
            pnpm_packages("onlyBuilt:\n  - x\npackages:\n  - 'a/*'\n  - b # c\ncatalog:\n  - d\n"),
            ["a/*", "b"]
        );
    }
}

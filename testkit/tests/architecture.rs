//! The rules that the folders promise, read from `cargo metadata` and from the sources themselves.
//!
//! `deny.toml` bans crates for the whole workspace; here is what it cannot say: what one of our crates may reach through
//! others, and which folder may name what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const PURE: [&str; 2] = ["refloat-model", "refloat-plan"];
const PURE_NEVER_REACH: [&str; 8] = ["tokio", "tonic", "bollard", "sled", "hyper", "rustls", "getrandom", "rand"];
const PURE_NEVER_NAME: [&str; 9] = [
    "std::time::SystemTime",
    "std::time::Instant",
    "SystemTime::now",
    "Instant::now",
    "std::fs",
    "std::net::Tcp",
    "std::env",
    "getrandom",
    "rand::",
];
const NOBODY_DEPENDS_ON: [&str; 3] = ["refloat-agent", "refloat-edge", "refloat-cli"];
/// Which of our crates each of them may depend on.
const MAP: [(&str, &[&str]); 8] = [
    ("refloat-model", &[]),
    ("refloat-plan", &[]),
    ("refloat-proto", &[]),
    ("refloat-agent", &["refloat-model", "refloat-plan", "refloat-proto"]),
    ("refloat-edge", &["refloat-model", "refloat-proto"]),
    ("refloat-cli", &["refloat-plan", "refloat-proto"]),
    ("refloat-testkit", &[]),
    ("refloat-e2e", &["refloat-testkit"]),
];
const PRODUCT_FOLDERS: [&str; 6] = ["model/src", "plan/src", "proto/src", "agent/src", "edge/src", "cli/src"];

/// Each package's dependencies by name: (normal ones, all of them).
struct Graph {
    normal: BTreeMap<String, BTreeSet<String>>,
    any: BTreeMap<String, BTreeSet<String>>,
}

fn root() -> PathBuf {
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&crate_folder).join("..").canonicalize().expect("the workspace's folder is there")
}

fn graph() -> Graph {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> =
        list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let mut graph = Graph { normal: BTreeMap::new(), any: BTreeMap::new() };
    for node in list(&metadata["resolve"]["nodes"]) {
        let from = names[&text(&node["id"])].clone();
        for dependency in list(&node["deps"]) {
            let to = names[&text(&dependency["pkg"])].clone();
            if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                graph.normal.entry(from.clone()).or_default().insert(to.clone());
            }
            graph.any.entry(from.clone()).or_default().insert(to);
        }
    }
    assert!(graph.normal.len() > 50, "cargo metadata names {} packages: that cannot be all", graph.normal.len());
    graph
}

/// How `from` reaches `to` by normal dependencies, or `None`.
fn path(graph: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::from([from.to_owned()]);
    let mut open = vec![vec![from.to_owned()]];
    while let Some(path) = open.pop() {
        let last = path.last().expect("a path has at least its start");
        if last == to {
            return Some(path);
        }
        for next in graph.get(last).into_iter().flatten() {
            if seen.insert(next.clone()) {
                open.push(path.iter().cloned().chain([next.clone()]).collect());
            }
        }
    }
    None
}

/// Every Rust file below a folder, with its code: neither comments nor what follows `#[cfg(test)]`.
fn code_below(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).expect("a product folder can be listed") {
            let path = entry.expect("a folder's entry can be read").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let source = std::fs::read_to_string(&path).expect("a source file is UTF-8");
                files.push((path, bare_code(&source)));
            }
        }
    }
    assert!(!files.is_empty(), "{folder} holds no Rust file");
    files
}

fn bare_code(source: &str) -> String {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let line = |line: &str| if line.trim_start().starts_with("//") { String::new() } else { line.to_owned() };
    code.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Files below the folders whose code contains one of the words, except below `allowed`.
fn that_name(folders: &[&str], words: &[&str], allowed: &[&str]) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    for (file, code) in folders.iter().flat_map(|folder| code_below(folder)) {
        let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        if allowed.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        found.extend(words.iter().filter(|word| code.contains(**word)).map(|word| format!("{name}: {word}")));
    }
    found
}

const NONE: [String; 0] = [];

#[test]
fn model_and_plan_reach_no_runtime_socket_store_or_randomness() {
    let graph = graph();
    for from in PURE {
        for to in PURE_NEVER_REACH {
            if let Some(path) = path(&graph.normal, from, to) {
                panic!("{from} must not reach {to}: {}", path.join(" → "));
            }
        }
    }
    assert!(path(&graph.normal, "refloat-agent", "tokio").is_some(), "the search must find what is there");
}

#[test]
fn model_and_plan_name_no_clock_disk_socket_environment_or_randomness() {
    assert_eq!(that_name(&["model/src", "plan/src"], &PURE_NEVER_NAME, &[]), NONE);
}

#[test]
fn our_crates_depend_on_each_other_as_the_map_says() {
    let graph = graph();
    for (from, allowed) in MAP {
        let all = graph.normal.get(from).cloned().unwrap_or_default();
        let ours: Vec<_> = all.into_iter().filter(|to| to.starts_with("refloat-") && to != from).collect();
        assert_eq!(ours, allowed, "{from}");
    }
}

#[test]
fn nobody_depends_on_agent_edge_or_cli() {
    let graph = graph();
    let dependents: Vec<_> = graph
        .any
        .iter()
        .flat_map(|(from, all)| all.iter().map(move |to| (from.as_str(), to.as_str())))
        .filter(|(from, to)| from != to && NOBODY_DEPENDS_ON.contains(to))
        .collect();
    assert_eq!(dependents, []);
}

#[test]
fn only_the_docker_module_names_bollard_and_only_the_store_names_sled() {
    assert_eq!(that_name(&PRODUCT_FOLDERS, &["bollard::"], &["agent/src/docker/"]), NONE);
    assert_eq!(that_name(&PRODUCT_FOLDERS, &["sled::"], &["agent/src/store/"]), NONE);
}

#[test]
fn no_product_code_starts_a_shell_or_the_docker_program() {
    let words = ["sh", "bash", "/bin/sh", "/bin/bash", "docker"].map(|program| format!("Command::new(\"{program}\")"));
    let words = words.each_ref().map(String::as_str);
    assert_eq!(that_name(&PRODUCT_FOLDERS, &words, &[]), NONE);
}

#[test]
fn comments_and_tests_are_no_code() {
    let code =
        bare_code("fn a() {}\n// sled::open\n    //! bollard::Docker\n#[cfg(test)]\nmod tests { Instant::now }\n");
    assert_eq!(code, "fn a() {}\n\n");
}

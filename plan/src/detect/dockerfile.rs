//! The user's own Dockerfile: whether it is one for this app, and the port that it names.
//!
//! "There is a Dockerfile, so use it" is a trap: half of those in exports belong to another app, start a development
//! server, or copy what is not there. One that `refloat.toml` names is used whatever is thought of it.

use std::collections::BTreeMap;

use super::Detection;
use super::draft::{Draft, ignored, web};
use super::folder::{Folder, normal};
use super::package_json::Manifest;
use super::start_script::{self, Start};
use crate::error::PlanError;
use crate::plan::{BackendPlan, Build};

/// Most instructions that are read.
const MAX_INSTRUCTIONS: usize = 2_000;

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
struct Instruction {
    /// In capitals.
    name: String,
    /// The rest, continued lines joined.
    rest: String,
}

/// Uses the Dockerfile of a folder when it is one for the app in it.
pub(crate) fn find(detection: &mut Detection<'_>, folder: &Folder<'_>) -> Result<Option<Draft>, PlanError> {
    if !folder.has("Dockerfile") {
        return Ok(None);
    }
    let path = folder.join("Dockerfile");
    let Some(text) = folder.text("Dockerfile") else {
        detection.findings.decide(format!("{path} is not used"), "it is larger than 1 MiB");
        return Ok(None);
    };
    let instructions = parse(&text);
    let manifest = Manifest::read(folder)?;
    if let Some(why) = objection(folder, manifest.as_ref(), &instructions) {
        detection.findings.decide(format!("{path} is not used"), &why);
        detection.findings.note(format!(
            "{path} is not used: {why}. `dockerfile = \"{path}\"` under [build] in refloat.toml uses it anyway."
        ));
        return Ok(None);
    }
    detection
        .findings
        .decide(format!("{path} is used"), "everything that it copies is there and it starts no development server");
    Ok(Some(draft(detection, folder, &text, "web", "app")))
}

/// Uses a Dockerfile that `refloat.toml` names, with its folder (or the given one) as context.
pub(crate) fn named(
    detection: &mut Detection<'_>,
    path: &str,
    context: Option<&str>,
    process: &str,
    build: &str,
) -> Result<Draft, PlanError> {
    let path = normal(path);
    let root = Folder::at(detection.source, "");
    let Some(text) = root.text(&path) else {
        return Err(PlanError::settings(
            format!("refloat.toml names the Dockerfile \"{path}\", which is not in the source."),
            "Correct the path; it is read from the folder of refloat.toml. An ignore file may leave it out too.",
        ));
    };
    let beside = path.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default();
    let folder = Folder::at(detection.source, context.unwrap_or(beside));
    detection.findings.decide(format!("{path} is used"), "refloat.toml says so");
    if let Some(why) = objection(&folder, Manifest::read(&folder)?.as_ref(), &parse(&text)) {
        detection.findings.warn(format!("{path} is used as refloat.toml says, although {why}."));
    }
    Ok(draft(detection, &folder, &text, process, build))
}

fn draft(detection: &mut Detection<'_>, folder: &Folder<'_>, text: &str, process: &str, build: &str) -> Draft {
    let instructions = parse(text);
    let port = exposed(&instructions);
    match port {
        Some(port) => detection.findings.decide(format!("port {port}"), "EXPOSE in the Dockerfile"),
        None => detection.findings.decide("port: what the image says, else 8080", "the Dockerfile has no EXPOSE"),
    }
    let image = Build::Image {
        name: build.to_owned(),
        dockerfile: without_syntax(detection, text),
        context: folder.path().to_owned(),
        own: true,
        // Its owner decides what it copies; an ignore file of the project has been heard before the upload.
        ignore: ignored("", None).into_iter().filter(|p| p.starts_with("**/") && !p.contains(".env")).collect(),
    };
    let backend = BackendPlan::Instance {
        build: build.to_owned(),
        command: Vec::new(),
        port,
        writable_root: true,
        capabilities: Vec::new(),
    };
    Draft::of("own Dockerfile", image, web(process, backend, &["/"]))
}

/// A `# syntax=` line fetches a frontend from a registry; the engine's own one is used instead.
fn without_syntax(detection: &mut Detection<'_>, text: &str) -> String {
    let is_syntax = |line: &str| {
        let rest = line.trim_start().strip_prefix('#').map(|r| r.trim_start().to_ascii_lowercase());
        rest.and_then(|r| r.strip_prefix("syntax").map(|r| r.trim_start().starts_with('='))).unwrap_or(false)
    };
    if !text.lines().any(is_syntax) {
        return text.to_owned();
    }
    detection.findings.note("The line \"# syntax=\" of the Dockerfile is left out: the engine's own builder is used, so that no build needs Docker Hub for it.");
    text.lines().filter(|l| !is_syntax(l)).map(|l| format!("{l}\n")).collect()
}

fn parse(text: &str) -> Vec<Instruction> {
    let mut instructions = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut joined = line.trim().to_owned();
        if joined.is_empty() || joined.starts_with('#') {
            continue;
        }
        while let Some(open) = joined.strip_suffix('\\') {
            joined = open.to_owned();
            // Comments and empty lines may stand within a continued instruction.
            match lines.by_ref().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#')) {
                Some(next) => joined = format!("{} {next}", joined.trim_end()),
                None => break,
            }
        }
        skip_here_document(&joined, &mut lines);
        let (name, rest) = joined.split_once(char::is_whitespace).unwrap_or((&joined, ""));
        if instructions.len() < MAX_INSTRUCTIONS {
            instructions.push(Instruction { name: name.to_ascii_uppercase(), rest: rest.trim().to_owned() });
        }
    }
    instructions
}

fn skip_here_document(line: &str, lines: &mut std::str::Lines<'_>) {
    let Some((_, after)) = line.split_once("<<") else { return };
    let word = after.trim_start_matches('-').split_whitespace().next().unwrap_or_default();
    let end = word.trim_matches(['"', '\'']);
    if end.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) {
        for line in lines.by_ref() {
            if line.trim() == end {
                return;
            }
        }
    }
}

/// Why a Dockerfile is not one for the app in its folder.
fn objection(folder: &Folder<'_>, manifest: Option<&Manifest>, instructions: &[Instruction]) -> Option<String> {
    if !instructions.iter().any(|i| i.name == "FROM") {
        return Some("it has no FROM".to_owned());
    }
    let sources = instructions.iter().filter(|i| i.name == "COPY" || i.name == "ADD").flat_map(copied);
    if let Some(missing) = sources.into_iter().find(|source| !is_there(folder, source)) {
        return Some(format!("it copies \"{missing}\", which is not there"));
    }
    started(folder, manifest, instructions)
}

/// What an instruction copies from the context. What a variable names cannot be told.
fn copied(instruction: &Instruction) -> Vec<String> {
    let words = arguments(&instruction.rest);
    let from_elsewhere = words.iter().any(|w| w.starts_with("--from"));
    let paths: Vec<String> = words.into_iter().filter(|w| !w.starts_with("--")).collect();
    let remote = |p: &String| p.contains("://") || p.starts_with("git@") || p.starts_with("<<");
    match paths.split_last() {
        Some((_, sources)) if !from_elsewhere => {
            sources.iter().filter(|p| !p.contains('$') && !remote(p)).cloned().collect()
        }
        _ => Vec::new(),
    }
}

fn is_there(folder: &Folder<'_>, source: &str) -> bool {
    let path = normal(source);
    // A pattern that matches nothing copies nothing, and the build goes on.
    path.is_empty() || path.contains(['*', '?', '[']) || folder.has(&path) || folder.has_folder(&path)
}

/// The words of an instruction, written as JSON or with spaces.
fn arguments(rest: &str) -> Vec<String> {
    let start = rest.find('[').filter(|at| rest[..*at].split_whitespace().all(|w| w.starts_with("--")));
    if let Some(at) = start
        && let Ok(words) = serde_json::from_str::<Vec<String>>(rest[at..].trim())
    {
        return rest[..at].split_whitespace().map(str::to_owned).chain(words).collect();
    }
    rest.split_whitespace().map(str::to_owned).collect()
}

/// Whether what the last stage starts must not run in production.
fn started(folder: &Folder<'_>, manifest: Option<&Manifest>, instructions: &[Instruction]) -> Option<String> {
    let last = instructions.iter().rposition(|i| i.name == "FROM")?;
    let of = |name: &str| instructions[last..].iter().rev().find(|i| i.name == name).map(|i| arguments(&i.rest));
    let command = [of("ENTRYPOINT").unwrap_or_default(), of("CMD").unwrap_or_default()].concat().join(" ");
    let command = command.strip_prefix("sh -c ").or_else(|| command.strip_prefix("/bin/sh -c ")).unwrap_or(&command);
    if command.contains("--reload") {
        return Some(format!("it starts a development server (\"{command}\")"));
    }
    let empty = Manifest::default();
    match start_script::read(folder, manifest.unwrap_or(&empty), command, true).start {
        Start::Development(what) => Some(format!("it starts a development server (\"{what}\")")),
        Start::Missing(what) if command.contains(" run ") && manifest.is_some() => {
            Some(format!("it starts {what}, which does not exist"))
        }
        _ => None,
    }
}

/// The first port of the last EXPOSE of the last stage or of a stage that it is made from.
fn exposed(instructions: &[Instruction]) -> Option<u16> {
    let port = |(it, variables): (&Instruction, Variables)| {
        (it.name == "EXPOSE").then(|| it.rest.split_whitespace().find_map(|w| number(w, &variables))).flatten()
    };
    last_stage(instructions).filter_map(port).last()
}

/// Paths that the last stage of a Dockerfile, or a stage that it is made from, declares as VOLUME. What an instruction
/// of a base image declares is not known here.
pub(crate) fn volumes(text: &str) -> Vec<String> {
    let instructions = parse(text);
    let declared = last_stage(&instructions).filter(|(it, _)| it.name == "VOLUME");
    let mut paths: Vec<String> = declared
        .flat_map(|(it, variables)| arguments(&it.rest).into_iter().map(move |word| resolved(&word, &variables)))
        .map(|path| if path == "/" { path } else { path.trim_end_matches('/').to_owned() })
        .filter(|path| path.len() > 1 && path.starts_with('/') && !path.contains('$'))
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

type Variables = BTreeMap<String, String>;

/// What leads to the last stage, in order, each with the variables that were set before it: what stands before the first
/// FROM, the stages that it is made from, and itself.
fn last_stage(instructions: &[Instruction]) -> impl Iterator<Item = (&Instruction, Variables)> {
    let mut stages: BTreeMap<String, Vec<&Instruction>> = BTreeMap::new();
    let first = instructions.iter().position(|i| i.name == "FROM").unwrap_or(instructions.len());
    let (mut name, mut stage): (String, Vec<&Instruction>) = (String::new(), instructions[..first].iter().collect());
    for instruction in &instructions[first..] {
        if instruction.name == "FROM" {
            let words = arguments(&instruction.rest);
            let words: Vec<&String> = words.iter().filter(|w| !w.starts_with("--")).collect();
            let base = words.first().and_then(|base| {
                if base.eq_ignore_ascii_case(&name) {
                    Some(stage.clone())
                } else {
                    stages.get(&base.to_ascii_lowercase()).cloned()
                }
            });
            let ended = std::mem::replace(&mut stage, base.unwrap_or_else(|| instructions[..first].iter().collect()));
            stages.insert(std::mem::take(&mut name), ended);
            name = words.get(2).map(|n| n.to_ascii_lowercase()).unwrap_or_default();
        }
        stage.push(instruction);
    }
    let mut variables = Variables::new();
    stage.into_iter().map(move |instruction| {
        if matches!(instruction.name.as_str(), "ARG" | "ENV") {
            variables.extend(assignments(&instruction.rest));
        }
        (instruction, variables.clone())
    })
}

fn assignments(rest: &str) -> Vec<(String, String)> {
    let pairs: Vec<(String, String)> = rest
        .split_whitespace()
        .filter_map(|w| w.split_once('='))
        .map(|(n, v)| (n.to_owned(), v.trim_matches('"').to_owned()))
        .collect();
    match rest.split_once(char::is_whitespace) {
        Some((name, value)) if pairs.is_empty() => vec![(name.to_owned(), value.trim().to_owned())],
        _ => pairs,
    }
}

fn number(word: &str, variables: &Variables) -> Option<u16> {
    let (port, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    if !protocol.eq_ignore_ascii_case("tcp") {
        return None;
    }
    resolved(port, variables).split('-').next()?.parse().ok().filter(|p| *p > 0)
}

/// A word that is a variable, or begins with one, with its value; unknown ones are empty.
fn resolved(word: &str, variables: &Variables) -> String {
    let Some(after) = word.strip_prefix('$') else { return word.to_owned() };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (name, rest) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        Some(braced) => braced,
        None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
    };
    let (name, default) = name.split_once(":-").unwrap_or((name, ""));
    format!("{}{rest}", variables.get(name).map_or(default, String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> Option<u16> {
        exposed(&parse(text))
    }

    #[test]
    fn the_port_is_that_of_the_last_stage() {
        assert_eq!(port("FROM node\nEXPOSE 3000\n"), Some(3000));
        assert_eq!(port("FROM node AS b\nEXPOSE 3000\nFROM nginx\n"), None);
        assert_eq!(port("FROM node AS b\nEXPOSE 3000\nFROM b\n"), Some(3000));
        assert_eq!(port("ARG P=81\nFROM x\nENV Q 82\nEXPOSE 53/udp ${Q}/tcp $P\n"), Some(82));
        assert_eq!(port("FROM x\nEXPOSE $NOPE\n"), None);
        assert_eq!(port("FROM x\nexpose 70000 8000-8010\n"), Some(8000));
    }

    #[test]
    fn volumes_are_those_of_the_last_stage_in_either_form() {
        for (text, paths) in [
            ("FROM x\nVOLUME /data\n", &["/data"][..]),
            ("FROM x\nVOLUME [\"/var/lib/a b\", \"/data/\"]\n", &["/data", "/var/lib/a b"]),
            ("FROM x\nvolume /b /a /b\n", &["/a", "/b"]),
            ("FROM x AS b\nVOLUME /gone\nFROM y\n", &[]),
            ("FROM x AS b\nVOLUME /kept\nFROM b\nVOLUME /more\n", &["/kept", "/more"]),
            (
                "ARG HOME=/srv\nFROM x\nENV DATA=/data\nVOLUME $DATA ${HOME}/files $NOPE ${OTHER:-/other}\n",
                &["/data", "/other", "/srv/files"],
            ),
            ("FROM x\nVOLUME relative /\n", &[]),
        ] {
            assert_eq!(volumes(text), paths, "{text}");
        }
    }

    #[test]
    fn instructions_are_joined_and_here_documents_skipped() {
        let names: Vec<String> = parse("FROM x\nRUN a \\\n # c\n && b\nRUN <<EOF\nCOPY no /\nEOF\nCMD [\"a\"]\n")
            .into_iter()
            .map(|i| format!("{} {}", i.name, i.rest))
            .collect();
        assert_eq!(names, ["FROM x", "RUN a && b", "RUN <<EOF", "CMD [\"a\"]"]);
    }

    #[test]
    fn what_is_copied_is_told_apart_from_flags_stages_and_addresses() {
        let of = |rest: &str| copied(&Instruction { name: "COPY".to_owned(), rest: rest.to_owned() });
        assert_eq!(of("--chown=a a b /x/"), ["a", "b"]);
        assert_eq!(of("--from=build a /x"), Vec::<String>::new());
        assert_eq!(of("[\"a b\", \"/x\"]"), ["a b"]);
        assert_eq!(of("https://example.org/x $Y z /"), ["z"]);
    }
}

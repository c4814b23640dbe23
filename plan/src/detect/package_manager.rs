//! Which package manager installs, by which command, and what it must see for that.
//!
//! Order of evidence: `refloat.toml`, `packageManager` in package.json, the lockfile that matches package.json, any
//! lockfile, npm. Exports carry lockfiles of several managers, most of them left behind by a builder's sandbox.

use std::collections::BTreeMap;

use super::findings::{Findings, listed};
use super::folder::{Folder, normal};
use super::install_commands::{self, Attempt};
use super::install_scripts;
use super::lockfile::{self, Kind, Lockfile, State};
use super::package_json::Manifest;
use super::workspace;
use crate::error::PlanError;

/// Where npm writes why it failed during a build.
pub(crate) const NPM_LOGS: &str = "/tmp/npm-logs";
/// Where pnpm keeps packages during a build.
const PNPM_STORE: &str = "/root/.local/share/pnpm/store";
/// Where the first yarn keeps archives during a build.
const YARN_CACHE: &str = "/root/.cache/yarn";

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    Npm,
    Pnpm,
    /// The first yarn, with a `node_modules` folder.
    YarnClassic,
    /// Yarn 2 and later.
    YarnBerry,
    Bun,
}

/// How the packages of a project are installed.
#[derive(Clone)]
pub(crate) struct Install<'a> {
    /// Where the lockfile lies and the install runs: the context of the build.
    pub(crate) root: Folder<'a>,
    /// The package's folder from there; empty when it is the same.
    pub(crate) package: String,
    /// By whom.
    pub(crate) manager: Manager,
    /// What `npm install -g` must get before, such as `pnpm@9`.
    pub(crate) tool: Option<String>,
    /// The install, and what is tried when it fails.
    pub(crate) commands: Vec<Attempt>,
    /// The install of what production needs alone; `None` when everything has to stay.
    pub(crate) production: Option<Vec<Attempt>>,
    /// Files and folders from the root that the install reads, apart from everything else; `None` when it may read
    /// anything.
    pub(crate) reads: Option<Vec<String>>,
    /// Packages of the system that the install needs and a slim image lacks.
    pub(crate) system: Vec<&'static str>,
    /// Those of them that a running server needs too.
    pub(crate) system_at_run: Vec<&'static str>,
}

impl Manager {
    /// Its command.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::YarnClassic | Self::YarnBerry => "yarn",
            Self::Bun => "bun",
        }
    }

    /// Where it keeps what it has downloaded, and whether two builds may use it at once.
    pub(crate) fn cache(self) -> (&'static str, bool) {
        match self {
            Self::Npm => ("/root/.npm", true),
            Self::Pnpm => (PNPM_STORE, true),
            Self::YarnClassic => (YARN_CACHE, false),
            Self::YarnBerry => ("/root/.yarn/berry/cache", false),
            Self::Bun => ("/root/.bun/install/cache", true),
        }
    }

    /// Variables that its commands need during a build.
    pub(crate) fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::YarnClassic => &[("YARN_CACHE_FOLDER", YARN_CACHE)],
            // Without a node_modules folder nothing but yarn itself could run what it installed.
            Self::YarnBerry => &[
                ("YARN_NODE_LINKER", "node-modules"),
                ("YARN_ENABLE_GLOBAL_CACHE", "true"),
                ("YARN_ENABLE_TELEMETRY", "0"),
            ],
            Self::Npm => &[
                ("npm_config_audit", "false"),
                ("npm_config_fund", "false"),
                ("npm_config_update_notifier", "false"),
                ("npm_config_logs_dir", NPM_LOGS),
            ],
            Self::Pnpm | Self::Bun => &[],
        }
    }

    /// The line that runs a script of package.json.
    pub(crate) fn run(self, script: &str) -> String {
        format!("{} run {script}", self.command())
    }

    /// The line that runs a program of an installed package.
    pub(crate) fn exec(self, program: &str) -> String {
        match self {
            Self::Npm => format!("npx --no-install {program}"),
            Self::Pnpm => format!("pnpm exec {program}"),
            Self::YarnClassic | Self::YarnBerry => format!("yarn run {program}"),
            Self::Bun => format!("bunx {program}"),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Npm => Kind::Npm,
            Self::Pnpm => Kind::Pnpm,
            Self::YarnClassic | Self::YarnBerry => Kind::Yarn,
            Self::Bun => Kind::Bun,
        }
    }
}

/// Decides how a package is installed. `wanted` comes from `refloat.toml`.
///
/// # Errors
/// When `refloat.toml` wants a manager that does not exist, or a manifest of a workspace cannot be read.
pub(crate) fn choose<'a>(
    wanted: Option<&str>,
    package: &Folder<'a>,
    manifest: &Manifest,
    findings: &mut Findings,
) -> Result<Install<'a>, PlanError> {
    let (root, root_manifest) = workspace::install_root(package, manifest)?;
    let members = workspace::members(&root, &root_manifest)?;
    let mut manifests: lockfile::Manifests<'_> = members.iter().map(|(path, m)| (path.clone(), m)).collect();
    manifests.insert(String::new(), &root_manifest);
    let locks = lockfile::all(&root, &manifests);
    let choice = pick(wanted, &root_manifest, &locks, findings)?;
    announce(&choice, &locks, findings);
    let commands = install_commands::all(choice.manager, choice.lock.as_ref());
    let tool = tool(&choice, &root, &root_manifest);
    let inside = package.path().strip_prefix(root.path()).unwrap_or_default();
    let mut install = Install {
        package: normal(inside),
        manager: choice.manager,
        tool,
        commands,
        production: production(&choice, &manifests),
        reads: None,
        system: Vec::new(),
        system_at_run: Vec::new(),
        root,
    };
    add_system_packages(&mut install, &manifests, findings);
    install.reads = install_scripts::reads(&install.root, &manifests, choice.lock.as_ref().map(|l| l.file), findings);
    Ok(install)
}

struct Choice {
    manager: Manager,
    /// Its version, as far as something names it.
    version: Option<String>,
    /// The lockfile that is used; one that is unusable is not.
    lock: Option<Lockfile>,
}

fn pick(
    wanted: Option<&str>,
    manifest: &Manifest,
    locks: &[Lockfile],
    findings: &mut Findings,
) -> Result<Choice, PlanError> {
    if let Some(text) = wanted {
        let Some((manager, version)) = named(text) else {
            return Err(PlanError::settings(
                format!("refloat.toml: build.package_manager: \"{text}\" is not known."),
                "Use npm, pnpm, yarn or bun, with or without @VERSION.",
            ));
        };
        findings.decide(format!("package manager: {}", manager.command()), "refloat.toml says so");
        return Ok(with_lock(manager, version, locks));
    }
    if let Some((text, (manager, version))) = manifest.package_manager.as_deref().and_then(|t| Some((t, named(t)?))) {
        let shown = text.split('+').next().unwrap_or(text);
        findings.decide(
            format!("package manager: {}", manager.command()),
            format!("packageManager in package.json is {shown}"),
        );
        return Ok(with_lock(manager, version, locks));
    }
    Ok(by_lockfile(locks, findings))
}

/// `pnpm@9.1.0+sha512…` and the like.
fn named(text: &str) -> Option<(Manager, Option<String>)> {
    let text = text.trim();
    let (name, version) = text.split_once('@').map_or((text, None), |(n, v)| (n, Some(v)));
    let version = version.map(|v| v.split('+').next().unwrap_or(v).trim_start_matches(['^', '~', 'v']).to_owned());
    let sane = |v: &String| {
        !v.is_empty() && v.len() < 32 && v.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let version = version.filter(sane);
    let manager = match name {
        "npm" => Manager::Npm,
        "pnpm" => Manager::Pnpm,
        "yarn" if version.as_deref().is_some_and(|v| !(v == "1" || v.starts_with("1.") || v == "classic")) => {
            Manager::YarnBerry
        }
        "yarn" => Manager::YarnClassic,
        "bun" => Manager::Bun,
        _ => return None,
    };
    Some((manager, version))
}

fn with_lock(manager: Manager, version: Option<String>, locks: &[Lockfile]) -> Choice {
    let own = locks.iter().find(|l| l.kind == manager.kind() && !matches!(l.state, State::Unusable(_)));
    // `yarn` without a version means whichever yarn wrote the lockfile.
    let berry = own.is_some_and(|l| l.kind == Kind::Yarn && l.berry_format().is_some());
    let manager =
        if manager == Manager::YarnClassic && version.is_none() && berry { Manager::YarnBerry } else { manager };
    Choice { manager, version, lock: own.cloned() }
}

fn by_lockfile(locks: &[Lockfile], findings: &mut Findings) -> Choice {
    let rank = |lock: &&Lockfile| match (&lock.state, lock.kind) {
        (State::Matches, _) => 0,
        (State::Unchecked(_), kind) if kind != Kind::BunBinary => 1,
        // What it has, it pins.
        (State::Incomplete(_), _) => 2,
        (State::Drifted(names), _) => 2 + names.len(),
        (State::Unchecked(_), _) => usize::MAX - 1,
        (State::Unusable(_), _) => usize::MAX,
    };
    let Some(best) = locks.iter().min_by_key(rank).filter(|l| !matches!(l.state, State::Unusable(_))) else {
        let because = match locks.first() {
            Some(lock) => format!("{} cannot be used", lock.file),
            None => "there is no lockfile and package.json names no package manager".to_owned(),
        };
        findings.decide("package manager: npm", because);
        return Choice { manager: Manager::Npm, version: None, lock: None };
    };
    let manager = match best.kind {
        Kind::Npm => Manager::Npm,
        Kind::Pnpm => Manager::Pnpm,
        Kind::Yarn if best.berry_format().is_some() => Manager::YarnBerry,
        Kind::Yarn => Manager::YarnClassic,
        Kind::Bun | Kind::BunBinary => Manager::Bun,
    };
    let others = locks.len() > 1;
    let because = match &best.state {
        State::Matches if others => format!("{} matches package.json; {}", best.file, why_not(best, locks)),
        State::Matches => format!("{} matches package.json", best.file),
        _ if others => format!("no lockfile matches package.json in full; {} comes nearest", best.file),
        _ => format!("{} is the only lockfile", best.file),
    };
    findings.decide(format!("package manager: {}", manager.command()), because);
    let lock = (best.kind != Kind::BunBinary).then(|| best.clone());
    Choice { manager, version: None, lock }
}

fn why_not(best: &Lockfile, locks: &[Lockfile]) -> String {
    let about = |lock: &Lockfile| match &lock.state {
        State::Matches => format!("{} does too", lock.file),
        State::Unchecked(why) => format!("{} cannot be compared: {why}", lock.file),
        State::Drifted(names) => format!("{} does not ({})", lock.file, listed(names, 2)),
        State::Incomplete(names) => format!("{} lacks {}", lock.file, listed(names, 2)),
        State::Unusable(why) => format!("{} cannot be used: {why}", lock.file),
    };
    let others: Vec<String> = locks.iter().filter(|l| l.file != best.file).map(about).collect();
    others.join("; ")
}

/// Says what the state of the lockfile means for the release.
fn announce(choice: &Choice, locks: &[Lockfile], findings: &mut Findings) {
    let command = choice.manager.command();
    match choice.lock.as_ref().map(|l| (l.file, &l.state)) {
        Some((_, State::Matches)) => {}
        Some((file, State::Drifted(names))) => findings.warn(format!(
            "{file} is not what package.json says ({}), so the strict install would fail: `{command} install` is used instead and may take newer versions. Run `{command} install` and keep the changed {file} to make releases reproducible.",
            listed(names, 3)
        )),
        Some((file, State::Incomplete(names))) => findings.warn(format!(
            "{file} lacks {}, which its packages need, so the strict install would fail: `{command} install` is used instead and may add other versions of what is missing each time. Run `{command} install` and keep the changed {file} to make releases reproducible.",
            listed(names, 3)
        )),
        Some((file, State::Unchecked(why))) => {
            findings.note(format!("{file} was not compared with package.json: {why}."));
        }
        Some((_, State::Unusable(_))) | None => {
            let because = locks.iter().find_map(|l| match &l.state {
                State::Unusable(why) if l.kind == choice.manager.kind() => Some(format!("{} is not used: {why}", l.file)),
                State::Unchecked(why) if choice.manager == Manager::Bun => Some(format!("{} is not used: {why} and often left behind", l.file)),
                _ => None,
            });
            let because = because.unwrap_or_else(|| format!("there is no lockfile for {command}"));
            findings.warn(format!(
                "Not reproducible: {because}, so each build may install newer versions. Run `{command} install` and keep the lockfile that it writes."
            ));
        }
    }
}

/// The same without what only development needs, where the manager has a flag for it and no script of the project runs.
fn production(choice: &Choice, manifests: &lockfile::Manifests<'_>) -> Option<Vec<Attempt>> {
    let scripts = manifests.values().any(|m| !m.install_scripts().is_empty());
    let generated = manifests.values().any(|m| m.wants("prisma") || m.wants("@prisma/client"));
    if scripts || generated || manifests.len() > 1 {
        return None;
    }
    install_commands::production(choice.manager, choice.lock.as_ref())
}

/// What the image lacks. A version is named by its major number where only the lockfile's format tells it.
fn tool(choice: &Choice, root: &Folder<'_>, manifest: &Manifest) -> Option<String> {
    let version = choice.version.as_deref();
    match choice.manager {
        Manager::Npm => version.filter(|v| v.contains('.')).map(|v| format!("npm@{v}")),
        Manager::Pnpm => Some(format!("pnpm@{}", version.unwrap_or_else(|| pnpm_major(choice, root, manifest)))),
        Manager::YarnClassic => Some(format!("yarn@{}", version.unwrap_or("1"))),
        Manager::YarnBerry => Some(format!("@yarnpkg/cli-dist@{}", version.unwrap_or_else(|| berry_version(choice)))),
        Manager::Bun => None,
    }
}

/// The format of the lockfile tells the major version. Since 10 pnpm runs no install script that is not allowed by name:
/// a project that names none was made with 9.
fn pnpm_major(choice: &Choice, root: &Folder<'_>, manifest: &Manifest) -> &'static str {
    let allows_scripts = || manifest.pnpm_settings || root.has("pnpm-workspace.yaml");
    match choice.lock.as_ref().and_then(|l| l.format.as_deref()) {
        Some(format) if format.starts_with("5") => "7",
        Some(format) if format.starts_with("6") => "8",
        _ if allows_scripts() => "10",
        _ => "9",
    }
}

/// Yarn rewrites a lockfile of an older format than its own, which a strict install does not allow: the last version that
/// writes the format that is there installs it.
fn berry_version(choice: &Choice) -> &'static str {
    let format = choice.lock.as_ref().and_then(Lockfile::berry_format).and_then(|format| format.parse::<u32>().ok());
    match format {
        Some(..=6) => "3",
        Some(7 | 8) => "4.13.0",
        Some(9) => "4.14.1",
        Some(10..) | None => "4",
    }
}

fn add_system_packages(install: &mut Install<'_>, manifests: &lockfile::Manifests<'_>, findings: &mut Findings) {
    let all: BTreeMap<String, String> = manifests.values().flat_map(|m| m.all()).collect();
    let sources = ["git+", "git:", "git@", "github:", "gitlab:", "bitbucket:"];
    if all.values().any(|spec| sources.iter().any(|s| spec.starts_with(s))) {
        findings.decide("git is added to the build", "a package of package.json comes from a git repository");
        install.system.extend(["ca-certificates", "git"]);
    }
    if all.contains_key("prisma") || all.contains_key("@prisma/client") {
        findings.decide("OpenSSL is added to the image", "Prisma's engine needs it");
        install.system.push("openssl");
        install.system_at_run.push("openssl");
    }
}

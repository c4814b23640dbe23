//! `refloat.toml`: what its owner wants otherwise than it would be derived from the source.
//!
//! ```toml
//! schema = 1
//! app = "guestbook"
//!
//! [process.web]
//! routes = ["/"]
//! files = "public"                 # publish this folder of the source as it is
//! fallback = "index.html"          # answers a page path that names no file
//!
//! [process.api]
//! kind = "web"                     # or "worker"
//! folder = "server"                # where its package.json or Dockerfile lies
//! dockerfile = "server/Dockerfile" # from the root of the source; without one the build is derived
//! command = ["node", "server.js"]  # or "node server.js": split at spaces, no shell
//! port = 3000
//! routes = ["/api", "/ws"]
//! health = "/api/health"           # must answer below 400; without it an accepted connection is enough
//! start_timeout = "60s"
//! memory = "512MiB"
//! cpu = 0.5
//! pids = 512
//! exclusive = true                 # never two at once
//! writable_root = false
//! capabilities = ["NET_RAW"]       # with a Dockerfile of your own: what its container is given back of Docker's usual ones
//! volumes = ["data"]
//!
//! [volumes]
//! data = "/data"                   # the mount path; or { process = "api", path = "/data" }
//!
//! [env]
//! required = ["DATABASE_URL"]      # names alone: set the values with `refloat env set`
//! public = { VITE_API_URL = "/api" } # values that the build puts into what every visitor can read
//!
//! [build]
//! folder = "apps/shop"             # the app lies here, not at the root
//! command = "npm run build"
//! output = "dist"
//! node = "22"
//! package_manager = "pnpm"
//! dockerfile = "Dockerfile"        # use it, whatever detection thinks of it
//!
//! [checks]                         # reserved
//! ```
//!
//! No secret belongs in this file, and there is no key for one. An unknown key is refused with its path and the nearest
//! key that exists, because a misspelt setting that is ignored is found in production.

mod keys;
mod values;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::capability::Capability;
use crate::error::PlanError;
use crate::label::{MAX_APP_NAME_BYTES, MAX_PROCESS_NAME_BYTES, is_label, is_prefix};
use crate::source::Source;
pub use values::{Command, CpuMillis, MemoryMib, StartTimeout};

/// Name of the file, at the root of a source.
pub const FILE_NAME: &str = "refloat.toml";
/// The newest schema that is understood.
pub const SCHEMA: i64 = 1;

/// The file's content, checked.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Version of the file's format; a file without one is taken as [`SCHEMA`].
    pub schema: Option<i64>,
    /// Name of the app.
    pub app: Option<String>,
    /// Processes by name.
    pub process: BTreeMap<String, ProcessSettings>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, VolumeSettings>,
    /// Names and public values of the environment.
    pub env: EnvSettings,
    /// How it is built.
    pub build: BuildSettings,
    /// Reserved for the checks before a deploy; accepted as it is.
    pub checks: toml::Table,
}

/// What is wanted of one process. What is absent is derived.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ProcessSettings {
    /// `web` or `worker`.
    pub kind: Option<String>,
    /// Folder of the source where it lies.
    pub folder: Option<String>,
    /// Its Dockerfile, from the root of the source.
    pub dockerfile: Option<String>,
    /// Folder that is published as it is, from the root of the source.
    pub files: Option<String>,
    /// For files: what answers a page path that names no file.
    pub fallback: Option<String>,
    /// Its command.
    pub command: Option<Command>,
    /// The port that it listens on.
    pub port: Option<u16>,
    /// Path prefixes.
    pub routes: Option<Vec<String>>,
    /// Path of the health check.
    pub health: Option<String>,
    /// How long a start may take.
    pub start_timeout: Option<StartTimeout>,
    /// Memory limit.
    pub memory: Option<MemoryMib>,
    /// CPU limit.
    pub cpu: Option<CpuMillis>,
    /// Most processes and threads.
    pub pids: Option<u32>,
    /// Never two at once.
    pub exclusive: Option<bool>,
    /// Whether its root file system may be written to.
    pub writable_root: Option<bool>,
    /// What the container of an own Dockerfile is given back of the engine's usual capabilities.
    pub capabilities: Option<Vec<Capability>>,
    /// Names of the volumes that it mounts.
    pub volumes: Option<Vec<String>>,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum VolumeSettings {
    /// Where it is mounted, in the only process that it can belong to.
    Path(String),
    /// Where it is mounted, and in which process.
    Of {
        /// The process.
        process: String,
        /// The mount path.
        path: String,
    },
}

/// Names and public values of the environment.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct EnvSettings {
    /// Names that must be set before a release may serve.
    pub required: Vec<String>,
    /// Values that the build publishes.
    pub public: BTreeMap<String, String>,
}

/// How it is built.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct BuildSettings {
    /// Folder of the source where the app lies.
    pub folder: Option<String>,
    /// The build command, for the shell of the build's own container.
    pub command: Option<String>,
    /// Output folder, from the app's folder.
    pub output: Option<String>,
    /// Node version: its major number.
    pub node: Option<String>,
    /// `npm`, `pnpm`, `yarn` or `bun`, with or without `@VERSION`.
    pub package_manager: Option<String>,
    /// A Dockerfile that is used whatever detection thinks of it, from the root of the source.
    pub dockerfile: Option<String>,
}

impl VolumeSettings {
    /// The mount path.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Path(path) | Self::Of { path, .. } => path,
        }
    }

    /// The process that it names.
    #[must_use]
    pub fn process(&self) -> Option<&str> {
        match self {
            Self::Path(_) => None,
            Self::Of { process, .. } => Some(process),
        }
    }
}

impl Settings {
    /// Reads the file of a source; all defaults when there is none.
    ///
    /// # Errors
    /// When it is no TOML, too large, of a newer schema, or has a key or value that cannot be used.
    pub fn read(source: &dyn Source) -> Result<Self, PlanError> {
        let path = FILE_NAME.as_bytes();
        if source.listing().file(path).is_none() {
            return Ok(Self::default());
        }
        let Some(bytes) = source.read(path) else {
            return Err(PlanError::settings(
                "refloat.toml is larger than 1 MiB or cannot be read.",
                "Keep only settings in it.",
            ));
        };
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(&text),
            Err(_) => Err(PlanError::settings("refloat.toml is not UTF-8 text.", "Save it as UTF-8.")),
        }
    }

    /// Parses and checks the file's text.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let table: toml::Table = toml::from_str(text).map_err(|e| malformed(text, &e))?;
        check_schema(&table)?;
        keys::check(&table)?;
        let settings: Self = toml::from_str(text).map_err(|e| malformed(text, &e))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), PlanError> {
        if let Some(app) = self.app.as_ref().filter(|a| !is_label(a, MAX_APP_NAME_BYTES)) {
            return Err(bad_name("app", app, MAX_APP_NAME_BYTES));
        }
        for (name, process) in &self.process {
            check_process(name, process, self)?;
        }
        for (name, volume) in &self.volumes {
            self.check_volume(name, volume)?;
        }
        self.env.check()?;
        self.build.check()
    }

    fn check_volume(&self, name: &str, volume: &VolumeSettings) -> Result<(), PlanError> {
        let key = format!("volumes.{name}");
        if !is_label(name, MAX_PROCESS_NAME_BYTES) {
            return Err(bad_name(&key, name, MAX_PROCESS_NAME_BYTES));
        }
        let path = volume.path();
        let odd = |s: &str| s.is_empty() || s == "." || s == ".." || s.contains(|c: char| c.is_control() || c == ':');
        if path == "/" || path.strip_prefix('/').is_none_or(|rest| rest.split('/').any(odd)) {
            return Err(PlanError::settings(
                format!("refloat.toml: {key}: \"{path}\" is no mount path."),
                "Give an absolute path below the root, such as \"/data\".",
            ));
        }
        Ok(())
    }
}

impl EnvSettings {
    fn check(&self) -> Result<(), PlanError> {
        match self.required.iter().chain(self.public.keys()).find(|name| !is_variable(name)) {
            Some(name) => Err(PlanError::settings(
                format!("refloat.toml: env: \"{name}\" is no name of a variable."),
                "Use letters, digits and underscores, not starting with a digit. Values of secrets never stand in this file: `refloat env set`.",
            )),
            None => Ok(()),
        }
    }
}

impl BuildSettings {
    fn check(&self) -> Result<(), PlanError> {
        check_folder("build.folder", self.folder.as_deref())?;
        check_folder("build.output", self.output.as_deref())?;
        check_folder("build.dockerfile", self.dockerfile.as_deref())?;
        match &self.command {
            Some(command) if command.trim().is_empty() || command.contains(['\n', '\r', '\0']) => {
                Err(PlanError::settings(
                    "refloat.toml: build.command must be one line that is not empty.",
                    "Join several commands with && or put them into a script of package.json.",
                ))
            }
            _ => Ok(()),
        }
    }
}

fn check_schema(table: &toml::Table) -> Result<(), PlanError> {
    match table.get("schema") {
        None => Ok(()),
        Some(toml::Value::Integer(SCHEMA)) => Ok(()),
        Some(toml::Value::Integer(newer)) if *newer > SCHEMA => Err(PlanError::settings(
            format!("refloat.toml has schema {newer}; this version of refloat understands schema {SCHEMA}."),
            "Install a newer refloat on this computer and on the server, or write the file for schema 1.",
        )),
        Some(other) => Err(PlanError::settings(
            format!("refloat.toml: schema must be {SCHEMA}, not {other}."),
            "Write `schema = 1`.",
        )),
    }
}

fn check_process(name: &str, process: &ProcessSettings, settings: &Settings) -> Result<(), PlanError> {
    let key = format!("process.{name}");
    if !is_label(name, MAX_PROCESS_NAME_BYTES) {
        return Err(bad_name(&key, name, MAX_PROCESS_NAME_BYTES));
    }
    check_kind(&key, process.kind.as_deref())?;
    check_folder(&format!("{key}.folder"), process.folder.as_deref())?;
    check_folder(&format!("{key}.dockerfile"), process.dockerfile.as_deref())?;
    check_folder(&format!("{key}.files"), process.files.as_deref())?;
    check_folder(&format!("{key}.fallback"), process.fallback.as_deref())?;
    if process.files.is_some() && (process.dockerfile.is_some() || process.command.is_some()) {
        return Err(PlanError::settings(
            format!("refloat.toml: {key} has both files and a container's command or Dockerfile."),
            "Files are published without a container: keep one of the two.",
        ));
    }
    if let Some(route) = process.routes.iter().flatten().find(|r| !is_prefix(r)) {
        return Err(PlanError::settings(
            format!("refloat.toml: {key}.routes: \"{route}\" is no path prefix."),
            "Start it with a slash, such as \"/api\".",
        ));
    }
    if let Some(health) = process.health.as_ref().filter(|h| !h.starts_with('/') || h.contains(char::is_whitespace)) {
        return Err(PlanError::settings(
            format!("refloat.toml: {key}.health: \"{health}\" is no path."),
            "Start it with a slash, such as \"/health\".",
        ));
    }
    match process.volumes.iter().flatten().find(|v| !settings.volumes.contains_key(*v)) {
        Some(missing) => Err(PlanError::settings(
            format!("refloat.toml: {key}.volumes names \"{missing}\", which [volumes] does not have."),
            format!("Add `{missing} = \"/data\"` under [volumes]."),
        )),
        None => Ok(()),
    }
}

fn check_kind(key: &str, kind: Option<&str>) -> Result<(), PlanError> {
    match kind {
        None | Some("web" | "worker") => Ok(()),
        Some("cron") => Err(PlanError::settings(
            format!("refloat.toml: {key}.kind: processes that run at times (cron) cannot be run yet."),
            "Use \"worker\" for a process that keeps its own time, or \"web\".",
        )),
        Some(other) => Err(PlanError::settings(
            format!("refloat.toml: {key}.kind: \"{other}\" is no kind of process."),
            "Use \"web\" or \"worker\".",
        )),
    }
}

fn check_folder(key: &str, path: Option<&str>) -> Result<(), PlanError> {
    let odd = |s: &str| s.is_empty() || s == ".." || s.contains(|c: char| c.is_control() || c == '\\');
    match path {
        Some(path) if path != "." && path.trim_end_matches('/').trim_start_matches("./").split('/').any(odd) => {
            Err(PlanError::settings(
                format!("refloat.toml: {key}: \"{path}\" does not stay below the root of the source."),
                "Give a path from the root of the source, without a leading slash and without \"..\".",
            ))
        }
        _ => Ok(()),
    }
}

fn bad_name(key: &str, name: &str, max_bytes: usize) -> PlanError {
    PlanError::settings(
        format!("refloat.toml: {key}: \"{name}\" cannot be a name."),
        format!(
            "Use 1 to {max_bytes} lowercase letters, digits and hyphens, starting with a letter and not ending with a hyphen."
        ),
    )
}

fn malformed(text: &str, error: &toml::de::Error) -> PlanError {
    let line = error.span().map(|span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
    let place = line.map(|l| format!(", line {l}")).unwrap_or_default();
    PlanError::settings(
        format!("refloat.toml{place}: {}.", error.message().trim_end_matches('.').replace('\n', " ")),
        "Correct the file; a file without any key is fine too.",
    )
}

/// Whether a text can be the name of an environment variable.
pub(crate) fn is_variable(name: &str) -> bool {
    let bytes = name.as_bytes();
    !name.is_empty()
        && name.len() <= 256
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

#[cfg(test)]
mod tests;

//! A server that runs on Node or bun: how it starts, on which port, and its image.

use super::Detection;
use super::build_env::{self, BuildEnv};
use super::dockerfile_text::{Recipe, Runtime, server};
use super::draft::{Draft, ignored, web};
use super::findings::listed;
use super::folder::Folder;
use super::js_text::without_comments;
use super::package_json::Manifest;
use super::package_manager::{self, Install, Manager};
use super::pattern::patterns;
use super::source_text::SourceText;
use super::start_script::{self, Start};
use super::{node_version, vite_config};
use crate::error::PlanError;
use crate::plan::{BackendPlan, Build};

patterns! {
    PORT_FROM_ENV = r#"\benv\.PORT\b|\benv\[\s*["']PORT["']\s*\]|\{[^{}]*\bPORT\b[^{}]*\}\s*=\s*process\.env"#;
    LISTENS = r#"\.listen\s*\(|\bserve\s*\(|\bcreateServer\s*\(|Bun\.serve\b|export\s+default\s*\{[^{}]*\bfetch\b"#;
    LISTEN_LITERAL = r#"\.listen\s*\(\s*(?:\{[^{}]*?\bport\s*:\s*)?(\d{2,5})\b"#;
    PORT_LITERAL = r#"\b(?:port|PORT|Port)\s*[:=]\s*(\d{2,5})\b"#;
    LOCAL_ONLY = r#"\.listen\s*\([^()]*["'`](?:localhost|127\.0\.0\.1)["'`]|\bhost(?:name)?\s*:\s*["'`](?:localhost|127\.0\.0\.1)["'`]"#;
    HEALTH = r#"\b(?:app|server|fastify)\.get\s*\(\s*["'`](/(?:api/)?health(?:z|check)?)["'`]"#;
    SERVES_PAGES = r#"\bexpress\.static\s*\(|\bserveStatic\s*\(|\bsirv\s*\(|@fastify/static|\bkoa-static\b|\bserve-static\b|sendFile\s*\([^)]*index\.html"#;
    WRITES = r#"\b(?:writeFile|writeFileSync|appendFile|appendFileSync|createWriteStream|mkdirSync|mkdir)\s*\(|\bmulter\s*\(\s*\{[^{}]*\bdest\b|diskStorage\s*\("#;
    SOCKET_PATH = r#"\bpath\s*:\s*["'`](/[A-Za-z0-9._/-]+)["'`]"#;
}

/// The port that a generated image tells its server.
pub(crate) const PORT: u16 = 8080;
/// Packages that serve requests.
pub(crate) const FRAMEWORKS: [&str; 19] = [
    "express",
    "fastify",
    "hono",
    "koa",
    "@hono/node-server",
    "@nestjs/core",
    "polka",
    "restify",
    "@hapi/hapi",
    "socket.io",
    "ws",
    "h3",
    "elysia",
    "@apollo/server",
    "apollo-server",
    "@trpc/server",
    "json-server",
    "@feathersjs/feathers",
    "micro",
];
/// Packages that write next to the program.
const WRITERS: [&str; 10] = [
    "better-sqlite3",
    "sqlite3",
    "lowdb",
    "nedb",
    "@seald-io/nedb",
    "connect-sqlite3",
    "session-file-store",
    "winston-daily-rotate-file",
    "keyv-file",
    "level",
];
/// Scripts that start what a package is for, the best first.
const SCRIPTS: [&str; 6] = ["start:prod", "start:production", "start", "prod", "serve", "server"];
/// Scripts that start a server beside a page of the same package.
const SIDE_SCRIPTS: [&str; 11] = [
    "start:prod",
    "start:server",
    "server:start",
    "server:prod",
    "start:api",
    "api:start",
    "start:backend",
    "server",
    "api",
    "backend",
    "start",
];
/// Files that are a server by their name.
const ENTRIES: [&str; 12] = [
    "server",
    "index",
    "app",
    "main",
    "src/server",
    "src/index",
    "src/app",
    "src/main",
    "server/index",
    "server/server",
    "server/app",
    "api/index",
];
/// Files that are a server by their name even beside a page.
const SIDE_ENTRIES: [&str; 11] = [
    "server",
    "server/index",
    "server/server",
    "server/app",
    "server/main",
    "server/src/index",
    "api/index",
    "api/server",
    "backend/index",
    "backend/server",
    "src/server/index",
];

/// A server that was found.
pub(crate) struct Server {
    command: Vec<String>,
    entry: Option<String>,
    runner: Option<String>,
    /// Whether the project's build makes what is run.
    built: bool,
    text: SourceText,
}

/// Which scripts and files count.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Place {
    /// The package is a server or nothing.
    Own,
    /// The package is a page too.
    BesidePage,
}

/// Looks for a server in a package.
pub(crate) fn find(
    detection: &mut Detection<'_>,
    package: &Folder<'_>,
    manifest: &Manifest,
    place: Place,
) -> Option<Server> {
    let text = SourceText::of(package, &[]);
    by_script(detection, package, manifest, place, &text)
        .or_else(|| by_file(detection, package, manifest, place, &text))
        .map(|mut server| {
            server.text = text;
            server
        })
}

fn by_script(
    detection: &mut Detection<'_>,
    package: &Folder<'_>,
    manifest: &Manifest,
    place: Place,
    text: &SourceText,
) -> Option<Server> {
    let names: &[&str] = if place == Place::Own { &SCRIPTS } else { &SIDE_SCRIPTS };
    let has_build = manifest.script("build").is_some();
    for name in names {
        let Some(script) = manifest.script(name) else { continue };
        let reading = start_script::read(package, manifest, script, has_build);
        let server = match reading.start {
            Start::Run { command, entry, runner } => {
                if place == Place::BesidePage && package.has(&entry) && !listens(text, &entry) {
                    continue;
                }
                let built = !package.has(&entry);
                Server { command, entry: Some(entry), runner, built, text: SourceText::default() }
            }
            Start::Script if place == Place::Own && (*name == "start" || manifest.wants_any(&FRAMEWORKS).is_some()) => {
                Server {
                    command: ["npm", "run", name].map(str::to_owned).to_vec(),
                    entry: None,
                    runner: Some("a script of package.json".to_owned()),
                    built: has_build,
                    text: SourceText::default(),
                }
            }
            other => {
                refuse_start(detection, name, &other);
                continue;
            }
        };
        detection.findings.decide(
            format!("start: {}", server.command.join(" ")),
            format!("the script \"{name}\" in {}", package.join("package.json")),
        );
        note_database(detection, name, &reading.database);
        return Some(server);
    }
    None
}

/// Says why the script that everybody would expect to be run is not.
pub(crate) fn refuse_start(detection: &mut Detection<'_>, name: &str, start: &Start) {
    let why = match start {
        Start::Development(what) => format!("\"{what}\" is a server for development"),
        Start::StaticServer(what) => format!("\"{what}\" only serves files, which needs no container here"),
        Start::Missing(what) => format!("{what} does not exist"),
        Start::Run { .. } | Start::Script => return,
    };
    if name.starts_with("start") {
        detection.findings.decide(format!("the script \"{name}\" is not run"), why);
    }
}

fn note_database(detection: &mut Detection<'_>, script: &str, commands: &[String]) {
    if !commands.is_empty() {
        detection.findings.warn(format!(
            "\"{}\" in the script \"{script}\" changes the database and is not run: a restart or a rollback must not change data by surprise. Run it yourself before the deploy.",
            commands.join(" && ")
        ));
    }
}

fn by_file(
    detection: &mut Detection<'_>,
    package: &Folder<'_>,
    manifest: &Manifest,
    place: Place,
    text: &SourceText,
) -> Option<Server> {
    let names: &[&str] = if place == Place::Own { &ENTRIES } else { &SIDE_ENTRIES };
    let main = manifest.main.as_deref().filter(|_| place == Place::Own).map(super::folder::normal);
    let endings = ["", ".js", ".mjs", ".cjs", ".ts", ".mts"];
    let candidates = main.into_iter().chain(names.iter().map(|n| (*n).to_owned()));
    let entry = candidates
        .flat_map(|name| endings.map(|e| format!("{name}{e}")))
        .find(|path| package.has(path) && listens(text, path))?;
    let typed = entry.ends_with("ts");
    let tsx = manifest.wants("tsx");
    let command: Vec<String> = match (typed, tsx) {
        (true, true) => ["node_modules/.bin/tsx", entry.as_str()].map(str::to_owned).to_vec(),
        _ => ["node", entry.as_str()].map(str::to_owned).to_vec(),
    };
    if typed && !tsx {
        detection.findings.warn(format!(
            "{entry} is TypeScript and nothing in package.json compiles it: Node runs it by leaving the types out, which works for most code but not for enums. Add a \"build\" and a \"start\" script, or the package tsx."
        ));
    }
    detection
        .findings
        .decide(format!("start: {}", command.join(" ")), format!("{} listens for requests", package.join(&entry)));
    let runner = (typed && tsx).then(|| "tsx".to_owned());
    Some(Server { command, entry: Some(entry), runner, built: false, text: SourceText::default() })
}

fn listens(text: &SourceText, path: &str) -> bool {
    text.files.iter().any(|(p, content)| p == path && LISTENS.is_match(&without_comments(content)))
}

impl Server {
    /// Whether it answers with the pages itself.
    pub(crate) fn serves_pages(&self) -> bool {
        self.server_files().any(|text| SERVES_PAGES.is_match(text))
    }

    /// Path prefixes that it shows to serve beside its API: sockets.
    pub(crate) fn socket_routes(&self, manifest: &Manifest) -> Vec<String> {
        let mut routes = Vec::new();
        if manifest.wants("socket.io") {
            routes.push("/socket.io".to_owned());
        }
        if manifest.wants("ws") {
            let paths = self.server_files().filter(|t| t.contains("WebSocketServer") || t.contains("WebSocket.Server"));
            routes
                .extend(paths.flat_map(|t| SOCKET_PATH.captures_iter(t).map(|c| c[1].to_owned()).collect::<Vec<_>>()));
        }
        routes.retain(|r| crate::label::is_prefix(r) && r != "/");
        routes
    }

    /// The text of the entry and of every file that listens.
    fn server_files(&self) -> impl Iterator<Item = &str> {
        let entry = self.entry.as_deref().unwrap_or_default();
        self.text
            .files
            .iter()
            .filter(move |(path, text)| {
                path == entry || (!path.ends_with(".tsx") && !path.ends_with(".jsx") && LISTENS.is_match(text))
            })
            .map(|(_, text)| text.as_str())
    }

    fn port(&self, detection: &mut Detection<'_>) -> u16 {
        let texts: Vec<String> = self.server_files().map(without_comments).collect();
        let any = |p: &regex::Regex| texts.iter().any(|t| p.is_match(t));
        let literal =
            |p: &regex::Regex| texts.iter().find_map(|t| p.captures(t)?[1].parse::<u16>().ok().filter(|p| *p > 0));
        if any(&LOCAL_ONLY) {
            detection.findings.warn(
                "The server seems to listen on localhost alone, where no request from outside reaches it: let it listen on 0.0.0.0.",
            );
        }
        if any(&PORT_FROM_ENV) {
            detection.findings.decide(format!("port {PORT}"), "the server reads PORT");
            return PORT;
        }
        match literal(&LISTEN_LITERAL).or_else(|| literal(&PORT_LITERAL)) {
            Some(port) => {
                detection
                    .findings
                    .decide(format!("port {port}"), "the server listens on this number and does not read PORT");
                port
            }
            None => {
                detection
                    .findings
                    .decide(format!("port {PORT}"), "PORT is set to it; no other number was found in the server");
                PORT
            }
        }
    }

    fn health(&self) -> Option<String> {
        let texts: Vec<&str> = self.server_files().filter(|t| !t.contains("basePath(")).collect();
        texts.iter().find_map(|t| HEALTH.captures(t).map(|c| c[1].to_owned()))
    }

    /// Why it needs to write below its own folder.
    fn writes(&self, manifest: &Manifest) -> Option<String> {
        if let Some(package) = manifest.wants_any(&WRITERS) {
            return Some(format!("it uses {package}"));
        }
        let page = |path: &str| {
            path.ends_with(".tsx") || path.ends_with(".jsx") || path.ends_with(".vue") || path.ends_with(".html")
        };
        let config = |path: &str| path.contains(".config.") || path.starts_with("scripts/");
        let files: Vec<&str> = self
            .text
            .files
            .iter()
            .filter(|(path, text)| !page(path) && !config(path) && WRITES.is_match(text))
            .map(|(path, _)| path.as_str())
            .collect();
        (!files.is_empty()).then(|| format!("{} writes files", listed(&files, 2)))
    }
}

/// Where a server's process stands in its app.
pub(crate) struct Role<'r> {
    /// Name of its build and what is said about it.
    pub(crate) build: &'r str,
    /// Name of its process.
    pub(crate) process: &'r str,
    /// Its path prefixes.
    pub(crate) routes: Vec<String>,
    /// Whether the output was built elsewhere.
    pub(crate) prebuilt: bool,
    /// Whether the project's build belongs to another process unless this one runs what it makes.
    pub(crate) beside_page: bool,
}

/// The image and the process of a server.
pub(crate) fn draft(
    detection: &mut Detection<'_>,
    package: &Folder<'_>,
    manifest: &Manifest,
    server_found: &Server,
    role: Role<'_>,
) -> Result<Draft, PlanError> {
    let settings = detection.settings;
    let node = node_version::choose(settings.build.node.as_deref(), package, manifest, &mut detection.findings);
    let install = install(detection, package, manifest, role.prebuilt)?;
    let context = install.as_ref().map_or(package, |i| &i.root).path().to_owned();
    let inside = install.as_ref().map(|i| i.package.clone()).unwrap_or_default();
    let build =
        build_line(detection, manifest, install.as_ref().map_or(Manager::Npm, |i| i.manager), server_found, &role);
    let env =
        if build.is_some() { build_variables(detection, package, manifest, server_found) } else { BuildEnv::default() };
    let port = server_found.port(detection);
    let writable = writable(detection, server_found, manifest, role.process);
    let dev_runner = server_found.runner.as_deref().filter(|r| *r != "bun" && !manifest.dependencies.contains_key(*r));
    if let Some(runner) = dev_runner.filter(|_| !role.prebuilt) {
        detection.findings.decide("packages for development stay in the image", format!("{runner} is needed to start"));
    }
    let mounts = mounts(detection, role.process);
    let recipe =
        Recipe { node, install: install.as_ref(), package: &inside, build: build.as_deref(), variables: &env.names };
    let runtime = Runtime {
        command: &server_found.command,
        port,
        writable,
        mounts: &mounts,
        needs_all_packages: dev_runner.is_some() && !role.prebuilt,
    };
    let made = server_found
        .entry
        .as_deref()
        .filter(|_| server_found.built)
        .and_then(|e| e.split_once('/'))
        .map(|(top, _)| top);
    let image = Build::Image {
        name: role.build.to_owned(),
        dockerfile: server(&recipe, &runtime),
        context,
        own: false,
        ignore: ignored(&inside, made),
    };
    let backend = BackendPlan::Instance {
        build: role.build.to_owned(),
        command: Vec::new(),
        port: Some(port),
        writable_root: writable,
        capabilities: Vec::new(),
    };
    let routes: Vec<&str> = role.routes.iter().map(String::as_str).collect();
    let mut process = web(role.process, backend, &routes);
    process.health_path = health(detection, server_found);
    let mut draft = Draft::of("Node server", image, process);
    draft.env = env;
    Ok(draft)
}

/// How packages are installed; `None` when there are none.
fn install<'a>(
    detection: &mut Detection<'_>,
    package: &Folder<'a>,
    manifest: &Manifest,
    prebuilt: bool,
) -> Result<Option<Install<'a>>, PlanError> {
    let nothing = if prebuilt { manifest.dependencies.is_empty() } else { manifest.all().is_empty() };
    if nothing && manifest.install_scripts().is_empty() {
        detection.findings.decide("nothing is installed", "package.json names no packages");
        return Ok(None);
    }
    let wanted = detection.settings.build.package_manager.as_deref();
    package_manager::choose(wanted, package, manifest, &mut detection.findings).map(Some)
}

fn health(detection: &mut Detection<'_>, server: &Server) -> Option<String> {
    let path = server.health();
    match &path {
        Some(path) => detection.findings.decide(format!("health: {path} answers"), "the server has that path"),
        None => {
            detection.findings.decide("health: the port accepts connections", "no path for a health check was found")
        }
    }
    path
}

fn build_line(
    detection: &mut Detection<'_>,
    manifest: &Manifest,
    manager: Manager,
    server: &Server,
    role: &Role<'_>,
) -> Option<String> {
    if role.prebuilt || (role.beside_page && !server.built) {
        return None;
    }
    if let Some(command) = detection.settings.build.command.as_ref().filter(|_| !role.beside_page) {
        detection.findings.decide(format!("build: {command}"), "refloat.toml says so");
        return Some(command.clone());
    }
    manifest.script("build").map(|script| {
        detection
            .findings
            .decide(format!("build: {}", manager.run("build")), format!("the script \"build\" is \"{script}\""));
        manager.run("build")
    })
}

/// What the build reads: what a Vite page publishes when the build makes one, and what `refloat.toml` names.
fn build_variables(
    detection: &mut Detection<'_>,
    package: &Folder<'_>,
    manifest: &Manifest,
    server: &Server,
) -> BuildEnv {
    let public = &detection.settings.env.public;
    if manifest.wants("vite") {
        let config = vite_config::read(package);
        return build_env::of_vite(package, &config.text, &server.text, public, &mut detection.findings);
    }
    BuildEnv {
        names: public.keys().cloned().collect(),
        defaults: public.iter().map(|(n, v)| (n.clone(), v.clone())).collect(),
    }
}

fn writable(detection: &mut Detection<'_>, server: &Server, manifest: &Manifest, process: &str) -> bool {
    if let Some(wanted) = detection.settings.process.get(process).and_then(|p| p.writable_root) {
        return wanted;
    }
    match server.writes(manifest) {
        Some(why) => {
            detection.findings.decide("the file system is writable", &why);
            if detection.settings.volumes.is_empty() {
                detection.findings.warn(format!(
                    "The server keeps files of its own ({why}). They are gone with the next release unless they lie in a volume: `[volumes]` in refloat.toml, such as `data = \"/app/data\"`."
                ));
            }
            true
        }
        None => {
            detection
                .findings
                .decide("the file system is read-only but for /tmp", "nothing in the server writes files");
            false
        }
    }
}

/// Mount paths of the volumes that may be this process's.
fn mounts(detection: &Detection<'_>, process: &str) -> Vec<String> {
    let settings = detection.settings;
    let listed = settings.process.get(process).and_then(|p| p.volumes.as_ref());
    let ours = |name: &String, of: Option<&str>| match (listed, of) {
        (Some(names), _) => names.contains(name),
        (None, Some(of)) => of == process,
        (None, None) => true,
    };
    settings.volumes.iter().filter(|(name, v)| ours(name, v.process())).map(|(_, v)| v.path().to_owned()).collect()
}

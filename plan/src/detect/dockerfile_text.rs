//! The text of generated Dockerfiles.
//!
//! Rules that hold for all of them: no `# syntax=` line (it would fetch a frontend from a registry); the install is a
//! layer of its own over the few files that it reads, so that a change in the source does not repeat it; downloads lie
//! in a cache mount; development packages are there during the build and `NODE_ENV=production` is not; values of the
//! build reach one stage whose output alone is kept; what runs is a user without rights and an argument array.

use super::install_commands::Attempt;
use super::package_manager::{Install, Manager, NPM_LOGS};

/// The user of generated images: `node` in the official ones.
pub(crate) const USER: &str = "1000:1000";
/// Where everything lies.
const HOME: &str = "/app";
/// The image that bun is taken from.
const BUN_IMAGE: &str = "oven/bun:1-slim";

/// What is built, and on what.
pub(crate) struct Recipe<'r, 'a> {
    /// Major version of Node.
    pub(crate) node: u32,
    /// How packages are installed; `None` when there are none.
    pub(crate) install: Option<&'r Install<'a>>,
    /// Folder of the package within the context.
    pub(crate) package: &'r str,
    /// The line that builds, if anything does.
    pub(crate) build: Option<&'r str>,
    /// Variables of the build, by name.
    pub(crate) variables: &'r [String],
}

/// What the final stage of a server's image has.
pub(crate) struct Runtime<'r> {
    /// The command.
    pub(crate) command: &'r [String],
    /// The port that it is told.
    pub(crate) port: u16,
    /// Whether it may write to its own folder.
    pub(crate) writable: bool,
    /// Folders that a volume will be mounted on: they must belong to the user.
    pub(crate) mounts: &'r [String],
    /// Whether packages that only development needs must stay.
    pub(crate) needs_all_packages: bool,
}

/// A Dockerfile whose last stage holds an output folder and nothing else.
pub(crate) fn tree(recipe: &Recipe<'_, '_>, output: &str) -> String {
    let mut text = Text::default();
    text.base(recipe);
    text.build_stage(recipe, false);
    text.line("FROM scratch");
    let from = [HOME, recipe.package, output].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
    text.copy(Some("build"), None, &format!("{from}/"), "/");
    text.0
}

/// A Dockerfile whose last stage runs a server.
pub(crate) fn server(recipe: &Recipe<'_, '_>, runtime: &Runtime<'_>) -> String {
    let mut text = Text::default();
    text.base(recipe);
    let production = recipe.install.and_then(|i| i.production.as_deref()).filter(|_| !runtime.needs_all_packages);
    let builds = recipe.build.is_some();
    let dependencies = recipe.install.filter(|i| i.reads.is_some() && (production.is_some() || !builds));
    if let Some(install) = dependencies {
        text.line("FROM base AS dependencies");
        text.install(install, production.unwrap_or(&install.commands));
        text.blank();
    }
    let built = builds || (recipe.install.is_some() && dependencies.is_none());
    if built {
        text.build_stage(recipe, dependencies.is_some());
    }
    text.runtime_base(recipe, runtime);
    let owner = runtime.writable.then_some(USER);
    if dependencies.is_some() {
        text.copy(Some("dependencies"), owner, &format!("{HOME}/"), "./");
    }
    if built {
        text.copy(Some("build"), owner, &format!("{HOME}/"), "./");
    } else {
        text.copy(None, owner, ".", ".");
    }
    text.finish(recipe, runtime);
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn blank(&mut self) {
        self.0.push('\n');
    }

    fn copy(&mut self, stage: Option<&str>, owner: Option<&str>, from: &str, to: &str) {
        let stage = stage.map(|s| format!("--from={s} ")).unwrap_or_default();
        let owner = owner.map(|o| format!("--chown={o} ")).unwrap_or_default();
        if from.contains(char::is_whitespace) || from.contains(['"', '\\', '$', '[']) {
            self.line(&format!("COPY {stage}{owner}{}", json(&[escaped(from), to.to_owned()])));
        } else {
            self.line(&format!("COPY {stage}{owner}{from} {to}"));
        }
    }

    fn base(&mut self, recipe: &Recipe<'_, '_>) {
        let Some(install) = recipe.install else {
            if recipe.build.is_some() {
                self.line(&format!("FROM node:{}-slim AS base", recipe.node));
                self.line(&format!("WORKDIR {HOME}"));
                self.blank();
            }
            return;
        };
        if install.manager == Manager::Bun {
            self.line(&format!("FROM {BUN_IMAGE} AS bun"));
            self.blank();
        }
        self.line(&format!("FROM node:{}-slim AS base", recipe.node));
        self.bun(install);
        self.system(&install.system);
        if let Some(tool) = &install.tool {
            // The image may have a yarn of its own in the way.
            self.line(&format!("RUN --mount=type=cache,target=/root/.npm npm install -g --force {tool}"));
        }
        for (name, value) in install.manager.variables() {
            self.line(&format!("ENV {name}={value}"));
        }
        self.line(&format!("WORKDIR {HOME}"));
        self.blank();
    }

    /// Bun installs, and Node runs what is installed: not every tool of a build runs on bun.
    fn bun(&mut self, install: &Install<'_>) {
        if install.manager == Manager::Bun {
            self.line("COPY --from=bun /usr/local/bin/bun /usr/local/bin/bun");
            self.line("RUN ln -s bun /usr/local/bin/bunx");
        }
    }

    fn system(&mut self, packages: &[&str]) {
        if !packages.is_empty() {
            self.line(&format!(
                "RUN apt-get update && apt-get install -y --no-install-recommends {} && rm -rf /var/lib/apt/lists/*",
                packages.join(" ")
            ));
        }
    }

    /// `drop_packages`: those of production come from a stage of their own, and what only the build needed must go.
    fn build_stage(&mut self, recipe: &Recipe<'_, '_>, drop_packages: bool) {
        self.line("FROM base AS build");
        match recipe.install {
            Some(install) if install.reads.is_some() => {
                self.install(install, &install.commands);
                self.line("COPY . .");
            }
            Some(install) => {
                self.line("COPY . .");
                self.run_install(install, &install.commands);
            }
            None => self.line("COPY . ."),
        }
        if !recipe.package.is_empty() {
            self.workdir(recipe.package);
        }
        for name in recipe.variables {
            self.line(&format!("ARG {name}"));
        }
        if let Some(build) = recipe.build {
            self.line(&format!("RUN {build}"));
        }
        if drop_packages {
            self.line(&format!("RUN rm -rf {HOME}/node_modules"));
        }
        self.blank();
    }

    fn workdir(&mut self, package: &str) {
        self.line(&format!("WORKDIR {HOME}/{}", escaped(package)));
    }

    fn install(&mut self, install: &Install<'_>, attempts: &[Attempt]) {
        let reads = install.reads.as_deref().unwrap_or_default();
        let (folders, files): (Vec<&String>, Vec<&String>) = reads.iter().partition(|p| install.root.has_folder(p));
        let top: Vec<&str> = files.iter().filter(|f| !f.contains('/')).map(|f| f.as_str()).collect();
        if !top.is_empty() {
            self.line(&format!("COPY {} ./", top.join(" ")));
        }
        for file in files.iter().filter(|f| f.contains('/')) {
            self.line(&format!("COPY {file} ./{file}"));
        }
        for folder in folders {
            self.line(&format!("COPY {folder} ./{folder}"));
        }
        self.run_install(install, attempts);
    }

    fn run_install(&mut self, install: &Install<'_>, attempts: &[Attempt]) {
        let (cache, shared) = install.manager.cache();
        let sharing = if shared { "" } else { ",sharing=locked" };
        let chain: Vec<String> = attempts.iter().enumerate().map(|(at, attempt)| link(at, attempt)).collect();
        let chain = chain.join(" \\\n || ");
        self.line(&format!("RUN --mount=type=cache,target={cache}{sharing} {chain}"));
    }

    fn runtime_base(&mut self, recipe: &Recipe<'_, '_>, runtime: &Runtime<'_>) {
        let first = runtime.command.first().map(String::as_str).unwrap_or_default();
        let on_base = recipe.install.is_some_and(|i| i.manager.command() == first && i.manager != Manager::Npm);
        if on_base {
            self.line("FROM base");
        } else {
            self.line(&format!("FROM node:{}-slim", recipe.node));
            self.system(recipe.install.map(|i| i.system_at_run.as_slice()).unwrap_or_default());
            if first == "bun" {
                self.line(&format!("COPY --from={BUN_IMAGE} /usr/local/bin/bun /usr/local/bin/bun"));
            }
            self.line(&format!("WORKDIR {HOME}"));
        }
        self.line(&format!("ENV NODE_ENV=production HOST=0.0.0.0 PORT={}", runtime.port));
        if first == "npm" || first == "npx" {
            // Only /tmp can be written to.
            self.line("ENV npm_config_cache=/tmp/npm npm_config_update_notifier=false");
        }
        if runtime.writable {
            self.line(&format!("RUN chown {USER} {HOME}"));
        }
    }

    fn finish(&mut self, recipe: &Recipe<'_, '_>, runtime: &Runtime<'_>) {
        // A new volume takes over content and owner of the folder that it is mounted on.
        for mount in runtime.mounts {
            let quoted = mount.replace('\'', "'\\''");
            self.line(&format!("RUN mkdir -p '{quoted}' && chown {USER} '{quoted}'"));
        }
        if !recipe.package.is_empty() {
            self.workdir(recipe.package);
        }
        self.line(&format!("USER {USER}"));
        self.line(&format!("EXPOSE {}", runtime.port));
        self.line(&format!("CMD {}", json(runtime.command)));
    }
}

/// One command of a chain in which each is tried when those before it failed.
fn link(at: usize, attempt: &Attempt) -> String {
    let line = &attempt.line;
    let announced = format!("echo 'refloat: that install failed; now trying: {line}' && {line}");
    match attempt.against {
        _ if at == 0 => line.clone(),
        Some(code) => format!("{{ grep -rqs 'code {code}' {NPM_LOGS} && {announced}; }}"),
        None => format!("{{ {announced}; }}"),
    }
}

/// An argument array as Docker reads it.
fn json(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| serde_json::Value::from(w.as_str()).to_string()).collect();
    format!("[{}]", quoted.join(", "))
}

/// A path whose `$` means itself.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\").replace('$', "\\$")
}

//! One server, one paired laptop and one app's source: what nearly every test begins with.

use std::process::Child;
use std::time::Duration;

use refloat_testkit::command::{Finished, begin};
use refloat_testkit::eventually::eventually_true;
use refloat_testkit::host::{Host, Options};
use refloat_testkit::laptop::Laptop;
use refloat_testkit::load::{Load, Report, Target};
use refloat_testkit::project::Project;
use serde_json::Value;

use crate::answer;

/// Requests per second of every load.
pub const RATE: u32 = 200;
/// Requests before and after a change, so that both sides of it are seen.
const MARGIN_REQUESTS: usize = 40;

/// What a slowed phase takes at least: long enough to act within it.
pub const SLOW_MS: u32 = 10_000;

/// Makes the build of `node-hello` take [`SLOW_MS`].
///
/// # Panics
/// When the project is another one.
pub fn slow_build(project: &Project) {
    let build = format!("\"build\": \"node -e 'setTimeout(()=>{{}},{SLOW_MS})'\",\n    \"start\":");
    project.edit("package.json", "\"start\":", &build);
}

/// Makes the start of `node-hello` take [`SLOW_MS`].
///
/// # Panics
/// When the project is another one.
pub fn slow_start(project: &Project) {
    let wait = format!("await new Promise((r) => setTimeout(r, {SLOW_MS}));\nserver.listen(");
    project.edit("server.js", "server.listen(", &wait);
}

/// Exit codes of the CLI.
pub mod code {
    /// It did not go live and nothing changed.
    pub const FAILED: i32 = 1;
    /// The command line makes no sense.
    pub const USAGE: i32 = 2;
    /// Somebody cancelled it, or a newer one took its place.
    pub const CANCELLED: i32 = 12;
    /// The caller may not do that.
    pub const DENIED: i32 = 13;
    /// Nobody answers.
    pub const UNREACHABLE: i32 = 14;
}

/// Does something under load and returns what it returned, with the load's report.
pub fn under_load<T>(target: Target, act: impl FnOnce() -> T) -> (T, Report) {
    let load = Load::start(target, RATE);
    load.wait_for(MARGIN_REQUESTS);
    let result = act();
    load.wait_for(MARGIN_REQUESTS);
    (result, load.finish())
}

/// The three of them.
#[derive(Debug)]
pub struct Scene {
    /// The server. First, so that it goes before the network that it listens on.
    pub host: Host,
    /// The laptop: another machine, but for the scenes that say otherwise.
    pub laptop: Laptop,
    /// The app's source.
    pub project: Project,
}

impl Scene {
    /// With a copy of an example.
    ///
    /// # Panics
    /// When one of them cannot be had.
    #[must_use]
    pub fn with_example(name: &str) -> Self {
        Self::with(Project::example(name))
    }

    /// With any source.
    ///
    /// # Panics
    /// When one of them cannot be had.
    #[must_use]
    pub fn with(project: Project) -> Self {
        Self::with_options(project, Options::default())
    }

    /// With any source, and a server that is different. Its address is the one that the laptop sees.
    ///
    /// # Panics
    /// When one of them cannot be had.
    #[must_use]
    pub fn with_options(project: Project, options: Options) -> Self {
        Self::between(Laptop::elsewhere(), project, options)
    }

    /// With a laptop that shares the server's network: it is a little faster and needs no root.
    ///
    /// # Panics
    /// When one of them cannot be had.
    #[must_use]
    pub fn on_one_machine(project: Project) -> Self {
        Self::between(Laptop::new(), project, Options::default())
    }

    fn between(laptop: Laptop, project: Project, options: Options) -> Self {
        let host = Host::start_with(Options { address: laptop.host_address(), ..options });
        laptop.pair(&host);
        Self { host, laptop, project }
    }

    /// `node-hello` as v1, which serves, and as v2, which serves instead: a rollback has somewhere to go.
    ///
    /// # Panics
    /// When one of the two does not go live.
    #[must_use]
    pub fn hello_with_two_releases() -> Self {
        Self::with_example("node-hello").with_two_releases()
    }

    /// The same, of a scene with an untouched `node-hello`.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn with_two_releases(self) -> Self {
        self.deploy().success();
        self.set_hello_version("v1", "v2");
        self.deploy().success();
        assert_eq!(self.host.body("/").as_deref(), Some("hello from v2\n"));
        self
    }

    /// `node-hello` with a volume, so that never two of it run at once. `/starts` lists the version of every start.
    ///
    /// # Panics
    /// When one of the three cannot be had.
    #[must_use]
    pub fn with_volume() -> Self {
        let scene = Self::with_example("node-hello");
        scene.project.write("refloat.toml", "schema = 1\n\n[volumes]\ndata = \"/data\"\n");
        scene.project.edit(
            "server.js",
            "import { VERSION }",
            "import { appendFileSync, readFileSync } from \"node:fs\";\nimport { VERSION }",
        );
        scene.project.edit(
            "server.js",
            "response.end(",
            "if (request.url === \"/starts\") return response.end(readFileSync(\"/data/starts\"));\n  response.end(",
        );
        scene.project.edit(
            "server.js",
            "server.listen(",
            "appendFileSync(\"/data/starts\", `${VERSION}\n`);\nserver.listen(",
        );
        scene
    }

    /// Edits the version of `node-hello`.
    ///
    /// # Panics
    /// When it is not `from`.
    pub fn set_hello_version(&self, from: &str, to: &str) {
        self.project.edit("version.js", &format!("{from:?}"), &format!("{to:?}"));
    }

    /// `refloat` in the app's folder.
    #[must_use]
    pub fn refloat(&self, arguments: &[&str]) -> Finished {
        self.laptop.refloat(self.project.folder(), arguments)
    }

    /// `refloat deploy`.
    #[must_use]
    pub fn deploy(&self) -> Finished {
        self.refloat(&["deploy"])
    }

    /// `refloat deploy`, begun.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn begin_deploy(&self) -> Child {
        begin(&mut self.laptop.command(self.project.folder(), &["deploy"]))
    }

    /// Waits until the running deployment is in that phase.
    ///
    /// # Panics
    /// When it is not within a minute and a half.
    pub fn wait_for_phase(&self, phase: &str) {
        eventually_true(&format!("the phase is {phase}"), Duration::from_secs(90), || {
            let status = answer::json(&self.refloat(&["status", "--json"]).success());
            status["apps"][0]["deployment"]["phase"] == phase
        });
    }

    /// Does something under load and returns what it returned, with the load's report.
    pub fn under_load<T>(&self, path: &str, act: impl FnOnce() -> T) -> (T, Report) {
        under_load(self.host.target(path), act)
    }

    /// The newest releases, newest first.
    ///
    /// # Panics
    /// When they cannot be listed.
    #[must_use]
    pub fn releases(&self) -> Vec<Value> {
        let said = self.refloat(&["releases", "--json"]).success();
        let value = answer::json(&said);
        let releases = value["releases"].as_array();
        assert!(releases.is_some(), "there is no list of releases\n{said}");
        releases.cloned().unwrap_or_default()
    }

    /// Number of the release that serves.
    ///
    /// # Panics
    /// When it is not exactly one.
    #[must_use]
    pub fn serving(&self) -> u64 {
        let releases = self.releases();
        let serving: Vec<_> =
            releases.iter().filter(|r| r["serves"] == true).filter_map(|r| r["number"].as_u64()).collect();
        assert_eq!(serving.len(), 1, "exactly one release serves: {releases:#?}");
        serving[0]
    }
}

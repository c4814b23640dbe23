//! Builds over the real engine: the cap holds, trees come out whole, a cancelled build stops, an unchanged one is quick.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use refloat_agent::build::space::Disks;
use refloat_agent::build::{
    BuildError, BuildJob, BuildProgress, Builder, Built, EngineBuilder, MakeRoom, Parts, Planner, Settings,
    SourcePlanner,
};
use refloat_agent::cas::{Cas, Intake, StoredTree};
use refloat_agent::cgroup::{BuildCap, CapStatus, Limits, Wanted, choose};
use refloat_agent::docker::{DockerEngine, Engine, EngineInfo, Secrets};
use refloat_agent::public::Publication;
use refloat_model::{AppName, SourceDigest};
use refloat_plan::plan::{BackendPlan, Build, Kind, Plan, ProcessPlan};
use refloat_plan::tree::{Digest, Directory, Entry, Node};
use refloat_testkit::command::system;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const CGROUPS: &str = "/sys/fs/cgroup";

struct Planned(Plan);

impl Planner for Planned {
    fn plan(&self, _: &Cas, _: &StoredTree, _: &str, _: bool) -> Result<Plan, BuildError> {
        Ok(self.0.clone())
    }
}

struct NoStandby;

#[async_trait]
impl MakeRoom for NoStandby {
    async fn make_room(&self) {}
}

/// A control group of this test's own, removed at its end.
struct Group {
    name: String,
    info: EngineInfo,
}

impl Group {
    fn new(test: &str, info: EngineInfo) -> Self {
        Self { name: format!("refloat-test-{test}-{}", std::process::id()), info }
    }

    fn cap(&self, limits: Limits) -> Arc<dyn BuildCap> {
        Arc::from(choose(&self.info, Path::new(CGROUPS), &self.name, Wanted::Spare(limits)))
    }

    fn path(&self, controller: &str) -> PathBuf {
        match self.info.cgroup_version {
            1 => Path::new(CGROUPS).join(controller).join(&self.name),
            _ => Path::new(CGROUPS).join(&self.name),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for controller in ["memory", "cpu", "pids"] {
            let _ = std::fs::remove_dir(self.path(controller).join("buildkit"));
            let _ = std::fs::remove_dir(self.path(controller));
        }
    }
}

struct Host {
    root: tempfile::TempDir,
    host_id: [u8; 16],
    engine: Arc<DockerEngine>,
    cas: Arc<Cas>,
}

impl Drop for Host {
    /// Images of builds that no release has kept; the engine's build cache is its own.
    fn drop(&mut self) {
        let id = hex(&self.host_id[..4]);
        let ours = format!("reference=refloat-{id}/*");
        let tags = system("docker", &["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &ours]);
        for tag in tags.lines() {
            system("docker", &["rmi", "--force", tag]);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Host {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let cas = Arc::new(Cas::open(&root.path().join("cas")).unwrap());
        let host_id = *uuid::Uuid::new_v4().as_bytes();
        let engine = DockerEngine::connect(None, host_id).await.expect("these tests need a Docker engine");
        Self { root, host_id, engine: Arc::new(engine), cas }
    }

    fn builder(&self, plan: Plan, cap: Arc<dyn BuildCap>) -> EngineBuilder {
        self.builder_with(Arc::new(Planned(plan)), cap)
    }

    fn builder_with(&self, planner: Arc<dyn Planner>, cap: Arc<dyn BuildCap>) -> EngineBuilder {
        let publisher = Publication::open(&self.root.path().join("public"), Arc::clone(&self.cas)).unwrap();
        let parts = Parts {
            engine: Arc::clone(&self.engine) as Arc<dyn Engine>,
            publisher: Arc::new(publisher),
            cas: Arc::clone(&self.cas),
            planner,
            cap,
            room: Arc::new(NoStandby),
            disks: Disks::new(vec![self.root.path().to_owned()]),
        };
        let folder = self.root.path().join("builds");
        let settings = Settings { folder, memo_key: [1; 32], timeout: Duration::from_secs(300) };
        EngineBuilder::open(parts, settings).unwrap()
    }

    fn store(&self, files: &[(&[u8], &[u8])]) -> SourceDigest {
        let mut intake = self.cas.intake();
        let entries = files.iter().map(|(name, bytes)| file(&mut intake, name, bytes)).collect();
        let root = directory(&mut intake, entries);
        intake.finish().unwrap();
        SourceDigest(root)
    }

    async fn info(&self) -> EngineInfo {
        self.engine.info().await.unwrap()
    }
}

fn file(intake: &mut Intake, name: &[u8], bytes: &[u8]) -> Entry {
    let digest = *blake3::hash(bytes).as_bytes();
    let mut writer = intake.file_writer(&digest, bytes.len() as u64).unwrap();
    writer.write(bytes).unwrap();
    intake.file(writer).unwrap();
    Entry { name: name.to_vec(), node: Node::File { digest, size: bytes.len() as u64, executable: false } }
}

fn directory(intake: &mut Intake, mut entries: Vec<Entry>) -> Digest {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let encoded = Directory { entries }.encode();
    let digest = Directory::digest_of(&encoded);
    intake.directory(&digest, &encoded).unwrap();
    digest
}

fn roomy() -> Limits {
    Limits { memory_bytes: 1 << 30, cpu_millis: 1_500, pids: 512 }
}

fn job(source: SourceDigest) -> BuildJob {
    BuildJob {
        app: AppName::new("build-test").unwrap(),
        source,
        prebuilt: false,
        folder: "folder".to_owned(),
        build_env: Secrets::default(),
        local_plan: None,
    }
}

fn plan(build: Build, backend: BackendPlan) -> Plan {
    let process = ProcessPlan {
        name: "web".to_owned(),
        kind: Kind::Web,
        exclusive: false,
        backend,
        routes: vec!["/".to_owned()],
        health_path: None,
        start_timeout_ms: 60_000,
        memory_mib: 64,
        cpu_millis: 0,
        pids: 64,
        volumes: Vec::new(),
    };
    Plan {
        app: "build-test".to_owned(),
        builder: None,
        shape: "test".to_owned(),
        builds: vec![build],
        processes: vec![process],
        reasons: Vec::new(),
        notes: Vec::new(),
        build_env: Vec::new(),
        build_env_defaults: Vec::new(),
        required_env: Vec::new(),
    }
}

/// An image whose one step is this command. The comment makes it a step of its own for each run of the test.
fn runs(command: &str) -> Plan {
    let fresh = uuid::Uuid::new_v4();
    let build = Build::Image {
        name: "app".to_owned(),
        dockerfile: format!("FROM busybox\nRUN {command} && : {fresh}\nEXPOSE 8081\n"),
        context: String::new(),
        own: false,
        ignore: Vec::new(),
    };
    let backend = BackendPlan::Instance {
        build: "app".to_owned(),
        command: Vec::new(),
        port: None,
        writable_root: false,
        capabilities: Vec::new(),
    };
    plan(build, backend)
}

async fn build(builder: &EngineBuilder, source: SourceDigest) -> (Result<Built, BuildError>, Vec<BuildProgress>) {
    let (sender, mut receiver) = mpsc::channel(64);
    let listen = async {
        let mut said = Vec::new();
        while let Some(piece) = receiver.recv().await {
            said.push(piece);
        }
        said
    };
    tokio::join!(builder.build(job(source), sender, CancellationToken::new()), listen)
}

#[tokio::test]
async fn a_step_over_the_memory_cap_is_killed_and_told_so() {
    let host = Host::new().await;
    let group = Group::new("memory", host.info().await);
    let cap = group.cap(Limits { memory_bytes: 200 << 20, ..roomy() });
    let status = cap.apply();
    assert_eq!(status.memory_bytes(), Some(200 << 20), "{status}");
    let source = host.store(&[(b"a", b"a")]);

    let hungry = host.builder(runs("head -c 500m /dev/zero | tail > /dev/null"), Arc::clone(&cap));
    let (failed, said) = build(&hungry, source).await;
    let failed = failed.unwrap_err();
    assert_eq!(failed.reason(), "BUILD_OUT_OF_MEMORY", "{failed:?} {said:?}");
    assert!(failed.message().contains("(200 MiB on this server)"), "{}", failed.message());
    assert_eq!(failed.next_command(), "refloat deploy --prebuilt DIR");

    let modest = host.builder(runs("head -c 50m /dev/zero | tail | wc -c"), cap);
    let (built, said) = build(&modest, source).await;
    assert!(built.is_ok(), "{built:?} {said:?}");
    assert!(
        said.iter().any(|piece| matches!(piece, BuildProgress::Line(line) if line.contains("52428800"))),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_step_over_the_cap_on_processes_cannot_start_more() {
    let host = Host::new().await;
    let group = Group::new("pids", host.info().await);
    let cap = group.cap(Limits { pids: 40, ..roomy() });
    let status = cap.apply();
    let CapStatus::Capped { held, .. } = &status else { panic!("{status}") };
    assert_eq!(held.pids, Some(40), "{status}");
    let source = host.store(&[(b"a", b"a")]);
    let many = host.builder(runs("for n in $(seq 80); do sleep 20 & done"), cap);
    let (failed, said) = build(&many, source).await;
    let told = |line: &String| line.contains("fork") || line.contains("Resource temporarily unavailable");
    let failed = failed.unwrap_err();
    assert!(failed.lines().iter().any(told), "{failed:?} {said:?}");
}

#[tokio::test]
async fn a_busy_step_is_held_to_its_processor_time() {
    let host = Host::new().await;
    let group = Group::new("cpu", host.info().await);
    let cap = group.cap(Limits { cpu_millis: 200, ..roomy() });
    let status = cap.apply();
    let source = host.store(&[(b"a", b"a")]);
    let busy = host.builder(runs("timeout 2 sh -c 'while :; do :; done' || true"), cap);
    let (built, said) = build(&busy, source).await;
    assert!(built.is_ok(), "{built:?} {said:?}");
    let stat = std::fs::read_to_string(group.path("cpu").join("cpu.stat")).unwrap();
    let throttled =
        stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).and_then(|n| n.parse::<u64>().ok());
    assert!(throttled.is_some_and(|periods| periods > 5), "{status}: {stat}");
}

#[tokio::test]
async fn files_that_a_build_made_are_published_with_hostile_names_and_links() {
    let host = Host::new().await;
    let group = Group::new("tree", host.info().await);
    let long = "n".repeat(180);
    let dockerfile = format!(
        "FROM busybox AS make\nCOPY . /src\nRUN mkdir -p /out/{long} /out/etc && cp -r /src/. /out/ \
         && echo deep > /out/{long}/{long} && ln -s index.html /out/home && ln -s /index.html /out/{long}/top \
         && echo mine > /out/etc/motd && : {}\nFROM scratch\nCOPY --from=make /out/ /\n",
        uuid::Uuid::new_v4()
    );
    let tree =
        Build::Tree { name: "web".to_owned(), dockerfile, context: String::new(), ignore: vec!["*.log".to_owned()] };
    let backend = BackendPlan::Files {
        build: "web".to_owned(),
        fallback: Some("index.html".to_owned()),
        not_found: None,
        no_fallback: Vec::new(),
        immutable: Vec::new(),
    };
    let source = host.store(&[
        (b"index.html", b"<html>"),
        (b"a [x]=y.html", b"brackets"),
        (b"caf\xe9.html", b"not utf-8"),
        (b"build.log", b"ignored"),
        (b".env", b"SECRET=1"),
    ]);
    let builder = host.builder(plan(tree, backend), group.cap(roomy()));
    let (built, said) = build(&builder, source).await;
    let built = built.unwrap_or_else(|error| panic!("{error:?} {said:?}"));
    let publication = Publication::open(&host.root.path().join("public"), Arc::clone(&host.cas)).unwrap();
    let index = publication.index(built.trees[0].digest).unwrap().unwrap();
    let paths: Vec<&str> = index.files.iter().map(|file| file.path.as_str()).collect();
    let (deep, top) = (format!("{long}/{long}"), format!("{long}/top"));
    assert_eq!(paths, ["a [x]=y.html", "etc/motd", "home", "index.html", deep.as_str(), top.as_str()]);
    assert!(built.notes.iter().any(|note| note.text.contains("not UTF-8")), "{:?}", built.notes);
}

#[tokio::test]
async fn the_same_again_needs_no_build_and_its_time_is_printed() {
    let host = Host::new().await;
    let group = Group::new("again", host.info().await);
    let source = host.store(&[(b"a", b"a")]);
    let builder = host.builder(runs("true"), group.cap(roomy()));
    let first = build(&builder, source).await.0.unwrap();
    let begun = Instant::now();
    let again = build(&builder, source).await.0.unwrap();
    println!("unchanged: {} µs", begun.elapsed().as_micros());
    assert!(again.unchanged && !first.unchanged);
    assert_eq!(first.processes, again.processes);
    assert!(matches!(&again.processes[0].backend, refloat_model::Backend::Instance { port: 8_081, .. }));
}

/// 50 MB in 700 files, as an export with its pictures: planned, published and answered again.
#[tokio::test]
async fn an_unchanged_site_of_seven_hundred_files_is_quick_and_its_time_is_printed() {
    let host = Host::new().await;
    let group = Group::new("site", host.info().await);
    let mut intake = host.cas.intake();
    let mut folders = vec![file(&mut intake, b"index.html", b"<!doctype html><title>site</title>")];
    for folder in 0..70_u32 {
        let picture =
            |n: u32| -> Vec<u8> { (0..18_000_u32).flat_map(|i| (i ^ (folder * 10 + n)).to_le_bytes()).collect() };
        let files = (0..10).map(|n| file(&mut intake, format!("{n}.png").as_bytes(), &picture(n))).collect();
        let digest = directory(&mut intake, files);
        folders.push(Entry { name: format!("p{folder}").into_bytes(), node: Node::Directory { digest } });
    }
    let root = directory(&mut intake, folders);
    intake.finish().unwrap();

    let builder = host.builder_with(Arc::new(SourcePlanner), group.cap(roomy()));
    let first = build(&builder, SourceDigest(root)).await.0.unwrap();
    assert_eq!((first.trees[0].files, first.trees[0].bytes), (701, 700 * 72_000 + 34));
    let begun = Instant::now();
    let again = build(&builder, SourceDigest(root)).await.0.unwrap();
    println!("701 files: first {} ms, unchanged {} ms", first.build_ms, begun.elapsed().as_millis());
    assert!(again.unchanged);
    assert_eq!((again.trees, again.processes), (first.trees, first.processes));
}

/// A Node server with one package and another that only development needs, as its package manager keeps them.
struct Project {
    /// Fields of package.json beside those of every project.
    fields: &'static str,
    lock: (&'static str, &'static str),
    /// The command that installs, as a step of the build shows it.
    install: &'static str,
    /// Whether what only development needs is left out of the image.
    drops_development: bool,
}

impl Project {
    /// `fresh` makes the install a step of its own for each run of the test; `answer` is the source.
    fn source(&self, host: &Host, fresh: &str, answer: &str) -> SourceDigest {
        let manifest = format!(
            r#"{{ "name": "shop", "description": "{fresh}", {} "scripts": {{ "start": "node server.js" }},
                "dependencies": {{ "ms": "^2.1.3" }}, "devDependencies": {{ "is-number": "^7.0.0" }} }}"#,
            self.fields
        );
        let server = format!(
            "const dev = require('fs').existsSync('node_modules/is-number');\n\
             const text = `{answer}: ${{require('ms')('2 days')}} ${{dev}}`;\n\
             require('http').createServer((_, response) => response.end(text)).listen(process.env.PORT || 3000);\n"
        );
        let (name, lock) = self.lock;
        host.store(&[
            (b"package.json", manifest.as_bytes()),
            (name.as_bytes(), lock.as_bytes()),
            (b"server.js", server.as_bytes()),
        ])
    }

    /// Builds and serves it twice, with another source the second time.
    async fn is_installed_once(&self) {
        let host = Host::new().await;
        let group = Group::new("packages", host.info().await);
        let builder = host.builder_with(Arc::new(SourcePlanner), group.cap(roomy()));
        let fresh = uuid::Uuid::new_v4().to_string();
        for (answer, cached) in [("first", false), ("second", true)] {
            let (built, said) = build(&builder, self.source(&host, &fresh, answer)).await;
            let built = built.unwrap_or_else(|error| panic!("{error:?} {said:#?}"));
            assert_eq!(self.steps(&said), [cached], "{said:#?}");
            let fell_back = |piece: &BuildProgress| match piece {
                BuildProgress::Line(line) => line.contains("refloat: that install failed"),
                BuildProgress::Note { warn, .. } => *warn,
                _ => false,
            };
            assert!(!said.iter().any(fell_back), "{said:#?}");
            let refloat_model::Backend::Instance { image, port, .. } = &built.processes[0].backend else {
                panic!("{built:?}")
            };
            let wanted = format!("{answer}: 172800000 {}", !self.drops_development);
            assert_eq!(served(image.as_str(), *port), wanted);
        }
    }

    /// Whether each install came from the cache.
    fn steps(&self, said: &[BuildProgress]) -> Vec<bool> {
        let install = |piece: &BuildProgress| match piece {
            BuildProgress::Step { text, cached, .. } if text.contains(self.install) => Some(*cached),
            _ => None,
        };
        said.iter().filter_map(install).collect()
    }
}

/// What a container of the image answers, asked from within.
fn served(image: &str, port: u16) -> String {
    struct Removed(String);
    impl Drop for Removed {
        fn drop(&mut self) {
            system("docker", &["rm", "--force", &self.0]);
        }
    }
    let name = Removed(format!("refloat-test-{}", uuid::Uuid::new_v4()));
    system("docker", &["run", "--detach", "--network", "none", "--name", &name.0, image]);
    let ask = format!(
        "const ask = async (left) => {{ try {{ console.log(await (await fetch('http://127.0.0.1:{port}/')).text()); }}
           catch (error) {{ if (left === 0) throw error; setTimeout(() => ask(left - 1), 100); }} }}; ask(300);"
    );
    system("docker", &["exec", &name.0, "node", "-e", &ask]).trim().to_owned()
}

#[tokio::test]
async fn a_project_of_pnpm_is_installed_once_and_served() {
    let lock = ("pnpm-lock.yaml", include_str!("fixtures/packages/pnpm-lock.yaml"));
    let install = "pnpm install --frozen-lockfile";
    Project { fields: "", lock, install, drops_development: true }.is_installed_once().await;
}

#[tokio::test]
async fn a_project_of_a_pinned_pnpm_is_installed_by_that_one() {
    let lock = ("pnpm-lock.yaml", include_str!("fixtures/packages/pnpm-lock.yaml"));
    let fields = r#""packageManager": "pnpm@10.12.1", "engines": { "node": ">=22 <23" },"#;
    let install = "npm install -g --force pnpm@10.12.1";
    let host = Host::new().await;
    let group = Group::new("pinned", host.info().await);
    let builder = host.builder_with(Arc::new(SourcePlanner), group.cap(roomy()));
    let project = Project { fields, lock, install, drops_development: true };
    let fresh = uuid::Uuid::new_v4().to_string();
    let (built, said) = build(&builder, project.source(&host, &fresh, "pinned")).await;
    assert!(built.is_ok() && project.steps(&said).len() == 1, "{built:?} {said:#?}");
    let told = |piece: &BuildProgress| matches!(piece, BuildProgress::Line(line) if line.contains("pnpm v10.12.1"));
    assert!(said.iter().any(told), "{said:#?}");
}

#[tokio::test]
async fn a_project_of_the_first_yarn_is_installed_once_and_served() {
    let lock = ("yarn.lock", include_str!("fixtures/packages/yarn-1.lock"));
    let install = "yarn install --frozen-lockfile";
    Project { fields: "", lock, install, drops_development: true }.is_installed_once().await;
}

/// Yarn's newest version rewrites this format, and its strict install would fail.
#[tokio::test]
async fn a_project_of_a_later_yarn_is_installed_once_and_served() {
    let lock = ("yarn.lock", include_str!("fixtures/packages/yarn-4.lock"));
    let install = "yarn install --immutable";
    Project { fields: "", lock, install, drops_development: false }.is_installed_once().await;
}

#[tokio::test]
async fn a_cancelled_build_stops_its_command() {
    let host = Host::new().await;
    let group = Group::new("cancel", host.info().await);
    let source = host.store(&[(b"a", b"a")]);
    let builder = Arc::new(host.builder(runs("sleep 250"), group.cap(roomy())));
    let (sender, mut receiver) = mpsc::channel(64);
    let cancel = CancellationToken::new();
    let task = {
        let (builder, cancel) = (Arc::clone(&builder), cancel.clone());
        tokio::spawn(async move { builder.build(job(source), sender, cancel).await })
    };
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let memory = group.path("memory").join("buildkit");
    let steps =
        || std::fs::read_dir(&memory).map_or(0, |inner| inner.filter(|e| e.as_ref().unwrap().path().is_dir()).count());
    eventually(Duration::from_secs(120), || steps() == 1, "the step runs in its control group").await;
    cancel.cancel();
    assert!(matches!(task.await.unwrap(), Err(BuildError::Cancelled)));
    eventually(Duration::from_secs(60), || steps() == 0, "the step's control group is gone").await;
}

async fn eventually(limit: Duration, holds: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

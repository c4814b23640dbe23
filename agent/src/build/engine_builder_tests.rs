use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use refloat_model::{AppName, Backend, Hardening, SourceDigest};
use refloat_plan::plan::{BackendPlan, Kind, ProcessPlan};
use refloat_plan::tree::{Directory, Entry, Node};

use super::*;
use crate::build::space::Space;
use crate::cgroup::CapStatus;
use crate::cgroup::cap::Held;
use crate::docker::fake::{Call, DATA_ROOT, FakeDocker, Fault};
use crate::public::Publication;

/// Answers one plan, whatever the source.
struct Planned(Mutex<Plan>);

impl Planner for Planned {
    fn plan(&self, _: &Cas, _: &StoredTree, _: &str, _: bool) -> Result<Plan, BuildError> {
        Ok(self.0.lock().unwrap().clone())
    }
}

#[derive(Default)]
struct Room(AtomicUsize);

#[async_trait]
impl MakeRoom for Room {
    async fn make_room(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Cap {
    status: CapStatus,
    used: bool,
}

impl BuildCap for Cap {
    fn apply(&self) -> CapStatus {
        self.status.clone()
    }

    fn kills(&self) -> Option<u64> {
        None
    }

    fn forget_use(&self) {}

    fn was_used(&self) -> bool {
        self.used
    }
}

fn capped() -> CapStatus {
    let held = Held { memory_bytes: Some(576 << 20), cpu_millis: Some(750), pids: Some(1_024) };
    CapStatus::Capped { parent: "/refloat-build".to_owned(), held, by: "cgroup v1" }
}

struct Host {
    root: tempfile::TempDir,
    docker: FakeDocker,
    cas: Arc<Cas>,
    planner: Arc<Planned>,
    room: Arc<Room>,
    free_mib: Arc<AtomicU64>,
    builder: Arc<EngineBuilder>,
    source: SourceDigest,
}

fn host(plan: Plan) -> Host {
    host_with(plan, Cap { status: capped(), used: true })
}

fn host_with(plan: Plan, cap: Cap) -> Host {
    let root = tempfile::tempdir().unwrap();
    let cas = Arc::new(Cas::open(&root.path().join("cas")).unwrap());
    let publisher = Publication::open(&root.path().join("public"), Arc::clone(&cas)).unwrap();
    let docker = FakeDocker::new();
    let (planner, room) = (Arc::new(Planned(Mutex::new(plan))), Arc::new(Room::default()));
    let free_mib = Arc::new(AtomicU64::new(50_000));
    let probe = {
        let free_mib = Arc::clone(&free_mib);
        // Only the engine's disk is ever full.
        move |path: &Path| {
            let free_mib = if path == Path::new(DATA_ROOT) { free_mib.load(Ordering::SeqCst) } else { 50_000 };
            Ok(Space { free: free_mib << 20, total: 100_000 << 20 })
        }
    };
    let parts = Parts {
        engine: Arc::new(docker.agent([1; 16])),
        publisher: Arc::new(publisher),
        cas: Arc::clone(&cas),
        planner: Arc::clone(&planner) as Arc<dyn Planner>,
        cap: Arc::new(cap),
        room: Arc::clone(&room) as Arc<dyn MakeRoom>,
        disks: Disks::with_probe(vec![PathBuf::from("/")], Arc::new(probe)),
    };
    let settings =
        Settings { folder: root.path().join("builds"), memo_key: [7; 32], timeout: Duration::from_secs(1_200) };
    let builder = Arc::new(EngineBuilder::open(parts, settings).unwrap());
    let source = store(&cas, b"<html>");
    Host { root, docker, cas, planner, room, free_mib, builder, source }
}

/// A source with one file, `index.html`.
fn store(cas: &Arc<Cas>, page: &[u8]) -> SourceDigest {
    let digest = *blake3::hash(page).as_bytes();
    let mut intake = cas.intake();
    let mut writer = intake.file_writer(&digest, page.len() as u64).unwrap();
    writer.write(page).unwrap();
    intake.file(writer).unwrap();
    intake.finish().unwrap();
    let node = Node::File { digest, size: page.len() as u64, executable: false };
    let encoded = Directory { entries: vec![Entry { name: b"index.html".to_vec(), node }] }.encode();
    let root = Directory::digest_of(&encoded);
    let mut intake = cas.intake();
    intake.directory(&root, &encoded).unwrap();
    intake.finish().unwrap();
    SourceDigest(root)
}

fn process(name: &str, backend: BackendPlan) -> ProcessPlan {
    ProcessPlan {
        name: name.to_owned(),
        kind: Kind::Web,
        exclusive: false,
        backend,
        routes: vec!["/".to_owned()],
        health_path: None,
        start_timeout_ms: 60_000,
        memory_mib: 256,
        cpu_millis: 0,
        pids: 128,
        volumes: Vec::new(),
    }
}

fn plan(builds: Vec<Build>, processes: Vec<ProcessPlan>) -> Plan {
    Plan {
        app: "app".to_owned(),
        builder: None,
        shape: "Node server".to_owned(),
        builds,
        processes,
        reasons: Vec::new(),
        notes: vec![Note { warn: true, text: "no lockfile".to_owned() }],
        build_env: vec!["VITE_A".to_owned(), "VITE_B".to_owned()],
        build_env_defaults: vec![("VITE_B".to_owned(), "default".to_owned())],
        required_env: Vec::new(),
    }
}

fn server(run: &str) -> Plan {
    let image = Build::Image {
        name: "app".to_owned(),
        dockerfile: format!("FROM busybox\nCOPY index.html /index.html\nRUN {run}\nEXPOSE 3000\n"),
        context: String::new(),
        own: false,
        ignore: Vec::new(),
    };
    let instance = BackendPlan::Instance {
        build: "app".to_owned(),
        command: Vec::new(),
        port: None,
        writable_root: false,
        capabilities: Vec::new(),
    };
    plan(vec![image], vec![process("web", instance)])
}

fn files(build: Build) -> Plan {
    let files = BackendPlan::Files {
        build: build.name().to_owned(),
        fallback: None,
        not_found: None,
        no_fallback: Vec::new(),
        immutable: Vec::new(),
    };
    plan(vec![build], vec![process("web", files)])
}

fn tree() -> Build {
    Build::Tree {
        name: "web".to_owned(),
        dockerfile: "FROM scratch\nCOPY index.html /\n".to_owned(),
        context: String::new(),
        ignore: Vec::new(),
    }
}

impl Host {
    fn job(&self, app: &str) -> BuildJob {
        BuildJob {
            app: AppName::new(app).unwrap(),
            source: self.source,
            prebuilt: false,
            folder: "folder".to_owned(),
            build_env: Secrets::default(),
            local_plan: None,
        }
    }

    async fn build(&self, job: BuildJob) -> Result<Built, BuildError> {
        self.say(job).await.0
    }

    /// The result, and everything that was said.
    async fn say(&self, job: BuildJob) -> (Result<Built, BuildError>, Vec<BuildProgress>) {
        let (sender, mut receiver) = mpsc::channel(256);
        let built = self.builder.build(job, sender, CancellationToken::new()).await;
        let mut said = Vec::new();
        while let Ok(piece) = receiver.try_recv() {
            said.push(piece);
        }
        (built, said)
    }

    fn set(&self, plan: Plan) {
        *self.planner.0.lock().unwrap() = plan;
    }

    /// A build in the background whose progress is watched until its command runs.
    async fn running(
        &self,
        app: &str,
        cancel: &CancellationToken,
    ) -> tokio::task::JoinHandle<Result<Built, BuildError>> {
        let (sender, mut receiver) = mpsc::channel(256);
        let (builder, job, cancel) = (Arc::clone(&self.builder), self.job(app), cancel.clone());
        let task = tokio::spawn(async move { builder.build(job, sender, cancel).await });
        while let Some(piece) = receiver.recv().await {
            if matches!(&piece, BuildProgress::Step { text, .. } if text.contains("RUN sleep")) {
                break;
            }
        }
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        task
    }

    fn contexts(&self) -> usize {
        std::fs::read_dir(self.root.path().join("builds/contexts")).unwrap().count()
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_again_builds_nothing_and_gives_the_same_processes() {
    let host = host(server("echo hello"));
    let first = host.build(host.job("app")).await.unwrap();
    let again = host.build(host.job("app")).await.unwrap();
    assert_eq!((first.unchanged, again.unchanged), (false, true));
    assert_eq!((&first.processes, &first.images), (&again.processes, &again.images));
    assert_eq!(host.docker.count(Call::Build), 1);
    assert_eq!(host.room.0.load(Ordering::SeqCst), 1, "nothing is evicted for a build that is not done");
    assert!(matches!(
        &first.processes[0].backend,
        Backend::Instance { port: 3_000, hardening: Hardening::Generated, .. }
    ));
    assert_eq!(host.contexts(), 0);
}

#[tokio::test(start_paused = true)]
async fn another_value_of_a_listed_variable_builds_again_and_one_of_another_does_not() {
    let host = host(server("echo hello"));
    let mut job = host.job("app");
    host.build(job.clone()).await.unwrap();
    job.build_env.0.insert("SECRET_KEY".to_owned(), "x".to_owned());
    assert!(host.build(job.clone()).await.unwrap().unchanged);
    for (name, value) in [("VITE_A", "1"), ("VITE_A", "2"), ("VITE_B", "1")] {
        job.build_env.0.insert(name.to_owned(), value.to_owned());
        assert!(!host.build(job.clone()).await.unwrap().unchanged, "{name}={value}");
    }
    assert!(!host.build(host.job("other")).await.unwrap().unchanged, "images carry the label of their app");
}

#[tokio::test(start_paused = true)]
async fn a_variable_that_must_be_set_is_asked_for_before_anything_is_built() {
    let mut plan = server("true");
    plan.required_env = vec!["DATABASE_URL".to_owned(), "KEY".to_owned()];
    let host = host(plan);
    let mut job = host.job("app");
    job.build_env.0.insert("KEY".to_owned(), String::new());
    let refused = host.build(job.clone()).await.unwrap_err();
    assert_eq!(refused.message(), "refloat.toml requires DATABASE_URL to be set, and it is not");
    assert_eq!(refused.next_command(), "refloat env set --no-deploy DATABASE_URL=VALUE");
    assert_eq!(host.docker.count(Call::Build), 0);
    job.build_env.0.insert("DATABASE_URL".to_owned(), "x".to_owned());
    assert!(host.build(job).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn variables_of_the_build_that_nobody_has_set_are_named() {
    let host = host(server("true"));
    let named = |built: &Built| built.notes.iter().find(|note| note.text.contains("gets no value")).cloned();
    let mut job = host.job("app");
    let built = host.build(job.clone()).await.unwrap();
    assert!(named(&built).unwrap().text.starts_with("The build reads VITE_A and gets no value for it."), "{built:?}");
    job.build_env.0.insert("VITE_A".to_owned(), "1".to_owned());
    assert_eq!(named(&host.build(job).await.unwrap()), None);

    let mut plan = server("true");
    plan.build_env = (0..6).map(|n| format!("VITE_{n}")).collect();
    let text = without_value(&plan, &Secrets::default()).unwrap().text;
    assert!(text.contains("VITE_0, VITE_1, VITE_2, VITE_3 and 2 more and gets no value for them"), "{text}");
}

#[test]
fn arguments_are_the_listed_names_from_the_environment_or_else_the_source() {
    let env = Secrets([("VITE_A".into(), "set".into()), ("DATABASE_URL".into(), "secret".into())].into());
    let arguments = arguments(&server("true"), &env);
    let expected = [("VITE_A".to_owned(), "set".to_owned()), ("VITE_B".to_owned(), "default".to_owned())];
    assert_eq!(arguments.0, expected.into());
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_went_missing_is_built_again() {
    let host = host(files(tree()));
    let first = host.build(host.job("app")).await.unwrap();
    assert_eq!((first.trees[0].files, first.trees[0].bytes), (1, 6));
    assert!(host.build(host.job("app")).await.unwrap().unchanged);
    let name = blake3::hash(b"<html>").to_hex();
    std::fs::remove_file(host.root.path().join("public/blob").join(&name[..2]).join(name.as_str())).unwrap();
    let again = host.build(host.job("app")).await.unwrap();
    assert!(!again.unchanged);
    assert_eq!(again.trees, first.trees);
    assert!(host.build(host.job("app")).await.unwrap().unchanged);
}

#[tokio::test(start_paused = true)]
async fn a_folder_is_published_without_the_engine_a_turn_or_making_room() {
    let host = host(files(Build::Folder { name: "web".to_owned(), folder: String::new() }));
    let built = host.build(host.job("app")).await.unwrap();
    assert_eq!(built.trees[0].files, 1);
    assert!(matches!(&built.processes[0].backend, Backend::Files { tree, .. } if *tree == built.trees[0].digest));
    assert_eq!(host.docker.calls(), []);
    assert_eq!(host.room.0.load(Ordering::SeqCst), 0);
    assert!(host.build(host.job("app")).await.unwrap().unchanged);
}

#[tokio::test(start_paused = true)]
async fn an_export_that_fails_is_never_published_as_if_it_were_whole() {
    let host = host(files(tree()));
    let lost = EngineError::Unreachable("gone".to_owned());
    host.docker.fail_next(Call::Export, Fault::Before(lost));
    let failed = host.build(host.job("app")).await.unwrap_err();
    assert_eq!(failed.reason(), "DOCKER_UNREACHABLE");
    assert!(!host.build(host.job("app")).await.unwrap().unchanged, "nothing was remembered");
}

#[tokio::test(start_paused = true)]
async fn what_a_build_says_arrives_in_order_plan_notes_steps_lines() {
    let host = host(server("echo hello"));
    let mut job = host.job("app");
    job.local_plan = Some([9; 32]);
    job.build_env.0.insert("VITE_A".to_owned(), "1".to_owned());
    let (built, said) = host.say(job).await;
    assert_eq!(built.unwrap().notes, [Note { warn: true, text: "no lockfile".to_owned() }]);
    let processes = vec!["web: container for /".to_owned()];
    assert_eq!(said[0], BuildProgress::Plan { shape: "Node server".to_owned(), processes });
    assert_eq!(said[1], BuildProgress::Note { warn: true, text: "no lockfile".to_owned() });
    assert!(
        matches!(&said[2], BuildProgress::Note { warn: false, text } if text.contains("plans this project differently"))
    );
    let line = said.iter().position(|piece| *piece == BuildProgress::Line("hello".to_owned())).unwrap();
    let step = said.iter().position(|piece| matches!(piece, BuildProgress::Step { text, .. } if text.contains("RUN")));
    assert!(step.unwrap() < line, "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_build_that_is_not_capped_says_so_before_it_begins() {
    let status = CapStatus::NotCapped { why: "no control groups".to_owned() };
    let host = host_with(server("true"), Cap { status, used: false });
    let (built, said) = host.say(host.job("app")).await;
    assert!(built.is_ok());
    let text = "builds are NOT capped: no control groups".to_owned();
    assert!(said.contains(&BuildProgress::Note { warn: true, text }), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_build_that_ran_outside_of_its_group_says_so() {
    let host = host_with(server("true"), Cap { status: capped(), used: false });
    let outside = |said: &[BuildProgress]| {
        said.iter().any(|p| matches!(p, BuildProgress::Note { warn: true, text } if text.contains("was NOT capped")))
    };
    let (built, said) = host.say(host.job("app")).await;
    assert!(built.is_ok() && outside(&said), "{said:?}");
    let (_, said) = host.say(host.job("other")).await;
    assert!(!outside(&said), "nothing ran: every step came from the cache: {said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_gives_its_lines_and_an_out_of_memory_one_the_cap() {
    let host = host(server("echo cannot find module; false"));
    let failed = host.build(host.job("app")).await.unwrap_err();
    assert_eq!(failed.reason(), "BUILD_FAILED");
    assert!(failed.lines().iter().any(|line| line.contains("cannot find module")), "{failed:?}");

    let killed = EngineError::BuildFailed { step: "RUN x".to_owned(), lines: Vec::new(), out_of_memory: true };
    host.docker.fail_next(Call::Build, Fault::Before(killed));
    let failed = host.build(host.job("app")).await.unwrap_err();
    assert!(failed.message().contains("576 MiB on this server"), "{}", failed.message());
    assert_eq!(failed.next_command(), "refloat deploy --prebuilt DIR");
}

#[tokio::test(start_paused = true)]
async fn builds_take_turns_and_the_second_says_for_whom_it_waits() {
    let host = host(server("sleep 30"));
    let first = host.running("one", &CancellationToken::new()).await;
    let (second, said) = host.say(host.job("two")).await;
    assert!(second.is_ok() && first.await.unwrap().is_ok());
    let text = "waits for the build of one".to_owned();
    assert!(said.contains(&BuildProgress::Note { warn: false, text }), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_does_not_wait_for_another_build() {
    let host = host(server("echo quick"));
    host.build(host.job("known")).await.unwrap();
    host.set(server("sleep 600"));
    let cancel = CancellationToken::new();
    let slow = host.running("slow", &cancel).await;
    host.set(server("echo quick"));
    assert!(host.build(host.job("known")).await.unwrap().unchanged);
    assert!(!slow.is_finished());
    cancel.cancel();
    assert!(matches!(slow.await.unwrap(), Err(BuildError::Cancelled)));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_build_ends_frees_its_turn_and_leaves_no_context() {
    let host = host(server("sleep 600"));
    let cancel = CancellationToken::new();
    let running = host.running("app", &cancel).await;
    cancel.cancel();
    assert!(matches!(running.await.unwrap(), Err(BuildError::Cancelled)));
    assert_eq!(host.contexts(), 0);
    host.set(server("true"));
    assert!(host.build(host.job("app")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_build_that_takes_too_long_is_stopped_where_it_was() {
    let host = host(server("sleep 9999"));
    let failed = host.build(host.job("app")).await.unwrap_err();
    assert_eq!(failed.message(), "the build was stopped after 1200 seconds, at [3/3] RUN sleep 9999");
    assert_eq!(host.contexts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_a_build_and_a_filling_one_stops_it() {
    let host = host(server("sleep 600"));
    host.free_mib.store(4_000, Ordering::SeqCst);
    let refused = host.build(host.job("app")).await.unwrap_err();
    assert!(matches!(refused, BuildError::DiskFull { running: false, .. }), "{refused:?}");
    assert_eq!(host.docker.count(Call::Build), 0);

    host.free_mib.store(50_000, Ordering::SeqCst);
    let running = host.running("app", &CancellationToken::new()).await;
    host.free_mib.store(500, Ordering::SeqCst);
    let stopped = running.await.unwrap().unwrap_err();
    assert!(matches!(stopped, BuildError::DiskFull { running: true, .. }), "{stopped:?}");
    assert_eq!(stopped.reason(), "DISK_FULL");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_lost_a_file_says_so_and_is_asked_for_again() {
    let host = host(server("true"));
    let file = *blake3::hash(b"<html>").as_bytes();
    std::fs::write(host.root.path().join("cas/file").join(blake3::Hash::from_bytes(file).to_hex().as_str()), b"<HTML>")
        .unwrap();
    let failed = host.build(host.job("app")).await.unwrap_err();
    assert_eq!((failed.reason(), failed.next_command().as_str()), ("SOURCE_LOST", "refloat deploy"));
    let missing = host.cas.missing(&[host.source.0], &[file]).unwrap();
    assert_eq!((missing.directories, missing.files), (vec![host.source.0], vec![file]));
    store(&host.cas, b"<html>");
    assert!(host.build(host.job("app")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn no_value_of_a_variable_is_on_disk_after_a_build() {
    let host = host(server("true"));
    let mut job = host.job("app");
    job.build_env.0.insert("VITE_A".to_owned(), "canary-value".to_owned());
    host.build(job).await.unwrap();
    let mut folders = vec![host.root.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.display().to_string().contains("canary-value"));
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(12).any(|window| window == b"canary-value"), "{}", path.display());
            }
        }
    }
}

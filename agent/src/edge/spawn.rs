//! Starts the edge as a process and user of its own, which outlives the agent.
//!
//! ```text
//!        answers, at last              dies
//! look ───────────────────▶ adopted ───────────────────┐
//!   │ nobody there             ▲                       ▼
//!   └──────────────────────────│──────────▶ bind ports, spawn ──▶ running ──┐
//!                              │                       ▲    dies: back off  │
//!                              │                       └────────────────────┤
//!                              └────────────────────────────────────────────┘
//!                                                      dies, another answers
//! ```
//!
//! One that runs and does not answer is waited for: a second one beside it ends at once, because the state folder is taken.
//!
//! The agent binds the public ports, which needs root, and passes the sockets on; the edge never has that right. It keeps
//! its own copies: while a dead edge is replaced, connections wait in the kernel instead of being refused.
//! Deliberately absent: ending the edge. It ends by its own unit, or by hand.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Edge, EdgeStatus};
use crate::api::listener::{ListenError, bind_all};
use crate::identity::user::User;

/// The user that the edge runs as when none is configured, if there is one of that name.
pub const DEFAULT_USER: &str = "refloat-edge";
/// Else this number: nobody's, and in no range that a distribution or systemd hands out.
pub const FALLBACK_UID: u32 = 60_742;

/// The first descriptor of passed sockets, by systemd's convention.
const FIRST_FD: i32 = 3;
/// The program's own descriptor is kept clear of the passed ones.
const PROGRAM_FD: i32 = 200;
const READY_TIMEOUT: Duration = Duration::from_secs(15);
const READY_POLL: Duration = Duration::from_millis(20);
const WATCH_EVERY: Duration = Duration::from_millis(500);
const FIRST_BACK_OFF: Duration = Duration::from_millis(200);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// An edge that lived this long did not die of how it was started.
const HEALTHY_LIFE: Duration = Duration::from_secs(60);
const MAX_ACCESS_LOG_BYTES: u64 = 32 << 20;
const ROTATE_EVERY: Duration = Duration::from_secs(60);

/// How the edge is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Its program.
    pub program: PathBuf,
    /// Its user; `None`: the agent's own, when the agent is not root.
    pub user: Option<User>,
    /// What it keeps for itself.
    pub state_dir: PathBuf,
    /// Static files that it reads.
    pub public_dir: PathBuf,
    /// Its control socket, in a folder of its own.
    pub control: PathBuf,
    /// Where its access log goes; the older half lies beside it with `.1`.
    pub access_log: PathBuf,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
}

/// Why the edge was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A port.
    #[error("the edge's ports cannot be bound")]
    Listen(#[source] ListenError),
    /// A folder or file.
    #[error("{} cannot be prepared for the edge", path.display())]
    Prepare {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program.
    #[error("{} cannot be started", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It started and did not answer.
    #[error("the edge did not answer within {timeout_s} s: {last}")]
    NotReady {
        /// How long was waited.
        timeout_s: u64,
        /// The last attempt's error.
        last: String,
    },
    /// It started and ended at once.
    #[error("the edge ended at once ({0}); what it said is above")]
    Ended(String),
    /// It did not start, and its user cannot reach what it needs.
    #[error(
        "{cause}. Its user {user} may not enter {}: chmod o+x {}, or have state_dir and run_dir elsewhere",
        folder.display(), folder.display()
    )]
    ClosedFolder {
        /// What happened.
        cause: Box<SpawnError>,
        /// The edge's user.
        user: String,
        /// The outermost folder that is closed to it.
        folder: PathBuf,
    },
    /// The user that was configured is not there.
    #[error("there is no user {0} on this server for the edge to run as")]
    NoSuchUser(String),
}

/// The user that the edge runs as. Only root can change it: else it is the agent's own.
///
/// # Errors
/// When the configured user does not exist.
pub fn user(configured: Option<&str>) -> Result<Option<User>, SpawnError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let user = match configured {
        Some(name) => User::find(name).ok_or_else(|| SpawnError::NoSuchUser(name.to_owned()))?,
        None => User::find(DEFAULT_USER).unwrap_or(User {
            name: format!("uid-{FALLBACK_UID}"),
            uid: FALLBACK_UID,
            gid: FALLBACK_UID,
        }),
    };
    Ok(Some(user))
}

/// How long to wait before an edge is started again.
#[derive(Debug)]
struct BackOff {
    next: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { next: FIRST_BACK_OFF }
    }
}

impl BackOff {
    /// After one that lived this long.
    fn after(&mut self, lived: Duration) -> Duration {
        if lived > HEALTHY_LIFE {
            self.next = FIRST_BACK_OFF;
            return Duration::ZERO;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_BACK_OFF);
        pause
    }
}

/// Keeps an edge running.
pub struct Supervisor {
    launch: Launch,
    edge: Arc<dyn Edge>,
    /// Our copies of the public sockets; none while the edge is one that was adopted.
    sockets: Vec<TcpListener>,
    child: Option<Child>,
    /// Where it listens, with the ports that the kernel chose.
    listen: Vec<SocketAddr>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("launch", &self.launch).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Adopts the edge that answers, or starts one and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be started or does not answer.
    pub async fn start(launch: Launch, edge: Arc<dyn Edge>) -> Result<(Self, EdgeStatus), SpawnError> {
        let listen = launch.listen.clone();
        let mut this = Self { launch, edge, sockets: Vec::new(), child: None, listen };
        if let Some(status) = this.found().await? {
            tracing::info!(version = status.version, "the edge runs already and is kept");
            this.remember(&status);
            return Ok((this, status));
        }
        let status = this.spawn().await?;
        Ok((this, status))
    }

    /// Replaces the edge whenever it dies, until the token is cancelled. The edge goes on after that.
    pub async fn run(mut self, end: CancellationToken) {
        let mut back_off = BackOff::default();
        let mut rotate = tokio::time::interval(ROTATE_EVERY);
        loop {
            let began = Instant::now();
            loop {
                tokio::select! {
                    () = end.cancelled() => return,
                    _ = rotate.tick() => rotate_log(&self.launch.access_log),
                    () = self.death() => break,
                }
            }
            tracing::error!("the edge has ended; another one is started");
            let mut pause = back_off.after(began.elapsed());
            loop {
                tokio::select! {
                    () = end.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                let Err(error) = self.spawn().await else { break };
                tracing::error!(error = &error as &dyn std::error::Error, "the edge could not be started");
                if self.child.is_some() {
                    // It runs: it answers later, or ends.
                    break;
                }
                pause = back_off.after(Duration::ZERO);
            }
        }
    }

    /// Returns when the edge is dead. Dropping it loses nothing.
    async fn death(&mut self) {
        if let Some(child) = &mut self.child {
            match child.wait().await {
                Ok(status) => tracing::warn!("the edge ended: {status}"),
                Err(error) => tracing::warn!("the edge's end cannot be waited for: {error}"),
            }
            self.child = None;
            if is_answered(&self.launch.control).await {
                self.adopt();
            }
        }
        // An adopted edge is no child of ours. One that is there and does not answer is not dead: its socket accepts.
        while is_answered(&self.launch.control).await {
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    /// Another edge has the state folder: ours had to end.
    fn adopt(&mut self) {
        tracing::info!("another edge runs already and is kept");
        // It has its own; the next one listens where it does.
        self.sockets.clear();
    }

    /// The edge that is there, once it answers; `None` when nobody is.
    async fn found(&self) -> Result<Option<EdgeStatus>, SpawnError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let last = match self.edge.status().await {
                Ok(status) => return Ok(Some(status)),
                Err(error) => error.to_string(),
            };
            if !is_answered(&self.launch.control).await {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                return Err(SpawnError::NotReady { timeout_s: READY_TIMEOUT.as_secs(), last });
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    async fn spawn(&mut self) -> Result<EdgeStatus, SpawnError> {
        prepare(&self.launch)?;
        if self.sockets.is_empty() {
            self.sockets = bind_all(&self.listen).map_err(SpawnError::Listen)?;
        }
        let mut child = self.command()?.spawn().map_err(|source| self.not_started(source))?;
        tracing::info!(pid = child.id(), "the edge was started");
        let ready = self.ready(&mut child).await;
        let runs = matches!(child.try_wait(), Ok(None));
        self.child = runs.then_some(child);
        let status = ready.map_err(|cause| explained(cause, &self.launch))?;
        if !runs {
            self.adopt();
        }
        self.remember(&status);
        Ok(status)
    }

    async fn ready(&self, child: &mut Child) -> Result<EdgeStatus, SpawnError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let last = match self.edge.status().await {
                Ok(status) => return Ok(status),
                Err(error) => error.to_string(),
            };
            if let Ok(Some(status)) = child.try_wait() {
                return Err(SpawnError::Ended(status.to_string()));
            }
            if Instant::now() >= deadline {
                return Err(SpawnError::NotReady { timeout_s: READY_TIMEOUT.as_secs(), last });
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    fn command(&self) -> Result<Command, SpawnError> {
        let launch = &self.launch;
        let program = program(&launch.program).map_err(|source| self.not_started(source))?;
        let log = access_log(launch).map_err(|source| prepare_error(&launch.access_log, source))?;
        // Opened here and started by its descriptor: the edge's user need not be able to walk to the program.
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command
            .arg0(&launch.program)
            .arg("--state-dir")
            .arg(&launch.state_dir)
            .arg("--public-dir")
            .arg(&launch.public_dir)
            .arg("--control")
            .arg(&launch.control)
            .env_clear()
            .env("LISTEN_FDS", self.sockets.len().to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .process_group(0);
        if let Ok(level) = std::env::var("RUST_LOG") {
            command.env("RUST_LOG", level);
        }
        if let Some(user) = &launch.user {
            command.uid(user.uid).gid(user.gid);
        }
        let mappings = self.mappings(program).map_err(|source| self.not_started(source))?;
        let collision = |error: command_fds::FdMappingCollision| self.not_started(io::Error::other(error));
        command.fd_mappings(mappings).map_err(collision)?;
        Ok(command)
    }

    /// The sockets from descriptor 3 on. The program's own is held until the start, and closes itself there.
    fn mappings(&self, program: OwnedFd) -> io::Result<Vec<FdMapping>> {
        let mut mappings = Vec::new();
        for (child_fd, socket) in (FIRST_FD..).zip(&self.sockets) {
            mappings.push(FdMapping { parent_fd: socket.try_clone()?.into(), child_fd });
        }
        let child_fd = program.as_raw_fd();
        mappings.push(FdMapping { parent_fd: program, child_fd });
        Ok(mappings)
    }

    fn not_started(&self, source: io::Error) -> SpawnError {
        SpawnError::Start { program: self.launch.program.clone(), source }
    }

    /// The next edge listens where this one does, with the ports that the kernel chose.
    fn remember(&mut self, status: &EdgeStatus) {
        let known: Vec<SocketAddr> = status.listen.iter().filter_map(|text| text.parse().ok()).collect();
        if !known.is_empty() {
            self.listen = known;
        }
    }
}

/// Whether somebody accepts on the control socket.
async fn is_answered(control: &Path) -> bool {
    match tokio::net::UnixStream::connect(control).await {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

fn program(path: &Path) -> io::Result<OwnedFd> {
    let file = File::open(path)?;
    Ok(rustix::io::fcntl_dupfd_cloexec(&file, PROGRAM_FD)?)
}

fn prepare(launch: &Launch) -> Result<(), SpawnError> {
    let control_dir = launch.control.parent().unwrap_or(Path::new("/"));
    for folder in [launch.state_dir.as_path(), control_dir] {
        own_folder(folder, launch.user.as_ref()).map_err(|source| prepare_error(folder, source))?;
    }
    Ok(())
}

fn prepare_error(path: &Path, source: io::Error) -> SpawnError {
    SpawnError::Prepare { path: path.to_owned(), source }
}

/// With the folder that keeps the edge's user out, when there is one. Asked only after a failure: what the modes say is not all
/// that may let a user in.
fn explained(cause: SpawnError, launch: &Launch) -> SpawnError {
    let needed = [&launch.state_dir, &launch.public_dir, &launch.control];
    let folders = needed.into_iter().flat_map(|path| path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev());
    match &launch.user {
        Some(user) => match folders.into_iter().find(|folder| is_closed(folder, user)) {
            Some(folder) => {
                SpawnError::ClosedFolder { cause: Box::new(cause), user: user.name.clone(), folder: folder.to_owned() }
            }
            None => cause,
        },
        None => cause,
    }
}

/// Whether a folder's mode keeps a user from what is in it.
fn is_closed(folder: &Path, user: &User) -> bool {
    let Ok(metadata) = std::fs::metadata(folder) else { return false };
    let execute = match (metadata.uid() == user.uid, metadata.gid() == user.gid) {
        (true, _) => 0o100,
        (false, true) => 0o010,
        (false, false) => 0o001,
    };
    user.uid != 0 && metadata.mode() & execute == 0
}

/// A folder that belongs to the edge's user alone. Root, which is the agent, may enter it anyway.
fn own_folder(folder: &Path, user: Option<&User>) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if let Some(user) = user {
        std::os::unix::fs::lchown(folder, Some(user.uid), Some(user.gid))?;
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

fn access_log(launch: &Launch) -> io::Result<File> {
    if let Some(parent) = launch.access_log.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(&launch.access_log)
}

/// Copies a full log aside and empties it: the edge keeps its descriptor. Lines written in between are lost, which an
/// access log can bear.
fn rotate_log(path: &Path) {
    let full = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_ACCESS_LOG_BYTES);
    if !full {
        return;
    }
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    let rotated = std::fs::copy(path, &older).and_then(|_| OpenOptions::new().write(true).open(path)?.set_len(0));
    if let Err(error) = rotated {
        tracing::warn!("the edge's access log cannot be rotated: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::SeqCst;

    use async_trait::async_trait;
    use refloat_model::{AppName, Generation, InstanceName, RouteTable, TableDigest};

    use super::super::EdgeError;
    use super::super::fake::FakeEdge;
    use super::*;

    #[test]
    fn a_full_access_log_is_copied_aside_and_emptied_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge-access.log");
        let file = File::create(&path).unwrap();
        file.set_len(MAX_ACCESS_LOG_BYTES).unwrap();
        rotate_log(&path);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), MAX_ACCESS_LOG_BYTES);
        file.set_len(MAX_ACCESS_LOG_BYTES + 1).unwrap();
        rotate_log(&path);
        assert_eq!(file.metadata().unwrap().len(), 0, "the same file, so that the edge goes on writing to it");
        assert_eq!(std::fs::metadata(dir.path().join("edge-access.log.1")).unwrap().len(), MAX_ACCESS_LOG_BYTES + 1);
    }

    /// An edge whose first answers fail.
    struct Late {
        edge: FakeEdge,
        unanswered: AtomicU32,
    }

    #[async_trait]
    impl Edge for Late {
        async fn status(&self) -> Result<EdgeStatus, EdgeError> {
            let left = self.unanswered.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            if left.is_ok() { Err(EdgeError::Unreachable("not yet".into())) } else { self.edge.status().await }
        }
        async fn stage(&self, table: &RouteTable) -> Result<(), EdgeError> {
            self.edge.stage(table).await
        }
        async fn apply(&self, generation: Generation, table: TableDigest) -> Result<(), EdgeError> {
            self.edge.apply(generation, table).await
        }
        async fn hold(&self, app: &AppName, deadline_ms: u32) -> Result<(), EdgeError> {
            self.edge.hold(app, deadline_ms).await
        }
        async fn release(&self, app: &AppName) -> Result<(), EdgeError> {
            self.edge.release(app).await
        }
        async fn in_flight(&self, instances: &[InstanceName]) -> Result<Vec<u32>, EdgeError> {
            self.edge.in_flight(instances).await
        }
    }

    fn late(unanswered: u32) -> Arc<dyn Edge> {
        Arc::new(Late { edge: FakeEdge::default(), unanswered: unanswered.into() })
    }

    /// Starts `echo`, which says its arguments in the access log and ends, as an edge does whose folder is taken.
    fn launch(folder: &Path) -> Launch {
        Launch {
            program: "/bin/echo".into(),
            user: None,
            state_dir: folder.join("state"),
            public_dir: folder.join("public"),
            control: folder.join("run/edge.sock"),
            access_log: folder.join("edge-access.log"),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
        }
    }

    #[test]
    fn a_folder_that_keeps_the_edges_user_out_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        let mode =
            |folder: &Path, mode| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(dir.path(), 0o755);
        mode(&closed, 0o700);
        let nobody = User { name: "nobody".to_owned(), uid: 65_534, gid: 65_534 };
        let said = |user| {
            let launch = Launch { user, ..launch(&closed) };
            explained(SpawnError::Ended("exit status: 1".to_owned()), &launch).to_string()
        };
        let text = said(Some(nobody.clone()));
        assert!(text.contains(&format!("nobody may not enter {0}: chmod o+x {0}", closed.display())), "{text}");
        assert!(!said(None).contains("chmod"), "the agent's own user gets in");
        mode(&closed, 0o711);
        assert!(!said(Some(nobody)).contains("chmod"));
    }

    fn started(launch: &Launch) -> usize {
        std::fs::read_to_string(&launch.access_log).unwrap_or_default().lines().count()
    }

    fn control(launch: &Launch) -> tokio::net::UnixListener {
        std::fs::create_dir_all(launch.control.parent().unwrap()).unwrap();
        tokio::net::UnixListener::bind(&launch.control).unwrap()
    }

    #[tokio::test]
    async fn an_edge_that_is_there_and_answers_late_is_waited_for_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let launch = launch(folder.path());
        let _there = control(&launch);
        let (supervisor, status) = Supervisor::start(launch.clone(), late(3)).await.unwrap();
        assert_eq!((status.version.as_str(), started(&launch)), ("fake", 0));
        assert!(supervisor.child.is_none());
    }

    #[tokio::test]
    async fn an_edge_that_ends_because_another_one_answers_is_not_started_again_and_again() {
        const HANG_GUARD: Duration = Duration::from_secs(60);
        let folder = tempfile::tempdir().unwrap();
        let launch = launch(folder.path());
        // Nobody is seen at first, so that a second edge is started beside the first one.
        let (supervisor, _) = Supervisor::start(launch.clone(), late(1)).await.unwrap();
        let there = control(&launch);
        let end = CancellationToken::new();
        let running = tokio::spawn(supervisor.run(end.clone()));
        for _ in 0..3 {
            let watched = tokio::time::timeout(HANG_GUARD, there.accept()).await;
            watched.expect("the first one is watched").unwrap();
        }
        assert_eq!(started(&launch), 1);
        drop(there);
        let again = async {
            while started(&launch) < 2 {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        tokio::time::timeout(HANG_GUARD, again).await.expect("one is started in its place when it is gone");
        end.cancel();
        running.await.unwrap();
    }

    #[test]
    fn an_edge_that_keeps_dying_is_started_ever_less_often_and_one_that_lived_at_once() {
        let mut back_off = BackOff::default();
        let soon = Duration::from_millis(10);
        let pauses: Vec<_> = (0..8).map(|_| back_off.after(soon).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(back_off.after(HEALTHY_LIFE * 2), Duration::ZERO);
        assert_eq!(back_off.after(soon), FIRST_BACK_OFF);
    }

    #[tokio::test]
    async fn a_socket_that_nobody_accepts_on_is_a_dead_edge() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        assert!(!is_answered(&path).await);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert!(is_answered(&path).await);
        drop(listener);
        assert!(!is_answered(&path).await);
    }
}

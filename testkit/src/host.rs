//! A throw-away server: `refloatd` and `refloat-edge` as real processes, with a state folder, ports and a network of
//! their own, on the machine's Docker engine.
//!
//! ```text
//! Host::start()   refloatd init, refloatd run --with-edge     ready when both ports accept
//!   kill_agent()  SIGKILL to refloatd; the edge outlives it
//!   restart_mortal(n)    refloatd that is killed after its n-th effect
//!   restart_stopping(n)  refloatd that is stopped after its n-th effect
//!   kill_edge()   SIGKILL to refloat-edge; the agent starts another
//!   replace_edge()  SIGKILL to refloat-edge, and another without the agent
//!   restart()     refloatd again, over the same folder and ports
//!   drop          both end; containers, networks, images and volumes of this host go; the log is shown on a panic
//! ```

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::binaries::Binaries;
use crate::command::Finished;
use crate::eventually::{eventually, eventually_true};
use crate::load::Target;
use crate::reservation::Reservation;

/// A debug build on a busy machine takes seconds to start; this is a guard against hanging.
const READY_DEADLINE: Duration = Duration::from_secs(60);
const END_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How a host differs from the usual one.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where agent and edge listen, and as what visitors know the server: loopback unless another machine is to reach it.
    pub address: Ipv4Addr,
    /// The engine's socket.
    pub engine: PathBuf,
    /// More lines of configuration, appended as they are.
    pub extra: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST, engine: DEFAULT_SOCKET.into(), extra: String::new() }
    }
}

/// What a host consists of beyond our own process: found again by its folder and the identity that its agent gave
/// itself.
#[derive(Debug, Clone)]
pub struct Traces {
    folder: PathBuf,
    id: String,
    engine: PathBuf,
}

impl Traces {
    /// Ends agent and edge at once, and removes containers, networks, volumes, images and the folder.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub fn remove(&self) {
        for program in ["refloatd", "refloatd-mortal", "refloat-edge"] {
            self.processes(program).into_iter().for_each(|pid| signal(pid, Signal::KILL));
        }
        let engine = &self.engine;
        let remove = |list: &[&str], remove: &[&str]| {
            for found in lines(&docker(engine, list)) {
                docker(engine, &[remove, &[&found]].concat());
            }
        };
        for label in ["host", "one-off"] {
            self.remove_containers(&self.label(label));
        }
        let ours = self.label("host");
        remove(&["network", "ls", "--quiet", "--filter", &ours], &["network", "rm"]);
        remove(&["volume", "ls", "--quiet", "--filter", &ours], &["volume", "rm"]);
        let images = format!("reference=refloat-{}/*", &self.id[..8]);
        let tags = ["images", "--filter", &images, "--format", "{{.Repository}}:{{.Tag}}"];
        remove(&tags, &["rmi", "--force"]);
        self.remove_build_group();
        // A folder that is gone already is what was wanted.
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    /// The engine may still be removing what an agent that is dead by now had asked it to: such a one goes by itself.
    fn remove_containers(&self, ours: &str) {
        eventually_true("its containers are gone", END_DEADLINE, || {
            let found = lines(&docker(&self.engine, &["ps", "--all", "--quiet", "--filter", ours]));
            for container in &found {
                let _ = Finished::of(&mut client(&self.engine, &["rm", "--force", "--volumes", container]));
            }
            found.is_empty()
        });
    }

    /// The control group of its builds, in every hierarchy.
    fn remove_build_group(&self) {
        let group = format!("refloat-build-{}", &self.id[..8]);
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([root.to_owned()]) {
            // Where there is none, there is nothing to remove.
            let _ = std::fs::remove_dir(hierarchy.join(&group).join("buildkit"));
            let _ = std::fs::remove_dir(hierarchy.join(&group));
        }
    }

    /// Where its state lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Process ids of a program whose arguments name the folder.
    #[must_use]
    pub fn processes(&self, program: &str) -> Vec<u32> {
        let folder = self.folder.to_string_lossy();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| runs(*pid, program, &folder)).collect()
    }

    /// What `docker ps --filter` takes for its containers.
    #[must_use]
    pub fn containers_filter(&self) -> String {
        self.label("host")
    }

    /// Filter for what has this label of the host: `dev.refloat.host`, `dev.refloat.one-off`.
    fn label(&self, name: &str) -> String {
        format!("label=dev.refloat.{name}={}", self.id)
    }

    fn containers(&self) -> Vec<String> {
        let ours = self.label("host");
        lines(&docker(&self.engine, &["ps", "--all", "--filter", &ours, "--format", "{{.Names}}"]))
    }
}

/// The server.
#[derive(Debug)]
pub struct Host {
    binaries: Binaries,
    options: Options,
    folder: TempDir,
    agent_port: Reservation,
    edge_port: Reservation,
    network: Reservation,
    /// The identity that its agent gave itself.
    id: String,
    agent: Option<Child>,
}

impl Host {
    /// Sets one up on loopback and starts it.
    ///
    /// # Panics
    /// When it is not ready within a minute.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// The same, but different.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(options: Options) -> Self {
        let folder = TempDir::with_prefix("refloat-host-").expect("a temporary folder can be made");
        // The edge may run as another user: it has to be able to walk to what is its own.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("a folder of ours can be opened");
        let mut host = Self {
            binaries: Binaries::find(),
            options,
            folder,
            agent_port: Reservation::port(),
            edge_port: Reservation::port(),
            network: Reservation::network(),
            id: String::new(),
            agent: None,
        };
        // As root the edge runs as a user of its own, who may not look into whatever folder the target folder lies in.
        let copy = std::fs::hard_link(&host.binaries.edge, host.edge_binary())
            .or_else(|_| std::fs::copy(&host.binaries.edge, host.edge_binary()).map(drop));
        copy.expect("the edge can be copied");
        std::fs::write(host.config_file(), host.config()).expect("the configuration can be written");
        let said = Finished::of(host.refloatd().arg("init")).success();
        host.id = host_id(&said);
        host.restart();
        host
    }

    /// Starts the agent again and waits until both ports accept.
    ///
    /// # Panics
    /// When they do not within a minute, or the agent ends.
    pub fn restart(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    /// Starts the agent without waiting for anything.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn launch(&mut self) {
        self.launch_as(self.refloatd());
    }

    /// Starts an agent that is killed right after its n-th effect from the acceptance of a deployment on, and waits until
    /// both ports accept.
    ///
    /// # Panics
    /// As [`Self::restart`].
    pub fn restart_mortal(&mut self, killed_after: usize) {
        self.launch_mortal("REFLOAT_KILL_AFTER", killed_after);
    }

    /// The same, stopped instead of killed, until [`Self::resume_agent`].
    ///
    /// # Panics
    /// As [`Self::restart`].
    pub fn restart_stopping(&mut self, stopped_after: usize) {
        self.launch_mortal("REFLOAT_STOP_AFTER", stopped_after);
    }

    /// Whether the agent is stopped.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.agent_pid())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    /// Lets an agent that is stopped go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume_agent(&self) {
        signal(self.agent_pid(), Signal::CONT);
    }

    fn launch_mortal(&mut self, variable: &str, after: usize) {
        let mut command = Command::new(self.binaries.mortal_agent());
        command.arg("--config").arg(self.config_file()).env(variable, after.to_string());
        self.launch_as(command);
        self.wait_until_ready();
    }

    /// Whether the agent has died by itself; then it can be started again.
    pub fn has_died(&mut self) -> bool {
        let died = self.agent.as_mut().is_some_and(|agent| matches!(agent.try_wait(), Ok(Some(_))));
        if died {
            self.agent = None;
        }
        died
    }

    fn launch_as(&mut self, mut command: Command) {
        assert!(self.agent.is_none(), "the agent runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("the log can be opened");
        let same = log.try_clone().expect("a file handle can be doubled");
        // A group of its own: a Ctrl-C in the terminal is for us, and we end it.
        command.args(["run", "--with-edge"]).stdin(Stdio::null()).stdout(log).stderr(same).process_group(0);
        self.agent = Some(command.spawn().expect("refloatd can be started"));
    }

    /// Waits until both ports accept.
    ///
    /// # Panics
    /// As [`Self::restart`].
    pub fn wait_until_ready(&mut self) {
        let addresses = [self.agent_address(), self.edge_address()];
        for address in addresses {
            eventually_true(&format!("{address} accepts"), READY_DEADLINE, || {
                self.assert_agent_runs();
                TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok()
            });
        }
    }

    /// SIGKILL to the agent. The edge goes on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("the agent runs");
        agent.kill().expect("a child can be killed");
        agent.wait().expect("a killed child ends");
    }

    /// SIGTERM to the agent, and waits for its end. The edge goes on.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn stop_agent(&mut self) {
        let mut agent = self.agent.take().expect("the agent runs");
        signal(agent.id(), Signal::TERM);
        eventually("the agent's end", END_DEADLINE, || agent.try_wait().ok().flatten());
    }

    /// SIGKILL to the edge.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_edge(&self) {
        signal(self.edge_pid().expect("the edge runs"), Signal::KILL);
    }

    /// SIGKILL to the edge, and another one over the same folders as the same user, without the agent.
    ///
    /// # Panics
    /// When none runs, or none can be started.
    pub fn replace_edge(&self) {
        let pid = self.edge_pid().expect("the edge runs");
        let process = PathBuf::from(format!("/proc/{pid}"));
        let line = std::fs::read_to_string(process.join("cmdline")).expect("a process has arguments");
        let owner = std::fs::metadata(&process).expect("a process has an owner");
        signal(pid, Signal::KILL);
        eventually_true("the edge's end", END_DEADLINE, || self.edge_pid().is_none());
        let log = File::options().append(true).open(self.log_file()).expect("the log can be opened");
        let mut command = Command::new(self.edge_binary());
        command.args(line.split_terminator('\0').skip(1)).arg("--listen").arg(self.edge_address().to_string());
        command.uid(owner.uid()).gid(owner.gid()).current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // It is found by its folder when the host goes.
        drop(command.spawn().expect("the edge can be started"));
    }

    /// Process id of the agent.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("the agent runs").id()
    }

    /// Process id of the edge: the one `refloat-edge` whose arguments name this host's folder.
    #[must_use]
    pub fn edge_pid(&self) -> Option<u32> {
        self.traces().processes("refloat-edge").first().copied()
    }

    /// Where the CLI connects.
    #[must_use]
    pub fn agent_address(&self) -> SocketAddr {
        (self.options.address, self.agent_port.number()).into()
    }

    /// Where visitors connect.
    #[must_use]
    pub fn edge_address(&self) -> SocketAddr {
        (self.options.address, self.edge_port.number()).into()
    }

    /// Requests for a path, by the edge's own address.
    #[must_use]
    pub fn target(&self, path: &str) -> Target {
        let address = self.edge_address();
        Target { address, host: address.to_string(), path: path.to_owned() }
    }

    /// Body of a path, if it is answered with 200.
    #[must_use]
    pub fn body(&self, path: &str) -> Option<String> {
        let target = self.target(path);
        let answer = crate::fetch::get(target.address, &target.host, path).ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    /// A fresh one-time code.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn pairing_code(&self) -> String {
        let said = Finished::of(self.refloatd().arg("pair")).success();
        let text = said.all_output();
        let mut words = text.split_whitespace().skip_while(|word| *word != "--code").skip(1);
        words.next().unwrap_or_else(|| no_code(&said)).to_owned()
    }

    /// Runs `refloat` as root on the server does: over the Unix socket, without pairing.
    #[must_use]
    pub fn refloat(&self, arguments: &[&str]) -> Finished {
        Finished::of(Command::new(&self.binaries.cli).args(arguments).arg("--socket").arg(self.control_socket()))
    }

    /// `refloatd` with this host's configuration.
    #[must_use]
    pub fn refloatd(&self) -> Command {
        let mut command = Command::new(&self.binaries.agent);
        command.arg("--config").arg(self.config_file());
        command
    }

    /// The programs that it runs.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Where its state lies.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The agent's Unix socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.folder.path().join("run/agent.sock")
    }

    /// All that agent and edge have said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Names of this host's containers, stopped ones too.
    ///
    /// # Panics
    /// When the engine does not answer.
    #[must_use]
    pub fn containers(&self) -> Vec<String> {
        self.traces().containers()
    }

    /// Ids of the containers of one-off commands.
    ///
    /// # Panics
    /// When the engine does not answer.
    #[must_use]
    pub fn one_offs(&self) -> Vec<String> {
        let ours = self.traces().label("one-off");
        lines(&self.docker(&["ps", "--all", "--quiet", "--filter", &ours]))
    }

    /// The engine's word for what a container does: `running`, `paused`, `exited`; nothing when it is gone.
    #[must_use]
    pub fn state_of(&self, container: &str) -> String {
        let format = "{{.State.Status}}";
        let asked = Finished::of(&mut client(&self.options.engine, &["inspect", "--format", format, container]));
        asked.stdout.trim().to_owned()
    }

    /// Runs the engine's own client against this host's engine.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        docker(&self.options.engine, arguments)
    }

    /// What this host leaves behind, for whoever has to end it from outside.
    #[must_use]
    pub fn traces(&self) -> Traces {
        Traces { folder: self.folder.path().to_owned(), id: self.id.clone(), engine: self.options.engine.clone() }
    }

    /// Lets go of it: nothing is ended or removed, now or later.
    #[must_use]
    pub fn keep(self) -> Traces {
        let traces = self.traces();
        std::mem::forget(self);
        traces
    }

    /// Resident memory of a process in KiB.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn rss_kib(pid: u32) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse().expect("the kernel writes a number")
    }

    fn config(&self) -> String {
        let Options { address, engine, extra } = &self.options;
        let folder = self.folder.path();
        format!(
            "state_dir = {state:?}\nrun_dir = {run:?}\nlisten = \"{address}:{agent}\"\n\n\
             [edge]\nhttp = [\"{address}:{edge}\"]\nbinary = {binary:?}\npublic_host = \"{address}\"\n\n\
             [network]\nsubnet = \"{subnet}\"\n\n\
             [docker]\nsocket = {engine:?}\n\n{extra}",
            state = folder.join("state"),
            run = folder.join("run"),
            agent = self.agent_port.number(),
            edge = self.edge_port.number(),
            binary = self.edge_binary(),
            subnet = self.network.subnet(),
        )
    }

    fn edge_binary(&self) -> PathBuf {
        self.folder.path().join("refloat-edge")
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("refloatd.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn assert_agent_runs(&mut self) {
        let ended = self.agent.as_mut().and_then(|agent| agent.try_wait().ok().flatten());
        assert!(ended.is_none(), "refloatd ended: {ended:?}\n{}", self.log());
    }

    fn clean_up(&mut self) {
        if self.agent.is_some() {
            self.kill_agent();
        }
        self.traces().remove();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.clean_up();
        }
        #[expect(clippy::print_stderr, reason = "a failed test shows what the server said")]
        {
            eprintln!("---- what agent and edge said ----\n{}----", self.log());
        }
        // What cannot be cleaned up after a failure must not hide the failure.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.clean_up()));
    }
}

/// The identity among what `refloatd init` says.
fn host_id(said: &Finished) -> String {
    let hexadecimal = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let text = said.all_output();
    let id = text.split_whitespace().find(hexadecimal);
    assert!(id.is_some(), "init did not say the host's identity\n{said}");
    id.unwrap_or_default().to_owned()
}

fn runs(pid: u32, program: &str, argument: &str) -> bool {
    let Ok(command) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let command = String::from_utf8_lossy(&command);
    let first = command.split('\0').next().unwrap_or_default();
    Path::new(first).file_name().is_some_and(|name| name == program) && command.contains(argument)
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    // A process that has ended meanwhile is where it was to be.
    let _ = kill_process(pid, signal);
}

fn docker(engine: &Path, arguments: &[&str]) -> String {
    Finished::of(&mut client(engine, arguments)).success().stdout.trim_end().to_owned()
}

fn client(engine: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("--host").arg(format!("unix://{}", engine.display())).args(arguments);
    command
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[expect(clippy::panic, reason = "the harness panics")]
fn no_code(said: &Finished) -> &'static str {
    panic!("no code was printed\n{said}")
}

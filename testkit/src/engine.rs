//! A Docker engine of the test's own, so that it may be stopped, killed and restarted. Needs root.
//!
//! Its data, socket, bridge and containerd namespaces are its own, and it leaves the packet filter alone: an engine that
//! sets that up flushes what the machine's own engine needs, and one without any bridge removes `docker0`. So its
//! containers and the host reach each other, and a container reaches nothing else.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::command::{Finished, system};
use crate::eventually::{eventually, eventually_true};
use crate::reservation::Reservation;

const READY_DEADLINE: Duration = Duration::from_secs(60);
const END_DEADLINE: Duration = Duration::from_secs(60);

/// The engine.
#[derive(Debug)]
pub struct Engine {
    folder: TempDir,
    bridge: Reservation,
    live_restore: bool,
    daemon: Option<Child>,
}

impl Engine {
    /// Starts one; with `live_restore` its containers outlive it.
    ///
    /// # Panics
    /// When it does not answer within a minute, or the user is not root.
    #[must_use]
    pub fn start(live_restore: bool) -> Self {
        assert!(rustix::process::geteuid().is_root(), "an engine needs root: run the tests as root");
        let folder = TempDir::with_prefix("refloat-engine-").expect("a temporary folder can be made");
        let mut engine = Self { folder, bridge: Reservation::network(), live_restore, daemon: None };
        engine.remove_bridge();
        system("ip", &["link", "add", &engine.bridge_name(), "type", "bridge"]);
        let address = engine.bridge.subnet().replace(".0/20", ".1/24");
        system("ip", &["addr", "add", &address, "dev", &engine.bridge_name()]);
        system("ip", &["link", "set", &engine.bridge_name(), "up"]);
        engine.restart();
        engine
    }

    /// Starts it again, over the same data.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn restart(&mut self) {
        assert!(self.daemon.is_none(), "the engine runs already");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("the log can be opened");
        let same = log.try_clone().expect("a file handle can be doubled");
        let name = self.folder.path().file_name().expect("a folder has a name").to_string_lossy().into_owned();
        // What a killed daemon leaves there would keep the next one from starting.
        let _ = std::fs::remove_file(self.path("pid"));
        let mut command = Command::new("dockerd");
        command
            .arg(format!("--host=unix://{}", self.socket().display()))
            .arg(format!("--data-root={}", self.path("data").display()))
            .arg(format!("--exec-root={}", self.path("exec").display()))
            .arg(format!("--pidfile={}", self.path("pid").display()))
            .arg(format!("--containerd-namespace={name}"))
            .arg(format!("--containerd-plugins-namespace={name}-plugins"))
            .arg(format!("--live-restore={}", self.live_restore))
            .arg(format!("--bridge={}", self.bridge_name()))
            .args(["--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        self.daemon =
            Some(command.stdin(Stdio::null()).stdout(log).stderr(same).spawn().expect("dockerd can be started"));
        eventually_true("the engine answers", READY_DEADLINE, || {
            Finished::of(&mut self.client(&["version", "--format", "{{.Server.Version}}"])).code == 0
        });
    }

    /// SIGTERM, and waits for its end: without live restore its containers stop.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("the engine runs");
        signal(&daemon, Signal::TERM);
        eventually("the engine's end", END_DEADLINE, || daemon.try_wait().ok().flatten());
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("the engine runs");
        daemon.kill().expect("a child can be killed");
        daemon.wait().expect("a killed child ends");
    }

    /// Copies an image from the machine's engine.
    ///
    /// # Panics
    /// When that fails.
    pub fn take_image(&self, name: &str) {
        let mut save = Command::new("docker");
        let mut save = save.args(["save", name]).stdout(Stdio::piped()).spawn().expect("docker can be started");
        let archive = save.stdout.take().expect("the output is a pipe");
        let loaded = self.client(&["load", "--quiet"]).stdin(archive).status().expect("docker can be started");
        assert!(loaded.success() && save.wait().is_ok_and(|s| s.success()), "{name} could not be copied");
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("docker.sock")
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg(format!("--host=unix://{}", self.socket().display())).args(arguments);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bridge_name(&self) -> String {
        format!("rfe{}", self.bridge.number())
    }

    /// What is left of an earlier one goes too; that there is nothing is no error.
    fn remove_bridge(&self) {
        let _ = Finished::of(Command::new("ip").args(["link", "del", &self.bridge_name()]));
    }

    fn clean_up(&mut self) {
        if self.daemon.is_none() {
            self.restart();
        }
        let all = Finished::of(&mut self.client(&["ps", "--all", "--quiet"])).success().stdout;
        for container in all.lines() {
            Finished::of(&mut self.client(&["rm", "--force", container])).success();
        }
        Finished::of(&mut self.client(&["network", "prune", "--force"])).success();
        self.stop();
        self.remove_bridge();
        unmount_below(self.folder.path());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // What cannot be cleaned up must not hide a test's failure.
        let cleaned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.clean_up()));
        assert!(cleaned.is_ok() || std::thread::panicking(), "the engine could not be cleaned up\n{}", self.log());
    }
}

/// Mounts that a killed daemon left, or its folder cannot be removed.
fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let ours =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| Path::new(path).starts_with(folder));
    for path in ours.collect::<Vec<_>>().into_iter().rev() {
        let _ = Finished::of(Command::new("umount").args(["--lazy", path]));
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    // A process that has ended meanwhile is where it was to be.
    let _ = kill_process(pid, signal);
}

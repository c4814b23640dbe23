//! A private OpenSSH server in front of a host, and the way for a laptop's `ssh` to trust it. Needs root.
//!
//! The server has a key, a port and accepted users of its own, and nothing of the machine's. Whoever logs in finds `refloatd` with
//! the host's configuration first on the path, as on a server where it is installed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::command::system;
use crate::eventually::eventually_true;
use crate::host::Host;
use crate::reservation::Reservation;

const READY_DEADLINE: Duration = Duration::from_secs(30);
/// Where distributions put it, which need not be on a user's path.
const USUAL: &str = "/usr/sbin/sshd";
/// Where it changes its root to before anybody has logged in.
const EMPTY_FOLDER: &str = "/run/sshd";

/// The server, ended when dropped.
#[derive(Debug)]
pub struct SshServer {
    folder: TempDir,
    port: Reservation,
    daemon: Child,
}

impl SshServer {
    /// Starts one in front of a host.
    ///
    /// # Panics
    /// When there is no `sshd`, the user is not root, or it does not accept within half a minute.
    #[must_use]
    pub fn before(host: &Host) -> Self {
        assert!(rustix::process::geteuid().is_root(), "an ssh server needs root: run the tests as root");
        let folder = TempDir::with_prefix("refloat-ssh-").expect("a temporary folder can be made");
        let port = Reservation::port();
        for key in ["host", "user"] {
            let path = folder.path().join(key);
            let path = path.to_str().expect("a temporary path is text");
            system("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", key, "-f", path]);
        }
        fs::create_dir_all(EMPTY_FOLDER).expect("a folder of the system can be made");
        let config = configuration(folder.path(), port.number());
        fs::write(folder.path().join("sshd_config"), config).expect("a file can be written");
        let agent = host.refloatd();
        let words: Vec<_> = std::iter::once(agent.get_program()).chain(agent.get_args()).collect();
        let words: Vec<_> = words.into_iter().map(|word| format!("'{}'", word.to_string_lossy())).collect();
        script(&folder.path().join("bin"), "refloatd", &format!("exec {} \"$@\"", words.join(" ")));
        let log = File::create(folder.path().join("log")).expect("a file can be made");
        let mut daemon = Command::new(program());
        daemon.arg("-D").arg("-e").arg("-f").arg(folder.path().join("sshd_config"));
        let daemon = daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let server = Self { folder, port, daemon: daemon.expect("sshd can be started") };
        eventually_true("the ssh server accepts", READY_DEADLINE, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, server.port.number())).is_ok()
        });
        server
    }

    /// `ssh://root@ADDRESS:PORT`
    #[must_use]
    pub fn url(&self, address: Ipv4Addr) -> String {
        format!("ssh://root@{address}:{}", self.port.number())
    }

    /// A folder whose `ssh` knows this server's key and has a key that it accepts, for the front of somebody's path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn client_folder(&self) -> PathBuf {
        let folder = self.folder.path();
        let key = fs::read_to_string(folder.join("host.pub")).expect("the server has a key");
        fs::write(folder.join("known_hosts"), format!("* {key}")).expect("a file can be written");
        let options = format!(
            "-F none -i '{0}/user' -o IdentitiesOnly=yes -o UserKnownHostsFile='{0}/known_hosts'",
            folder.display()
        );
        let client = folder.join("client");
        script(&client, "ssh", &format!("exec /usr/bin/ssh {options} \"$@\""));
        client
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        // One that has ended already is where it was to be.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    let mut text = format!(
        "Port {port}\nListenAddress 0.0.0.0\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n\
         PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
         AllowUsers root\nSetEnv PATH={folder}/bin:/usr/bin:/bin\n"
    );
    // From version 9.8 on the server consists of several programs, which it looks for where the distribution puts them.
    let beside = program().ancestors().nth(2).map(|root| root.join("lib/openssh")).unwrap_or_default();
    for (option, name) in [("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")] {
        if beside.join(name).is_file() {
            text.push_str(&format!("{option} {}\n", beside.join(name).display()));
        }
    }
    text
}

/// The server's program. It has to be started by its whole path.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("sshd")).find(|path| path.is_file());
    let found = found.unwrap_or_else(|| PathBuf::from(USUAL));
    assert!(found.is_file(), "there is no sshd: run ./test, which sees to it, or install openssh-server");
    // A link would hide where the rest of it is.
    found.canonicalize().expect("a program that is there has a path")
}

fn script(folder: &Path, name: &str, line: &str) {
    fs::create_dir_all(folder).expect("a folder can be made");
    fs::write(folder.join(name), format!("#!/bin/sh\n{line}\n")).expect("a file can be written");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.join(name), executable).expect("a file of ours can be made executable");
}

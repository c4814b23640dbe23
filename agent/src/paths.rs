//! Where the agent keeps things: every path of its state and its sockets, from two roots that the caller gives, so that
//! several agents can live on one host.

use std::path::{Path, PathBuf};

/// Default root of what must survive a reboot.
pub const DEFAULT_STATE: &str = "/var/lib/refloat";
/// Default root of sockets.
pub const DEFAULT_RUN: &str = "/run/refloat";

/// The two roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What must survive a reboot.
    pub state: PathBuf,
    /// Sockets, gone after a reboot.
    pub run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { state: PathBuf::from(DEFAULT_STATE), run: PathBuf::from(DEFAULT_RUN) }
    }
}

impl Paths {
    /// Everything below one folder: `state/` and `run/` in it.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { state: root.join("state"), run: root.join("run") }
    }

    /// The append-only record of every mutation: the truth.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.state.join("ledger")
    }

    /// What the ledger adds up to; can be rebuilt from it.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.state.join("store")
    }

    /// Uploaded files, layers and trees by content.
    #[must_use]
    pub fn cas(&self) -> PathBuf {
        self.state.join("cas")
    }

    /// Secret values under the root key.
    #[must_use]
    pub fn sealed(&self) -> PathBuf {
        self.state.join("sealed")
    }

    /// Static files that the edge may read.
    #[must_use]
    pub fn public(&self) -> PathBuf {
        self.state.join("public")
    }

    /// The agent's own authority and its certificates.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// What the edge keeps for itself.
    #[must_use]
    pub fn edge_state(&self) -> PathBuf {
        self.state.join("edge")
    }

    /// Where root on this host talks to the agent.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// Where the agent talks to the edge: in a folder of its own, which belongs to the edge's user.
    #[must_use]
    pub fn edge_socket(&self) -> PathBuf {
        self.run.join("edge").join("control.sock")
    }

    /// Addresses that are bound now, for tools and tests: the kernel may have chosen the ports.
    #[must_use]
    pub fn ports_file(&self) -> PathBuf {
        self.run.join("ports.json")
    }

    /// Kept output of apps, and the edge's access log.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_layout_is_the_documented_one() {
        let paths = Paths::default();
        assert_eq!(paths.ledger(), Path::new("/var/lib/refloat/ledger"));
        assert_eq!(paths.edge_state(), Path::new("/var/lib/refloat/edge"));
        assert_eq!(paths.agent_socket(), Path::new("/run/refloat/agent.sock"));
        assert_eq!(paths.edge_socket(), Path::new("/run/refloat/edge/control.sock"));
    }

    #[test]
    fn two_roots_share_no_path() {
        let (a, b) = (Paths::below(Path::new("/a")), Paths::below(Path::new("/b")));
        assert!(a.store().starts_with("/a") && b.store().starts_with("/b"));
        assert!(a.edge_socket().starts_with("/a"));
    }
}

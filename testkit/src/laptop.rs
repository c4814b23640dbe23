//! Somebody's laptop: the CLI with a configuration folder of its own, and on request a network of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::binaries::Binaries;
use crate::command::Finished;
use crate::host::Host;
use crate::namespace::Namespace;

/// The laptop.
#[derive(Debug)]
pub struct Laptop {
    binaries: Binaries,
    folder: TempDir,
    network: Option<Arc<Namespace>>,
}

impl Laptop {
    /// One that shares the host's network.
    ///
    /// # Panics
    /// When its folder cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("refloat-laptop-").expect("a temporary folder can be made");
        Self { binaries: Binaries::find(), folder, network: None }
    }

    /// One that reaches the host by one link only, as another machine would. Needs root.
    ///
    /// # Panics
    /// When the network cannot be made.
    #[must_use]
    pub fn elsewhere() -> Self {
        Self { network: Some(Arc::new(Namespace::create())), ..Self::new() }
    }

    /// Another one on the same network.
    ///
    /// # Panics
    /// When its folder cannot be made.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { network: self.network.clone(), ..Self::new() }
    }

    /// Where it sees the machine that hosts run on.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        self.network.as_ref().map_or(Ipv4Addr::LOCALHOST, |network| network.host_address())
    }

    /// Where hosts see it.
    #[must_use]
    pub fn own_address(&self) -> Ipv4Addr {
        self.network.as_ref().map_or(Ipv4Addr::LOCALHOST, |network| network.own_address())
    }

    /// Pairs with a host, with a fresh code.
    ///
    /// # Panics
    /// When that fails.
    pub fn pair(&self, host: &Host) {
        self.pair_at(host, host.agent_address());
    }

    /// Pairs with a host at another address than its own: that of a relay.
    ///
    /// # Panics
    /// When that fails.
    pub fn pair_at(&self, host: &Host, server: SocketAddr) {
        let server = server.to_string();
        self.refloat(self.folder.path(), &["pair", &server, "--code", &host.pairing_code()]).success();
    }

    /// Runs `refloat` in a folder to its end.
    #[must_use]
    pub fn refloat(&self, folder: &Path, arguments: &[&str]) -> Finished {
        Finished::of(&mut self.command(folder, arguments))
    }

    /// `refloat` in a folder, not yet started.
    #[must_use]
    pub fn command(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = match &self.network {
            None => Command::new(&self.binaries.cli),
            Some(network) => network.command(&self.binaries.cli),
        };
        command.args(arguments).current_dir(folder).env("REFLOAT_CONFIG_DIR", self.folder.path().join("config"));
        command
    }
}

impl Default for Laptop {
    fn default() -> Self {
        Self::new()
    }
}

//! A network namespace joined to the host by one link: to the host it is another machine. Needs root.

use std::process::Command;

use crate::command::{Finished, system};
use crate::reservation::Reservation;

/// The namespace, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    number: Reservation,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Panics
    /// When `ip` is missing or the user is not root.
    #[must_use]
    pub fn create() -> Self {
        assert!(rustix::process::geteuid().is_root(), "a network namespace needs root: run the tests as root");
        let number = Reservation::network();
        let name = format!("refloat-{}", number.number());
        let this = Self { name, number };
        this.remove();
        let (inner, outer) = (this.link("i"), this.link("o"));
        system("ip", &["netns", "add", &this.name]);
        system("ip", &["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &this.name]);
        system("ip", &["addr", "add", &format!("{}/30", this.host_address()), "dev", &outer]);
        system("ip", &["link", "set", &outer, "up"]);
        let inside = |words: &[&str]| system("ip", &[&["-n", &this.name], words].concat());
        inside(&["addr", "add", &format!("{}/30", this.own_address()), "dev", &inner]);
        inside(&["link", "set", &inner, "up"]);
        inside(&["link", "set", "lo", "up"]);
        this
    }

    /// The host's address as seen from inside.
    #[must_use]
    pub fn host_address(&self) -> String {
        format!("10.223.{}.1", self.number.number())
    }

    /// The address that the host sees.
    #[must_use]
    pub fn own_address(&self) -> String {
        format!("10.223.{}.2", self.number.number())
    }

    /// A command that runs inside.
    #[must_use]
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    fn link(&self, side: &str) -> String {
        format!("rf{}{side}", self.number.number())
    }

    /// What is left of an earlier one goes too; that there is nothing is no error.
    fn remove(&self) {
        let _ = Finished::of(Command::new("ip").args(["netns", "del", &self.name]));
        let _ = Finished::of(Command::new("ip").args(["link", "del", &self.link("o")]));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.remove();
    }
}

//! A network namespace joined to the host by one link: to the host it is another machine. Needs root.
//!
//! Its name, link and addresses follow from a reserved number, so that many live side by side. Whoever makes one removes
//! those whose number nobody holds any more: a test that was killed leaves nothing for long.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::command::{Finished, system};
use crate::reservation::Reservation;

/// Where the system lists them.
const NAMESPACES: &str = "/run/netns";
const PREFIX: &str = "refloat-";

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
        remove_abandoned(Path::new(NAMESPACES));
        let this = Self::of(Reservation::network());
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

    /// The host's address on the link.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// Its own address on the link.
    #[must_use]
    pub fn own_address(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// A command that runs inside.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    fn of(number: Reservation) -> Self {
        Self { name: format!("{PREFIX}{}", number.number()), number }
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [_, low] = self.number.number().to_be_bytes();
        Ipv4Addr::new(10, 223, low, last)
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

/// A number that nobody holds is one whose holder was killed: reserving it and letting go of it removes what is left.
fn remove_abandoned(listed: &Path) {
    let entries = std::fs::read_dir(listed).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok());
    numbers.filter_map(Reservation::this_network).map(Namespace::of).for_each(drop);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(namespace: &str) -> bool {
        Path::new(NAMESPACES).join(namespace).exists()
    }

    #[test]
    fn what_a_killed_test_left_is_removed_and_what_is_in_use_is_not() {
        let in_use = Namespace::create();
        // Numbers are given from the lowest on: nobody gets this one meanwhile.
        let number = Reservation::this_network(255).expect("the last number is free");
        let name = format!("{PREFIX}{}", number.number());
        system("ip", &["netns", "add", &name]);
        remove_abandoned(Path::new(NAMESPACES));
        assert!(exists(&name), "somebody has its number");
        drop(number);
        remove_abandoned(Path::new(NAMESPACES));
        assert!(!exists(&name), "nobody had its number");
        assert!(exists(&in_use.name));
    }
}

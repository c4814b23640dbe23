//! Where the programs under test lie: beside the test itself, in Cargo's target folder.

use std::path::PathBuf;

/// The three programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `refloatd`.
    pub agent: PathBuf,
    /// `refloat-edge`.
    pub edge: PathBuf,
    /// `refloat`.
    pub cli: PathBuf,
}

impl Binaries {
    /// Finds them in the profile's folder that the running program comes from.
    ///
    /// # Panics
    /// When one is missing: it says what builds it. An old one is not noticed: `./test` builds first.
    #[must_use]
    pub fn find() -> Self {
        Self { agent: find("refloatd"), edge: edge(), cli: find("refloat") }
    }

    /// `refloatd-mortal`, which only test builds have.
    ///
    /// # Panics
    /// As [`Self::find`].
    #[must_use]
    pub fn mortal_agent(&self) -> PathBuf {
        find("refloatd-mortal")
    }
}

/// `refloat-edge` alone.
///
/// # Panics
/// As [`Binaries::find`].
#[must_use]
pub fn edge() -> PathBuf {
    find("refloat-edge")
}

fn find(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let mut folder = own.parent().expect("a program lies in a folder").to_owned();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not there; build it with: cargo build --workspace --all-features --bins",
        path.display()
    );
    path
}

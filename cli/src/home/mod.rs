//! What this device remembers: the servers that it is paired with and which app a folder is.
//!
//! Every file is written beside its place and renamed into it, so that a torn write leaves the old one.

pub(crate) mod folder;
pub(crate) mod server;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::failure::Failure;

/// Set it to keep everything in another folder.
pub(crate) const CONFIG_DIR: &str = "REFLOAT_CONFIG_DIR";

/// The folder of everything that is remembered. It may not exist yet.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    /// Where it lies: `REFLOAT_CONFIG_DIR`, or `refloat` in the platform's configuration folder.
    ///
    /// # Errors
    /// When the user has no home folder.
    pub(crate) fn find() -> Result<Self, Failure> {
        if let Some(root) = std::env::var_os(CONFIG_DIR).filter(|v| !v.is_empty()) {
            return Ok(Self { root: root.into() });
        }
        let base = etcetera::choose_base_strategy().map_err(|e| Failure::local("find your home folder", &e))?;
        Ok(Self { root: base.config_dir().join("refloat") })
    }

    /// One that lies somewhere else.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Writes a file: beside its place, synced, then renamed into it. A secret one can be read by its owner only.
fn write_file(path: &Path, bytes: &[u8], secret: bool) -> Result<(), Failure> {
    write_atomically(path, bytes, secret).map_err(|e| Failure::local(&format!("write {}", path.display()), &e))
}

fn write_atomically(path: &Path, bytes: &[u8], secret: bool) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    crate::unix::create_private_folder(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", uuid::Uuid::new_v4().simple()));
    let beside = folder.join(name);
    let written = crate::unix::create_file(&beside, secret)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path))
        .and_then(|()| crate::unix::sync_folder(folder));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Reads a file; `None` when there is none.
fn read_file(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::local(&format!("read {}", path.display()), &e)),
    }
}

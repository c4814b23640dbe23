//! A copy of an example app that a test may edit.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder with an app's source, removed when dropped.
#[derive(Debug)]
pub struct Project {
    folder: PathBuf,
    _parent: TempDir,
}

impl Project {
    /// A copy of `examples/NAME`.
    ///
    /// # Panics
    /// When there is no such example.
    #[must_use]
    pub fn example(name: &str) -> Self {
        Self::copy_of(&examples().join(name), name)
    }

    /// A copy of any folder, under a name of its own.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn copy_of(source: &Path, name: &str) -> Self {
        let project = Self::empty(name);
        copy(source, &project.folder).expect("the project can be copied");
        project
    }

    /// An empty folder.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn empty(name: &str) -> Self {
        let parent = TempDir::with_prefix("refloat-project-").expect("a temporary folder can be made");
        let folder = parent.path().join(name);
        std::fs::create_dir(&folder).expect("a temporary folder can be made");
        Self { folder, _parent: parent }
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes one file, and the folders that it lies in.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.folder.join(file);
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("folders can be made");
        std::fs::write(path, text).expect("a file can be written");
    }

    /// Replaces text in one file.
    ///
    /// # Panics
    /// When the text is not there.
    pub fn edit(&self, file: &str, old: &str, new: &str) {
        let path = self.folder.join(file);
        let text = std::fs::read_to_string(&path).expect("a file that is to be edited can be read");
        assert!(text.contains(old), "{file} does not contain {old:?}");
        self.write(file, text.replace(old, new));
    }
}

/// Bytes that do not compress, the same for the same seed.
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes
}

/// Where the examples lie: beside the crate whose tests cargo runs, else below the current folder. Asked when it runs, because
/// clones that share a target folder share the programs in it.
fn examples() -> PathBuf {
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(crate_folder) => Path::new(&crate_folder).join("../examples"),
        None => PathBuf::from("examples"),
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_name() == "node_modules" || entry.file_name() == "dist" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

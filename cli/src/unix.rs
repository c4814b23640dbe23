//! The only module that knows Unix: permissions, the agent's socket, names that are bytes, the host's name.
//!
//! On other systems each function does the nearest thing or says that it cannot, so that the rest is the same everywhere.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use system::*;

/// What a file that is neither a file, a folder nor a link is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    /// A socket.
    Socket,
    /// A named pipe.
    Pipe,
    /// A device.
    Device,
    /// Something else.
    Other,
}

impl Special {
    /// With its article.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Socket => "a socket",
            Self::Pipe => "a named pipe",
            Self::Device => "a device",
            Self::Other => "neither a file, a folder nor a link",
        }
    }
}

#[cfg(unix)]
mod system {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};

    use super::*;

    /// The socket of the agent on this host.
    pub(crate) const AGENT_SOCKET: &str = "/run/refloat/agent.sock";

    /// A connection to a socket of this host.
    pub(crate) type LocalStream = tokio::net::UnixStream;

    /// Connects to a socket of this host.
    pub(crate) async fn connect_local(path: &Path) -> io::Result<LocalStream> {
        tokio::net::UnixStream::connect(path).await
    }

    /// Makes a folder, and those above it, that nobody else can look into.
    pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// Makes a new file.
    pub(crate) fn create_file(path: &Path, secret: bool) -> io::Result<File> {
        let mode = if secret { 0o600 } else { 0o644 };
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
    }

    /// Makes a rename in this folder durable.
    pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Opens a file for reading, but never by way of a link, and without waiting for a pipe's other end.
    pub(crate) fn open_file(path: &Path) -> io::Result<File> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
    }

    /// Whether its owner may execute it.
    pub(crate) fn is_executable(metadata: &Metadata) -> bool {
        metadata.mode() & 0o100 != 0
    }

    /// What kind of special file it is.
    pub(crate) fn special(metadata: &Metadata) -> Special {
        let kind = metadata.file_type();
        match () {
            () if kind.is_socket() => Special::Socket,
            () if kind.is_fifo() => Special::Pipe,
            () if kind.is_block_device() || kind.is_char_device() => Special::Device,
            () => Special::Other,
        }
    }

    /// A name as the bytes that it is.
    pub(crate) fn name_bytes(name: &OsStr) -> Vec<u8> {
        name.as_bytes().to_vec()
    }

    /// The path that these bytes are.
    pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(bytes))
    }

    /// The target of a link as the bytes that it is.
    pub(crate) fn link_bytes(target: &Path) -> Vec<u8> {
        target.as_os_str().as_bytes().to_vec()
    }

    /// The host's own name, or empty.
    pub(crate) fn host_name() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// The program that opens an address in a browser.
    pub(crate) const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
}

#[cfg(not(unix))]
mod system {
    use super::*;

    /// There is no such socket here.
    pub(crate) const AGENT_SOCKET: &str = "";

    /// Stands for a connection that cannot be made.
    pub(crate) type LocalStream = tokio::io::DuplexStream;

    /// Says that there are no such sockets here.
    pub(crate) async fn connect_local(_path: &Path) -> io::Result<LocalStream> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "there are no Unix sockets on this system"))
    }

    /// Makes a folder, and those above it; the user's own folder keeps others out.
    pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    /// Makes a new file; the user's own folder keeps others out.
    pub(crate) fn create_file(path: &Path, _secret: bool) -> io::Result<File> {
        std::fs::OpenOptions::new().write(true).create_new(true).open(path)
    }

    /// A folder cannot be synced here.
    pub(crate) fn sync_folder(_path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Opens a file for reading.
    pub(crate) fn open_file(path: &Path) -> io::Result<File> {
        File::open(path)
    }

    /// Modes do not exist here.
    pub(crate) fn is_executable(_metadata: &Metadata) -> bool {
        false
    }

    /// What kind of special file it is.
    pub(crate) fn special(_metadata: &Metadata) -> Special {
        Special::Other
    }

    /// A name in UTF-8.
    pub(crate) fn name_bytes(name: &OsStr) -> Vec<u8> {
        name.to_string_lossy().into_owned().into_bytes()
    }

    /// The path that this UTF-8 is.
    pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
        PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The target of a link in UTF-8, with the separator of source trees.
    pub(crate) fn link_bytes(target: &Path) -> Vec<u8> {
        target.to_string_lossy().replace('\\', "/").into_bytes()
    }

    /// The host's own name, or empty.
    pub(crate) fn host_name() -> String {
        std::env::var("COMPUTERNAME").unwrap_or_default()
    }

    /// The program that opens an address in a browser.
    pub(crate) const OPENER: &str = "explorer";
}

//! Tells systemd that the agent serves, so that `systemctl start` and whatever is ordered after the unit wait for that. Elsewhere
//! it does nothing.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the program serves.
///
/// # Errors
/// When systemd asked to be told and cannot be reached.
pub fn ready() -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(socket) => tell(socket.as_bytes()),
        None => Ok(()),
    }
}

/// systemd's protocol: one datagram to a path, or to an abstract name when it begins with "@".
fn tell(socket: &[u8]) -> io::Result<()> {
    let address = match socket.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(socket))?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = path.as_os_str().as_bytes();
        let abstract_address = SocketAddr::from_abstract_name(name).unwrap();
        let heard = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&abstract_address).unwrap()];
        for (socket, to) in heard.iter().zip([name.to_vec(), [b"@", name].concat()]) {
            tell(&to).unwrap();
            let mut text = [0; 32];
            let length = socket.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"READY=1");
        }
        drop(heard);
        assert!(tell(name).is_err(), "nobody listens");
    }
}

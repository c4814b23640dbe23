//! A paired server: where it is, who signs for it, and this device's own certificate.
//!
//! ```text
//! servers/NAME/server.toml   address, TLS name, the server's own name
//! servers/NAME/ca.pem        the only authority that its certificate may come from
//! servers/NAME/cert.pem      this device's certificate
//! servers/NAME/key.pem       its key, made here, readable by its owner only, never sent
//! default                    name of the server that is used unless told otherwise
//! ```

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Home, read_file, write_file};
use crate::exit::Exit;
use crate::failure::Failure;

const MAX_NAME_BYTES: usize = 63;

/// What is known of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerFile {
    /// Where it is reached: `host:port`.
    pub(crate) address: String,
    /// The name that its certificate carries, whatever the address.
    pub(crate) server_name: String,
    /// Its own host name.
    pub(crate) host: String,
}

/// What authenticates both sides.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// The authority, PEM.
    pub(crate) ca: String,
    /// This device's certificate, PEM.
    pub(crate) certificate: String,
    /// Its key, PEM.
    pub(crate) key: String,
}

/// A server by its name here.
#[derive(Debug, Clone)]
pub(crate) struct PairedServer {
    /// What it is called here.
    pub(crate) name: String,
    /// What is known of it.
    pub(crate) file: ServerFile,
}

impl Home {
    /// Every paired server, by name.
    pub(crate) fn servers(&self) -> Result<Vec<PairedServer>, Failure> {
        let folder = self.path("servers");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Failure::local(&format!("read {}", folder.display()), &e)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| is_server_name(name)).collect();
        names.sort();
        let read = |name: String| self.read_server(&name).transpose();
        names.into_iter().filter_map(read).collect()
    }

    /// The server with that name, the default one, or the only one; `None` when none is paired.
    pub(crate) fn server(&self, name: Option<&str>) -> Result<Option<PairedServer>, Failure> {
        if let Some(name) = name {
            return match self.read_server(name)? {
                Some(server) => Ok(Some(server)),
                None => Err(unknown(name)),
            };
        }
        if let Some(name) = self.default_server()?
            && let Some(server) = self.read_server(&name)?
        {
            return Ok(Some(server));
        }
        let mut servers = self.servers()?;
        if servers.len() > 1 {
            let names: Vec<&str> = servers.iter().map(|s| s.name.as_str()).collect();
            let what = format!("This device is paired with {}: say which one with --server NAME.", names.join(", "));
            return Err(Failure::usage(what).next(format!("refloat servers use {}", names[0])));
        }
        Ok(servers.pop())
    }

    /// The name of the server that is used unless told otherwise.
    pub(crate) fn default_server(&self) -> Result<Option<String>, Failure> {
        let name = read_file(&self.path("default"))?.map(|text| text.trim().to_owned());
        Ok(name.filter(|name| is_server_name(name)))
    }

    /// Uses this server unless told otherwise.
    pub(crate) fn use_server(&self, name: &str) -> Result<(), Failure> {
        self.read_server(name)?.ok_or_else(|| unknown(name))?;
        write_file(&self.path("default"), format!("{name}\n").as_bytes(), false)
    }

    /// Forgets a server and the key that belongs to it.
    pub(crate) fn remove_server(&self, name: &str) -> Result<(), Failure> {
        let folder = self.server_folder(name)?;
        if self.default_server()?.as_deref() == Some(name) {
            let _ = std::fs::remove_file(self.path("default"));
        }
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(unknown(name)),
            Err(e) => Err(Failure::local(&format!("remove {}", folder.display()), &e)),
        }
    }

    /// Remembers a server after pairing; one of the same name is replaced.
    pub(crate) fn save_server(&self, server: &PairedServer, credentials: &Credentials) -> Result<(), Failure> {
        let folder = self.server_folder(&server.name)?;
        let text = toml::to_string(&server.file).map_err(|e| Failure::local("describe the server", &e))?;
        write_file(&folder.join("key.pem"), credentials.key.as_bytes(), true)?;
        write_file(&folder.join("cert.pem"), credentials.certificate.as_bytes(), false)?;
        write_file(&folder.join("ca.pem"), credentials.ca.as_bytes(), false)?;
        write_file(&folder.join("server.toml"), text.as_bytes(), false)
    }

    /// What authenticates this device to a server, and the server to it.
    pub(crate) fn credentials(&self, name: &str) -> Result<Credentials, Failure> {
        let folder = self.server_folder(name)?;
        let read = |file: &str| {
            let path = folder.join(file);
            let missing = || Failure::new(Exit::Failed, format!("{} is missing. Pair again.", path.display()));
            read_file(&path)?.ok_or_else(missing)
        };
        Ok(Credentials { ca: read("ca.pem")?, certificate: read("cert.pem")?, key: read("key.pem")? })
    }

    fn read_server(&self, name: &str) -> Result<Option<PairedServer>, Failure> {
        let path = self.server_folder(name)?.join("server.toml");
        let Some(text) = read_file(&path)? else { return Ok(None) };
        let file = toml::from_str(&text).map_err(|e| Failure::local(&format!("read {}", path.display()), &e))?;
        Ok(Some(PairedServer { name: name.to_owned(), file }))
    }

    fn server_folder(&self, name: &str) -> Result<PathBuf, Failure> {
        if is_server_name(name) {
            return Ok(self.path("servers").join(name));
        }
        Err(Failure::usage(format!("{name:?} cannot be the name of a server: use letters, digits, '.', '-' and '_'.")))
    }
}

fn unknown(name: &str) -> Failure {
    Failure::usage(format!("No server called {name:?} is paired.")).next("refloat servers")
}

/// Letters, digits, `.`, `-` and `_`, and no leading dot or hyphen: it becomes the name of a folder.
fn is_server_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    name.len() <= MAX_NAME_BYTES
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// A name for the server at this host, when the user gave none.
pub(crate) fn name_for(host: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    let name: String = host.chars().map(plain).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name.chars().take(MAX_NAME_BYTES).collect();
    if name.is_empty() { "server".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> PairedServer {
        let file = ServerFile {
            address: "192.0.2.1:7443".to_owned(),
            server_name: "agent.refloat.internal".to_owned(),
            host: "vps".to_owned(),
        };
        PairedServer { name: name.to_owned(), file }
    }

    fn credentials() -> Credentials {
        Credentials { ca: "ca".to_owned(), certificate: "certificate".to_owned(), key: "key".to_owned() }
    }

    #[test]
    fn the_only_server_is_the_default_and_of_two_one_must_be_chosen() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        assert!(home.server(None).expect("none is no error").is_none());
        home.save_server(&server("one"), &credentials()).expect("saved");
        assert_eq!(home.server(None).expect("one").map(|s| s.name), Some("one".to_owned()));
        home.save_server(&server("two"), &credentials()).expect("saved");
        assert_eq!(home.server(None).expect_err("two").exit, Exit::Usage);
        home.use_server("two").expect("it is there");
        assert_eq!(home.server(None).expect("two").map(|s| s.name), Some("two".to_owned()));
        home.remove_server("two").expect("it is there");
        assert_eq!(home.server(None).expect("one").map(|s| s.name), Some("one".to_owned()));
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_the_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        home.save_server(&server("one"), &credentials()).expect("saved");
        let key = folder.path().join("servers/one/key.pem");
        let mode = std::fs::metadata(key).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_servers_name_cannot_leave_its_folder() {
        for name in ["", ".", "..", "../x", "a/b", "-x", ".x", "a\0b", "ä"] {
            assert!(!is_server_name(name), "{name:?}");
        }
        for host in ["[2001:db8::1]", "..", "192.0.2.1", "höst", ""] {
            assert!(is_server_name(&name_for(host)), "{host:?} became {:?}", name_for(host));
        }
    }
}

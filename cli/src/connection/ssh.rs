//! The agent's own stdio dial through ssh: no open port, no pairing. An argument array, never a shell of ours.

use std::io::IsTerminal as _;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::address::{Address, is_host};
use crate::exit::Exit;
use crate::failure::Failure;

const SSH_PORT: u16 = 22;

/// `ssh://user@host:port`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshAddress {
    user: Option<String>,
    /// The host.
    pub(crate) host: String,
    port: Option<u16>,
}

/// The two pipes of the ssh process, which ends with them.
pub(super) struct SshStream {
    pipes: Join<ChildStdout, ChildStdin>,
    _child: Child,
}

impl SshAddress {
    /// Parses it.
    ///
    /// # Errors
    /// When it is not such an address, or contains what ssh could take for an option.
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = || Failure::usage(format!("{url:?} is not of the form ssh://user@host or ssh://user@host:port."));
        let rest = url.strip_prefix("ssh://").ok_or_else(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if user.is_some_and(|user| !is_user(user)) {
            return Err(wrong());
        }
        let address = Address::parse(place, SSH_PORT).map_err(|_| wrong())?;
        let port = Some(address.port).filter(|port| *port != SSH_PORT || place.ends_with(":22"));
        debug_assert!(is_host(&address.host), "the address was parsed");
        Ok(Self { user: user.map(str::to_owned), host: address.host, port })
    }

    /// Starts ssh with the agent's dial at its other end.
    pub(super) fn connect(&self) -> Result<SshStream, Failure> {
        let mut command = Command::new("ssh");
        command.args(self.arguments(std::io::stdin().is_terminal()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let failed = |e: &std::io::Error| Failure::new(Exit::Unreachable, format!("Cannot start ssh: {e}"));
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        let (Some(stdout), Some(stdin)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(Failure::new(Exit::Unreachable, "Cannot talk to ssh: it has no pipes."));
        };
        Ok(SshStream { pipes: tokio::io::join(stdout, stdin), _child: child })
    }

    /// ssh asks for a passphrase on the terminal itself; without one it must not wait for an answer.
    fn arguments(&self, may_ask: bool) -> Vec<String> {
        let mut words: Vec<String> = ["-T", "-o", "ServerAliveInterval=15"].map(str::to_owned).into();
        if !may_ask {
            words.extend(["-o", "BatchMode=yes"].map(str::to_owned));
        }
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(user) = &self.user {
            words.extend(["-l".to_owned(), user.clone()]);
        }
        words.extend(["--", &self.host, "refloatd", "dial-stdio"].map(str::to_owned));
        words
    }
}

fn is_user(user: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !user.is_empty() && user.len() <= 64 && !user.starts_with('-') && user.bytes().all(plain)
}

impl std::fmt::Display for SshAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipes).poll_read(cx, buf)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.pipes).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipes).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_an_array_of_arguments() {
        let address = SshAddress::parse("ssh://root@vps.example.com:2222").expect("it is one");
        let words = address.arguments(false).join(" ");
        assert_eq!(
            words,
            "-T -o ServerAliveInterval=15 -o BatchMode=yes -p 2222 -l root -- vps.example.com refloatd dial-stdio"
        );
        let plain = SshAddress::parse("ssh://vps").expect("it is one");
        assert_eq!(plain.arguments(true).join(" "), "-T -o ServerAliveInterval=15 -- vps refloatd dial-stdio");
    }

    #[test]
    fn what_ssh_could_take_for_an_option_is_refused() {
        for url in [
            "ssh://-oProxyCommand=touch",
            "ssh://root@-oProxyCommand=touch",
            "ssh://-root@vps",
            "ssh://root@",
            "ssh://",
            "ssh://root@vps/path",
            "ssh://root@vps:port",
            "ssh://ro ot@vps",
            "ssh://root@v ps",
            "ssh://root@vps;true",
            "ssh://$(x)@vps",
            "http://root@vps",
            "root@vps",
        ] {
            assert!(SshAddress::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for url in ["ssh://root@vps:2222", "ssh://vps", "ssh://root@[2001:db8::1]:22"] {
            assert_eq!(SshAddress::parse(url).expect("it is one").to_string(), url);
        }
    }
}

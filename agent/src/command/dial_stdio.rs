//! Connects standard input and output with the agent's Unix socket: a CLI elsewhere starts this over ssh and speaks gRPC
//! through it, so that no port has to be open.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use anyhow::Context as _;

use super::paths;
use crate::config::Config;

const PIECE_BYTES: usize = 64 << 10;

pub(super) fn dial_stdio(config: &Config) -> anyhow::Result<()> {
    let socket = paths(config).agent_socket();
    let mut agent =
        UnixStream::connect(&socket).with_context(|| format!("the agent does not answer on {}", socket.display()))?;
    let mut up = agent.try_clone().context("the connection cannot be doubled")?;
    // The agent has the last word: when it has ended, this program ends, whatever its input still waits for.
    std::thread::Builder::new()
        .name("refloat-dial".to_owned())
        .spawn(move || {
            let passed = pass(&mut io::stdin().lock(), &mut up);
            let end = if passed.is_ok() { Shutdown::Write } else { Shutdown::Both };
            // A connection that is gone already needs no end.
            let _ = up.shutdown(end);
        })
        .context("no thread could be started")?;
    pass(&mut agent, &mut io::stdout().lock()).context("the connection broke")
}

/// Passes bytes on as they come: the other side waits for them.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(&piece[..length])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

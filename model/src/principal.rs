//! Who asked.

use std::fmt;

/// Who asked for something, as it is kept with every record.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Principal {
    /// Name in the certificate, `root` on the socket, `agent` for what the agent does by itself.
    #[n(0)]
    pub name: String,
    /// How it was proved.
    #[n(1)]
    pub via: Via,
    /// Network address or `local`.
    #[n(2)]
    pub from: String,
}

/// How a principal was proved.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Via {
    /// A client certificate of our authority, by its serial number in hexadecimal.
    #[n(0)]
    Certificate(#[n(0)] String),
    /// The Unix socket, by the peer's user id.
    #[n(1)]
    Socket(#[n(0)] u32),
    /// The agent itself: recovery, retention.
    #[n(2)]
    Agent,
    /// A one-time pairing code.
    #[n(3)]
    PairingCode,
}

impl Principal {
    /// The agent itself.
    #[must_use]
    pub fn agent() -> Self {
        Self { name: "agent".to_owned(), via: Via::Agent, from: "local".to_owned() }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.name, self.from)
    }
}

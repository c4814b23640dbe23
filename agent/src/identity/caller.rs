//! Who is at the other end of a connection, and who that is for one call.
//!
//! [`Peer`] belongs to the connection and is what was proved when it was made. [`Caller`] belongs to one call: a
//! certificate can end, or be taken off the list of clients, while its connection lives.

use std::net::SocketAddr;

use refloat_model::{Client, Principal, Via};

use super::permission::Role;
use super::trust::{ClientCertificate, Presented};

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Over TLS.
    Network {
        /// From where.
        from: SocketAddr,
        /// With which certificate.
        presented: Presented,
    },
    /// Over the Unix socket, which only root and the agent's own user can open.
    Socket {
        /// The peer's user id, by the kernel.
        uid: u32,
        /// The name of that user.
        name: String,
    },
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody we know: no certificate.
    Anonymous,
    /// A certificate of somebody else's authority.
    Foreign,
    /// A certificate of ours that has ended.
    Expired {
        /// The name in it.
        name: String,
    },
    /// A certificate of ours that is not valid yet: one of the two clocks is wrong.
    NotYetValid,
    /// A certificate of ours that is not on the list of clients.
    Unlisted,
    /// A paired client.
    Paired(Known),
    /// Somebody on the server itself.
    Local(Known),
}

/// A caller who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Who, as every record keeps it.
    pub principal: Principal,
    /// What that one may do.
    pub role: Role,
    /// End of the certificate's validity, Unix time in milliseconds; 0 on the socket.
    pub not_after_ms: u64,
}

impl Caller {
    /// Judges a peer for one call. `client` is what the ledger's list says about the certificate's serial number.
    #[must_use]
    pub fn judge(peer: &Peer, client: Option<&Client>, now_ms: u64) -> Self {
        match peer {
            Peer::Socket { uid, name } => {
                let principal = Principal { name: name.clone(), via: Via::Socket(*uid), from: "local".to_owned() };
                Self::Local(Known { principal, role: Role::Admin, not_after_ms: 0 })
            }
            Peer::Network { presented: Presented::Nothing, .. } => Self::Anonymous,
            Peer::Network { presented: Presented::Foreign, .. } => Self::Foreign,
            Peer::Network { from, presented: Presented::Ours(certificate) } => {
                Self::with_certificate(*from, certificate, client, now_ms)
            }
        }
    }

    fn with_certificate(
        from: SocketAddr,
        certificate: &ClientCertificate,
        client: Option<&Client>,
        now_ms: u64,
    ) -> Self {
        // The list knows the role; a role that this version does not know may do nothing.
        let listed = client.filter(|c| c.serial == certificate.serial).and_then(|c| Role::parse(&c.role));
        let Some(role) = listed else {
            return Self::Unlisted;
        };
        if now_ms >= certificate.not_after_ms {
            return Self::Expired { name: certificate.name.clone() };
        }
        if now_ms < certificate.not_before_ms {
            return Self::NotYetValid;
        }
        let principal = Principal {
            name: certificate.name.clone(),
            via: Via::Certificate(certificate.serial.clone()),
            from: from.ip().to_canonical().to_string(),
        };
        Self::Paired(Known { principal, role, not_after_ms: certificate.not_after_ms })
    }

    /// Who, when that is known.
    #[must_use]
    pub fn known(&self) -> Option<&Known> {
        match self {
            Self::Paired(known) | Self::Local(known) => Some(known),
            Self::Anonymous | Self::Foreign | Self::Expired { .. } | Self::NotYetValid | Self::Unlisted => None,
        }
    }
}

/// Longest name of a device in characters.
pub const MAX_NAME_CHARS: usize = 64;

/// Checks the name that a client gives itself: it appears in the history and in a certificate.
///
/// # Errors
/// A sentence for the one who sent it.
pub fn check_name(name: &str) -> Result<&str, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '-' | '_' | '+');
    if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.chars().all(allowed) {
        return Err(format!(
            "the name of the device must be 1 to {MAX_NAME_CHARS} letters, digits, \"@\", \".\", \"-\", \"_\" or \"+\", such as anna@laptop"
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(presented: Presented) -> Peer {
        Peer::Network { from: "[::ffff:192.0.2.1]:5000".parse().unwrap(), presented }
    }

    fn certificate() -> ClientCertificate {
        ClientCertificate { serial: "4a".into(), name: "anna@laptop".into(), not_before_ms: 1_000, not_after_ms: 2_000 }
    }

    fn listed(role: &str) -> Client {
        Client { serial: "4a".into(), name: "anna@laptop".into(), role: role.into(), not_after_ms: 2_000 }
    }

    #[test]
    fn a_certificate_counts_between_its_ends_while_it_is_listed() {
        let peer = network(Presented::Ours(certificate()));
        let admin = listed("admin");
        let judge = |client: Option<&Client>, now_ms| Caller::judge(&peer, client, now_ms);
        let Caller::Paired(known) = judge(Some(&admin), 1_000) else { panic!("must be paired") };
        assert_eq!(known.principal.to_string(), "anna@laptop from 192.0.2.1");
        assert_eq!(known.role, Role::Admin);
        assert_eq!(judge(Some(&admin), 999), Caller::NotYetValid);
        assert_eq!(judge(Some(&admin), 2_000), Caller::Expired { name: "anna@laptop".into() });
        assert_eq!(judge(None, 1_500), Caller::Unlisted);
        assert_eq!(judge(None, 2_500), Caller::Unlisted);
        assert_eq!(judge(Some(&listed("emperor")), 1_500), Caller::Unlisted);
        assert_eq!(judge(Some(&Client { serial: "4b".into(), ..admin.clone() }), 1_500), Caller::Unlisted);
    }

    #[test]
    fn without_a_certificate_of_ours_nobody_is_known() {
        assert_eq!(Caller::judge(&network(Presented::Nothing), None, 0), Caller::Anonymous);
        assert_eq!(Caller::judge(&network(Presented::Foreign), None, 0), Caller::Foreign);
    }

    #[test]
    fn names_of_devices_are_short_and_plain() {
        for good in ["anna@laptop", "ci", "a.b-c_d+e@f"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\nb", "ä", "a/b", "<x>", &"a".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}

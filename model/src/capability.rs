//! What the container of an own Dockerfile or image can be given back of the engine's usual capabilities.
//!
//! Closed on purpose: nothing beyond the engine's usual set has a name here, so that no release can ask for it.

use minicbor::{Decode, Encode};

/// A capability of the engine's usual set that is dropped unless a process asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Capability {
    /// Write to the kernel's audit log: `login`, `sshd`.
    #[n(0)]
    AuditWrite,
    /// Keep the set-user-id bits of a file that is changed.
    #[n(1)]
    Fsetid,
    /// Make device files; which of them may be opened is another matter.
    #[n(2)]
    Mknod,
    /// Raw sockets: `ping`, `tcpdump`.
    #[n(3)]
    NetRaw,
    /// Give capabilities to files.
    #[n(4)]
    Setfcap,
    /// Change the capabilities of a process.
    #[n(5)]
    Setpcap,
    /// Change the root folder of a process.
    #[n(6)]
    SysChroot,
}

impl Capability {
    /// All of them, in their order.
    pub const ALL: [Self; 7] =
        [Self::AuditWrite, Self::Fsetid, Self::Mknod, Self::NetRaw, Self::Setfcap, Self::Setpcap, Self::SysChroot];

    /// The kernel's name without `CAP_`, as engines and `refloat.toml` write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AuditWrite => "AUDIT_WRITE",
            Self::Fsetid => "FSETID",
            Self::Mknod => "MKNOD",
            Self::NetRaw => "NET_RAW",
            Self::Setfcap => "SETFCAP",
            Self::Setpcap => "SETPCAP",
            Self::SysChroot => "SYS_CHROOT",
        }
    }

    /// The one with that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ImageDigest;
    use crate::release::{Backend, Hardening};

    /// A backend as it was before capabilities could be given back.
    #[derive(Encode)]
    enum Before {
        #[n(0)]
        Instance {
            #[n(0)]
            image: ImageDigest,
            #[n(1)]
            command: Vec<String>,
            #[n(2)]
            port: u16,
            #[n(3)]
            hardening: Hardening,
            #[n(4)]
            writable_root: bool,
        },
    }

    fn image() -> ImageDigest {
        ImageDigest::new(format!("sha256:{}", "0".repeat(64))).unwrap()
    }

    fn now(capabilities: Vec<Capability>) -> Vec<u8> {
        let (image, hardening) = (image(), Hardening::Own);
        let backend =
            Backend::Instance { image, command: vec![], port: 80, hardening, writable_root: true, capabilities };
        let bytes = minicbor::to_vec(&backend).unwrap();
        assert_eq!(minicbor::decode::<Backend>(&bytes).unwrap(), backend);
        bytes
    }

    #[test]
    fn a_backend_that_gives_nothing_back_is_encoded_as_before_there_was_anything_to_give() {
        let (image, hardening) = (image(), Hardening::Own);
        let before = Before::Instance { image, command: vec![], port: 80, hardening, writable_root: true };
        assert_eq!(now(vec![]), minicbor::to_vec(&before).unwrap());
        assert_ne!(now(vec![Capability::NetRaw]), now(vec![Capability::SysChroot]));
    }

    #[test]
    fn every_name_is_found_again_and_no_other() {
        for capability in Capability::ALL {
            assert_eq!(Capability::of_name(capability.name()), Some(capability));
        }
        for other in ["SYS_ADMIN", "CAP_NET_RAW", "net_raw", "ALL", ""] {
            assert_eq!(Capability::of_name(other), None);
        }
    }
}

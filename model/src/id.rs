//! Names and digests as validated newtypes: nothing that reaches Docker, a path or a header is a bare `String`.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

/// Longest app name in bytes: leaves room in a 63-byte DNS label for `-PROCESS` and a hash.
pub const MAX_APP_NAME_BYTES: usize = 40;
/// Longest process name in bytes.
pub const MAX_PROCESS_NAME_BYTES: usize = 20;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} \"{given}\" is not usable: use 1 to {max_bytes} lowercase letters, digits and hyphens, starting with a letter and not ending with a hyphen"
)]
pub struct NameError {
    /// Which kind of name.
    pub what: &'static str,
    /// What was given, shortened to 80 characters.
    pub given: String,
    /// The limit in bytes.
    pub max_bytes: usize,
}

fn check_label(what: &'static str, given: &str, max_bytes: usize) -> Result<(), NameError> {
    let bytes = given.as_bytes();
    let ok = !bytes.is_empty()
        && bytes.len() <= max_bytes
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if ok { Ok(()) } else { Err(NameError { what, given: given.chars().take(80).collect(), max_bytes }) }
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] String);

        impl $name {
            /// Validates a name.
            ///
            /// # Errors
            /// When it is not an RFC 1123 label that starts with a letter and fits the limit.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check_label($what, &name, $max)?;
                Ok(Self(name))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::new(d.str()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label!(
    /// The name of an app: the unit of mutual exclusion.
    AppName, "the app name", MAX_APP_NAME_BYTES
);
label!(
    /// The name of one process of an app.
    ProcessName, "the process name", MAX_PROCESS_NAME_BYTES
);

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

        impl $name {
            /// The first eight hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                hex(&self.0[..4])
            }

            /// All 64 hexadecimal digits without a prefix, for file names.
            #[must_use]
            pub fn to_hex(&self) -> String {
                hex(&self.0)
            }

            /// Reads 64 lowercase hexadecimal digits.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }

            /// Reads 32 bytes.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, ":{}"), hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, ":{}"), self.short())
            }
        }
    };
}

digest!(
    /// Identity of a release: author and parent included.
    ReleaseId, "release"
);
digest!(
    /// Identity of what a release runs, without author and parent: answers "unchanged?".
    ContentId, "content"
);
digest!(
    /// Root of the Merkle tree of the uploaded source.
    SourceDigest, "source"
);
digest!(
    /// The build plan that the agent followed.
    PlanDigest, "plan"
);
digest!(
    /// Root of a published tree of static files.
    TreeDigest, "tree"
);
digest!(
    /// Keyed hash over the names and sealed values of one environment: equal when nothing changed, and useless for guessing.
    EnvId, "env"
);
digest!(
    /// Digest of a whole route table.
    TableDigest, "table"
);

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

/// Config digest of an image (`sha256:…`): the same under every image store of Docker, which the manifest digest is not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct ImageDigest(#[n(0)] String);

impl ImageDigest {
    /// Validates `sha256:` and 64 lowercase hexadecimal digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let ok = text.strip_prefix("sha256:").and_then(parse_hex).is_some();
        if ok {
            Ok(Self(text))
        } else {
            Err(NameError { what: "the image digest", given: text.chars().take(80).collect(), max_bytes: 71 })
        }
    }

    /// The digest with its `sha256:` prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'b, C> Decode<'b, C> for ImageDigest {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.str()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[..self.0.len().min(15)])
    }
}

/// Name of one container: `refloat-APP-PROCESS-HASH8`, where the hash covers the runtime specification and the attempt.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct InstanceName(#[n(0)] String);

impl InstanceName {
    /// Derives the name, so that creating the same instance twice is one instance.
    #[must_use]
    pub fn derive(app: &AppName, process: &ProcessName, runtime_spec: &[u8; 32], attempt: u32) -> Self {
        let mut bytes = runtime_spec.to_vec();
        bytes.extend_from_slice(&attempt.to_be_bytes());
        let digest = crate::canonical::domain_digest("refloat instance 1", &bytes);
        Self(format!("refloat-{app}-{process}-{}", hex(&digest[..4])))
    }

    /// Takes a name that was read back from Docker or a record.
    ///
    /// # Errors
    /// When it does not start with `refloat-` or has a character that no derived name has.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let ok = text.starts_with("refloat-")
            && text.len() <= 96
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError { what: "the instance name", given: text.chars().take(80).collect(), max_bytes: 96 })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of a release, per app, from 1: `r42`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ReleaseNumber(#[n(0)] pub u32);

impl ReleaseNumber {
    /// The first release of an app.
    pub const FIRST: Self = Self(1);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl FromStr for ReleaseNumber {
    type Err = NameError;
    /// Reads `r42` or `42`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix('r').unwrap_or(text);
        match digits.parse::<u32>() {
            Ok(n) if n > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(Self(n)),
            _ => Err(NameError { what: "the release", given: text.chars().take(80).collect(), max_bytes: 11 }),
        }
    }
}

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Debug for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Identity of one deployment: the client's UUID of the mutation, so that a retry names the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct DeploymentId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl DeploymentId {
    /// Reads the 16 bytes of a UUID.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads a hyphenated UUID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let compact: String = text.chars().filter(|c| *c != '-').collect();
        let padded = format!("{compact}{compact}");
        let bytes = parse_hex(&padded.to_ascii_lowercase())?;
        Self::from_slice(&bytes[..16])
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = hex(&self.0);
        write!(f, "{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
    }
}

impl fmt::Debug for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..4]))
    }
}

/// Identity of one run of a command: the client's UUID of the mutation, so that a retry names the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct OneOffId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Debug for OneOffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..4]))
    }
}

/// Rises when a ledger is restored from a copy, so that a table of the lost future never outranks a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
#[cbor(transparent)]
pub struct Epoch(#[n(0)] pub u32);

/// Version of the route table. Ordered by epoch, then by number; never decreasing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
pub struct Generation {
    /// The ledger's epoch.
    #[n(0)]
    pub epoch: Epoch,
    /// Rises by one with every commit.
    #[n(1)]
    pub number: u64,
}

impl Generation {
    /// The generation of the next commit.
    #[must_use]
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, number: self.number.saturating_add(1) }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_names_are_rfc_1123_labels_of_at_most_40_bytes() {
        for good in ["a", "my-app", "a1", &"a".repeat(40)] {
            assert!(AppName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "1a", "A", "a_b", "a.b", "a b", "a/b", "ä", &"a".repeat(41)] {
            assert!(AppName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn release_numbers_read_with_and_without_the_r_and_refuse_all_else() {
        assert_eq!("r42".parse(), Ok(ReleaseNumber(42)));
        assert_eq!("42".parse(), Ok(ReleaseNumber(42)));
        for bad in ["", "r", "r0", "0", "rr1", "+1", "r-1", "r1x", "4294967296"] {
            assert!(bad.parse::<ReleaseNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn deployment_ids_read_what_they_print() {
        let id = DeploymentId([7; 16]);
        assert_eq!(DeploymentId::parse(&id.to_string()), Some(id));
        assert_eq!(DeploymentId::parse("nonsense"), None);
    }

    #[test]
    fn an_instance_name_depends_on_every_part() {
        let app = AppName::new("app").unwrap();
        let web = ProcessName::new("web").unwrap();
        let api = ProcessName::new("api").unwrap();
        let names = [
            InstanceName::derive(&app, &web, &[1; 32], 0),
            InstanceName::derive(&app, &api, &[1; 32], 0),
            InstanceName::derive(&app, &web, &[2; 32], 0),
            InstanceName::derive(&app, &web, &[1; 32], 1),
        ];
        for (i, a) in names.iter().enumerate() {
            assert!(InstanceName::parse(a.as_str()).is_ok());
            for b in &names[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert_eq!(InstanceName::derive(&app, &web, &[1; 32], 0), names[0]);
    }

    #[test]
    fn a_generation_of_a_later_epoch_outranks_any_number_of_an_earlier_one() {
        let old = Generation { epoch: Epoch(1), number: 900 };
        let new = Generation { epoch: Epoch(2), number: 1 };
        assert!(new > old && old.next() > old);
    }
}

//! What the container of an own Dockerfile may do beyond an unprivileged one: what it always gets, and what
//! `refloat.toml` can give back of the engine's usual set. Nothing beyond that set can be asked for.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// What every own Dockerfile or image keeps of the engine's usual set, as engines name it.
pub const KEPT: [&str; 7] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL", "NET_BIND_SERVICE"];

/// What is dropped of the engine's usual set and can be given back.
pub const DROPPED: [&str; 7] = ["AUDIT_WRITE", "FSETID", "MKNOD", "NET_RAW", "SETFCAP", "SETPCAP", "SYS_CHROOT"];

/// All that the container of an own Dockerfile has when it is given these back.
#[must_use]
pub fn all_of(given_back: &[Capability]) -> Vec<&str> {
    KEPT.into_iter().chain(given_back.iter().map(Capability::as_str)).collect()
}

/// How near a name must be to be offered: Jaro-Winkler, where 1 is equal.
const NEAR: f64 = 0.85;

/// One of [`DROPPED`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(try_from = "String")]
#[cbor(transparent)]
pub struct Capability(#[n(0)] String);

impl Capability {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Capability {
    type Error = String;

    fn try_from(written: String) -> Result<Self, String> {
        let upper = written.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if DROPPED.contains(&name) {
            return Ok(Self(name.to_owned()));
        }
        if KEPT.contains(&name) {
            return Err(format!("the capability {name} need not be given back: every own Dockerfile has it"));
        }
        let score = |known: &&'static str| (strsim::jaro_winkler(name, known), *known);
        let near = DROPPED.iter().map(score).max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score >= NEAR);
        let near = near.map(|(_, known)| format!("did you mean {known}? ")).unwrap_or_default();
        Err(format!("\"{written}\" is no capability that can be given back; {near}there are {}", DROPPED.join(", ")))
    }
}

//! One-time pairing codes: a random secret, then half of the authority's fingerprint, so that the client recognises the
//! server before it trusts it.
//!
//! Only a hash of the secret is kept, in one file: a restart of the agent between `pair` on the server and `pair` on the
//! laptop harms nothing. There is one code at a time. A wrong attempt costs the address one of its attempts and never
//! burns the code: whoever guesses cannot keep the owner out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::authority::{SHORT_FINGERPRINT_BYTES, random};
use crate::durable;

/// How long a code can be used, in milliseconds.
pub const CODE_VALID_MS: u64 = 15 * 60_000;
const SECRET_BYTES: usize = 16;
const GROUP: usize = 4;
const FILE: &str = "pairing.json";
const HASH_DOMAIN: &str = "refloat pairing code 1";

/// The one code that can be used now.
#[derive(Debug)]
pub struct Pairing {
    path: PathBuf,
    /// Held while the file is read and replaced, so that a code is used once.
    turn: Mutex<()>,
}

/// A new code, for the one who asked; it is shown once.
#[derive(Debug)]
pub struct NewCode {
    /// Lowercase base32 in groups of four.
    pub text: String,
    /// Until when it can be used, Unix time in milliseconds.
    pub not_after_ms: u64,
}

/// Why a code was not taken. Wrong, used and expired look alike from outside: nobody learns which codes there were.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// Not a code at all.
    #[error("that is not a pairing code: a code has 13 groups of 4 letters and digits, such as abcd-efgh-…")]
    Malformed,
    /// It belongs to another server.
    #[error("that code was made by another server")]
    OtherServer,
    /// Wrong, used or expired.
    #[error("that code cannot be used: it is mistyped, was used already, or is older than 15 minutes")]
    NotAccepted,
    /// The file cannot be read or written.
    #[error("the pairing code cannot be read or written in {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Kept {
    hash: String,
    not_after_ms: u64,
}

impl Pairing {
    /// The code of this directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join(FILE), turn: Mutex::new(()) }
    }

    /// Makes a new code; the one before stops working.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn create(&self, fingerprint: [u8; SHORT_FINGERPRINT_BYTES], now_ms: u64) -> Result<NewCode, PairingError> {
        let secret: [u8; SECRET_BYTES] = random();
        let not_after_ms = now_ms.saturating_add(CODE_VALID_MS);
        let kept = Kept { hash: hash(&secret).to_hex().to_string(), not_after_ms };
        let bytes = serde_json::to_vec(&kept).map_err(|e| self.file(e.into()))?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        durable::replace(&self.path, &bytes, 0o600).map_err(|e| self.file(e))?;
        Ok(NewCode { text: show(&secret, &fingerprint), not_after_ms })
    }

    /// Uses a code up: it is gone, durably, when this answers.
    ///
    /// # Errors
    /// When it cannot be used; the code that is kept stays as it is.
    pub fn redeem(
        &self,
        text: &str,
        fingerprint: [u8; SHORT_FINGERPRINT_BYTES],
        now_ms: u64,
    ) -> Result<(), PairingError> {
        let (secret, of) = read(text).ok_or(PairingError::Malformed)?;
        if of != fingerprint {
            return Err(PairingError::OtherServer);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.kept()?.ok_or(PairingError::NotAccepted)?;
        let expected = blake3::Hash::from_hex(&kept.hash).map_err(|_| PairingError::NotAccepted)?;
        // `blake3::Hash` compares in constant time.
        if hash(&secret) != expected || now_ms >= kept.not_after_ms {
            return Err(PairingError::NotAccepted);
        }
        durable::remove(&self.path).map_err(|e| self.file(e))
    }

    fn kept(&self) -> Result<Option<Kept>, PairingError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| self.file(e.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.file(error)),
        }
    }

    fn file(&self, source: io::Error) -> PairingError {
        PairingError::File { path: self.path.clone(), source }
    }
}

fn hash(secret: &[u8]) -> blake3::Hash {
    blake3::Hash::from_bytes(blake3::derive_key(HASH_DOMAIN, secret))
}

fn show(secret: &[u8], fingerprint: &[u8]) -> String {
    let text = data_encoding::BASE32_NOPAD.encode(&[secret, fingerprint].concat()).to_ascii_lowercase();
    let groups: Vec<&str> = text.as_bytes().chunks(GROUP).filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join("-")
}

/// Reads a code as people type it: any case, hyphens and spaces anywhere.
fn read(text: &str) -> Option<([u8; SECRET_BYTES], [u8; SHORT_FINGERPRINT_BYTES])> {
    if text.len() > 256 {
        return None;
    }
    let plain: String = text.chars().filter(|c| *c != '-' && !c.is_whitespace()).collect();
    let bytes = data_encoding::BASE32_NOPAD.decode(plain.to_ascii_uppercase().as_bytes()).ok()?;
    let (secret, fingerprint) = bytes.split_at_checked(SECRET_BYTES)?;
    Some((secret.try_into().ok()?, fingerprint.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const OURS: [u8; 16] = [7; 16];

    fn with_code() -> (tempfile::TempDir, Pairing, String) {
        let dir = tempfile::tempdir().unwrap();
        let pairing = Pairing::new(dir.path());
        let code = pairing.create(OURS, NOW_MS).unwrap();
        assert_eq!(code.not_after_ms, NOW_MS + CODE_VALID_MS);
        (dir, pairing, code.text)
    }

    #[test]
    fn a_code_is_used_once_however_it_is_typed() {
        let (_dir, pairing, code) = with_code();
        assert_eq!(code.split('-').map(str::len).collect::<Vec<_>>(), [4; 13]);
        let typed = format!(" {} ", code.to_ascii_uppercase().replace('-', " "));
        pairing.redeem(&typed, OURS, NOW_MS).unwrap();
        assert!(matches!(pairing.redeem(&code, OURS, NOW_MS), Err(PairingError::NotAccepted)));
    }

    #[test]
    fn a_wrong_attempt_does_not_burn_the_code() {
        let (_dir, pairing, code) = with_code();
        let first = if code.starts_with('a') { "b" } else { "a" };
        let wrong = format!("{first}{}", &code[1..]);
        assert!(matches!(pairing.redeem(&wrong, OURS, NOW_MS), Err(PairingError::NotAccepted)));
        assert!(matches!(pairing.redeem(&code, [8; 16], NOW_MS), Err(PairingError::OtherServer)));
        for malformed in ["", "abcd", "1111-1111", &"a".repeat(300)] {
            assert!(matches!(pairing.redeem(malformed, OURS, NOW_MS), Err(PairingError::Malformed)));
        }
        pairing.redeem(&code, OURS, NOW_MS).unwrap();
    }

    #[test]
    fn a_code_ends_after_fifteen_minutes_and_with_the_next_one() {
        let (_dir, pairing, code) = with_code();
        let late = NOW_MS + CODE_VALID_MS;
        assert!(matches!(pairing.redeem(&code, OURS, late), Err(PairingError::NotAccepted)));
        let next = pairing.create(OURS, NOW_MS).unwrap();
        assert!(matches!(pairing.redeem(&code, OURS, NOW_MS), Err(PairingError::NotAccepted)));
        pairing.redeem(&next.text, OURS, late - 1).unwrap();
    }

    #[test]
    fn a_code_survives_a_restart_and_only_its_hash_is_on_disk() {
        let (dir, pairing, code) = with_code();
        drop(pairing);
        let file = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let (secret, _) = read(&code).unwrap();
        assert!(!file.contains(&data_encoding::HEXLOWER.encode(&secret)));
        Pairing::new(dir.path()).redeem(&code, OURS, NOW_MS).unwrap();
    }

    #[test]
    fn of_many_at_once_exactly_one_gets_the_code() {
        let (_dir, pairing, code) = with_code();
        let taken = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8).map(|_| scope.spawn(|| pairing.redeem(&code, OURS, NOW_MS).is_ok())).collect();
            tries.into_iter().map(|t| t.join().unwrap()).filter(|ok| *ok).count()
        });
        assert_eq!(taken, 1);
    }
}

//! The root key and the files under it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use refloat_model::{AppName, EnvId, EnvVariable};
use zeroize::Zeroizing;

use crate::durable;

/// Largest value: the kernel takes no single variable above 128 KiB, name included.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Name of a value's file.
pub type SealedId = [u8; 16];
/// Keyed hash of a value.
pub type Fingerprint = [u8; 32];

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = KEY_BYTES + TAG_BYTES;
/// Version, nonce and wrapped key, nonce.
const HEADER_BYTES: usize = 1 + NONCE_BYTES + WRAPPED_BYTES + NONCE_BYTES;
const VERSION: u8 = 1;

/// Why a value was not sealed or opened. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// There is no root key.
    #[error("there is no root key in {path}: run refloatd init")]
    NoRootKey {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is one, and it is not replaced: every sealed value would be lost.
    #[error("{path} is there already")]
    RootKeyExists {
        /// The key.
        path: PathBuf,
    },
    /// Others than its owner may read the root key.
    #[error("{path} has mode {mode:03o}: others can read it. Run chmod 600 {path}")]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The operating system refused.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written for this app, variable and id, or it is under another root key.
    #[error(
        "the sealed value of {name} cannot be opened: its file is damaged or belongs to another variable or root key. Set it again with refloat env set {name}=…"
    )]
    Damaged {
        /// The variable.
        name: String,
    },
    /// No container could be given this value.
    #[error("the value of {name} cannot be kept: {why}")]
    Unusable {
        /// The variable.
        name: String,
        /// Why, without the value.
        why: &'static str,
    },
}

/// Where a value is and what tells it from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Name of its file: random.
    pub id: SealedId,
    /// Keyed hash over app, variable and value.
    pub fingerprint: Fingerprint,
}

/// The root key with the folder of values under it. Not `Debug`.
pub struct Vault {
    folder: PathBuf,
    wrapping: Zeroizing<[u8; KEY_BYTES]>,
    fingerprinting: Zeroizing<[u8; KEY_BYTES]>,
    naming: Zeroizing<[u8; KEY_BYTES]>,
}

impl Vault {
    /// Makes a root key in a folder that has none.
    ///
    /// # Errors
    /// When there is one, or it cannot be made durable.
    pub fn create(folder: &Path) -> Result<Self, SealedError> {
        let path = root_key(folder);
        for folder in [folder, &values(folder)] {
            durable::make_dir(folder, 0o700).map_err(io_error("create", folder))?;
        }
        let key = Zeroizing::new(random::<KEY_BYTES>().map_err(io_error("get random bytes for", &path))?);
        let new = path.with_extension("key.new");
        let written = durable::replace(&new, key.as_slice(), 0o600)
            // Unlike a rename, a link never replaces what is there.
            .and_then(|()| fs::hard_link(&new, &path))
            .and_then(|()| durable::remove(&new));
        match written {
            Ok(()) => Ok(Self::under(folder, &key)),
            Err(error) => {
                // The cause is what counts; the key that stays behind is used by nobody and overwritten next time.
                let _ = fs::remove_file(&new);
                Err(match error.kind() {
                    io::ErrorKind::AlreadyExists => SealedError::RootKeyExists { path },
                    _ => SealedError::Io { action: "create", path, source: error },
                })
            }
        }
    }

    /// Opens a folder that has a root key.
    ///
    /// # Errors
    /// When it has none, or others than its owner may read it.
    pub fn open(folder: &Path) -> Result<Self, SealedError> {
        let path = root_key(folder);
        let bytes = match fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SealedError::NoRootKey { path }),
            Err(source) => return Err(SealedError::Io { action: "read", path, source }),
        };
        let mode = fs::metadata(&path).map_err(io_error("read", &path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SealedError::Exposed { path, mode });
        }
        let key: &[u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| SealedError::Io {
            action: "read",
            path,
            source: io::Error::new(io::ErrorKind::InvalidData, "a root key has 32 bytes"),
        })?;
        Ok(Self::under(folder, key))
    }

    fn under(folder: &Path, root: &[u8; KEY_BYTES]) -> Self {
        let subkey = |context| Zeroizing::new(blake3::derive_key(context, root));
        Self {
            folder: folder.to_owned(),
            wrapping: subkey("refloat sealed value key 1"),
            fingerprinting: subkey("refloat sealed value fingerprint 1"),
            naming: subkey("refloat environment id 1"),
        }
    }

    /// Keeps a value; durable when this answers.
    ///
    /// # Errors
    /// When it is too long, holds a zero byte, or cannot be made durable.
    pub fn seal(&self, app: &AppName, name: &str, value: &str) -> Result<Sealed, SealedError> {
        usable(name, value)?;
        let sealed = self.encrypt(app, name, value).map_err(io_error("get random bytes in", &self.folder))?;
        let (id, bytes) = sealed.ok_or_else(|| damaged(name))?;
        let path = self.file(&id);
        durable::replace(&path, &bytes, 0o600).map_err(io_error("write", &path))?;
        Ok(Sealed { id, fingerprint: self.fingerprint(app, name, value) })
    }

    /// Opens the value that was sealed for this app and variable under this id.
    ///
    /// # Errors
    /// When it is gone, damaged or another one.
    pub fn open_value(&self, app: &AppName, id: &SealedId, name: &str) -> Result<Zeroizing<String>, SealedError> {
        let path = self.file(id);
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        self.decrypt(app, name, id, &bytes).ok_or_else(|| damaged(name))
    }

    /// Destroys a value: its key is overwritten, then its file goes. One that is gone is fine.
    ///
    /// # Errors
    /// When it cannot be overwritten or removed.
    pub fn erase(&self, id: &SealedId) -> Result<(), SealedError> {
        let path = self.file(id);
        match OpenOptions::new().write(true).open(&path) {
            Ok(mut file) => {
                let zeros = file.write_all(&[0; HEADER_BYTES]).and_then(|()| file.sync_all());
                zeros.map_err(io_error("overwrite", &path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("open", &path)(error)),
        }
        durable::remove(&path).map_err(io_error("remove", &path))
    }

    /// Every value that is kept.
    #[cfg(test)]
    pub(super) fn ids(&self) -> Result<Vec<SealedId>, SealedError> {
        let folder = values(&self.folder);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
            let name = entry.map_err(io_error("list", &folder))?.file_name();
            let bytes = HEXLOWER.decode(name.as_encoded_bytes()).ok();
            ids.extend(bytes.and_then(|bytes| SealedId::try_from(bytes).ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Keyed hash of a value: equal for equal values of one variable of one app, and of nothing else.
    #[must_use]
    pub fn fingerprint(&self, app: &AppName, name: &str, value: &str) -> Fingerprint {
        keyed(&self.fingerprinting, &[app.as_str().as_bytes(), name.as_bytes(), value.as_bytes()])
    }

    /// Identity of an environment: keyed hash over the names and fingerprints of its variables, sorted by name.
    #[must_use]
    pub fn env_id(&self, app: &AppName, variables: &[EnvVariable]) -> EnvId {
        let mut parts = vec![app.as_str().as_bytes()];
        for variable in variables {
            parts.extend([variable.name.as_bytes(), variable.fingerprint.as_slice()]);
        }
        EnvId(keyed(&self.naming, &parts))
    }

    /// A new id and the bytes of its file; `None` when the cipher refuses, which it does for absurd lengths only.
    fn encrypt(&self, app: &AppName, name: &str, value: &str) -> io::Result<Option<(SealedId, Vec<u8>)>> {
        let id: SealedId = random()?;
        let key = Zeroizing::new(random::<KEY_BYTES>()?);
        let (wrap_nonce, nonce) = (random::<NONCE_BYTES>()?, random::<NONCE_BYTES>()?);
        let aad = context(app, name, &id);
        let wrapped = cipher(&self.wrapping).encrypt(&XNonce::from(wrap_nonce), payload(key.as_slice(), &aad));
        let text = cipher(&key).encrypt(&XNonce::from(nonce), payload(value.as_bytes(), &aad));
        let (Ok(wrapped), Ok(text)) = (wrapped, text) else { return Ok(None) };
        let parts: [&[u8]; 5] = [&[VERSION], &wrap_nonce, &wrapped, &nonce, &text];
        Ok(Some((id, parts.concat())))
    }

    fn decrypt(&self, app: &AppName, name: &str, id: &SealedId, bytes: &[u8]) -> Option<Zeroizing<String>> {
        let ([version], rest) = bytes.split_first_chunk::<1>()?;
        let (wrap_nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (wrapped, rest) = rest.split_first_chunk::<WRAPPED_BYTES>()?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>()?;
        if *version != VERSION {
            return None;
        }
        let aad = context(app, name, id);
        let key = cipher(&self.wrapping).decrypt(&XNonce::from(*wrap_nonce), payload(wrapped, &aad)).ok()?;
        let key = Zeroizing::new(key);
        let key = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(key.as_slice()).ok()?);
        let value = cipher(&key).decrypt(&XNonce::from(*nonce), payload(text, &aad)).ok()?;
        // On failure the bytes are wiped with the error's copy of them.
        String::from_utf8(value).map(Zeroizing::new).map_err(|error| Zeroizing::new(error.into_bytes())).ok()
    }

    fn file(&self, id: &SealedId) -> PathBuf {
        values(&self.folder).join(HEXLOWER.encode(id))
    }
}

fn root_key(folder: &Path) -> PathBuf {
    folder.join("root.key")
}

fn values(folder: &Path) -> PathBuf {
    folder.join("values")
}

fn usable(name: &str, value: &str) -> Result<(), SealedError> {
    let why = match value {
        v if v.len() > MAX_VALUE_BYTES => "it is longer than 64 KiB. Keep large data in a file or a volume",
        v if v.contains('\0') => "it holds a zero byte, which no environment variable can",
        _ => return Ok(()),
    };
    Err(SealedError::Unusable { name: name.to_owned(), why })
}

fn damaged(name: &str) -> SealedError {
    SealedError::Damaged { name: name.to_owned() }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SealedError {
    let path = path.to_owned();
    move |source| SealedError::Io { action, path, source }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn cipher(key: &[u8; KEY_BYTES]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(*key))
}

fn payload<'a>(msg: &'a [u8], aad: &'a [u8]) -> Payload<'a, 'a> {
    Payload { msg, aad }
}

/// What a value is bound to.
fn context(app: &AppName, name: &str, id: &SealedId) -> Vec<u8> {
    let parts: [&[u8]; 4] = [b"refloat sealed value 1", app.as_str().as_bytes(), name.as_bytes(), id];
    parts.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes(), *part].concat()).collect()
}

/// Keyed BLAKE3 over parts, each behind its length, so that no two lists of parts are the same bytes.
fn keyed(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault() -> (tempfile::TempDir, Vault) {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(&folder.path().join("sealed")).unwrap();
        (folder, vault)
    }

    fn app(name: &str) -> AppName {
        AppName::new(name).unwrap()
    }

    fn files_below(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn a_sealed_value_opens_again_also_after_a_restart() {
        let (folder, vault) = vault();
        let long = "ü".repeat(MAX_VALUE_BYTES / 2);
        for value in ["postgres://u:p@db/x", "", long.as_str()] {
            let sealed = vault.seal(&app("shop"), "DATABASE_URL", value).unwrap();
            let again = Vault::open(&folder.path().join("sealed")).unwrap();
            assert_eq!(again.open_value(&app("shop"), &sealed.id, "DATABASE_URL").unwrap().as_str(), value);
            assert_eq!(again.fingerprint(&app("shop"), "DATABASE_URL", value), sealed.fingerprint);
        }
    }

    #[test]
    fn no_file_holds_a_value_and_every_file_is_for_its_owner_only() {
        let (folder, vault) = vault();
        let canary = "canary-7f3a91c2e5";
        vault.seal(&app("shop"), "API_KEY", canary).unwrap();
        let files = files_below(folder.path());
        assert_eq!(files.len(), 2, "{files:?}");
        for file in files {
            let bytes = fs::read(&file).unwrap();
            assert!(!bytes.windows(canary.len()).any(|w| w == canary.as_bytes()), "{file:?}");
            assert!(!file.to_string_lossy().contains("API_KEY"));
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn a_value_opens_only_for_its_own_app_variable_and_id() {
        let (_folder, vault) = vault();
        let one = vault.seal(&app("shop"), "A", "1").unwrap();
        let two = vault.seal(&app("shop"), "B", "2").unwrap();
        assert!(vault.open_value(&app("blog"), &one.id, "A").is_err());
        assert!(vault.open_value(&app("shop"), &one.id, "B").is_err());
        fs::copy(vault.file(&one.id), vault.file(&two.id)).unwrap();
        assert!(vault.open_value(&app("shop"), &two.id, "A").is_err());
        assert_eq!(vault.open_value(&app("shop"), &one.id, "A").unwrap().as_str(), "1");
    }

    #[test]
    fn every_flipped_or_missing_byte_is_damage() {
        let (_folder, vault) = vault();
        let sealed = vault.seal(&app("shop"), "A", "value").unwrap();
        let bytes = fs::read(vault.file(&sealed.id)).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(vault.decrypt(&app("shop"), "A", &sealed.id, &flipped).is_none(), "{at}");
            assert!(vault.decrypt(&app("shop"), "A", &sealed.id, &bytes[..at]).is_none(), "{at}");
        }
    }

    #[test]
    fn an_erased_value_is_gone_and_erasing_again_is_fine() {
        let (_folder, vault) = vault();
        let sealed = vault.seal(&app("shop"), "A", "value").unwrap();
        let other = vault.seal(&app("shop"), "B", "value").unwrap();
        let linked = vault.folder.join("linked");
        fs::hard_link(vault.file(&sealed.id), &linked).unwrap();
        vault.erase(&sealed.id).unwrap();
        vault.erase(&sealed.id).unwrap();
        assert_eq!(vault.ids().unwrap(), [other.id]);
        assert!(vault.open_value(&app("shop"), &sealed.id, "A").is_err());
        let left = fs::read(linked).unwrap();
        assert!(vault.decrypt(&app("shop"), "A", &sealed.id, &left).is_none(), "its key must be overwritten");
    }

    #[test]
    fn equal_values_share_a_fingerprint_within_one_variable_and_nothing_else() {
        let (_folder, vault) = vault();
        let (_other_folder, other) = self::vault();
        let print = vault.fingerprint(&app("shop"), "A", "1");
        assert_eq!(vault.seal(&app("shop"), "A", "1").unwrap().fingerprint, print);
        assert_ne!(vault.fingerprint(&app("blog"), "A", "1"), print);
        assert_ne!(vault.fingerprint(&app("shop"), "B", "1"), print);
        assert_ne!(vault.fingerprint(&app("shop"), "A", "2"), print);
        assert_ne!(other.fingerprint(&app("shop"), "A", "1"), print, "another root key");
        assert_ne!(vault.fingerprint(&app("shop"), "AB", ""), vault.fingerprint(&app("shop"), "A", "B"));
    }

    #[test]
    fn a_root_key_is_never_replaced_and_never_made_by_opening() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Vault::open(folder.path()), Err(SealedError::NoRootKey { .. })));
        let vault = Vault::create(folder.path()).unwrap();
        let sealed = vault.seal(&app("shop"), "A", "1").unwrap();
        assert!(matches!(Vault::create(folder.path()), Err(SealedError::RootKeyExists { .. })));
        assert!(Vault::open(folder.path()).unwrap().open_value(&app("shop"), &sealed.id, "A").is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays");
    }

    #[test]
    fn a_root_key_that_others_can_read_is_refused() {
        let (folder, vault) = vault();
        drop(vault);
        let path = root_key(&folder.path().join("sealed"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Vault::open(&folder.path().join("sealed")).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn values_that_no_container_could_get_are_refused_without_being_shown() {
        let (_folder, vault) = vault();
        for value in ["secret\0value".to_owned(), "x".repeat(MAX_VALUE_BYTES + 1)] {
            let error = vault.seal(&app("shop"), "A", &value).unwrap_err();
            assert!(!error.to_string().contains("secret") && !error.to_string().contains("xxx"));
        }
        assert_eq!(vault.ids().unwrap(), Vec::<SealedId>::new());
    }
}

//! The agent's own certificate authority: made once, signs the server's certificate and the clients'.
//!
//! Each certificate lies in one file together with its key, so that a crash never leaves a pair that does not match.
//! The name in the server's certificate is fixed and independent of the address: a server that moves stays trusted.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::durable;

/// The name that clients expect in the server's certificate, whatever address they call.
pub const SERVER_NAME: &str = "agent.refloat.internal";
/// How long a client's certificate is valid, in milliseconds.
pub const CLIENT_VALID_MS: u64 = 90 * DAY_MS;
/// Bytes of the authority's fingerprint that a pairing code carries.
pub const SHORT_FINGERPRINT_BYTES: usize = 16;

const DAY_MS: u64 = 24 * 3_600_000;
const AUTHORITY_VALID_DAYS: i64 = 3_653;
const SERVER_VALID_DAYS: i64 = 365;
/// A clock that is behind ours by up to this much still accepts what we issue.
const BACKDATED: Duration = Duration::HOUR;
const AUTHORITY_FILE: &str = "authority.pem";
const SERVER_FILE: &str = "server.pem";

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing was made yet.
    #[error("there is no certificate authority in {}", .0.display())]
    NotInitialised(PathBuf),
    /// A file cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} does not hold a certificate and its key: {what}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Making or signing a certificate failed.
    #[error("the certificate could not be made")]
    Signing(#[from] rcgen::Error),
    /// A time that no certificate can hold.
    #[error("the server's clock is not usable: {0} ms since 1970")]
    Clock(u64),
}

/// The authority with the server's current certificate.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    server: (CertificateDer<'static>, KeyPair),
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A client's new certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate in PEM.
    pub pem: String,
    /// Its serial number in lowercase hexadecimal.
    pub serial: String,
    /// End of validity, Unix time in milliseconds.
    pub not_after_ms: u64,
}

impl Authority {
    /// Makes the authority in a directory that exists, or opens it when it is there.
    ///
    /// # Errors
    /// When a file cannot be read or written, or does not hold what it should.
    pub fn create(dir: &Path, now_ms: u64) -> Result<Self, AuthorityError> {
        let path = dir.join(AUTHORITY_FILE);
        if !path.exists() {
            let key = KeyPair::generate()?;
            let certificate = authority_params(now_ms)?.self_signed(&key)?;
            write_pair(&path, certificate.der(), &key)?;
        }
        Self::open(dir, now_ms)
    }

    /// Opens what [`Authority::create`] made, and renews the server's certificate when less than a third of it is left.
    ///
    /// # Errors
    /// When there is no authority, or a file cannot be read or written or does not hold what it should.
    pub fn open(dir: &Path, now_ms: u64) -> Result<Self, AuthorityError> {
        let path = dir.join(AUTHORITY_FILE);
        if !path.exists() {
            return Err(AuthorityError::NotInitialised(dir.to_owned()));
        }
        let (certificate, key) = read_pair(&path)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|e| AuthorityError::Damaged { path, what: e.to_string() })?;
        let server = server_pair(&dir.join(SERVER_FILE), &certificate, &issuer, now_ms)?;
        Ok(Self { certificate, issuer, server })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The authority's certificate in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        pem(&self.certificate)
    }

    /// What a pairing code carries of the authority: the first half of the BLAKE3 of its certificate.
    #[must_use]
    pub fn short_fingerprint(&self) -> [u8; SHORT_FINGERPRINT_BYTES] {
        short_fingerprint(&self.certificate)
    }

    /// The server's certificate, then the authority's: a client that pairs compares the second with its code.
    #[must_use]
    pub fn server_chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.server.0.clone(), self.certificate.clone()]
    }

    /// The key of the server's certificate.
    #[must_use]
    pub fn server_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.server.1.serialize_der()).into()
    }

    /// Signs a client's request under a name that was validated. Nothing of the request counts but its public key.
    ///
    /// # Errors
    /// When the clock is unusable or signing fails.
    pub fn issue(&self, request: &ClientRequest, name: &str, now_ms: u64) -> Result<Issued, AuthorityError> {
        let serial = random_serial();
        let not_after_ms = now_ms.saturating_add(CLIENT_VALID_MS);
        let mut params = params(name, now_ms)?;
        params.not_after = at(not_after_ms)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&request.0.public_key, &self.issuer)?;
        let serial = data_encoding::HEXLOWER.encode(&serial);
        // A certificate holds whole seconds.
        Ok(Issued { pem: certificate.pem(), serial, not_after_ms: not_after_ms / 1_000 * 1_000 })
    }
}

/// A client's certificate request whose signature was checked: the client holds the key.
#[derive(Debug)]
pub struct ClientRequest(CertificateSigningRequestParams);

impl ClientRequest {
    /// Longest request in bytes; one on P-256 has about 500.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// Reads a request in PEM.
    ///
    /// # Errors
    /// A sentence for the one who sent it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > Self::MAX_BYTES {
            return Err(format!("the certificate request is longer than {} bytes", Self::MAX_BYTES));
        }
        match CertificateSigningRequestParams::from_pem(text) {
            Ok(request) => Ok(Self(request)),
            Err(error) => Err(format!("the certificate request cannot be used: {error}")),
        }
    }
}

/// The first half of the BLAKE3 of a certificate.
#[must_use]
pub fn short_fingerprint(certificate: &CertificateDer<'_>) -> [u8; SHORT_FINGERPRINT_BYTES] {
    let mut short = [0; SHORT_FINGERPRINT_BYTES];
    short.copy_from_slice(&blake3::hash(certificate).as_bytes()[..SHORT_FINGERPRINT_BYTES]);
    short
}

fn server_pair(
    path: &Path,
    authority: &CertificateDer<'_>,
    issuer: &Issuer<'static, KeyPair>,
    now_ms: u64,
) -> Result<(CertificateDer<'static>, KeyPair), AuthorityError> {
    if path.exists() {
        let pair = read_pair(path)?;
        if is_fresh(&pair.0, authority, now_ms) {
            return Ok(pair);
        }
    }
    let key = KeyPair::generate()?;
    let mut params = params(SERVER_NAME, now_ms)?;
    params.not_after = at(now_ms)? + Duration::days(SERVER_VALID_DAYS);
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
    params.subject_alt_names = vec![rcgen::SanType::DnsName(SERVER_NAME.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, issuer)?;
    write_pair(path, certificate.der(), &key)?;
    Ok((certificate.der().clone(), key))
}

/// Whether the server's certificate is of this authority and a third of its life is left.
fn is_fresh(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>, now_ms: u64) -> bool {
    let parse = |der| x509_parser::parse_x509_certificate(der).ok().map(|(_, certificate)| certificate);
    let (Some(server), Some(authority)) = (parse(certificate.as_ref()), parse(authority.as_ref())) else {
        return false;
    };
    let (from, to) = (server.validity().not_before.timestamp(), server.validity().not_after.timestamp());
    let now = i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX);
    let signed = server.verify_signature(Some(authority.public_key())).is_ok();
    signed && from <= now && now < from + (to - from) / 3 * 2
}

fn authority_params(now_ms: u64) -> Result<CertificateParams, AuthorityError> {
    let mut params = params("refloat agent authority", now_ms)?;
    params.not_after = at(now_ms)? + Duration::days(AUTHORITY_VALID_DAYS);
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(name: &str, now_ms: u64) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(now_ms)? - BACKDATED;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn at(ms: u64) -> Result<OffsetDateTime, AuthorityError> {
    let seconds = i64::try_from(ms / 1_000).map_err(|_| AuthorityError::Clock(ms))?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| AuthorityError::Clock(ms))
}

/// 128 random bits, the first of them 0 and the second 1: positive and never shorter than 16 bytes in DER.
fn random_serial() -> [u8; 16] {
    let mut serial: [u8; 16] = random();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

/// Random bytes from the kernel.
///
/// # Panics
/// When the kernel has none: nothing that is secret could be made then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => bytes,
        Err(error) => unreachable!("the kernel gives no randomness: {error}"),
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let body = data_encoding::BASE64.encode(certificate);
    let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn write_pair(path: &Path, certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), AuthorityError> {
    let text = Zeroizing::new(format!("{}{}", pem(certificate), key.serialize_pem()));
    durable::replace(path, text.as_bytes(), 0o600)
        .map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

fn read_pair(path: &Path) -> Result<(CertificateDer<'static>, KeyPair), AuthorityError> {
    let file = |source| AuthorityError::File { path: path.to_owned(), source };
    let damaged = |what: String| AuthorityError::Damaged { path: path.to_owned(), what };
    let text = Zeroizing::new(std::fs::read(path).map_err(file)?);
    let certificate = CertificateDer::from_pem_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let key = KeyPair::try_from(&key).map_err(|e| damaged(e.to_string()))?;
    Ok((certificate, key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn serial_of(certificate: &CertificateDer<'_>) -> Vec<u8> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
        parsed.raw_serial().to_vec()
    }

    #[test]
    fn opening_again_finds_the_same_authority_and_server_certificate() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Authority::open(dir.path(), NOW_MS), Err(AuthorityError::NotInitialised(_))));
        let made = Authority::create(dir.path(), NOW_MS).unwrap();
        let opened = Authority::create(dir.path(), NOW_MS).unwrap();
        assert_eq!(made.server_chain(), opened.server_chain());
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_server_certificate_is_renewed_when_two_thirds_are_over_or_it_is_from_the_future() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::create(dir.path(), NOW_MS).unwrap();
        let after = |days: u64| Authority::open(dir.path(), NOW_MS + days * DAY_MS).unwrap();
        assert_eq!(after(240).server_chain(), first.server_chain());
        let renewed = after(245);
        assert_ne!(renewed.server_chain()[0], first.server_chain()[0]);
        assert_eq!(renewed.certificate(), first.certificate());
        let back = Authority::open(dir.path(), NOW_MS).unwrap();
        assert_ne!(serial_of(&back.server_chain()[0]), serial_of(&renewed.server_chain()[0]));
    }

    #[test]
    fn a_server_certificate_of_another_authority_is_replaced() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Authority::create(ours.path(), NOW_MS).unwrap();
        let other = Authority::create(theirs.path(), NOW_MS).unwrap();
        std::fs::copy(theirs.path().join(SERVER_FILE), ours.path().join(SERVER_FILE)).unwrap();
        assert_ne!(Authority::open(ours.path(), NOW_MS).unwrap().server_chain()[0], other.server_chain()[0]);
    }

    #[test]
    fn only_the_key_of_a_request_counts() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path(), NOW_MS).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut asked = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        asked.distinguished_name.push(DnType::CommonName, "root");
        let request = ClientRequest::parse(&asked.serialize_request(&key).unwrap().pem().unwrap()).unwrap();
        let issued = authority.issue(&request, "anna@laptop", NOW_MS).unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(parsed.subject().to_string(), "CN=anna@laptop");
        assert!(parsed.subject_alternative_name().unwrap().is_none());
        assert!(!parsed.is_ca());
        assert_eq!(data_encoding::HEXLOWER.encode(parsed.raw_serial()), issued.serial);
        assert_eq!(parsed.validity().not_after.timestamp() as u64 * 1_000, issued.not_after_ms);
        assert_eq!(parsed.validity().not_before.timestamp() as u64, NOW_MS / 1_000 - 3_600);
    }

    #[test]
    fn a_request_that_is_not_signed_by_its_key_is_refused() {
        let key = KeyPair::generate().unwrap();
        let good = CertificateParams::default().serialize_request(&key).unwrap();
        let mut der = good.der().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let body = data_encoding::BASE64.encode(&der);
        let text = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(ClientRequest::parse(&text).is_err());
        assert!(ClientRequest::parse("").is_err());
        assert!(ClientRequest::parse(&"x".repeat(ClientRequest::MAX_BYTES + 1)).is_err());
    }
}

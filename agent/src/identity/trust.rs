//! Whose certificate is it? Judged after the handshake, so that a refused caller gets a sentence and not a broken
//! connection.
//!
//! The chain is checked here once per connection, as of a moment within the certificate's own validity; whether it is
//! valid *now* and still on the list of clients is asked again with every call, because connections live long.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::authority::Authority;

/// What a client presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// No certificate.
    Nothing,
    /// A certificate that our authority did not sign for a client.
    Foreign,
    /// A certificate that our authority signed for a client.
    Ours(ClientCertificate),
}

/// What counts of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Serial number in lowercase hexadecimal.
    pub serial: String,
    /// The name in it.
    pub name: String,
    /// Begin of validity, Unix time in milliseconds.
    pub not_before_ms: u64,
    /// End of validity, Unix time in milliseconds.
    pub not_after_ms: u64,
}

/// The one authority that clients' certificates must come from.
#[derive(Debug, Clone)]
pub struct TrustStore {
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The authority's certificate cannot anchor trust.
#[derive(Debug, thiserror::Error)]
#[error("the authority's certificate cannot be trusted: {0}")]
pub struct TrustError(String);

impl TrustStore {
    /// Trusts exactly this authority. There is no other way to make one, and no empty one.
    ///
    /// # Errors
    /// When its certificate is not usable as an anchor.
    pub fn of(authority: &Authority) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).map_err(|e| TrustError(e.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| TrustError(e.to_string()))?;
        Ok(Self { verifier })
    }

    /// Says whose certificate this chain begins with.
    #[must_use]
    pub fn judge(&self, chain: Option<&[CertificateDer<'_>]>, now_ms: u64) -> Presented {
        let Some([leaf, others @ ..]) = chain else {
            return Presented::Nothing;
        };
        match read(leaf) {
            Some(certificate) if self.signed(leaf, others, &certificate, now_ms) => Presented::Ours(certificate),
            _ => Presented::Foreign,
        }
    }

    fn signed(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        certificate: &ClientCertificate,
        now_ms: u64,
    ) -> bool {
        let at_ms = now_ms.clamp(certificate.not_before_ms, certificate.not_after_ms.max(certificate.not_before_ms));
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_millis(at_ms));
        self.verifier.verify_client_cert(leaf, others, at).is_ok()
    }
}

fn read(leaf: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let ms = |seconds: i64| u64::try_from(seconds).ok()?.checked_mul(1_000);
    Some(ClientCertificate {
        serial: data_encoding::HEXLOWER.encode(parsed.raw_serial()),
        name,
        not_before_ms: ms(parsed.validity().not_before.timestamp())?,
        not_after_ms: ms(parsed.validity().not_after.timestamp())?,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::pem::PemObject as _;

    use super::super::authority::{CLIENT_VALID_MS, ClientRequest};
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn client_of(authority: &Authority) -> CertificateDer<'static> {
        let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let request = ClientRequest::parse(&request.pem().unwrap()).unwrap();
        let issued = authority.issue(&request, "anna@laptop", NOW_MS).unwrap();
        CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap()
    }

    #[test]
    fn only_a_client_certificate_of_the_own_authority_is_ours_whenever_it_is_shown() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = Authority::create(here.path(), NOW_MS).unwrap();
        let theirs = Authority::create(there.path(), NOW_MS).unwrap();
        let trust = TrustStore::of(&ours).unwrap();
        let mine = client_of(&ours);
        for now_ms in [0, NOW_MS, NOW_MS + 2 * CLIENT_VALID_MS] {
            let judged = trust.judge(Some(std::slice::from_ref(&mine)), now_ms);
            assert!(matches!(judged, Presented::Ours(c) if c.name == "anna@laptop"));
        }
        assert_eq!(trust.judge(None, NOW_MS), Presented::Nothing);
        assert_eq!(trust.judge(Some(&[]), NOW_MS), Presented::Nothing);
        for foreign in [
            client_of(&theirs),
            ours.server_chain()[0].clone(),
            ours.certificate().clone(),
            CertificateDer::from(b"no certificate".to_vec()),
        ] {
            assert_eq!(trust.judge(Some(&[foreign, ours.certificate().clone()]), NOW_MS), Presented::Foreign);
        }
    }
}

//! Pairing: a one-time code is exchanged for a certificate.
//!
//! The code carries half of the fingerprint of the server's authority, so that nothing is sent, not even the code, before
//! the server has shown that it is the one whose screen the code was read from:
//!
//! ```text
//! code = base32(16 secret bytes ++ first 16 bytes of BLAKE3(authority's certificate))
//! TLS: server shows [leaf, authority] → the authority hashes to the code's half, the leaf is signed by it → CSR and code
//! ```
//!
//! The key is made here and never leaves.

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use refloat_proto::v1::identity_service_client::IdentityServiceClient;
use refloat_proto::v1::{PairRequest, PairResponse};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::{Address, answer, channel, tls};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::server::Credentials;

/// The name in every agent's certificate, whatever its address.
const AGENT_NAME: &str = "agent.refloat.internal";
const SECRET_BYTES: usize = 16;
const FINGERPRINT_BYTES: usize = 16;
const GROUP_CHARACTERS: usize = 4;

/// A one-time code. It has no `Debug`: it is a secret.
pub(crate) struct PairingCode {
    text: String,
    fingerprint: [u8; FINGERPRINT_BYTES],
}

impl PairingCode {
    /// Reads what a person typed: case, hyphens and spaces do not count.
    ///
    /// # Errors
    /// When it is not a code, without repeating it.
    pub(crate) fn parse(typed: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage("That is not a pairing code: it has 13 groups of 4 letters and digits.")
                .next("refloatd pair   (on the server)")
        };
        let bare = |c: &char| !matches!(c, '-' | ' ' | '\t' | '\n' | '\r');
        let text: String = typed.chars().filter(bare).map(|c| c.to_ascii_uppercase()).collect();
        let bytes = BASE32_NOPAD.decode(text.as_bytes()).map_err(|_| wrong())?;
        match bytes.split_at_checked(SECRET_BYTES) {
            Some((_, rest)) => Ok(Self { fingerprint: rest.try_into().map_err(|_| wrong())?, text }),
            None => Err(wrong()),
        }
    }

    /// As `refloatd pair` prints it.
    fn printed(&self) -> String {
        let lower = self.text.to_ascii_lowercase();
        let groups = lower.as_bytes().chunks(GROUP_CHARACTERS).map(String::from_utf8_lossy);
        groups.collect::<Vec<_>>().join("-")
    }
}

/// What pairing gives.
pub(crate) struct Paired {
    /// What the server said.
    pub(crate) response: PairResponse,
    /// What authenticates both sides from now on.
    pub(crate) credentials: Credentials,
}

/// Pairs this device, called `name`, with the server at this address.
///
/// # Errors
/// When the server cannot be reached, is another one than the code's, or does not know the code.
pub(crate) async fn pair(address: &Address, code: &PairingCode, name: &str) -> Result<Paired, Failure> {
    let stream = tls::dial(address).await?;
    let config = configuration(code).map_err(|e| Failure::local("prepare the connection", &e))?;
    let stream = tls::handshake(stream, address, AGENT_NAME, config).await;
    let stream = stream.map_err(|error| not_the_codes_server(address, &error))?;
    let key = rcgen::KeyPair::generate().map_err(|e| Failure::local("make a key", &e))?;
    let request = PairRequest {
        code: code.printed(),
        csr_pem: signing_request(&key, name).map_err(|e| Failure::local("make a certificate request", &e))?,
        name: name.to_owned(),
    };
    let mut client = IdentityServiceClient::new(channel(Box::new(stream)).await?);
    let response = answer(client.pair(request)).await?;
    check(&response, code)?;
    let credentials = Credentials {
        ca: response.ca_pem.clone(),
        certificate: response.certificate_pem.clone(),
        key: key.serialize_pem(),
    };
    Ok(Paired { response, credentials })
}

fn signing_request(key: &rcgen::KeyPair, name: &str) -> Result<String, rcgen::Error> {
    let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    parameters.serialize_request(key)?.pem()
}

/// The authority that is kept must be the one that was shown.
fn check(response: &PairResponse, code: &PairingCode) -> Result<(), Failure> {
    use rustls::pki_types::pem::PemObject as _;
    let authority = CertificateDer::from_pem_slice(response.ca_pem.as_bytes());
    if !authority.is_ok_and(|authority| is_authority(&authority, &code.fingerprint)) {
        return Err(Failure::new(
            Exit::Failed,
            "The server sent another authority than the code names. Nothing was kept.",
        ));
    }
    Ok(())
}

fn is_authority(certificate: &CertificateDer<'_>, fingerprint: &[u8; FINGERPRINT_BYTES]) -> bool {
    blake3::hash(certificate).as_bytes().starts_with(fingerprint)
}

fn configuration(code: &PairingCode) -> Result<ClientConfig, rustls::Error> {
    let provider = tls::provider();
    let verifier = CodeVerifier { fingerprint: code.fingerprint, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn not_the_codes_server(address: &Address, error: &std::io::Error) -> Failure {
    let rustls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(_))) => Failure::new(
            Exit::Denied,
            format!(
                "{address} is not the server that this code comes from, or the code is mistyped. The code was not sent."
            ),
        )
        .reason("WRONG_FINGERPRINT")
        .next("refloatd pair   (on the server)"),
        _ => Failure::new(Exit::Unreachable, format!("{address} does not answer as an agent does: {error}")),
    }
}

/// Trusts exactly the authority that the code names.
#[derive(Debug)]
struct CodeVerifier {
    fingerprint: [u8; FINGERPRINT_BYTES],
    provider: Arc<CryptoProvider>,
}

/// The server's authority is not the code's.
#[derive(Debug, thiserror::Error)]
#[error("the server's authority is not the one that the code names")]
struct OtherAuthority;

impl ServerCertVerifier for CodeVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.last().filter(|last| is_authority(last, &self.fingerprint));
        let authority = authority.ok_or_else(|| CertificateError::Other(OtherError(Arc::new(OtherAuthority))))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_server_cert(leaf, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(bytes: &[u8]) -> String {
        let text = BASE32_NOPAD.encode(bytes).to_ascii_lowercase();
        let groups = text.as_bytes().chunks(4).map(|g| String::from_utf8_lossy(g).into_owned());
        groups.collect::<Vec<_>>().join("-")
    }

    #[test]
    fn case_hyphens_and_spaces_do_not_count() {
        let bytes: Vec<u8> = (0..32).collect();
        let text = printed(&bytes);
        for typed in
            [text.clone(), text.to_uppercase(), text.replace('-', ""), format!(" {}\n", text.replace('-', " "))]
        {
            let code = PairingCode::parse(&typed).unwrap_or_else(|e| panic!("{typed}: {e:?}"));
            assert_eq!(code.fingerprint.as_slice(), &bytes[16..]);
            assert_eq!(code.printed(), text);
        }
    }

    #[test]
    fn what_is_no_code_is_refused_and_not_repeated() {
        let short = printed(&[7; 31]);
        let long = printed(&[7; 33]);
        for typed in ["", "abcd", "not a code!", &short, &long, "0189-0189"] {
            let failure = PairingCode::parse(typed).err().unwrap_or_else(|| panic!("{typed} was taken"));
            assert_eq!(failure.exit, Exit::Usage);
            assert!(typed.is_empty() || !failure.what.contains(typed), "{failure:?}");
        }
    }

    #[test]
    fn only_the_authority_of_the_code_signs_for_the_server() {
        let (own, foreign) = (authority("own"), authority("foreign"));
        let leaf = |signer: &Authority| {
            let key = rcgen::KeyPair::generate().expect("a key");
            let parameters = rcgen::CertificateParams::new(vec![AGENT_NAME.to_owned()]).expect("a name");
            parameters.signed_by(&key, &signer.1).expect("signed").der().clone()
        };
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&blake3::hash(&own.0).as_bytes()[..16]);
        let verifier = CodeVerifier { fingerprint, provider: tls::provider() };
        let name = ServerName::try_from(AGENT_NAME).expect("a name");
        let verify = |leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], name: &ServerName<'_>| {
            verifier.verify_server_cert(leaf, chain, name, &[], UnixTime::now()).is_ok()
        };
        assert!(verify(&leaf(&own), std::slice::from_ref(&own.0), &name));
        assert!(!verify(&leaf(&foreign), std::slice::from_ref(&foreign.0), &name), "another authority");
        assert!(!verify(&leaf(&foreign), std::slice::from_ref(&own.0), &name), "not signed by the one that it shows");
        assert!(!verify(&leaf(&own), &[], &name), "no authority");
        let other = ServerName::try_from("example.com").expect("a name");
        assert!(!verify(&leaf(&own), std::slice::from_ref(&own.0), &other), "another name");
    }

    type Authority = (CertificateDer<'static>, rcgen::Issuer<'static, rcgen::KeyPair>);

    fn authority(name: &str) -> Authority {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).expect("signed").der().clone();
        (certificate, rcgen::Issuer::new(parameters, key))
    }
}

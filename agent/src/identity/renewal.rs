//! The server's certificate as it is shown to clients, renewed while the agent runs: an agent that lives longer than its
//! certificate must not lock everybody out.
//!
//! [`Authority::open`] decides when it is due and keeps it on the disk. A handshake takes what is current at its time.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::Error;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use super::authority::{Authority, AuthorityError};
use crate::clock::Clock;

/// How often is looked whether it is due. A third of a year is left then, so that a failure may be tried again at leisure.
const EVERY: Duration = Duration::from_secs(3_600);

/// The certificate that handshakes show.
#[derive(Debug)]
pub struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

/// Why the certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The authority.
    #[error("the certificate authority cannot be opened")]
    Authority(#[source] AuthorityError),
    /// What it made is no use to TLS.
    #[error("the certificate cannot be used")]
    Unusable(#[source] Error),
}

impl ServerCertificate {
    /// The authority's current one.
    ///
    /// # Errors
    /// When the authority's files do not make a usable server.
    pub fn of(authority: &Authority) -> Result<Self, Error> {
        certified(authority).map(|key| Self(RwLock::new(Arc::new(key))))
    }

    /// What is shown now.
    #[must_use]
    pub fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows the authority's certificate from now on; whether it is another one.
    fn show(&self, authority: &Authority) -> Result<bool, Error> {
        if self.current().cert == authority.server_chain() {
            return Ok(false);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified(authority)?);
        Ok(true)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn certified(authority: &Authority) -> Result<CertifiedKey, Error> {
    CertifiedKey::from_der(authority.server_chain(), authority.server_key(), &ring::default_provider())
}

/// Renews the certificate whenever it is due, until the token is cancelled.
pub async fn run(certificate: Arc<ServerCertificate>, pki: PathBuf, clock: Arc<dyn Clock>, end: CancellationToken) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match renew(Arc::clone(&certificate), pki.clone(), clock.now_ms()).await {
            Ok(true) => tracing::info!("the server's certificate was renewed"),
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the server's certificate cannot be renewed yet; it is tried again");
            }
        }
    }
}

async fn renew(certificate: Arc<ServerCertificate>, pki: PathBuf, now_ms: u64) -> Result<bool, RenewalError> {
    let renewed = tokio::task::spawn_blocking(move || {
        let authority = Authority::open(&pki, now_ms).map_err(RenewalError::Authority)?;
        certificate.show(&authority).map_err(RenewalError::Unusable)
    });
    // A task that panicked has told so itself; it is tried again like anything else.
    renewed.await.unwrap_or(Ok(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const NOW_MS: u64 = 1_800_000_000_000;
    const DAY_MS: u64 = 24 * 3_600_000;

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_runs_on_shows_a_new_certificate_of_the_same_authority_when_it_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), NOW_MS).unwrap();
        let certificate = Arc::new(ServerCertificate::of(&authority).unwrap());
        let first = certificate.current();
        let (clock, end) = (ManualClock::at(NOW_MS), CancellationToken::new());
        let task = run(Arc::clone(&certificate), folder.path().into(), Arc::new(clock.clone()), end.clone());
        let task = tokio::spawn(task);
        clock.advance(240 * DAY_MS);
        tokio::time::sleep(EVERY * 2).await;
        assert_eq!(certificate.current().cert, first.cert, "it is not due");
        clock.advance(5 * DAY_MS);
        tokio::time::sleep(EVERY * 2).await;
        let second = certificate.current();
        assert_ne!(second.cert[0], first.cert[0], "the server's");
        assert_eq!(second.cert[1], first.cert[1], "the authority's");
        second.keys_match().unwrap();
        end.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_shows_the_old_certificate_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), NOW_MS).unwrap();
        let certificate = Arc::new(ServerCertificate::of(&authority).unwrap());
        let first = certificate.current();
        let due = NOW_MS + 300 * DAY_MS;
        let nowhere = renew(Arc::clone(&certificate), folder.path().join("nowhere"), due).await;
        assert!(matches!(nowhere, Err(RenewalError::Authority(_))));
        assert_eq!(certificate.current().cert, first.cert);
        assert!(renew(Arc::clone(&certificate), folder.path().into(), due).await.unwrap());
        assert!(!renew(certificate, folder.path().into(), due).await.unwrap(), "once is enough");
    }
}

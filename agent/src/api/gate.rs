//! The one door: says who calls and whether the permission table lets them, before any service is reached.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use refloat_model::Client;
use tonic::body::Body;
use tonic::{Request, Status};
use tower::{Layer, Service};

use super::status;
use crate::clock::Clock;
use crate::identity::caller::{Caller, Known, Peer};
use crate::identity::permission::{self, Refusal};
use crate::identity::trust::Presented;
use crate::journal::{Journal, JournalError};

/// Puts the door before a service.
#[derive(Clone)]
pub struct Gate {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A door that asks this journal for the list of clients.
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>) -> Self {
        Self { journal, clock }
    }

    async fn pass(&self, path: &str, peer: Option<Peer>) -> Result<Caller, Status> {
        // A connection without a peer comes from no listener of ours.
        let peer = peer.ok_or_else(|| status::refusal(&Refusal::NotPaired))?;
        let client = self.listed(&peer).await.map_err(|error| status::journal(&error))?;
        let caller = Caller::judge(&peer, client.as_ref(), self.clock.now_ms());
        match permission::judge(path, &caller) {
            Ok(_) => Ok(caller),
            Err(refusal) => {
                tracing::info!(path, ?peer, "call refused: {refusal}");
                Err(status::refusal(&refusal))
            }
        }
    }

    async fn listed(&self, peer: &Peer) -> Result<Option<Client>, JournalError> {
        match peer {
            Peer::Network { presented: Presented::Ours(certificate), .. } => {
                let clients = self.journal.host().await?.clients;
                Ok(clients.into_iter().find(|client| client.serial == certificate.serial))
            }
            Peer::Network { .. } | Peer::Socket { .. } => Ok(None),
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { gate: self.clone(), inner }
    }
}

/// A service behind the door.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        // The clone that was polled ready is the one to call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned();
            match gate.pass(request.uri().path(), peer).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// Who calls, as the door found out.
///
/// # Errors
/// When the call did not come through the door.
pub fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    request.extensions().get::<Caller>().ok_or_else(|| status::refusal(&Refusal::NotPaired))
}

/// Who calls, for methods that only a known caller reaches.
///
/// # Errors
/// When the caller is not known.
pub fn known<T>(request: &Request<T>) -> Result<&Known, Status> {
    caller(request)?.known().ok_or_else(|| status::refusal(&Refusal::NotPaired))
}

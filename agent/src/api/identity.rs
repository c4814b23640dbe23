//! Pairing, and who one is.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use refloat_model::{Event, Principal, Via};
use refloat_proto::v1::identity_service_server::IdentityService;
use refloat_proto::v1::{
    CreatePairingCodeRequest, CreatePairingCodeResponse, PairRequest, PairResponse, WhoAmIRequest, WhoAmIResponse,
};
use tonic::{Request, Response, Status};

use super::{Ports, gate, status};
use crate::identity::authority::{ClientRequest, Issued, SERVER_NAME};
use crate::identity::caller::{Peer, check_name};
use crate::identity::pairing::PairingError;
use crate::identity::permission::Role;
use crate::identity::rate::Attempts;

/// The service.
#[derive(Debug)]
pub struct IdentityApi {
    ports: Arc<Ports>,
    attempts: Mutex<Attempts>,
}

impl IdentityApi {
    /// The service over these ports.
    #[must_use]
    pub fn new(ports: Arc<Ports>) -> Self {
        Self { ports, attempts: Mutex::default() }
    }

    fn take_attempt(&self, from: IpAddr) -> Result<(), Status> {
        let now_ms = self.ports.clock.now_ms();
        let taken = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).take(from, now_ms);
        taken.map_err(|wait_ms| {
            let seconds = wait_ms.div_ceil(1_000);
            let message = format!("too many pairing attempts from {from}: wait {seconds} s and try again");
            status::too_many("TOO_MANY_ATTEMPTS", message)
        })
    }

    /// Uses the code up, then signs and records. A crash in between costs a new code and leaves no usable certificate.
    async fn pair(&self, code: String, request: ClientRequest, name: &str, from: IpAddr) -> Result<Issued, Status> {
        let ports = Arc::clone(&self.ports);
        let now_ms = ports.clock.now_ms();
        let redeem = move || ports.pairing.redeem(&code, ports.authority.short_fingerprint(), now_ms);
        let redeemed = tokio::task::spawn_blocking(redeem).await.map_err(|_| unreadable_code())?;
        redeemed.map_err(|error| refused_code(&error))?;
        let issued = self.ports.authority.issue(&request, name, now_ms).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "a client's certificate could not be made");
            status::failed("CERTIFICATE_NOT_MADE", status::sentence(&error.to_string()))
        })?;
        let by = Principal { name: name.to_owned(), via: Via::PairingCode, from: from.to_string() };
        let event = Event::ClientPaired {
            serial: issued.serial.clone(),
            name: name.to_owned(),
            role: Role::Admin.word().to_owned(),
            not_after_ms: issued.not_after_ms,
        };
        self.ports.journal.append(&by, event).await.map_err(|error| status::journal(&error))?;
        tracing::info!(name, %from, serial = issued.serial, "a device was paired");
        Ok(issued)
    }
}

fn unreadable_code() -> Status {
    status::failed("PAIRING_CODE_UNREADABLE", "The server could not read its pairing code.")
}

fn refused_code(error: &PairingError) -> Status {
    let message = status::sentence(&error.to_string());
    match error {
        PairingError::Malformed => status::invalid(message),
        PairingError::OtherServer => status::not_paired("CODE_OF_ANOTHER_SERVER", message),
        PairingError::NotAccepted => status::not_paired("CODE_NOT_ACCEPTED", message),
        PairingError::File { .. } => {
            tracing::error!(error = error as &dyn std::error::Error, "pairing failed");
            unreadable_code()
        }
    }
}

fn address_of<T>(request: &Request<T>) -> IpAddr {
    match request.extensions().get::<Peer>() {
        Some(Peer::Network { from, .. }) => from.ip().to_canonical(),
        Some(Peer::Socket { .. }) | None => Ipv4Addr::LOCALHOST.into(),
    }
}

#[tonic::async_trait]
impl IdentityService for IdentityApi {
    async fn pair(&self, request: Request<PairRequest>) -> Result<Response<PairResponse>, Status> {
        let from = address_of(&request);
        self.take_attempt(from)?;
        let PairRequest { code, csr_pem, name } = request.into_inner();
        // Everything that can be wrong without the code is looked at before the code is used up.
        let name = check_name(&name).map_err(status::invalid)?;
        let request = ClientRequest::parse(&csr_pem).map_err(status::invalid)?;
        let issued = self.pair(code, request, name, from).await?;
        Ok(Response::new(PairResponse {
            certificate_pem: issued.pem,
            ca_pem: self.ports.authority.certificate_pem(),
            server_name: SERVER_NAME.to_owned(),
            host: self.ports.host.facts().host.clone(),
            not_after_unix_ms: issued.not_after_ms,
        }))
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let known = gate::known(&request)?;
        let facts = self.ports.host.facts();
        let via = if matches!(known.principal.via, Via::Certificate(_)) { "certificate" } else { "socket" };
        Ok(Response::new(WhoAmIResponse {
            name: known.principal.name.clone(),
            role: known.role.word().to_owned(),
            via: via.to_owned(),
            not_after_unix_ms: known.not_after_ms,
            server_version: facts.version.clone(),
            host: facts.host.clone(),
        }))
    }

    async fn create_pairing_code(
        &self,
        request: Request<CreatePairingCodeRequest>,
    ) -> Result<Response<CreatePairingCodeResponse>, Status> {
        let by = gate::known(&request)?.principal.clone();
        let ports = Arc::clone(&self.ports);
        let now_ms = ports.clock.now_ms();
        let create = move || ports.pairing.create(ports.authority.short_fingerprint(), now_ms);
        let created = tokio::task::spawn_blocking(create).await.map_err(|_| unreadable_code())?;
        let code = created.map_err(|error| refused_code(&error))?;
        tracing::info!(%by, "a pairing code was made");
        let facts = self.ports.host.facts();
        Ok(Response::new(CreatePairingCodeResponse {
            code: code.text,
            not_after_unix_ms: code.not_after_ms,
            host: facts.host.clone(),
            listen: facts.listen.clone(),
        }))
    }
}

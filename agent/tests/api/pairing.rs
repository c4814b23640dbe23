//! Pairing from the code on the server to the first call of the laptop.

use std::sync::Arc;

use refloat_agent::api::status;
use refloat_agent::identity::authority::short_fingerprint;
use refloat_agent::identity::pairing::{CODE_VALID_MS, Pairing};
use refloat_agent::identity::rate::ATTEMPTS_PER_MINUTE;
use refloat_agent::journal::Journal as _;
use refloat_proto::v1::identity_service_client::IdentityServiceClient;
use refloat_proto::v1::{CreatePairingCodeRequest, PairRequest, PairResponse, WhoAmIRequest};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tonic::{Code, Status};

use super::agent::{Agent, client_config, identity, issue, now_ms, request, trusting};

async fn code(agent: &Agent) -> String {
    let mut server = IdentityServiceClient::new(agent.over_socket().await);
    server.create_pairing_code(CreatePairingCodeRequest {}).await.unwrap().into_inner().code
}

async fn pair(agent: &Agent, code: &str, csr_pem: String) -> Result<PairResponse, Status> {
    let mut laptop = IdentityServiceClient::new(agent.over_tls(None).await.unwrap());
    let request = PairRequest { code: code.to_owned(), csr_pem, name: "anna@laptop".into() };
    laptop.pair(request).await.map(tonic::Response::into_inner)
}

async fn refused(agent: &Agent, code: &str) -> (Code, String) {
    let status = pair(agent, code, request().1).await.unwrap_err();
    (status.code(), status::problem(&status).unwrap().reason)
}

fn not_accepted() -> (Code, String) {
    (Code::Unauthenticated, "CODE_NOT_ACCEPTED".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_pairs_one_device_which_is_known_from_then_on() {
    let agent = Agent::start().await;
    let code = code(&agent).await;
    let (key, csr) = request();
    let paired = pair(&agent, &code, csr).await.unwrap();
    assert_eq!(paired.ca_pem, agent.authority.certificate_pem());
    let channel = agent.over_tls(Some(identity(&paired.certificate_pem, &key))).await.unwrap();
    let me = IdentityServiceClient::new(channel).who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((me.name.as_str(), me.role.as_str(), me.via.as_str()), ("anna@laptop", "admin", "certificate"));
    assert_eq!(me.not_after_unix_ms, paired.not_after_unix_ms);
    let clients = agent.journal.host().await.unwrap().clients;
    assert_eq!(clients.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["anna@laptop"]);
    assert_eq!(refused(&agent, &code).await, not_accepted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_cannot_make_the_agent_hold_a_large_message() {
    let agent = Agent::start().await;
    let code = code(&agent).await;
    let large = pair(&agent, &code, "x".repeat(64 << 10)).await.unwrap_err();
    assert_eq!(large.code(), Code::OutOfRange, "{large:?}");
    assert!(pair(&agent, &code, request().1).await.is_ok(), "and the code is not used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_attempts_are_refused_without_burning_the_code() {
    let agent = Agent::start().await;
    let right = code(&agent).await;
    let wrong = if right.starts_with('a') { right.replacen('a', "b", 1) } else { format!("a{}", &right[1..]) };
    assert_eq!(refused(&agent, &wrong).await, not_accepted());
    assert_eq!(refused(&agent, "nonsense").await, (Code::InvalidArgument, "INVALID_REQUEST".to_owned()));
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Pairing::new(elsewhere.path()).create([1; 16], now_ms()).unwrap().text;
    assert_eq!(refused(&agent, &other).await, (Code::Unauthenticated, "CODE_OF_ANOTHER_SERVER".to_owned()));
    let status = pair(&agent, &right, "no request".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(pair(&agent, &right, request().1).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_refused_after_fifteen_minutes() {
    let agent = Agent::start().await;
    let code = code(&agent).await;
    agent.clock.advance(CODE_VALID_MS);
    assert_eq!(refused(&agent, &code).await, not_accepted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_guesses_is_slowed_down_and_the_code_still_works_after() {
    let agent = Agent::start().await;
    let code = code(&agent).await;
    for _ in 0..ATTEMPTS_PER_MINUTE {
        assert_eq!(refused(&agent, "nonsense").await.0, Code::InvalidArgument);
    }
    let slowed = (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS".to_owned());
    assert_eq!(refused(&agent, &code).await, slowed);
    agent.clock.advance(60_000);
    assert!(pair(&agent, &code, request().1).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_shows_the_authority_that_the_code_names() {
    let agent = Agent::start().await;
    let chain = agent.authority.server_chain();
    assert_eq!(short_fingerprint(&chain[1]), agent.authority.short_fingerprint());
    let code = code(&agent).await.replace('-', "").to_ascii_uppercase();
    let bytes = data_encoding::BASE32_NOPAD.decode(code.as_bytes()).unwrap();
    assert_eq!(bytes[16..], agent.authority.short_fingerprint());
}

/// Shows a certificate with a key that is not its own.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesClientCert for Impostor {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_without_its_key_gets_no_connection() {
    let agent = Agent::start().await;
    let (chain, _) = agent.client(now_ms(), Some("admin")).await;
    let (_, other_key) = issue(&agent.authority, now_ms()).0;
    let key = rustls::crypto::ring::sign::any_supported_type(&other_key).unwrap();
    let impostor = Impostor(Arc::new(CertifiedKey::new(chain, key)));
    let mut config = trusting(&agent.authority).with_client_cert_resolver(Arc::new(impostor));
    config.alpn_protocols = client_config(&agent.authority, None).alpn_protocols;
    // TLS 1.3 tells the client only with its first read.
    let answer = match agent.over_tls_with(config).await {
        Ok(channel) => IdentityServiceClient::new(channel).who_am_i(WhoAmIRequest {}).await.map(|_| ()),
        Err(error) => Err(Status::unavailable(error)),
    };
    let status = answer.unwrap_err();
    assert_eq!(status::problem(&status), None, "no service may have been reached: {status:?}");
}

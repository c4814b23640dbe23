//! Every RPC of the contract, called by every kind of caller over the real transport, sees exactly what the table says.
//!
//! `UPDATE_SNAPSHOT=1` writes the table anew; whoever does that reads the difference.

use std::collections::BTreeSet;
use std::path::PathBuf;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use refloat_agent::api::status;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::agent::{Agent, issue, now_ms};
use refloat_agent::identity::authority::{Authority, CLIENT_VALID_MS};

/// Reasons that only the door gives.
const REFUSALS: [&str; 8] = [
    "NOT_PAIRED",
    "FOREIGN_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_NOT_YET_VALID",
    "NOT_LISTED",
    "ROLE_TOO_LOW",
    "ONLY_ON_THE_SERVER",
    "NO_SUCH_METHOD",
];

fn table_file() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
        .join("tests/api/permissions.txt")
}

/// Paths of every method that the descriptors of the served packages name.
fn methods() -> BTreeSet<String> {
    let sets = [refloat_proto::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let files = sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).unwrap().file);
    let served = files.filter(|file| ["refloat.v1", "grpc.health.v1"].contains(&file.package()));
    let mut methods: BTreeSet<String> = served
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().flat_map(move |service| {
                let name = format!("/{package}.{}", service.name());
                service.method.into_iter().map(move |method| format!("{name}/{}", method.name())).collect::<Vec<_>>()
            })
        })
        .collect();
    methods.insert("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned());
    methods.insert("/refloat.v1.AppService/IsNotInTheContract".to_owned());
    methods.insert("/refloat.edge.v1.Control/Apply".to_owned());
    methods
}

/// Calls with one empty message: whatever a service says to that, the door let the call through.
async fn call(channel: Channel, path: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| Status::unavailable(format!("{e:?}")))?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let one = tokio_stream::once(());
    let path = PathAndQuery::try_from(path).unwrap();
    client.streaming(Request::new(one), path, codec).await.map(|_| ())
}

fn word(answer: Result<(), Status>) -> String {
    match answer {
        Ok(()) => "allowed".to_owned(),
        Err(answer) => match status::problem(&answer) {
            Some(problem) if REFUSALS.contains(&problem.reason.as_str()) => problem.reason,
            Some(_) => "allowed".to_owned(),
            // A service of somebody else says no in its own way; a transport that broke does not count as an answer.
            None if answer.code() == tonic::Code::Unavailable || answer.code() == tonic::Code::Unknown => {
                format!("BROKEN: {answer:?}")
            }
            None => "allowed".to_owned(),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_answers_every_kind_of_caller_as_the_table_says() {
    let agent = Agent::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign_authority = Authority::create(elsewhere.path(), now_ms()).unwrap();
    let long_ago = now_ms() - 2 * CLIENT_VALID_MS;
    let callers: Vec<(&str, Channel)> = vec![
        ("none", agent.over_tls(None).await.unwrap()),
        ("foreign", agent.over_tls(Some(issue(&foreign_authority, now_ms()).0)).await.unwrap()),
        ("expired", agent.over_tls(Some(agent.client(long_ago, Some("admin")).await)).await.unwrap()),
        ("unlisted", agent.over_tls(Some(agent.client(now_ms(), None).await)).await.unwrap()),
        ("viewer", agent.over_tls(Some(agent.client(now_ms(), Some("viewer")).await)).await.unwrap()),
        ("deployer", agent.over_tls(Some(agent.client(now_ms(), Some("deployer")).await)).await.unwrap()),
        ("admin", agent.over_tls(Some(agent.client(now_ms(), Some("admin")).await)).await.unwrap()),
        ("socket", agent.over_socket().await),
    ];
    let mut table = String::new();
    for path in methods() {
        table.push_str(&format!("{path}\n"));
        for (caller, channel) in &callers {
            table.push_str(&format!("    {caller:<9} {}\n", word(call(channel.clone(), &path).await)));
        }
    }
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        std::fs::write(table_file(), &table).unwrap();
    }
    assert_eq!(table, std::fs::read_to_string(table_file()).unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ends_while_its_connection_lives_is_refused_from_then_on() {
    let agent = Agent::start().await;
    let channel = agent.over_tls(Some(agent.client(now_ms(), Some("admin")).await)).await.unwrap();
    let whoami = "/refloat.v1.IdentityService/WhoAmI";
    assert_eq!(word(call(channel.clone(), whoami).await), "allowed");
    agent.clock.advance(CLIENT_VALID_MS + 1_000);
    assert_eq!(word(call(channel, whoami).await), "CERTIFICATE_EXPIRED");
}

//! What the services say of apps, releases, variables and output.

use refloat_agent::api::status;
use refloat_agent::app_logs::Stream;
use refloat_agent::docker::LogLine;
use refloat_agent::journal::Journal as _;
use refloat_agent::journal::sample::{History, ada, app};
use refloat_model::{InstanceName, ProcessName, ReleaseNumber};
use refloat_proto::v1::app_service_client::AppServiceClient;
use refloat_proto::v1::deployment_service_client::DeploymentServiceClient;
use refloat_proto::v1::release_service_client::ReleaseServiceClient;
use refloat_proto::v1::{
    GetReleaseRequest, GetStatusRequest, GetStatusResponse, ListReleasesRequest, LogsRequest, RestartRequest,
};
use tonic::{Code, Status};

use super::agent::Agent;

/// An agent whose app "shop" has had two deploys and a rollback.
async fn with_shop() -> (Agent, History) {
    let agent = Agent::start().await;
    let mut history = History::default();
    let mut events = vec![history.create("shop")];
    events.extend(history.deploy("shop", 1));
    events.extend(history.deploy("shop", 2));
    for event in events {
        agent.journal.append(&ada(), event).await.unwrap();
    }
    (agent, history)
}

async fn get_status(agent: &Agent) -> GetStatusResponse {
    let mut apps = AppServiceClient::new(agent.over_socket().await);
    apps.get_status(GetStatusRequest::default()).await.unwrap().into_inner()
}

fn reason(status: &Status) -> (Code, String) {
    (status.code(), status::problem(status).unwrap().reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_answers_when_docker_and_the_edge_do_not() {
    let (agent, _) = with_shop().await;
    agent.docker.set_up(false);
    agent.edge.set_away(true);
    let said = get_status(&agent).await;
    let host = said.host.unwrap();
    assert!(!host.engine_reachable && !host.edge_reachable);
    let reasons: Vec<&str> = host.problems.iter().map(|p| p.reason.as_str()).collect();
    assert_eq!(reasons, ["ENGINE_UNREACHABLE", "EDGE_UNREACHABLE"]);
    let shop = &said.apps[0];
    assert_eq!((shop.serving, shop.rollback_to, shop.problems.len()), (2, 1, 0));
    assert!(shop.instances.iter().all(|instance| instance.state == "unknown"), "{:?}", shop.instances);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_of_a_server_that_never_had_a_deployment_names_no_problem() {
    let agent = Agent::start().await;
    let host = get_status(&agent).await.host.unwrap();
    assert!(host.engine_reachable && host.edge_reachable);
    assert_eq!(host.problems, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_what_should_run_and_does_not() {
    let (agent, _) = with_shop().await;
    let said = get_status(&agent).await;
    let host = said.host.unwrap();
    assert!(host.engine_reachable && host.edge_reachable && host.agent_rss_bytes > 0);
    assert_eq!(host.problems.iter().map(|p| p.reason.as_str()).collect::<Vec<_>>(), ["EDGE_BEHIND"]);
    let shop = &said.apps[0];
    let seen: Vec<_> = shop.instances.iter().map(|i| (i.release, i.state.as_str(), i.role.as_str())).collect();
    assert_eq!(seen, [(1, "missing", "standby"), (2, "missing", "serving")]);
    let down: Vec<_> = shop.problems.iter().map(|p| (p.reason.as_str(), p.message.as_str())).collect();
    assert_eq!(down, [("NOT_RUNNING", "web of r2 does not run."), ("NOT_RUNNING", "worker of r2 does not run.")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_is_newest_first_and_says_where_a_rollback_goes() {
    let (agent, mut history) = with_shop().await;
    let mut releases = ReleaseServiceClient::new(agent.over_socket().await);
    let listed = releases.list_releases(ListReleasesRequest::default()).await.unwrap().into_inner();
    let seen: Vec<_> = listed.releases.iter().map(|r| (r.number, r.serves, r.author.as_str())).collect();
    assert_eq!((listed.app.as_str(), seen), ("shop", vec![(2, true, "ada"), (1, false, "ada")]));
    for event in history.rollback("shop", 1) {
        agent.journal.append(&ada(), event).await.unwrap();
    }
    let serving = releases.get_release(GetReleaseRequest::default()).await.unwrap().into_inner();
    assert_eq!((serving.summary.unwrap().number, serving.rollback_to), (1, 0));
    assert_eq!(serving.activations.iter().map(|a| a.kind.as_str()).collect::<Vec<_>>(), ["rollback", "deploy"]);
    let processes: Vec<_> = serving.processes.iter().map(|p| (p.name.as_str(), p.backend.as_str())).collect();
    assert_eq!(processes, [("site", "files"), ("web", "instance"), ("worker", "instance")]);
    let request = GetReleaseRequest { release: 9, ..GetReleaseRequest::default() };
    let missing = releases.get_release(request).await.unwrap_err();
    assert_eq!(reason(&missing), (Code::NotFound, "NO_SUCH_RELEASE".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_need_only_be_named_when_there_are_several() {
    let (agent, mut history) = with_shop().await;
    agent.journal.append(&ada(), history.create("blog")).await.unwrap();
    let mut releases = ReleaseServiceClient::new(agent.over_socket().await);
    let mut ask = async |app: &str| {
        let request = ListReleasesRequest { app: app.into(), limit: 0 };
        releases.list_releases(request).await.map(|answer| answer.into_inner().releases.len())
    };
    assert_eq!(ask("shop").await.unwrap(), 2);
    let which = ask("").await.unwrap_err();
    assert_eq!(reason(&which), (Code::InvalidArgument, "WHICH_APP".into()));
    assert!(which.message().contains("blog, shop"), "{}", which.message());
    assert_eq!(reason(&ask("nope").await.unwrap_err()), (Code::NotFound, "NO_SUCH_APP".into()));
    assert_eq!(reason(&ask("No Name").await.unwrap_err()), (Code::InvalidArgument, "INVALID_REQUEST".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutation_without_a_key_is_refused_before_the_driver_hears_of_it() {
    let (agent, _) = with_shop().await;
    let mut deployments = DeploymentServiceClient::new(agent.over_socket().await);
    let refused = deployments.restart(RestartRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_REQUEST".into()));
}

fn keep(agent: &Agent, release: u32, at_ms: u64, text: &str) {
    let stream =
        Stream { app: app("shop"), release: ReleaseNumber(release), process: ProcessName::new("web").unwrap() };
    let instance = InstanceName::parse("refloat-shop-web-00000001").unwrap();
    agent.logs.keep(&stream, &instance, &[LogLine { at_ms, stderr: false, text: text.into() }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_output_is_read_from_its_end_and_followed() {
    let (agent, _) = with_shop().await;
    keep(&agent, 1, 10, "of the old release");
    keep(&agent, 2, 20, "first");
    keep(&agent, 2, 30, "second");
    let mut apps = AppServiceClient::new(agent.over_socket().await);
    let request = LogsRequest { tail: 1, follow: true, ..LogsRequest::default() };
    let mut lines = apps.logs(request).await.unwrap().into_inner();
    assert_eq!(lines.message().await.unwrap().unwrap().line, "second");
    keep(&agent, 2, 40, "third");
    assert_eq!(lines.message().await.unwrap().unwrap().line, "third");
    let request = LogsRequest { release: 1, ..LogsRequest::default() };
    let mut old = apps.logs(request).await.unwrap().into_inner();
    let line = old.message().await.unwrap().unwrap();
    assert_eq!((line.line.as_str(), line.release, line.process.as_str()), ("of the old release", 1, "web"));
    assert_eq!(old.message().await.unwrap(), None);
}

//! The surroundings of one check: an edge on a host of its own, and what its visitors get.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use refloat_agent::edge::{Edge, EdgeError, EdgeStatus};
use refloat_model::{
    AppName, AppRoutes, AppServing, Epoch, Generation, HostName, InstanceName, PathPrefix, ProcessName, ReleaseId,
    ReleaseNumber, Route, RouteTable, RouteTarget, StaticRules, TreeDigest,
};
use tokio::task::JoinHandle;

/// How long a visitor waits; less than the holds of these checks, which only a release ends in time.
const PATIENCE: Duration = Duration::from_secs(60);
/// A hold that no check sees the end of.
pub(crate) const HOLD_MS: u32 = 600_000;

/// What a visitor got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The name of an instance.
    Instance(String),
    /// A page of a tree.
    Tree(TreeDigest),
    /// The edge itself, with this status.
    Edge(u16),
}

/// A host with an edge.
#[async_trait(?Send)]
pub(crate) trait Host {
    /// The edge as the agent has it, the same before and after an outage.
    fn edge(&self) -> Arc<dyn Edge>;
    /// The edge is gone at once.
    async fn end(&mut self);
    /// It is started again on its disk.
    async fn come_back(&mut self);
    /// Somebody listens as an instance.
    async fn listen(&mut self, name: &InstanceName) -> SocketAddrV4;
    /// A site of its own for every word.
    fn publish(&mut self, word: &str) -> TreeDigest;
    /// Its files are gone.
    fn unpublish(&mut self, tree: &TreeDigest);
    /// A visitor who asks for the page `/` of a host name.
    fn visitor(&self, host: &str) -> BoxFuture<'static, Answer>;
    /// A visitor's request reaches an instance, which does not answer it yet.
    async fn begin(&mut self, host: &str);
    /// An instance answers what it has not answered yet.
    async fn finish(&mut self, name: &InstanceName);
}

/// An edge and the tables for it.
pub(crate) struct World {
    pub(crate) host: Box<dyn Host>,
    pub(crate) edge: Arc<dyn Edge>,
}

impl World {
    pub(crate) fn new(host: Box<dyn Host>) -> Self {
        let edge = host.edge();
        Self { host, edge }
    }

    /// An instance that listens.
    pub(crate) async fn instance(&mut self, name: &str) -> RouteTarget {
        let name = instance_name(name);
        let address = self.host.listen(&name).await;
        RouteTarget::Instance { name, ip: address.ip().octets(), port: address.port() }
    }

    pub(crate) async fn visit(&self, host: &str) -> Answer {
        self.visit_meanwhile(host).await.unwrap()
    }

    /// A visit that goes on by itself.
    pub(crate) fn visit_meanwhile(&self, host: &str) -> JoinHandle<Answer> {
        let visitor = tokio::time::timeout(PATIENCE, self.host.visitor(host));
        tokio::spawn(async move { visitor.await.expect("an answer, at last") })
    }

    pub(crate) async fn status(&self) -> EdgeStatus {
        self.edge.status().await.unwrap()
    }

    pub(crate) async fn apply(&self, table: &RouteTable) -> Result<(), EdgeError> {
        self.edge.apply(table.generation, table.table_digest()).await
    }

    pub(crate) async fn activate(&self, table: &RouteTable) {
        self.edge.stage(table).await.unwrap();
        self.apply(table).await.unwrap();
    }

    /// What is active, by its own word.
    pub(crate) async fn serves(&self, table: &RouteTable) {
        let status = self.status().await;
        assert_eq!((status.active, status.active_digest), (table.generation, table.table_digest()));
    }

    /// Requests in flight to one instance.
    pub(crate) async fn in_flight(&self, name: &str) -> u32 {
        self.edge.in_flight(&[instance_name(name)]).await.unwrap()[0]
    }

    pub(crate) async fn restart(&mut self) {
        self.host.end().await;
        self.host.come_back().await;
    }
}

pub(crate) fn app_name(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

pub(crate) fn instance_name(name: &str) -> InstanceName {
    InstanceName::parse(&format!("refloat-{name}")).unwrap()
}

/// A table of the first epoch.
pub(crate) fn table(number: u64, apps: Vec<AppRoutes>) -> RouteTable {
    RouteTable { generation: Generation { epoch: Epoch(1), number }, apps }
}

/// An app that answers `NAME.test` by one target.
pub(crate) fn app(name: &str, release: u32, target: RouteTarget) -> AppRoutes {
    AppRoutes {
        app: app_name(name),
        release: ReleaseNumber(release),
        release_id: ReleaseId([0; 32]),
        hosts: vec![HostName::new(&format!("{name}.test")).unwrap()],
        catch_all: false,
        serving: AppServing::Serving,
        routes: vec![route("/", target)],
    }
}

pub(crate) fn route(prefix: &str, target: RouteTarget) -> Route {
    Route { prefix: PathPrefix::new(prefix).unwrap(), process: ProcessName::new("web").unwrap(), target }
}

pub(crate) fn site(tree: TreeDigest) -> RouteTarget {
    RouteTarget::Files { tree, rules: StaticRules::default() }
}

pub(crate) fn by(name: &str) -> Answer {
    Answer::Instance(format!("refloat-{name}"))
}

pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, EdgeError>) -> String {
    match answer {
        Err(EdgeError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// Waits until it is so; 60 s is what nothing here takes.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    const TRIES: u32 = 3_000;
    for _ in 0..TRIES {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came that {what}");
}

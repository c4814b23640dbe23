//! One edge in a folder of its own, with the agent's side of the control socket.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use refloat_edge::limits::{ClientLimit, Timeouts};
use refloat_edge::{Args, Config, Edge};
use refloat_model::{
    AppName, AppRoutes, AppServing, Canonical as _, Epoch, FileTree, Generation, HostName, InstanceName, PathPrefix,
    ProcessName, ReleaseId, ReleaseNumber, Route, RouteTable, RouteTarget, StaticRules, TreeDigest, TreeFile,
};
use refloat_proto::edge::v1::control_client::ControlClient;
use refloat_proto::edge::v1::{
    ApplyRequest, ApplyResponse, GetStatusRequest, GetStatusResponse, HoldRequest, InFlightRequest, ReleaseRequest,
    StageRequest, TableVersion,
};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

/// What the access log wrote.
#[derive(Clone, Default)]
pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().unwrap();
        String::from_utf8_lossy(&bytes).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) log: Written,
    pub(crate) control: ControlClient<Channel>,
    edge: Option<Edge>,
    number: u64,
}

fn timeouts() -> Timeouts {
    Timeouts { linger: Duration::from_millis(200), drain: Duration::from_secs(10), ..Timeouts::default() }
}

async fn connect(socket: &Path) -> ControlClient<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
    });
    ControlClient::new(Endpoint::from_static("http://edge").connect_with_connector(connector).await.unwrap())
}

async fn start_edge(folder: &Path, log: Written, timeouts: Timeouts, client_limit: ClientLimit) -> Edge {
    let args = Args {
        state_dir: folder.join("state"),
        public_dir: folder.join("public"),
        control: folder.join("edge.sock"),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
    };
    let mut config = Config::new(args, Vec::new()).unwrap();
    config.timeouts = timeouts;
    config.client_limit = client_limit;
    config.access_log = Box::new(log);
    Edge::start(config).await.unwrap()
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(timeouts(), ClientLimit::default()).await
    }

    pub(crate) async fn impatient(change: impl FnOnce(&mut Timeouts)) -> Self {
        let mut timeouts = timeouts();
        change(&mut timeouts);
        Self::with(timeouts, ClientLimit::default()).await
    }

    /// An edge that counts connections from its own host too.
    pub(crate) async fn crowded(connections: u32) -> Self {
        Self::with(timeouts(), ClientLimit { connections, loopback_exempt: false }).await
    }

    async fn with(timeouts: Timeouts, client_limit: ClientLimit) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Written::default();
        let edge = start_edge(folder.path(), log.clone(), timeouts, client_limit).await;
        let control = connect(&folder.path().join("edge.sock")).await;
        Self { folder, log, control, edge: Some(edge), number: 0 }
    }

    /// An edge whose app `a` is one instance.
    pub(crate) async fn serving(app: SocketAddr) -> Self {
        let mut rig = Self::start().await;
        rig.activate(vec![app_routes("a", 1, vec![("/", instance("a-web-1", app))])]).await;
        rig
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.edge.as_ref().unwrap().listen()[0]
    }

    pub(crate) fn table(&mut self, apps: Vec<AppRoutes>) -> RouteTable {
        self.number += 1;
        RouteTable { generation: Generation { epoch: Epoch(1), number: self.number }, apps }
    }

    pub(crate) async fn stage(&mut self, table: &RouteTable) -> Result<TableVersion, Status> {
        let request = StageRequest { table: table.to_canonical() };
        Ok(self.control.stage(request).await?.into_inner().staged.unwrap())
    }

    pub(crate) async fn apply(&mut self, version: TableVersion) -> Result<ApplyResponse, Status> {
        Ok(self.control.apply(ApplyRequest { version: Some(version) }).await?.into_inner())
    }

    pub(crate) async fn activate(&mut self, apps: Vec<AppRoutes>) -> ApplyResponse {
        let table = self.table(apps);
        let version = self.stage(&table).await.unwrap();
        self.apply(version).await.unwrap()
    }

    pub(crate) async fn status(&mut self) -> GetStatusResponse {
        self.control.get_status(GetStatusRequest {}).await.unwrap().into_inner()
    }

    pub(crate) async fn hold(&mut self, app: &str, deadline_ms: u32) {
        self.control.hold(HoldRequest { app: app.to_owned(), deadline_ms }).await.unwrap();
    }

    pub(crate) async fn release(&mut self, app: &str) -> u32 {
        self.control.release(ReleaseRequest { app: app.to_owned() }).await.unwrap().into_inner().held
    }

    pub(crate) async fn in_flight(&mut self, instance: &str) -> u32 {
        let request = InFlightRequest { instances: vec![format!("refloat-{instance}")] };
        self.control.in_flight(request).await.unwrap().into_inner().counts[0].requests
    }

    /// Ends the edge and starts it again on the same folder, without the agent.
    pub(crate) async fn restart(&mut self, between: impl FnOnce(&Path)) {
        self.edge.take().unwrap().shut_down().await;
        between(self.folder.path());
        let (folder, log) = (self.folder.path(), self.log.clone());
        self.edge = Some(start_edge(folder, log, timeouts(), ClientLimit::default()).await);
        self.control = connect(&self.folder.path().join("edge.sock")).await;
    }

    /// Publishes a tree, as the agent does.
    pub(crate) fn publish(&self, files: &[(&str, &[u8])]) -> TreeDigest {
        let public = self.folder.path().join("public");
        let mut index = FileTree { files: Vec::new() };
        for (path, content) in files {
            let blob = *blake3::hash(content).as_bytes();
            let name = TreeDigest(blob).to_hex();
            std::fs::create_dir_all(public.join("blob").join(&name[..2])).unwrap();
            std::fs::write(public.join("blob").join(&name[..2]).join(&name), content).unwrap();
            index.files.push(TreeFile { path: (*path).to_owned(), size: content.len() as u64, blob });
        }
        index.files.sort_by(|a, b| a.path.cmp(&b.path));
        let digest = index.tree_digest();
        std::fs::create_dir_all(public.join("tree")).unwrap();
        std::fs::write(public.join("tree").join(digest.to_hex()), index.to_canonical()).unwrap();
        digest
    }
}

/// Asks until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let asked = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(crate::wire::HANG_GUARD, asked).await.is_ok(), "never: {what}");
}

pub(crate) fn instance(name: &str, address: SocketAddr) -> RouteTarget {
    let SocketAddr::V4(address) = address else { panic!("instances have IPv4 addresses") };
    let name = InstanceName::parse(&format!("refloat-{name}")).unwrap();
    RouteTarget::Instance { name, ip: address.ip().octets(), port: address.port() }
}

pub(crate) fn prefix(text: &str) -> PathPrefix {
    PathPrefix::new(text).unwrap()
}

pub(crate) fn site(tree: TreeDigest) -> RouteTarget {
    let rules = StaticRules {
        fallback: Some("index.html".to_owned()),
        not_found: Some("404.html".to_owned()),
        no_fallback: vec![prefix("/api")],
        immutable: vec![prefix("/assets")],
    };
    RouteTarget::Files { tree, rules }
}

/// An app that answers `NAME.test`; the app `a` answers every other host too.
pub(crate) fn app_routes(name: &str, release: u32, targets: Vec<(&str, RouteTarget)>) -> AppRoutes {
    let process = ProcessName::new("web").unwrap();
    let route = |(path, target)| Route { prefix: prefix(path), process: process.clone(), target };
    let mut routes: Vec<Route> = targets.into_iter().map(route).collect();
    routes.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    AppRoutes {
        app: AppName::new(name).unwrap(),
        release: ReleaseNumber(release),
        release_id: ReleaseId([0; 32]),
        hosts: vec![HostName::new(&format!("{name}.test")).unwrap()],
        catch_all: name == "a",
        serving: AppServing::Serving,
        routes,
    }
}

//! A real `refloat-edge` in a folder of its own, and visitors over TCP.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use refloat_agent::edge::Edge;
use refloat_agent::edge::client::EdgeClient;
use refloat_model::{Canonical as _, FileTree, InstanceName, TreeDigest, TreeFile};
use refloat_testkit::binaries;
use refloat_testkit::reservation::Reservation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::app::{App, SLOW};
use crate::world::{Answer, Host, eventually};

pub(crate) struct Real {
    folder: tempfile::TempDir,
    port: Reservation,
    edge: Arc<EdgeClient>,
    process: Child,
    apps: HashMap<InstanceName, App>,
}

impl Real {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Reservation::port();
        let edge = Arc::new(EdgeClient::new(&folder.path().join("control.sock")));
        let process = spawn(folder.path(), port.number());
        let real = Self { folder, port, edge, process, apps: HashMap::new() };
        real.answers().await;
        real
    }

    async fn answers(&self) {
        eventually("the edge answers", async || self.edge.status().await.is_ok()).await;
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.number()))
    }

    fn waiting(&self) -> usize {
        self.apps.values().map(App::waiting).sum()
    }
}

fn spawn(folder: &Path, port: u16) -> Child {
    Command::new(binaries::edge())
        .arg("--state-dir")
        .arg(folder.join("state"))
        .arg("--public-dir")
        .arg(folder.join("public"))
        .arg("--control")
        .arg(folder.join("control.sock"))
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[async_trait(?Send)]
impl Host for Real {
    fn edge(&self) -> Arc<dyn Edge> {
        self.edge.clone()
    }

    async fn end(&mut self) {
        self.process.kill().await.unwrap();
    }

    async fn come_back(&mut self) {
        self.process = spawn(self.folder.path(), self.port.number());
        self.answers().await;
    }

    async fn listen(&mut self, name: &InstanceName) -> SocketAddrV4 {
        let app = App::named(name.as_str()).await;
        let address = app.address;
        self.apps.insert(name.clone(), app);
        address
    }

    /// As the agent does: an index by its digest, and files by theirs.
    fn publish(&mut self, word: &str) -> TreeDigest {
        let blob = *blake3::hash(word.as_bytes()).as_bytes();
        let (public, name) = (self.folder.path().join("public"), TreeDigest(blob).to_hex());
        let blobs = public.join("blob").join(&name[..2]);
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(&name), word).unwrap();
        let file = TreeFile { path: "index.html".to_owned(), size: word.len() as u64, blob };
        let index = FileTree { files: vec![file] };
        std::fs::create_dir_all(public.join("tree")).unwrap();
        std::fs::write(public.join("tree").join(index.tree_digest().to_hex()), index.to_canonical()).unwrap();
        index.tree_digest()
    }

    fn unpublish(&mut self, tree: &TreeDigest) {
        std::fs::remove_file(self.folder.path().join("public/tree").join(tree.to_hex())).unwrap();
    }

    fn visitor(&self, host: &str) -> BoxFuture<'static, Answer> {
        let (address, host, public) = (self.address(), host.to_owned(), self.folder.path().join("public"));
        Box::pin(async move {
            let (status, body) = get(address, &host, "/").await.expect("the edge answers");
            match status {
                200 if body.starts_with("refloat-") => Answer::Instance(body),
                200 => Answer::Tree(tree_of(&public, &body)),
                status => Answer::Edge(status),
            }
        })
    }

    async fn begin(&mut self, host: &str) {
        let (address, host, before) = (self.address(), host.to_owned(), self.waiting());
        tokio::spawn(async move { get(address, &host, SLOW).await });
        eventually("the request reaches its instance", async || self.waiting() == before + 1).await;
    }

    async fn finish(&mut self, name: &InstanceName) {
        self.apps[name].let_go();
        self.apps[name].has_waiting(0).await;
    }
}

/// The tree whose page this is.
fn tree_of(public: &Path, page: &str) -> TreeDigest {
    let blob = *blake3::hash(page.as_bytes()).as_bytes();
    let file = TreeFile { path: "index.html".to_owned(), size: page.len() as u64, blob };
    let tree = FileTree { files: vec![file] }.tree_digest();
    assert!(public.join("tree").join(tree.to_hex()).exists(), "a page of no tree: {page}");
    tree
}

/// Status and body; `None` when the edge ends meanwhile.
async fn get(address: SocketAddr, host: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

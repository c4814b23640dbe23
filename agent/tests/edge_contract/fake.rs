//! The fake edge, and visitors who read its table.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use refloat_agent::edge::Edge;
use refloat_agent::edge::fake::FakeEdge;
use refloat_model::{AppServing, InstanceName, RouteTarget, TreeDigest};

use crate::world::{Answer, Host};

#[derive(Default)]
pub(crate) struct Fake {
    edge: FakeEdge,
    in_flight: HashMap<InstanceName, u32>,
}

#[async_trait(?Send)]
impl Host for Fake {
    fn edge(&self) -> Arc<dyn Edge> {
        Arc::new(self.edge.clone())
    }

    async fn end(&mut self) {
        self.edge.set_away(true);
    }

    async fn come_back(&mut self) {
        self.edge.restart();
        self.edge.set_away(false);
        self.in_flight.clear();
    }

    async fn listen(&mut self, _name: &InstanceName) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 201, 0, 2), 8080)
    }

    fn publish(&mut self, word: &str) -> TreeDigest {
        let tree = TreeDigest(*blake3::hash(word.as_bytes()).as_bytes());
        self.edge.set_published(&tree, true);
        tree
    }

    fn unpublish(&mut self, tree: &TreeDigest) {
        self.edge.set_published(tree, false);
    }

    fn visitor(&self, host: &str) -> BoxFuture<'static, Answer> {
        let (edge, host) = (self.edge.clone(), host.to_owned());
        Box::pin(async move {
            loop {
                match target(&edge, &host) {
                    Ok(None) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Ok(Some(RouteTarget::Instance { name, .. })) => return Answer::Instance(name.to_string()),
                    Ok(Some(RouteTarget::Files { tree, .. })) if edge.is_published(&tree) => return Answer::Tree(tree),
                    Ok(Some(RouteTarget::Files { .. })) => return Answer::Edge(503),
                    Err(status) => return Answer::Edge(status),
                }
            }
        })
    }

    async fn begin(&mut self, host: &str) {
        let Ok(Some(RouteTarget::Instance { name, .. })) = target(&self.edge, host) else { panic!("no instance") };
        let requests = self.in_flight.entry(name.clone()).or_default();
        *requests += 1;
        self.edge.set_in_flight(&name, *requests);
    }

    async fn finish(&mut self, name: &InstanceName) {
        self.in_flight.remove(name);
        self.edge.set_in_flight(name, 0);
    }
}

/// Where the page `/` of a host leads; `None` while its app is held.
fn target(edge: &FakeEdge, host: &str) -> Result<Option<RouteTarget>, u16> {
    let table = edge.active();
    let app = table.app_for_host(host).ok_or(404_u16)?;
    if app.serving == AppServing::Stopped {
        return Err(503);
    }
    if edge.is_held(&app.app) {
        return Ok(None);
    }
    app.route_for_path("/").map(|route| Some(route.target.clone())).ok_or(404)
}

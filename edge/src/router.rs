//! From host and path to what answers: the prepared form of a route table, and the door that every request passes.
//!
//! A request is bound once, at its head, to the table that is active then. What makes a switch exact is the order of
//! four things: a request counts itself in flight, then looks whether the door has moved; a switch swaps the table,
//! then moves the door. Whoever reads the counters after a switch was acknowledged therefore sees every request that
//! went to the old instance, and no request can reach it later.
//!
//! ```text
//! request:  read door ─ read table ─ count in flight ─ read door again ── same ──▶ bound
//!               ▲                                            └─ moved: count back ┐
//!               └──────────────────────────────────────────────────────────────────┘
//! switch:   swap table (or close a gate) ─ move door ─ acknowledge
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Instant;

use arc_swap::ArcSwap;
use refloat_model::{
    AppName, AppRoutes, AppServing, Generation, ReleaseNumber, Route, RouteTable, RouteTarget, TableDigest,
};

use crate::hold::{HoldError, Holds, Ticket};
use crate::inflight::Lease;
use crate::site::{Site, SiteError, Trees};
use crate::upstream::{Upstream, Upstreams};

/// A table that is ready to serve.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Its version.
    pub generation: Generation,
    /// Its digest; zeroes when there is no table.
    pub digest: Option<TableDigest>,
    apps: HashMap<AppName, Arc<App>>,
    hosts: HashMap<Box<str>, Arc<App>>,
    catch_all: Option<Arc<App>>,
    instances: Vec<String>,
    /// Whether nothing is known about what should be served: every request is answered 503, never 404.
    pub lost: bool,
}

/// One app of a prepared table.
#[derive(Debug)]
pub struct App {
    /// Its name.
    pub name: AppName,
    /// What serves.
    pub release: ReleaseNumber,
    serving: AppServing,
    /// By falling length of prefix.
    routes: Vec<(Route, Backend)>,
}

/// What answers.
#[derive(Debug, Clone)]
pub enum Backend {
    /// An instance.
    Instance(Arc<Upstream>),
    /// The edge itself.
    Files(Arc<Site>),
    /// A tree that could not be opened when the table was prepared.
    Missing,
}

/// Whether a tree that cannot be opened fails the whole table.
#[derive(Debug, Clone, Copy)]
pub enum MissingTree<'a> {
    /// It does when its route is not one of this table: staged over it. What is missing there already answers 503 and
    /// must not keep the other apps from being switched.
    RefuseNew(&'a Prepared),
    /// Its routes answer 503, all others serve: a table that is restored, or staged where none serves.
    Serve503,
}

impl MissingTree<'_> {
    fn refuses(self, routes: &AppRoutes, route: &Route) -> bool {
        match self {
            Self::RefuseNew(active) => !active.has(routes, route),
            Self::Serve503 => false,
        }
    }
}

impl Prepared {
    /// Opens what a table names. Blocking: it reads the indexes of trees.
    ///
    /// # Errors
    /// When a tree cannot be opened and `missing` refuses that.
    pub fn new(
        table: &RouteTable,
        upstreams: &Upstreams,
        trees: &Trees,
        missing: MissingTree<'_>,
    ) -> Result<Self, SiteError> {
        let mut prepared = Self { generation: table.generation, digest: Some(table.table_digest()), ..Self::default() };
        for routes in &table.apps {
            let app = Arc::new(App::new(routes, upstreams, trees, missing)?);
            for host in &routes.hosts {
                prepared.hosts.insert(host.as_str().into(), app.clone());
            }
            if routes.catch_all {
                prepared.catch_all = Some(app.clone());
            }
            prepared.apps.insert(routes.app.clone(), app);
            prepared.instances.extend(routes.instances().map(|name| name.as_str().to_owned()));
        }
        prepared.instances.sort();
        prepared.instances.dedup();
        Ok(prepared)
    }

    /// No table, although there should be one.
    #[must_use]
    pub fn lost() -> Self {
        Self { lost: true, ..Self::default() }
    }

    /// The instances of this table that another one does not route to.
    #[must_use]
    pub fn displaced_by(&self, next: &Self) -> Vec<String> {
        self.instances.iter().filter(|name| next.instances.binary_search(name).is_err()).cloned().collect()
    }

    /// Whether the same release of the app has the same route here.
    fn has(&self, routes: &AppRoutes, route: &Route) -> bool {
        let app = self.apps.get(&routes.app).filter(|app| app.release == routes.release);
        app.is_some_and(|app| app.routes.iter().any(|(known, _)| known == route))
    }

    fn app(&self, host: Option<&str>) -> Option<&Arc<App>> {
        host.and_then(|host| self.hosts.get(host)).or(self.catch_all.as_ref())
    }
}

impl App {
    fn new(
        routes: &AppRoutes,
        upstreams: &Upstreams,
        trees: &Trees,
        missing: MissingTree<'_>,
    ) -> Result<Self, SiteError> {
        let mut prepared = Vec::with_capacity(routes.routes.len());
        for route in &routes.routes {
            let refuse = missing.refuses(routes, route);
            prepared.push((route.clone(), Backend::new(route, upstreams, trees, refuse)?));
        }
        prepared.sort_by_key(|(route, _)| std::cmp::Reverse(route.prefix.as_str().len()));
        Ok(Self { name: routes.app.clone(), release: routes.release, serving: routes.serving, routes: prepared })
    }

    fn backend(&self, path: &str) -> Option<&Backend> {
        self.routes.iter().find(|(route, _)| route.prefix.matches(path)).map(|(_, backend)| backend)
    }
}

impl Backend {
    fn new(route: &Route, upstreams: &Upstreams, trees: &Trees, refuse_missing: bool) -> Result<Self, SiteError> {
        match &route.target {
            RouteTarget::Instance { name, ip, port } => {
                let address = std::net::SocketAddrV4::new((*ip).into(), *port);
                Ok(Self::Instance(upstreams.of(name, address)))
            }
            RouteTarget::Files { tree, rules } => match trees.open(tree) {
                Ok(tree) => Ok(Self::Files(Arc::new(Site { tree, rules: rules.clone() }))),
                Err(error) if refuse_missing => Err(error),
                Err(error) => {
                    tracing::error!(%tree, error = &error as &dyn std::error::Error, "a published site cannot be opened");
                    Ok(Self::Missing)
                }
            },
        }
    }
}

/// A request that knows who answers it.
#[derive(Debug)]
pub struct Bound {
    /// The app.
    pub app: Arc<App>,
    /// Who answers.
    pub backend: Backend,
    /// Counts the request in flight to an instance.
    pub lease: Option<Lease>,
}

/// Why a request has nobody who answers it.
#[derive(Debug)]
pub enum Unbound {
    /// No app has the host.
    NoApp,
    /// The app has no route for the path.
    NoRoute(Arc<App>),
    /// The app is stopped.
    Stopped(Arc<App>),
    /// The app was held and did not come back, or too many waited.
    Held(Arc<App>, HoldError),
    /// The edge has lost its table.
    Lost,
}

enum Attempt {
    Bound(Bound),
    Wait(Arc<App>, Ticket),
    Moved,
}

/// The active table.
#[derive(Debug)]
pub struct Router {
    active: ArcSwap<Prepared>,
    door: AtomicU64,
    holds: Holds,
}

impl Router {
    /// Starts with a table.
    #[must_use]
    pub fn new(table: Prepared) -> Self {
        Self { active: ArcSwap::from_pointee(table), door: AtomicU64::new(0), holds: Holds::default() }
    }

    /// The active table.
    #[must_use]
    pub fn active(&self) -> Arc<Prepared> {
        self.active.load_full()
    }

    /// Makes a table the active one; gives back the one before. When this returns, no request that starts later is
    /// bound to that one, and every request that was is counted in flight.
    pub fn swap(&self, table: Arc<Prepared>) -> Arc<Prepared> {
        let before = self.active.swap(table);
        self.move_door();
        before
    }

    /// Holds the requests of an app; the same promise as [`Router::swap`].
    pub fn hold(&self, app: &AppName, until: Instant) {
        self.holds.hold(app, until);
        self.move_door();
    }

    /// Lets them go on; says how many waited.
    pub fn release(&self, app: &AppName) -> u32 {
        self.holds.release(app)
    }

    fn move_door(&self) {
        self.door.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Finds who answers, and waits while the app is held.
    ///
    /// # Errors
    /// Why nobody does.
    pub async fn bind(&self, host: Option<&str>, path: &str) -> Result<Bound, Unbound> {
        loop {
            match self.attempt(host, path)? {
                Attempt::Bound(bound) => return Ok(bound),
                Attempt::Moved => {}
                Attempt::Wait(app, ticket) => ticket.wait().await.map_err(|e| Unbound::Held(app, e))?,
            }
        }
    }

    fn attempt(&self, host: Option<&str>, path: &str) -> Result<Attempt, Unbound> {
        let door = self.door.load(Ordering::SeqCst);
        let table = self.active.load();
        let app = table.app(host).ok_or(if table.lost { Unbound::Lost } else { Unbound::NoApp })?;
        if app.serving == AppServing::Stopped {
            return Err(Unbound::Stopped(app.clone()));
        }
        match self.holds.ticket(&app.name, Instant::now()) {
            Ok(None) => {}
            Ok(Some(ticket)) => return Ok(Attempt::Wait(app.clone(), ticket)),
            Err(error) => return Err(Unbound::Held(app.clone(), error)),
        }
        let backend = app.backend(path).ok_or_else(|| Unbound::NoRoute(app.clone()))?.clone();
        let lease = match &backend {
            Backend::Instance(upstream) => Some(upstream.in_flight.lease()),
            Backend::Files(_) | Backend::Missing => None,
        };
        fence(Ordering::SeqCst);
        if self.door.load(Ordering::SeqCst) == door {
            Ok(Attempt::Bound(Bound { app: app.clone(), backend, lease }))
        } else {
            Ok(Attempt::Moved)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use refloat_model::{HostName, InstanceName, PathPrefix, ProcessName, ReleaseId};

    use super::*;

    const SWITCHES: u64 = 4_000;

    fn table(number: u64, instance: &str) -> RouteTable {
        let target =
            RouteTarget::Instance { name: InstanceName::parse(instance).unwrap(), ip: [127, 0, 0, 1], port: 1 };
        let route = Route { prefix: PathPrefix::root(), process: ProcessName::new("web").unwrap(), target };
        let app = AppRoutes {
            app: AppName::new("a").unwrap(),
            release: ReleaseNumber::FIRST,
            release_id: ReleaseId([0; 32]),
            hosts: vec![HostName::new("a.test").unwrap()],
            catch_all: false,
            serving: AppServing::Serving,
            routes: vec![route],
        };
        RouteTable { generation: Generation { number, ..Generation::default() }, apps: vec![app] }
    }

    /// The door, against threads that rush through it: once a displaced instance has nothing in flight, it stays so.
    #[test]
    fn nothing_enters_a_displaced_instance_once_it_was_seen_empty() {
        let (upstreams, trees) = (Upstreams::default(), Trees::new("/nowhere".into()));
        let prepared = |number, name: &str| {
            Arc::new(Prepared::new(&table(number, name), &upstreams, &trees, MissingTree::Serve503).unwrap())
        };
        let names = ["refloat-a-web-0", "refloat-a-web-1"];
        let tables = [prepared(0, names[0]), prepared(1, names[1])];
        let router =
            Router { active: ArcSwap::new(tables[0].clone()), door: AtomicU64::new(0), holds: Holds::default() };
        let over = AtomicBool::new(false);
        let late = thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        // What is counted and then given up because the door moved never reaches the instance.
                        if let Ok(Attempt::Bound(bound)) = router.attempt(Some("a.test"), "/") {
                            let Backend::Instance(upstream) = &bound.backend else { continue };
                            SENT.with(upstream);
                        }
                    }
                });
            }
            let late = (0..SWITCHES).filter(|i| switch_and_watch(&router, &tables, &upstreams, names, *i)).count();
            over.store(true, Ordering::Relaxed);
            late
        });
        assert_eq!(late, 0);
    }

    /// Requests that went to each instance.
    struct Sent([AtomicU64; 2]);
    static SENT: Sent = Sent([AtomicU64::new(0), AtomicU64::new(0)]);

    impl Sent {
        fn of(&self, name: &str) -> &AtomicU64 {
            &self.0[usize::from(name.ends_with('1'))]
        }

        fn with(&self, upstream: &Upstream) {
            self.of(upstream.name.as_str()).fetch_add(1, Ordering::SeqCst);
        }
    }

    fn switch_and_watch(
        router: &Router,
        tables: &[Arc<Prepared>; 2],
        upstreams: &Upstreams,
        names: [&str; 2],
        i: u64,
    ) -> bool {
        let displaced = names[usize::from(!i.is_multiple_of(2))];
        router.swap(tables[usize::from(i.is_multiple_of(2))].clone());
        while upstreams.counters.count(displaced) > 0 {
            thread::yield_now();
        }
        let seen = SENT.of(displaced).load(Ordering::SeqCst);
        thread::yield_now();
        SENT.of(displaced).load(Ordering::SeqCst) != seen
    }
}

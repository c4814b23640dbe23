//! Histories for tests: events that fit each other, every kind of them among them. The same calls make the same
//! events.

#![allow(clippy::unwrap_used)] // Every name here is written here.

use refloat_model::{
    Action, AppName, AppRoutes, AppServing, Author, Backend, DeployAction, Deployment, DeploymentId, EnvId,
    EnvVariable, Epoch, Event, Failure, Hardening, Health, HostName, ImageDigest, InstanceName, InstanceRecord, OneOff,
    OneOffEnd, OneOffId, Origin, Outcome, PathPrefix, PlanDigest, Principal, Process, ProcessKind, ProcessName,
    Release, ReleaseMeta, ReleaseNumber, Resources, Route, RouteTable, RouteTarget, SourceDigest, StaticRules,
    TreeDigest, Via, VolumeMount,
};

/// Somebody with a certificate: who asks for every deployment here.
#[must_use]
pub fn ada() -> Principal {
    Principal { name: "ada".to_owned(), via: Via::Certificate("0a1b".to_owned()), from: "192.0.2.7".to_owned() }
}

/// The name of an app.
#[must_use]
pub fn app(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

fn process(name: &str) -> ProcessName {
    ProcessName::new(name).unwrap()
}

/// Writes a history of a host whose ledger was just begun.
#[derive(Debug, Clone)]
pub struct History {
    table: RouteTable,
    deployments: u64,
    subnets: u16,
}

impl Default for History {
    fn default() -> Self {
        let mut table = RouteTable::default();
        table.generation.epoch = Epoch(1);
        Self { table, deployments: 0, subnets: 0 }
    }
}

impl History {
    /// An app comes to be.
    pub fn create(&mut self, name: &str) -> Event {
        self.subnets += 1;
        Event::AppCreated { app: app(name), subnet: self.subnets }
    }

    /// A deployment is accepted.
    pub fn accept(&mut self, name: &str, action: Action) -> (DeploymentId, Event) {
        self.deployments += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.deployments.to_be_bytes());
        let id = DeploymentId(id);
        let deployment = Deployment {
            id,
            release: action.target(),
            action,
            by: ada(),
            reason: "because".to_owned(),
            accepted_at_ms: 0,
            serving_before: None,
            committed: false,
            handovers: Vec::new(),
            resumed: 0,
        };
        (id, Event::DeploymentAccepted { app: app(name), deployment })
    }

    /// A release is made by a deployment.
    #[must_use]
    pub fn release(deployment: DeploymentId, name: &str, number: u32) -> Event {
        Event::ReleaseCreated {
            deployment,
            number: ReleaseNumber(number),
            release: release(name, number),
            meta: ReleaseMeta {
                created_at_ms: 1_700_000_000_000 + u64::from(number),
                origin: origin(),
                build_ms: 4_200,
                changes: vec!["src/main.ts".to_owned(), "package.json".to_owned()],
                kind: "deploy".to_owned(),
                build_env: Vec::new(),
            },
        }
    }

    /// The instance of a release's web process.
    #[must_use]
    pub fn instance(name: &str, number: u32) -> InstanceRecord {
        let spec = *blake3::hash(&number.to_be_bytes()).as_bytes();
        InstanceRecord {
            name: InstanceName::derive(&app(name), &process("web"), &spec, 0),
            process: process("web"),
            release: ReleaseNumber(number),
            spec,
            attempt: 0,
            ip: [10, 201, 0, 2],
            port: 3000,
        }
    }

    /// A deployment commits a release.
    pub fn commit(&mut self, deployment: DeploymentId, name: &str, activates: Option<u32>) -> Event {
        let number = activates.unwrap_or(1);
        let mut routes = routes(name, number);
        routes.catch_all = self.table.apps.iter().all(|a| a.app == routes.app || !a.catch_all);
        self.commit_routes(deployment, name, activates, Some(routes))
    }

    /// A deployment commits these routes.
    pub fn commit_routes(
        &mut self,
        deployment: DeploymentId,
        name: &str,
        activates: Option<u32>,
        routes: Option<AppRoutes>,
    ) -> Event {
        self.table = self.table.with(&app(name), routes.clone());
        Event::RoutesCommitted {
            app: app(name),
            deployment,
            activates: activates.map(ReleaseNumber),
            routes,
            generation: self.table.generation,
            table: self.table.table_digest(),
        }
    }

    /// A deployment ends.
    #[must_use]
    pub fn end(deployment: DeploymentId, name: &str, outcome: Outcome) -> Event {
        Event::DeploymentEnded { app: app(name), deployment, outcome }
    }

    /// A whole deploy of one release: five records, and from the third release on a sixth that removes the instance
    /// of the last but one, so that instances stay few however long the history is.
    pub fn deploy(&mut self, name: &str, number: u32) -> Vec<Event> {
        let (id, accepted) = self.accept(name, deploy_action());
        let mut events = vec![
            accepted,
            Self::release(id, name, number),
            Event::InstancePlanned { app: app(name), instance: Self::instance(name, number) },
            self.commit(id, name, Some(number)),
            Self::end(id, name, Outcome::Live),
        ];
        let gone = number.checked_sub(2).filter(|gone| *gone > 0).map(|gone| Self::instance(name, gone).name);
        events.extend(gone.map(|instance| Event::InstanceRemoved { app: app(name), instance }));
        events
    }

    /// A whole rollback: three records.
    pub fn rollback(&mut self, name: &str, to: u32) -> Vec<Event> {
        let (id, accepted) = self.accept(name, Action::Rollback(ReleaseNumber(to)));
        vec![accepted, self.commit(id, name, Some(to)), Self::end(id, name, Outcome::Live)]
    }

    /// Events of every kind, with every action and every outcome.
    pub fn of_every_kind(&mut self) -> Vec<Event> {
        let mut events = vec![
            Event::ClientPaired {
                serial: "0a1b".to_owned(),
                name: "ada".to_owned(),
                role: "admin".to_owned(),
                not_after_ms: 1_800_000_000_000,
            },
            self.create("shop"),
            self.create("blog"),
        ];
        events.extend(self.deploy("shop", 1));
        events.extend(self.deploy("shop", 2));
        events.extend(self.deploy("blog", 1));
        events.extend(self.rollback("shop", 1));
        events.extend(self.every_action());
        events.extend(self.handover());
        events.push(Event::DomainsSet { app: app("shop"), domains: domains() });
        events.push(Event::EnvSealed { app: app("shop"), env: EnvId([5; 32]), variables: variables() });
        events.push(Event::InstanceRemoved { app: app("shop"), instance: Self::instance("shop", 2).name });
        events.extend(self.destroy("blog"));
        // What the second format brought comes last: the first one is how everything before it begins.
        events.extend(one_off(1, OneOffEnd::Exited(-1)));
        events.extend(one_off(2, OneOffEnd::Cut("the agent was restarted".to_owned())));
        events.extend(self.built_with_env());
        events
    }

    fn built_with_env(&mut self) -> [Event; 3] {
        let (id, accepted) = self.accept("shop", deploy_action());
        let mut made = Self::release(id, "shop", 3);
        if let Event::ReleaseCreated { meta, .. } = &mut made {
            meta.build_env = vec!["VITE_API_URL".to_owned()];
        }
        [accepted, made, Self::end(id, "shop", Outcome::Done)]
    }

    fn every_action(&mut self) -> Vec<Event> {
        let actions = [
            Action::Activate(ReleaseNumber(2)),
            Action::ChangeEnv { env: EnvId([5; 32]), no_activate: true, names: vec!["API_KEY".to_owned()] },
            Action::Restart,
            Action::Stop,
            Action::SetDomains(domains()),
            deploy_action(),
            deploy_action(),
        ];
        let outcomes = [
            Outcome::LiveUnverified("the edge answered with another release".to_owned()),
            Outcome::CommittedNotServed("the edge is down".to_owned()),
            Outcome::Cancelled { by: "ada".to_owned() },
            Outcome::Done,
            Outcome::Unchanged,
            Outcome::Superseded { by: DeploymentId([3; 16]) },
            Outcome::Failed(Failure {
                reason: "UNHEALTHY".to_owned(),
                message: "web did not answer within 60 s".to_owned(),
                next_command: "refloat logs shop".to_owned(),
                lines: vec!["Error: listen EADDRINUSE".to_owned()],
            }),
        ];
        let mut events = Vec::new();
        for (action, outcome) in actions.into_iter().zip(outcomes) {
            let (id, accepted) = self.accept("shop", action);
            events.extend([accepted, Self::end(id, "shop", outcome)]);
        }
        events
    }

    fn handover(&mut self) -> Vec<Event> {
        let (id, accepted) = self.accept("shop", Action::Restart);
        let (began, ended) = (process("worker"), process("worker"));
        vec![
            accepted,
            Event::HandoverBegan { app: app("shop"), deployment: id, process: began },
            Event::DeploymentResumed { app: app("shop"), deployment: id },
            Event::HandoverEnded { app: app("shop"), deployment: id, process: ended, completed: true },
            self.commit(id, "shop", None),
            Self::end(id, "shop", Outcome::Live),
        ]
    }

    fn destroy(&mut self, name: &str) -> Vec<Event> {
        let (id, accepted) = self.accept(name, Action::Destroy { volumes: false });
        vec![
            accepted,
            self.commit_routes(id, name, None, None),
            Self::end(id, name, Outcome::Done),
            Event::AppDestroyed { app: app(name) },
        ]
    }
}

fn one_off(number: u8, end: OneOffEnd) -> [Event; 2] {
    let id = OneOffId([number; 16]);
    let command = ["node".to_owned(), "migrate.js".to_owned()];
    let one_off = OneOff::of(id, ReleaseNumber(1), process("web"), &command, "because".to_owned());
    [Event::OneOffBegan { app: app("shop"), one_off }, Event::OneOffEnded { app: app("shop"), id, end }]
}

/// A deploy of some source.
#[must_use]
pub fn deploy_action() -> Action {
    Action::Deploy(DeployAction {
        source: SourceDigest([1; 32]),
        force: false,
        no_activate: false,
        prebuilt: true,
        origin: origin(),
    })
}

/// Two variables.
#[must_use]
pub fn variables() -> Vec<EnvVariable> {
    let variable = |name: &str, n: u8| EnvVariable {
        name: name.to_owned(),
        sealed: [n; 16],
        fingerprint: [n; 32],
        changed_at_ms: 1_700_000_000_000,
        changed_by: "ada".to_owned(),
    };
    vec![variable("API_KEY", 1), variable("DATABASE_URL", 2)]
}

fn domains() -> Vec<HostName> {
    vec![HostName::new("shop.example").unwrap(), HostName::new("www.shop.example").unwrap()]
}

fn origin() -> Origin {
    Origin {
        host: "laptop".to_owned(),
        git_commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        git_subject: "Say hello".to_owned(),
        git_dirty: true,
        folder: "shop".to_owned(),
    }
}

/// A release with a container, a tree of files and a worker with a volume; its content depends on the number.
#[must_use]
pub fn release(name: &str, number: u32) -> Release {
    let image = |n: u32| ImageDigest::new(format!("sha256:{n:064x}")).unwrap();
    let instance = |port| Backend::Instance {
        image: image(number),
        command: vec!["node".to_owned(), "server.js".to_owned()],
        port,
        hardening: Hardening::Generated,
        writable_root: false,
        capabilities: Vec::new(),
    };
    let files = Backend::Files {
        tree: TreeDigest([number.to_be_bytes()[3]; 32]),
        rules: StaticRules {
            fallback: Some("index.html".to_owned()),
            not_found: None,
            no_fallback: vec![PathPrefix::new("/api").unwrap()],
            immutable: vec![PathPrefix::new("/assets").unwrap()],
        },
    };
    let kept = |name: &str, kind, backend, routes: &[&str]| Process {
        name: process(name),
        kind,
        exclusive: false,
        backend,
        routes: routes.iter().map(|route| PathPrefix::new(route).unwrap()).collect(),
        health: Health::default(),
        resources: Resources::default(),
        volumes: Vec::new(),
        schedule: None,
    };
    let mut worker = kept("worker", ProcessKind::Worker, instance(0), &[]);
    worker.exclusive = true;
    worker.volumes = vec![VolumeMount { name: process("data"), path: "/data".to_owned() }];
    Release {
        app: app(name),
        source: SourceDigest([1; 32]),
        plan: PlanDigest([2; 32]),
        processes: vec![
            kept("site", ProcessKind::Web, files, &["/"]),
            kept("web", ProcessKind::Web, instance(3000), &["/api"]),
            worker,
        ],
        env: EnvId([4; 32]),
        parent: None,
        author: Author("ada".to_owned()),
    }
}

/// The routes of a release.
#[must_use]
pub fn routes(name: &str, number: u32) -> AppRoutes {
    let instance = History::instance(name, number);
    let target = RouteTarget::Instance { name: instance.name, ip: instance.ip, port: instance.port };
    AppRoutes {
        app: app(name),
        release: ReleaseNumber(number),
        release_id: release(name, number).id(),
        hosts: vec![HostName::new(&format!("{name}.example")).unwrap()],
        catch_all: false,
        serving: AppServing::Serving,
        routes: vec![Route { prefix: PathPrefix::root(), process: process("web"), target }],
    }
}

//! May this be done to this app now? Pure: one function from what is there to a verdict.
//!
//! | asked while … | nothing runs | one runs before its commit | one runs after its commit |
//! |---|---|---|---|
//! | deploy | start | wait; a waiting deploy is superseded | wait; a waiting deploy is superseded |
//! | rollback, activate, stop, destroy | start | cancel it and every waiting deploy, then start | next in line |
//! | restart, domains, env | start | wait | wait |
//!
//! An emergency never waits for a build. What is already committed ends within its bound; nothing can overtake it.
//! Emergencies keep their order among themselves: the last one asked for has the last word.

use crate::id::{AppName, DeploymentId, ReleaseNumber};
use crate::lineage::NoTarget;
use crate::route::HostName;

/// Most mutations that wait for one app: that many emergencies, and that many in all before another one is let in that
/// is none.
pub const MAX_WAITING: usize = 16;

/// How urgent a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A deploy: one place in the queue, the newest wins.
    Deploy,
    /// Does not wait for anything that is not committed.
    Emergency,
    /// Waits its turn.
    Turn,
}

impl Urgency {
    /// The urgency of a kind of request (`deploy`, `rollback`, …).
    #[must_use]
    pub fn of(kind: &str) -> Self {
        match kind {
            "deploy" => Self::Deploy,
            "rollback" | "activate" | "stop" | "destroy" => Self::Emergency,
            _ => Self::Turn,
        }
    }
}

/// A deployment that runs or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Which.
    pub id: DeploymentId,
    /// How urgent it is.
    pub urgency: Urgency,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It starts now.
    Start,
    /// It waits at this place; these waiting ones give up theirs.
    Wait {
        /// From 0.
        place: usize,
        /// They are superseded.
        superseded: Vec<DeploymentId>,
    },
    /// The running one is cancelled; it starts when that has let go. These waiting ones are cancelled too.
    CancelRunning {
        /// From 0, behind emergencies that were asked for earlier.
        place: usize,
        /// They are cancelled.
        cancelled: Vec<DeploymentId>,
    },
    /// No.
    Deny(Denial),
}

/// Judges a request against what runs (and whether that is before its commit) and what waits.
#[must_use]
pub fn admit(urgency: Urgency, running: Option<(Pending, bool)>, waiting: &[Pending]) -> Verdict {
    let waiting_deploys = || waiting.iter().filter(|p| p.urgency == Urgency::Deploy).map(|p| p.id).collect::<Vec<_>>();
    match (urgency, running) {
        (_, None) if waiting.is_empty() => Verdict::Start,
        (Urgency::Deploy, _) => {
            let superseded = waiting_deploys();
            let place = waiting.len() - superseded.len();
            room(place).unwrap_or(Verdict::Wait { place, superseded })
        }
        (Urgency::Emergency, _) => {
            let place = waiting.iter().filter(|p| p.urgency == Urgency::Emergency).count();
            let verdict = match running {
                Some((_, true)) => Verdict::CancelRunning { place, cancelled: waiting_deploys() },
                _ => Verdict::Wait { place, superseded: waiting_deploys() },
            };
            room(place).unwrap_or(verdict)
        }
        (Urgency::Turn, _) => {
            let place = waiting.len();
            room(place).unwrap_or(Verdict::Wait { place, superseded: Vec::new() })
        }
    }
}

fn room(place: usize) -> Option<Verdict> {
    (place >= MAX_WAITING).then_some(Verdict::Deny(Denial::QueueFull))
}

/// Every reason to refuse a request. Nothing has changed when one is given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// There is no app of that name.
    #[error("there is no app called {0}")]
    NoSuchApp(AppName),
    /// No app at all.
    #[error("there is no app on this server yet")]
    NoApps,
    /// Which one?
    #[error("there are several apps: name one of {}", .0.iter().map(AppName::as_str).collect::<Vec<_>>().join(", "))]
    WhichApp(Vec<AppName>),
    /// Nothing serves.
    #[error("no release of {0} serves yet")]
    NothingServes(AppName),
    /// There is no such release.
    #[error("{app} has no release {number}")]
    NoSuchRelease {
        /// The app.
        app: AppName,
        /// The number.
        number: ReleaseNumber,
    },
    /// It serves already.
    #[error("{0} serves already")]
    AlreadyServes(ReleaseNumber),
    /// A rollback has nowhere to go.
    #[error("{}", nowhere(*.0))]
    Nowhere(NoTarget),
    /// Two apps without a domain.
    #[error(
        "{first} already answers every address of this server, so {second} needs a domain of its own: a name that points to this server"
    )]
    NeedsDomain {
        /// The app without a domain that is there.
        first: AppName,
        /// The app that was asked for.
        second: AppName,
    },
    /// A domain belongs to another app.
    #[error("{host} belongs to {app}")]
    DomainTaken {
        /// The domain.
        host: HostName,
        /// Its app.
        app: AppName,
    },
    /// A domain that is not the app's.
    #[error("{host} is not a domain of {app}")]
    NotItsDomain {
        /// The domain.
        host: HostName,
        /// The app.
        app: AppName,
    },
    /// Too many wait.
    #[error("{MAX_WAITING} changes of this app wait already")]
    QueueFull,
    /// No network is left.
    #[error("this server has as many apps as its network allows")]
    NoSubnet,
    /// What is left of the apps' subnet belongs to something else.
    #[error("an app needs a network of its own, and this server reaches all that is left of {subnet} already: {route} lies \
             behind {link}{}", elsewhere(free.as_deref()))]
    SubnetInUse {
        /// The apps' subnet.
        subnet: String,
        /// What is in the way.
        route: String,
        /// Behind which link.
        link: String,
        /// A subnet to take instead; `None` once apps have networks of this one.
        free: Option<String>,
    },
}

fn elsewhere(free: Option<&str>) -> String {
    match free {
        Some(net) => format!(". Put this into refloatd.toml, then restart the agent: network.subnet = \"{net}\""),
        None => String::new(),
    }
}

fn nowhere(target: NoTarget) -> String {
    match target {
        NoTarget::NothingBefore(n) => format!("there is nothing before {n}"),
        NoTarget::NoOtherCode(n) => format!("every release before {n} has the same code"),
        NoTarget::NotKept(n) => format!("{n} is not kept any more"),
    }
}

impl Denial {
    /// Stable, for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchApp(_) => "NO_SUCH_APP",
            Self::NoApps => "NO_APPS",
            Self::WhichApp(_) => "WHICH_APP",
            Self::NothingServes(_) => "NOTHING_SERVES",
            Self::NoSuchRelease { .. } => "NO_SUCH_RELEASE",
            Self::AlreadyServes(_) => "ALREADY_SERVES",
            Self::Nowhere(NoTarget::NotKept(_)) => "NOT_KEPT",
            Self::Nowhere(_) => "NOTHING_BEFORE",
            Self::NeedsDomain { .. } => "NEEDS_DOMAIN",
            Self::DomainTaken { .. } => "DOMAIN_TAKEN",
            Self::NotItsDomain { .. } => "NOT_ITS_DOMAIN",
            Self::QueueFull => "QUEUE_FULL",
            Self::NoSubnet => "NO_SUBNET",
            Self::SubnetInUse { .. } => "SUBNET_IN_USE",
        }
    }

    /// One command to type.
    #[must_use]
    pub fn next_command(&self) -> String {
        match self {
            Self::NoSuchApp(_) | Self::WhichApp(_) | Self::QueueFull | Self::AlreadyServes(_) => {
                "refloat status".into()
            }
            Self::NoApps => "refloat deploy".into(),
            Self::NothingServes(app) => format!("refloat deploy {app}"),
            Self::NoSuchRelease { app, .. } => format!("refloat releases {app}"),
            Self::Nowhere(_) => "refloat releases".into(),
            Self::NeedsDomain { second, .. } => format!("refloat domains add {second} {second}.example.com"),
            Self::DomainTaken { host, app } => format!("refloat domains remove {app} {host}"),
            Self::NotItsDomain { app, .. } => format!("refloat domains list {app}"),
            Self::NoSubnet => "refloat destroy APP".into(),
            Self::SubnetInUse { free: None, link, .. } => format!("ip route show dev {link}"),
            Self::SubnetInUse { free: Some(_), .. } => "systemctl restart refloatd".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(n: u8, urgency: Urgency) -> Pending {
        Pending { id: DeploymentId([n; 16]), urgency }
    }

    #[test]
    fn the_table_of_the_module_docs_holds() {
        use Urgency::{Deploy, Emergency, Turn};
        let running = |before| Some((pending(9, Deploy), before));
        let ids = |ns: &[u8]| ns.iter().map(|n| DeploymentId([*n; 16])).collect::<Vec<_>>();
        let waiting = [pending(1, Deploy), pending(2, Turn)];
        for urgency in [Deploy, Emergency, Turn] {
            assert_eq!(admit(urgency, None, &[]), Verdict::Start);
        }
        for before in [true, false] {
            let verdict = admit(Deploy, running(before), &waiting);
            assert_eq!(verdict, Verdict::Wait { place: 1, superseded: ids(&[1]) });
            let verdict = admit(Turn, running(before), &waiting);
            assert_eq!(verdict, Verdict::Wait { place: 2, superseded: vec![] });
        }
        assert_eq!(
            admit(Emergency, running(true), &waiting),
            Verdict::CancelRunning { place: 0, cancelled: ids(&[1]) }
        );
        assert_eq!(admit(Emergency, running(false), &waiting), Verdict::Wait { place: 0, superseded: ids(&[1]) });
    }

    #[test]
    fn the_queue_has_an_end() {
        let full: Vec<_> = (0..16).map(|n| pending(n, Urgency::Turn)).collect();
        let running = Some((pending(99, Urgency::Deploy), true));
        assert_eq!(admit(Urgency::Turn, running, &full), Verdict::Deny(Denial::QueueFull));
        assert!(matches!(admit(Urgency::Emergency, running, &full), Verdict::CancelRunning { .. }));
    }
}

//! The route table: host and path to backends, one value with a rising generation.
//!
//! Owns what a table is, when it is valid and how a request finds its target. The agent validates a table with the
//! same function as the edge, so that a table which the edge would refuse is never committed while the edge is down.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use minicbor::{Decode, Encode};

use crate::canonical::Canonical;
use crate::id::{
    AppName, Generation, InstanceName, NameError, ProcessName, ReleaseId, ReleaseNumber, TableDigest, TreeDigest,
};
use crate::release::StaticRules;

/// Most apps in one table.
pub const MAX_APPS: usize = 1_000;
/// Most hosts of one app.
pub const MAX_HOSTS_PER_APP: usize = 100;
/// Most routes of one app.
pub const MAX_ROUTES_PER_APP: usize = 100;
/// Most bytes of a table's canonical encoding.
pub const MAX_TABLE_BYTES: usize = 32 * 1024 * 1024;

/// The whole of what the edge serves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Default)]
pub struct RouteTable {
    /// Its version.
    #[n(0)]
    pub generation: Generation,
    /// Every app that receives traffic, sorted by name.
    #[n(1)]
    pub apps: Vec<AppRoutes>,
}

impl Canonical for RouteTable {
    const DOMAIN: &'static str = "refloat route table 1";
    const SCHEMA: u8 = 1;
}

/// What one app contributes to the table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AppRoutes {
    /// The app.
    #[n(0)]
    pub app: AppName,
    /// The release that serves, for the access log.
    #[n(1)]
    pub release: ReleaseNumber,
    /// The same, by identity.
    #[n(2)]
    pub release_id: ReleaseId,
    /// Host names that it answers to, sorted.
    #[n(3)]
    pub hosts: Vec<HostName>,
    /// Whether it answers every host that no other app names: the one app without a domain.
    #[n(4)]
    pub catch_all: bool,
    /// Whether requests go through.
    #[n(5)]
    pub serving: AppServing,
    /// Path prefixes and their targets, sorted by prefix.
    #[n(6)]
    pub routes: Vec<Route>,
}

impl Canonical for AppRoutes {
    const DOMAIN: &'static str = "refloat app routes 1";
    const SCHEMA: u8 = 1;
}

/// Whether an app's requests go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum AppServing {
    /// They do.
    #[n(0)]
    Serving,
    /// `refloat stop`: the edge answers 503.
    #[n(1)]
    Stopped,
}

/// One path prefix.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Route {
    /// Matches whole segments: `/api` matches `/api` and `/api/x`, never `/apix`.
    #[n(0)]
    pub prefix: PathPrefix,
    /// The process that it belongs to.
    #[n(1)]
    pub process: ProcessName,
    /// Where it goes.
    #[n(2)]
    pub target: RouteTarget,
}

/// Where a route goes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RouteTarget {
    /// An instance.
    #[n(0)]
    Instance {
        /// Its name, for counting what is in flight.
        #[n(0)]
        name: InstanceName,
        /// Its fixed address, as four octets.
        #[n(1)]
        ip: [u8; 4],
        /// Its port.
        #[n(2)]
        port: u16,
    },
    /// A published tree.
    #[n(1)]
    Files {
        /// The tree.
        #[n(0)]
        tree: TreeDigest,
        /// How paths become files.
        #[n(1)]
        rules: StaticRules,
    },
}

impl RouteTarget {
    /// The socket address of an instance.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddrV4> {
        match self {
            Self::Instance { ip, port, .. } => Some(SocketAddrV4::new(Ipv4Addr::from(*ip), *port)),
            Self::Files { .. } => None,
        }
    }
}

/// A host name in lower case without port and trailing dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct HostName(#[n(0)] String);

impl HostName {
    /// Validates a DNS name: at most 253 bytes of labels of letters, digits and inner hyphens. Upper case is folded.
    ///
    /// # Errors
    /// When it is anything else, an address included.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |l: &str| {
            let b = l.as_bytes();
            !b.is_empty()
                && b.len() <= 63
                && b[0] != b'-'
                && b[b.len() - 1] != b'-'
                && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
        };
        let numeric_tail = text.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if text.len() <= 253 && text.split('.').all(label) && !numeric_tail {
            Ok(Self(text))
        } else {
            Err(NameError { what: "the host name", given: text.chars().take(80).collect(), max_bytes: 253 })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'b, C> Decode<'b, C> for HostName {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.str()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The beginning of a path, in whole segments: `/`, `/api`, `/api/v1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct PathPrefix(#[n(0)] String);

impl PathPrefix {
    /// Everything.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Validates a prefix; one trailing slash is dropped.
    ///
    /// # Errors
    /// When it does not start with `/`, has empty or dot segments, is longer than 256 bytes, or has a byte that is not
    /// an unreserved character of a path.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text == "/" {
            return Ok(Self::root());
        }
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let segment = |s: &str| {
            !s.is_empty()
                && s != "."
                && s != ".."
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~@+".contains(&b))
        };
        let ok = trimmed.len() <= 256 && trimmed.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment));
        if ok {
            Ok(Self(trimmed.to_owned()))
        } else {
            Err(NameError { what: "the path prefix", given: text.chars().take(80).collect(), max_bytes: 256 })
        }
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` (as it stands in the request, without its query) is this prefix or lies below it.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.0 == "/" || path.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl<'b, C> Decode<'b, C> for PathPrefix {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.str()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl RouteTable {
    /// The table's digest, generation included.
    #[must_use]
    pub fn table_digest(&self) -> TableDigest {
        TableDigest(self.digest())
    }

    /// The routes of one app.
    #[must_use]
    pub fn app(&self, app: &AppName) -> Option<&AppRoutes> {
        self.apps.binary_search_by(|a| a.app.cmp(app)).ok().map(|i| &self.apps[i])
    }

    /// The next table: this one with one app's routes replaced, or removed when `routes` is `None`.
    #[must_use]
    pub fn with(&self, app: &AppName, routes: Option<AppRoutes>) -> Self {
        let mut apps: Vec<AppRoutes> = self.apps.iter().filter(|a| a.app != *app).cloned().collect();
        apps.extend(routes);
        apps.sort_by(|a, b| a.app.cmp(&b.app));
        Self { generation: self.generation.next(), apps }
    }

    /// The app that answers `host` (lower case, without port): the one that names it, else the one without a domain.
    #[must_use]
    pub fn app_for_host(&self, host: &str) -> Option<&AppRoutes> {
        self.apps
            .iter()
            .find(|a| a.hosts.iter().any(|h| h.as_str() == host))
            .or_else(|| self.apps.iter().find(|a| a.catch_all))
    }

    /// Whether every rule of a table holds.
    ///
    /// # Errors
    /// The first rule that does not hold, as a sentence.
    pub fn validate(&self) -> Result<(), TableError> {
        if self.apps.len() > MAX_APPS {
            return Err(TableError::TooMany { what: "apps", limit: MAX_APPS });
        }
        let mut hosts: Vec<(&HostName, &AppName)> = Vec::new();
        let mut catch_all: Option<&AppName> = None;
        for pair in self.apps.windows(2) {
            if pair[0].app >= pair[1].app {
                return Err(TableError::Unsorted);
            }
        }
        for app in &self.apps {
            app.validate()?;
            hosts.extend(app.hosts.iter().map(|h| (h, &app.app)));
            if app.catch_all
                && let Some(other) = catch_all.replace(&app.app)
            {
                return Err(TableError::TwoCatchAll { first: other.clone(), second: app.app.clone() });
            }
        }
        if self.to_canonical().len() > MAX_TABLE_BYTES {
            return Err(TableError::TooLarge);
        }
        hosts.sort();
        match hosts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(TableError::HostTaken {
                host: pair[0].0.clone(),
                first: pair[0].1.clone(),
                second: pair[1].1.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl AppRoutes {
    /// The route for a path: the longest prefix that matches.
    #[must_use]
    pub fn route_for_path(&self, path: &str) -> Option<&Route> {
        self.routes.iter().filter(|r| r.prefix.matches(path)).max_by_key(|r| r.prefix.as_str().len())
    }

    /// The instances that it routes to.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceName> {
        self.routes.iter().filter_map(|r| match &r.target {
            RouteTarget::Instance { name, .. } => Some(name),
            RouteTarget::Files { .. } => None,
        })
    }

    fn validate(&self) -> Result<(), TableError> {
        if self.hosts.len() > MAX_HOSTS_PER_APP {
            return Err(TableError::TooMany { what: "hosts of one app", limit: MAX_HOSTS_PER_APP });
        }
        if self.routes.len() > MAX_ROUTES_PER_APP {
            return Err(TableError::TooMany { what: "routes of one app", limit: MAX_ROUTES_PER_APP });
        }
        let sorted =
            self.hosts.windows(2).all(|p| p[0] < p[1]) && self.routes.windows(2).all(|p| p[0].prefix < p[1].prefix);
        if !sorted {
            return Err(TableError::Unsorted);
        }
        let zero_port = self.routes.iter().any(|r| matches!(r.target, RouteTarget::Instance { port: 0, .. }));
        if zero_port {
            return Err(TableError::NoPort { app: self.app.clone() });
        }
        Ok(())
    }
}

/// Why a table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A limit.
    #[error("the route table has too many {what}: the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// Too many bytes: long names and rules.
    #[error("the route table is larger than {} MiB", MAX_TABLE_BYTES >> 20)]
    TooLarge,
    /// Not in the one order that makes equal tables equal bytes; two entries of one name count.
    #[error("the route table is not in order")]
    Unsorted,
    /// Two apps want every host.
    #[error("both {first} and {second} have no domain: only one app can answer every host name")]
    TwoCatchAll {
        /// One app.
        first: AppName,
        /// The other.
        second: AppName,
    },
    /// Two apps want one host.
    #[error("{host} belongs to both {first} and {second}")]
    HostTaken {
        /// The host.
        host: HostName,
        /// One app.
        first: AppName,
        /// The other.
        second: AppName,
    },
    /// A route to port 0.
    #[error("a route of {app} has no port")]
    NoPort {
        /// The app.
        app: AppName,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str, hosts: &[&str], catch_all: bool) -> AppRoutes {
        let route = |prefix: &str, last: u8| Route {
            prefix: PathPrefix::new(prefix).unwrap(),
            process: ProcessName::new("web").unwrap(),
            target: RouteTarget::Instance {
                name: InstanceName::parse("refloat-a-web-0").unwrap(),
                ip: [10, 201, 0, last],
                port: 80,
            },
        };
        let mut hosts: Vec<_> = hosts.iter().map(|h| HostName::new(h).unwrap()).collect();
        hosts.sort();
        AppRoutes {
            app: AppName::new(name).unwrap(),
            release: ReleaseNumber::FIRST,
            release_id: ReleaseId([0; 32]),
            hosts,
            catch_all,
            serving: AppServing::Serving,
            routes: vec![route("/", 1), route("/api", 2), route("/api/v2", 3)],
        }
    }

    #[test]
    fn the_longest_prefix_in_whole_segments_wins() {
        let routes = app("a", &[], true);
        let last =
            |path: &str| routes.route_for_path(path).and_then(|r| r.target.address()).map(|a| a.ip().octets()[3]);
        assert_eq!(last("/"), Some(1));
        assert_eq!(last("/apix"), Some(1));
        assert_eq!(last("/api"), Some(2));
        assert_eq!(last("/api/v20"), Some(2));
        assert_eq!(last("/api/v2/x"), Some(3));
    }

    #[test]
    fn a_named_host_wins_over_the_app_without_a_domain() {
        let table = RouteTable { apps: vec![app("a", &["a.test"], false), app("b", &[], true)], ..Default::default() };
        assert_eq!(table.app_for_host("a.test").unwrap().app.as_str(), "a");
        assert_eq!(table.app_for_host("else.test").unwrap().app.as_str(), "b");
        assert_eq!(table.validate(), Ok(()));
    }

    #[test]
    fn one_host_or_every_host_belongs_to_one_app() {
        let two =
            RouteTable { apps: vec![app("a", &["x.test"], false), app("b", &["x.test"], false)], ..Default::default() };
        assert!(matches!(two.validate(), Err(TableError::HostTaken { .. })));
        let all = RouteTable { apps: vec![app("a", &[], true), app("b", &[], true)], ..Default::default() };
        assert!(matches!(all.validate(), Err(TableError::TwoCatchAll { .. })));
    }

    #[test]
    fn a_table_decodes_only_from_its_own_bytes() {
        let table = RouteTable::default().with(&AppName::new("a").unwrap(), Some(app("a", &["a.test"], false)));
        let bytes = table.to_canonical();
        assert_eq!(RouteTable::from_canonical(&bytes), Ok(table));
        for cut in 0..bytes.len() {
            assert!(RouteTable::from_canonical(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn prefixes_and_hosts_refuse_what_is_not_one() {
        for bad in ["", "api", "//", "/a//b", "/../x", "/a?b", "/a b", "/%2e"] {
            assert!(PathPrefix::new(bad).is_err(), "{bad}");
        }
        for bad in ["", ".", "a..b", "-a.test", "10.0.0.1", "a_b.test", "a b"] {
            assert!(HostName::new(bad).is_err(), "{bad}");
        }
        assert_eq!(HostName::new("A.Test.").unwrap().as_str(), "a.test");
    }
}

//! `/etc/refloat/refloatd.toml`: read once, checked whole, before any port is bound.
//!
//! Three steps: text → known keys only ([`unknown_key`]) → [`File`], the shape on disk → [`Config`], which holds nothing
//! that cannot be used. Every path and port comes from here, so that several agents can live on one host. A missing file
//! at the default place means the defaults; a file that was named must be there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use refloat_model::HostName;
use refloat_model::standby::StandbyPolicy;
use serde::Deserialize;

use crate::network::{APP_PREFIX, Subnet};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/refloat/refloatd.toml";
/// Exit code for a configuration that cannot be used (sysexits' EX_USAGE, as linkerd has it).
pub const EXIT_CODE: u8 = 64;

const MAX_LISTEN: usize = 16;
const DEFAULT_AGENT_PORT: u16 = 7_443;
const DEFAULT_HTTP_PORT: u16 = 80;
/// A /10 would be 65,536 apps; the edge's table holds 1,000.
const WIDEST_PREFIX: u8 = 12;

/// The configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What must survive a reboot.
    pub state_dir: PathBuf,
    /// Sockets and what else is gone after a reboot.
    pub run_dir: PathBuf,
    /// Where the agent listens for clients.
    pub listen: Vec<SocketAddr>,
    /// The edge.
    pub edge: EdgeConfig,
    /// The apps' network.
    pub network: Subnet,
    /// The engine's Unix socket.
    pub docker_socket: PathBuf,
    /// Builds.
    pub build: BuildConfig,
    /// What is kept warm.
    pub standby: StandbyPolicy,
}

/// The edge's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeConfig {
    /// Where it listens for visitors.
    pub http: Vec<SocketAddr>,
    /// Its program; `None`: `refloat-edge` beside `refloatd`.
    pub binary: Option<PathBuf>,
    /// The user that it runs as, by name or number; `None`: `refloat-edge`, or else an unused number.
    pub user: Option<String>,
    /// Name or address of this server as visitors know it; `None`: found from the default route.
    pub public_host: Option<String>,
}

/// Limits of builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildConfig {
    /// Memory in MiB; `None`: what the server can spare.
    pub memory_mib: Option<u32>,
    /// Processor time in thousandths of a core; `None`: what the server can spare.
    pub cpu_millis: Option<u32>,
    /// How long one may take.
    pub timeout: Duration,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or a value has the wrong type.
    #[error("{} cannot be understood:\n{message}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// What the parser said, with the line.
        message: String,
    },
    /// A key that means nothing.
    #[error("{}: there is no key \"{key}\"{}", path.display(), hint(nearest.as_deref()))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key with its table.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value that cannot be used.
    #[error("{}: {key} {problem}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// The key with its table.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(key) => format!("; did you mean \"{key}\"?"),
        None => String::new(),
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/refloat"),
            run_dir: PathBuf::from("/run/refloat"),
            listen: dual_stack(DEFAULT_AGENT_PORT),
            edge: EdgeConfig { http: dual_stack(DEFAULT_HTTP_PORT), binary: None, user: None, public_host: None },
            network: Subnet::default(),
            docker_socket: PathBuf::from("/var/run/docker.sock"),
            build: BuildConfig { memory_mib: None, cpu_millis: None, timeout: Duration::from_secs(1_800) },
            standby: StandbyPolicy::default(),
        }
    }
}

/// Every IPv4 and every IPv6 address.
fn dual_stack(port: u16) -> Vec<SocketAddr> {
    let (v4, v6) = (Ipv4Addr::UNSPECIFIED, std::net::Ipv6Addr::UNSPECIFIED);
    vec![SocketAddr::new(v4.into(), port), SocketAddr::new(v6.into(), port)]
}

impl Config {
    /// Reads the named file, or the one at the default place if it is there.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Reads a configuration's text; the path is for messages and for what is relative to it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |e: toml::de::Error| ConfigError::Syntax { path: path.to_owned(), message: e.to_string() };
        let table: toml::Table = text.parse().map_err(syntax)?;
        if let Some((key, nearest)) = unknown_key(&table) {
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key, nearest });
        }
        let file: File = toml::from_str(text).map_err(syntax)?;
        file.check().map_err(|(key, problem)| ConfigError::Value { path: path.to_owned(), key, problem })
    }
}

/// The shape on disk.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct File {
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    listen: Option<OneOrMany>,
    edge: EdgeTable,
    network: NetworkTable,
    docker: DockerTable,
    build: BuildTable,
    standby: StandbyTable,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct EdgeTable {
    http: Option<OneOrMany>,
    binary: Option<PathBuf>,
    user: Option<UserText>,
    public_host: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct NetworkTable {
    subnet: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct DockerTable {
    socket: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct BuildTable {
    memory_mib: Option<u32>,
    cpus: Option<f64>,
    timeout_s: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct StandbyTable {
    paused_s: Option<u32>,
    running_s: Option<u32>,
    memory_mib: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum UserText {
    Uid(u32),
    Name(String),
}

/// Every key that there is: the table's name ("" is the top) and its keys.
const KEYS: [(&str, &[&str]); 6] = [
    ("", &["state_dir", "run_dir", "listen", "edge", "network", "docker", "build", "standby"]),
    ("edge", &["http", "binary", "user", "public_host"]),
    ("network", &["subnet"]),
    ("docker", &["socket"]),
    ("build", &["memory_mib", "cpus", "timeout_s"]),
    ("standby", &["paused_s", "running_s", "memory_mib"]),
];

/// The first key that means nothing, and the known key that looks most like it.
fn unknown_key(table: &toml::Table) -> Option<(String, Option<String>)> {
    KEYS.iter().find_map(|(name, _)| {
        let table = if name.is_empty() { Some(table) } else { table.get(*name).and_then(toml::Value::as_table) };
        let known = |key: &str| KEYS.iter().any(|(n, keys)| n == name && keys.contains(&key));
        let unknown = table?.keys().find(|key| !known(key))?;
        let full = full_key(name, unknown);
        let nearest = nearest_key(&full);
        Some((full, nearest))
    })
}

fn full_key(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// The known key that looks most like this one: in its own table first, else a key of the same name in any table.
fn nearest_key(full: &str) -> Option<String> {
    let all = KEYS.iter().flat_map(|(table, keys)| keys.iter().map(move |key| full_key(table, key)));
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let alike =
        |known: &String| strsim::jaro_winkler(full, known).max(strsim::jaro_winkler(&last(full), &last(known)) - 0.05);
    let best = all.map(|known| (alike(&known), known)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.75).then_some(best.1)
}

type Wrong = (&'static str, String);

impl File {
    fn check(self) -> Result<Config, Wrong> {
        let usual = Config::default();
        Ok(Config {
            state_dir: absolute("state_dir", self.state_dir)?.unwrap_or(usual.state_dir),
            run_dir: absolute("run_dir", self.run_dir)?.unwrap_or(usual.run_dir),
            listen: addresses("listen", self.listen)?.unwrap_or(usual.listen),
            edge: self.edge.check(usual.edge)?,
            network: self.network.subnet.map(|text| subnet(&text)).transpose()?.unwrap_or(usual.network),
            docker_socket: absolute("docker.socket", self.docker.socket)?.unwrap_or(usual.docker_socket),
            build: self.build.check(usual.build)?,
            standby: self.standby.policy(usual.standby),
        })
    }
}

impl EdgeTable {
    fn check(self, usual: EdgeConfig) -> Result<EdgeConfig, Wrong> {
        let user = self.user.map(|user| match user {
            UserText::Uid(uid) => uid.to_string(),
            UserText::Name(name) => name,
        });
        if user.as_deref().is_some_and(|user| user.is_empty() || user == "0" || user == "root") {
            return Err(("edge.user", "must not be root: the edge takes every byte from the internet".to_owned()));
        }
        Ok(EdgeConfig {
            http: addresses("edge.http", self.http)?.unwrap_or(usual.http),
            binary: absolute("edge.binary", self.binary)?,
            user,
            public_host: self.public_host.map(|host| public_host(&host)).transpose()?,
        })
    }
}

impl BuildTable {
    fn check(self, usual: BuildConfig) -> Result<BuildConfig, Wrong> {
        if self.memory_mib.is_some_and(|mib| mib < 128) {
            return Err(("build.memory_mib", "must be at least 128: no build fits in less".to_owned()));
        }
        let timeout_s = self.timeout_s.map(u64::from);
        if timeout_s.is_some_and(|s| !(10..=86_400).contains(&s)) {
            return Err(("build.timeout_s", "must be between 10 seconds and a day (86400)".to_owned()));
        }
        Ok(BuildConfig {
            memory_mib: self.memory_mib,
            cpu_millis: self.cpus.map(cpu_millis).transpose()?,
            timeout: timeout_s.map_or(usual.timeout, Duration::from_secs),
        })
    }
}

impl StandbyTable {
    fn policy(self, usual: StandbyPolicy) -> StandbyPolicy {
        let ms = |seconds: Option<u32>, usual: u64| seconds.map_or(usual, |s| u64::from(s) * 1_000);
        StandbyPolicy {
            paused_ms: ms(self.paused_s, usual.paused_ms),
            running_ms: ms(self.running_s, usual.running_ms),
            memory_budget_bytes: self.memory_mib.map_or(usual.memory_budget_bytes, |mib| u64::from(mib) << 20),
        }
    }
}

fn absolute(key: &'static str, path: Option<PathBuf>) -> Result<Option<PathBuf>, Wrong> {
    match path {
        Some(path) if !path.is_absolute() => Err((key, "must be a path that starts with \"/\"".to_owned())),
        path => Ok(path),
    }
}

fn addresses(key: &'static str, given: Option<OneOrMany>) -> Result<Option<Vec<SocketAddr>>, Wrong> {
    let texts = match given {
        None => return Ok(None),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    };
    if texts.is_empty() || texts.len() > MAX_LISTEN {
        return Err((key, format!("must name 1 to {MAX_LISTEN} addresses")));
    }
    let address = |text: String| {
        text.parse().map_err(|_| {
            (key, format!("has \"{text}\", which is no address with a port, such as \"0.0.0.0:80\" or \"[::]:80\""))
        })
    };
    texts.into_iter().map(address).collect::<Result<Vec<_>, _>>().map(Some)
}

fn subnet(text: &str) -> Result<Subnet, Wrong> {
    let wrong = |problem: &str| ("network.subnet", format!("has \"{text}\", {problem}"));
    let net: Ipv4Net = text.parse().map_err(|_| wrong("which is no IPv4 network, such as \"10.201.0.0/16\""))?;
    if net.trunc() != net {
        return Err(wrong(&format!("which is an address within the network {}", net.trunc())));
    }
    if !(WIDEST_PREFIX..=APP_PREFIX).contains(&net.prefix_len()) {
        return Err(wrong(&format!(
            "which must be a /{WIDEST_PREFIX} to /{APP_PREFIX}: every app gets a /{APP_PREFIX}"
        )));
    }
    if !net.network().is_private() || !net.broadcast().is_private() {
        return Err(wrong("which is no private network (10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16)"));
    }
    Ok(Subnet::of(net))
}

fn public_host(text: &str) -> Result<String, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    match HostName::new(text) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(("edge.public_host", format!("has \"{text}\", which is neither a host name nor an address"))),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked first")]
fn cpu_millis(cpus: f64) -> Result<u32, Wrong> {
    if (0.05..=1_024.0).contains(&cpus) {
        Ok((cpus * 1_000.0).round() as u32)
    } else {
        Err(("build.cpus", format!("has {cpus}, which is not between 0.05 and 1024 cores")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("refloatd.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0:7443", "[::]:7443"]);
        assert_eq!(config.network.apps, 1_024);
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            r#"
            state_dir = "/a/state"
            run_dir = "/a/run"
            listen = "127.0.0.1:0"
            [edge]
            http = ["127.0.0.1:0", "[::1]:8080"]
            binary = "/a/refloat-edge"
            user = 990
            public_host = "Apps.Example.com"
            [network]
            subnet = "10.224.16.0/20"
            [docker]
            socket = "/a/docker.sock"
            [build]
            memory_mib = 700
            cpus = 1.5
            timeout_s = 60
            [standby]
            paused_s = 10
            running_s = 20
            memory_mib = 30
            "#,
        )
        .unwrap();
        let expected = Config {
            state_dir: "/a/state".into(),
            run_dir: "/a/run".into(),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            edge: EdgeConfig {
                http: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:8080".parse().unwrap()],
                binary: Some("/a/refloat-edge".into()),
                user: Some("990".into()),
                public_host: Some("apps.example.com".into()),
            },
            network: Subnet { base: Ipv4Addr::new(10, 224, 16, 0), apps: 64 },
            docker_socket: "/a/docker.sock".into(),
            build: BuildConfig { memory_mib: Some(700), cpu_millis: Some(1_500), timeout: Duration::from_secs(60) },
            standby: StandbyPolicy { paused_ms: 10_000, running_ms: 20_000, memory_budget_bytes: 30 << 20 },
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn the_list_of_keys_is_the_shape_on_disk() {
        for (table, keys) in KEYS {
            for key in keys.iter().filter(|key| KEYS.iter().all(|(table, _)| table != *key)) {
                let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
                let message = parse(&format!("{header}{key} = {{ x = 1 }}\n")).unwrap_err();
                assert!(!message.contains("unknown field") && !message.contains("no key"), "{message}");
            }
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        for (text, key, nearest) in [
            ("state_dri = '/x'", "state_dri", "state_dir"),
            ("[edge]\nhtpp = []", "edge.htpp", "edge.http"),
            ("[edeg]\nhttp = []", "edeg", "edge"),
            ("[build]\nmemory = 5", "build.memory", "build.memory_mib"),
            ("[standby]\npublic_host = 'x'", "standby.public_host", "edge.public_host"),
        ] {
            let expected = format!("refloatd.toml: there is no key \"{key}\"; did you mean \"{nearest}\"?");
            assert_eq!(parse(text), Err(expected));
        }
        assert_eq!(parse("zzz = 1"), Err("refloatd.toml: there is no key \"zzz\"".to_owned()));
    }

    #[test]
    fn values_that_cannot_be_used_are_refused_with_their_key() {
        for (text, key) in [
            ("state_dir = 'var'", "state_dir"),
            ("listen = []", "listen"),
            ("listen = ['7443']", "listen"),
            ("listen = ['localhost:7443']", "listen"),
            ("[edge]\nuser = 'root'", "edge.user"),
            ("[edge]\nuser = 0", "edge.user"),
            ("[edge]\npublic_host = 'a b'", "edge.public_host"),
            ("[network]\nsubnet = '10.0.0.1/16'", "network.subnet"),
            ("[network]\nsubnet = '10.0.0.0/27'", "network.subnet"),
            ("[network]\nsubnet = '10.0.0.0/8'", "network.subnet"),
            ("[network]\nsubnet = '8.8.0.0/16'", "network.subnet"),
            ("[network]\nsubnet = 'fd00::/48'", "network.subnet"),
            ("[build]\nmemory_mib = 5", "build.memory_mib"),
            ("[build]\ncpus = 0.0", "build.cpus"),
            ("[build]\ncpus = nan", "build.cpus"),
            ("[build]\ntimeout_s = 1", "build.timeout_s"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.starts_with(&format!("refloatd.toml: {key} ")), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_not_toml_or_of_the_wrong_type_is_refused_with_its_line() {
        for text in ["state_dir = ", "state_dir = 5", "edge = 5", "[build]\nmemory_mib = -1"] {
            assert!(parse(text).unwrap_err().contains("cannot be understood"), "{text}");
        }
    }

    #[test]
    fn a_named_file_must_be_there() {
        let missing = Path::new("/nonexistent/refloatd.toml");
        assert!(matches!(Config::load(Some(missing)), Err(ConfigError::Read { .. })));
    }
}

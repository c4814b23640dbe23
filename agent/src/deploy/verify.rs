//! The truth check: what really serves equals the release, or the outcome says what does not.
//!
//! Asked of Docker, of the edge and of the address itself, never of the store.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use refloat_model::{AppRoutes, Backend, InstanceName, ReleaseRecord, RouteTarget};
use tokio::time::Instant;

use super::driver::Context;
use super::ports::Settings;
use super::stop::Stop;
use super::update::Fetched;
use crate::docker::RunState;

/// How long an address may take to answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// What does not agree, a sentence.
    pub(super) doubt: Option<String>,
    /// Where the app answers.
    pub(super) addresses: Vec<String>,
    /// The addresses as seen from here.
    pub(super) fetched: Vec<Fetched>,
}

/// Compares what serves with the release.
pub(super) async fn truth(context: &Context, record: &ReleaseRecord) -> Result<Truth, Stop> {
    let host = context.ports.journal.host().await?;
    let Some(routes) = host.table.app(&context.app) else {
        return Ok(Truth { doubt: Some("the route table does not name the app".into()), ..Truth::default() });
    };
    let (edge, backends) = tokio::join!(context.ports.edge.status(), backends_doubt(context, record, routes));
    let status = match edge {
        Ok(status) => status,
        Err(error) => return Ok(Truth { doubt: Some(error.to_string()), ..Truth::default() }),
    };
    let mut doubt = backends;
    if status.active_digest != host.table.table_digest() {
        doubt = Some(format!("the edge serves table {}, committed is {}", status.active, host.table.generation));
    }
    let places = places(&context.settings, routes, &status.listen);
    // All at once: one address that hangs costs its own time only.
    let fetched = join_all(places.iter().map(|place| fetch(context, place))).await;
    let doubt = doubt.or_else(|| fetch_doubt(&fetched));
    Ok(Truth { doubt, addresses: places.into_iter().map(|p| p.address).collect(), fetched })
}

/// Where an app answers, as far as the edge can say.
pub(super) async fn addresses(context: &Context) -> Result<Vec<String>, Stop> {
    let host = context.ports.journal.host().await?;
    let (Some(routes), Ok(status)) = (host.table.app(&context.app), context.ports.edge.status().await) else {
        return Ok(Vec::new());
    };
    Ok(places(&context.settings, routes, &status.listen).into_iter().map(|place| place.address).collect())
}

/// An address of the app and how it is reached from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: String,
    host: String,
    at: SocketAddr,
}

/// Every address of an app: one per domain, or the server's own.
pub(super) fn places(settings: &Settings, routes: &AppRoutes, listen: &[String]) -> Vec<Place> {
    let Some(at) = listen.iter().filter_map(|l| l.parse::<SocketAddr>().ok()).min_by_key(|a| !a.is_ipv4()) else {
        return Vec::new();
    };
    let at = if at.ip().is_unspecified() { SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), at.port()) } else { at };
    let mut names: Vec<String> = routes.hosts.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        names.push(settings.public_host.clone());
    }
    names
        .into_iter()
        .map(|host| {
            let named = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let address =
                if at.port() == 80 { format!("http://{named}/") } else { format!("http://{named}:{}/", at.port()) };
            Place { address, host, at }
        })
        .collect()
}

async fn fetch(context: &Context, place: &Place) -> Fetched {
    let began = Instant::now();
    let get = context.ports.fetch.get(place.at, &place.host, "/");
    let result = match tokio::time::timeout(FETCH_TIMEOUT, get).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", FETCH_TIMEOUT.as_secs())),
    };
    Fetched { address: place.address.clone(), result, took: began.elapsed() }
}

fn fetch_doubt(fetched: &[Fetched]) -> Option<String> {
    fetched.iter().find_map(|f| match &f.result {
        Err(why) => Some(format!("{} did not answer: {why}", f.address)),
        Ok(status) if *status >= 500 => Some(format!("{} answers with status {status}", f.address)),
        Ok(_) => None,
    })
}

async fn backends_doubt(context: &Context, record: &ReleaseRecord, routes: &AppRoutes) -> Option<String> {
    for route in &routes.routes {
        let process = record.release.process(&route.process)?;
        let doubt = match (&route.target, &process.backend) {
            (RouteTarget::Instance { name, .. }, Backend::Instance { image, .. }) => {
                instance_doubt(context, name, image, record).await
            }
            (RouteTarget::Files { tree, .. }, Backend::Files { tree: wanted, .. }) if tree == wanted => {
                let whole = context.ports.trees.is_published(tree).await;
                (!whole).then(|| format!("the files of {} are not all there", process.name))
            }
            _ => Some(format!("{} is routed to something else", process.name)),
        };
        if doubt.is_some() {
            return doubt;
        }
    }
    None
}

async fn instance_doubt(
    context: &Context,
    name: &InstanceName,
    image: &refloat_model::ImageDigest,
    record: &ReleaseRecord,
) -> Option<String> {
    let observed = match context.ports.engine.inspect(name).await {
        Ok(Some(observed)) => observed,
        Ok(None) => return Some(format!("{name} is gone")),
        Err(error) => return Some(error.to_string()),
    };
    let process = record.release.process(&observed.process)?;
    let spec = refloat_model::planning::runtime_spec(context.settings.host_id, &record.release, process);
    if observed.state != RunState::Running {
        return Some(format!("{name} does not run"));
    }
    if observed.image != *image || observed.spec_digest != spec {
        return Some(format!("{name} runs something else than {}", record.number));
    }
    None
}

//! One small bridge network per app, with the subnet that the agent chose.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::InspectNetworkOptions;
use refloat_model::AppName;

use super::connect::{CHANGE_TIMEOUT_MS, Fault, READ_TIMEOUT_MS, within};
use super::engine::{EngineError, NetworkSpec};
use super::real::DockerEngine;

/// Bits of an app's subnet: 62 addresses, of which the gateway takes one.
const PREFIX_BITS: u8 = 26;
const MTU_OPTION: &str = "com.docker.network.driver.mtu";
const CREATE: &str = "to create the app's network";

impl DockerEngine {
    pub(super) async fn ensure_app_network(&self, spec: &NetworkSpec) -> Result<(), EngineError> {
        let name = self.host.network(&spec.app);
        if let Some(found) = self.inspect_network(&name).await? {
            return check(&found, spec);
        }
        let request = request(name.clone(), self.host.of_app(&spec.app), spec);
        let made = within(CREATE, CHANGE_TIMEOUT_MS, self.docker().await?.create_network(request)).await;
        match made {
            Ok(_) => Ok(()),
            Err(Fault::Answered { message, .. }) => match self.inspect_network(&name).await? {
                Some(found) => check(&found, spec),
                None => Err(refused(spec, message)),
            },
            Err(Fault::Lost(error)) => Err(error),
        }
    }

    pub(super) async fn remove_app_network(&self, app: &AppName) -> Result<(), EngineError> {
        const WHAT: &str = "to remove the app's network";
        let name = self.host.network(app);
        match within(WHAT, CHANGE_TIMEOUT_MS, self.docker().await?.remove_network(&name)).await {
            Err(fault) if fault.is_status(404) => Ok(()),
            answer => answer.map_err(|f| f.refused(WHAT)),
        }
    }

    async fn inspect_network(&self, name: &str) -> Result<Option<NetworkInspect>, EngineError> {
        const WHAT: &str = "to look at the app's network";
        let call = self.docker().await?.inspect_network(name, None::<InspectNetworkOptions>);
        match within(WHAT, READ_TIMEOUT_MS, call).await {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.is_status(404) => Ok(None),
            Err(fault) => Err(fault.refused(WHAT)),
        }
    }
}

fn request(name: String, labels: HashMap<String, String>, spec: &NetworkSpec) -> NetworkCreateRequest {
    let pool = IpamConfig {
        subnet: Some(subnet(spec.base)),
        // What asks for no address of its own, a one-off command, must not get one that an instance is planned with.
        ip_range: Some(format!("{}/{}", Ipv4Addr::from(u32::from(spec.base).saturating_add(32)), PREFIX_BITS + 1)),
        gateway: Some(Ipv4Addr::from(u32::from(spec.base).saturating_add(1)).to_string()),
        ..IpamConfig::default()
    };
    NetworkCreateRequest {
        name,
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam { config: Some(vec![pool]), ..Ipam::default() }),
        options: Some(HashMap::from([(MTU_OPTION.to_owned(), spec.mtu.to_string())])),
        labels: Some(labels),
        ..NetworkCreateRequest::default()
    }
}

/// An MTU that has changed since is left alone: it slows the app at worst, a new network would stop it.
fn check(found: &NetworkInspect, spec: &NetworkSpec) -> Result<(), EngineError> {
    let pools = found.ipam.as_ref().and_then(|ipam| ipam.config.as_deref()).unwrap_or_default();
    let wanted = subnet(spec.base);
    if pools.iter().any(|pool| pool.subnet.as_deref() == Some(&wanted)) {
        return Ok(());
    }
    let has = pools.first().and_then(|pool| pool.subnet.clone()).unwrap_or_else(|| "no subnet".to_owned());
    let name = found.name.clone().unwrap_or_default();
    let message = format!("the network {name} has {has}, not {wanted}. Remove it with: docker network rm {name}");
    Err(EngineError::Refused { what: CREATE, message })
}

fn refused(spec: &NetworkSpec, message: String) -> EngineError {
    let message = if message.to_lowercase().contains("overlap") {
        format!(
            "{} is in use by another network of this server. See them with: docker network ls; \
             or give Refloat another subnet in refloatd.toml",
            subnet(spec.base)
        )
    } else {
        message
    };
    EngineError::Refused { what: CREATE, message }
}

fn subnet(base: Ipv4Addr) -> String {
    format!("{base}/{PREFIX_BITS}")
}

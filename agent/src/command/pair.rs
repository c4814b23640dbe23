//! Asks the running agent for a one-time code.

use std::path::Path;

use refloat_proto::v1::CreatePairingCodeRequest;
use refloat_proto::v1::identity_service_client::IdentityServiceClient;

use super::{paths, say, start};
use crate::api::dial;
use crate::config::Config;

pub(super) fn pair(config: &Config, named: Option<&Path>) -> anyhow::Result<()> {
    let socket = paths(config).agent_socket();
    super::runtime()?.block_on(async {
        let silent = || anyhow::anyhow!("the agent does not answer on {}\nNext: {}", socket.display(), start(named));
        let channel = dial::agent(&socket).await.map_err(|_| silent())?;
        let mut identity = IdentityServiceClient::new(channel);
        let answer = identity.create_pairing_code(CreatePairingCodeRequest {}).await;
        let code = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner();
        let port = code.listen.iter().filter_map(|text| text.parse::<std::net::SocketAddr>().ok()).map(|a| a.port());
        let server = server(config, port.into_iter().next());
        say("Within 15 minutes, on the device that is to be paired:");
        say("");
        say(&format!("  refloat pair {server} --code {}", code.code));
        say("");
        say("The code works once. It also tells the device which server it may trust.");
        Ok(())
    })
}

/// What to type for this server. The usual port needs no mention.
fn server(config: &Config, port: Option<u16>) -> String {
    let host = crate::daemon::public_host(config);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    match port {
        None | Some(7_443) => host,
        Some(port) => format!("{host}:{port}"),
    }
}

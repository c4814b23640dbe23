//! `refloat version`: this program's, and the server's when it answers quickly.

use std::time::Duration;

use refloat_proto::v1::WhoAmIRequest;
use refloat_proto::v1::identity_service_client::IdentityServiceClient;
use serde_json::json;

use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::{Tone, clean};
use crate::session::Session;

const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn perform(session: &Session<'_>) -> Result<Exit, Failure> {
    let own = env!("CARGO_PKG_VERSION");
    session.printer.result(Tone::Plain, &format!("refloat {own}"));
    let server = tokio::time::timeout(SERVER_TIMEOUT, server_version(session)).await;
    let server = server.ok().and_then(Result::ok);
    if let Some((version, host)) = &server {
        session.printer.result(Tone::Plain, &format!("refloatd {} on {}", clean(version), clean(host)));
    }
    session.printer.object(&json!({ "refloat": own, "refloatd": server.map(|(version, _)| version) }));
    Ok(Exit::Done)
}

async fn server_version(session: &Session<'_>) -> Result<(String, String), Failure> {
    let link = session.connect().await?;
    let me = answer(IdentityServiceClient::new(link.channel).who_am_i(WhoAmIRequest {})).await?;
    Ok((me.server_version, me.host))
}

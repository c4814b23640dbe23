//! `refloat whoami`

use refloat_proto::v1::WhoAmIRequest;
use refloat_proto::v1::identity_service_client::IdentityServiceClient;
use serde_json::json;

use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::{Tone, clean};
use crate::session::Session;
use crate::span::moment;

pub(super) async fn perform(session: &Session<'_>) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let me = answer(IdentityServiceClient::new(link.channel).who_am_i(WhoAmIRequest {})).await?;
    let (name, role, host) = (clean(&me.name), clean(&me.role), clean(&me.host));
    session.printer.result(Tone::Plain, &format!("{name}, {role} on {host}, by {}", clean(&me.via)));
    if me.not_after_unix_ms > 0 {
        session.printer.say(Tone::Dim, &format!("The certificate is good until {}.", moment(me.not_after_unix_ms)));
    }
    session.printer.object(&json!(me));
    Ok(Exit::Done)
}

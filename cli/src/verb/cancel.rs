//! `refloat cancel`

use refloat_proto::v1::CancelRequest;
use refloat_proto::v1::deployment_service_client::DeploymentServiceClient;
use serde_json::json;

use crate::args::Mutating;
use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::{Tone, clean};
use crate::session::{Session, mutation};

pub(super) async fn perform(session: &Session<'_>, args: &Mutating) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let request = CancelRequest { mutation: Some(mutation(&args.why)), app: session.app(args.app.as_deref()) };
    let cancelled = answer(DeploymentServiceClient::new(link.channel).cancel(request)).await?;
    let line = match cancelled.deployment.is_empty() {
        true => "Nothing runs that could be cancelled.".to_owned(),
        false => format!("Cancelled the {}.", clean(&cancelled.kind)),
    };
    session.printer.result(Tone::Plain, &line);
    session.printer.object(&json!(cancelled));
    Ok(Exit::Done)
}

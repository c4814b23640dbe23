//! `refloat open`: the address, and a browser when a person is there.

use std::io::IsTerminal as _;
use std::process::{Command, Stdio};

use refloat_proto::v1::GetStatusRequest;
use refloat_proto::v1::app_service_client::AppServiceClient;
use serde_json::json;

use crate::args::App;
use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::{Tone, clean};
use crate::session::Session;
use crate::unix;

pub(super) async fn perform(session: &Session<'_>, args: &App) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let request = GetStatusRequest { app: session.app(args.app.as_deref()) };
    let status = answer(AppServiceClient::new(link.channel).get_status(request)).await?;
    let app = match status.apps.as_slice() {
        [app] => app,
        [] => return Err(Failure::new(Exit::Failed, "There is no app yet.").next("refloat deploy")),
        _ => return Err(Failure::usage("There are several apps: say which one.").next("refloat status")),
    };
    let Some(address) = app.addresses.first().map(|address| clean(address)) else {
        let what = format!("{} has no address: nothing serves.", clean(&app.app));
        return Err(Failure::new(Exit::Failed, what).next(format!("refloat status {}", clean(&app.app))));
    };
    session.printer.result(Tone::Plain, &address);
    session.printer.object(&json!({ "app": app.app, "address": address }));
    if std::io::stdout().is_terminal() && !session.printer.json_wanted() {
        browse(&address);
    }
    Ok(Exit::Done)
}

/// The address is printed already: where no browser can be started, nothing is lost.
fn browse(address: &str) {
    if address.starts_with("http://") || address.starts_with("https://") {
        let mut command = Command::new(unix::OPENER);
        command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.spawn();
    }
}

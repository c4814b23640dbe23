//! `refloat diff`

use refloat_proto::v1::DiffReleasesRequest;
use refloat_proto::v1::release_service_client::ReleaseServiceClient;
use serde_json::json;

use crate::args::Diff;
use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::{Tone, clean};
use crate::session::Session;
use crate::words::app_and_releases;

pub(super) async fn perform(session: &Session<'_>, args: &Diff) -> Result<Exit, Failure> {
    let (app, releases) = app_and_releases(&args.words, 2)?;
    let (a, b) = (releases[0], releases[1]);
    let link = session.connect().await?;
    let request = DiffReleasesRequest { app: session.app(app.as_deref()), a, b };
    let diff = answer(ReleaseServiceClient::new(link.channel).diff_releases(request)).await?;
    session.printer.object(&json!(diff));
    if diff.changes.is_empty() && diff.files.is_empty() {
        session.printer.result(Tone::Plain, &format!("r{a} and r{b} differ in nothing."));
        return Ok(Exit::Done);
    }
    for change in &diff.changes {
        session.printer.result(Tone::Plain, &clean(&change.text));
    }
    for file in &diff.files {
        session.printer.result(Tone::Plain, &format!("  {:<8} {}", clean(&file.kind), clean(&file.path)));
    }
    if diff.truncated {
        session.printer.say(Tone::Dim, "  … and more files");
    }
    Ok(Exit::Done)
}

//! `refloat logs`

use refloat_proto::v1::app_service_client::AppServiceClient;
use refloat_proto::v1::{LogLine, LogsRequest};
use serde_json::json;

use crate::args::Logs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::{Tone, clean};
use crate::session::Session;
use crate::span::moment;

pub(super) async fn perform(session: &Session<'_>, args: &Logs) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let request = LogsRequest {
        app: session.app(args.app.as_deref()),
        release: args.release.unwrap_or(0),
        process: args.process.clone().unwrap_or_default(),
        tail: args.tail,
        follow: args.follow,
    };
    let mut lines = AppServiceClient::new(link.channel).logs(request).await?.into_inner();
    while let Some(line) = lines.message().await? {
        session.printer.object(&json!(line));
        let tone = if line.stream == "stderr" { Tone::Warn } else { Tone::Plain };
        session.printer.result(tone, &text(&line));
    }
    Ok(Exit::Done)
}

fn text(line: &LogLine) -> String {
    format!("{} {} r{} | {}", moment(line.at_unix_ms), clean(&line.process), line.release, clean(&line.line))
}

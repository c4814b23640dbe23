//! `refloat show`

use refloat_proto::v1::release_service_client::ReleaseServiceClient;
use refloat_proto::v1::{ActivationView, GetReleaseRequest, GetReleaseResponse, ProcessView};
use serde_json::json;

use super::releases::{from, state, what};
use crate::args::Show;
use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::{Printer, Tone, clean};
use crate::session::Session;
use crate::span::{millis, moment};
use crate::table::table;
use crate::words::app_and_maybe_release;

pub(super) async fn perform(session: &Session<'_>, args: &Show) -> Result<Exit, Failure> {
    let (app, release) = app_and_maybe_release(&args.words)?;
    let link = session.connect().await?;
    let request = GetReleaseRequest { app: session.app(app.as_deref()), release: release.unwrap_or(0) };
    let release = answer(ReleaseServiceClient::new(link.channel).get_release(request)).await?;
    session.printer.object(&json!(release));
    print(session.printer, &release);
    Ok(Exit::Done)
}

fn print(printer: &Printer, release: &GetReleaseResponse) {
    for (name, value) in facts(release) {
        if !value.is_empty() {
            printer.result(Tone::Plain, &format!("{name:<12} {}", clean(&value)));
        }
    }
    if !release.processes.is_empty() {
        let given_back = release.processes.iter().filter(|it| !it.capabilities.is_empty());
        for it in given_back {
            let list = format!("{}: {}, given back", it.name, it.capabilities.join(", "));
            printer.result(Tone::Plain, &format!("{:<12} {}", "capabilities", clean(&list)));
        }
        let header = ["PROCESS", "KIND", "BACKEND", "PORT", "ROUTES", "VOLUMES", "MEMORY", "HEALTH"];
        printer.result(Tone::Plain, &format!("\n{}", table(header, release.processes.iter().map(process))));
    }
    if !release.activations.is_empty() {
        let rows = release.activations.iter().map(activation);
        printer
            .result(Tone::Plain, &format!("\n{}", table(["BEGAN TO SERVE", "BY", "FROM", "HOW", "TOOK", "WHY"], rows)));
    }
}

fn facts(release: &GetReleaseResponse) -> Vec<(&'static str, String)> {
    let summary = release.summary.clone().unwrap_or_default();
    let origin = summary.origin.clone().unwrap_or_default();
    let parent = if summary.parent == 0 { String::new() } else { format!("r{}", summary.parent) };
    let build = if summary.build_ms == 0 { String::new() } else { millis(summary.build_ms) };
    let back = match release.rollback_to {
        0 => "nothing before it".to_owned(),
        to => format!("r{to}"),
    };
    vec![
        ("release", format!("r{} {}", summary.number, state(&summary)).trim_end().to_owned()),
        ("id", hexadecimal(&summary.id)),
        ("made", format!("{} by {}", moment(summary.created_at_unix_ms), summary.author)),
        ("from", from(&origin)),
        ("commit", origin.git_commit.clone()),
        ("what", what(&summary)),
        ("parent", parent),
        ("source", hexadecimal(&release.source)),
        ("plan", hexadecimal(&release.plan)),
        ("build", build),
        ("variables", release.env_names.join(" ")),
        ("rollback to", back),
    ]
}

fn hexadecimal(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn process(process: &ProcessView) -> [String; 8] {
    let number = |n: u32| if n == 0 { "-".to_owned() } else { n.to_string() };
    let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(" ") };
    let exclusive = if process.exclusive { ", never two" } else { "" };
    [
        process.name.clone(),
        format!("{}{exclusive}", process.kind),
        process.backend.clone(),
        number(process.port),
        list(&process.routes),
        list(&process.volumes),
        // Files use none: the edge serves them itself.
        if process.memory_mib == 0 || process.backend == "files" {
            "-".to_owned()
        } else {
            format!("{} MiB", process.memory_mib)
        },
        process.health.clone(),
    ]
}

fn activation(activation: &ActivationView) -> [String; 6] {
    [
        moment(activation.at_unix_ms),
        activation.by.clone(),
        activation.from.clone(),
        activation.kind.clone(),
        millis(activation.took_ms),
        activation.reason.clone(),
    ]
}

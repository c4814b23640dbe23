//! `refloat status`: what Docker and the edge say, problems first.

use std::time::SystemTime;

use refloat_proto::v1::app_service_client::AppServiceClient;
use refloat_proto::v1::{AppStatus, GetStatusRequest, HostStatus, InstanceStatus, Problem};
use serde_json::json;

use super::releases::what;
use crate::args::App;
use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::{Printer, Tone, clean};
use crate::session::Session;
use crate::span::ago;
use crate::table::table;

/// Below this much free disk a build may fail: it is said even when the server does not.
const LOW_DISK_BYTES: u64 = 2 << 30;

pub(super) async fn perform(session: &Session<'_>, args: &App) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let request = GetStatusRequest { app: session.app(args.app.as_deref()) };
    let status = answer(AppServiceClient::new(link.channel).get_status(request)).await?;
    session.printer.object(&json!(status));
    if let Some(host) = &status.host {
        print_host(session.printer, host, &link.target.describe());
    }
    let now = SystemTime::now();
    for app in &status.apps {
        print_app(session.printer, app, now);
    }
    if status.apps.is_empty() {
        session.printer.say(Tone::Plain, "No app yet. Next: refloat deploy");
    }
    Ok(Exit::Done)
}

fn print_host(printer: &Printer, host: &HostStatus, reached: &str) {
    let line = format!(
        "{}, reached as {reached}: refloatd {}, {}",
        clean(&host.host),
        clean(&host.version),
        clean(&host.engine)
    );
    printer.result(Tone::Plain, &line);
    for text in host_complaints(host) {
        printer.result(Tone::Bad, &format!("! {text}"));
    }
    host.problems.iter().for_each(|problem| print_problem(printer, problem));
}

/// What must not be overlooked and is not among the problems that the server names itself.
fn host_complaints(host: &HostStatus) -> Vec<String> {
    let unsaid = |reason: &str| !host.problems.iter().any(|problem| problem.reason == reason);
    let mut texts = Vec::new();
    if !host.engine_reachable && unsaid("ENGINE_UNREACHABLE") {
        texts.push(format!("Docker cannot be reached: {}", clean(&host.engine)));
    }
    if !host.edge_reachable && unsaid("EDGE_UNREACHABLE") {
        texts.push("The edge cannot be reached: what it served last it goes on serving, if it runs.".to_owned());
    }
    if host.build_cap.contains("NOT") {
        texts.push(clean(&host.build_cap));
    }
    if host.engine_reachable && !host.live_restore && unsaid("NO_LIVE_RESTORE") {
        texts.push("Docker's live-restore is off: when dockerd stops, the apps stop.".to_owned());
    }
    if !host.store.is_empty() && host.store != "ok" {
        texts.push(format!("Store: {}", clean(&host.store)));
    }
    if host.disk_free_bytes > 0 && host.disk_free_bytes < LOW_DISK_BYTES {
        texts.push(format!("Only {} free on the disk.", indicatif::HumanBytes(host.disk_free_bytes)));
    }
    texts
}

fn print_problem(printer: &Printer, problem: &Problem) {
    let what = if problem.message.is_empty() { &problem.reason } else { &problem.message };
    printer.result(Tone::Bad, &format!("! {}", clean(what)));
    for line in &problem.lines {
        printer.result(Tone::Dim, &format!("    {}", clean(line)));
    }
    if !problem.next_command.is_empty() {
        printer.result(Tone::Plain, &format!("  Next: {}", clean(&problem.next_command)));
    }
}

fn print_app(printer: &Printer, app: &AppStatus, now: SystemTime) {
    printer.result(Tone::Plain, "");
    let (tone, line) = headline(app, now);
    printer.result(tone, &line);
    let addresses = app.addresses.iter().map(|address| clean(address)).collect::<Vec<_>>();
    if !addresses.is_empty() {
        printer.result(Tone::Plain, &format!("  {}", addresses.join("  ")));
    }
    printer.result(Tone::Plain, &format!("  {}", rollback_line(app)));
    if let Some(running) = &app.deployment {
        let since = ago(running.started_at_unix_ms, now);
        let (kind, phase, by) = (clean(&running.kind), clean(&running.phase), clean(&running.by));
        printer.result(Tone::Warn, &format!("  {kind} in progress: {phase}, started {since} by {by}"));
    }
    app.problems.iter().for_each(|problem| print_problem(printer, problem));
    if !app.instances.is_empty() {
        let rows = app.instances.iter().map(instance_row);
        let text = table(["PROCESS", "RELEASE", "ROLE", "STATE", "MEMORY", "RESTARTS"], rows);
        text.lines().for_each(|line| printer.result(Tone::Plain, &format!("  {line}")));
    }
}

fn headline(app: &AppStatus, now: SystemTime) -> (Tone, String) {
    let name = clean(&app.app);
    match (app.serving, app.stopped) {
        (_, true) => (Tone::Warn, format!("{name}: stopped. Start it again: refloat restart {name}")),
        (0, false) => (Tone::Warn, format!("{name}: nothing serves yet")),
        (serving, false) => {
            let release = app.release.clone().unwrap_or_default();
            let since = ago(release.activated_at_unix_ms, now);
            let about = clean(&what(&release));
            let about = if about.is_empty() { String::new() } else { format!(" ({about})") };
            (Tone::Good, format!("{name}: r{serving} serves, since {since}{about}"))
        }
    }
}

fn rollback_line(app: &AppStatus) -> String {
    match (app.rollback_to, app.rollback_estimate.as_str()) {
        (0, _) if app.serving == 0 => "Rollback: nothing to go back to".to_owned(),
        (0, _) => format!("Rollback: nothing before r{}", app.serving),
        (to, "") => format!("Rollback: to r{to}"),
        (to, estimate) => format!("Rollback: to r{to}, {}", clean(estimate)),
    }
}

fn instance_row(instance: &InstanceStatus) -> [String; 6] {
    let memory = match instance.memory_bytes {
        0 => "-".to_owned(),
        bytes => indicatif::HumanBytes(bytes).to_string(),
    };
    [
        instance.process.clone(),
        format!("r{}", instance.release),
        instance.role.clone(),
        instance.state.clone(),
        memory,
        instance.restarts.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_names_itself_is_not_said_twice() {
        let host = HostStatus { engine_reachable: true, edge_reachable: true, ..HostStatus::default() };
        assert_eq!(host_complaints(&host).len(), 1, "live-restore is off");
        let problem = Problem { reason: "NO_LIVE_RESTORE".to_owned(), ..Problem::default() };
        assert!(host_complaints(&HostStatus { problems: vec![problem], ..host }).is_empty());
    }
}

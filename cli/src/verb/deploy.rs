//! `refloat deploy`: plan, send what is missing, follow.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::HumanBytes;
use refloat_plan::plan::Plan;
use refloat_proto::v1::{DeployRequest, Origin};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::follow::{Ask, Watching, follow_app};
use crate::args::Deploy;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::git;
use crate::planning::{self, PREBUILT_RULES, SOURCE_RULES};
use crate::printer::{Printer, Tone, clean};
use crate::session::{Session, mutation};
use crate::upload::{self, Sent, Source, Walked};

/// What was found here before the server is asked anything.
struct Prepared {
    /// The app's name when nobody says another one.
    name: String,
    plan: Plan,
    source: Arc<Source>,
    files: usize,
    bytes: u64,
}

pub(super) async fn perform(session: &Session<'_>, args: &Deploy) -> Result<Exit, Failure> {
    let (typed, folder) = app_and_folder(args);
    let history = spawn_blocking({
        let folder = folder.clone();
        move || git::origin(&folder)
    });
    let preparing = spawn_blocking({
        let (folder, prebuilt) = (folder.clone(), args.prebuilt.clone());
        move || prepare(&folder, prebuilt.as_deref())
    });
    session.printer.doing("Reading the source");
    let (prepared, link) = tokio::join!(preparing, session.connect());
    session.printer.end_progress();
    let prepared = prepared.map_err(|e| Failure::local("read the source", &e))??;
    let app = typed.or_else(|| session.home.app_of(&folder)).unwrap_or_else(|| prepared.name.clone());
    tell_plan(session.printer, &app, &prepared.plan);
    let link = link?;
    let sent = upload::send(link.channel.clone(), &app, &prepared.source, session.printer).await?;
    tell_sent(session.printer, &prepared, sent);
    let ask = Ask::Deploy(request(args, app, &prepared, history.await.unwrap_or_default()));
    let told = prepared.plan.notes.into_iter().map(|note| note.text).collect();
    let (exit, app) = follow_app(session, &link, &ask, Watching { detach: args.detach, told }).await?;
    // What cannot be remembered is typed again next time.
    let _ = session.home.remember(&folder, &app);
    Ok(exit)
}

fn request(args: &Deploy, app: String, prepared: &Prepared, origin: Origin) -> DeployRequest {
    DeployRequest {
        mutation: Some(mutation(&args.why)),
        app,
        source: prepared.source.root.to_vec(),
        force: args.force,
        no_activate: args.no_activate,
        prebuilt: args.prebuilt.is_some(),
        origin: Some(origin),
        local_plan: prepared.plan.digest().to_vec(),
    }
}

/// `deploy APP`, `deploy DIR`, `deploy APP DIR`: one word is a folder when it is written as a path.
fn app_and_folder(args: &Deploy) -> (Option<String>, PathBuf) {
    let is_path = |word: &str| matches!(word, "." | "..") || word.contains(['/', '\\']);
    match (&args.app, &args.dir) {
        (app, Some(folder)) => (app.clone(), folder.clone()),
        (Some(word), None) if is_path(word) => (None, PathBuf::from(word)),
        (app, None) => (app.clone(), PathBuf::from(".")),
    }
}

fn prepare(folder: &Path, prebuilt: Option<&Path>) -> Result<Prepared, Failure> {
    let walked = match prebuilt {
        None => upload::walk(folder, SOURCE_RULES)?,
        Some(built) => {
            planning::check_settings_beside(folder, built)?;
            upload::walk(built, PREBUILT_RULES)?
        }
    };
    let plan = planning::plan(&walked, folder, prebuilt.is_some())?;
    let Walked { files, bytes, .. } = &walked;
    let (files, bytes) = (files.len(), *bytes);
    let name = prebuilt.and_then(|_| project_name(folder)).unwrap_or_else(|| plan.app.clone());
    Ok(Prepared { name, plan, source: Arc::new(Source::of(&walked)?), files, bytes })
}

/// The app is the same one whether it is built here or there: what was built does not know its name, the project does.
fn project_name(folder: &Path) -> Option<String> {
    let walked = upload::walk(folder, SOURCE_RULES).ok()?;
    Some(planning::plan(&walked, folder, false).ok()?.app)
}

fn tell_plan(printer: &Printer, app: &str, plan: &Plan) {
    printer.say(Tone::Plain, &format!("Deploying {app}: {}", clean(&planning::summary(plan))));
    for note in &plan.notes {
        match note.warn {
            true => printer.say(Tone::Warn, &format!("Warning: {}", clean(&note.text))),
            false => printer.say(Tone::Plain, &clean(&note.text)),
        }
    }
    printer.object(&json!({ "planned": { "app": app, "plan": plan } }));
}

fn tell_sent(printer: &Printer, prepared: &Prepared, sent: Sent) {
    let Prepared { files, bytes, .. } = prepared;
    let all = format!("{files} files, {}", HumanBytes(*bytes));
    let line = match sent.objects {
        0 => format!("Nothing new to send ({all})."),
        _ => format!("Sent {} of {all}.", HumanBytes(sent.sent_bytes)),
    };
    printer.say(Tone::Plain, &line);
    printer.object(&json!({
        "uploaded": { "objects": sent.objects, "sent_bytes": sent.sent_bytes, "files": files, "bytes": bytes },
    }));
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Verb};

    #[test]
    fn one_word_is_a_folder_when_it_is_written_as_a_path() {
        for (line, app, folder) in [
            ("", None, "."),
            ("shop", Some("shop"), "."),
            (".", None, "."),
            ("./shop", None, "./shop"),
            ("/srv/shop", None, "/srv/shop"),
            ("shop web", Some("shop"), "web"),
        ] {
            let words = ["refloat", "deploy"].into_iter().chain(line.split_whitespace());
            let Verb::Deploy(args) = Cli::parse_from(words).verb else { panic!("another verb") };
            assert_eq!(app_and_folder(&args), (app.map(str::to_owned), PathBuf::from(folder)), "{line}");
        }
    }
}

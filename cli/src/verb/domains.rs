//! `refloat domains`

use refloat_proto::v1::app_service_client::AppServiceClient;
use refloat_proto::v1::{GetStatusRequest, SetDomainsRequest};
use serde_json::json;

use super::follow::{Ask, follow};
use crate::args::{Domains, DomainsCommand, Why};
use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::{Tone, clean};
use crate::session::{Session, mutation};
use crate::words::app_and_words;

pub(super) async fn perform(session: &Session<'_>, args: &Domains) -> Result<Exit, Failure> {
    match &args.command {
        DomainsCommand::List(app) => list(session, app.app.as_deref()).await,
        DomainsCommand::Add { words, why } => change(session, words, why, true).await,
        DomainsCommand::Remove { words, why } => change(session, words, why, false).await,
    }
}

async fn list(session: &Session<'_>, app: Option<&str>) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let request = GetStatusRequest { app: session.app(app) };
    let status = answer(AppServiceClient::new(link.channel).get_status(request)).await?;
    let several = status.apps.len() > 1;
    for app in &status.apps {
        session.printer.object(&json!({ "app": app.app, "domains": app.domains }));
        for domain in &app.domains {
            let before = if several { format!("{} ", clean(&app.app)) } else { String::new() };
            session.printer.result(Tone::Plain, &format!("{before}{}", clean(domain)));
        }
        if app.domains.is_empty() {
            let line = format!("{} has no domain. Next: refloat domains add DOMAIN", clean(&app.app));
            session.printer.say(Tone::Plain, &line);
        }
    }
    Ok(Exit::Done)
}

async fn change(session: &Session<'_>, words: &[String], why: &Why, add: bool) -> Result<Exit, Failure> {
    let (app, domains) = app_and_words(words.to_vec(), None, |word| word.contains('.'));
    let link = session.connect().await?;
    let (add, remove) = if add { (domains, Vec::new()) } else { (Vec::new(), domains) };
    let app = session.app(app.as_deref());
    follow(session, &link, &Ask::Domains(SetDomainsRequest { mutation: Some(mutation(why)), app, add, remove })).await
}

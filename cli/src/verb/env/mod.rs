//! `refloat env`: values go in, and nothing here or on the server ever shows them again.

mod file;

use std::io::Read as _;
use std::time::SystemTime;

use refloat_proto::v1::app_service_client::AppServiceClient;
use refloat_proto::v1::{ChangeEnvRequest, EnvValue, ListEnvRequest};
use serde_json::json;

use super::follow::{Ask, follow};
use crate::args::{Env, EnvChange, EnvCommand};
use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::Tone;
use crate::session::{Session, mutation};
use crate::span::ago;
use crate::table::table;
use crate::words::{app_and_words, is_app_name};

/// Largest value, and largest file of values.
const MAX_INPUT_BYTES: u64 = 1 << 20;

pub(super) async fn perform(session: &Session<'_>, args: &Env) -> Result<Exit, Failure> {
    match &args.command {
        EnvCommand::List(app) => list(session, app.app.as_deref()).await,
        EnvCommand::Set { words, change } => {
            let is_variable = |word: &str| word.contains('=') || !is_app_name(word);
            let (app, words) = app_and_words(words.clone(), change.app.clone(), is_variable);
            let set = words.iter().map(|word| assigned(session, word)).collect::<Result<_, _>>()?;
            send(session, app, change, set, Vec::new()).await
        }
        EnvCommand::Unset { words, change } => {
            let (app, unset) = app_and_words(words.clone(), change.app.clone(), |word| !is_app_name(word));
            unset.iter().try_for_each(|name| check_name(name))?;
            send(session, app, change, Vec::new(), unset).await
        }
        EnvCommand::Import { words, change } => {
            let (app, files) = app_and_words(words.clone(), change.app.clone(), |_| false);
            let [path] = files.as_slice() else { return Err(Failure::usage("Say one file, or - for standard input.")) };
            send(session, app, change, imported(path)?, Vec::new()).await
        }
    }
}

async fn list(session: &Session<'_>, app: Option<&str>) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let request = ListEnvRequest { app: session.app(app) };
    let list = answer(AppServiceClient::new(link.channel).list_env(request)).await?;
    session.printer.object(&json!(list));
    if list.names.is_empty() {
        session.printer.say(Tone::Plain, "No variable is set. Next: refloat env set NAME=VALUE");
        return Ok(Exit::Done);
    }
    let now = SystemTime::now();
    let rows = list.names.iter().map(|n| [n.name.clone(), ago(n.changed_at_unix_ms, now), n.changed_by.clone()]);
    session.printer.result(Tone::Plain, &table(["NAME", "CHANGED", "BY"], rows));
    Ok(Exit::Done)
}

async fn send(
    session: &Session<'_>,
    app: Option<String>,
    change: &EnvChange,
    set: Vec<EnvValue>,
    unset: Vec<String>,
) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let request = ChangeEnvRequest {
        mutation: Some(mutation(&change.why)),
        app: session.app(app.as_deref()),
        set,
        unset,
        no_deploy: change.no_deploy,
    };
    follow(session, &link, &Ask::Env(request)).await
}

/// `NAME=VALUE`, `NAME=-` from standard input, `NAME` from the terminal.
fn assigned(session: &Session<'_>, word: &str) -> Result<EnvValue, Failure> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    check_name(name)?;
    let value = match value {
        Some("-") => from_stdin()?,
        Some(value) => value.to_owned(),
        None if session.printer.can_ask() => session.printer.ask_secret(&format!("{name}: "))?,
        None => {
            return Err(Failure::usage(format!("{name} has no value: write {name}=VALUE, or {name}=- to pipe it in.")));
        }
    };
    Ok(EnvValue { name: name.to_owned(), value })
}

/// Without the one line's end that a shell's `echo` adds.
fn from_stdin() -> Result<String, Failure> {
    let text = read_limited(std::io::stdin(), "standard input")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn imported(path: &str) -> Result<Vec<EnvValue>, Failure> {
    let text = match path {
        "-" => read_limited(std::io::stdin(), "standard input")?,
        path => {
            let file = std::fs::File::open(path).map_err(|e| Failure::local(&format!("read {path}"), &e))?;
            read_limited(file, path)?
        }
    };
    let variables = file::parse(&text).map_err(|error| Failure::usage(format!("{path}: {error}.")))?;
    if variables.is_empty() {
        return Err(Failure::usage(format!("{path} sets no variable.")));
    }
    Ok(variables.into_iter().map(|(name, value)| EnvValue { name, value }).collect())
}

fn read_limited(from: impl std::io::Read, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = from.take(MAX_INPUT_BYTES + 1).read_to_string(&mut text);
    let count = read.map_err(|e| Failure::local(&format!("read {name}"), &e))?;
    if count as u64 > MAX_INPUT_BYTES {
        return Err(Failure::usage(format!("{name} is larger than {} KiB.", MAX_INPUT_BYTES >> 10)));
    }
    Ok(text)
}

fn check_name(name: &str) -> Result<(), Failure> {
    // A mistyped NAME=VALUE must not be repeated with its value: only the name's form is spoken of.
    if file::is_name(name) {
        return Ok(());
    }
    Err(Failure::usage("The name of a variable consists of letters, digits and '_', and does not begin with a digit."))
}

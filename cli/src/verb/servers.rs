//! `refloat servers`

use serde_json::json;

use crate::args::{Servers, ServersCommand};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::server::PairedServer;
use crate::printer::Tone;
use crate::session::Session;
use crate::table::table;

pub(super) fn perform(session: &Session<'_>, args: &Servers) -> Result<Exit, Failure> {
    match &args.command {
        None | Some(ServersCommand::List) => list(session)?,
        Some(ServersCommand::Use { name }) => {
            session.home.use_server(name)?;
            session.printer.say(Tone::Plain, &format!("{name} is used unless told otherwise."));
            session.printer.object(&json!({ "default": name }));
        }
        Some(ServersCommand::Remove { name }) => {
            session.home.remove_server(name)?;
            session.printer.say(Tone::Plain, &format!("{name} and the key that belonged to it are forgotten here."));
            session.printer.object(&json!({ "removed": name }));
        }
    }
    Ok(Exit::Done)
}

fn list(session: &Session<'_>) -> Result<(), Failure> {
    let servers = session.home.servers()?;
    let default = match servers.as_slice() {
        [only] => Some(only.name.clone()),
        _ => session.home.default_server()?,
    };
    let is_default = |server: &PairedServer| Some(&server.name) == default.as_ref();
    let objects = servers.iter().map(|server| {
        json!({
            "name": server.name,
            "address": server.file.address,
            "host": server.file.host,
            "default": is_default(server),
        })
    });
    session.printer.object(&json!({ "servers": objects.collect::<Vec<_>>() }));
    if servers.is_empty() {
        session.printer.say(Tone::Plain, "No server is paired. Next: refloat pair SERVER --code CODE");
        return Ok(());
    }
    let rows = servers.iter().map(|server| {
        let mark = if is_default(server) { "default" } else { "" };
        [server.name.clone(), server.file.address.clone(), server.file.host.clone(), mark.to_owned()]
    });
    session.printer.result(Tone::Plain, &table(["NAME", "ADDRESS", "HOST", ""], rows));
    Ok(())
}

//! `refloat pair`

use std::io::Read as _;

use serde_json::json;

use crate::args::Pair;
use crate::connection::pairing::{PairingCode, pair};
use crate::connection::{Address, DEFAULT_PORT};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::server::{PairedServer, ServerFile, name_for};
use crate::printer::{Tone, clean};
use crate::session::Session;
use crate::span::moment;
use crate::unix;

const MAX_TYPED_BYTES: u64 = 4096;

pub(super) async fn perform(session: &Session<'_>, args: &Pair) -> Result<Exit, Failure> {
    let address = Address::parse(&args.server, DEFAULT_PORT)?;
    let code = PairingCode::parse(&typed_code(session, args)?)?;
    let paired = pair(&address, &code, &device_name()).await?;
    let name = args.name.clone().unwrap_or_else(|| name_for(&address.host));
    let response = paired.response;
    let file =
        ServerFile { address: address.to_string(), server_name: response.server_name, host: clean(&response.host) };
    let server = PairedServer { name: name.clone(), file };
    let first = session.home.servers()?.is_empty();
    session.home.save_server(&server, &paired.credentials)?;
    if first {
        session.home.use_server(&name)?;
    }
    let line = format!("Paired with {name} ({}), until {}.", server.file.host, moment(response.not_after_unix_ms));
    session.printer.result(Tone::Good, &line);
    session.printer.say(Tone::Plain, "Next: refloat deploy");
    session.printer.object(&json!({
        "name": name,
        "address": server.file.address,
        "host": server.file.host,
        "not_after_unix_ms": response.not_after_unix_ms,
    }));
    Ok(Exit::Done)
}

fn typed_code(session: &Session<'_>, args: &Pair) -> Result<String, Failure> {
    match args.code.as_deref() {
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().take(MAX_TYPED_BYTES).read_to_string(&mut text);
            read.map(|_| text).map_err(|e| Failure::local("read the code", &e))
        }
        Some(code) => Ok(code.to_owned()),
        None if session.printer.can_ask() => session.printer.ask_secret("Code (from `refloatd pair` on the server): "),
        None => Err(Failure::usage("A code is needed: `refloatd pair` on the server prints one.")
            .next(format!("refloat pair {} --code CODE", args.server))),
    }
}

/// How this device appears in the history: "anna@laptop".
fn device_name() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_default();
    let host = unix::host_name();
    let name = if user.is_empty() { host } else { format!("{user}@{host}") };
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

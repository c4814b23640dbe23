//! `refloat plan`: offline.

use std::path::Path;

use serde_json::json;

use crate::args::Plan;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::planning::{self, PREBUILT_RULES, SOURCE_RULES};
use crate::printer::{Tone, clean};
use crate::session::Session;
use crate::upload;

pub(super) fn perform(session: &Session<'_>, args: &Plan) -> Result<Exit, Failure> {
    let folder = args.dir.as_deref().unwrap_or(Path::new("."));
    let walked = match &args.prebuilt {
        None => upload::walk(folder, SOURCE_RULES)?,
        Some(built) => {
            planning::check_settings_beside(folder, built)?;
            upload::walk(built, PREBUILT_RULES)?
        }
    };
    let plan = planning::plan(&walked, folder, args.prebuilt.is_some())?;
    for line in planning::render(&plan).lines() {
        session.printer.result(Tone::Plain, &clean(line));
    }
    session.printer.object(&json!(plan));
    Ok(Exit::Done)
}

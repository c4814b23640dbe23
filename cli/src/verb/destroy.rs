//! `refloat destroy`: lists what goes, then wants the app's name.

use refloat_proto::v1::DestroyRequest;

use super::follow::{Ask, follow};
use crate::args::Destroy;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::{Session, mutation};

pub(super) async fn perform(session: &Session<'_>, args: &Destroy) -> Result<Exit, Failure> {
    match args.yes.as_deref() {
        Some(name) if name == args.app => {}
        Some(name) => {
            let what = format!("--yes {name} is not the app's name, {}. Nothing was removed.", args.app);
            return Err(Failure::usage(what));
        }
        None if session.printer.can_ask() => {}
        None => {
            let what = format!("Destroying {0} cannot be undone: say --yes {0}. Nothing was removed.", args.app);
            return Err(Failure::usage(what).next(format!("refloat destroy {0} --yes {0}", args.app)));
        }
    }
    let link = session.connect().await?;
    let request = |dry_run| DestroyRequest {
        mutation: Some(mutation(&args.why)),
        app: args.app.clone(),
        volumes: args.volumes,
        dry_run,
    };
    if args.yes.is_none() {
        follow(session, &link, &Ask::Destroy(request(true))).await?;
        let typed = session.printer.ask(&format!("Type {} to remove it: ", args.app))?;
        if typed.trim() != args.app {
            return Err(Failure::new(Exit::Failed, "That is not its name. Nothing was removed."));
        }
    }
    follow(session, &link, &Ask::Destroy(request(false))).await
}

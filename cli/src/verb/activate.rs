//! `refloat activate`

use refloat_proto::v1::ActivateRequest;

use super::follow::{Ask, follow};
use crate::args::Activate;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::{Session, mutation};
use crate::words::app_and_releases;

pub(super) async fn perform(session: &Session<'_>, args: &Activate) -> Result<Exit, Failure> {
    let (app, releases) = app_and_releases(&args.words, 1)?;
    let link = session.connect().await?;
    let request =
        ActivateRequest { mutation: Some(mutation(&args.why)), app: session.app(app.as_deref()), release: releases[0] };
    follow(session, &link, &Ask::Activate(request)).await
}

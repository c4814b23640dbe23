//! `refloat rollback`

use refloat_proto::v1::RollbackRequest;

use super::follow::{Ask, follow};
use crate::args::Rollback;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::{Session, mutation};

pub(super) async fn perform(session: &Session<'_>, args: &Rollback) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let request = RollbackRequest {
        mutation: Some(mutation(&args.why)),
        app: session.app(args.app.as_deref()),
        to: args.to.unwrap_or(0),
        code: args.code,
        dry_run: args.dry_run,
    };
    follow(session, &link, &Ask::Rollback(request)).await
}

//! `refloat stop`

use refloat_proto::v1::StopRequest;

use super::follow::{Ask, follow};
use crate::args::Mutating;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::{Session, mutation};

pub(super) async fn perform(session: &Session<'_>, args: &Mutating) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let app = session.app(args.app.as_deref());
    let request = StopRequest { mutation: Some(mutation(&args.why)), app };
    follow(session, &link, &Ask::Stop(request)).await
}

//! One run of the program: what every verb needs.

use std::time::Instant;

use refloat_proto::v1::Mutation;
use tonic::transport::Channel;

use crate::args::{Global, Why};
use crate::connection::Target;
use crate::failure::Failure;
use crate::home::Home;
use crate::printer::Printer;
use crate::unix;

const MAX_REASON_CHARACTERS: usize = 500;

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// What the command line says for every verb.
    pub(crate) global: &'a Global,
    /// Prints.
    pub(crate) printer: &'a Printer,
    /// What is remembered.
    pub(crate) home: Home,
    /// When the program started.
    pub(crate) started: Instant,
}

/// An agent that was reached.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// How it is reached.
    pub(crate) target: Target,
    /// gRPC to it.
    pub(crate) channel: Channel,
}

impl Session<'_> {
    /// Reaches the agent that is meant.
    ///
    /// # Errors
    /// When none is known or it cannot be reached.
    pub(crate) async fn connect(&self) -> Result<Link, Failure> {
        self.reach(Target::choose(self.global, &self.home)?).await
    }

    /// Reaches this agent.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(crate) async fn reach(&self, target: Target) -> Result<Link, Failure> {
        let channel = target.connect(&self.home).await?;
        Ok(Link { target, channel })
    }

    /// The app that is meant: the one that was typed, else the folder's; empty when the server is to take its only one.
    pub(crate) fn app(&self, typed: Option<&str>) -> String {
        let folder_app = || self.home.app_of(std::path::Path::new("."));
        typed.map(str::to_owned).or_else(folder_app).unwrap_or_default()
    }
}

/// The identity of a new mutation.
pub(crate) fn mutation(why: &Why) -> Mutation {
    let host = unix::host_name();
    let reason = why.message.as_deref().unwrap_or_default();
    Mutation {
        idempotency_key: uuid::Uuid::new_v4().to_string(),
        reason: reason.chars().take(MAX_REASON_CHARACTERS).collect(),
        client: format!("refloat {} on {host}", env!("CARGO_PKG_VERSION")),
    }
}

//! What went wrong, for a person: what happened, what is still fine, and the next command to type.

use prost::Message as _;
use refloat_proto::v1::Problem;
use tonic::{Code, Status};

use crate::exit::Exit;

const PROBLEM_TYPE: &str = "type.googleapis.com/refloat.v1.Problem";

/// Why a verb ended without doing what was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) exit: Exit,
    /// Stable, `UPPER_SNAKE_CASE`, for programs.
    pub(crate) reason: Box<str>,
    /// What happened: a sentence or two.
    pub(crate) what: String,
    /// What is not affected, or empty.
    pub(crate) still_fine: String,
    /// One command to type, or empty.
    pub(crate) next: String,
    /// Evidence.
    pub(crate) lines: Vec<String>,
}

impl Failure {
    /// A failure with nothing but its sentence.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        let reason = match exit {
            Exit::Usage => "USAGE",
            Exit::Denied => "DENIED",
            Exit::Unreachable => "UNREACHABLE",
            Exit::Configuration => "CONFIGURATION",
            _ => "FAILED",
        };
        Self {
            exit,
            reason: reason.into(),
            what: what.into(),
            still_fine: String::new(),
            next: String::new(),
            lines: Vec::new(),
        }
    }

    /// The command line cannot be understood.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Something on this machine did not work.
    pub(crate) fn local(doing: &str, error: &dyn std::error::Error) -> Self {
        Self::new(Exit::Failed, format!("cannot {doing}: {}", chain(error)))
    }

    /// The same with the command to type next.
    pub(crate) fn next(mut self, command: impl Into<String>) -> Self {
        self.next = command.into();
        self
    }

    /// The same with what is not affected.
    pub(crate) fn still_fine(mut self, text: impl Into<String>) -> Self {
        self.still_fine = text.into();
        self
    }

    /// The same with a stable reason.
    pub(crate) fn reason(mut self, reason: &str) -> Self {
        self.reason = reason.into();
        self
    }
}

/// An error and its causes in one line, without saying anything twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let exit = exit_of(&status);
        let mut failure = Self::new(exit, sentence(&status));
        if let Some(problem) = problem_of(&status) {
            failure.reason = problem.reason.into();
            failure.still_fine = problem.still_fine;
            failure.next = problem.next_command;
            failure.lines = problem.lines;
        }
        failure
    }
}

fn exit_of(status: &Status) -> Exit {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
        Code::InvalidArgument => Exit::Usage,
        Code::Unavailable => Exit::Unreachable,
        _ if refused_certificate(status) => Exit::Denied,
        _ if is_transport(status) => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

fn sentence(status: &Status) -> String {
    if refused_certificate(status) {
        return "The server does not accept this device's certificate. Pair this device again.".to_owned();
    }
    if is_transport(status) {
        let cause = std::error::Error::source(status).map(chain).unwrap_or_default();
        return format!("The connection to the server broke: {cause}");
    }
    match (status.code(), status.message()) {
        (Code::Unimplemented, "") => "The server does not know this command: it is older than this program.".to_owned(),
        (code, "") => code.description().to_owned(),
        (_, message) => message.to_owned(),
    }
}

/// Whether the connection failed, as opposed to an answer of the server.
pub(crate) fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Under TLS 1.3 a certificate is refused only after the client believes to be connected.
fn refused_certificate(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()).is_some_and(is_alert)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_alert(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::AlertReceived(_))
}

/// The detail that the server put beside its status.
fn problem_of(status: &Status) -> Option<Problem> {
    let details = tonic_types::Status::decode(status.details()).ok()?.details;
    let detail = details.into_iter().find(|any| any.type_url == PROBLEM_TYPE)?;
    Problem::decode(detail.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_beside_the_status_says_what_is_fine_and_what_to_type() {
        let problem = Problem {
            reason: "NOTHING_BEFORE".to_owned(),
            still_fine: "r1 still serves".to_owned(),
            next_command: "refloat releases".to_owned(),
            ..Default::default()
        };
        let detail = prost_types::Any { type_url: PROBLEM_TYPE.to_owned(), value: problem.encode_to_vec() };
        let details = tonic_types::Status { code: 9, message: "nothing before r1".to_owned(), details: vec![detail] };
        let status =
            Status::with_details(Code::FailedPrecondition, "nothing before r1", details.encode_to_vec().into());
        let failure = Failure::from(status);
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.what, "nothing before r1");
        assert_eq!(failure.still_fine, "r1 still serves");
        assert_eq!(failure.next, "refloat releases");
    }

    #[test]
    fn codes_of_the_wire_become_codes_of_the_program() {
        for (code, exit) in [
            (Code::PermissionDenied, Exit::Denied),
            (Code::Unauthenticated, Exit::Denied),
            (Code::Unavailable, Exit::Unreachable),
            (Code::InvalidArgument, Exit::Usage),
            (Code::FailedPrecondition, Exit::Failed),
            (Code::NotFound, Exit::Failed),
            (Code::Internal, Exit::Failed),
        ] {
            assert_eq!(Failure::from(Status::new(code, "x")).exit, exit, "{code:?}");
        }
    }
}

//! Errors as clients get them: a code, a sentence, and a [`Problem`] with a stable reason, what is still fine and the
//! next command, as `google.rpc.Status` in `grpc-status-details-bin`.

use prost::Message as _;
use refloat_model::NameError;
use refloat_model::admission::Denial;
use refloat_proto::v1::Problem;
use tonic::{Code, Status};

use super::port::SourceError;
use crate::deploy::request::Denied;
use crate::identity::permission::Refusal;
use crate::journal::JournalError;

const PROBLEM_TYPE: &str = "type.googleapis.com/refloat.v1.Problem";
/// Headers have a limit: this much evidence fits into the client's 16 KiB.
const MAX_LINES: usize = 20;
const MAX_LINE_CHARS: usize = 200;
const MAX_MESSAGE_CHARS: usize = 2_000;

/// Makes a status whose details are the problem and whose message is the problem's.
#[must_use]
pub fn status(code: Code, problem: Problem) -> Status {
    let problem = bounded(problem);
    let any = prost_types::Any { type_url: PROBLEM_TYPE.to_owned(), value: problem.encode_to_vec() };
    let details = tonic_types::Status { code: code as i32, message: problem.message.clone(), details: vec![any] };
    Status::with_details(code, problem.message, details.encode_to_vec().into())
}

fn bounded(mut problem: Problem) -> Problem {
    problem.lines.truncate(MAX_LINES);
    for line in &mut problem.lines {
        *line = line.chars().take(MAX_LINE_CHARS).collect();
    }
    problem.message = problem.message.chars().take(MAX_MESSAGE_CHARS).collect();
    problem
}

/// Reads the problem out of a status.
#[must_use]
pub fn problem(status: &Status) -> Option<Problem> {
    let details = tonic_types::Status::decode(status.details()).ok()?;
    let any = details.details.into_iter().find(|any| any.type_url == PROBLEM_TYPE)?;
    Problem::decode(any.value.as_slice()).ok()
}

fn simple(code: Code, reason: &str, message: impl Into<String>, next_command: &str) -> Status {
    let problem = Problem {
        reason: reason.to_owned(),
        message: message.into(),
        still_fine: "Nothing was changed.".to_owned(),
        next_command: next_command.to_owned(),
        lines: Vec::new(),
    };
    status(code, problem)
}

/// The request cannot be understood.
#[must_use]
pub fn invalid(message: impl Into<String>) -> Status {
    simple(Code::InvalidArgument, "INVALID_REQUEST", message, "")
}

/// What was asked for does not exist.
#[must_use]
pub fn not_found(reason: &str, message: impl Into<String>, next_command: &str) -> Status {
    simple(Code::NotFound, reason, message, next_command)
}

/// The agent itself could not do it.
#[must_use]
pub fn failed(reason: &str, message: impl Into<String>) -> Status {
    simple(Code::Internal, reason, message, "refloat status")
}

/// Too often, or too much at once.
#[must_use]
pub fn too_many(reason: &str, message: impl Into<String>) -> Status {
    simple(Code::ResourceExhausted, reason, message, "")
}

/// A pairing code that was not taken.
#[must_use]
pub fn not_paired(reason: &str, message: impl Into<String>) -> Status {
    simple(Code::Unauthenticated, reason, message, "refloatd pair   # as root on the server")
}

/// A name that cannot be used.
#[must_use]
pub fn bad_name(error: &NameError) -> Status {
    invalid(error.to_string())
}

/// A reading of the journal that failed.
#[must_use]
pub fn journal(error: &JournalError) -> Status {
    simple(Code::Unavailable, "JOURNAL", error.to_string(), "journalctl -u refloatd -n 50   # on the server")
}

/// A denial by the model.
#[must_use]
pub fn denial(denial: &Denial) -> Status {
    let code = code_of(denial.reason());
    simple(code, denial.reason(), denial.to_string(), &denial.next_command())
}

/// A denial by the driver.
#[must_use]
pub fn denied(denied: Denied) -> Status {
    let problem = Problem {
        reason: denied.reason.to_owned(),
        message: denied.message,
        still_fine: denied.still_fine,
        next_command: denied.next_command,
        lines: Vec::new(),
    };
    status(code_of(denied.reason), problem)
}

/// A source that was not taken.
#[must_use]
pub fn source(error: &SourceError) -> Status {
    match error {
        SourceError::Refused(message) => simple(Code::InvalidArgument, "SOURCE_REFUSED", message, ""),
        SourceError::NoRoom(message) => simple(Code::ResourceExhausted, "NO_ROOM", message, "refloat status"),
        SourceError::Failed(message) => failed("SOURCE_NOT_STORED", message),
    }
}

/// A call that the permission table refuses.
#[must_use]
pub fn refusal(refusal: &Refusal) -> Status {
    const PAIR: &str = "refloat pair SERVER --code CODE   # with a code from: refloatd pair";
    let (code, reason, next) = match refusal {
        Refusal::NotPaired => (Code::Unauthenticated, "NOT_PAIRED", PAIR),
        Refusal::ForeignCertificate => (Code::Unauthenticated, "FOREIGN_CERTIFICATE", PAIR),
        Refusal::CertificateExpired(_) => (Code::Unauthenticated, "CERTIFICATE_EXPIRED", PAIR),
        Refusal::CertificateNotYetValid => (Code::Unauthenticated, "CERTIFICATE_NOT_YET_VALID", "date"),
        Refusal::NotListed => (Code::Unauthenticated, "NOT_LISTED", PAIR),
        Refusal::RoleTooLow { .. } => (Code::PermissionDenied, "ROLE_TOO_LOW", "refloat whoami"),
        Refusal::OnlyOnTheServer => (Code::PermissionDenied, "ONLY_ON_THE_SERVER", "ssh root@SERVER refloatd pair"),
        Refusal::NoSuchMethod => (Code::Unimplemented, "NO_SUCH_METHOD", "refloat version"),
    };
    simple(code, reason, sentence(&refusal.to_string()), next)
}

fn code_of(reason: &str) -> Code {
    match reason {
        "NO_SUCH_APP" | "NO_APPS" | "NO_SUCH_RELEASE" => Code::NotFound,
        "WHICH_APP" => Code::InvalidArgument,
        "QUEUE_FULL" | "NO_SUBNET" | "SUBNET_IN_USE" => Code::ResourceExhausted,
        _ => Code::FailedPrecondition,
    }
}

/// An error's fragment as a sentence.
#[must_use]
pub fn sentence(fragment: &str) -> String {
    let mut chars = fragment.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_its_problem_whole() {
        let denied = Denied {
            reason: "NOTHING_BEFORE",
            message: "there is nothing before r1".into(),
            still_fine: "r1 still serves.".into(),
            next_command: "refloat releases".into(),
        };
        let status = super::denied(denied);
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "there is nothing before r1"));
        let read = problem(&status).unwrap();
        assert_eq!((read.reason.as_str(), read.still_fine.as_str()), ("NOTHING_BEFORE", "r1 still serves."));
        assert_eq!(read.message, status.message());
    }

    #[test]
    fn evidence_is_cut_to_what_fits_into_headers() {
        let long =
            Problem { message: "m".repeat(100_000), lines: vec!["ä".repeat(10_000); 500], ..Problem::default() };
        let status = super::status(Code::Internal, long);
        assert!(status.details().len() < 14_000, "{}", status.details().len());
        assert_eq!(problem(&status).unwrap().lines.len(), 20);
    }

    #[test]
    fn a_status_of_somebody_else_has_no_problem() {
        assert_eq!(problem(&Status::internal("x")), None);
        assert_eq!(problem(&Status::with_details(Code::Internal, "x", vec![1, 2, 3].into())), None);
    }
}

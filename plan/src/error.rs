//! Why there is no plan, in words for a person who knows npm but not Docker.

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PlanError {
    /// Which sort of problem it is.
    pub kind: PlanErrorKind,
    /// What is the matter, one or two sentences.
    pub message: String,
    /// What to do next, one or two sentences.
    pub next: String,
    /// What was looked for, when nothing was recognised.
    pub looked_for: Vec<String>,
}

/// The sort of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanErrorKind {
    /// `refloat.toml` cannot be used.
    Settings,
    /// A file of the source cannot be used.
    Source,
    /// The kind of app was recognised, and it cannot be built yet.
    NotYet,
    /// Nothing was recognised.
    NotRecognised,
}

impl PlanError {
    /// A problem in `refloat.toml`.
    pub(crate) fn settings(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(PlanErrorKind::Settings, message, next)
    }

    /// A problem in another file.
    pub(crate) fn source(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(PlanErrorKind::Source, message, next)
    }

    /// A problem of that kind.
    pub(crate) fn new(kind: PlanErrorKind, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { kind, message: message.into(), next: next.into(), looked_for: Vec::new() }
    }
}

//! What was decided and why, and what the user should know, in the order in which it was found.

use crate::plan::{Note, Reason};

/// Reasons and notes of one plan.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Why.
    pub(crate) reasons: Vec<Reason>,
    /// What the user should know.
    pub(crate) notes: Vec<Note>,
    /// The part of the app that decisions are about, when it has several.
    pub(crate) part: Option<&'static str>,
}

impl Findings {
    /// Keeps a decision and its evidence.
    pub(crate) fn decide(&mut self, decision: impl Into<String>, because: impl Into<String>) {
        let decision = decision.into();
        let decision = self.part.map(|part| format!("{part}: {decision}")).unwrap_or(decision);
        let reason = Reason { decision, because: because.into() };
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// Keeps something worth knowing.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.keep(false, text.into());
    }

    /// Keeps something that will probably hurt.
    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.keep(true, text.into());
    }

    fn keep(&mut self, warn: bool, text: String) {
        let note = Note { warn, text };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// Names for a sentence: "a", "a and b", "a, b and 3 more".
pub(crate) fn listed<S: AsRef<str>>(names: &[S], most: usize) -> String {
    let shown: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    let left = names.len().saturating_sub(shown.len());
    match (shown.split_last(), left) {
        (None, _) => String::new(),
        (Some(_), 1..) => format!("{} and {left} more", shown.join(", ")),
        (Some((last, [])), 0) => (*last).to_owned(),
        (Some((last, rest)), 0) => format!("{} and {last}", rest.join(", ")),
    }
}

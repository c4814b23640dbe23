//! How the few fields that have no plain form in JSON are written.

use serde::Serializer;

use crate::v1::OutcomeKind;

/// Bytes of an id or digest as lowercase hexadecimal digits.
pub(crate) fn hexadecimal<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Hexadecimal(bytes))
}

struct Hexadecimal<'a>(&'a [u8]);

impl std::fmt::Display for Hexadecimal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The kind's name without its prefix: "live", "live_unverified".
pub(crate) fn outcome_kind<S: Serializer>(kind: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let name = OutcomeKind::try_from(*kind).unwrap_or_default().as_str_name();
    serializer.serialize_str(&name.trim_start_matches("OUTCOME_KIND_").to_lowercase())
}

#[cfg(test)]
mod tests {
    use crate::v1::deployment_event::Event;
    use crate::v1::{DeploymentEvent, Outcome, OutcomeKind, ReleaseSummary};

    #[test]
    fn an_event_is_an_object_with_one_key_that_names_its_kind() {
        let outcome = Outcome { kind: OutcomeKind::LiveUnverified.into(), serving: 2, ..Default::default() };
        let event = DeploymentEvent { sequence: 7, at_unix_ms: 1, event: Some(Event::Outcome(outcome)) };
        let json = serde_json::to_value(&event).expect("it can be written");
        assert_eq!(json["sequence"], 7);
        assert_eq!(json["event"]["outcome"]["kind"], "live_unverified");
        assert_eq!(json["event"]["outcome"]["serving"], 2);
    }

    #[test]
    fn an_id_is_written_in_hexadecimal_digits() {
        let summary = ReleaseSummary { id: vec![0, 255, 16], ..Default::default() };
        let json = serde_json::to_value(&summary).expect("it can be written");
        assert_eq!(json["id"], "00ff10");
    }
}

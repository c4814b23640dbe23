//! What `refloat … --json` says, as far as tests and measurements read it.

use refloat_testkit::command::Finished;
use serde_json::Value;

/// The object that was printed; of several, one a line, the last.
///
/// # Panics
/// When there is none.
#[must_use]
#[track_caller]
pub fn json(finished: &Finished) -> Value {
    let whole = serde_json::from_str(&finished.stdout).ok();
    let last = || finished.stdout.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    let value: Option<Value> = whole.or_else(last);
    assert!(value.as_ref().is_some_and(Value::is_object), "no JSON object was printed\n{finished}");
    value.unwrap_or_default()
}

/// The outcome among the events of a deployment.
///
/// # Panics
/// When there is none.
#[must_use]
#[track_caller]
pub fn outcome(finished: &Finished) -> Value {
    let events = finished.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut outcomes = events.filter_map(|event| event.get("outcome").cloned());
    let outcome = outcomes.next();
    assert!(outcome.is_some(), "no outcome was printed\n{finished}");
    outcome.unwrap_or_default()
}

/// Milliseconds between request and applied commit, as the server measured them.
#[must_use]
pub fn server_ms(outcome: &Value) -> Option<f64> {
    let timings = outcome["timings"].as_array()?;
    let server = timings.iter().find(|timing| timing["what"] == "server")?;
    server["duration_us"].as_f64().map(|us| us / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_found_among_other_events_and_says_how_long_the_server_took() {
        let events = [
            r#"{"sequence":1,"phase":{"phase":"staging"}}"#,
            r#"{"sequence":2,"outcome":{"kind":"live","timings":[{"what":"server","duration_us":12500}]}}"#,
            r#"{"here":{"status":200}}"#,
        ];
        let command = &mut std::process::Command::new("printf");
        let said = Finished::of(command.arg("%s\\n").args(events)).success();
        assert_eq!(server_ms(&outcome(&said)), Some(12.5));
        assert_eq!(json(&said)["here"]["status"], 200);
    }
}

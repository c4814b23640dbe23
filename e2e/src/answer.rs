//! What `refloat … --json` says, as far as tests and measurements read it.

use refloat_testkit::command::Finished;
use serde_json::Value;

/// The last line of standard output that is a JSON object.
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

/// Milliseconds between request and applied commit, as the server measured them.
#[must_use]
pub fn server_ms(outcome: &Value) -> Option<f64> {
    let timings = outcome["timings"].as_array()?;
    let server = timings.iter().find(|timing| timing["what"] == "server")?;
    server["duration_us"].as_f64().map(|us| us / 1000.0)
}

//! Measured values with their names and units: printed as a table for people and as one JSON object for programs.

use std::time::Duration;

use serde_json::{Map, Value};

/// One value.
#[derive(Debug, Clone)]
struct Figure {
    key: String,
    text: String,
    value: Value,
}

/// Values in the order in which they were measured.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    figures: Vec<Figure>,
}

impl Figures {
    /// Notes a value: `key` for programs, `text` for people.
    pub fn note(&mut self, key: &str, text: &str, value: impl Into<Value>) {
        self.figures.push(Figure { key: key.to_owned(), text: text.to_owned(), value: value.into() });
    }

    /// Notes a duration in milliseconds, to a tenth.
    pub fn note_ms(&mut self, key: &str, text: &str, value: Duration) {
        self.note(key, text, milliseconds(value));
    }

    /// One line for each: what it is, and how much.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.figures.iter().map(|f| f.text.chars().count()).max().unwrap_or_default();
        let line = |f: &Figure| format!("  {:<width$}  {:>10}\n", f.text, shown(&f.key, &f.value));
        self.figures.iter().map(line).collect()
    }

    /// All of it on one line.
    #[must_use]
    pub fn json(&self) -> String {
        let map: Map<_, _> = self.figures.iter().map(|f| (f.key.clone(), f.value.clone())).collect();
        Value::Object(map).to_string()
    }
}

/// Milliseconds to a tenth.
#[must_use]
pub fn milliseconds(value: Duration) -> f64 {
    (value.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The middle one; of an even number the higher of the two. Zero when there is none.
#[must_use]
pub fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn shown(key: &str, value: &Value) -> String {
    let number = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match key.rsplit('_').next() {
        Some("ms") => format!("{number} ms"),
        Some("kb") => format!("{number} KiB"),
        Some("bytes") => format!("{number} B"),
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_the_json_is_one_line() {
        let mut figures = Figures::default();
        figures.note_ms("deploy_ms", "first deploy", Duration::from_micros(1_234_567));
        figures.note("failed", "failed", 0);
        assert_eq!(figures.table(), "  first deploy   1234.6 ms\n  failed                 0\n");
        assert_eq!(figures.json(), r#"{"deploy_ms":1234.6,"failed":0}"#);
    }

    #[test]
    fn the_median_of_nothing_is_zero() {
        let ms = Duration::from_millis;
        assert_eq!(median(vec![ms(9), ms(1), ms(5)]), ms(5));
        assert_eq!(median(Vec::new()), ms(0));
    }
}

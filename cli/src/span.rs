//! How long something took and how long ago it was, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// "0.4 ms", "38 ms", "3.2 s", "2 min 5 s".
pub(crate) fn span(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    match duration.as_secs() {
        0 if ms < 1.0 => format!("{ms:.1} ms"),
        0 => format!("{ms:.0} ms"),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        secs @ 60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        secs => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
    }
}

/// [`span`] of microseconds.
pub(crate) fn micros(us: u64) -> String {
    span(Duration::from_micros(us))
}

/// [`span`] of milliseconds.
pub(crate) fn millis(ms: u64) -> String {
    span(Duration::from_millis(ms))
}

/// "just now", "5 min ago", "3 h ago", "12 d ago"; "never" for 0.
pub(crate) fn ago(at_unix_ms: u64, now: SystemTime) -> String {
    if at_unix_ms == 0 {
        return "never".to_owned();
    }
    let secs = now.duration_since(UNIX_EPOCH + Duration::from_millis(at_unix_ms)).unwrap_or_default().as_secs();
    match secs {
        0..5 => "just now".to_owned(),
        5..90 => format!("{secs} s ago"),
        90..5400 => format!("{} min ago", secs / 60),
        5400..172_800 => format!("{} h ago", secs / 3600),
        _ => format!("{} d ago", secs / 86_400),
    }
}

/// "2026-11-22 14:03:12 UTC", or the number when it is no time.
pub(crate) fn moment(at_unix_ms: u64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_unix_ms) * 1_000_000);
    moment.ok().and_then(|m| m.format(format).ok()).unwrap_or_else(|| at_unix_ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_exact_as_a_person_wants_them() {
        for (us, text) in [
            (400, "0.4 ms"),
            (38_400, "38 ms"),
            (3_240_000, "3.2 s"),
            (125_000_000, "2 min 5 s"),
            (7_260_000_000, "2 h 1 min"),
        ] {
            assert_eq!(micros(us), text);
        }
    }

    #[test]
    fn ages_grow_and_a_clock_that_runs_ahead_is_no_error() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (secs, text) in [
            (999_999, "just now"),
            (1_000_500, "just now"),
            (999_980, "20 s ago"),
            (999_000, "16 min ago"),
            (990_000, "2 h ago"),
            (100_000, "10 d ago"),
        ] {
            assert_eq!(ago(secs * 1000, now), text);
        }
        assert_eq!(ago(0, now), "never");
    }

    #[test]
    fn moments_are_in_universal_time() {
        assert_eq!(moment(1_763_820_192_000), "2025-11-22 14:03:12 UTC");
        assert_eq!(moment(u64::MAX), u64::MAX.to_string());
    }
}

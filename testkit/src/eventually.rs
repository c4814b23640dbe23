//! Waiting for a condition: the only way a test waits.

use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Asks `probe` until it has a value.
///
/// # Panics
/// When it has none within `deadline`; the message names `what` was awaited.
pub fn eventually<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(begin.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// [`eventually`] for a condition without a value.
///
/// # Panics
/// As [`eventually`].
pub fn eventually_true(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    eventually(what, deadline, || condition().then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_again_until_there_is_a_value() {
        let mut asked = 0;
        let value = eventually("three questions", Duration::from_secs(5), || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "not within 20ms: the impossible")]
    fn it_gives_up_at_the_deadline_and_says_what_it_waited_for() {
        eventually_true("the impossible", Duration::from_millis(20), || false);
    }
}

//! A secret in memory: never printed, wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// The value of one variable.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// Takes a value over.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself. Whoever calls this keeps it out of logs, arguments and answers.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for SecretValue {
    fn from(value: Zeroizing<String>) -> Self {
        Self(value)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_hold_the_value() {
        let value = SecretValue::new("correct-horse".to_owned());
        assert!(!format!("{value:?} {:#?}", Some(&value)).contains("horse"));
        assert_eq!(value.expose(), "correct-horse");
    }
}

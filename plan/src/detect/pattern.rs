//! Patterns over source text. They are linear in the text's length whatever it holds.

use regex::Regex;

/// Compiles a pattern of ours; all of them are compiled by a test.
pub(crate) fn pattern(text: &'static str) -> Regex {
    match Regex::new(text) {
        Ok(regex) => regex,
        Err(error) => unreachable!("a pattern of this crate does not compile: {error}"),
    }
}

/// A pattern that is compiled once.
macro_rules! patterns {
    ($($name:ident = $text:literal;)*) => {
        $(static $name: std::sync::LazyLock<regex::Regex> = std::sync::LazyLock::new(|| $crate::detect::pattern::pattern($text));)*

        #[cfg(test)]
        #[test]
        fn every_pattern_compiles() {
            $(assert!($name.captures_len() > 0);)*
        }
    };
}
pub(crate) use patterns;

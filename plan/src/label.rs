//! Names that are valid labels, and how any text becomes one.
//!
//! The rules are those of the names in a release (RFC 1123, starting with a letter): what a plan names can be deployed.

/// Longest app name in bytes.
pub(crate) const MAX_APP_NAME_BYTES: usize = 40;
/// Longest name of a process or a volume in bytes.
pub(crate) const MAX_PROCESS_NAME_BYTES: usize = 20;

/// Whether a name is a label of at most `max_bytes`: lowercase letters, digits and inner hyphens, starting with a letter.
pub(crate) fn is_label(name: &str, max_bytes: usize) -> bool {
    let bytes = name.as_bytes();
    name.len() <= max_bytes
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last() != Some(&b'-')
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// The app name that is nearest to a text, or `None` when nothing of it can be used.
pub(crate) fn app_label(text: &str) -> Option<String> {
    // "@team/shop" is the package shop.
    let text = text.rsplit('/').next().unwrap_or(text);
    let mut label = String::new();
    for character in text.chars().map(|c| c.to_ascii_lowercase()) {
        let usable = character.is_ascii_lowercase() || (character.is_ascii_digit() && !label.is_empty());
        if usable {
            label.push(character);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
        if label.len() == MAX_APP_NAME_BYTES {
            break;
        }
    }
    let label = label.trim_end_matches('-').to_owned();
    (!label.is_empty()).then_some(label)
}

/// Whether a text can be a path prefix of a route.
pub(crate) fn is_prefix(text: &str) -> bool {
    let segment = |s: &str| {
        !s.is_empty() && s != "." && s != ".." && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~@+".contains(&b))
    };
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    text == "/" || (trimmed.len() <= 256 && trimmed.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_a_label_or_nothing() {
        let cases = [
            ("my_app", Some("my-app")),
            ("@team/Shop UI", Some("shop-ui")),
            ("2048-game", Some("game")),
            ("--x--", Some("x")),
            ("日本", None),
            ("", None),
        ];
        for (text, label) in cases {
            assert_eq!(app_label(text).as_deref(), label, "{text}");
        }
    }

    #[test]
    fn a_long_name_is_cut_to_a_label() {
        let label = app_label(&"a-".repeat(60)).unwrap_or_default();
        assert!(is_label(&label, MAX_APP_NAME_BYTES), "{label}");
    }

    #[test]
    fn prefixes_have_no_empty_or_dot_segment() {
        assert!(is_prefix("/") && is_prefix("/api") && is_prefix("/socket.io/"));
        assert!(
            !is_prefix("api") && !is_prefix("/a//b") && !is_prefix("/../x") && !is_prefix("/a b") && !is_prefix("")
        );
    }
}

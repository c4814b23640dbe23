//! The syntax of `.env` files. Values are taken as they stand: a `$` in a password is a `$`.
//!
//! ```text
//! # comment
//! export NAME=value # comment
//! NAME='as it stands, over several lines too'
//! NAME="with \n, \t, \" and \\"
//! ```

/// What is wrong, by line. A value is never repeated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileError {
    /// No `=`, or no name before it.
    #[error("line {0} is not of the form NAME=VALUE")]
    NotAssigned(usize),
    /// A quote is never closed.
    #[error("the quote that begins in line {0} does not end")]
    Open(usize),
    /// There is more behind a closing quote.
    #[error("line {0} goes on after its closing quote")]
    Trailing(usize),
}

/// Names and values; of a name that stands twice, the last.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, FileError> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    while !rest.is_empty() {
        let (taken, variable) = assignment(rest, line)?;
        if let Some((name, value)) = variable {
            variables.retain(|(known, _)| *known != name);
            variables.push((name, value));
        }
        line += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    Ok(variables)
}

/// How much of the text one assignment, comment or empty line takes, and what it assigns.
fn assignment(text: &str, line: usize) -> Result<(usize, Option<(String, String)>), FileError> {
    let end = text.find('\n').map_or(text.len(), |at| at + 1);
    let whole = text[..end].trim();
    if whole.is_empty() || whole.starts_with('#') {
        return Ok((end, None));
    }
    let equals = text[..end].find('=').ok_or(FileError::NotAssigned(line))?;
    let name = text[..equals].trim();
    let name = name.strip_prefix("export").filter(|n| n.starts_with([' ', '\t'])).map_or(name, str::trim_start);
    if !is_name(name) {
        return Err(FileError::NotAssigned(line));
    }
    let after = &text[equals + 1..];
    let start = equals + 1 + (after.len() - after.trim_start_matches([' ', '\t']).len());
    let (taken, value) = match text[start..].chars().next() {
        Some(quote @ ('"' | '\'' | '`')) => quoted(&text[start + 1..], quote, line)?,
        _ => return Ok((end, Some((name.to_owned(), plain(&text[start.min(end)..end]))))),
    };
    let behind = start + 1 + taken;
    let end = text[behind..].find('\n').map_or(text.len(), |at| behind + at + 1);
    let rest = text[behind..end].trim();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err(FileError::Trailing(line));
    }
    Ok((end, Some((name.to_owned(), value))))
}

/// Up to a comment, which begins with a space.
fn plain(text: &str) -> String {
    let comment = text.find(" #").or_else(|| text.find("\t#")).unwrap_or(text.len());
    if text.starts_with('#') { String::new() } else { text[..comment].trim().to_owned() }
}

/// What is between the quotes, and how much of the text it takes with the closing one.
fn quoted(text: &str, quote: char, line: usize) -> Result<(usize, String), FileError> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            c if c == quote => return Ok((at + 1, value)),
            '\\' if quote == '"' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('"' | '\\' | '$'))) => value.push(c),
                Some((_, c)) => value.extend(['\\', c]),
                None => {}
            },
            c => value.push(c),
        }
    }
    Err(FileError::Open(line))
}

/// Letters, digits and `_`, and no digit first.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.bytes().all(plain) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let parsed = parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        let parsed: Vec<(&str, &str)> = parsed.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(parsed, expected, "{text:?}");
    }

    #[test]
    fn lines_comments_and_quotes_are_read_as_everybody_writes_them() {
        check("A=1\nB = two words \n\n# C=3\r\nexport D=4\r\n", &[("A", "1"), ("B", "two words"), ("D", "4")]);
        check("A=1 # one\nB=a#b\nC=\nD=# nothing\n", &[("A", "1"), ("B", "a#b"), ("C", ""), ("D", "")]);
        check("A='a # b'\nB=\"c \\\"d\\\" \\n e\" # f\nC=`g`", &[("A", "a # b"), ("B", "c \"d\" \n e"), ("C", "g")]);
        check("A='one\ntwo'\nB=3", &[("A", "one\ntwo"), ("B", "3")]);
        check("A=1\nA=2", &[("A", "2")]);
        check("\u{feff}A=1", &[("A", "1")]);
        check("A=", &[("A", "")]);
        check("A=b=c==", &[("A", "b=c==")]);
    }

    #[test]
    fn a_dollar_in_a_password_stays_one() {
        check("A=pa$$word${HOME}\nB=\"x$HOME\"\nC='$1'", &[("A", "pa$$word${HOME}"), ("B", "x$HOME"), ("C", "$1")]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_and_no_value_is_repeated() {
        assert_eq!(parse("A=1\nsecret"), Err(FileError::NotAssigned(2)));
        assert_eq!(parse("1A=secret"), Err(FileError::NotAssigned(1)));
        assert_eq!(parse("=secret"), Err(FileError::NotAssigned(1)));
        assert_eq!(parse("A='x\ny'\nB=\"secret\nmore"), Err(FileError::Open(3)));
        assert_eq!(parse("A='x' secret"), Err(FileError::Trailing(1)));
        for text in ["secret", "A='secret", "A='x' secret"] {
            assert!(!parse(text).expect_err("it is wrong").to_string().contains("secret"));
        }
    }
}

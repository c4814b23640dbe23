//! JavaScript and JSON as text, read without running or parsing them.
//!
//! Configuration of builders is code. What is asked of it is literal: a folder's name, the keys of an object. Where it is
//! computed, the answer is "not known" and a default with a reason is taken.

/// The text without comments. Strings stay; a `//` within one does not begin a comment.
pub(crate) fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\'', '`', '/']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes() {
            [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => rest.find("*/").map_or(rest.len(), |end| end + 2),
            [b'/', ..] => kept(&mut out, rest, 1),
            _ => kept(&mut out, rest, string_length(rest)),
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

fn kept(out: &mut String, text: &str, length: usize) -> usize {
    out.push_str(&text[..length]);
    length
}

/// Length of the string that the text begins with, quotes included. One that is not closed ends with its line.
fn string_length(text: &str) -> usize {
    let quote = text.as_bytes()[0];
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'\n' if quote != b'`' => return at,
            _ if byte == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// JSON with comments and trailing commas as plain JSON.
pub(crate) fn strict_json(text: &str) -> String {
    let text = without_comments(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(['"', ',']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = if rest.starts_with('"') { string_length(rest) } else { 1 };
        let trailing = rest.starts_with(',') && rest[1..].trim_start().starts_with(['}', ']']);
        if !trailing {
            out.push_str(&rest[..length]);
        }
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

/// The inside of the braces that the text begins with.
pub(crate) fn braced(text: &str) -> Option<&str> {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes()[at] {
            b'"' | b'\'' | b'`' => {
                at += string_length(&text[at..]);
                continue;
            }
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return text.get(1..at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Keys and values of an object's inside, at its own level. Values are text as it stands.
pub(crate) fn entries(inside: &str) -> Vec<(String, String)> {
    pieces(inside).into_iter().filter_map(entry).collect()
}

/// The parts between the commas of one level.
fn pieces(inside: &str) -> Vec<&str> {
    let (mut pieces, mut from, mut at, mut depth) = (Vec::new(), 0, 0, 0usize);
    while at < inside.len() {
        match inside.as_bytes()[at] {
            b'"' | b'\'' | b'`' => {
                at += string_length(&inside[at..]);
                continue;
            }
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                pieces.push(&inside[from..at]);
                from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    pieces.push(&inside[from..]);
    pieces
}

fn entry(piece: &str) -> Option<(String, String)> {
    let piece = piece.trim();
    let (key, rest) = match piece.as_bytes().first()? {
        b'"' | b'\'' | b'`' => {
            let length = string_length(piece);
            (piece[1..].get(..length.checked_sub(2)?)?, &piece[length..])
        }
        _ => piece.split_at(piece.find(':')?),
    };
    let value = rest.trim_start().strip_prefix(':')?;
    Some((key.trim().to_owned(), value.trim().to_owned()))
}

/// The text of a string literal without anything to be filled in.
pub(crate) fn literal(text: &str) -> Option<&str> {
    let text = text.trim();
    let quote = text.bytes().next().filter(|b| b"\"'`".contains(b))?;
    let inside = text[1..].get(..string_length(text).checked_sub(2)?)?;
    let computed = inside.contains('\\') || (quote == b'`' && inside.contains("${"));
    (!computed).then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_go_and_strings_stay() {
        let text = "a // x\nb /* y */ 'http://z' `//q` \"\\\"//\" / 2";
        assert_eq!(without_comments(text), "a \nb  'http://z' `//q` \"\\\"//\" / 2");
    }

    #[test]
    fn relaxed_json_becomes_strict() {
        assert_eq!(strict_json("{ // c\n \"a,}\": [1, 2,], }"), "{ \n \"a,}\": [1, 2] }");
    }

    #[test]
    fn an_object_gives_its_own_entries_and_not_those_within() {
        let inside = braced("{ '/api': { target: 'x', ws: true }, \"/ws\": `y`, plain: f(1, 2) } rest").unwrap_or("");
        let keys: Vec<String> = entries(inside).into_iter().map(|(k, _)| k).collect();
        assert_eq!(keys, ["/api", "/ws", "plain"]);
    }

    #[test]
    fn only_a_literal_is_a_literal() {
        assert_eq!(literal("'dist'"), Some("dist"));
        assert_eq!(literal("`${x}/y`"), None);
        assert_eq!(literal("dist"), None);
        assert_eq!(literal("'"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s)[\\x00-\\u{ff}\"'`{}\\[\\]():,/\\\\*\n]{0,200}") {
            let _ = without_comments(&text);
            let _ = strict_json(&text);
            let _ = braced(&text);
            let _ = entries(&text);
            let _ = literal(&text);
        }
    }
}

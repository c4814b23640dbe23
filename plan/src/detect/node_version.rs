//! Which Node image a build runs on.
//!
//! What the source asks for is a range; what is chosen is the newest long-term version that it allows, because images are
//! named by their major version and stay patched under that name.

use super::findings::Findings;
use super::folder::Folder;
use super::package_json::Manifest;

/// Versions with long-term support, newest first; the first is what a source without a hint gets.
const LONG_TERM: [u32; 3] = [24, 22, 20];
/// Code names of the long-term versions, as `lts/NAME` in `.nvmrc`.
const CODE_NAMES: [(&str, u32); 5] = [("krypton", 24), ("jod", 22), ("iron", 20), ("hydrogen", 18), ("gallium", 16)];

/// The major version for a package, and why. `wanted` comes from `refloat.toml`.
pub(crate) fn choose(wanted: Option<&str>, package: &Folder<'_>, manifest: &Manifest, findings: &mut Findings) -> u32 {
    let Some((file, range)) = hint(wanted, package, manifest) else {
        findings.decide(
            format!("Node {}", LONG_TERM[0]),
            "nothing asks for another version; it is the current long-term one",
        );
        return LONG_TERM[0];
    };
    let shown: String = range.chars().take(60).collect();
    match pick(&range) {
        Picked::LongTerm(major) | Picked::Newer(major) => {
            findings.decide(format!("Node {major}"), format!("{file} asks for {shown}"));
            major
        }
        Picked::Older(major) => {
            let oldest = LONG_TERM[LONG_TERM.len() - 1];
            findings.decide(
                format!("Node {oldest}"),
                format!("{file} asks for {shown}, which no longer gets security fixes"),
            );
            findings.warn(format!("{file} asks for Node {major}. It gets no security fixes any more, so Node {oldest} is used; `node = \"22\"` under [build] in refloat.toml takes another."));
            oldest
        }
        Picked::Unreadable => {
            findings.decide(
                format!("Node {}", LONG_TERM[0]),
                format!("{file} asks for {shown}, which names no version that is known"),
            );
            LONG_TERM[0]
        }
    }
}

/// Where a version is asked for, and the range.
fn hint(wanted: Option<&str>, package: &Folder<'_>, manifest: &Manifest) -> Option<(String, String)> {
    let line = |folder: &Folder<'_>, name: &str| {
        let text = folder.text(name)?;
        let line = text.lines().map(|l| l.split('#').next().unwrap_or(l).trim()).find(|l| !l.is_empty())?;
        Some((folder.join(name), line.to_owned()))
    };
    let root = package.root();
    None.or_else(|| wanted.map(|w| ("refloat.toml".to_owned(), w.to_owned())))
        .or_else(|| line(package, ".nvmrc"))
        .or_else(|| line(package, ".node-version"))
        .or_else(|| manifest.volta_node.clone().map(|v| ("volta in package.json".to_owned(), v)))
        .or_else(|| manifest.engines_node.clone().map(|v| ("engines in package.json".to_owned(), v)))
        .or_else(|| line(&root, ".nvmrc"))
        .or_else(|| line(&root, ".node-version"))
}

#[derive(Debug, PartialEq)]
enum Picked {
    /// A version with long-term support.
    LongTerm(u32),
    /// Newer than every long-term version that is known.
    Newer(u32),
    /// Only versions that are out of support.
    Older(u32),
    /// No version in it.
    Unreadable,
}

fn pick(range: &str) -> Picked {
    let range = range.trim().to_ascii_lowercase();
    if let Some(name) = range.strip_prefix("lts/") {
        let named = CODE_NAMES.iter().find(|(code, _)| *code == name).map_or(LONG_TERM[0], |(_, major)| *major);
        return if LONG_TERM.contains(&named) { Picked::LongTerm(named) } else { Picked::Older(named) };
    }
    if let Some(major) = LONG_TERM.into_iter().find(|major| allows(&range, *major)) {
        return Picked::LongTerm(major);
    }
    let oldest = LONG_TERM[LONG_TERM.len() - 1];
    if let Some(major) = (LONG_TERM[0] + 1..LONG_TERM[0] + 10).chain([23, 21]).find(|major| allows(&range, *major)) {
        return Picked::Newer(major);
    }
    match (4..oldest).rev().find(|major| allows(&range, *major)) {
        Some(major) => Picked::Older(major),
        None => Picked::Unreadable,
    }
}

/// Whether some version of that major is in the range.
fn allows(range: &str, major: u32) -> bool {
    range.split("||").any(|set| allows_set(set.trim(), major))
}

fn allows_set(set: &str, major: u32) -> bool {
    if let Some((low, high)) = set.split_once(" - ") {
        return compare(">=", low, major) && compare("<=", high, major);
    }
    // "> = 18" and ">= 18" are written too.
    let mut joined = set.to_owned();
    for operator in [">", "<", "=", "^", "~"] {
        while joined.contains(&format!("{operator} ")) {
            joined = joined.replace(&format!("{operator} "), operator);
        }
    }
    let mut comparators = joined.split([' ', ',']).filter(|c| !c.is_empty()).peekable();
    comparators.peek().is_some()
        && comparators.all(|comparator| {
            let at = comparator.find(|c: char| !"<>=^~".contains(c)).unwrap_or(comparator.len());
            let (operator, version) = comparator.split_at(at);
            compare(operator, version, major)
        })
}

fn compare(operator: &str, version: &str, major: u32) -> bool {
    let version = version.trim().trim_start_matches('v');
    let mut parts = version.split(['.', '-', '+']);
    let first = parts.next().unwrap_or_default();
    if matches!(first, "*" | "x" | "latest" | "current" | "node" | "lts") {
        return true;
    }
    let Ok(wanted) = first.parse::<u32>() else { return false };
    let rest_is_zero = parts.all(|part| matches!(part, "0" | "x" | "*"));
    match operator {
        ">=" => major >= wanted,
        // ">18" leaves 18 out, ">18.1" does not.
        ">" => {
            if rest_is_zero && !version.contains('.') {
                major > wanted
            } else {
                major >= wanted
            }
        }
        "<" => {
            if rest_is_zero {
                major < wanted
            } else {
                major <= wanted
            }
        }
        "<=" => major <= wanted,
        _ => major == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_long_term_version_that_a_range_allows_is_picked() {
        let cases = [
            (">=18", Picked::LongTerm(24)),
            ("22", Picked::LongTerm(22)),
            ("v20.11.1", Picked::LongTerm(20)),
            ("^18.0.0 || ^20.0.0", Picked::LongTerm(20)),
            (">=18 <21", Picked::LongTerm(20)),
            (">= 18.0.0 < 23", Picked::LongTerm(22)),
            ("18 - 22", Picked::LongTerm(22)),
            ("^20.19.0 || >=22.12.0", Picked::LongTerm(24)),
            ("22.x", Picked::LongTerm(22)),
            ("*", Picked::LongTerm(24)),
            ("lts/*", Picked::LongTerm(24)),
            ("lts/iron", Picked::LongTerm(20)),
            ("lts/hydrogen", Picked::Older(18)),
            ("18.x", Picked::Older(18)),
            ("<20", Picked::Older(19)),
            (">=25", Picked::Newer(25)),
            ("~21.1", Picked::Newer(21)),
            ("", Picked::Unreadable),
            ("banana", Picked::Unreadable),
            ("99999999999999", Picked::Unreadable),
        ];
        for (range, picked) in cases {
            assert_eq!(pick(range), picked, "{range}");
        }
    }
}

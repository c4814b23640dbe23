//! Which paths stay out of a build's context, in `.dockerignore` syntax.
//!
//! The rules are Docker's: a pattern is anchored at the context's root, `*` and `?` stay within one segment, `**` stands
//! for any number of segments, what lies below a matched folder is matched, `!` takes it back, and the last pattern
//! that matches decides. Where this differs: braces are plain characters here as in Docker, and `**` is special only as
//! a whole segment.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Compiled patterns.
#[derive(Debug, Clone)]
pub struct Ignore {
    set: GlobSet,
    /// For each pattern, whether it takes back.
    keeps: Vec<bool>,
}

impl Ignore {
    /// Compiles patterns. Lines that are empty, comments, or no pattern at all are left out, as Docker leaves them out.
    #[must_use]
    pub fn new(patterns: &[String]) -> Self {
        let mut builder = GlobSetBuilder::new();
        let mut keeps = Vec::new();
        for line in patterns {
            if let Some((keep, pattern)) = parse(line)
                && let Ok(glob) = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build()
            {
                builder.add(glob);
                keeps.push(keep);
            }
        }
        match builder.build() {
            Ok(set) => Self { set, keeps },
            Err(_) => Self { set: GlobSet::empty(), keeps: Vec::new() },
        }
    }

    /// Whether a path of the context stays out.
    #[must_use]
    pub fn excludes(&self, path: &[u8]) -> bool {
        if self.keeps.is_empty() {
            return false;
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
        let last = ends.filter_map(|end| self.last_match(&path[..end])).max();
        last.is_some_and(|index| !self.keeps[index])
    }

    fn last_match(&self, path: &[u8]) -> Option<usize> {
        self.set.matches(Path::new(OsStr::from_bytes(path))).into_iter().max()
    }
}

/// Whether the line takes back, and its pattern.
fn parse(line: &str) -> Option<(bool, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (keep, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
    let segments: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let joined = segments.join("/").replace('{', "\\{").replace('}', "\\}");
    if joined.is_empty() { None } else { Some((keep, joined)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], out: &[&str], stays: &[&str]) {
        let ignore = Ignore::new(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        for path in out {
            assert!(ignore.excludes(path.as_bytes()), "{patterns:?} should keep {path} out");
        }
        for path in stays {
            assert!(!ignore.excludes(path.as_bytes()), "{patterns:?} should let {path} in");
        }
    }

    #[test]
    fn patterns_are_anchored_at_the_root_and_cover_what_lies_below() {
        check(&["node_modules"], &["node_modules", "node_modules/a/b"], &["web/node_modules", "node_modules2"]);
        check(&["/dist/"], &["dist", "dist/a"], &["a/dist"]);
        check(&["*.log"], &["a.log"], &["b/a.log"]);
        check(&["a?c"], &["abc"], &["a/c"]);
    }

    #[test]
    fn two_stars_stand_for_any_number_of_folders() {
        check(&["**/node_modules"], &["node_modules/x", "a/b/node_modules"], &["a/node_module"]);
        check(&["a/**/z"], &["a/z", "a/b/c/z"], &["b/a/z"]);
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        check(&["*.md", "!README.md"], &["A.md"], &["README.md"]);
        check(&["docs", "!docs/keep", "docs/keep/no"], &["docs/a", "docs/keep/no/b"], &["docs/keep/a"]);
        check(&["*", "!src"], &["a", "b/c"], &["src/a"]);
    }

    #[test]
    fn comments_blank_lines_and_nonsense_exclude_nothing() {
        check(&["# a", "", "  ", "!", "/", "[", "{a,b}"], &["{a,b}"], &["a", "b", "# a"]);
    }

    #[test]
    fn names_that_are_not_utf_8_match_too() {
        assert!(Ignore::new(&["caf*".to_owned()]).excludes(b"caf\xe9/x"));
    }
}

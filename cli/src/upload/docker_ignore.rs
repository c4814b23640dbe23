//! `.dockerignore` with Docker's meaning, not Git's: patterns are relative to the root, the last that matches decides,
//! and what lies in an excluded folder can be taken back in.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Docker reads these two whatever the file says.
const ALWAYS_SENT: [&str; 2] = ["Dockerfile", ".dockerignore"];

/// A parsed `.dockerignore`.
#[derive(Debug, Default)]
pub(super) struct DockerIgnore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    takes_back: bool,
    /// The pattern alone, anchored to the root.
    matcher: Gitignore,
}

impl DockerIgnore {
    /// Reads the one in this folder; none ignores nothing. A pattern that is not understood is as if it was not there.
    pub(super) fn read(root: &Path) -> Self {
        let text = std::fs::read(root.join(".dockerignore")).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { patterns: text.lines().filter_map(pattern).collect() }
    }

    /// Whether this path, relative to the root, is left out.
    pub(super) fn excludes(&self, path: &Path) -> bool {
        if ALWAYS_SENT.iter().any(|name| path == Path::new(name)) {
            return false;
        }
        let last = self.patterns.iter().rev().find(|pattern| pattern.matches(path));
        last.is_some_and(|pattern| !pattern.takes_back)
    }

    /// Whether nothing below an excluded folder can be taken back in.
    pub(super) fn prunes(&self) -> bool {
        !self.patterns.iter().any(|pattern| pattern.takes_back)
    }
}

impl Pattern {
    /// A pattern that matches a folder matches all that lies in it.
    fn matches(&self, path: &Path) -> bool {
        self.matcher.matched_path_or_any_parents(path, true).is_ignore()
    }
}

fn pattern(line: &str) -> Option<Pattern> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (takes_back, rest) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    let rest = rest.trim_start_matches("./").trim_matches('/');
    if rest.is_empty() || rest == "." {
        return None;
    }
    let mut builder = GitignoreBuilder::new("");
    builder.add_line(None, &format!("/{rest}")).ok()?;
    Some(Pattern { takes_back, matcher: builder.build().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, cases: &[(&str, bool)]) {
        let ignore = DockerIgnore::parse(text);
        for (path, excluded) in cases {
            assert_eq!(ignore.excludes(Path::new(path)), *excluded, "{path} under {text:?}");
        }
    }

    #[test]
    fn patterns_are_relative_to_the_root() {
        check("dist\n", &[("dist", true), ("dist/a.js", true), ("src/dist", false), ("distant", false)]);
        check("/dist/\n", &[("dist", true), ("dist/a.js", true), ("src/dist", false)]);
        check("**/dist\n", &[("dist", true), ("src/dist/a.js", true)]);
        check("*.md\n", &[("README.md", true), ("docs/README.md", false)]);
        check("*/temp*\n", &[("a/temporary.txt", true), ("temp", false), ("a/b/temp", false)]);
    }

    #[test]
    fn the_last_pattern_that_matches_decides_even_inside_an_excluded_folder() {
        check(
            "*\n!src\n!package.json\nsrc/secret\n",
            &[("src/a.js", false), ("package.json", false), ("README", true), ("src/secret/key", true)],
        );
        check("!src\nsrc\n", &[("src/a.js", true)]);
    }

    #[test]
    fn comments_and_empty_lines_say_nothing_and_the_dockerfile_is_always_sent() {
        check("# dist\n\n  \n.\n/\n", &[("dist", false), ("# dist", false)]);
        check("*\n", &[("Dockerfile", false), (".dockerignore", false), ("a/Dockerfile", true)]);
    }
}

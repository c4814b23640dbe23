//! Names that never travel: what is made again, belongs to one machine, or holds the history of the source.
//!
//! The CLI leaves them out of an upload, wherever they lie; generated builds leave them out of their context once more,
//! because an upload may come from another client.

/// Names of files and folders that are never sent and never used, at any depth.
pub const NEVER_SENT: &[&str] = &[
    ".DS_Store",
    ".angular",
    ".cache",
    ".expo",
    ".git",
    ".gradle",
    ".hg",
    ".jj",
    ".mypy_cache",
    ".netlify",
    ".next",
    ".nuxt",
    ".nx",
    ".parcel-cache",
    ".pytest_cache",
    ".ruff_cache",
    ".svelte-kit",
    ".svn",
    ".terraform",
    ".tox",
    ".turbo",
    ".venv",
    ".vercel",
    ".vinxi",
    ".wrangler",
    "__pycache__",
    "bower_components",
    "node_modules",
    "venv",
];

/// Whether a name (one segment of a path) is never sent.
#[must_use]
pub fn is_never_sent(name: &[u8]) -> bool {
    NEVER_SENT.binary_search_by(|known| known.as_bytes().cmp(name)).is_ok()
}

/// Whether any segment of a path is never sent.
#[must_use]
pub fn has_never_sent_part(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').any(is_never_sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_sorted_so_that_they_can_be_searched() {
        assert!(NEVER_SENT.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_name_counts_at_any_depth_and_only_as_a_whole() {
        assert!(has_never_sent_part(b"web/node_modules/react/index.js"));
        assert!(!has_never_sent_part(b"src/node_modules.ts"));
    }
}

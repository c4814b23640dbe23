//! The program text of a folder, read once and within bounds, for questions such as "which variables does it read?".

use super::folder::Folder;
use crate::never_sent::has_never_sent_part;

/// Most files that are read.
const MAX_FILES: usize = 3_000;
/// Largest file that is read, in bytes; larger ones are generated.
const MAX_FILE_BYTES: u64 = 512 << 10;
/// Most bytes that are read in all.
const MAX_TOTAL_BYTES: u64 = 24 << 20;
/// Endings of program text.
const ENDINGS: [&str; 13] =
    [".astro", ".cjs", ".cts", ".html", ".js", ".jsx", ".mjs", ".mts", ".svelte", ".ts", ".tsx", ".vue", ".mdx"];
/// Folders whose text is not what is built.
const NOT_SOURCE: [&str; 12] = [
    "dist",
    "build",
    "out",
    "coverage",
    "docs",
    "supabase",
    "test",
    "tests",
    "__tests__",
    "e2e",
    "functions",
    "storybook-static",
];

/// Files with their text.
#[derive(Debug, Default)]
pub(crate) struct SourceText {
    /// Relative path and text, sorted by path.
    pub(crate) files: Vec<(String, String)>,
    /// Whether a bound was met, so that something may have been missed.
    pub(crate) cut: bool,
}

impl SourceText {
    /// Reads a folder, without the folders named in `leave_out` directly in it.
    pub(crate) fn of(folder: &Folder<'_>, leave_out: &[&str]) -> Self {
        let mut text = Self::default();
        let mut bytes = 0;
        for (path, size) in folder.files() {
            let Ok(path) = std::str::from_utf8(path) else { continue };
            if !is_source(path) || leave_out.iter().any(|name| is_below(path, name)) || size > MAX_FILE_BYTES {
                continue;
            }
            bytes += size;
            if text.files.len() == MAX_FILES || bytes > MAX_TOTAL_BYTES {
                text.cut = true;
                break;
            }
            if let Some(content) = folder.text(path) {
                text.files.push((path.to_owned(), content));
            }
        }
        text
    }

    /// Paths of the files that hold any of these words.
    pub(crate) fn with_any(&self, words: &[&str]) -> Vec<&str> {
        let holds = |text: &str| words.iter().any(|word| text.contains(word));
        self.files.iter().filter(|(_, text)| holds(text)).map(|(path, _)| path.as_str()).collect()
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn is_source(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let test = [".test.", ".spec.", ".d.ts", ".stories.", ".min."].iter().any(|part| name.contains(part));
    ENDINGS.iter().any(|ending| name.ends_with(ending))
        && !test
        && !has_never_sent_part(path.as_bytes())
        && !NOT_SOURCE.contains(&folders.split('/').next().unwrap_or_default())
        && !folders.split('/').any(|f| f == "__tests__")
}

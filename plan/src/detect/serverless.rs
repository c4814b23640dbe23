//! Functions for a host that is left behind: which will not run here, and what calls them.

use super::Detection;
use super::findings::listed;
use super::folder::Folder;
use super::pattern::patterns;
use super::source_text::SourceText;

patterns! {
    HANDLER = r#"\bexport\s+default\b|\bexport\s+(?:async\s+)?function\s+(?:GET|POST|PUT|PATCH|DELETE|handler)\b|\bexport\s+const\s+(?:GET|POST|PUT|PATCH|DELETE|handler|config)\b|\bmodule\.exports\s*=|\bexports\.handler\b"#;
}

/// Notes the functions that a source brings along.
pub(crate) fn note(detection: &mut Detection<'_>, folder: &Folder<'_>) {
    let text = SourceText::of(folder, &["api", "netlify", "base44"]);
    note_supabase(detection, folder, &text);
    note_base44(detection, folder, &text);
    note_netlify(detection, folder, &text);
    note_vercel(detection, folder, &text);
}

fn note_supabase(detection: &mut Detection<'_>, folder: &Folder<'_>, text: &SourceText) {
    let names = entries(&folder.inner("supabase/functions"));
    if !names.is_empty() {
        let callers = callers(text, &["functions.invoke(", "/functions/v1/"]);
        detection.findings.note(format!(
            "{} ({}) will not run here; {}. What runs in the Supabase project that the app uses goes on running there.",
            count(names.len(), "Supabase function"),
            listed(&names, 4),
            callers
        ));
    }
}

fn note_base44(detection: &mut Detection<'_>, folder: &Folder<'_>, text: &SourceText) {
    let names = entries(&folder.inner("base44/functions"));
    if !names.is_empty() {
        let callers = callers(text, &["functions.invoke(", ".functions.", "/functions/"]);
        detection.findings.note(format!(
            "{} ({}) will not run here; {}. What runs at Base44 goes on running as long as the app exists there.",
            count(names.len(), "Base44 function"),
            listed(&names, 4),
            callers
        ));
    }
}

fn note_netlify(detection: &mut Detection<'_>, folder: &Folder<'_>, text: &SourceText) {
    let names = entries(&folder.inner("netlify/functions"));
    if !names.is_empty() {
        let callers = callers(text, &["/.netlify/functions/"]);
        detection.findings.warn(format!(
            "{} ({}) will not run here; {}.",
            count(names.len(), "Netlify function"),
            listed(&names, 4),
            callers
        ));
    }
}

/// Vercel runs every file below `api/`; a folder with a package.json of its own or a file that listens is a server.
fn note_vercel(detection: &mut Detection<'_>, folder: &Folder<'_>, text: &SourceText) {
    let api = folder.inner("api");
    if api.has("package.json") {
        return;
    }
    let found = SourceText::of(&api, &[]);
    let listens = found.files.iter().any(|(_, text)| text.contains(".listen("));
    let names: Vec<String> = found
        .files
        .iter()
        .filter(|(path, text)| !path.split('/').any(|p| p.starts_with('_')) && HANDLER.is_match(text))
        .map(|(path, _)| format!("/api/{}", path.rsplit_once('.').map_or(path.as_str(), |(stem, _)| stem)))
        .collect();
    if !listens && !names.is_empty() {
        let callers = callers(text, &["\"/api/", "'/api/", "`/api/"]);
        detection.findings.warn(format!(
            "{} ({}) for Vercel will not run here; {}.",
            count(names.len(), "function"),
            listed(&names, 4),
            callers
        ));
    }
}

/// Names of the functions of a folder: one folder or one file each.
fn entries(folder: &Folder<'_>) -> Vec<String> {
    let mut names = folder.folders();
    let files = folder.file_names();
    let code = files
        .iter()
        .filter_map(|n| n.strip_suffix(".ts").or_else(|| n.strip_suffix(".js")).or_else(|| n.strip_suffix(".mts")));
    names.extend(code.map(str::to_owned));
    names.retain(|name| !name.starts_with(['_', '.']));
    names.sort();
    names.dedup();
    names
}

fn callers(text: &SourceText, words: &[&str]) -> String {
    let files = text.with_any(words);
    match files.len() {
        0 => "nothing in the source was seen to call this".to_owned(),
        _ => format!("called by {}", listed(&files, 2)),
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

//! What a Vite configuration says literally: folders, base, proxies. It is never run.

use super::folder::{Folder, normal};
use super::js_text::{braced, entries, literal, without_comments};
use super::pattern::patterns;

patterns! {
    OUT_DIR = r#"\boutDir\s*:\s*"#;
    ROOT = r#"(?m)^\s*(?:return\s*\{\s*)?root\s*:\s*|[{,]\s*root\s*:\s*"#;
    BASE = r#"\bbase\s*:\s*"#;
    ASSETS_DIR = r#"\bassetsDir\s*:\s*"#;
    PROXY = r#"\bproxy\s*:\s*\{"#;
    TARGET = r#"\btarget\s*:\s*["'`]([^"'`$]+)["'`]"#;
    REWRITE = r#"\brewrite\b"#;
    JOINED = r#"^(?:path\.)?(?:resolve|join)\(\s*(?:import\.meta\.dirname|__dirname|process\.cwd\(\)|dirname)\s*,([^()]*)\)"#;
}

/// Names of the configuration, as Vite looks for it.
const FILES: [&str; 6] =
    ["vite.config.ts", "vite.config.js", "vite.config.mts", "vite.config.mjs", "vite.config.cts", "vite.config.cjs"];

/// What a configuration says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ViteConfig {
    /// Its file's name.
    pub(crate) file: Option<&'static str>,
    /// Its text without comments.
    pub(crate) text: String,
    /// Where the pages lie, from the package's folder; empty for there.
    pub(crate) root: String,
    /// Where the output goes, from the package's folder, when it is said literally.
    pub(crate) out_dir: Option<String>,
    /// Whether an output folder is named that cannot be read literally.
    pub(crate) out_dir_computed: bool,
    /// Prefix of every address in the output, when it is said literally.
    pub(crate) base: Option<String>,
    /// Folder of hashed files in the output.
    pub(crate) assets_dir: String,
    /// What the development server forwards.
    pub(crate) proxies: Vec<Proxy>,
}

/// One path that the development server forwards.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proxy {
    /// The path prefix.
    pub(crate) prefix: String,
    /// Where to.
    pub(crate) target: Option<String>,
    /// Whether the path is changed on the way.
    pub(crate) rewritten: bool,
}

impl Proxy {
    /// Whether it goes to this computer: to a process of the app.
    pub(crate) fn is_local(&self) -> bool {
        let local = |t: &String| ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"].iter().any(|host| t.contains(host));
        self.target.as_ref().is_none_or(local)
    }
}

/// Reads the configuration of a package; all defaults when it has none.
pub(crate) fn read(package: &Folder<'_>) -> ViteConfig {
    let Some(file) = package.first_of(&FILES) else {
        return ViteConfig { assets_dir: "assets".to_owned(), ..ViteConfig::default() };
    };
    let text = without_comments(&package.text(file).unwrap_or_default());
    let root = value_after(&ROOT, &text).and_then(folder_literal).unwrap_or_default();
    let out_dir_at = value_after(&OUT_DIR, &text);
    let out_dir = out_dir_at.and_then(|value| match anchored(value) {
        Some(path) => Some(path),
        // Without an anchor it is relative to the root of the pages.
        None => literal(value).and_then(|path| within(&root, path)),
    });
    ViteConfig {
        file: Some(file),
        out_dir_computed: out_dir_at.is_some() && out_dir.is_none(),
        out_dir,
        base: value_after(&BASE, &text).and_then(literal).map(str::to_owned),
        assets_dir: value_after(&ASSETS_DIR, &text).and_then(literal).map_or_else(|| "assets".to_owned(), normal),
        proxies: proxies(&text),
        root,
        text,
    }
}

fn value_after<'t>(pattern: &regex::Regex, text: &'t str) -> Option<&'t str> {
    pattern.find(text).map(|found| &text[found.end()..])
}

fn folder_literal(value: &str) -> Option<String> {
    anchored(value).or_else(|| literal(value).and_then(|path| within("", path)))
}

/// `path.resolve(__dirname, "dist", "public")` and its relatives.
fn anchored(value: &str) -> Option<String> {
    let parts = JOINED.captures(value)?;
    let parts: Option<Vec<&str>> = parts[1].split(',').map(str::trim).filter(|p| !p.is_empty()).map(literal).collect();
    within("", &parts?.join("/"))
}

/// A path from a folder, with `..` resolved; `None` when it leaves the package or is absolute.
fn within(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains(|c: char| c.is_control() || c == '\\') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn proxies(text: &str) -> Vec<Proxy> {
    let Some(found) = PROXY.find(text) else { return Vec::new() };
    let inside = braced(&text[found.end() - 1..]).unwrap_or_default();
    entries(inside).into_iter().filter(|(prefix, _)| prefix.starts_with('/')).map(proxy).collect()
}

fn proxy((prefix, value): (String, String)) -> Proxy {
    let target = TARGET.captures(&value).map(|c| c[1].to_owned()).or_else(|| literal(&value).map(str::to_owned));
    Proxy { prefix: prefix.trim_end_matches('/').to_owned(), rewritten: REWRITE.is_match(&value), target }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemorySource;

    fn config(text: &str) -> ViteConfig {
        let source = MemorySource::new([("vite.config.ts", text)]);
        read(&Folder::at(&source, ""))
    }

    #[test]
    fn folders_are_read_where_they_are_literal() {
        let of = |text: &str| config(text).out_dir;
        assert_eq!(of("export default { build: { outDir: 'build/' } }").as_deref(), Some("build"));
        assert_eq!(of("export default { root: 'client', build: { outDir: '../public' } }").as_deref(), Some("public"));
        assert_eq!(of("({ root: path.resolve(import.meta.dirname, 'client'), build: { outDir: path.resolve(import.meta.dirname, 'dist/public') } })").as_deref(), Some("dist/public"));
        assert_eq!(of("({ // outDir: 'x'\n })"), None);
        assert!(config("({ build: { outDir: process.env.OUT } })").out_dir_computed);
        assert!(config("({ build: { outDir: '../../etc' } })").out_dir_computed);
    }

    #[test]
    fn forwarded_paths_are_found_with_their_targets() {
        let text = "export default { server: { proxy: { '/api/': { target: 'http://localhost:3001', rewrite: p => p }, \"/ws\": 'wss://example.org', '^/re': 'x' } } }";
        let proxies = config(text).proxies;
        assert_eq!(proxies.len(), 2);
        assert_eq!(
            proxies[0],
            Proxy { prefix: "/api".into(), target: Some("http://localhost:3001".into()), rewritten: true }
        );
        assert!(proxies[0].is_local() && !proxies[1].is_local());
    }
}

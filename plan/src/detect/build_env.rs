//! Variables that a build reads and publishes, and the values that the source brings along for them.
//!
//! In some exports a committed `.env` is the only source of these values: without it the build is green and the page
//! stays white. Only names with a prefix that publishes them anyway are taken, and none that looks like a secret.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::{Findings, listed};
use super::folder::Folder;
use super::pattern::patterns;
use super::source_text::SourceText;
use crate::settings::is_variable;

patterns! {
    MEMBER = r#"import\.meta\.env(?:\?)?\.([A-Za-z_][A-Za-z0-9_]*)"#;
    INDEXED = r#"import\.meta\.env(?:\?\.)?\[\s*["'`]([A-Za-z_][A-Za-z0-9_]*)["'`]\s*\]"#;
    TAKEN_APART = r#"\{([^{}]{1,2000})\}\s*=\s*import\.meta\.env\b"#;
    IN_HTML = r#"%([A-Z][A-Z0-9_]*)%"#;
    IN_CONFIG = r#"\benv\.([A-Za-z_][A-Za-z0-9_]*)"#;
    COMPUTED = r#"import\.meta\.env\s*(?:\[\s*[^"'`\s]|[;,)])"#;
    PREFIX = r#"envPrefix\s*:\s*(\[[^\]]*\]|["'`][A-Za-z0-9_]+["'`])"#;
    QUOTED = r#"["'`]([A-Za-z0-9_]+)["'`]"#;
}

/// Files that Vite reads in production mode, the later one wins.
const FILES: [&str; 4] = [".env", ".env.local", ".env.production", ".env.production.local"];
/// Most variables of one app.
const MAX_VARIABLES: usize = 500;
/// Longest value in bytes.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// What a build reads.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct BuildEnv {
    /// Names, sorted.
    pub(crate) names: Vec<String>,
    /// Values that the source has, sorted by name.
    pub(crate) defaults: Vec<(String, String)>,
}

/// Finds both for a Vite app. `public` are the values of `refloat.toml`, which win.
pub(crate) fn of_vite(
    package: &Folder<'_>,
    config: &str,
    text: &SourceText,
    public: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> BuildEnv {
    let prefixes = prefixes(config);
    let mut names: BTreeSet<String> = text.files.iter().flat_map(|(path, text)| read_by(path, text)).collect();
    names.extend(IN_CONFIG.captures_iter(config).map(|c| c[1].to_owned()));
    names.retain(|name| prefixes.iter().any(|p| name.starts_with(p.as_str())));
    let committed = committed(package, &prefixes, findings);
    let computed = text.files.iter().any(|(_, text)| text.contains("import.meta.env") && COMPUTED.is_match(text));
    if computed {
        names.extend(committed.keys().cloned());
    }
    names.extend(public.keys().cloned());
    if text.cut {
        findings.warn(
            "The source is too large to be searched in full: a variable that the build reads may have been missed.",
        );
    }
    let names: Vec<String> = names.into_iter().take(MAX_VARIABLES).collect();
    let defaults = names.iter().filter_map(|n| Some((n.clone(), public.get(n).or_else(|| committed.get(n))?.clone())));
    BuildEnv { defaults: defaults.collect(), names }
}

fn prefixes(config: &str) -> Vec<String> {
    let own = PREFIX.captures(config).map(|c| c[1].to_owned()).unwrap_or_default();
    let mut own: Vec<String> = QUOTED.captures_iter(&own).map(|c| c[1].to_owned()).collect();
    if own.is_empty() {
        own.push("VITE_".to_owned());
    }
    own
}

fn read_by(path: &str, text: &str) -> Vec<String> {
    let mut names = Vec::new();
    if path.ends_with(".html") {
        names.extend(IN_HTML.captures_iter(text).map(|c| c[1].to_owned()));
    }
    if text.contains("import.meta.env") {
        names.extend(MEMBER.captures_iter(text).chain(INDEXED.captures_iter(text)).map(|c| c[1].to_owned()));
        for list in TAKEN_APART.captures_iter(text) {
            names.extend(list[1].split(',').map(|n| n.split([':', '=']).next().unwrap_or(n).trim().to_owned()));
        }
    }
    names
}

/// Values of the committed files that are published anyway and look like no secret.
fn committed(package: &Folder<'_>, prefixes: &[String], findings: &mut Findings) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut secret = BTreeSet::new();
    for file in FILES {
        for (name, value) in package.text(file).map(|t| dotenv(&t)).unwrap_or_default() {
            if !prefixes.iter().any(|p| name.starts_with(p.as_str())) {
                continue;
            }
            if looks_secret(&name, &value) {
                secret.insert(name);
            } else {
                values.insert(name, value);
            }
        }
    }
    values.retain(|name, _| !secret.contains(name));
    if !secret.is_empty() {
        let names: Vec<&String> = secret.iter().collect();
        findings.warn(format!(
            "{} in a committed .env {} like a secret, and the build would publish it to every visitor. It is not used: move it to a server, and revoke it where it was issued.",
            listed(&names, 5),
            if names.len() == 1 { "looks" } else { "look" },
        ));
    }
    values
}

/// Names and values of a `.env` file. What refers to another variable is left out.
pub(crate) fn dotenv(text: &str) -> Vec<(String, String)> {
    text.lines().filter_map(assignment).take(MAX_VARIABLES).collect()
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let quote = value.chars().next().filter(|q| "\"'`".contains(*q));
    let value = match quote.and_then(|q| value[1..].split_once(q)) {
        Some((inside, _)) => inside,
        None => value.split(" #").next().unwrap_or(value).trim_end(),
    };
    let refers = quote != Some('\'') && value.contains('$');
    let usable = is_variable(name) && !refers && value.len() <= MAX_VALUE_BYTES && !value.contains(char::is_control);
    usable.then(|| (name.to_owned(), value.to_owned()))
}

/// Whether a variable must never be published. Keys that are public by design, as Supabase's anon key, are none.
pub(crate) fn looks_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let named =
        ["SECRET", "PASSWORD", "PASSWD", "PRIVATE", "SERVICE_ROLE", "SERVICE_KEY", "DATABASE_URL", "CONNECTION_STRING"];
    let valued = [
        "sk_live_",
        "sk_test_",
        "sk-ant-",
        "sk-proj-",
        "sk-",
        "rk_live_",
        "ghp_",
        "github_pat_",
        "AKIA",
        "xoxb-",
        "SG.",
        "-----BEGIN",
        "postgres://",
        "postgresql://",
        "mongodb://",
        "mongodb+srv://",
        "sb_secret_",
        "whsec_",
    ];
    named.iter().any(|part| name.contains(part))
        || valued.iter().any(|part| value.starts_with(part))
        || is_service_role(value)
}

/// A Supabase token whose payload says that it may do everything. Its base64 is searched for the three ways in which
/// the words can stand in it.
fn is_service_role(value: &str) -> bool {
    const WORDS: [&str; 3] = ["c2VydmljZV9yb2xl", "NlcnZpY2Vfcm9sZ", "zZXJ2aWNlX3JvbG"];
    value.starts_with("eyJ") && WORDS.iter().any(|words| value.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotenv_file_is_read_as_its_tools_read_it() {
        let text = "# c\nexport A=1\nB = \"two # 2\" # c\nC='x$y'\nD=plain # c\nE=${A}\n1F=x\nG=\n=x\nH=\"open\n";
        let pairs = dotenv(text);
        let shown: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(shown, ["A=1", "B=two # 2", "C=x$y", "D=plain", "G=", "H=\"open"]);
    }

    #[test]
    fn every_way_to_read_a_variable_is_found() {
        let text = "import.meta.env.VITE_A; import.meta.env['VITE_B']; const { VITE_C, VITE_D: d = 1 } = import.meta.env; import.meta.env?.VITE_E";
        let mut names = read_by("a.ts", text);
        names.sort();
        assert_eq!(names, ["VITE_A", "VITE_B", "VITE_C", "VITE_D", "VITE_E"]);
        assert_eq!(read_by("index.html", "<a href=\"%VITE_F%\">100%</a>"), ["VITE_F"]);
    }

    #[test]
    fn a_service_role_token_is_a_secret_and_an_anon_token_is_none() {
        // {"role":"service_role"} at each of the three offsets that base64 knows, and {"role":"anon"}.
        for payload in [
            "eyJyb2xlIjoic2VydmljZV9yb2xlIn0",
            "eyJhIjoxLCJyb2xlIjoic2VydmljZV9yb2xlIn0",
            "eyJhYiI6MSwicm9sZSI6InNlcnZpY2Vfcm9sZSJ9",
        ] {
            assert!(looks_secret("VITE_KEY", &format!("eyJhbGciOiJIUzI1NiJ9.{payload}.x")), "{payload}");
        }
        assert!(!looks_secret("VITE_SUPABASE_PUBLISHABLE_KEY", "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.x"));
        assert!(
            looks_secret("VITE_STRIPE", "sk_live_x")
                && looks_secret("VITE_DB_PASSWORD", "")
                && !looks_secret("VITE_URL", "https://x")
        );
    }
}

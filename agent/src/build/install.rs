//! What npm says about an install that fails, as a person is told it. Pure.
//!
//! npm prints a page for what is one sentence: which package, and what can be done. The lines are heard as they come,
//! because the code stands at the beginning of that page and only the last lines of a build are kept. What is not
//! recognised stays as npm printed it.

/// Begins the line with which a generated build announces the next command of a chain.
const NEXT_COMMAND: &str = "refloat: that install failed; now trying: ";
/// Most lines of errors that are kept.
const MAX_LINES: usize = 60;
/// Codes of a registry that could not be asked.
const SILENT: [&str; 6] = ["EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENOTFOUND", "ERR_SOCKET_TIMEOUT", "ETIMEDOUT"];

/// What was heard of a build's installs.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The command that was announced last.
    command: Option<String>,
    errors: Vec<String>,
}

/// Why an install failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The registry has no such package.
    NoPackage {
        /// Host of the registry.
        registry: String,
        /// The package's name.
        name: String,
        /// What was asked for, `name@version`.
        wanted: String,
    },
    /// The registry has the package, and no version of it that fits.
    NoVersion {
        /// The package's name.
        name: String,
        /// What was asked for, `name@range`.
        wanted: String,
    },
    /// The registry could not be asked.
    Silent {
        /// npm's code.
        code: String,
    },
}

impl Heard {
    /// Hears a line of a build.
    pub(super) fn take(&mut self, line: &str) {
        if let Some(command) = line.strip_prefix(NEXT_COMMAND) {
            self.command = Some(command.to_owned());
            self.errors.clear();
        } else if let Some(error) = error_of(line).filter(|_| self.errors.len() < MAX_LINES) {
            self.errors.push(error.to_owned());
        }
    }

    /// The command that was tried when the one before it had failed.
    pub(super) fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// What kept npm from installing, when it is one of the troubles that need no page.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let code = self.errors.iter().find_map(|line| line.strip_prefix("code "))?.trim();
        match code {
            "E404" => self.no_package(),
            "ETARGET" => self.no_version(),
            _ if SILENT.contains(&code) => Some(Trouble::Silent { code: code.to_owned() }),
            _ => None,
        }
    }

    /// `404  'left@1.0.0' is not in this registry.`, or with the address of its archive behind the `@`.
    fn no_package(&self) -> Option<Trouble> {
        let said = |line: &String| Some(line.split_once('\'')?.1.split_once("' is not in")?.0.to_owned());
        let (name, version) = parts(&self.errors.iter().find_map(said)?)?;
        let version = match version.rsplit_once('/') {
            // In an archive's name stands the package's own, without its scope.
            Some((_, file)) => {
                let bare = name.rsplit('/').next().unwrap_or(&name);
                let version = file.strip_prefix(bare).and_then(|v| v.strip_prefix('-')?.strip_suffix(".tgz"));
                version.map(str::to_owned)
            }
            None => Some(version),
        };
        let wanted = version.map_or_else(|| name.clone(), |version| format!("{name}@{version}"));
        Some(Trouble::NoPackage { registry: self.registry(), name, wanted })
    }

    /// `notarget No matching version found for left@^9.0.0.`
    fn no_version(&self) -> Option<Trouble> {
        let said = |line: &String| Some(line.split_once("No matching version found for ")?.1.to_owned());
        let wanted = self.errors.iter().find_map(said)?;
        let wanted = wanted.split_whitespace().next().unwrap_or_default().trim_end_matches('.').to_owned();
        let (name, _) = parts(&wanted)?;
        Some(Trouble::NoVersion { name, wanted })
    }

    fn registry(&self) -> String {
        let host = |line: &String| Some(line.split_once("GET ")?.1.split_once("://")?.1.split('/').next()?.to_owned());
        self.errors.iter().find_map(host).unwrap_or_else(|| "the registry".to_owned())
    }
}

/// npm's own words behind its mark, in the form of any of its versions.
fn error_of(line: &str) -> Option<&str> {
    line.strip_prefix("npm error ").or_else(|| line.strip_prefix("npm ERR! "))
}

/// Name and version; an `@` at the beginning belongs to a scope.
fn parts(wanted: &str) -> Option<(String, String)> {
    let at = wanted.get(1..)?.find('@')? + 1;
    let name = &wanted[..at];
    let plain = |c: char| c.is_ascii_alphanumeric() || "@/._-~".contains(c);
    name.chars().all(plain).then(|| (name.to_owned(), wanted[at + 1..].to_owned()))
}

/// Whether a line is noise beside an error.
pub(super) fn is_noise(line: &str) -> bool {
    line.starts_with("npm warn ") || line.starts_with("npm WARN ") || matches!(line, "npm error" | "npm ERR!")
}

impl Trouble {
    /// What to type: what the app asks for is changed in the app, and the message says which command follows.
    pub(super) fn next_command(&self) -> String {
        match self {
            Self::NoPackage { name, .. } => format!("npm uninstall {name}"),
            Self::NoVersion { name, .. } => format!("npm view {name} versions"),
            Self::Silent { .. } => "refloat deploy".to_owned(),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoPackage { registry, wanted, .. } => write!(
                f,
                "{registry} has no {wanted}, which the app's own package.json or lockfile asks for: it was withdrawn, \
                 or is private. Remove it or take another one, then deploy again"
            ),
            Self::NoVersion { wanted, .. } => write!(
                f,
                "no version of a package fits {wanted}, which the app's own package.json or lockfile asks for. \
                 Choose one that exists, then deploy again"
            ),
            Self::Silent { code } => {
                write!(f, "the server could not fetch packages from their registry ({code})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Heard {
        let mut heard = Heard::default();
        lines.iter().for_each(|line| heard.take(line));
        heard
    }

    fn no_package(registry: &str, name: &str, wanted: &str) -> Option<Trouble> {
        let [registry, name, wanted] = [registry, name, wanted].map(str::to_owned);
        Some(Trouble::NoPackage { registry, name, wanted })
    }

    #[test]
    fn a_package_that_is_not_in_the_registry_is_named_with_its_version() {
        for (get, said, expected) in [
            (
                "https://registry.npmjs.org/left/-/left-4.2.0.tgz",
                "left@https://registry.npmjs.org/left/-/left-4.2.0.tgz",
                no_package("registry.npmjs.org", "left", "left@4.2.0"),
            ),
            (
                "https://npm.example.com/@acme%2fui - Not found",
                "@acme/ui@^1.0.0",
                no_package("npm.example.com", "@acme/ui", "@acme/ui@^1.0.0"),
            ),
            (
                "https://npm.example.com/@acme/ui/-/ui-1.0.0-rc.1.tgz",
                "@acme/ui@https://npm.example.com/@acme/ui/-/ui-1.0.0-rc.1.tgz",
                no_package("npm.example.com", "@acme/ui", "@acme/ui@1.0.0-rc.1"),
            ),
            ("https://npm.example.com/x", "$(reboot)@1", None),
        ] {
            for mark in ["npm error", "npm ERR!"] {
                let get = format!("{mark} 404 Not Found - GET {get}");
                let said = format!("{mark} 404  '{said}' is not in this registry.");
                let trouble = heard(&["npm warn old", &format!("{mark} code E404"), &get, mark, &said]).trouble();
                assert_eq!(trouble, expected, "{said}");
            }
        }
    }

    #[test]
    fn a_version_that_nobody_published_and_a_silent_registry_are_told_apart() {
        let target =
            heard(&["npm error code ETARGET", "npm error notarget No matching version found for left@^9.0.0."]);
        let expected = Trouble::NoVersion { name: "left".to_owned(), wanted: "left@^9.0.0".to_owned() };
        assert_eq!(target.trouble(), Some(expected));
        let silent = heard(&["npm error code EAI_AGAIN", "npm error request to https://registry.npmjs.org/x failed"]);
        assert_eq!(silent.trouble(), Some(Trouble::Silent { code: "EAI_AGAIN".to_owned() }));
        assert_eq!(heard(&["npm error code 1", "npm error path /app"]).trouble(), None);
        assert_eq!(heard(&["error code E404"]).trouble(), None);
    }

    #[test]
    fn what_the_next_command_says_counts_and_not_what_the_one_before_it_said() {
        let first = ["npm error code EUSAGE", "refloat: that install failed; now trying: npm install"];
        let both = heard(&first);
        assert_eq!((both.command(), both.trouble()), (Some("npm install"), None));
        let second = heard(&[first[0], first[1], "npm error code ETIMEDOUT"]);
        assert_eq!(second.trouble(), Some(Trouble::Silent { code: "ETIMEDOUT".to_owned() }));
    }
}

//! Which files belong to a source.
//!
//! `.gitignore` (also outside a repository, up to its root inside one), `.dockerignore` and `.refloatignore` leave things
//! out; so do names that no build wants ([`Rules::never`]). Hidden files belong to it. The user's global rules of Git do
//! not count: the same source is the same on every laptop. What was committed in spite of `.gitignore` belongs to it, as
//! it does for Git: some exports carry the values of their build in such a `.env`. A folder in which nothing is left is
//! left out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ignore::{DirEntry, WalkBuilder};

use super::docker_ignore::DockerIgnore;
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::git;
use crate::unix;
use refloat_plan::tree::{MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, MAX_TREE_BYTES};

/// Our own file of what is left out, in the syntax of `.gitignore`.
const OWN_IGNORE: &str = ".refloatignore";

/// What is left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Names of files and folders that are never sent, wherever they are.
    pub(crate) never: &'static [&'static str],
    /// Whether `.gitignore` and `.dockerignore` count. They do not for what was built: it is ignored as a rule.
    pub(crate) ignore_files: bool,
}

/// A source's files, in a tree, with nothing read yet.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// The folder itself.
    pub(crate) root: PathBuf,
    /// What is in it.
    pub(crate) top: Folder,
    /// Every file, in no order that matters.
    pub(crate) files: Vec<FoundFile>,
    /// Their size together.
    pub(crate) bytes: u64,
}

/// One folder.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    /// By name, as bytes.
    pub(crate) items: BTreeMap<Vec<u8>, Item>,
}

/// What is in a folder.
#[derive(Debug)]
pub(crate) enum Item {
    /// Place of a file in [`Walked::files`].
    File(usize),
    /// A folder.
    Folder(Folder),
    /// A link and its target.
    Link(Vec<u8>),
}

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct FoundFile {
    /// Where it lies, relative to the root.
    pub(crate) path: PathBuf,
    /// Its size when it was found.
    pub(crate) size: u64,
    /// Whether its owner may execute it.
    pub(crate) executable: bool,
}

/// Finds the files of a source.
///
/// # Errors
/// When a folder cannot be read, a file is none (a socket, a device), or there is too much.
pub(crate) fn walk(root: &Path, rules: Rules) -> Result<Walked, Failure> {
    if !root.is_dir() {
        return Err(refused(format!("{} is not a folder.", root.display())));
    }
    let mut walked = Walked { root: root.to_owned(), ..Walked::default() };
    take_all(&mut walked, &walker(root, rules), rules, |_| true)?;
    let tracked = match rules.ignore_files && in_repository(root) {
        true => git::tracked_though_ignored(root),
        false => BTreeSet::new(),
    };
    if !tracked.is_empty() {
        let known: BTreeSet<PathBuf> = walked.files.iter().map(|file| file.path.clone()).collect();
        let is_new = |path: &Path| tracked.contains(path) && !known.contains(path);
        take_all(&mut walked, &tracked_walker(root, rules, &tracked), rules, is_new)?;
    }
    Ok(walked)
}

/// Adds what a walker comes upon, as far as it is wanted.
fn take_all(
    walked: &mut Walked,
    walker: &WalkBuilder,
    rules: Rules,
    wanted: impl Fn(&Path) -> bool,
) -> Result<(), Failure> {
    let root = walked.root.clone();
    let docker = if rules.ignore_files { DockerIgnore::read(&root) } else { DockerIgnore::default() };
    for entry in walker.build() {
        let entry = entry.map_err(|e| refused(format!("The source cannot be read: {}", chain(&e))))?;
        let Ok(path) = entry.path().strip_prefix(&root) else { continue };
        let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
        if path.as_os_str().is_empty() || is_folder || docker.excludes(path) || !wanted(path) {
            continue;
        }
        let path = path.to_owned();
        add(walked, &entry, path)?;
    }
    Ok(())
}

/// The same without the rules of Git, on the way to these files alone.
fn tracked_walker(root: &Path, rules: Rules, tracked: &BTreeSet<PathBuf>) -> WalkBuilder {
    let on_the_way: BTreeSet<PathBuf> =
        tracked.iter().flat_map(|path| path.ancestors()).map(|path| root.join(path)).collect();
    let mut builder = walker(root, rules);
    builder.git_ignore(false).filter_entry(move |entry| {
        on_the_way.contains(entry.path()) && (entry.depth() == 0 || !is_never(entry, rules.never))
    });
    builder
}

fn walker(root: &Path, rules: Rules) -> WalkBuilder {
    let mut builder = WalkBuilder::new(root);
    builder
        .standard_filters(false)
        .git_ignore(rules.ignore_files)
        .require_git(false)
        .parents(rules.ignore_files && in_repository(root))
        .add_custom_ignore_filename(OWN_IGNORE)
        .follow_links(false);
    let docker = if rules.ignore_files { DockerIgnore::read(root) } else { DockerIgnore::default() };
    let own_root = root.to_owned();
    builder.filter_entry(move |entry| {
        let excluded = |path: &Path| docker.prunes() && docker.excludes(path);
        entry.depth() == 0 || !is_never(entry, rules.never) && !entry.path().strip_prefix(&own_root).is_ok_and(excluded)
    });
    builder
}

fn is_never(entry: &DirEntry, never: &[&str]) -> bool {
    never.iter().any(|name| entry.file_name() == *name)
}

/// Rules above the folder count only up to the root of the repository that it lies in.
fn in_repository(root: &Path) -> bool {
    let absolute = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    absolute.ancestors().any(|folder| folder.join(".git").exists())
}

fn add(walked: &mut Walked, entry: &DirEntry, path: PathBuf) -> Result<(), Failure> {
    let shown = || path.display().to_string();
    let metadata = entry.path().symlink_metadata();
    let metadata = metadata.map_err(|e| refused(format!("{} cannot be read: {e}", shown())))?;
    let item = if metadata.is_symlink() {
        let target = std::fs::read_link(entry.path());
        let target = target.map_err(|e| refused(format!("The link {} cannot be read: {e}", shown())))?;
        Item::Link(unix::link_bytes(&target))
    } else if metadata.is_file() {
        let file = FoundFile { path: path.clone(), size: metadata.len(), executable: unix::is_executable(&metadata) };
        take(walked, &file)?;
        walked.files.push(file);
        Item::File(walked.files.len() - 1)
    } else {
        let kind = unix::special(&metadata).name();
        return Err(refused(format!("{} is {kind}. Only files, folders and links can be sent.", shown()))
            .next(format!("echo '{}' >> {OWN_IGNORE}", shown())));
    };
    place(&mut walked.top, &path, item)
}

/// Counts a file against the limits.
fn take(walked: &mut Walked, file: &FoundFile) -> Result<(), Failure> {
    walked.bytes = walked.bytes.saturating_add(file.size);
    let over = |what: String| Err(refused(what).next(format!("put what is not needed into {OWN_IGNORE}")));
    if file.size > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES >> 20;
        return over(format!("{} is larger than {limit} MiB.", file.path.display()));
    }
    if walked.files.len() >= MAX_FILES {
        return over(format!("The source has more than {MAX_FILES} files."));
    }
    if walked.bytes > MAX_TREE_BYTES {
        return over(format!("The source is larger than {} GiB.", MAX_TREE_BYTES >> 30));
    }
    Ok(())
}

fn place(top: &mut Folder, path: &Path, item: Item) -> Result<(), Failure> {
    let mut names: Vec<OsString> = path.iter().map(OsString::from).collect();
    let Some(last) = names.pop() else { return Ok(()) };
    if names.len() > MAX_DEPTH {
        return Err(refused(format!("{} lies in more than {MAX_DEPTH} folders.", path.display())));
    }
    let mut folder = top;
    for name in names {
        let inner = folder.items.entry(unix::name_bytes(&name)).or_insert_with(|| Item::Folder(Folder::default()));
        match inner {
            Item::Folder(inner) => folder = inner,
            _ => return Err(refused(format!("{} changed while it was read.", path.display()))),
        }
    }
    folder.items.insert(unix::name_bytes(&last), item);
    Ok(())
}

fn refused(what: String) -> Failure {
    Failure::new(Exit::Configuration, what).reason("SOURCE")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { never: &[".git", "node_modules"], ignore_files: true };

    struct Project(tempfile::TempDir);

    impl Project {
        fn new(files: &[(&str, &str)]) -> Self {
            let this = Self(tempfile::tempdir().expect("a folder"));
            for (path, text) in files {
                this.write(path, text);
            }
            this
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }

        fn found(&self, rules: Rules) -> Vec<String> {
            let walked = walk(self.0.path(), rules).expect("it can be walked");
            let mut found: Vec<String> = walked.files.iter().map(|f| f.path.display().to_string()).collect();
            found.sort();
            found
        }
    }

    #[test]
    fn hidden_files_are_sent_and_what_is_ignored_or_never_wanted_is_not() {
        let project = Project::new(&[
            (".env", "A=1"),
            (".gitignore", "dist\n*.log\n"),
            (".refloatignore", "notes\n"),
            (".dockerignore", "docs\n"),
            ("dist/a.js", ""),
            ("src/a.js", ""),
            ("src/a.log", ""),
            ("src/node_modules/x/index.js", ""),
            ("notes/a", ""),
            ("docs/a", ""),
            ("src/docs/a", ""),
            ("node_modules/x/index.js", ""),
            (".git/HEAD", ""),
            ("module/.git", "gitdir: elsewhere"),
            ("module/a", ""),
        ]);
        let expected = [".dockerignore", ".env", ".gitignore", ".refloatignore", "module/a", "src/a.js", "src/docs/a"];
        assert_eq!(project.found(RULES), expected);
    }

    #[test]
    fn what_was_built_is_sent_though_it_is_ignored() {
        let project = Project::new(&[
            (".gitignore", "*\n"),
            (".dockerignore", "*\n"),
            ("index.html", ""),
            ("node_modules/x.js", ""),
        ]);
        let rules = Rules { never: &[".git"], ignore_files: false };
        assert_eq!(project.found(rules), [".dockerignore", ".gitignore", "index.html", "node_modules/x.js"]);
    }

    #[test]
    fn rules_above_the_folder_count_inside_a_repository_only() {
        let project = Project::new(&[(".gitignore", "secret\n"), ("app/secret", ""), ("app/a", "")]);
        let found = || {
            let walked = walk(&project.0.path().join("app"), RULES).expect("it can be walked");
            walked.files.len()
        };
        assert_eq!(found(), 2, "no repository");
        project.write(".git/HEAD", "ref: refs/heads/main");
        assert_eq!(found(), 1, "inside a repository");
    }

    #[test]
    fn what_was_committed_though_it_is_ignored_is_sent_and_what_only_lies_beside_it_is_not() {
        let project = Project::new(&[
            (".gitignore", ".env*\ndist\n"),
            (".refloatignore", "*.map\n"),
            (".env", "VITE_A=1"),
            (".env.local", "VITE_A=2"),
            ("dist/a.js", ""),
            ("dist/a.js.map", ""),
            ("dist/b.js", ""),
            ("dist/node_modules/x.js", ""),
        ]);
        let git = |arguments: &[&str]| {
            let output = std::process::Command::new("git").args(arguments).current_dir(project.0.path()).output();
            assert!(output.expect("git is there").status.success(), "{arguments:?}");
        };
        git(&["init", "-q"]);
        git(&["add", "--force", ".env", "dist/a.js", "dist/a.js.map", "dist/node_modules"]);
        assert_eq!(project.found(RULES), [".env", ".gitignore", ".refloatignore", "dist/a.js"]);
    }

    #[test]
    fn what_is_in_an_excluded_folder_can_be_taken_back_in() {
        let project = Project::new(&[(".dockerignore", "*\n!src/app\n"), ("src/app/a", ""), ("src/b", ""), ("c", "")]);
        assert_eq!(project.found(RULES), [".dockerignore", "src/app/a"]);
    }

    #[test]
    fn a_folder_in_which_nothing_is_left_is_left_out() {
        let project = Project::new(&[("a", ""), ("empty/.gitignore", "*\n")]);
        std::fs::create_dir(project.0.path().join("bare")).expect("made");
        let walked = walk(project.0.path(), RULES).expect("it can be walked");
        assert_eq!(walked.top.items.keys().collect::<Vec<_>>(), [b"a"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_is_refused_by_its_path_unless_it_is_ignored() {
        let project = Project::new(&[("a", "")]);
        let _listener = std::os::unix::net::UnixListener::bind(project.0.path().join("s.sock")).expect("a socket");
        let failure = walk(project.0.path(), RULES).expect_err("it is refused");
        assert_eq!(failure.exit, Exit::Configuration);
        assert_eq!(failure.what, "s.sock is a socket. Only files, folders and links can be sent.");
        project.write(".refloatignore", "s.sock\n");
        assert_eq!(project.found(RULES), [".refloatignore", "a"]);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_text_survive() {
        use std::os::unix::ffi::OsStrExt as _;
        let project = Project::new(&[]);
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9=[x]*\\ \n");
        std::fs::write(project.0.path().join(name), "").expect("written");
        let walked = walk(project.0.path(), RULES).expect("it can be walked");
        assert_eq!(walked.top.items.keys().collect::<Vec<_>>(), [b"caf\xe9=[x]*\\ \n"]);
    }
}

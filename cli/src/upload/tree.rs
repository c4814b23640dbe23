//! A source by content: its directories' records and digests, made bottom up.

use std::collections::HashMap;
use std::path::PathBuf;

use refloat_plan::tree::{Digest, Directory, Entry, Node, TreeError};

use super::hash::hash_all;
use super::walk::{Folder, FoundFile, Item, Walked};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::unix;

/// A source by content.
#[derive(Debug)]
pub(crate) struct Source {
    /// Where it lies.
    pub(super) folder: PathBuf,
    /// Digest of the root directory.
    pub(crate) root: Digest,
    /// Every directory. Two that are equal are one.
    pub(super) directories: HashMap<Digest, Record>,
    /// One file for each content.
    pub(super) files: HashMap<Digest, FoundFile>,
}

/// One directory.
#[derive(Debug)]
pub(super) struct Record {
    /// Its encoding.
    pub(super) encoded: Vec<u8>,
    /// The directories in it.
    pub(super) directories: Vec<Digest>,
    /// The contents of the files in it.
    pub(super) files: Vec<Digest>,
}

impl Source {
    /// Reads every file and hashes it.
    ///
    /// # Errors
    /// When a file cannot be read or changes meanwhile, or a link leaves the tree.
    pub(crate) fn of(walked: &Walked) -> Result<Self, Failure> {
        let digests = hash_all(walked)?;
        let mut source =
            Self { folder: walked.root.clone(), root: [0; 32], directories: HashMap::new(), files: HashMap::new() };
        source.root = source.add(walked, &digests, &walked.top, &mut Vec::new())?;
        Ok(source)
    }

    /// Adds a folder that lies below these names, and what is in it.
    fn add(
        &mut self,
        walked: &Walked,
        digests: &[Digest],
        folder: &Folder,
        above: &mut Vec<Vec<u8>>,
    ) -> Result<Digest, Failure> {
        let mut record = Record { encoded: Vec::new(), directories: Vec::new(), files: Vec::new() };
        let mut directory = Directory::default();
        for (name, item) in &folder.items {
            let node = match item {
                Item::File(index) => self.file(&walked.files[*index], digests[*index], &mut record),
                Item::Folder(inner) => {
                    above.push(name.clone());
                    let digest = self.add(walked, digests, inner, above)?;
                    above.pop();
                    record.directories.push(digest);
                    Node::Directory { digest }
                }
                Item::Link(target) => Node::Symlink { target: target.clone() },
            };
            directory.entries.push(Entry { name: name.clone(), node });
        }
        directory.check(above.len()).map_err(|error| refused(above, &error))?;
        record.encoded = directory.encode();
        let digest = Directory::digest_of(&record.encoded);
        self.directories.insert(digest, record);
        Ok(digest)
    }

    fn file(&mut self, file: &FoundFile, digest: Digest, record: &mut Record) -> Node {
        record.files.push(digest);
        self.files.entry(digest).or_insert_with(|| file.clone());
        Node::File { digest, size: file.size, executable: file.executable }
    }
}

fn refused(above: &[Vec<u8>], error: &TreeError) -> Failure {
    let folder: PathBuf = above.iter().map(|name| unix::path_of(name)).collect();
    let place = if above.is_empty() { String::new() } else { format!(" (in {})", folder.display()) };
    let failure = Failure::new(Exit::Configuration, sentence(&format!("{error}{place}"))).reason("SOURCE");
    match error {
        TreeError::LinkLeaves { link, .. } => {
            failure.next(format!("echo '{}' >> .refloatignore", folder.join(link).display()))
        }
        _ => failure,
    }
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(characters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::walk::{Rules, walk};
    use super::*;

    fn source(folder: &Path) -> Result<Source, Failure> {
        Source::of(&walk(folder, Rules { never: &[".git"], ignore_files: true })?)
    }

    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        folder
    }

    #[test]
    fn times_do_not_matter_and_contents_names_and_modes_do() {
        let one = project(&[("a/b", "1"), ("c", "2")]);
        let two = project(&[("c", "2"), ("a/b", "1")]);
        let old = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        let file = std::fs::OpenOptions::new().write(true).open(two.path().join("c")).expect("opened");
        file.set_times(old).expect("set");
        let root = |folder: &tempfile::TempDir| source(folder.path()).expect("a source").root;
        assert_eq!(root(&one), root(&two));
        std::fs::write(two.path().join("c"), "3").expect("written");
        assert_ne!(root(&one), root(&two), "content");
        let three = project(&[("a/b", "1"), ("d", "2")]);
        assert_ne!(root(&one), root(&three), "name");
    }

    #[test]
    fn equal_folders_and_equal_files_are_one() {
        let folder = project(&[("a/x", "1"), ("b/x", "1"), ("c", "1")]);
        let source = source(folder.path()).expect("a source");
        assert_eq!((source.directories.len(), source.files.len()), (2, 1));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leaves_the_project_is_refused_and_one_within_is_not() {
        let folder = project(&[("src/a", "1")]);
        let link = |target: &str| std::os::unix::fs::symlink(target, folder.path().join("src/l")).expect("linked");
        link("../src/a");
        assert!(source(folder.path()).is_ok());
        std::fs::remove_file(folder.path().join("src/l")).expect("removed");
        link("../../etc/passwd");
        let failure = source(folder.path()).expect_err("it is refused");
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(failure.what.contains("\"l\"") && failure.what.contains("in src"), "{}", failure.what);
        assert_eq!(failure.next, "echo 'src/l' >> .refloatignore");
    }
}

//! A folder of the source as the planner sees it: what lies in it and the text of its files.

use std::borrow::Cow;

use crate::source::{ListedFile, Source};

/// One folder.
#[derive(Clone)]
pub(crate) struct Folder<'a> {
    source: &'a dyn Source,
    /// Path from the root, without slashes at its ends; empty for the root. UTF-8: a folder that has another name is
    /// never looked into.
    path: String,
}

impl<'a> Folder<'a> {
    /// The folder at a path from the root. Slashes at its ends and a leading `./` are dropped.
    pub(crate) fn at(source: &'a dyn Source, path: &str) -> Self {
        Self { source, path: normal(path) }
    }

    /// The folder of that name within this one.
    pub(crate) fn inner(&self, name: &str) -> Self {
        Self { source: self.source, path: self.join(&normal(name)) }
    }

    /// The whole source's root.
    pub(crate) fn root(&self) -> Self {
        Self { source: self.source, path: String::new() }
    }

    /// Its path from the root of the source.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Its path for people.
    pub(crate) fn shown(&self) -> &str {
        if self.path.is_empty() { "the root folder" } else { &self.path }
    }

    /// Path from the root of the source of something in it.
    pub(crate) fn join(&self, name: &str) -> String {
        match (self.path.is_empty(), name.is_empty()) {
            (true, _) => name.to_owned(),
            (_, true) => self.path.clone(),
            _ => format!("{}/{name}", self.path),
        }
    }

    /// Whether a file of that relative path is in it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.source.listing().file(self.join(name).as_bytes()).is_some()
    }

    /// Whether there is a folder of that relative path with a file below it.
    pub(crate) fn has_folder(&self, name: &str) -> bool {
        !self.source.listing().below(self.join(name).as_bytes()).is_empty()
    }

    /// Whether nothing lies in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.files_listed().is_empty()
    }

    /// The first of these files that is in it.
    pub(crate) fn first_of<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.has(name))
    }

    /// Text of a file; bytes that are not UTF-8 are replaced. `None` when it is not there or too large.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let bytes = self.source.read(self.join(name).as_bytes())?;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }

    /// Relative paths and sizes of every file below it, sorted.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let skip = if self.path.is_empty() { 0 } else { self.path.len() + 1 };
        self.files_listed().iter().map(move |f| (&f.path[skip..], f.size))
    }

    /// Names of the folders directly in it that can be looked into, sorted.
    pub(crate) fn folders(&self) -> Vec<String> {
        let first = |path: &[u8]| {
            let end = path.iter().position(|b| *b == b'/')?;
            std::str::from_utf8(&path[..end]).ok().map(str::to_owned)
        };
        let mut names: Vec<String> = self.files().filter_map(|(path, _)| first(path)).collect();
        names.dedup();
        names
    }

    /// Names of the files directly in it, sorted, bytes that are not UTF-8 replaced.
    pub(crate) fn file_names(&self) -> Vec<Cow<'_, str>> {
        self.files().filter(|(path, _)| !path.contains(&b'/')).map(|(path, _)| String::from_utf8_lossy(path)).collect()
    }

    fn files_listed(&self) -> &[ListedFile] {
        self.source.listing().below(self.path.as_bytes())
    }
}

/// A relative path without `./` in front and without slashes at its ends.
pub(crate) fn normal(path: &str) -> String {
    let mut path = path.trim().trim_matches('/');
    while let Some(rest) = path.strip_prefix("./") {
        path = rest.trim_start_matches('/');
    }
    if path == "." { String::new() } else { path.to_owned() }
}

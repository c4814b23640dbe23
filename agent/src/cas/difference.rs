//! Which files two stored trees do not share, without opening one: directories with the same digest are passed over.

use std::collections::BTreeMap;

use refloat_plan::tree::{Digest, Entry, Node};

use super::sources::{Cas, CasError};

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// Only the second tree has it.
    Added,
    /// Only the first tree has it.
    Removed,
    /// Both have it, and it is not the same.
    Changed,
}

impl Became {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// Its path, bytes.
    pub path: Vec<u8>,
    /// What became of it.
    pub became: Became,
}

impl Cas {
    /// Files that differ from `a` to `b`, sorted by path, at most `limit`, and whether there are more.
    ///
    /// # Errors
    /// When a part of a tree is lost.
    pub fn difference(&self, a: &Digest, b: &Digest, limit: usize) -> Result<(Vec<Differing>, bool), CasError> {
        // One more than wanted tells whether there are more.
        let mut walk = Walk { cas: self, found: Vec::new(), limit: limit.saturating_add(1) };
        walk.directories(Some(a), Some(b), &[], 0)?;
        let more = walk.found.len() > limit;
        walk.found.truncate(limit);
        Ok((walk.found, more))
    }
}

struct Walk<'a> {
    cas: &'a Cas,
    found: Vec<Differing>,
    limit: usize,
}

impl Walk<'_> {
    fn directories(
        &mut self,
        a: Option<&Digest>,
        b: Option<&Digest>,
        path: &[u8],
        depth: usize,
    ) -> Result<(), CasError> {
        if a == b || self.found.len() >= self.limit {
            return Ok(());
        }
        let entries = |digest: Option<&Digest>| -> Result<Vec<Entry>, CasError> {
            digest.map_or(Ok(Vec::new()), |d| Ok(self.cas.directory(d, depth, path)?.entries))
        };
        let mut names: BTreeMap<Vec<u8>, (Option<Node>, Option<Node>)> = BTreeMap::new();
        for entry in entries(a)? {
            names.entry(entry.name).or_default().0 = Some(entry.node);
        }
        for entry in entries(b)? {
            names.entry(entry.name).or_default().1 = Some(entry.node);
        }
        for (name, (before, after)) in names {
            let mut inner = path.to_vec();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(&name);
            self.nodes(before.as_ref(), after.as_ref(), &inner, depth)?;
        }
        Ok(())
    }

    fn nodes(
        &mut self,
        before: Option<&Node>,
        after: Option<&Node>,
        path: &[u8],
        depth: usize,
    ) -> Result<(), CasError> {
        if before == after || self.found.len() >= self.limit {
            return Ok(());
        }
        self.directories(folder(before), folder(after), path, depth + 1)?;
        let became = match (is_leaf(before), is_leaf(after)) {
            (true, true) => Became::Changed,
            (true, false) => Became::Removed,
            (false, true) => Became::Added,
            (false, false) => return Ok(()),
        };
        self.found.push(Differing { path: path.to_vec(), became });
        Ok(())
    }
}

fn folder(node: Option<&Node>) -> Option<&Digest> {
    match node {
        Some(Node::Directory { digest }) => Some(digest),
        _ => None,
    }
}

fn is_leaf(node: Option<&Node>) -> bool {
    matches!(node, Some(Node::File { .. } | Node::Symlink { .. }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use refloat_plan::tree::Directory;

    fn put(cas: &Arc<Cas>, entries: Vec<(&str, Node)>) -> Digest {
        let mut entries: Vec<Entry> =
            entries.into_iter().map(|(name, node)| Entry { name: name.as_bytes().to_vec(), node }).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let encoded = Directory { entries }.encode();
        let digest = Directory::digest_of(&encoded);
        let mut intake = cas.intake();
        intake.directory(&digest, &encoded).unwrap();
        intake.finish().unwrap();
        digest
    }

    fn link(target: &str) -> Node {
        Node::Symlink { target: target.as_bytes().to_vec() }
    }

    #[test]
    fn added_removed_and_changed_files_are_told_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let cas = Arc::new(Cas::open(folder.path()).unwrap());
        let same = put(&cas, vec![("x", link("y"))]);
        let sub_a = put(&cas, vec![("one", link("1")), ("two", link("2"))]);
        let sub_b = put(&cas, vec![("two", link("3"))]);
        let dir = |digest| Node::Directory { digest };
        let a = put(&cas, vec![("same", dir(same)), ("sub", dir(sub_a))]);
        let b = put(&cas, vec![("new", link("z")), ("same", dir(same)), ("sub", dir(sub_b))]);
        let (found, more) = cas.difference(&a, &b, 10).unwrap();
        let found: Vec<_> =
            found.iter().map(|d| (String::from_utf8_lossy(&d.path).into_owned(), d.became.word())).collect();
        let told = |path: &str, word| (path.to_owned(), word);
        assert_eq!(found, [told("new", "added"), told("sub/one", "removed"), told("sub/two", "changed")]);
        assert!(!more);
        assert_eq!(cas.difference(&a, &b, 2).unwrap().0.len(), 2);
        assert!(cas.difference(&a, &b, 2).unwrap().1);
        assert!(cas.difference(&a, &a, 2).unwrap().0.is_empty());
    }
}

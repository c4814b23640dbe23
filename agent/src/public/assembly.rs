//! From paths, files and links to the index of a tree: which are published and under which paths. Pure.

use std::collections::BTreeMap;

use refloat_model::tree::MAX_TREE_FILES;
use refloat_model::{FileTree, TreeFile};

use super::publisher::PublishError;

/// Most bytes of one published tree, copies that stand for links counted as often as they stand.
pub const MAX_PUBLISHED_BYTES: u64 = 4 << 30;
/// Longest path in bytes: longer ones could not be asked for anyway.
pub const MAX_PATH_BYTES: usize = 2_048;
/// Most links that one path may pass through.
const MAX_HOPS: usize = 40;
/// Most notes of one tree.
const MAX_NOTES: usize = 10;

/// Content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its plain BLAKE3.
    pub blob: [u8; 32],
    /// Its size in bytes.
    pub size: u64,
}

#[derive(Debug, Clone)]
enum Node {
    File(Content),
    /// Segments of the target: from the link's folder, or from the root when the target was absolute.
    Link {
        target: Vec<String>,
        from_root: bool,
    },
}

/// A tree that is being put together.
#[derive(Debug, Default)]
pub struct Assembly {
    nodes: BTreeMap<String, Node>,
    notes: Vec<String>,
    unnoted: usize,
}

impl Assembly {
    /// The path under which a name would be published, or `None` when it stays out: hidden, not UTF-8, too long, or not
    /// a path below the root.
    pub fn admit(&mut self, name: &[u8]) -> Option<String> {
        let Ok(text) = std::str::from_utf8(name) else {
            self.note(format!("{:?} is not published: its name is not UTF-8", String::from_utf8_lossy(name)));
            return None;
        };
        let segments: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let hidden = |(at, part): (usize, &&str)| part.starts_with('.') && !(at == 0 && *part == ".well-known");
        if segments.is_empty() || segments.iter().enumerate().any(hidden) {
            return None;
        }
        let path = segments.join("/");
        if path.len() > MAX_PATH_BYTES || path.contains('\0') {
            self.note(format!(
                "{:?}… is not published: its path is too long",
                path.chars().take(60).collect::<String>()
            ));
            return None;
        }
        Some(path)
    }

    /// Adds a file under a path that was admitted. The last one under a path counts, as in an archive.
    ///
    /// # Errors
    /// When there are too many.
    pub fn file(&mut self, path: String, content: Content) -> Result<(), PublishError> {
        self.add(path, Node::File(content))
    }

    /// Adds a link under a path that was admitted.
    ///
    /// # Errors
    /// When there are too many, or it leaves the tree.
    pub fn link(&mut self, path: String, target: &[u8], hard: bool) -> Result<(), PublishError> {
        let Ok(text) = std::str::from_utf8(target) else {
            self.note(format!("{path:?} is not published: the link's target is not UTF-8"));
            return Ok(());
        };
        let from_root = hard || text.starts_with('/');
        let target: Vec<String> = text.split('/').filter(|p| !p.is_empty() && *p != ".").map(str::to_owned).collect();
        self.add(path, Node::Link { target, from_root })
    }

    /// A sentence about something that is not published.
    pub fn note(&mut self, text: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(text);
        } else {
            self.unnoted += 1;
        }
    }

    /// The index, and sentences about what is not in it.
    ///
    /// # Errors
    /// When a link leaves the tree, nothing is left to publish, or a limit is passed.
    pub fn finish(mut self) -> Result<(FileTree, Vec<String>), PublishError> {
        let mut files: BTreeMap<String, Content> = BTreeMap::new();
        let links = self.nodes.iter().filter(|(_, node)| is_link(node)).map(|(path, _)| path.clone());
        let links: Vec<String> = links.collect();
        for (path, node) in &self.nodes {
            if let Node::File(content) = node {
                files.insert(path.clone(), *content);
            }
        }
        for path in links {
            let found = self.follow(&path)?;
            if found.is_empty() {
                self.note(format!("{path:?} is not published: the link points to nothing that is"));
            }
            files.extend(found);
            check(files.len() as u64, "files", MAX_TREE_FILES as u64)?;
        }
        check(files.values().map(|content| content.size).sum(), "bytes", MAX_PUBLISHED_BYTES)?;
        if files.is_empty() {
            return Err(PublishError::Empty);
        }
        if self.unnoted > 0 {
            self.notes.push(format!("{} more files are not published", self.unnoted));
        }
        let file = |(path, content): (String, Content)| TreeFile { path, size: content.size, blob: content.blob };
        Ok((FileTree { files: files.into_iter().map(file).collect() }, self.notes))
    }

    fn add(&mut self, path: String, node: Node) -> Result<(), PublishError> {
        self.nodes.insert(path, node);
        check(self.nodes.len() as u64, "files", MAX_TREE_FILES as u64)
    }

    /// The files that a link stands for, under the paths that they get: one, or all below a folder.
    fn follow(&self, path: &str) -> Result<Vec<(String, Content)>, PublishError> {
        let segments = path.split('/').map(str::to_owned).collect();
        let Some(real) = self.resolve(path, segments)? else { return Ok(Vec::new()) };
        if let Some(Node::File(content)) = self.nodes.get(&real) {
            return Ok(vec![(path.to_owned(), *content)]);
        }
        let prefix = if real.is_empty() { String::new() } else { format!("{real}/") };
        // A link to a folder above itself would stand for itself again: only its files are taken, not links in it.
        let below = self.nodes.range(prefix.clone()..).take_while(|(inner, _)| inner.starts_with(&prefix));
        Ok(below
            .filter_map(|(inner, node)| match node {
                Node::File(content) => Some((format!("{path}/{}", &inner[prefix.len()..]), *content)),
                Node::Link { .. } => None,
            })
            .collect())
    }

    /// The path without links that a path stands for, or `None` when it goes in circles or through a file.
    fn resolve(&self, link: &str, mut todo: Vec<String>) -> Result<Option<String>, PublishError> {
        todo.reverse();
        let mut done: Vec<String> = Vec::new();
        let mut hops = 0;
        while let Some(segment) = todo.pop() {
            if segment == ".." {
                if done.pop().is_none() {
                    return Err(PublishError::LinkLeaves { link: link.to_owned() });
                }
                continue;
            }
            done.push(segment);
            match self.nodes.get(&done.join("/")) {
                Some(Node::Link { target, from_root }) => {
                    hops += 1;
                    if hops > MAX_HOPS {
                        return Ok(None);
                    }
                    done.pop();
                    if *from_root {
                        done.clear();
                    }
                    todo.extend(target.iter().rev().cloned());
                }
                Some(Node::File(_)) if !todo.is_empty() => return Ok(None),
                _ => {}
            }
        }
        Ok(Some(done.join("/")))
    }
}

fn is_link(node: &Node) -> bool {
    matches!(node, Node::Link { .. })
}

fn check(found: u64, what: &'static str, limit: u64) -> Result<(), PublishError> {
    if found > limit { Err(PublishError::OverLimit { what, found, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(n: u8) -> Content {
        Content { blob: [n; 32], size: 1 }
    }

    fn assemble(files: &[(&str, u8)], links: &[(&str, &str)]) -> Result<(FileTree, Vec<String>), PublishError> {
        let mut assembly = Assembly::default();
        for (path, n) in files {
            if let Some(path) = assembly.admit(path.as_bytes()) {
                assembly.file(path, content(*n))?;
            }
        }
        for (path, target) in links {
            if let Some(path) = assembly.admit(path.as_bytes()) {
                assembly.link(path, target.as_bytes(), false)?;
            }
        }
        assembly.finish()
    }

    fn paths(tree: &FileTree) -> Vec<(&str, u8)> {
        tree.files.iter().map(|file| (file.path.as_str(), file.blob[0])).collect()
    }

    #[test]
    fn hidden_files_stay_private_except_below_well_known() {
        let files = [(".env", 1), ("a/.git/config", 2), (".well-known/acme", 3), ("a/.well-known/x", 4), ("./b//c", 5)];
        let (tree, notes) = assemble(&files, &[]).unwrap();
        assert_eq!(paths(&tree), [(".well-known/acme", 3), ("b/c", 5)]);
        assert!(notes.is_empty());
    }

    #[test]
    fn a_link_becomes_a_copy_of_what_it_points_to() {
        let files = [("a/x", 1), ("a/y", 2), ("z", 3)];
        let links = [("l", "z"), ("d/up", "../a/x"), ("all", "a"), ("root", "/a/y"), ("two", "l"), ("via", "all/y")];
        let (tree, _) = assemble(&files, &links).unwrap();
        let expected = [
            ("a/x", 1),
            ("a/y", 2),
            ("all/x", 1),
            ("all/y", 2),
            ("d/up", 1),
            ("l", 3),
            ("root", 2),
            ("two", 3),
            ("via", 2),
            ("z", 3),
        ];
        assert_eq!(paths(&tree), expected);
    }

    #[test]
    fn a_link_that_leaves_the_tree_is_refused_by_name() {
        for target in ["..", "../x", "a/../../x", "../../etc/passwd"] {
            let refused = assemble(&[("a/x", 1)], &[("link", target)]);
            assert_eq!(refused.unwrap_err().to_string(), PublishError::LinkLeaves { link: "link".into() }.to_string());
        }
    }

    #[test]
    fn a_link_to_nothing_in_circles_or_to_a_hidden_file_is_left_out_with_a_note() {
        let files = [("a", 1), (".env", 2)];
        let (tree, notes) =
            assemble(&files, &[("b", "none"), ("c", "d"), ("d", "c"), ("e", ".env"), ("f", "a/x")]).unwrap();
        assert_eq!(paths(&tree), [("a", 1)]);
        assert_eq!(notes.len(), 5, "{notes:?}");
    }

    #[test]
    fn a_link_to_a_folder_above_itself_ends() {
        let (tree, _) = assemble(&[("a/x", 1)], &[("a/loop", ".."), ("a/self", ".")]).unwrap();
        assert_eq!(paths(&tree), [("a/loop/a/x", 1), ("a/self/x", 1), ("a/x", 1)]);
    }

    #[test]
    fn a_tree_without_a_file_is_refused() {
        assert!(matches!(assemble(&[(".env", 1)], &[]), Err(PublishError::Empty)));
    }

    #[test]
    fn names_that_are_not_utf_8_are_left_out_with_a_note_and_notes_are_bounded() {
        let mut assembly = Assembly::default();
        for n in 0..100_u8 {
            assert_eq!(assembly.admit(&[b'a', 0xff, n]), None);
        }
        assembly.file("a".to_owned(), content(1)).unwrap();
        let (_, notes) = assembly.finish().unwrap();
        assert_eq!(notes.len(), MAX_NOTES + 1);
        assert_eq!(notes[MAX_NOTES], "90 more files are not published");
    }
}

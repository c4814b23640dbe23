use std::io::Read;

use refloat_plan::tree::Entry;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cas::context::{ContextSpec, DOCKERFILE, write_context};
use crate::cas::objects::hex;
use crate::cas::{StoredNode, StoredTree};

struct Store {
    root: tempfile::TempDir,
    cas: Arc<Cas>,
}

fn store() -> Store {
    let root = tempfile::tempdir().unwrap();
    let cas = Arc::new(Cas::open(root.path()).unwrap());
    Store { root, cas }
}

impl Store {
    fn file(&self, name: &[u8], bytes: &[u8], executable: bool) -> Entry {
        let digest = *blake3::hash(bytes).as_bytes();
        let mut intake = self.cas.intake();
        let mut writer = intake.file_writer(&digest, bytes.len() as u64).unwrap();
        writer.write(bytes).unwrap();
        intake.file(writer).unwrap();
        intake.finish().unwrap();
        Entry { name: name.to_vec(), node: Node::File { digest, size: bytes.len() as u64, executable } }
    }

    fn put(&self, mut entries: Vec<Entry>) -> Result<Digest, CasError> {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let encoded = Directory { entries }.encode();
        let digest = Directory::digest_of(&encoded);
        let mut intake = self.cas.intake();
        intake.directory(&digest, &encoded)?;
        intake.finish().map(|()| digest)
    }
}

fn folder(name: &[u8], digest: Digest) -> Entry {
    Entry { name: name.to_vec(), node: Node::Directory { digest } }
}

fn link(name: &[u8], target: &[u8]) -> Entry {
    Entry { name: name.to_vec(), node: Node::Symlink { target: target.to_vec() } }
}

fn context(cas: &Cas, tree: &StoredTree, at: &str, ignore: &[&str]) -> Vec<u8> {
    let ignore: Vec<String> = ignore.iter().map(|p| (*p).to_owned()).collect();
    let spec = ContextSpec { tree, folder: at, ignore: &ignore, dockerfile: "FROM scratch\n" };
    let mut out = Vec::new();
    write_context(cas, &spec, &mut out, &CancellationToken::new()).unwrap();
    out
}

/// Path, kind, mode, and content or target of each entry.
fn listed(archive: &[u8]) -> Vec<(Vec<u8>, u8, u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let list = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
        let mut content = entry.link_name_bytes().map_or(Vec::new(), |target| target.into_owned());
        let path = entry.path_bytes().into_owned();
        entry.read_to_end(&mut content).unwrap();
        (path, header.entry_type().as_byte(), header.mode().unwrap(), content)
    };
    archive.entries().unwrap().map(list).collect()
}

#[test]
fn a_context_holds_the_tree_with_modes_and_hostile_names_and_no_times() {
    let store = store();
    let long = vec![b'n'; 200];
    let deep = store.put(vec![store.file(&long, b"deep", false), link(b"up", b"../run.sh")]).unwrap();
    let root = store
        .put(vec![
            store.file(b"run.sh", b"#!/bin/sh", true),
            store.file(b"caf\xe9=[x]", b"bytes", false),
            store.file(DOCKERFILE.as_bytes(), b"not mine", false),
            folder(&long, deep),
        ])
        .unwrap();
    let tree = store.cas.walk(&root).unwrap();
    let archive = context(&store.cas, &tree, "", &[]);
    let inner = |name: &[u8]| [&long[..], b"/", name].concat();
    let expected = [
        (b"caf\xe9=[x]".to_vec(), b'0', 0o644, b"bytes".to_vec()),
        (long.clone(), b'5', 0o755, Vec::new()),
        (inner(&long), b'0', 0o644, b"deep".to_vec()),
        (inner(b"up"), b'2', 0o777, b"../run.sh".to_vec()),
        (b"run.sh".to_vec(), b'0', 0o755, b"#!/bin/sh".to_vec()),
        (DOCKERFILE.as_bytes().to_vec(), b'0', 0o644, b"FROM scratch\n".to_vec()),
    ];
    assert_eq!(listed(&archive), expected);
    assert_eq!(context(&store.cas, &tree, "", &[]), archive, "the same tree makes the same bytes");
}

#[test]
fn a_context_can_be_a_folder_and_leaves_out_what_is_ignored() {
    let store = store();
    let src = store.put(vec![store.file(b"a.js", b"a", false)]).unwrap();
    let web = store.put(vec![store.file(b"b.log", b"b", false), folder(b"src", src)]).unwrap();
    let root = store.put(vec![store.file(b"outside", b"o", false), folder(b"web", web)]).unwrap();
    let tree = store.cas.walk(&root).unwrap();
    let names = |ignore: &[&str]| -> Vec<String> {
        let all = listed(&context(&store.cas, &tree, "web", ignore)).into_iter();
        all.map(|(path, ..)| String::from_utf8(path).unwrap()).collect()
    };
    assert_eq!(names(&[]), ["b.log", "src", "src/a.js", DOCKERFILE]);
    assert_eq!(names(&["*.log", "src"]), [DOCKERFILE]);
    assert_eq!(names(&["*", "!src/a.js"]), ["src/a.js", DOCKERFILE]);
    assert!(matches!(tree.below("none"), Err(CasError::NoFolder(_))));
    assert!(matches!(tree.below("outside"), Err(CasError::NoFolder(_))));
}

#[test]
fn a_damaged_file_never_gets_into_a_context_and_what_reached_it_is_asked_for_again() {
    let store = store();
    let inner = store.put(vec![store.file(b"a", b"good", false)]).unwrap();
    let other = store.put(vec![store.file(b"b", b"fine", false)]).unwrap();
    let root = store.put(vec![folder(b"inner", inner), folder(b"other", other)]).unwrap();
    let tree = store.cas.walk(&root).unwrap();
    let file = *blake3::hash(b"good").as_bytes();
    for damage in [&b"evil"[..], b"go", b"longer than it was"] {
        std::fs::write(store.root.path().join("file").join(hex(&file)), damage).unwrap();
        let spec = ContextSpec { tree: &tree, folder: "", ignore: &[], dockerfile: "" };
        let refused = write_context(&store.cas, &spec, &mut Vec::new(), &CancellationToken::new());
        assert!(matches!(&refused, Err(CasError::Lost { path, .. }) if path == "inner/a"), "{refused:?}");
    }
    assert_eq!(store.cas.forget_dependents(&file).unwrap(), 3);
    let missing = store.cas.missing(&[root, inner, other], &[file]).unwrap();
    assert_eq!(missing, Missing { directories: vec![root, inner], files: vec![file] });
}

#[test]
fn a_small_record_cannot_stand_for_a_huge_tree() {
    let store = store();
    let mut digest = store.put(Vec::new()).unwrap();
    for _ in 0..20 {
        digest = store.put((0..10_u8).map(|n| folder(&[b'a' + n], digest)).collect()).unwrap();
    }
    assert!(matches!(store.cas.walk(&digest), Err(CasError::OverLimit { .. })));
}

#[test]
fn folders_too_deep_and_links_that_leave_at_their_real_depth_are_refused_at_the_walk() {
    let store = store();
    let mut digest = store.put(Vec::new()).unwrap();
    for _ in 0..=refloat_plan::tree::MAX_DEPTH {
        digest = store.put(vec![folder(b"d", digest)]).unwrap();
    }
    assert!(matches!(store.cas.walk(&digest), Err(CasError::Tree(TreeError::OverLimit { .. }))));

    let climbing = store.put(vec![link(b"l", b"../../x")]).unwrap();
    assert!(matches!(store.cas.walk(&climbing), Err(CasError::Tree(TreeError::LinkLeaves { .. }))));
    let inner = store.put(vec![folder(b"b", climbing)]).unwrap();
    let deep = store.put(vec![folder(b"a", inner)]).unwrap();
    let tree = store.cas.walk(&deep).unwrap();
    assert_eq!(tree.entries[2].node, StoredNode::Symlink { target: b"../../x".to_vec() });
}

#[test]
fn a_cancelled_context_stops() {
    let store = store();
    let root = store.put(vec![store.file(b"a", b"a", false)]).unwrap();
    let tree = store.cas.walk(&root).unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let spec = ContextSpec { tree: &tree, folder: "", ignore: &[], dockerfile: "" };
    assert!(matches!(write_context(&store.cas, &spec, &mut Vec::new(), &cancel), Err(CasError::Cancelled)));
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let store = store();
    let root = store.put(vec![store.file(b"a", b"a", false)]).unwrap();
    let again = Cas::open(store.root.path()).unwrap();
    assert_eq!(again.missing(&[root], &[]).unwrap(), Missing::default());
    assert_eq!(again.walk(&root).unwrap().entries.len(), 1);
}

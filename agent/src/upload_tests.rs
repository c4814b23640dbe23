use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use refloat_plan::tree::{Directory, Entry, Node};

use super::*;
use crate::cas::{StoredNode, StoredTree};

fn frame(kind: u8, digest: &Digest, bytes: &[u8]) -> Vec<u8> {
    [&[kind][..], digest, &(bytes.len() as u64).to_be_bytes(), bytes].concat()
}

fn file(bytes: &[u8]) -> Vec<u8> {
    frame(KIND_FILE, blake3::hash(bytes).as_bytes(), bytes)
}

fn file_entry(name: &[u8], bytes: &[u8]) -> Entry {
    let digest = *blake3::hash(bytes).as_bytes();
    Entry { name: name.to_vec(), node: Node::File { digest, size: bytes.len() as u64, executable: false } }
}

fn directory(entries: Vec<Entry>) -> (Digest, Vec<u8>) {
    let encoded = Directory { entries }.encode();
    let digest = Directory::digest_of(&encoded);
    (digest, frame(KIND_DIRECTORY, &digest, &encoded))
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tree with an empty file, a large one, a hostile name and a folder; its root and the stream that carries it.
fn sample() -> (Digest, Vec<u8>) {
    let large: Vec<u8> = (0..40_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let (inner, inner_frame) = directory(vec![file_entry(b"caf\xe9=[x]", b"hostile"), file_entry(b"large", &large)]);
    let (root, root_frame) = directory(vec![
        file_entry(b"empty", b""),
        Entry { name: b"inner".to_vec(), node: Node::Directory { digest: inner } },
    ]);
    (root, [file(b"hostile"), file(&large), file(b""), inner_frame, root_frame].concat())
}

fn store(root: &Path) -> Arc<Cas> {
    Arc::new(Cas::open(&root.join("cas")).unwrap())
}

fn send(cas: &Arc<Cas>, compressed: &[u8], chunk: usize) -> Result<Received, UploadError> {
    let mut receiver = Receiver::new(Arc::clone(cas))?;
    for chunk in compressed.chunks(chunk) {
        receiver.push(chunk)?;
    }
    receiver.finish()
}

/// Every object in the folder is whole, and no temporary file is left.
fn assert_nothing_half_written(root: &Path) {
    let names = |folder: &str| -> Vec<_> {
        std::fs::read_dir(root.join("cas").join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    assert!(names("temporary").is_empty());
    for path in names("file") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(blake3::hash(&std::fs::read(&path).unwrap()).to_hex().as_str(), name);
    }
    for path in names("directory") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let digest = Directory::digest_of(&std::fs::read(&path).unwrap());
        assert_eq!(blake3::Hash::from_bytes(digest).to_hex().as_str(), name);
    }
}

#[test]
fn an_upload_in_chunks_of_any_size_stores_the_same_tree() {
    let (root, stream) = sample();
    let compressed = compress(&stream);
    for chunk in [1 << 20, 4_096, 7] {
        let folder = tempfile::tempdir().unwrap();
        let cas = store(folder.path());
        let received = send(&cas, &compressed, chunk).unwrap();
        assert_eq!(received, Received { objects: 5, bytes: stream.len() as u64 });
        let tree: StoredTree = cas.walk(&root).unwrap();
        let paths: Vec<&[u8]> = tree.entries.iter().map(|entry| entry.path.as_slice()).collect();
        assert_eq!(paths, [&b"empty"[..], b"inner", b"inner/caf\xe9=[x]", b"inner/large"]);
        assert!(matches!(tree.entries[3].node, StoredNode::File { size: 160_000, .. }));
        assert_nothing_half_written(folder.path());
    }
}

#[test]
fn two_hundred_cuts_leave_nothing_half_written_and_the_rest_can_be_sent() {
    let (root, stream) = sample();
    let compressed = compress(&stream);
    for cut in 0..200 {
        let folder = tempfile::tempdir().unwrap();
        let cas = store(folder.path());
        let end = compressed.len() * cut / 200;
        let ended = send(&cas, &compressed[..end], 50_000);
        assert!(end == 0 || matches!(ended, Err(UploadError::Cut)), "cut at {end}: {ended:?}");
        assert_nothing_half_written(folder.path());
        assert_eq!(cas.missing(&[root], &[]).unwrap().directories, [root], "a root is held only when all is");

        send(&cas, &compressed, 1 << 20).unwrap();
        assert_eq!(cas.missing(&[root], &[]).unwrap().directories, [] as [Digest; 0]);
    }
}

#[test]
fn what_arrived_whole_before_a_cut_is_not_missing_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    let (one, two) = (file(b"one"), file(b"two"));
    let cut = [one, two[..two.len() - 1].to_vec()].concat();
    assert!(matches!(send(&cas, &compress(&cut), 1 << 20), Err(UploadError::Cut)));
    let (a, b) = (*blake3::hash(b"one").as_bytes(), *blake3::hash(b"two").as_bytes());
    assert_eq!(cas.missing(&[], &[a, b]).unwrap().files, [b]);
}

#[test]
fn a_frame_that_is_not_what_it_is_called_is_refused_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    let lie = frame(KIND_FILE, &[7; 32], b"bytes");
    let refused = send(&cas, &compress(&lie), 1 << 20);
    let wrong =
        |error: &UploadError| matches!(error, UploadError::Object { number: 1, source: CasError::WrongDigest { .. } });
    assert!(refused.as_ref().is_err_and(wrong), "{refused:?}");
    let encoded = Directory::default().encode();
    let refused = send(&cas, &compress(&frame(KIND_DIRECTORY, &[7; 32], &encoded)), 1 << 20);
    assert!(refused.as_ref().is_err_and(wrong), "{refused:?}");
    assert_eq!(cas.missing(&[[7; 32]], &[[7; 32]]).unwrap().files, [[7; 32]]);
    assert_nothing_half_written(folder.path());
}

#[test]
fn a_directory_before_its_files_or_with_a_false_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    let (_, early) = directory(vec![file_entry(b"a", b"not here")]);
    let mut lying = file_entry(b"a", b"here");
    if let Node::File { size, .. } = &mut lying.node {
        *size = 1;
    }
    let (_, lying) = directory(vec![lying]);
    for stream in [early, [file(b"here"), lying].concat()] {
        let refused = send(&cas, &compress(&stream), 1 << 20);
        assert!(
            matches!(refused, Err(UploadError::Object { source: CasError::ChildMissing { .. }, .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn unknown_kinds_and_announced_sizes_over_the_limit_are_refused_before_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    let head = |kind: u8, length: u64| [&[kind][..], &[1; 32], &length.to_be_bytes()].concat();
    assert!(matches!(send(&cas, &compress(&head(9, 1)), 100), Err(UploadError::UnknownKind(9))));
    for head in [head(KIND_FILE, MAX_FILE_BYTES + 1), head(KIND_DIRECTORY, u64::MAX)] {
        assert!(matches!(send(&cas, &compress(&head), 100), Err(UploadError::OverLimit { .. })));
    }
}

#[test]
fn a_window_that_would_take_much_memory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(&file(&vec![0; 64 << 20])).unwrap();
    let compressed = encoder.finish().unwrap();
    assert!(matches!(send(&cas, &compressed, 1 << 20), Err(UploadError::Compression(_))));
}

#[test]
fn an_upload_of_nothing_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    assert_eq!(send(&cas, &[], 1).unwrap(), Received::default());
    assert_eq!(send(&cas, &compress(b""), 1).unwrap(), Received::default());
}

#[test]
fn after_a_refusal_nothing_more_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(store(folder.path())).unwrap();
    assert!(receiver.push(b"not zstd at all").is_err());
    assert!(receiver.push(&compress(&file(b"x"))).is_err());
    assert!(receiver.finish().is_err());
}

#[tokio::test]
async fn a_channel_of_chunks_is_received_on_a_thread_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let cas = store(folder.path());
    let (root, stream) = sample();
    let (sender, receiver) = mpsc::channel(2);
    let task = tokio::spawn(receive(Arc::clone(&cas), receiver));
    for chunk in compress(&stream).chunks(10_000) {
        sender.send(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    drop(sender);
    assert_eq!(task.await.unwrap().unwrap().objects, 5);
    assert!(cas.missing(&[root], &[]).unwrap().directories.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn garbage_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2_000), chunk in 1_usize..300) {
        let folder = tempfile::tempdir().unwrap();
        let cas = store(folder.path());
        let raw = send(&cas, &bytes, chunk);
        prop_assert!(raw.is_err() || bytes.is_empty());
        let framed = send(&cas, &compress(&bytes), chunk);
        prop_assert!(framed.is_err() || bytes.is_empty());
        assert_nothing_half_written(folder.path());
    }

    #[test]
    fn a_flipped_byte_is_noticed(at in 0_usize..100_000, bit in 0_u8..8) {
        let folder = tempfile::tempdir().unwrap();
        let cas = store(folder.path());
        let (root, stream) = sample();
        let mut flipped = stream.clone();
        let at = at * 7_919 % flipped.len();
        flipped[at] ^= 1 << bit;
        prop_assert!(send(&cas, &compress(&flipped), 1 << 20).is_err());
        prop_assert_eq!(cas.missing(&[root], &[]).unwrap().directories, [root]);
        assert_nothing_half_written(folder.path());
    }
}

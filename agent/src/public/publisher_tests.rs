use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proptest::prelude::*;
use refloat_plan::tree::{Digest, Directory, Entry, Node};

use super::*;

struct Site {
    root: tempfile::TempDir,
    cas: Arc<Cas>,
    publication: Publication,
}

fn site() -> Site {
    let root = tempfile::tempdir().unwrap();
    let cas = Arc::new(Cas::open(&root.path().join("cas")).unwrap());
    let publication = Publication::open(&root.path().join("public"), Arc::clone(&cas)).unwrap();
    Site { root, cas, publication }
}

impl Site {
    fn file(&self, name: &[u8], bytes: &[u8]) -> Entry {
        let digest = *blake3::hash(bytes).as_bytes();
        let mut intake = self.cas.intake();
        let mut writer = intake.file_writer(&digest, bytes.len() as u64).unwrap();
        writer.write(bytes).unwrap();
        intake.file(writer).unwrap();
        intake.finish().unwrap();
        Entry { name: name.to_vec(), node: Node::File { digest, size: bytes.len() as u64, executable: false } }
    }

    fn directory(&self, mut entries: Vec<Entry>) -> Digest {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let encoded = Directory { entries }.encode();
        let digest = Directory::digest_of(&encoded);
        let mut intake = self.cas.intake();
        intake.directory(&digest, &encoded).unwrap();
        intake.finish().unwrap();
        digest
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        let name = blake3::hash(bytes).to_hex();
        self.root.path().join("public/blob").join(&name[..2]).join(name.as_str())
    }
}

fn link(name: &[u8], target: &[u8]) -> Entry {
    Entry { name: name.to_vec(), node: Node::Symlink { target: target.to_vec() } }
}

fn folder(name: &[u8], digest: Digest) -> Entry {
    Entry { name: name.to_vec(), node: Node::Directory { digest } }
}

/// An archive as the engine exports it: the files, and what the engine puts into every container.
fn exported(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let empty =
        [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"].map(|path| (path, &b""[..]));
    for (path, bytes) in empty.iter().chain(files) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    for (path, target) in [("etc/mtab", "/proc/mounts")].iter().chain(links) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, path, target).unwrap();
    }
    archive.into_inner().unwrap()
}

fn paths(publication: &Publication, tree: TreeDigest) -> Vec<String> {
    publication.index(tree).unwrap().unwrap().files.into_iter().map(|file| file.path).collect()
}

#[test]
fn a_folder_of_the_source_is_published_with_links_as_copies_and_without_secrets() {
    let site = site();
    let assets = site.directory(vec![site.file(b"app-1a2b.js", b"js"), link(b"latest.js", b"app-1a2b.js")]);
    let root = site.directory(vec![
        site.file(b"index.html", b"<html>"),
        site.file(b".env", b"SECRET"),
        site.file(b"refloat.toml", b"schema = 1"),
        folder(b"assets", assets),
    ]);
    let published = site.publication.publish_folder_blocking(SourceDigest(root), "").unwrap();
    assert_eq!(paths(&site.publication, published.tree), ["assets/app-1a2b.js", "assets/latest.js", "index.html"]);
    assert_eq!((published.files, published.bytes), (3, 10));
    assert!(!site.blob(b"SECRET").exists());
    assert!(site.publication.contains_blocking(published.tree).unwrap());

    let inner = site.publication.publish_folder_blocking(SourceDigest(root), "assets").unwrap();
    assert_eq!(paths(&site.publication, inner.tree), ["app-1a2b.js", "latest.js"]);
    let none = site.publication.publish_folder_blocking(SourceDigest(root), "dist");
    assert!(matches!(none, Err(PublishError::Source(CasError::NoFolder(_)))), "{none:?}");
}

#[test]
fn a_link_out_of_the_published_folder_is_refused_though_it_stays_in_the_project() {
    let site = site();
    let public = site.directory(vec![site.file(b"a", b"a"), link(b"env", b"../secret.txt")]);
    let root = site.directory(vec![site.file(b"secret.txt", b"s"), folder(b"public", public)]);
    let refused = site.publication.publish_folder_blocking(SourceDigest(root), "public");
    assert!(matches!(refused, Err(PublishError::LinkLeaves { .. })), "{refused:?}");
}

#[test]
fn an_exported_image_is_published_without_what_the_engine_put_into_it() {
    let site = site();
    let large = vec![7; 3 << 20];
    let archive =
        exported(&[("index.html", b"<html>"), ("video.mp4", &large), ("etc/motd", b"x")], &[("home", "/index.html")]);
    let published = site.publication.publish_archive_blocking(archive.as_slice()).unwrap();
    assert_eq!(paths(&site.publication, published.tree), ["etc/motd", "home", "index.html", "video.mp4"]);
    assert_eq!(std::fs::read(site.blob(&large)).unwrap(), large);
    assert_eq!(published.notes, [] as [String; 0]);
}

#[test]
fn a_site_may_have_files_where_the_engine_has_its_own() {
    let site = site();
    let archive = exported(&[("etc/hosts", b"content of the site")], &[]);
    let published = site.publication.publish_archive_blocking(archive.as_slice()).unwrap();
    assert_eq!(paths(&site.publication, published.tree), ["etc/hosts"]);
}

#[test]
fn the_edge_may_read_everything_that_is_published_and_nothing_else() {
    let site = site();
    let published = site.publication.publish_archive_blocking(exported(&[("a", b"a")], &[]).as_slice()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let public = site.root.path().join("public");
    assert_eq!(mode(&site.blob(b"a")), 0o644);
    assert_eq!(mode(&public.join("tree").join(published.tree.to_hex())), 0o644);
    for folder in ["", "tree", "blob"] {
        assert_eq!(mode(&public.join(folder)), 0o755, "{folder}");
    }
    assert_eq!(mode(site.blob(b"a").parent().unwrap()), 0o755);
    assert_eq!(mode(&public.join("temporary")), 0o700);
}

#[test]
fn a_tree_that_lost_a_file_or_its_index_is_not_contained_and_publishing_again_mends_it() {
    let site = site();
    let archive = exported(&[("a", b"a"), ("b", b"bb")], &[]);
    let publish = || site.publication.publish_archive_blocking(archive.as_slice()).unwrap().tree;
    let tree = publish();
    std::fs::remove_file(site.blob(b"bb")).unwrap();
    assert!(!site.publication.contains_blocking(tree).unwrap());
    assert_eq!(publish(), tree);
    assert!(site.publication.contains_blocking(tree).unwrap());

    let index = site.root.path().join("public/tree").join(tree.to_hex());
    let mut bytes = std::fs::read(&index).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&index, bytes).unwrap();
    assert!(!site.publication.contains_blocking(tree).unwrap());
    assert_eq!(publish(), tree);
    assert!(site.publication.contains_blocking(tree).unwrap());
}

#[test]
fn a_damaged_file_of_the_source_is_reported_and_never_published() {
    let site = site();
    let root = site.directory(vec![site.file(b"a", b"good")]);
    let stored = site.root.path().join("cas/file").join(blake3::hash(b"good").to_hex().as_str());
    std::fs::write(stored, b"evil").unwrap();
    let refused = site.publication.publish_folder_blocking(SourceDigest(root), "");
    assert!(matches!(refused, Err(PublishError::Source(CasError::Lost { .. }))), "{refused:?}");
    assert!(!site.blob(b"good").exists() && !site.blob(b"evil").exists());
}

#[test]
fn an_archive_cut_in_the_middle_of_a_file_or_between_two_is_refused() {
    let site = site();
    let archive = exported(&[("a", &[1; 5_000])], &[]);
    for missing in [4_096, 1_024, 512] {
        let cut = &archive[..archive.len() - missing];
        let refused = site.publication.publish_archive_blocking(cut);
        assert!(matches!(refused, Err(PublishError::Archive(_))), "without {missing} bytes: {refused:?}");
    }
}

#[test]
fn a_path_that_climbs_is_refused() {
    let mut header = tar::Header::new_gnu();
    let name = b"a/../../../etc/cron.d/x";
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(1);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &b"x"[..]).unwrap();
    let refused = site().publication.publish_archive_blocking(archive.into_inner().unwrap().as_slice());
    assert!(matches!(refused, Err(PublishError::LinkLeaves { .. })), "{refused:?}");
}

#[tokio::test]
async fn chunks_of_an_archive_are_published_as_they_arrive() {
    let site = site();
    let (sender, receiver) = mpsc::channel(1);
    let publication = site.publication.clone();
    let task = tokio::spawn(async move { publication.publish_archive(receiver).await });
    for chunk in exported(&[("index.html", b"<html>")], &[]).chunks(100) {
        sender.send(chunk.to_vec()).await.unwrap();
    }
    drop(sender);
    let published = task.await.unwrap().unwrap();
    assert!(site.publication.contains(published.tree).await.unwrap());
}

proptest! {
    #[test]
    fn garbage_is_never_published_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..4_000)) {
        prop_assert!(site().publication.publish_archive_blocking(bytes.as_slice()).is_err());
    }

    #[test]
    fn a_flipped_byte_of_an_archive_never_panics(at in 0_usize..20_000, bit in 0_u8..8) {
        let mut archive = exported(&[("index.html", b"<html>"), ("a/b", b"b")], &[("l", "a")]);
        let at = at % archive.len();
        archive[at] ^= 1 << bit;
        let site = site();
        if let Ok(published) = site.publication.publish_archive_blocking(archive.as_slice()) {
            prop_assert!(site.publication.contains_blocking(published.tree).unwrap());
        }
    }
}

//! The store against a real sled, tried by a real `refloatd`: whatever became of its files, the agent comes up with
//! all records, in time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use refloat_agent::clock::ManualClock;
use refloat_agent::journal::sample::{History, ada, app};
use refloat_agent::journal::{FileJournal, Journal as _, JournalOptions};
use refloat_agent::ledger::disk::{Disk, HostDisk, SegmentFile};
use refloat_agent::ledger::{Ledger, LedgerOptions};
use refloat_agent::paths::Paths;
use refloat_agent::store::{ProbeWith, live_folder};
use refloat_model::{Entry, Epoch, Event};

/// Six records each.
const DEPLOYS: u32 = 2_000;
/// A hang-guard, not a figure: the longest that opening may take, its deadlines and a rebuild included.
const COMES_UP_WITHIN: Duration = Duration::from_secs(120);

/// The host's disk without waiting for it: these tests lose no power.
struct UnsyncedDisk;
struct UnsyncedFile(Box<dyn SegmentFile>);

impl Disk for UnsyncedDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(UnsyncedFile(HostDisk.create(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(UnsyncedFile(HostDisk.open(path)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        HostDisk.remove(path)
    }
    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl SegmentFile for UnsyncedFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.reserve(offset, bytes)
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}

fn refloatd() -> ProbeWith {
    ProbeWith::Executable(PathBuf::from(env!("CARGO_BIN_EXE_refloatd")))
}

fn options(paths: &Paths, probe: ProbeWith) -> JournalOptions {
    JournalOptions::new(paths, probe, Arc::new(ManualClock::at(1_700_000_000_000)))
}

fn open(paths: &Paths, probe: ProbeWith) -> FileJournal {
    let began = Instant::now();
    let journal = FileJournal::open(options(paths, probe)).unwrap();
    assert!(began.elapsed() < COMES_UP_WITHIN, "{:?}", began.elapsed());
    journal
}

fn write_ledger(paths: &Paths, deploys: u32) {
    let disk = LedgerOptions { disk: Box::new(UnsyncedDisk), ..LedgerOptions::default() };
    let (mut ledger, _) = Ledger::open(&paths.ledger(), disk, 1).unwrap();
    let mut history = History::default();
    let mut events = vec![Event::HostInitialised { host_id: [1; 16], epoch: Epoch(1) }, history.create("shop")];
    for number in 1..=deploys {
        events.extend(history.deploy("shop", number));
    }
    for event in events {
        let draft = ledger.draft(&Entry { at_ms: 1, by: ada(), event }).unwrap();
        ledger.append(draft).unwrap();
    }
}

async fn has_every_release(journal: &FileJournal, deploys: u32) {
    let shop = journal.app(&app("shop")).await.unwrap().unwrap();
    assert_eq!(shop.serving.map(|number| number.0), Some(deploys));
    let releases = journal.releases(&app("shop"), usize::MAX).await.unwrap();
    assert_eq!(releases.len(), deploys as usize);
    assert!(releases.iter().all(|release| release.activations.len() == 1));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn has_snapshot(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| entry.unwrap().file_name().as_encoded_bytes().starts_with(b"snap."))
}

#[tokio::test]
async fn whatever_is_cut_off_the_database_beside_its_snapshot_the_store_comes_up_whole() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::below(folder.path());
    write_ledger(&paths, DEPLOYS);
    open(&paths, refloatd()).close().await;
    let again = open(&paths, refloatd());
    assert_eq!(again.report().store.rebuilt, None, "a sound store is not built again");
    has_every_release(&again, DEPLOYS).await;
    again.close().await;
    let sound = tempfile::tempdir().unwrap();
    copy(&paths.store(), sound.path());
    assert!(has_snapshot(&live_folder(sound.path()).unwrap()), "without one this would not be the bad case");

    let mut noticed = 0;
    for cut in [4_000, 300_000, 1_100_000] {
        fs::remove_dir_all(paths.store()).unwrap();
        copy(sound.path(), &paths.store());
        let db = live_folder(&paths.store()).unwrap().join("db");
        let length = fs::metadata(&db).unwrap().len();
        OpenOptions::new().write(true).open(&db).unwrap().set_len(length - cut).unwrap();

        let journal = open(&paths, refloatd());
        let report = journal.report().store;
        // What is cut off may have been space that nothing was written to yet.
        noticed += usize::from(report.rebuilt.is_some() || report.caught_up > 0);
        assert_eq!(report.in_memory, None, "cut {cut}");
        has_every_release(&journal, DEPLOYS).await;
        journal.close().await;
    }
    assert!(noticed > 0, "no cut hit what was written");
}

#[tokio::test]
async fn garbage_half_a_snapshot_and_an_empty_database_come_up_whole() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::below(folder.path());
    write_ledger(&paths, 20);
    open(&paths, refloatd()).close().await;
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("garbage", |live| fs::write(live.join("db"), vec![0xa5; 700_000]).unwrap()),
        ("empty", |live| fs::write(live.join("db"), b"").unwrap()),
        ("no configuration", |live| fs::write(live.join("conf"), b"garbage").unwrap()),
        ("half a snapshot", |live| fs::write(live.join("snap.00000000000000FF.generating"), b"half").unwrap()),
        ("a folder", |live| {
            fs::remove_file(live.join("db")).unwrap();
            fs::create_dir(live.join("db")).unwrap();
        }),
    ];
    for (what, damage) in damages {
        damage(&live_folder(&paths.store()).unwrap());
        let journal = open(&paths, refloatd());
        assert_eq!(journal.report().store.in_memory, None, "{what}");
        has_every_release(&journal, 20).await;
        journal.close().await;
    }
}

#[tokio::test]
async fn a_store_whose_opening_hangs_is_given_up_and_built_again() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::below(folder.path());
    write_ledger(&paths, 20);
    open(&paths, refloatd()).close().await;
    // Reads its own file for ever, whatever it is called with.
    let hanging = folder.path().join("hanging");
    fs::write(&hanging, "#!/usr/bin/tail -f\n").unwrap();
    fs::set_permissions(&hanging, fs::Permissions::from_mode(0o755)).unwrap();
    let mut options = options(&paths, ProbeWith::Executable(hanging));
    options.store.open_within = Duration::from_secs(2);
    let journal = FileJournal::open(options).unwrap();
    let report = journal.report().store;
    assert_eq!(report.rebuilt.as_deref(), Some("the store did not open within 2000 ms"));
    assert!(report.set_aside.is_some_and(|folder| folder.join("db").exists()));
    has_every_release(&journal, 20).await;
    journal.close().await;
}

//! sled, really hanging: of a database that was cut short beside its snapshot it counts the same unreadable record for ever.
//!
//! The agent meets this nowhere: it removes snapshots before it opens a database, and reads no further than the first
//! error. That whatever does hang is stopped is shown by a child process that does neither: this test, started again.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StoreError;
use super::keeper::{Keeper, StoreOptions};
use super::probe::ProbeWith;
use super::shelf::Shelf as _;
use super::sled_shelf::SledShelf;
use super::tests::{entries, shop};
use crate::journal::sample::app;
use crate::ledger::{Ledger, LedgerOptions};

/// Records of sled 0.34.7 in four full segments, with the snapshot of its last opening. Kept, because what sled writes
/// differs from run to run, and of its databases only some hang once they are cut.
const DATABASE: &[u8] = include_bytes!("../../tests/fixtures/sled-2-mib.tar.zst");
const RECORDS: usize = 2_948;
const CUT_BYTES: u64 = 300_000;
/// The folder that the child tries.
const FOLDER: &str = "REFLOAT_TEST_STORE";
const THIS: &str = "store::hang_tests::a_database_that_sled_counts_for_ever_is_given_up_and_built_again";
/// A sound one is counted after some milliseconds.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
const HANG_GUARD: Duration = Duration::from_secs(60);

/// Tries the database as it is, and says how far it came.
fn as_child(folder: &Path) {
    fs::write(folder.with_extension("child"), std::process::id().to_string()).unwrap();
    let counted = SledShelf::open_as_it_is(folder).unwrap().count();
    fs::write(folder.with_extension("counted"), counted.to_string()).unwrap();
}

/// A program that tries a store by this test.
fn child(folder: &Path) -> ProbeWith {
    let program = folder.join("child");
    let this = std::env::current_exe().unwrap();
    let script = format!("#!/bin/sh\n{FOLDER}=\"$2\" exec '{}' --exact {THIS}\n", this.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    ProbeWith::Executable(program)
}

fn unpack(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    tar::Archive::new(zstd::Decoder::new(DATABASE).unwrap()).unpack(folder).unwrap();
}

fn unpack_and_cut(folder: &Path) {
    unpack(folder);
    let db = OpenOptions::new().write(true).open(folder.join("db")).unwrap();
    let length = db.metadata().unwrap().len();
    db.set_len(length - CUT_BYTES).unwrap();
}

#[test]
fn a_database_that_sled_counts_for_ever_is_given_up_and_built_again() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return as_child(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let child = child(folder.path());
    let sound = folder.path().join("sound");
    unpack(&sound);
    child.probe(&sound, HANG_GUARD).expect("a sound one is counted, snapshot and all");
    assert_eq!(fs::read_to_string(sound.with_extension("counted")).unwrap(), RECORDS.to_string());

    let live = folder.path().join("store/live-1");
    unpack_and_cut(&live);
    let (mut ledger, _) = Ledger::open(&folder.path().join("ledger"), LedgerOptions::default(), 1).unwrap();
    for entry in entries() {
        let draft = ledger.draft(&entry).unwrap();
        ledger.append(draft).unwrap();
    }
    let options = StoreOptions { open_within: OPEN_WITHIN, ..StoreOptions::new(folder.path().join("store"), child) };
    let mut keeper = Keeper::open(options, &ledger).unwrap();
    let report = keeper.report();
    assert_eq!(report.rebuilt.as_deref(), Some("the store did not open within 5000 ms"));
    assert_eq!(report.in_memory, None);
    assert!(report.set_aside.as_ref().is_some_and(|aside| aside.join("db").exists()));
    let pid = fs::read_to_string(live.with_extension("child")).unwrap();
    assert!(!live.with_extension("counted").exists(), "sled never came to an end");
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "and does not go on");
    assert_eq!(keeper.read(&ledger, shop), Ok(Some(app("shop"))));
}

#[test]
fn reading_the_same_database_ends_at_its_first_error() {
    let folder = tempfile::tempdir().unwrap();
    unpack_and_cut(folder.path());
    let shelf = SledShelf::open_as_it_is(folder.path()).unwrap();
    let mut read = 0;
    let ended = shelf.each(&mut |_, _| {
        read += 1;
        Ok(())
    });
    assert!(matches!(ended, Err(StoreError::Database(_))) && read < RECORDS, "{ended:?} after {read}");
}

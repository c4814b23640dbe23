//! Ledgers that were written once must load for ever. Each folder below `fixtures/` was written by the program that
//! was current then; a new format adds a folder and never touches an old one.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use refloat_agent::journal::sample::{History, ada};
use refloat_agent::ledger::disk::HostDisk;
use refloat_agent::ledger::record::Content;
use refloat_agent::ledger::{Ledger, LedgerOptions, Position, ReplayError};
use refloat_agent::store::MemoryRecords;
use refloat_model::{Entry, Epoch, Event};

/// What the program of today writes. It adds one-off commands, and the variables that a build reads, to the first format.
const NEWEST: &str = "ledger-v1-2";
const NOW_MS: u64 = 1_700_000_000_000;

fn fixture(name: &str) -> PathBuf {
    // Asked when it runs: clones that share a target folder share the compiled test.
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&crate_folder).join("tests/fixtures").join(name)
}

/// A copy, because opening takes the lock.
fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn history() -> Vec<Event> {
    let mut events = vec![Event::HostInitialised { host_id: [1; 16], epoch: Epoch(1) }];
    events.extend(History::default().of_every_kind());
    events
}

fn write(folder: &Path) {
    let options = LedgerOptions { disk: Box::new(HostDisk), segment_bytes: 4096 };
    let (mut ledger, _) = Ledger::open(folder, options, NOW_MS).unwrap();
    for event in history() {
        let draft = ledger.draft(&Entry { at_ms: NOW_MS, by: ada(), event }).unwrap();
        ledger.append(draft).unwrap();
    }
}

#[test]
fn the_first_format_loads_and_adds_up_to_the_same() {
    let folder = copy_of("ledger-v1");
    let (ledger, report) = Ledger::open(folder.path(), LedgerOptions::default(), NOW_MS).unwrap();
    assert_eq!((report.records, report.segments, report.torn_tail), (52, 3, None));
    let mut entries = Vec::new();
    let all: Result<(), ReplayError<()>> = ledger.replay(&Position::GENESIS, |_, content| {
        if let Content::Entry(entry) = content {
            entries.push(*entry);
        }
        Ok(())
    });
    all.unwrap();
    let kinds = |events: &[Event]| events.iter().map(std::mem::discriminant).collect::<Vec<_>>();
    let events: Vec<_> = entries.iter().map(|entry| entry.event.clone()).collect();
    let history = kinds(&history());
    assert_eq!(kinds(&events), history[..events.len()], "later formats only add kinds");
    let mut store = MemoryRecords::empty();
    store.prepare(&entries).unwrap();
    store.commit(ledger.position()).unwrap();
    let shop = store.apps().unwrap().remove(0);
    assert_eq!((shop.serving.map(|n| n.0), shop.newest.map(|n| n.0)), (Some(1), Some(2)));
    assert_eq!(store.host().unwrap().table.generation.number, 6);
}

#[test]
fn the_newest_format_knows_commands_and_what_builds_read() {
    let folder = copy_of(NEWEST);
    let (ledger, _) = Ledger::open(folder.path(), LedgerOptions::default(), NOW_MS).unwrap();
    let (mut commands, mut read_by_builds) = (0, Vec::new());
    let all: Result<(), ReplayError<()>> = ledger.replay(&Position::GENESIS, |_, content| {
        if let Content::Entry(entry) = content {
            commands += usize::from(matches!(entry.event, Event::OneOffBegan { .. } | Event::OneOffEnded { .. }));
            if let Event::ReleaseCreated { meta, .. } = entry.event {
                read_by_builds.extend(meta.build_env);
            }
        }
        Ok(())
    });
    all.unwrap();
    assert_eq!((commands, read_by_builds), (4, vec!["VITE_API_URL".to_owned()]));
}

#[test]
fn what_is_written_today_is_byte_for_byte_the_newest_format() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let same = ["00000001.log", "00000002.log", "00000003.log"].iter().all(|name| {
        let (then, now) = (std::fs::read(fixture(NEWEST).join(name)), std::fs::read(folder.path().join(name)));
        then.unwrap() == now.unwrap()
    });
    if !same {
        let kept = folder.keep();
        panic!(
            "a new kind of record needs a new fixture, a changed one a new version byte too; it is in {}",
            kept.display()
        );
    }
}

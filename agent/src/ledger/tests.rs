//! The ledger on a disk that fails, fills up, tears and flips.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refloat_model::{Action, Entry, Event, Outcome, ReleaseNumber};

use super::disk::{Disk, HostDisk, SegmentFile};
use super::record::Content;
use super::segment::{self, Reader};
use super::{AppendError, Ledger, LedgerError, LedgerOptions, Position, ReplayError};
use crate::journal::sample::{History, ada, app, deploy_action};

const NOW_MS: u64 = 1_700_000_000_000;
/// Small, so that a short history has several segments.
const SMALL_SEGMENT_BYTES: u64 = 4096;

fn options(disk: impl Disk) -> LedgerOptions {
    LedgerOptions { disk: Box::new(disk), segment_bytes: SMALL_SEGMENT_BYTES }
}

fn open(folder: &Path) -> Ledger {
    let (mut ledger, _) = Ledger::open(folder, options(HostDisk), NOW_MS).unwrap();
    ledger.settle().unwrap();
    ledger
}

fn append(ledger: &mut Ledger, event: Event) -> Result<Position, AppendError> {
    let draft = ledger.draft(&Entry { at_ms: NOW_MS, by: ada(), event })?;
    ledger.append(draft)
}

/// Every event that is in the ledger.
fn events(ledger: &Ledger) -> Vec<Event> {
    let mut events = Vec::new();
    let all: Result<(), ReplayError<()>> = ledger.replay(&Position::GENESIS, |_, content| {
        if let Content::Entry(entry) = content {
            events.push(entry.event);
        }
        Ok(())
    });
    all.unwrap();
    events
}

fn segment_files(folder: &Path) -> Vec<(u64, Vec<u8>)> {
    let path = |n: u64| folder.join(segment::file_name(n));
    (1..).take_while(|n| path(*n).exists()).map(|n| (n, std::fs::read(path(n)).unwrap())).collect()
}

#[test]
fn what_was_appended_is_there_again_in_order_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    let mut history = History::default();
    for _ in 0..3 {
        let mut ledger = open(folder.path());
        for event in history.of_every_kind() {
            append(&mut ledger, event.clone()).unwrap();
            expected.push(event);
        }
    }
    let (ledger, report) = Ledger::open(folder.path(), options(HostDisk), NOW_MS).unwrap();
    assert!(report.segments > 3, "{report:?}");
    assert_eq!(report.torn_tail, None);
    assert_eq!(report.records, expected.len() as u64 + report.segments as u64);
    let read = events(&ledger);
    // A record says once what the model says twice: when a deployment was accepted.
    let same = |event: &Event| match event {
        Event::DeploymentAccepted { app, deployment } => {
            let mut deployment = deployment.clone();
            deployment.accepted_at_ms = NOW_MS;
            Event::DeploymentAccepted { app: app.clone(), deployment }
        }
        other => other.clone(),
    };
    assert_eq!(read, expected.iter().map(same).collect::<Vec<_>>());
}

#[test]
fn one_ledger_is_opened_by_one_agent() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let second = Ledger::open(folder.path(), options(HostDisk), NOW_MS);
    assert!(matches!(second, Err(LedgerError::Locked { .. })));
    drop(first);
    open(folder.path());
}

#[test]
fn a_replay_begins_behind_any_position_and_refuses_one_of_another_history() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    let mut positions = vec![Position::GENESIS];
    for event in History::default().of_every_kind() {
        positions.push(append(&mut ledger, event).unwrap());
    }
    let after = |position: &Position| {
        let mut seen = Vec::new();
        let result: Result<(), ReplayError<()>> = ledger.replay(position, |at, _| {
            seen.push(at.sequence);
            Ok(())
        });
        result.map(|()| seen)
    };
    let end = ledger.position().sequence;
    for position in &positions {
        assert_eq!(after(position).unwrap(), (position.sequence + 1..=end).collect::<Vec<_>>());
        let other = Position { hash: [1; 32], ..*position };
        assert!(matches!(after(&other), Err(ReplayError::OtherHistory { .. })), "{}", position.sequence);
    }
    let beyond = Position { sequence: end + 1, hash: [0; 32] };
    assert!(matches!(after(&beyond), Err(ReplayError::OtherHistory { .. })));
}

/// A ledger in segments, about `bytes` long.
fn long_ledger(folder: &Path, bytes: usize) {
    let (mut ledger, _) =
        Ledger::open(folder, LedgerOptions { disk: Box::new(HostDisk), segment_bytes: bytes as u64 / 3 }, NOW_MS)
            .unwrap();
    let mut history = History::default();
    append(&mut ledger, history.create("shop")).unwrap();
    let mut number = 0;
    while segment_files(folder).iter().map(|(_, bytes)| bytes.len()).sum::<usize>() < bytes {
        number += 1;
        for event in history.deploy("shop", number) {
            append(&mut ledger, event).unwrap();
        }
    }
}

/// Where each record of a segment begins, and the position before it.
fn records(bytes: &[u8], start: Position) -> Vec<(usize, Position)> {
    let mut reader = Reader::new(bytes, start, false);
    let mut found = vec![(0, start)];
    while let Some(read) = reader.next_record().unwrap() {
        found.push((reader.intact_bytes(), read.position));
    }
    found
}

#[test]
fn every_byte_of_a_ledger_flipped_in_turn_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    long_ledger(folder.path(), 96 * 1024);
    let files = segment_files(folder.path());
    assert!(files.len() > 2);
    let mut start = Position::GENESIS;
    let mut flips = 0;
    for (number, bytes) in &files {
        let newest = *number == files.len() as u64;
        let records = records(bytes, start);
        for pair in 0..records.len() - 1 {
            let (from, to) = (records[pair].0, records[pair + 1].0);
            // What is read before the flipped record stays as it is: reading begins one record earlier.
            let (begin, before) = records[pair.saturating_sub(1)];
            for at in from..to {
                for flip in [0x01, 0xff] {
                    let mut flipped = bytes[begin..].to_vec();
                    flipped[at - begin] ^= flip;
                    let mut reader = Reader::new(&flipped, before, newest);
                    let damaged = std::iter::repeat_with(|| reader.next_record()).take(2).any(|read| read.is_err());
                    assert!(damaged, "segment {number}, byte {at} ^ {flip:#x}");
                    flips += 1;
                }
            }
        }
        start = records.last().unwrap().1;
    }
    assert!(flips >= 2 * 96 * 1024);
}

#[test]
fn a_flipped_byte_keeps_the_ledger_closed_names_its_place_and_changes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    long_ledger(folder.path(), 24 * 1024);
    for (number, bytes) in segment_files(folder.path()) {
        let path = folder.path().join(segment::file_name(number));
        for at in (0..bytes.len()).step_by(211).chain([bytes.len() - 1]) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            match Ledger::open(folder.path(), options(HostDisk), NOW_MS) {
                Err(LedgerError::Damaged { segment, offset, .. }) => {
                    assert_eq!(segment, path);
                    assert!(offset <= at as u64 && at as u64 - offset < 2048, "{offset} for {at}");
                }
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("segment {number}, byte {at} was not seen"),
            }
            assert_eq!(std::fs::read(&path).unwrap(), flipped);
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    open(folder.path());
}

#[test]
fn a_last_record_torn_at_any_byte_is_cut_off_and_the_ledger_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(segment::file_name(1));
    let mut history = History::default();
    let mut ledger = open(folder.path());
    append(&mut ledger, history.create("shop")).unwrap();
    let whole = std::fs::read(&path).unwrap().len();
    append(&mut ledger, history.create("blog")).unwrap();
    drop(ledger);
    let bytes = std::fs::read(&path).unwrap();
    for cut in whole + 1..bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let (mut ledger, report) = Ledger::open(folder.path(), options(HostDisk), NOW_MS).unwrap();
        let torn = report.torn_tail.unwrap();
        assert_eq!((torn.offset, torn.bytes), (whole as u64, (cut - whole) as u64));
        assert_eq!(std::fs::read(&path).unwrap().len(), cut, "opening alone changes nothing");
        assert!(matches!(append(&mut ledger, history.clone().create("more")), Err(AppendError::Closed(_))));
        ledger.settle().unwrap();
        append(&mut ledger, history.clone().create("more")).unwrap();
        drop(ledger);
        let names: Vec<_> = events(&open(folder.path())).iter().map(|e| e.app().cloned()).collect();
        assert_eq!(names, [Some(app("shop")), Some(app("more"))]);
    }
}

#[test]
fn a_missing_segment_is_named() {
    let folder = tempfile::tempdir().unwrap();
    long_ledger(folder.path(), 24 * 1024);
    let path = folder.path().join(segment::file_name(2));
    std::fs::remove_file(&path).unwrap();
    match Ledger::open(folder.path(), options(HostDisk), NOW_MS) {
        Err(LedgerError::Missing { segment }) => assert_eq!(segment, path),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_segment_under_the_name_of_another_is_damage() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    long_ledger(folder.path(), 24 * 1024);
    open(other.path());
    std::fs::copy(other.path().join(segment::file_name(1)), folder.path().join(segment::file_name(2))).unwrap();
    assert!(matches!(Ledger::open(folder.path(), options(HostDisk), NOW_MS), Err(LedgerError::Damaged { .. })));
}

/// A disk whose n-th call fails, or that is full.
#[derive(Clone, Default)]
struct BadDisk(Arc<Mutex<Mood>>);

#[derive(Default)]
struct Mood {
    calls: u64,
    log: Vec<&'static str>,
    fails: Option<(u64, io::ErrorKind)>,
    /// Bytes that can still be reserved.
    room: Option<u64>,
}

impl BadDisk {
    fn failing_at(call: u64, kind: io::ErrorKind) -> Self {
        let disk = Self::default();
        disk.mood().fails = Some((call, kind));
        disk
    }

    fn mood(&self) -> MutexGuard<'_, Mood> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, what: &'static str) -> io::Result<()> {
        let mut mood = self.mood();
        mood.calls += 1;
        mood.log.push(what);
        match mood.fails {
            Some((at, kind)) if at == mood.calls => Err(kind.into()),
            _ => Ok(()),
        }
    }
}

struct BadFile(Box<dyn SegmentFile>, BadDisk);

impl Disk for BadDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.call("create")?;
        Ok(Box::new(BadFile(HostDisk.create(path)?, self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.call("open")?;
        Ok(Box::new(BadFile(HostDisk.open(path)?, self.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename")?;
        HostDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call("remove")?;
        HostDisk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.call("sync_directory")?;
        HostDisk.sync_directory(path)
    }
}

impl SegmentFile for BadFile {
    /// A write that fails has written half.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let failed = self.1.call("write");
        let written = if failed.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        self.0.write_at(offset, written)?;
        failed
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.call("sync")?;
        self.0.sync()
    }

    fn reserve(&mut self, _: u64, bytes: u64) -> io::Result<()> {
        self.1.call("reserve")?;
        match self.1.mood().room {
            Some(room) if bytes > room => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.1.call("truncate")?;
        self.0.truncate(length)
    }
}

/// Appends until something fails; answers with what was acknowledged.
fn append_until_closed(folder: &Path, disk: &BadDisk, history: Vec<Event>) -> Vec<Event> {
    let mut acknowledged = Vec::new();
    let Ok((mut ledger, _)) = Ledger::open(folder, options(disk.clone()), NOW_MS) else { return acknowledged };
    let mut closed = false;
    for event in history {
        match append(&mut ledger, event.clone()) {
            Ok(_) => {
                assert!(!closed, "a closed ledger acknowledged a record");
                acknowledged.push(event);
            }
            Err(AppendError::NotDurable(_) | AppendError::Closed(_)) => closed = true,
            // Without room nothing was written: the rest of this history does not follow.
            Err(AppendError::NoRoom(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    acknowledged
}

/// The same apps in the same order: enough to compare acknowledged with durable.
fn apps_of(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.app().map(ToString::to_string).unwrap_or_default()).collect()
}

#[test]
fn whichever_call_to_the_disk_fails_nothing_acknowledged_is_lost() {
    let creations = || -> Vec<Event> {
        let mut history = History::default();
        (0..50).map(|n| history.create(&format!("app-{n}"))).collect()
    };
    let calls = {
        let folder = tempfile::tempdir().unwrap();
        let disk = BadDisk::default();
        assert_eq!(append_until_closed(folder.path(), &disk, creations()).len(), 50);
        assert!(segment_files(folder.path()).len() > 1);
        disk.mood().calls
    };
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        for call in 1..=calls {
            let folder = tempfile::tempdir().unwrap();
            let disk = BadDisk::failing_at(call, kind);
            let acknowledged = apps_of(&append_until_closed(folder.path(), &disk, creations()));
            let durable = apps_of(&events(&open(folder.path())));
            assert!(durable.starts_with(&acknowledged), "call {call}, {kind}");
            assert!(durable.len() <= acknowledged.len() + 1, "call {call}, {kind}");
        }
    }
}

#[test]
fn on_a_full_disk_a_deploy_is_refused_a_rollback_is_not_and_what_runs_can_end() {
    let folder = tempfile::tempdir().unwrap();
    let disk = BadDisk::default();
    let (mut ledger, report) =
        Ledger::open(folder.path(), LedgerOptions { disk: Box::new(disk.clone()), ..LedgerOptions::default() }, NOW_MS)
            .unwrap();
    assert!(report.reserves_space);
    let mut history = History::default();
    append(&mut ledger, history.create("shop")).unwrap();
    for event in history.deploy("shop", 1).into_iter().chain(history.deploy("shop", 2)) {
        append(&mut ledger, event).unwrap();
    }
    let (running, accepted) = history.accept("shop", deploy_action());
    append(&mut ledger, accepted).unwrap();

    disk.mood().room = Some(0);
    // The chunk that is there is used up first.
    let mut refused = None;
    for _ in 0..10_000 {
        let (id, accepted) = history.clone().accept("shop", deploy_action());
        match append(&mut ledger, accepted) {
            Ok(_) => append(&mut ledger, History::end(id, "shop", Outcome::Unchanged)).map(drop).unwrap(),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(matches!(refused, Some(AppendError::NoRoom(_))), "{refused:?}");
    append(&mut ledger, history.commit(running, "shop", None)).unwrap();
    append(&mut ledger, History::end(running, "shop", Outcome::Live)).unwrap();
    let mut rollbacks = 0;
    loop {
        let (id, accepted) = history.accept("shop", Action::Rollback(ReleaseNumber(1)));
        if let Err(error) = append(&mut ledger, accepted) {
            assert!(matches!(error, AppendError::NoRoom(_)), "{error}");
            break;
        }
        append(&mut ledger, history.commit(id, "shop", Some(1))).unwrap();
        append(&mut ledger, History::end(id, "shop", Outcome::Live)).unwrap();
        rollbacks += 1;
    }
    assert!(rollbacks >= 50, "{rollbacks}");

    disk.mood().room = None;
    let (_, accepted) = history.accept("shop", deploy_action());
    append(&mut ledger, accepted).unwrap();
    drop(ledger);
    open(folder.path());
}

#[test]
fn without_room_for_a_new_segment_the_old_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let disk = BadDisk::default();
    let (mut ledger, _) = Ledger::open(folder.path(), options(disk.clone()), NOW_MS).unwrap();
    let mut history = History::default();
    let mut n = 0;
    while segment_files(folder.path())[0].1.len() < SMALL_SEGMENT_BYTES as usize {
        n += 1;
        append(&mut ledger, history.create(&format!("app-{n}"))).unwrap();
    }
    let next = disk.mood().calls + 1;
    disk.mood().fails = Some((next, io::ErrorKind::StorageFull));
    append(&mut ledger, history.create("one")).unwrap();
    assert_eq!(segment_files(folder.path()).len(), 1);
    append(&mut ledger, history.create("two")).unwrap();
    assert_eq!(segment_files(folder.path()).len(), 2);
    drop(ledger);
    assert_eq!(events(&open(folder.path())).len(), n + 2);
}

#[test]
fn the_host_file_system_reserves_space_without_changing_the_length() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, report) = Ledger::open(folder.path(), options(HostDisk), NOW_MS).unwrap();
    let file = folder.path().join(segment::file_name(1));
    assert!(std::fs::metadata(&file).unwrap().len() < 200);
    if report.reserves_space {
        use std::os::unix::fs::MetadataExt as _;
        assert!(std::fs::metadata(&file).unwrap().blocks() * 512 >= super::room::RESERVE_BYTES);
    }
}

#[test]
fn a_record_is_synced_before_it_is_acknowledged_and_a_segment_before_it_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let disk = BadDisk::default();
    let (mut ledger, _) = Ledger::open(folder.path(), options(disk.clone()), NOW_MS).unwrap();
    let began = std::mem::take(&mut disk.mood().log);
    assert_eq!(began, ["create", "write", "sync", "rename", "sync_directory", "reserve"]);
    append(&mut ledger, History::default().create("shop")).unwrap();
    assert_eq!(disk.mood().log, ["write", "sync"]);
}

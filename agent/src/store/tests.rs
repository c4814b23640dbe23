//! One suite over both shelves, and a keeper whose store breaks while it runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use refloat_model::{AppName, Entry, Event, ReleaseNumber};

use super::keeper::{Keeper, StoreOptions};
use super::probe::ProbeWith;
use super::records::Store;
use super::shelf::{MemoryShelf, Order, Shelf};
use super::sled_shelf::SledShelf;
use super::{StoreError, key};
use crate::journal::sample::{History, ada, app};
use crate::ledger::{Ledger, LedgerOptions, Position};

const SOON: Duration = Duration::from_millis(300);

/// A shelf of each kind, with what it lies in.
fn both() -> Vec<(Option<tempfile::TempDir>, Box<dyn Shelf>)> {
    let folder = tempfile::tempdir().unwrap();
    let sled: Box<dyn Shelf> = Box::new(SledShelf::open(folder.path()).unwrap());
    vec![(None, Box::new(MemoryShelf::default())), (Some(folder), sled)]
}

pub(super) fn entries() -> Vec<Entry> {
    let mut events = vec![Event::HostInitialised { host_id: [1; 16], epoch: refloat_model::Epoch(1) }];
    events.extend(History::default().of_every_kind());
    events.into_iter().map(|event| Entry { at_ms: 1, by: ada(), event }).collect()
}

fn at(sequence: u64) -> Position {
    Position { sequence, hash: [sequence.to_le_bytes()[0]; 32] }
}

/// Every pair of a shelf.
fn pairs(shelf: &dyn Shelf) -> Vec<(Vec<u8>, Vec<u8>)> {
    shelf.range(b"", Order::Ascending, usize::MAX).unwrap()
}

#[test]
fn a_shelf_reads_ranges_in_both_directions_and_no_neighbour() {
    for (_folder, mut shelf) in both() {
        let put = |key: &str| (key.as_bytes().to_vec(), Some(b"v".to_vec()));
        shelf.write(["a", "b1", "b2", "b3", "c"].map(put).to_vec()).unwrap();
        let keys = |order, limit| -> Vec<String> {
            let found = shelf.range(b"b", order, limit).unwrap();
            found.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
        };
        assert_eq!(keys(Order::Ascending, 9), ["b1", "b2", "b3"]);
        assert_eq!(keys(Order::Descending, 2), ["b3", "b2"]);
        shelf.write(vec![(b"b2".to_vec(), None), put("b4")]).unwrap();
        assert_eq!(pairs(shelf.as_ref()).len(), 5);
        assert_eq!(shelf.get(b"b2").unwrap(), None);
        assert_eq!(shelf.get(b"b4").unwrap(), Some(b"v".to_vec()));
    }
}

#[test]
fn the_prefix_of_the_last_keys_is_read_in_both_directions() {
    for (_folder, mut shelf) in both() {
        let put = |key: &[u8]| (key.to_vec(), Some(Vec::new()));
        shelf.write(vec![put(&[1]), put(&[0xff, 0xff]), put(&[0xff, 0xff, 1])]).unwrap();
        for order in [Order::Ascending, Order::Descending] {
            assert_eq!(shelf.range(&[0xff, 0xff], order, 9).unwrap().len(), 2, "{order:?}");
        }
    }
}

#[test]
fn what_is_prepared_is_seen_only_once_it_is_committed_with_its_position() {
    for (_folder, shelf) in both() {
        let mut store = Store::on(shelf);
        assert_eq!(store.position(), Ok(Position::GENESIS));
        store.prepare(&entries()).unwrap();
        assert_eq!((store.app(&app("shop")), store.position()), (Ok(None), Ok(Position::GENESIS)));
        store.commit(at(7)).unwrap();
        assert!(store.app(&app("shop")).unwrap().is_some());
        assert_eq!((store.position(), store.examine()), (Ok(at(7)), Ok(at(7))));
    }
}

#[test]
fn folding_one_by_one_or_all_at_once_makes_the_same_records_on_either_shelf() {
    let mut all = Vec::new();
    for one_by_one in [false, true] {
        for (_folder, shelf) in both() {
            let mut store = Store::on(shelf);
            let entries = entries();
            let chunk = if one_by_one { 1 } else { entries.len() };
            for entries in entries.chunks(chunk) {
                store.prepare(entries).unwrap();
                store.commit(at(9)).unwrap();
            }
            assert_eq!(store.examine(), Ok(at(9)));
            all.push(pairs(store.shelf()));
        }
    }
    assert!(all[0].len() > 10);
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn an_entry_that_does_not_fit_is_told_from_a_broken_store() {
    for (_folder, shelf) in both() {
        let mut store = Store::on(shelf);
        let event = Event::DomainsSet { app: app("nobody"), domains: Vec::new() };
        let answer = store.prepare(&[Entry { at_ms: 1, by: ada(), event }]);
        assert_eq!(answer, Err(StoreError::DoesNotFit("there is no such app")));
        store.commit(at(1)).unwrap();
        assert_eq!(store.apps(), Ok(Vec::new()));
    }
}

#[test]
fn a_record_that_is_flipped_lost_added_swapped_or_old_is_noticed() {
    let record = key::release(&app("shop"), ReleaseNumber(1));
    let other = key::release(&app("shop"), ReleaseNumber(2));
    type Damage = Box<dyn Fn(&mut dyn Shelf)>;
    let set = |key: &[u8], value: Option<Vec<u8>>| vec![(key.to_vec(), value)];
    let damages: Vec<(&str, Damage)> = vec![
        ("nothing", Box::new(|_| {})),
        ("flipped", {
            let record = record.clone();
            Box::new(move |shelf| {
                let mut value = shelf.get(&record).unwrap().unwrap();
                value[20] ^= 1;
                shelf.write(set(&record, Some(value))).unwrap();
            })
        }),
        ("lost", {
            let record = record.clone();
            Box::new(move |shelf| shelf.write(set(&record, None)).unwrap())
        }),
        ("added", Box::new(move |shelf| shelf.write(set(b"zz", Some(vec![0; 9]))).unwrap())),
        ("swapped", {
            let (record, other) = (record.clone(), other);
            Box::new(move |shelf| {
                let value = shelf.get(&other).unwrap();
                shelf.write(set(&record, value)).unwrap();
            })
        }),
        ("old", {
            let record = record.clone();
            Box::new(move |shelf| {
                let mut store = Store::on(Box::new(MemoryShelf::default()));
                store.prepare(&entries()[..6]).unwrap();
                store.commit(at(1)).unwrap();
                let old = store.shelf().get(&record).unwrap();
                assert_ne!(old, shelf.get(&record).unwrap());
                shelf.write(set(&record, old)).unwrap();
            })
        }),
        ("of another schema", Box::new(move |shelf| shelf.write(set(key::META, Some(vec![0; 9]))).unwrap())),
    ];
    for (what, damage) in damages {
        for (_folder, shelf) in both() {
            let mut store = Store::on(shelf);
            store.prepare(&entries()).unwrap();
            store.commit(at(1)).unwrap();
            damage(store.shelf_mut());
            assert_eq!(store.examine().is_ok(), what == "nothing", "{what}");
        }
    }
}

/// A ledger with a few records and a keeper over it.
fn keeper() -> (tempfile::TempDir, Ledger, Keeper) {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(&folder.path().join("ledger"), LedgerOptions::default(), 1).unwrap();
    for entry in entries() {
        let draft = ledger.draft(&entry).unwrap();
        ledger.append(draft).unwrap();
    }
    let mut options = StoreOptions::new(folder.path().join("store"), ProbeWith::ThisThread);
    options.answer_within = SOON;
    let keeper = Keeper::open(options, &ledger).unwrap();
    (folder, ledger, keeper)
}

pub(super) fn shop(store: &mut Store) -> Result<Option<AppName>, StoreError> {
    Ok(store.app(&app("shop"))?.map(|state| state.app))
}

#[test]
fn a_store_that_hangs_while_it_runs_is_replaced_and_the_answer_is_right() {
    let (_folder, ledger, mut keeper) = keeper();
    let (let_go, hold) = mpsc::channel::<()>();
    let (hold, first) = (Arc::new(Mutex::new(hold)), Arc::new(AtomicBool::new(true)));
    let answer = keeper.read(&ledger, move |store| {
        if first.swap(false, Ordering::SeqCst) {
            let _ = hold.lock().unwrap().recv();
        }
        shop(store)
    });
    assert_eq!(answer, Ok(Some(app("shop"))));
    let report = keeper.report();
    assert!(report.rebuilt.as_ref().is_some_and(|why| why.contains("did not answer within 300 ms")), "{report:?}");
    assert_eq!(report.in_memory, None);
    drop(let_go);
}

#[test]
fn a_store_that_keeps_panicking_ends_in_memory_and_still_answers() {
    let (_folder, ledger, mut keeper) = keeper();
    for round in 1..=4 {
        let first = Arc::new(AtomicBool::new(true));
        let answer = keeper.read(&ledger, move |store| {
            assert!(!first.swap(false, Ordering::SeqCst), "as sled does");
            shop(store)
        });
        assert_eq!(answer, Ok(Some(app("shop"))), "round {round}");
        assert_eq!(keeper.report().in_memory.is_some(), round == 4);
    }
}

#[test]
fn where_no_store_can_be_kept_on_disk_it_is_kept_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(&folder.path().join("ledger"), LedgerOptions::default(), 1).unwrap();
    std::fs::write(folder.path().join("store"), b"a file where the folder should be").unwrap();
    let options = StoreOptions::new(folder.path().join("store"), ProbeWith::ThisThread);
    let mut keeper = Keeper::open(options, &ledger).unwrap();
    assert!(keeper.report().in_memory.is_some());
    for entry in entries() {
        keeper.prepare(&ledger, &entry).unwrap();
        keeper.commit(&ledger, at(1)).unwrap();
    }
    assert_eq!(keeper.read(&ledger, shop), Ok(Some(app("shop"))));
}

#[test]
fn a_store_that_could_not_be_tried_is_built_again() {
    for program in ["/nonexistent", "/bin/false"] {
        let (folder, ledger, keeper) = keeper();
        drop(keeper);
        let options = StoreOptions::new(folder.path().join("store"), ProbeWith::Executable(program.into()));
        let mut keeper = Keeper::open(options, &ledger).unwrap();
        assert!(keeper.report().rebuilt.is_some(), "{program}");
        assert_eq!(keeper.read(&ledger, shop), Ok(Some(app("shop"))));
    }
}

//! One suite over the journal in memory and the one on disk, so that the fake cannot drift.

use std::path::Path;
use std::sync::Arc;

use refloat_model::{Action, EnvRecord, Event, Outcome, ReleaseNumber};

use super::sample::{History, ada, app, variables};
use super::{Fault, FileJournal, Journal, JournalError, JournalOptions, MemoryDisk, MemoryJournal};
use crate::clock::ManualClock;
use crate::paths::Paths;
use crate::store::ProbeWith;

/// Something that a journal can be opened on again.
enum Disk {
    Memory(MemoryDisk),
    Folder(tempfile::TempDir),
}

/// An open journal of either kind.
enum Open {
    Memory(Box<MemoryJournal>),
    File(FileJournal),
}

impl Disk {
    fn both() -> [Self; 2] {
        [Self::Memory(MemoryDisk::new()), Self::Folder(tempfile::tempdir().unwrap())]
    }

    fn open(&self) -> Open {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        match self {
            Self::Memory(disk) => Open::Memory(Box::new(MemoryJournal::open(disk, clock).unwrap())),
            Self::Folder(folder) => Open::File(open(folder.path())),
        }
    }
}

impl Open {
    fn journal(&self) -> &dyn Journal {
        match self {
            Self::Memory(journal) => journal.as_ref(),
            Self::File(journal) => journal,
        }
    }

    async fn close(self) {
        match self {
            Self::Memory(_) => {}
            Self::File(journal) => journal.close().await,
        }
    }
}

fn options(folder: &Path) -> JournalOptions {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    JournalOptions::new(&Paths::below(folder), ProbeWith::ThisThread, clock)
}

fn open(folder: &Path) -> FileJournal {
    FileJournal::open(options(folder)).unwrap()
}

async fn append_all(journal: &dyn Journal, events: Vec<Event>) {
    for event in events {
        journal.append(&ada(), event.clone()).await.unwrap_or_else(|error| panic!("{event:?}: {error}"));
    }
}

#[tokio::test]
async fn a_new_journal_has_a_host_and_nothing_else() {
    for disk in Disk::both() {
        let open = disk.open();
        let host = open.journal().host().await.unwrap();
        assert_ne!(host.host_id, [0; 16]);
        assert_eq!((host.epoch.0, host.table.generation.epoch.0), (1, 1));
        assert_eq!(open.journal().apps().await.unwrap(), []);
        open.close().await;
    }
}

#[tokio::test]
async fn what_was_appended_is_read_at_once_and_after_a_restart() {
    for disk in Disk::both() {
        let mut history = History::default();
        let open = disk.open();
        append_all(open.journal(), history.of_every_kind()).await;
        let before = everything(open.journal()).await;
        open.close().await;

        let again = disk.open();
        assert_eq!(everything(again.journal()).await, before);
        append_all(again.journal(), history.deploy("shop", 3)).await;
        let shop = again.journal().app(&app("shop")).await.unwrap().unwrap();
        assert_eq!((shop.serving, shop.newest), (Some(ReleaseNumber(3)), Some(ReleaseNumber(3))));
        again.close().await;
    }
}

#[tokio::test]
async fn both_journals_hold_the_same_after_the_same_events() {
    let mut all = Vec::new();
    for disk in Disk::both() {
        let open = disk.open();
        append_all(open.journal(), History::default().of_every_kind()).await;
        all.push(everything(open.journal()).await);
        open.close().await;
    }
    assert_eq!(all[0], all[1]);
}

/// All that can be read, as text, without what is random.
async fn everything(journal: &dyn Journal) -> String {
    let mut host = journal.host().await.unwrap();
    host.host_id = [0; 16];
    let apps = journal.apps().await.unwrap();
    let mut out = format!("{host:?}\n{apps:?}\n");
    for record in &apps {
        assert_eq!(journal.app(&record.app).await.unwrap().as_ref(), Some(record));
        out += &format!("{:?}\n", journal.releases(&record.app, 100).await.unwrap());
        if let Some(env) = &record.env {
            out += &format!("{:?}\n", journal.env(&record.app, env).await.unwrap());
        }
    }
    for n in 1..=20_u64 {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&n.to_be_bytes());
        out += &format!("{:?}\n", journal.deployment(&refloat_model::DeploymentId(id)).await.unwrap());
    }
    out
}

#[tokio::test]
async fn releases_come_newest_first_and_no_more_than_asked_for() {
    for disk in Disk::both() {
        let open = disk.open();
        let mut history = History::default();
        append_all(open.journal(), vec![history.create("shop"), history.create("shop-two")]).await;
        for number in 1..=12 {
            append_all(open.journal(), history.deploy("shop", number)).await;
        }
        append_all(open.journal(), history.deploy("shop-two", 1)).await;
        let numbers = |found: Vec<refloat_model::ReleaseRecord>| found.iter().map(|r| r.number.0).collect::<Vec<_>>();
        assert_eq!(numbers(open.journal().releases(&app("shop"), 3).await.unwrap()), [12, 11, 10]);
        assert_eq!(numbers(open.journal().releases(&app("shop"), 100).await.unwrap()).len(), 12);
        assert_eq!(numbers(open.journal().releases(&app("shop-two"), 100).await.unwrap()), [1]);
        let nine = open.journal().release(&app("shop"), ReleaseNumber(9)).await.unwrap().unwrap();
        assert_eq!((nine.number.0, nine.predecessor), (9, Some(ReleaseNumber(8))));
        open.close().await;
    }
}

#[tokio::test]
async fn an_event_that_does_not_fit_is_refused_and_leaves_nothing() {
    for disk in Disk::both() {
        let open = disk.open();
        let mut history = History::default();
        let stranger = Event::DomainsSet { app: app("nobody"), domains: Vec::new() };
        assert!(matches!(open.journal().append(&ada(), stranger).await, Err(JournalError::Refused(_))));

        append_all(open.journal(), vec![history.create("shop")]).await;
        append_all(open.journal(), history.deploy("shop", 1)).await;
        let before = everything(open.journal()).await;
        let (id, accepted) = history.clone().accept("shop", Action::Restart);
        append_all(open.journal(), vec![accepted]).await;
        let mut elsewhere = history.clone();
        let _skipped = elsewhere.commit(id, "shop", None);
        let wrong_generation = elsewhere.commit(id, "shop", None);
        assert!(matches!(open.journal().append(&ada(), wrong_generation).await, Err(JournalError::Refused(_))));
        append_all(open.journal(), vec![History::end(id, "shop", Outcome::Done)]).await;
        assert_ne!(everything(open.journal()).await, before, "the restart itself is there");
        assert_eq!(open.journal().host().await.unwrap().table.generation.number, 1);
        open.close().await;

        let again = disk.open();
        assert_eq!(again.journal().host().await.unwrap().table.generation.number, 1);
        again.close().await;
    }
}

#[tokio::test]
async fn a_deployment_is_asked_for_by_whoever_appends_it() {
    for disk in Disk::both() {
        let open = disk.open();
        let mut history = History::default();
        append_all(open.journal(), vec![history.create("shop")]).await;
        let (_, accepted) = history.accept("shop", Action::Restart);
        let answer = open.journal().append(&refloat_model::Principal::agent(), accepted).await;
        assert!(matches!(answer, Err(JournalError::Refused(_))));
        open.close().await;
    }
}

#[tokio::test]
async fn a_destroyed_app_leaves_no_record_and_its_name_can_be_used_again() {
    for disk in Disk::both() {
        let open = disk.open();
        let mut history = History::default();
        append_all(open.journal(), vec![history.create("shop"), history.create("shop-two")]).await;
        append_all(open.journal(), history.deploy("shop", 1)).await;
        append_all(open.journal(), history.deploy("shop-two", 1)).await;
        let env = refloat_model::EnvId([5; 32]);
        append_all(open.journal(), vec![Event::EnvSealed { app: app("shop"), env, variables: variables() }]).await;
        assert_eq!(open.journal().env(&app("shop"), &env).await.unwrap(), Some(EnvRecord { variables: variables() }));
        let (id, accepted) = history.accept("shop", Action::Destroy { volumes: true });
        append_all(
            open.journal(),
            vec![
                accepted,
                history.commit_routes(id, "shop", None, None),
                History::end(id, "shop", Outcome::Done),
                Event::AppDestroyed { app: app("shop") },
            ],
        )
        .await;
        assert_eq!(open.journal().app(&app("shop")).await.unwrap(), None);
        assert_eq!(open.journal().releases(&app("shop"), 10).await.unwrap(), []);
        assert_eq!(open.journal().env(&app("shop"), &env).await.unwrap(), None);
        assert_eq!(open.journal().deployment(&id).await.unwrap(), None);
        assert_eq!(open.journal().releases(&app("shop-two"), 10).await.unwrap().len(), 1);
        append_all(open.journal(), vec![history.create("shop")]).await;
        append_all(open.journal(), history.deploy("shop", 1)).await;
        open.close().await;
        let again = disk.open();
        assert_eq!(again.journal().apps().await.unwrap().len(), 2);
        again.close().await;
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_the_record_and_a_failed_write_does_not() {
    for (fault, there) in [(Fault::AnswerLost, true), (Fault::FailBefore, false)] {
        let disk = MemoryDisk::new();
        let clock = Arc::new(ManualClock::at(1));
        let journal = MemoryJournal::open(&disk, clock.clone()).unwrap();
        journal.on_append(move |before, _| (before == 1).then_some(fault));
        let mut history = History::default();
        append_all(&journal, vec![history.create("shop")]).await;
        let second = history.create("blog");
        assert!(matches!(journal.append(&ada(), second).await, Err(JournalError::NotDurable(_))));
        assert!(matches!(journal.append(&ada(), history.create("more")).await, Err(JournalError::Closed(_))));
        let again = MemoryJournal::open(&disk, clock).unwrap();
        assert_eq!(again.app(&app("blog")).await.unwrap().is_some(), there);
        assert_eq!(again.app(&app("more")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn without_room_the_journal_stays_open() {
    let journal = MemoryJournal::open(&MemoryDisk::new(), Arc::new(ManualClock::at(1))).unwrap();
    journal.on_append(|before, _| (before == 0).then_some(Fault::NoRoom));
    let created = History::default().create("shop");
    assert!(matches!(journal.append(&ada(), created.clone()).await, Err(JournalError::NoRoom(_))));
    assert_eq!(journal.append(&ada(), created).await, Ok(()));
}

#[tokio::test]
async fn a_missing_store_is_built_again_and_the_report_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    assert_eq!(journal.report().store.rebuilt, None);
    append_all(&journal, History::default().of_every_kind()).await;
    let before = everything(&journal).await;
    journal.close().await;
    std::fs::remove_dir_all(Paths::below(folder.path()).store()).unwrap();

    let journal = open(folder.path());
    assert_eq!(journal.report().store.rebuilt.as_deref(), Some("it was missing"));
    assert_eq!(everything(&journal).await, before);
    journal.close().await;

    let journal = open(folder.path());
    assert_eq!(journal.report().store.rebuilt, None);
    journal.close().await;
}

#[tokio::test]
async fn a_store_that_is_behind_is_caught_up_and_not_built_again() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::below(folder.path());
    let mut history = History::default();
    let journal = open(folder.path());
    append_all(&journal, history.of_every_kind()).await;
    journal.close().await;
    let kept = tempfile::tempdir().unwrap();
    copy(&paths.store(), kept.path());
    let journal = open(folder.path());
    append_all(&journal, history.deploy("shop", 3)).await;
    let before = everything(&journal).await;
    journal.close().await;
    std::fs::remove_dir_all(paths.store()).unwrap();
    copy(kept.path(), &paths.store());

    let journal = open(folder.path());
    let report = journal.report().store;
    assert_eq!((report.rebuilt, report.caught_up), (None, 6));
    assert_eq!(everything(&journal).await, before);
    journal.close().await;
}

#[tokio::test]
async fn a_store_of_another_ledger_is_built_again() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, name) in [(&one, "shop"), (&other, "blog")] {
        let journal = open(folder.path());
        append_all(&journal, vec![History::default().create(name)]).await;
        journal.close().await;
    }
    let store = Paths::below(one.path()).store();
    std::fs::remove_dir_all(&store).unwrap();
    copy(&Paths::below(other.path()).store(), &store);
    let journal = open(one.path());
    assert_eq!(journal.report().store.rebuilt.as_deref(), Some("it belonged to another ledger"));
    assert!(journal.app(&app("shop")).await.unwrap().is_some());
    journal.close().await;
}

#[tokio::test]
async fn a_ledger_that_lost_acknowledged_records_is_not_opened_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let segment = Paths::below(folder.path()).ledger().join("00000001.log");
    let journal = open(folder.path());
    append_all(&journal, vec![History::default().create("shop")]).await;
    journal.close().await;
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 10]).unwrap();

    let Err(error) = FileJournal::open(options(folder.path())) else { panic!("it opened") };
    let text = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(text.contains("ends at record 2, but record 3 was acknowledged"), "{text}");
    assert_eq!(std::fs::read(&segment).unwrap().len(), bytes.len() - 10);
}

#[tokio::test]
async fn a_flipped_byte_anywhere_in_the_store_never_changes_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Paths::below(folder.path()).store();
    let journal = open(folder.path());
    append_all(&journal, History::default().of_every_kind()).await;
    let before = everything(&journal).await;
    journal.close().await;
    let sound = tempfile::tempdir().unwrap();
    copy(&store, sound.path());
    let written = std::fs::read(crate::store::live_folder(sound.path()).unwrap().join("db")).unwrap();
    let places: Vec<usize> = (0..written.len()).filter(|at| written[*at] == b'p').collect();
    let mut noticed = 0;
    for at in places.iter().step_by((places.len() / 20).max(1)) {
        std::fs::remove_dir_all(&store).unwrap();
        copy(sound.path(), &store);
        let mut flipped = written.clone();
        flipped[*at] ^= 1;
        std::fs::write(crate::store::live_folder(&store).unwrap().join("db"), flipped).unwrap();

        let journal = open(folder.path());
        let report = journal.report().store;
        assert_eq!(everything(&journal).await, before, "byte {at}: {report:?}");
        // With its snapshots gone sled reads its whole log and drops what fails its checksum: the store is behind then.
        noticed += usize::from(report.rebuilt.is_some() || report.caught_up > 0);
        journal.close().await;
    }
    assert!(noticed > 0, "no flip at {} places hit what is read", places.len());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

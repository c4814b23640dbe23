//! The open ledger: scanned, locked and appended to by one owner.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use prost::Message as _;
use refloat_model::{Entry, Epoch, Event};
use rustix::fs::{FlockOperation, flock};

use super::disk::{Disk, HostDisk, SegmentFile};
use super::record::{self, Content, RecordError};
use super::segment::{self, Damage, ReadRecord, Reader};
use super::{Position, frame, room};

/// How a ledger is kept.
pub struct LedgerOptions {
    /// The disk.
    pub disk: Box<dyn Disk>,
    /// A segment of this size is followed by a new one.
    pub segment_bytes: u64,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self { disk: Box::new(HostDisk), segment_bytes: segment::SEGMENT_BYTES }
    }
}

/// What opening a ledger found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerReport {
    /// Records, checkpoints included.
    pub records: u64,
    /// Segments.
    pub segments: usize,
    /// What a crash had left of a record that was never acknowledged.
    pub torn_tail: Option<TornTail>,
    /// Whether the file system can reserve space; without it a full disk is met by a write and closes the ledger.
    pub reserves_space: bool,
}

/// What a crash left of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub segment: PathBuf,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process has it.
    #[error("{path} is in use by another refloatd: stop that one first")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error(
        "the ledger is damaged in {segment} at byte {offset}: {what}. Nothing was changed; the apps keep running. Restore the ledger from a backup, or ask for help with this message"
    )]
    Damaged {
        /// The segment.
        segment: PathBuf,
        /// Where the damaged record begins.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A segment is gone.
    #[error(
        "the ledger lacks {segment} though a later one is there. Nothing was changed; the apps keep running. Restore the ledger from a backup"
    )]
    Missing {
        /// The segment.
        segment: PathBuf,
    },
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// An earlier write or sync failed.
    #[error("the ledger is closed: {0}")]
    Closed(String),
    /// This write or sync failed; the ledger is closed from now on.
    #[error("the write failed: {0}")]
    NotDurable(String),
    /// The disk is full. Nothing was written; the ledger stays open.
    #[error("the disk is full: {0}")]
    NoRoom(String),
    /// The entry cannot be said by a record. Nothing was written.
    #[error("the entry cannot be recorded")]
    Malformed(#[source] RecordError),
    /// The record would be too large. Nothing was written.
    #[error("the entry cannot be recorded")]
    TooLong(#[source] frame::FrameError),
}

/// Why records could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E> {
    /// The ledger could not be read.
    #[error("the ledger could not be read back")]
    Ledger(#[source] LedgerError),
    /// The position is not of this ledger.
    #[error("the ledger has no record {sequence} with that hash")]
    OtherHistory {
        /// The record that was looked for.
        sequence: u64,
    },
    /// Whoever received the records stopped.
    #[error("the receiver stopped")]
    Stopped(#[source] E),
}

/// A record that is ready to be appended.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    frame: Vec<u8>,
    position: Position,
    left_after: u64,
    epoch: Option<Epoch>,
    /// The entry as it will be read back: this is what is folded.
    pub entry: Entry,
}

/// The open ledger.
pub struct Ledger {
    folder: PathBuf,
    disk: Box<dyn Disk>,
    segment_bytes: u64,
    /// Position before the first record of each segment; segment `n` is at index `n - 1`.
    starts: Vec<Position>,
    file: Box<dyn SegmentFile>,
    length: u64,
    /// Up to where disk space is taken.
    reserved_to: u64,
    reserves_space: bool,
    end: Position,
    epoch: Epoch,
    torn: Option<TornTail>,
    closed: Option<String>,
    /// Held for as long as the ledger is open.
    _lock: File,
}

impl Ledger {
    /// Opens the ledger in a folder, or begins one there. Every record is read and checked. A torn tail is found but
    /// left alone until [`Ledger::settle`].
    ///
    /// # Errors
    /// When it is in use, cannot be read or does not check out.
    pub fn open(folder: &Path, options: LedgerOptions, now_ms: u64) -> Result<(Self, LedgerReport), LedgerError> {
        let lock = lock(folder)?;
        let numbers = segment_numbers(folder)?;
        let scan = scan(folder, &numbers)?;
        let LedgerOptions { disk, segment_bytes } = options;
        let (file, scan) = if numbers.is_empty() {
            begin(folder, disk.as_ref(), scan, now_ms)?
        } else {
            let path = folder.join(segment::file_name(numbers.len() as u64));
            (disk.open(&path).map_err(io_error("open", &path))?, scan)
        };
        let mut ledger = Self {
            folder: folder.to_owned(),
            disk,
            segment_bytes,
            starts: scan.starts,
            file,
            length: scan.length,
            reserved_to: 0,
            reserves_space: true,
            end: scan.end,
            epoch: scan.epoch,
            torn: scan.torn,
            closed: None,
            _lock: lock,
        };
        ledger.reserve(room::RESERVE_BYTES);
        let report = ledger.report();
        Ok((ledger, report))
    }

    /// Position after the newest record.
    #[must_use]
    pub fn position(&self) -> Position {
        self.end
    }

    fn report(&self) -> LedgerReport {
        LedgerReport {
            records: self.end.sequence,
            segments: self.starts.len(),
            torn_tail: self.torn.clone(),
            reserves_space: self.reserves_space,
        }
    }

    /// Cuts off a torn tail, after which records can be appended.
    ///
    /// # Errors
    /// When the file cannot be cut or synced.
    pub fn settle(&mut self) -> Result<(), LedgerError> {
        let Some(torn) = &self.torn else { return Ok(()) };
        self.file.truncate(torn.offset).map_err(io_error("cut", &torn.segment))?;
        self.file.sync().map_err(io_error("sync", &torn.segment))?;
        self.torn = None;
        self.reserved_to = 0;
        self.reserve(room::RESERVE_BYTES);
        Ok(())
    }

    /// Encodes an entry as the next record. Begins a new segment first when the current one is full.
    ///
    /// # Errors
    /// When the ledger is closed, a new segment fails, or no record can say this.
    pub fn draft(&mut self, entry: &Entry) -> Result<Draft, AppendError> {
        self.check_open()?;
        if self.length >= self.segment_bytes {
            self.rotate(entry.at_ms)?;
        }
        let sequence = self.end.sequence + 1;
        let record = record::from_entry(sequence, entry).map_err(AppendError::Malformed)?;
        let entry = match record::to_content(&record).map_err(AppendError::Malformed)? {
            Content::Entry(entry) => *entry,
            Content::Checkpoint { .. } => return Err(AppendError::Closed("an entry became a checkpoint".to_owned())),
        };
        let frame = frame::encode(&record.encode_to_vec(), &self.end.hash).map_err(AppendError::TooLong)?;
        let epoch = match &entry.event {
            Event::HostInitialised { epoch, .. } => Some(*epoch),
            _ => None,
        };
        Ok(Draft {
            position: Position { sequence, hash: *blake3::hash(&frame).as_bytes() },
            left_after: room::left_after(&entry.event),
            frame,
            epoch,
            entry,
        })
    }

    /// Makes a draft durable. When this answers `Ok`, it is on the disk.
    ///
    /// # Errors
    /// `NoRoom` leaves the ledger as it was; any failed write or sync closes it for good.
    pub fn append(&mut self, draft: Draft) -> Result<Position, AppendError> {
        self.check_open()?;
        if draft.position.sequence != self.end.sequence + 1 {
            return Err(self.close("a draft was appended out of turn".to_owned()));
        }
        self.make_room(draft.frame.len() as u64, draft.left_after)?;
        let offset = self.length;
        let result = self.file.write_at(offset, &draft.frame).and_then(|()| self.file.sync());
        if let Err(error) = result {
            return Err(self.close(error.to_string()));
        }
        self.length += draft.frame.len() as u64;
        self.end = draft.position;
        self.epoch = draft.epoch.unwrap_or(self.epoch);
        Ok(self.end)
    }

    /// Hands every record after a position to `visit`, in order. Checkpoints come too: they move the position.
    ///
    /// # Errors
    /// When the position is not of this ledger, a segment cannot be read, or `visit` stops.
    pub fn replay<E>(
        &self,
        after: &Position,
        mut visit: impl FnMut(Position, Content) -> Result<(), E>,
    ) -> Result<(), ReplayError<E>> {
        let other = || ReplayError::OtherHistory { sequence: after.sequence };
        if after.sequence > self.end.sequence {
            return Err(other());
        }
        let first = self.starts.partition_point(|start| start.sequence <= after.sequence).saturating_sub(1);
        let mut found = self.starts[first] == *after;
        for (index, start) in self.starts.iter().enumerate().skip(first) {
            let path = self.folder.join(segment::file_name(index as u64 + 1));
            let bytes = read(&path).map_err(ReplayError::Ledger)?;
            let newest = index + 1 == self.starts.len();
            let intact = if newest { self.length } else { bytes.len() as u64 };
            let intact = usize::try_from(intact).unwrap_or(usize::MAX).min(bytes.len());
            let mut reader = Reader::new(&bytes[..intact], *start, false);
            while let Some(read) = next(&mut reader, &path).map_err(ReplayError::Ledger)? {
                if read.position.sequence > after.sequence {
                    if !found {
                        return Err(other());
                    }
                    let (position, content) = content(&path, read).map_err(ReplayError::Ledger)?;
                    visit(position, content).map_err(ReplayError::Stopped)?;
                } else {
                    found |= read.position == *after;
                }
            }
        }
        if found { Ok(()) } else { Err(other()) }
    }

    fn check_open(&self) -> Result<(), AppendError> {
        match (&self.closed, &self.torn) {
            (Some(why), _) => Err(AppendError::Closed(why.clone())),
            (None, Some(_)) => Err(AppendError::Closed("its torn tail was not cut off yet".to_owned())),
            (None, None) => Ok(()),
        }
    }

    /// Closes the ledger for good.
    fn close(&mut self, why: String) -> AppendError {
        self.closed = Some(why.clone());
        AppendError::NotDurable(why)
    }

    fn make_room(&mut self, frame_bytes: u64, left_after: u64) -> Result<(), AppendError> {
        if !self.reserves_space || self.reserved_to >= self.length + frame_bytes + room::RESERVE_BYTES {
            return Ok(());
        }
        self.reserve(frame_bytes + room::RESERVE_BYTES);
        if !self.reserves_space || self.reserved_to >= self.length + frame_bytes + left_after {
            return Ok(());
        }
        Err(AppendError::NoRoom(format!(
            "the ledger in {} has {} KiB left for finishing what runs. Free some disk space and try again; what serves keeps serving",
            self.folder.display(),
            self.reserved_to.saturating_sub(self.length) / 1024
        )))
    }

    /// Takes as much space ahead as there is: a chunk, else what is wanted, else less.
    fn reserve(&mut self, wanted: u64) {
        let mut bytes = room::CHUNK_BYTES.max(wanted);
        while bytes >= 4096 {
            match self.file.reserve(self.length, bytes) {
                Ok(()) => {
                    self.reserved_to = self.reserved_to.max(self.length + bytes);
                    return;
                }
                Err(error) if is_full(&error) => {
                    bytes = if bytes > wanted { wanted } else { bytes / 2 };
                }
                Err(_) => {
                    self.reserves_space = false;
                    return;
                }
            }
        }
    }

    /// Begins the next segment; on a full disk the current one simply grows on into its reserve.
    fn rotate(&mut self, now_ms: u64) -> Result<(), AppendError> {
        let number = self.starts.len() as u64 + 1;
        match create_segment(&self.folder, self.disk.as_ref(), number, self.end, self.epoch, now_ms) {
            Ok(new) => {
                // Only space is given back here; the old segment is complete and synced either way.
                let _ = self.file.truncate(self.length);
                self.starts.push(self.end);
                self.file = new.file;
                self.length = new.length;
                self.end = new.end;
                self.reserved_to = 0;
                self.reserve(room::RESERVE_BYTES);
                Ok(())
            }
            // Once the new segment has its name, going on in the old one would fork the chain.
            Err(LedgerError::Io { source, .. })
                if is_full(&source) && !self.folder.join(segment::file_name(number)).exists() =>
            {
                Ok(())
            }
            Err(error) => Err(self.close(describe(&error))),
        }
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::Io { action, path, source }
}

fn lock(folder: &Path) -> Result<File, LedgerError> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_error("create", folder))?;
        if let Some(parent) = folder.parent() {
            File::open(parent).and_then(|f| f.sync_all()).map_err(io_error("sync", parent))?;
        }
    }
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::Locked { path }),
        Err(error) => Err(LedgerError::Io { action: "lock", path, source: error.into() }),
    }
}

/// Numbers of the segments that are there: 1, 2, 3, … without a gap.
fn segment_numbers(folder: &Path) -> Result<Vec<u64>, LedgerError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error("list", folder))? {
        let entry = entry.map_err(io_error("list", folder))?;
        numbers.extend(entry.file_name().to_str().and_then(segment::number_of));
    }
    numbers.sort_unstable();
    match (1..).zip(&numbers).find(|(expected, found)| expected != *found) {
        Some((expected, _)) => Err(LedgerError::Missing { segment: folder.join(segment::file_name(expected)) }),
        None => Ok(numbers),
    }
}

struct Scan {
    starts: Vec<Position>,
    end: Position,
    epoch: Epoch,
    length: u64,
    torn: Option<TornTail>,
}

/// Reads and checks every record of every segment.
fn scan(folder: &Path, numbers: &[u64]) -> Result<Scan, LedgerError> {
    let mut scan = Scan { starts: Vec::new(), end: Position::GENESIS, epoch: Epoch(1), length: 0, torn: None };
    for number in numbers {
        let path = folder.join(segment::file_name(*number));
        let bytes = read(&path)?;
        scan.starts.push(scan.end);
        let mut reader = Reader::new(&bytes, scan.end, *number == numbers.len() as u64);
        scan.epoch = checkpoint(&mut reader, &path, *number)?;
        while let Some(read) = next(&mut reader, &path)? {
            if let Content::Entry(entry) = content(&path, read)?.1
                && let Event::HostInitialised { epoch, .. } = entry.event
            {
                scan.epoch = epoch;
            }
        }
        scan.end = reader.position();
        scan.length = reader.intact_bytes() as u64;
        let torn_bytes = bytes.len() as u64 - scan.length;
        scan.torn = (torn_bytes > 0).then_some(TornTail { segment: path, offset: scan.length, bytes: torn_bytes });
    }
    Ok(scan)
}

/// Reads the first record, which says which segment this is.
fn checkpoint(reader: &mut Reader<'_>, path: &Path, number: u64) -> Result<Epoch, LedgerError> {
    let damaged = |what: &str| LedgerError::Damaged { segment: path.to_owned(), offset: 0, what: what.to_owned() };
    let first = next(reader, path)?.ok_or_else(|| damaged("the segment is empty"))?;
    match content(path, first)?.1 {
        Content::Checkpoint { epoch, segment } if segment == number => Ok(epoch),
        Content::Checkpoint { .. } => Err(damaged("the segment carries the number of another one")),
        Content::Entry(_) => Err(damaged("the segment does not begin with a checkpoint")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LedgerError> {
    let length = std::fs::metadata(path).map_err(io_error("read", path))?.len();
    if length > segment::MAX_SEGMENT_BYTES {
        let what = format!("the segment has {length} bytes, more than any that was written");
        return Err(LedgerError::Damaged { segment: path.to_owned(), offset: 0, what });
    }
    std::fs::read(path).map_err(io_error("read", path))
}

fn next(reader: &mut Reader<'_>, path: &Path) -> Result<Option<ReadRecord>, LedgerError> {
    reader.next_record().map_err(|Damage { offset, what }| LedgerError::Damaged {
        segment: path.to_owned(),
        offset,
        what,
    })
}

fn content(path: &Path, read: ReadRecord) -> Result<(Position, Content), LedgerError> {
    let content = record::to_content(&read.record).map_err(|why| LedgerError::Damaged {
        segment: path.to_owned(),
        offset: read.offset,
        what: why.to_string(),
    })?;
    Ok((read.position, content))
}

/// Begins a ledger.
fn begin(
    folder: &Path,
    disk: &dyn Disk,
    mut scan: Scan,
    now_ms: u64,
) -> Result<(Box<dyn SegmentFile>, Scan), LedgerError> {
    let new = create_segment(folder, disk, 1, scan.end, scan.epoch, now_ms)?;
    scan.starts.push(scan.end);
    scan.end = new.end;
    scan.length = new.length;
    Ok((new.file, scan))
}

struct NewSegment {
    file: Box<dyn SegmentFile>,
    length: u64,
    end: Position,
}

/// Makes a segment with its checkpoint appear, durable and whole: written under another name, synced, renamed.
fn create_segment(
    folder: &Path,
    disk: &dyn Disk,
    number: u64,
    after: Position,
    epoch: Epoch,
    now_ms: u64,
) -> Result<NewSegment, LedgerError> {
    let path = folder.join(segment::file_name(number));
    let new = path.with_extension("log.new");
    let sequence = after.sequence + 1;
    let body = record::from_checkpoint(sequence, now_ms, epoch, number).encode_to_vec();
    let frame = frame::encode(&body, &after.hash).map_err(|why| LedgerError::Damaged {
        segment: path.clone(),
        offset: 0,
        what: why.to_string(),
    })?;
    if new.exists() {
        disk.remove(&new).map_err(io_error("remove", &new))?;
    }
    let mut file = disk.create(&new).map_err(io_error("create", &new))?;
    file.write_at(0, &frame).map_err(io_error("write", &new))?;
    file.sync().map_err(io_error("sync", &new))?;
    disk.rename(&new, &path).map_err(io_error("rename", &new))?;
    disk.sync_directory(folder).map_err(io_error("sync", folder))?;
    let end = Position { sequence, hash: *blake3::hash(&frame).as_bytes() };
    Ok(NewSegment { file, length: frame.len() as u64, end })
}

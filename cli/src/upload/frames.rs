//! What is sent: frames, children before their directory, as one zstd stream in pieces.

use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use refloat_plan::tree::Digest;
use refloat_proto::v1::UploadRequest;
use tokio::sync::mpsc::Sender;

use super::hash::{changed, read_file};
use super::tree::Source;
use crate::exit::Exit;
use crate::failure::Failure;

/// Fast, and within a few percent of what the source can be pressed to.
const ZSTD_LEVEL: i32 = 3;
/// Bytes of one message: large enough for speed, small enough for flow control.
const PIECE_BYTES: usize = 256 << 10;
const BUFFER_BYTES: usize = 256 << 10;
const DIRECTORY: u8 = 1;
const FILE: u8 = 2;

/// One object to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// A directory's record.
    Directory(Digest),
    /// A file's bytes.
    File(Digest),
}

/// What the server lacks.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    /// Directories.
    pub(super) directories: HashSet<Digest>,
    /// Files.
    pub(super) files: HashSet<Digest>,
}

/// The frames in their order.
pub(super) fn order(source: &Source, lacking: &Lacking) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut done = HashSet::new();
    visit(source, lacking, source.root, &mut done, &mut frames);
    frames
}

fn visit(source: &Source, lacking: &Lacking, at: Digest, done: &mut HashSet<Digest>, frames: &mut Vec<Frame>) {
    let Some(record) = source.directories.get(&at).filter(|_| lacking.directories.contains(&at) && done.insert(at))
    else {
        return;
    };
    for file in &record.files {
        if lacking.files.contains(file) && done.insert(*file) {
            frames.push(Frame::File(*file));
        }
    }
    for directory in &record.directories {
        visit(source, lacking, *directory, done, frames);
    }
    frames.push(Frame::Directory(at));
}

/// How many bytes these frames have before compression.
pub(super) fn total_bytes(source: &Source, frames: &[Frame]) -> u64 {
    let size = |frame: &Frame| match frame {
        Frame::Directory(digest) => source.directories.get(digest).map_or(0, |record| record.encoded.len() as u64),
        Frame::File(digest) => source.files.get(digest).map_or(0, |file| file.size),
    };
    frames.iter().map(size).sum()
}

/// How far the writing is.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Bytes that were read, before compression.
    pub(super) read: AtomicU64,
    /// Bytes that were handed to the connection.
    pub(super) sent: AtomicU64,
}

/// Writes the frames; blocks while the connection is slower than the disk.
pub(super) fn write(
    source: &Source,
    frames: &[Frame],
    pieces: Sender<UploadRequest>,
    counters: &Counters,
) -> Result<(), Failure> {
    let pieces = Pieces { to: pieces, piece: Vec::with_capacity(PIECE_BYTES), counters };
    let mut stream = zstd::Encoder::new(pieces, ZSTD_LEVEL).map_err(|e| closed(&e))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for frame in frames {
        match frame {
            Frame::Directory(digest) => write_directory(source, digest, &mut stream, counters)?,
            Frame::File(digest) => write_file(source, digest, &mut stream, &mut buffer, counters)?,
        }
    }
    stream.finish().and_then(|mut pieces| pieces.flush()).map_err(|e| closed(&e))
}

fn header(kind: u8, digest: &Digest, length: u64) -> Vec<u8> {
    let mut header = vec![kind];
    header.extend_from_slice(digest);
    header.extend_from_slice(&length.to_be_bytes());
    header
}

fn write_directory(
    source: &Source,
    digest: &Digest,
    stream: &mut impl Write,
    counters: &Counters,
) -> Result<(), Failure> {
    let Some(record) = source.directories.get(digest) else { return Ok(()) };
    let length = record.encoded.len() as u64;
    stream.write_all(&header(DIRECTORY, digest, length)).map_err(|e| closed(&e))?;
    stream.write_all(&record.encoded).map_err(|e| closed(&e))?;
    counters.read.fetch_add(length, Ordering::Relaxed);
    Ok(())
}

fn write_file(
    source: &Source,
    digest: &Digest,
    stream: &mut impl Write,
    buffer: &mut [u8],
    counters: &Counters,
) -> Result<(), Failure> {
    let Some(file) = source.files.get(digest) else { return Ok(()) };
    stream.write_all(&header(FILE, digest, file.size)).map_err(|e| closed(&e))?;
    let mut hasher = blake3::Hasher::new();
    read_file(&source.folder, file, buffer, |bytes| {
        hasher.update(bytes);
        counters.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        stream.write_all(bytes).map_err(|e| closed(&e))
    })?;
    if hasher.finalize().as_bytes() == digest { Ok(()) } else { Err(changed(file)) }
}

fn closed(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unreachable, format!("The upload broke off: {error}")).reason(CLOSED)
}

/// Why writing ended when the server ended it: what the server said is the better message.
pub(super) const CLOSED: &str = "UPLOAD_CLOSED";

/// Cuts a stream into messages.
struct Pieces<'a> {
    to: Sender<UploadRequest>,
    piece: Vec<u8>,
    counters: &'a Counters,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.piece.extend_from_slice(taken);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.counters.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        let ended = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        self.to.blocking_send(UploadRequest { data }).map_err(ended)
    }
}

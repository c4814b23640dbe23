//! The receiving side of an upload: a compressed stream of objects becomes objects in the source store.
//!
//! ```text
//! bytes of messages ──▶ zstd ──▶ [kind u8][digest 32][length u64 BE][bytes] … ──▶ Cas
//! ```
//!
//! Transport-free and blocking: [`Receiver::push`] hashes, writes and syncs. An RPC handler feeds [`receive`] through a
//! bounded channel, and the channel's bound is the back pressure:
//!
//! ```ignore
//! let (sender, receiver) = mpsc::channel(4);
//! let task = tokio::spawn(upload::receive(cas, receiver));
//! while let Some(message) = stream.message().await? {
//!     if sender.send(message.data.into()).await.is_err() { break; }   // the receiver has refused: its error says why
//! }
//! drop(sender);
//! let received = task.await??;
//! ```
//!
//! Whatever is sent, and wherever it is cut: an object is stored whole and verified or not at all, and what was stored
//! before the cut stays, so that the next attempt sends only the rest. Only [`Receiver::finish`] acknowledges.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use refloat_plan::tree::{Digest, MAX_FILE_BYTES, MAX_FILES, MAX_TREE_BYTES};
use tokio::sync::mpsc;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::cas::sources::MAX_DIRECTORY_BYTES;
use crate::cas::{Cas, CasError, FileWriter, Intake};

/// Kind of a directory's frame.
pub const KIND_DIRECTORY: u8 = 1;
/// Kind of a file's frame.
pub const KIND_FILE: u8 = 2;
/// Bytes of a frame's head: kind, digest, length.
pub const HEAD_BYTES: usize = 1 + 32 + 8;
/// Most objects in one upload: as many folders as files.
pub const MAX_OBJECTS: u64 = 2 * MAX_FILES as u64;
/// Most bytes of one upload after decompression.
pub const MAX_DECODED_BYTES: u64 = MAX_TREE_BYTES + (256 << 20);
/// What an upload leaves free on the disk, in bytes: the ledger and the apps need room too.
pub const RESERVED_BYTES: u64 = 256 << 20;
/// Largest window of the compressed stream as a power of two: 8 MiB, what every zstd encoder stays within by default.
pub const MAX_WINDOW_LOG: u32 = 23;

const OUT_BYTES: usize = 128 << 10;

/// Why an upload was refused. Objects that were complete before it stay.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Not a zstd stream, or a damaged one.
    #[error("the upload is not a readable zstd stream")]
    Compression(#[source] io::Error),
    /// A kind of frame that this program does not know.
    #[error("the upload has an object of unknown kind {0}; is the client newer than the server?")]
    UnknownKind(u8),
    /// A limit.
    #[error("the upload has {found} {what}; the limit is {limit}")]
    OverLimit {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much may be.
        limit: u64,
    },
    /// The disk would be too full for the apps that run.
    #[error(
        "the server's disk has {free_mib} MiB left, too little for this upload; free some space on the server first"
    )]
    DiskFull {
        /// What is left, in MiB.
        free_mib: u64,
    },
    /// It ended in the middle of an object.
    #[error("the upload was cut off; what arrived whole is kept, deploy again to send the rest")]
    Cut,
    /// An object was refused or could not be stored.
    #[error("object {number} of the upload could not be stored")]
    Object {
        /// Its place in the upload, from 1.
        number: u64,
        /// Why.
        #[source]
        source: CasError,
    },
    /// What arrived could not be made durable.
    #[error("the upload could not be made durable")]
    Sync(#[source] CasError),
    /// The thread that received it is gone.
    #[error("the upload was interrupted on the server")]
    Interrupted,
}

/// What an upload brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Objects.
    pub objects: u64,
    /// Bytes after decompression.
    pub bytes: u64,
}

/// Receives one upload.
pub struct Receiver {
    zstd: Decoder<'static>,
    out: Vec<u8>,
    /// Whether the compressed stream is at the end of a zstd frame.
    at_frame_end: bool,
    objects: Objects,
    refused: bool,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("received", &self.objects.received).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Begins to receive.
    ///
    /// # Errors
    /// When no decompressor can be made.
    pub fn new(cas: Arc<Cas>) -> Result<Self, UploadError> {
        let mut zstd = Decoder::new().map_err(UploadError::Compression)?;
        zstd.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(UploadError::Compression)?;
        let objects = Objects { intake: cas.intake(), received: Received::default(), state: State::empty_head() };
        Ok(Self { zstd, out: vec![0; OUT_BYTES], at_frame_end: true, objects, refused: false })
    }

    /// Takes the next bytes of the stream, cut anywhere.
    ///
    /// # Errors
    /// When they break a rule. Nothing more is taken then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        if self.refused {
            return Err(UploadError::Interrupted);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let pushed = self.decompress(bytes);
        if pushed.is_err() {
            self.refused = true;
            // What arrived whole stays. Should that fail, it is sent again: the refusal is what counts.
            let _ = self.objects.intake.keep();
        }
        pushed
    }

    /// Ends the upload and makes what arrived durable: only now may it be acknowledged.
    ///
    /// # Errors
    /// When it ends in the middle of an object, or a sync fails.
    pub fn finish(self) -> Result<Received, UploadError> {
        if self.refused {
            return Err(UploadError::Interrupted);
        }
        let whole = self.at_frame_end && self.objects.state.is_between_objects();
        self.objects.intake.finish().map_err(UploadError::Sync)?;
        if whole { Ok(self.objects.received) } else { Err(UploadError::Cut) }
    }

    fn decompress(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let mut input = InBuffer::around(bytes);
        loop {
            let mut output = OutBuffer::around(self.out.as_mut_slice());
            let hint = self.zstd.run(&mut input, &mut output).map_err(UploadError::Compression)?;
            let written = output.pos();
            self.at_frame_end = hint == 0;
            self.objects.take(&self.out[..written])?;
            // A full buffer may mean that more waits inside the decompressor, but not at the end of a zstd frame: asked
            // there without input, it would answer how much of a next frame it wants.
            if input.pos() == bytes.len() && (self.at_frame_end || written < OUT_BYTES) {
                return Ok(());
            }
        }
    }
}

/// The decompressed side: frames become objects.
struct Objects {
    intake: Intake,
    received: Received,
    state: State,
}

/// Where in a frame the stream is.
enum State {
    Head(Vec<u8>),
    Directory { digest: Digest, length: u64, bytes: Vec<u8> },
    File { writer: Box<FileWriter>, left: u64 },
}

impl State {
    fn empty_head() -> Self {
        Self::Head(Vec::with_capacity(HEAD_BYTES))
    }

    fn is_between_objects(&self) -> bool {
        matches!(self, Self::Head(head) if head.is_empty())
    }
}

impl Objects {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), UploadError> {
        self.received.bytes += bytes.len() as u64;
        limit("bytes", self.received.bytes, MAX_DECODED_BYTES)?;
        while !bytes.is_empty() {
            bytes = self.step(bytes)?;
        }
        Ok(())
    }

    /// Takes some bytes and answers the rest.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], UploadError> {
        let number = self.received.objects + 1;
        let refuse = |source| UploadError::Object { number, source };
        match &mut self.state {
            State::Head(head) => {
                let (mine, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - head.len()));
                head.extend_from_slice(mine);
                if head.len() == HEAD_BYTES {
                    let head = std::mem::take(head);
                    self.begin(&head)?;
                }
                Ok(rest)
            }
            State::Directory { digest, length, bytes: record } => {
                let (mine, rest) = split(bytes, *length - record.len() as u64);
                record.extend_from_slice(mine);
                if record.len() as u64 == *length {
                    self.intake.directory(digest, record).map_err(refuse)?;
                    self.end();
                }
                Ok(rest)
            }
            State::File { writer, left } => {
                let (mine, rest) = split(bytes, *left);
                writer.write(mine).map_err(refuse)?;
                *left -= mine.len() as u64;
                if *left == 0 {
                    self.end_file()?;
                }
                Ok(rest)
            }
        }
    }

    fn begin(&mut self, head: &[u8]) -> Result<(), UploadError> {
        let number = self.received.objects + 1;
        limit("objects", number, MAX_OBJECTS)?;
        let Some((kind, digest, length)) = parse(head) else { return Err(UploadError::Cut) };
        match kind {
            KIND_DIRECTORY => {
                limit("bytes in one folder record", length, MAX_DIRECTORY_BYTES)?;
                // Grows with what arrives, not with what is announced. The shortest record has two bytes.
                self.state = State::Directory { digest, length: length.max(1), bytes: Vec::new() };
                Ok(())
            }
            KIND_FILE => {
                limit("bytes in one file", length, MAX_FILE_BYTES)?;
                let refuse = |source| UploadError::Object { number, source };
                let free = self.intake.cas().free_bytes().map_err(refuse)?;
                if free < length + RESERVED_BYTES {
                    return Err(UploadError::DiskFull { free_mib: free >> 20 });
                }
                let writer = self.intake.file_writer(&digest, length).map_err(refuse)?;
                self.state = State::File { writer: Box::new(writer), left: length };
                if length == 0 { self.end_file() } else { Ok(()) }
            }
            other => Err(UploadError::UnknownKind(other)),
        }
    }

    fn end_file(&mut self) -> Result<(), UploadError> {
        let number = self.received.objects + 1;
        if let State::File { writer, .. } = std::mem::replace(&mut self.state, State::empty_head()) {
            self.intake.file(*writer).map_err(|source| UploadError::Object { number, source })?;
        }
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        self.received.objects += 1;
        self.state = State::empty_head();
    }
}

fn parse(head: &[u8]) -> Option<(u8, Digest, u64)> {
    let (&kind, rest) = head.split_first()?;
    let (digest, length) = rest.split_at_checked(32)?;
    Some((kind, digest.try_into().ok()?, u64::from_be_bytes(length.try_into().ok()?)))
}

fn split(bytes: &[u8], wanted: u64) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.len().min(usize::try_from(wanted).unwrap_or(usize::MAX)))
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), UploadError> {
    if found > limit { Err(UploadError::OverLimit { what, found, limit }) } else { Ok(()) }
}

/// Receives an upload from a channel of chunks, on a blocking thread. The end of the channel is the end of the stream.
///
/// # Errors
/// As [`Receiver::push`] and [`Receiver::finish`]. The channel is closed at the first error, so that the sender stops.
pub async fn receive(cas: Arc<Cas>, mut chunks: mpsc::Receiver<Bytes>) -> Result<Received, UploadError> {
    let work = move || {
        let mut receiver = Receiver::new(cas)?;
        while let Some(chunk) = chunks.blocking_recv() {
            receiver.push(&chunk)?;
        }
        receiver.finish()
    };
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(UploadError::Interrupted))
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;

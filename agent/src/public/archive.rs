//! From a tar stream to content: what `export` of an image sends.
//!
//! The engine exports a container's file system, so besides the image's files the stream holds what the engine puts into
//! every container: empty mount points (`etc/hosts`, `etc/hostname`, `etc/resolv.conf`, `dev/console`) and a link
//! `etc/mtab`. Exactly these are left out, and only while they are what the engine makes: a site's own
//! `etc/hosts` with content is published.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;

use super::assembly::{Assembly, Content, MAX_PUBLISHED_BYTES};
use super::publisher::{Blobs, PublishError};

/// Empty files that the engine makes in every container.
const ENGINE_FILES: [&str; 5] = [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"];
/// A link that the engine makes in every container, and its target.
const ENGINE_LINK: (&str, &str) = ("etc/mtab", "/proc/mounts");
/// An archive ends with two blocks of zeros.
const END_BYTES: usize = 1_024;
/// Files up to this size go through memory, so that content which is here already is never written again.
const IN_MEMORY_BYTES: u64 = 1 << 20;

/// Reads an archive, stores the content of what is published and puts it together.
///
/// # Errors
/// When it is no archive, is cut off, passes a limit, or its content cannot be stored.
pub(super) fn read(archive: impl Read, blobs: &mut Blobs) -> Result<Assembly, PublishError> {
    let mut archive = tar::Archive::new(Counted { inner: archive, trailing_zeros: 0 });
    let mut assembly = Assembly::default();
    let mut bytes = 0;
    for entry in archive.entries().map_err(PublishError::Archive)? {
        let mut entry = entry.map_err(PublishError::Archive)?;
        bytes += entry.size();
        if bytes > MAX_PUBLISHED_BYTES {
            return Err(PublishError::OverLimit { what: "bytes", found: bytes, limit: MAX_PUBLISHED_BYTES });
        }
        take(&mut entry, &mut assembly, blobs)?;
    }
    let mut rest = archive.into_inner();
    // To its very end: whoever sends would take a closed channel for a failure.
    io::copy(&mut rest, &mut io::sink()).map_err(PublishError::Archive)?;
    if rest.trailing_zeros < END_BYTES {
        return Err(PublishError::Archive(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(assembly)
}

/// Counts the zeros at the end of a stream: the reader of archives takes a stream that was cut between two entries for a
/// whole one.
struct Counted<R> {
    inner: R,
    trailing_zeros: usize,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.trailing_zeros = match buffer[..count].iter().rposition(|byte| *byte != 0) {
            Some(at) => count - at - 1,
            None => self.trailing_zeros.saturating_add(count),
        };
        Ok(count)
    }
}

fn take<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    assembly: &mut Assembly,
    blobs: &mut Blobs,
) -> Result<(), PublishError> {
    let name = entry.path_bytes().into_owned();
    if name.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return Err(PublishError::LinkLeaves { link: String::from_utf8_lossy(&name).into_owned() });
    }
    let kind = entry.header().entry_type();
    let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
    if made_by_engine(&name, kind, entry.size(), &target) {
        return Ok(());
    }
    match kind {
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let Some(path) = assembly.admit(&name) else { return Ok(()) };
            let content = store(entry, blobs)?;
            assembly.file(path, content)
        }
        tar::EntryType::Symlink | tar::EntryType::Link => match assembly.admit(&name) {
            Some(path) => assembly.link(path, &target, kind == tar::EntryType::Link),
            None => Ok(()),
        },
        tar::EntryType::Directory | tar::EntryType::XGlobalHeader => Ok(()),
        _ => {
            assembly.note(format!("{:?} is not published: it is no regular file", String::from_utf8_lossy(&name)));
            Ok(())
        }
    }
}

fn made_by_engine(name: &[u8], kind: tar::EntryType, size: u64, target: &[u8]) -> bool {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let name = name.strip_prefix(b"/").unwrap_or(name);
    match kind {
        tar::EntryType::Symlink => name == ENGINE_LINK.0.as_bytes() && target == ENGINE_LINK.1.as_bytes(),
        tar::EntryType::Regular => size == 0 && ENGINE_FILES.iter().any(|file| file.as_bytes() == name),
        _ => false,
    }
}

/// Stores one entry's content.
fn store<R: Read>(entry: &mut tar::Entry<'_, R>, blobs: &mut Blobs) -> Result<Content, PublishError> {
    let size = entry.size();
    if size <= IN_MEMORY_BYTES {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(PublishError::Archive)?;
        whole(bytes.len() as u64, size)?;
        let blob = *blake3::hash(&bytes).as_bytes();
        if !blobs.holds(&blob, size)? {
            let mut writer = blobs.writer()?;
            writer.write_all(&bytes).map_err(PublishError::store("write a file"))?;
            blobs.add(writer, blob)?;
        }
        return Ok(Content { blob, size });
    }
    let mut writer = blobs.writer()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = entry.read(&mut buffer).map_err(PublishError::Archive)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        writer.write_all(&buffer[..count]).map_err(PublishError::store("write a file"))?;
    }
    whole(writer.written(), size)?;
    let blob = *hasher.finalize().as_bytes();
    blobs.add(writer, blob)?;
    Ok(Content { blob, size })
}

fn whole(found: u64, size: u64) -> Result<(), PublishError> {
    if found == size { Ok(()) } else { Err(PublishError::Archive(io::ErrorKind::UnexpectedEof.into())) }
}

/// Reads a channel of chunks as one stream, on a blocking thread.
#[derive(Debug)]
pub(super) struct Chunks {
    receiver: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Chunks {
    pub(super) fn new(receiver: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { receiver, chunk: Vec::new(), at: 0 }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.receiver.blocking_recv() {
                Some(chunk) => (self.chunk, self.at) = (chunk, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

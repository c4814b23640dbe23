//! Bodies: where they end, and carrying them from one side to the other with bounded memory.
//!
//! [`Source`] is a reader with its buffer, [`Decoder`] says how many of the buffered bytes are body, [`Encoding`] says
//! how they are written on the other side, [`pump`] joins the three. A chunked body is strict: one spelling of a size,
//! CR LF everywhere, bounded extensions and trailers, both dropped.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::head::{Framing, is_token_byte};
use crate::limits::{
    BODY_READ_BYTES, MAX_CHUNK_EXTENSION_BYTES, MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES, READ_AHEAD_BYTES,
};

/// A reader and what was read from it but not used yet.
#[derive(Debug)]
pub struct Source<R> {
    io: R,
    /// What is there.
    pub buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Source<R> {
    /// A source with nothing in its buffer.
    pub fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    /// Reads once, for room of at least `room` bytes; 0 is the end. Cancel-safe: what was read is in the buffer.
    ///
    /// # Errors
    /// What the reader says.
    pub async fn fill(&mut self, room: usize) -> io::Result<usize> {
        self.buffer.reserve(room);
        self.io.read_buf(&mut self.buffer).await
    }

    /// Completes when the other side has gone. What it sends meanwhile is kept, up to [`READ_AHEAD_BYTES`].
    pub async fn gone(&mut self) {
        while self.buffer.len() < READ_AHEAD_BYTES {
            match self.fill(1024).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Gives the memory of an empty buffer back: what was in it waits to be written, maybe for long.
    fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// The reader itself.
    pub fn io(&self) -> &R {
        &self.io
    }
}

/// What the front of the buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of body.
    Data(usize),
    /// Nothing whole yet.
    NeedMore,
    /// The body has ended.
    End,
}

/// A body that is not what its framing says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed chunked body")]
pub struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    Close,
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    Done,
}

/// Finds the end of one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    extension_bytes: usize,
    trailer_bytes: usize,
}

impl Decoder {
    /// For a body framed like this.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Size,
            Framing::Close => State::Close,
        };
        Self { state, extension_bytes: 0, trailer_bytes: 0 }
    }

    /// Whether the end was seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    #[must_use]
    pub fn ends_at_close(&self) -> bool {
        self.state == State::Close
    }

    /// Looks at the front of the buffer. Takes framing out of it, leaves data in: the caller takes it and calls
    /// [`Decoder::took`].
    ///
    /// # Errors
    /// When chunked framing is broken.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            match self.state {
                State::Done => return Ok(Step::End),
                State::Length(left) | State::Chunk(left) if !buffer.is_empty() => {
                    return Ok(Step::Data(usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len())));
                }
                State::Close if !buffer.is_empty() => return Ok(Step::Data(buffer.len())),
                State::Length(_) | State::Chunk(_) | State::Close => return Ok(Step::NeedMore),
                State::Size | State::ChunkEnd | State::Trailer => {
                    let limit = if self.state == State::Trailer { MAX_TRAILER_BYTES } else { MAX_CHUNK_LINE_BYTES };
                    let Some(line) = take_line(buffer, limit)? else { return Ok(Step::NeedMore) };
                    self.state = self.after_line(&line)?;
                }
            }
        }
    }

    /// So many bytes of data were taken out of the buffer.
    pub fn took(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.state = match self.state {
            State::Length(left) if left <= bytes => State::Done,
            State::Length(left) => State::Length(left - bytes),
            State::Chunk(left) if left <= bytes => State::ChunkEnd,
            State::Chunk(left) => State::Chunk(left - bytes),
            other => other,
        };
    }

    fn after_line(&mut self, line: &[u8]) -> Result<State, Malformed> {
        match self.state {
            State::Size => self.size(line),
            State::ChunkEnd if line.is_empty() => Ok(State::Size),
            State::Trailer => self.trailer(line),
            _ => Err(Malformed),
        }
    }

    fn size(&mut self, line: &[u8]) -> Result<State, Malformed> {
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        // 15 digits are more than any body has and cannot overflow.
        if !(1..=15).contains(&digits) || !(extension.is_empty() || extension[0] == b';') {
            return Err(Malformed);
        }
        self.extension_bytes += extension.len();
        if self.extension_bytes > MAX_CHUNK_EXTENSION_BYTES {
            return Err(Malformed);
        }
        let size = std::str::from_utf8(size).ok().and_then(|s| u64::from_str_radix(s, 16).ok()).ok_or(Malformed)?;
        Ok(if size == 0 { State::Trailer } else { State::Chunk(size) })
    }

    fn trailer(&mut self, line: &[u8]) -> Result<State, Malformed> {
        if line.is_empty() {
            return Ok(State::Done);
        }
        self.trailer_bytes += line.len() + 2;
        let name = line.iter().take_while(|b| is_token_byte(**b)).count();
        if self.trailer_bytes > MAX_TRAILER_BYTES || name == 0 || line.get(name) != Some(&b':') {
            return Err(Malformed);
        }
        Ok(State::Trailer)
    }
}

/// Takes one line out of the buffer, without its CR LF; `None` when it is not whole.
fn take_line(buffer: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, Malformed> {
    let window = &buffer[..buffer.len().min(limit)];
    let Some(at) = memchr::memchr(b'\n', window) else {
        let hopeless = buffer.len() >= limit;
        return if hopeless { Err(Malformed) } else { Ok(None) };
    };
    let line = buffer.split_to(at + 1);
    let Some(text) = line.strip_suffix(b"\r\n") else { return Err(Malformed) };
    if text.iter().any(|b| matches!(b, 0..=8 | 10..=0x1f | 0x7f)) {
        return Err(Malformed);
    }
    let length = text.len();
    let mut line = line;
    line.truncate(length);
    Ok(Some(line))
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is: its length was announced, or the connection's end is its end.
    Plain,
    /// In chunks.
    Chunked,
}

impl Encoding {
    fn put(self, data: &[u8], out: &mut BytesMut) {
        match self {
            Self::Plain => out.extend_from_slice(data),
            Self::Chunked => {
                out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn end(self, out: &mut BytesMut) {
        if self == Self::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

/// Why a body did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The reading side failed.
    #[error("reading the body failed")]
    Read(#[source] io::Error),
    /// The reading side ended in the middle.
    #[error("the body was cut off")]
    Truncated,
    /// The reading side sent broken framing.
    #[error("the body is malformed")]
    Malformed(#[source] Malformed),
    /// The reading side sent nothing for too long.
    #[error("the body stalled")]
    ReadTimeout,
    /// The writing side failed.
    #[error("writing the body failed")]
    Write(#[source] io::Error),
    /// The writing side took nothing for too long.
    #[error("nobody takes the body")]
    WriteTimeout,
}

impl PumpError {
    /// Whether the side that is written to is the one that failed.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Write(_) | Self::WriteTimeout)
    }
}

/// Writes all of `out` and empties it. Each write may wait for `idle`.
///
/// # Errors
/// When the other side is gone or takes nothing for too long.
pub async fn flush<W: AsyncWrite + Unpin>(
    out: &mut BytesMut,
    sink: &mut W,
    idle: Duration,
    written: &mut u64,
) -> Result<(), PumpError> {
    while out.has_remaining() {
        let n = write_some(out, sink, idle).await?;
        *written += n as u64;
        out.advance(n);
    }
    out.clear();
    Ok(())
}

/// Writes once.
///
/// # Errors
/// When the other side is gone or takes nothing for too long.
pub async fn write_some<W: AsyncWrite + Unpin>(data: &[u8], sink: &mut W, idle: Duration) -> Result<usize, PumpError> {
    match timeout(idle, sink.write(data)).await {
        Err(_) => Err(PumpError::WriteTimeout),
        Ok(Ok(0)) => Err(PumpError::Write(io::ErrorKind::WriteZero.into())),
        Ok(Ok(n)) => Ok(n),
        Ok(Err(error)) => Err(PumpError::Write(error)),
    }
}

/// Carries one body. What already stands in `out` (a head) goes first, in one write with what is there of the body.
/// `written` counts every byte that was written, whatever the outcome.
///
/// # Errors
/// Which side failed, and how.
pub async fn pump<R, W>(
    source: &mut Source<R>,
    decoder: &mut Decoder,
    encoding: Encoding,
    sink: &mut W,
    out: &mut BytesMut,
    idle: Duration,
    written: &mut u64,
) -> Result<(), PumpError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let had_body = !decoder.is_done();
    loop {
        match decoder.step(&mut source.buffer).map_err(PumpError::Malformed)? {
            Step::Data(n) => {
                encoding.put(&source.buffer[..n], out);
                source.buffer.advance(n);
                decoder.took(n);
                if out.len() >= BODY_READ_BYTES {
                    source.shrink();
                    flush(out, sink, idle, written).await?;
                }
            }
            Step::End => break,
            Step::NeedMore => {
                source.shrink();
                flush(out, sink, idle, written).await?;
                match timeout(idle, source.fill(BODY_READ_BYTES)).await {
                    Err(_) => return Err(PumpError::ReadTimeout),
                    Ok(Err(error)) => return Err(PumpError::Read(error)),
                    Ok(Ok(0)) if decoder.ends_at_close() => break,
                    Ok(Ok(0)) => return Err(PumpError::Truncated),
                    Ok(Ok(_)) => {}
                }
            }
        }
    }
    if had_body {
        encoding.end(out);
    }
    flush(out, sink, idle, written).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes what arrives in pieces; the body and what is left behind it.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let (mut decoder, mut buffer, mut body) = (Decoder::new(Framing::Chunked), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Step::Data(n) = decoder.step(&mut buffer)? {
                body.extend_from_slice(&buffer[..n]);
                buffer.advance(n);
                decoder.took(n);
            }
        }
        if decoder.is_done() { Ok((body, buffer.to_vec())) } else { Err(Malformed) }
    }

    #[test]
    fn a_chunked_body_is_the_same_wherever_it_is_split() {
        let bytes = b"5\r\nhello\r\n6;a=\"b\"\r\n world\r\n0\r\nX: y\r\n\r\nGET /next";
        let expected = (b"hello world".to_vec(), b"GET /next".to_vec());
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(decode(&pieces), Ok(expected.clone()), "{first} {second}");
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded_over_the_whole_body() {
        let extended = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(100);
        assert_eq!(decode(&[extended.as_bytes(), b"0\r\n\r\n"]), Err(Malformed));
        let trailers = "X: y\r\n".repeat(2_000);
        assert_eq!(decode(&[b"0\r\n", trailers.as_bytes(), b"\r\n"]), Err(Malformed));
    }

    #[tokio::test]
    async fn what_is_pumped_from_chunks_to_chunks_is_the_same_body() {
        let mut source = Source::new(&b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"[..]);
        let (mut decoder, mut out, mut written) = (Decoder::new(Framing::Chunked), BytesMut::new(), 0);
        let mut sink = Vec::new();
        let idle = Duration::from_secs(5);
        pump(&mut source, &mut decoder, Encoding::Chunked, &mut sink, &mut out, idle, &mut written).await.unwrap();
        assert_eq!(sink, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        assert_eq!(written, sink.len() as u64);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'f'), Just(b';'), any::<u8>()], 0..300)) {
            let _ = decode(&[&bytes]);
        }

        #[test]
        fn what_is_encoded_decodes_to_itself(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10)) {
            let mut out = BytesMut::new();
            pieces.iter().for_each(|piece| Encoding::Chunked.put(piece, &mut out));
            Encoding::Chunked.end(&mut out);
            prop_assert_eq!(decode(&[&out]), Ok((pieces.concat(), Vec::new())));
        }
    }
}

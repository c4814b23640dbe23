//! The frame around one record, pure: bytes in, bytes out.
//!
//! ```text
//! ┌────────────┬────────────┬─────────┬──────────────┬──────────────────────────┐
//! │ length u32 │ CRC32C u32 │ version │ prost body   │ BLAKE3 of the record     │
//! │ LE         │ LE         │ u8      │              │ before, 32 bytes         │
//! └────────────┴────────────┴─────────┴──────────────┴──────────────────────────┘
//!                └─ over the length and all that follows   length counts from the version to the end
//! ```
//!
//! The hash of a record is BLAKE3 over its whole frame, so that every byte of the ledger is held twice: by its own
//! checksum and by the record that follows. An old program that meets a newer version byte refuses it by number;
//! it never guesses.

/// The version that this program writes.
pub const VERSION: u8 = 1;
/// Length and checksum.
pub const HEADER_BYTES: usize = 8;
/// Everything of a frame but its body.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + HASH_BYTES;
/// Largest body. An environment of 2,000 variables or 100 routes of one app stay far below.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Largest frame.
pub const MAX_FRAME_BYTES: usize = OVERHEAD_BYTES + MAX_BODY_BYTES;

const HASH_BYTES: usize = 32;

/// BLAKE3 of a whole frame.
pub type Hash = [u8; HASH_BYTES];

/// What the first record names as the one before it.
pub const GENESIS: Hash = [0; HASH_BYTES];

/// One record that passed its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The prost body.
    pub body: &'a [u8],
    /// Hash of the record before.
    pub previous: Hash,
    /// Hash of this record.
    pub hash: Hash,
    /// Bytes of the whole frame.
    pub length: usize,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end first.
    #[error("the record ends after {have} of {needed} bytes")]
    Incomplete {
        /// Bytes of the whole frame.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// No frame has this length.
    #[error("the record's length field says {0}, which no record has")]
    Length(u32),
    /// The checksum differs.
    #[error("the record's checksum does not match its bytes")]
    Checksum,
    /// Intact, but from another program.
    #[error(
        "the record has format version {0}, this program reads version {VERSION}: it was written by a newer refloatd"
    )]
    Version(u8),
    /// The body is larger than a record may be.
    #[error("the record would have {0} bytes, the limit is {MAX_BODY_BYTES}")]
    TooLong(usize),
}

/// Frames a body.
///
/// # Errors
/// When the body is longer than [`MAX_BODY_BYTES`].
pub fn encode(body: &[u8], previous: &Hash) -> Result<Vec<u8>, FrameError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(FrameError::TooLong(body.len()));
    }
    let length = length_field(body.len());
    let mut frame = Vec::with_capacity(OVERHEAD_BYTES + body.len());
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&[0; 4]);
    frame.push(VERSION);
    frame.extend_from_slice(body);
    frame.extend_from_slice(previous);
    let checksum = checksum(length, &frame[HEADER_BYTES..]);
    frame[4..HEADER_BYTES].copy_from_slice(&checksum);
    Ok(frame)
}

/// Reads the frame that `bytes` begin with.
///
/// # Errors
/// When they do not begin with a whole and intact frame of this version.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let Some((length, expected)) = header(bytes) else {
        return Err(FrameError::Incomplete { needed: OVERHEAD_BYTES, have: bytes.len() });
    };
    let rest = u32::from_le_bytes(length) as usize;
    if !(1 + HASH_BYTES..=1 + HASH_BYTES + MAX_BODY_BYTES).contains(&rest) {
        return Err(FrameError::Length(u32::from_le_bytes(length)));
    }
    let needed = HEADER_BYTES + rest;
    let frame = bytes.get(..needed).ok_or(FrameError::Incomplete { needed, have: bytes.len() })?;
    if checksum(length, &frame[HEADER_BYTES..]) != expected {
        return Err(FrameError::Checksum);
    }
    intact(frame)
}

/// Whether `bytes` are one whole frame but for its length field. A record whose length field alone was damaged is no
/// torn write: it was once complete.
#[must_use]
pub fn is_whole_but_for_its_length(bytes: &[u8]) -> bool {
    let Some(body) = bytes.len().checked_sub(OVERHEAD_BYTES) else { return false };
    let Some((_, expected)) = header(bytes) else { return false };
    body <= MAX_BODY_BYTES && checksum(length_field(body), &bytes[HEADER_BYTES..]) == expected
}

fn intact(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    let version = frame[HEADER_BYTES];
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let (body, previous) = frame[HEADER_BYTES + 1..].split_at(frame.len() - OVERHEAD_BYTES);
    let mut hash = GENESIS;
    hash.copy_from_slice(previous);
    Ok(Frame { body, previous: hash, hash: *blake3::hash(frame).as_bytes(), length: frame.len() })
}

fn header(bytes: &[u8]) -> Option<([u8; 4], [u8; 4])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    Some((*length, *rest.first_chunk::<4>()?))
}

fn length_field(body_bytes: usize) -> [u8; 4] {
    // At most MAX_BODY_BYTES and a little more: fits.
    u32::try_from(1 + body_bytes + HASH_BYTES).unwrap_or(u32::MAX).to_le_bytes()
}

fn checksum(length: [u8; 4], rest: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(&length), rest).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_reads_back_whatever_follows_it(body: Vec<u8>, previous: [u8; 32], after: Vec<u8>) {
            let mut bytes = encode(&body, &previous).unwrap();
            let length = bytes.len();
            let hash = *blake3::hash(&bytes).as_bytes();
            bytes.extend_from_slice(&after);
            prop_assert_eq!(decode(&bytes), Ok(Frame { body: &body, previous, hash, length }));
        }

        #[test]
        fn no_bytes_at_all_make_it_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = is_whole_but_for_its_length(&bytes);
        }

        #[test]
        fn one_flipped_bit_anywhere_is_seen(body in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0..8_u32) {
            let mut bytes = encode(&body, &GENESIS).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }
    }

    #[test]
    fn every_prefix_is_incomplete() {
        let bytes = encode(b"body", &GENESIS).unwrap();
        for cut in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..cut]), Err(FrameError::Incomplete { .. })), "{cut}");
        }
    }

    #[test]
    fn a_newer_version_is_named_not_guessed() {
        let mut bytes = encode(b"body", &GENESIS).unwrap();
        bytes[HEADER_BYTES] = 2;
        let length = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let right = checksum(length, &bytes[HEADER_BYTES..]);
        bytes[4..8].copy_from_slice(&right);
        assert_eq!(decode(&bytes), Err(FrameError::Version(2)));
    }

    #[test]
    fn a_damaged_length_field_is_told_from_a_torn_write() {
        let mut bytes = encode(b"body", &GENESIS).unwrap();
        assert!(!is_whole_but_for_its_length(&bytes[..bytes.len() - 1]));
        bytes[1] ^= 1;
        assert!(matches!(decode(&bytes), Err(FrameError::Incomplete { .. })));
        assert!(is_whole_but_for_its_length(&bytes));
    }

    #[test]
    fn a_body_over_the_limit_is_refused() {
        assert!(encode(&vec![0; MAX_BODY_BYTES], &GENESIS).is_ok());
        assert_eq!(encode(&vec![0; MAX_BODY_BYTES + 1], &GENESIS), Err(FrameError::TooLong(MAX_BODY_BYTES + 1)));
    }
}

//! One segment, pure: reading its bytes and telling a torn write from damage.
//!
//! A record is written by one write at the end of a file that only grows. What a crash can leave of it: the file ends
//! inside the record, or sectors of it were never written and read as zeros. Everything that was written is right.
//! So a bad tail is a torn write only if it is incomplete or has an unwritten sector, and only if no intact record
//! follows anywhere. A byte that changed in a record that was once whole is none of this: it is damage.

use prost::Message as _;
use refloat_proto::ledger::v1 as wire;

use super::Position;
use super::frame::{self, FrameError};

/// A segment of this size is followed by a new one.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// No segment is larger: the limit, one record and the chunk that a full disk may make it overrun.
pub const MAX_SEGMENT_BYTES: u64 = 4 * SEGMENT_BYTES;
/// The smallest unit that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// File name of a segment.
#[must_use]
pub fn file_name(number: u64) -> String {
    format!("{number:08}.log")
}

/// Number of the segment that has this file name.
#[must_use]
pub fn number_of(name: &str) -> Option<u64> {
    let number: u64 = name.strip_suffix(".log")?.parse().ok()?;
    (file_name(number) == name && number > 0).then_some(number)
}

/// Damage in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where the record that does not check out begins.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// One record that checked out.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRecord {
    /// Where its frame begins.
    pub offset: u64,
    /// The ledger's position after it.
    pub position: Position,
    /// The record.
    pub record: wire::Record,
}

/// Reads a segment record by record.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    position: Position,
    may_be_torn: bool,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, whose first record follows `start`. Only the newest segment may end in a torn record.
    #[must_use]
    pub fn new(bytes: &'a [u8], start: Position, newest: bool) -> Self {
        Self { bytes, offset: 0, position: start, may_be_torn: newest }
    }

    /// The ledger's position after what was read.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Bytes of intact records. Once [`Reader::next_record`] has answered `None`, what follows is a torn tail.
    #[must_use]
    pub fn intact_bytes(&self) -> usize {
        self.offset
    }

    /// The next record, or `None` at the end.
    ///
    /// # Errors
    /// When what follows is damage.
    pub fn next_record(&mut self) -> Result<Option<ReadRecord>, Damage> {
        let rest = &self.bytes[self.offset..];
        if rest.is_empty() {
            return Ok(None);
        }
        let frame = match frame::decode(rest) {
            Ok(frame) => frame,
            Err(why) if self.may_be_torn && self.offset > 0 && is_torn_write(rest, self.offset, &why) => {
                return Ok(None);
            }
            Err(why) => return Err(self.damage(why.to_string())),
        };
        if frame.previous != self.position.hash {
            return Err(self.damage("the record does not follow from the one before it".to_owned()));
        }
        let record = wire::Record::decode(frame.body)
            .map_err(|why| self.damage(format!("the record's body is malformed: {why}")))?;
        if record.sequence != self.position.sequence + 1 {
            let what = format!("record {} follows record {}", record.sequence, self.position.sequence);
            return Err(self.damage(what));
        }
        let offset = self.offset as u64;
        self.offset += frame.length;
        self.position = Position { sequence: record.sequence, hash: frame.hash };
        Ok(Some(ReadRecord { offset, position: self.position, record }))
    }

    fn damage(&self, what: String) -> Damage {
        Damage { offset: self.offset as u64, what }
    }
}

/// Whether the bad tail at `offset` can be what a crash left of one record.
fn is_torn_write(tail: &[u8], offset: usize, why: &FrameError) -> bool {
    if tail.len() > frame::MAX_FRAME_BYTES || frame::is_whole_but_for_its_length(tail) || holds_a_record(&tail[1..]) {
        return false;
    }
    matches!(why, FrameError::Incomplete { .. }) || has_unwritten_sector(tail, offset)
}

fn holds_a_record(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| frame::decode(&bytes[at..]).is_ok())
}

/// Whether one sector's part of the tail is all zeros.
fn has_unwritten_sector(tail: &[u8], offset: usize) -> bool {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(tail.len());
    let (head, rest) = tail.split_at(first);
    std::iter::once(head).chain(rest.chunks(SECTOR_BYTES)).any(|part| part.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::record;
    use refloat_model::Epoch;

    fn segment(records: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut position = Position::GENESIS;
        for n in 1..=records {
            let body = record::from_checkpoint(n, 1_000, Epoch(1), 1).encode_to_vec();
            let frame = frame::encode(&body, &position.hash).unwrap();
            position = Position { sequence: n, hash: frame::decode(&frame).unwrap().hash };
            bytes.extend_from_slice(&frame);
        }
        bytes
    }

    /// Records read, bytes intact.
    fn read(bytes: &[u8], newest: bool) -> Result<(u64, usize), Damage> {
        let mut reader = Reader::new(bytes, Position::GENESIS, newest);
        while reader.next_record()?.is_some() {}
        Ok((reader.position().sequence, reader.intact_bytes()))
    }

    #[test]
    fn a_segment_is_read_to_its_end() {
        let bytes = segment(5);
        assert_eq!(read(&bytes, true), Ok((5, bytes.len())));
        assert_eq!(read(&bytes, false), Ok((5, bytes.len())));
        assert_eq!(read(&[], true), Ok((0, 0)));
    }

    #[test]
    fn a_last_record_cut_anywhere_is_a_torn_write_in_the_newest_segment_only() {
        let (whole, bytes) = (segment(4).len(), segment(5));
        for cut in whole + 1..bytes.len() {
            assert_eq!(read(&bytes[..cut], true), Ok((4, whole)), "{cut}");
            assert!(read(&bytes[..cut], false).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_last_record_that_was_never_written_reads_as_zeros_and_is_a_torn_write() {
        let mut bytes = segment(4);
        let whole = bytes.len();
        bytes.resize(whole + 300, 0);
        assert_eq!(read(&bytes, true), Ok((4, whole)));
    }

    #[test]
    fn a_first_record_is_never_torn_because_segments_appear_whole() {
        let bytes = segment(1);
        assert!(read(&bytes[..bytes.len() - 1], true).is_err());
    }

    #[test]
    fn a_flipped_bit_is_damage_in_the_last_record_too() {
        let bytes = segment(5);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(&flipped, true).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn an_intact_record_behind_a_broken_one_is_damage_never_a_tail() {
        let (four, bytes) = (segment(4).len(), segment(6));
        let mut zeroed = bytes.clone();
        let five = segment(5).len();
        zeroed[four..five].fill(0);
        assert_eq!(read(&zeroed, true).map_err(|d| d.offset), Err(four as u64));
    }

    #[test]
    fn a_record_of_another_history_is_damage() {
        let mut bytes = segment(4);
        let position = Position { sequence: 4, hash: [9; 32] };
        let body = record::from_checkpoint(5, 1, Epoch(1), 1).encode_to_vec();
        bytes.extend_from_slice(&frame::encode(&body, &position.hash).unwrap());
        assert!(read(&bytes, true).is_err());
    }

    #[test]
    fn names_read_back_and_others_are_none() {
        assert_eq!(number_of(&file_name(7)), Some(7));
        for other in ["7.log", "00000000.log", "00000001.log.new", "lock", "+0000001.log"] {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}

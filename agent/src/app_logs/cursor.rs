//! A place in a stream, from which a reader follows what is kept next.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::file::KeptFile;
use super::line::KeptLine;

/// Most bytes that are read at once; what is left is read the next time.
const MAX_READ_BYTES: u64 = 1 << 20;

/// The place: which file, and how far into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    inode: u64,
    offset: u64,
}

impl Cursor {
    /// The end of what is kept now.
    #[must_use]
    pub fn at_end(file: &KeptFile) -> Self {
        let (inode, offset) = file.end();
        Self { inode, offset }
    }

    /// Lines that were kept since, oldest first. What was rotated away is read from the older file first; what was
    /// rotated away twice is gone. Blocks on the disk.
    pub fn read(&mut self, file: &KeptFile) -> Vec<KeptLine> {
        let (inode, _) = file.end();
        let mut lines = Vec::new();
        if inode != self.inode {
            lines.extend(self.read_from(&file.older()).unwrap_or_default());
            *self = Self { inode, offset: 0 };
        }
        lines.extend(self.read_from(file.path()).unwrap_or_default());
        lines
    }

    fn read_from(&mut self, path: &Path) -> io::Result<Vec<KeptLine>> {
        let mut file = File::open(path)?;
        if file.metadata()?.ino() != self.inode {
            return Ok(Vec::new());
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(MAX_READ_BYTES).read_to_end(&mut bytes)?;
        // A line that is being written is read when it is whole.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        Ok(KeptLine::read_all(&bytes[..whole]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at_ms: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        KeptLine { at_ms, instance: "i".into(), stderr: false, text: "x".into() }.write_to(&mut bytes);
        bytes
    }

    fn read(cursor: &mut Cursor, file: &KeptFile) -> Vec<u64> {
        cursor.read(file).iter().map(|line| line.at_ms).collect()
    }

    #[test]
    fn a_cursor_reads_each_line_once_also_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeptFile::new(dir.path().join("web.log"));
        let mut from_start = Cursor::at_end(&file);
        file.append(&line(1)).unwrap();
        let mut cursor = Cursor::at_end(&file);
        assert_eq!(read(&mut cursor, &file), [0; 0]);
        file.append(&[line(2), line(3)[..5].to_vec()].concat()).unwrap();
        assert_eq!(read(&mut cursor, &file), [2]);
        file.append(&line(3)[5..]).unwrap();
        std::fs::rename(file.path(), file.older()).unwrap();
        file.append(&line(4)).unwrap();
        assert_eq!(read(&mut cursor, &file), [3, 4]);
        assert_eq!(read(&mut cursor, &file), [0; 0]);
        assert_eq!(read(&mut from_start, &file), [4], "what began before the first file was rotated is in the tail");
    }
}

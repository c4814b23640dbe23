//! A pair of files: `PROCESS.log` is appended to, and becomes `PROCESS.log.1` when it is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::line::KeptLine;
use crate::durable;

/// Bytes after which a file becomes the older one: two of them are kept per process of a release.
pub const MAX_FILE_BYTES: u64 = 5 << 20;
/// Bytes that are read at once from the end.
const PIECE_BYTES: u64 = 64 << 10;

/// The pair.
#[derive(Debug, Clone)]
pub struct KeptFile {
    path: PathBuf,
}

impl KeptFile {
    /// The pair whose newer file has this path.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The newer file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The older file.
    #[must_use]
    pub fn older(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    /// Appends whole lines; answers whether the older file was replaced.
    ///
    /// # Errors
    /// When they cannot be written; a part of them may be there.
    pub fn append(&self, lines: &[u8]) -> io::Result<bool> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        durable::make_dir(parent, 0o700)?;
        let length = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let full = length > 0 && length.saturating_add(lines.len() as u64) > MAX_FILE_BYTES;
        if full {
            fs::rename(&self.path, self.older())?;
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        file.write_all(lines)?;
        Ok(full)
    }

    /// The last lines of both files, oldest first. What cannot be read is not there.
    #[must_use]
    pub fn lines(&self, most: usize) -> Vec<KeptLine> {
        let mut lines = last_lines(&self.path, most).unwrap_or_default();
        if lines.len() < most {
            let mut older = last_lines(&self.older(), most - lines.len()).unwrap_or_default();
            older.append(&mut lines);
            lines = older;
        }
        lines
    }

    /// The newer file's identity and length, or zeros when there is none.
    #[must_use]
    pub fn end(&self) -> (u64, u64) {
        fs::metadata(&self.path).map_or((0, 0), |metadata| (metadata.ino(), metadata.len()))
    }
}

/// Reads backwards, piece by piece, until there are enough lines.
fn last_lines(path: &Path, most: usize) -> io::Result<Vec<KeptLine>> {
    let mut file = File::open(path)?;
    let mut start = file.metadata()?.len();
    let mut bytes = Vec::new();
    while start > 0 && bytes.iter().filter(|byte| **byte == b'\n').count() <= most {
        let piece = PIECE_BYTES.max(bytes.len() as u64).min(start);
        start -= piece;
        let mut front = vec![0; usize::try_from(piece).unwrap_or(usize::MAX)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut front)?;
        front.append(&mut bytes);
        bytes = front;
    }
    // The first line may be the end of one that begins before.
    let whole = if start == 0 { 0 } else { bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
    let mut lines: Vec<KeptLine> = KeptLine::read_all(&bytes[whole..]).rev().take(most).collect();
    lines.reverse();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(from: u64, count: u64, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for at_ms in from..from + count {
            KeptLine { at_ms, instance: "i".into(), stderr: at_ms % 2 == 0, text: text.into() }.write_to(&mut bytes);
        }
        bytes
    }

    fn times(lines: &[KeptLine]) -> Vec<u64> {
        lines.iter().map(|line| line.at_ms).collect()
    }

    #[test]
    fn two_files_hold_the_newest_and_never_more_than_twice_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptFile::new(dir.path().join("r1/web.log"));
        let text = "x".repeat(10_000);
        let mut rotations = 0;
        for from in (0..2_000).step_by(100) {
            rotations += usize::from(kept.append(&bytes(from, 100, &text)).unwrap());
        }
        assert!(rotations >= 2, "{rotations}");
        let on_disk: u64 =
            fs::read_dir(dir.path().join("r1")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(on_disk <= 2 * MAX_FILE_BYTES, "{on_disk}");
        let all = times(&kept.lines(usize::MAX));
        assert_eq!(all.last(), Some(&1_999));
        assert!(all.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no line is missing in what is kept");
    }

    #[test]
    fn the_last_lines_reach_over_pieces_and_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptFile::new(dir.path().join("web.log"));
        kept.append(&bytes(0, 3_000, "some text that makes the file larger than a piece")).unwrap();
        assert_eq!(times(&kept.lines(1)), [2_999]);
        assert_eq!(times(&kept.lines(2_500)), (500..3_000).collect::<Vec<_>>());
        fs::rename(kept.path(), kept.older()).unwrap();
        kept.append(&bytes(3_000, 1, "x")).unwrap();
        assert_eq!(times(&kept.lines(3)), [2_998, 2_999, 3_000]);
        assert_eq!(kept.lines(0), []);
    }

    #[test]
    fn a_torn_line_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptFile::new(dir.path().join("web.log"));
        let mut torn = bytes(1, 2, "x");
        torn.truncate(torn.len() - 5);
        torn.push(b'\n');
        torn.extend(bytes(3, 1, "y"));
        kept.append(&torn).unwrap();
        assert_eq!(times(&kept.lines(10)), [1, 3]);
    }
}

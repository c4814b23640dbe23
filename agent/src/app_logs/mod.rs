//! Output of apps, kept per release beyond its containers' lives.
//!
//! ```text
//! Engine::follow ──▶ collector (one task per container) ──▶ APP/rN/PROCESS.log, PROCESS.log.1 ──▶ tail, follow
//! ```
//!
//! Owns `logs/` of the state. Bounded: [`file::MAX_FILE_BYTES`] twice per process of a release, [`MAX_APP_BYTES`] per
//! app, the oldest releases go first. A full disk costs lines, which are counted, and never harms the app or the agent.
//! Deliberately absent: anything of the agent's own log.

pub mod collector;
pub mod cursor;
pub mod file;
pub mod line;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use refloat_model::{AppName, InstanceName, ProcessName, ReleaseNumber};
use tokio::sync::watch;

use self::file::KeptFile;
use self::line::{KeptLine, Source};
use crate::docker::LogLine;

/// Most bytes that one app's output takes.
pub const MAX_APP_BYTES: u64 = 100 << 20;
/// Lines that are read from the end when nobody says how many.
pub const DEFAULT_TAIL: usize = 100;
/// Most lines that are read from the end.
pub const MAX_TAIL: usize = 10_000;

/// Everything that is kept.
#[derive(Debug)]
pub struct AppLogs {
    folder: PathBuf,
    /// Held while a file is written or rotated.
    writing: Mutex<HashSet<PathBuf>>,
    dropped: AtomicU64,
    changed: watch::Sender<u64>,
}

/// Where a collector goes on: what of that moment is kept already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resume {
    /// Time of the last kept line, Unix time in milliseconds; 0 when none is kept.
    pub last_ms: u64,
    /// How many kept lines have that time.
    pub at_last: usize,
}

/// A process of a release of an app: one pair of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The app.
    pub app: AppName,
    /// The release.
    pub release: ReleaseNumber,
    /// The process.
    pub process: ProcessName,
}

impl AppLogs {
    /// What is kept below this folder, which need not exist yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let (changed, _) = watch::channel(0);
        Self { folder: folder.to_owned(), writing: Mutex::default(), dropped: AtomicU64::new(0), changed }
    }

    /// Lines that could not be kept since the agent started.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Tells when something was kept.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Keeps lines. What cannot be kept is counted and dropped. Blocks on the disk.
    pub fn keep(&self, stream: &Stream, instance: &InstanceName, lines: &[LogLine]) {
        let mut bytes = Vec::new();
        for line in lines {
            KeptLine::of(line, instance).write_to(&mut bytes);
        }
        if let Err(error) = self.append(stream, &bytes) {
            let dropped = self.dropped.fetch_add(lines.len() as u64, Ordering::Relaxed);
            // Once is enough: a full disk would fill the agent's log as well.
            if dropped == 0 {
                tracing::warn!(app = %stream.app, "output of apps cannot be kept, lines are dropped: {error}");
            }
            return;
        }
        self.changed.send_modify(|version| *version += 1);
    }

    fn append(&self, stream: &Stream, bytes: &[u8]) -> io::Result<()> {
        let mut seen = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.file(stream);
        let rotated = file.append(bytes)?;
        if seen.insert(file.path().to_owned()) || rotated {
            self.make_room(stream)?;
        }
        Ok(())
    }

    /// Removes the oldest releases' output until the app is within its bound. The release that is written stays.
    fn make_room(&self, stream: &Stream) -> io::Result<()> {
        let mut releases = self.releases(&stream.app);
        let mut total: u64 = releases.iter().map(|(_, bytes)| bytes).sum();
        releases.sort_by_key(|(number, _)| *number);
        for (number, bytes) in releases {
            if total <= MAX_APP_BYTES {
                break;
            }
            if number != stream.release {
                std::fs::remove_dir_all(self.release_folder(&stream.app, number))?;
                total -= bytes;
            }
        }
        Ok(())
    }

    /// Releases of which output is kept, with how many bytes.
    fn releases(&self, app: &AppName) -> Vec<(ReleaseNumber, u64)> {
        let entries = std::fs::read_dir(self.folder.join(app.as_str())).into_iter().flatten().flatten();
        let release = |entry: std::fs::DirEntry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let files = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
            let bytes = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
            Some((number, bytes))
        };
        entries.filter_map(release).collect()
    }

    /// Where a collector goes on. Blocks on the disk.
    #[must_use]
    pub fn resume(&self, stream: &Stream, instance: &InstanceName) -> Resume {
        let mut resume = Resume::default();
        for line in self.file(stream).lines(usize::MAX).iter().filter(|line| line.instance == instance.as_str()) {
            if line.at_ms > resume.last_ms {
                resume = Resume { last_ms: line.at_ms, at_last: 1 };
            } else if line.at_ms == resume.last_ms {
                resume.at_last += 1;
            }
        }
        resume
    }

    /// The last lines of a release, oldest first; of one process when it is named. Blocks on the disk.
    #[must_use]
    pub fn tail(
        &self,
        app: &AppName,
        release: ReleaseNumber,
        process: Option<&ProcessName>,
        lines: usize,
    ) -> Vec<Source> {
        let mut all = Vec::new();
        for stream in self.streams(app, release, process) {
            let kept = self.file(&stream).lines(lines);
            all.extend(kept.into_iter().map(|line| Source { line, process: stream.process.clone(), release }));
        }
        all.sort_by_key(|source| source.line.at_ms);
        all.split_off(all.len().saturating_sub(lines))
    }

    /// The streams of a release that are kept.
    #[must_use]
    pub fn streams(&self, app: &AppName, release: ReleaseNumber, process: Option<&ProcessName>) -> Vec<Stream> {
        let entries = std::fs::read_dir(self.release_folder(app, release)).into_iter().flatten().flatten();
        let stream = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            let process = ProcessName::new(name.to_str()?.strip_suffix(".log")?).ok()?;
            Some(Stream { app: app.clone(), release, process })
        };
        entries.filter_map(stream).filter(|stream| process.is_none_or(|wanted| *wanted == stream.process)).collect()
    }

    /// The files of a stream.
    #[must_use]
    pub fn file(&self, stream: &Stream) -> KeptFile {
        let folder = self.release_folder(&stream.app, stream.release);
        KeptFile::new(folder.join(format!("{}.log", stream.process)))
    }

    /// Forgets all output of an app.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, app: &AppName) -> io::Result<()> {
        match std::fs::remove_dir_all(self.folder.join(app.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Forgets the output of every other app.
    ///
    /// # Errors
    /// When some cannot be removed; what can be is.
    pub fn forget_all_but(&self, known: &[AppName]) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let names = entries.filter_map(|entry| AppName::new(entry.ok()?.file_name().into_string().ok()?).ok());
        let gone = names.filter(|name| !known.contains(name));
        gone.map(|name| self.forget(&name)).fold(Ok(()), io::Result::and)
    }

    fn release_folder(&self, app: &AppName, release: ReleaseNumber) -> PathBuf {
        self.folder.join(app.as_str()).join(release.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(release: u32) -> Stream {
        Stream {
            app: AppName::new("shop").unwrap(),
            release: ReleaseNumber(release),
            process: ProcessName::new("web").unwrap(),
        }
    }

    fn instance(n: u8) -> InstanceName {
        InstanceName::parse(&format!("refloat-shop-web-0000000{n}")).unwrap()
    }

    fn lines(from_ms: u64, count: u64) -> Vec<LogLine> {
        (0..count)
            .map(|n| LogLine { at_ms: from_ms + n, stderr: false, text: format!("line {}", from_ms + n) })
            .collect()
    }

    fn texts(sources: &[Source]) -> Vec<&str> {
        sources.iter().map(|source| source.line.text.as_str()).collect()
    }

    #[test]
    fn the_tail_of_a_release_is_merged_by_time_over_its_processes() {
        let dir = tempfile::tempdir().unwrap();
        let logs = AppLogs::new(dir.path());
        let worker = Stream { process: ProcessName::new("worker").unwrap(), ..stream(1) };
        logs.keep(&stream(1), &instance(1), &lines(10, 2));
        logs.keep(&worker, &instance(2), &lines(5, 1));
        logs.keep(&worker, &instance(2), &lines(100, 1));
        logs.keep(&stream(2), &instance(3), &lines(200, 1));
        let app = &stream(1).app;
        let tail = |process: Option<&ProcessName>, n| logs.tail(app, ReleaseNumber(1), process, n);
        assert_eq!(texts(&tail(None, 10)), ["line 5", "line 10", "line 11", "line 100"]);
        assert_eq!(texts(&tail(None, 2)), ["line 11", "line 100"]);
        assert_eq!(texts(&tail(Some(&worker.process), 10)), ["line 5", "line 100"]);
        assert!(logs.tail(app, ReleaseNumber(9), None, 10).is_empty());
        logs.forget_all_but(std::slice::from_ref(app)).unwrap();
        assert!(!tail(None, 10).is_empty(), "an app that is known keeps its output");
        logs.forget_all_but(&[]).unwrap();
        logs.forget(app).unwrap();
        assert!(tail(None, 10).is_empty());
    }

    #[test]
    fn a_collector_goes_on_after_what_is_kept_of_its_own_container() {
        let dir = tempfile::tempdir().unwrap();
        let logs = AppLogs::new(dir.path());
        assert_eq!(logs.resume(&stream(1), &instance(1)), Resume::default());
        logs.keep(&stream(1), &instance(1), &[lines(10, 1), lines(20, 1), lines(20, 1)].concat());
        logs.keep(&stream(1), &instance(2), &lines(30, 1));
        assert_eq!(logs.resume(&stream(1), &instance(1)), Resume { last_ms: 20, at_last: 2 });
    }

    #[test]
    fn an_app_stays_within_its_bound_and_its_oldest_release_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let logs = AppLogs::new(dir.path());
        for release in 1..=11 {
            let folder = dir.path().join("shop").join(format!("r{release}"));
            std::fs::create_dir_all(&folder).unwrap();
            let file = std::fs::File::create(folder.join("web.log")).unwrap();
            file.set_len(10 << 20).unwrap();
        }
        logs.keep(&stream(12), &instance(1), &lines(1, 1));
        let mut kept: Vec<u32> = logs.releases(&stream(1).app).into_iter().map(|(number, _)| number.0).collect();
        kept.sort_unstable();
        assert_eq!(kept, (3..=12).collect::<Vec<_>>());
        let total: u64 = logs.releases(&stream(1).app).iter().map(|(_, bytes)| bytes).sum();
        assert!(total <= MAX_APP_BYTES);
    }

    #[test]
    fn what_cannot_be_kept_is_counted_and_harms_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("a file where a folder should be");
        std::fs::write(&blocked, b"").unwrap();
        let logs = AppLogs::new(&blocked);
        logs.keep(&stream(1), &instance(1), &lines(1, 3));
        assert_eq!(logs.dropped(), 3);
    }
}

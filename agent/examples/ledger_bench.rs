//! Figures of the journal on this machine: `cargo run --release --example ledger_bench -- [RELEASES] [FOLDER]`.
//!
//! Appends with `fdatasync` (what a deployment waits for), a start with a sound store, and a start that builds the
//! store from the ledger. Prints, asserts nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use refloat_agent::clock::SystemClock;
use refloat_agent::journal::sample::{History, ada, app};
use refloat_agent::journal::{FileJournal, Journal as _, JournalOptions};
use refloat_agent::paths::Paths;
use refloat_agent::store::{self, ProbeWith};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [verb, folder] = arguments.as_slice()
        && *verb == *store::SUBCOMMAND
    {
        return store::run_probe(Path::new(folder));
    }
    if let [verb, folder] = arguments.as_slice()
        && verb == "--start"
    {
        start(&Paths::below(Path::new(folder))).await;
        return ExitCode::SUCCESS;
    }
    let releases = arguments.first().map_or(10_000, |n| n.parse().unwrap());
    let scratch = match arguments.get(1) {
        Some(folder) => tempfile::tempdir_in(folder).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let paths = Paths::below(scratch.path());
    append(&paths, releases).await;
    start_apart(scratch.path(), "store sound");
    std::fs::remove_dir_all(paths.store()).unwrap();
    start_apart(scratch.path(), "store missing");
    start_apart(scratch.path(), "store sound again");
    ExitCode::SUCCESS
}

fn open(paths: &Paths) -> FileJournal {
    let probe = ProbeWith::Executable(PathBuf::from("/proc/self/exe"));
    FileJournal::open(JournalOptions::new(paths, probe, Arc::new(SystemClock))).unwrap()
}

async fn append(paths: &Paths, releases: u32) {
    let journal = open(paths);
    let mut history = History::default();
    let mut times = Vec::new();
    let mut events = vec![history.create("shop")];
    events.extend((1..=releases).flat_map(|number| history.deploy("shop", number)));
    for event in events {
        let began = Instant::now();
        journal.append(&ada(), event).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("append: {} records, p50 {:?}, p99 {:?}, max {:?}", times.len(), at(0.5), at(0.99), at(1.0));
    println!("ledger: {} KiB; resident {} KiB", size(&paths.ledger()) / 1024, resident_kib());
    journal.close().await;
}

/// In a process of its own, so that its memory is its own.
fn start_apart(folder: &Path, what: &str) {
    println!("start, {what}:");
    let program = std::env::current_exe().unwrap();
    assert!(std::process::Command::new(program).arg("--start").arg(folder).status().unwrap().success());
}

async fn start(paths: &Paths) {
    let began = Instant::now();
    let journal = open(paths);
    let took = began.elapsed();
    let began = Instant::now();
    let shop = journal.app(&app("shop")).await.unwrap().unwrap();
    print_start(took, began.elapsed());
    println!("  {:?}, serving {:?}, resident {} KiB", journal.report().store, shop.serving, resident_kib());
    journal.close().await;
}

fn print_start(took: Duration, read: Duration) {
    println!("  open {took:?}, then one read {read:?}");
}

fn size(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

//! The edge: the only process that touches public traffic.
//!
//! Exit codes: 0 after SIGTERM, 1 when it could not start, 64 for bad configuration.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use refloat_edge::{Args, Config, Edge};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const BAD_CONFIGURATION: u8 = 64;

fn main() -> ExitCode {
    let config = match configure() {
        Ok(config) => config,
        Err(code) => return code,
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "refloat-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn configure() -> Result<Config, ExitCode> {
    let args = Args::try_parse().map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::SUCCESS }
    })?;
    inherited_sockets().map_err(anyhow::Error::from).and_then(|i| Ok(Config::new(args, i)?)).map_err(|error| {
        let _ = writeln!(io::stderr(), "refloat-edge: {error:#}");
        ExitCode::from(BAD_CONFIGURATION)
    })
}

fn inherited_sockets() -> io::Result<Vec<std::net::TcpListener>> {
    let mut handed = listenfd::ListenFd::from_env();
    (0..handed.len()).filter_map(|i| handed.take_tcp_listener(i).transpose()).collect()
}

/// Standard error, which may close when whoever started the edge ends: that must not end the edge.
struct Diagnostics;

impl io::Write for Diagnostics {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Diagnostics).init();
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(serve(config))?;
    // Connections that outlived the drain time end here.
    runtime.shutdown_background();
    Ok(())
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Whoever started the edge may log off or end; the edge goes on.
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let edge = Edge::start(config).await.context("the edge cannot start")?;
    // Elsewhere than under systemd it does nothing.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd could not be told that the edge is ready");
    }
    loop {
        tokio::select! {
            _ = hang_up.recv() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    edge.shut_down().await;
    Ok(())
}

/// Two descriptors per connection: the usual 1,024 would end at 500 visitors.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

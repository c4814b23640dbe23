//! Runs the agent.

use std::path::Path;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{again, paths, say};
use crate::config::Config;
use crate::daemon::{self, Daemon};
use crate::logging;
use crate::wiring::Wrap;

pub(super) fn run(config: Config, named: Option<&Path>, with_edge: bool, wrap: Wrap) -> anyhow::Result<()> {
    let paths = paths(&config);
    if !paths.pki().join("authority.pem").exists() {
        let state = paths.state.display();
        anyhow::bail!("{state} is not set up yet\nNext: {}", again(named, "init"));
    }
    logging::start();
    let runtime = super::runtime()?;
    let ran = runtime.block_on(async {
        let end = end_on_signal()?;
        let daemon = Daemon::start(config, paths, with_edge, wrap).await?;
        announce(&daemon, named);
        // Elsewhere than under systemd it does nothing.
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!(%error, "systemd could not be told that the agent is ready");
        }
        daemon.run(end).await
    });
    // What still blocks on a disk or a socket must not hold the end up.
    runtime.shutdown_timeout(daemon::SHUTDOWN_GRACE);
    ran
}

/// Cancelled by SIGTERM and by Ctrl-C. A hang-up of the terminal changes nothing.
fn end_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be received")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be received")?;
    let mut hang_up = signal(SignalKind::hangup()).context("signals cannot be received")?;
    let end = CancellationToken::new();
    let cancel = end.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {}
            }
        }
        cancel.cancel();
    });
    Ok(end)
}

fn announce(daemon: &Daemon, named: Option<&Path>) {
    say(&format!("refloatd {} is ready", super::VERSION));
    say(&format!("  agent   {}", daemon.agent_addresses().join("  ")));
    match daemon.edge_addresses() {
        [] => say("  edge    does not answer: no visitor is served"),
        addresses => say(&format!("  edge    {}", addresses.join("  "))),
    }
    say(&format!("  apps    http://{}/", daemon.public_host()));
    say(&format!("Pair a device: {}", again(named, "pair")));
}

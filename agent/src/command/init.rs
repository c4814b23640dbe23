//! Makes what the agent needs on this server. Everything that is there already stays as it is.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::{paths, say, start};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::durable;
use crate::identity::authority::Authority;
use crate::journal::{FileJournal, Journal as _, JournalOptions};
use crate::paths::Paths;
use crate::sealed;
use crate::store::ProbeWith;

/// The state's root may be walked through: the edge, another user, has folders of its own in it. All others are closed.
const ROOT_MODE: u32 = 0o711;
const PRIVATE_MODE: u32 = 0o700;
/// The edge reads what it serves; its unit names the folder, so it is there before the edge starts.
const PUBLIC_MODE: u32 = 0o755;

pub(super) fn init(config: &Config, named: Option<&Path>) -> anyhow::Result<()> {
    let paths = paths(config);
    let fresh = !paths.pki().join("authority.pem").exists();
    make_folders(&paths)?;
    let authority = Authority::create(&paths.pki(), SystemClock.now_ms()).context("no certificate authority")?;
    let values = std::fs::read_dir(paths.sealed().join("values"));
    let orphaned = values.is_ok_and(|mut all| all.next().is_some()) && !paths.sealed().join("root.key").exists();
    if orphaned {
        // A new key would open none of them, and hide that the old one is missing.
        anyhow::bail!(
            "{} holds sealed values and no root.key: put the key back from your backup",
            paths.sealed().display()
        );
    }
    match sealed::Vault::create(&paths.sealed()) {
        Ok(_) | Err(sealed::SealedError::RootKeyExists { .. }) => {}
        Err(error) => return Err(error).context("no root key for sealed values"),
    }
    let host_id = begin_ledger(&paths)?;
    let word = if fresh { "made" } else { "is there already, nothing was changed" };
    say(&format!("Refloat's state in {} {word}:", paths.state.display()));
    let fingerprint = blake3::hash(authority.certificate()).to_hex();
    say(&format!("  certificate authority  {}  (fingerprint {})", paths.pki().display(), &fingerprint[..16]));
    say(&format!("  ledger                 {}", paths.ledger().display()));
    say(&format!("  sealed values          {}", paths.sealed().display()));
    say(&format!("  host                   {host_id}  (label dev.refloat.host of its containers)"));
    say("");
    say(&format!("Next: {}", start(named)));
    Ok(())
}

fn make_folders(paths: &Paths) -> anyhow::Result<()> {
    let private = [paths.pki(), paths.ledger(), paths.store(), paths.cas(), paths.sealed(), paths.logs()];
    let open = [(paths.state.clone(), ROOT_MODE), (paths.run.clone(), ROOT_MODE), (paths.public(), PUBLIC_MODE)];
    let all = open.into_iter().chain(private.map(|folder| (folder, PRIVATE_MODE)));
    for (folder, mode) in all {
        durable::make_dir(&folder, mode).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    Ok(())
}

/// The first record is written by opening. The host's identity, in hexadecimal.
fn begin_ledger(paths: &Paths) -> anyhow::Result<String> {
    let options = JournalOptions::new(paths, ProbeWith::this_program(), Arc::new(SystemClock));
    let journal = FileJournal::open(options).context("the ledger cannot be begun (does the agent run already?)")?;
    let host = super::runtime()?.block_on(async {
        let host = journal.host().await;
        journal.close().await;
        host
    });
    let id = host.context("the ledger cannot be read")?.host_id;
    Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

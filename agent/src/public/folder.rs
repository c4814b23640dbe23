//! From a folder of a stored source to content: no build at all.

use std::io::{self, Write};

use crate::cas::context::Verified;
use crate::cas::{Cas, CasError, StoredEntry, StoredNode};
use refloat_plan::tree::Digest;

use super::assembly::{Assembly, Content};
use super::publisher::{Blobs, PublishError};

/// Settings of ours at the root of a project: never part of a site.
const OURS: &[u8] = b"refloat.toml";

/// Copies what a folder of a source publishes and puts it together. `folder` has no slash at its ends; empty is the root.
///
/// # Errors
/// When the folder does not exist, a file of it is lost, or its content cannot be stored.
pub(super) fn read(cas: &Cas, source: &Digest, folder: &str, blobs: &mut Blobs) -> Result<Assembly, PublishError> {
    let tree = cas.walk(source).map_err(PublishError::Source)?;
    let mut assembly = Assembly::default();
    for entry in tree.below(folder).map_err(PublishError::Source)? {
        if folder.is_empty() && entry.path == OURS {
            continue;
        }
        take(cas, &entry, &mut assembly, blobs)?;
    }
    Ok(assembly)
}

fn take(cas: &Cas, entry: &StoredEntry, assembly: &mut Assembly, blobs: &mut Blobs) -> Result<(), PublishError> {
    if entry.node == StoredNode::Directory {
        return Ok(());
    }
    let Some(path) = assembly.admit(&entry.path) else { return Ok(()) };
    match &entry.node {
        StoredNode::Directory => Ok(()),
        StoredNode::Symlink { target } => assembly.link(path, target, false),
        StoredNode::File { digest, size, .. } => {
            copy(cas, entry, digest, *size, blobs)?;
            // Both stores name content by its plain BLAKE3.
            assembly.file(path, Content { blob: *digest, size: *size })
        }
    }
}

fn copy(cas: &Cas, entry: &StoredEntry, digest: &Digest, size: u64, blobs: &mut Blobs) -> Result<(), PublishError> {
    if blobs.holds(digest, size)? {
        return Ok(());
    }
    let file = cas.file(digest, &entry.path).map_err(PublishError::Source)?;
    let mut reader = Verified::new(file, size);
    let mut writer = blobs.writer()?;
    io::copy(&mut reader, &mut writer).and_then(|_| writer.flush()).map_err(PublishError::store("write a file"))?;
    if !reader.is(digest) {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        return Err(PublishError::Source(CasError::Lost { path, digest: *digest }));
    }
    blobs.add(writer, *digest)
}

//! The planner over a stored tree: the same function that the CLI calls over a folder.

use std::collections::HashMap;
use std::io::Read as _;

use refloat_plan::plan::Plan;
use refloat_plan::source::{ListedFile, Listing, MAX_READ_BYTES, Source};
use refloat_plan::tree::Digest;
use refloat_plan::{PlanError, Request};

use super::error::BuildError;
use super::planner::Planner;
use crate::cas::{Cas, StoredNode, StoredTree};

/// Plans with `refloat-plan`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SourcePlanner;

struct Stored<'a> {
    cas: &'a Cas,
    listing: Listing,
    files: HashMap<&'a [u8], (Digest, u64)>,
}

impl<'a> Stored<'a> {
    fn new(cas: &'a Cas, tree: &'a StoredTree) -> Self {
        let (mut listed, mut links, mut files) = (Vec::new(), Vec::new(), HashMap::new());
        for entry in &tree.entries {
            match &entry.node {
                StoredNode::File { digest, size, executable } => {
                    listed.push(ListedFile { path: entry.path.clone(), size: *size, executable: *executable });
                    files.insert(entry.path.as_slice(), (*digest, *size));
                }
                StoredNode::Symlink { .. } => links.push(entry.path.clone()),
                StoredNode::Directory => {}
            }
        }
        Self { cas, listing: Listing::new(listed, links), files }
    }
}

impl Source for Stored<'_> {
    fn listing(&self) -> &Listing {
        &self.listing
    }

    fn read(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (digest, size) = self.files.get(path).filter(|(_, size)| *size <= MAX_READ_BYTES)?;
        let mut bytes = Vec::new();
        self.cas.file(digest, path).ok()?.take(*size).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

impl Planner for SourcePlanner {
    fn plan(&self, cas: &Cas, tree: &StoredTree, folder: &str, prebuilt: bool) -> Result<Plan, BuildError> {
        let request = Request { folder_name: folder.to_owned(), prebuilt };
        refloat_plan::plan(&Stored::new(cas, tree), &request).map_err(not_planned)
    }
}

fn not_planned(error: PlanError) -> BuildError {
    let message = if error.next.is_empty() { error.message } else { format!("{} {}", error.message, error.next) };
    BuildError::NotPlanned { message, lines: error.looked_for }
}

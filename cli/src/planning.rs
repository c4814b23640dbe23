//! The plan that is made here, so that `refloat plan` needs no server. The agent's own plan is the one that counts.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use refloat_plan::capability::all_of;
use refloat_plan::never_sent::NEVER_SENT;
use refloat_plan::plan::{BackendPlan, Kind, Plan, ProcessPlan, is_own};
pub(crate) use refloat_plan::render::render;
use refloat_plan::settings::{FILE_NAME as SETTINGS_FILE, Settings};
use refloat_plan::source::{ListedFile, Listing, MAX_READ_BYTES, Source};
use refloat_plan::{PlanError, PlanErrorKind, Request};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::unix;
use crate::upload::{Folder, Item, Rules, Walked};

/// What belongs to the source of an app that is built on the server.
pub(crate) const SOURCE_RULES: Rules = Rules { never: NEVER_SENT, ignore_files: true };
/// What belongs to what was built elsewhere: all of it. Some builds carry their own `node_modules`.
pub(crate) const PREBUILT_RULES: Rules = Rules { never: &[".git"], ignore_files: false };

/// Plans a walked source of the project in `folder`.
///
/// # Errors
/// When `refloat.toml` is wrong or the source is not understood.
pub(crate) fn plan(walked: &Walked, folder: &Path, prebuilt: bool) -> Result<Plan, Failure> {
    let request = Request { folder_name: folder_name(folder), prebuilt };
    refloat_plan::plan(&OnDisk::of(walked), &request).map_err(refused)
}

/// Refuses to deploy what was built without the settings that stand beside it: a release without its volumes starts with
/// empty data.
///
/// # Errors
/// When the project's `refloat.toml` says something of processes or volumes and the built folder has none.
pub(crate) fn check_settings_beside(folder: &Path, built: &Path) -> Result<(), Failure> {
    let (ours, theirs) = (folder.join(SETTINGS_FILE), built.join(SETTINGS_FILE));
    let Ok(text) = std::fs::read_to_string(&ours) else { return Ok(()) };
    let settings = Settings::parse(&text).map_err(refused)?;
    if theirs.exists() || (settings.process.is_empty() && settings.volumes.is_empty()) {
        return Ok(());
    }
    let message = format!(
        "{} has settings of processes or volumes that {} would be deployed without; nothing was sent",
        ours.display(),
        built.display()
    );
    let next = format!("cp {} {}", ours.display(), theirs.display());
    Err(Failure::new(Exit::Configuration, message).reason("SETTINGS").next(next))
}

/// The last component of a folder's path.
pub(crate) fn folder_name(folder: &Path) -> String {
    let absolute = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn refused(error: PlanError) -> Failure {
    let reason = match error.kind {
        PlanErrorKind::Settings => "SETTINGS",
        PlanErrorKind::Source => "SOURCE",
        PlanErrorKind::NotYet => "NOT_YET",
        PlanErrorKind::NotRecognised => "NOT_RECOGNISED",
    };
    let lines = error.looked_for.iter().map(|what| format!("looked for {what}")).collect();
    Failure { lines, ..Failure::new(Exit::Configuration, error.message) }.reason(reason).next(error.next)
}

/// A walked source as a planner sees it.
struct OnDisk {
    root: PathBuf,
    listing: Listing,
}

impl OnDisk {
    fn of(walked: &Walked) -> Self {
        let mut listing = (Vec::new(), Vec::new());
        list(walked, &walked.top, &mut Vec::new(), &mut listing);
        Self { root: walked.root.clone(), listing: Listing::new(listing.0, listing.1) }
    }
}

/// Adds what is below `above`, which ends with a slash unless it is empty.
fn list(walked: &Walked, folder: &Folder, above: &mut Vec<u8>, listing: &mut (Vec<ListedFile>, Vec<Vec<u8>>)) {
    for (name, item) in &folder.items {
        let length = above.len();
        above.extend_from_slice(name);
        match item {
            Item::File(index) => {
                let file = &walked.files[*index];
                let (size, executable) = (file.size, file.executable);
                listing.0.push(ListedFile { path: above.clone(), size, executable });
            }
            Item::Link(_) => listing.1.push(above.clone()),
            Item::Folder(inner) => {
                above.push(b'/');
                list(walked, inner, above, listing);
            }
        }
        above.truncate(length);
    }
}

impl Source for OnDisk {
    fn listing(&self) -> &Listing {
        &self.listing
    }

    fn read(&self, path: &[u8]) -> Option<Vec<u8>> {
        let listed = self.listing.file(path).filter(|file| file.size <= MAX_READ_BYTES)?;
        let file = unix::open_file(&self.root.join(unix::path_of(&listed.path))).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_READ_BYTES).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// "Vite single-page app (Lovable): web (files)".
pub(crate) fn summary(plan: &Plan) -> String {
    let builder = plan.builder.as_deref().map(|builder| format!(" ({builder})")).unwrap_or_default();
    let processes: Vec<String> = plan.processes.iter().map(|it| process(plan, it)).collect();
    match processes.is_empty() {
        true => format!("{}{builder}", plan.shape),
        false => format!("{}{builder}: {}", plan.shape, processes.join(", ")),
    }
}

fn process(plan: &Plan, process: &ProcessPlan) -> String {
    let backend = match &process.backend {
        BackendPlan::Files { .. } => "files".to_owned(),
        BackendPlan::Instance { build, capabilities, .. } if is_own(&plan.builds, build) => {
            format!("container with the capabilities {}", all_of(capabilities).join(", "))
        }
        BackendPlan::Instance { .. } => "container".to_owned(),
    };
    let kind = match process.kind {
        Kind::Web => "",
        Kind::Worker => "worker, ",
        Kind::Cron => "cron, ",
    };
    let exclusive = if process.exclusive { ", never two at once" } else { "" };
    format!("{} ({kind}{backend}{exclusive})", process.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::walk;

    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        folder
    }

    fn planned(folder: &Path) -> Result<Plan, Failure> {
        plan(&walk(folder, SOURCE_RULES)?, folder, false)
    }

    #[test]
    fn a_folder_on_disk_is_planned_and_summed_up_in_a_line() {
        let folder = project(&[("refloat.toml", "schema = 1\napp = \"shop\"\n"), ("index.html", "<html></html>")]);
        let plan = planned(folder.path()).expect("a static folder");
        assert_eq!(plan.app, "shop");
        assert!(summary(&plan).ends_with(": web (files)"), "{}", summary(&plan));
    }

    #[test]
    fn what_was_built_is_not_deployed_without_the_volumes_that_stand_beside_it() {
        let settings = "schema = 1\napp = \"shop\"\n\n[volumes]\ndata = \"/data\"\n";
        let folder = project(&[("refloat.toml", settings), ("dist/server.js", "")]);
        let built = folder.path().join("dist");
        let failure = check_settings_beside(folder.path(), &built).expect_err("the volume would be left behind");
        assert_eq!(failure.exit, Exit::Configuration);
        std::fs::write(built.join("refloat.toml"), settings).expect("written");
        check_settings_beside(folder.path(), &built).expect("it has its own now");
        let harmless = project(&[("refloat.toml", "schema = 1\napp = \"shop\"\n"), ("dist/index.html", "")]);
        check_settings_beside(harmless.path(), &harmless.path().join("dist"))
            .expect("the name is the project's anyway");
    }

    #[test]
    fn a_mistake_in_the_configuration_has_an_exit_code_of_its_own() {
        let folder = project(&[("refloat.toml", "schema = 1\nap = \"shop\"\n"), ("index.html", "<html></html>")]);
        let failure = planned(folder.path()).expect_err("a key that does not exist");
        assert_eq!((failure.exit, failure.reason.as_ref()), (Exit::Configuration, "SETTINGS"));
    }

    #[test]
    fn what_is_not_recognised_says_what_was_looked_for() {
        let failure = planned(project(&[("notes.txt", "nothing")]).path()).expect_err("nothing to run");
        assert_eq!((failure.exit, failure.reason.as_ref()), (Exit::Configuration, "NOT_RECOGNISED"));
        assert!(!failure.lines.is_empty());
    }
}

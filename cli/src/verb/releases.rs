//! `refloat releases`

use std::time::SystemTime;

use refloat_proto::v1::release_service_client::ReleaseServiceClient;
use refloat_proto::v1::{ListReleasesRequest, Origin, ReleaseSummary};
use serde_json::json;

use crate::args::Releases;
use crate::connection::answer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::Tone;
use crate::session::Session;
use crate::span::{ago, millis};
use crate::table::table;

const SHORT_COMMIT: usize = 7;

pub(super) async fn perform(session: &Session<'_>, args: &Releases) -> Result<Exit, Failure> {
    let link = session.connect().await?;
    let request = ListReleasesRequest { app: session.app(args.app.as_deref()), limit: args.limit };
    let list = answer(ReleaseServiceClient::new(link.channel).list_releases(request)).await?;
    session.printer.object(&json!(list));
    if list.releases.is_empty() {
        session.printer.say(Tone::Plain, &format!("{} has no releases yet. Next: refloat deploy", list.app));
        return Ok(Exit::Done);
    }
    let now = SystemTime::now();
    let rows = list.releases.iter().map(|release| row(release, now));
    let header = ["RELEASE", "STATE", "AGE", "WHO", "FROM", "WHAT", "TOOK"];
    session.printer.result(Tone::Plain, &table(header, rows));
    Ok(Exit::Done)
}

fn row(release: &ReleaseSummary, now: SystemTime) -> [String; 7] {
    let origin = release.origin.clone().unwrap_or_default();
    [
        format!("r{}", release.number),
        state(release),
        ago(release.created_at_unix_ms, now),
        release.author.clone(),
        from(&origin),
        what(release),
        if release.first_took_ms == 0 { "-".to_owned() } else { millis(release.first_took_ms) },
    ]
}

/// "serves", how it is kept ready, or nothing.
pub(super) fn state(release: &ReleaseSummary) -> String {
    match (release.serves, release.standby.as_str()) {
        (true, _) => "serves".to_owned(),
        (false, "") => String::new(),
        (false, standby) => format!("standby, {standby}"),
    }
}

/// "laptop:shop @ 1a2b3c4+": the plus stands for changes that were not committed.
pub(super) fn from(origin: &Origin) -> String {
    // A change of the environment comes from no folder, though its release keeps the name of the one that it was built from.
    if origin.host.is_empty() {
        return String::new();
    }
    let place: Vec<&str> = [origin.host.as_str(), &origin.folder].into_iter().filter(|part| !part.is_empty()).collect();
    let commit: String = origin.git_commit.chars().take(SHORT_COMMIT).collect();
    let dirty = if origin.git_dirty { "+" } else { "" };
    if commit.is_empty() { place.join(":") } else { format!("{} @ {commit}{dirty}", place.join(":")) }
}

/// The commit's subject, or what changed against the release before.
pub(super) fn what(release: &ReleaseSummary) -> String {
    let subject = release.origin.as_ref().map(|origin| origin.git_subject.clone()).unwrap_or_default();
    let only_code = release.changes.iter().all(|change| change.what == "code");
    let changes: Vec<&str> = release
        .changes
        .iter()
        .filter(|change| subject.is_empty() || change.what != "code")
        .map(|change| change.text.as_str())
        .collect();
    match (subject.is_empty(), changes.is_empty()) {
        (true, true) if release.parent == 0 => "first release".to_owned(),
        (true, _) => changes.join("; "),
        (false, _) if only_code => subject,
        (false, _) => format!("{subject}; {}", changes.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use refloat_proto::v1::Change;

    use super::*;

    fn release(subject: &str, changes: &[(&str, &str)]) -> ReleaseSummary {
        let change = |(what, text): &(&str, &str)| Change { what: (*what).to_owned(), text: (*text).to_owned() };
        ReleaseSummary {
            origin: Some(Origin { git_subject: subject.to_owned(), ..Origin::default() }),
            changes: changes.iter().map(change).collect(),
            ..ReleaseSummary::default()
        }
    }

    #[test]
    fn the_subject_stands_for_the_code_and_other_changes_stay_visible() {
        for (subject, changes, text) in [
            ("", &[][..], "first release"),
            ("Fix it", &[][..], "Fix it"),
            ("", &[("code", "code: src/a.ts")][..], "code: src/a.ts"),
            ("Fix it", &[("code", "code: src/a.ts")][..], "Fix it"),
            ("Fix it", &[("code", "code: src/a.ts"), ("env", "env: KEY changed")][..], "Fix it; env: KEY changed"),
        ] {
            assert_eq!(what(&release(subject, changes)), text);
        }
    }

    #[test]
    fn where_it_came_from_names_uncommitted_changes() {
        let origin = Origin {
            host: "laptop".to_owned(),
            folder: "shop".to_owned(),
            git_commit: "1a2b3c4d5e".to_owned(),
            git_dirty: true,
            ..Origin::default()
        };
        assert_eq!(from(&origin), "laptop:shop @ 1a2b3c4+");
        assert_eq!(from(&Origin { git_commit: String::new(), ..origin }), "laptop:shop");
    }
}

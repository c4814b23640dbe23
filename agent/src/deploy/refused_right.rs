//! What an app's last lines say of a right that its container does not have. Pure.
//!
//! The kernel answers EPERM ("Operation not permitted") where a capability is missing. EACCES ("Permission denied") is about
//! the owner and mode of a file, which no capability of ours changes: nothing is said of it.

use refloat_model::{Backend, Capability, Hardening, Process};

/// What a line with a refusal tells of the capability that was missing.
const TELLING: [(&str, Capability); 8] = [
    ("chroot", Capability::SysChroot),
    ("mknod", Capability::Mknod),
    ("setcap", Capability::Setfcap),
    ("audit", Capability::AuditWrite),
    ("ping", Capability::NetRaw),
    ("pcap", Capability::NetRaw),
    ("socket", Capability::NetRaw),
    ("raw", Capability::NetRaw),
];

/// The switch that may be missing, when a container of an own image was refused something.
pub(super) fn hint(process: &Process, lines: &[String]) -> Option<String> {
    let Backend::Instance { hardening: Hardening::Own, capabilities, .. } = &process.backend else { return None };
    let lines: Vec<String> =
        lines.iter().map(|line| line.to_ascii_lowercase()).filter(|line| is_refusal(line)).collect();
    if lines.is_empty() {
        return None;
    }
    let told = TELLING.iter().find(|(word, _)| lines.iter().any(|line| line.contains(word))).map(|(_, told)| *told);
    let possible: Vec<&str> = Capability::ALL
        .into_iter()
        .filter(|it| !capabilities.contains(it) && told.is_none_or(|told| told == *it))
        .map(Capability::name)
        .collect();
    let (example, others) = possible.split_first()?;
    let others = if others.is_empty() { String::new() } else { format!(" (or {})", others.join(", ")) };
    let all: Vec<String> =
        capabilities.iter().map(|it| it.name()).chain([*example]).map(|it| format!("\"{it}\"")).collect();
    Some(format!(
        "\"Operation not permitted\" may be a capability of Docker's usual set that this container does not get: \
         capabilities = [{}]{others} under [process.{}] in refloat.toml gives it back",
        all.join(", "),
        process.name
    ))
}

/// Whether a line, in small letters, says EPERM.
fn is_refusal(line: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.contains("operation not permitted") || line.split(|c| !is_word(c)).any(|word| word == "eperm")
}

#[cfg(test)]
mod tests {
    use refloat_model::{Health, ImageDigest, ProcessKind, ProcessName, Resources};

    use super::*;

    fn web(hardening: Hardening, capabilities: Vec<Capability>) -> Process {
        Process {
            name: ProcessName::new("web").unwrap(),
            kind: ProcessKind::Web,
            exclusive: false,
            backend: Backend::Instance {
                image: ImageDigest::new(format!("sha256:{}", "0".repeat(64))).unwrap(),
                command: vec![],
                port: 80,
                hardening,
                writable_root: true,
                capabilities,
            },
            routes: vec![],
            health: Health::default(),
            resources: Resources::default(),
            volumes: vec![],
            schedule: None,
        }
    }

    fn hint_of(process: &Process, line: &str) -> Option<String> {
        hint(process, &["listening".to_owned(), line.to_owned()])
    }

    #[test]
    fn a_refused_operation_names_the_switch_and_the_capability_where_it_can_be_told() {
        let own = web(Hardening::Own, vec![]);
        for (line, switch) in [
            ("chroot: can't change root directory to '/x': Operation not permitted", "[\"SYS_CHROOT\"] under"),
            (
                "ping: permission denied? PermissionError: [Errno 1] Operation not permitted: ping",
                "[\"NET_RAW\"] under",
            ),
            ("Error: EPERM: operation not permitted, mknod '/dev/x'", "[\"MKNOD\"] under"),
            ("exec failed: EPERM", "[\"AUDIT_WRITE\"] (or FSETID, MKNOD, NET_RAW, SETFCAP, SETPCAP, SYS_CHROOT) under"),
        ] {
            let hint = hint_of(&own, line).unwrap_or_default();
            assert!(hint.contains(&format!("capabilities = {switch} [process.web] in refloat.toml")), "{line}: {hint}");
        }
    }

    #[test]
    fn what_is_given_back_already_stays_in_the_switch_and_is_not_offered_again() {
        let pings = web(Hardening::Own, vec![Capability::NetRaw]);
        let hint = hint_of(&pings, "chroot: Operation not permitted").unwrap();
        assert!(hint.contains("capabilities = [\"NET_RAW\", \"SYS_CHROOT\"] under"), "{hint}");
        assert_eq!(hint_of(&pings, "socket: Operation not permitted"), None);
    }

    #[test]
    fn a_file_of_another_user_and_a_generated_image_are_another_matter() {
        let own = web(Hardening::Own, vec![]);
        assert_eq!(hint_of(&own, "Error: EACCES: permission denied, open '/data/x'"), None);
        assert_eq!(hint_of(&own, "superman is on"), None);
        assert_eq!(hint_of(&web(Hardening::Generated, vec![]), "EPERM: operation not permitted"), None);
    }
}

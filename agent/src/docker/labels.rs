//! The names and labels by which this agent's containers, networks, volumes and images are known to the engine.
//!
//! Several agents may live on one engine: every name but an instance's carries the first eight digits of the host id,
//! and every label set carries the whole of it. Deliberately absent: any value of an environment.

use std::collections::HashMap;

use refloat_model::{AppName, ReleaseNumber};

use super::engine::InstanceSpec;

/// Which agent it belongs to: 32 hexadecimal digits.
pub const HOST: &str = "dev.refloat.host";
/// Which agent a one-off container (a build's export, `run`) belongs to. It never carries [`HOST`], so that it is not
/// taken for an instance.
pub const ONE_OFF: &str = "dev.refloat.one-off";
/// The app.
pub const APP: &str = "dev.refloat.app";
/// The process.
pub const PROCESS: &str = "dev.refloat.process";
/// The release that an instance was first made for: `r42`.
pub const RELEASE: &str = "dev.refloat.release";
/// Digest of the runtime specification: 64 hexadecimal digits.
pub const SPEC: &str = "dev.refloat.spec";
/// A volume's name as `refloat.toml` has it.
pub const VOLUME: &str = "dev.refloat.volume";

/// The identity of this agent on its engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLabel(String);

impl HostLabel {
    /// From the host's id.
    #[must_use]
    pub fn new(host_id: [u8; 16]) -> Self {
        Self(hex(&host_id))
    }

    /// All 32 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn short(&self) -> &str {
        &self.0[..8]
    }

    /// Name of an app's network.
    #[must_use]
    pub fn network(&self, app: &AppName) -> String {
        format!("refloat-{}-{app}", self.short())
    }

    /// Name of an app's volume. App and volume names have no dot, so that `a-b` with `c` is not `a` with `b-c`.
    #[must_use]
    pub fn volume(&self, app: &AppName, volume: &str) -> String {
        format!("refloat-{}.{app}.{volume}", self.short())
    }

    /// Repository of the tags that keep an app's images.
    #[must_use]
    pub fn repository(&self, app: &AppName) -> String {
        format!("refloat-{}/{app}", self.short())
    }

    /// The tag that keeps a release's image.
    #[must_use]
    pub fn release_tag(&self, app: &AppName, release: ReleaseNumber) -> String {
        format!("{}:{release}", self.repository(app))
    }

    /// Repository of the tags that hold a fresh image until a release keeps it. No app has an underscore in its name.
    #[must_use]
    pub fn fresh_repository(&self) -> String {
        format!("refloat-{}/fresh_build", self.short())
    }

    /// Labels of what belongs to an app.
    pub(super) fn of_app(&self, app: &AppName) -> HashMap<String, String> {
        pairs([(HOST, self.0.clone()), (APP, app.to_string())])
    }

    /// Labels of an instance.
    pub(super) fn of_instance(&self, spec: &InstanceSpec) -> HashMap<String, String> {
        let mut labels = self.of_app(&spec.app);
        labels.extend(pairs([
            (PROCESS, spec.process.to_string()),
            (RELEASE, spec.release.to_string()),
            (SPEC, hex(&spec.spec_digest)),
        ]));
        labels
    }

    /// Labels of a container that is removed as soon as it has done its work.
    pub(super) fn of_one_off(&self) -> HashMap<String, String> {
        pairs([(ONE_OFF, self.0.clone())])
    }

    /// Labels of a volume.
    pub(super) fn of_volume(&self, app: &AppName, volume: &str) -> HashMap<String, String> {
        let mut labels = self.of_app(app);
        labels.extend(pairs([(VOLUME, volume.to_owned())]));
        labels
    }

    /// Whether something with these labels is this agent's.
    pub(super) fn owns(&self, labels: &HashMap<String, String>) -> bool {
        labels.get(HOST) == Some(&self.0)
    }
}

/// The engine's filter for one label.
pub(super) fn filter(label: &str, value: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])])
}

fn pairs<const N: usize>(pairs: [(&str, String); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Lowercase hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|n| char::from_digit(u32::from(n), 16)).collect()
}

/// Reads 64 hexadecimal digits.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    refloat_model::SourceDigest::from_hex(text).map(|digest| digest.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppName {
        AppName::new(name).unwrap()
    }

    #[test]
    fn volumes_of_two_apps_never_share_a_name() {
        let host = HostLabel::new([1; 16]);
        assert_ne!(host.volume(&app("a-b"), "c"), host.volume(&app("a"), "b-c"));
    }

    #[test]
    fn names_of_two_agents_differ_everywhere() {
        let (one, two) = (HostLabel::new([1; 16]), HostLabel::new([2; 16]));
        let app = app("shop");
        assert_ne!(one.network(&app), two.network(&app));
        assert_ne!(one.volume(&app, "data"), two.volume(&app, "data"));
        assert_ne!(one.release_tag(&app, ReleaseNumber(1)), two.release_tag(&app, ReleaseNumber(1)));
        assert_ne!(one.fresh_repository(), two.fresh_repository());
    }

    #[test]
    fn hexadecimal_reads_what_it_writes() {
        assert_eq!(unhex(&hex(&[0xa7; 32])), Some([0xa7; 32]));
        assert_eq!(hex(&[0x00, 0x9f]), "009f");
        assert_eq!(unhex("a7"), None);
    }
}

//! Keys of the records: one letter for the kind, then what identifies it. Names hold no zero byte, so it separates.

use refloat_model::{AppName, DeploymentId, EnvId, OneOffId, ReleaseNumber};

/// Where the store's own record is.
pub(super) const META: &[u8] = b"m";
/// Where the host's record is.
pub(super) const HOST: &[u8] = b"h";
/// What every app's key begins with.
pub(super) const APPS: &[u8] = b"a";

/// An app's record.
pub(super) fn app(app: &AppName) -> Vec<u8> {
    [APPS, app.as_str().as_bytes()].concat()
}

/// What the keys of an app's releases begin with.
pub(super) fn releases(app: &AppName) -> Vec<u8> {
    of_app(b'r', app)
}

/// A release's record; numbers in order of their keys.
pub(super) fn release(app: &AppName, number: ReleaseNumber) -> Vec<u8> {
    with(releases(app), &number.0.to_be_bytes())
}

/// A deployment's record.
pub(super) fn deployment(id: &DeploymentId) -> Vec<u8> {
    [b"d", id.0.as_slice()].concat()
}

/// What the keys of an app's deployments begin with in the index by app.
pub(super) fn deployments_of(app: &AppName) -> Vec<u8> {
    of_app(b'x', app)
}

/// A deployment's place in the index by app.
pub(super) fn deployment_of(app: &AppName, id: &DeploymentId) -> Vec<u8> {
    with(deployments_of(app), &id.0)
}

/// What the keys of an app's environments begin with.
pub(super) fn envs(app: &AppName) -> Vec<u8> {
    of_app(b'e', app)
}

/// An environment's record.
pub(super) fn env(app: &AppName, env: &EnvId) -> Vec<u8> {
    with(envs(app), &env.0)
}

/// What the keys of an app's commands begin with.
pub(super) fn one_offs(app: &AppName) -> Vec<u8> {
    of_app(b'o', app)
}

/// A command's record.
pub(super) fn one_off(app: &AppName, id: OneOffId) -> Vec<u8> {
    with(one_offs(app), &id.0)
}

fn of_app(kind: u8, app: &AppName) -> Vec<u8> {
    [&[kind], app.as_str().as_bytes(), &[0]].concat()
}

fn with(mut prefix: Vec<u8>, rest: &[u8]) -> Vec<u8> {
    prefix.extend_from_slice(rest);
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_app_sees_the_records_of_one_whose_name_it_begins() {
        let (a, ab) = (AppName::new("a").unwrap(), AppName::new("ab").unwrap());
        assert!(!release(&ab, ReleaseNumber(1)).starts_with(&releases(&a)));
        assert!(release(&a, ReleaseNumber(1)).starts_with(&releases(&a)));
    }

    #[test]
    fn releases_sort_by_number() {
        let a = AppName::new("a").unwrap();
        assert!(release(&a, ReleaseNumber(9)) < release(&a, ReleaseNumber(10)));
        assert!(release(&a, ReleaseNumber(255)) < release(&a, ReleaseNumber(256)));
    }
}

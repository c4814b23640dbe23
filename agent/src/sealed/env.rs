//! A change of an environment: some variables set, some gone, the rest untouched.

use std::collections::{BTreeMap, BTreeSet};

use refloat_model::{AppName, EnvId, EnvRecord, EnvVariable};

use super::secret::SecretValue;
use super::vault::{SealedError, SealedId, Vault};

/// Most variables of one environment.
pub const MAX_VARIABLES: usize = 1_000;
/// Longest name of a variable in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// What is to change.
#[derive(Debug, Clone, Default)]
pub struct EnvChange {
    /// New values.
    pub set: BTreeMap<String, SecretValue>,
    /// Variables that go.
    pub unset: BTreeSet<String>,
}

/// The environment after a change. Its values are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnv {
    /// Its identity: that of the environment before when nothing changed.
    pub env: EnvId,
    /// Its variables, sorted by name.
    pub variables: Vec<EnvVariable>,
    /// The names that were set to another value or are gone, sorted.
    pub changed: Vec<String>,
}

/// Why an environment was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EnvChangeError {
    /// Not a name.
    #[error(
        "\"{name}\" cannot be the name of a variable: use letters, digits and underscores, at most {MAX_NAME_BYTES}, not starting with a digit"
    )]
    Name {
        /// The name, shortened to 80 characters.
        name: String,
    },
    /// Contradiction.
    #[error("{name} is to be both set and unset")]
    Both {
        /// The variable.
        name: String,
    },
    /// Perhaps a typing mistake.
    #[error("{name} is not set, so that it cannot be unset")]
    NotSet {
        /// The variable.
        name: String,
    },
    /// A limit.
    #[error("an app can have {MAX_VARIABLES} variables, this would make {0}")]
    TooMany(usize),
    /// A value could not be kept.
    #[error("could not seal the value of {name}")]
    Seal {
        /// The variable.
        name: String,
        /// Why.
        #[source]
        source: SealedError,
    },
}

impl EnvChange {
    /// Seals the new values and answers with the whole new environment. A variable that is set to the value that it
    /// has keeps its sealed file and its date.
    ///
    /// # Errors
    /// When the change makes no sense or a value cannot be sealed; what was sealed for it is then erased again.
    pub fn apply(
        &self,
        vault: &Vault,
        app: &AppName,
        before: &EnvRecord,
        now_ms: u64,
        by: &str,
    ) -> Result<NewEnv, EnvChangeError> {
        self.check(before)?;
        let mut after: BTreeMap<String, EnvVariable> =
            before.variables.iter().map(|variable| (variable.name.clone(), variable.clone())).collect();
        let mut changed: BTreeSet<String> = self.unset.clone();
        after.retain(|name, _| !self.unset.contains(name));
        let mut sealed = Vec::new();
        for (name, value) in &self.set {
            let fingerprint = vault.fingerprint(app, name, value.expose());
            if after.get(name).is_some_and(|variable| variable.fingerprint == fingerprint) {
                continue;
            }
            let new = vault.seal(app, name, value.expose()).map_err(|source| {
                erase_all(vault, &sealed);
                EnvChangeError::Seal { name: name.clone(), source }
            })?;
            sealed.push(new.id);
            changed.insert(name.clone());
            let variable = EnvVariable {
                name: name.clone(),
                sealed: new.id,
                fingerprint: new.fingerprint,
                changed_at_ms: now_ms,
                changed_by: by.to_owned(),
            };
            after.insert(name.clone(), variable);
        }
        let variables: Vec<_> = after.into_values().collect();
        Ok(NewEnv { env: vault.env_id(app, &variables), variables, changed: changed.into_iter().collect() })
    }

    fn check(&self, before: &EnvRecord) -> Result<(), EnvChangeError> {
        if let Some(name) = self.set.keys().find(|name| !is_name(name)) {
            return Err(EnvChangeError::Name { name: name.chars().take(80).collect() });
        }
        let is_set = |name: &String| before.variables.iter().any(|variable| variable.name == *name);
        for name in &self.unset {
            if self.set.contains_key(name) {
                return Err(EnvChangeError::Both { name: name.clone() });
            }
            if !is_set(name) {
                return Err(EnvChangeError::NotSet { name: name.chars().take(80).collect() });
            }
        }
        let new = self.set.keys().filter(|name| !is_set(name)).count();
        let total = before.variables.len() + new - self.unset.len();
        if total > MAX_VARIABLES { Err(EnvChangeError::TooMany(total)) } else { Ok(()) }
    }
}

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME_BYTES
        && bytes.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn erase_all(vault: &Vault, ids: &[SealedId]) {
    for id in ids {
        if let Err(error) = vault.erase(id) {
            tracing::warn!(%error, "a sealed value that nothing names stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        vault: Vault,
        app: AppName,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let vault = Vault::create(folder.path()).unwrap();
            Self { _folder: folder, vault, app: AppName::new("shop").unwrap() }
        }

        fn apply(&self, before: &EnvRecord, change: &EnvChange, now_ms: u64) -> Result<NewEnv, EnvChangeError> {
            change.apply(&self.vault, &self.app, before, now_ms, "ada")
        }
    }

    fn change(set: &[(&str, &str)], unset: &[&str]) -> EnvChange {
        EnvChange {
            set: set.iter().map(|(n, v)| ((*n).to_owned(), SecretValue::new((*v).to_owned()))).collect(),
            unset: unset.iter().map(|n| (*n).to_owned()).collect(),
        }
    }

    fn names(env: &NewEnv) -> Vec<&str> {
        env.variables.iter().map(|v| v.name.as_str()).collect()
    }

    #[test]
    fn variables_are_sorted_and_open_to_their_values() {
        let fixture = Fixture::new();
        let env = fixture.apply(&EnvRecord::default(), &change(&[("B", "2"), ("A", "1")], &[]), 10).unwrap();
        assert_eq!((names(&env), &env.changed), (vec!["A", "B"], &vec!["A".to_owned(), "B".to_owned()]));
        let a = &env.variables[0];
        assert_eq!(fixture.vault.open_value(&fixture.app, &a.sealed, "A").unwrap().as_str(), "1");
        assert_eq!((a.changed_at_ms, a.changed_by.as_str()), (10, "ada"));
    }

    #[test]
    fn a_value_that_stays_keeps_its_file_and_its_date_and_the_environment_its_id() {
        let fixture = Fixture::new();
        let first = fixture.apply(&EnvRecord::default(), &change(&[("A", "1"), ("B", "2")], &[]), 10).unwrap();
        let before = EnvRecord { variables: first.variables.clone() };
        let same = fixture.apply(&before, &change(&[("A", "1")], &[]), 20).unwrap();
        assert_eq!(same, NewEnv { changed: Vec::new(), ..first.clone() });
        let other = fixture.apply(&before, &change(&[("A", "3")], &[]), 20).unwrap();
        assert_ne!(other.env, first.env);
        assert_eq!(other.variables[1], first.variables[1]);
        assert_eq!(other.variables[0].changed_at_ms, 20);
        let back = EnvRecord { variables: other.variables };
        assert_eq!(fixture.apply(&back, &change(&[("A", "1")], &[]), 30).unwrap().env, first.env, "equal values");
    }

    #[test]
    fn an_unset_variable_is_gone_and_one_that_is_not_set_is_refused() {
        let fixture = Fixture::new();
        let first = fixture.apply(&EnvRecord::default(), &change(&[("A", "1"), ("B", "2")], &[]), 10).unwrap();
        let before = EnvRecord { variables: first.variables };
        let env = fixture.apply(&before, &change(&[], &["A"]), 20).unwrap();
        assert_eq!((names(&env), &env.changed), (vec!["B"], &vec!["A".to_owned()]));
        assert!(matches!(fixture.apply(&before, &change(&[], &["C"]), 20), Err(EnvChangeError::NotSet { .. })));
        assert!(matches!(fixture.apply(&before, &change(&[("A", "2")], &["A"]), 20), Err(EnvChangeError::Both { .. })));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let fixture = Fixture::new();
        for bad in ["", "1A", "A B", "A=B", "A-B", "ä", &"A".repeat(MAX_NAME_BYTES + 1)] {
            let answer = fixture.apply(&EnvRecord::default(), &change(&[(bad, "1")], &[]), 10);
            assert!(matches!(answer, Err(EnvChangeError::Name { .. })), "{bad}");
        }
    }

    #[test]
    fn a_change_that_fails_leaves_no_sealed_value_behind() {
        let fixture = Fixture::new();
        let answer = fixture.apply(&EnvRecord::default(), &change(&[("A", "1"), ("B", "x\0y")], &[]), 10);
        assert!(matches!(answer, Err(EnvChangeError::Seal { name, .. }) if name == "B"));
        assert_eq!(fixture.vault.ids().unwrap(), Vec::<SealedId>::new());
    }

    #[test]
    fn a_limit_on_variables_counts_what_is_there_after_the_change() {
        let fixture = Fixture::new();
        let variable = |n: usize| EnvVariable {
            name: format!("V{n:04}"),
            sealed: [0; 16],
            fingerprint: [0; 32],
            changed_at_ms: 0,
            changed_by: String::new(),
        };
        let full = EnvRecord { variables: (0..MAX_VARIABLES).map(variable).collect() };
        assert!(matches!(fixture.apply(&full, &change(&[("A", "1")], &[]), 1), Err(EnvChangeError::TooMany(1_001))));
        assert!(fixture.apply(&full, &change(&[("A", "1")], &["V0000"]), 1).is_ok());
    }
}

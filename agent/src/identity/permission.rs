//! What each caller may do: one table, one row per method.
//!
//! [`Method`] is made from the wire contract when the agent is built, so a new RPC without a row here does not compile.
//! A path that the contract does not name has no row and is refused.

include!(concat!(env!("OUT_DIR"), "/method.rs"));

use super::caller::Caller;

/// What a person may do. Each one may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees what is there and what happened, and no value of an environment.
    Viewer,
    /// Changes what serves.
    Deployer,
    /// Everything: removes apps, runs commands, changes domains.
    Admin,
}

impl Role {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }

    /// The role of that word; `None` for every other word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Deployer, Self::Admin].into_iter().find(|role| role.word() == word)
    }
}

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Everybody, without a certificate too.
    Anyone,
    /// Whoever is known and has at least this role.
    AtLeast(Role),
    /// Only somebody on the server itself, over the Unix socket.
    SocketOnly,
}

/// The table.
#[must_use]
pub fn permission(method: Method) -> Permission {
    use Permission::{Anyone, AtLeast, SocketOnly};
    match method {
        // Its own proof is the one-time code.
        Method::IdentityPair => Anyone,
        Method::IdentityWhoAmI => AtLeast(Role::Viewer),
        Method::IdentityCreatePairingCode => SocketOnly,
        Method::SourceMissing | Method::SourceUpload => AtLeast(Role::Deployer),
        Method::ReleaseListReleases | Method::ReleaseGetRelease | Method::ReleaseDiffReleases => AtLeast(Role::Viewer),
        Method::DeploymentDeploy
        | Method::DeploymentRollback
        | Method::DeploymentActivate
        | Method::DeploymentRestart
        | Method::DeploymentStop
        | Method::DeploymentChangeEnv
        | Method::DeploymentCancel => AtLeast(Role::Deployer),
        Method::DeploymentDestroy | Method::DeploymentSetDomains => AtLeast(Role::Admin),
        Method::DeploymentWatch => AtLeast(Role::Viewer),
        Method::AppListApps | Method::AppGetStatus | Method::AppListEnv | Method::AppLogs => AtLeast(Role::Viewer),
        // A command sees every value of the environment.
        Method::AppRun => AtLeast(Role::Admin),
        // Monitoring asks whether the agent lives; the answer says nothing else.
        Method::HealthCheck | Method::HealthWatch => Anyone,
        Method::ServerReflectionServerReflectionInfo => AtLeast(Role::Viewer),
    }
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No certificate where one is needed.
    #[error("this device is not paired with the server")]
    NotPaired,
    /// A certificate of another authority.
    #[error("the certificate that was shown is not of this server")]
    ForeignCertificate,
    /// A certificate that has ended.
    #[error("the certificate of {0} has expired")]
    CertificateExpired(String),
    /// A certificate that is not valid yet.
    #[error("the certificate is not valid yet: the clock of the server or of this device is wrong")]
    CertificateNotYetValid,
    /// A certificate that the ledger does not know.
    #[error("the certificate is not on the server's list of paired devices")]
    NotListed,
    /// Known, but the role does not reach.
    #[error("that needs the role {}, and this device has the role {}", needed.word(), has.word())]
    RoleTooLow {
        /// The role that is needed.
        needed: Role,
        /// The role that is there.
        has: Role,
    },
    /// Only on the server itself.
    #[error("that can only be done by root on the server itself")]
    OnlyOnTheServer,
    /// There is no such method.
    #[error("this server knows no such call")]
    NoSuchMethod,
}

/// Judges a call by its path.
///
/// # Errors
/// Why it is refused.
pub fn judge(path: &str, caller: &Caller) -> Result<Method, Refusal> {
    let method = Method::of(path).ok_or(Refusal::NoSuchMethod)?;
    match permission(method) {
        Permission::Anyone => Ok(method),
        Permission::SocketOnly => match caller {
            Caller::Local(_) => Ok(method),
            _ => Err(Refusal::OnlyOnTheServer),
        },
        Permission::AtLeast(needed) => {
            let has = role(caller)?;
            if has >= needed { Ok(method) } else { Err(Refusal::RoleTooLow { needed, has }) }
        }
    }
}

fn role(caller: &Caller) -> Result<Role, Refusal> {
    match caller {
        Caller::Paired(known) | Caller::Local(known) => Ok(known.role),
        Caller::Anonymous => Err(Refusal::NotPaired),
        Caller::Foreign => Err(Refusal::ForeignCertificate),
        Caller::Expired { name } => Err(Refusal::CertificateExpired(name.clone())),
        Caller::NotYetValid => Err(Refusal::CertificateNotYetValid),
        Caller::Unlisted => Err(Refusal::NotListed),
    }
}

#[cfg(test)]
mod tests {
    use refloat_model::{Principal, Via};

    use super::super::caller::Known;
    use super::*;

    fn paired(role: Role) -> Caller {
        let principal = Principal { name: "anna".into(), via: Via::Certificate("4a".into()), from: "192.0.2.1".into() };
        Caller::Paired(Known { principal, role, not_after_ms: 1 })
    }

    #[test]
    fn without_being_known_only_what_is_declared_for_anyone_can_be_called() {
        for caller in [Caller::Anonymous, Caller::Foreign, Caller::Expired { name: "a".into() }, Caller::Unlisted] {
            let open: Vec<_> = Method::ALL.into_iter().filter(|m| judge(m.path(), &caller).is_ok()).collect();
            assert_eq!(open, [Method::IdentityPair, Method::HealthCheck, Method::HealthWatch], "{caller:?}");
        }
    }

    #[test]
    fn each_role_may_do_what_its_row_says_and_no_more() {
        let destroy = Method::DeploymentDestroy.path();
        let deploy = Method::DeploymentDeploy.path();
        assert!(judge(deploy, &paired(Role::Deployer)).is_ok());
        assert_eq!(
            judge(deploy, &paired(Role::Viewer)),
            Err(Refusal::RoleTooLow { needed: Role::Deployer, has: Role::Viewer })
        );
        assert!(judge(destroy, &paired(Role::Deployer)).is_err());
        assert!(judge(destroy, &paired(Role::Admin)).is_ok());
        let code = Method::IdentityCreatePairingCode.path();
        assert_eq!(judge(code, &paired(Role::Admin)), Err(Refusal::OnlyOnTheServer));
    }

    #[test]
    fn a_path_that_the_contract_does_not_name_is_refused_to_everybody() {
        for path in ["/", "", "/refloat.v1.AppService/Nope", "/refloat.edge.v1.Control/Apply"] {
            assert_eq!(judge(path, &paired(Role::Admin)), Err(Refusal::NoSuchMethod), "{path}");
        }
    }
}

//! Decisions, pure: what a release is, who may do what when, which step comes next, where a rollback goes,
//! what stays warm, and what must always hold.
//!
//! Owns the words of the project (`App`, `Process`, `Backend`, `Release`, `Instance`, `Deployment`,
//! `Activation`, `RouteTable`, `Generation`) and every rule about them.
//!
//! **Architecture invariant:** there is no tokio, no input or output, no clock and no randomness here; time and
//! observations are arguments. A test of the workspace fails when one of them can be reached from this crate.

pub mod admission;
pub mod canonical;
pub mod capability;
pub mod deployment;
pub mod difference;
pub mod event;
pub mod id;
pub mod lineage;
pub mod one_off;
pub mod planning;
pub mod principal;
pub mod release;
pub mod route;
pub mod standby;
pub mod state;
pub mod tree;

pub use canonical::{Canonical, CanonicalError};
pub use capability::Capability;
pub use deployment::{Action, DeployAction, Deployment, Failure, Origin, Outcome, Phase};
pub use difference::Change;
pub use event::{Entry, EnvVariable, Event, InstanceRecord, ReleaseIdentity, ReleaseMeta};
pub use id::{
    AppName, ContentId, DeploymentId, EnvId, Epoch, Generation, ImageDigest, InstanceName, NameError, OneOffId,
    PlanDigest, ProcessName, ReleaseId, ReleaseNumber, SourceDigest, TableDigest, TreeDigest,
};
pub use one_off::{OneOff, OneOffEnd};
pub use principal::{Principal, Via};
pub use release::{
    Author, Backend, Hardening, Health, Process, ProcessKind, Release, Resources, StaticRules, VolumeMount,
};
pub use route::{AppRoutes, AppServing, HostName, PathPrefix, Route, RouteTable, RouteTarget, TableError};
pub use state::{
    Activation, AppState, Client, DeploymentRecord, EnvRecord, FoldError, HostState, OneOffRecord, Records,
    ReleaseRecord,
};
pub use tree::{FileTree, TreeFile};

//! The cap on builds: memory, processor time and processes of every build step together.
//!
//! A build runs other people's code at a moment when the server also serves visitors. Every step of it runs below one
//! control group, named to the engine as the parent of the step's own, and the limits are on that group. BuildKit
//! ignores the limits of its API but honours the parent.
//!
//! ```text
//! cgroup v1   /sys/fs/cgroup/{memory,cpu,pids}/refloat-build   made and written by the agent
//! cgroup v2   /sys/fs/cgroup/refloat-build                     made and written by the agent
//! systemd     refloat.slice/refloat-build.slice, 1 or 2        from the package, where it is active and nothing is configured: only read
//! ```
//!
//! What [`BuildCap::apply`] answers was read back from the kernel, never taken from what was written, and
//! [`BuildCap::was_used`] tells after a build whether its steps ran there: where a limit does not hold, a sentence says
//! so.
//!
//! Deliberately absent: a cap on apps. Containers get their own limits from the engine.

pub mod cap;
pub mod limits;
pub mod v1;
pub mod v2;

pub use cap::{BuildCap, CapStatus, Wanted, choose};
pub use limits::Limits;

//! Where a rollback goes: to the predecessor of the serving release at its first activation.
//!
//! "Previous" is lineage, never a time stamp. A release that was rolled back from is passed over until it is activated
//! by name: somebody found it bad, and a rollback is typed in a hurry.
//!
//! | history | serves | `rollback` goes to |
//! |---|---|---|
//! | r1 | r1 | nothing before r1 |
//! | r1, r2 | r2 | r1 |
//! | r1, r2, rollback | r1 | nothing before r1 |
//! | r1, r2, rollback, deploy r3 | r3 | r1 |
//! | r1, r2, r3, rollback, rollback | r1 | nothing before r1 |
//! | r1, r2, r3, activate r1, deploy r4 | r4 | r1 |
//! | r1, r2, rollback, activate r2 | r2 | r1 |
//! | r1, r2, r3, rollback, rollback, activate r3 | r3 | r1 |

use crate::difference::code_differs;
use crate::id::ReleaseNumber;
use crate::state::ReleaseRecord;

/// Why there is nowhere to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTarget {
    /// Nothing served before this release.
    NothingBefore(ReleaseNumber),
    /// Everything before has the same code.
    NoOtherCode(ReleaseNumber),
    /// A release of the chain is not kept any more.
    NotKept(ReleaseNumber),
}

/// Where a rollback from `serving` goes; with `code`, to the nearest one with other code. `find` looks a release up.
///
/// # Errors
/// Why there is nowhere to go.
pub fn rollback_target<'a>(
    serving: ReleaseNumber,
    code: bool,
    find: impl Fn(ReleaseNumber) -> Option<&'a ReleaseRecord>,
) -> Result<ReleaseNumber, NoTarget> {
    let start = find(serving).ok_or(NoTarget::NotKept(serving))?;
    let (mut at, mut passed_one) = (start, false);
    // A chain is as long as the history at most; numbers need not fall, so the steps are counted.
    for _ in 0..100_000 {
        let Some(before) = at.predecessor else {
            return Err(if code && passed_one {
                NoTarget::NoOtherCode(serving)
            } else {
                NoTarget::NothingBefore(serving)
            });
        };
        at = find(before).ok_or(NoTarget::NotKept(before))?;
        if at.rolled_back {
            continue;
        }
        if !code || code_differs(&start.release, &at.release) {
            return Ok(before);
        }
        passed_one = true;
    }
    Err(NoTarget::NothingBefore(serving))
}

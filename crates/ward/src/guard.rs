//! The types by which a write proves that it holds a guard row.
//!
//! A function of a `store.rs` that writes takes one of these instead of a plain transaction, so a write without its guard
//! row does not compile:
//!
//! ```no_run
//! # use ward::{guard::WorkspaceGuard, ids::WorkspaceId, workspaces};
//! # use ward_db::{Error, Timestamp, Tx};
//! fn write(tx: &mut Tx<'_>, workspace: WorkspaceId, now: Timestamp) -> Result<i64, Error> {
//!     let mut held = WorkspaceGuard::take(tx, workspace)?;
//!     workspaces::next_position(&mut held, now)
//! }
//! ```
//!
//! ```compile_fail
//! # use ward::{guard::WorkspaceGuard, ids::WorkspaceId, workspaces};
//! # use ward_db::{Error, Timestamp, Tx};
//! fn write(tx: &mut Tx<'_>, workspace: WorkspaceId, now: Timestamp) -> Result<i64, Error> {
//!     workspaces::next_position(tx, now)
//! }
//! ```
//!
//! The guard row of a principal is not that of a workspace:
//!
//! ```compile_fail
//! # use ward::{guard::PrincipalGuard, ids::PrincipalId, workspaces};
//! # use ward_db::{Error, Timestamp, Tx};
//! fn write(tx: &mut Tx<'_>, principal: PrincipalId, now: Timestamp) -> Result<i64, Error> {
//!     let mut held = PrincipalGuard::take(tx, principal)?;
//!     workspaces::next_position(&mut held, now)
//! }
//! ```

use ward_db::{Error, Tx};
use ward_guard::{Guarded, Lock};

use crate::ids::{PrincipalId, WorkspaceId};

/// A transaction that holds the guard row of a workspace. All writes of the workspace's rows take it.
pub type WorkspaceGuard<'a, 't> = Guarded<'a, Tx<'t>, WorkspaceId>;

/// A transaction that holds the guard row of a principal, for writes on the principal's own list.
pub type PrincipalGuard<'a, 't> = Guarded<'a, Tx<'t>, PrincipalId>;

/// The absence of a guard row, for an anonymous request: the workspace that it creates or claims becomes its guard row
/// later. No function of a store takes it.
#[derive(Clone, Copy, Debug)]
pub struct NoGuard;

impl Lock<Tx<'_>> for NoGuard {
    type Row = Self;
    type Error = Error;

    fn lock(self, _: &mut Tx<'_>) -> Result<Self, Error> {
        Ok(self)
    }
}

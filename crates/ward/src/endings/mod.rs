//! Ends that concern more rows than one write may touch.
//!
//! A member may have a million keys and invitations, and a workspace a million members. The write that ends
//! them closes only the first few rows. For the others it leaves an *ending*: from that commit on, the
//! rules refuse those rows. A background task then closes them in steps, and the audit records each step.

mod store;

use ward_db::{Error, Timestamp, Uuid};

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::audit::Actor;
use crate::context::Context;
use crate::guard::WorkspaceGuard;
use crate::ids::{PrincipalId, WorkspaceId};
use crate::names::named;

pub use store::{count, forget, next, put_off, stands};

/// Rows that the write itself closes.
pub const AT_ONCE: u32 = 10;
/// Rows that one step of the background task closes.
pub const STEP: u32 = 200;

/// The kind of rows that a change of a member's role or a workspace's state ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// The workspace's keys that speak for a principal that is no longer a member.
    Keys,
    /// All invitations that the principal created.
    Invitations,
    /// The principal's invitations with the role owner.
    OwnerInvitations,
    /// The positions of the workspace in its members' lists.
    Listing,
}

named!(Kind);

/// Whether a step left rows that another step must close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedRows {
    /// Rows are left for another step.
    Some,
    /// No row is left to close.
    All,
}

/// An ending with rows that are not closed yet.
#[derive(Clone, Debug)]
pub struct Ending {
    pub workspace: WorkspaceId,
    /// The principal that the rows belong to; nil if all members are concerned.
    pub principal: PrincipalId,
    pub kind: Kind,
    /// Rows with a position before this one are concerned.
    pub position: i64,
    /// The last member whose list is done.
    pub done_until: PrincipalId,
    /// The actor whose request ended the rows.
    pub actor: Actor,
    pub request_id: String,
}

impl Ending {
    /// An ending of this member's rows with a position before `position`.
    pub fn of_member(
        workspace: WorkspaceId,
        principal: PrincipalId,
        kind: Kind,
        position: i64,
        (actor, context): (&Actor, &Context),
    ) -> Self {
        Self {
            workspace,
            principal,
            kind,
            position,
            done_until: PrincipalId(Uuid::nil()),
            actor: actor.clone(),
            request_id: context.request_id.clone(),
        }
    }

    /// A change of all members' lists, of which those up to this member are done.
    pub fn of_lists(
        workspace: WorkspaceId,
        done_until: PrincipalId,
        now: Timestamp,
        (actor, context): (&Actor, &Context),
    ) -> Self {
        let principal = PrincipalId(Uuid::nil());
        let all = Self::of_member(workspace, principal, Kind::Listing, now.micros(), (actor, context));
        Self { done_until, ..all }
    }

    /// Stores the ending for the background task. It replaces an earlier one of the same rows.
    pub fn begin(&self, tx: &mut WorkspaceGuard<'_, '_>, now: Timestamp) -> Result<(), Error> {
        store::put(tx, self, now)
    }
}

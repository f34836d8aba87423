//! Ends that concern more rows than one write may touch.
//!
//! A member may have a million keys and invitations, and a workspace a million members. The write that ends them closes the
//! first few rows itself. For the others it leaves an *ending*, by which the rules refuse those rows from the same commit
//! on, and the sweep closes them afterwards, some at a time. The audit tells of each step.

mod store;

use ward_db::{Error, Timestamp, Tx, Uuid};

use crate::audit::Actor;
use crate::http::Context;
use crate::ids::{PrincipalId, WorkspaceId};

pub use store::{count, forget, next, put_off, stands};

/// How many rows the write itself closes.
pub const AT_ONCE: u32 = 10;
/// How many rows one step of the sweep closes.
pub const STEP: u32 = 200;

/// What a member's role, or the state of a workspace, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The keys of this workspace that speak for a principal who is no member any more.
    Keys,
    /// All invitations that the principal made.
    Invitations,
    /// The principal's invitations of owners.
    OwnerInvitations,
    /// The places of the workspace in its members' lists.
    Listing,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Keys, Self::Invitations, Self::OwnerInvitations, Self::Listing];

    const fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Invitations => "invitations",
            Self::OwnerInvitations => "owner_invitations",
            Self::Listing => "listing",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Rows are left.
    Some,
    /// No row is left.
    All,
}

/// An ending that rows still have to follow.
#[derive(Clone, Debug)]
pub struct Ending {
    /// In which workspace.
    pub workspace: WorkspaceId,
    /// Whose rows; nil where all members are concerned.
    pub principal: PrincipalId,
    /// Which rows.
    pub kind: Kind,
    /// The place before which the rows stand.
    pub position: i64,
    /// The member up to whom lists are done.
    pub done_until: PrincipalId,
    /// Who ended the rows.
    pub actor: Actor,
    /// The request that ended them.
    pub request_id: String,
}

impl Ending {
    /// The end of this member's rows that stand before `position`.
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

    /// A change of all members' lists, which is done up to this member.
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

    /// Leaves the ending for the sweep, in place of an earlier one of the same rows.
    pub fn begin(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Error> {
        store::put(tx, self, now)
    }
}

//! The JSON form of members and transfers.

use serde::Serialize;
use ward_db::Timestamp;

use super::Member;
use crate::access::Role;
use crate::ids::PrincipalId;

/// The JSON of the contract's schema `MemberResponse`.
#[derive(Debug, Serialize)]
pub struct MemberResponse {
    entity_id: PrincipalId,
    kind: &'static str,
    display_name: Option<String>,
    role: Role,
    joined_at: Timestamp,
}

impl From<Member> for MemberResponse {
    fn from(member: Member) -> Self {
        Self {
            entity_id: member.principal,
            kind: member.kind.name(),
            display_name: member.name,
            role: member.role,
            joined_at: member.joined_at,
        }
    }
}

/// A pending transfer, as `OwnershipTransferResponse` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Transfer {
    /// The member who becomes an owner by accepting.
    pub nominee_entity_id: PrincipalId,
    /// The owner who becomes admin in return.
    pub nominated_by_entity_id: PrincipalId,
    /// The timestamp from which it cannot be accepted.
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
}

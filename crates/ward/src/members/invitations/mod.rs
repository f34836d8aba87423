//! Invitations: links that make their bearer a member, once.
//!
//! Who has the link has the invitation, unless it is bound to an address. The link's secret is 256 random bits, kept
//! only as a hash. An invitation never outlives the authority of whoever made it, nor the key that it was made with.

pub mod actions;
pub mod api;
pub mod rules;
mod store;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use ward_db::Timestamp;
use zeroize::Zeroizing;

use crate::access::Role;
use crate::error::ApiError;
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};

pub use store::{forget_old, settle_expired};

/// For secret scanners, like the prefix of API keys.
const PREFIX: &str = "ward_invite_";

/// An invitation.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// Where it leads.
    pub workspace: WorkspaceId,
    /// As what.
    pub role: Role,
    /// The only verified address that may accept, if there is one.
    pub email: Option<String>,
    /// Who made it.
    pub created_by: PrincipalId,
    /// When it is over.
    pub expires_at: Timestamp,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// Its place in the workspace's list; negative once it is settled.
    pub position: i64,
    /// Whether the authority that it was made with still holds: the key with its secret, and the maker's role.
    pub holds: bool,
}

impl Invitation {
    /// Whether it can still be accepted.
    fn is_open(&self, now: Timestamp) -> bool {
        self.position > 0 && self.expires_at > now && self.holds
    }

    /// Whether it is for whoever has this verified address. The case of ASCII letters does not count, here as in nearly
    /// every mailbox. That of others does: folded, two people's addresses may be one (the Kelvin sign is a small k).
    fn is_for(&self, address: &str) -> bool {
        self.email.as_ref().is_none_or(|email| email.eq_ignore_ascii_case(address))
    }
}

/// A link's secret and what is kept of it.
struct Secret {
    text: Zeroizing<String>,
    hash: String,
}

impl Secret {
    fn generate() -> Result<Self, getrandom::Error> {
        let mut bits = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bits)?;
        let text = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(*bits)));
        Ok(Self { hash: hash_of(&text), text })
    }
}

/// What is kept of a secret. It has 256 random bits, so it needs no slow hash.
fn hash_of(text: &str) -> String {
    STANDARD_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}

/// 404, the same for every way in which an invitation is none.
const fn no_invitation() -> ApiError {
    ApiError::missing("invitation_not_found", "Invitation not found, or it can no longer be accepted.")
}

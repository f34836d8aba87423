//! Invitations: links that make their bearer a member, once.
//!
//! The bearer of the link may accept the invitation, unless it is bound to an address. The link's secret
//! has 256 random bits, and Ward stores only its hash. An invitation never outlives its creator's
//! authority, nor the key that created it.

pub mod actions;
pub mod api;
pub mod rules;
mod store;
mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use ward_db::Timestamp;
use zeroize::Zeroizing;

use crate::access::Role;
use crate::error::ApiError;
use crate::ids::{InvitationId, PrincipalId, WorkspaceId};

pub use store::{forget_old, settle_expired};

/// The prefix helps secret scanners, like that of API keys.
const PREFIX: &str = "ward_invite_";

/// An invitation into a workspace, without the secret of its link.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub id: InvitationId,
    pub workspace: WorkspaceId,
    pub role: Role,
    /// The only verified address that may accept, if there is one.
    pub email: Option<String>,
    pub created_by: PrincipalId,
    /// The timestamp from which it cannot be accepted.
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
    /// The position in the workspace's list; negative once it is settled.
    pub position: i64,
    /// Whether its creator's authority persists: the key with the same secret, and the role.
    pub holds: bool,
}

impl Invitation {
    /// Whether it can still be accepted.
    fn is_open(&self, now: Timestamp) -> bool {
        self.position > 0 && self.expires_at > now && self.holds
    }

    /// Whether it is for the owner of this verified address. The case of ASCII letters is ignored, as by
    /// nearly every mail server. The case of other letters counts: folding could make two people's
    /// addresses equal (the Kelvin sign folds to a small k).
    fn is_for(&self, address: &str) -> bool {
        self.email.as_ref().is_none_or(|email| email.eq_ignore_ascii_case(address))
    }
}

/// A new secret of a link, with its hash.
struct Secret {
    text: Zeroizing<String>,
    hash: String,
}

impl Secret {
    fn generate() -> Result<Self, crate::random::Error> {
        let mut bits = Zeroizing::new([0; 32]);
        crate::random::fill(&mut *bits)?;
        let text = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(*bits)));
        Ok(Self { hash: hash_of(&text), text })
    }
}

/// The stored hash of a secret. A secret of 256 random bits needs no slow hash.
fn hash_of(text: &str) -> String {
    STANDARD_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}

/// The 404 for every kind of unusable invitation.
const fn no_invitation() -> ApiError {
    ApiError::missing("invitation_not_found", "Invitation not found, or it can no longer be accepted.")
}

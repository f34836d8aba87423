//! The caller of a request, and its credential.

use std::sync::Arc;

use ward_db::Timestamp;

use super::public_key::Thumbprint;
use super::token::VerifiedToken;
use super::{PrincipalKind, Workload};
use crate::access::Reach;
use crate::api_keys::secret::KeyId;
use crate::forbidden::Authority;
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::networks::Networks;

/// An authenticated caller and its credential.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The credential that the request presented.
    pub credential: Credential,
    /// The principal that the credential speaks for.
    pub principal: PrincipalId,
    /// Whether the principal is a user or a service.
    pub kind: PrincipalKind,
    /// The authority of the credential itself, before any membership bounds it.
    pub reach: Reach,
    /// Whether the principal has a row. The subject of a token gets one with its first write.
    pub exists: bool,
}

/// The credential of a request, already verified.
#[derive(Clone, Debug)]
pub enum Credential {
    Key(KeyUsed),
    /// An access token of a configured issuer.
    Token(Arc<VerifiedToken>),
    /// A token that a trust rule accepts.
    Workload(Arc<Workload>),
}

/// The API key of a request, as the look-up found it.
#[derive(Clone, Debug)]
pub struct KeyUsed {
    pub id: CredentialId,
    /// The public part, which lists and logs may show.
    pub key_id: KeyId,
    pub name: Option<String>,
    pub home: WorkspaceId,
    /// The timestamp from which the presented secret is refused.
    pub expires_at: Timestamp,
    /// Whether a rotation has replaced the presented secret, which is valid for the rest of the overlap.
    pub previous: bool,
    /// The timestamp since which the key only reads, because its secret leaked.
    pub quarantined_at: Option<Timestamp>,
    /// The timestamp since which the key has the presented secret.
    pub since: Timestamp,
    /// The networks from which the key may be used.
    pub networks: Networks,
    /// The public key whose possession each use must prove.
    pub bound_to: Option<Thumbprint>,
}

impl Caller {
    /// The API key, if the credential is one.
    pub fn key(&self) -> Option<&KeyUsed> {
        match &self.credential {
            Credential::Key(key) => Some(key),
            Credential::Token(_) | Credential::Workload(_) => None,
        }
    }

    /// Whether the credential is a key that only reads, because its secret leaked.
    pub fn is_quarantined(&self) -> bool {
        self.key().is_some_and(|key| key.quarantined_at.is_some())
    }

    /// The access token, if the credential is one.
    pub fn token(&self) -> Option<&Arc<VerifiedToken>> {
        match &self.credential {
            Credential::Token(token) => Some(token),
            Credential::Key(_) | Credential::Workload(_) => None,
        }
    }

    /// The workload, if the credential is its token.
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        match &self.credential {
            Credential::Workload(workload) => Some(workload),
            Credential::Key(_) | Credential::Token(_) => None,
        }
    }

    /// The workspace that the credential belongs to. A person's token, and a workload's in a request without a workspace,
    /// belong to none.
    pub fn home(&self) -> Option<WorkspaceId> {
        match &self.credential {
            Credential::Key(key) => Some(key.home),
            Credential::Workload(workload) => workload.rule.as_ref().map(|rule| rule.workspace),
            Credential::Token(_) => None,
        }
    }

    /// The authority of the credential, without a workspace.
    pub const fn authority(&self) -> Authority {
        Authority { credential: self.reach, membership: None }
    }

    /// The end of something that should last until `end`: no later than the key that creates it.
    pub fn end_of_what_it_makes(&self, end: Timestamp) -> Timestamp {
        self.key().map_or(end, |key| end.min(key.expires_at))
    }

    /// The contract's `*_credential_id`; `None` for tokens.
    pub fn credential_id(&self) -> Option<CredentialId> {
        self.key().map(|key| key.id)
    }
}

//! API keys: credentials that speak for a principal.

pub mod actions;
pub mod api;
pub mod ceilings;
pub mod handover;
mod last_used;
pub mod last_way_in;
pub mod leaks;
mod malformed_proofs;
pub mod networks;
mod revoke_presented;
pub mod secret;
mod store;
pub mod warnings;
mod wire;

use std::net::IpAddr;

use subtle::ConstantTimeEq as _;
use ward_db::Timestamp;

use crate::access::{Permission, Permissions, Reach, Role};
use crate::endings::ClosedRows;
use crate::identity::{Caller, Credential, KeyUsed, PrincipalKind, Thumbprint};
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::networks::Networks;
use crate::workspaces::access_policy::{AccessPolicy, Visitor};
use secret::{KeyId, SecretHash};

pub use last_used::LastUsed;
pub use malformed_proofs::MalformedProofs;
pub use revoke_presented::valid_key;
pub use store::{
    LIVE, Without, count, end_some_of, is_live, list_all as list, look_up, look_up_for, names_after,
};

const DAY: u64 = 24 * 3600;

/// A key with the columns that the gate needs.
#[derive(Debug)]
pub struct KeyRecord {
    /// The id in the table of credentials, not the public key id.
    pub credential: CredentialId,
    pub home: WorkspaceId,
    pub home_is_active: bool,
    pub principal: PrincipalId,
    /// Whether the principal is a user or a service.
    pub kind: PrincipalKind,
    pub name: Option<String>,
    /// The role and permissions of the key.
    pub reach: Reach,
    pub secret_hash: SecretHash,
    /// The secret before the last rotation, if that rotation left an overlap.
    pub previous: Option<(SecretHash, Timestamp)>,
    /// The timestamp from which the key is refused.
    pub expires_at: Timestamp,
    /// The timestamp since which the key only reads, because its secret leaked.
    pub quarantined_at: Option<Timestamp>,
    /// The latest of its creation, rotation, quarantine and revocation.
    pub updated_at: Timestamp,
    pub revoked: bool,
    /// The networks from which the key may be used.
    pub networks: Networks,
    /// The rules of its workspace for all callers that enter it.
    pub home_policy: AccessPolicy,
    /// The issuer of which its principal is a subject. Only read where its workspace accepts some issuers.
    pub issuer: Option<String>,
    /// The public key whose possession each use must prove.
    pub bound_to: Option<Thumbprint>,
}

impl KeyRecord {
    /// The secret with this hash, if it is valid now; otherwise the reason for the audit. The secrets are compared in constant
    /// time before any other column is considered.
    pub fn proven_by(&self, hash: &SecretHash, now: Timestamp) -> Result<Secret, &'static str> {
        match secret_with(&self.secret_hash, self.previous.as_ref(), hash) {
            None => Err("wrong_secret"),
            Some(Secret::Previous { ends_at }) if ends_at <= now => Err("secret_replaced"),
            Some(_) if self.revoked => Err("revoked"),
            Some(_) if self.expires_at <= now && self.quarantined_at.is_some() => Err("leaked"),
            Some(_) if self.expires_at <= now => Err("expired"),
            Some(_) if !self.home_is_active => Err("workspace_archived"),
            Some(secret) => Ok(secret),
        }
    }

    /// Judges a use of the key from this address, for every secret of it. The error is the reason for the audit.
    pub fn admit(&self, address: IpAddr) -> Result<(), &'static str> {
        if !self.networks.allow(address) {
            return Err("key_network");
        }
        self.home_policy.admit(Visitor { address, kind: self.kind, issuer: self.issuer.as_deref() })
    }

    /// The caller of a request whose bearer proved this key by this secret.
    pub fn into_caller(self, key_id: KeyId, secret: Secret) -> Caller {
        let (expires_at, previous) = match secret {
            Secret::Current => (self.expires_at, false),
            Secret::Previous { ends_at } => (self.expires_at.min(ends_at), true),
        };
        let used = KeyUsed {
            id: self.credential,
            key_id,
            name: self.name,
            home: self.home,
            expires_at,
            previous,
            quarantined_at: self.quarantined_at,
            since: self.updated_at,
            networks: self.networks,
            bound_to: self.bound_to,
        };
        let reach = if self.quarantined_at.is_some() { self.reach.in_quarantine() } else { self.reach };
        Caller {
            credential: Credential::Key(used),
            principal: self.principal,
            kind: self.kind,
            reach,
            exists: true,
        }
    }
}

/// The secret of a key that has this hash, compared in constant time. A previous secret has its end with it.
fn secret_with(
    current: &SecretHash,
    previous: Option<&(SecretHash, Timestamp)>,
    hash: &SecretHash,
) -> Option<Secret> {
    let is_current = current.ct_eq(hash);
    let (former, ends_at) = previous.copied().unwrap_or(([0; 32], Timestamp::from_micros(0)));
    let is_previous = former.ct_eq(hash);
    if is_current.into() {
        Some(Secret::Current)
    } else if is_previous.into() {
        Some(Secret::Previous { ends_at })
    } else {
        None
    }
}

/// The secret of a key that a bearer presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The secret that the key has now.
    Current,
    /// The secret that the last rotation replaced.
    Previous {
        /// The timestamp from which this secret is refused.
        ends_at: Timestamp,
    },
}

/// The secret that a rotation replaced and that is still valid, as lists show it.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct PreviousSecret {
    /// The timestamp from which the secret is refused.
    pub ends_at: Timestamp,
    /// The beginning of the minute of its last use since the rotation.
    pub last_used_at: Option<Timestamp>,
}

/// A key with the columns that lists show.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The id in the table of credentials, not the public key id.
    pub id: CredentialId,
    /// The public part of the key.
    pub key_id: String,
    pub workspace: WorkspaceId,
    pub principal: PrincipalId,
    /// Whether the principal is a user or a service.
    pub kind: PrincipalKind,
    /// The principal that created it; `None` for the operator.
    pub created_by: Option<PrincipalId>,
    /// The key that created it; `None` for a token, a claim or the operator.
    pub created_with: Option<CredentialId>,
    pub name: Option<String>,
    /// The role and permissions of the key.
    pub reach: Reach,
    /// The timestamp from which the key is refused.
    pub expires_at: Timestamp,
    /// The timestamp of its last successful use, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// The timestamp of its creation. A rotation does not change it.
    pub created_at: Timestamp,
    /// The timestamp of its creation or last rotation.
    pub updated_at: Timestamp,
    /// The position in its workspace's list.
    pub position: i64,
    /// The secret before the last rotation, as it is stored. It may have ended already.
    pub previous: Option<PreviousSecret>,
    /// The timestamp since which the key only reads, because its secret leaked.
    pub quarantined_at: Option<Timestamp>,
    /// The networks from which the key may be used.
    pub networks: Networks,
    /// The public key whose possession each use must prove. A rotation does not change it.
    pub bound_to: Option<Thumbprint>,
}

impl ApiKey {
    /// The previous secret, if it is still valid.
    pub fn live_previous(&self, now: Timestamp) -> Option<PreviousSecret> {
        self.previous.filter(|previous| previous.ends_at > now)
    }
}

/// The keys that one step of an ending revoked.
#[derive(Debug)]
pub struct EndedKeys {
    /// The public parts of the revoked keys.
    pub ids: Vec<String>,
    /// Whether keys are left for another step.
    pub ended: ClosedRows,
}

/// The principal that a new key speaks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeaksFor {
    /// The user that creates the key.
    #[serde(rename = "self")]
    Minter,
    #[default]
    Service,
}

/// The value rules of a new key: its role must exist, and each permission must exist and lie within the
/// role.
pub mod rules {
    use serde_json::Value;

    use super::{Permission, Role};
    use crate::identity::{PublicKey, Thumbprint};
    use ward_contract::RuleProblem;
    use ward_contract::validate::Loc;

    /// Accepts the name of a role.
    pub fn role(value: &Value) -> Vec<RuleProblem> {
        match value.as_str().and_then(Role::named) {
            Some(_) => Vec::new(),
            None => {
                vec![RuleProblem::here("Unknown role. It must be viewer, member, operator, admin or owner")]
            }
        }
    }

    /// Accepts the name of a permission.
    pub fn permission(value: &Value) -> Vec<RuleProblem> {
        match value.as_str().and_then(Permission::named) {
            Some(_) => Vec::new(),
            None => vec![RuleProblem::here("Unknown permission. The permission catalog lists them all")],
        }
    }

    /// Accepts one public key, as a JWK or as its thumbprint.
    pub fn binding(value: &Value) -> Vec<RuleProblem> {
        let wrong = |at: &'static str, message: &str| {
            vec![RuleProblem { at: vec![Loc::from(at)], message: message.to_owned() }]
        };
        match (&value["jkt"], &value["jwk"]) {
            (Value::String(jkt), Value::Null) if Thumbprint::parse(jkt).is_some() => Vec::new(),
            (Value::String(_), Value::Null) => wrong("jkt", "must be the SHA-256 thumbprint of a JWK"),
            (Value::Null, Value::Object(jwk)) => {
                PublicKey::read(jwk).err().map_or_else(Vec::new, |message| wrong("jwk", message))
            }
            _ => vec![RuleProblem::here("must have either jkt or jwk")],
        }
    }

    /// Accepts permissions that lie within the role.
    pub fn within_role(value: &Value) -> Vec<RuleProblem> {
        let Some(role) = value["role"].as_str().and_then(Role::named) else { return Vec::new() };
        let names = value["permissions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let outside = names.iter().enumerate().filter_map(|(index, name)| {
            let permission = name.as_str().and_then(Permission::named)?;
            (!role.permissions().contains(permission)).then_some(index)
        });
        outside
            .map(|index| RuleProblem {
                at: vec![Loc::from("permissions"), Loc::from(index)],
                message: format!("Not a permission of the role {}", role.name()),
            })
            .collect()
    }
}

/// The permissions that a validated list names.
pub(crate) fn permissions_named(names: &[String]) -> Permissions {
    names
        .iter()
        .filter_map(|name| Permission::named(name))
        .fold(Permissions::default(), |all, permission| all.or(Permissions::of(&[permission])))
}

//! API keys: credentials that speak for a principal.

pub mod actions;
pub mod api;
pub mod secret;
mod store;

use ward_db::Timestamp;

use crate::access::{Permission, Permissions, Reach, Role};
use crate::endings::Ended;
use crate::http::caller::{Caller, Credential, KeyUsed};
use crate::identity::PrincipalKind;
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use secret::{KeyId, SecretHash};

pub use store::{
    LIVE, count, end_some_of, has_way_in, is_live, list_all as list, look_up, look_up_for, names_after,
    store_last_used,
};

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// A key as the gate needs it.
#[derive(Debug)]
pub struct KeyRecord {
    /// The credential.
    pub credential: CredentialId,
    /// The workspace that the key belongs to.
    pub home: WorkspaceId,
    /// Whether that workspace is active.
    pub home_is_active: bool,
    /// Whom it speaks for.
    pub principal: PrincipalId,
    /// Whether that is a user or a service.
    pub kind: PrincipalKind,
    /// What it is called.
    pub name: Option<String>,
    /// What it allows.
    pub reach: Reach,
    /// What is kept of its secret.
    pub secret_hash: SecretHash,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it was minted or last rotated; when it was revoked, if it was.
    pub updated_at: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl KeyRecord {
    /// The caller that this key, once proved, makes.
    pub fn into_caller(self, key_id: KeyId) -> Caller {
        let used = KeyUsed {
            id: self.credential,
            key_id,
            name: self.name,
            home: self.home,
            expires_at: self.expires_at,
            since: self.updated_at,
        };
        Caller {
            credential: Credential::Key(used),
            principal: self.principal,
            kind: self.kind,
            reach: self.reach,
            exists: true,
        }
    }
}

/// A key as it is listed.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The credential.
    pub id: CredentialId,
    /// Its public part.
    pub key_id: String,
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// Whom it speaks for.
    pub principal: PrincipalId,
    /// Whether that is a user or a service.
    pub kind: PrincipalKind,
    /// Who minted it.
    pub created_by: Option<PrincipalId>,
    /// With which key.
    pub created_with: Option<CredentialId>,
    /// What it is called.
    pub name: Option<String>,
    /// What it allows.
    pub reach: Reach,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it last let somebody in, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was minted.
    pub created_at: Timestamp,
    /// When it was minted or last rotated.
    pub updated_at: Timestamp,
    /// Its place in its workspace's list.
    pub position: i64,
}

/// Keys that one step ended.
#[derive(Debug)]
pub struct EndedKeys {
    /// Their public parts.
    pub ids: Vec<String>,
    /// Whether keys are left.
    pub ended: Ended,
}

/// Whom a new key speaks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeaksFor {
    /// Its minter, a user.
    #[serde(rename = "self")]
    Minter,
    /// A service of its own.
    #[default]
    Service,
}

/// The value rules of a new key: the role must be one, each permission must be one and lie within the role.
pub mod rules {
    use serde_json::Value;

    use super::{Permission, Role};
    use crate::http::contract::RuleProblem;
    use crate::http::validate::Loc;

    /// A role's name.
    pub fn role(value: &Value) -> Vec<RuleProblem> {
        match value.as_str().and_then(Role::named) {
            Some(_) => Vec::new(),
            None => {
                vec![RuleProblem::here("Unknown role. It must be viewer, member, operator, admin or owner")]
            }
        }
    }

    /// A permission's name.
    pub fn permission(value: &Value) -> Vec<RuleProblem> {
        match value.as_str().and_then(Permission::named) {
            Some(_) => Vec::new(),
            None => vec![RuleProblem::here("Unknown permission. The permission catalog lists them all")],
        }
    }

    /// Each permission within the role.
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
fn permissions_named(names: &[String]) -> Permissions {
    names
        .iter()
        .filter_map(|name| Permission::named(name))
        .fold(Permissions::default(), |all, permission| all.or(Permissions::of(&[permission])))
}

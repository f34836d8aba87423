//! Roles and permissions: the one table of the permissions of each role.

use std::fmt;

use serde::{Serialize, Serializer};
use strum::{EnumMessage, EnumString, IntoStaticStr, VariantArray};

use crate::names::named;

/// A permission, with the contract's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumMessage, EnumString, IntoStaticStr, VariantArray)]
#[repr(u8)]
pub enum Permission {
    /// Read a workspace and its test callers.
    #[strum(to_string = "Workspace.view", message = "See a workspace and its test callers.")]
    WorkspaceView,
    #[strum(to_string = "Integration.view", message = "See integrations.")]
    IntegrationView,
    /// Read API keys, without their secrets.
    #[strum(to_string = "ApiKey.view", message = "See API keys, never their secrets.")]
    ApiKeyView,
    #[strum(to_string = "Call.view", message = "See calls.")]
    CallView,
    /// Change integrations and call their endpoints.
    #[strum(to_string = "Integration.update", message = "Change integrations and call their endpoints.")]
    IntegrationUpdate,
    /// Report calls of the voice runtime.
    #[strum(to_string = "Call.create", message = "Report calls.")]
    CallCreate,
    /// Change and provision a workspace, and set its test callers.
    #[strum(
        to_string = "Workspace.update",
        message = "Change and provision a workspace, and set its test callers."
    )]
    WorkspaceUpdate,
    /// Create a workspace of one's own.
    #[strum(to_string = "Workspace.create", message = "Create a workspace of one's own. Users only.")]
    WorkspaceCreate,
    #[strum(to_string = "Integration.create", message = "Add integrations.")]
    IntegrationCreate,
    #[strum(to_string = "Integration.delete", message = "Remove integrations.")]
    IntegrationDelete,
    #[strum(to_string = "ApiKey.create", message = "Mint and rotate API keys, within one's own permissions.")]
    ApiKeyCreate,
    #[strum(to_string = "ApiKey.delete", message = "Revoke API keys, within one's own permissions.")]
    ApiKeyDelete,
    /// Read the audit and export it.
    #[strum(to_string = "Audit.view", message = "Read the audit.")]
    AuditView,
}

named!(Permission);

impl Permission {
    /// A sentence that describes the permission.
    pub fn description(self) -> &'static str {
        self.get_message().unwrap_or_default()
    }
}

impl Serialize for Permission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A set of permissions, one bit for each.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u16);

impl Permissions {
    /// A set of exactly these permissions. Duplicates have no effect.
    pub const fn of(permissions: &[Permission]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < permissions.len() {
            bits |= 1 << permissions[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    /// Whether the set contains all of `other`.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The permissions of the set, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.contains(*permission))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Permission::name)).finish()
    }
}

impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// The role of a membership or a key, lowest first. Each role has all permissions of the one before.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumMessage,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Reads the workspace and its integrations.
    #[strum(message = "Sees the workspace and its integrations.")]
    Viewer,
    /// Reads API keys and calls as well.
    #[strum(message = "Sees API keys and calls too.")]
    Member,
    #[strum(message = "Runs integrations and reports calls.")]
    Operator,
    #[strum(message = "Changes everything but ownership.")]
    Admin,
    /// An admin who may also archive, transfer ownership and create owners.
    #[strum(message = "An admin who may archive, transfer and mint owners.")]
    Owner,
}

named!(Role);

impl Role {
    /// The table: the permissions of a role.
    pub const fn permissions(self) -> Permissions {
        use Permission::{
            ApiKeyCreate, ApiKeyDelete, ApiKeyView, AuditView, CallCreate, CallView, IntegrationCreate,
            IntegrationDelete, IntegrationUpdate, IntegrationView, WorkspaceCreate, WorkspaceUpdate,
            WorkspaceView,
        };
        match self {
            Self::Viewer => Permissions::of(&[WorkspaceView, IntegrationView]),
            Self::Member => Self::Viewer.permissions().or(Permissions::of(&[ApiKeyView, CallView])),
            Self::Operator => {
                Self::Member.permissions().or(Permissions::of(&[IntegrationUpdate, CallCreate]))
            }
            Self::Admin | Self::Owner => Self::Operator.permissions().or(Permissions::of(&[
                WorkspaceUpdate,
                WorkspaceCreate,
                IntegrationCreate,
                IntegrationDelete,
                ApiKeyCreate,
                ApiKeyDelete,
                AuditView,
            ])),
        }
    }

    /// A sentence that describes the role.
    pub fn description(self) -> &'static str {
        self.get_message().unwrap_or_default()
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The authority of a credential or a membership: a role, and permissions within that role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The role, which bounds the permissions.
    pub role: Role,
    /// The permissions, never more than the role's.
    pub permissions: Permissions,
}

impl Reach {
    /// A role with all of its permissions.
    pub const fn whole(role: Role) -> Self {
        Self { role, permissions: role.permissions() }
    }

    /// A role narrowed to `permissions`; an empty set means the whole role.
    pub fn narrowed(role: Role, permissions: Permissions) -> Self {
        if permissions == Permissions::default() {
            return Self::whole(role);
        }
        Self { role, permissions: permissions.and(role.permissions()) }
    }

    /// The authority that a leaked key keeps in quarantine: it reads, but no patient data.
    #[must_use]
    pub const fn in_quarantine(self) -> Self {
        use Permission::{ApiKeyView, AuditView, IntegrationView, WorkspaceView};
        const READS: Permissions = Permissions::of(&[WorkspaceView, IntegrationView, ApiKeyView, AuditView]);
        Self { role: self.role, permissions: self.permissions.and(READS) }
    }

    /// The authority that both allow, such as that of a key within its principal's membership.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        let role = self.role.min(other.role);
        Self { role, permissions: self.permissions.and(other.permissions).and(role.permissions()) }
    }

    /// Whether the bearer of this authority may grant, rotate or revoke `other`.
    pub fn covers(self, other: Self) -> bool {
        other.role <= self.role && self.permissions.covers(other.permissions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_all_of_the_one_before() {
        for pair in Role::ALL.windows(2) {
            assert!(pair[1].permissions().covers(pair[0].permissions()), "{pair:?}");
        }
        assert_eq!(Role::Owner.permissions(), Permissions::of(&Permission::ALL));
    }

    #[test]
    fn a_key_never_widens_its_membership() {
        let key = Reach::whole(Role::Owner);
        let membership = Reach::whole(Role::Viewer);
        assert_eq!(key.within(membership), membership);
        assert!(!membership.covers(key));
    }

    #[test]
    fn names_lead_back() {
        for permission in Permission::ALL {
            assert_eq!(Permission::named(permission.name()), Some(permission));
        }
        for role in Role::ALL {
            assert_eq!(Role::named(role.name()), Some(role));
        }
        assert_eq!(Permission::named("workspace.view"), None);
    }
}

//! The reasons of a 403: the thing that the caller is missing, and why the caller does not have it.
//!
//! A constructor of a 403 takes a [`Forbidden`], so every 403 has both. A 401 and a 404 have neither, because they must
//! not tell a stranger anything.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::access::{Permission, Reach, Role};

/// The missing thing and the reason of one 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    pub missing: Missing,
    pub because: Because,
}

/// The thing that a refused caller is missing. Its JSON is `{"kind", "name"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Missing {
    Permission(Permission),
    /// The lowest role that suffices for the operation.
    Role(Role),
    Rule(Rule),
}

/// A condition of an operation that is neither a permission nor a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The caller is a user, not a service.
    User,
    /// The credential is an API key.
    ApiKey,
    /// The key of the path speaks for the caller.
    OwnKey,
    /// The presented secret is the one that the key has now.
    CurrentSecret,
    /// An identity provider has verified the address of the invitation for the caller.
    VerifiedEmail,
    /// The networks of a new or changed key are within those of the caller's own key.
    WithinNetworks,
    /// The caller is a user of an issuer that the workspace accepts.
    AcceptedIssuer,
    /// The account of the workspace, or a configured key, has signed the callback.
    Signature,
    /// The secret of the key has not leaked.
    NoQuarantine,
    /// The server creates workspaces for anonymous callers.
    OpenBootstrap,
}

/// Why the caller does not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// The role of the caller's membership lacks it.
    MembershipRole(Role),
    /// The role of the caller's key lacks it.
    KeyRole(Role),
    /// The key was created with fewer permissions than its role has.
    KeyPermissions,
    /// The credential speaks for a service.
    Service,
    /// The request presented an access token.
    AccessToken,
    /// The key speaks for another user.
    AnotherUser,
    /// A rotation has replaced the presented secret.
    ReplacedSecret,
    /// No identity provider has verified the address for this caller.
    UnverifiedAddress,
    /// The caller's own key has networks, and the wanted ones go beyond them.
    KeyNetworks,
    /// The caller is a user of another issuer, or of none.
    AnotherIssuer,
    /// The callback has no signature that this workspace or server accepts.
    UnsignedCallback,
    /// The secret of the caller's key leaked, so the key only reads.
    Quarantine,
    /// A setting of this server closes the operation.
    ServerSetting,
}

impl Because {
    /// The fixed word by which programs know it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::MembershipRole(_) => "membership_role",
            Self::KeyRole(_) => "key_role",
            Self::KeyPermissions => "key_permissions",
            Self::Service => "service",
            Self::AccessToken => "access_token",
            Self::AnotherUser => "another_user",
            Self::ReplacedSecret => "replaced_secret",
            Self::UnverifiedAddress => "unverified_address",
            Self::KeyNetworks => "key_networks",
            Self::AnotherIssuer => "another_issuer",
            Self::UnsignedCallback => "unsigned_callback",
            Self::Quarantine => "quarantine",
            Self::ServerSetting => "server_setting",
        }
    }

    /// One sentence for people, with the role that is too low.
    pub fn detail(self) -> String {
        let fixed = match self {
            Self::MembershipRole(role) => {
                return format!("The caller has the role {} in this workspace.", role.name());
            }
            Self::KeyRole(role) => return format!("The caller's key has the role {}.", role.name()),
            Self::KeyPermissions => "The caller's key was created with fewer permissions than its role has.",
            Self::Service => "The caller's credential speaks for a service.",
            Self::AccessToken => "The caller presented an access token.",
            Self::AnotherUser => "The key speaks for another user.",
            Self::ReplacedSecret => "A rotation has replaced the presented secret of this key.",
            Self::UnverifiedAddress => {
                "No identity provider has verified the address of the invitation for this caller."
            }
            Self::KeyNetworks => "The caller's key works only from its own networks.",
            Self::AnotherIssuer => "The caller is no user of an issuer that this workspace accepts.",
            Self::UnsignedCallback => "The callback has no signature that is accepted here.",
            Self::Quarantine => {
                "The secret of the caller's key was found in a public place, so the key only reads."
            }
            Self::ServerSetting => "A setting of this server closes the operation to anonymous callers.",
        };
        fixed.to_owned()
    }
}

impl Serialize for Because {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Because", 2)?;
        fields.serialize_field("reason", self.reason())?;
        fields.serialize_field("detail", &self.detail())?;
        fields.end()
    }
}

impl Forbidden {
    /// The caller breaks a rule of the operation.
    pub const fn by_rule(rule: Rule, because: Because) -> Self {
        Self { missing: Missing::Rule(rule), because }
    }
}

/// The parts that together bound a caller's authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The authority of the credential itself.
    pub credential: Reach,
    /// The role of the caller's membership. `None` for an operation without a workspace.
    pub membership: Option<Role>,
}

impl Authority {
    /// The authority that all parts allow together.
    pub fn reach(self) -> Reach {
        match self.membership {
            Some(role) => self.credential.within(Reach::whole(role)),
            None => self.credential,
        }
    }

    /// Checks that the caller has a permission.
    pub fn has(self, permission: Permission) -> Result<(), Forbidden> {
        if self.reach().permissions.contains(permission) {
            return Ok(());
        }
        let because = self.because(|role| role.permissions().contains(permission));
        Err(Forbidden { missing: Missing::Permission(permission), because })
    }

    /// Checks that the caller has this role or a higher one.
    pub fn has_role(self, needed: Role) -> Result<(), Forbidden> {
        if self.reach().role >= needed {
            return Ok(());
        }
        Err(Forbidden { missing: Missing::Role(needed), because: self.because(|role| role >= needed) })
    }

    /// Checks that the caller may grant, change or end this authority.
    pub fn covers(self, other: Reach) -> Result<(), Forbidden> {
        self.has_role(other.role)?;
        other.permissions.iter().try_for_each(|permission| self.has(permission))
    }

    /// The part without which the caller would have something that `suffices` says which roles have. The membership comes
    /// first, because a wider key would not help its member.
    fn because(self, suffices: impl Fn(Role) -> bool) -> Because {
        match self.membership {
            Some(role) if !suffices(role) => Because::MembershipRole(role),
            _ if !suffices(self.credential.role) => Because::KeyRole(self.credential.role),
            _ => Because::KeyPermissions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Permissions;

    fn authority(key: Reach, membership: Role) -> Authority {
        Authority { credential: key, membership: Some(membership) }
    }

    #[test]
    fn the_named_part_is_the_one_that_must_change() {
        let narrow = Reach::narrowed(Role::Owner, Permissions::of(&[Permission::CallView]));
        for (authority, because) in [
            (authority(Reach::whole(Role::Viewer), Role::Viewer), Because::MembershipRole(Role::Viewer)),
            (authority(Reach::whole(Role::Viewer), Role::Owner), Because::KeyRole(Role::Viewer)),
            (authority(narrow, Role::Owner), Because::KeyPermissions),
            (authority(narrow, Role::Member), Because::MembershipRole(Role::Member)),
            (Authority { credential: narrow, membership: None }, Because::KeyPermissions),
        ] {
            let missing = Missing::Permission(Permission::ApiKeyCreate);
            assert_eq!(authority.has(Permission::ApiKeyCreate), Err(Forbidden { missing, because }));
        }
    }

    #[test]
    fn the_checks_agree_with_the_reach() {
        let narrowed = Permission::ALL.map(|one| Permissions::of(&[one, Permission::CallView]));
        let keys = Role::ALL.into_iter().flat_map(|role| {
            let narrow = narrowed.into_iter().map(move |some| Reach::narrowed(role, some));
            narrow.chain([Reach::whole(role)])
        });
        for key in keys {
            for member in Role::ALL {
                let authority = authority(key, member);
                for other in Role::ALL {
                    assert_eq!(authority.has_role(other).is_ok(), authority.reach().role >= other);
                    let other = Reach::whole(other);
                    assert_eq!(authority.covers(other).is_ok(), authority.reach().covers(other));
                }
            }
        }
    }

    #[test]
    fn reasons_are_shown_with_a_word_and_a_sentence() {
        let shown = serde_json::to_value(Missing::Role(Role::Owner)).unwrap();
        assert_eq!(shown, serde_json::json!({ "kind": "role", "name": "owner" }));
        let shown = serde_json::to_value(Because::KeyRole(Role::Viewer)).unwrap();
        let detail = "The caller's key has the role viewer.";
        assert_eq!(shown, serde_json::json!({ "reason": "key_role", "detail": detail }));
    }
}

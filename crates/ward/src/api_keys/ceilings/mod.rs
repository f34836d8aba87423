//! Ceilings: the longest lives of new and rotated keys, by role and environment.
//!
//! The installation has ceilings for roles in all or in single environments, and each workspace can have further ones. The
//! smallest that applies counts. A ceiling judges a mint, a claim and a rotation; it never ends an existing key.

pub mod actions;
pub mod api;
mod store;

use serde::{Deserialize, Serialize};
use serde_json::json;
use ward_contract::validate::{Json, Problem};
use ward_db::{Timestamp, Tx};

use crate::access::Role;
use crate::error::ApiError;
use crate::ids::WorkspaceId;

/// The longest life of a key that the document allows, in days.
pub const LONGEST: u64 = 90;
/// The environments that a workspace can have.
pub const ENVIRONMENTS: [&str; 3] = ["production", "staging", "development"];

/// One entry of the setting `key_ceilings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// The environment whose workspaces have it; `None` for all.
    pub environment: Option<String>,
    pub role: Role,
    /// The longest life in days, 1 to [`LONGEST`].
    pub days: u64,
}

/// A key that lives longer than a key that is minted now could.
#[derive(Debug, Serialize)]
pub struct KeyBeyond {
    key_id: String,
    name: Option<String>,
    role: Role,
    expires_at: Timestamp,
}

/// The longest lives in days by role; `None`: no ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ceilings {
    viewer: Option<u64>,
    member: Option<u64>,
    operator: Option<u64>,
    admin: Option<u64>,
    owner: Option<u64>,
}

impl Ceilings {
    /// The ceilings of the installation for workspaces of this environment.
    pub fn of_installation(ceilings: &[Ceiling], environment: &str) -> Self {
        let mut lowest = Self::default();
        for ceiling in ceilings {
            if ceiling.environment.as_deref().is_none_or(|named| named == environment) {
                let days = lowest.at(ceiling.role);
                *days = Some(days.map_or(ceiling.days, |other| other.min(ceiling.days)));
            }
        }
        lowest
    }

    pub const fn of(&self, role: Role) -> Option<u64> {
        match role {
            Role::Viewer => self.viewer,
            Role::Member => self.member,
            Role::Operator => self.operator,
            Role::Admin => self.admin,
            Role::Owner => self.owner,
        }
    }

    const fn at(&mut self, role: Role) -> &mut Option<u64> {
        match role {
            Role::Viewer => &mut self.viewer,
            Role::Member => &mut self.member,
            Role::Operator => &mut self.operator,
            Role::Admin => &mut self.admin,
            Role::Owner => &mut self.owner,
        }
    }

    /// The lower of both ceilings for each role.
    #[must_use]
    pub fn lower(mut self, other: Self) -> Self {
        for role in Role::ALL {
            let both = [self.of(role), other.of(role)];
            *self.at(role) = both.into_iter().flatten().min();
        }
        self
    }

    /// The ceilings with the document's own for every other role.
    #[must_use]
    fn filled(mut self) -> Self {
        for role in Role::ALL {
            let days = self.of(role).unwrap_or(LONGEST);
            *self.at(role) = Some(days);
        }
        self
    }

    /// Refuses a life beyond the ceiling of the role (422). The answer names the field and the ceiling.
    pub fn allow(&self, role: Role, days: u64) -> Result<(), ApiError> {
        let Some(most) = self.of(role).filter(|most| days > *most) else { return Ok(()) };
        let role = role.name();
        Err(ApiError::invalid(vec![Problem {
            kind: "less_than_equal",
            loc: vec!["body".into(), "duration_days".into()],
            msg: format!(
                "Input should be less than or equal to {most}, the ceiling for keys with the role {role} here"
            ),
            input: Json::Number(days.to_string()),
            ctx: Some(json!({ "le": most, "role": role })),
        }]))
    }
}

/// The ceilings of a workspace: those that its owners chose, and those of the installation for its environment.
pub fn in_force(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    environment: &str,
    installation: &[Ceiling],
) -> Result<Ceilings, ward_db::Error> {
    Ok(store::get(tx, workspace)?.lower(Ceilings::of_installation(installation, environment)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceiling(environment: Option<&str>, role: Role, days: u64) -> Ceiling {
        Ceiling { environment: environment.map(str::to_owned), role, days }
    }

    #[test]
    fn the_smallest_ceiling_that_applies_counts() {
        let installation = [
            ceiling(None, Role::Owner, 30),
            ceiling(Some("production"), Role::Owner, 7),
            ceiling(Some("staging"), Role::Admin, 5),
        ];
        let production = Ceilings::of_installation(&installation, "production");
        assert_eq!((production.of(Role::Owner), production.of(Role::Admin)), (Some(7), None));
        let staging = Ceilings::of_installation(&installation, "staging");
        assert_eq!((staging.of(Role::Owner), staging.of(Role::Admin)), (Some(30), Some(5)));
        let own = Ceilings { owner: Some(8), admin: Some(4), ..Ceilings::default() };
        let both = staging.lower(own);
        assert_eq!(
            (both.of(Role::Owner), both.of(Role::Admin), both.of(Role::Viewer)),
            (Some(8), Some(4), None)
        );
        assert_eq!(both.filled().of(Role::Viewer), Some(LONGEST));
        assert!(both.allow(Role::Owner, 8).is_ok() && both.allow(Role::Viewer, 90).is_ok());
        assert!(both.allow(Role::Owner, 9).is_err());
    }
}

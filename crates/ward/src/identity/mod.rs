//! Principals, which act, and their memberships in workspaces.

pub mod api;
mod caller;
pub mod issuers;
mod store;
pub mod token;

use ward_db::{Error, Row};

pub use caller::{Caller, Credential, KeyUsed};
pub use store::{create, enroll, join, leave, look_up, look_up_for, relist_some, set_name};

use crate::access::Role;

/// The kind of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A person, with a token or a key.
    User,
    /// A program, with a token or a key of its own.
    Service,
}

impl PrincipalKind {
    /// The name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
        }
    }

    /// Reads the kind from a column.
    pub fn column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match row.text(index)? {
            "user" => Ok(Self::User),
            "service" => Ok(Self::Service),
            _ => Err(Error::unreadable("an unknown principal kind")),
        }
    }
}

impl Role {
    /// Reads the role from a column.
    pub fn column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        Self::named(row.text(index)?).ok_or_else(|| Error::unreadable("an unknown role"))
    }
}

//! Access policies: from where a workspace may be entered, and whose users may be its members.
//!
//! The policy stands in the workspace's row, which the look-up of every request reads anyway. So a change holds from the
//! next request on, on every replica.
//!
//! A credential of the workspace itself that the policy refuses gets the 401 of a wrong key. A visitor with a token, or with a
//! key of another workspace, gets the 404 of a stranger, because its credential is valid elsewhere.

pub mod actions;
pub mod api;
mod store;

use std::net::IpAddr;

use serde::Serialize;
use ward_db::{Columns, Error, FromColumn, FromRow, Json, Row};

use crate::identity::PrincipalKind;
use crate::networks::Networks;

pub use store::issuers_of;

/// The rules of a workspace for all callers that enter it. The default has no restriction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AccessPolicy {
    pub networks: Networks,
    pub issuers: AcceptedIssuers,
}

/// The facts about a caller that a policy judges.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    pub address: IpAddr,
    pub kind: PrincipalKind,
    /// The issuer of which the principal is a subject. `None`: it has keys only.
    pub issuer: Option<&'a str>,
}

impl AccessPolicy {
    /// Judges a caller that is a member. The error is the reason for the audit.
    pub fn admit(&self, visitor: Visitor<'_>) -> Result<(), &'static str> {
        if !self.networks.allow(visitor.address) {
            Err("workspace_network")
        } else if !self.issuers.accept(visitor.kind, visitor.issuer) {
            Err("workspace_issuer")
        } else {
            Ok(())
        }
    }
}

impl FromRow for AccessPolicy {
    fn from_row(columns: &mut Columns<'_>) -> Result<Self, Error> {
        Ok(Self { networks: columns.read()?, issuers: columns.read()? })
    }
}

/// The issuers whose subjects may be members. An empty list accepts every principal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AcceptedIssuers(Vec<String>);

impl AcceptedIssuers {
    /// The list with these names, without duplicates.
    pub fn new(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    /// Whether such a principal may be a member. A user who is no subject of an accepted issuer may not be one, and neither may
    /// a user who has keys only: the list would say nothing if such users could join. A service with keys only was
    /// made by the workspace itself.
    pub fn accept(&self, kind: PrincipalKind, issuer: Option<&str>) -> bool {
        self.0.is_empty()
            || match issuer {
                Some(issuer) => self.contains(issuer),
                None => kind == PrincipalKind::Service,
            }
    }

    pub fn contains(&self, issuer: &str) -> bool {
        self.0.iter().any(|accepted| accepted == issuer)
    }

    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The stored form: a JSON list, or `None` for an empty one.
    fn stored(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| serde_json::Value::from(self.0.clone()).to_string())
    }
}

impl FromColumn for AcceptedIssuers {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match Option::<Json>::from_column(row, index)? {
            Some(Json(text)) => serde_json::from_str(&text).map(Self).map_err(Error::unreadable),
            None => Ok(Self::default()),
        }
    }
}

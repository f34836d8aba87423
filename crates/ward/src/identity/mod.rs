//! Principals, which act, and their memberships in workspaces.

pub mod api;
mod caller;
pub mod issuers;
pub mod proof;
mod public_key;
mod store;
pub mod token;
mod workload;

pub use caller::{Caller, Credential, KeyUsed};
pub use public_key::{PublicKey, Thumbprint};
pub use store::{
    Subject, create, enroll, forget_proofs, is_accepted, join, leave, look_up, look_up_for, note_proof,
    relist_some, set_name, subjects_of,
};
pub use workload::{Offer, RuleUsed, Workload, WorkloadToken};

use std::net::IpAddr;

use serde_json::Value;
use strum::{EnumString, IntoStaticStr, VariantArray};
use ward_contract::RuleProblem;

use crate::names::named;

/// The value rule of an IP address.
pub fn address_rule(value: &Value) -> Vec<RuleProblem> {
    let wrong = value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_err());
    wrong.then(|| RuleProblem::here("Not an IP address")).into_iter().collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum PrincipalKind {
    /// A person, with a token or a key.
    User,
    /// A program, with a token or a key of its own.
    Service,
}

named!(PrincipalKind);

//! Principals, which act, and their memberships in workspaces.

pub mod api;
mod caller;
pub mod issuers;
mod store;
pub mod token;
mod workload;

pub use caller::{Caller, Credential, KeyUsed};
pub use store::{create, enroll, is_accepted, join, leave, look_up, look_up_for, relist_some, set_name};
pub use workload::{Offer, RuleUsed, Workload, WorkloadToken};

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::names::named;

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum PrincipalKind {
    /// A person, with a token or a key.
    User,
    /// A program, with a token or a key of its own.
    Service,
}

named!(PrincipalKind);

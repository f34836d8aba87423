//! The Ward workspace control plane, as a library.

#![allow(missing_docs, reason = "a comment that only repeats a name is left out")]

pub mod access;
pub mod address;
pub mod api_keys;
pub mod app;
pub mod audit;
pub mod bounds;
pub mod calls;
pub mod clock;
pub mod closing;
pub mod config;
pub mod context;
pub mod contract;
pub mod deliveries;
pub mod endings;
pub mod error;
pub mod forbidden;
pub mod gate;
pub mod guard;
pub mod http;
pub mod identity;
pub mod ids;
pub mod integrations;
pub mod invitations;
pub mod legible;
pub mod members;
mod names;
pub mod networks;
pub mod operator;
pub mod page;
pub mod phone;
pub mod quotas;
pub mod random;
pub mod router;
pub mod scan;
pub mod schema;
pub mod shares;
mod start;
pub mod telemetry;
pub mod test_callers;
pub mod text;
pub mod trust_rules;
pub mod twilio;
pub mod vault;
pub mod work;
pub mod workspaces;

//! The wire to EHRs and other outside systems. Knows no database and no web framework.
//!
//! [`Outbound`] is the one client: it decides which addresses may be connected to, how long and how large an answer may
//! be, and how many calls of one integration run at once. [`Auth`] puts credentials on a request and [`Tokens`] keeps
//! the access tokens it needs. [`endpoint`] makes a call out of a template and works on its answer; [`health`] says in
//! one word how an integration is.

mod address;
pub mod auth;
mod client;
pub mod delivery;
pub mod endpoint;
mod failure;
pub mod fhir;
pub mod health;
pub mod hubspot;
pub mod json;
mod mask;
mod resolver;
mod secret;
pub mod template;

pub use auth::{Auth, Tokens};
pub use client::{Answer, HOP, Limits, Lookup, Outbound, Request, reserved_header};
pub use failure::{Failure, FailureKind};
pub use resolver::Resolver;
pub use secret::Secret;

//! The connection to EHRs and other outside systems, without knowledge of a database or a web framework.
//!
//! [`Outbound`] is the only client. It decides which addresses may be connected to. It limits the time and size
//! of an answer, and the number of calls of one integration that run at once. [`Auth`] adds credentials to a
//! request, and [`Tokens`] keeps the access tokens for them. [`endpoint`] makes a call from a template and
//! processes its answer. [`health`] gives an integration's health as one word. [`twilio`] reads Twilio's list of calls.

mod address;
mod ambient;
mod answers;
pub mod athena;
pub mod auth;
mod budget;
mod client;
pub mod delivery;
pub mod endpoint;
mod failure;
pub mod fhir;
pub mod health;
pub mod hubspot;
pub mod json;
pub mod look_up;
mod mask;
pub mod matching;
mod resolver;
mod secret;
pub mod template;
pub mod twilio;

pub use answers::Answered;
pub use auth::{Auth, Tokens};
pub use budget::Budget;
pub use client::{Answer, HOP, Limits, Lookup, Outbound, Request, reserved_header};
pub use failure::{Failure, FailureKind};
pub use resolver::Resolver;
pub use secret::Secret;

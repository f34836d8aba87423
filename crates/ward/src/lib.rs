//! The Ward workspace control plane, as a library.

pub mod access;
pub mod api_keys;
pub mod app;
pub mod audit;
pub mod bounds;
pub mod calls;
pub mod clock;
pub mod config;
pub mod error;
pub mod http;
pub mod identity;
pub mod ids;
pub mod integrations;
pub mod members;
pub mod operator;
pub mod page;
pub mod router;
pub mod scan;
pub mod shares;
pub mod sync;
pub mod telemetry;
pub mod text;
pub mod vault;
pub mod work;
pub mod workspaces;

//! The networks from which a key may be used.
//!
//! They hold for the key's previous secret too, and in every workspace that the key enters. A key that has networks cannot free
//! itself or make a freer key: whoever copies it could do so as well.

pub mod actions;
pub mod api;
mod store;

//! Tests of the engine layer. Behaviour common to both engines is tested on both.

#![allow(clippy::unwrap_used, reason = "a test's helper may unwrap")]

mod copy;
mod later;
mod migrations;
mod opening;
mod postgres;
mod reads_and_values;
mod scarce;
mod servers;
mod support;
mod tls;
mod turns;
mod writes;

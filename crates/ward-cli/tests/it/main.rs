//! The real binary, as operators and scripts use it.

#![allow(clippy::disallowed_methods, reason = "tests have times, ids and clients of their own")]
#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

mod access;
mod api;
mod backup;
mod between;
mod client;
mod commands;
mod copy;
mod crash;
mod disk;
mod exports;
mod failover;
mod faults;
mod fleet;
mod flushes;
mod invariants;
mod issuers;
mod kills;
mod life;
mod memory;
mod package;
mod places;
mod read_only;
mod replicas;
mod scan;
mod scarce;
mod secrets;
mod serving;
mod support;
mod sync;
mod systemd;

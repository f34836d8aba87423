//! Ward through its real HTTP surface, a fresh server and database per test.

#![allow(clippy::disallowed_methods, reason = "tests have times, ids and clients of their own")]
#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

mod access_reports;
mod api_keys;
mod audit;
mod authorization;
mod bounded;
mod bounds;
mod browsers;
mod calls;
mod clients;
mod crash;
mod deliveries;
mod docs_page;
mod endings;
mod endpoint_tests;
mod environments;
mod exclusion;
mod exports;
mod faults;
mod foreign;
mod goldens;
mod integrations;
mod invitations;
mod isolation;
mod issuers;
mod lanes;
mod limits;
mod long_reads;
mod members;
mod model;
mod neighbours;
mod neighbours_outbound;
mod offers;
mod outbound;
mod parties;
mod periods;
mod plans;
mod provider;
mod quotas;
mod races;
mod refusals;
mod regions;
mod repeats;
mod reports;
mod rotation;
mod sdk;
mod steering;
mod sweep;
mod tokens;
mod twilio;
mod upgrades;
mod watch;
mod wire;
mod workspaces;

//! Parsers of untrusted text under generated input: properties that hold for every text, not only for examples.
//!
//! Property tests and not a coverage-guided fuzzer, because the readers here rarely fall over and more often disagree:
//! each is compared with a second reading that shares no code with it (`serde_json`, `jsonschema`, another HMAC, another
//! CRC). That wants generators that know the grammar, and cases that shrink; coverage would steer bytes towards panics.
//!
//! The suite runs a bounded number of cases from a fixed seed. `WARD_TEST_FUZZ=100` runs a hundred times as many, from a
//! seed of its own, which it prints; `WARD_TEST_SEED` sets the seed.

#![allow(clippy::disallowed_methods, reason = "tests have times, ids and clients of their own")]
#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]
#![expect(clippy::print_stderr, reason = "a seed that nobody saw repeats nothing")]

mod bearer;
mod callers;
#[path = "../../../ward-contract/tests/fuzz/cases.rs"]
mod cases;
mod front_door;
#[path = "../../../ward-contract/tests/fuzz/instances.rs"]
mod instances;
mod twilio;

use proptest::test_runner::TestRunner;

use self::cases::{Count, config};

/// A runner for cases that are drawn one by one.
fn runner(cases: u32) -> TestRunner {
    TestRunner::new(config(cases))
}

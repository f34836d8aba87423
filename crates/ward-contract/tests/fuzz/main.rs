//! The JSON parser and the validator with generated input. Each is compared with an implementation that shares no
//! code with it (`serde_json`, `jsonschema`).
//!
//! The suite runs a bounded number of cases from a fixed seed. `WARD_TEST_FUZZ=100` runs a hundred times as many from
//! a random seed, which it prints. `WARD_TEST_SEED` sets the seed.

#![allow(clippy::disallowed_methods, reason = "tests have times, ids and clients of their own")]
#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]
#![expect(clippy::print_stderr, reason = "a seed that nobody saw repeats nothing")]

mod cases;
mod instances;
mod json;
mod validator;

use self::cases::{Count, config};

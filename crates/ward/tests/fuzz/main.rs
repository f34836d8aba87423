//! What reads untrusted text, under generated input: properties that hold for every text, not only for the examples.
//!
//! Property tests and not a coverage-guided fuzzer, because the readers here rarely fall over and more often disagree:
//! each is compared with a second reading that shares no code with it (`serde_json`, `jsonschema`, another HMAC, another
//! CRC). That wants generators that know the grammar, and cases that shrink; coverage would steer bytes towards panics.
//!
//! The suite runs a bounded number of cases from a fixed seed. `WARD_TEST_FUZZ=100` runs a hundred times as many, from a
//! seed of its own, which it prints; `WARD_TEST_SEED` sets the seed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]
#![expect(clippy::print_stderr, reason = "a seed that nobody saw repeats nothing")]

mod bearer;
mod callers;
mod front_door;
mod instances;
mod json;
mod twilio;
mod validator;

use std::cell::Cell;
use std::sync::LazyLock;

use proptest::test_runner::{Config, RngSeed, TestRunner};

/// How many times the suite's number of cases.
static FACTOR: LazyLock<u32> = LazyLock::new(|| match std::env::var("WARD_TEST_FUZZ") {
    Ok(factor) => factor.parse().expect("WARD_TEST_FUZZ is a whole number"),
    Err(_) => 1,
});

static SEED: LazyLock<u64> = LazyLock::new(|| {
    let seed = match std::env::var("WARD_TEST_SEED") {
        Ok(seed) => seed.parse().expect("WARD_TEST_SEED is a whole number"),
        Err(_) if *FACTOR == 1 => 1,
        Err(_) => u64::from_be_bytes(uuid::Uuid::new_v4().as_bytes()[..8].try_into().unwrap()),
    };
    eprintln!("WARD_TEST_FUZZ={} WARD_TEST_SEED={seed}", *FACTOR);
    seed
});

/// So many cases in the suite, and as many times more as is asked for.
fn config(cases: u32) -> Config {
    Config {
        cases: cases.saturating_mul(*FACTOR),
        // Cases that a property does not speak of are a fixed part of all, so there may be more of them in a longer run.
        max_global_rejects: cases.saturating_mul(*FACTOR),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(*SEED),
        ..Config::default()
    }
}

/// A runner for cases that are drawn one by one.
fn runner(cases: u32) -> TestRunner {
    TestRunner::new(config(cases))
}

/// Counts cases of a kind: a property over texts that are all refused would hold, and show nothing.
#[derive(Default)]
struct Count(Cell<u32>);

impl Count {
    fn one_more(&self) {
        self.0.set(self.0.get() + 1);
    }

    fn get(&self) -> u32 {
        self.0.get()
    }
}

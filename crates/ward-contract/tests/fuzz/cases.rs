//! How many cases the property tests draw, and from which seed. The fuzz tests of the product use this file too.

use std::cell::Cell;
use std::sync::LazyLock;

use proptest::test_runner::{Config, RngSeed};

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
pub fn config(cases: u32) -> Config {
    Config {
        cases: cases.saturating_mul(*FACTOR),
        // Cases that a property does not speak of are a fixed part of all, so there may be more of them in a longer run.
        max_global_rejects: cases.saturating_mul(*FACTOR),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(*SEED),
        ..Config::default()
    }
}

/// Counts cases of a kind: a property over texts that are all refused would hold, and show nothing.
#[derive(Default)]
pub struct Count(Cell<u32>);

impl Count {
    pub fn one_more(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub fn get(&self) -> u32 {
        self.0.get()
    }
}

//! The number of cases that the property tests run, and their seed. The fuzz tests of the product use this file too.

use std::cell::Cell;
use std::sync::LazyLock;

use proptest::test_runner::{Config, RngSeed};

/// The factor by which a longer run has more cases than the suite.
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

/// The configuration for this many cases in the suite, multiplied by [`FACTOR`].
pub fn config(cases: u32) -> Config {
    Config {
        cases: cases.saturating_mul(*FACTOR),
        // A fixed share of all cases is rejected by a property's precondition, so a longer run may have more of them.
        max_global_rejects: cases.saturating_mul(*FACTOR),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(*SEED),
        ..Config::default()
    }
}

/// Counts cases of one kind. A property that only sees refused texts would hold without a test of anything.
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

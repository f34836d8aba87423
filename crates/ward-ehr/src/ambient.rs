//! Time and randomness from the system. Other systems compare the times of assertions with their own clocks.

#![expect(clippy::disallowed_methods, reason = "the wire's one source of time and randomness")]

use std::time::SystemTime;

use rand::Rng as _;
use uuid::Uuid;

/// The system's time, which the other side compares with its own.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// A random id (version 4), such as an assertion's `jti`.
pub(crate) fn id() -> Uuid {
    Uuid::new_v4()
}

/// A random number from 0 to 1, which spreads load and keeps no secret.
pub(crate) fn share() -> f64 {
    rand::rng().random()
}

//! Time and randomness from the system, for the engine layer's own needs. Times of the product's rows are parameters.

#![expect(clippy::disallowed_methods, reason = "the engine layer's one source of time and randomness")]

use std::time::SystemTime;

use uuid::Uuid;

use crate::Timestamp;

/// The system's time, for rows that only people read, such as when a migration was applied.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// A random number that spreads load and keeps no secret; `None` without a generator.
pub(crate) fn number() -> Option<u32> {
    getrandom::u32().ok()
}

/// A random id (version 4), for the marks of a copy under way.
pub(crate) fn id() -> Uuid {
    Uuid::new_v4()
}

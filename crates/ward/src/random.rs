//! The one source of randomness in the product: the operating system's cryptographic generator, or one that it seeded.

#![expect(clippy::disallowed_methods, reason = "the product's one source of randomness")]

use uuid::Uuid;

/// The operating system has no random numbers, which no modern one reports after its start.
pub use getrandom::Error;

/// Fills `bytes` with bits that no attacker can guess.
pub fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes)
}

/// An id without meaning or order (version 4), such as a lease's.
pub fn id() -> Uuid {
    Uuid::new_v4()
}

/// An id that begins with the system's time (version 7), for requests, whose ids nothing compares.
pub fn request_id() -> Uuid {
    Uuid::now_v7()
}

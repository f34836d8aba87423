//! Test callers: the phone numbers of a workspace whose calls are tests, and the keys whose calls and text turns are tests.

pub mod actions;
pub mod api;
mod store;

pub use store::{forget_ended_credentials, has_test_lists, numbers_of, parties};

/// What the lists of a workspace say of a call.
#[derive(Clone, Copy, Debug)]
pub struct TestParties {
    /// The calling number is on it.
    pub caller: bool,
    /// The called number is on it.
    pub callee: bool,
    /// The call was made with a test credential.
    pub credential: bool,
    /// The version of the list of test callers.
    pub version: i64,
}

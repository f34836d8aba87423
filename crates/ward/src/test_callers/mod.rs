//! Test callers: the phone numbers of a workspace whose calls are tests, and the keys whose calls and text turns are tests.

pub mod actions;
pub mod api;
mod store;

pub use store::{forget_ended_credentials, has_test_lists, numbers_of, parties, parties_since};

/// The entries of a call in the workspace's lists.
#[derive(Clone, Copy, Debug)]
pub struct TestParties {
    /// Whether the calling number is on the list of test callers.
    pub caller: bool,
    /// Whether the called number is on the list of test callers.
    pub callee: bool,
    /// Whether the call was made with a test credential.
    pub credential: bool,
    /// The version of the list of test callers.
    pub version: i64,
}

/// The entries of a call in earlier versions of the list of test callers.
#[derive(Clone, Copy, Debug)]
pub enum Former {
    /// A version has one of the parties.
    Listed(TestParties),
    /// No version has one of them.
    NotListed,
    /// There are more versions than one look-up reads.
    TooMany,
}

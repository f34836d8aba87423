//! The bound on the outbound requests and bytes that one request of a client may cause.
//!
//! A call may be retried, redirected, and preceded by requests for a token. Each has its own bound, and the bounds
//! multiply. The budget bounds the product.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::failure::{Failure, FailureKind};

/// The outbound requests, and the bytes of their answers, that are left. Clones share them.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<Mutex<Left>>,
}

#[derive(Debug)]
struct Left {
    requests: usize,
    bytes: usize,
}

impl Budget {
    /// A budget of this many requests and bytes.
    pub fn new(requests: usize, bytes: usize) -> Self {
        Self { left: Arc::new(Mutex::new(Left { requests, bytes })) }
    }

    /// Takes one request, which is not sent if none is left.
    pub(crate) fn take_request(&self) -> Result<(), Failure> {
        let mut left = self.left.lock();
        left.requests = left.requests.checked_sub(1).ok_or_else(|| {
            Failure::new(FailureKind::Busy, "no outbound request is left of those that one request may cause")
                .unsent()
        })?;
        Ok(())
    }

    /// Takes these bytes of an answer.
    pub(crate) fn take_bytes(&self, bytes: usize) -> Result<(), Failure> {
        let mut left = self.left.lock();
        let rest = left.bytes.checked_sub(bytes);
        left.bytes = rest.unwrap_or(0);
        rest.map(drop).ok_or_else(|| {
            Failure::new(FailureKind::TooLarge, "the answers are larger than one request may cause in all")
        })
    }
}

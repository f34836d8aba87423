//! The review of a delivery that a worker has just held.

use super::super::matching::{self, Review};
use super::super::outbox::Leased;
use super::super::store;
use crate::audit::Write;
use crate::calls::{self, patients};
use crate::error::ApiError;

/// Opens the review, unless a person can no longer help: the fact became known during the attempt, or the EHR was asked with
/// facts that have changed since. Such a delivery returns to its queue.
pub(super) fn open(
    write: &mut Write<'_, '_>,
    leased: &Leased,
    review: &Review,
    offered: Option<&[u8]>,
) -> Result<(), ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let needs = review.needs;
    let call = calls::by_id(write, workspace, leased.call)?;
    let is_known = call.is_some_and(|call| call.detail(needs.detail()).is_some());
    let has_changed = match review.asked_with {
        Some(asked_with) => patients::changed_at(write, workspace, leased.call)? != asked_with,
        None => false,
    };
    if is_known || has_changed {
        return Ok(store::release_unmatched(write, workspace, leased.call, needs.reason(), now)?);
    }
    matching::open(write, leased.id, review, offered)
}

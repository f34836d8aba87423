//! The background task that closes the rows of endings, in steps.

use ward_db::{Timestamp, Tx};

use crate::context::Context;
use crate::endings::{self, Ended, Ending, Kind, STEP};
use crate::error::ApiError;
use crate::ids::PrincipalId;
use crate::invitations::actions as invitations;
use crate::members::actions as members;
use crate::workspaces;

/// Waiting endings that the gauge counts at most.
const MOST_COUNTED: i64 = 10_000;

/// Closes up to [`STEP`] rows of the ending that has waited longest, and moves it behind the others if rows
/// are left. Returns `false` if no ending is waiting.
pub fn close_some(tx: &mut Tx<'_>, now: Timestamp) -> Result<bool, ApiError> {
    let Some(ending) = endings::next(tx, now)? else { return Ok(false) };
    workspaces::guard(tx, ending.workspace)?;
    if !endings::stands(tx, &ending)? {
        return Ok(true);
    }
    match step(tx, &ending, now)? {
        Some(done_until) => endings::put_off(tx, &ending, done_until, now)?,
        None => endings::forget(tx, &ending)?,
    }
    Ok(true)
}

/// One step of an ending. Returns the last member whose list is done; `None` if no row is left.
fn step(tx: &mut Tx<'_>, ending: &Ending, now: Timestamp) -> Result<Option<PrincipalId>, ApiError> {
    let context = Context::of_time(now);
    let ended = match ending.kind {
        Kind::Keys => members::end_some_keys(tx, &context, ending, STEP)?,
        Kind::Invitations | Kind::OwnerInvitations => invitations::end_some(tx, &context, ending, STEP)?,
        Kind::Listing => return workspaces::actions::follow(tx, ending, STEP, now),
    };
    Ok((ended == Ended::Some).then_some(ending.done_until))
}

/// Measures the number of waiting endings.
pub fn measure(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), ward_db::Error> {
    #[expect(clippy::cast_precision_loss, reason = "a count that is bounded far below that")]
    let waiting = endings::count(tx, now, MOST_COUNTED)? as f64;
    metrics::gauge!("ward_endings_waiting").set(waiting);
    Ok(())
}

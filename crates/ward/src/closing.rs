//! The background task that closes the rows of endings, in steps.

use ward_db::{Timestamp, Tx};

use crate::audit::Write;
use crate::context::Context;
use crate::endings::{self, ClosedRows, Ending, Kind, STEP};
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
    let context = Context::of_time(now);
    let write = &mut Write::begin(tx, ending.workspace, ending.actor.clone(), &context)?;
    if !endings::stands(write, &ending)? {
        return Ok(true);
    }
    match step(write, &ending)? {
        Some(done_until) => endings::put_off(write, &ending, done_until, now)?,
        None => endings::forget(write, &ending)?,
    }
    Ok(true)
}

/// One step of an ending. Returns the last member whose list is done; `None` if no row is left.
fn step(write: &mut Write<'_, '_>, ending: &Ending) -> Result<Option<PrincipalId>, ApiError> {
    let ended = match ending.kind {
        Kind::Keys => members::end_some_keys(write, ending, STEP)?,
        Kind::Invitations | Kind::OwnerInvitations => invitations::end_some(write, ending, STEP)?,
        Kind::Listing => return workspaces::actions::follow(write, ending, STEP),
    };
    Ok((ended == ClosedRows::Some).then_some(ending.done_until))
}

/// Measures the number of waiting endings.
pub fn measure(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), ward_db::Error> {
    #[expect(clippy::cast_precision_loss, reason = "a count that is bounded far below that")]
    let waiting = endings::count(tx, now, MOST_COUNTED)? as f64;
    metrics::gauge!("ward_endings_waiting").set(waiting);
    Ok(())
}

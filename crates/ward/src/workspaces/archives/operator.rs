//! The operator's writes on legal holds, in every state of a workspace.

use serde_json::json;

use super::{LegalHold, store};
use crate::audit::{Subject, Write};
use crate::error::ApiError;

/// The held workspace as the subject of an event.
fn subject<'a>(write: &Write<'_, '_>) -> Subject<'a> {
    Subject { service: "workspaces", kind: "workspace", id: Some(write.row().0), name: None }
}

/// Places a legal hold, or gives the present one another reason.
pub fn hold(write: &mut Write<'_, '_>, reason: &str) -> Result<(), ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let former = store::hold_of(write, workspace)?.map(|hold: LegalHold| hold.reason);
    if former.as_deref() == Some(reason) {
        return Ok(());
    }
    store::hold(write, reason, now)?;
    let about = subject(write);
    write.record(
        "legal_hold.place",
        about,
        json!({ "changes": { "reason": { "from": former, "to": reason } } }),
    )
}

/// Lifts the legal hold; `false` if there is none.
pub fn lift(write: &mut Write<'_, '_>) -> Result<bool, ApiError> {
    let lifted = store::lift_hold(write)?;
    if lifted {
        let about = subject(write);
        write.record("legal_hold.lift", about, json!({}))?;
    }
    Ok(lifted)
}

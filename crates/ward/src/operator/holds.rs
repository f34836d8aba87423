//! Legal holds, which the operator places on workspaces of every state.

use super::{OperatorError, Overview, show_workspace, write};
use crate::app::App;
use crate::audit::Write;
use crate::bounds::unfit_message;
use crate::legible;
use crate::workspaces::archives::{LONGEST_REASON, operator as holds};

/// Places a legal hold on a workspace, or gives its hold another reason.
pub async fn hold_workspace(app: &App, slug_or_id: &str, reason: &str) -> Result<Overview, OperatorError> {
    let reason = reason.trim().to_owned();
    let length = reason.chars().count();
    if !(1..=LONGEST_REASON).contains(&length) {
        let told = format!("reason: must have 1 to {LONGEST_REASON} characters");
        return Err(OperatorError::Refused(told));
    }
    if let Some(unfit) = legible::first_unfit(&reason) {
        return Err(OperatorError::Refused(format!("reason: {}", unfit_message(unfit))));
    }
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let place = move |held: &mut Write<'_, '_>| holds::hold(held, &reason);
    write(app, "operator.hold_workspace", workspace, place).await?;
    show_workspace(app, slug_or_id).await
}

/// Lifts the legal hold of a workspace.
pub async fn lift_hold(app: &App, slug_or_id: &str) -> Result<Overview, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    if !write(app, "operator.lift_hold", workspace, holds::lift).await? {
        return Err(OperatorError::Refused("the workspace has no legal hold".to_owned()));
    }
    show_workspace(app, slug_or_id).await
}

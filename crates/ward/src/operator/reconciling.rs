//! The operator's comparison of workspaces with Twilio's list of calls.

use std::sync::Arc;

use serde::Serialize;
use ward_db::Tx;

use super::{OperatorError, show_workspace, write};
use crate::app::App;
use crate::ids::WorkspaceId;
use crate::twilio::reconciling::api::TwilioReconciliation;
use crate::twilio::reconciling::worker::{self, Outcome};
use crate::twilio::reconciling::{self, actions};
use crate::workspaces::operator as workspaces;

const PAGE: i64 = 100;

#[derive(Debug, Serialize)]
pub struct Reconciled {
    pub workspace_id: WorkspaceId,
    /// The slug of the workspace, if the workspace exists.
    pub workspace: Option<String>,
    /// `done`, `failed`, or `elsewhere` if a server makes the comparison.
    pub outcome: &'static str,
    /// The state of the comparison when the command ends.
    #[serde(flatten)]
    pub state: TwilioReconciliation,
}

/// Compares a workspace, or every workspace with a Twilio account, with Twilio's list now.
pub async fn reconcile_twilio(
    app: &Arc<App>,
    slug_or_id: Option<&str>,
) -> Result<Vec<Reconciled>, OperatorError> {
    if let Some(slug_or_id) = slug_or_id {
        let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
        return Ok(vec![one(app, workspace).await?]);
    }
    let mut done = Vec::new();
    let mut after = WorkspaceId(uuid::Uuid::nil());
    loop {
        let list = move |tx: &mut Tx<'_>| reconciling::with_account(tx, after, PAGE);
        let page = app.db.read_long("operator.twilio_accounts", list).await?;
        let Some(last) = page.last() else { return Ok(done) };
        after = *last;
        for workspace in page {
            done.push(one(app, workspace).await?);
        }
    }
}

async fn one(app: &Arc<App>, workspace: WorkspaceId) -> Result<Reconciled, OperatorError> {
    write(app, "operator.reconcile_twilio", workspace, actions::make_due).await?;
    let outcome = match worker::run(app, workspace).await? {
        Outcome::Done | Outcome::Going => "done",
        Outcome::Failed(_) => "failed",
        Outcome::Elsewhere => "elsewhere",
    };
    let read = app.db.read("operator.reconciled", move |tx| {
        let slug = workspaces::find(tx, &workspace.to_string())?.map(|found| found.workspace.slug);
        Ok::<_, OperatorError>((slug, reconciling::state(tx, workspace)?))
    });
    let (workspace_slug, state) = read.await?;
    Ok(Reconciled { workspace_id: workspace, workspace: workspace_slug, outcome, state })
}

//! The comparison of one page with the workspace's calls, and the recording of what is missing.

use std::sync::Arc;

use uuid::Uuid;
use ward_db::{Timestamp, Tx};

use super::super::rules::EndedCall;
use super::super::{Comparison, store};
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::calls::{self, Decision, Known, Reporter, actions as recording};
use crate::context::Context;
use crate::error::ApiError;
use crate::ids::WorkspaceId;
use crate::twilio::store as accounts;
use crate::workspaces;

/// The lease under which a page is compared.
#[derive(Clone, Copy, Debug)]
pub struct Under {
    pub workspace: WorkspaceId,
    pub lease: Uuid,
    /// The last change of the account whose list is read.
    pub account_changed_at: Timestamp,
    /// The end of the lease after the next step.
    pub until: Timestamp,
    pub now: Timestamp,
}

/// How a call of the list is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// No report and no callback told Ward of it.
    Call,
    /// Ward does not know its end.
    End,
}

/// The ended calls of a page that Ward lacks.
pub async fn lacking(
    app: &App,
    workspace: WorkspaceId,
    listed: Vec<EndedCall>,
) -> Result<Vec<(EndedCall, Lack)>, ApiError> {
    app.read_long(workspace, "twilio.compare", move |tx| {
        let mut lacking = Vec::new();
        for call in &listed {
            match calls::known(tx, workspace, &call.sid)? {
                Known::Finished => {}
                Known::Unfinished => lacking.push((call.clone(), Lack::End)),
                Known::No => lacking.push((call.clone(), Lack::Call)),
            }
        }
        Ok::<_, ward_db::Error>(lacking)
    })
    .await
}

/// The result of recording one call.
#[derive(Debug)]
pub enum Entered {
    Done(Comparison),
    /// Another worker has the lease, or the account or the workspace has changed.
    Lost,
}

/// Records one missing call or end, with the progress of the comparison in the same transaction. So a repeat after a crash
/// counts nothing twice.
pub async fn enter(
    app: &Arc<App>,
    under: Under,
    account_sid: String,
    (call, lack): (EndedCall, Lack),
    before: Comparison,
) -> Result<Entered, ApiError> {
    let usual = app.config.quotas;
    let enter = move |tx: &mut Tx<'_>| {
        let context = Context::of_time(under.now);
        let write = &mut Write::begin(tx, under.workspace, Actor::NOBODY, &context)?;
        let account = accounts::get(write, under.workspace)?;
        let is_same = account.is_some_and(|account| account.updated_at == under.account_changed_at);
        let workspace = workspaces::active(write, under.workspace)?.filter(|_| is_same);
        let Some(workspace) = workspace else { return Ok((Entered::Lost, false)) };
        if !store::is_leased(write, under.workspace, under.lease)? {
            return Ok((Entered::Lost, false));
        }
        let mut report = call.report.clone();
        if lack == Lack::Call {
            // The runtime's start of a known call is more exact than the list's.
            report.started_at = Some(call.started_at);
        }
        let place = (&workspace, &usual);
        let (recorded, _) = recording::record(write, place, &call.sid, Reporter::TwilioList, &report)?;
        let mut run = before.clone();
        match lack {
            Lack::Call => (run.missing, run.entered) = (run.missing + 1, run.entered + 1),
            Lack::End => (run.unfinished, run.ended) = (run.unfinished + 1, run.ended + 1),
        }
        store::keep(write, under.workspace, under.lease, (&run, &account_sid), under.until)?;
        Ok::<_, ApiError>((Entered::Done(run), recorded.sync == Some(Decision::Owed)))
    };
    let (entered, owes) = app.db.write("twilio.enter", enter).await?;
    if owes {
        app.sync.wake();
    }
    Ok(entered)
}

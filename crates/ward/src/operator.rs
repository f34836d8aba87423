//! Operations of the command line, beside a running server or without one.

mod bounds;
pub mod doctor;
mod holds;
mod people;
mod reconciling;
mod reviewing;
mod rotation;
mod sealed;

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use ward_contract::validate::{Loc, Problem};
use ward_db::backup::{self, CheckedBackup};
use ward_db::{Timestamp, Tx};

use crate::api_keys::secret::Presented;
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::calls::amending::{self, AmendDeliveryResponse};
use crate::calls::backfill::{self, BackfillResponse, Part};
use crate::calls::correcting::{self, CorrectCallResponse};
use crate::calls::operator::{self as calls, Ended, Proof, Unfinished};
use crate::context::Context;
use crate::deliveries::actions::{
    self as steering, DropDeliveryResponse, InEhr, ResolveDeliveryResponse, RetryResponse,
};
use crate::deliveries::{self, IntegrationSyncStatus};
use crate::error::ApiError;
use crate::ids::{DeliveryId, IntegrationId, WorkspaceId};
use crate::integrations;
use crate::quotas::operator::{self as quotas, NewLimit, QuotaUsage};
use crate::schema::{MIGRATIONS, VERSION};
use crate::workspaces::access_policy::actions::Lifted;
use crate::workspaces::access_policy::{self, AccessPolicy};
use crate::workspaces::operator::{self as workspaces, Overview, RegionCheck};
use crate::workspaces::{Workspace, WorkspaceState};

pub use bounds::{OverLongValue, OverLongValues, over_long_values};
pub use holds::{hold_workspace, lift_hold};
pub use people::{
    FoundKey, KeySummary, OperatorPage, RemovedMember, found_keys, issue_key, list_keys, list_members,
    remove_member, revoke_key,
};
pub use reconciling::{Reconciled, reconcile_twilio};
pub use reviewing::{list_reviews, resolve_review, show_review};
pub use rotation::{RotationProgress, RotationReport, rotate_secrets};
pub use sealed::{ForgottenSecrets, LostSecrets, UnopenedValue, forget_secrets, lost_secrets};

/// The reason why an operator's command failed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// No workspace has this slug or id.
    #[error("no workspace has the slug or id {:?}", without_secret(.0))]
    NoWorkspace(String),
    /// The workspace is in another state than the command is for.
    #[error("the workspace is {0}, so this cannot be done")]
    WrongState(&'static str),
    /// A workspace that cannot be created like this.
    #[error("the workspace cannot be created: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// The name of a key has a length or a character that no name has.
    #[error("the key name {0}")]
    KeyName(String),
    /// The workspace has no member of this id.
    #[error("the workspace has no member with the id {:?}", without_secret(.0))]
    NoMember(String),
    /// No live key has this key id.
    #[error("no live key has the key id {0:?}")]
    NoKey(String),
    /// The text is neither a key id nor a whole key.
    #[error(
        "this is not a key: give its key id, which has 22 letters and digits, or the whole key, which begins with ward_"
    )]
    NotAKey,
    #[error("unknown role {:?}: it must be viewer, member, operator, admin or owner", without_secret(.0))]
    NoRole(String),
    /// The lifetime is outside 1 to 90 days.
    #[error("a key lives 1 to 90 days, not {0}")]
    Lifetime(u64),
    /// The lifetime is above the ceiling of the role.
    #[error("a new key with the role {role} lives at most {most} days in this workspace")]
    Ceiling { role: &'static str, most: u64 },
    /// The workspace has no integration of this name or id.
    #[error("the workspace has no integration with the name or id {:?}", without_secret(.0))]
    NoIntegration(String),
    /// A bound is not a date, or the period ends before it begins.
    #[error("the period must be two dates such as 2026-04-01 and 2026-04-30, the first not after the last")]
    Period,
    /// A rule of the API refuses the command; the text says which.
    #[error("nothing was changed: {0}")]
    Refused(String),
    /// The database failed; the source is its error.
    #[error("the database operation failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The text of an argument as an error may repeat it. A pasted key loses its secret.
fn without_secret(argument: &str) -> Cow<'_, str> {
    match Presented::parse(argument.trim().as_bytes()) {
        Some(key) => format!("ward_{}…", key.key_id).into(),
        None => argument.into(),
    }
}

impl OperatorError {
    fn invalid(problems: Vec<Problem>) -> Self {
        let tell = |problem: Problem| match problem.loc.last() {
            Some(Loc::Key(field)) => format!("{field}: {}", problem.msg),
            _ => problem.msg,
        };
        Self::Invalid(problems.into_iter().map(tell).collect())
    }

    /// A short name of the kind of failure, for scripts.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoWorkspace(_) => "no_workspace",
            Self::WrongState(_) => "wrong_state",
            Self::Invalid(_)
            | Self::KeyName(_)
            | Self::NoRole(_)
            | Self::Lifetime(_)
            | Self::Ceiling { .. }
            | Self::Period => "invalid",

            Self::NoMember(_) => "no_member",
            Self::NoKey(_) | Self::NotAKey => "no_key",
            Self::NoIntegration(_) => "no_integration",
            Self::Refused(_) => "refused",
            Self::Database(_) => "database",
        }
    }
}

impl From<ApiError> for OperatorError {
    fn from(error: ApiError) -> Self {
        if error.cause().is_none() {
            return Self::Refused(error.detail().to_owned());
        }
        Self::Database(error.into_cause())
    }
}

impl From<ward_db::Error> for OperatorError {
    fn from(error: ward_db::Error) -> Self {
        Self::Database(error.into())
    }
}

#[derive(Debug, Serialize)]
pub struct RevokedKey {
    /// The key's public part, by which the operator names it.
    pub key_id: String,
    /// The name that lists showed for it.
    pub name: Option<String>,
    /// The workspace that it belonged to.
    pub workspace_id: WorkspaceId,
}

/// Runs a write of the operator, in a transaction that holds the workspace's guard row.
async fn write<T: Send + 'static, E: From<ward_db::Error> + Send + 'static>(
    app: &App,
    name: &'static str,
    workspace: WorkspaceId,
    mut work: impl FnMut(&mut Write<'_, '_>) -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let context = Context::of_operator(app.clock.now());
    app.db.write(name, move |tx| work(&mut Write::begin(tx, workspace, Actor::OPERATOR, &context)?)).await
}

/// Up to `limit` workspaces of any state whose id is above `after`.
pub async fn list_workspaces(
    app: &App,
    after: Option<WorkspaceId>,
    limit: u32,
) -> Result<Vec<Overview>, OperatorError> {
    let after = after.unwrap_or(WorkspaceId(uuid::Uuid::nil()));
    Ok(app.db.read_long("operator.list", move |tx| workspaces::list(tx, after, limit)).await?)
}

/// Checks that every stored workspace has this Ward's region. Pages of 500 rows keep each read short.
/// Returns `None` if the setting `region` is not set, because then every region is right.
///
/// `ward doctor` reports ok if `misplaced` is 0, and otherwise names the workspaces in `named`.
pub async fn check_regions(app: &App) -> Result<Option<RegionCheck>, OperatorError> {
    const PAGE: u32 = 500;
    let Some(region) = &app.config.platform.region else { return Ok(None) };
    let mut check = RegionCheck::default();
    let mut after = None;
    loop {
        let page = list_workspaces(app, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(Some(check)) };
        after = Some(last.workspace.id);
        check.add(region, page);
    }
}

/// The workspace of this slug or id, in any state.
pub async fn show_workspace(app: &App, slug_or_id: &str) -> Result<Overview, OperatorError> {
    let wanted = slug_or_id.to_owned();
    let found = app.db.read("operator.show", move |tx| workspaces::find(tx, &wanted)).await?;
    found.ok_or_else(|| OperatorError::NoWorkspace(slug_or_id.to_owned()))
}

/// Creates an active workspace without members. `wanted` is the body of the API's own operation and is
/// validated like it, except that every rule of names holds here.
pub async fn create_workspace(app: &App, wanted: &serde_json::Value) -> Result<Overview, OperatorError> {
    let operation = app.contract.operation("create-workspace");
    let operation = operation.ok_or_else(|| OperatorError::Refused("no operation".to_owned()))?;
    let new = workspaces::read_new(operation, wanted).map_err(OperatorError::invalid)?;
    if let Some(unfit) = wanted["name"].as_str().and_then(crate::legible::first_unfit) {
        return Err(OperatorError::Invalid(vec![format!("name: {}", crate::bounds::unfit_message(unfit))]));
    }
    workspaces::only_own_region(app, &new)?;
    let context = Context::of_operator(app.clock.now());
    let create = move |tx: &mut Tx<'_>| workspaces::create(tx, &context, &new);
    let id = app.db.write("operator.create_workspace", create).await?;
    show_workspace(app, &id.to_string()).await
}

/// Archives a workspace, with the effects of the owner's operation.
pub async fn archive_workspace(app: &App, slug_or_id: &str) -> Result<Overview, OperatorError> {
    let workspace = active_workspace(app, slug_or_id).await?.id;
    let purge_after = app.config.purge_after;
    let archive = move |held: &mut Write<'_, '_>| workspaces::archive(held, purge_after);
    let archived = write(app, "operator.archive_workspace", workspace, archive).await?;
    let shown = show_workspace(app, slug_or_id).await?;
    if archived { Ok(shown) } else { Err(OperatorError::WrongState(shown.state.name())) }
}

/// Sets the limits in `new`, if any, and returns the workspace's usage and limits.
pub async fn workspace_limits(
    app: &App,
    slug_or_id: &str,
    new: Vec<NewLimit>,
) -> Result<Vec<QuotaUsage>, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    if !new.is_empty() {
        write(app, "operator.set_limits", workspace, move |write| quotas::set(write, &new)).await?;
    }
    Ok(quotas::usage(app, workspace).await?)
}

/// Lifts parts of a workspace's access policy, if any are named, and returns the policy.
pub async fn workspace_access(
    app: &App,
    slug_or_id: &str,
    lifted: Lifted,
) -> Result<AccessPolicy, OperatorError> {
    let found = show_workspace(app, slug_or_id).await?;
    if !lifted.networks && !lifted.issuers {
        return Ok(found.access_policy);
    }
    let lift = move |write: &mut Write<'_, '_>| access_policy::actions::lift(write, lifted);
    Ok(write(app, "operator.lift_access_policy", found.workspace.id, lift).await?)
}

/// Makes an archived workspace active again. The server puts it back into its members' lists, in bounded steps.
pub async fn restore_workspace(app: &App, slug_or_id: &str) -> Result<Overview, OperatorError> {
    let found = show_workspace(app, slug_or_id).await?;
    if !write(app, "operator.restore", found.workspace.id, workspaces::restore).await? {
        return Err(OperatorError::WrongState(found.state.name()));
    }
    show_workspace(app, slug_or_id).await
}

/// The id of an active workspace of this slug or id.
async fn active_workspace(app: &App, slug_or_id: &str) -> Result<Workspace, OperatorError> {
    let found = show_workspace(app, slug_or_id).await?;
    if found.state == WorkspaceState::Active {
        return Ok(found.workspace);
    }
    Err(OperatorError::WrongState(found.state.name()))
}

/// The state and the counts of each integration queue of the workspace.
pub async fn sync_status(app: &App, slug_or_id: &str) -> Result<Vec<IntegrationSyncStatus>, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    Ok(app.db.read_long("operator.sync_status", move |tx| deliveries::lanes(tx, workspace)).await?)
}

/// The queue of one integration, with its workspace.
#[derive(Debug, Serialize)]
pub struct QueueOf {
    pub workspace_id: WorkspaceId,
    /// The slug of the workspace, if the workspace exists.
    pub workspace: Option<String>,
    /// The state and the counts of the queue.
    #[serde(flatten)]
    pub queue: IntegrationSyncStatus,
}

/// A page of the queues of all workspaces.
#[derive(Debug, Serialize)]
pub struct AllQueues {
    /// The queues, ordered by workspace and integration.
    pub queues: Vec<QueueOf>,
    /// The text after which the next page begins; `None` on the last page.
    pub next: Option<String>,
}

/// The state and the counts of up to `limit` queues of all workspaces, after the text of an earlier page.
pub async fn sync_status_all(app: &App, after: Option<&str>, limit: u32) -> Result<AllQueues, OperatorError> {
    let unusable = || OperatorError::Refused("this is not the end of an earlier page".to_owned());
    let nil = uuid::Uuid::nil();
    let after = match after {
        None => (WorkspaceId(nil), IntegrationId(nil)),
        Some(text) => {
            let (workspace, integration) = text.split_once('/').ok_or_else(unusable)?;
            let id = |text: &str| uuid::Uuid::try_parse(text).map_err(|_| unusable());
            (WorkspaceId(id(workspace)?), IntegrationId(id(integration)?))
        }
    };
    app.db
        .read_long("operator.sync_status_all", move |tx| {
            let mut found = deliveries::lanes_of_all(tx, after, i64::from(limit) + 1)?;
            let most = usize::try_from(limit).unwrap_or(usize::MAX);
            let has_more = found.len() > most;
            found.truncate(most);
            let last = found.last().filter(|_| has_more);
            let next = last.map(|(workspace, queue)| format!("{workspace}/{}", queue.integration_id));
            let mut queues = Vec::with_capacity(found.len());
            for (workspace_id, queue) in found {
                let workspace = workspaces::find(tx, &workspace_id.to_string())?;
                let workspace = workspace.map(|found| found.workspace.slug);
                queues.push(QueueOf { workspace_id, workspace, queue });
            }
            Ok(AllQueues { queues, next })
        })
        .await
}

/// Drops a delivery, so that it is never sent.
pub async fn sync_drop(
    app: &App,
    slug_or_id: &str,
    delivery: DeliveryId,
    reason: String,
) -> Result<DropDeliveryResponse, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let drop = move |write: &mut Write<'_, '_>| steering::drop_within(write, delivery, &reason);
    Ok(write(app, "operator.sync_drop", workspace, drop).await?)
}

/// Changes what the EHR receives about a call that it does not have yet.
pub async fn correct_call(
    app: &App,
    slug_or_id: &str,
    sid: &str,
    fields: serde_json::Map<String, serde_json::Value>,
) -> Result<CorrectCallResponse, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let (vault, sid) = (app.vault.clone(), sid.to_owned());
    let correct = move |write: &mut Write<'_, '_>| correcting::correct_within(write, &vault, &sid, &fields);
    Ok(write(app, "operator.correct_call", workspace, correct).await?)
}

/// Changes a call that the EHR has, and its record there.
pub async fn amend_delivery(
    app: &App,
    slug_or_id: &str,
    delivery: DeliveryId,
    fields: serde_json::Map<String, serde_json::Value>,
) -> Result<AmendDeliveryResponse, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let vault = app.vault.clone();
    let amend = move |write: &mut Write<'_, '_>| amending::amend_within(write, &vault, delivery, &fields);
    Ok(write(app, "operator.amend_delivery", workspace, amend).await?)
}

/// Retries one delivery, or a bounded batch of the failed ones if `delivery` is `None`.
pub async fn sync_retry(
    app: &App,
    slug_or_id: &str,
    delivery: Option<DeliveryId>,
) -> Result<RetryResponse, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let retry = move |write: &mut Write<'_, '_>| match delivery {
        Some(delivery) => steering::retry_one(write, delivery),
        None => steering::retry_all(write, None),
    };
    Ok(write(app, "operator.sync_retry", workspace, retry).await?)
}

/// Settles or resends a delivery according to a person's findings in the EHR.
pub async fn sync_resolve(
    app: &App,
    slug_or_id: &str,
    delivery: DeliveryId,
    found: InEhr,
) -> Result<ResolveDeliveryResponse, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let resolve = move |write: &mut Write<'_, '_>| steering::resolve_one(write, delivery, &found);
    Ok(write(app, "operator.sync_resolve", workspace, resolve).await?)
}

/// Pauses an integration's deliveries (`held`) or resumes them.
pub async fn sync_hold(
    app: &App,
    slug_or_id: &str,
    integration: &str,
    held: bool,
) -> Result<Vec<IntegrationSyncStatus>, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let wanted = integration.to_owned();
    let hold = move |write: &mut Write<'_, '_>| {
        let named = match uuid::Uuid::try_parse(&wanted) {
            Ok(id) => Some(IntegrationId(id)),
            Err(_) => integrations::receiver(write, workspace, &wanted)?.map(|found| found.id),
        };
        let integration = named.ok_or_else(|| OperatorError::NoIntegration(wanted.clone()))?;
        steering::hold(write, integration, held).map_err(OperatorError::from)
    };
    write(app, "operator.sync_hold", workspace, hold).await?;
    sync_status(app, slug_or_id).await
}

/// Calls of all workspaces that no report has ended, the longest silent first, up to `limit`.
pub async fn unfinished_calls(app: &App, limit: u32) -> Result<Vec<Unfinished>, OperatorError> {
    let before = app.clock.now().saturating_sub(app.config.outbound.unfinished_after);
    let list = move |tx: &mut Tx<'_>| calls::unfinished(tx, before, limit);
    Ok(app.db.read_long("operator.unfinished_calls", list).await?)
}

/// Ends a call that has no reported end, at the time of its last report. Its delivery follows, as for any other call.
pub async fn end_call(app: &App, slug_or_id: &str, sid: &str, status: &str) -> Result<Ended, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace;
    let (id, sid, status, usual) = (workspace.id, sid.to_owned(), status.to_owned(), app.config.quotas);
    let end = move |write: &mut Write<'_, '_>| calls::end(write, (&workspace, &usual), &sid, &status);
    Ok(write(app, "operator.end_call", id, end).await?)
}

/// The beginning of the first day and the end of the last one (UTC).
fn days(first: &str, last: &str) -> Result<(Timestamp, Timestamp), OperatorError> {
    let day = |text: &str| -> Result<Timestamp, OperatorError> {
        format!("{text}T00:00:00.000000Z").parse().map_err(|_| OperatorError::Period)
    };
    let period = (day(first)?, day(last)?.saturating_add(std::time::Duration::from_hours(24)));
    if period.0 < period.1 { Ok(period) } else { Err(OperatorError::Period) }
}

/// Queues the deliveries of calls that started on these days (UTC, both included) and finished before the workspace had an
/// integration for them. Each transaction queues a bounded number.
pub async fn backfill(
    app: &App,
    slug_or_id: &str,
    first: &str,
    last: &str,
) -> Result<BackfillResponse, OperatorError> {
    let (from, before) = days(first, last)?;
    let to = before.saturating_sub(std::time::Duration::from_micros(1));
    let workspace = show_workspace(app, slug_or_id).await?.workspace;
    let mut part = Part { from, to, after: None };
    let mut done = BackfillResponse { queued: 0, looked_at: 0, next_after_call_id: None };
    loop {
        let id = workspace.id;
        let candidates = move |tx: &mut Tx<'_>| backfill::candidates(tx, id, part);
        let (of, found) =
            (workspace.clone(), app.db.read_long("operator.backfill_candidates", candidates).await?);
        let owe = move |write: &mut Write<'_, '_>| backfill::owe(write, &of, &found);
        let step = write(app, "operator.backfill", id, owe).await?;
        done.queued += step.queued;
        done.looked_at += step.looked_at;
        match step.next_after_call_id {
            Some(next) => part.after = Some(next),
            None => return Ok(done),
        }
    }
}

/// Lists every test call that began on these days (UTC, both included). Each comes with the rule that made
/// it a test and the proof that nothing was owed or sent for it.
pub async fn prove_exclusion(
    app: &App,
    slug_or_id: &str,
    first: &str,
    last: &str,
) -> Result<Proof, OperatorError> {
    let period = days(first, last)?;
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let context = Context::of_operator(app.clock.now());
    app.db.write("operator.note_proof", move |tx| calls::note_proof(tx, &context, workspace)).await?;
    let prove = move |tx: &mut Tx<'_>| calls::prove(tx, workspace, period);
    Ok(app.db.read_long("operator.prove_exclusion", prove).await?)
}

/// Restores a backup to the path of `database`. A delivery that the backup records as unsent may have been
/// sent since. Therefore Ward searches the EHR before it sends any of them. Blocking.
pub fn restore_backup(
    file: &Path,
    database: &str,
    progress: impl FnMut(backup::BackupProgress),
) -> Result<CheckedBackup, ward_db::Error> {
    backup::restore(file, database, MIGRATIONS, VERSION, deliveries::mark_all_uncertain, progress)
}

//! The worker of comparisons: it leases a due workspace, reads some pages of Twilio's list, and stores the progress.
//!
//! Nothing is asked of Twilio inside a transaction. Each page takes a share of the workspace's outbound calls, and its
//! database work takes turns with that of other workspaces. After some pages the workspace goes behind the others that are due.

mod entering;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;
use ward_db::Timestamp;
use ward_ehr::Secret;
use ward_ehr::twilio::{CallPage, ListedCall, NoPage, PartOfList, TwilioAccount};

use super::super::{ACCOUNT, Account, secondary_token_place, store as accounts, token_place};
use super::rules::{self, EndedCall, Meaning};
use super::store::{self, FailedAttempt};
use super::{Comparison, Mode, Reconciliation};
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::context::Context;
use crate::deliveries::backoff;
use crate::error::ApiError;
use crate::ids::WorkspaceId;
use crate::shares::{Holder, Limits, Shares};
use crate::workspaces::{self, Workspace};
use entering::{Entered, Lack, Under};

/// How often a replica looks for due workspaces.
const POLL: Duration = Duration::from_secs(30);
/// How often it looks for accounts without a row, and sets the gauges.
const SURVEYED: Duration = Duration::from_mins(15);
/// The reason of a failure in which the row of a comparison was not moved.
const NO_DATABASE: &str = "database";
/// Duration of a lease. Each page and each recorded call renews it.
const LEASE: Duration = Duration::from_mins(2);
/// Workspaces that a replica compares at once.
const AT_ONCE: u32 = 4;
/// Due workspaces that one query returns.
const LOOKED_AT: i64 = 32;
/// Accounts that get a row by one query.
const SCHEDULED_AT_ONCE: i64 = 500;
const PAGES_AT_ONCE: u32 = 10;
/// Pages of one comparison, a million calls. More of them mean that the pages do not end.
const MOST_PAGES: u32 = 5_000;
/// Failures in a row after which the comparison waits for the next night.
const ATTEMPTS: i64 = 8;
/// The pause after the first failure. It doubles with each further one.
const PAUSE: Duration = Duration::from_mins(1);
/// The longest pause before another attempt, also if Twilio asks for more.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// A comparison that was begun so long ago starts from its first page, because Twilio's references to pages may have ended.
const STALE: Duration = Duration::from_hours(20);
/// The counts of gauges end at this number of rows.
const MOST_COUNTED: i64 = 100_000;

/// The comparisons that this replica makes now, at most one for each workspace.
pub fn shares() -> Shares {
    let limits = Limits { total: AT_ONCE, each: 1, first: 1, beyond: AT_ONCE, waiting_each: 0 };
    Shares::new("twilio_lists", limits)
}

/// Compares the workspaces that are due, until the process stops.
pub async fn keep_going(app: Arc<App>) {
    if !app.config.outbound.twilio_reconciliation {
        return;
    }
    let mut comparing = JoinSet::new();
    let mut surveyed: Option<Instant> = None;
    while app.sync.stopped_at().is_none() {
        if surveyed.is_none_or(|last| last.elapsed() >= SURVEYED) {
            surveyed = Some(Instant::now());
            survey(&app).await;
        }
        begin_due(&app, &mut comparing).await;
        tokio::select! {
            () = app.reconcile_wake.wait(POLL) => {}
            Some(ended) = comparing.join_next() => {
                // The database failed, so the row is still due. Every other failure has moved its own workspace only.
                if matches!(ended, Ok(Outcome::Failed(NO_DATABASE)) | Err(_)) {
                    app.reconcile_wake.wait(POLL).await;
                }
            }
        }
    }
}

/// Compares what is due now, until nothing is due or an attempt fails. For tests.
pub async fn turn(app: &Arc<App>) {
    survey(app).await;
    let mut comparing = JoinSet::new();
    begin_due(app, &mut comparing).await;
    let mut failed = false;
    while let Some(ended) = comparing.join_next().await {
        failed |= !matches!(ended, Ok(Outcome::Going | Outcome::Done));
        if !failed {
            begin_due(app, &mut comparing).await;
        }
    }
    measure(app).await;
}

/// Compares one workspace now, until the comparison is complete, fails, or belongs to another worker. For the operator.
pub async fn run(app: &Arc<App>, workspace: WorkspaceId) -> Result<Outcome, ApiError> {
    loop {
        let now = app.clock.now();
        let row = app.db.read("twilio.reconciliation", move |tx| store::get(tx, workspace)).await;
        let row = row.map_err(|error: ward_db::Error| ApiError::from(error))?;
        let Some(row) = row.filter(|row| row.due_at <= now) else { return Ok(Outcome::Elsewhere) };
        match one(app, (workspace, row.due_at)).await {
            Outcome::Going => {}
            ended => return Ok(ended),
        }
    }
}

/// Starts as many of the due comparisons as have a free place.
async fn begin_due(app: &Arc<App>, comparing: &mut JoinSet<Outcome>) {
    let now = app.clock.now();
    let due = match app.db.read("twilio.due", move |tx| store::due(tx, now, LOOKED_AT)).await {
        Ok(due) => due,
        Err(error) => {
            let error: ward_db::Error = error;
            return tracing::warn!(%error, "cannot look for due comparisons with Twilio's list; will retry");
        }
    };
    for due in due {
        if app.sync.stopped_at().is_some() {
            return;
        }
        // Without a free place the workspace stays due until another one ends.
        let Ok(share) = app.reconcile_shares.try_take(Holder::Workspace(due.0), 1) else { continue };
        let app = app.clone();
        comparing.spawn(async move {
            let outcome = one(&app, due).await;
            drop(share);
            outcome
        });
    }
}

/// Makes rows for accounts that have none, and sets the gauges.
async fn survey(app: &Arc<App>) {
    loop {
        let found = app.db.read_long("twilio.unscheduled", |tx| store::unscheduled(tx, SCHEDULED_AT_ONCE));
        let found: Vec<WorkspaceId> = match found.await {
            Ok(found) => found,
            Err(error) => {
                let error: ward_db::Error = error;
                return tracing::warn!(%error, "cannot look for Twilio accounts to compare; will retry");
            }
        };
        let (now, count) = (app.clock.now(), found.len());
        if count == 0 {
            break;
        }
        let scheduled = app.db.write("twilio.schedule", move |tx| {
            found.iter().try_for_each(|id| store::schedule(tx, *id, rules::next_night(*id, now)))
        });
        if let Err::<(), ward_db::Error>(error) = scheduled.await {
            return tracing::warn!(%error, "cannot schedule comparisons with Twilio's list; will retry");
        }
        if count < usize::try_from(SCHEDULED_AT_ONCE).unwrap_or(usize::MAX) {
            break;
        }
    }
    measure(app).await;
}

async fn measure(app: &App) {
    let measured = app.db.read_long("twilio.measure", |tx| {
        Ok::<_, ward_db::Error>((store::missing(tx, MOST_COUNTED)?, store::failing(tx, MOST_COUNTED)?))
    });
    let Ok((missing, (failing, since))) = measured.await else { return };
    let number = |count: i64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    metrics::gauge!("ward_twilio_calls_missing").set(number(missing));
    metrics::gauge!("ward_twilio_reconciliations_failing").set(number(failing));
    let micros = since.map_or(0, |since| app.clock.now().micros().saturating_sub(since.micros()));
    let age = Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64();
    metrics::gauge!("ward_twilio_reconciliations_failing_oldest_seconds").set(age);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The comparison goes on: the workspace is due again.
    Going,
    /// The comparison is complete, or there is nothing to compare.
    Done,
    /// The attempt failed, for this reason, and will be repeated.
    Failed(&'static str),
    /// Another worker has the workspace, or nothing is due.
    Elsewhere,
}

/// The reason why a lease ended early.
enum Stopped {
    /// Another worker has the lease now, or the account has changed.
    Lost,
    NoPage(NoPage),
    /// The database or another part of Ward failed.
    Failed(ApiError),
}

impl From<ApiError> for Stopped {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl From<ward_db::Error> for Stopped {
    fn from(error: ward_db::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A leased workspace with everything that its comparison needs.
struct Leased {
    workspace: Workspace,
    account: Account,
    tokens: Vec<Secret>,
    lease: Uuid,
    run: Comparison,
}

/// Leases a due workspace, and compares up to [`PAGES_AT_ONCE`] pages.
async fn one(app: &Arc<App>, due: (WorkspaceId, Timestamp)) -> Outcome {
    let turns = Holder::Workspace(due.0).number();
    ward_db::in_background_for(turns, one_in_turn(app, due)).await
}

async fn one_in_turn(app: &Arc<App>, due: (WorkspaceId, Timestamp)) -> Outcome {
    let (lease, now) = (crate::random::id(), app.clock.now());
    let taken = app.db.write("twilio.lease", move |tx| {
        let Some(row) = store::lease(tx, due, lease, now.saturating_add(LEASE))? else { return Ok(None) };
        let account = accounts::get(tx, due.0)?;
        Ok::<_, ward_db::Error>(Some((row, account, workspaces::active(tx, due.0)?)))
    });
    let (row, account, workspace) = match taken.await {
        Ok(Some(taken)) => taken,
        Ok(None) => return Outcome::Elsewhere,
        Err(error) => {
            tracing::error!(%error, "cannot begin a comparison with Twilio's list; will retry");
            return Outcome::Failed(NO_DATABASE);
        }
    };
    let attempts = row.attempts + 1;
    let ended = match (account, workspace) {
        (None, _) => app.db.write("twilio.forget", move |tx| store::forget(tx, due.0, lease)).await,
        (Some(account), Some(workspace)) if account.reconciliation != Mode::Off => {
            let compared = match begin(app, row, account, workspace, lease, now) {
                Ok(mut leased) => compare(app, &mut leased).await.map_err(|stopped| (stopped, leased.run)),
                Err(error) => Err((Stopped::Failed(error), Comparison::begin((now, now), now))),
            };
            return match compared {
                Ok(outcome) => outcome,
                Err((stopped, run)) => fail(app, (due.0, lease), stopped, &run, attempts).await,
            };
        }
        _ => {
            let night = rules::next_night(due.0, now);
            app.db.write("twilio.leave", move |tx| store::leave(tx, due.0, lease, night)).await
        }
    };
    match ended {
        Ok(()) => Outcome::Done,
        Err(error) => {
            let error: ward_db::Error = error;
            tracing::error!(%error, "cannot end a comparison with Twilio's list; will retry");
            Outcome::Failed(NO_DATABASE)
        }
    }
}

/// Opens the account's tokens, and begins or continues the comparison.
fn begin(
    app: &App,
    row: Reconciliation,
    account: Account,
    workspace: Workspace,
    lease: Uuid,
    now: Timestamp,
) -> Result<Leased, ApiError> {
    let open = |sealed: &[u8], place: String| {
        let opened = app.vault.open(sealed, &place).map_err(ApiError::internal)?;
        Ok::<_, ApiError>(Secret::new(String::from_utf8_lossy(&opened).into_owned()))
    };
    let mut tokens = vec![open(&account.auth_token, token_place(workspace.id))?];
    if let Some(second) = &account.secondary_auth_token {
        tokens.push(open(second, secondary_token_place(workspace.id))?);
    }
    let is_same = row.account_sid.as_ref().is_none_or(|known| *known == account.account_sid);
    let fresh = |run: &Comparison| run.started_at > now.saturating_sub(STALE).micros();
    let run = row.run.filter(|run| is_same && fresh(run)).unwrap_or_else(|| {
        let (until, since) = if is_same {
            (row.reconciled_until, account.created_at)
        } else {
            // Another account has taken the place of the one that was compared.
            (None, account.updated_at)
        };
        Comparison::begin(rules::period(until, since, now), now)
    });
    Ok(Leased { workspace, account, tokens, lease, run })
}

/// Compares some pages, and completes the comparison after the last one.
async fn compare(app: &Arc<App>, leased: &mut Leased) -> Result<Outcome, Stopped> {
    for _ in 0..PAGES_AT_ONCE {
        if app.sync.stopped_at().is_some() {
            break;
        }
        let page = next_page(app, leased).await?;
        one_page(app, leased, page.calls).await?;
        leased.run.pages += 1;
        let before =
            std::mem::replace(&mut leased.run.next_page, page.next_page_uri.filter(|next| !next.is_empty()));
        if leased.run.next_page.is_none() {
            return complete(app, leased).await;
        }
        if leased.run.next_page == before || leased.run.pages >= MOST_PAGES {
            return Err(Stopped::NoPage(NoPage::NotAList));
        }
        keep(app, leased).await?;
    }
    let (workspace, lease, now) = (leased.workspace.id, leased.lease, app.clock.now());
    app.db.write("twilio.leave", move |tx| store::leave(tx, workspace, lease, now)).await?;
    Ok(Outcome::Going)
}

async fn next_page(app: &Arc<App>, leased: &Leased) -> Result<CallPage, Stopped> {
    let (from, to) = (Timestamp::from_micros(leased.run.from), Timestamp::from_micros(leased.run.to));
    if let Some(place) = &leased.run.next_page {
        return ask(app, leased, PartOfList::Next(place)).await;
    }
    let (from, to) = (rules::day(from), rules::day_after(to));
    ask(app, leased, PartOfList::Started { from: &from, to: &to }).await
}

/// One request to Twilio, with the workspace's share of outbound calls.
async fn ask(app: &Arc<App>, leased: &Leased, part: PartOfList<'_>) -> Result<CallPage, Stopped> {
    let place = app.wire.place(&leased.workspace, app.clock.now()).await?;
    let outbound = app.wire.outbound();
    let account = TwilioAccount {
        api: &app.config.outbound.twilio_url,
        sid: &leased.account.account_sid,
        tokens: &leased.tokens,
    };
    let deadline = Instant::now() + outbound.limits().total_time;
    let page = account.calls(outbound, part, deadline).await.map_err(Stopped::NoPage);
    drop(place);
    page
}

/// Compares the calls of one page, and records those that are missing if the account's mode says so.
async fn one_page(app: &Arc<App>, leased: &mut Leased, listed: Vec<ListedCall>) -> Result<(), Stopped> {
    let now = app.clock.now();
    let period = (Timestamp::from_micros(leased.run.from), Timestamp::from_micros(leased.run.to));
    let (mut ended, mut unreadable) = (Vec::new(), Vec::new());
    for listed in &listed {
        match rules::meaning(listed, period, now) {
            Meaning::Other => {}
            Meaning::Open(start) => {
                let open = leased.run.open_since.map_or(start.micros(), |open| open.min(start.micros()));
                leased.run.open_since = Some(open);
            }
            Meaning::Ended(call) => ended.push(*call),
            Meaning::Unreadable(sid) => unreadable.push(sid),
        }
    }
    let count = u64::try_from(ended.len() + unreadable.len()).unwrap_or(u64::MAX);
    let lacking = entering::lacking(app, leased.workspace.id, ended).await?;
    let enters = leased.account.reconciliation == Mode::Enter;
    for (call, lack) in lacking {
        let sid = call.sid.clone();
        if !enters {
            note(&mut leased.run, &sid, lack);
            continue;
        }
        match enter(app, leased, call, lack).await {
            Ok(()) => {}
            // The rules of a report refuse the call. The comparison goes on without it.
            Err(Stopped::Failed(error)) if error.status() == http::StatusCode::UNPROCESSABLE_ENTITY => {
                note(&mut leased.run, &sid, lack);
                leased.run.unreadable += 1;
            }
            Err(stopped) => return Err(stopped),
        }
    }
    for sid in unreadable {
        note(&mut leased.run, &sid, Lack::Call);
        leased.run.unreadable += 1;
    }
    leased.run.listed += count;
    Ok(())
}

fn note(run: &mut Comparison, sid: &str, lack: Lack) {
    match lack {
        Lack::Call => run.missing += 1,
        Lack::End => run.unfinished += 1,
    }
    run.keep_sid(sid);
}

async fn enter(app: &Arc<App>, leased: &mut Leased, mut call: EndedCall, lack: Lack) -> Result<(), Stopped> {
    if call.needs_leg && lack == Lack::Call {
        // The called party of a softphone's call stands in the leg that Twilio dialled for it.
        let legs = ask(app, leased, PartOfList::LegsOf(&call.sid)).await?;
        if let Some(callee) = rules::dialled(&legs.calls) {
            call.report.callee = Some(callee);
        }
    }
    let now = app.clock.now();
    let under = Under {
        workspace: leased.workspace.id,
        lease: leased.lease,
        account_changed_at: leased.account.updated_at,
        until: now.saturating_add(LEASE),
        now,
    };
    let sid = leased.account.account_sid.clone();
    match entering::enter(app, under, sid, (call, lack), leased.run.clone()).await? {
        Entered::Done(run) => {
            leased.run = run;
            Ok(())
        }
        Entered::Lost => Err(Stopped::Lost),
    }
}

/// Stores the progress, and renews the lease.
async fn keep(app: &App, leased: &Leased) -> Result<(), Stopped> {
    let (workspace, lease) = (leased.workspace.id, leased.lease);
    let (run, sid) = (leased.run.clone(), leased.account.account_sid.clone());
    let until = app.clock.now().saturating_add(LEASE);
    let kept = app.db.write("twilio.keep", move |tx| store::keep(tx, workspace, lease, (&run, &sid), until));
    if kept.await? { Ok(()) } else { Err(Stopped::Lost) }
}

/// Stores the result, with an audit event if calls were missing.
async fn complete(app: &Arc<App>, leased: &mut Leased) -> Result<Outcome, Stopped> {
    let now = app.clock.now();
    let (workspace, lease) = (leased.workspace.id, leased.lease);
    let sid = leased.account.account_sid.clone();
    let mut done = leased.run.clone();
    done.finished_at = Some(now.micros());
    let next = (
        rules::next_period(Timestamp::from_micros(done.to), done.open_since),
        rules::next_night(workspace, now),
    );
    let stored = done.clone();
    let completed = app.db.write("twilio.complete", move |tx| {
        let context = Context::of_time(now);
        let write = &mut Write::begin(tx, workspace, Actor::NOBODY, &context)?;
        if !store::complete(write, lease, (&stored, &sid), next)? {
            return Ok(false);
        }
        if stored.missing + stored.unfinished > 0 {
            let what = json!({
                "missing": stored.missing,
                "unfinished": stored.unfinished,
                "entered": stored.entered,
                "ended": stored.ended,
                "unreadable": stored.unreadable,
                "from": Timestamp::from_micros(stored.from),
                "to": Timestamp::from_micros(stored.to),
            });
            write.record("twilio.calls_missing", ACCOUNT, what)?;
        }
        Ok::<_, ApiError>(true)
    });
    if !completed.await? {
        return Err(Stopped::Lost);
    }
    let Comparison { listed, missing, unfinished, entered, ended, .. } = done;
    if missing + unfinished > 0 {
        tracing::warn!(
            listed,
            missing,
            unfinished,
            entered,
            ended,
            "Twilio's list has calls that no callback reported, or whose end none reported; \
             GET /v1/{{workspace_id}}/twilio/reconciliation names them, and the page on calls says what to do"
        );
    }
    Ok(Outcome::Done)
}

/// Ends a lease after a failure, with a pause that grows.
async fn fail(
    app: &App,
    (workspace, lease): (WorkspaceId, Uuid),
    stopped: Stopped,
    run: &Comparison,
    attempts: i64,
) -> Outcome {
    let now = app.clock.now();
    let (why, asked, gives_up, anew) = match &stopped {
        Stopped::Lost => return Outcome::Elsewhere,
        Stopped::NoPage(NoPage::NotNow { why, after }) => (*why, *after, false, false),
        Stopped::NoPage(NoPage::Unauthorized) => ("unauthorized", None, true, false),
        // A reference to a page may have ended, and then only the first page helps.
        Stopped::NoPage(NoPage::Refused(_)) if run.next_page.is_some() => ("page_gone", None, false, true),
        Stopped::NoPage(NoPage::Refused(_)) => ("refused", None, true, true),
        Stopped::NoPage(NoPage::NotAList) => ("not_a_list", None, false, true),
        Stopped::NoPage(NoPage::Misconfigured(_)) => ("misconfigured", None, true, true),
        Stopped::Failed(error) => (error.code(), None, false, false),
    };
    let gives_up = gives_up || attempts >= ATTEMPTS;
    let doubled = PAUSE * 2_u32.saturating_pow(u32::try_from(attempts - 1).unwrap_or(0).min(6));
    let jitter = Duration::from_millis(backoff::random(now) % 10_000);
    let pause = doubled.max(asked.unwrap_or_default()).min(LONGEST_PAUSE) + jitter;
    let due_at = if gives_up { rules::next_night(workspace, now) } else { now.saturating_add(pause) };
    let cause = match &stopped {
        Stopped::Failed(error) => error.cause().map(ToString::to_string),
        Stopped::NoPage(NoPage::Misconfigured(why)) => Some(why.clone()),
        _ => None,
    };
    if gives_up {
        tracing::warn!(
            why,
            cause,
            attempts,
            "a workspace's calls cannot be compared with Twilio's list; the next night tries again. Check its auth token \
             and the way to Twilio's API"
        );
    } else {
        tracing::info!(why, cause, attempts, "a comparison with Twilio's list failed; will retry");
    }
    let stored = app.db.write("twilio.fail", move |tx| {
        let attempts = if gives_up { 0 } else { attempts };
        store::fail(tx, workspace, lease, &FailedAttempt { why, attempts, anew, due_at, now })
    });
    if let Err::<(), ward_db::Error>(error) = stored.await {
        tracing::error!(%error, "cannot store the failure of a comparison with Twilio's list; it is due when its lease ends");
    }
    Outcome::Failed(why)
}

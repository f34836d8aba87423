//! Writes on calls: reports, and the decisions that follow from them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use ward_contract::validate::{Json, Problem};
use ward_db::{Timestamp, Tx, Uuid};

use super::choosing::is_chosen;
use super::{
    CallRecord, CallerId, Decision, Direction, RealDirection, Report, Reporter, Status, TestRule, patients,
    store,
};
use crate::access::Permission;
use crate::app::App;
use crate::audit::{self, Actor, Subject, Write};
use crate::error::ApiError;
use crate::gate::{Entry, Held};
use crate::ids::{CallId, IntegrationId, WorkspaceId};
use crate::quotas::{self, Change as Count, Limits};
use crate::test_callers::{Former, TestParties};
use crate::workspaces::Workspace;
use crate::{deliveries, integrations, test_callers};

/// How long the delivery of a call that Twilio reported as ended waits for the runtime's report, with its
/// summary and patient.
const RUNTIMES_TURN: Duration = Duration::from_mins(2);

/// The reported field for which a delivery can wait.
const SUMMARY: &str = "summary";

/// The beginning of the year 1. FHIR has no earlier times (R4, datatype `dateTime`).
const EARLIEST: Timestamp = Timestamp::from_micros(-62_135_596_800_000_000);

/// A call, or the list of calls, as the subject of an audit event.
pub(super) const fn subject(id: Option<Uuid>) -> Subject<'static> {
    Subject { service: "calls", kind: "call", id, name: None }
}

pub struct Recorded {
    pub call: CallRecord,
    /// Whether the reporter may see the personal data of earlier reports.
    pub shows_people: bool,
}

/// Applies a report of the voice runtime. If its answer repeats data of earlier reports, the answer is a
/// read of the call, and recorded as one.
pub async fn report(app: &Arc<App>, entry: Entry, sid: String, report: Report) -> Result<Recorded, ApiError> {
    let usual = app.config.quotas;
    let vault = app.vault.clone();
    let report = move |write: &mut Write<'_, '_>, held: &Held| {
        let (context, workspace) = (write.context, &held.seen.workspace);
        let told_patient = !report.patient.is_empty();
        let is_late = told_patient && store::is_finished(write, workspace.id, &sid)? == Some(true);
        let (call, was_known) = record(write, (workspace, &usual), &sid, Reporter::Runtime, &report)?;
        if told_patient && patients::note(write, &vault, call.id, &report.patient, is_late)? {
            deliveries::matching::seek_again(write, call.id)?;
        }
        let may_see = || held.seen.reach.permissions.contains(Permission::CallView);
        // Where there is no room to record the reading, nothing is shown that would be one.
        let shows_people = !was_known || (may_see() && audit::has_room(write, workspace.id, context)?);
        if was_known && shows_people {
            write.record_phi_access("call.read", subject(Some(call.id.0)), json!({ "by": "report" }))?;
        }
        Ok(Recorded { call, shows_people })
    };
    let recorded = entry.write(app, "calls.report", report).await?;
    if recorded.call.sync == Some(Decision::Owed) {
        app.sync.wake();
    }
    Ok(recorded)
}

/// The bytes of a call that count as stored.
pub(super) fn stored(call: &CallRecord) -> usize {
    Value::from(call.details.clone()).to_string().len()
}

/// Records a report, in the order that the workspace's guard row gives. So a change of the list of test
/// callers comes wholly before a first report or wholly after it. It returns the call, and whether the call
/// was known before.
pub(crate) fn record(
    write: &mut Write<'_, '_>,
    (workspace, usual): (&Workspace, &Limits),
    sid: &str,
    reporter: Reporter,
    report: &Report,
) -> Result<(CallRecord, bool), ApiError> {
    let now = write.now();
    let Some(mut call) = store::by_sid(write, workspace.id, sid)? else {
        let mut call = begin(write, sid, reporter, report)?;
        let finished = call.status.is_final();
        let owes = if finished { decide(write, workspace, &mut call)? } else { None };
        let more = Count { calls: 1, ..Count::bytes(stored(&call)) };
        quotas::take(write, workspace.id, usual, more, now)?;
        store::insert(write, &call)?;
        write.record("call.create", subject(Some(call.id.0)), beginnings(&call))?;
        if finished {
            finish(write, &call, reporter, owes)?;
        }
        return Ok((call, false));
    };
    let before = call.clone();
    take(&mut call, report, reporter, now)?;
    let told_all = reporter == Reporter::Runtime && report.status.is_final();
    let has_summary = call.detail(SUMMARY).is_some();
    if call == before {
        if told_all {
            deliveries::make_due(write, call.id, has_summary, now)?;
        }
        return Ok((call, true));
    }
    call.updated_at = now.max(Timestamp::from_micros(before.updated_at.micros() + 1));
    let finished = call.status.is_final() && !before.status.is_final();
    let owes = if finished { decide(write, workspace, &mut call)? } else { None };
    // A known call is updated even beyond the quota, because its end must not be lost.
    let more = Count::bytes(stored(&call)).bytes - Count::bytes(stored(&before)).bytes;
    quotas::give_back(write, workspace.id, Count { bytes: more, ..Count::default() })?;
    store::update(write, &call)?;
    for missing in deliveries::Missing::ALL {
        let name = missing.detail();
        if before.detail(name).is_none() && call.detail(name).is_some() {
            deliveries::now_known(write, call.id, missing, now)?;
        }
    }
    if finished {
        finish(write, &call, reporter, owes)?;
    } else if told_all {
        deliveries::make_due(write, call.id, has_summary, now)?;
    }
    Ok((call, true))
}

/// Applies a report, unless it contradicts the period that earlier reports gave (422).
fn take(call: &mut CallRecord, report: &Report, reporter: Reporter, now: Timestamp) -> Result<(), ApiError> {
    call.take(report, now);
    if call.started_at < EARLIEST {
        let loc = vec!["body".into(), "ended_at".into()];
        let given = report.ended_at.map_or(Json::Null, |end| Json::String(end.to_string()));
        let message = "The call would start before the year 1";
        return Err(ApiError::invalid(vec![Problem::value_error(loc, message, given)]));
    }
    if !call.ends_before_start() {
        return Ok(());
    }
    match (report.started_at, report.ended_at, reporter) {
        // One reporter gives both times: they come from one clock, so they replace earlier times together.
        (Some(started_at), Some(ended_at), _) => {
            (call.started_at, call.ended_at) = (started_at, Some(ended_at));
        }
        // Twilio cannot correct its report, and its end is exact to the second only. So the runtime's start
        // is kept.
        (_, _, Reporter::Twilio | Reporter::TwilioList) => {
            let length = Duration::from_millis(call.duration_ms.unwrap_or(0).unsigned_abs());
            call.ended_at = Some(call.started_at.saturating_add(length));
        }
        (_, ended_at, Reporter::Runtime) => {
            let (field, time) = match ended_at {
                Some(ended_at) => ("ended_at", ended_at),
                None => ("started_at", call.started_at),
            };
            let loc = vec!["body".into(), field.into()];
            let message = "Together with earlier reports, the call would end before it started";
            return Err(ApiError::invalid(vec![Problem::value_error(
                loc,
                message,
                Json::String(time.to_string()),
            )]));
        }
    }
    Ok(())
}

/// Creates the call of a first report, and decides its direction.
fn begin(
    write: &mut Write<'_, '_>,
    sid: &str,
    reporter: Reporter,
    report: &Report,
) -> Result<CallRecord, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let (Some(caller), Some(reported_direction)) = (&report.caller, report.direction) else {
        let caller = match reporter {
            Reporter::Runtime => "caller_id",
            Reporter::Twilio | Reporter::TwilioList => "From",
        };
        let missing = [(caller, report.caller.is_none()), ("direction", report.direction.is_none())];
        let missing = missing.into_iter().filter(|(_, missing)| *missing);
        return Err(ApiError::invalid(missing.map(|(field, _)| first_report_needs(field)).collect()));
    };
    let leg = if caller.is_softphone() { store::take_leg(write, sid)? } else { None };
    let leg = leg.map(CallerId::Number);
    let callee = report.callee.as_ref();
    // The other party of a softphone's call is the one that was dialled.
    let callee = if callee.and_then(CallerId::number).is_some() { callee } else { leg.as_ref().or(callee) };
    let numbers = (caller.number(), callee.and_then(CallerId::number));
    let made_with = [write.actor.credential, report.credential];
    let mut listed = test_callers::parties(write, workspace, numbers.0, numbers.1, made_with)?;
    if let (Reporter::TwilioList, Some(since)) = (reporter, report.started_at) {
        listed = listed_since(write, listed, numbers, since)?;
    }
    let test_rule = TestRule::of(listed);
    let mut details = Map::new();
    if let Some(callee) = callee.and_then(CallerId::text) {
        details.insert("phone_number".to_owned(), callee.into());
    }
    let mut call = CallRecord {
        id: CallId::at(now),
        call_sid: sid.to_owned(),
        direction: Direction::decided(reported_direction, test_rule),
        reported_direction,
        test_rule,
        reported_by: reporter.name().to_owned(),
        caller: caller.text().map(str::to_owned),
        caller_form: caller.form().to_owned(),
        list_version: listed.version,
        status: Status::Unknown,
        completion_reason: None,
        duration_ms: None,
        started_at: now,
        started_told: false,
        ended_at: None,
        service_id: None,
        details,
        sync: None,
        sync_connector: None,
        first_reported_at: now,
        updated_at: now,
    };
    take(&mut call, report, reporter, now)?;
    Ok(call)
}

/// The entries of a call in every version of the list of test callers since it started. A call from Twilio's list is recorded
/// hours later, and a tester may have left the list meanwhile.
fn listed_since(
    write: &mut Write<'_, '_>,
    now: TestParties,
    numbers: (Option<&str>, Option<&str>),
    since: Timestamp,
) -> Result<TestParties, ApiError> {
    if now.caller || now.callee {
        return Ok(now);
    }
    let workspace = write.row();
    match test_callers::parties_since(write, workspace, numbers, since)? {
        Former::Listed(listed) => Ok(TestParties { credential: now.credential, ..listed }),
        Former::NotListed => Ok(now),
        Former::TooMany => Err(ApiError::unprocessable(
            "too_many_lists",
            "The list of test callers has changed too often since the call, so Ward cannot tell whether it was a test.",
        )),
    }
}

/// Notes the number that Twilio dialled on behalf of a call. It is the called party of a softphone's call, whose own report
/// names none. A call that is known takes it until it has finished; otherwise the call's first report takes it. Any other
/// call has its parties already.
pub(crate) fn record_leg(write: &mut Write<'_, '_>, parent: &str, callee: &str) -> Result<(), ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let Some(mut call) = store::by_sid(write, workspace, parent)? else {
        return Ok(store::put_leg(write, parent, callee, now)?);
    };
    let caller = CallerId::from_network(call.caller.as_deref()).ok();
    let known = call.detail("phone_number").and_then(|text| CallerId::from_network(Some(text)).ok());
    let lacks_callee = known.as_ref().and_then(CallerId::number).is_none();
    if !caller.is_some_and(|caller| caller.is_softphone()) || !lacks_callee || call.status.is_final() {
        return Ok(());
    }
    let listed = test_callers::parties(write, workspace, None, Some(callee), [None, None])?;
    call.details.insert("phone_number".to_owned(), callee.into());
    // The caller has no number, so this version of the list alone decides.
    call.list_version = listed.version;
    if let (None, Some(rule)) = (call.test_rule, TestRule::of(listed)) {
        call.test_rule = Some(rule);
        call.direction = Direction::decided(call.direction, Some(rule));
    }
    call.updated_at = now.max(Timestamp::from_micros(call.updated_at.micros() + 1));
    store::set_callee(write, &call)?;
    write.record("call.leg", subject(Some(call.id.0)), beginnings(&call))
}

fn first_report_needs(field: &'static str) -> Problem {
    Problem {
        kind: "missing",
        loc: vec!["body".into(), field.into()],
        msg: "Field required in the first report of a call".to_owned(),
        input: Json::Null,
        ctx: None,
    }
}

/// The details of the audit event of a new call: how its direction was decided, without any number.
fn beginnings(call: &CallRecord) -> Value {
    json!({
        "direction": call.direction.name(),
        "reported_direction": call.reported_direction.name(),
        "caller_form": call.caller_form,
        "test_rule": call.test_rule.map(TestRule::name),
        "list_version": call.list_version,
    })
}

/// The delivery that a finished call owes.
#[derive(Clone, Copy)]
struct Owes {
    direction: RealDirection,
    integration: IntegrationId,
    /// How long it waits for the call's summary.
    summary_wait: Duration,
}

/// Decides what the finished call owes, and to which integration.
fn decide(tx: &mut Tx<'_>, workspace: &Workspace, call: &mut CallRecord) -> Result<Option<Owes>, ApiError> {
    call.sync_connector.clone_from(&workspace.connector_type);
    let (decision, owes) = match (call.direction.real(), &workspace.connector_type) {
        (None, _) => (Decision::Excluded, None),
        (Some(_), None) => (Decision::NoConnector, None),
        (Some(direction), Some(connector)) => match integrations::receiver(tx, workspace.id, connector)? {
            None => (Decision::NotProvisioned, None),
            Some(receiver) => {
                let summary_wait = receiver.delivery.summary_wait();
                let choice = receiver.delivery.calls.unwrap_or_default();
                if is_chosen(call, direction, &choice) {
                    (Decision::Owed, Some(Owes { direction, integration: receiver.id, summary_wait }))
                } else {
                    (Decision::NotChosen, None)
                }
            }
        },
    };
    call.sync = Some(decision);
    Ok(owes)
}

/// Decides again about a finished call that owed nothing because no integration was there for it, and queues the delivery
/// that it owes now. Returns whether there is one.
pub(super) fn owe_late(
    write: &mut Write<'_, '_>,
    workspace: &Workspace,
    id: CallId,
) -> Result<bool, ApiError> {
    let now = write.now();
    let Some(mut call) = store::by_id(write, workspace.id, id)? else { return Ok(false) };
    if !matches!(call.sync, Some(Decision::NoConnector | Decision::NotProvisioned)) {
        return Ok(false);
    }
    let Some(Owes { direction, integration, .. }) = decide(write, workspace, &mut call)? else {
        return Ok(false);
    };
    call.updated_at = now.max(Timestamp::from_micros(call.updated_at.micros() + 1));
    store::update(write, &call)?;
    deliveries::enqueue(write, integration, call.id, direction, (now, now))?;
    Ok(true)
}

/// Records the end of a call, and queues the delivery that it owes.
fn finish(
    write: &mut Write<'_, '_>,
    call: &CallRecord,
    reporter: Reporter,
    owes: Option<Owes>,
) -> Result<(), ApiError> {
    let now = write.now();
    if let Some(Owes { direction, integration, summary_wait }) = owes {
        let turn = match reporter {
            // A call from the list ended long ago.
            Reporter::Runtime | Reporter::TwilioList => Duration::ZERO,
            Reporter::Twilio => RUNTIMES_TURN,
        };
        let wait = if call.detail(SUMMARY).is_some() { turn } else { turn.max(summary_wait) };
        let due_at = now.saturating_add(wait);
        deliveries::enqueue(write, integration, call.id, direction, (now, due_at))?;
    }
    let what = json!({
        "direction": call.direction.name(),
        "status": call.status.name(),
        "sync": call.sync.map(Decision::name),
        "connector": call.sync_connector,
    });
    write.record("call.finish", subject(Some(call.id.0)), what)
}

/// Records that calls were read, including numbers. It runs before the answer is sent; if it fails, there
/// is no answer.
pub async fn note_read(
    app: &App,
    entry: &Entry,
    workspace: WorkspaceId,
    one: Option<CallId>,
    what: Value,
) -> Result<(), ApiError> {
    let (context, actor) = (entry.context.clone(), Actor::of(&entry.caller));
    app.db
        .write("calls.note_read", move |tx| {
            let action = if one.is_some() { "call.read" } else { "call.list" };
            let about = subject(one.map(|id| id.0));
            let event = about.event((workspace, &context), actor.clone(), action, what.clone());
            audit::record_phi_access(tx, event)
        })
        .await
}

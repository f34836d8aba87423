//! The JSON routes of calls.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;
use ward_contract::RuleProblem;
use ward_contract::validate::{Json, Problem};
use ward_db::Timestamp;

use super::actions::Recorded;
use super::backfill::{self, BackfillRequest, Part};
use super::correcting::{self, AmendDeliveryRequest, CorrectCallRequest, Correction};
use super::patients::{self, Facts};
use super::resolving::{self, ResolveReviewRequest};
use super::store::{self, CallFilter};
use super::{CallRecord, CallerId, Decision, Report, TestRule, actions, amending, is_sid, told};
use crate::deliveries;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Query, Reply, Request, Sent};
use crate::ids::{CallId, CredentialId, DeliveryId, IntegrationId, WorkspaceId};
use crate::phone;
use crate::scan::{self, ScanResult, Window};

/// Totals are exact up to this number; beyond it, they are this number.
const TOTAL_LIMIT: i64 = 10_000;
/// Fields of a report that no filter uses, and that are kept as they are.
const DETAILS: [&str; 4] = ["turns", "has_recording", "quality_score", "fork_turn_index"];

/// Those of them that count turns. A negative number or one beyond [`MOST_TURNS`] is a mistake.
const COUNTS: [&str; 2] = ["turns", "fork_turn_index"];

/// More turns than any call can have: more than one a second for ten days.
const MOST_TURNS: f64 = 1_000_000.0;

/// The longest duration that a call can have, in seconds: ten days. Twilio ends calls much earlier.
const LONGEST_CALL: f64 = 864_000.0;

/// Known reasons for the end of a call. Other reasons are kept as well, and counted.
const COMPLETION_REASONS: [&str; 14] = [
    "completed",
    "abandoned",
    "escalated",
    "transferred",
    "timeout",
    "error",
    "voicemail",
    "no_answer",
    "caller_hangup",
    "forwarded",
    "terminal_state",
    "warm_transfer_completed",
    "no_inbound_audio",
    "cancelled",
];

/// The value rule of a party: `caller_id` and `phone_number`.
pub fn party_rule(value: &Value) -> Vec<RuleProblem> {
    match value.as_str().map(|text| CallerId::read(Some(text))) {
        Some(Err(problem)) => vec![RuleProblem::here(problem.to_string())],
        _ => Vec::new(),
    }
}

/// The value rule of a whole report: the call must not end before it starts.
pub fn period_rule(value: &Value) -> Vec<RuleProblem> {
    // The validator has normalized both texts to UTC and one length, so they sort like their times.
    let time = |name: &str| value.get(name).and_then(Value::as_str);
    match (time("started_at"), time("ended_at")) {
        (Some(started_at), Some(ended_at)) if ended_at < started_at => vec![RuleProblem {
            at: vec!["ended_at".into()],
            message: "The call would end before it started".to_owned(),
        }],
        _ => Vec::new(),
    }
}

#[derive(Serialize)]
struct CallSummary {
    entity_id: CallId,
    call_sid: String,
    caller_id: Option<String>,
    phone_number: Value,
    direction: &'static str,
    status: &'static str,
    completion_reason: Option<String>,
    duration_seconds: Option<f64>,
    started_at: Timestamp,
    turns: Value,
    has_recording: Value,
    service_id: Option<String>,
    escalation_status: Value,
    final_state: Value,
    quality_score: Value,
    source: &'static str,
    run_id: Value,
    parent_session_id: Value,
    fork_turn_index: Value,
}

impl From<&CallRecord> for CallSummary {
    fn from(call: &CallRecord) -> Self {
        let detail = |name: &str| call.details.get(name).cloned().unwrap_or(Value::Null);
        Self {
            entity_id: call.id,
            call_sid: call.call_sid.clone(),
            caller_id: call.caller.clone(),
            phone_number: detail("phone_number"),
            direction: call.direction.name(),
            status: call.status.name(),
            completion_reason: call.completion_reason.clone(),
            duration_seconds: call.duration_ms.map(seconds),
            started_at: call.started_at,
            turns: detail("turns"),
            has_recording: detail("has_recording"),
            service_id: call.service_id.clone(),
            escalation_status: detail("escalation_status"),
            final_state: detail("final_state"),
            quality_score: detail("quality_score"),
            source: call.direction.source(),
            run_id: detail("run_id"),
            parent_session_id: detail("parent_session_id"),
            fork_turn_index: detail("fork_turn_index"),
        }
    }
}

/// The fields of the platform's call detail under its own names. Ward keeps no transcript and no
/// participants, so those lists are empty.
#[derive(Serialize)]
struct PlatformDetail {
    id: CallId,
    workspace_id: WorkspaceId,
    call_start_time: Timestamp,
    call_end_time: Option<Timestamp>,
    call_duration_seconds: f64,
    states_visited: [String; 0],
    triggered_behaviors: [String; 0],
    participants: [Value; 0],
    barge_in_events: [Value; 0],
    human_segments: [Value; 0],
}

impl PlatformDetail {
    fn of(workspace_id: WorkspaceId, call: &CallRecord) -> Self {
        Self {
            id: call.id,
            workspace_id,
            call_start_time: call.started_at,
            call_end_time: call.ended_at,
            call_duration_seconds: call.duration_ms.map_or(0.0, seconds),
            states_visited: [],
            triggered_behaviors: [],
            participants: [],
            barge_in_events: [],
            human_segments: [],
        }
    }
}

#[derive(Serialize)]
struct CallDetail {
    #[serde(flatten)]
    summary_fields: CallSummary,
    #[serde(flatten)]
    platform: PlatformDetail,
    turn_count: Value,
    status_detail: Value,
    reported_direction: &'static str,
    reported_by: String,
    caller_form: String,
    test_caller_list_version: i64,
    test: Option<CallTest>,
    sync: CallSync,
    ended_at: Option<Timestamp>,
    patient_id: Value,
    encounter_id: Value,
    summary: Value,
    first_reported_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Value::is_null")]
    found_by: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient_birth_date: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient_phone: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    corrections: Vec<Correction>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adjusted_fields: Vec<&'static str>,
}

#[derive(Serialize)]
struct CallTest {
    rule: &'static str,
    list_version: i64,
    explanation: String,
}

#[derive(Serialize)]
struct CallSync {
    decision: Option<&'static str>,
    explanation: &'static str,
    connector: Option<String>,
    integration_id: Option<IntegrationId>,
    delivery_id: Option<DeliveryId>,
    state: Option<&'static str>,
    not_sent: Option<String>,
}

impl CallDetail {
    fn of(workspace: WorkspaceId, call: &CallRecord, owed: Option<&deliveries::Owed>) -> Self {
        let detail = |name: &str| call.details.get(name).cloned().unwrap_or(Value::Null);
        let mut summary_fields = CallSummary::from(call);
        let turn_count = std::mem::replace(&mut summary_fields.turns, json!([]));
        if summary_fields.has_recording.is_null() {
            summary_fields.has_recording = Value::Bool(false);
        }
        Self {
            summary_fields,
            platform: PlatformDetail::of(workspace, call),
            turn_count,
            status_detail: detail("status_detail"),
            reported_direction: call.reported_direction.name(),
            reported_by: call.reported_by.clone(),
            caller_form: call.caller_form.clone(),
            test_caller_list_version: call.list_version,
            test: call.test_rule.map(|rule| CallTest {
                rule: rule.name(),
                list_version: call.list_version,
                explanation: explanation(rule, call.list_version),
            }),
            sync: CallSync::of(call, owed),
            ended_at: call.ended_at,
            patient_id: detail("patient_id"),
            encounter_id: detail("encounter_id"),
            summary: detail("summary"),
            found_by: detail("found_by"),
            first_reported_at: call.first_reported_at,
            updated_at: call.updated_at,
            patient_birth_date: None,
            patient_phone: None,
            corrections: Vec::new(),
            adjusted_fields: Vec::new(),
        }
    }
}

/// The reason why a call is a test, as a sentence.
fn explanation(rule: TestRule, version: i64) -> String {
    let party = match rule {
        TestRule::Caller => "The caller",
        TestRule::Callee => "The called number",
        TestRule::Credential => {
            return "The call was made with a key on the workspace's list of test credentials.".to_owned();
        }
    };
    format!(
        "{party} was on version {version} of the workspace's list of test callers when the call was first reported."
    )
}

impl CallSync {
    fn of(call: &CallRecord, owed: Option<&deliveries::Owed>) -> Self {
        let explanation = match (call.sync, call.direction.real()) {
            (None, Some(_)) => "The call has not finished; its end decides whether it is owed to the EHR.",
            (None, None) => "The call is not real: it will not be sent to the EHR.",
            (Some(Decision::Owed), _) => "The call is owed to the EHR.",
            (Some(Decision::Excluded), _) => {
                "The call is not real: nothing is owed to the EHR, and nothing was sent."
            }
            (Some(Decision::NoConnector), _) => "The workspace has no connector: nothing is owed.",
            (Some(Decision::NotProvisioned), _) => {
                "The connector's integration was not provisioned when the call finished: nothing is owed."
            }
            (Some(Decision::NotChosen), _) => {
                "The integration's `delivery.calls` left this call out when it finished: nothing is owed."
            }
        };
        let not_sent = (call.sync == Some(Decision::Excluded))
            .then(|| call.sync_connector.as_deref().and_then(deliveries::resource_of))
            .flatten();
        Self {
            decision: call.sync.map(Decision::name),
            explanation,
            connector: call.sync_connector.clone(),
            integration_id: owed.map(|owed| owed.integration),
            delivery_id: owed.map(|owed| owed.delivery),
            state: owed.map(|owed| owed.state.name()),
            not_sent: not_sent.map(str::to_owned),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a call's milliseconds are far below 2^53")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1_000.0
}

#[expect(clippy::cast_possible_truncation, reason = "the contract bounds it to ten days")]
fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1_000.0).round() as i64
}

#[derive(Serialize)]
struct CallListResponse {
    items: Vec<CallSummary>,
    total: i64,
    has_more: bool,
    continuation_token: Option<i64>,
}

#[derive(Deserialize)]
struct ListQuery {
    date_from: Option<String>,
    date_to: Option<String>,
    status: Option<String>,
    direction: Option<String>,
    min_duration: Option<i64>,
    max_duration: Option<i64>,
    service_id: Option<String>,
    include_simulated: bool,
    include_test: bool,
    limit: i64,
    offset: i64,
    continuation_token: Option<i64>,
}

/// The start of a day that the validator has accepted and normalized.
fn midnight(day: &str) -> Result<Timestamp, ApiError> {
    format!("{day}T00:00:00.000000Z").parse().map_err(|_| ApiError::internal("a day that was not normalized"))
}

pub async fn list(request: Request, (entry, sent): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let query: ListQuery = sent.read()?;
    let day = std::time::Duration::from_hours(24);
    let filter = CallFilter {
        from: query.date_from.as_deref().map(midnight).transpose()?,
        before: query.date_to.as_deref().map(midnight).transpose()?.map(|last| last.saturating_add(day)),
        status: query.status,
        direction: query.direction,
        simulated: query.include_simulated,
        test: query.include_test,
        shortest_ms: query.min_duration.map(|seconds| seconds.saturating_mul(1_000)),
        longest_ms: query.max_duration.map(|seconds| seconds.saturating_mul(1_000)),
        service: query.service_id,
    };
    let limit = query.limit;
    let offset = query.continuation_token.unwrap_or(query.offset).max(0);
    let list = store::Calls { workspace, filter };
    let wanted = Window { limit: limit + 1, offset, counted: TOTAL_LIMIT };
    let ScanResult { rows: calls, total } =
        scan::read(&request.app, workspace, "calls.list", list, None, wanted).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = calls.len() > most;
    let items: Vec<CallSummary> = calls.iter().take(most).map(CallSummary::from).collect();
    actions::note_read(
        &request.app,
        &entry,
        workspace,
        None,
        json!({ "calls": items.len(), "offset": offset }),
    )
    .await?;
    let continuation_token = has_more.then_some(offset + limit);
    Reply::ok(&CallListResponse { items, total, has_more, continuation_token })
}

pub async fn get(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    // A text that is not a sid gets the answer for an unknown sid.
    let sid = Some(request.parameter("call_sid")).filter(|sid| is_sid(sid)).unwrap_or_default().to_owned();
    let vault = request.app.vault.clone();
    let found = request.app.db.read("calls.get", move |tx| {
        let Some((found, owed)) = detail(tx, workspace, &sid)? else { return Ok::<_, ward_db::Error>(None) };
        let corrections = correcting::read(tx, &vault, workspace, found.id)?;
        let (facts, _) = patients::of(tx, &vault, workspace, found.id)?;
        Ok(Some((found, owed, corrections, facts)))
    });
    let missing = ApiError::missing("call_not_found", "Call not found.");
    let (found, owed, corrections, facts) = found.await?.ok_or(missing)?;
    actions::note_read(&request.app, &entry, workspace, Some(found.id), json!({})).await?;
    let Facts { birth_date: patient_birth_date, phone: patient_phone } = facts;
    let shown = CallDetail::of(workspace, &found, owed.as_ref());
    Reply::ok(&CallDetail { patient_birth_date, patient_phone, corrections, ..shown })
}

fn detail(
    tx: &mut ward_db::Tx<'_>,
    workspace: WorkspaceId,
    sid: &str,
) -> Result<Option<(CallRecord, Option<deliveries::Owed>)>, ward_db::Error> {
    let Some(found) = store::by_sid(tx, workspace, sid)? else { return Ok(None) };
    let owed = deliveries::owed_for(tx, workspace, found.id)?;
    Ok(Some((found, owed)))
}

pub async fn report(
    request: Request,
    (entry, sent): (Entry, Sent<Map<String, Value>>),
) -> Result<Reply, ApiError> {
    let sid = request.parameter_as_sent("call_sid").to_owned();
    if !is_sid(&sid) {
        let loc = vec!["path".into(), "call_sid".into()];
        let message = "A call's sid has 1 to 128 letters, digits, `_`, `.` and `-`, at least one of them a digit or a \
                       capital letter";
        return Err(ApiError::invalid(vec![Problem::value_error(loc, message, Json::String(sid))]));
    }
    let workspace = entry.workspace()?.id;
    let (report, adjusted_fields) = read_report(&sent.value)?;
    let Recorded { call: mut recorded, shows_people } =
        actions::report(&request.app, entry, sid, report).await?;
    if !shows_people {
        recorded.hide_people();
    }
    let id = recorded.id;
    let owed = match recorded.sync {
        Some(Decision::Owed) => {
            request.app.db.read("calls.owed", move |tx| deliveries::owed_for(tx, workspace, id)).await?
        }
        _ => None,
    };
    Reply::ok(&CallDetail { adjusted_fields, ..CallDetail::of(workspace, &recorded, owed.as_ref()) })
}

/// `correct-call`: changes patient, encounter and summary of a call that the EHR does not have yet.
pub async fn correct(
    request: Request,
    (entry, sent): (Entry, Sent<CorrectCallRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    // A text that is not a sid gets the answer for an unknown sid.
    let sid = Some(request.parameter("call_sid")).filter(|sid| is_sid(sid)).unwrap_or_default().to_owned();
    correcting::correct(&request.app, entry, sid, sent.value.fields(), repeat).await
}

/// `amend-delivery`: changes a call that the EHR has, and its record there.
pub async fn amend(
    request: Request,
    (entry, sent): (Entry, Sent<AmendDeliveryRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    // A text that is not an id gets the answer for an unknown id.
    let id = DeliveryId(Uuid::try_parse(request.parameter("delivery_id")).unwrap_or(Uuid::nil()));
    amending::amend(&request.app, entry, id, sent.value.fields(), repeat).await
}

/// `resolve-review`: stores a person's decision about the patient or the encounter of a held delivery.
pub async fn resolve_review(
    request: Request,
    (entry, sent): (Entry, Sent<ResolveReviewRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    // A text that is not an id gets the answer for an unknown id.
    let id = DeliveryId(Uuid::try_parse(request.parameter("delivery_id")).unwrap_or(Uuid::nil()));
    resolving::resolve(&request.app, entry, id, sent.value, repeat).await
}

/// `backfill-deliveries`: queues the deliveries of calls that finished before there was an integration for them.
pub async fn backfill(
    request: Request,
    (entry, sent): (Entry, Sent<BackfillRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    let part = Part::of(&sent.value)?;
    backfill::backfill(&request.app, entry, part, repeat).await
}

/// The texts of a report as far as they are kept, and the fields whose value was changed for that.
struct Texts<'b> {
    body: &'b Map<String, Value>,
    adjusted: Vec<&'static str>,
}

impl<'b> Texts<'b> {
    fn sent(&self, name: &str) -> Option<&'b str> {
        self.body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The text of a field as `keep` leaves it. A field that this changes is noted.
    fn kept(&mut self, name: &'static str, keep: impl Fn(&str) -> String) -> Option<String> {
        let sent = self.sent(name)?;
        let kept = keep(sent);
        if kept != sent {
            self.adjusted.push(name);
        }
        Some(kept).filter(|kept| !kept.is_empty())
    }

    fn word(&mut self, name: &'static str) -> Option<String> {
        self.kept(name, |sent| told::kept_word(sent, told::LONGEST_WORD))
    }

    /// An id that is valid by `is_id`. A part of an id would name another thing, so an invalid id is not
    /// kept at all.
    fn id(&mut self, name: &'static str, is_id: impl Fn(&str) -> bool) -> Option<String> {
        let id = self.kept(name, |sent| if is_id(sent) { sent.to_owned() } else { String::new() });
        if self.adjusted.last() == Some(&name) {
            super::count_unknown(name);
        }
        id
    }
}

/// Converts a validated body into a report, and names the fields that were not kept as sent.
fn read_report(body: &Map<String, Value>) -> Result<(Report, Vec<&'static str>), ApiError> {
    let unread = || ApiError::internal("a report that the contract should have refused");
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let time = |name: &str| text(name).map(str::parse).transpose().map_err(|_| unread());
    let party = |name: &str| {
        body.get(name).map(|given| CallerId::read(given.as_str())).transpose().map_err(|_| unread())
    };
    let mut texts = Texts { body, adjusted: Vec::new() };
    let is_short = |id: &str| told::kept_word(id, told::LONGEST_WORD) == id;
    let mut details = Map::new();
    for name in DETAILS {
        match body.get(name).filter(|value| !value.is_null()) {
            Some(number)
                if COUNTS.contains(&name)
                    && number.as_f64().is_some_and(|number| !(0.0..=MOST_TURNS).contains(&number)) =>
            {
                texts.adjusted.push(name);
            }
            Some(value) => drop(details.insert(name.to_owned(), value.clone())),
            None => {}
        }
    }
    for (name, kept) in [
        ("escalation_status", texts.word("escalation_status")),
        ("final_state", texts.word("final_state")),
        ("run_id", texts.id("run_id", is_short)),
        ("parent_session_id", texts.id("parent_session_id", is_short)),
        ("patient_id", texts.id("patient_id", told::is_fhir_id)),
        ("encounter_id", texts.id("encounter_id", told::is_fhir_id)),
        ("summary", texts.kept("summary", told::kept_summary)),
    ] {
        details.extend(kept.map(|kept| (name.to_owned(), kept.into())));
    }
    // An unusable fact must not cost a finished call, and a part of one could name another person.
    let fact = |known: Option<String>| known.unwrap_or_default();
    let patient = Facts {
        birth_date: texts.kept("patient_birth_date", |sent| fact(patients::birth_date(sent))),
        phone: texts.kept("patient_phone", |sent| fact(phone::normalize(sent).ok())),
    };
    let completion_reason = texts.word("completion_reason");
    let reason = completion_reason.as_deref();
    if reason.is_some_and(|reason| !COMPLETION_REASONS.contains(&reason)) {
        super::count_unknown("completion_reason");
    }
    let ended_at = time("ended_at")?;
    let (status, is_known) =
        told::status_of(texts.sent("status").ok_or_else(unread)?, reason, ended_at.is_some());
    if !is_known {
        super::count_unknown("status");
        let kept = texts.kept("status", |sent| told::kept_word(sent, told::LONGEST_STATUS));
        details.extend(kept.map(|kept| ("status_detail".to_owned(), kept.into())));
    }
    // Even an empty text is a direction that Ward does not know, so that a finished call is kept.
    let direction = text("direction").map(told::direction);
    if direction.is_some_and(|(_, is_known)| !is_known) {
        texts.adjusted.push("direction");
    }
    let sent = body.get("duration_seconds").and_then(Value::as_f64);
    let duration = sent.filter(|seconds| (0.0..=LONGEST_CALL).contains(seconds));
    if duration != sent {
        texts.adjusted.push("duration_seconds");
    }
    let report = Report {
        status,
        caller: party("caller_id")?,
        callee: party("phone_number")?,
        credential: text("credential_id")
            .map(|id| Uuid::try_parse(id).map(CredentialId))
            .transpose()
            .map_err(|_| unread())?,
        direction: direction.map(|(direction, _)| direction),
        completion_reason,
        duration_ms: duration.map(milliseconds),
        started_at: time("started_at")?,
        ended_at,
        service_id: texts.id("service_id", is_short),
        patient,
        details,
    };
    Ok((report, texts.adjusted))
}

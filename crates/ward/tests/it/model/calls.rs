//! The model of calls, of the deliveries that they owe, and of the audit's events.

use reqwest::Method;
use serde_json::{Value, json};

use super::quotas;
use super::rules::{Good, No, Outcome, Request, choose};
use super::steps::{Page, Report, Step, Thing};
use super::tenancy::{CONNECTORS, built_in, changed, number};
use super::world::{
    Call, Delivery, Event, Lane, NOBODY, World, call_id, delivery_id, entity_id, integration_id, workspace_id,
};

const NO_CALL: No = No::Because(404, "call_not_found");
const NO_DELIVERY: No = No::Because(404, "delivery_not_found");

fn send(method: Method, path: String, body: Option<Value>) -> Request {
    Request { method, path, body }
}

fn path(world: &World, step: &Step, rest: &str) -> String {
    format!("/v1/{}/{rest}", world.path_id(step))
}

/// The progress of a call with this status; 4 is its end.
fn rank(status: &str) -> usize {
    ["unknown", "initiated", "ringing", "in-progress"].iter().position(|it| *it == status).unwrap_or(4)
}

fn status_of(report: &Report) -> &'static str {
    match report.status {
        "queued" => "initiated",
        "wrapping-up" if report.reason.is_some() => "completed",
        "wrapping-up" => "unknown",
        known => known,
    }
}

/// A party of the call, as sent and as understood: absent, invalid, or a text with its form.
enum Party {
    Nothing,
    Wrong(&'static str),
    Caller(Value, Option<String>, &'static str),
}

fn said(world: &World, at: usize, choice: u8) -> Party {
    let caller = |sent: &str, kept: &str, form| Party::Caller(json!(sent), Some(kept.to_owned()), form);
    match choice {
        0..=19 => Party::Nothing,
        20..=39 => Party::Caller(Value::Null, None, "withheld"),
        40..=49 => Party::Caller(json!("Anonymous"), None, "withheld"),
        50..=64 => caller("40400", "40400", "other"),
        65..=79 => {
            let uri = format!("sip:desk@pbx-w{at:03}.example");
            caller(&uri, &uri, "uri")
        }
        80..=89 => Party::Wrong("bob"),
        choice => {
            let listed = world.workspaces.get(at).map(|it| it.test_callers.as_slice()).unwrap_or_default();
            if let Some(number) = listed.first().filter(|_| choice < 150) {
                return caller(&format!("tel:{number}"), number, "number");
            }
            let (number, written) = number(at, choice);
            caller(&written, &number, "number")
        }
    }
}

fn summary(at: usize, it: &Call, people: bool) -> Value {
    let source = if matches!(it.direction, "playground" | "simulated") { "simulated" } else { "real" };
    json!({
        "entity_id": call_id(at), "call_sid": it.sid, "caller_id": it.caller.as_ref().filter(|_| people),
        "phone_number": it.callee.as_ref().filter(|_| people), "direction": it.direction, "status": it.status, "completion_reason": it.reason,
        "duration_seconds": it.duration.map(|hours| f64::from(hours) * 3600.0),
        "started_at": it.start, "source": source, "...": 0,
    })
}

fn detail(at: usize, it: &Call, owed: Option<(usize, &Delivery)>, people: bool) -> Value {
    let mut shown = summary(at, it, people);
    let not_sent = it.connector.filter(|_| it.decision == Some("excluded")).and_then(|connector| {
        CONNECTORS.into_iter().find(|known| known.0 == connector).and_then(|known| known.3)
    });
    let test = json!({ "rule": it.rule, "list_version": it.list_version, "explanation": "*" });
    let more = json!({
        "id": call_id(at), "workspace_id": workspace_id(it.workspace), "turns": [], "turn_count": null,
        "status_detail": it.detail, "call_start_time": it.start, "call_end_time": null,
        "reported_direction": it.reported_direction, "reported_by": "runtime", "caller_form": it.form,
        "test_caller_list_version": it.list_version,
        "test": if it.direction == "test" { test } else { Value::Null },
        "sync": {
            "decision": it.decision, "explanation": "*", "connector": it.connector, "not_sent": not_sent,
            "integration_id": owed.map(|(_, owed)| integration_id(owed.integration)),
            "delivery_id": owed.map(|(at, _)| delivery_id(at)), "state": owed.map(|(_, owed)| owed.state),
        },
        "ended_at": null, "patient_id": it.patient.as_ref().filter(|_| people),
        "summary": it.summary.as_ref().filter(|_| people),
        "first_reported_at": format!("?t:call{at}.first"), "updated_at": it.updated,
    });
    let fields = shown.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    shown
}

/// The call that a step is about, as a number and as the sid of its path.
fn chosen(world: &World, step: &Step, thing: Thing) -> (Option<usize>, String) {
    let place = world.place(step);
    let found = choose(thing, place, world.calls.iter().map(|it| it.workspace));
    let sid = found.map_or_else(|| "CA-of-nobody".to_owned(), |at| world.calls[at].sid.clone());
    // The sid of another workspace's call names nothing here, or a call of this workspace.
    let ours = world.calls.iter().position(|it| Some(it.workspace) == place && it.sid == sid);
    (ours, sid)
}

fn owed_for(world: &World, call: usize) -> Option<(usize, &Delivery)> {
    world.deliveries.iter().enumerate().find(|(_, owed)| owed.call == call)
}

fn fill<T>(known: &mut Option<T>, told: Option<T>, late: bool) {
    if told.is_some() && !(late && known.is_some()) {
        *known = told;
    }
}

/// The call after a report. A late report only fills unknown fields. The second value is the number of hours by which the
/// call began before the report, if the report implies it.
fn take(before: &Call, report: &Report, told: &Contents) -> (Call, Option<u8>) {
    let mut call = before.clone();
    let status = match status_of(report) {
        "completed" if report.reason.or(before.reason) == Some("no_answer") => "no-answer",
        status => status,
    };
    let was_over = rank(call.status) == 4;
    let late = was_over || rank(status) < rank(call.status);
    let other_end = was_over && rank(status) == 4 && status != call.status;
    if rank(status) > rank(call.status) {
        call.status = status;
    }
    if !other_end {
        fill(&mut call.reason, report.reason, late);
        fill(&mut call.duration, report.duration, late);
    }
    fill(&mut call.patient, told.patient.clone(), late);
    fill(&mut call.summary, told.summary.clone(), late);
    fill(&mut call.detail, (report.status == "wrapping-up").then_some("wrapping-up"), late);
    let ends = rank(status) == 4 && report.duration.is_some() && !other_end;
    let news = !was_over || call.duration != before.duration;
    let ago = call.duration.filter(|_| ends && news);
    (call, ago)
}

/// Decides whether a finished call is owed, and returns the integration that gets it.
fn decide(world: &World, call: &mut Call) -> Option<usize> {
    call.connector = world.workspaces[call.workspace].connector;
    let real = matches!(call.direction, "inbound" | "outbound");
    let integration = call.connector.and_then(|connector| built_in(world, call.workspace, connector));
    let (decision, owed) = match (real, call.connector, integration) {
        (false, ..) => ("excluded", None),
        (true, None, _) => ("no_connector", None),
        (true, Some(_), None) => ("not_provisioned", None),
        // The walk leaves the choice of calls at its default.
        (true, Some(_), Some(_)) if call.status != "completed" => ("not_chosen", None),
        (true, Some(_), Some(integration)) => ("owed", Some(integration)),
    };
    call.decision = Some(decision);
    owed
}

/// The other contents of a report, as understood.
struct Contents {
    caller: Party,
    callee: Party,
    patient: Option<String>,
    summary: Option<String>,
}

fn body_of(report: &Report, told: &Contents) -> Value {
    let sent = |said: &Party| match said {
        Party::Nothing => None,
        Party::Wrong(text) => Some(json!(text)),
        Party::Caller(sent, ..) => Some(sent.clone()),
    };
    let (caller, callee) = (sent(&told.caller), sent(&told.callee));
    let mut body = json!({ "status": report.status });
    let sent = [
        ("direction", report.direction.map(|it| json!(it))),
        ("completion_reason", report.reason.map(|it| json!(it))),
        ("duration_seconds", report.duration.map(|hours| json!(u32::from(hours) * 3600))),
        ("patient_id", told.patient.as_ref().map(|it| json!(it))),
        ("summary", told.summary.as_ref().map(|it| json!(it))),
        ("caller_id", caller),
        ("phone_number", callee),
    ];
    for (field, value) in sent.into_iter().filter_map(|(field, value)| Some((field, value?))) {
        body[field] = value;
    }
    body
}

/// The call that a first report begins.
fn begin(world: &World, workspace: usize, sid: String, report: &Report, told: &Contents) -> Result<Call, No> {
    let (Party::Caller(_, caller, form), Some(direction)) = (&told.caller, report.direction) else {
        let missing = [
            ("body.caller_id", !matches!(told.caller, Party::Caller(..))),
            ("body.direction", report.direction.is_none()),
        ];
        let missing = missing.into_iter().filter(|(_, missing)| *missing);
        return Err(No::Values(missing.map(|(field, _)| field.to_owned()).collect()));
    };
    let it = &world.workspaces[workspace];
    let callee = match &told.callee {
        Party::Caller(_, callee, _) => callee.clone(),
        Party::Nothing | Party::Wrong(_) => None,
    };
    let listed =
        |number: &Option<String>| number.as_ref().is_some_and(|number| it.test_callers.contains(number));
    let rule = match (listed(caller), listed(&callee)) {
        (true, _) => Some("test_caller"),
        (_, true) => Some("test_callee"),
        _ => None,
    };
    Ok(Call {
        workspace,
        sid,
        begun: (world.hours, world.requests),
        start: format!("?t:call{}.first", world.calls.len()),
        direction: if rule.is_some() { "test" } else { direction },
        rule,
        reported_direction: direction,
        caller: caller.clone(),
        callee,
        form,
        list_version: it.list_version,
        status: "unknown",
        detail: None,
        reason: None,
        duration: None,
        patient: None,
        summary: None,
        decision: None,
        connector: None,
        updated: format!("?t:call{}.first", world.calls.len()),
    })
}

pub fn report(world: &World, step: &Step, report: &Report) -> (Request, Outcome) {
    let place = world.place(step).unwrap_or(999);
    let (known, sid) = chosen(world, step, report.sid);
    let fresh = report.fresh || sid == "CA-of-nobody";
    let sid = if fresh { format!("CA-w{place:03}-{:06}", world.requests) } else { sid };
    let known = known.filter(|_| !fresh);
    let told = Contents {
        caller: said(world, place, report.caller),
        callee: said(world, place, report.callee),
        patient: report.patient.then(|| format!("patient-{:06}", world.requests)),
        summary: report.summary.then(|| format!("summary-{:06}", world.requests)),
    };
    let request = send(Method::PUT, path(world, step, &format!("calls/{sid}")), Some(body_of(report, &told)));
    let outcome = || -> Outcome {
        let here = world.enter(step, "Call.create")?;
        let wrong = [("body.caller_id", &told.caller), ("body.phone_number", &told.callee)];
        let wrong = wrong.into_iter().filter(|(_, said)| matches!(said, Party::Wrong(_)));
        let wrong: Vec<String> = wrong.map(|(field, _)| field.to_owned()).collect();
        if !wrong.is_empty() {
            return Err(No::Values(wrong));
        }
        let before = known.map(|at| &world.calls[at]);
        let at = known.unwrap_or(world.calls.len());
        let mut good = Good::ok(Value::Null);
        let (mut call, ago) = match before {
            Some(before) => take(before, report, &told),
            None => take(&begin(world, here.at, sid, report, &told)?, report, &told),
        };
        if let Some(ago) = ago {
            call.begun = (world.hours - i64::from(ago), world.requests);
            call.start = format!("?t:call{at}.start{}", world.requests);
            good = good.near(&call.start, -i64::from(ago));
        }
        if before.is_none() {
            quotas::room_for_call(world, here.at)?;
        }
        let finished = rank(call.status) == 4 && before.is_none_or(|before| rank(before.status) < 4);
        let owes = if finished { decide(world, &mut call) } else { None };
        match before {
            None => good = good.near(&call.updated, 0),
            Some(before) if differ(before, &call) => {
                call.updated = changed(world, &format!("call{at}"));
                good = good.grows(&call.updated, &before.updated);
            }
            Some(_) => {}
        }
        let workspace = here.at;
        let new = owes.map(|integration| Delivery {
            workspace,
            call: at,
            integration,
            state: "pending",
            location: None,
        });
        let owed = new.as_ref().map(|new| (world.deliveries.len(), new)).or_else(|| owed_for(world, at));
        // Data about people from other reports needs the permission to view calls.
        let people = before.is_none() || here.reach.has("Call.view");
        good.body = Some(detail(at, &call, owed, people));
        let actions = [
            ("call.create", before.is_none()),
            ("call.finish", finished),
            ("call.read", before.is_some() && people),
        ];
        Ok(good.then(move |world| {
            if at == world.calls.len() {
                world.calls.push(call);
                quotas::count_call(world, workspace);
            } else {
                world.calls[at] = call;
            }
            if let Some(new) = new {
                owe(world, new);
            }
            for (action, _) in actions.into_iter().filter(|(_, happened)| *happened) {
                here.note(world, ("calls", action, "call"), Some(call_id(at)));
            }
        }))
    };
    let outcome = outcome();
    (request, outcome)
}

/// Adds a delivery to the queue of its integration.
fn owe(world: &mut World, new: Delivery) {
    let Delivery { workspace, integration, .. } = new;
    if !world.lanes.iter().any(|lane| lane.integration == integration) {
        world.lanes.push(Lane { workspace, integration, held: false });
    }
    world.deliveries.push(new);
}

fn differ(a: &Call, b: &Call) -> bool {
    (a.status, a.detail, a.reason, a.duration, &a.patient, &a.summary)
        != (b.status, b.detail, b.reason, b.duration, &b.patient, &b.summary)
}

pub fn one(world: &World, step: &Step, call: Thing) -> (Request, Outcome) {
    let (known, sid) = chosen(world, step, call);
    let outcome = || -> Outcome {
        let here = world.enter(step, "Call.view")?;
        let at = known.ok_or(NO_CALL)?;
        let shown = detail(at, &world.calls[at], owed_for(world, at), true);
        Ok(Good::ok(shown).then(move |world| {
            here.note(world, ("calls", "call.read", "call"), Some(call_id(at)));
        }))
    };
    (send(Method::GET, path(world, step, &format!("calls/{sid}")), None), outcome())
}

#[derive(Clone, Copy)]
pub struct CallQuery {
    pub limit: u8,
    pub offset: u8,
    pub test: bool,
    pub simulated: bool,
    pub direction: u8,
    pub status: u8,
}

pub fn list(world: &World, step: &Step, asked: CallQuery) -> (Request, Outcome) {
    let direction = [None; 9].into_iter().chain([Some("test"), Some("inbound"), Some("simulated")]);
    let direction = direction.collect::<Vec<_>>()[usize::from(asked.direction)];
    let status =
        [None, None, None, None, None, None, Some("completed"), Some("ringing")][usize::from(asked.status)];
    let (limit, offset) = (usize::from(asked.limit), usize::from(asked.offset));
    let outcome = || -> Outcome {
        let here = world.enter(step, "Call.view")?;
        let admits = |it: &Call| {
            let by_direction = match (direction, it.direction) {
                (Some(wanted), direction) => wanted == direction,
                (None, "test") => asked.test,
                (None, "playground" | "simulated") => asked.simulated,
                (None, _) => true,
            };
            it.workspace == here.at && by_direction && status.is_none_or(|status| status == it.status)
        };
        let mut found: Vec<usize> = (0..world.calls.len()).filter(|at| admits(&world.calls[*at])).collect();
        found.sort_by_key(|at| std::cmp::Reverse(world.calls[*at].begun));
        let more = found.len() > offset + limit;
        let items = found.iter().skip(offset).take(limit).map(|at| summary(*at, &world.calls[*at], true));
        let good = Good::ok(json!({
            "items": items.collect::<Vec<_>>(), "total": found.len(), "has_more": more,
            "continuation_token": more.then_some(offset + limit),
        }));
        Ok(good.then(move |world| {
            here.note(world, ("calls", "call.list", "call"), None);
        }))
    };
    let filters = [
        direction.map(|it| format!("&direction={it}")),
        status.map(|it| format!("&status={it}")),
        Some(format!("&include_test={}&include_simulated={}", asked.test, asked.simulated)),
    ];
    let filters: String = filters.into_iter().flatten().collect();
    let path = path(world, step, &format!("calls?limit={limit}&offset={offset}{filters}"));
    (send(Method::GET, path, None), outcome())
}

fn show(world: &World, at: usize) -> Value {
    let owed = &world.deliveries[at];
    let call = &world.calls[owed.call];
    let synced = owed.state == "synced";
    json!({
        "id": delivery_id(at), "integration_id": integration_id(owed.integration), "call_id": call_id(owed.call),
        "call_sid": call.sid, "direction": call.direction, "state": owed.state,
        "reason": synced.then_some("found_by_a_person"), "attempt_count": 0, "maybe_sent": false, "amendment": null, "amendments": 0,
        "next_attempt_at": if synced { Value::Null } else { json!("*") }, "location": owed.location, "outcome": null,
        "created_at": format!("?t:call{}.owed", owed.call), "settled_at": if synced { json!("*") } else { Value::Null },
    })
}

/// The delivery of this workspace that a step is about, and the id that its path names.
fn chosen_delivery(world: &World, step: &Step, thing: Thing) -> (Option<usize>, String) {
    let place = world.place(step);
    let found = choose(thing, place, world.deliveries.iter().map(|it| it.workspace));
    let id = found.map_or_else(|| NOBODY.to_owned(), |at| world.text(&delivery_id(at)));
    // An id that no answer has shown yet cannot be named.
    let found = found.filter(|at| id != NOBODY && Some(world.deliveries[*at].workspace) == place);
    (found, id)
}

pub fn deliveries(world: &World, step: &Step, page: Page, state: u8) -> (Request, Outcome) {
    let list = world.place(step).map_or_else(String::new, |at| format!("deliveries{at}"));
    let state = match state {
        6 => Some("pending"),
        7 => Some("synced"),
        8 => Some("failed"),
        _ => None,
    };
    let outcome = || -> Outcome {
        let here = world.enter(step, "Call.view")?;
        let rows: Vec<_> = (0..world.deliveries.len())
            .filter(|at| world.deliveries[*at].workspace == here.at)
            .map(|at| (at, show(world, at)))
            .collect();
        let admits = |at: usize| state.is_none_or(|state| state == world.deliveries[at].state);
        Ok(world.page_of(&list, &rows, page, admits).then(move |world| {
            here.note(world, ("sync", "delivery.list", "delivery"), None);
        }))
    };
    let filter = state.map(|state| format!("&state={state}")).unwrap_or_default();
    let path = path(world, step, &format!("deliveries{}{filter}", world.query(&list, page)));
    (send(Method::GET, path, None), outcome())
}

pub fn delivery(world: &World, step: &Step, delivery: Thing) -> (Request, Outcome) {
    let (known, id) = chosen_delivery(world, step, delivery);
    let outcome = || -> Outcome {
        let here = world.enter(step, "Call.view")?;
        let at = known.ok_or(NO_DELIVERY)?;
        let mut shown = show(world, at);
        shown["attempts"] = json!([]);
        Ok(Good::ok(shown).then(move |world| {
            here.note(world, ("sync", "delivery.read", "delivery"), Some(delivery_id(at)));
        }))
    };
    (send(Method::GET, path(world, step, &format!("deliveries/{id}")), None), outcome())
}

/// A retry or a resolution of a delivery that is not in the EHR yet.
fn steer(
    world: &World,
    step: &Step,
    known: Option<usize>,
    to: (&'static str, Option<String>),
    resolves: bool,
) -> Outcome {
    let here = world.enter(step, "Integration.update")?;
    let at = known.ok_or(NO_DELIVERY)?;
    if world.deliveries[at].state == "synced" {
        return Err(No::Because(409, "already_synced"));
    }
    let (state, location) = to;
    let body = if resolves {
        json!({ "id": delivery_id(at), "state": state, "location": location })
    } else {
        json!({ "retried": 1, "has_more": false })
    };
    Ok(Good::ok(body).then(move |world| {
        world.deliveries[at].state = state;
        world.deliveries[at].location = location;
        let action = if resolves { "delivery.resolve" } else { "delivery.retry" };
        here.note(world, ("sync", action, "delivery"), Some(delivery_id(at)));
    }))
}

pub fn retry(world: &World, step: &Step, delivery: Thing) -> (Request, Outcome) {
    let (known, id) = chosen_delivery(world, step, delivery);
    let outcome = steer(world, step, known, ("pending", None), false);
    (send(Method::POST, path(world, step, &format!("deliveries/{id}/retry")), None), outcome)
}

pub fn resolve(world: &World, step: &Step, delivery: Thing, found: bool) -> (Request, Outcome) {
    let (known, id) = chosen_delivery(world, step, delivery);
    let location = found.then(|| format!("Communication/{}", world.requests));
    let body = json!({ "in_ehr": found, "location": location });
    let state = if found { "synced" } else { "pending" };
    let outcome = steer(world, step, known, (state, location), true);
    (send(Method::POST, path(world, step, &format!("deliveries/{id}/resolve")), Some(body)), outcome)
}

/// No worker runs in a walk, so no delivery has failed.
pub fn retry_failed(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome =
        world.enter(step, "Integration.update").map(|_| Good::ok(json!({ "retried": 0, "has_more": false })));
    (send(Method::POST, path(world, step, "deliveries/retry-failed"), Some(json!({}))), outcome)
}

fn event(world: &World, at: usize, it: &Event) -> Value {
    json!({
        "id": "*", "workspace_id": workspace_id(at), "timestamp": "*", "service": it.service, "action": it.action,
        "resource_type": it.resource_type, "resource_id": it.resource, "phi_accessed": it.phi,
        "actor_entity_id": it.actor.map(|(who, _)| entity_id(who)),
        "actor_credential_id": it.actor.and_then(|(_, key)| world.credential(key)), "...": 0,
    })
}

pub fn audit(world: &World, step: &Step, limit: u8, offset: u8, filter: u8) -> (Request, Outcome) {
    let (limit, offset) = (usize::from(limit), usize::from(offset));
    let outcome = world.enter(step, "Audit.view").map(|here| {
        let admits = |it: &&Event| match filter {
            3 => it.phi,
            4 => it.action == "api_key.create",
            _ => true,
        };
        let mut found: Vec<&Event> = world.workspaces[here.at].events.iter().filter(admits).collect();
        found.sort_by_key(|it| std::cmp::Reverse((it.hours, it.request)));
        let (mut groups, mut skip, mut left) = (vec![], offset, limit);
        for group in found.chunk_by(|a, b| a.request == b.request) {
            let skipped = skip.min(group.len());
            let shown = (group.len() - skipped).min(left);
            (skip, left) = (skip - skipped, left - shown);
            let of: Vec<Value> = group.iter().map(|it| event(world, here.at, it)).collect();
            groups.push(json!({ "shown": shown, "of": of }));
        }
        Good::ok(json!({
            "events": { "$groups": groups }, "total": found.len(), "limit": limit, "offset": offset,
            "has_more": found.len() > offset + limit,
            "next_offset": (found.len() > offset + limit).then_some(offset + limit),
        }))
    });
    let filter = ["", "", "", "&phi_only=true", "&action=api_key.create"][usize::from(filter)];
    let path = path(world, step, &format!("audit?limit={limit}&offset={offset}{filter}"));
    (send(Method::GET, path, None), outcome)
}

pub fn audit_summary(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = world.enter(step, "Audit.view").map(|here| {
        let events = &world.workspaces[here.at].events;
        let distinct = |mut of: Vec<String>| {
            of.sort_unstable();
            of.dedup();
            of.len()
        };
        let actors = events.iter().filter_map(|it| it.actor.map(|(who, _)| entity_id(who))).collect();
        Good::ok(json!({
            "total_events": events.len(), "phi_access_events": events.iter().filter(|it| it.phi).count(),
            "unique_actors": distinct(actors),
            "services_with_events": distinct(events.iter().map(|it| it.service.to_owned()).collect()),
        }))
    });
    (send(Method::GET, path(world, step, "audit/summary"), None), outcome)
}

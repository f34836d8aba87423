//! The operator's proof about test calls: which calls were tests, by which rule, and that nothing was owed
//! or sent for them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::Serialize;
use serde_json::json;
use ward_db::{Timestamp, Tx};

use super::actions;
use super::patients::Facts;
use super::{CallRecord, Direction, Report, Reporter, Status, TestRule, store};
use crate::audit::{self, Actor, Event, Write};
use crate::context::Context;
use crate::error::ApiError;
use crate::ids::{CallId, WorkspaceId};
use crate::quotas::Limits;
use crate::workspaces::Workspace;
use crate::{deliveries, test_callers};

const PAGE: i64 = 500;

/// A test call, the rule that made it one, and what was sent for it.
#[derive(Clone, Debug, Serialize)]
pub struct Proven {
    /// The id at the telephone provider.
    pub call_sid: String,
    /// The id of the call in Ward.
    pub entity_id: CallId,
    pub started_at: Timestamp,
    /// The caller's text; `None` if it is withheld.
    pub caller: Option<String>,
    /// The direction in the first report.
    pub reported_direction: &'static str,
    /// The version of the list of test callers that decided the direction.
    pub list_version: i64,
    /// The rule that made the call a test; `None` if the call was not a test.
    pub rule: Option<&'static str>,
    /// Whether the stored version of the list contains the caller.
    pub caller_on_list: bool,
    /// Whether the stored version of the list contains the called number.
    pub callee_on_list: bool,
    /// Deliveries that were ever queued for it.
    pub deliveries: i64,
    /// Attempts that were ever made for it.
    pub attempts: i64,
    /// Whether all of these facts are as required.
    pub excluded: bool,
}

/// The proof that no test call of a period was queued or sent.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    pub workspace_id: WorkspaceId,
    /// The start of the period, included.
    pub from: Timestamp,
    /// The end of the period, excluded.
    pub before: Timestamp,
    /// The test calls, ordered by their start.
    pub calls: Vec<Proven>,
    /// The number of other calls that were checked.
    pub others_looked_at: usize,
    /// Other calls with a party on the deciding list: they should have been tests.
    pub missed: Vec<Proven>,
    /// The number of calls that are not as required. Any number above 0 is a fault of Ward.
    pub violations: usize,
    /// Deliveries of all calls of the workspace that were not real, at any time and of any direction.
    pub deliveries_of_unreal_calls: i64,
}

/// Checks every test call of a period, and also that no other call should have been a test. All reads use
/// one snapshot.
pub fn prove(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    (from, before): (Timestamp, Timestamp),
) -> Result<Proof, ward_db::Error> {
    let (mut calls, mut missed, mut others_looked_at) = (Vec::new(), Vec::new(), 0);
    let mut lists = HashMap::new();
    for tests in [true, false] {
        let mut after = (Timestamp::MIN, CallId(uuid::Uuid::nil()));
        loop {
            let page = store::between(tx, workspace, tests, (from, before), after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = (last.started_at, last.id);
            for call in page {
                let listed = on_list(tx, workspace, &call, &mut lists)?;
                if tests {
                    calls.push(proven(tx, workspace, call, listed)?);
                    continue;
                }
                others_looked_at += 1;
                if TestRule::of_parties(listed.0, listed.1).is_some() {
                    missed.push(proven(tx, workspace, call, listed)?);
                }
            }
        }
    }
    let violations = calls.iter().filter(|call| !call.excluded).count() + missed.len();
    let deliveries_of_unreal_calls = deliveries::owed_by_unreal(tx, workspace)?;
    Ok(Proof {
        workspace_id: workspace,
        from,
        before,
        calls,
        others_looked_at,
        missed,
        violations,
        deliveries_of_unreal_calls,
    })
}

/// Whether the deciding version of the list contains the caller, and whether it contains the callee.
/// `lists` caches the versions.
fn on_list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    call: &CallRecord,
    lists: &mut HashMap<i64, Vec<String>>,
) -> Result<(bool, bool), ward_db::Error> {
    let list = match lists.entry(call.list_version) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => free.insert(test_callers::numbers_of(tx, workspace, call.list_version)?),
    };
    let has = |number: Option<&str>| number.is_some_and(|number| list.iter().any(|listed| listed == number));
    Ok((has(call.caller.as_deref()), has(call.detail("phone_number"))))
}

fn proven(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    call: CallRecord,
    (caller_on_list, callee_on_list): (bool, bool),
) -> Result<Proven, ward_db::Error> {
    let (deliveries, attempts) = deliveries::sent_for(tx, workspace, call.id)?;
    let by_parties = TestRule::of_parties(caller_on_list, callee_on_list);
    let right = call.direction == Direction::Test
        && call.test_rule == by_parties.or(call.test_rule.filter(|rule| *rule == TestRule::Credential));
    Ok(Proven {
        excluded: right && deliveries == 0 && attempts == 0,
        rule: call.test_rule.map(TestRule::name),
        call_sid: call.call_sid,
        entity_id: call.id,
        started_at: call.started_at,
        caller: call.caller,
        reported_direction: call.reported_direction.name(),
        list_version: call.list_version,
        caller_on_list,
        callee_on_list,
        deliveries,
        attempts,
    })
}

/// Records that the operator read these calls, including numbers.
pub fn note_proof(tx: &mut Tx<'_>, context: &Context, workspace: WorkspaceId) -> Result<(), ApiError> {
    audit::record_phi_access(
        tx,
        Event {
            workspace,
            service: "calls",
            action: "calls.prove_exclusion",
            resource_type: "call",
            resource_id: None,
            resource_name: None,
            actor: Actor::OPERATOR,
            context,
            metadata: json!({}),
        },
    )
}

/// A call that no report has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Unfinished {
    pub workspace_id: WorkspaceId,
    /// The id at the telephone provider.
    pub call_sid: String,
    pub status: &'static str,
    pub direction: &'static str,
    pub started_at: Timestamp,
    /// The time of the last report.
    pub updated_at: Timestamp,
}

/// The calls without an end whose last report is older than `before`, the oldest call first.
pub fn unfinished(tx: &mut Tx<'_>, before: Timestamp, most: u32) -> Result<Vec<Unfinished>, ward_db::Error> {
    let found = store::list_unfinished(tx, before, i64::from(most))?;
    let shown = found.into_iter().map(|(workspace_id, call)| Unfinished {
        workspace_id,
        status: call.status.name(),
        direction: call.direction.name(),
        started_at: call.started_at,
        updated_at: call.updated_at,
        call_sid: call.call_sid,
    });
    Ok(shown.collect())
}

#[derive(Debug, Serialize)]
pub struct Ended {
    /// The id at the telephone provider.
    pub call_sid: String,
    pub status: &'static str,
    /// Whether a delivery to the EHR is owed.
    pub owed: bool,
}

/// Ends a call with this status, at the time of its last report. A call that has ended already gets 409.
pub fn end(
    write: &mut Write<'_, '_>,
    (workspace, usual): (&Workspace, &Limits),
    sid: &str,
    status: &str,
) -> Result<Ended, ApiError> {
    let missing = ApiError::missing("call_not_found", "Call not found.");
    let known = store::by_sid(write, workspace.id, sid)?.ok_or(missing)?;
    let status = Status::named(status).filter(|status| status.is_final());
    let status = status.ok_or(ApiError::conflict("not_an_end", "This status does not end a call."))?;
    if known.status.is_final() {
        return Err(ApiError::conflict("already_ended", "This call has ended already."));
    }
    let report = Report {
        status,
        caller: None,
        callee: None,
        credential: None,
        direction: None,
        completion_reason: None,
        duration_ms: None,
        started_at: None,
        ended_at: Some(known.updated_at.max(known.started_at)),
        service_id: None,
        patient: Facts::default(),
        details: serde_json::Map::new(),
    };
    let by = (workspace, usual);
    let (call, _) = actions::record(write, by, sid, Reporter::Runtime, &report)?;
    let owed = deliveries::owed_for(write, workspace.id, call.id)?.is_some();
    Ok(Ended { call_sid: call.call_sid, status: call.status.name(), owed })
}

//! What the operator can show of calls: which were tests, why, and that nothing of them was owed or sent.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::Serialize;
use serde_json::json;
use ward_db::{Timestamp, Tx};

use super::{CallRecord, Direction, TestRule, store};
use crate::audit::{self, Actor, Event};
use crate::error::ApiError;
use crate::http::Context;
use crate::ids::{CallId, WorkspaceId};
use crate::{sync, workspaces};

/// How many calls one look takes up.
const PAGE: i64 = 500;

/// A test call, why it was one, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Proven {
    /// Its id at the telephone provider.
    pub call_sid: String,
    /// Its id.
    pub entity_id: CallId,
    /// When it began.
    pub started_at: Timestamp,
    /// Who called.
    pub caller: Option<String>,
    /// What the reporter said it was.
    pub reported_direction: &'static str,
    /// The version of the list of test callers that decided.
    pub list_version: i64,
    /// Which rule made the call a test; none for a call that was no test.
    pub rule: Option<&'static str>,
    /// Whether that version, as it was kept, has the caller.
    pub caller_on_list: bool,
    /// Whether it has the number that was called.
    pub callee_on_list: bool,
    /// Deliveries that were ever owed for it.
    pub deliveries: i64,
    /// Tries that were ever made for it.
    pub attempts: i64,
    /// Whether all of that is as it must be.
    pub excluded: bool,
}

/// What a period's test calls show.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub before: Timestamp,
    /// The test calls, in the order in which they began.
    pub calls: Vec<Proven>,
    /// How many other calls were looked at.
    pub others_looked_at: usize,
    /// Those of them of which a party was on the list that decided: they should have been tests.
    pub missed: Vec<Proven>,
    /// How many of all these calls are not as they must be. Anything but 0 is a fault of Ward's.
    pub violations: usize,
    /// Deliveries of any call of the workspace that was not real, at any time, whatever its direction.
    pub deliveries_of_unreal_calls: i64,
}

/// Looks at every test call of a period, and at every other one for whether it should have been one. Read over one
/// snapshot.
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
    let deliveries_of_unreal_calls = sync::owed_by_unreal(tx, workspace)?;
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

/// Whether the version of the list that decided has the caller, and whether it has the number that was called. Lists once
/// read are kept in `lists`.
fn on_list(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    call: &CallRecord,
    lists: &mut HashMap<i64, Vec<String>>,
) -> Result<(bool, bool), ward_db::Error> {
    let list = match lists.entry(call.list_version) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => free.insert(workspaces::test_callers_of(tx, workspace, call.list_version)?),
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
    let (deliveries, attempts) = sync::sent_for(tx, workspace, call.id)?;
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

/// Records that the operator looked, numbers and all.
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

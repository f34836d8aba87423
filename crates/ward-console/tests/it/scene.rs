//! A workspace in use: test callers, calls of every kind, a delivered call, a held one and a failed one.

use std::time::Duration;

use serde_json::{Value, json};
use ward::deliveries::worker::{Options, Worker};
use ward_ehr::{Limits, Outbound, Tokens};
use ward_test::ehr::{Act, ScriptedEhr};
use ward_test::{Fields as _, Server, Tenant};

pub const TESTER: &str = "+15550100001";
pub const PATIENT: &str = "+15550100002";

/// A worker that reaches the test's EHR.
pub fn worker(server: &Server) -> Worker {
    let limits = Limits {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        plain_http: true,
        total_time: Duration::from_secs(30),
        ..Limits::default()
    };
    Worker::new(server.app.clone(), Outbound::new(limits).unwrap(), Tokens::default(), Options::default())
}

/// Points the workspace's integration at the test's EHR, which has neither TLS nor credentials.
pub async fn point_at(server: &Server, workspace: &str, ehr: &ScriptedEhr) {
    let set = format!(
        "UPDATE integrations SET base_url = '{}', auth = NULL, enabled = true, updated_at = timestamptz '{}' \
         WHERE workspace_id = uuid '{workspace}'",
        ehr.url(),
        server.clock.now()
    );
    assert_eq!(server.sql(set).await, 1);
}

/// The EHR's refusal of a write.
pub fn refusal() -> Act {
    let said = json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": "error", "code": "invalid",
        "diagnostics": "The patient's chart is closed." }] });
    Act::Say(400, said, "")
}

/// Reports a finished call and returns its detail.
pub async fn report(tenant: &Tenant, sid: &str, body: Value) -> Value {
    tenant.put(&format!("/calls/{sid}"), body).await.ok()
}

/// A workspace with calls, deliveries, keys and an invitation.
pub async fn busy(server: &Server) -> Tenant {
    let tenant = server.tenant("harbour-clinic").await;
    let ehr = ScriptedEhr::start().await;
    let numbers = json!({ "numbers": [TESTER] });
    tenant.owner.put(&tenant.workspace("/test-caller-numbers"), numbers).await.ok();
    let change = json!({ "connector_type": "fhir_store", "name": "Harbour Clinic" });
    tenant.owner.patch(&tenant.workspace(""), change).await.ok();
    tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.ok();
    point_at(server, &tenant.id, &ehr).await;
    let worker = worker(server);
    let now = server.clock.now().micros();
    for number in 0..24_i64 {
        let start = ward_db::Timestamp::from_micros(now - (number % 9) * 86_400_000_000 - 3_600_000_000);
        let (caller, direction) = match number % 6 {
            4 => (TESTER, "inbound"),
            3 => (PATIENT, "outbound"),
            _ => (PATIENT, "inbound"),
        };
        let body = json!({
            "status": "completed", "caller_id": caller, "direction": direction, "phone_number": "+15550100100",
            "duration_seconds": 40 + number * 13, "started_at": start.to_string(),
            "completion_reason": "caller_hung_up",
            "summary": "The caller asked for an appointment next week.",
        });
        if number == 20 {
            ehr.script([refusal(), refusal()]);
        }
        report(&tenant, &format!("CA{:032x}", 0x5eed_0000 + number), body).await;
        worker.turn().await;
    }
    for (name, role) in [("reporting", "viewer"), ("voice runtime", "operator"), ("night shift", "member")] {
        let days = if role == "viewer" { 7 } else { 60 };
        let body = json!({ "name": name, "role": role, "duration_days": days });
        tenant
            .owner
            .post(&format!("/v1/{}/api-keys", tenant.id), body)
            .await
            .expect(reqwest::StatusCode::CREATED);
    }
    let invitation = json!({ "role": "member", "email": "dana@example.com" });
    let made = tenant.owner.post(&tenant.workspace("/invitations"), invitation).await;
    made.expect(reqwest::StatusCode::CREATED);
    tenant
}

/// The id of a delivery in this state.
pub async fn delivery_in(tenant: &Tenant, state: &str) -> String {
    let list = tenant.get(&format!("/deliveries?state={state}")).await.ok();
    list["items"][0].text("id").to_owned()
}

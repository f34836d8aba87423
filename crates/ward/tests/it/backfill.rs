//! Calls that finished before their workspace had an integration, and their deliveries afterwards.

use std::time::Duration;

use serde_json::{Value, json};
use ward::operator;
use ward_test::{Fields as _, Tenant, both};

use crate::calls::{finished, put};
use crate::chosen::set_delivery;
use crate::deliveries::{PATIENT, Scene, TESTER};

/// A period that has every call of these tests.
fn always() -> Value {
    json!({ "date_from": "2020-01-01", "date_to": "2100-01-01" })
}

async fn connect(tenant: &Tenant, connector: Value) {
    tenant.owner.patch(&tenant.workspace(""), json!({ "connector_type": connector })).await.ok();
}

/// A scene in which these calls finished without a connector.
async fn without_connector(calls: &[(&str, Value)]) -> Scene {
    let scene = Scene::of("fhir_store").await;
    connect(&scene.tenant, Value::Null).await;
    for (sid, body) in calls {
        let call = put(&scene.tenant, sid, body.clone()).await;
        assert_ne!(call["sync"]["decision"], "owed", "{sid}");
    }
    connect(&scene.tenant, json!("fhir_store")).await;
    scene
}

both!(calls_from_before_the_connector_are_owed_when_a_person_asks, async || {
    let missed = json!({ "status": "no-answer", "caller_id": PATIENT, "direction": "inbound" });
    let running = json!({ "status": "in-progress", "caller_id": PATIENT, "direction": "inbound" });
    let calls = [
        ("CA1", finished(PATIENT)),
        ("CA2", finished(PATIENT)),
        ("CA-test", finished(TESTER)),
        ("CA-missed", missed),
        ("CA-running", running),
    ];
    let scene = without_connector(&calls).await;
    let tenant = &scene.tenant;
    scene.hours(2).await;
    assert!(scene.ehr.kept().is_empty());
    let answer = tenant.post("/deliveries/backfill", always()).await.ok();
    assert_eq!(answer, json!({ "queued": 2, "looked_at": 5, "next_after_call_id": null }));
    scene.worker.turn().await;
    assert_eq!(scene.ehr.kept().len(), 2);
    let decision =
        async |sid: &str| tenant.get(&format!("/calls/{sid}")).await.ok()["sync"]["decision"].clone();
    assert_eq!((decision("CA1").await, decision("CA-test").await), (json!("owed"), json!("excluded")));
    assert_eq!(decision("CA-missed").await, "no_connector");
    // A second request finds nothing new, and a running call is owed at its end.
    assert_eq!(tenant.post("/deliveries/backfill", always()).await.ok()["queued"], 0);
    put(tenant, "CA-running", json!({ "status": "completed" })).await;
    scene.hours(2).await;
    assert_eq!(scene.ehr.kept().len(), 3);
    assert!(scene.ehr.counts().values().all(|count| *count == 1));
    let events = tenant.audit().await;
    let events: Vec<&Value> = events.iter().filter(|event| event["action"] == "call.backfill").collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["metadata"].fields(["queued", "looked_at"]), json!([2, 5]));
});

both!(a_backfill_follows_the_period_and_the_choice_of_calls, async || {
    let at = |time: &str| {
        let mut body = finished(PATIENT);
        body["started_at"] = json!(time);
        body
    };
    let calls = [("CA1", at("2026-05-01T10:00:00Z")), ("CA2", at("2026-05-02T10:00:00Z"))];
    let scene = without_connector(&calls).await;
    let tenant = &scene.tenant;
    let day = |from: &str, to: &str| json!({ "date_from": from, "date_to": to });
    let answer = tenant.post("/deliveries/backfill", day("2026-05-03", "2026-05-09")).await.ok();
    assert_eq!(answer.fields(["queued", "looked_at"]), json!([0, 0]));
    let long = json!({ "calls": { "min_duration_seconds": 3_600 } });
    set_delivery(tenant, long).await.ok();
    let answer = tenant.post("/deliveries/backfill", day("2026-05-01", "2026-05-02")).await.ok();
    assert_eq!(answer.fields(["queued", "looked_at"]), json!([0, 2]));
    set_delivery(tenant, json!({})).await.ok();
    let answer = tenant.post("/deliveries/backfill", day("2026-05-01", "2026-05-01")).await.ok();
    assert_eq!(answer.fields(["queued", "looked_at"]), json!([1, 1]));
    let backwards = tenant.post("/deliveries/backfill", day("2026-05-02", "2026-05-01")).await;
    backwards.refused_as(422, "period_ends_before_it_begins");
    let naive = tenant.post("/deliveries/backfill", day("2026-05-01T00:00:00", "2026-05-02")).await;
    assert_eq!(naive.problem_locs(), ["body.date_from"]);
    // Another tenant's call is no position in this one.
    let other = scene.server.tenant("other").await;
    let theirs = put(&other, "CA1", finished(PATIENT)).await;
    let mut after = always();
    after["after_call_id"] = theirs["entity_id"].clone();
    tenant.post("/deliveries/backfill", after).await.refused_as(404, "call_not_found");
});

both!(a_long_backfill_goes_on_where_the_previous_request_ended, async || {
    let scene = without_connector(&[]).await;
    let tenant = &scene.tenant;
    connect(tenant, Value::Null).await;
    // Several calls start at the same time, so the position is a time and an id.
    for index in 0..230 {
        let mut body = finished(PATIENT);
        body["started_at"] = json!(format!("2026-05-01T10:{:02}:00Z", index / 60));
        put(tenant, &format!("CA{index}"), body).await;
    }
    connect(tenant, json!("fhir_store")).await;
    let mut wanted = always();
    let mut queued = Vec::new();
    loop {
        let answer = tenant.post("/deliveries/backfill", wanted.clone()).await.ok();
        queued.push(answer["queued"].as_i64().unwrap());
        if answer["next_after_call_id"].is_null() {
            break;
        }
        wanted["after_call_id"] = answer["next_after_call_id"].clone();
    }
    assert_eq!(queued, [100, 100, 30]);
    assert_eq!(tenant.get("/deliveries").await.ok()["total"], 230);
});

both!(the_operator_backfills_days, async || {
    let scene = without_connector(&[("CA1", finished(PATIENT)), ("CA2", finished(PATIENT))]).await;
    let (app, slug) = (&scene.server.app, &scene.tenant.slug);
    let done = operator::backfill(app, slug, "2020-01-01", "2100-01-01").await.unwrap();
    assert_eq!((done.queued, done.looked_at, done.next_after_call_id), (2, 2, None));
    scene.server.clock.advance(Duration::from_secs(1));
    scene.worker.turn().await;
    assert_eq!(scene.ehr.kept().len(), 2);
    assert!(operator::backfill(app, slug, "2026-05-02", "2026-05-01").await.is_err());
});

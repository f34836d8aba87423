//! Repairs by people: corrections of calls, drops of deliveries, and ends of calls that got no end.

use std::time::Duration;

use serde_json::{Value, json};
use ward::operator;
use ward_test::ehr::Act;
use ward_test::{Answer, Fields as _, both};

use crate::calls::{finished, put};
use crate::deliveries::{PATIENT, Scene};

async fn correct(scene: &Scene, sid: &str, body: Value) -> Answer {
    scene.tenant.post(&format!("/calls/{sid}/correct"), body).await
}

both!(a_wrong_patient_is_corrected_until_the_ehr_has_the_call, async || {
    let scene = Scene::of("epic").await;
    scene.ehr.script([Act::Say(422, Value::Null, "")]);
    let mut body = finished(PATIENT);
    body["patient_id"] = json!("wrong-1");
    body["encounter_id"] = json!("enc-1");
    body["summary"] = json!("Asked for a refill.");
    let call = put(&scene.tenant, "CA1", body).await;
    let id = call["sync"].text("delivery_id").to_owned();
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await.fields(["state", "reason"]), json!(["failed", "refused"]));
    // A later report only fills what is missing.
    put(&scene.tenant, "CA1", json!({ "status": "completed", "patient_id": "right-2" })).await;
    assert_eq!(scene.tenant.get("/calls/CA1").await.ok()["patient_id"], "wrong-1");
    let corrected =
        correct(&scene, "CA1", json!({ "patient_id": "right-2", "summary": "Asked for a refill." })).await;
    assert_eq!(
        corrected.ok(),
        json!({ "call_sid": "CA1", "changed": ["patient_id"], "delivery_state": "pending" })
    );
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    assert_eq!(scene.ehr.kept()[0]["subject"]["reference"], "Patient/right-2");
    // Both values are kept sealed, and the audit names the field only.
    let shown = scene.tenant.get("/calls/CA1").await.ok();
    assert_eq!(
        shown["corrections"][0]["values"],
        json!({ "former": { "patient_id": "wrong-1" }, "new": { "patient_id": "right-2" } })
    );
    let events = scene.tenant.audit().await;
    let event = events.iter().find(|event| event["action"] == "call.correct").unwrap();
    assert_eq!(event["metadata"].fields(["fields", "correction"]), json!([["patient_id"], 1]));
    let told = json!(events).to_string();
    assert!(!told.contains("wrong-1") && !told.contains("right-2"), "{told}");
    // A call that the EHR has is not changed, and the answer says so.
    correct(&scene, "CA1", json!({ "patient_id": "other-3" })).await.refused_as(409, "already_synced");
    assert_eq!(scene.tenant.get("/calls/CA1").await.ok()["patient_id"], "right-2");
});

both!(a_correction_releases_an_unmatched_call_and_an_empty_text_removes_a_value, async || {
    let scene = Scene::of("epic").await;
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["reason"], "unmatched_patient");
    let answer = correct(&scene, "CA1", json!({ "patient_id": "pat-1", "summary": "A cough." })).await.ok();
    assert_eq!(answer.fields(["changed", "delivery_state"]), json!([["patient_id", "summary"], "pending"]));
    let again = correct(&scene, "CA1", json!({ "patient_id": "pat-1" })).await.ok();
    assert_eq!(again["changed"], json!([]));
    assert_eq!(correct(&scene, "CA1", json!({ "summary": "" })).await.ok()["changed"], json!(["summary"]));
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["reason"], "unmatched_encounter");
    let answer = correct(&scene, "CA1", json!({ "encounter_id": "enc-7" })).await.ok();
    assert_eq!(answer.fields(["changed", "delivery_state"]), json!([["encounter_id"], "pending"]));
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    assert_eq!(scene.ehr.kept()[0]["context"]["encounter"][0]["reference"], "Encounter/enc-7");
    assert_eq!(scene.tenant.get("/calls/CA1").await.ok().list("corrections").len(), 3);
    correct(&scene, "CA-unknown", json!({ "summary": "x" })).await.refused_as(404, "call_not_found");
    assert_eq!(
        correct(&scene, "CA1", json!({ "patient_id": "no spaces" })).await.problem_locs(),
        ["body.patient_id"]
    );
    let other = scene.server.tenant("other").await;
    let theirs = other.owner.post(&scene.tenant.path("/calls/CA1/correct"), json!({ "summary": "x" })).await;
    theirs.refused(404);
});

both!(a_dropped_delivery_is_never_sent_until_a_person_retries_it, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::Say(422, Value::Null, "")]);
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    let path = format!("/deliveries/{id}/drop");
    assert_eq!(scene.tenant.post(&path, json!({ "reason": " " })).await.problem_locs(), ["body.reason"]);
    let dropped = scene.tenant.post(&path, json!({ "reason": "The patient has no chart." })).await.ok();
    assert_eq!(dropped["state"], "dropped");
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery.fields(["state", "reason"]), json!(["dropped", "dropped"]));
    assert_eq!(delivery["outcome"]["text"], "The patient has no chart.");
    assert_eq!(scene.tenant.get("/calls/CA1").await.ok()["sync"]["state"], "dropped");
    let list = async |state: &str| scene.tenant.get(&format!("/deliveries?state={state}")).await.ok();
    assert_eq!(list("failed").await["total"], 0);
    assert_eq!(list("dropped").await.texts("items", "id"), [id.as_str()]);
    assert_eq!(scene.status().await["failed"], 0);
    let all = scene.tenant.post("/deliveries/retry-failed", json!({})).await.ok();
    assert_eq!(all["retried"], 0);
    scene.hours(3).await;
    assert_eq!(scene.ehr.writes(), 1);
    let event =
        scene.tenant.audit().await.into_iter().find(|event| event["action"] == "delivery.drop").unwrap();
    assert!(!event.to_string().contains("no chart"), "{event}");
    scene.retry(&id).await.ok();
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    scene.tenant.post(&path, json!({ "reason": "too late" })).await.refused_as(409, "already_synced");
    // A waiting delivery can be dropped as well.
    let waiting = scene.owe("CA2").await;
    operator::sync_drop(
        &scene.server.app,
        &scene.tenant.slug,
        waiting.parse().map(ward::ids::DeliveryId).unwrap(),
        "x".to_owned(),
    )
    .await
    .unwrap();
    scene.hours(2).await;
    assert_eq!(
        (scene.delivery(&waiting).await["state"].clone(), scene.ehr.kept().len()),
        (json!("dropped"), 1)
    );
});

both!(a_call_that_nobody_ended_is_found_and_ended, async || {
    let scene = Scene::of("fhir_store").await;
    let begun = json!({ "status": "in-progress", "caller_id": PATIENT, "direction": "inbound" });
    put(&scene.tenant, "CA-lost", begun.clone()).await;
    scene.server.clock.advance(Duration::from_hours(5));
    put(&scene.tenant, "CA-long", begun).await;
    scene.server.clock.advance(Duration::from_hours(2));
    let found = operator::unfinished_calls(&scene.server.app, 10).await.unwrap();
    let sids: Vec<&str> = found.iter().map(|call| call.call_sid.as_str()).collect();
    assert_eq!(sids, ["CA-lost"], "the other was reported two hours ago");
    let (app, slug) = (&scene.server.app, &scene.tenant.slug);
    assert!(operator::end_call(app, slug, "CA-lost", "ringing").await.is_err());
    let ended = operator::end_call(app, slug, "CA-lost", "completed").await.unwrap();
    assert_eq!((ended.status, ended.owed), ("completed", true));
    assert!(operator::end_call(app, slug, "CA-lost", "completed").await.is_err(), "it has ended");
    assert!(operator::unfinished_calls(app, 10).await.unwrap().is_empty());
    scene.worker.turn().await;
    assert_eq!(scene.ehr.kept().len(), 1);
});

both!(the_operator_sees_the_queues_of_all_workspaces_in_pages, async || {
    let scene = Scene::of("fhir_store").await;
    scene.owe("CA1").await;
    for _ in 0..3 {
        let tenant = crate::deliveries::connected(&scene.server, "hubspot", &scene.ehr.url()).await;
        put(&tenant, "CA1", finished(PATIENT)).await;
    }
    let app = &scene.server.app;
    let first = operator::sync_status_all(app, None, 3).await.unwrap();
    assert_eq!(first.queues.len(), 3);
    let second = operator::sync_status_all(app, first.next.as_deref(), 3).await.unwrap();
    assert_eq!((second.queues.len(), second.next.as_deref()), (1, None));
    let slugs: std::collections::BTreeSet<String> =
        first.queues.iter().chain(&second.queues).filter_map(|queue| queue.workspace.clone()).collect();
    assert_eq!(slugs.len(), 4);
    assert!(first.queues.iter().chain(&second.queues).all(|queue| queue.queue.pending == 1));
    assert!(operator::sync_status_all(app, Some("x"), 3).await.is_err());
});

//! Previews of deliveries, and the settings that shape a note: time zone and category.

use serde_json::{Value, json};
use ward_test::{Fields as _, both};

use crate::calls::{finished, put};
use crate::chosen::set_delivery;
use crate::deliveries::{PATIENT, Scene};

/// The request of a preview as the EHR would get it.
fn shown(preview: &Value) -> (String, String, Value) {
    let request = &preview["request"];
    let body = serde_json::from_str(request.text("body")).unwrap_or_default();
    (request.text("method").to_owned(), request.text("url").to_owned(), body)
}

both!(a_preview_is_the_request_that_is_sent_and_sends_nothing, async || {
    for (connector, path) in [("fhir_store", "/Communication"), ("cerner", "/DocumentReference")] {
        let scene = Scene::of(connector).await;
        set_delivery(&scene.tenant, json!({ "time_zone": "America/New_York", "category": " Front desk " }))
            .await
            .ok();
        let mut body = finished(PATIENT);
        body["patient_id"] = json!("p1");
        body["started_at"] = json!("2026-07-01T12:00:00Z");
        let call = put(&scene.tenant, "CA1", body).await;
        let id = call["sync"].text("delivery_id").to_owned();
        let preview = async || scene.tenant.get(&format!("/deliveries/{id}/preview")).await.ok();
        let before = preview().await;
        assert_eq!(before.fields(["state", "not_sent_because", "looked_up"]), json!(["pending", null, null]));
        assert_eq!(scene.ehr.asked().len(), 0, "nothing was sent");
        scene.worker.turn().await;
        let sent = scene.ehr.asked().remove(0);
        let (method, url, body) = shown(&before);
        assert_eq!((method.as_str(), url), (sent.method.as_str(), format!("{}{path}", scene.ehr.url())));
        assert_eq!(body, serde_json::from_str::<Value>(&sent.body).unwrap());
        for header in before["request"]["headers"].as_array().unwrap() {
            assert_eq!(sent.headers[header.text("name")], header.text("value"), "{header}");
        }
        assert_eq!(body["category"][1], json!({ "text": "Front desk" }));
        let attachment = match connector {
            "cerner" => &body["content"][0]["attachment"],
            _ => &body["payload"][0]["contentAttachment"],
        };
        let note = crate::amending::text(attachment);
        let lines: Vec<&str> = note.lines().collect();
        assert_eq!(lines[1], "Category: Front desk");
        assert!(lines.contains(&"Started: 2026-07-01 08:00:00 EDT (-04:00)"), "{note}");
        // The EHR has it now. An amendment has a preview of its own.
        assert_eq!(preview().await["not_sent_because"], "settled");
        scene.tenant.post(&format!("/deliveries/{id}/amend"), json!({ "summary": "x" })).await.ok();
        let amendment = preview().await;
        assert_eq!(amendment["not_sent_because"], Value::Null);
        let (method, _, body) = shown(&amendment);
        if connector == "cerner" {
            assert_eq!((method.as_str(), &body["relatesTo"][0]["code"]), ("POST", &json!("replaces")));
        } else {
            assert_eq!((method.as_str(), &body["id"]), ("PUT", &json!("1")));
        }
        let read = scene.tenant.audit().await;
        assert!(
            read.iter()
                .filter(|event| event["action"] == "delivery.read")
                .all(|event| event["phi_accessed"] == true)
        );
        let other = scene.server.tenant("other").await;
        other.owner.get(&scene.tenant.path(&format!("/deliveries/{id}/preview"))).await.refused(404);
    }
});

both!(a_preview_says_why_nothing_would_be_sent, async || {
    for (connector, why) in [("epic", "unmatched_patient"), ("eclinicalworks", "connector_takes_no_calls")] {
        let scene = Scene::of(connector).await;
        let id = scene.owe("CA1").await;
        let preview = scene.tenant.get(&format!("/deliveries/{id}/preview")).await.ok();
        assert_eq!(preview.fields(["not_sent_because", "request"]), json!([why, null]), "{connector}");
    }
    let scene = Scene::of("epic").await;
    let mut body = finished(PATIENT);
    body["patient_id"] = json!("p1");
    let call = put(&scene.tenant, "CA1", body).await;
    let path = format!("/deliveries/{}/preview", call["sync"].text("delivery_id"));
    let preview = scene.tenant.get(&path).await.ok();
    assert_eq!(preview.fields(["not_sent_because", "looked_up"]), json!([null, "encounter"]));
    set_delivery(&scene.tenant, json!({ "encounter": "reported" })).await.ok();
    assert_eq!(scene.tenant.get(&path).await.ok()["not_sent_because"], "unmatched_encounter");
    assert_eq!(scene.ehr.asked().len(), 0);
});

both!(a_time_zone_has_a_name_of_the_database, async || {
    let scene = Scene::of("fhir_store").await;
    for unknown in ["EDT", "america/new_york", "Mars/Base"] {
        let refused = set_delivery(&scene.tenant, json!({ "time_zone": unknown })).await;
        assert_eq!(refused.problem_locs(), ["body.delivery.time_zone"], "{unknown}");
    }
    let set = set_delivery(&scene.tenant, json!({ "time_zone": "Europe/Berlin" })).await.ok();
    assert_eq!(set["delivery"]["time_zone"], "Europe/Berlin");
});

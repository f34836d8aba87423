//! Queues that heal themselves, and the signs that one waits.

use std::time::Duration;

use serde_json::{Value, json};
use ward::operator;
use ward_test::ehr::Act;
use ward_test::{Fields as _, both};

use crate::deliveries::Scene;

/// Lets minutes pass and runs the worker. Returns the number of writes that the EHR received in that time.
async fn after(scene: &Scene, minutes: u64) -> usize {
    let before = scene.ehr.writes();
    scene.server.clock.advance(Duration::from_mins(minutes));
    scene.worker.turn().await;
    scene.ehr.writes() - before
}

async fn actions(scene: &Scene, action: &str) -> Vec<Value> {
    let events = scene.tenant.audit().await;
    events.into_iter().filter(|event| event["action"] == action).collect()
}

both!(a_queue_with_refused_credentials_is_tried_again_and_heals, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Say(401, Value::Null, "")));
    for index in 0..3 {
        scene.owe(&format!("CA{index}")).await;
    }
    scene.worker.turn().await;
    let first = scene.ehr.writes();
    let status = scene.status().await;
    assert_eq!(
        status.fields(["held", "held_because", "waits_because"]),
        json!([true, "unauthorized", "held"])
    );
    let since = status["waits_since"].clone();
    // After 1, 5, 15 and 60 minutes, and then hourly, one delivery is tried.
    for (early, late) in [(0, 1), (4, 1), (14, 1), (59, 1), (59, 1)] {
        if early > 0 {
            assert_eq!(after(&scene, early).await, 0, "{early} minutes");
        }
        assert_eq!(after(&scene, late).await, 1, "{early} minutes and one more");
    }
    assert_eq!(scene.ehr.writes(), first + 5);
    let status = scene.status().await;
    assert_eq!(status.fields(["pending", "waits_since"]), json!([3, since]));
    let held = actions(&scene, "integration.hold").await;
    assert_eq!(held.len(), 1, "one event for one change: {held:?}");
    assert_eq!(held[0]["metadata"].fields(["by", "because"]), json!(["ward", "unauthorized"]));
    // The password is right again, and Ward gets no message about it.
    scene.ehr.always(None);
    assert_eq!(after(&scene, 60).await, 1);
    let status = scene.status().await;
    assert_eq!(status.fields(["held", "waits_because", "waits_since"]), json!([false, null, null]));
    assert_eq!(after(&scene, 1).await, 2);
    assert_eq!(scene.status().await.fields(["synced", "pending"]), json!([3, 0]));
    assert_eq!(actions(&scene, "integration.release").await.len(), 1);
});

both!(a_hold_by_a_person_is_never_tried, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Say(401, Value::Null, "")));
    scene.owe("CA1").await;
    scene.worker.turn().await;
    operator::sync_hold(&scene.server.app, &scene.tenant.slug, "fhir_store", true).await.unwrap();
    assert_eq!(scene.status().await["held_because"], "operator");
    for _ in 0..30 {
        assert_eq!(after(&scene, 60).await, 0);
    }
    assert_eq!(scene.status().await["held_because"], "operator");
});

both!(equal_refusals_in_a_row_hold_the_integration_and_lose_nothing, async || {
    for status in [302, 403, 404] {
        let scene = Scene::of("fhir_store").await;
        scene.ehr.always(Some(Act::Say(status, Value::Null, "")));
        for index in 0..60 {
            scene.owe(&format!("CA{index}")).await;
        }
        scene.worker.turn().await;
        let tried = scene.ehr.writes();
        assert!((5..9).contains(&tried), "{status}: {tried}");
        let shown = scene.status().await;
        let fields = shown.fields(["held_because", "pending", "failed"]);
        assert_eq!(fields, json!(["refused", 60, 0]), "{status}");
        // Each try takes another delivery, so that one that is refused for its own sake blocks nothing.
        for minutes in [1, 5, 15] {
            assert_eq!(after(&scene, minutes).await, 1, "{status}");
        }
        let sent: std::collections::BTreeSet<String> =
            scene.ehr.asked().into_iter().map(|asked| asked.body).collect();
        assert_eq!(sent.len(), scene.ehr.writes(), "{status}");
        scene.ehr.always(None);
        after(&scene, 60).await;
        for _ in 0..4 {
            after(&scene, 1).await;
        }
        assert_eq!(
            scene.status().await.fields(["synced", "pending", "failed"]),
            json!([60, 0, 0]),
            "{status}"
        );
    }
});

both!(single_refusals_are_about_their_calls, async || {
    let scene = Scene::of("fhir_store").await;
    for index in 0..12 {
        if index % 2 == 0 {
            scene.ehr.script([Act::Say(422, Value::Null, "")]);
        }
        scene.owe(&format!("CA{index}")).await;
        scene.worker.turn().await;
    }
    assert_eq!(scene.status().await.fields(["failed", "synced", "held"]), json!([6, 6, false]));
    // Refusals of different kinds are no row.
    for (index, status) in [422, 404, 422, 404, 422, 404].into_iter().enumerate() {
        scene.ehr.script([Act::Say(status, Value::Null, "")]);
        scene.owe(&format!("CB{index}")).await;
        scene.worker.turn().await;
    }
    assert_eq!(scene.status().await.fields(["failed", "held"]), json!([12, false]));
});

both!(a_hold_shows_at_once_instead_of_an_older_reason, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Say(500, Value::Null, "")));
    for index in 0..6 {
        scene.owe(&format!("CA{index}")).await;
    }
    scene.worker.turn().await;
    assert_eq!(scene.status().await["waits_because"], "failing");
    let lanes = operator::sync_hold(&scene.server.app, &scene.tenant.slug, "fhir_store", true).await.unwrap();
    assert_eq!(lanes[0].waits_because.as_deref(), Some("held"));
    let lanes =
        operator::sync_hold(&scene.server.app, &scene.tenant.slug, "fhir_store", false).await.unwrap();
    assert_eq!(lanes[0].waits_because, None);
});

both!(a_replica_of_an_earlier_version_takes_a_check_for_a_delivery_and_searches_first, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::TakeAndReset]);
    let id = scene.owe("CA1").await;
    after(&scene, 0).await;
    after(&scene, 1).await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    // Such a replica does not know the purpose of an entry.
    assert_eq!(scene.server.sql("UPDATE delivery_queue SET purpose = NULL").await, 1);
    let asked = scene.ehr.asked().len();
    assert_eq!(after(&scene, 6).await, 0, "nothing is sent");
    assert_eq!(scene.ehr.asked().len(), asked + 1);
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    // It died after it had marked the delivery. A replica of this version then takes the check for a delivery.
    let marked = scene.server.sql("UPDATE deliveries SET state = 'sending', attempts = attempts + 1").await;
    assert_eq!(marked, 1);
    assert_eq!(after(&scene, 6).await, 0, "nothing is sent");
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    after(&scene, 6).await;
    assert_eq!(scene.server.count("SELECT count(*) FROM deliveries WHERE NOT maybe_sent").await, 1);
    assert_eq!(scene.server.count("SELECT count(*) FROM delivery_queue").await, 0);
    assert_eq!(scene.ehr.kept().len(), 1);
});

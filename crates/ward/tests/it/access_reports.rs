//! Reports of access: reads of patient data, one principal's deeds, and the keys that may enter.

use serde_json::{Value, json};
use ward_test::{Fields as _, Server, Tenant, both};

async fn report(tenant: &Tenant, path: &str) -> Value {
    tenant.get(path).await.ok()
}

fn actions(page: &Value) -> Vec<&str> {
    let events = page.list("events");
    events.iter().map(|event| event.text("action")).collect()
}

/// The principal that a minted key speaks for.
async fn entity_of(tenant: &Tenant, minted: &Value) -> String {
    let review = report(tenant, "/compliance/access-review").await;
    let keys = review.list("credentials").iter();
    let mut of_key = keys.filter(|key| key["key_id"] == minted["key_id"]);
    of_key.next().expect("the key").text("entity_id").to_owned()
}

both!(reports_of_access, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (nurse, minted) =
        tenant.key(json!({ "duration_days": 30, "role": "operator", "name": "nurse" })).await;
    let (doctor, of_doctor) = tenant.key(json!({ "duration_days": 30, "role": "member" })).await;
    let call = json!({ "status": "completed", "caller_id": "+15550100001", "direction": "inbound" });
    nurse.put(&tenant.path("/calls/CA1"), call).await.ok();
    assert_eq!(report(&tenant, "/audit/phi-access").await["total"], 0);
    for reader in [&nurse, &doctor, &doctor] {
        reader.get(&tenant.path("/calls/CA1")).await.ok();
    }
    let nurse_id = entity_of(&tenant, &minted).await;
    let doctor_id = entity_of(&tenant, &of_doctor).await;

    let all = report(&tenant, "/audit/phi-access").await;
    assert_eq!((actions(&all), &all["total"]), (vec!["call.read"; 3], &json!(3)));
    let page = report(&tenant, "/audit/phi-access?limit=2&offset=1").await;
    assert_eq!((actions(&page).len(), &page["has_more"]), (2, &json!(false)));
    let by_doctor = report(&tenant, &format!("/audit/phi-access?entity_id={doctor_id}")).await;
    assert_eq!(by_doctor["total"], 2);
    assert!(by_doctor.list("events").iter().all(|event| event["actor_entity_id"] == doctor_id));
    let before = report(&tenant, "/audit/phi-access?date_to=2000-01-01T00:00:00Z").await;
    assert_eq!(before["total"], 0);

    let log = report(&tenant, &format!("/audit/entity/{nurse_id}/access-log")).await;
    assert_eq!(actions(&log)[0], "call.read", "{log}");
    let done = log.list("events");
    assert!(done.len() > 1 && done.iter().all(|event| event["actor_entity_id"] == nurse_id), "{log}");
    let narrowed = format!("/audit/entity/{nurse_id}/access-log?date_to=2000-01-01T00:00:00Z");
    assert_eq!(report(&tenant, &narrowed).await["total"], 0, "known, and nothing in that time");
    let other = server.tenant("other").await;
    for stranger in ["6ba7b810-9dad-41d1-80b4-00c04fd430c8", "no-id", &nurse_id] {
        let path = format!("/audit/entity/{stranger}/access-log");
        let asked = if stranger == nurse_id { &other } else { &tenant };
        asked.owner.get(&asked.path(&path)).await.refused(404);
    }
    // A member that did nothing yet is known.
    let (_, quiet) = tenant.key(json!({ "duration_days": 30, "role": "viewer" })).await;
    let quiet_id = entity_of(&tenant, &quiet).await;
    assert_eq!(report(&tenant, &format!("/audit/entity/{quiet_id}/access-log")).await["total"], 0);

    let review = report(&tenant, "/compliance/access-review").await;
    assert_eq!(review.fields(["workspace_id", "total_credentials"]), json!([tenant.id, 4]));
    let credentials = review.list("credentials");
    let nurse_key =
        credentials.iter().find(|key| key["key_id"] == minted["key_id"]).expect("the nurse's key");
    assert_eq!(
        nurse_key.fields(["name", "role", "entity_id", "entity_kind"]),
        json!(["nurse", "operator", nurse_id, "service"])
    );
    assert_eq!(nurse_key["is_expired"], false);
    server.clock.advance(std::time::Duration::from_hours(24 * 31));
    let later = report(&tenant, "/compliance/access-review").await;
    let expired = later.list("credentials").iter();
    assert_eq!(expired.filter(|key| key["is_expired"] == true).count(), 3);
    let text = later.to_string();
    assert!(!text.contains("secret") && !text.contains("hash"), "{text}");
});

//! Reports of calls: the visibility of people in answers, the time of deliveries, and late additions.

use std::time::Duration;

use serde_json::{Value, json};
use ward::app::App;
use ward::config::{FormerKey, MasterKey};
use ward_test::ehr::{Act, ScriptedEhr};
use ward_test::{Fields as _, Server, both};

use crate::calls::{callback, connect, event, finished, put, reported, set_test_callers, with_twilio};
use crate::deliveries::{PATIENT, Scene, TESTER, configure, worker};

both!(a_caller_who_may_only_report_calls_learns_nothing_of_them, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let body = json!({ "duration_days": 1, "role": "operator", "permissions": ["Call.create"] });
    let (reporter, _) = tenant.key(body).await;
    let mut known = finished(PATIENT);
    let more = json!({ "patient_id": "pat-1", "summary": "A refill.", "phone_number": "+15550109999" });
    known.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    put(&tenant, "CA1", known.clone()).await;

    let path = tenant.path("/calls/CA1");
    let again = json!({ "status": "completed" });
    let told = reporter.put(&path, again.clone()).await.ok();
    assert_eq!(told["status"], "completed");
    for field in ["caller_id", "patient_id", "summary", "phone_number"] {
        assert_eq!(told[field], Value::Null, "{field}");
    }
    assert!(tenant.audit().await.iter().all(|event| event["phi_accessed"] == false));
    // Of a new call they see their own report.
    let told = reporter.put(&tenant.path("/calls/CA2"), known).await.ok();
    assert_eq!(told.fields(["caller_id", "patient_id"]), json!([PATIENT, "pat-1"]));

    // A caller who may view calls sees the people here too, and the audit log records that.
    let told = tenant.owner.put(&path, again).await.ok();
    assert_eq!(told.fields(["caller_id", "patient_id"]), json!([PATIENT, "pat-1"]));
    let read: Vec<Value> =
        tenant.audit().await.into_iter().filter(|event| event["phi_accessed"] == true).collect();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].fields(["action", "resource_id"]), json!(["call.read", told["entity_id"]]));
});

both!(reading_an_ehrs_answer_is_recorded, async || {
    let Scene { server, tenant, ehr, .. } = Scene::of("fhir_store").await;
    ehr.script([Act::Say(422, json!({ "issue": [{ "diagnostics": "Ada Lovelace is no patient" }] }), "")]);
    let call = put(&tenant, "CA1", finished(PATIENT)).await;
    worker(&server.app).turn().await;
    let one = tenant.path(&format!("/deliveries/{}", call["sync"].text("delivery_id")));
    let viewer = tenant.service("viewer").await;
    for path in [&tenant.path("/deliveries"), &one] {
        viewer.get(path).await.refused(403);
    }
    assert!(tenant.audit().await.iter().all(|event| event["phi_accessed"] == false));
    let member = tenant.service("member").await;
    assert!(member.get(&one).await.text.contains("Ada Lovelace"));
    member.get(&tenant.path("/deliveries")).await.ok();
    let read: Vec<Value> =
        tenant.audit().await.into_iter().filter(|event| event["phi_accessed"] == true).collect();
    let actions: Vec<&Value> = read.iter().map(|event| &event["action"]).collect();
    assert_eq!(actions, ["delivery.list", "delivery.read"]);
    assert!(!read.iter().any(|event| event.to_string().contains("Lovelace")));
});

both!(a_call_that_twilio_ends_waits_a_little_for_the_runtimes_report, async || {
    let (server, tenant) = with_twilio().await;
    let ehr = ScriptedEhr::start().await;
    connect(&tenant, "fhir_store").await;
    configure(&server, &tenant, &ehr.url(), true).await;
    let worker = worker(&server.app);
    for sid in ["CA1", "CA2"] {
        callback(&server, &tenant, &event(sid, "completed", PATIENT)).await.no_content();
    }
    server.clock.advance(Duration::from_secs(119));
    worker.turn().await;
    assert_eq!(ehr.asked().len(), 0);
    // The runtime's report starts the delivery at once, with its content.
    let last = json!({ "status": "completed", "summary": "A refill.", "patient_id": "pat-1" });
    put(&tenant, "CA1", last.clone()).await;
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 1);
    assert_eq!(ehr.kept()[0]["subject"]["reference"], "Patient/pat-1");
    // The wait has an end.
    server.clock.advance(Duration::from_secs(1));
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 2);
    // A second report of the runtime does not speed up a delivery that has failed and waits.
    ehr.script([Act::Say(503, Value::Null, "")]);
    put(&tenant, "CA3", finished(PATIENT)).await;
    worker.turn().await;
    let asked = ehr.asked().len();
    put(&tenant, "CA3", last).await;
    worker.turn().await;
    assert_eq!(ehr.asked().len(), asked);
});

both!(twilios_moments_say_when_a_call_ended_and_began, async || {
    let (server, tenant) = with_twilio().await;
    let mut over = event("CA1", "completed", PATIENT);
    over.extend([("CallDuration", "61"), ("Timestamp", "Sat, 18 Apr 2026 12:01:01 +0000")]);
    callback(&server, &tenant, &over).await.no_content();
    let call = reported(&server, &tenant, &event("CA1", "ringing", PATIENT)).await;
    assert_eq!(
        call.fields(["started_at", "ended_at"]),
        json!(["2026-04-18T12:00:00.000000Z", "2026-04-18T12:01:01.000000Z"])
    );
    // The runtime's start takes precedence, although it arrives late.
    let told = json!({ "status": "in-progress", "started_at": "2026-04-18T11:59:58Z" });
    let call = put(&tenant, "CA1", told).await;
    assert_eq!(call["started_at"], "2026-04-18T11:59:58.000000Z");
    let again = json!({ "status": "in-progress", "started_at": "2026-04-18T10:00:00Z" });
    assert_eq!(put(&tenant, "CA1", again).await["started_at"], "2026-04-18T11:59:58.000000Z");
});

both!(what_was_not_sent_is_named_only_where_it_could_have_been, async || {
    for (connector, named) in [
        ("fhir_store", json!("FHIR Communication")),
        ("epic", json!("FHIR DocumentReference")),
        ("hubspot", json!("HubSpot call")),
        ("athenahealth", json!("athenahealth patient case")),
        ("meditab", Value::Null),
    ] {
        let (_server, tenant) = Server::with_tenant().await;
        set_test_callers(&tenant, &[TESTER]).await;
        connect(&tenant, connector).await;
        let call = put(&tenant, "CA1", finished(TESTER)).await;
        assert_eq!(call["sync"].fields(["decision", "not_sent"]), json!(["excluded", named]));
    }
});

both!(a_rotation_of_keys_takes_twilios_tokens_along, async || {
    let (server, tenant) = with_twilio().await;
    server.app.check_master_key().await.unwrap();
    let beside = |current: u8, former: Vec<u8>| {
        let mut config = server.app.config.clone();
        config.master_key = MasterKey::Given([current; 32].into());
        config.former_master_keys = former.into_iter().map(|key| FormerKey([key; 32].into())).collect();
        App::on(config, server.app.db.clone(), server.clock.clone()).unwrap()
    };
    let anew = beside(8, vec![7]);
    anew.check_master_key().await.unwrap();
    ward::operator::rotate_secrets(&anew, |_| ()).await.unwrap();
    beside(7, Vec::new()).check_master_key().await.unwrap_err();
    let alone = beside(8, Vec::new());
    alone.check_master_key().await.unwrap();
    let sealed = alone
        .db
        .read("test.twilio", |tx| {
            tx.one("SELECT auth_token FROM twilio_accounts", &[], ward_db::decode::<Vec<u8>>)
        })
        .await
        .map_err(|error: ward_db::Error| error)
        .unwrap();
    let place = format!("workspace/{}/twilio/auth_token", tenant.id);
    assert!(alone.vault.open(&sealed, &place).is_ok());
});

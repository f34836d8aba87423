//! Lanes: what one integration's EHR does is no other's business, and who waits for somebody is woken by them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use ward::deliveries::worker::{Options, Step};
use ward_test::ehr::{Act, ScriptedEhr};
use ward_test::{Server, Tenant, both};

use crate::calls::{finished, put};
use crate::deliveries::{AMPLE, PATIENT, configure, connected, worker, worker_with};

async fn owe(tenant: &Tenant, sid: &str) -> String {
    let call = put(tenant, sid, finished(PATIENT)).await;
    call["sync"]["delivery_id"].as_str().unwrap().to_owned()
}

async fn delivery(tenant: &Tenant, id: &str) -> Value {
    tenant.owner.get(&tenant.path(&format!("/deliveries/{id}"))).await.expect(StatusCode::OK)
}

async fn lane(tenant: &Tenant) -> Value {
    let status = tenant.owner.get(&tenant.path("/sync")).await.expect(StatusCode::OK);
    status["integrations"][0].clone()
}

async fn change_integration(tenant: &Tenant, change: Value) {
    let listed = tenant.owner.get(&tenant.path("/integrations")).await.expect(StatusCode::OK);
    let path = tenant.path(&format!("/integrations/{}", listed["items"][0]["id"].as_str().unwrap()));
    tenant.owner.put(&path, change).await.expect(StatusCode::OK);
}

/// Options under which `act` happens once, at the first such step, while the worker waits for it.
fn at_first(step: Step, act: impl Fn() + Send + Sync + 'static) -> Options {
    let begun = AtomicBool::new(false);
    let on_step = move |now: Step| {
        if now == step && !begun.swap(true, Ordering::SeqCst) {
            tokio::task::block_in_place(&act);
        }
    };
    Options { on_step: Some(Arc::new(on_step)), ..Options::default() }
}

both!(a_hanging_ehr_holds_up_no_other_tenant, threads = 2);
async fn a_hanging_ehr_holds_up_no_other_tenant() {
    let server = Server::start().await;
    let (hanging, well) = (ScriptedEhr::start().await, ScriptedEhr::start().await);
    hanging.always(Some(Act::Hang));
    let slow = connected(&server, "fhir_store", &hanging.url()).await;
    let quick = connected(&server, "fhir_store", &well.url()).await;
    let stuck = owe(&slow, "CA1").await;
    // So long that nothing here waits for its end.
    let running =
        tokio::spawn(Arc::new(worker_with(&server.app, Duration::from_mins(5), Options::default())).run());
    hanging.until_asked(1).await;
    owe(&quick, "CA2").await;
    well.until_asked(1).await;
    assert_eq!(delivery(&slow, &stuck).await["state"], "sending", "the other is still being tried");
    assert_eq!(well.kept().len(), 1);
    running.abort();
}

/// So many tenants whose EHR never answers, each with a delivery that is due.
async fn silenced(server: &Server, count: usize) -> ScriptedEhr {
    let silent = ScriptedEhr::start().await;
    silent.always(Some(Act::Hang));
    for _ in 0..count {
        let tenant = connected(server, "fhir_store", &silent.url()).await;
        owe(&tenant, "CA1").await;
    }
    silent
}

/// Tries may last so long that no test waits for their end.
fn patient_worker(server: &Server, lanes: usize) -> tokio::task::JoinHandle<()> {
    let options = Options { lanes, ..Options::default() };
    tokio::spawn(Arc::new(worker_with(&server.app, Duration::from_mins(5), options)).run())
}

both!(many_silent_ehrs_hold_up_no_other_tenant, threads = 2);
async fn many_silent_ehrs_hold_up_no_other_tenant() {
    let server = Server::start().await;
    let silent = silenced(&server, 40).await;
    let well = ScriptedEhr::start().await;
    let quiet = connected(&server, "fhir_store", &well.url()).await;
    let running = patient_worker(&server, Options::default().lanes);
    silent.until_asked(32).await;
    owe(&quiet, "CA2").await;
    well.until_asked(1).await;
    silent.until_asked(40).await;
    running.abort();
}

both!(failing_ehrs_have_half_of_the_places_and_a_workspace_its_share, threads = 2);
async fn failing_ehrs_have_half_of_the_places_and_a_workspace_its_share() {
    let server = Server::start().await;
    let silent = silenced(&server, 12).await;
    server.sql("UPDATE sync_lanes SET failures = 1").await;
    let well = ScriptedEhr::start().await;
    let quiet = connected(&server, "fhir_store", &well.url()).await;
    let running = patient_worker(&server, 8);
    silent.until_asked(4).await;
    for index in 0..3 {
        owe(&quiet, &format!("CA{index}")).await;
        well.until_asked(index + 1).await;
    }
    assert_eq!(silent.asked().len(), 4, "the other half stays free");
    running.abort();
}

both!(a_look_sees_past_any_number_of_lanes_that_wait_for_a_place, threads = 2);
async fn a_look_sees_past_any_number_of_lanes_that_wait_for_a_place() {
    let server = Server::start().await;
    let silent = silenced(&server, 4).await;
    server.sql("UPDATE sync_lanes SET failures = 1").await;
    let well = ScriptedEhr::start().await;
    let quiet = connected(&server, "fhir_store", &well.url()).await;
    let running = patient_worker(&server, 8);
    silent.until_asked(4).await;
    // More than one look reads, all of them due before the quiet tenant's.
    let lanes: Vec<String> = (0..1_200)
        .map(|index| {
            let id = format!("uuid '01900000-0000-7000-8000-{index:012}'");
            let long_ago = "timestamptz '2000-01-01T00:00:00.000000Z'";
            format!("({id}, {id}, {long_ago}, {long_ago}, {long_ago}, false, 1)")
        })
        .collect();
    let columns = "workspace_id, integration_id, due_at, not_before, lease_until, held, failures";
    server.sql(format!("INSERT INTO sync_lanes ({columns}) VALUES {}", lanes.join(", "))).await;
    owe(&quiet, "CA1").await;
    well.until_asked(1).await;
    assert_eq!(silent.asked().len(), 4);
    running.abort();
}

both!(of_one_integration_only_so_many_are_sent_at_once, threads = 2);
async fn of_one_integration_only_so_many_are_sent_at_once() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    ehr.always(Some(Act::TakeSlowly));
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    for index in 0..12 {
        owe(&tenant, &format!("CA{index}")).await;
    }
    let options = Options { concurrency: 3, ..Options::default() };
    assert_eq!(worker_with(&server.app, AMPLE, options).turn().await, 12);
    assert_eq!((ehr.kept().len(), ehr.most_at_once()), (12, 3));
}

both!(a_worker_told_to_stop_finishes_what_is_under_way_and_begins_nothing, threads = 2);
async fn a_worker_told_to_stop_finishes_what_is_under_way_and_begins_nothing() {
    let server = Server::with(|config| {
        config.outbound.allow = vec!["127.0.0.0/8".parse().unwrap()];
        config.outbound.plain_http = true;
    })
    .await;
    let ehr = ScriptedEhr::start().await;
    ehr.always(Some(Act::TakeSlowly));
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    for index in 0..40 {
        owe(&tenant, &format!("CA{index}")).await;
    }
    server.app.start_background();
    ehr.until_asked(1).await;
    server.app.finish_deliveries().await;
    let (kept, asked) = (ehr.kept().len(), ehr.asked().len());
    assert!((1..40).contains(&kept), "{kept}");
    let count = async |sql: &str| usize::try_from(server.count(sql).await).unwrap();
    assert_eq!(count("SELECT count(*) FROM deliveries WHERE state = 'synced'").await, kept);
    // Nothing is left marked, so nothing has to be looked for after the restart.
    assert_eq!(count("SELECT count(*) FROM deliveries WHERE state = 'sending' OR maybe_sent").await, 0);
    assert_eq!(count("SELECT count(*) FROM sync_lanes WHERE lease_token IS NOT NULL").await, 0);
    ehr.always(None);
    let next = worker(&server.replica().await.app);
    while next.turn().await > 0 {}
    assert_eq!((ehr.kept().len(), ehr.asked().len() - asked), (40, 40 - kept), "and no search was made");
}

both!(what_never_left_is_sent_later_without_a_search);
async fn what_never_left_is_sent_later_without_a_search() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    // As most charts: no search by identifier.
    ehr.on_search(Some(Act::Say(400, Value::Null, "")));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let tenant = connected(&server, "fhir_store", &format!("http://{nobody}/fhir")).await;
    let worker = worker(&server.app);
    let id = owe(&tenant, "CA1").await;
    worker.turn().await;
    let tried = delivery(&tenant, &id).await;
    assert_eq!((&tried["state"], &tried["reason"]), (&json!("pending"), &json!("unreachable")));
    assert_eq!(tried["maybe_sent"], false);
    configure(&server, &tenant, &ehr.url(), true).await;
    server.clock.advance(Duration::from_hours(1));
    worker.turn().await;
    assert_eq!(delivery(&tenant, &id).await["state"], "synced");
    assert_eq!((ehr.asked().len(), ehr.kept().len()), (1, 1));
}

both!(what_a_person_found_in_the_ehr_decides);
async fn what_a_person_found_in_the_ehr_decides() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    ehr.on_search(Some(Act::Say(400, Value::Null, "")));
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    let worker = worker(&server.app);
    let mut held = Vec::new();
    for (sid, act) in [("CA-there", Act::TakeAndReset), ("CA-not", Act::Reset)] {
        ehr.script([act]);
        held.push(owe(&tenant, sid).await);
        for _ in 0..2 {
            worker.turn().await;
            server.clock.advance(Duration::from_hours(1));
        }
    }
    for id in &held {
        assert_eq!(delivery(&tenant, id).await["reason"], "cannot_tell");
        // Trying again by itself tells nothing new.
        let retry = tenant.path(&format!("/deliveries/{id}/retry"));
        tenant.owner.post(&retry, json!({})).await.expect(StatusCode::OK);
        worker.turn().await;
        assert_eq!(delivery(&tenant, id).await["reason"], "cannot_tell");
    }
    let resolve = async |id: &str, body: Value| {
        tenant.owner.post(&tenant.path(&format!("/deliveries/{id}/resolve")), body).await
    };
    let there = resolve(&held[0], json!({ "in_ehr": true, "location": "Communication/1" })).await;
    assert_eq!(there.expect(StatusCode::OK)["state"], "synced");
    let missing = resolve(&held[1], json!({ "in_ehr": false })).await.expect(StatusCode::OK);
    assert_eq!(missing["state"], "pending");
    server.clock.advance(Duration::from_hours(1));
    worker.turn().await;
    let [there, missing] = [delivery(&tenant, &held[0]).await, delivery(&tenant, &held[1]).await];
    assert_eq!((&there["state"], &there["location"]), (&json!("synced"), &json!("Communication/1")));
    assert_eq!((&missing["state"], &missing["location"]), (&json!("synced"), &json!("Communication/2")));
    assert!(ehr.counts().values().all(|count| *count == 1) && ehr.kept().len() == 2);
    assert_eq!(resolve(&held[0], json!({ "in_ehr": false })).await.refused(409), "already_synced");
    let audited = tenant.audit().await;
    let resolved: Vec<(&Value, &Value, &Value)> = audited
        .iter()
        .filter(|event| event["action"] == "delivery.resolve")
        .map(|event| &event["metadata"])
        .map(|what| (&what["reason"], &what["in_ehr"], &what["location"]))
        .collect();
    let told = json!("cannot_tell");
    assert_eq!(
        resolved,
        [(&told, &json!(false), &Value::Null), (&told, &json!(true), &json!("Communication/1"))]
    );
    let stranger = server.tenant("other").await;
    let path = stranger.path(&format!("/deliveries/{}/resolve", held[1]));
    assert_eq!(
        stranger.owner.post(&path, json!({ "in_ehr": true })).await.refused(404),
        "delivery_not_found"
    );
}

both!(a_try_that_cannot_be_settled_is_not_repeated_at_once);
async fn a_try_that_cannot_be_settled_is_not_repeated_at_once() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    let worker = worker(&server.app);
    owe(&tenant, "CA1").await;
    server.sql("ALTER TABLE deliveries RENAME COLUMN location TO mislaid").await;
    assert_eq!(worker.turn().await, 0, "nothing was settled");
    let asked = ehr.asked().len();
    for _ in 0..3 {
        worker.turn().await;
    }
    assert_eq!(ehr.asked().len(), asked, "it is let alone for a while");
    server.sql("ALTER TABLE deliveries RENAME COLUMN mislaid TO location").await;
    server.clock.advance(Duration::from_hours(1));
    worker.turn().await;
    assert_eq!(lane(&tenant).await["synced"], 1);
    assert_eq!(ehr.kept().len(), 1);
}

both!(a_patient_who_becomes_known_during_the_try_is_not_missed, threads = 2);
async fn a_patient_who_becomes_known_during_the_try_is_not_missed() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = Arc::new(connected(&server, "epic", &ehr.url()).await);
    let id = owe(&tenant, "CA1").await;
    let (there, runtime) = (tenant.clone(), tokio::runtime::Handle::current());
    let options = at_first(Step::Leased, move || {
        let matched = json!({ "status": "completed", "patient_id": "pat-1" });
        runtime.block_on(put(&there, "CA1", matched));
    });
    let worker = worker_with(&server.app, AMPLE, options);
    worker.turn().await;
    worker.turn().await;
    assert_eq!(delivery(&tenant, &id).await["state"], "synced");
    assert_eq!(ehr.kept()[0]["subject"]["reference"], "Patient/pat-1");
}

both!(a_fix_that_is_saved_while_a_try_fails_is_not_overlooked, threads = 2);
async fn a_fix_that_is_saved_while_a_try_fails_is_not_overlooked() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = Arc::new(connected(&server, "fhir_store", &ehr.url()).await);
    ehr.script([Act::Say(401, Value::Null, "")]);
    let id = owe(&tenant, "CA1").await;
    let (there, runtime) = (tenant.clone(), tokio::runtime::Handle::current());
    let options = at_first(Step::Sent, move || {
        runtime.block_on(change_integration(&there, json!({ "display_name": "Put right" })));
    });
    let worker = worker_with(&server.app, AMPLE, options);
    worker.turn().await;
    assert_eq!(lane(&tenant).await["held"], false);
    worker.turn().await;
    assert_eq!(delivery(&tenant, &id).await["state"], "synced");
}

both!(who_changes_what_a_lane_waits_for_wakes_it);
async fn who_changes_what_a_lane_waits_for_wakes_it() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    let worker = worker(&server.app);
    change_integration(&tenant, json!({ "enabled": false })).await;
    owe(&tenant, "CA1").await;
    worker.turn().await;
    assert_eq!(lane(&tenant).await["waits_because"], "integration_disabled");
    // It costs nothing until then.
    let writes = server.app.db.stats().writes;
    for _ in 0..29 {
        server.clock.advance(Duration::from_mins(1));
        worker.turn().await;
    }
    assert_eq!(server.app.db.stats().writes, writes);
    change_integration(&tenant, json!({ "enabled": true })).await;
    worker.turn().await;
    assert_eq!((ehr.kept().len(), &lane(&tenant).await["waits_because"]), (1, &Value::Null));

    // The same for refused credentials, and for a workspace that comes back.
    ehr.script([Act::Say(401, Value::Null, "")]);
    owe(&tenant, "CA2").await;
    worker.turn().await;
    assert_eq!(lane(&tenant).await["held_because"], "unauthorized");
    change_integration(&tenant, json!({ "display_name": "Put right" })).await;
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 2);
    owe(&tenant, "CA3").await;
    tenant.archive().await;
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 2);
    ward::operator::restore_workspace(&server.app, &tenant.slug).await.unwrap();
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 3);
}

both!(what_is_held_while_a_batch_is_under_way_does_not_go, threads = 2);
async fn what_is_held_while_a_batch_is_under_way_does_not_go() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = Arc::new(connected(&server, "fhir_store", &ehr.url()).await);
    for index in 0..5 {
        owe(&tenant, &format!("CA{index}")).await;
    }
    let lane = lane(&tenant).await;
    let hold = tenant.path(&format!("/sync/{}/hold", lane["integration_id"].as_str().unwrap()));
    let (there, path, runtime) = (tenant.clone(), hold.clone(), tokio::runtime::Handle::current());
    let options = at_first(Step::Leased, move || {
        runtime
            .block_on(async { there.owner.put(&path, json!({ "held": true })).await.expect(StatusCode::OK) });
    });
    let worker = worker_with(&server.app, AMPLE, options);
    worker.turn().await;
    assert_eq!(ehr.asked().len(), 0);
    tenant.owner.put(&hold, json!({ "held": false })).await.expect(StatusCode::OK);
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 5);
}

both!(time_in_which_nothing_could_be_tried_does_not_count);
async fn time_in_which_nothing_could_be_tried_does_not_count() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    let worker = worker(&server.app);
    let words = json!({ "resourceType": "OperationOutcome", "issue": [{ "code": "transient" }] });
    ehr.always(Some(Act::Say(503, words.clone(), "")));
    let id = owe(&tenant, "CA1").await;
    worker.turn().await;
    // Two days without a try, for each reason that there is.
    for reason in ["hold", "disabled", "archived"] {
        let on = lane(&tenant).await;
        let hold = tenant.path(&format!("/sync/{}/hold", on["integration_id"].as_str().unwrap()));
        match reason {
            "hold" => {
                tenant.owner.put(&hold, json!({ "held": true })).await.expect(StatusCode::OK);
            }
            "disabled" => change_integration(&tenant, json!({ "enabled": false })).await,
            _ => tenant.archive().await,
        }
        for _ in 0..2 {
            worker.turn().await;
            server.clock.advance(Duration::from_hours(24));
        }
        match reason {
            "hold" => {
                tenant.owner.put(&hold, json!({ "held": false })).await.expect(StatusCode::OK);
            }
            "disabled" => change_integration(&tenant, json!({ "enabled": true })).await,
            _ => {
                ward::operator::restore_workspace(&server.app, &tenant.slug).await.unwrap();
            }
        }
        let before = ehr.writes();
        worker.turn().await;
        assert!(ehr.asked().len() > before, "{reason}");
        let tried = delivery(&tenant, &id).await;
        assert_eq!((&tried["state"], &tried["outcome"]), (&json!("pending"), &words), "{reason}");
    }
    // A day of trying is a day of trying.
    for _ in 0..26 {
        server.clock.advance(Duration::from_hours(1));
        worker.turn().await;
    }
    let tried = delivery(&tenant, &id).await;
    assert_eq!((&tried["state"], &tried["reason"]), (&json!("failed"), &json!("tried_too_long")));
    // The last try may have arrived like the others, so the EHR is asked first.
    assert_eq!(tried["maybe_sent"], true);
}

both!(what_was_not_begun_stays_as_it_was);
async fn what_was_not_begun_stays_as_it_was() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    let words = json!({ "resourceType": "OperationOutcome", "issue": [] });
    ehr.script([Act::Say(503, words.clone(), "")]);
    let worker = worker_with(&server.app, AMPLE, Options { concurrency: 1, ..Options::default() });
    let id = owe(&tenant, "CA1").await;
    worker.turn().await;
    let before = delivery(&tenant, &id).await;
    // Another comes first and is throttled, so that the first, marked beside it, is not begun.
    ehr.always(Some(Act::Say(429, Value::Null, "retry-after: 7200\r\n")));
    server.sql("UPDATE delivery_queue SET due_at = created_at").await;
    server.sql("UPDATE sync_lanes SET due_at = not_before").await;
    owe(&tenant, "CA0").await;
    let first = "UPDATE delivery_queue SET due_at = timestamptz '2000-01-01T00:00:00.000000Z' WHERE delivery_id <> uuid";
    assert_eq!(server.sql(format!("{first} '{id}'")).await, 1);
    worker.turn().await;
    let after = delivery(&tenant, &id).await;
    for field in ["state", "reason", "outcome", "attempt_count", "maybe_sent", "attempts"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!((&after["reason"], &after["outcome"]), (&json!("server_error"), &words));
}

both!(a_pause_of_up_to_a_day_is_kept_and_of_no_more);
async fn a_pause_of_up_to_a_day_is_kept_and_of_no_more() {
    for (asked_for, hours) in [("7200", 2), ("999999999", 24)] {
        let server = Server::start().await;
        let ehr = ScriptedEhr::start().await;
        let tenant = connected(&server, "fhir_store", &ehr.url()).await;
        let worker = worker(&server.app);
        let header = if asked_for == "7200" { "retry-after: 7200\r\n" } else { "retry-after: 999999999\r\n" };
        ehr.script([Act::Say(429, Value::Null, header)]);
        owe(&tenant, "CA1").await;
        worker.turn().await;
        server.clock.advance(Duration::from_secs(hours * 3_600 - 1));
        worker.turn().await;
        assert_eq!(ehr.writes(), 1, "{asked_for}");
        server.clock.advance(Duration::from_secs(2));
        worker.turn().await;
        assert_eq!(ehr.kept().len(), 1, "{asked_for}");
    }
}

both!(only_what_arrived_is_a_success_and_the_oldest_is_the_oldest);
async fn only_what_arrived_is_a_success_and_the_oldest_is_the_oldest() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    let worker = worker(&server.app);
    ehr.script([Act::Say(422, Value::Null, "")]);
    owe(&tenant, "CA1").await;
    worker.turn().await;
    assert_eq!(lane(&tenant).await["last_success_at"], Value::Null);
    let first = owe(&tenant, "CA2").await;
    server.clock.advance(Duration::from_secs(90));
    for index in 3..8 {
        owe(&tenant, &format!("CA{index}")).await;
    }
    let shown = lane(&tenant).await;
    assert_eq!(shown["pending"], 6);
    assert_eq!(shown["oldest_pending_at"], delivery(&tenant, &first).await["created_at"]);
    worker.turn().await;
    let shown = lane(&tenant).await;
    assert!(shown["last_success_at"].is_string(), "{shown}");
    assert_eq!(shown["oldest_pending_at"], Value::Null);
}

both!(credentials_that_the_token_endpoint_refuses_hold_the_integration_and_lose_nothing);
async fn credentials_that_the_token_endpoint_refuses_hold_the_integration_and_lose_nothing() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    let auth = json!({ "type": "oauth2_client_credentials", "client_id": "ward",
                       "token_url": format!("http://{}/token", ehr.address),
                       "client_secret_value": { "value": "the-secret-of-this-test" } });
    change_integration(&tenant, json!({ "auth": auth })).await;
    let worker = worker(&server.app);
    ehr.script([Act::Say(401, json!({ "error": "invalid_client" }), "")]);
    let id = owe(&tenant, "CA1").await;
    worker.turn().await;
    assert_eq!(lane(&tenant).await["held_because"], "unauthorized");
    let tried = delivery(&tenant, &id).await;
    assert_eq!((&tried["state"], &tried["maybe_sent"]), (&json!("pending"), &json!(false)));
    server.clock.advance(Duration::from_hours(2));
    worker.turn().await;
    assert_eq!(ehr.asked().len(), 1, "nobody was asked again");
    let token = json!({ "access_token": "a-token", "token_type": "Bearer", "expires_in": 300 });
    ehr.script([Act::Say(200, token, "")]);
    change_integration(&tenant, json!({ "display_name": "Put right" })).await;
    worker.turn().await;
    assert_eq!(delivery(&tenant, &id).await["state"], "synced");
    assert_eq!(ehr.asked()[2].headers["authorization"], "Bearer a-token");
}

//! Integration queues: an EHR affects only its own queue, and a queue resumes as soon as its obstacle is removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use ward::deliveries::worker::{Options, Step};
use ward_test::ehr::{Act, ScriptedEhr};
use ward_test::{Fields as _, Server, Tenant, both, postgres_only};

use crate::calls::{finished, put};
use crate::deliveries::{AMPLE, PATIENT, Scene, configure, connected, worker, worker_with};
use crate::outbound::open_outbound;

async fn owe(tenant: &Tenant, sid: &str) -> String {
    let call = put(tenant, sid, finished(PATIENT)).await;
    call["sync"].text("delivery_id").to_owned()
}

async fn delivery(tenant: &Tenant, id: &str) -> Value {
    tenant.get(&format!("/deliveries/{id}")).await.ok()
}

async fn lane(tenant: &Tenant) -> Value {
    let status = tenant.get("/sync").await.ok();
    status["integrations"][0].clone()
}

async fn change_integration(tenant: &Tenant, change: Value) {
    let listed = tenant.get("/integrations").await.ok();
    let path = tenant.path(&format!("/integrations/{}", listed["items"][0].text("id")));
    tenant.owner.put(&path, change).await.ok();
}

/// Options that run `act` once, at the first occurrence of `step`, while the worker waits.
fn at_first(step: Step, act: impl Fn() + Send + Sync + 'static) -> Options {
    let begun = AtomicBool::new(false);
    let on_step = move |now: Step| {
        if now == step && !begun.swap(true, Ordering::SeqCst) {
            tokio::task::block_in_place(&act);
        }
    };
    Options { on_step: Some(Arc::new(on_step)), ..Options::default() }
}

both!(a_hanging_ehr_holds_up_no_other_tenant, threads = 2, async || {
    let server = Server::start().await;
    let (hanging, well) = (ScriptedEhr::start().await, ScriptedEhr::start().await);
    hanging.always(Some(Act::Hang));
    let slow = connected(&server, "fhir_store", &hanging.url()).await;
    let quick = connected(&server, "fhir_store", &well.url()).await;
    let stuck = owe(&slow, "CA1").await;
    // The time limit is so long that the test does not wait for it.
    let running =
        tokio::spawn(Arc::new(worker_with(&server.app, Duration::from_mins(5), Options::default())).run());
    hanging.until_asked(1).await;
    owe(&quick, "CA2").await;
    well.until_asked(1).await;
    assert_eq!(delivery(&slow, &stuck).await["state"], "sending", "the other attempt is still running");
    assert_eq!(well.kept().len(), 1);
    running.abort();
});

/// `count` tenants with a due delivery and an EHR that never answers.
async fn silenced(server: &Server, count: usize) -> ScriptedEhr {
    let silent = ScriptedEhr::start().await;
    silent.always(Some(Act::Hang));
    for _ in 0..count {
        let tenant = connected(server, "fhir_store", &silent.url()).await;
        owe(&tenant, "CA1").await;
    }
    silent
}

/// A running worker whose attempts may last longer than a test.
fn patient_worker(server: &Server, lanes: usize) -> tokio::task::JoinHandle<()> {
    let options = Options { lanes, ..Options::default() };
    tokio::spawn(Arc::new(worker_with(&server.app, Duration::from_mins(5), options)).run())
}

both!(many_silent_ehrs_hold_up_no_other_tenant, threads = 2, async || {
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
});

both!(failing_ehrs_get_half_of_the_places, threads = 2, async || {
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
});

postgres_only!(queues_not_known_as_quick_leave_connections_to_others, threads = 2, async || {
    let server = Server::start().await;
    let (well, other) = (ScriptedEhr::start().await, ScriptedEhr::start().await);
    let quiet = connected(&server, "fhir_store", &well.url()).await;
    let worker = Arc::new(worker_with(&server.app, AMPLE, Options::default()));
    owe(&quiet, "CA0").await;
    assert_eq!(worker.turn().await, 1, "the worker knows this queue as quick from now on");
    for _ in 0..20 {
        owe(&connected(&server, "fhir_store", &other.url()).await, "CA1").await;
    }
    // The work of the other queues waits in the database.
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let of_others =
        format!("SELECT 1::bigint FROM sync_lanes WHERE workspace_id <> uuid '{}' FOR UPDATE", quiet.id);
    let (db, mut locked) = (server.app.db.clone(), Some(locked));
    let holder = tokio::spawn(async move {
        db.write("test.lock", move |tx| {
            tx.all(&of_others, &[], ward_db::decode::<i64>)?;
            let _ = locked.take().map(|locked| locked.send(()));
            // The test drops its end when it fails.
            let _ = released.recv();
            Ok::<_, ward_db::Error>(())
        })
        .await
    });
    is_locked.await.unwrap();
    let running = tokio::spawn(worker.run());
    let waiting = async || {
        let locks = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        server.count(locks).await
    };
    while waiting().await < 2 {
        tokio::task::yield_now().await;
    }
    for index in 1..4 {
        owe(&quiet, &format!("CA{index}")).await;
        well.until_asked(index + 1).await;
    }
    assert_eq!(waiting().await, 2, "the others wait for their turn outside of the database");
    drop(release);
    holder.await.unwrap().unwrap();
    other.until_asked(20).await;
    running.abort();
});

both!(any_number_of_waiting_queues_does_not_hide_a_due_one, threads = 2, async || {
    let server = Server::start().await;
    let silent = silenced(&server, 4).await;
    server.sql("UPDATE sync_lanes SET failures = 1").await;
    let well = ScriptedEhr::start().await;
    let quiet = connected(&server, "fhir_store", &well.url()).await;
    let running = patient_worker(&server, 8);
    silent.until_asked(4).await;
    // More queues than one query reads, all of them due before the quiet tenant's.
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
});

both!(of_one_integration_only_so_many_are_sent_at_once, threads = 2, async || {
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
});

both!(a_worker_told_to_stop_finishes_what_is_under_way_and_begins_nothing, threads = 2, async || {
    let server = Server::with(|config| {
        open_outbound(config);
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
    // No delivery stays marked, so none needs a search after the restart.
    assert_eq!(count("SELECT count(*) FROM deliveries WHERE state = 'sending' OR maybe_sent").await, 0);
    assert_eq!(count("SELECT count(*) FROM sync_lanes WHERE lease_token IS NOT NULL").await, 0);
    ehr.always(None);
    let next = worker(&server.replica().await.app);
    while next.turn().await > 0 {}
    assert_eq!((ehr.kept().len(), ehr.asked().len() - asked), (40, 40 - kept), "no search was made");
});

both!(deliveries_that_were_not_begun_return_in_one_write, async || {
    let Scene { server, tenant, ehr, .. } = Scene::of("fhir_store").await;
    for index in 0..12 {
        owe(&tenant, &format!("CA{index}")).await;
    }
    ehr.script([Act::Say(401, Value::Null, "")]);
    let options = Options { concurrency: 1, ..Options::default() };
    let worker = worker_with(&server.app, AMPLE, options);
    let (settled, cost) = server.costs(worker.turn()).await;
    assert_eq!((settled, cost.writes), (1, 3), "the lease, one outcome, and the end of the lease");
    let count = async |sql: &str| server.count(sql).await;
    assert_eq!(count("SELECT count(*) FROM deliveries WHERE state = 'pending' AND attempts = 0").await, 11);
    assert_eq!(count("SELECT count(*) FROM deliveries WHERE state = 'sending' OR maybe_sent").await, 0);
    change_integration(&tenant, json!({ "display_name": "Put right" })).await;
    while worker.turn().await > 0 {}
    assert_eq!((ehr.kept().len(), ehr.asked().len()), (12, 13), "no search was made");
});

both!(a_request_that_was_never_sent_is_sent_later_without_a_search, async || {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    // Most charts have no search by identifier.
    ehr.on_search(Some(Act::Say(400, Value::Null, "")));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let tenant = connected(&server, "fhir_store", &format!("http://{nobody}/fhir")).await;
    let worker = worker(&server.app);
    let id = owe(&tenant, "CA1").await;
    worker.turn().await;
    let tried = delivery(&tenant, &id).await;
    assert_eq!(tried.fields(["state", "reason"]), json!(["pending", "unreachable"]));
    assert_eq!(tried["maybe_sent"], false);
    configure(&server, &tenant, &ehr.url(), true).await;
    server.clock.advance(Duration::from_hours(1));
    worker.turn().await;
    assert_eq!(delivery(&tenant, &id).await["state"], "synced");
    assert_eq!((ehr.asked().len(), ehr.kept().len()), (1, 1));
});

both!(a_persons_finding_in_the_ehr_resolves_a_delivery, async || {
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
        // A retry alone does not settle the outcome.
        let retry = tenant.path(&format!("/deliveries/{id}/retry"));
        tenant.owner.post(&retry, json!({})).await.ok();
        worker.turn().await;
        assert_eq!(delivery(&tenant, id).await["reason"], "cannot_tell");
    }
    let resolve = async |id: &str, body: Value| tenant.post(&format!("/deliveries/{id}/resolve"), body).await;
    let there = resolve(&held[0], json!({ "in_ehr": true, "location": "Communication/1" })).await;
    assert_eq!(there.ok()["state"], "synced");
    let missing = resolve(&held[1], json!({ "in_ehr": false })).await.ok();
    assert_eq!(missing["state"], "pending");
    server.clock.advance(Duration::from_hours(1));
    worker.turn().await;
    let [there, missing] = [delivery(&tenant, &held[0]).await, delivery(&tenant, &held[1]).await];
    assert_eq!(there.fields(["state", "location"]), json!(["synced", "Communication/1"]));
    assert_eq!(missing.fields(["state", "location"]), json!(["synced", "Communication/2"]));
    assert!(ehr.counts().values().all(|count| *count == 1) && ehr.kept().len() == 2);
    // A person may find that the EHR does not have a synced call. The worker cannot search in this EHR, so it sends
    // nothing, and the mistake makes no duplicate.
    resolve(&held[0], json!({ "in_ehr": true })).await.refused_as(409, "already_synced");
    assert_eq!(resolve(&held[0], json!({ "in_ehr": false })).await.ok()["state"], "pending");
    worker.turn().await;
    assert_eq!(delivery(&tenant, &held[0]).await.fields(["state", "reason"]), json!(["held", "cannot_tell"]));
    resolve(&held[0], json!({ "in_ehr": true, "location": "Communication/1" })).await.ok();
    assert!(ehr.counts().values().all(|count| *count == 1) && ehr.kept().len() == 2);
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
        [
            (&told, &json!(true), &json!("Communication/1")),
            (&json!("found_by_a_person"), &json!(false), &Value::Null),
            (&told, &json!(false), &Value::Null),
            (&told, &json!(true), &json!("Communication/1")),
        ]
    );
    let stranger = server.tenant("other").await;
    let path = stranger.path(&format!("/deliveries/{}/resolve", held[1]));
    stranger.owner.post(&path, json!({ "in_ehr": true })).await.refused_as(404, "delivery_not_found");
});

both!(an_attempt_that_cannot_be_stored_is_not_repeated_at_once, async || {
    let Scene { server, tenant, ehr, worker } = Scene::of("fhir_store").await;
    owe(&tenant, "CA1").await;
    server.sql("ALTER TABLE deliveries RENAME COLUMN location TO mislaid").await;
    assert_eq!(worker.turn().await, 0, "nothing was settled");
    let asked = ehr.asked().len();
    for _ in 0..3 {
        worker.turn().await;
    }
    assert_eq!(ehr.asked().len(), asked, "the queue pauses");
    server.sql("ALTER TABLE deliveries RENAME COLUMN mislaid TO location").await;
    server.clock.advance(Duration::from_hours(1));
    worker.turn().await;
    assert_eq!(lane(&tenant).await["synced"], 1);
    assert_eq!(ehr.kept().len(), 1);
});

both!(a_patient_who_is_matched_during_the_attempt_is_not_missed, threads = 2, async || {
    let Scene { server, tenant, ehr, .. } = Scene::of("epic").await;
    let tenant = Arc::new(tenant);
    let id = owe(&tenant, "CA1").await;
    let (there, runtime) = (tenant.clone(), tokio::runtime::Handle::current());
    let options = at_first(Step::Leased, move || {
        let matched = json!({ "status": "completed", "patient_id": "pat-1", "encounter_id": "enc-1" });
        runtime.block_on(put(&there, "CA1", matched));
    });
    let worker = worker_with(&server.app, AMPLE, options);
    worker.turn().await;
    worker.turn().await;
    assert_eq!(delivery(&tenant, &id).await["state"], "synced");
    assert_eq!(ehr.kept()[0]["subject"]["reference"], "Patient/pat-1");
});

both!(a_fix_that_is_saved_while_an_attempt_fails_is_not_missed, threads = 2, async || {
    let Scene { server, tenant, ehr, .. } = Scene::of("fhir_store").await;
    let tenant = Arc::new(tenant);
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
});

both!(removing_the_obstacle_of_a_queue_resumes_it, async || {
    let Scene { server, tenant, ehr, worker } = Scene::of("fhir_store").await;
    change_integration(&tenant, json!({ "enabled": false })).await;
    owe(&tenant, "CA1").await;
    worker.turn().await;
    assert_eq!(lane(&tenant).await["waits_because"], "integration_disabled");
    // A waiting queue causes no writes.
    let writes = server.app.db.stats().writes;
    for _ in 0..29 {
        server.clock.advance(Duration::from_mins(1));
        worker.turn().await;
    }
    assert_eq!(server.app.db.stats().writes, writes);
    change_integration(&tenant, json!({ "enabled": true })).await;
    worker.turn().await;
    assert_eq!((ehr.kept().len(), &lane(&tenant).await["waits_because"]), (1, &Value::Null));

    // Refused credentials and a restored workspace behave the same way.
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
});

both!(a_hold_during_a_batch_stops_the_batch, threads = 2, async || {
    let Scene { server, tenant, ehr, .. } = Scene::of("fhir_store").await;
    let tenant = Arc::new(tenant);
    for index in 0..5 {
        owe(&tenant, &format!("CA{index}")).await;
    }
    let lane = lane(&tenant).await;
    let hold = tenant.path(&format!("/sync/{}/hold", lane.text("integration_id")));
    let (there, path, runtime) = (tenant.clone(), hold.clone(), tokio::runtime::Handle::current());
    let options = at_first(Step::Leased, move || {
        runtime.block_on(async { there.owner.put(&path, json!({ "held": true })).await.ok() });
    });
    let worker = worker_with(&server.app, AMPLE, options);
    worker.turn().await;
    assert_eq!(ehr.asked().len(), 0);
    tenant.owner.put(&hold, json!({ "held": false })).await.ok();
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 5);
});

both!(time_without_possible_attempts_does_not_count, async || {
    let Scene { server, tenant, ehr, worker } = Scene::of("fhir_store").await;
    let words = json!({ "resourceType": "OperationOutcome", "issue": [{ "code": "transient" }] });
    ehr.always(Some(Act::Say(503, words.clone(), "")));
    let id = owe(&tenant, "CA1").await;
    worker.turn().await;
    // Two days without an attempt, for each reason.
    for reason in ["hold", "disabled", "archived"] {
        let on = lane(&tenant).await;
        let hold = tenant.path(&format!("/sync/{}/hold", on.text("integration_id")));
        match reason {
            "hold" => {
                tenant.owner.put(&hold, json!({ "held": true })).await.ok();
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
                tenant.owner.put(&hold, json!({ "held": false })).await.ok();
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
        assert_eq!(tried.fields(["state", "outcome"]), json!(["pending", words]), "{reason}");
    }
    // A day of attempts counts in full.
    for _ in 0..26 {
        server.clock.advance(Duration::from_hours(1));
        worker.turn().await;
    }
    let tried = delivery(&tenant, &id).await;
    assert_eq!(tried.fields(["state", "reason"]), json!(["failed", "tried_too_long"]));
    // The last attempt may have arrived, so the EHR is searched first.
    assert_eq!(tried["maybe_sent"], true);
});

both!(a_delivery_that_was_not_begun_stays_unchanged, async || {
    let Scene { server, tenant, ehr, .. } = Scene::of("fhir_store").await;
    let words = json!({ "resourceType": "OperationOutcome", "issue": [] });
    ehr.script([Act::Say(503, words.clone(), "")]);
    let worker = worker_with(&server.app, AMPLE, Options { concurrency: 1, ..Options::default() });
    let id = owe(&tenant, "CA1").await;
    worker.turn().await;
    let before = delivery(&tenant, &id).await;
    // Another delivery comes first and is throttled, so that the first one, though leased, is not begun.
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
    assert_eq!(after.fields(["reason", "outcome"]), json!(["server_error", words]));
});

both!(a_requested_pause_is_kept_for_at_most_a_day, async || {
    for (asked_for, hours) in [("7200", 2), ("999999999", 24)] {
        let Scene { server, tenant, ehr, worker } = Scene::of("fhir_store").await;
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
});

both!(the_status_shows_the_last_success_and_the_oldest_pending_delivery, async || {
    let Scene { server, tenant, ehr, worker } = Scene::of("fhir_store").await;
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
});

both!(credentials_that_the_token_endpoint_refuses_hold_the_integration_and_lose_nothing, async || {
    let Scene { server, tenant, ehr, .. } = Scene::of("fhir_store").await;
    let auth = json!({ "type": "oauth2_client_credentials", "client_id": "ward",
                       "token_url": format!("http://{}/token", ehr.address),
                       "client_secret_value": { "value": "the-secret-of-this-test" } });
    change_integration(&tenant, json!({ "auth": auth })).await;
    let worker = worker(&server.app);
    let refused = || Act::Say(401, json!({ "error": "invalid_client" }), "");
    ehr.script([refused(), refused()]);
    let id = owe(&tenant, "CA1").await;
    worker.turn().await;
    assert_eq!(lane(&tenant).await["held_because"], "unauthorized");
    let tried = delivery(&tenant, &id).await;
    assert_eq!(tried.fields(["state", "maybe_sent"]), json!(["pending", false]));
    server.clock.advance(Duration::from_secs(30));
    worker.turn().await;
    assert_eq!(ehr.asked().len(), 1, "the pause before the next try is not over");
    // However long the queue was paused, one try follows. It ends at the token endpoint.
    server.clock.advance(Duration::from_hours(2));
    for _ in 0..2 {
        worker.turn().await;
        assert_eq!(ehr.asked().len(), 2);
    }
    assert!(ehr.asked().iter().all(|asked| asked.target == "/token"));
    let token = json!({ "access_token": "a-token", "token_type": "Bearer", "expires_in": 300 });
    ehr.script([Act::Say(200, token, "")]);
    change_integration(&tenant, json!({ "display_name": "Put right" })).await;
    worker.turn().await;
    assert_eq!(delivery(&tenant, &id).await["state"], "synced");
    assert_eq!(ehr.asked()[3].headers["authorization"], "Bearer a-token");
});

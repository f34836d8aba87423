//! Deliveries: every owed call reaches the EHR exactly once, whatever the EHR does. No other call reaches it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ward::app::App;
use ward::deliveries::worker::{Options, Worker};
use ward_ehr::{Limits, Outbound, Tokens};
use ward_test::ehr::{Act, ScriptedEhr};
use ward_test::{Fields as _, Server, Tenant, both, fresh_slug};

use crate::calls::{connect, finished, put, set_test_callers};
use crate::support::pages;

pub const TESTER: &str = "+15550100001";
pub const PATIENT: &str = "+15550100002";

/// The time limit of an attempt: longer than an EHR that answers takes on the slowest machine.
pub const AMPLE: Duration = Duration::from_secs(30);

pub fn worker(app: &Arc<App>) -> Worker {
    worker_with(app, AMPLE, Options::default())
}

pub fn worker_with(app: &Arc<App>, total_time: Duration, options: Options) -> Worker {
    let limits = Limits {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        plain_http: true,
        total_time,
        ..Limits::default()
    };
    Worker::new(app.clone(), Outbound::new(limits).unwrap(), Tokens::default(), options)
}

/// A tenant whose connector is the EHR at this URL.
pub async fn connected(server: &Server, connector: &str, url: &str) -> Tenant {
    let tenant = server.tenant(&fresh_slug()).await;
    set_test_callers(&tenant, &[TESTER]).await;
    connect(&tenant, connector).await;
    configure(server, &tenant, url, true).await;
    tenant
}

/// Sets the base URL of the tenant's integration, without credentials.
pub async fn configure(server: &Server, tenant: &Tenant, url: &str, enabled: bool) {
    let now = server.clock.now();
    let set = format!(
        "UPDATE integrations SET base_url = '{url}', auth = NULL, enabled = {enabled}, updated_at = timestamptz '{now}' WHERE workspace_id = uuid '{}'",
        tenant.id
    );
    assert_eq!(server.sql(set).await, 1);
}

/// A server with one tenant, its scripted EHR and a worker.
pub struct Scene {
    pub server: Server,
    pub tenant: Tenant,
    pub ehr: ScriptedEhr,
    pub worker: Worker,
}

impl Scene {
    pub async fn of(connector: &str) -> Self {
        let server = Server::start().await;
        let ehr = ScriptedEhr::start().await;
        let tenant = connected(&server, connector, &ehr.url()).await;
        let worker = worker(&server.app);
        Self { server, tenant, ehr, worker }
    }

    /// Finishes a real call and gives its delivery's id.
    pub async fn owe(&self, sid: &str) -> String {
        let call = put(&self.tenant, sid, finished(PATIENT)).await;
        call["sync"].text("delivery_id").to_owned()
    }

    pub async fn delivery(&self, id: &str) -> Value {
        self.tenant.get(&format!("/deliveries/{id}")).await.ok()
    }

    pub async fn retry(&self, id: &str) -> ward_test::Answer {
        self.tenant.post(&format!("/deliveries/{id}/retry"), json!({})).await
    }

    pub async fn status(&self) -> Value {
        let status = self.tenant.get("/sync").await.ok();
        status["integrations"][0].clone()
    }

    /// Lets an hour pass and runs the worker, `count` times.
    pub async fn hours(&self, count: usize) {
        for _ in 0..count {
            self.server.clock.advance(Duration::from_hours(1));
            self.worker.turn().await;
        }
    }

    pub fn outcomes(delivery: &Value) -> Vec<&str> {
        delivery.texts("attempts", "outcome")
    }
}

both!(a_finished_real_call_becomes_one_resource_and_a_test_call_none, async || {
    let scene = Scene::of("fhir_store").await;
    let id = scene.owe("CA1").await;
    put(&scene.tenant, "CA2", finished(TESTER)).await;
    assert_eq!(scene.worker.turn().await, 1);
    assert_eq!(scene.worker.turn().await, 0);
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery.fields(["state", "location"]), json!(["synced", "Communication/1"]));
    assert_eq!(Scene::outcomes(&delivery), ["synced"]);
    let kept = scene.ehr.kept();
    assert_eq!(kept.len(), 1);
    let call = scene.tenant.get("/calls/CA1").await.ok();
    assert_eq!(kept[0]["identifier"][0]["system"], format!("urn:uuid:{}", scene.tenant.id));
    assert_eq!(kept[0]["identifier"][0]["value"], call["entity_id"]);
    assert_eq!(kept[0]["status"], "completed");
    assert_eq!(call["sync"]["state"], "synced");
    assert!(!scene.ehr.asked().iter().any(|asked| asked.body.contains(TESTER)));
    // Another report of the same call owes nothing more.
    put(&scene.tenant, "CA1", finished(PATIENT)).await;
    scene.hours(2).await;
    assert_eq!(scene.ehr.writes(), 1);
});

both!(each_answer_does_what_the_table_says, async || {
    let outcome = |code: &str| json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": "error", "code": code }] });
    let epic = |code: &str| {
        json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": "error", "code": "processing",
                "details": { "coding": [{ "code": code }] } }] })
    };
    let scene = Scene::of("fhir_store").await;
    let cases = [
        (201, Value::Null, "synced"),
        (200, Value::Null, "pending"),
        (400, outcome("invalid"), "failed"),
        (403, outcome("forbidden"), "failed"),
        (404, outcome("not-found"), "failed"),
        (405, Value::Null, "failed"),
        (410, Value::Null, "failed"),
        (413, Value::Null, "failed"),
        (422, outcome("business-rule"), "failed"),
        (301, Value::Null, "failed"),
        (408, Value::Null, "pending"),
        (429, Value::Null, "pending"),
        (500, Value::Null, "pending"),
        (502, Value::Null, "pending"),
        (503, outcome("transient"), "pending"),
        (504, Value::Null, "pending"),
        (400, outcome("throttled"), "pending"),
        (422, outcome("lock-error"), "pending"),
        (400, epic("4135"), "pending"),
        (400, epic("59141"), "pending"),
        (409, Value::Null, "pending"),
        (412, Value::Null, "pending"),
    ];
    for (index, (status, body, state)) in cases.into_iter().enumerate() {
        scene.ehr.script([Act::Say(status, body.clone(), "")]);
        let id = scene.owe(&format!("CA{index}")).await;
        scene.worker.turn().await;
        let delivery = scene.delivery(&id).await;
        assert_eq!(delivery["state"], state, "{status} {body}: {delivery}");
        if state == "failed" {
            assert_eq!(delivery["attempts"][0]["status"], status);
            assert_eq!(delivery["outcome"], body, "the EHR's own answer is kept");
            scene.retry(&id).await.ok();
        }
        // The EHR accepts again, and everything arrives.
        scene.hours(2).await;
        assert_eq!(scene.delivery(&id).await["state"], "synced", "{status} {body}");
    }
    assert!(scene.ehr.counts().values().all(|count| *count == 1));
});

both!(after_an_unknown_outcome_the_worker_searches_before_it_sends_again, async || {
    for (act, resent) in [
        (Act::TakeAndReset, false),
        (Act::TakeAndHang, false),
        (Act::TakeAndSay(500), false),
        (Act::TakeAndSay(409), false),
        (Act::Reset, true),
        (Act::Hang, true),
        (Act::Say(500, Value::Null, ""), true),
        (Act::Say(409, Value::Null, ""), true),
    ] {
        // HubSpot has no conditional create, so only the search prevents duplicates.
        for connector in ["fhir_store", "hubspot"] {
            let scene = Scene::of(connector).await;
            scene.ehr.script([act.clone()]);
            let id = scene.owe("CA1").await;
            // Only a hanging request uses up its time limit.
            let hangs = matches!(act, Act::Hang | Act::TakeAndHang);
            let time = if hangs { Duration::from_secs(1) } else { AMPLE };
            worker_with(&scene.server.app, time, Options::default()).turn().await;
            let first = scene.ehr.asked().len();
            scene.hours(2).await;
            let delivery = scene.delivery(&id).await;
            assert_eq!(delivery["state"], "synced", "{act:?} {connector}: {delivery}");
            assert_eq!(scene.ehr.kept().len(), 1, "{act:?} {connector}");
            assert_eq!(scene.ehr.writes(), 1 + usize::from(resent), "{act:?} {connector}");
            if let Some(next) = scene.ehr.asked().get(first) {
                let is_search = next.method == "GET" || next.target.ends_with("/search");
                assert!(is_search, "{act:?} {connector}: {next:?}");
            }
        }
    }
});

both!(a_duplicate_in_the_ehr_is_reported_with_the_oldest_resource, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::TakeAndReset]);
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    // Another client has written the same resource.
    let body = scene.ehr.asked()[0].body.clone();
    scene.ehr.script([Act::TakeTwice]);
    reqwest::Client::new()
        .post(format!("{}/Communication", scene.ehr.url()))
        .body(body)
        .send()
        .await
        .unwrap();
    scene.hours(2).await;
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery.fields(["state", "reason"]), json!(["failed", "duplicate"]));
    assert_eq!(delivery["outcome"], json!({ "oldest": "Communication/1", "count": 2 }));
});

both!(a_delivery_of_unknown_outcome_is_held_for_a_person, async || {
    for search in [
        Act::Say(400, Value::Null, ""),
        Act::Say(
            200,
            json!({ "resourceType": "Bundle", "entry": [
        { "resource": { "resourceType": "Communication", "id": "7" } }] }),
            "",
        ),
    ] {
        let scene = Scene::of("fhir_store").await;
        scene.ehr.script([Act::TakeAndReset]);
        scene.ehr.on_search(Some(search));
        let id = scene.owe("CA1").await;
        scene.hours(2).await;
        let delivery = scene.delivery(&id).await;
        assert_eq!(delivery.fields(["state", "reason"]), json!(["held", "cannot_tell"]));
        assert_eq!(scene.ehr.writes(), 1);
        scene.ehr.on_search(None);
        scene.retry(&id).await.ok();
        scene.worker.turn().await;
        assert_eq!(scene.delivery(&id).await["state"], "synced");
        assert_eq!(scene.ehr.writes(), 1);
    }
});

both!(after_a_day_of_attempts_a_delivery_fails_and_can_be_retried, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Say(503, json!({ "resourceType": "OperationOutcome", "issue": [] }), "")));
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    scene.hours(23).await;
    assert_eq!(scene.delivery(&id).await["state"], "pending");
    scene.hours(3).await;
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery.fields(["state", "reason"]), json!(["failed", "tried_too_long"]));
    assert_eq!(delivery["outcome"]["resourceType"], "OperationOutcome");
    assert_eq!(scene.status().await["failed"], 1);
    scene.ehr.always(None);
    let path = scene.tenant.path("/deliveries/retry-failed");
    let retried = scene.tenant.owner.post(&path, json!({})).await.ok();
    assert_eq!(retried, json!({ "retried": 1, "has_more": false }));
    scene.hours(2).await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    assert_eq!(scene.ehr.kept().len(), 1);
});

both!(a_failing_ehr_is_left_alone_and_keeps_its_queue, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Say(500, Value::Null, "")));
    for index in 0..20 {
        scene.owe(&format!("CA{index}")).await;
    }
    scene.worker.turn().await;
    // The circuit opens after five failures; requests in flight at the fifth may have been sent as well.
    let tried = scene.ehr.writes();
    assert!((5..9).contains(&tried), "{tried}");
    assert_eq!(scene.status().await.fields(["waits_because", "pending"]), json!(["failing", 20]));
    // Afterwards the worker sends a single trial request at a time.
    scene.server.clock.advance(Duration::from_hours(1));
    scene.worker.turn().await;
    assert_eq!(scene.ehr.writes(), tried + 1);
    scene.ehr.always(None);
    scene.hours(3).await;
    assert_eq!(scene.status().await.fields(["pending", "synced", "failures_in_a_row"]), json!([0, 20, 0]));
    assert!(scene.ehr.counts().values().all(|count| *count == 1));
});

both!(an_ehr_that_throttles_is_left_alone_for_as_long_as_it_asks, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::Say(429, Value::Null, "retry-after: 600\r\n")]);
    for index in 0..3 {
        scene.owe(&format!("CA{index}")).await;
        scene.worker.turn().await;
    }
    assert_eq!(scene.ehr.writes(), 1);
    assert_eq!(scene.status().await["waits_because"], "throttled");
    scene.server.clock.advance(Duration::from_secs(599));
    scene.worker.turn().await;
    assert_eq!(scene.ehr.writes(), 1);
    scene.server.clock.advance(Duration::from_secs(2));
    scene.worker.turn().await;
    assert_eq!(scene.ehr.kept().len(), 3);
});

both!(refused_credentials_pause_the_integration_and_lose_nothing, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Say(401, Value::Null, "")));
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    assert_eq!(scene.status().await.fields(["held", "held_because"]), json!([true, "unauthorized"]));
    scene.hours(30).await;
    // Each hour it was tried once more.
    assert_eq!((scene.ehr.writes(), scene.delivery(&id).await["state"].clone()), (31, json!("pending")));
    scene.ehr.always(None);
    configure(&scene.server, &scene.tenant, &scene.ehr.url(), true).await;
    scene.hours(2).await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
});

both!(held_disabled_and_archived_integrations_keep_their_deliveries, async || {
    let scene = Scene::of("fhir_store").await;
    let integration = scene.tenant.get("/integrations").await.ok();
    let hold = scene.tenant.path(&format!("/sync/{}/hold", integration["items"][0].text("id")));
    let held = scene.tenant.owner.put(&hold, json!({ "held": true })).await.ok();
    assert_eq!(held["integrations"][0]["held_because"], "operator");
    let id = scene.owe("CA1").await;
    scene.hours(3).await;
    assert_eq!(scene.status().await["waits_because"], "held");
    // A change of the integration does not release a hold that a person set.
    configure(&scene.server, &scene.tenant, &scene.ehr.url(), false).await;
    scene.hours(1).await;
    scene.tenant.owner.put(&hold, json!({ "held": false })).await.ok();
    scene.hours(1).await;
    assert_eq!(scene.status().await["waits_because"], "integration_disabled");
    configure(&scene.server, &scene.tenant, "", true).await;
    scene.hours(1).await;
    assert_eq!(scene.status().await["waits_because"], "integration_unconfigured");
    configure(&scene.server, &scene.tenant, &scene.ehr.url(), true).await;
    scene.tenant.archive().await;
    scene.hours(1).await;
    assert_eq!(scene.ehr.asked().len(), 0);
    let waiting = "SELECT count(*) FROM sync_lanes WHERE waits_because = 'workspace_archived'";
    assert_eq!(scene.server.count(waiting).await, 1);
    scene.server.sql("UPDATE workspaces SET state = 'active'").await;
    scene.hours(1).await;
    assert_eq!(scene.ehr.kept().len(), 1);
    let synced = format!("SELECT count(*) FROM deliveries WHERE state = 'synced' AND id = uuid '{id}'");
    assert_eq!(scene.server.count(synced).await, 1);
    let actions = scene.tenant.actions().await;
    for action in ["integration.hold", "integration.release"] {
        assert!(actions.contains(&action.to_owned()), "{actions:?}");
    }
});

both!(a_delivery_without_a_matched_patient_is_held, async || {
    let scene = Scene::of("epic").await;
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery.fields(["state", "reason"]), json!(["held", "unmatched_patient"]));
    assert_eq!(scene.ehr.asked().len(), 0);
    // The runtime matches the patient after the call, which releases the delivery.
    put(
        &scene.tenant,
        "CA1",
        json!({ "status": "completed", "patient_id": "pat-1", "encounter_id": "enc-1" }),
    )
    .await;
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["location"], "DocumentReference/1");
    assert_eq!(scene.ehr.kept()[0]["subject"]["reference"], "Patient/pat-1");
});

both!(hubspot_gets_a_call_object, async || {
    let scene = Scene::of("hubspot").await;
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["location"], "calls/1");
    let properties = scene.ehr.kept()[0]["properties"].clone();
    for (name, value) in [
        ("hs_call_direction", "INBOUND"),
        ("hs_call_status", "COMPLETED"),
        ("hs_call_duration", "61250"),
        ("hs_call_from_number", PATIENT),
    ] {
        assert_eq!(properties[name], value, "{name}");
    }
});

both!(a_connector_without_a_known_write_holds_its_deliveries, async || {
    let scene = Scene::of("meditab").await;
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["reason"], "connector_takes_no_calls");
    assert_eq!(scene.ehr.asked().len(), 0);
});

both!(deliveries_are_listed_by_state_with_paging, async || {
    let scene = Scene::of("fhir_store").await;
    for index in 0..5 {
        scene.owe(&format!("CA{index}")).await;
    }
    scene.ehr.script([Act::Say(422, Value::Null, "")]);
    scene.worker.turn().await;
    let list = async |query: &str| scene.tenant.get(&format!("/deliveries?{query}")).await.ok();
    assert_eq!(list("state=synced").await["total"], 4);
    assert_eq!(list("state=failed").await["items"][0]["reason"], "refused");
    assert_eq!(list("state=pending").await["total"], 0);
    let pages = pages(&scene.tenant.owner, &scene.tenant.path("/deliveries?limit=2")).await;
    let seen: Vec<&str> = pages.iter().flat_map(|page| page.texts("items", "call_sid")).collect();
    assert_eq!(seen, ["CA0", "CA1", "CA2", "CA3", "CA4"]);
    let failed = list("state=failed").await["items"][0].clone();
    let call = failed.text("call_id");
    assert_eq!(list(&format!("call_id={call}")).await["items"][0]["id"], failed["id"]);
    let synced = list("state=synced&limit=1").await["items"][0].text("id").to_owned();
    scene.retry(&synced).await.refused_as(409, "already_synced");
    let other = scene.server.tenant("other").await;
    let theirs = other.path(&format!("/deliveries/{synced}"));
    other.owner.get(&theirs).await.refused_as(404, "delivery_not_found");
    other.owner.post(&format!("{theirs}/retry"), json!({})).await.refused_as(404, "delivery_not_found");
});

/// Removes the database's constraints, as a faulty migration would, and forges a delivery of a test call.
pub async fn forge_a_delivery_of_a_test_call(server: &Server, tenant: &Tenant) {
    put(tenant, "CA-test", finished(TESTER)).await;
    server.sql("ALTER TABLE deliveries RENAME TO walled").await;
    server.sql("CREATE TABLE deliveries AS SELECT * FROM walled").await;
    let forged = "INSERT INTO deliveries (workspace_id, id, integration_id, call_id, direction, state, attempts, maybe_sent, \
                         position, created_at) \
                  SELECT c.workspace_id, c.id, i.id, c.id, 'inbound', 'pending', 0, false, 1, c.first_reported_at \
                  FROM calls c JOIN integrations i ON i.workspace_id = c.workspace_id WHERE c.direction = 'test'";
    assert_eq!(server.sql(forged).await, 1);
    let queued = "INSERT INTO delivery_queue (workspace_id, integration_id, delivery_id, due_at, created_at) \
                  SELECT workspace_id, integration_id, id, created_at, created_at FROM deliveries";
    assert_eq!(server.sql(queued).await, 1);
    let lane = "INSERT INTO sync_lanes (workspace_id, integration_id, due_at, not_before, lease_until, held, failures) \
                SELECT workspace_id, integration_id, created_at, created_at, created_at, false, 0 FROM deliveries";
    assert_eq!(server.sql(lane).await, 1);
}

both!(a_forged_delivery_of_a_test_call_is_stopped_at_dispatch, async || {
    let scene = Scene::of("fhir_store").await;
    forge_a_delivery_of_a_test_call(&scene.server, &scene.tenant).await;
    scene.worker.turn().await;
    assert_eq!(scene.ehr.asked().len(), 0);
    let listed = scene.tenant.get("/deliveries").await.ok();
    let delivery = &listed["items"][0];
    assert_eq!(delivery.fields(["state", "reason"]), json!(["failed", "not_a_real_call"]));
    // No retry can revive it.
    let id = delivery.text("id");
    scene.retry(id).await.refused_as(409, "not_a_real_call");
    let path = scene.tenant.path("/deliveries/retry-failed");
    let retried = scene.tenant.owner.post(&path, json!({})).await.ok();
    assert_eq!(retried["retried"], 0);
    scene.hours(3).await;
    assert_eq!(scene.ehr.asked().len(), 0);
});

both!(a_worker_that_outlives_its_lease_changes_nothing, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::Hang]);
    let id = scene.owe("CA1").await;
    let slow = worker_with(&scene.server.app, Duration::from_secs(3), Options::default());
    let (clock, other) = (scene.server.clock.clone(), worker(&scene.server.app));
    let (_, settled) = tokio::join!(slow.turn(), async {
        scene.ehr.until_asked(1).await;
        // For every other worker the lease has expired.
        clock.advance(Duration::from_mins(1));
        other.turn().await
    });
    assert_eq!(settled, 1);
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery["state"], "synced");
    assert_eq!(Scene::outcomes(&delivery), ["lost", "synced"]);
    assert_eq!(scene.ehr.kept().len(), 1);
});

both!(many_workers_and_a_failing_ehr_leave_one_resource_per_real_call, threads = 2, async || {
    let scene = Scene::of("fhir_store").await;
    let moods = [
        Act::Take,
        Act::TakeAndReset,
        Act::Say(500, Value::Null, ""),
        Act::Reset,
        Act::TakeAndSay(503),
        Act::Take,
        Act::Say(429, Value::Null, "retry-after: 1\r\n"),
        Act::Say(409, Value::Null, ""),
        Act::TakeAndSay(412),
        Act::Take,
    ];
    scene.ehr.script(moods.iter().cycle().take(120).cloned());
    for index in 0..60 {
        let caller = if index % 3 == 0 { TESTER } else { PATIENT };
        put(&scene.tenant, &format!("CA{index}"), finished(caller)).await;
    }
    let replica = scene.server.replica().await;
    let others = [worker(&replica.app), worker(&scene.server.app)];
    for _ in 0..60 {
        tokio::join!(scene.worker.turn(), others[0].turn(), others[1].turn());
        scene.server.clock.advance(Duration::from_mins(61));
        if scene.status().await["synced"] == 40 {
            break;
        }
    }
    assert_eq!(scene.status().await.fields(["synced", "pending", "failed"]), json!([40, 0, 0]));
    let counts = scene.ehr.counts();
    assert_eq!(counts.len(), 40);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert!(!scene.ehr.asked().iter().any(|asked| asked.body.contains(TESTER)));
});

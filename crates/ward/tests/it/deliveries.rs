//! Deliveries: what is owed gets to the EHR once, whatever the EHR does, and what is not owed never does.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward::app::App;
use ward::deliveries::worker::{Options, Worker};
use ward_ehr::{Limits, Outbound, Tokens};
use ward_test::ehr::{Act, ScriptedEhr};
use ward_test::{Server, Tenant, both, fresh_slug};

use crate::calls::{connect, finished, put, set_test_callers};

pub const TESTER: &str = "+15550100001";
pub const PATIENT: &str = "+15550100002";

/// A worker whose calls take no longer than this.
/// More time for a try than an EHR that answers takes on the slowest machine.
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

/// A tenant whose connector is this EHR.
pub async fn connected(server: &Server, connector: &str, url: &str) -> Tenant {
    let tenant = server.tenant(&fresh_slug()).await;
    set_test_callers(&tenant, &[TESTER]).await;
    connect(&tenant, connector).await;
    configure(server, &tenant, url, true).await;
    tenant
}

/// Points the tenant's integrations somewhere.
pub async fn configure(server: &Server, tenant: &Tenant, url: &str, enabled: bool) {
    let now = server.clock.now();
    let set = format!(
        "UPDATE integrations SET base_url = '{url}', auth = NULL, enabled = {enabled}, updated_at = timestamptz '{now}' WHERE workspace_id = uuid '{}'",
        tenant.id
    );
    assert_eq!(server.sql(set).await, 1);
}

/// What an EHR does, and a worker that has half a second for each call.
struct Scene {
    server: Server,
    tenant: Tenant,
    ehr: ScriptedEhr,
    worker: Worker,
}

impl Scene {
    async fn of(connector: &str) -> Self {
        let server = Server::start().await;
        let ehr = ScriptedEhr::start().await;
        let tenant = connected(&server, connector, &ehr.url()).await;
        let worker = worker(&server.app);
        Self { server, tenant, ehr, worker }
    }

    /// Finishes a real call and gives its delivery's id.
    async fn owe(&self, sid: &str) -> String {
        let call = put(&self.tenant, sid, finished(PATIENT)).await;
        call["sync"]["delivery_id"].as_str().unwrap().to_owned()
    }

    async fn delivery(&self, id: &str) -> Value {
        self.tenant.owner.get(&self.tenant.path(&format!("/deliveries/{id}"))).await.expect(StatusCode::OK)
    }

    async fn retry(&self, id: &str) -> ward_test::Answer {
        self.tenant.owner.post(&self.tenant.path(&format!("/deliveries/{id}/retry")), json!({})).await
    }

    async fn status(&self) -> Value {
        let status = self.tenant.owner.get(&self.tenant.path("/sync")).await.expect(StatusCode::OK);
        status["integrations"][0].clone()
    }

    /// Lets an hour pass and everything due be served, so often.
    async fn hours(&self, count: usize) {
        for _ in 0..count {
            self.server.clock.advance(Duration::from_hours(1));
            self.worker.turn().await;
        }
    }

    fn outcomes(delivery: &Value) -> Vec<&str> {
        delivery["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tried| tried["outcome"].as_str().unwrap())
            .collect()
    }
}

both!(a_finished_real_call_becomes_one_resource_and_a_test_call_none);
async fn a_finished_real_call_becomes_one_resource_and_a_test_call_none() {
    let scene = Scene::of("fhir_store").await;
    let id = scene.owe("CA1").await;
    put(&scene.tenant, "CA2", finished(TESTER)).await;
    assert_eq!(scene.worker.turn().await, 1);
    assert_eq!(scene.worker.turn().await, 0);
    let delivery = scene.delivery(&id).await;
    assert_eq!((&delivery["state"], &delivery["location"]), (&json!("synced"), &json!("Communication/1")));
    assert_eq!(Scene::outcomes(&delivery), ["synced"]);
    let kept = scene.ehr.kept();
    assert_eq!(kept.len(), 1);
    let call = scene.tenant.owner.get(&scene.tenant.path("/calls/CA1")).await.expect(StatusCode::OK);
    assert_eq!(kept[0]["identifier"][0]["system"], format!("urn:uuid:{}", scene.tenant.id));
    assert_eq!(kept[0]["identifier"][0]["value"], call["entity_id"]);
    assert_eq!(kept[0]["status"], "completed");
    assert_eq!(call["sync"]["state"], "synced");
    assert!(!scene.ehr.asked().iter().any(|asked| asked.body.contains(TESTER)));
    // The same call reported once more owes nothing more.
    put(&scene.tenant, "CA1", finished(PATIENT)).await;
    scene.hours(2).await;
    assert_eq!(scene.ehr.writes(), 1);
}

both!(each_answer_does_what_the_table_says);
async fn each_answer_does_what_the_table_says() {
    let outcome = |code: &str| json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": "error", "code": code }] });
    let epic = |code: &str| {
        json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": "error", "code": "processing",
                "details": { "coding": [{ "code": code }] } }] })
    };
    let scene = Scene::of("fhir_store").await;
    let cases = [
        (201, Value::Null, "synced"),
        (200, Value::Null, "synced"),
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
            assert_eq!(delivery["outcome"], body, "the EHR's own words are kept");
            scene.retry(&id).await.expect(StatusCode::OK);
        }
        // The EHR changes its mind, and everything arrives.
        scene.hours(2).await;
        assert_eq!(scene.delivery(&id).await["state"], "synced", "{status} {body}");
    }
    assert!(scene.ehr.counts().values().all(|count| *count == 1));
}

both!(after_an_unknown_outcome_the_ehr_is_asked_before_it_is_told_again);
async fn after_an_unknown_outcome_the_ehr_is_asked_before_it_is_told_again() {
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
        // HubSpot knows no conditional create, so only the search keeps it from having a call twice.
        for connector in ["fhir_store", "hubspot"] {
            let scene = Scene::of(connector).await;
            scene.ehr.script([act.clone()]);
            let id = scene.owe("CA1").await;
            // Only what hangs is waited for to the end of its time.
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
}

both!(a_call_that_the_ehr_has_twice_is_said_to_be_and_the_oldest_is_named);
async fn a_call_that_the_ehr_has_twice_is_said_to_be_and_the_oldest_is_named() {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::TakeAndReset]);
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    // Somebody else has written it as well.
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
    assert_eq!((&delivery["state"], &delivery["reason"]), (&json!("failed"), &json!("duplicate")));
    assert_eq!(delivery["outcome"], json!({ "oldest": "Communication/1", "count": 2 }));
}

both!(where_nobody_can_tell_a_person_is_asked);
async fn where_nobody_can_tell_a_person_is_asked() {
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
        assert_eq!((&delivery["state"], &delivery["reason"]), (&json!("held"), &json!("cannot_tell")));
        assert_eq!(scene.ehr.writes(), 1);
        scene.ehr.on_search(None);
        scene.retry(&id).await.expect(StatusCode::OK);
        scene.worker.turn().await;
        assert_eq!(scene.delivery(&id).await["state"], "synced");
        assert_eq!(scene.ehr.writes(), 1);
    }
}

both!(after_a_day_of_trying_a_delivery_is_a_dead_letter_that_can_be_raised);
async fn after_a_day_of_trying_a_delivery_is_a_dead_letter_that_can_be_raised() {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Say(503, json!({ "resourceType": "OperationOutcome", "issue": [] }), "")));
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    scene.hours(23).await;
    assert_eq!(scene.delivery(&id).await["state"], "pending");
    scene.hours(3).await;
    let delivery = scene.delivery(&id).await;
    assert_eq!((&delivery["state"], &delivery["reason"]), (&json!("failed"), &json!("tried_too_long")));
    assert_eq!(delivery["outcome"]["resourceType"], "OperationOutcome");
    assert_eq!(scene.status().await["failed"], 1);
    scene.ehr.always(None);
    let path = scene.tenant.path("/deliveries/retry-failed");
    let retried = scene.tenant.owner.post(&path, json!({})).await.expect(StatusCode::OK);
    assert_eq!(retried, json!({ "retried": 1, "has_more": false }));
    scene.hours(2).await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    assert_eq!(scene.ehr.kept().len(), 1);
}

both!(an_ehr_that_fails_is_let_alone_and_keeps_its_queue);
async fn an_ehr_that_fails_is_let_alone_and_keeps_its_queue() {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Say(500, Value::Null, "")));
    for index in 0..20 {
        scene.owe(&format!("CA{index}")).await;
    }
    scene.worker.turn().await;
    // It broke after five; those under way beside the fifth may have been sent as well.
    let tried = scene.ehr.writes();
    assert!((5..9).contains(&tried), "{tried}");
    let status = scene.status().await;
    assert_eq!((&status["waits_because"], &status["pending"]), (&json!("failing"), &json!(20)));
    // Then one goes ahead at a time, and only one.
    scene.server.clock.advance(Duration::from_hours(1));
    scene.worker.turn().await;
    assert_eq!(scene.ehr.writes(), tried + 1);
    scene.ehr.always(None);
    scene.hours(3).await;
    let status = scene.status().await;
    assert_eq!(
        (&status["pending"], &status["synced"], &status["failures_in_a_row"]),
        (&json!(0), &json!(20), &json!(0))
    );
    assert!(scene.ehr.counts().values().all(|count| *count == 1));
}

both!(who_throttles_is_let_alone_for_as_long_as_it_asks);
async fn who_throttles_is_let_alone_for_as_long_as_it_asks() {
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
}

both!(refused_credentials_pause_the_integration_and_lose_nothing);
async fn refused_credentials_pause_the_integration_and_lose_nothing() {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Say(401, Value::Null, "")));
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    let status = scene.status().await;
    assert_eq!((&status["held"], &status["held_because"]), (&json!(true), &json!("unauthorized")));
    scene.hours(30).await;
    assert_eq!((scene.ehr.writes(), scene.delivery(&id).await["state"].clone()), (1, json!("pending")));
    scene.ehr.always(None);
    configure(&scene.server, &scene.tenant, &scene.ehr.url(), true).await;
    scene.hours(2).await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
}

both!(what_is_held_disabled_or_archived_is_kept_and_not_sent);
async fn what_is_held_disabled_or_archived_is_kept_and_not_sent() {
    let scene = Scene::of("fhir_store").await;
    let integration =
        scene.tenant.owner.get(&scene.tenant.path("/integrations")).await.expect(StatusCode::OK);
    let hold = scene.tenant.path(&format!("/sync/{}/hold", integration["items"][0]["id"].as_str().unwrap()));
    let held = scene.tenant.owner.put(&hold, json!({ "held": true })).await.expect(StatusCode::OK);
    assert_eq!(held["integrations"][0]["held_because"], "operator");
    let id = scene.owe("CA1").await;
    scene.hours(3).await;
    assert_eq!(scene.status().await["waits_because"], "held");
    // A change of the integration does not undo what a person decided.
    configure(&scene.server, &scene.tenant, &scene.ehr.url(), false).await;
    scene.hours(1).await;
    scene.tenant.owner.put(&hold, json!({ "held": false })).await.expect(StatusCode::OK);
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
}

both!(a_chart_is_never_guessed);
async fn a_chart_is_never_guessed() {
    let scene = Scene::of("epic").await;
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    let delivery = scene.delivery(&id).await;
    assert_eq!((&delivery["state"], &delivery["reason"]), (&json!("held"), &json!("unmatched_patient")));
    assert_eq!(scene.ehr.asked().len(), 0);
    // The runtime matches the patient after the call, and what was held goes.
    put(&scene.tenant, "CA1", json!({ "status": "completed", "patient_id": "pat-1" })).await;
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["location"], "DocumentReference/1");
    assert_eq!(scene.ehr.kept()[0]["subject"]["reference"], "Patient/pat-1");
}

both!(hubspot_gets_a_call_object);
async fn hubspot_gets_a_call_object() {
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
}

both!(an_unknown_way_to_write_is_held_and_not_invented);
async fn an_unknown_way_to_write_is_held_and_not_invented() {
    let scene = Scene::of("athenahealth").await;
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["reason"], "connector_takes_no_calls");
    assert_eq!(scene.ehr.asked().len(), 0);
}

both!(deliveries_are_listed_by_state_with_paging);
async fn deliveries_are_listed_by_state_with_paging() {
    let scene = Scene::of("fhir_store").await;
    for index in 0..5 {
        scene.owe(&format!("CA{index}")).await;
    }
    scene.ehr.script([Act::Say(422, Value::Null, "")]);
    scene.worker.turn().await;
    let list = async |query: &str| {
        scene
            .tenant
            .owner
            .get(&scene.tenant.path(&format!("/deliveries?{query}")))
            .await
            .expect(StatusCode::OK)
    };
    assert_eq!(list("state=synced").await["total"], 4);
    assert_eq!(list("state=failed").await["items"][0]["reason"], "refused");
    assert_eq!(list("state=pending").await["total"], 0);
    let mut seen = Vec::new();
    let mut token = 0;
    loop {
        let page = list(&format!("limit=2&continuation_token={token}")).await;
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|one| one["call_sid"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["continuation_token"].as_i64() else { break };
        token = next;
    }
    assert_eq!(seen, ["CA0", "CA1", "CA2", "CA3", "CA4"]);
    let failed = list("state=failed").await["items"][0].clone();
    let call = failed["call_id"].as_str().unwrap();
    assert_eq!(list(&format!("call_id={call}")).await["items"][0]["id"], failed["id"]);
    let synced = list("state=synced&limit=1").await["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(scene.retry(&synced).await.refused(409), "already_synced");
    let other = scene.server.tenant("other").await;
    let theirs = other.path(&format!("/deliveries/{synced}"));
    assert_eq!(other.owner.get(&theirs).await.refused(404), "delivery_not_found");
    assert_eq!(
        other.owner.post(&format!("{theirs}/retry"), json!({})).await.refused(404),
        "delivery_not_found"
    );
}

/// Takes the database's own walls down, as a migration that forgot them would, and forges a delivery of a test call.
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

both!(a_test_call_that_the_database_let_through_is_stopped_at_dispatch);
async fn a_test_call_that_the_database_let_through_is_stopped_at_dispatch() {
    let scene = Scene::of("fhir_store").await;
    forge_a_delivery_of_a_test_call(&scene.server, &scene.tenant).await;
    scene.worker.turn().await;
    assert_eq!(scene.ehr.asked().len(), 0);
    let listed = scene.tenant.owner.get(&scene.tenant.path("/deliveries")).await.expect(StatusCode::OK);
    let delivery = &listed["items"][0];
    assert_eq!((&delivery["state"], &delivery["reason"]), (&json!("failed"), &json!("not_a_real_call")));
    // And nobody can raise it.
    let id = delivery["id"].as_str().unwrap();
    assert_eq!(scene.retry(id).await.refused(409), "not_a_real_call");
    let path = scene.tenant.path("/deliveries/retry-failed");
    let retried = scene.tenant.owner.post(&path, json!({})).await.expect(StatusCode::OK);
    assert_eq!(retried["retried"], 0);
    scene.hours(3).await;
    assert_eq!(scene.ehr.asked().len(), 0);
}

both!(a_worker_that_outlives_its_lease_changes_nothing);
async fn a_worker_that_outlives_its_lease_changes_nothing() {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::Hang]);
    let id = scene.owe("CA1").await;
    let slow = worker_with(&scene.server.app, Duration::from_secs(3), Options::default());
    let (clock, other) = (scene.server.clock.clone(), worker(&scene.server.app));
    let (_, settled) = tokio::join!(slow.turn(), async {
        scene.ehr.until_asked(1).await;
        // For everybody else the lease has run out.
        clock.advance(Duration::from_mins(1));
        other.turn().await
    });
    assert_eq!(settled, 1);
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery["state"], "synced");
    assert_eq!(Scene::outcomes(&delivery), ["lost", "synced"]);
    assert_eq!(scene.ehr.kept().len(), 1);
}

both!(many_workers_and_an_ehr_of_many_moods_end_with_one_resource_per_real_call, threads = 2);
async fn many_workers_and_an_ehr_of_many_moods_end_with_one_resource_per_real_call() {
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
    let status = scene.status().await;
    assert_eq!(
        (&status["synced"], &status["pending"], &status["failed"]),
        (&json!(40), &json!(0), &json!(0))
    );
    let counts = scene.ehr.counts();
    assert_eq!(counts.len(), 40);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert!(!scene.ehr.asked().iter().any(|asked| asked.body.contains(TESTER)));
}

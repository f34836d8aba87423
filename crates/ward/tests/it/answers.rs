//! The proof in an EHR's answers: which of them end a delivery, and which lead to a search.

use std::time::Duration;

use serde_json::{Value, json};
use ward_test::ehr::Act;
use ward_test::{Fields as _, both};

use crate::deliveries::Scene;
use crate::outbound::{Peer, answer, endpoint, open_server, run};

const FHIR: &str = "application/fhir+json";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const MAINTENANCE: &str = "<!doctype html><html><body>We will be back soon</body></html>";

fn outcome(severity: &str) -> String {
    json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": severity, "code": "exception" }] })
        .to_string()
}

/// The state after an answer of the EHR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    Done,
    /// It is tried again after a search.
    Unknown,
    /// It is tried again, and nothing was sent.
    Later,
    Refused,
    Held,
}

/// The answers to a create of one connector: status, content type, body and result.
fn creates(connector: &str) -> Vec<(u16, &'static str, String, Leads)> {
    let is_fhir = connector == "fhir_store";
    let named = if is_fhir {
        json!({ "resourceType": "Communication", "id": "77" })
    } else {
        json!({ "id": "77", "properties": {} })
    };
    let other = if is_fhir {
        json!({ "resourceType": "Patient", "id": "77" })
    } else {
        json!({ "id": "77", "properties": { "ward_call_id": "another" } })
    };
    let (named, other) = (named.to_string(), other.to_string());
    let media = if is_fhir { FHIR } else { JSON };
    // HubSpot's object without the property of the call proves nothing with 200.
    let by_body = if is_fhir { Leads::Done } else { Leads::Unknown };
    vec![
        (201, media, named.clone(), Leads::Done),
        (201, media, String::new(), Leads::Done),
        (201, HTML, MAINTENANCE.to_owned(), Leads::Done),
        (201, media, outcome("error"), Leads::Unknown),
        (200, media, named.clone(), by_body),
        (200, "", named, by_body),
        (200, media, other, Leads::Unknown),
        (200, media, String::new(), Leads::Unknown),
        (200, media, "{}".to_owned(), Leads::Unknown),
        (200, HTML, MAINTENANCE.to_owned(), Leads::Unknown),
        (200, media, MAINTENANCE.to_owned(), Leads::Unknown),
        (200, media, outcome("error"), Leads::Unknown),
        (200, media, outcome("fatal"), Leads::Unknown),
        (200, media, outcome("information"), Leads::Unknown),
        (202, media, String::new(), Leads::Unknown),
        (203, media, "{}".to_owned(), Leads::Unknown),
        (204, "", String::new(), Leads::Unknown),
        (301, HTML, MAINTENANCE.to_owned(), Leads::Refused),
        (400, media, outcome("error"), Leads::Refused),
        (401, media, outcome("error"), Leads::Held),
        (401, HTML, MAINTENANCE.to_owned(), Leads::Held),
        (403, HTML, MAINTENANCE.to_owned(), Leads::Refused),
        (404, media, outcome("error"), Leads::Refused),
        (408, "", String::new(), Leads::Unknown),
        (409, media, outcome("error"), Leads::Unknown),
        (412, media, outcome("error"), Leads::Unknown),
        (422, media, outcome("error"), Leads::Refused),
        (423, media, outcome("error"), Leads::Unknown),
        (425, media, String::new(), Leads::Unknown),
        (429, media, String::new(), Leads::Later),
        (500, HTML, MAINTENANCE.to_owned(), Leads::Unknown),
        (501, media, outcome("error"), Leads::Unknown),
        (502, HTML, MAINTENANCE.to_owned(), Leads::Unknown),
        (503, media, outcome("error"), Leads::Unknown),
        (504, "", String::new(), Leads::Unknown),
        (507, "", String::new(), Leads::Unknown),
    ]
}

both!(an_answer_to_a_create_is_judged_by_status_type_and_body, async || {
    for connector in ["fhir_store", "hubspot"] {
        let scene = Scene::of(connector).await;
        for (index, (status, media, body, leads)) in creates(connector).into_iter().enumerate() {
            let what = format!("{connector}: {status} {media} {body}");
            scene.ehr.script([Act::Page(status, media, body.clone())]);
            let id = scene.owe(&format!("CA{index}")).await;
            scene.worker.turn().await;
            let delivery = scene.delivery(&id).await;
            let (state, maybe_sent) = match leads {
                Leads::Done => ("synced", false),
                Leads::Unknown => ("pending", true),
                Leads::Later | Leads::Held => ("pending", false),
                Leads::Refused => ("failed", false),
            };
            assert_eq!(delivery.fields(["state", "maybe_sent"]), json!([state, maybe_sent]), "{what}");
            let held = if leads == Leads::Held { json!("unauthorized") } else { Value::Null };
            assert_eq!(scene.status().await["held_because"], held, "{what}");
            // Every attempt keeps its answer.
            let attempt = &delivery["attempts"][0];
            if status != 409 && status != 412 {
                // The body of a redirect is not read.
                let body = if status == 301 { "" } else { body.as_str() };
                let kept = attempt.fields(["status", "content_type", "answer"]);
                let or_null = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
                assert_eq!(kept, json!([status, or_null(media), or_null(body)]), "{what}");
            }
            assert!(attempt["duration_ms"].as_i64().unwrap() >= 0, "{what}");
            // The EHR works again. After an unknown outcome, the worker searches before it sends.
            let asked = scene.ehr.asked().len();
            if leads == Leads::Refused {
                scene.retry(&id).await.ok();
            }
            scene.hours(2).await;
            assert_eq!(scene.delivery(&id).await["state"], "synced", "{what}");
            if leads == Leads::Unknown {
                let next = &scene.ehr.asked()[asked];
                assert!(next.method == "GET" || next.target.ends_with("/search"), "{what}: {next:?}");
                assert_eq!(next.headers["cache-control"], "no-cache", "{what}");
            }
        }
        assert!(scene.ehr.counts().values().all(|count| *count == 1), "{connector}");
    }
});

/// The result of a search that follows an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// The call is not there, so it is sent.
    Absent,
    /// Nothing about the call, so the search is repeated.
    Nothing,
    /// The EHR cannot search, so a person must look.
    Held,
}

fn searches(connector: &str) -> Vec<(u16, &'static str, String, Shows)> {
    let bundle = |more: Value| {
        let mut bundle = json!({ "resourceType": "Bundle", "type": "searchset", "total": 0, "entry": [] });
        bundle.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        bundle.to_string()
    };
    let error: Value = serde_json::from_str(&outcome("error")).unwrap();
    let remark: Value = serde_json::from_str(&outcome("information")).unwrap();
    let next = json!([{ "relation": "self", "url": "x" }, { "relation": "next", "url": "y" }]);
    let mut all = vec![
        (200, HTML, MAINTENANCE.to_owned(), Shows::Nothing),
        (200, JSON, "{}".to_owned(), Shows::Nothing),
        (200, JSON, String::new(), Shows::Nothing),
        (200, FHIR, outcome("error"), Shows::Nothing),
        (204, "", String::new(), Shows::Nothing),
        (202, JSON, "{}".to_owned(), Shows::Nothing),
        (500, HTML, MAINTENANCE.to_owned(), Shows::Nothing),
        (429, JSON, String::new(), Shows::Nothing),
        (400, JSON, "{}".to_owned(), Shows::Held),
        (404, HTML, MAINTENANCE.to_owned(), Shows::Held),
        (501, JSON, "{}".to_owned(), Shows::Held),
    ];
    if connector == "fhir_store" {
        all.extend([
            (200, FHIR, bundle(json!({})), Shows::Absent),
            (200, JSON, bundle(json!({ "total": null, "entry": null })), Shows::Absent),
            (200, FHIR, bundle(json!({ "entry": [{ "resource": remark }] })), Shows::Absent),
            (200, FHIR, bundle(json!({ "link": next })), Shows::Nothing),
            (200, FHIR, bundle(json!({ "total": 1 })), Shows::Nothing),
            (200, FHIR, bundle(json!({ "type": "collection" })), Shows::Nothing),
            (200, FHIR, bundle(json!({ "entry": [{ "resource": error }] })), Shows::Nothing),
            (200, FHIR, bundle(json!({ "entry": [{ "fullUrl": "urn:x" }] })), Shows::Nothing),
            (203, FHIR, bundle(json!({})), Shows::Nothing),
        ]);
    } else {
        all.extend([
            (200, JSON, json!({ "total": 0, "results": [] }).to_string(), Shows::Absent),
            (200, JSON, json!({ "results": [] }).to_string(), Shows::Nothing),
            (200, JSON, json!({ "total": 1, "results": [] }).to_string(), Shows::Nothing),
            (
                200,
                JSON,
                json!({ "total": 0, "results": [], "paging": { "next": { "after": "1" } } }).to_string(),
                Shows::Nothing,
            ),
            (200, JSON, json!({ "status": "error", "message": "x" }).to_string(), Shows::Nothing),
        ]);
    }
    all
}

both!(only_a_complete_search_shows_that_a_call_is_not_there, async || {
    for connector in ["fhir_store", "hubspot"] {
        let scene = Scene::of(connector).await;
        for (index, (status, media, body, shows)) in searches(connector).into_iter().enumerate() {
            let what = format!("{connector}: {status} {media} {body}");
            // Where the search says that the call is not there, it is not.
            scene.ehr.script([if shows == Shows::Absent { Act::Reset } else { Act::TakeAndReset }]);
            let id = scene.owe(&format!("CA{index}")).await;
            scene.worker.turn().await;
            let writes = scene.ehr.writes();
            scene.ehr.on_search(Some(Act::Page(status, media, body)));
            scene.hours(1).await;
            let (state, sent) = match shows {
                Shows::Absent => ("synced", 1),
                Shows::Nothing => ("pending", 0),
                Shows::Held => ("held", 0),
            };
            assert_eq!(scene.delivery(&id).await["state"], state, "{what}");
            assert_eq!(scene.ehr.writes() - writes, sent, "{what}");
            scene.ehr.on_search(None);
            if shows == Shows::Held {
                scene.retry(&id).await.ok();
            }
            scene.hours(2).await;
            assert_eq!(scene.delivery(&id).await["state"], "synced", "{what}");
            assert_eq!(scene.ehr.writes() - writes, sent, "{what}");
        }
        assert!(scene.ehr.counts().values().all(|count| *count == 1), "{connector}");
    }
});

both!(a_search_that_never_tells_is_held_for_a_person_after_a_day, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::TakeAndReset]);
    scene.ehr.on_search(Some(Act::Page(200, HTML, MAINTENANCE.to_owned())));
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    scene.hours(30).await;
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery.fields(["state", "reason", "maybe_sent"]), json!(["held", "cannot_tell", true]));
    assert_eq!(scene.ehr.writes(), 1);
});

both!(an_ehr_that_files_late_is_found_to_have_the_call_twice, async || {
    let scene = Scene::of("hubspot").await;
    // The gateway gives up, and the EHR files both requests later.
    scene.ehr.script([Act::Page(504, HTML, MAINTENANCE.to_owned()), Act::Take]);
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    let late = scene.ehr.asked()[0].body.clone();
    scene.server.clock.advance(Duration::from_secs(20));
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    let late_write =
        reqwest::Client::new().post(format!("{}/crm/v3/objects/calls", scene.ehr.url())).body(late);
    late_write.send().await.unwrap();
    assert_eq!(scene.ehr.kept().len(), 2);
    scene.server.clock.advance(Duration::from_mins(6));
    scene.worker.turn().await;
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery.fields(["state", "reason"]), json!(["failed", "duplicate"]));
    assert_eq!(delivery["outcome"], json!({ "oldest": "calls/1", "count": 2 }));
    assert_eq!(Scene::outcomes(&delivery), ["server_error", "synced", "duplicate"]);
    assert!(scene.tenant.actions().await.contains(&"delivery.duplicate".to_owned()));
    assert_eq!(scene.status().await.fields(["failed", "pending"]), json!([1, 0]));
});

both!(a_second_search_that_finds_one_record_ends_the_doubt, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::TakeAndReset]);
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    scene.server.clock.advance(Duration::from_secs(20));
    scene.worker.turn().await;
    assert_eq!(scene.status().await.fields(["synced", "pending"]), json!([1, 0]));
    // The search for duplicates is repeated until it gets an answer.
    scene.ehr.on_search(Some(Act::Say(503, Value::Null, "")));
    scene.hours(1).await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    scene.ehr.on_search(None);
    scene.hours(3).await;
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery["state"], "synced");
    assert_eq!(delivery.texts("attempts", "outcome").last(), Some(&"checked"));
    let asked = scene.ehr.asked().len();
    scene.hours(3).await;
    assert_eq!(scene.ehr.asked().len(), asked, "nothing more is asked");
    assert_eq!(scene.server.count("SELECT count(*) FROM delivery_queue").await, 0);
});

both!(after_each_further_unknown_outcome_the_wait_is_longer, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.always(Some(Act::Reset));
    let id = scene.owe("CA1").await;
    for (minutes, least) in [(0, 10), (1, 300), (6, 900), (16, 3_600), (61, 3_600)] {
        scene.server.clock.advance(Duration::from_mins(minutes));
        scene.worker.turn().await;
        let delivery = scene.delivery(&id).await;
        let next = delivery.text("next_attempt_at").parse::<ward_db::Timestamp>().unwrap();
        let waits = (next.micros() - scene.server.clock.now().micros()) / 1_000_000;
        assert!(waits >= least - 1, "{waits} s of {least} s: {delivery}");
    }
    assert_eq!(scene.ehr.writes(), 5);
});

both!(a_person_reopens_a_synced_delivery_that_is_not_there, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::Page(201, FHIR, String::new())]);
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    assert_eq!(scene.ehr.kept().len(), 0);
    let resolve = async |body: Value| scene.tenant.post(&format!("/deliveries/{id}/resolve"), body).await;
    resolve(json!({ "in_ehr": true })).await.refused_as(409, "already_synced");
    assert_eq!(resolve(json!({ "in_ehr": false })).await.ok()["state"], "pending");
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await.fields(["state", "location"]), json!(["synced", "Communication/1"]));
    assert_eq!(scene.ehr.kept().len(), 1);
    // A person who errs causes no second record, because a search comes first.
    resolve(json!({ "in_ehr": false })).await.ok();
    scene.worker.turn().await;
    assert_eq!(scene.delivery(&id).await["state"], "synced");
    assert_eq!((scene.ehr.kept().len(), scene.ehr.writes()), (1, 2));
});

both!(the_kept_answer_is_sealed_and_needs_the_right_to_see_calls, async || {
    let scene = Scene::of("fhir_store").await;
    let long = format!("{{\"a\":\"{}\"}}", "patient Eve ".repeat(200));
    scene.ehr.script([Act::Page(422, JSON, long.clone())]);
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    let delivery = scene.delivery(&id).await;
    assert_eq!(delivery["attempts"][0]["answer"], long[..1_024]);
    let stored = scene.server.count("SELECT count(*) FROM delivery_attempts WHERE answer IS NOT NULL").await;
    assert_eq!(stored, 1);
    let longest = scene.server.count("SELECT max(length(answer)) FROM delivery_attempts").await;
    assert!((1_024..1_100).contains(&longest), "{longest}");
    let read = scene.tenant.audit().await;
    assert!(read.iter().any(|event| event["action"] == "delivery.read" && event["phi_accessed"] == true));
});

both!(an_endpoints_success_without_its_effect_is_an_error, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let page = |media: &'static str, body: String| {
        format!(
            "HTTP/1.1 200 X\r\ncontent-type: {media}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    for (media, body, more, error) in [
        (HTML, MAINTENANCE.to_owned(), json!({}), Some("the other side answered 200 with a web page")),
        (HTML, MAINTENANCE.to_owned(), json!({ "headers": { "accept": "text/html" } }), None),
        (FHIR, outcome("error"), json!({}), Some("the other side answered 200 and reports an error")),
        (FHIR, outcome("warning"), json!({}), None),
        (JSON, "{}".to_owned(), json!({}), None),
    ] {
        let bytes = page(media, body.clone()).into_bytes();
        let peer = Peer::start(move |_, _| Some(bytes.clone())).await;
        let told = run(&tenant.owner, &endpoint(&tenant, &peer.url(), more).await, json!({})).await;
        assert_eq!(told["error"], error.map_or(Value::Null, |text| json!(text)), "{media} {body}");
        assert_eq!(told["final_result"].is_null(), error.is_some(), "{media} {body}");
    }
});

both!(health_needs_an_answer_that_only_the_right_credentials_get, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let empty = r#"{"resourceType":"Bundle","type":"searchset","total":0}"#;
    let capable = r#"{"resourceType":"CapabilityStatement"}"#;
    let searched: [(u16, &'static str, &str, &str); 6] = [
        (200, empty, "healthy", "taken"),
        (401, "", "auth_failed", "401"),
        (403, "", "auth_failed", "403"),
        (200, MAINTENANCE, "unreachable", "without the result of a search"),
        (400, "{}", "healthy", "refuses the search"),
        (503, "", "unreachable", "503"),
    ];
    for (status, body, health, why) in searched {
        // As on most servers, the capability statement needs no credentials.
        let peer = Peer::start(move |head, _| {
            let open = head.starts_with("GET /fhir/metadata ");
            Some(if open { answer(200, capable) } else { answer(status, body) })
        })
        .await;
        let integration = json!({
            "name": ward_test::fresh_slug(), "display_name": "H", "protocol": "fhir", "enabled": true,
            "base_url": format!("{}/fhir", peer.url()),
            "auth": { "type": "bearer_token", "bearer_token_value": { "value": "perhaps-the-right-one" } },
        });
        let made = tenant.post("/integrations", integration).await.created();
        let path = tenant.path(&format!("/integrations/{}/test-connection", made.text("id")));
        let told = tenant.owner.post(&path, json!({})).await.ok();
        assert_eq!(told["status"], health, "{status} {body}: {told}");
        let said = if why == "taken" { "takes the credentials" } else { why };
        assert!(told.text("message").contains(said), "{status} {body}: {told}");
    }
});

//! The patient of a call, found in the EHR by phone number and date of birth, and the reviews of everything that Ward does not
//! know for certain.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use ward::deliveries::matching;
use ward::ids::DeliveryId;
use ward::operator;
use ward_test::vendor::patients::{matched, patient, search};
use ward_test::vendor::{ClientAuth, Vendor, VendorAnswer, VendorRequest};
use ward_test::{Answer, Fields as _, both};

use super::{Practice, created, identified, outcome, searchset, wrong_document};
use crate::calls::{finished, put};
use crate::deliveries::PATIENT;

const ACCESS: ClientAuth = ClientAuth::Smart { algorithms: &["RS384", "ES384"], scopes: &[] };
/// The number of the caller as the practice writes it.
const NATIONAL: &str = "(555) 010-0002";
const BORN: &str = "1980-02-29";

/// Answers that the vendor gives instead of its own.
#[derive(Default)]
struct Instead {
    patients: Option<VendorAnswer>,
    documents: Option<VendorAnswer>,
    weighs: bool,
}

fn rules(asked: &VendorRequest, kept: &mut Vec<Value>, instead: &Instead) -> VendorAnswer {
    match (asked.method.as_str(), asked.path.as_str()) {
        (_, "/Patient" | "/Patient/$match") if instead.patients.is_some() => {
            instead.patients.clone().unwrap()
        }
        ("GET", "/Patient") => search(asked, kept, instead.weighs),
        ("POST", "/Patient/$match") => matched(asked, kept),
        ("GET", "/Encounter") => {
            let patient = format!("Patient/{}", asked.field("patient").unwrap_or_default());
            searchset(
                kept.iter().filter(|one| {
                    one["resourceType"] == "Encounter" && one["subject"]["reference"] == patient
                }),
            )
        }
        ("GET", "/DocumentReference") => searchset(identified(asked, kept)),
        ("POST", "/DocumentReference") if instead.documents.is_some() => instead.documents.clone().unwrap(),
        ("POST", "/DocumentReference") => match wrong_document(&asked.json()) {
            Some(field) => outcome(422, "required", field),
            None => created(asked, kept),
        },
        _ => outcome(403, "forbidden", "not in the app's scope"),
    }
}

/// A practice whose EHR has these patients: their ids, numbers and dates of birth.
async fn practice(delivery: Value, people: &[(&str, &str, &str)]) -> (Practice, Arc<Mutex<Instead>>) {
    let instead = Arc::new(Mutex::new(Instead::default()));
    let shared = instead.clone();
    let vendor = Vendor::start(ACCESS, move |asked, kept| rules(asked, kept, &shared.lock())).await;
    for (id, phone, birth_date) in people {
        vendor.keep(patient(id, phone, birth_date));
    }
    (Practice::smart("cerner", vendor, delivery).await, instead)
}

fn born(date: &str) -> Value {
    json!({ "patient_birth_date": date })
}

/// The patients of the written documents.
fn charts(practice: &Practice) -> Vec<String> {
    let documents =
        practice.vendor.kept().into_iter().filter(|one| one["resourceType"] == "DocumentReference");
    documents.map(|one| one["subject"].text("reference").to_owned()).collect()
}

/// The number of look-ups of patients.
fn look_ups(practice: &Practice) -> usize {
    practice.vendor.asked().iter().filter(|asked| asked.path.starts_with("/Patient")).count()
}

async fn review(practice: &Practice, delivery: &Value) -> Value {
    practice.tenant.get(&format!("/reviews/{}", delivery.text("id"))).await.ok()
}

async fn resolve(practice: &Practice, review: &Value, id: &str) -> Answer {
    let path = format!("/reviews/{}/resolve", review.text("delivery_id"));
    practice.tenant.post(&path, json!({ "review_id": review["review_id"], "id": id })).await
}

async fn event(practice: &Practice, action: &str) -> Value {
    let events = practice.tenant.audit().await;
    events.into_iter().find(|event| event["action"] == action).unwrap_or_else(|| panic!("no {action}"))
}

both!(the_only_patient_with_number_and_birth_date_gets_the_note, async || {
    for how in ["search", "match"] {
        let others =
            [("ann-7f3", NATIONAL, BORN), ("p2", NATIONAL, "1999-01-01"), ("p3", "(555) 010-0003", BORN)];
        let (practice, instead) = practice(json!({ "patient": how }), &others).await;
        instead.lock().weighs = true;
        // The EHR takes no documents at first, so the same delivery is tried again.
        instead.lock().documents = Some((503, Vec::new(), Value::Null));
        let waiting = practice.deliver("CA1", born(BORN)).await;
        assert_eq!(
            waiting.fields(["state", "matched_patient_id"]),
            json!(["pending", "ann-7f3"]),
            "{waiting}"
        );
        let asked = look_ups(&practice);
        instead.lock().documents = None;
        practice.hour().await;
        let delivery = practice.delivery(waiting.text("id")).await;
        assert_eq!(delivery["state"], "synced", "{delivery}");
        assert_eq!(charts(&practice), ["Patient/ann-7f3"]);
        assert_eq!(look_ups(&practice), asked, "the stored match is used again");
        let found = event(&practice, "delivery.match").await;
        assert_eq!(found["metadata"].fields(["found", "by"]), json!(["patient", how]));
        // The call keeps its reported facts, and neither birth date nor match stands open in the database.
        let call = practice.tenant.get("/calls/CA1").await.ok();
        assert_eq!(call.fields(["patient_id", "patient_birth_date"]), json!([null, BORN]));
        let dump = practice.server.dump().await;
        for secret in [BORN, "ann-7f3"] {
            assert!(!dump.iter().any(|row| row.contains(secret)), "{secret}");
        }
        let listed = practice.tenant.get("/reviews").await.ok();
        assert_eq!(listed.fields(["items", "total"]), json!([[], 0]));
    }
});

both!(no_match_several_and_uncertain_ones_wait_for_a_person, async || {
    for how in ["search", "match"] {
        let people = [("p1", NATIONAL, BORN), ("p2", NATIONAL, BORN), ("p3", NATIONAL, "1999-01-01")];
        let (practice, instead) = practice(json!({ "patient": how }), &people).await;
        instead.lock().weighs = true;
        let cases = [
            ("CA1", born(BORN), "several", 2),
            ("CA2", born("1950-05-05"), "uncertain", 3),
            (
                "CA3",
                json!({ "patient_birth_date": "1950-05-05", "patient_phone": "+1 555 010 9999" }),
                "none",
                0,
            ),
            ("CA4", json!({}), "no_birth_date", 0),
            ("CA5", json!({ "patient_birth_date": BORN, "caller_id": null }), "no_number", 0),
        ];
        let mut held = Vec::new();
        for (sid, more, because, candidates) in cases {
            let delivery = practice.deliver(sid, more).await;
            assert_eq!(
                delivery.fields(["state", "reason"]),
                json!(["held", "unmatched_patient"]),
                "{sid} {how}"
            );
            let review = review(&practice, &delivery).await;
            let shown = ["needs", "because", "candidate_count", "call_sid"];
            assert_eq!(review.fields(shown), json!(["patient", because, candidates, sid]), "{how} {review}");
            held.push((delivery, review));
        }
        assert_eq!(charts(&practice), [""; 0]);
        let several = &held[0].1;
        assert_eq!(several.fields(["patient_phone", "patient_birth_date"]), json!([PATIENT, BORN]));
        assert_eq!(several.texts("candidates", "id"), ["p1", "p2"]);
        assert_eq!(several["candidates"][0].fields(["display", "phone"]), json!(["Ann p1", NATIONAL]));
        assert_eq!(event(&practice, "review.read").await["phi_accessed"], true);
        // Operators see them by reason and age, on every server.
        let app = &practice.server.app;
        let waiting = app.db.read_long("test.waiting", |tx| matching::waiting(tx, 100)).await;
        let waiting: Vec<_> = waiting.map_err(|error: ward_db::Error| error).unwrap();
        assert_eq!(waiting.len(), 5);
        assert!(waiting.iter().all(|one| one.count == 1 && one.since.is_some()), "{waiting:?}");
        // The list has them in the order of their opening, in pages, without personal data.
        let first = practice.tenant.get("/reviews?limit=2").await.ok();
        assert_eq!(first.texts("items", "call_sid"), ["CA1", "CA2"]);
        assert!(!first.to_string().contains(BORN), "{first}");
        let next = format!("/reviews?limit=20&continuation_token={}", first["continuation_token"]);
        assert_eq!(practice.tenant.get(&next).await.ok().texts("items", "call_sid"), ["CA3", "CA4", "CA5"]);
        // Another tenant sees none of them.
        let other = practice.server.tenant("other").await;
        assert_eq!(other.get("/reviews").await.ok()["total"], 0);
        let theirs = format!("/reviews/{}", held[0].0.text("id"));
        other.get(&theirs).await.refused_as(404, "review_not_found");
        let body = json!({ "review_id": several["review_id"], "id": "p1" });
        other.post(&format!("{theirs}/resolve"), body).await.refused_as(404, "delivery_not_found");
        // A candidate, another id, and no patient at all.
        let decided = resolve(&practice, several, "p2").await.ok();
        assert_eq!(decided.fields(["needs", "state"]), json!(["patient", "pending"]));
        resolve(&practice, several, "p1").await.refused_as(409, "review_closed");
        resolve(&practice, &held[2].1, "p3").await.ok();
        let drop = format!("/deliveries/{}/drop", held[3].0.text("id"));
        practice.tenant.post(&drop, json!({ "reason": "no patient" })).await.ok();
        practice
            .tenant
            .get(&format!("/reviews/{}", held[3].0.text("id")))
            .await
            .refused_as(404, "review_not_found");
        resolve(&practice, &held[3].1, "p1").await.refused_as(409, "review_closed");
        practice.worker.turn().await;
        practice.hour().await;
        let mut written = charts(&practice);
        written.sort();
        assert_eq!(written, ["Patient/p2", "Patient/p3"], "each was written once");
        let told = event(&practice, "review.resolve").await;
        assert_eq!(told["metadata"]["needs"], "patient");
        let events = json!(practice.tenant.audit().await).to_string();
        assert!(!events.contains(BORN) && !events.contains("\"p2\""), "{events}");
        assert_eq!(practice.tenant.get("/reviews").await.ok().texts("items", "call_sid"), ["CA2", "CA5"]);
    }
});

both!(an_answer_that_does_not_show_everything_is_not_none, async || {
    let (practice, instead) = practice(json!({ "patient": "search" }), &[("p1", NATIONAL, BORN)]).await;
    let bundle = |more: Value| {
        let mut bundle = json!({ "resourceType": "Bundle", "type": "searchset", "entry": [] });
        bundle.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (200, Vec::new(), bundle)
    };
    let next = json!({ "link": [{ "relation": "next", "url": "https://vendor.example/2" }] });
    let (_, _, error) = outcome(200, "timeout", "later");
    let answers = [
        bundle(next.clone()),
        bundle(json!({ "total": 1 })),
        bundle(json!({ "entry": [{ "resource": error }] })),
        bundle(json!({ "type": "history" })),
        outcome(200, "timeout", "later"),
        (200, Vec::new(), json!({ "status": "ok" })),
        (202, Vec::new(), Value::Null),
        (503, Vec::new(), Value::Null),
    ];
    for (index, answer) in answers.into_iter().enumerate() {
        instead.lock().patients = Some(answer.clone());
        let delivery = practice.deliver(&format!("CA{index}"), born(BORN)).await;
        assert_eq!(delivery["state"], "pending", "{answer:?} {delivery}");
        let why = if answer.0 == 503 { "server_error" } else { "look_up_unproven" };
        assert_eq!(delivery.texts("attempts", "outcome"), [why], "{answer:?}");
        instead.lock().patients = None;
        practice.hour().await;
        practice.hour().await;
        assert_eq!(practice.delivery(delivery.text("id")).await["state"], "synced", "{answer:?}");
    }
    assert_eq!(charts(&practice).len(), 8);
    // A day of such answers is a question for a person, and no failure.
    instead.lock().patients = Some(bundle(next));
    let delivery = practice.deliver("CA-day", born(BORN)).await;
    for _ in 0..27 {
        practice.hour().await;
    }
    let review = review(&practice, &delivery).await;
    assert_eq!(review.fields(["needs", "because"]), json!(["patient", "unproven"]));
    // A refusal is about the integration, which is held.
    instead.lock().patients = Some(outcome(403, "forbidden", "no scope"));
    practice.deliver("CA-refused", born(BORN)).await;
    practice.hour().await;
    practice.hour().await;
    let status = practice.tenant.get("/sync").await.ok();
    assert_eq!(status["integrations"][0]["held_because"], "misconfigured");
});

both!(a_corrected_fact_seeks_the_patient_again, async || {
    let (practice, instead) = practice(
        json!({ "patient": "search" }),
        &[("p1", NATIONAL, BORN), ("p2", "+1 555 010 7777", "1999-01-01")],
    )
    .await;
    let correct =
        async |sid: &str, body: Value| practice.tenant.post(&format!("/calls/{sid}/correct"), body).await;
    // A wrong date has no match.
    let none = practice.deliver("CA1", born("1980-02-28")).await;
    let before = review(&practice, &none).await;
    assert_eq!(before["because"], "none");
    assert_eq!(correct("CA1", born("1980-02-30")).await.problem_locs(), ["body.patient_birth_date"]);
    let answer = correct("CA1", born(BORN)).await.ok();
    assert_eq!(answer.fields(["changed", "delivery_state"]), json!([["patient_birth_date"], "pending"]));
    resolve(&practice, &before, "p2").await.refused_as(409, "review_closed");
    practice.worker.turn().await;
    assert_eq!(practice.delivery(none.text("id")).await["state"], "synced");
    let call = practice.tenant.get("/calls/CA1").await.ok();
    let values =
        json!({ "former": { "patient_birth_date": "1980-02-28" }, "new": { "patient_birth_date": BORN } });
    assert_eq!(call["corrections"][0]["values"], values);
    // A report that comes later fills what is missing.
    let silent = practice.deliver("CA2", json!({})).await;
    assert_eq!(review(&practice, &silent).await["because"], "no_birth_date");
    let mut report = finished(PATIENT);
    report["patient_birth_date"] = json!(BORN);
    put(&practice.tenant, "CA2", report.clone()).await;
    report["patient_birth_date"] = json!("1999-01-01");
    put(&practice.tenant, "CA2", report).await;
    practice.worker.turn().await;
    assert_eq!(practice.delivery(silent.text("id")).await["state"], "synced");
    // A match that was wrong is forgotten before the EHR has the call.
    instead.lock().documents = Some(outcome(422, "business-rule", "closed chart"));
    let refused = practice.deliver("CA3", born(BORN)).await;
    assert_eq!(refused.fields(["state", "matched_patient_id"]), json!(["failed", "p1"]));
    instead.lock().documents = None;
    let body = json!({ "patient_phone": "+15550107777", "patient_birth_date": "1999-01-01" });
    correct("CA3", body).await.ok();
    practice.worker.turn().await;
    let moved = practice.delivery(refused.text("id")).await;
    assert_eq!(moved.fields(["state", "matched_patient_id"]), json!(["synced", "p2"]), "{moved}");
    assert_eq!(charts(&practice), ["Patient/p1", "Patient/p1", "Patient/p2"]);
    // The EHR has the call, so its facts stay.
    correct("CA3", born(BORN)).await.refused_as(409, "already_synced");
    // A fact that cannot be one costs no call.
    let body = json!({ "patient_birth_date": "yesterday", "patient_phone": "555" });
    let mut report = finished(PATIENT);
    report.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let odd = put(&practice.tenant, "CA4", report).await;
    assert_eq!(odd["adjusted_fields"], json!(["patient_birth_date", "patient_phone"]));
});

both!(an_encounter_is_reviewed_like_a_patient, async || {
    let setting = json!({ "patient": "match", "encounter": "look_up" });
    let (practice, _) = practice(setting, &[("p1", NATIONAL, BORN)]).await;
    let encounter = |id: &str| {
        json!({ "resourceType": "Encounter", "id": id, "status": "finished", "subject": { "reference": "Patient/p1" },
                "type": [{ "text": "Phone visit" }], "period": { "start": "2026-11-30T10:00:00Z" } })
    };
    let none = practice.deliver("CA1", born(BORN)).await;
    assert_eq!(
        none.fields(["state", "reason", "matched_patient_id"]),
        json!(["held", "unmatched_encounter", "p1"])
    );
    let asked = review(&practice, &none).await;
    assert_eq!(asked.fields(["needs", "because", "patient_id"]), json!(["encounter", "none", "p1"]));
    for id in ["e1", "e2"] {
        practice.vendor.keep(encounter(id));
    }
    // A retry asks again, and replaces the review.
    practice.tenant.post(&format!("/deliveries/{}/retry", none.text("id")), json!({})).await.ok();
    practice.worker.turn().await;
    resolve(&practice, &asked, "e1").await.refused_as(409, "review_closed");
    let asked = review(&practice, &none).await;
    assert_eq!(asked.fields(["because", "candidate_count"]), json!(["several", 2]));
    let shown = ["id", "display", "status", "starts_at"];
    assert_eq!(
        asked["candidates"][1].fields(shown),
        json!(["e2", "Phone visit", "finished", "2026-11-30T10:00:00Z"])
    );
    // Operators do the same from the command line.
    let (app, slug) = (&practice.server.app, &practice.tenant.slug);
    let listed = operator::list_reviews(app, slug, 0, 10).await.unwrap();
    assert_eq!((listed.items.len(), listed.next), (1, None));
    let id = none.text("id").parse().map(DeliveryId).unwrap();
    assert_eq!(operator::show_review(app, slug, id).await.unwrap().candidates.len(), 2);
    let review_id = asked.text("review_id").to_owned();
    let decided =
        operator::resolve_review(app, slug, id, (review_id.clone(), "e2".to_owned())).await.unwrap();
    assert_eq!((decided.needs, decided.state), ("encounter", "pending"));
    assert!(operator::resolve_review(app, slug, id, (review_id, "e1".to_owned())).await.is_err());
    practice.worker.turn().await;
    assert_eq!(practice.delivery(none.text("id")).await["state"], "synced");
    let documents = || {
        let kept = practice.vendor.kept().into_iter();
        kept.filter(|one| one["resourceType"] == "DocumentReference").collect::<Vec<_>>()
    };
    assert_eq!(documents()[0]["context"]["encounter"][0]["reference"], "Encounter/e2");
    // A setting sends the note without an encounter instead.
    let setting =
        json!({ "delivery": { "patient": "match", "encounter": "look_up", "send_without_encounter": true } });
    practice.tenant.owner.put(&practice.integration, setting).await.ok();
    let sent = practice.deliver("CA2", born(BORN)).await;
    assert_eq!(sent["state"], "synced", "{sent}");
    assert!(documents()[1]["context"]["encounter"].is_null());
});

both!(of_two_decisions_about_one_review_one_counts, async || {
    let (practice, _) =
        practice(json!({ "patient": "search" }), &[("p1", NATIONAL, BORN), ("p2", NATIONAL, BORN)]).await;
    for round in 0..5 {
        let delivery = practice.deliver(&format!("CA{round}"), born(BORN)).await;
        let asked = review(&practice, &delivery).await;
        let (one, two) = tokio::join!(resolve(&practice, &asked, "p1"), resolve(&practice, &asked, "p2"));
        let statuses = [one.status.as_u16(), two.status.as_u16()];
        assert!(statuses == [200, 409] || statuses == [409, 200], "{statuses:?}");
        practice.worker.turn().await;
        let chosen = if statuses[0] == 200 { "Patient/p1" } else { "Patient/p2" };
        assert_eq!((charts(&practice).len(), charts(&practice)[round].as_str()), (round + 1, chosen));
    }
});

both!(where_nothing_is_looked_up_the_patient_is_still_reviewed, async || {
    let (practice, _) = practice(json!({}), &[("p1", NATIONAL, BORN)]).await;
    let held = practice.deliver("CA1", born(BORN)).await;
    let asked = review(&practice, &held).await;
    assert_eq!(asked.fields(["needs", "because"]), json!(["patient", "not_reported"]));
    assert_eq!(look_ups(&practice), 0);
    // A later setting counts with the next try.
    practice
        .tenant
        .owner
        .put(&practice.integration, json!({ "delivery": { "patient": "search" } }))
        .await
        .ok();
    let preview = format!("/deliveries/{}/preview", held.text("id"));
    let shown = practice.tenant.get(&preview).await.ok();
    assert_eq!(shown.fields(["not_sent_because", "looked_up", "request"]), json!([null, "patient", null]));
    practice.tenant.post(&format!("/deliveries/{}/retry", held.text("id")), json!({})).await.ok();
    practice.worker.turn().await;
    assert_eq!(practice.delivery(held.text("id")).await["state"], "synced");
    // A reported patient goes before everything.
    practice.deliver("CA2", json!({ "patient_id": "p9", "patient_birth_date": BORN })).await;
    assert_eq!(charts(&practice), ["Patient/p1", "Patient/p9"]);
});

//! The workspace's choice of calls for its EHR, the wait for their summaries, and the text of the notes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_test::ehr::ScriptedEhr;
use ward_test::{Answer, Fields as _, Tenant, both, fresh_slug};

use crate::calls::{callback, connect, event, put, reported, with_twilio};
use crate::deliveries::{PATIENT, Scene, TESTER, configure, worker};
use crate::spellings::finished_with;

/// Replaces the settings of the tenant's connector for its deliveries.
pub async fn set_delivery(tenant: &Tenant, delivery: Value) -> Answer {
    let id = tenant.get("/integrations").await.ok()["items"][0].text("id").to_owned();
    tenant.put(&format!("/integrations/{id}"), json!({ "delivery": delivery })).await
}

/// Settings with which every real call is written, however it ended.
pub fn every_end() -> Value {
    json!({ "calls": { "statuses": ["completed", "busy", "no_answer", "failed", "canceled"] } })
}

/// The decision about a finished call with these fields.
async fn decided(scene: &Scene, sid: &str, fields: Value) -> String {
    put(&scene.tenant, sid, finished_with(fields)).await["sync"].text("decision").to_owned()
}

/// The text of the note in a `Communication`.
fn note(resource: &Value) -> String {
    let data = resource["payload"][0]["contentAttachment"].text("data");
    String::from_utf8(STANDARD.decode(data).unwrap()).unwrap()
}

/// Lets time pass and runs the worker. Returns the number of calls that the EHR has then.
async fn after(scene: &Scene, time: Duration) -> usize {
    scene.server.clock.advance(time);
    scene.worker.turn().await;
    scene.ehr.kept().len()
}

both!(a_missed_call_is_not_written_unless_the_workspace_wants_it, async || {
    const MISSED: [&str; 4] = ["busy", "no-answer", "failed", "canceled"];
    let scene = Scene::of("fhir_store").await;
    for status in MISSED {
        let sid = format!("CA-{status}");
        let call = put(&scene.tenant, &sid, finished_with(json!({ "status": status }))).await;
        assert_eq!(
            call["sync"].fields([
                "decision",
                "connector",
                "delivery_id",
                "integration_id",
                "state",
                "not_sent"
            ]),
            json!(["not_chosen", "fhir_store", null, null, null, null]),
            "{status}"
        );
        let explanation = call["sync"].text("explanation");
        assert!(
            explanation.contains("`delivery.calls`") && explanation.contains("nothing is owed"),
            "{call}"
        );
        assert_eq!(scene.tenant.get(&format!("/calls/{sid}")).await.ok()["sync"], call["sync"]);
    }
    // The reason for the end shows that there was no answer, whatever the status says.
    assert_eq!(decided(&scene, "CA-reason", json!({ "completion_reason": "no_answer" })).await, "not_chosen");
    assert_eq!(decided(&scene, "CA-answered", json!({})).await, "owed");
    // A test is left out because it is a test.
    let test = finished_with(json!({ "status": "busy", "caller_id": TESTER }));
    assert_eq!(put(&scene.tenant, "CA-test", test).await["sync"]["decision"], "excluded");
    scene.hours(2).await;
    assert_eq!((scene.ehr.kept().len(), scene.ehr.asked().len()), (1, 1));
    let total = scene.tenant.get("/deliveries").await.ok()["total"].clone();
    assert_eq!(total, 1);
    let events = scene.tenant.audit().await;
    let decisions = events.iter().filter(|event| event["action"] == "call.finish");
    let decisions: Vec<&str> = decisions.map(|event| event["metadata"].text("sync")).collect();
    let count = |decision: &str| decisions.iter().filter(|one| **one == decision).count();
    assert_eq!((count("not_chosen"), count("owed"), count("excluded")), (5, 1, 1));
    // Settings hold for the calls that finish under them, and change no earlier decision.
    set_delivery(&scene.tenant, every_end()).await.ok();
    let late = json!({ "status": "busy", "summary": "A message was left." });
    assert_eq!(put(&scene.tenant, "CA-busy", late).await["sync"]["decision"], "not_chosen");
    for status in MISSED {
        assert_eq!(decided(&scene, &format!("CB-{status}"), json!({ "status": status })).await, "owed");
    }
    scene.hours(1).await;
    let kept = scene.ehr.kept();
    assert_eq!(kept.len(), 5);
    assert_eq!(kept.iter().filter(|resource| resource["status"] == "not-done").count(), 4);
});

both!(a_call_must_meet_every_condition, async || {
    let scene = Scene::of("fhir_store").await;
    let missed = json!({ "statuses": ["busy", "no_answer", "failed", "canceled"] });
    let together = json!({ "statuses": ["completed", "no_answer"], "directions": ["inbound"],
                           "min_duration_seconds": 30, "dispositions": ["voicemail"] });
    let met = |status: &str, direction: &str, seconds: u32, reason: &str| json!({ "status": status, "direction": direction, "duration_seconds": seconds, "completion_reason": reason });
    let cases = [
        (json!({}), json!({}), true),
        (json!({}), json!({ "status": "busy" }), false),
        (missed.clone(), json!({ "status": "busy" }), true),
        (missed.clone(), json!({ "status": "no answer" }), true),
        (missed.clone(), json!({ "status": "Failed" }), true),
        (missed.clone(), json!({ "status": "cancelled" }), true),
        (missed.clone(), json!({ "completion_reason": "no_answer" }), true),
        (missed, json!({}), false),
        (json!({ "directions": ["inbound"] }), json!({}), true),
        (json!({ "directions": ["inbound"] }), json!({ "direction": "outbound-api" }), false),
        (json!({ "directions": ["outbound"] }), json!({}), false),
        (json!({ "directions": ["outbound"] }), json!({ "direction": "outbound-api" }), true),
        (json!({ "directions": ["outbound", "inbound"] }), json!({}), true),
        // The call took 61.25 seconds.
        (json!({ "min_duration_seconds": 61 }), json!({}), true),
        (json!({ "min_duration_seconds": 62 }), json!({}), false),
        (json!({ "min_duration_seconds": 1 }), json!({ "duration_seconds": null }), false),
        (json!({ "min_duration_seconds": 0 }), json!({ "duration_seconds": null }), true),
        (json!({ "dispositions": ["voicemail"] }), json!({}), false),
        (
            json!({ "dispositions": ["transferred", "voicemail"] }),
            json!({ "completion_reason": "Voicemail" }),
            true,
        ),
        (
            json!({ "dispositions": ["handed to a robot"] }),
            json!({ "completion_reason": "handed-to_a robot" }),
            true,
        ),
        (json!({ "dispositions": ["voicemail"] }), json!({ "completion_reason": "escalated" }), false),
        (together.clone(), met("completed", "inbound", 30, "voicemail"), true),
        (together.clone(), met("no-answer", "inbound", 30, "voicemail"), true),
        (together.clone(), met("busy", "inbound", 30, "voicemail"), false),
        (together.clone(), met("completed", "outbound", 30, "voicemail"), false),
        (together.clone(), met("completed", "inbound", 29, "voicemail"), false),
        (together, met("completed", "inbound", 30, "escalated"), false),
    ];
    let written = cases.iter().filter(|(.., is_written)| *is_written).count();
    for (index, (calls, fields, is_written)) in cases.into_iter().enumerate() {
        set_delivery(&scene.tenant, json!({ "calls": calls })).await.ok();
        let expected = if is_written { "owed" } else { "not_chosen" };
        let decided = decided(&scene, &format!("CA{index}"), fields.clone()).await;
        assert_eq!(decided, expected, "{calls} {fields}");
    }
    scene.hours(3).await;
    assert_eq!(scene.ehr.kept().len(), written);
});

both!(facts_of_earlier_reports_count_at_the_end, async || {
    let scene = Scene::of("fhir_store").await;
    set_delivery(&scene.tenant, json!({ "calls": { "dispositions": ["voicemail"] } })).await.ok();
    let begun = json!({ "status": "in-progress", "caller_id": PATIENT, "direction": "inbound",
                        "completion_reason": "voicemail" });
    assert_eq!(put(&scene.tenant, "CA1", begun).await["sync"]["decision"], Value::Null);
    let over = put(&scene.tenant, "CA1", json!({ "status": "completed" })).await;
    assert_eq!(over["sync"]["decision"], "owed");
    // A reason that comes after the end decides nothing.
    assert_eq!(decided(&scene, "CA2", json!({})).await, "not_chosen");
    let late =
        put(&scene.tenant, "CA2", json!({ "status": "completed", "completion_reason": "voicemail" })).await;
    assert_eq!(
        (&late["completion_reason"], &late["sync"]["decision"]),
        (&json!("voicemail"), &json!("not_chosen"))
    );
});

both!(a_bad_setting_is_refused_and_the_answer_names_it, async || {
    let scene = Scene::of("fhir_store").await;
    let all = json!({
        "calls": {
            "statuses": ["completed", "busy", "no_answer", "failed", "canceled"], "directions": ["inbound", "outbound"],
            "min_duration_seconds": 86_400, "dispositions": vec!["w".repeat(256); 20],
        },
        "wait_for_summary_seconds": 86_400,
    });
    assert_eq!(set_delivery(&scene.tenant, all.clone()).await.ok()["delivery"], all);
    let calls = |calls: Value| json!({ "calls": calls });
    for (delivery, field) in [
        (calls(json!("all")), "calls"),
        (calls(json!({ "statuses": "completed" })), "calls.statuses"),
        (calls(json!({ "statuses": [] })), "calls.statuses"),
        (calls(json!({ "statuses": vec!["busy"; 6] })), "calls.statuses"),
        (calls(json!({ "statuses": ["completed", "no-answer"] })), "calls.statuses.1"),
        (calls(json!({ "statuses": ["ringing"] })), "calls.statuses.0"),
        (calls(json!({ "directions": [] })), "calls.directions"),
        (calls(json!({ "directions": ["inbound", "outbound", "inbound"] })), "calls.directions"),
        (calls(json!({ "directions": ["test"] })), "calls.directions.0"),
        (calls(json!({ "min_duration_seconds": -1 })), "calls.min_duration_seconds"),
        (calls(json!({ "min_duration_seconds": 86_401 })), "calls.min_duration_seconds"),
        (calls(json!({ "min_duration_seconds": 1.5 })), "calls.min_duration_seconds"),
        (calls(json!({ "dispositions": [] })), "calls.dispositions"),
        (calls(json!({ "dispositions": vec!["w"; 21] })), "calls.dispositions"),
        (calls(json!({ "dispositions": ["voicemail", " "] })), "calls.dispositions.1"),
        (calls(json!({ "dispositions": ["w".repeat(257)] })), "calls.dispositions.0"),
        (json!({ "wait_for_summary_seconds": -1 }), "wait_for_summary_seconds"),
        (json!({ "wait_for_summary_seconds": 86_401 }), "wait_for_summary_seconds"),
        (json!({ "wait_for_summary_seconds": "soon" }), "wait_for_summary_seconds"),
    ] {
        let wanted = [format!("body.delivery.{field}")];
        assert_eq!(set_delivery(&scene.tenant, delivery.clone()).await.problem_locs(), wanted, "{delivery}");
        let new = json!({ "name": fresh_slug(), "display_name": "New", "delivery": delivery });
        assert_eq!(scene.tenant.post("/integrations", new).await.problem_locs(), wanted, "{delivery}");
    }
    let kept = scene.tenant.get("/integrations").await.ok()["items"][0]["delivery"].clone();
    assert_eq!(kept, all);
    // White space around a disposition is no part of it, and a setting that is null is absent.
    let spaced = json!({ "calls": { "dispositions": [" voicemail "], "statuses": null }, "wait_for_summary_seconds": null });
    let set = set_delivery(&scene.tenant, spaced).await.ok();
    assert_eq!(set["delivery"], json!({ "calls": { "dispositions": ["voicemail"] } }));
});

both!(a_delivery_waits_for_a_summary_until_a_report_brings_it, async || {
    let scene = Scene::of("fhir_store").await;
    scene.server.clock.stop_at(scene.server.clock.now());
    set_delivery(&scene.tenant, json!({ "wait_for_summary_seconds": 3_600 })).await.ok();
    // The report of the end has the summary.
    put(&scene.tenant, "CA-last", finished_with(json!({ "summary": "A refill." }))).await;
    assert_eq!(after(&scene, Duration::ZERO).await, 1);
    // An earlier report had it.
    let begun = json!({ "status": "in-progress", "caller_id": PATIENT, "direction": "inbound", "summary": "A cough." });
    put(&scene.tenant, "CA-early", begun).await;
    put(&scene.tenant, "CA-early", json!({ "status": "completed" })).await;
    assert_eq!(after(&scene, Duration::ZERO).await, 2);
    // A later report brings it. Other reports of the end do not shorten the wait, changed or repeated.
    let id = scene.owe("CA-late").await;
    let delivery = scene.delivery(&id).await;
    let micros = |field: &str| delivery.text(field).parse::<Timestamp>().unwrap().micros();
    assert_eq!(micros("next_attempt_at") - micros("created_at"), 3_600_000_000);
    for _ in 0..2 {
        put(&scene.tenant, "CA-late", json!({ "status": "completed", "turns": 4 })).await;
        assert_eq!(after(&scene, Duration::from_mins(20)).await, 2);
    }
    put(&scene.tenant, "CA-late", json!({ "status": "completed", "summary": "A late summary." })).await;
    assert_eq!(after(&scene, Duration::ZERO).await, 3);
    assert!(note(&scene.ehr.kept()[2]).ends_with("\n\nA late summary."));
    // No report brings it, and the wait ends with its time.
    scene.owe("CA-never").await;
    assert_eq!(after(&scene, Duration::from_secs(3_599)).await, 3);
    assert_eq!(after(&scene, Duration::from_secs(1)).await, 4);
    assert!(note(&scene.ehr.kept()[3]).ends_with("\nCall: CA-never"));
    // A summary that comes after the time adds no second note.
    put(&scene.tenant, "CA-never", json!({ "status": "completed", "summary": "Too late." })).await;
    scene.hours(2).await;
    assert_eq!(scene.ehr.writes(), 4);
    // A person need not wait.
    let id = scene.owe("CA-retried").await;
    assert_eq!(after(&scene, Duration::ZERO).await, 4);
    scene.retry(&id).await.ok();
    assert_eq!(after(&scene, Duration::ZERO).await, 5);
    // Without the setting nothing waits.
    set_delivery(&scene.tenant, json!({})).await.ok();
    scene.owe("CA-at-once").await;
    assert_eq!(after(&scene, Duration::ZERO).await, 6);
});

both!(a_call_that_twilio_ends_waits_for_the_runtime_and_for_the_summary, async || {
    let (server, tenant) = with_twilio().await;
    server.clock.stop_at(server.clock.now());
    let ehr = ScriptedEhr::start().await;
    connect(&tenant, "fhir_store").await;
    configure(&server, &tenant, &ehr.url(), true).await;
    set_delivery(&tenant, json!({ "wait_for_summary_seconds": 3_600 })).await.ok();
    let scene = Scene { worker: worker(&server.app), server, tenant, ehr };
    for sid in ["CA1", "CA2", "CA3"] {
        callback(&scene.server, &scene.tenant, &event(sid, "completed", PATIENT)).await.no_content();
    }
    assert_eq!(after(&scene, Duration::from_mins(10)).await, 0);
    // The runtime's report ends the wait only if it has the summary.
    put(&scene.tenant, "CA1", json!({ "status": "completed", "patient_id": "pat-1" })).await;
    put(&scene.tenant, "CA2", json!({ "status": "completed", "summary": "A refill." })).await;
    assert_eq!(after(&scene, Duration::ZERO).await, 1);
    assert!(note(&scene.ehr.kept()[0]).ends_with("\n\nA refill."));
    assert_eq!(after(&scene, Duration::from_secs(50 * 60 - 1)).await, 1);
    assert_eq!(after(&scene, Duration::from_secs(1)).await, 3);
    // A wait that is shorter than the runtime's turn does not shorten that turn. The runtime's report ends the turn.
    set_delivery(&scene.tenant, json!({ "wait_for_summary_seconds": 30 })).await.ok();
    for sid in ["CB1", "CB2", "CB3"] {
        callback(&scene.server, &scene.tenant, &event(sid, "completed", PATIENT)).await.no_content();
    }
    put(&scene.tenant, "CB1", json!({ "status": "completed" })).await;
    assert_eq!(after(&scene, Duration::from_secs(29)).await, 3);
    assert_eq!(after(&scene, Duration::from_secs(1)).await, 4);
    put(&scene.tenant, "CB2", json!({ "status": "completed" })).await;
    assert_eq!(after(&scene, Duration::ZERO).await, 5);
    assert_eq!(after(&scene, Duration::from_secs(89)).await, 5);
    assert_eq!(after(&scene, Duration::from_secs(1)).await, 6);
    // Twilio's words for a missed call are missed calls too.
    let missed = reported(&scene.server, &scene.tenant, &event("CC1", "no-answer", PATIENT)).await;
    assert_eq!(missed["sync"]["decision"], "not_chosen");
});

both!(a_note_says_what_was_reported_and_nothing_else, async || {
    let scene = Scene::of("fhir_store").await;
    let full = json!({
        "phone_number": "+15550109999", "started_at": "2026-04-18T12:00:00Z", "ended_at": "2026-04-18T12:01:01.25Z",
        "completion_reason": "warm_transfer_completed", "final_state": "refill_requested",
        "escalation_status": "to a nurse", "summary": "Asked for a refill.\nWill call back.",
    });
    put(&scene.tenant, "CA-full", finished_with(full)).await;
    scene.worker.turn().await;
    let lines = [
        "Inbound telephone call, completed.",
        "From: +15550100002",
        "To: +15550109999",
        "Started: 2026-04-18 12:00:00 UTC",
        "Duration: 61 s",
        "Call: CA-full",
        "Disposition: warm transfer completed",
        "Final state: refill requested",
        "Escalation: to a nurse",
        "",
        "Asked for a refill.",
        "Will call back.",
    ];
    assert_eq!(note(&scene.ehr.kept()[0]), lines.join("\n"));
    let bare = json!({ "status": "completed", "caller_id": null, "direction": "outbound",
                       "started_at": "2026-04-18T12:00:00Z" });
    put(&scene.tenant, "CA-bare", bare).await;
    scene.worker.turn().await;
    let lines = [
        "Outbound telephone call, completed.",
        "From: withheld",
        "Started: 2026-04-18 12:00:00 UTC",
        "Call: CA-bare",
    ];
    assert_eq!(note(&scene.ehr.kept()[1]), lines.join("\n"));
    // Long texts of a report arrive with the length at which Ward keeps them.
    let long = json!({ "completion_reason": "r".repeat(300), "final_state": "s".repeat(300),
                       "escalation_status": "e".repeat(300), "summary": "w".repeat(30_000) });
    put(&scene.tenant, "CA-long", finished_with(long)).await;
    scene.worker.turn().await;
    let text = note(&scene.ehr.kept()[2]);
    for line in [
        format!("Disposition: {}", "r".repeat(256)),
        format!("Final state: {}", "s".repeat(256)),
        format!("Escalation: {}", "e".repeat(256)),
        format!("{}…", "w".repeat(19_999)),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    set_delivery(&scene.tenant, every_end()).await.ok();
    put(
        &scene.tenant,
        "CA-missed",
        finished_with(json!({ "status": "no-answer", "completion_reason": "no_answer" })),
    )
    .await;
    scene.worker.turn().await;
    let text = note(&scene.ehr.kept()[3]);
    assert!(text.starts_with("Inbound telephone call, no answer.\n"), "{text}");
    assert!(text.ends_with("\nDisposition: no answer"), "{text}");
});

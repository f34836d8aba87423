//! Words of outside systems in calls: their spellings, their length, and what an EHR gets of them.

use serde_json::{Value, json};
use ward_test::{Fields as _, Server, both};

use crate::calls::{PATIENT, TESTER, event, finished, put, reported, set_test_callers, with, with_twilio};
use crate::chosen::{every_end, set_delivery};
use crate::deliveries::Scene;

/// A finished call with other fields.
pub fn finished_with(fields: Value) -> Value {
    let mut body = finished(PATIENT);
    let Value::Object(fields) = fields else { panic!("fields") };
    body.as_object_mut().unwrap().extend(fields);
    body
}

both!(a_call_that_nobody_answered_is_never_charted_as_completed, async || {
    let scene = Scene::of("fhir_store").await;
    set_delivery(&scene.tenant, every_end()).await.ok();
    let ended = "2026-04-18T12:01:01Z";
    let unanswered = [
        (json!({ "status": "No-Answer", "ended_at": ended }), "no-answer"),
        (json!({ "status": "BUSY" }), "busy"),
        (json!({ "status": "cancelled", "ended_at": ended }), "canceled"),
        (json!({ "status": "Failed", "completion_reason": "error" }), "failed"),
        (json!({ "status": "no answer", "completion_reason": "no_answer" }), "no-answer"),
        (json!({ "status": "completed", "completion_reason": "No_Answer" }), "no-answer"),
        (json!({ "status": "COMPLETED", "completion_reason": "cancelled" }), "canceled"),
        (json!({ "status": "disposed", "completion_reason": "busy", "ended_at": ended }), "busy"),
        (json!({ "status": "disposed", "completion_reason": "error", "ended_at": ended }), "failed"),
    ];
    let count = unanswered.len();
    for (index, (told, status)) in unanswered.into_iter().enumerate() {
        let call = put(&scene.tenant, &format!("CA{index}"), finished_with(told.clone())).await;
        assert_eq!(
            call.fields(["status", "status_detail"]),
            json!([status, call["status_detail"]]),
            "{told}"
        );
        assert_eq!(call["sync"]["decision"], "owed", "{told}");
    }
    // The reason comes first, and the end in a report of its own.
    let ringing = json!({ "status": "ringing", "completion_reason": "no_answer", "direction": "inbound",
                          "caller_id": PATIENT });
    put(&scene.tenant, "CB1", ringing).await;
    assert_eq!(put(&scene.tenant, "CB1", json!({ "status": "completed" })).await["status"], "no-answer");
    scene.worker.turn().await;
    let kept = scene.ehr.kept();
    assert_eq!(kept.len(), count + 1);
    for record in &kept {
        assert_eq!(record["status"], "not-done", "{record}");
    }
    // An end in any spelling finishes the call, and an answered one stays completed.
    for (index, told) in ["Completed", "COMPLETED", "hung_up"].into_iter().enumerate() {
        let told = json!({ "status": told, "ended_at": ended, "completion_reason": "caller_hangup" });
        let call = put(&scene.tenant, &format!("CC{index}"), finished_with(told)).await;
        assert_eq!(call["status"], "completed");
    }
    let in_progress = finished_with(json!({ "status": "IN_PROGRESS" }));
    assert_eq!(put(&scene.tenant, "CC9", in_progress).await["status"], "in-progress");
});

both!(twilios_words_have_many_spellings_too, async || {
    let (server, tenant) = with_twilio().await;
    // Ward refuses capital letters in these fields, because Twilio's signature does not divide its fields.
    for (sid, told, status) in [("CA1", "no_answer", "no-answer"), ("CA2", "cancelled", "canceled")] {
        let mut over = event(sid, told, PATIENT);
        over.push(("CallDuration", "0"));
        assert_eq!(reported(&server, &tenant, &over).await["status"], status, "{told}");
    }
    for (sid, told, direction) in
        [("CB1", "outbound_api", "outbound"), ("CB2", "test", "test"), ("CB3", "elastic", "inbound")]
    {
        let over = with(event(sid, "completed", PATIENT), "Direction", told);
        assert_eq!(reported(&server, &tenant, &over).await["direction"], direction, "{told}");
    }
});

both!(no_word_of_a_report_refuses_a_finished_call, async || {
    let scene = Scene::of("fhir_store").await;
    for (index, (told, direction, adjusted)) in [
        ("outbound-dial", "outbound", Value::Null),
        ("OUTBOUND", "outbound", Value::Null),
        ("chat", "inbound", json!(["direction"])),
        ("test", "test", Value::Null),
        ("Test_Suite", "test", json!(["direction"])),
        ("simulation", "simulated", json!(["direction"])),
    ]
    .into_iter()
    .enumerate()
    {
        let call =
            put(&scene.tenant, &format!("CA{index}"), finished_with(json!({ "direction": told }))).await;
        assert_eq!(call.fields(["direction", "adjusted_fields"]), json!([direction, adjusted]), "{told}");
        let decision = if matches!(direction, "inbound" | "outbound") { "owed" } else { "excluded" };
        assert_eq!(call["sync"]["decision"], decision, "{told}");
    }
    // A list of test callers decides before any word.
    set_test_callers(&scene.tenant, &[TESTER]).await;
    let mut listed = finished_with(json!({ "direction": "outbound-api" }));
    listed["caller_id"] = json!(TESTER);
    assert_eq!(put(&scene.tenant, "CB1", listed).await["direction"], "test");
    let long = |count: usize| "w".repeat(count);
    let call = put(
        &scene.tenant,
        "CB2",
        finished_with(json!({
            "status": long(90), "completion_reason": long(300), "final_state": long(257),
            "escalation_status": "to a\u{7} nurse", "summary": long(30_000), "service_id": long(400),
            "run_id": long(256), "parent_session_id": long(257), "turns": [], "ended_at": "2026-04-18T12:01:01Z",
        })),
    )
    .await;
    assert_eq!(
        call.fields(["status", "status_detail", "completion_reason"]),
        json!(["completed", long(64), long(256)])
    );
    assert_eq!(
        call.fields(["final_state", "escalation_status", "turn_count"]),
        json!([long(256), "to a nurse", null])
    );
    assert_eq!(call.fields(["service_id", "run_id", "parent_session_id"]), json!([null, long(256), null]));
    assert_eq!(call["summary"], format!("{}…", long(19_999)));
    let mut adjusted = call.list("adjusted_fields").clone();
    adjusted.sort_by_key(ToString::to_string);
    assert_eq!(
        json!(adjusted),
        json!([
            "completion_reason",
            "escalation_status",
            "final_state",
            "parent_session_id",
            "service_id",
            "status",
            "summary"
        ])
    );
    // Ward's own answer is a report that changes nothing of these.
    let own = scene.tenant.get("/calls/CB2").await.ok();
    assert_eq!(own.fields(["turns", "adjusted_fields"]), json!([[], null]));
    let again = put(&scene.tenant, "CB2", own).await;
    for field in
        ["status", "status_detail", "direction", "completion_reason", "summary", "turn_count", "started_at"]
    {
        assert_eq!(again[field], call[field], "{field}");
    }
});

both!(no_odd_value_of_a_report_loses_a_finished_call, async || {
    let scene = Scene::of("fhir_store").await;
    for (index, (field, odd, kept)) in [
        ("completion_reason", json!("a\u{0}b"), json!("ab")),
        ("summary", json!("a\u{0}b"), json!("ab")),
        ("final_state", json!("\u{0}"), Value::Null),
        ("escalation_status", json!("a\u{0}"), json!("a")),
        ("run_id", json!("a\u{0}"), Value::Null),
        ("patient_id", json!("a\u{0}"), Value::Null),
        ("encounter_id", json!("\u{0}a"), Value::Null),
        ("service_id", json!("a\u{0}a"), Value::Null),
        ("direction", json!("in\u{0}bound"), json!("inbound")),
        ("direction", json!(""), json!("inbound")),
        ("direction", json!(" "), json!("inbound")),
        ("duration_seconds", json!(-1), Value::Null),
        ("duration_seconds", json!(-0.25), Value::Null),
        ("duration_seconds", json!(864_001), Value::Null),
        ("duration_seconds", json!(1e300), Value::Null),
        ("turn_count", json!(-1), Value::Null),
        ("fork_turn_index", json!(-7), Value::Null),
        ("turn_count", json!(1_000_001), Value::Null),
        ("turn_count", json!(i64::MAX), Value::Null),
        ("fork_turn_index", json!(u64::MAX), Value::Null),
    ]
    .into_iter()
    .enumerate()
    {
        let sent = if field == "turn_count" { "turns" } else { field };
        let call = put(&scene.tenant, &format!("CA{index}"), finished_with(json!({ sent: odd }))).await;
        assert_eq!((&call["sync"]["decision"], &call[field]), (&json!("owed"), &kept), "{field} {odd}");
        let is_known_direction = odd == "in\u{0}bound";
        let adjusted = if is_known_direction { Value::Null } else { json!([sent]) };
        assert_eq!(call["adjusted_fields"], adjusted, "{field} {odd}");
    }
    let ended = json!({ "status": "do\u{0}ne", "ended_at": "2026-04-18T12:01:01Z" });
    let call = put(&scene.tenant, "CB1", finished_with(ended)).await;
    assert_eq!(call.fields(["status", "status_detail"]), json!(["completed", "done"]));
    // A party decides whether the call is a test, so Ward does not guess at it.
    let mut party = finished_with(json!({}));
    party["caller_id"] = json!("+1555\u{0}0100001");
    assert_eq!(scene.tenant.put("/calls/CB2", party).await.problem_locs(), ["body.caller_id"]);
    let mut party = finished_with(json!({}));
    party["caller_id"] = json!("+1555010\u{ff10}\u{ff10}02");
    let refused = scene.tenant.put("/calls/CB2", party).await;
    assert!(refused.status == 422 && refused.text.contains("U+FF10"), "{refused:?}");
});

both!(a_patients_id_is_kept_whole_or_not_at_all, async || {
    let (_server, tenant) = Server::with_tenant().await;
    for (index, wrong) in
        ["p".repeat(65), "p".repeat(300), "Patient/7".to_owned(), "p 7".to_owned()].into_iter().enumerate()
    {
        let sid = format!("CA{index}");
        let call = put(&tenant, &sid, finished_with(json!({ "patient_id": wrong }))).await;
        assert_eq!(call.fields(["patient_id", "adjusted_fields"]), json!([null, ["patient_id"]]), "{wrong}");
        // A later report may give the right one, which a wrong one does not replace.
        let call = put(&tenant, &sid, json!({ "status": "completed", "patient_id": " pat-7\n" })).await;
        assert_eq!(call.fields(["patient_id", "adjusted_fields"]), json!(["pat-7", null]));
        let call = put(&tenant, &sid, json!({ "status": "completed", "patient_id": wrong })).await;
        assert_eq!(call["patient_id"], "pat-7");
    }
});

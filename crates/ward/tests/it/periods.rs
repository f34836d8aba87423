//! The start and end of calls as different reporters send them, and their unknown words.

use std::time::Duration;

use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_test::{Fields as _, Server, both};

use crate::calls::{callback, event, finished, put, reported, with_twilio};

const PATIENT: &str = "+15550100002";

fn timestamp(call: &Value, field: &str) -> Timestamp {
    call[field].as_str().unwrap_or_default().parse().unwrap()
}

both!(a_runtime_that_reports_once_at_the_end_has_its_start_reckoned, async || {
    let (server, tenant) = Server::with_tenant().await;
    let mut body = finished(PATIENT);
    body["ended_at"] = json!("2026-04-18T14:01:01.25+02:00");
    let call = put(&tenant, "CA1", body).await;
    assert_eq!(
        call.fields(["started_at", "ended_at"]),
        json!(["2026-04-18T12:00:00.000000Z", "2026-04-18T12:01:01.250000Z"])
    );
    assert_eq!(
        call.fields(["call_start_time", "call_end_time"]),
        json!([call["started_at"], call["ended_at"]])
    );
    assert_eq!(call["call_duration_seconds"], 61.25);
    // With a duration alone, the call ended at the time of the report. A retry changes nothing.
    let before = server.clock.now();
    let call = put(&tenant, "CA2", finished(PATIENT)).await;
    let after = server.clock.now();
    let started = timestamp(&call, "started_at").micros() + 61_250_000;
    assert!((before.micros()..=after.micros()).contains(&started), "{call}");
    server.clock.advance(Duration::from_mins(5));
    assert_eq!(put(&tenant, "CA2", finished(PATIENT)).await["started_at"], call["started_at"]);
    // With an end alone, no call starts after it.
    let body = json!({ "status": "failed", "caller_id": PATIENT, "direction": "inbound",
                       "ended_at": "2026-04-18T12:00:00Z" });
    assert_eq!(put(&tenant, "CA3", body).await["started_at"], "2026-04-18T12:00:00.000000Z");
    // A reported time takes precedence over a computed one, in either order of arrival.
    let told = json!({ "status": "completed", "started_at": "2026-04-18T11:59:58Z" });
    assert_eq!(put(&tenant, "CA1", told).await["started_at"], "2026-04-18T11:59:58.000000Z");
});

both!(twilios_length_alone_gives_a_start_as_the_runtimes_does, async || {
    let (server, tenant) = with_twilio().await;
    callback(&server, &tenant, &event("CA1", "ringing", PATIENT)).await.no_content();
    server.clock.advance(Duration::from_mins(10));
    let mut over = event("CA1", "completed", PATIENT);
    over.push(("CallDuration", "61"));
    let before = server.clock.now();
    callback(&server, &tenant, &over).await.no_content();
    let after = server.clock.now();
    let call = tenant.get("/calls/CA1").await.ok();
    let started = timestamp(&call, "started_at").micros() + 61_000_000;
    assert!((before.micros()..=after.micros()).contains(&started), "{call}");
});

both!(no_call_starts_before_the_year_1, async || {
    let (server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/calls/CA1");
    let mut body = finished(PATIENT);
    (body["ended_at"], body["duration_seconds"]) = (json!("0001-01-02T00:00:00Z"), json!(86_401));
    assert_eq!(tenant.owner.put(&path, body.clone()).await.problem_locs(), ["body.ended_at"]);
    assert_eq!(server.count("SELECT count(*) FROM calls").await, 0);
    body["duration_seconds"] = json!(86_400);
    assert_eq!(put(&tenant, "CA1", body).await["started_at"], "0001-01-01T00:00:00.000000Z");
});

both!(no_call_ends_before_it_starts, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/calls/CA1");
    let (early, late) = ("2026-04-18T12:00:00Z", "2026-04-18T12:00:00.000001Z");
    let mut body = finished(PATIENT);
    (body["started_at"], body["ended_at"]) = (json!(late), json!(early));
    let refused = tenant.owner.put(&path, body.clone()).await;
    assert_eq!(refused.problem_locs(), ["body.ended_at"]);
    // The same times in other zones are compared as times.
    (body["started_at"], body["ended_at"]) =
        (json!("2026-04-18T12:30:00Z"), json!("2026-04-18T14:00:00+02:00"));
    assert_eq!(tenant.owner.put(&path, body.clone()).await.problem_locs(), ["body.ended_at"]);
    tenant.owner.get(&path).await.refused(404);
    (body["started_at"], body["ended_at"]) = (json!(early), json!(early));
    put(&tenant, "CA1", body).await;
    // The times come in different reports.
    let ringing = |sid: &str| {
        let body =
            json!({ "status": "ringing", "caller_id": PATIENT, "direction": "inbound", "started_at": late });
        (sid.to_owned(), body)
    };
    let (sid, body) = ringing("CA2");
    let first = put(&tenant, &sid, body).await;
    let over = json!({ "status": "completed", "ended_at": early });
    assert_eq!(tenant.put("/calls/CA2", over).await.problem_locs(), ["body.ended_at"]);
    let now = tenant.get("/calls/CA2").await.ok();
    assert_eq!(now.fields(["status", "updated_at"]), json!(["ringing", first["updated_at"]]));
    let mut over = finished(PATIENT);
    over["ended_at"] = json!(early);
    put(&tenant, "CA3", over).await;
    let begun = json!({ "status": "in-progress", "started_at": late });
    assert_eq!(tenant.put("/calls/CA3", begun).await.problem_locs(), ["body.started_at"]);
});

both!(two_reporters_clocks_that_differ_refuse_no_finished_call, async || {
    let (server, tenant) = with_twilio().await;
    // Twilio's end is before the runtime's start: the reported start holds, with Twilio's duration.
    let begun = json!({ "status": "in-progress", "caller_id": PATIENT, "direction": "inbound",
                        "started_at": "2026-04-18T12:02:00Z" });
    put(&tenant, "CA1", begun).await;
    let over = |sid| {
        let mut over = event(sid, "completed", PATIENT);
        over.extend([("CallDuration", "61"), ("Timestamp", "Sat, 18 Apr 2026 12:01:01 +0000")]);
        over
    };
    let call = reported(&server, &tenant, &over("CA1")).await;
    assert_eq!(
        call.fields(["started_at", "ended_at"]),
        json!(["2026-04-18T12:02:00.000000Z", "2026-04-18T12:03:01.000000Z"])
    );
    // The runtime reports the whole period after Twilio: both ends are accepted.
    callback(&server, &tenant, &over("CA2")).await.no_content();
    let told = json!({ "status": "completed", "started_at": "2026-04-18T12:02:00Z",
                       "ended_at": "2026-04-18T12:03:02Z", "summary": "A refill." });
    let call = put(&tenant, "CA2", told).await;
    assert_eq!(
        call.fields(["started_at", "ended_at", "summary"]),
        json!(["2026-04-18T12:02:00.000000Z", "2026-04-18T12:03:02.000000Z", "A refill."])
    );
});

both!(a_time_in_a_report_says_its_zone, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let times = [
        json!("2026-04-18T12:00:00"),
        json!("2026-04-18"),
        json!(1_776_513_600),
        json!("1776513600"),
        json!(1.5),
    ];
    for time in times {
        let mut body = finished(PATIENT);
        (body["started_at"], body["ended_at"]) = (time.clone(), time.clone());
        let refused = tenant.put("/calls/CA1", body).await;
        assert_eq!(refused.problem_locs(), ["body.started_at", "body.ended_at"], "{time}");
        let refused: Value = serde_json::from_str(&refused.text).unwrap();
        for problem in refused.list("detail") {
            assert_eq!(
                problem.fields(["type", "msg", "input"]),
                json!(["timezone_aware", "Input should have timezone info", time])
            );
        }
    }
    tenant.get("/calls/CA1").await.refused(404);
});

both!(words_that_ward_does_not_know_are_kept, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let reasons = [
        "caller_hangup",
        "forwarded",
        "terminal_state",
        "warm_transfer_completed",
        "no_inbound_audio",
        "passed to the night nurse",
    ];
    for (index, reason) in reasons.into_iter().enumerate() {
        let mut body = finished(PATIENT);
        body["completion_reason"] = json!(reason);
        let call = put(&tenant, &format!("CA{index}"), body).await;
        assert_eq!(call.fields(["completion_reason", "status"]), json!([reason, "completed"]));
    }
    // An unknown status changes nothing, unless the report has the end as well.
    let odd = |status: &str| json!({ "status": status, "caller_id": PATIENT, "direction": "inbound" });
    let call = put(&tenant, "CC1", odd("wrapping-up")).await;
    assert_eq!(call.fields(["status", "status_detail"]), json!(["unknown", "wrapping-up"]));
    assert_eq!(put(&tenant, "CC1", odd("in-progress")).await["status"], "in-progress");
    assert_eq!(put(&tenant, "CC1", odd("on-hold")).await["status"], "in-progress");
    let call =
        put(&tenant, "CC1", json!({ "status": "hung-up", "completion_reason": "caller_hangup" })).await;
    assert_eq!((&call["status"], &call["sync"]["decision"]), (&json!("completed"), &json!("no_connector")));
    let call = put(&tenant, "CC2", odd("queued")).await;
    assert_eq!(call["status"], "initiated", "no client knows a queued call");
    let listed = tenant.get("/calls?status=initiated").await.ok();
    assert_eq!(listed["items"][0]["call_sid"], "CC2");
});

both!(twilios_new_words_are_kept_too, async || {
    let (server, tenant) = with_twilio().await;
    let call = reported(&server, &tenant, &event("CA1", "parked", PATIENT)).await;
    assert_eq!(call.fields(["status", "status_detail"]), json!(["unknown", "parked"]));
    let mut over = event("CA1", "dissolved", PATIENT);
    over.push(("CallDuration", "7"));
    let call = reported(&server, &tenant, &over).await;
    assert_eq!(call.fields(["status", "duration_seconds"]), json!(["completed", 7.0]));
    let nothing = callback(&server, &tenant, &event("CA2", "", PATIENT)).await;
    assert_eq!(nothing.problem_locs(), ["body.CallStatus"]);
});

both!(an_end_of_another_kind_adds_nothing_to_the_end_of_a_call, async || {
    let (server, tenant) = with_twilio().await;
    let body = json!({ "status": "completed", "caller_id": PATIENT, "direction": "inbound" });
    put(&tenant, "CA1", body).await;
    let mut other = event("CA1", "no-answer", PATIENT);
    other.extend([("CallDuration", "0"), ("Timestamp", "Sat, 18 Apr 2026 12:01:01 +0000")]);
    callback(&server, &tenant, &other).await.no_content();
    let call =
        put(&tenant, "CA1", json!({ "status": "failed", "completion_reason": "error", "turns": 3 })).await;
    assert_eq!(call.fields(["status", "turn_count"]), json!(["completed", 3]));
    for unknown in ["completion_reason", "duration_seconds", "ended_at"] {
        assert_eq!(call[unknown], Value::Null, "{unknown}");
    }
    // The same end fills the unknown fields.
    let call = put(&tenant, "CA1", json!({ "status": "completed", "completion_reason": "voicemail" })).await;
    assert_eq!(call["completion_reason"], "voicemail");
});

both!(a_collections_name_is_no_call, async || {
    let (server, tenant) = Server::with_tenant().await;
    for name in ["benchmarks", "phone-volume", "search", "a_b.c", "a%20B1", &"C".repeat(129)] {
        let path = tenant.path(&format!("/calls/{name}"));
        assert_eq!(
            tenant.owner.put(&path, finished(PATIENT)).await.problem_locs(),
            ["path.call_sid"],
            "{name}"
        );
        tenant.owner.get(&path).await.refused_as(404, "call_not_found");
    }
    assert_eq!(server.count("SELECT count(*) FROM calls").await, 0);
    for sid in ["CA1", "0", "call-7", "Z", &"C".repeat(128)] {
        put(&tenant, sid, finished(PATIENT)).await;
    }
});

both!(a_calls_detail_has_what_the_platforms_clients_read, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let mut body = finished(PATIENT);
    (body["turns"], body["ended_at"]) = (json!(12), json!("2026-04-18T12:01:01.25Z"));
    put(&tenant, "CA1", body).await;
    put(&tenant, "CA2", json!({ "status": "ringing", "caller_id": null, "direction": "inbound" })).await;
    for (sid, turns, recorded, seconds) in
        [("CA1", json!(12), json!(false), 61.25), ("CA2", Value::Null, json!(false), 0.0)]
    {
        let call = tenant.get(&format!("/calls/{sid}")).await.ok();
        assert_eq!(call.fields(["id", "workspace_id"]), json!([call["entity_id"], tenant.id]));
        assert_eq!(call.fields(["turns", "turn_count"]), json!([[], turns]));
        assert_eq!(call.fields(["has_recording", "call_duration_seconds"]), json!([recorded, seconds]));
        for list in
            ["states_visited", "triggered_behaviors", "participants", "barge_in_events", "human_segments"]
        {
            assert_eq!(call[list], json!([]), "{list}");
        }
    }
    // In the list, the contract's number of turns stays.
    let listed = tenant.get("/calls?limit=2").await.ok();
    assert!(listed.list("items").iter().all(|call| !call["turns"].is_array()));
});

both!(a_day_that_ends_a_period_is_in_it_for_events_as_for_calls, async || {
    let (server, tenant) = Server::with_tenant().await;
    put(&tenant, "CA1", json!({ "status": "ringing", "caller_id": PATIENT, "direction": "inbound" })).await;
    let today = server.clock.now().to_string()[..10].to_owned();
    let yesterday = server.clock.now().saturating_sub(Duration::from_hours(24)).to_string()[..10].to_owned();
    let counted = async |path: String| {
        let found = tenant.get(&path).await.ok();
        found["total"].as_i64().or(found["total_events"].as_i64()).unwrap()
    };
    for what in ["/audit", "/audit/summary", "/calls"] {
        let on = counted(format!("{what}?date_from={today}&date_to={today}")).await;
        assert!(on > 0, "{what} leaves the last day out");
        assert_eq!(counted(format!("{what}?date_to={yesterday}")).await, 0, "{what}");
    }
    // A time is not a whole day.
    assert_eq!(counted(format!("/audit?date_to={today}T00:00:00Z")).await, 0);
    let naive = tenant.get(&format!("/audit?date_to={today}T00:00:00")).await;
    assert_eq!(naive.problem_locs(), ["query.date_to"], "a time has an offset");
});

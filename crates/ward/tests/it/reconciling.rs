//! The nightly comparison with Twilio's list of calls, against a stand-in of Twilio's documented API.

use std::time::Duration;

use serde_json::{Value, json};
use ward::operator;
use ward::twilio::reconciling::worker;
use ward_test::{Fields as _, Server, Tenant, both};

use crate::calls::{
    ACCOUNT, PATIENT, PUBLIC_URL, TESTER, TOKEN, callback, connect, event, finished, put, set_test_callers,
};
use crate::deliveries;
use crate::vendors::twilio::{Twilio, broken, throttled};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);
const PRACTICE: &str = "+15550109999";

/// A server that compares with the stand-in, and a tenant with a Twilio account.
async fn scene(mode: &str) -> (Server, Tenant, Twilio) {
    let twilio = Twilio::start().await;
    let url = twilio.vendor.url();
    let server = Server::with(|config| {
        config.public_url = Some(PUBLIC_URL.to_owned());
        config.outbound.allow = vec!["127.0.0.0/8".parse().unwrap()];
        config.outbound.plain_http = true;
        config.outbound.twilio_url = url;
    })
    .await;
    let tenant = server.tenant("acme").await;
    set_up(&tenant, TOKEN, mode).await;
    (server, tenant, twilio)
}

async fn set_up(tenant: &Tenant, token: &str, mode: &str) {
    let set = json!({ "account_sid": ACCOUNT, "auth_token": token, "reconciliation": mode });
    assert_eq!(tenant.put("/twilio", set).await.ok()["reconciliation"], mode);
}

async fn state(tenant: &Tenant) -> Value {
    tenant.get("/twilio/reconciliation").await.ok()
}

/// Compares now, as if a person had asked for it.
async fn compare(server: &Server, tenant: &Tenant) -> Value {
    tenant.post("/twilio/reconciliation", json!({})).await.ok();
    worker::turn(&server.app).await;
    state(tenant).await
}

fn found(state: &Value) -> Value {
    state["last"].fields(["listed", "missing", "unfinished", "entered", "ended", "unreadable"])
}

async fn events(tenant: &Tenant, action: &str) -> Vec<Value> {
    tenant.audit().await.into_iter().filter(|event| event["action"] == action).collect()
}

both!(a_missing_call_is_reported_and_a_complete_list_is_a_proof, async || {
    let (server, tenant, twilio) = scene("report").await;
    connect(&tenant, "fhir_store").await;
    let begun = server.clock.now();
    assert_eq!(state(&tenant).await["mode"], "report");
    for (sid, minute) in [("CA1", 1), ("CA2", 2), ("CA3", 3), ("CA4", 4), ("CA5", 5)] {
        twilio.call(sid, begun.saturating_add(MINUTE * minute), |_| {});
        if sid != "CA3" {
            callback(&server, &tenant, &event(sid, "completed", PATIENT)).await.no_content();
        }
    }
    // The end of this one was lost.
    twilio.call("CA6", begun.saturating_add(MINUTE * 6), |_| {});
    callback(&server, &tenant, &event("CA6", "in-progress", PATIENT)).await.no_content();
    // A leg is no call of its own.
    twilio.call("CA7", begun.saturating_add(MINUTE * 7), |call| call["parent_call_sid"] = json!("CA5"));
    server.clock.advance(HOUR * 3);
    let state = compare(&server, &tenant).await;
    assert_eq!(found(&state), json!([6, 1, 1, 0, 0, 0]), "{state}");
    assert_eq!(state["last"]["pages"], 3);
    let mut sids: Vec<&str> =
        state["last"]["call_sids"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    sids.sort_unstable();
    assert_eq!(sids, ["CA3", "CA6"]);
    assert_eq!(state.fields(["under_way", "failure"]), json!([false, null]));
    tenant.get("/calls/CA3").await.refused_as(404, "call_not_found");
    assert_eq!(tenant.get("/calls/CA6").await.ok()["status"], "in-progress");
    let noted = events(&tenant, "twilio.calls_missing").await;
    assert_eq!(noted.len(), 1);
    assert_eq!(noted[0]["metadata"].fields(["missing", "unfinished", "entered"]), json!([1, 1, 0]));
    // Every page was asked for by the documented names, and a person can report the call.
    assert!(twilio.pages().iter().all(|query| query.contains("StartTime%3E=")), "{:?}", twilio.pages());
    for sid in ["CA3", "CA6"] {
        put(&tenant, sid, finished(PATIENT)).await;
    }
    twilio.call("CA8", server.clock.now(), |_| {});
    callback(&server, &tenant, &event("CA8", "completed", PATIENT)).await.no_content();
    server.clock.advance(HOUR * 3);
    let state = compare(&server, &tenant).await;
    assert_eq!(
        found(&state),
        json!([1, 0, 0, 0, 0, 0]),
        "the next period begins where this one ended: {state}"
    );
    assert_eq!(events(&tenant, "twilio.calls_missing").await.len(), 1);
});

/// The documented shapes of calls in the list: From, To, Direction of the call, and the number that its leg dialled. `*` is
/// the number of the patient, or of the tester.
const SHAPES: [(&str, &str, &str, Option<&str>, &str); 7] = [
    ("*", PRACTICE, "inbound", None, "inbound"),
    ("*", PRACTICE, "inbound", Some("+15550108888"), "inbound"),
    ("client:agent", "", "inbound", Some("*"), "outbound"),
    (PRACTICE, "*", "outbound-api", None, "outbound"),
    ("sip:*@carrier.example;user=phone", PRACTICE, "inbound", None, "inbound"),
    ("*", "sip:+15550109999@practice.pstn.example", "trunking-originating", None, "inbound"),
    ("whatsapp:*", "whatsapp:+15550109999", "inbound", None, "inbound"),
];

both!(missing_calls_are_entered_by_the_rules_of_a_callback, async || {
    let (server, tenant, twilio) = scene("enter").await;
    set_test_callers(&tenant, &[TESTER]).await;
    connect(&tenant, "fhir_store").await;
    let ehr = ward_test::ehr::ScriptedEhr::start().await;
    deliveries::configure(&server, &tenant, &ehr.url(), true).await;
    let begun = server.clock.now();
    for (index, (from, to, direction, dialled, _)) in SHAPES.into_iter().enumerate() {
        for (who, number) in [("real", PATIENT), ("test", TESTER)] {
            let sid = format!("CA{index}{who}");
            let at = begun.saturating_add(MINUTE * u32::try_from(index).unwrap());
            twilio.call(&sid, at, |call| {
                call["from"] = json!(from.replace('*', number));
                call["to"] = json!(to.replace('*', number));
                call["direction"] = json!(direction);
            });
            // A second leg that was dialled later, and one that is not of a number.
            for (leg, later, to) in
                [("a", 1, dialled), ("b", 2, Some("+15550107777")), ("c", 0, Some("client:x"))]
            {
                let Some(to) = to.filter(|_| dialled.is_some()) else { continue };
                let at = at.saturating_add(Duration::from_secs(later));
                twilio.call(&format!("{sid}{leg}"), at, |call| {
                    call["parent_call_sid"] = json!(sid);
                    call["from"] = json!(PRACTICE);
                    call["to"] = json!(to.replace('*', number));
                    call["direction"] = json!("outbound-dial");
                });
            }
        }
    }
    // Calls without an answer are entered and not chosen; a hidden character hides who it was.
    twilio.call("CA-missed", begun.saturating_add(MINUTE * 20), |call| {
        (call["status"], call["end_time"], call["duration"]) = (json!("no-answer"), Value::Null, Value::Null);
    });
    twilio.call("CA-hidden", begun.saturating_add(MINUTE * 21), |call| {
        call["from"] = json!("+1555\u{200e}0100001");
    });
    // The tester leaves the list before the comparison: the calls stay tests.
    server.clock.advance(HOUR);
    set_test_callers(&tenant, &["+15550100077"]).await;
    server.clock.advance(HOUR * 2);
    let state = compare(&server, &tenant).await;
    assert_eq!(found(&state), json!([16, 16, 0, 15, 0, 1]), "{state}");
    assert_eq!(state["last"]["call_sids"], json!(["CA-hidden"]));
    for (index, (_, _, _, _, reported)) in SHAPES.into_iter().enumerate() {
        for (who, number) in [("real", PATIENT), ("test", TESTER)] {
            let call = tenant.get(&format!("/calls/CA{index}{who}")).await.ok();
            assert_eq!(
                call.fields(["reported_by", "found_by"]),
                json!(["twilio", "reconciliation"]),
                "{call}"
            );
            let direction = if who == "test" { "test" } else { reported };
            assert_eq!(
                call.fields(["direction", "reported_direction", "duration_seconds"]),
                json!([direction, reported, 60.0]),
                "{call}"
            );
            assert_eq!(call["sync"]["delivery_id"].is_null(), who == "test", "{call}");
            if who == "test" {
                assert_eq!(call["test"]["list_version"], 1, "the version that had the tester: {call}");
            }
            if index == 2 {
                assert_eq!(call["phone_number"], number, "the leg that was dialled first: {call}");
            }
            tenant.get(&format!("/calls/CA{index}{who}a")).await.refused(404);
        }
    }
    let missed = tenant.get("/calls/CA-missed").await.ok();
    assert_eq!(missed["status"], "no-answer");
    assert_eq!(missed["sync"]["decision"], "not_chosen");
    deliveries::worker(&server.app).turn().await;
    assert_eq!(ehr.kept().len(), SHAPES.len());
    assert!(ehr.counts().values().all(|count| *count == 1));
    let proof = operator::prove_exclusion(&server.app, "acme", "2020-01-01", "2100-01-01").await.unwrap();
    assert_eq!((proof.calls.len(), proof.violations), (SHAPES.len(), 0), "{proof:?}");
    // A second comparison enters nothing, and callbacks that come after all change nothing.
    callback(&server, &tenant, &event("CA0test", "completed", TESTER)).await.no_content();
    server.clock.advance(HOUR * 2);
    assert_eq!(found(&compare(&server, &tenant).await), json!([0, 0, 0, 0, 0, 0]));
    assert_eq!(server.count("SELECT count(*) FROM calls").await, 15);
});

both!(a_lost_end_is_entered_and_the_call_is_delivered, async || {
    let (server, tenant, twilio) = scene("enter").await;
    connect(&tenant, "fhir_store").await;
    let begun = server.clock.now();
    let started = begun.saturating_add(Duration::from_millis(1_500));
    let ringing = json!({ "status": "in-progress", "caller_id": PATIENT, "direction": "inbound", "started_at": started.to_string() });
    put(&tenant, "CA1", ringing).await;
    twilio.call("CA1", begun.saturating_add(Duration::from_secs(1)), |_| {});
    server.clock.advance(HOUR * 3);
    assert_eq!(found(&compare(&server, &tenant).await), json!([1, 0, 1, 0, 1, 0]));
    let call = tenant.get("/calls/CA1").await.ok();
    assert_eq!(call.fields(["status", "found_by"]), json!(["completed", "reconciliation"]));
    assert_eq!(call["started_at"], started.to_string(), "the runtime's start is more exact");
    assert_eq!(call["sync"]["decision"], "owed");
});

both!(a_comparison_survives_what_twilio_says_and_goes_on_where_it_was, async || {
    let (server, tenant, twilio) = scene("report").await;
    let begun = server.clock.now();
    for index in 0..8 {
        twilio.call(&format!("CA{index}"), begun.saturating_add(MINUTE * index), |_| {});
    }
    server.clock.advance(HOUR * 3);
    twilio.script([throttled(240)]);
    let state = compare(&server, &tenant).await;
    assert_eq!(state.fields(["failure", "last"]), json!(["throttled", null]));
    worker::turn(&server.app).await;
    assert_eq!(twilio.pages().len(), 1, "the pause that Twilio asked for is kept");
    server.clock.advance(MINUTE * 3);
    worker::turn(&server.app).await;
    assert_eq!(twilio.pages().len(), 1);
    server.clock.advance(MINUTE * 2);
    let replica = server.replica().await;
    worker::turn(&replica.app).await;
    let state = self::state(&tenant).await;
    assert_eq!(found(&state), json!([8, 8, 0, 0, 0, 0]));
    assert_eq!(state.fields(["failure", "failing_since"]), json!([null, null]));
    assert_eq!(twilio.pages().len(), 4, "three pages after the refusal");
    // Answers that are no list, and a page elsewhere, are failures and never a proof.
    server.clock.advance(HOUR * 2);
    let elsewhere = json!({ "calls": [], "next_page_uri": "https://evil.example/2010-04-01/x" });
    for (said, why) in [
        (broken(), "server_error"),
        ((200, Vec::new(), json!({ "message": "We will be back soon" })), "not_a_list"),
        ((302, vec![("location", "https://evil.example/".to_owned())], Value::Null), "refused"),
        ((400, Vec::new(), json!({ "code": 20_001 })), "refused"),
        ((403, Vec::new(), json!({ "code": 20_005 })), "unauthorized"),
        ((200, Vec::new(), elsewhere), "misconfigured"),
    ] {
        let before = self::state(&tenant).await["reconciled_until"].clone();
        twilio.script([said]);
        let state = compare(&server, &tenant).await;
        assert_eq!(state.fields(["failure", "reconciled_until"]), json!([why, before]), "{why}");
        assert!(state["failing_since"].is_string(), "{why}");
        server.clock.advance(HOUR * 2);
    }
    let state = compare(&server, &tenant).await;
    assert_eq!(state.fields(["failure", "failing_since"]), json!([null, null]));
});

both!(a_failure_in_the_middle_asks_for_no_page_twice, async || {
    let (server, tenant, twilio) = scene("enter").await;
    connect(&tenant, "fhir_store").await;
    let begun = server.clock.now();
    for index in 0..8 {
        twilio.call(&format!("CA{index}"), begun.saturating_add(MINUTE * index), |_| {});
    }
    server.clock.advance(HOUR * 3);
    // One genuine page comes first, and the request for the second one fails.
    let query = "?PageSize=200";
    let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Calls.json{query}&Page=0");
    twilio.script([(200, Vec::new(), json!({ "calls": [], "next_page_uri": path })), broken()]);
    compare(&server, &tenant).await;
    assert_eq!(state(&tenant).await.fields(["under_way", "failure"]), json!([true, "server_error"]));
    let replica = server.replica().await;
    server.clock.advance(MINUTE * 2);
    worker::turn(&replica.app).await;
    let state = state(&tenant).await;
    assert_eq!(found(&state), json!([8, 8, 0, 8, 0, 0]), "{state}");
    assert_eq!(state["last"]["pages"], 4);
    let pages = twilio.pages();
    assert_eq!(
        pages.iter().filter(|page| page.contains("Page=0")).count(),
        2,
        "the failed page and its repeat: {pages:?}"
    );
    assert_eq!(
        pages.iter().filter(|page| !page.contains("Page=")).count(),
        1,
        "the first page once: {pages:?}"
    );
    // A reference that Twilio no longer takes leads back to the first page.
    server.clock.advance(HOUR * 2);
    let gone = format!("/2010-04-01/Accounts/{ACCOUNT}/Calls.json?PageToken=PAgone");
    twilio.script([(200, Vec::new(), json!({ "calls": [], "next_page_uri": gone }))]);
    assert_eq!(compare(&server, &tenant).await["failure"], "page_gone");
    server.clock.advance(MINUTE * 2);
    worker::turn(&server.app).await;
    assert_eq!(self::state(&tenant).await["failure"], Value::Null);
});

both!(two_replicas_compare_once_and_a_dead_one_is_replaced, threads = 4, async || {
    let (server, tenant, twilio) = scene("enter").await;
    connect(&tenant, "fhir_store").await;
    let begun = server.clock.now();
    for index in 0..9 {
        twilio.call(&format!("CA{index}"), begun.saturating_add(MINUTE * index), |_| {});
    }
    server.clock.advance(HOUR * 3);
    let replica = server.replica().await;
    tenant.post("/twilio/reconciliation", json!({})).await.ok();
    tokio::join!(worker::turn(&server.app), worker::turn(&replica.app));
    let state = state(&tenant).await;
    assert_eq!(found(&state), json!([9, 9, 0, 9, 0, 0]), "{state}");
    assert_eq!(twilio.pages().len(), 3, "each page once: {:?}", twilio.pages());
    assert_eq!(server.count("SELECT count(*) FROM deliveries").await, 9);
    // A replica dies after it took the lease: nothing happens until the lease ends.
    twilio.call("CA-late", server.clock.now(), |_| {});
    server.clock.advance(HOUR * 2);
    let until = server.clock.now().saturating_add(MINUTE * 2);
    let taken = format!(
        "UPDATE twilio_reconciliations SET lease = uuid '{}', due_at = timestamptz '{until}'",
        tenant.id
    );
    assert_eq!(server.sql(taken).await, 1);
    let state = compare(&server, &tenant).await;
    assert_eq!(state["under_way"], true);
    assert_eq!(twilio.pages().len(), 3);
    server.clock.advance(MINUTE * 3);
    worker::turn(&replica.app).await;
    assert_eq!(found(&self::state(&tenant).await), json!([1, 1, 0, 1, 0, 0]));
});

both!(failures_of_many_workspaces_delay_no_other, threads = 2, async || {
    let (server, tenant, _twilio) = scene("report").await;
    // More of them are due before the healthy one than a replica compares at once.
    for number in 0..6 {
        let failing = server.tenant(&format!("failing-{number}")).await;
        set_up(&failing, "a-token-that-twilio-does-not-know", "report").await;
        failing.post("/twilio/reconciliation", json!({})).await.ok();
    }
    tenant.post("/twilio/reconciliation", json!({})).await.ok();
    let working = tokio::spawn(worker::keep_going(server.app.clone()));
    // A worker that pauses after a failure needs half a minute for each.
    let compared = async {
        while state(&tenant).await["last"].is_null() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(25), compared).await.expect("a comparison without a pause");
    working.abort();
});

both!(the_night_compares_each_account_by_itself, async || {
    let (server, tenant, twilio) = scene("report").await;
    let other = server.tenant("other").await;
    set_up(&other, "another-token-of-another-account", "report").await;
    worker::turn(&server.app).await;
    assert!(twilio.pages().is_empty(), "nothing is due before the night");
    let planned = state(&tenant).await;
    assert!(planned["next_run_at"].is_string(), "{planned}");
    let begun = server.clock.now();
    twilio.call("CA1", begun.saturating_add(MINUTE), |_| {});
    // This one goes on all night, so the next period begins with it.
    twilio.call("CA2", begun.saturating_add(MINUTE * 2), |call| {
        (call["status"], call["end_time"]) = (json!("in-progress"), Value::Null);
    });
    server.clock.advance(HOUR * 25);
    worker::turn(&server.app).await;
    let first = state(&tenant).await;
    assert_eq!(found(&first), json!([1, 1, 0, 0, 0, 0]), "{first}");
    assert_eq!(state(&other).await["failure"], "unauthorized");
    assert_eq!(
        first["reconciled_until"].as_str().map(|time| &time[..19]),
        Some(&begun.saturating_add(MINUTE * 2).to_string()[..19])
    );
    server.clock.advance(HOUR * 24);
    worker::turn(&server.app).await;
    let second = state(&tenant).await;
    assert_eq!(second["last"]["from"], first["reconciled_until"]);
    assert_ne!(
        second["reconciled_until"], first["reconciled_until"],
        "no call holds it back for more than a day"
    );
    // `off` asks Twilio for nothing, and a change of the account begins anew.
    let asked = twilio.vendor.asked().len();
    set_up(&tenant, TOKEN, "off").await;
    server.clock.advance(HOUR * 24);
    worker::turn(&server.app).await;
    assert_eq!(twilio.vendor.asked().len(), asked);
    assert_eq!(state(&tenant).await["next_run_at"], Value::Null);
    // A rotation of the token leaves the mode, and the second token is tried.
    let rotated = json!({ "account_sid": ACCOUNT, "auth_token": "the-next-token-of-it", "secondary_auth_token": TOKEN });
    assert_eq!(tenant.put("/twilio", rotated.clone()).await.ok()["reconciliation"], "off");
    let mut enter = rotated;
    enter["reconciliation"] = json!("enter");
    tenant.put("/twilio", enter).await.ok();
    let state = compare(&server, &tenant).await;
    assert_eq!(state["failure"], Value::Null, "{state}");
    tenant.owner.delete(&tenant.path("/twilio")).await.no_content();
    tenant.post("/twilio/reconciliation", json!({})).await.refused_as(409, "twilio_not_configured");
    assert_eq!(self::state(&tenant).await.fields(["mode", "last"]), json!([null, null]));
});

both!(the_operator_compares_now, async || {
    let (server, tenant, twilio) = scene("enter").await;
    let begun = server.clock.now();
    twilio.call("CA1", begun.saturating_add(MINUTE), |_| {});
    server.clock.advance(HOUR * 2);
    let done = operator::reconcile_twilio(&server.app, Some("acme")).await.unwrap();
    assert_eq!((done.len(), done[0].outcome), (1, "done"));
    assert_eq!(done[0].state.last.as_ref().map(|last| (last.missing, last.entered)), Some((1, 1)));
    assert_eq!(tenant.get("/calls/CA1").await.ok()["found_by"], "reconciliation");
    twilio.script([broken()]);
    let all = operator::reconcile_twilio(&server.app, None).await.unwrap();
    assert_eq!(
        (all.len(), all[0].outcome, all[0].state.failure.as_deref()),
        (1, "failed", Some("server_error"))
    );
    server.tenant("bare").await;
    assert!(operator::reconcile_twilio(&server.app, Some("bare")).await.is_err(), "it has no account");
});

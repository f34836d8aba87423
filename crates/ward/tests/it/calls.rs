//! Calls: reports from both sources, the rule for their direction, and access to their numbers.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward_test::{Actor, Answer, Fields as _, Sending, Server, Tenant, both};

pub const TESTER: &str = "+15550100001";
pub const PATIENT: &str = "+15550100002";
pub const PUBLIC_URL: &str = "https://ward.example.com";
pub const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub const TOKEN: &str = "a-token-that-only-twilio-has";

/// A first report that also ends the call.
pub fn finished(caller: &str) -> Value {
    json!({ "status": "completed", "caller_id": caller, "direction": "inbound", "duration_seconds": 61.25 })
}

pub async fn set_test_callers(tenant: &Tenant, numbers: &[&str]) {
    tenant.owner.put(&tenant.workspace("/test-caller-numbers"), json!({ "numbers": numbers })).await.ok();
}

pub async fn put(tenant: &Tenant, sid: &str, body: Value) -> Value {
    tenant.put(&format!("/calls/{sid}"), body).await.ok()
}

/// Connects the workspace, so that its calls are owed to an integration.
pub async fn connect(tenant: &Tenant, connector: &str) {
    tenant.owner.patch(&tenant.workspace(""), json!({ "connector_type": connector })).await.ok();
    tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.ok();
}

both!(calls_from_test_callers_are_tests_whatever_direction_is_reported, async || {
    let (_server, tenant) = Server::with_tenant().await;
    set_test_callers(&tenant, &[TESTER]).await;
    for (index, said) in ["inbound", "outbound", "playground", "simulated"].into_iter().enumerate() {
        let mut body = finished(" tel:+1 (555) 010-0001 ");
        body["direction"] = json!(said);
        let call = put(&tenant, &format!("CA{index}"), body).await;
        assert_eq!(call.fields(["direction", "reported_direction"]), json!(["test", said]));
        assert_eq!(call["test"]["rule"], "test_caller");
        assert_eq!(call["test"]["list_version"], 1);
        assert_eq!(call["sync"]["decision"], "excluded");
        let mut body = finished(PATIENT);
        body["direction"] = json!(said);
        let call = put(&tenant, &format!("CB{index}"), body).await;
        assert_eq!(call.fields(["direction", "test"]), json!([said, null]));
    }
});

both!(the_first_report_decides_for_good, async || {
    let (_server, tenant) = Server::with_tenant().await;
    set_test_callers(&tenant, &[TESTER]).await;
    let ringing = |caller: &str| json!({ "status": "ringing", "caller_id": caller, "direction": "inbound" });
    put(&tenant, "CA-test", ringing(TESTER)).await;
    put(&tenant, "CA-real", ringing(PATIENT)).await;
    // The list changes while both calls are in progress, and the second report swaps the callers.
    set_test_callers(&tenant, &[PATIENT]).await;
    let call = put(&tenant, "CA-test", finished(PATIENT)).await;
    assert_eq!(call.fields(["direction", "caller_id"]), json!(["test", TESTER]));
    assert_eq!((&call["test"]["list_version"], &call["test_caller_list_version"]), (&json!(1), &json!(1)));
    let call = put(&tenant, "CA-real", finished(TESTER)).await;
    assert_eq!(call.fields(["direction", "caller_id"]), json!(["inbound", PATIENT]));
    assert_eq!(call["test_caller_list_version"], 1);
    assert_eq!(put(&tenant, "CA-later", finished(PATIENT)).await["test"]["list_version"], 2);
});

both!(a_first_report_without_a_caller_records_nothing, async || {
    let (server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/calls/CA1");
    let refused = tenant.owner.put(&path, json!({ "status": "completed" })).await;
    assert_eq!(refused.problem_locs(), ["body.caller_id", "body.direction"]);
    let refused = tenant.owner.put(&path, json!({ "status": "completed", "direction": "inbound" })).await;
    assert_eq!(refused.problem_locs(), ["body.caller_id"]);
    for caller in ["15550100001", "bob", "+1555CALLNOW"] {
        assert_eq!(
            tenant.owner.put(&path, finished(caller)).await.problem_locs(),
            ["body.caller_id"],
            "{caller}"
        );
    }
    tenant.owner.get(&path).await.refused_as(404, "call_not_found");
    assert_eq!(server.count("SELECT count(*) FROM calls").await, 0);
    let withheld = json!({ "status": "completed", "caller_id": null, "direction": "inbound" });
    let call = put(&tenant, "CA1", withheld).await;
    assert_eq!(call.fields(["caller_id", "caller_form"]), json!([null, "withheld"]));
    // Later reports may leave both fields out.
    put(&tenant, "CA1", json!({ "status": "completed", "turns": 4 })).await;
    assert_eq!(tenant.put("/calls/a%20b", finished(PATIENT)).await.problem_locs(), ["path.call_sid"]);
});

both!(reports_may_repeat_and_arrive_in_any_order, async || {
    let (server, tenant) = Server::with_tenant().await;
    connect(&tenant, "fhir_store").await;
    let of = |status: &str| json!({ "status": status, "caller_id": PATIENT, "direction": "inbound" });
    for (sid, order) in [
        ("CA1", ["ringing", "in-progress", "completed"]),
        ("CA2", ["completed", "in-progress", "ringing"]),
        ("CA3", ["in-progress", "completed", "ringing"]),
    ] {
        for status in order {
            let first = put(&tenant, sid, of(status)).await;
            assert_eq!(
                put(&tenant, sid, of(status)).await["updated_at"],
                first["updated_at"],
                "a repeat changes nothing"
            );
        }
        let call = put(&tenant, sid, of("busy")).await;
        assert_eq!(call["status"], "completed", "{sid}");
        assert_eq!(call["sync"]["state"], "pending");
    }
    assert_eq!(server.count("SELECT count(*) FROM deliveries").await, 3);
    let late = put(&tenant, "CA2", json!({ "status": "completed", "duration_seconds": 12.5 })).await;
    assert_eq!(late["duration_seconds"], 12.5);
    assert_eq!(server.count("SELECT count(*) FROM deliveries").await, 3);
});

both!(a_call_shows_whether_it_is_owed_and_why_not, async || {
    let (server, tenant) = Server::with_tenant().await;
    set_test_callers(&tenant, &[TESTER]).await;
    let ringing = json!({ "status": "ringing", "caller_id": PATIENT, "direction": "inbound" });
    assert_eq!(put(&tenant, "CA1", ringing).await["sync"]["decision"], Value::Null);
    assert_eq!(
        put(&tenant, "CA1", json!({ "status": "completed" })).await["sync"]["decision"],
        "no_connector"
    );
    tenant.owner.patch(&tenant.workspace(""), json!({ "connector_type": "epic" })).await.ok();
    assert_eq!(put(&tenant, "CA2", finished(PATIENT)).await["sync"]["decision"], "not_provisioned");
    connect(&tenant, "epic").await;
    let owed = put(&tenant, "CA3", finished(PATIENT)).await;
    assert_eq!(owed["sync"].fields(["decision", "not_sent"]), json!(["owed", null]));
    assert!(owed["sync"]["delivery_id"].is_string() && owed["sync"]["integration_id"].is_string());
    let test = put(&tenant, "CA4", finished(TESTER)).await;
    assert_eq!(test["sync"]["not_sent"], "FHIR DocumentReference");
    assert_eq!(test["sync"]["delivery_id"], Value::Null);
    assert_eq!(server.count("SELECT count(*) FROM deliveries").await, 1);
});

both!(lists_leave_tests_and_simulations_out_unless_asked_for, async || {
    let (_server, tenant) = Server::with_tenant().await;
    set_test_callers(&tenant, &[TESTER]).await;
    let all = [
        ("CA1", PATIENT, "inbound", "completed", 10),
        ("CA2", PATIENT, "outbound", "busy", 20),
        ("CA3", PATIENT, "playground", "completed", 30),
        ("CA4", PATIENT, "simulated", "completed", 40),
        ("CA5", TESTER, "inbound", "completed", 50),
    ];
    for (day, (sid, caller, direction, status, seconds)) in (1..).zip(all) {
        let body = json!({ "status": status, "caller_id": caller, "direction": direction, "duration_seconds": seconds,
                           "started_at": format!("2026-03-0{day}T23:30:00Z"), "service_id": sid.to_lowercase() });
        put(&tenant, sid, body).await;
    }
    let sids = async |query: &str| {
        let listed = tenant.get(&format!("/calls?{query}")).await.ok();
        let items = listed.list("items").iter();
        let sids: Vec<String> = items.map(|call| call.text("call_sid").to_owned()).collect();
        (sids.join(" "), listed["total"].as_i64().unwrap())
    };
    for (query, found) in [
        ("", "CA2 CA1"),
        ("direction=test", "CA5"),
        ("direction=playground", "CA3"),
        ("include_simulated=true", "CA4 CA3 CA2 CA1"),
        ("include_test=true", "CA5 CA2 CA1"),
        ("include_simulated=true&include_test=true", "CA5 CA4 CA3 CA2 CA1"),
        ("status=busy", "CA2"),
        ("min_duration=20", "CA2"),
        ("max_duration=19", "CA1"),
        ("service_id=ca2", "CA2"),
        ("date_from=2026-03-02", "CA2"),
        ("date_to=2026-03-01", "CA1"),
        ("date_from=2026-03-01&date_to=2026-03-02", "CA2 CA1"),
        ("direction=none-such", ""),
    ] {
        let total = i64::try_from(found.split_whitespace().count()).unwrap();
        assert_eq!(sids(query).await, (found.to_owned(), total), "{query}");
    }
    let page = tenant.get("/calls?limit=1").await.ok();
    assert_eq!(page.fields(["has_more", "continuation_token"]), json!([true, 1]));
    assert_eq!(sids("limit=1&continuation_token=1").await.0, "CA1");
    assert_eq!(sids("limit=1&offset=1").await.0, "CA1");
    assert_eq!(sids("limit=1&offset=9").await, (String::new(), 2));
});

both!(reads_of_numbers_are_recorded_and_numbers_appear_nowhere_else, async || {
    let (_server, tenant) = Server::with_tenant().await;
    set_test_callers(&tenant, &[TESTER]).await;
    put(&tenant, "CA1", finished(PATIENT)).await;
    let before = tenant.audit().await;
    assert!(before.iter().all(|event| event["phi_accessed"] == false));
    tenant.get("/calls").await.ok();
    let read = tenant.get("/calls/CA1").await.ok();
    let phi = tenant.get("/audit?phi_only=true").await.ok();
    let phi = phi.list("events").clone();
    let actions: Vec<&str> = phi.iter().map(|event| event.text("action")).collect();
    assert_eq!(actions, ["call.read", "call.list"]);
    assert_eq!(phi[0]["resource_id"], read["entity_id"]);
    for event in tenant.audit().await {
        let lists_them = event["action"] == "test_callers.update";
        assert_eq!(event.to_string().contains("+1555"), lists_them, "{event}");
    }
});

both!(the_audit_keeps_every_list, async || {
    let (server, tenant) = Server::with_tenant().await;
    for numbers in [&[TESTER][..], &[TESTER, PATIENT], &[]] {
        set_test_callers(&tenant, numbers).await;
    }
    set_test_callers(&tenant, &[]).await;
    let events = tenant.audit().await;
    let versions: Vec<(i64, Value)> = events
        .iter()
        .rev()
        .filter(|event| event["action"] == "test_callers.update")
        .map(|event| {
            (
                event["metadata"]["list_version"].as_i64().unwrap(),
                event["metadata"]["changes"]["numbers"].clone(),
            )
        })
        .collect();
    assert_eq!(
        versions,
        [
            (1, json!({ "from": [], "to": [TESTER] })),
            (2, json!({ "from": [TESTER], "to": [TESTER, PATIENT] })),
            (3, json!({ "from": [TESTER, PATIENT], "to": [] })),
        ]
    );
    assert_eq!(server.count("SELECT count(*) FROM test_caller_lists").await, 4);
});

/// Signs as Twilio does: the URL, then each field's name and value in the order of the names.
pub fn sign(token: &str, url: &str, fields: &[(&str, &str)]) -> String {
    let mut sorted = fields.to_vec();
    sorted.sort_unstable();
    let text: String =
        sorted.iter().fold(url.to_owned(), |text, (name, value)| format!("{text}{name}{value}"));
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

pub async fn post_form(actor: &Actor, path: &str, signature: &str, fields: &[(&str, &str)]) -> Answer {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let headers = [("x-twilio-signature", signature), ("x-forwarded-host", "evil.example")];
    let sending = Sending {
        body: Some(body.into_bytes()),
        content_type: Some("application/x-www-form-urlencoded"),
        headers: &headers,
    };
    actor.send(Method::POST, path, sending).await
}

pub async fn callback(server: &Server, tenant: &Tenant, fields: &[(&str, &str)]) -> Answer {
    let path = tenant.path("/twilio/status");
    let signature = sign(TOKEN, &format!("{PUBLIC_URL}{path}"), fields);
    post_form(&server.anonymous(), &path, &signature, fields).await
}

/// Sends a callback of Twilio and returns the call after it.
pub async fn reported(server: &Server, tenant: &Tenant, fields: &[(&str, &str)]) -> Value {
    callback(server, tenant, fields).await.no_content();
    tenant.get(&format!("/calls/{}", fields[0].1)).await.ok()
}

/// The fields with another value for `name`.
pub fn with<'a>(mut fields: Vec<(&'a str, &'a str)>, name: &str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    fields.iter_mut().filter(|field| field.0 == name).for_each(|field| field.1 = value);
    fields
}

pub fn event<'a>(sid: &'a str, status: &'a str, from: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("CallSid", sid),
        ("AccountSid", ACCOUNT),
        ("From", from),
        ("To", "+15550109999"),
        ("CallStatus", status),
        ("Direction", "inbound"),
        ("ApiVersion", "2010-04-01"),
    ]
}

pub async fn with_twilio() -> (Server, Tenant) {
    let server = Server::with(|config| config.public_url = Some(PUBLIC_URL.to_owned())).await;
    let tenant = server.tenant("acme").await;
    set_up_twilio(&tenant).await;
    (server, tenant)
}

pub async fn set_up_twilio(tenant: &Tenant) {
    let set = tenant.put("/twilio", json!({ "account_sid": ACCOUNT, "auth_token": TOKEN })).await;
    assert!(!set.text.contains(TOKEN));
    let set = set.ok();
    assert_eq!(set["status_callback_url"], format!("{PUBLIC_URL}{}", tenant.path("/twilio/status")));
}

both!(twilios_callbacks_report_calls, async || {
    let (server, tenant) = with_twilio().await;
    connect(&tenant, "fhir_store").await;
    set_test_callers(&tenant, &[TESTER]).await;
    let mut over = event("CA1", "completed", PATIENT);
    over.push(("CallDuration", "42"));
    for fields in [&event("CA1", "ringing", PATIENT), &over, &over, &event("CA1", "in-progress", PATIENT)] {
        let answer = callback(&server, &tenant, fields).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NO_CONTENT, ""));
    }
    let call = tenant.get("/calls/CA1").await.ok();
    assert_eq!(call.fields(["status", "duration_seconds"]), json!(["completed", 42.0]));
    assert_eq!(call.fields(["reported_by", "phone_number"]), json!(["twilio", "+15550109999"]));
    assert_eq!(call["sync"]["state"], "pending");
    let call = reported(&server, &tenant, &event("CA2", "no-answer", TESTER)).await;
    assert_eq!(call.fields(["direction", "completion_reason"]), json!(["test", "no_answer"]));
    for (sid, from, form, direction) in [
        ("CA3", "+266696687", "withheld", "inbound"),
        ("CA4", "client:alice", "uri", "outbound"),
        ("CA5", "15550100001", "other", "inbound"),
    ] {
        let call = reported(&server, &tenant, &event(sid, "completed", from)).await;
        assert_eq!(call.fields(["caller_form", "direction"]), json!([form, direction]), "{from}");
    }
    // A leg of a forwarded call is no call of its own, whatever number it shows.
    let mut leg = event("CA6", "completed", PATIENT);
    leg.push(("ParentCallSid", "CA2"));
    callback(&server, &tenant, &leg).await.no_content();
    tenant.get("/calls/CA6").await.refused(404);
    // Both sources report the same call.
    put(&tenant, "CA1", json!({ "status": "completed", "summary": "A refill was asked for." })).await;
    assert_eq!(server.count("SELECT count(*) FROM deliveries").await, 4);
});

both!(every_forged_callback_gets_the_same_403, async || {
    let (server, tenant) = with_twilio().await;
    let bare = server.tenant("bare").await;
    let gone = server.tenant("gone").await;
    gone.put("/twilio", json!({ "account_sid": ACCOUNT, "auth_token": TOKEN })).await.ok();
    gone.archive().await;
    let fields = event("CA1", "completed", PATIENT);
    let other_account: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| {
            (*name, if *name == "AccountSid" { "AC00000000000000000000000000000002" } else { *value })
        })
        .collect();
    let path = tenant.path("/twilio/status");
    let signed = |path: &str, fields: &[(&str, &str)]| sign(TOKEN, &format!("{PUBLIC_URL}{path}"), fields);
    let unknown = "/v1/6ba7b810-9dad-41d1-80b4-00c04fd430c8/twilio/status".to_owned();
    let malformed = "/v1/nothing/twilio/status".to_owned();
    let attempts = [
        ("unknown workspace", unknown.clone(), signed(&unknown, &fields), fields.clone()),
        ("malformed workspace", malformed.clone(), signed(&malformed, &fields), fields.clone()),
        (
            "no set-up",
            bare.path("/twilio/status"),
            signed(&bare.path("/twilio/status"), &fields),
            fields.clone(),
        ),
        (
            "archived",
            gone.path("/twilio/status"),
            signed(&gone.path("/twilio/status"), &fields),
            fields.clone(),
        ),
        ("other account", path.clone(), signed(&path, &other_account), other_account),
        ("no signature", path.clone(), String::new(), fields.clone()),
        ("no base64", path.clone(), "%%%".to_owned(), fields.clone()),
        (
            "another token",
            path.clone(),
            sign("another", &format!("{PUBLIC_URL}{path}"), &fields),
            fields.clone(),
        ),
        ("other fields", path.clone(), signed(&path, &fields), event("CA2", "completed", PATIENT)),
        (
            "another URL",
            path.clone(),
            sign(TOKEN, &format!("https://evil.example{path}"), &fields),
            fields.clone(),
        ),
        ("a query besides", format!("{path}?x=1"), signed(&path, &fields), fields.clone()),
    ];
    let mut first = None;
    for (what, path, signature, fields) in attempts {
        let (answer, cost) = server.costs(post_form(&server.anonymous(), &path, &signature, &fields)).await;
        assert_eq!(answer.status, 403, "{what}: {}", answer.text);
        let this = (answer.anonymized(), cost);
        assert_eq!(*first.get_or_insert_with(|| this.clone()), this, "{what}");
    }
    assert_eq!(server.count("SELECT count(*) FROM calls").await, 0);
    // A genuine callback is accepted, also if the signed URL names the port.
    let signature = sign(TOKEN, &format!("{PUBLIC_URL}:443{path}"), &fields);
    post_form(&server.anonymous(), &path, &signature, &fields).await.no_content();
    // A signed form without a call gets a validation error.
    let signature = signed(&path, &[("AccountSid", ACCOUNT)]);
    let answer = post_form(&server.anonymous(), &path, &signature, &[("AccountSid", ACCOUNT)]).await;
    assert_eq!(answer.problem_locs(), ["body.CallSid"]);
});

both!(the_twilio_token_is_sealed_and_can_be_changed_and_removed, async || {
    let (server, tenant) = with_twilio().await;
    let shown = tenant.get("/twilio").await;
    assert!(!shown.text.contains(TOKEN));
    assert_eq!(shown.ok()["account_sid"], ACCOUNT);
    let at_rest = server.at_rest().await;
    assert!(!at_rest.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()));
    for event in tenant.audit().await {
        assert!(!event.to_string().contains(TOKEN));
    }
    let fields = event("CA1", "completed", PATIENT);
    let body = json!({ "account_sid": ACCOUNT, "auth_token": "another-token-of-twilio" });
    tenant.put("/twilio", body).await.ok();
    assert_eq!(callback(&server, &tenant, &fields).await.status, 403);
    tenant.delete("/twilio").await.no_content();
    tenant.delete("/twilio").await.no_content();
    let shown = tenant.get("/twilio").await.ok();
    assert_eq!(shown.fields(["configured", "account_sid"]), json!([false, null]));
    let short = json!({ "account_sid": "AC1", "auth_token": "short" });
    let refused = tenant.put("/twilio", short).await;
    assert!(!refused.text.contains("\"short\""), "{}", refused.text);
    assert_eq!(refused.problem_locs(), ["body.account_sid", "body.auth_token"]);
});

both!(without_a_public_url_no_callback_can_be_verified, async || {
    let (server, tenant) = Server::with_tenant().await;
    let set = tenant.put("/twilio", json!({ "account_sid": ACCOUNT, "auth_token": TOKEN })).await.ok();
    assert_eq!(set["status_callback_url"], Value::Null);
    let fields = event("CA1", "completed", PATIENT);
    let path = tenant.path("/twilio/status");
    let signature = sign(TOKEN, &format!("{}{path}", server.url()), &fields);
    assert_eq!(post_form(&server.anonymous(), &path, &signature, &fields).await.status, 403);
});

both!(guesses_of_signatures_count_against_their_address, async || {
    let server = Server::with(|config| {
        config.public_url = Some(PUBLIC_URL.to_owned());
        config.rates.enforced = true;
        config.rates.failed_credentials = ward::config::Rate { burst: 3, per_minute: 1 };
    })
    .await;
    let tenant = server.tenant("acme").await;
    tenant.put("/twilio", json!({ "account_sid": ACCOUNT, "auth_token": TOKEN })).await.ok();
    let fields = event("CA1", "completed", PATIENT);
    for _ in 0..10 {
        callback(&server, &tenant, &fields).await.no_content();
    }
    let guess =
        async || post_form(&server.anonymous(), &tenant.path("/twilio/status"), "AAAA", &fields).await;
    for _ in 0..3 {
        assert_eq!(guess().await.status, 403);
    }
    assert_eq!(guess().await.status, 429);
    callback(&server, &tenant, &fields).await.no_content();
});

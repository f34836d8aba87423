//! Reports of a secret scanner about keys in public places, and the choice of a workspace for such keys.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ward::config::Rate;
use ward_test::{
    Actor, Cost, Fields as _, REPORTS, Scanner, Sending, Server, Tenant, both, got_in, report_of,
    unknown_key, wanted_permission, wants_key, wrong_secret_of,
};

use crate::support::together;

const DAY: Duration = Duration::from_hours(24);
const MICROSECOND: Duration = Duration::from_micros(1);

/// The identifier of the scanner's key in these tests.
const IDENTIFIER: &str = "f9525bf080f75b3506ca1ead061add62";

// The headers of a report.
const KEY: &str = "github-public-key-identifier";
const SIGNATURE: &str = "github-public-key-signature";

fn text(actor: &Actor) -> &str {
    actor.bearer.as_deref().expect("a key")
}

async fn with_scanner() -> (Server, Scanner, Tenant) {
    let scanner = Scanner::new(IDENTIFIER);
    let server = scanner.server().await;
    let tenant = server.tenant("acme").await;
    (server, scanner, tenant)
}

async fn choose(tenant: &Tenant, action: &str) {
    let chosen = tenant.put("/leaked-key-policy", json!({ "action": action })).await.ok();
    assert_eq!(chosen, json!({ "action": action }));
}

/// The labels of a report's answer, in order.
async fn labels(scanner: &Scanner, server: &Server, texts: &[&str]) -> Vec<String> {
    let verdicts = scanner.report(server, texts).await.ok();
    verdicts.as_array().expect("a list").iter().map(|verdict| verdict.text("label").to_owned()).collect()
}

/// The SHA-256 of a text, in hexadecimal digits.
fn hash(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
}

fn rotation(tenant: &Tenant, key: &Value) -> String {
    tenant.path(&format!("/api-keys/{}/rotate", key.text("key_id")))
}

async fn listed(tenant: &Tenant, key_id: &str) -> Value {
    let page = tenant.get("/api-keys?limit=20").await.ok();
    page.list("items").iter().find(|item| item["key_id"] == key_id).expect("the key is listed").clone()
}

/// The events with the leak of this key.
async fn leaks_of(tenant: &Tenant, key_id: &str) -> Vec<Value> {
    let events = tenant.audit().await.into_iter();
    let leaks = events.filter(|event| !event["metadata"]["leak"].is_null());
    leaks.filter(|event| event["metadata"]["key_id"] == key_id).collect()
}

both!(a_report_ends_live_keys_on_every_replica_and_labels_each_token, async || {
    let (server, scanner, tenant) = with_scanner().await;
    let replica = server.replica().await;
    let other = server.tenant("other").await;
    let (live, minted) = tenant.key(json!({ "duration_days": 9, "role": "admin", "name": "ci" })).await;
    let (theirs, _) = other.key(json!({ "duration_days": 9 })).await;
    let (ended, gone) = tenant.key(json!({ "duration_days": 9 })).await;
    tenant.delete(&format!("/api-keys/{}", gone.text("key_id"))).await.no_content();
    let (unknown, wrong) = (unknown_key(), wrong_secret_of(tenant.owner_key_id()));
    let texts = [text(&live), "garbage", &unknown, text(&theirs), &wrong, text(&ended), text(&live)];
    let verdicts = scanner.report(&server, &texts).await.ok();
    let expected: Value = texts
        .iter()
        .zip(["true", "false", "false", "true", "true", "true", "true"])
        .map(|(text, label)| {
            json!({ "token_hash": hash(text), "token_type": "ward_api_key", "label": format!("{label}_positive") })
        })
        .collect();
    assert_eq!(verdicts, expected);
    for actor in [&live, &theirs, &replica.bearing(text(&live))] {
        actor.get("/v1/auth/me").await.refused(401);
    }
    tenant.owner.get("/v1/auth/me").await.ok();

    let events = leaks_of(&tenant, minted.text("key_id")).await;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((event.text("action"), event.text("resource_name")), ("api_key.revoke", "ci"));
    assert_eq!((&event["actor_entity_id"], &event["actor_credential_id"]), (&Value::Null, &Value::Null));
    let place = |at: usize| json!({ "url": format!("https://github.com/acme/app/blob/main/config-{at}.env"), "source": "content" });
    let leak = json!({ "reporter": IDENTIFIER, "places": [place(0), place(6)], "place_count": 2 });
    assert_eq!(event["metadata"]["leak"], leak);
    for key in [&live, &theirs, &ended] {
        let secret = &text(key)[27..70];
        assert!(!server.dump().await.iter().any(|row| row.contains(secret)), "only public parts are stored");
    }
});

both!(a_repeated_report_gets_the_same_answer_and_changes_nothing, async || {
    let (server, scanner, tenant) = with_scanner().await;
    let (revoked, first) = tenant.key(json!({ "duration_days": 9 })).await;
    let (old, second) = tenant.key(json!({ "duration_days": 9, "role": "admin" })).await;
    let overlap = json!({ "duration_days": 9, "grace_seconds": 3600 });
    let rotated = tenant.owner.post(&rotation(&tenant, &second), overlap).await.ok();
    let texts = [text(&revoked), text(&old), "garbage"];
    let body = report_of(&texts).to_string();
    let answer = scanner.send(&server, body.as_bytes()).await.ok();
    // A previous secret ends alone, and its key stays.
    old.get("/v1/auth/me").await.refused(401);
    server.bearing(rotated.text("api_key")).get("/v1/auth/me").await.ok();
    assert_eq!(listed(&tenant, second.text("key_id")).await["previous"], Value::Null);
    let before = server.dump().await;
    for _ in 0..2 {
        let (again, cost) = server.costs(scanner.send(&server, body.as_bytes())).await;
        assert_eq!(again.ok(), answer);
        assert_eq!(cost, Cost { reads: 1, writes: 0, statements: 1 });
    }
    assert!(server.dump().await == before);
    for (key, action) in [(&first, "api_key.revoke"), (&second, "api_key.finish_rotation")] {
        let events = leaks_of(&tenant, key.text("key_id")).await;
        assert_eq!(events.iter().map(|event| event.text("action")).collect::<Vec<_>>(), [action]);
    }
});

both!(reports_at_the_same_time_end_a_key_once, async || {
    let (server, scanner, tenant) = with_scanner().await;
    choose(&tenant, "quarantine").await;
    let (live, minted) = tenant.key(json!({ "duration_days": 9 })).await;
    let body = report_of(&[text(&live)]).to_string();
    let (server, scanner) = (std::sync::Arc::new(server), std::sync::Arc::new(scanner));
    let reports = (0..8).map(|_| {
        let (server, scanner, body) = (server.clone(), scanner.clone(), body.clone());
        async move { scanner.send(&server, body.as_bytes()).await.ok() }
    });
    let answers = together(reports).await;
    assert!(answers.iter().all(|answer| answer[0]["label"] == "true_positive"), "{answers:?}");
    assert_eq!(leaks_of(&tenant, minted.text("key_id")).await.len(), 1);
});

both!(a_report_without_a_right_signature_is_refused_and_counts_as_a_failed_sign_in, async || {
    let (one, two) = (Scanner::new("one"), Scanner::new("two"));
    let stranger = Scanner::new("one");
    let server = Server::with(|config| {
        config.leak_report_keys = vec![one.key(), two.key()];
        config.rates.enforced = true;
        config.rates.failed_credentials = Rate { burst: 9, per_minute: 1 };
    })
    .await;
    let tenant = server.tenant("acme").await;
    let body = report_of(&[text(&tenant.owner)]).to_string();
    let (right, foreign) = (one.sign(body.as_bytes()), stranger.sign(body.as_bytes()));
    let (of_other, of_spaces) = (two.sign(body.as_bytes()), one.sign(format!("{body} ").as_bytes()));
    let faults: [&[(&str, &str)]; 9] = [
        &[],
        &[(KEY, "one")],
        &[(SIGNATURE, &right)],
        &[(KEY, "three"), (SIGNATURE, &right)],
        &[(KEY, "one"), (SIGNATURE, "")],
        &[(KEY, "one"), (SIGNATURE, "no base64!")],
        &[(KEY, "one"), (SIGNATURE, &foreign)],
        &[(KEY, "one"), (SIGNATURE, &of_other)],
        &[(KEY, "one"), (SIGNATURE, &of_spaces)],
    ];
    let before = server.dump().await;
    let send = async |headers: &[(&str, &str)]| {
        let sending = Sending { headers, ..Sending::json_bytes(body.as_bytes()) };
        server.anonymous().send(Method::POST, REPORTS, sending).await
    };
    for headers in faults {
        let (answer, cost) = server.costs(send(headers)).await;
        assert_eq!(answer.refused(403), "callback_refused", "{headers:?}");
        assert_eq!(cost, Cost::NOTHING, "{headers:?}");
    }
    send(faults[6]).await.refused_as(429, "rate_limited");
    assert!(server.dump().await == before);
    // A right signature works whatever else came from its address.
    assert_eq!(labels(&two, &server, &["garbage"]).await, ["false_positive"]);
    let headers = [(KEY, "one"), (SIGNATURE, right.as_str())];
    assert_eq!(send(&headers).await.ok()[0]["label"], "true_positive");
    // The address has no failures left, so an ended key gets 429 in place of 401.
    tenant.owner.get("/v1/auth/me").await.refused(429);
});

both!(a_server_without_a_scanners_key_has_no_such_route, async || {
    let scanner = Scanner::new(IDENTIFIER);
    let (server, tenant) = Server::with_tenant().await;
    let (answer, cost) = server.costs(scanner.report(&server, &[text(&tenant.owner)])).await;
    assert_eq!((answer.refused(404), cost), ("not_found".to_owned(), Cost::NOTHING));
    tenant.owner.get("/v1/auth/me").await.ok();
});

both!(a_report_has_a_thousand_tokens_and_costs_one_statement, async || {
    let (server, scanner, tenant) = with_scanner().await;
    let unknown: Vec<String> = (0..999).map(|_| unknown_key()).collect();
    let wrong = wrong_secret_of(tenant.owner_key_id());
    let texts: Vec<&str> = unknown.iter().map(String::as_str).chain([wrong.as_str()]).collect();
    let (answer, cost) = server.costs(scanner.report(&server, &texts)).await;
    assert_eq!(cost, Cost { reads: 1, writes: 0, statements: 1 });
    let labels = answer.ok();
    assert_eq!(
        (&labels[998]["label"], &labels[999]["label"]),
        (&json!("false_positive"), &json!("true_positive"))
    );
    let one_more: Vec<&str> = texts.iter().copied().chain(["garbage"]).collect();
    let refused = scanner.report(&server, &one_more).await;
    assert_eq!(refused.problem_locs(), ["body"]);
    let (answer, cost) = server.costs(scanner.report(&server, &["garbage"; 1_000])).await;
    assert_eq!((answer.status.as_u16(), cost), (200, Cost::NOTHING));

    // The bytes have a bound of their own, because a thousand tokens exceed the usual one.
    let padded = |bytes: usize| {
        let body = report_of(&["garbage"]).to_string();
        format!("{body}{}", " ".repeat(bytes - body.len())).into_bytes()
    };
    scanner.send(&server, &padded(1 << 20)).await.ok();
    scanner.send(&server, &padded((1 << 20) + 1)).await.refused_as(413, "body_too_large");
    scanner.send(&server, b"[{").await.refused(422);
    scanner.send(&server, b"[{\"token\":\"\xff\"}]").await.refused_as(400, "body_not_utf8");
});

both!(many_leaked_keys_of_one_workspace_end_in_few_transactions, async || {
    let (server, scanner, tenant) = with_scanner().await;
    let other = server.tenant("other").await;
    let mut keys = vec![other.key(json!({ "duration_days": 9 })).await.0];
    for _ in 0..51 {
        keys.push(tenant.key(json!({ "duration_days": 9, "role": "viewer" })).await.0);
    }
    let texts: Vec<&str> = keys.iter().map(text).collect();
    let (answer, cost) = server.costs(scanner.report(&server, &texts)).await;
    answer.ok();
    assert_eq!((cost.reads, cost.writes), (1, 3));
    for key in &keys {
        key.get("/v1/auth/me").await.refused(401);
    }
    let usage = tenant.get("/usage").await.ok();
    let used =
        usage.list("quotas").iter().find(|quota| quota["name"] == "keys").expect("a quota")["used"].clone();
    assert_eq!(used, json!(1));
});

both!(an_odd_report_loses_no_leak_and_stores_no_secret, async || {
    let (server, scanner, tenant) = with_scanner().await;
    let (live, minted) = tenant.key(json!({ "duration_days": 9 })).await;
    let place = format!("https://h.example/{}\0?{}", text(&live), "é".repeat(2_000));
    let report = json!([
        { "token": "\0", "type": null, "url": null, "source": "", "more": [1] },
        { "token": text(&live), "url": place },
    ]);
    let answer = scanner.send(&server, report.to_string().as_bytes()).await.ok();
    assert_eq!(answer[1].fields(["token_type", "label"]), json!(["", "true_positive"]));
    live.get("/v1/auth/me").await.refused(401);
    let events = leaks_of(&tenant, minted.text("key_id")).await;
    let url = events[0]["metadata"]["leak"]["places"][0].text("url");
    assert!(url.starts_with(&format!("https://h.example/ward_{}…?é", minted.text("key_id"))), "{url}");
    assert_eq!(url.chars().count(), 1_024);
});

both!(an_owner_chooses_what_happens_to_leaked_keys, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let admin = tenant.service("admin").await;
    let path = tenant.path("/leaked-key-policy");
    assert_eq!(admin.get(&path).await.ok(), json!({ "action": "revoke" }));
    admin.put(&path, json!({ "action": "quarantine" })).await.refused_as(403, "owner_only");
    choose(&tenant, "revoke").await;
    assert!(!tenant.actions().await.contains(&"leaked_key_policy.update".to_owned()), "nothing changed");
    for (from, to) in [("revoke", "quarantine"), ("quarantine", "revoke")] {
        choose(&tenant, to).await;
        choose(&tenant, to).await;
        assert_eq!(admin.get(&path).await.ok(), json!({ "action": to }));
        let events = tenant.audit().await;
        assert_eq!(events[0].text("action"), "leaked_key_policy.update");
        assert_eq!(events[0]["metadata"]["changes"]["action"], json!({ "from": from, "to": to }));
    }
    let events = tenant.actions().await;
    assert_eq!(events.iter().filter(|action| *action == "leaked_key_policy.update").count(), 2);
});

both!(a_key_in_quarantine_reads_no_patient_data_and_writes_nothing, async || {
    let (server, scanner, tenant) = with_scanner().await;
    let replica = server.replica().await;
    choose(&tenant, "quarantine").await;
    let (leaked, minted) = tenant.key(json!({ "duration_days": 30, "role": "owner" })).await;
    let target = tenant.whole_target(minted.text("key_id")).await;
    assert_eq!(labels(&scanner, &server, &[text(&leaked)]).await, ["true_positive"]);
    let before = server.dump().await;
    let (mut reads, mut refused) = (0, 0);
    for operation in server.app.contract.operations().filter(|operation| wants_key(operation)) {
        let reading = operation.method == Method::GET
            && wanted_permission(operation) != Some("Call.view")
            // Without a permission in the query, the answer would say nothing about the quarantine.
            && operation.id != "authorize"
            // A right of admins that lists e-mail addresses, and no view.
            && operation.id != "list-invitations";
        for actor in [&leaked, &replica.bearing(text(&leaked))] {
            let answer = actor.call(operation, &target).await;
            if reading {
                assert!(got_in(&answer), "{}: {}", operation.id, answer.text);
                reads += 1;
            } else {
                assert_eq!(answer.refused(403), "key_quarantined", "{}", operation.id);
                refused += 1;
            }
        }
    }
    assert!(reads > 40 && refused > 80, "{reads} reads, {refused} refusals");
    assert!(server.dump().await == before, "a key in quarantine changes nothing");
    let gate = async |rest: &str| leaked.get(&tenant.path(&format!("/authorize{rest}"))).await;
    gate("?permission=Workspace.view").await.no_content();
    for permission in ["Call.view", "Call.create", "ApiKey.create"] {
        gate(&format!("?permission={permission}")).await.refused_as(403, "key_quarantined");
    }
});

both!(a_quarantine_ends_after_24_hours_with_its_key, async || {
    let (server, scanner, tenant) = with_scanner().await;
    choose(&tenant, "quarantine").await;
    let (leaked, minted) = tenant.key(json!({ "duration_days": 30, "role": "admin" })).await;
    let (short, brief) = tenant.key(json!({ "duration_days": 1, "role": "admin" })).await;
    server.clock.stop_at(server.clock.now());
    labels(&scanner, &server, &[text(&leaked), text(&short)]).await;
    let key = listed(&tenant, minted.text("key_id")).await;
    let end = server.clock.now().saturating_add(DAY);
    let ends_at = end.to_string();
    assert_eq!(
        key.fields(["quarantined_at", "expires_at"]),
        json!([server.clock.now().to_string(), ends_at])
    );
    let me = leaked.get("/v1/me").await;
    assert_eq!(me.header("x-api-key-expires"), ends_at);
    let me = me.ok();
    assert_eq!(
        me["credential"].fields(["quarantined_at", "expires_at"]),
        key.fields(["quarantined_at", "expires_at"])
    );
    let permissions = json!(["Workspace.view", "Integration.view", "ApiKey.view", "Audit.view"]);
    assert_eq!(me["memberships"]["items"][0]["permissions"], permissions);
    // A quarantine makes no key live longer.
    assert_eq!(listed(&tenant, brief.text("key_id")).await["expires_at"], brief["expires_at"]);
    let events = leaks_of(&tenant, minted.text("key_id")).await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].text("action"), events[0]["metadata"].text("expires_at")),
        ("api_key.quarantine", &*ends_at)
    );
    assert_eq!(events[0]["metadata"]["leak"]["former_expires_at"], minted["expires_at"]);

    // Another choice and another report end no quarantine and make no second one.
    choose(&tenant, "revoke").await;
    server.clock.advance(DAY.saturating_sub(MICROSECOND));
    let before = server.dump().await;
    assert_eq!(labels(&scanner, &server, &[text(&leaked)]).await, ["true_positive"]);
    assert!(server.dump().await == before);
    leaked.get(&tenant.path("/integrations")).await.ok();
    server.clock.advance(MICROSECOND);
    leaked.get(&tenant.path("/integrations")).await.refused(401);
    assert_eq!(labels(&scanner, &server, &[text(&leaked)]).await, ["true_positive"]);
    server.app.flush().await;
    let refused = tenant.get("/audit?action=access.unauthorized").await.ok();
    assert_eq!(refused["events"][0]["metadata"]["reason"], "leaked");
});

both!(an_admin_ends_a_quarantine_by_rotation_or_revocation, async || {
    let (server, scanner, tenant) = with_scanner().await;
    choose(&tenant, "quarantine").await;
    let admin = tenant.service("admin").await;
    let (leaked, minted) = tenant.key(json!({ "duration_days": 30, "role": "admin" })).await;
    let (second, other) = tenant.key(json!({ "duration_days": 30, "role": "operator" })).await;
    let (found, third) = tenant.key(json!({ "duration_days": 30, "role": "operator" })).await;
    labels(&scanner, &server, &[text(&leaked), text(&second), text(&found)]).await;
    let path = rotation(&tenant, &minted);
    leaked.post(&path, json!({ "duration_days": 30 })).await.refused_as(403, "key_quarantined");
    let overlap = json!({ "duration_days": 30, "grace_seconds": 60 });
    admin.post(&path, overlap).await.refused_as(409, "leaked_secret");
    let handover = tenant.path(&format!("/api-keys/{}/handover", other.text("key_id")));
    admin.post(&handover, json!({})).await.refused_as(409, "leaked_secret");
    let rotated = admin.post(&path, json!({ "duration_days": 30 })).await.ok();
    let new = server.bearing(rotated.text("api_key"));
    let write = tenant.workspace("/test-caller-numbers");
    new.put(&write, json!({ "numbers": ["+15550100001"] })).await.ok();
    leaked.get("/v1/auth/me").await.refused(401);
    assert_eq!(listed(&tenant, minted.text("key_id")).await["quarantined_at"], Value::Null);
    // The next rotation may leave an overlap again.
    new.post(&path, json!({ "duration_days": 30, "grace_seconds": 60 })).await.ok();
    new.put(&write, json!({ "numbers": [] })).await.ok();
    // A repeated report of the old secret harms no new one.
    let before = server.dump().await;
    assert_eq!(labels(&scanner, &server, &[text(&leaked)]).await, ["true_positive"]);
    assert!(server.dump().await == before);
    admin.delete(&tenant.path(&format!("/api-keys/{}", other.text("key_id")))).await.no_content();
    second.get("/v1/auth/me").await.refused(401);
    // A finder of the text can end the rest of its quarantine.
    server.anonymous().post("/v1/keys/revoke", json!({ "api_key": text(&found) })).await.no_content();
    found.get("/v1/auth/me").await.refused(401);
    let events = tenant.audit().await;
    let ended = events.iter().find(|event| event["action"] == "api_key.revoke").expect("an event");
    assert_eq!(ended["metadata"]["key_id"], third["key_id"]);
});

both!(a_leak_ends_even_the_last_way_in_and_a_quarantined_key_is_none, async || {
    let (server, scanner, tenant) = with_scanner().await;
    choose(&tenant, "quarantine").await;
    let own = json!({ "duration_days": 30, "role": "owner", "speaks_for": "self" });
    let (second, minted) = tenant.key(own).await;
    labels(&scanner, &server, &[text(&tenant.owner)]).await;
    let path_of = |key_id: &str| tenant.path(&format!("/api-keys/{key_id}"));
    second.delete(&path_of(minted.text("key_id"))).await.refused_as(409, "last_way_in");
    second.delete(&path_of(tenant.owner_key_id())).await.no_content();
    second.put(&tenant.path("/leaked-key-policy"), json!({ "action": "revoke" })).await.ok();
    labels(&scanner, &server, &[text(&second)]).await;
    second.get("/v1/auth/me").await.refused(401);
    let issued = ward::operator::issue_key(&server.app, "acme", "owner", "after the leak", Some(30))
        .await
        .expect("a key");
    let issued = serde_json::to_value(issued).expect("JSON");
    server.bearing(issued.text("api_key")).get(&tenant.workspace("")).await.ok();
});

both!(a_quarantine_ends_the_invitations_that_the_key_made, async || {
    let (server, scanner, tenant) = with_scanner().await;
    choose(&tenant, "quarantine").await;
    let guest = server.tenant("guest").await;
    let (leaked, _) = tenant.key(json!({ "duration_days": 30, "role": "admin" })).await;
    let invite = json!({ "role": "viewer" });
    let made = leaked.post(&tenant.workspace("/invitations"), invite).await.created();
    labels(&scanner, &server, &[text(&leaked)]).await;
    let accept = json!({ "invitation": made["invitation"] });
    let status = guest.owner.post("/v1/invitations/accept", accept).await.status;
    assert_eq!(status.as_u16(), 404);
});

both!(a_key_that_leaks_while_its_workspace_is_archived_stays_ended, async || {
    let (server, scanner, tenant) = with_scanner().await;
    let (leaked, _) = tenant.key(json!({ "duration_days": 30, "role": "viewer" })).await;
    tenant.archive().await;
    assert_eq!(labels(&scanner, &server, &[text(&leaked)]).await, ["true_positive"]);
    ward::operator::restore_workspace(&server.app, "acme").await.expect("restored");
    leaked.get("/v1/auth/me").await.refused(401);
    tenant.owner.get("/v1/auth/me").await.ok();
});

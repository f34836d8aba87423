//! The audit records the actor, action, resource and origin of every change and refusal.
//! A change that cannot be recorded does not happen.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use ward_test::{
    Actor, Fields as _, Sending, Server, Target, Tenant, both, new_workspace, unknown_key, wrong_secret_of,
};

use crate::support::insert_reads;

const ORIGIN: [(&str, &str); 2] = [("user-agent", "ehr-console/2.1"), ("x-request-id", "the-request")];

/// The credential id of a key, read from the workspace's list of keys.
async fn credential(tenant: &Tenant, key_id: &str) -> Value {
    let page = tenant.get("/api-keys?limit=20").await.ok();
    let keys = page.list("items");
    keys.iter().find(|key| key["key_id"] == key_id).expect("a key")["id"].clone()
}

async fn from_console(actor: &Actor, method: Method, path: &str, body: Value) -> Value {
    let answer = actor.with(&ORIGIN).send(method, path, Sending::json(&body)).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text);
    serde_json::from_str(&answer.text).unwrap_or(Value::Null)
}

both!(every_change_is_one_event_with_actor_action_and_origin, async || {
    let server = Server::start().await;
    let created =
        from_console(&server.anonymous(), Method::POST, "/v1/workspaces", new_workspace("acme")).await;
    let id = created.text("id").to_owned();
    let claim = json!({ "duration_days": 9, "name": "Ada" });
    let claimed = from_console(&server.anonymous(), Method::POST, &format!("/v1/{id}/api-keys"), claim).await;
    let owner = server.bearing(claimed.text("api_key"));
    let tenant = Tenant { id, slug: "acme".to_owned(), owner: owner.clone(), claimed: claimed.clone() };

    let renamed = json!({ "name": "Acme", "region": "us-east-1", "connector_type": "epic" });
    from_console(&owner, Method::PATCH, &tenant.workspace(""), renamed).await;
    from_console(&owner, Method::POST, &tenant.workspace("/provision"), json!({})).await;
    let numbers = json!({ "numbers": ["+1 555 010 0001"] });
    from_console(&owner, Method::PUT, &tenant.workspace("/test-caller-numbers"), numbers).await;
    let mint = json!({ "duration_days": 1, "name": "ci", "role": "viewer" });
    let minted = from_console(&owner, Method::POST, &tenant.path("/api-keys"), mint).await;
    let key = tenant.path(&format!("/api-keys/{}", minted.text("key_id")));
    let minted_id = credential(&tenant, minted.text("key_id")).await;
    from_console(&owner, Method::POST, &format!("{key}/rotate"), json!({ "duration_days": 2 })).await;
    from_console(&owner, Method::DELETE, &key, json!({})).await;
    from_console(&owner, Method::POST, &tenant.workspace("/archive"), json!({ "slug": "acme" })).await;
    ward::operator::restore_workspace(&server.app, "acme").await.expect("restored");

    let owner_id = credential(&tenant, tenant.owner_key_id()).await;
    let (workspace, claimed_key, minted_key) = (json!(tenant.id), owner_id.clone(), minted_id);
    let mut events = tenant.audit().await;
    events.reverse();
    let (room, keys) = ("workspaces", "api_keys");
    let expected = [
        (room, "workspace.create", "workspace", &workspace, "acme"),
        (keys, "workspace.claim", "api_key", &claimed_key, "Ada"),
        (room, "workspace.update", "workspace", &workspace, "acme"),
        (room, "workspace.provision", "workspace", &workspace, "acme"),
        (room, "test_callers.update", "workspace", &workspace, "acme"),
        (keys, "api_key.create", "api_key", &minted_key, "ci"),
        (keys, "api_key.rotate", "api_key", &minted_key, "ci"),
        (keys, "api_key.revoke", "api_key", &minted_key, "ci"),
        (room, "workspace.archive", "workspace", &workspace, "acme"),
        (room, "workspace.restore", "workspace", &workspace, "acme"),
    ];
    let actions: Vec<&str> = events.iter().map(|event| event.text("action")).collect();
    assert_eq!(actions, expected.map(|(_, action, ..)| action));
    for (event, (service, action, kind, resource, name)) in events.iter().zip(expected) {
        assert_eq!((event.text("service"), event.text("resource_type")), (service, kind), "{action}");
        assert_eq!((&event["resource_id"], event.text("resource_name")), (resource, name), "{action}");
        assert_eq!(event["workspace_id"], workspace, "{action}");
        assert_eq!(event["phi_accessed"], false, "{action}");
        let (actor, with) = match action {
            "workspace.create" | "workspace.restore" => (&Value::Null, &Value::Null),
            _ => (&claimed["created_by_entity_id"], &owner_id),
        };
        assert_eq!((&event["actor_entity_id"], &event["actor_credential_id"]), (actor, with), "{action}");
        if action == "workspace.restore" {
            assert_eq!((&event["ip_address"], &event["metadata"]["operator"]), (&Value::Null, &json!(true)));
        } else {
            assert_eq!(
                (event.text("ip_address"), event.text("user_agent")),
                ("127.0.0.1", ORIGIN[0].1),
                "{action}"
            );
            assert_eq!(event["metadata"]["request_id"], ORIGIN[1].1, "{action}");
        }
    }
    let told = |index: usize| events[index]["metadata"].clone();
    assert_eq!(told(0).fields(["name", "environment"]), json!(["The acme clinic", "production"]));
    let changes = json!({
        "name": { "from": "The acme clinic", "to": "Acme" },
        "connector_type": { "from": null, "to": "epic" },
    });
    assert_eq!(told(2)["changes"], changes, "the region stayed as it was");
    assert_eq!(told(3)["integration_seeded"], true);
    assert_eq!(told(4)["changes"]["numbers"], json!({ "from": [], "to": ["+15550100001"] }));
    assert_eq!(told(5).fields(["key_id", "role"]), json!([minted["key_id"], "viewer"]));
});

both!(a_self_service_workspace_starts_its_own_audit, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let own = tenant.owner.post("/v1/me/workspaces", new_workspace("own")).await.created();
    let listed = tenant.owner.get(&format!("/v1/{}/audit", own.text("id"))).await.ok();
    assert_eq!((&listed["total"], listed["events"][0].text("action")), (&json!(1), "workspace.create"));
    assert_eq!(listed["events"][0]["actor_entity_id"], tenant.claimed["created_by_entity_id"]);
    assert_eq!(tenant.actions().await, ["workspace.create", "workspace.claim"]);
});

both!(no_key_is_ever_written_down, async || {
    let (server, tenant) = Server::with_tenant().await;
    let once = "an-idempotency-key-that-is-long-enough";
    let days = json!({ "duration_days": 1, "role": "admin" });
    let mut shown = vec![tenant.claimed.clone()];
    let minted = tenant.post_once("/api-keys", once, days.clone()).await.created();
    let rotate = tenant.path(&format!("/api-keys/{}/rotate", minted.text("key_id")));
    shown.push(server.bearing(minted.text("api_key")).post_once(&rotate, once, days.clone()).await.ok());
    shown.push(tenant.owner.post(&rotate, days).await.ok());
    let unclaimed = server.anonymous().create_workspace("other").await;
    let claim = format!("/v1/{}/api-keys", unclaimed.text("id"));
    shown.push(server.anonymous().post_once(&claim, once, json!({ "duration_days": 1 })).await.created());
    let wrong = wrong_secret_of(tenant.owner_key_id());
    server.bearing(&wrong).get("/v1/auth/me").await.refused(401);
    server.bearing(minted.text("api_key")).get("/v1/auth/me").await.refused(401);
    shown.extend([minted, json!({ "api_key": wrong })]);
    server.app.flush().await;

    let audit = serde_json::to_string(&tenant.audit().await).expect("text");
    let at_rest = server.at_rest().await;
    let holds =
        |bytes: &[u8], secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(
        holds(&at_rest, tenant.owner_key_id()) && audit.contains("access.unauthorized"),
        "the search finds a value that is present"
    );
    for key in shown {
        let secret = &key.text("api_key")[27..70];
        assert!(!audit.contains(secret), "in the audit");
        assert!(!holds(&at_rest, secret), "in the database");
    }
    assert!(!holds(&at_rest, once), "an idempotency key is not stored either");
});

/// A predicate for the events that a filter should find.
type Picks = Box<dyn Fn(&Value) -> bool>;

/// A workspace in which two principals did several things, an hour apart.
async fn eventful(server: &Server) -> Tenant {
    let tenant = server.tenant("acme").await;
    let (admin, _) = tenant.key(json!({ "duration_days": 9, "role": "admin" })).await;
    for index in 0..3 {
        for actor in [&tenant.owner, &admin] {
            server.clock.advance(Duration::from_hours(1));
            let name =
                json!({ "name": format!("{index} of {}", actor.bearer.as_ref().map_or(0, String::len)) });
            actor.patch(&tenant.workspace(""), json!({ "name": format!("{index}") })).await.ok();
            actor.patch(&tenant.workspace(""), name).await.ok();
            let mint = json!({ "duration_days": 1, "role": "viewer" });
            actor.post(&tenant.path("/api-keys"), mint).await.created();
        }
    }
    server.sql("UPDATE audit_events SET phi_accessed = true WHERE action = 'api_key.create'").await;
    // Another tenant acts too; none of its events may appear here.
    server.tenant("other").await.service("viewer").await;
    tenant
}

both!(each_filter_and_each_pair_of_filters_select_their_events, async || {
    let server = Server::start().await;
    let tenant = eventful(&server).await;
    let all = tenant.audit().await;
    let some_key =
        all.iter().find(|event| event["action"] == "api_key.create").expect("a key")["resource_id"].clone();
    let admin = all[0]["actor_entity_id"].clone();
    let (from, to) = (all[12].text("timestamp").to_owned(), all[4].text("timestamp").to_owned());
    let (key, entity) = (some_key.as_str().expect("an id"), admin.as_str().expect("an id"));
    let is = |field: &'static str, value: &str| {
        let value = value.to_owned();
        move |event: &Value| event[field] == value.as_str()
    };
    let since = |from: String| move |event: &Value| event.text("timestamp") >= from.as_str();
    let until = |to: String| move |event: &Value| event.text("timestamp") <= to.as_str();
    let filters: Vec<(String, Picks)> = vec![
        ("service=api_keys".to_owned(), Box::new(is("service", "api_keys"))),
        ("action=workspace.update".to_owned(), Box::new(is("action", "workspace.update"))),
        (format!("actor_entity_id={entity}"), Box::new(is("actor_entity_id", entity))),
        ("resource_type=workspace".to_owned(), Box::new(is("resource_type", "workspace"))),
        (format!("resource_id={key}"), Box::new(is("resource_id", key))),
        ("phi_only=true".to_owned(), Box::new(|event| event["phi_accessed"] == true)),
        (format!("date_from={from}"), Box::new(since(from.clone()))),
        (format!("date_to={to}"), Box::new(until(to.clone()))),
    ];
    let ids = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event.text("id").to_owned()).collect()
    };
    let ask = async |query: &str| {
        let listed = tenant.get(&format!("/audit?limit=100&{query}")).await.ok();
        let events = listed.list("events").clone();
        assert_eq!(listed["total"], events.len(), "{query}");
        events
    };
    for (query, picks) in &filters {
        let expected: Vec<Value> = all.iter().filter(|event| picks(event)).cloned().collect();
        assert!((1..all.len()).contains(&expected.len()), "{query} tells events apart");
        assert_eq!(ids(&ask(query).await), ids(&expected), "{query}");
    }
    // All pairs of filters, so that each condition is combined with each other one.
    for (left, picks_left) in &filters {
        for (right, picks_right) in &filters {
            let expected: Vec<Value> =
                all.iter().filter(|event| picks_left(event) && picks_right(event)).cloned().collect();
            if left < right {
                assert_eq!(ids(&ask(&format!("{left}&{right}")).await), ids(&expected), "{left} {right}");
            }
        }
    }
    let everything: Vec<&str> = filters.iter().map(|(query, _)| query.as_str()).collect();
    let expected: Vec<Value> =
        all.iter().filter(|event| filters.iter().all(|(_, picks)| picks(event))).cloned().collect();
    assert_eq!(ids(&ask(&everything.join("&")).await), ids(&expected));
    for nothing in ["service=calls", "action=update", "resource_type=API_KEY", "date_to=2020-01-01T00:00:00Z"]
    {
        assert_eq!(ask(nothing).await, Vec::<Value>::new(), "{nothing}");
    }
    // The same instant in another time zone.
    let moment: ward_db::Timestamp = from.parse().expect("a time");
    let elsewhere = ward_db::Timestamp::from_micros(moment.micros() + 2 * 3_600_000_000).to_string();
    let elsewhere = elsewhere.replace('Z', "%2B02:00");
    assert_eq!(
        ids(&ask(&format!("date_from={elsewhere}")).await),
        ids(&ask(&format!("date_from={from}")).await)
    );
    for (query, loc) in [
        ("limit=0", "query.limit"),
        ("limit=101", "query.limit"),
        ("offset=-1", "query.offset"),
        ("actor_entity_id=me", "query.actor_entity_id"),
        ("date_from=yesterday", "query.date_from"),
        ("phi_only=some", "query.phi_only"),
    ] {
        assert_eq!(tenant.get(&format!("/audit?{query}")).await.problem_locs(), [loc]);
    }
});

both!(the_list_is_newest_first_and_pages_cover_it_once, async || {
    let server = Server::start().await;
    let tenant = eventful(&server).await;
    let all = tenant.audit().await;
    assert!(all.windows(2).all(|pair| pair[0].text("timestamp") >= pair[1].text("timestamp")));
    let mut seen = Vec::new();
    for offset in (0..).step_by(6) {
        let page = tenant.get(&format!("/audit?limit=6&offset={offset}")).await.ok();
        assert_eq!(page.fields(["limit", "offset", "total"]), json!([6, offset, all.len()]));
        seen.extend(page.list("events").clone());
        assert_eq!(page["has_more"], seen.len() < all.len());
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(seen, all);
    let beyond = tenant.get("/audit?offset=1000").await.ok();
    assert_eq!(beyond.fields(["events", "has_more", "limit"]), json!([[], false, 50]));
});

both!(the_total_is_exact_up_to_ten_thousand, async || {
    let (server, tenant) = Server::with_tenant().await;
    let at = |_| "00.000000".to_owned();
    let page = async |query: &str| tenant.get(&format!("/audit?{query}")).await.ok();
    insert_reads(&server, &tenant, 1..=9_997, at).await;
    assert_eq!(page("limit=1").await["total"], 9_999);
    insert_reads(&server, &tenant, 9_998..=10_003, at).await;
    assert_eq!(page("limit=1").await["total"], 10_000);
    assert_eq!(page("limit=1&service=calls").await["total"], 10_000);
    let last = page("limit=2&offset=10003").await;
    assert_eq!((last.list("events").len(), &last["has_more"]), (2, &json!(false)));
    let summary = tenant.get("/audit/summary").await.ok();
    assert_eq!(summary.fields(["total_events", "phi_access_events"]), json!([10_005, 10_003]));
});

both!(the_summary_counts_a_period, async || {
    let server = Server::start().await;
    let tenant = eventful(&server).await;
    let all = tenant.audit().await;
    for (query, part) in [
        (String::new(), &all[..]),
        (format!("?date_from={}", all[9].text("timestamp")), &all[..10]),
        (format!("?date_to={}", all[9].text("timestamp")), &all[9..]),
        (
            format!("?date_from={}&date_to={}", all[12].text("timestamp"), all[5].text("timestamp")),
            &all[5..13],
        ),
        ("?date_to=2020-01-01T00:00:00Z".to_owned(), &[]),
    ] {
        let summary = tenant.get(&format!("/audit/summary{query}")).await.ok();
        let different = |field: &str| {
            part.iter().filter_map(|event| event[field].as_str()).collect::<BTreeSet<_>>().len()
        };
        let expected = json!({
            "total_events": part.len(),
            "phi_access_events": part.iter().filter(|event| event["phi_accessed"] == true).count(),
            "unique_actors": different("actor_entity_id"),
            "services_with_events": different("service"),
        });
        assert_eq!(summary, expected, "{query}");
    }
});

both!(a_request_that_changes_nothing_records_and_writes_nothing, async || {
    let (server, tenant) = Server::with_tenant().await;
    let numbers = json!({ "numbers": ["+15550100001", "+15550100002"] });
    tenant.owner.put(&tenant.workspace("/test-caller-numbers"), numbers.clone()).await.ok();
    let connector = json!({ "connector_type": "epic" });
    tenant.owner.patch(&tenant.workspace(""), connector.clone()).await.ok();
    tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.ok();
    let before = server.dump().await;
    for patch in [
        json!({}),
        connector,
        json!({ "name": null, "environment": null, "region": null }),
        json!({ "name": " The acme clinic ", "environment": "production" }),
    ] {
        tenant.owner.patch(&tenant.workspace(""), patch).await.ok();
    }
    tenant.owner.put(&tenant.workspace("/test-caller-numbers"), numbers).await.ok();
    tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.ok();
    tenant.owner.post(&tenant.workspace("/archive"), json!({ "slug": "wrong" })).await.refused(422);
    assert_eq!(server.dump().await, before);
});

both!(repeated_refusals_become_one_event_with_their_count, async || {
    let (server, tenant) = Server::with_tenant().await;
    let stranger = server.tenant("stranger").await;
    let (viewer, minted) = tenant.key(json!({ "duration_days": 9, "role": "viewer" })).await;
    let viewer_id = credential(&tenant, minted.text("key_id")).await;
    let before = tenant.audit().await.len();
    for _ in 0..3 {
        viewer.with(&ORIGIN).patch(&tenant.workspace(""), json!({ "name": "x" })).await.refused(403);
    }
    viewer.get(&tenant.path("/audit")).await.refused(403);
    viewer.post("/v1/me/workspaces", new_workspace("own")).await.refused(403);
    let wrong = server.bearing(wrong_secret_of(minted.text("key_id")));
    for _ in 0..4 {
        wrong.get("/v1/workspaces").await.refused(401);
    }
    // These requests concern no workspace.
    server.bearing(unknown_key()).get("/v1/workspaces").await.refused(401);
    server.bearing("garbage").get(&tenant.workspace("")).await.refused(401);
    server.anonymous().get(&tenant.workspace("")).await.refused(401);
    stranger.owner.get(&tenant.workspace("")).await.refused(404);
    assert_eq!(tenant.audit().await.len(), before, "collected, not yet written");
    server.app.flush().await;
    server.app.flush().await;

    let events = tenant.audit().await;
    let told = |operation: &str| {
        let found: Vec<&Value> =
            events.iter().filter(|event| event["metadata"]["operation"] == operation).collect();
        assert_eq!(found.len(), 1, "{operation}");
        found[0].clone()
    };
    assert_eq!(events.len(), before + 4);
    for (operation, action, service, reason, count) in [
        ("update-workspace", "access.forbidden", "workspaces", "permission", 3),
        ("list-audit-events", "access.forbidden", "audit", "permission", 1),
        ("create-my-workspace", "access.forbidden", "workspaces", "permission", 1),
        ("list-workspaces", "access.unauthorized", "workspaces", "wrong_secret", 4),
    ] {
        let event = told(operation);
        assert_eq!((event.text("action"), event.text("service")), (action, service), "{operation}");
        assert_eq!(
            (event["metadata"].text("reason"), &event["metadata"]["count"]),
            (reason, &json!(count)),
            "{operation}"
        );
        assert_eq!(
            (event.text("resource_type"), &event["resource_id"]),
            ("api_key", &viewer_id),
            "{operation}"
        );
        assert_eq!(event["actor_credential_id"], viewer_id, "{operation}");
        assert_eq!(event["actor_entity_id"].is_null(), action == "access.unauthorized", "{operation}");
        assert_eq!(event.text("ip_address"), "127.0.0.1", "{operation}");
    }
    assert_eq!(told("update-workspace").text("user_agent"), ORIGIN[0].1);
    assert_eq!(stranger.audit().await.len(), 2);
});

both!(the_audit_records_the_reason_that_the_client_does_not_get, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (expired, _) = tenant.key(json!({ "duration_days": 1 })).await;
    let (revoked, minted) = tenant.key(json!({ "duration_days": 9 })).await;
    tenant.delete(&format!("/api-keys/{}", minted.text("key_id"))).await.no_content();
    server.clock.advance(Duration::from_hours(24));
    for actor in [&expired, &revoked, &server.bearing(wrong_secret_of(tenant.owner_key_id()))] {
        actor.get("/v1/auth/me").await.refused(401);
    }
    server.app.flush().await;
    let listed = tenant.get("/audit?action=access.unauthorized").await.ok();
    let reasons: BTreeSet<&str> =
        listed.list("events").iter().map(|event| event["metadata"].text("reason")).collect();
    assert_eq!(reasons, BTreeSet::from(["expired", "revoked", "wrong_secret"]));
});

// There is no change without its event. While events cannot be written, every write is refused and changes nothing.
// Once they can be written, the same request succeeds as a first attempt.
both!(a_change_that_cannot_be_recorded_is_not_made, async || {
    let server = Server::start().await;
    let hide = "ALTER TABLE audit_events RENAME TO hidden";
    let show = "ALTER TABLE hidden RENAME TO audit_events";
    let once = [("idempotency-key", "long-enough-for-anonymous-callers")];
    let writes = server.app.contract.operations().filter(|known| known.method != Method::GET);
    let operations: Vec<_> =
        writes.filter(|known| !super::members::NEED_A_MEMBER.contains(&known.id.as_str())).cloned().collect();
    assert!(operations.len() >= 10);
    // These operations change nothing until something is set up.
    let idle = [
        "explain-access",
        "restore-archived-workspace",
        "revoke-presented-api-key",
        "report-leaked-keys",
        "open-handover",
        "finish-api-key-rotation",
        "delete-trust-rule",
        "activate-integration-key",
        "delete-integration-key",
        "create-integration-key",
        "update-test-credential-ids",
        "delete-twilio",
        "reconcile-twilio",
        "receive-twilio-status",
        "retry-delivery",
        "retry-failed-deliveries",
        "resolve-delivery",
        "drop-delivery",
        "amend-delivery",
        "correct-call",
        "resolve-review",
        "backfill-deliveries",
        "hold-integration",
    ];
    for operation in operations.into_iter().filter(|known| !idle.contains(&known.id.as_str())) {
        let tenant = server.tenant(&ward_test::fresh_slug()).await;
        let (_, minted) = tenant.key(json!({ "duration_days": 30 })).await;
        let target = tenant.whole_target(minted.text("key_id")).await;
        let before = server.dump().await;
        server.sql(hide).await;
        let refused = tenant.owner.call_with(&operation, &target, &once).await;
        server.sql(show).await;
        assert!(
            [500, 503].contains(&refused.status.as_u16()),
            "{}: {} {}",
            operation.id,
            refused.status,
            refused.text
        );
        assert!(server.dump().await == before, "{} left something behind", operation.id);
        let done = tenant.owner.call_with(&operation, &target, &once).await;
        assert!(done.status.is_success(), "{}: {}", operation.id, done.text);
        assert_eq!(done.header("idempotency-replayed"), "", "{}", operation.id);
        assert!(server.dump().await != before, "{} changes something", operation.id);
    }
    // The claim is the same operation without a key. A creation also lapses an unclaimed workspace.
    let unclaimed = server.anonymous().create_workspace("lapsing").await;
    let claim = Target {
        workspace: unclaimed.text("id").to_owned(),
        slug: String::new(),
        key_id: String::new(),
        integration: String::new(),
    };
    let path = format!("/v1/{}/api-keys", claim.workspace);
    let before = server.dump().await;
    server.sql(hide).await;
    assert_eq!(server.anonymous().post(&path, json!({ "duration_days": 1 })).await.status.as_u16() / 100, 5);
    server.clock.advance(Duration::from_hours(24));
    assert_eq!(
        server.anonymous().post("/v1/workspaces", new_workspace("lapsing")).await.status.as_u16() / 100,
        5
    );
    server.app.sweep().await;
    server.sql(show).await;
    assert!(server.dump().await == before);
    server.anonymous().create_workspace("lapsing").await;
});

both!(refusals_that_could_not_be_written_are_recorded_later, async || {
    let (server, tenant) = Server::with_tenant().await;
    let viewer = tenant.service("viewer").await;
    viewer.get(&tenant.path("/audit")).await.refused(403);
    server.clock.advance(Duration::from_hours(1));
    viewer.get(&tenant.path("/audit")).await.refused(403);
    server.sql("ALTER TABLE audit_events RENAME TO hidden").await;
    server.app.flush().await;
    server.sql("ALTER TABLE hidden RENAME TO audit_events").await;
    server.app.flush().await;
    let told = tenant.audit().await.remove(0);
    assert_eq!((told.text("action"), &told["metadata"]["count"]), ("access.forbidden", &json!(2)));
    assert_eq!(told["metadata"]["last_at"], told["timestamp"]);
    assert!(
        told["metadata"].text("last_at") > told["metadata"].text("first_at"),
        "its times are kept as well"
    );
});

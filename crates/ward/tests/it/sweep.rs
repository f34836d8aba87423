//! Every operation of the served document, with every kind of caller who must not get in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use ward_contract::Operation;
use ward_test::{
    Actor, Answer, Cost, Fields as _, Sending, Server, SigningKey, Target, Tenant, TestIssuer, both,
    fresh_slug, got_in, new_workspace, unknown_key, wanted_permission, wants_key, wrong_secret_of,
};

/// The operations that need no key, each with the reason.
const ANONYMOUS: [(&str, &str); 11] = [
    ("create-workspace", "the open bootstrap: a tenant's first call, before there is any key"),
    ("get-openapi-document", "the contract is public"),
    (
        "get-integration-jwks",
        "a vendor that verifies Ward's assertions holds no key; it shows public keys only",
    ),
    ("revoke-presented-api-key", "the key in the body is the credential, and only ends itself"),
    ("report-leaked-keys", "a secret scanner holds no key of ours: its signature is the credential"),
    ("get-handover-page", "the same page for everyone; it shows nothing until its button sends a token"),
    ("open-handover", "the receiver of a key holds none yet: the link's token is the credential"),
    ("get-docs", "the contract is public, for people too"),
    ("get-health", "asked by machines that hold no key; says nothing of any tenant"),
    ("get-readiness", "asked by machines that hold no key; says nothing of any tenant"),
    (
        "receive-twilio-status",
        "Twilio holds no key of ours: its signature over the request is the credential",
    ),
];

/// An idempotency key that is long enough for every caller.
const REPEAT: (&str, &str) = ("idempotency-key", "a-key-long-enough-for-an-anonymous-caller");

fn operations(server: &Server) -> Vec<Arc<Operation>> {
    server.app.contract.operations().cloned().collect()
}

fn operations_with_key(server: &Server) -> Vec<Arc<Operation>> {
    operations(server).into_iter().filter(|operation| wants_key(operation)).collect()
}

fn operations_on_workspaces(server: &Server) -> Vec<Arc<Operation>> {
    let all = operations_with_key(server).into_iter();
    all.filter(|operation| operation.path.contains("{workspace_id}")).collect()
}

/// The parts of a refusal by which a client can tell it from another.
fn face(answer: &Answer) -> (u16, Value, BTreeMap<String, String>) {
    let own_to_a_request = ["x-request-id", "date"];
    let headers = answer.headers.iter().filter(|(name, _)| !own_to_a_request.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
    (answer.status.as_u16(), answer.anonymized(), headers.collect())
}

both!(an_operation_needs_a_key_unless_there_is_a_reason_why_not, async || {
    let server = Server::start().await;
    let anonymous: BTreeSet<String> = operations(&server)
        .iter()
        .filter(|operation| !wants_key(operation))
        .map(|operation| operation.id.clone())
        .collect();
    let stated: BTreeSet<String> = ANONYMOUS.iter().map(|(id, _)| (*id).to_owned()).collect();
    assert_eq!(anonymous, stated);
    for operation in operations(&server).iter().filter(|operation| !wants_key(operation)) {
        if operation.id == "receive-twilio-status" {
            continue; // It is refused without its signature, which `twilio` tests.
        }
        if operation.id == "report-leaked-keys" {
            continue; // The same, and `leaked_keys` tests it.
        }
        if operation.id == "open-handover" {
            continue; // It needs the token of a link, which `handover` has.
        }
        if operation.id == "get-integration-jwks" {
            continue; // It needs an integration with keys, which `integration_keys` has.
        }
        let target = Target {
            workspace: String::new(),
            slug: String::new(),
            key_id: String::new(),
            integration: String::new(),
        };
        let answer = server.anonymous().call(operation, &target).await;
        assert!(answer.status.is_success(), "{}: {}", operation.id, answer.text);
        let answer = server.bearing(unknown_key()).call(operation, &target).await;
        assert!(answer.status.is_success(), "a bearer is ignored by {}: {}", operation.id, answer.text);
    }
});

/// A tenant whose access policy keeps its owner out.
async fn restricted(server: &Server, column: &str, only: &str) -> Tenant {
    let tenant = server.tenant(&fresh_slug()).await;
    restrict(server, &tenant, column, only).await;
    tenant
}

async fn restrict(server: &Server, tenant: &Tenant, column: &str, only: &str) {
    let changed = format!("UPDATE workspaces SET {column} = '[\"{only}\"]' WHERE slug = '{}'", tenant.slug);
    assert_eq!(server.sql(changed).await, 1);
}

/// Keys that are no longer valid, or that only look valid.
async fn dead_keys(server: &Server, tenant: &Tenant) -> Vec<(&'static str, String)> {
    let (expired, _) = tenant.key(json!({ "duration_days": 1, "role": "owner" })).await;
    server.clock.advance(Duration::from_hours(24));
    let (revoked, minted) = tenant.key(json!({ "duration_days": 30, "role": "owner" })).await;
    tenant.delete(&format!("/api-keys/{}", minted.text("key_id"))).await.no_content();
    let closed = server.tenant(&fresh_slug()).await;
    let of_service = closed.service("owner").await;
    closed.archive().await;
    let (rotated, minted) = tenant.key(json!({ "duration_days": 30, "role": "owner" })).await;
    let path = tenant.path(&format!("/api-keys/{}/rotate", minted.text("key_id")));
    tenant.owner.post(&path, json!({ "duration_days": 30 })).await.ok();
    let away = json!({ "duration_days": 30, "role": "owner", "networks": ["192.0.2.0/24"] });
    let (elsewhere, _) = tenant.key(away).await;
    let fenced = restricted(server, "networks", "192.0.2.0/24").await;
    let pinned = restricted(server, "issuers", "https://id.example.com").await;
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let (bound, _) =
        tenant.key(json!({ "duration_days": 30, "role": "owner", "bound_to": { "jkt": jkt } })).await;
    let text = |actor: &Actor| actor.bearer.clone().expect("a bearer");
    vec![
        ("unknown", unknown_key()),
        ("wrong secret", wrong_secret_of(tenant.owner_key_id())),
        ("expired", text(&expired)),
        ("revoked", text(&revoked)),
        ("rotated away", text(&rotated)),
        ("used outside of its networks", text(&elsewhere)),
        ("used outside of its workspace's networks", text(&fenced.owner)),
        ("of a user whom its workspace does not accept", text(&pinned.owner)),
        ("bound to a public key, without a proof", text(&bound)),
        ("of the owner of an archived workspace", text(&closed.owner)),
        ("of a service of an archived workspace", text(&of_service)),
    ]
}

/// Bearers that cannot be a key.
fn not_keys(tenant: &Tenant) -> Vec<(&'static str, String)> {
    let good = tenant.owner.bearer.clone().expect("a bearer");
    let mistyped = |index: usize| {
        let mut text = good.clone().into_bytes();
        text[index] = if text[index] == b'a' { b'b' } else { b'a' };
        String::from_utf8(text).expect("ASCII")
    };
    vec![
        ("empty", String::new()),
        ("garbage", "garbage".to_owned()),
        ("mistyped id", mistyped(10)),
        ("mistyped secret", mistyped(40)),
        ("mistyped checksum", mistyped(75)),
        ("cut short", good[..75].to_owned()),
        ("too long", format!("{good}0")),
        ("without its prefix", good[5..].to_owned()),
        ("with another prefix", good.replacen("ward_", "WARD_", 1)),
        ("twice as long as a header needs", "w".repeat(8_000)),
    ]
}

both!(every_invalid_credential_gets_the_same_401_at_the_same_cost, async || {
    let (server, tenant) = Server::with_tenant().await;
    let dead = dead_keys(&server, &tenant).await;
    let mut seen = None;
    for operation in operations_with_key(&server) {
        let target = tenant.target(tenant.owner_key_id());
        for headers in [&[][..], &[REPEAT][..]] {
            let mut first_cost = None;
            for (what, key) in &dead {
                let (answer, cost) =
                    server.costs(server.bearing(key).call_with(&operation, &target, headers)).await;
                let what = format!("{} with a key that is {what}", operation.id);
                assert_eq!(answer.refused(401), "unauthorized", "{what}");
                assert_eq!(cost.writes, 0, "{what}");
                assert_eq!(*first_cost.get_or_insert(cost), cost, "{what}");
            }
        }
        for (what, key) in dead.iter().chain(&not_keys(&tenant)) {
            let answer = server.bearing(key).call(&operation, &target).await;
            let face = face(&answer);
            assert_eq!(*seen.get_or_insert_with(|| face.clone()), face, "{} with {what}", operation.id);
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        // Without a credential, creating a key is a claim, and this workspace is claimed.
        let answer = match operation.id.as_str() {
            "create-api-key" => {
                server.anonymous().post(&tenant.path("/api-keys"), json!({ "duration_days": 1 })).await
            }
            _ => server.anonymous().call(&operation, &target).await,
        };
        assert_eq!(seen.clone(), Some(face(&answer)), "{} without a key", operation.id);
    }
});

both!(a_bearer_that_cannot_be_a_key_costs_no_query, async || {
    let (server, tenant) = Server::with_tenant().await;
    let target = tenant.target(tenant.owner_key_id());
    for operation in operations_with_key(&server) {
        for headers in [&[][..], &[REPEAT][..]] {
            for (what, key) in not_keys(&tenant) {
                let (answer, cost) =
                    server.costs(server.bearing(key).call_with(&operation, &target, headers)).await;
                assert_eq!(answer.refused(401), "unauthorized", "{} with a bearer {what}", operation.id);
                assert_eq!(cost, Cost::NOTHING, "{} with a bearer {what}", operation.id);
            }
        }
        let good = format!("Basic {}", tenant.owner.bearer.as_deref().expect("a bearer"));
        let headers = [("authorization", good.as_str())];
        let (answer, cost) = server.costs(server.anonymous().call_with(&operation, &target, &headers)).await;
        assert_eq!(answer.refused(401), "unauthorized", "{} with another scheme", operation.id);
        assert_eq!(cost, Cost::NOTHING);
    }
});

both!(every_invalid_token_gets_the_same_401_and_costs_no_more_than_a_key, async || {
    let (server, issuer) = Server::with_issuer().await;
    let elsewhere = TestIssuer::start().await;
    let tenant = server.tenant("acme").await;
    let thief = SigningKey::new("ES256", Some("first"));
    let mut symmetric = issuer.key().header();
    symmetric["alg"] = json!("HS256");
    let bad = [
        ("expired", issuer.token_with("ada", &json!({ "exp": issuer.seconds(-60) }))),
        ("of a wrong issuer", elsewhere.token("ada")),
        ("for a wrong audience", issuer.token_with("ada", &json!({ "aud": "https://other.test" }))),
        ("of a wrong algorithm", issuer.key().sign(&symmetric, &issuer.claims("ada"))),
        ("garbage", format!("{}x", issuer.token("ada"))),
        ("of another person's key", thief.sign(&thief.header(), &issuer.claims("ada"))),
    ];
    let target = tenant.target(tenant.owner_key_id());
    let mut seen = None;
    for operation in operations_with_key(&server) {
        for (what, token) in &bad {
            let (answer, cost) = server.costs(server.bearing(token).call(&operation, &target)).await;
            // Only a trust rule can name another issuer, and the look-up for one is that of an unknown key.
            let expected = if *what == "of a wrong issuer" { Cost::LOOK_UP } else { Cost::NOTHING };
            assert_eq!(cost, expected, "{} with a token {what}", operation.id);
            let face = face(&answer);
            assert_eq!(face.0, 401, "{} with a token {what}: {}", operation.id, answer.text);
            assert_eq!(
                *seen.get_or_insert_with(|| face.clone()),
                face,
                "{} with a token {what}",
                operation.id
            );
        }
    }
    // This is the first look for the unknown key, and there is no other.
    assert!(issuer.discoveries() <= 2, "{}", issuer.discoveries());
});

both!(a_token_of_a_non_member_gets_the_same_404_at_the_same_cost_as_a_strangers_key, async || {
    let (server, issuer) = Server::with_issuer().await;
    let tenant = server.tenant("acme").await;
    let stranger = server.tenant("stranger").await;
    let never_seen = server.person(&issuer, "ada");
    let seen = server.person(&issuer, "bea");
    seen.post("/v1/me/workspaces", new_workspace("bea")).await.created();
    let target = tenant.target(tenant.owner_key_id());
    for operation in operations_on_workspaces(&server) {
        let (expected, first_cost) = server.costs(stranger.owner.call(&operation, &target)).await;
        for actor in [&never_seen, &seen] {
            let (answer, cost) = server.costs(actor.call(&operation, &target)).await;
            assert_eq!(face(&answer), face(&expected), "{}", operation.id);
            // A rotation may be a retry, which has a look-up of its own.
            if operation.id != "rotate-api-key" {
                assert_eq!(cost, first_cost, "{}", operation.id);
            }
        }
    }
    assert_eq!(server.count("SELECT count(*) FROM identities").await, 1);
});

both!(a_member_whom_the_access_policy_keeps_out_gets_a_strangers_404_at_its_cost, async || {
    let (server, issuer) = Server::with_issuer().await;
    let stranger = server.tenant("stranger").await;
    for (column, only) in [("networks", "192.0.2.0/24"), ("issuers", "https://id.example.com")] {
        let tenant = server.tenant(&fresh_slug()).await;
        let visitor = server.tenant(&fresh_slug()).await.owner;
        let person = server.person(&issuer, &fresh_slug());
        for member in [&visitor, &person] {
            let invite = tenant.workspace("/invitations");
            let link = tenant.owner.post(&invite, json!({ "role": "owner" })).await.created();
            let accept = json!({ "invitation": link["invitation"] });
            member.post("/v1/invitations/accept", accept).await.created();
            member.get(&tenant.workspace("")).await.ok();
        }
        restrict(&server, &tenant, column, only).await;
        let target = tenant.target(tenant.owner_key_id());
        for operation in operations_on_workspaces(&server) {
            let (expected, first_cost) = server.costs(stranger.owner.call(&operation, &target)).await;
            for member in [&visitor, &person] {
                let (answer, cost) = server.costs(member.call(&operation, &target)).await;
                assert_eq!(face(&answer), face(&expected), "{} with {column}", operation.id);
                // A rotation may be a retry, which has a look-up of its own.
                if operation.id != "rotate-api-key" {
                    assert_eq!(cost, first_cost, "{} with {column}", operation.id);
                }
            }
        }
    }
});

both!(a_good_key_gets_in_where_the_dead_ones_do_not, async || {
    let server = Server::start().await;
    for operation in operations_with_key(&server) {
        let tenant = server.tenant(&fresh_slug()).await;
        let (_, minted) = tenant.key(json!({ "duration_days": 30 })).await;
        let target = tenant.whole_target(minted.text("key_id")).await;
        let answer = tenant.owner.call(&operation, &target).await;
        // A member cannot leave a workspace without an owner, even with a good key.
        if operation.id == "leave-workspace" {
            answer.refused_as(409, "last_owner");
        } else {
            assert!(got_in(&answer), "{}: {}", operation.id, answer.text);
        }
    }
});

both!(a_workspace_that_the_caller_is_no_member_of_is_the_same_404_whatever_it_is, async || {
    let server = Server::start().await;
    let theirs = server.tenant("theirs").await;
    let stranger = server.tenant("stranger").await;
    let service = stranger.service("owner").await;
    let unclaimed = server.anonymous().create_workspace("unclaimed").await;
    let gone = server.tenant("gone").await;
    gone.archive().await;
    let own = stranger.owner.post("/v1/me/workspaces", new_workspace("own")).await.created();
    let own = own.text("id");
    stranger.owner.post(&format!("/v1/workspaces/{own}/archive"), json!({ "slug": "own" })).await.ok();
    let variants = [
        ("another tenant's", theirs.id.as_str()),
        ("unknown", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
        ("nil", "00000000-0000-0000-0000-000000000000"),
        ("malformed", "not-a-uuid"),
        ("no text", "%ff%fe"),
        ("not escaped", "%2e%2e%2f"),
        ("archived", gone.id.as_str()),
        ("archived, once the caller's", own),
        ("unclaimed", unclaimed.text("id")),
    ];
    let mut seen = None;
    for operation in operations_on_workspaces(&server) {
        for actor in [&stranger.owner, &service] {
            let mut first_cost = None;
            for (what, id) in variants {
                let target = Target { workspace: id.to_owned(), ..theirs.target(theirs.owner_key_id()) };
                let (answer, cost) = server.costs(actor.call(&operation, &target)).await;
                let what = format!("{} on a workspace that is {what}", operation.id);
                let face = face(&answer);
                assert_eq!(face.0, 404, "{what}: {}", answer.text);
                assert_eq!(face.1["error_code"], "workspace_not_found", "{what}");
                assert_eq!(*seen.get_or_insert_with(|| face.clone()), face, "{what}");
                assert_eq!(cost.writes, 0, "{what}");
                assert_eq!(*first_cost.get_or_insert(cost), cost, "{what}");
            }
        }
    }
});

both!(a_key_without_the_permission_is_403_and_leaves_everything_as_it_was, async || {
    let (server, tenant) = Server::with_tenant().await;
    let catalog = tenant.get("/api-keys/permission-catalog").await.ok();
    let all: Vec<&str> = catalog.texts("permissions", "permission");
    for operation in operations_with_key(&server) {
        let Some(needed) = wanted_permission(&operation) else { continue };
        let rest: Vec<&str> = all.iter().copied().filter(|permission| *permission != needed).collect();
        assert_eq!(rest.len() + 1, all.len(), "{needed} is in the catalog");
        let body = json!({ "duration_days": 30, "role": "owner", "permissions": rest });
        let (narrowed, minted) = tenant.key(body).await;
        let target = tenant.target(minted.text("key_id"));
        let (answer, cost) = server.costs(narrowed.call(&operation, &target)).await;
        assert_eq!(answer.refused(403), "forbidden", "{}", operation.id);
        assert_eq!(cost.writes, 0, "{}", operation.id);
    }
});

both!(the_faults_of_a_request_are_reported_in_one_order, async || {
    let (server, tenant) = Server::with_tenant().await;
    let stranger = server.tenant("stranger").await;
    let (views_calls, _) =
        tenant.key(json!({ "duration_days": 9, "role": "owner", "permissions": ["Call.view"] })).await;
    let (views_workspaces, _) =
        tenant.key(json!({ "duration_days": 9, "role": "owner", "permissions": ["Workspace.view"] })).await;
    let powerless_at = |operation: &Operation| match wanted_permission(operation) {
        Some("Call.view") => &views_workspaces,
        _ => &views_calls,
    };
    let target = tenant.target(tenant.owner_key_id());
    let dead = server.bearing(unknown_key());
    let too_large = vec![b' '; server.app.config.body_bytes + 1];
    let with_body = operations_with_key(&server).into_iter().filter(|operation| operation.body.is_some());
    for operation in with_body {
        let path = target.path(&operation);
        let send = async |actor: &Actor, body: &[u8]| {
            let method = Method::from_bytes(operation.method.as_str().as_bytes()).expect("a method");
            actor.send(method, &path, Sending::json_bytes(body)).await.status.as_u16()
        };
        // Invalid JSON, invalid text and too large a body: reported to every caller with a key, before any
        // workspace is mentioned.
        for (body, status) in [(&b"{"[..], 422), (&b"\"\xff\""[..], 400), (&too_large, 413)] {
            assert_eq!(send(&dead, body).await, 401, "{}", operation.id);
            for actor in [&stranger.owner, powerless_at(&operation), &tenant.owner] {
                assert_eq!(send(actor, body).await, status, "{}", operation.id);
            }
        }
        // JSON with a wrong schema is reported only to a caller who could have done the request.
        assert_eq!(send(&dead, b"[]").await, 401, "{}", operation.id);
        if operation.path.contains("{workspace_id}") {
            assert_eq!(send(&stranger.owner, b"[]").await, 404, "{}", operation.id);
        }
        if wanted_permission(&operation).is_some() {
            assert_eq!(send(powerless_at(&operation), b"[]").await, 403, "{}", operation.id);
        }
        assert_eq!(send(&tenant.owner, b"[]").await, 422, "{}", operation.id);
    }
    // An undeclared body is read nevertheless, to distinguish retries.
    let ignoring = operations_with_key(&server)
        .into_iter()
        .filter(|operation| operation.body.is_none() && operation.idempotent);
    for operation in ignoring {
        let sending = Sending { body: Some(too_large.clone()), ..Sending::default() };
        let answer = stranger.owner.send(Method::POST, &target.path(&operation), sending).await;
        assert_eq!(answer.refused(413), "body_too_large", "{}", operation.id);
    }
    for operation in operations_with_key(&server).iter().filter(|operation| !operation.query.is_empty()) {
        let Some(first) = operation
            .query
            .iter()
            .find(|parameter| ["limit", "date_from"].contains(&parameter.name.as_str()))
        else {
            continue;
        };
        let path = format!("{}?{}=x", target.path(operation), first.name);
        dead.get(&path).await.refused(401);
        if operation.path.contains("{workspace_id}") {
            stranger.owner.get(&path).await.refused(404);
        }
        if wanted_permission(operation).is_some() {
            powerless_at(operation).get(&path).await.refused(403);
        }
        tenant.owner.get(&path).await.refused(422);
    }
});

both!(an_unknown_path_is_404_and_costs_nothing, async || {
    let (server, tenant) = Server::with_tenant().await;
    for path in ["/v1", "/v1/", "/v2/workspaces", "/v1/workspaces/", "/v1/workspaces/a/b", "/V1/workspaces"] {
        for actor in [&tenant.owner, &server.anonymous()] {
            for method in [Method::GET, Method::POST, Method::DELETE, Method::HEAD] {
                let (answer, cost) = server.costs(actor.send(method.clone(), path, Sending::default())).await;
                assert_eq!(answer.status, 404, "{method} {path}");
                assert_eq!(cost, Cost::NOTHING, "{method} {path}");
                if method != Method::HEAD {
                    answer.refused_as(404, "not_found");
                }
            }
        }
    }
});

both!(a_wrong_method_is_405_and_told_which_are_right, async || {
    let (server, tenant) = Server::with_tenant().await;
    let target = tenant.target(tenant.owner_key_id());
    let mut paths: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let given = ["list-workspaces", "get-workspace", "get-test-caller-numbers"];
    for operation in operations(&server) {
        let served = paths.entry(target.path(&operation)).or_default();
        served.insert(operation.method.to_string());
        // The given operations answer HEAD as their reference does, and every other GET has a HEAD.
        if operation.method == "GET" && !given.contains(&operation.id.as_str()) {
            served.insert("HEAD".to_owned());
        }
    }
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"];
    for (path, served) in &paths {
        for name in methods.iter().filter(|name| !served.contains(**name)) {
            let method = Method::from_bytes(name.as_bytes()).expect("a method");
            for actor in [&tenant.owner, &server.anonymous()] {
                let (answer, cost) = server.costs(actor.send(method.clone(), path, Sending::default())).await;
                let allow: BTreeSet<String> = answer.header("allow").split(", ").map(str::to_owned).collect();
                assert_eq!(&allow, served, "{name} {path}");
                assert_eq!(cost, Cost::NOTHING, "{name} {path}");
                assert_eq!(answer.status, 405, "{name} {path}");
                if *name != "HEAD" {
                    answer.refused_as(405, "method_not_allowed");
                }
            }
        }
    }
});

both!(head_is_answered_as_get_is_without_the_body, async || {
    let (server, tenant) = Server::with_tenant().await;
    let target = tenant.whole_target(tenant.owner_key_id()).await;
    let given = ["list-workspaces", "get-workspace", "get-test-caller-numbers"];
    let mut asked = 0;
    for operation in operations(&server) {
        if operation.method != "GET" || given.contains(&operation.id.as_str()) {
            continue;
        }
        asked += 1;
        let path = target.path(&operation);
        for actor in [&tenant.owner, &server.anonymous()] {
            let (got, cost) = server.costs(actor.get(&path)).await;
            let asked = actor.send(Method::HEAD, &path, Sending::default());
            let (head, head_cost) = server.costs(asked).await;
            assert_eq!((head.status, head.text.as_str()), (got.status, ""), "{path}");
            assert_eq!(head_cost, cost, "{path}");
            for name in ["content-type", "cache-control", "content-security-policy", "allow"] {
                assert_eq!(head.header(name), got.header(name), "{path} {name}");
            }
            let length: usize = head.header("content-length").parse().unwrap();
            // Request ids and timestamps differ in value but not in length. The duration of a health check
            // may differ in both.
            if operation.id != "integration-health-check" {
                assert_eq!(length, got.text.len(), "{path}");
            }
        }
    }
    assert!(asked > 20);
});

both!(every_unclaimable_workspace_gets_the_same_401_at_the_same_cost, async || {
    let server = Server::with(|config| config.unclaimed_lifetime = Duration::from_hours(1)).await;
    let swept = server.anonymous().create_workspace("swept").await;
    server.clock.advance(Duration::from_hours(1));
    server.app.sweep().await;
    let due = server.anonymous().create_workspace("due").await;
    server.clock.advance(Duration::from_hours(1));
    let claimed = server.tenant("claimed").await;
    let archived = server.tenant("archived").await;
    archived.archive().await;
    let variants = [
        ("claimed", claimed.id.as_str()),
        ("unknown", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
        ("nil", "00000000-0000-0000-0000-000000000000"),
        ("malformed", "not-a-uuid"),
        ("no text", "%ff"),
        ("lapsed", swept.text("id")),
        ("due to lapse", due.text("id")),
        ("archived", archived.id.as_str()),
    ];
    for headers in [&[][..], &[REPEAT][..]] {
        let mut seen = None;
        for (what, id) in variants {
            let sending = Sending { headers, ..Sending::json(&json!({ "duration_days": 1 })) };
            let path = format!("/v1/{id}/api-keys");
            let (answer, cost) = server.costs(server.anonymous().send(Method::POST, &path, sending)).await;
            assert_eq!(answer.status, 401, "{what}: {}", answer.text);
            let this = (face(&answer), cost);
            assert_eq!(*seen.get_or_insert_with(|| this.clone()), this, "{what}");
        }
    }
});

both!(a_taken_slug_is_the_same_409_at_the_same_cost_whoever_holds_it, async || {
    let server = Server::start().await;
    server.anonymous().create_workspace("unclaimed").await;
    let active = server.tenant("active").await;
    server.tenant("archived").await.archive().await;
    for (actor, path) in [
        (server.anonymous(), "/v1/workspaces"),
        (active.owner.clone(), "/v1/workspaces/self-service"),
        (active.owner.clone(), "/v1/me/workspaces"),
    ] {
        for headers in [&[][..], &[REPEAT][..]] {
            let mut seen = None;
            for slug in ["unclaimed", "active", "archived"] {
                let sending = Sending { headers, ..Sending::json(&new_workspace(slug)) };
                let (answer, cost) = server.costs(actor.send(Method::POST, path, sending)).await;
                assert_eq!(answer.status, 409, "{path} {slug}: {}", answer.text);
                let this = (face(&answer), cost);
                assert_eq!(*seen.get_or_insert_with(|| this.clone()), this, "{path} {slug}");
            }
        }
    }
});

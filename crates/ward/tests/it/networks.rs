//! Networks of keys and of workspaces: a use from elsewhere is refused like a wrong key.

use serde_json::{Value, json};
use ward::operator;
use ward::workspaces::access_policy::actions::Lifted;
use ward_test::{Actor, Answer, Fields as _, Server, Tenant, both, new_workspace, wrong_secret_of};

use crate::{calls, trust_rules};

const INSIDE: &str = "192.0.2.7";
const OUTSIDE: &str = "198.51.100.9";
const RANGE: &str = "192.0.2.0/24";
const RETRY: &str = "a-retry-of-a-rotation";

/// A server whose only client is a trusted proxy.
async fn behind_a_proxy() -> Server {
    Server::with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await
}

fn from(actor: &Actor, address: &str) -> Actor {
    actor.with(&[("x-forwarded-for", address)])
}

fn bearing(server: &Server, key: &Value, address: &str) -> Actor {
    from(&server.bearing(key.text("api_key")), address)
}

/// The parts of a refusal by which a client can tell it from another.
fn face(answer: &Answer) -> (u16, Value, Vec<(String, String)>) {
    let headers =
        answer.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let headers = headers.filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
    (answer.status.as_u16(), answer.anonymized(), headers.collect())
}

fn networks_of(tenant: &Tenant, key_id: &str) -> String {
    tenant.path(&format!("/api-keys/{key_id}/networks"))
}

fn policy(tenant: &Tenant) -> String {
    tenant.workspace("/access-policy")
}

fn only(networks: &[&str]) -> Value {
    json!({ "networks": networks, "issuers": [] })
}

/// The reasons of the workspace's failed sign-ins, each with its address and whether it has a principal and a key.
async fn failed_sign_ins(server: &Server, tenant: &Tenant, auditor: &Actor) -> Vec<Value> {
    server.app.flush().await;
    let listed = auditor.get(&tenant.path("/audit?action=access.unauthorized&limit=100")).await.ok();
    let told = |event: &Value| {
        let who = [&event["actor_entity_id"], &event["actor_credential_id"]].map(|id| !id.is_null());
        json!([event["metadata"]["reason"], event["ip_address"], who])
    };
    let mut all: Vec<Value> = listed.list("events").iter().map(told).collect();
    all.sort_by_key(Value::to_string);
    all
}

both!(a_key_works_only_from_its_networks, async || {
    let server = behind_a_proxy().await;
    let replica = server.replica().await;
    let tenant = server.tenant("acme").await;
    let body =
        json!({ "duration_days": 5, "role": "admin", "networks": ["192.0.2.9", RANGE, "2001:DB8::/32"] });
    let (_, key) = tenant.key(body).await;
    assert_eq!(key["networks"], json!([RANGE, "2001:db8::/32"]));
    let path = tenant.workspace("");
    let inside =
        [INSIDE, "192.0.2.0", "::ffff:192.0.2.255", "2001:db8:1::1", "203.0.113.1, 192.0.2.7, 127.0.0.1"];
    for server in [&server, &replica] {
        for address in inside {
            bearing(server, &key, address).get(&path).await.ok();
        }
        let outside = [
            OUTSIDE,
            "192.0.3.0",
            "2001:db9::",
            "192.0.2.7, 198.51.100.9",
            "192.0.2.7, unknown",
            "127.0.0.1",
        ];
        for address in outside {
            let refused = bearing(server, &key, address).get(&path).await;
            let wrong = from(&server.bearing(wrong_secret_of(key.text("key_id"))), address).get(&path).await;
            assert_eq!(face(&refused), face(&wrong), "{address}");
            refused.refused_as(401, "unauthorized");
        }
        server.bearing(key.text("api_key")).get("/v1/auth/me").await.refused(401);
    }
    let listed = tenant.get("/api-keys").await.ok();
    let listed = listed.list("items").iter().find(|item| item["key_id"] == key["key_id"]).unwrap();
    assert_eq!(listed["networks"], key["networks"]);
    assert_eq!(listed["last_used_at"], Value::Null, "a flush has not run");
    let told = failed_sign_ins(&server, &tenant, &tenant.owner).await;
    let expected = json!(["key_network", OUTSIDE, [false, true]]);
    assert!(told.contains(&expected), "{told:?}");
    assert!(told.iter().all(|event| event[1] != INSIDE), "{told:?}");
});

both!(a_refused_address_costs_as_much_as_a_wrong_key, async || {
    let server = behind_a_proxy().await;
    let tenant = server.tenant("acme").await;
    let (_, key) = tenant.key(json!({ "duration_days": 5, "role": "admin", "networks": [RANGE] })).await;
    let actors = [bearing(&server, &key, OUTSIDE), server.bearing(wrong_secret_of(key.text("key_id")))];
    for path in [tenant.workspace(""), "/v1/me".to_owned(), tenant.path("/authorize")] {
        let mut costs = Vec::new();
        for actor in &actors {
            let (answer, cost) = server.costs(actor.get(&path)).await;
            answer.refused(401);
            costs.push(cost);
        }
        assert_eq!((costs[0].reads, costs[0].writes, costs[0].statements), (1, 0, 1), "{path}");
        assert_eq!(costs[0], costs[1], "{path}");
    }
    // Where the key works, its networks cost no statement either.
    let free = tenant.service("admin").await;
    let inside = bearing(&server, &key, INSIDE);
    let (_, plain) = server.costs(free.get(&tenant.workspace(""))).await;
    let (_, bound) = server.costs(inside.get(&tenant.workspace(""))).await;
    assert_eq!(plain, bound);
});

both!(a_change_of_networks_holds_at_the_next_request_on_every_replica, async || {
    let server = behind_a_proxy().await;
    let replica = server.replica().await;
    let tenant = server.tenant("acme").await;
    let (_, key) = tenant.key(json!({ "duration_days": 5, "role": "viewer" })).await;
    let path = networks_of(&tenant, key.text("key_id"));
    let there = bearing(&replica, &key, OUTSIDE);
    there.get("/v1/auth/me").await.ok();
    let changed = tenant.owner.put(&path, json!({ "networks": [RANGE, "::1"] })).await.ok();
    assert_eq!(changed["networks"], json!([RANGE, "::1/128"]));
    assert_eq!(changed["updated_at"], changed["created_at"], "the secret is the same");
    there.get("/v1/auth/me").await.refused(401);
    bearing(&replica, &key, INSIDE).get("/v1/auth/me").await.ok();
    tenant.owner.put(&path, json!({ "networks": ["::1", RANGE, "192.0.2.64/26"] })).await.ok();
    tenant.owner.put(&path, json!({ "networks": [] })).await.ok();
    there.get("/v1/auth/me").await.ok();
    let events = tenant.audit().await;
    let changes: Vec<&Value> = events
        .iter()
        .filter(|event| event["action"] == "api_key.networks")
        .map(|event| &event["metadata"]["changes"]["networks"])
        .collect();
    let both = json!([RANGE, "::1/128"]);
    assert_eq!(changes, [&json!({ "from": both, "to": [] }), &json!({ "from": [], "to": both })]);
});

both!(the_previous_secret_has_the_networks_of_its_key, async || {
    let server = behind_a_proxy().await;
    let tenant = server.tenant("acme").await;
    let body = json!({ "duration_days": 5, "role": "owner", "networks": [RANGE] });
    let (_, old) = tenant.key(body).await;
    let path = tenant.path(&format!("/api-keys/{}/rotate", old.text("key_id")));
    let body = json!({ "duration_days": 50, "grace_seconds": 3600 });
    let new = bearing(&server, &old, INSIDE).post(&path, body).await.ok();
    assert_eq!(new["networks"], json!([RANGE]));
    for key in [&old, &new] {
        bearing(&server, key, INSIDE).get("/v1/auth/me").await.ok();
        bearing(&server, key, OUTSIDE).get("/v1/auth/me").await.refused_as(401, "unauthorized");
    }
    // A retry may present a secret that its rotation ended, but only from the networks of the key.
    let body = json!({ "duration_days": 50 });
    let first = bearing(&server, &new, INSIDE).post_once(&path, RETRY, body.clone()).await.ok();
    bearing(&server, &new, OUTSIDE)
        .post_once(&path, RETRY, body.clone())
        .await
        .refused_as(401, "unauthorized");
    let again = bearing(&server, &new, INSIDE).post_once(&path, RETRY, body).await.ok();
    assert_eq!(first, again);
});

both!(nobody_locks_the_own_key_out, async || {
    let server = behind_a_proxy().await;
    let tenant = server.tenant("acme").await;
    let owner = from(&tenant.owner, INSIDE);
    let path = networks_of(&tenant, tenant.owner_key_id());
    let refused = owner.put(&path, json!({ "networks": ["198.51.100.0/24"] })).await;
    assert!(refused.text.contains(INSIDE), "{}", refused.text);
    refused.refused_as(409, "would_lock_out");
    from(&tenant.owner, OUTSIDE).get("/v1/me").await.ok();
    owner.put(&path, json!({ "networks": [RANGE] })).await.ok();
    from(&tenant.owner, OUTSIDE).get("/v1/me").await.refused(401);

    // The key of a claim is its caller's own.
    let workspace = server.anonymous().create_workspace("second").await;
    let claim = format!("/v1/{}/api-keys", workspace.text("id"));
    let body = |network: &str| json!({ "duration_days": 5, "networks": [network] });
    let anonymous = from(&server.anonymous(), INSIDE);
    anonymous.post(&claim, body("198.51.100.0/24")).await.refused_as(409, "would_lock_out");
    let key = anonymous.post(&claim, body(RANGE)).await.created();
    bearing(&server, &key, INSIDE).get("/v1/me").await.ok();
    bearing(&server, &key, OUTSIDE).get("/v1/me").await.refused(401);
});

both!(a_key_with_networks_makes_no_freer_key, async || {
    let server = behind_a_proxy().await;
    let tenant = server.tenant("acme").await;
    let (_, bound) = tenant
        .key(json!({ "duration_days": 5, "role": "owner", "name": "bound", "networks": [RANGE] }))
        .await;
    let (_, other) = tenant.key(json!({ "duration_days": 5, "role": "viewer" })).await;
    let actor = bearing(&server, &bound, INSIDE);
    let mint = |networks: Value| json!({ "duration_days": 5, "role": "viewer", "networks": networks });
    for networks in [json!([]), json!(["0.0.0.0/0"]), json!([RANGE, OUTSIDE])] {
        actor.post(&tenant.path("/api-keys"), mint(networks.clone())).await.refused_as(403, "beyond_caller");
        for key in [&bound, &other] {
            let path = networks_of(&tenant, key.text("key_id"));
            actor.put(&path, json!({ "networks": networks })).await.refused_as(403, "beyond_caller");
        }
    }
    let plain = json!({ "duration_days": 5, "role": "viewer" });
    actor.post(&tenant.path("/api-keys"), plain).await.refused_as(403, "beyond_caller");
    actor.post(&tenant.path("/api-keys"), mint(json!(["192.0.2.128/25"]))).await.created();
    let rule = json!({
        "name": "ci", "issuer": "https://id.example", "audience": "https://ward.example", "role": "viewer",
        "conditions": [{ "claim": "sub", "equals": "job" }],
    });
    actor.post(&tenant.path("/trust-rules"), rule.clone()).await.refused_as(403, "beyond_caller");
    tenant.post("/trust-rules", rule).await.created();
    let own = networks_of(&tenant, bound.text("key_id"));
    actor.put(&own, json!({ "networks": ["192.0.2.0/26"] })).await.ok();
    actor.put(&own, json!({ "networks": [RANGE] })).await.refused_as(403, "beyond_caller");
    tenant.owner.put(&own, json!({ "networks": [RANGE] })).await.ok();
});

both!(the_networks_of_a_users_key_are_the_users_to_change, async || {
    let server = behind_a_proxy().await;
    let tenant = server.tenant("acme").await;
    let service = tenant.service("owner").await;
    let path = networks_of(&tenant, tenant.owner_key_id());
    service.put(&path, json!({ "networks": [RANGE] })).await.refused_as(403, "not_your_key");
    let (admin, _) = tenant.key(json!({ "duration_days": 5, "role": "admin" })).await;
    let (_, owners) = tenant.key(json!({ "duration_days": 5, "role": "owner" })).await;
    let of_owner = networks_of(&tenant, owners.text("key_id"));
    admin.put(&of_owner, json!({ "networks": [RANGE] })).await.refused_as(403, "beyond_caller");
    service.put(&of_owner, json!({ "networks": [RANGE] })).await.ok();
    let unknown = networks_of(&tenant, "0000000000000000000000");
    service.put(&unknown, json!({ "networks": [] })).await.refused_as(404, "api_key_not_found");
    // An old secret must not keep a thief's address in.
    let (old, rotated) = tenant.key(json!({ "duration_days": 5, "role": "admin" })).await;
    let rotate = tenant.path(&format!("/api-keys/{}/rotate", rotated.text("key_id")));
    tenant.owner.post(&rotate, json!({ "duration_days": 5, "grace_seconds": 60 })).await.ok();
    let own = networks_of(&tenant, rotated.text("key_id"));
    old.put(&own, json!({ "networks": [] })).await.refused_as(403, "previous_secret");
});

both!(ranges_are_checked_and_normalized, async || {
    let server = behind_a_proxy().await;
    let tenant = server.tenant("acme").await;
    let set = async |networks: Value| {
        tenant.owner.put(&policy(&tenant), json!({ "networks": networks, "issuers": [] })).await
    };
    for wrong in [
        "",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "::ffff:10.0.0.1/104",
        "2001:db8::1/32",
        "example.com",
        "10.0.0.0/8 ",
    ] {
        let refused = set(json!(["127.0.0.1", wrong])).await;
        assert_eq!(refused.problem_locs(), ["body.networks.1"], "{wrong:?}");
    }
    let many: Vec<String> = (0..51).map(|third| format!("10.0.{third}.0/24")).collect();
    assert_eq!(set(json!(many)).await.problem_locs(), ["body.networks"]);
    let mut fifty = many[..49].to_vec();
    fifty.push("::ffff:127.0.0.0/104".to_owned());
    let kept = set(json!(fifty)).await.ok();
    assert_eq!(kept["networks"].as_array().map(Vec::len), Some(50));
    assert_eq!(kept["networks"][49], "127.0.0.0/8");
    let kept = set(json!(["127.0.0.1", "127.0.0.0/30", "127.0.0.0/8", "127.0.0.0/8", "::/0"])).await.ok();
    assert_eq!(kept["networks"], json!(["127.0.0.0/8", "::/0"]));
    assert_eq!(tenant.owner.get(&policy(&tenant)).await.ok(), kept);
});

/// A workspace of a person, which only `RANGE` may enter: with a second owner of another workspace, and a key of its own.
struct Guarded {
    server: Server,
    issuer: ward_test::TestIssuer,
    id: String,
    ada: Actor,
    guest: Tenant,
    key: Value,
}

async fn guarded() -> Guarded {
    let (server, issuer) =
        Server::with_issuer_and(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let ada = server.person(&issuer, "ada");
    let id = ada.post("/v1/me/workspaces", new_workspace("guarded")).await.created().text("id").to_owned();
    let guest = server.tenant("guest").await;
    let link =
        ada.post(&format!("/v1/workspaces/{id}/invitations"), json!({ "role": "owner" })).await.created();
    guest.owner.post("/v1/invitations/accept", json!({ "invitation": link["invitation"] })).await.created();
    let key = ada
        .post(&format!("/v1/{id}/api-keys"), json!({ "duration_days": 5, "role": "owner" }))
        .await
        .created();
    let policy = format!("/v1/workspaces/{id}/access-policy");
    from(&ada, INSIDE).put(&policy, only(&[RANGE])).await.ok();
    Guarded { server, issuer, id, ada, guest, key }
}

both!(a_workspace_is_entered_only_from_its_networks, async || {
    let Guarded { server, issuer: _issuer, id, ada, guest, key } = guarded().await;
    let replica = server.replica().await;
    let path = format!("/v1/workspaces/{id}");
    for server in [&server, &replica] {
        let people = [ada.bearer.clone().unwrap(), guest.owner.bearer.clone().unwrap()];
        for bearer in people {
            let actor = server.bearing(bearer);
            from(&actor, INSIDE).get(&path).await.ok();
            // A visitor learns as little as one who is no member.
            let away = from(&actor, OUTSIDE);
            let unknown = away.get("/v1/workspaces/6ba7b810-9dad-41d1-80b4-00c04fd430c8").await;
            let refused = away.get(&path).await;
            assert_eq!(face(&refused), face(&unknown));
            refused.refused_as(404, "workspace_not_found");
            away.patch(&path, json!({ "name": "Other" })).await.refused_as(404, "workspace_not_found");
            away.get(&format!("/v1/{id}/authorize")).await.refused_as(404, "workspace_not_found");
        }
        bearing(server, &key, INSIDE).get(&path).await.ok();
        let wrong = from(&server.bearing(wrong_secret_of(key.text("key_id"))), OUTSIDE).get(&path).await;
        let refused = bearing(server, &key, OUTSIDE).get(&path).await;
        assert_eq!(face(&refused), face(&wrong));
        // The key is the workspace's own, so it works nowhere from outside.
        bearing(server, &key, OUTSIDE).get("/v1/me").await.refused_as(401, "unauthorized");
    }
    let tenant =
        Tenant { id: id.clone(), slug: "guarded".to_owned(), owner: from(&ada, INSIDE), claimed: json!({}) };
    let told = failed_sign_ins(&server, &tenant, &tenant.owner).await;
    for who in [[true, false], [true, true], [false, true]] {
        assert!(told.contains(&json!(["workspace_network", OUTSIDE, who])), "{who:?}: {told:?}");
    }
});

both!(lists_leave_out_workspaces_that_the_address_cannot_enter, async || {
    let Guarded { server: _server, issuer: _issuer, id, ada: _, guest, key: _ } = guarded().await;
    for (address, entered) in [(INSIDE, 2), (OUTSIDE, 1)] {
        let actor = from(&guest.owner, address);
        let listed = actor.get("/v1/workspaces").await.ok();
        let me = actor.get("/v1/me").await.ok();
        for list in [&listed, &me["memberships"]] {
            assert_eq!(
                (list.list("items").len(), &list["total"]),
                (entered, &json!(entered)),
                "{address}: {list}"
            );
            assert_eq!(list.to_string().contains(&id), entered == 2, "{address}");
        }
        // Pages go on behind a workspace that is left out.
        let mut found = Vec::new();
        let mut token = json!(0);
        while !token.is_null() {
            let page = actor.get(&format!("/v1/workspaces?limit=1&continuation_token={token}")).await.ok();
            assert_eq!(page["total"], entered);
            found.extend(page.texts("items", "id").into_iter().map(str::to_owned));
            token = page["continuation_token"].clone();
        }
        assert_eq!(found.len(), entered, "{address}");
        let beyond = actor.get("/v1/workspaces?continuation_token=9000000000000000000").await.ok();
        assert_eq!((beyond.list("items").len(), &beyond["total"]), (0, &json!(entered)));
    }
});

both!(owners_set_the_networks_and_cannot_lock_themselves_out, async || {
    let Guarded { server, issuer: _issuer, id, ada, guest, key: _ } = guarded().await;
    let policy = format!("/v1/workspaces/{id}/access-policy");
    let ada = from(&ada, INSIDE);
    let refused = ada.put(&policy, only(&["198.51.100.0/24"])).await;
    assert!(refused.text.contains(INSIDE), "{}", refused.text);
    refused.refused_as(409, "would_lock_out");
    assert_eq!(ada.get(&policy).await.ok(), only(&[RANGE]));
    let admin = json!({ "duration_days": 5, "role": "admin" });
    let admin = ada.post(&format!("/v1/{id}/api-keys"), admin).await.created();
    bearing(&server, &admin, INSIDE).put(&policy, only(&[])).await.refused_as(403, "owner_only");
    let mut body = only(&[]);
    body.as_object_mut().unwrap().remove("issuers");
    assert_eq!(ada.put(&policy, body).await.problem_locs(), ["body.issuers"]);
    ada.put(&policy, only(&[RANGE, "192.0.2.0/25"])).await.ok();
    ada.put(&policy, only(&[])).await.ok();
    from(&guest.owner, OUTSIDE).get(&policy).await.ok();
    let events = ada.get(&format!("/v1/{id}/audit?action=workspace.access_policy")).await.ok();
    let changes: Vec<&Value> =
        events.list("events").iter().map(|event| &event["metadata"]["changes"]).collect();
    let change = |from: Value, to: Value| json!({ "networks": { "from": from, "to": to } });
    assert_eq!(changes, [&change(json!([RANGE]), json!([])), &change(json!([]), json!([RANGE]))]);
});

both!(an_invitation_is_accepted_from_within_the_networks, async || {
    let Guarded { server, issuer, id, ada, guest: _, key: _ } = guarded().await;
    let invite = format!("/v1/workspaces/{id}/invitations");
    let link = from(&ada, INSIDE).post(&invite, json!({ "role": "viewer" })).await.created();
    let bea = server.person(&issuer, "bea");
    let accept = json!({ "invitation": link["invitation"] });
    let path = "/v1/invitations/accept";
    from(&bea, OUTSIDE).post(path, accept.clone()).await.refused_as(404, "invitation_not_found");
    from(&bea, INSIDE).post_once(path, RETRY, accept.clone()).await.created();
    from(&bea, OUTSIDE).post_once(path, RETRY, accept.clone()).await.refused_as(404, "invitation_not_found");
    from(&bea, INSIDE).post_once(path, RETRY, accept).await.created();
});

both!(the_operator_lifts_the_networks, async || {
    let Guarded { server, issuer: _issuer, id, ada, guest: _, key } = guarded().await;
    let shown = operator::workspace_access(&server.app, "guarded", Lifted::default()).await.unwrap();
    assert_eq!(serde_json::to_value(shown).unwrap(), only(&[RANGE]));
    bearing(&server, &key, OUTSIDE).get("/v1/me").await.refused(401);
    let lifted = Lifted { networks: true, issuers: false };
    let left = operator::workspace_access(&server.app, &id, lifted).await.unwrap();
    assert_eq!(serde_json::to_value(left).unwrap(), only(&[]));
    bearing(&server, &key, OUTSIDE).get("/v1/me").await.ok();
    let events = ada.get(&format!("/v1/{id}/audit?action=workspace.access_policy&limit=1")).await.ok();
    let told = &events["events"][0]["metadata"];
    assert_eq!((&told["operator"], &told["changes"]["networks"]["from"]), (&json!(true), &json!([RANGE])));
});

both!(a_workload_works_only_from_the_networks_of_its_workspace, async || {
    let (server, issuer, tenant) = trust_rules::scene().await;
    let conditions = json!([trust_rules::is("repository_id", "74231904")]);
    trust_rules::trust(&tenant, trust_rules::rule(issuer.url(), conditions, "viewer")).await;
    let job = trust_rules::job(&server, &issuer);
    let path = tenant.workspace("");
    job.get(&path).await.ok();
    let changed = |to: &str| format!("UPDATE workspaces SET networks = {to} WHERE slug = '{}'", tenant.slug);
    assert_eq!(server.sql(changed("'[\"192.0.2.0/24\"]'")).await, 1);
    job.get(&path).await.refused_as(401, "unauthorized");
    job.get("/v1/me").await.refused_as(401, "unauthorized");
    assert_eq!(server.sql(changed("NULL")).await, 1);
    job.get(&path).await.ok();
    let told = failed_sign_ins(&server, &tenant, &tenant.owner).await;
    assert_eq!(told, [json!(["workspace_network", "127.0.0.1", [false, false]])]);
});

both!(signed_callbacks_and_found_keys_have_no_networks, async || {
    let (server, tenant) = calls::with_twilio().await;
    let (_, key) = tenant.key(json!({ "duration_days": 5, "role": "viewer", "networks": [RANGE] })).await;
    let closed = format!("UPDATE workspaces SET networks = '[\"{RANGE}\"]' WHERE slug = '{}'", tenant.slug);
    assert_eq!(server.sql(closed).await, 1);
    tenant.owner.get(&tenant.workspace("")).await.refused(401);
    let event = calls::event("CA-1", "in-progress", "+15550100001");
    calls::callback(&server, &tenant, &event).await.no_content();
    // The finder of a key can end it from every address.
    let found = json!({ "api_key": key.text("api_key") });
    server.anonymous().post("/v1/keys/revoke", found).await.no_content();
    assert_eq!(server.count("SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL").await, 1);
});

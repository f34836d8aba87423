//! API keys through their life: claimed or minted, used, listed, rotated, revoked, expired.

use std::time::Duration;

use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_test::{Fields as _, Server, Tenant, both, new_workspace};

use crate::support::pages;

const DAY: Duration = Duration::from_hours(24);

fn time(value: &Value) -> Timestamp {
    value.as_str().expect("a time").parse().expect("a time")
}

/// The workspace's keys as its owner sees them.
async fn listed(tenant: &Tenant) -> Vec<Value> {
    let page = tenant.get("/api-keys?limit=20").await.ok();
    page.list("items").clone()
}

async fn listed_key(tenant: &Tenant, key_id: &str) -> Value {
    let found = listed(tenant).await.into_iter().find(|key| key["key_id"] == key_id);
    found.expect("the key is listed")
}

fn key_path(tenant: &Tenant, minted: &Value, rest: &str) -> String {
    tenant.path(&format!("/api-keys/{}{rest}", minted.text("key_id")))
}

// Claims

both!(a_claim_makes_a_user_who_owns_the_workspace, async || {
    let server = Server::start().await;
    for (slug, body) in [
        ("plain", json!({ "duration_days": 90 })),
        ("said", json!({ "duration_days": 90, "role": "owner", "permissions": [], "name": "  Ada  " })),
    ] {
        let created = server.anonymous().create_workspace(slug).await;
        let path = format!("/v1/{}/api-keys", created.text("id"));
        let claimed = server.anonymous().post(&path, body).await.created();
        assert_eq!(claimed["role"], "owner");
        assert_eq!(claimed.list("permissions").len(), 13);
        assert_eq!(claimed["name"], if slug == "said" { json!("Ada") } else { Value::Null });
        assert_eq!(claimed["created_by_credential_id"], Value::Null);
        assert!(claimed.text("api_key").starts_with(&format!("ward_{}", claimed.text("key_id"))));
        let owner = server.bearing(claimed.text("api_key"));
        owner.post("/v1/me/workspaces", new_workspace(&format!("{slug}-2"))).await.created();
        server.anonymous().post(&path, json!({ "duration_days": 90 })).await.refused(401);
    }
});

both!(a_claim_that_asks_for_less_than_an_owner_lists_every_problem, async || {
    let server = Server::start().await;
    let created = server.anonymous().create_workspace("acme").await;
    let path = format!("/v1/{}/api-keys", created.text("id"));
    for (body, locs) in [
        (json!({ "duration_days": 1, "role": "admin" }), vec!["body.role"]),
        (json!({ "duration_days": 1, "permissions": ["ApiKey.view"] }), vec!["body.permissions"]),
        (
            json!({ "duration_days": 1, "role": "viewer", "permissions": ["Workspace.view"] }),
            vec!["body.role", "body.permissions"],
        ),
        (json!({ "duration_days": 0, "role": "viewer" }), vec!["body.duration_days", "body.role"]),
        (json!({ "role": 7 }), vec!["body.duration_days", "body.role"]),
        // A value gets one error, even if it breaks two rules.
        (json!({ "duration_days": 1, "role": "king" }), vec!["body.role"]),
    ] {
        let answer = server.anonymous().post(&path, body.clone()).await;
        assert_eq!(answer.problem_locs(), locs, "{body}");
        // The answer is the same for a workspace that cannot be claimed, because the body is checked first.
        let elsewhere = server.anonymous().post("/v1/not-a-uuid/api-keys", body.clone()).await;
        assert_eq!(elsewhere.anonymized(), answer.anonymized(), "{body}");
    }
    // A caller who forgot the key learns that one is needed.
    let keyless = server.anonymous().post(&path, json!({ "duration_days": 1, "role": "viewer" })).await;
    let told = ["claims the workspace", "send yours as the bearer"];
    assert!(told.iter().all(|words| keyless.text.contains(words)), "{}", keyless.text);
    let claim = json!({ "duration_days": 1 });
    server.anonymous().post(&path, claim).await.created();
});

both!(a_request_with_a_credential_claims_nothing, async || {
    let server = Server::start().await;
    let stranger = server.tenant("stranger").await;
    let created = server.anonymous().create_workspace("acme").await;
    let path = format!("/v1/{}/api-keys", created.text("id"));
    let body = json!({ "duration_days": 1 });
    stranger.owner.post(&path, body.clone()).await.refused(404);
    stranger.service("owner").await.post(&path, body.clone()).await.refused(404);
    server.bearing("garbage").post(&path, body.clone()).await.refused(401);
    server.bearing("").post(&path, body.clone()).await.refused(401);
    server.bearing(ward_test::unknown_key()).post(&path, body.clone()).await.refused(401);
    server.anonymous().post(&path, body).await.created();
});

// Minting

both!(a_minted_key_names_its_role_and_its_creator, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let owner = listed_key(&tenant, tenant.owner_key_id()).await;
    let (service, minted) = tenant.key(json!({ "duration_days": 30, "name": "reader" })).await;
    assert_eq!(minted["role"], "member", "the default");
    assert_eq!(
        minted["permissions"],
        json!(["Workspace.view", "Integration.view", "ApiKey.view", "Call.view"])
    );
    assert_eq!(minted["created_by_entity_id"], tenant.claimed["created_by_entity_id"]);
    assert_eq!(minted["created_by_credential_id"], owner["id"]);
    let (_, narrowed) =
        tenant.key(json!({ "duration_days": 1, "role": "admin", "permissions": ["Audit.view", "Call.view", "Audit.view"] })).await;
    assert_eq!(narrowed["permissions"], json!(["Call.view", "Audit.view"]), "effective, once each");
    let keys = listed(&tenant).await;
    let expected = [&tenant.claimed, &minted, &narrowed];
    assert_eq!(keys.len(), expected.len());
    for (key, shown) in keys.iter().zip(expected) {
        for field in [
            "key_id",
            "name",
            "role",
            "permissions",
            "expires_at",
            "created_by_entity_id",
            "created_by_credential_id",
        ] {
            assert_eq!(key[field], shown[field], "{field}");
        }
        assert_eq!(key["workspace_id"], tenant.id.as_str());
        assert!(key.get("api_key").is_none(), "the secret is shown once");
    }
    let me = service.get("/v1/auth/me").await.ok();
    for (field, expected) in [
        ("workspace_id", &json!(tenant.id)),
        ("key_id", &minted["key_id"]),
        ("name", &json!("reader")),
        ("expires_at", &minted["expires_at"]),
    ] {
        assert_eq!(&me[field], expected, "{field}");
    }
    let seconds = me["expires_in_seconds"].as_i64().expect("a number");
    assert!((29 * 86_400..=30 * 86_400).contains(&seconds), "{seconds}");
});

both!(a_caller_cannot_mint_a_key_above_its_own_permissions, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/api-keys");
    let admin = tenant.service("admin").await;
    let role = |role: &str| json!({ "duration_days": 1, "role": role });
    admin.post(&path, role("owner")).await.refused_as(403, "beyond_caller");
    admin.post(&path, role("admin")).await.created();
    tenant.service("owner").await.post(&path, role("owner")).await.created();
    let narrow = json!({ "duration_days": 1, "role": "admin", "permissions": ["ApiKey.create", "Workspace.view", "Call.view"] });
    let (narrowed, _) = tenant.key(narrow.clone()).await;
    for beyond in [
        role("admin"),
        role("member"),
        role("viewer"),
        json!({ "duration_days": 1, "role": "viewer", "permissions": ["Integration.view"] }),
        json!({ "duration_days": 1, "role": "owner", "permissions": ["Workspace.view"] }),
    ] {
        assert_eq!(narrowed.post(&path, beyond.clone()).await.refused(403), "beyond_caller", "{beyond}");
    }
    narrowed.post(&path, narrow).await.created();
    let within = json!({ "duration_days": 1, "role": "member", "permissions": ["Call.view"] });
    narrowed.post(&path, within).await.created();
});

both!(a_key_with_unknown_permissions_is_refused_and_each_mistake_is_named, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/api-keys");
    for (body, locs) in [
        (json!({ "duration_days": 1, "role": "king" }), vec!["body.role"]),
        (json!({ "duration_days": 1, "role": "Admin" }), vec!["body.role"]),
        (
            json!({ "duration_days": 1, "permissions": ["Call.view", "call.view", "Nothing"] }),
            vec!["body.permissions.1", "body.permissions.2"],
        ),
        // An absent role is judged as the default role.
        (
            json!({ "duration_days": 1, "permissions": ["Audit.view", "Call.view"] }),
            vec!["body.permissions.0"],
        ),
        (
            json!({ "duration_days": 1, "role": "viewer", "permissions": ["Call.view"] }),
            vec!["body.permissions.0"],
        ),
        (
            json!({ "duration_days": 1, "role": "king", "permissions": ["Nothing"] }),
            vec!["body.role", "body.permissions.0"],
        ),
        (
            json!({ "duration_days": 91, "name": " ", "role": 1, "permissions": "all" }),
            vec!["body.duration_days", "body.name", "body.role", "body.permissions"],
        ),
        (json!({ "duration_days": 0 }), vec!["body.duration_days"]),
        (json!({}), vec!["body.duration_days"]),
    ] {
        assert_eq!(tenant.owner.post(&path, body.clone()).await.problem_locs(), locs, "{body}");
    }
    assert_eq!(listed(&tenant).await.len(), 1);
});

// Lists

both!(the_list_pages_through_every_key_once_and_counts_them, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let (admin, _) = tenant.key(json!({ "duration_days": 9, "role": "admin", "name": "admin" })).await;
    let mut expected = vec!["owner".to_owned(), "admin".to_owned()];
    for index in 0..5 {
        let name = format!("key {index}");
        let minter = if index % 2 == 0 { &admin } else { &tenant.owner };
        minter.post(&tenant.path("/api-keys"), json!({ "duration_days": 1, "name": name })).await.created();
        expected.push(name);
    }
    let pages = pages(&tenant.owner, &tenant.path("/api-keys?limit=3")).await;
    assert!(pages.iter().all(|page| page["total"] == 7), "{pages:?}");
    let names: Vec<&str> = pages.iter().flat_map(|page| page.texts("items", "name")).collect();
    assert_eq!(names, expected);
    let mine = admin.get(&tenant.path("/api-keys?mine_only=true&limit=2")).await.ok();
    assert_eq!(mine.fields(["total", "has_more"]), json!([3, true]));
    assert_eq!(mine["items"][0].text("name"), "key 0");
    let rest = format!("/api-keys?mine_only=true&limit=2&continuation_token={}", mine["continuation_token"]);
    let rest = admin.get(&tenant.path(&rest)).await.ok();
    assert_eq!((rest["items"][0].text("name"), &rest["has_more"]), ("key 4", &json!(false)));
    let beyond = tenant.get("/api-keys?continuation_token=9007199254740991").await.ok();
    assert_eq!(beyond.fields(["items", "total"]), json!([[], 7]));
    let below = tenant.get("/api-keys?continuation_token=-5&limit=20").await.ok();
    assert_eq!(below.list("items").len(), 7);
    for (query, loc) in [
        ("limit=0", "query.limit"),
        ("limit=21", "query.limit"),
        ("mine_only=perhaps", "query.mine_only"),
        ("continuation_token=x", "query.continuation_token"),
    ] {
        assert_eq!(tenant.get(&format!("/api-keys?{query}")).await.problem_locs(), [loc]);
    }
});

// Rotation

both!(a_rotated_key_keeps_everything_but_its_secret_and_expiry, async || {
    let (server, tenant) = Server::with_tenant().await;
    let body = json!({ "duration_days": 5, "name": "ci", "role": "admin", "permissions": ["ApiKey.create", "ApiKey.view"] });
    let (service, minted) = tenant.key(body).await;
    let before = listed_key(&tenant, minted.text("key_id")).await;
    for rotator in [&service, &tenant.owner] {
        let old = listed_key(&tenant, minted.text("key_id")).await;
        let rotated =
            rotator.post(&key_path(&tenant, &minted, "/rotate"), json!({ "duration_days": 50 })).await.ok();
        assert_ne!(rotated["api_key"], minted["api_key"]);
        let after = listed_key(&tenant, minted.text("key_id")).await;
        for field in [
            "id",
            "key_id",
            "name",
            "role",
            "permissions",
            "created_at",
            "created_by_entity_id",
            "created_by_credential_id",
        ] {
            assert_eq!(after[field], before[field], "{field}");
        }
        assert!(time(&after["expires_at"]) > time(&before["expires_at"]));
        assert!(time(&after["updated_at"]) > time(&old["updated_at"]));
        service.get("/v1/auth/me").await.refused(401);
        server.bearing(rotated.text("api_key")).get("/v1/auth/me").await.ok();
    }
    let own = tenant
        .owner
        .post(&key_path(&tenant, &tenant.claimed, "/rotate"), json!({ "duration_days": 1 }))
        .await
        .ok();
    tenant.owner.get("/v1/auth/me").await.refused(401);
    let owner = server.bearing(own.text("api_key"));
    owner.post("/v1/me/workspaces", new_workspace("still-a-user")).await.created();
});

both!(a_caller_cannot_rotate_or_delete_a_key_above_its_own, async || {
    let (server, tenant) = Server::with_tenant().await;
    let admin = tenant.service("admin").await;
    let (_, owner) = tenant.key(json!({ "duration_days": 1, "role": "owner" })).await;
    let (_, other_admin) = tenant.key(json!({ "duration_days": 1, "role": "admin" })).await;
    let hands =
        json!({ "duration_days": 1, "role": "admin", "permissions": ["ApiKey.create", "ApiKey.delete"] });
    let (narrowed, narrowed_key) = tenant.key(hands).await;
    let (_, viewer) = tenant.key(json!({ "duration_days": 1, "role": "viewer" })).await;
    let again = json!({ "duration_days": 1 });
    for (actor, key) in [(&admin, &owner), (&narrowed, &other_admin), (&narrowed, &viewer)] {
        actor.post(&key_path(&tenant, key, "/rotate"), again.clone()).await.refused_as(403, "beyond_caller");
        actor.delete(&key_path(&tenant, key, "")).await.refused_as(403, "beyond_caller");
    }
    admin.post(&key_path(&tenant, &other_admin, "/rotate"), again.clone()).await.ok();
    admin.delete(&key_path(&tenant, &other_admin, "")).await.no_content();
    // A key that may rotate keys at all may rotate itself.
    let rotated = narrowed.post(&key_path(&tenant, &narrowed_key, "/rotate"), again).await.ok();
    let narrowed = server.bearing(rotated.text("api_key"));
    narrowed.delete(&key_path(&tenant, &narrowed_key, "")).await.no_content();
    narrowed.get("/v1/auth/me").await.refused(401);
});

both!(a_users_key_is_rotated_only_by_that_user_but_others_may_end_it, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let (service, _) = tenant.key(json!({ "duration_days": 1, "role": "owner" })).await;
    service
        .post(&key_path(&tenant, &tenant.claimed, "/rotate"), json!({ "duration_days": 1 }))
        .await
        .refused_as(403, "not_your_key");
    tenant.owner.get("/v1/auth/me").await.ok();
    let admin = tenant.service("admin").await;
    admin.delete(&key_path(&tenant, &tenant.claimed, "")).await.refused_as(403, "beyond_caller");
    let further = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
    tenant.key(further).await;
    service.delete(&key_path(&tenant, &tenant.claimed, "")).await.no_content();
    tenant.owner.get("/v1/auth/me").await.refused(401);
    service.get(&tenant.workspace("")).await.ok();
});

both!(an_absent_key_is_404_for_callers_who_may_change_keys, async || {
    let (server, tenant) = Server::with_tenant().await;
    let other = server.tenant("other").await;
    let (_, minted) = tenant.key(json!({ "duration_days": 1 })).await;
    tenant.owner.delete(&key_path(&tenant, &minted, "")).await.no_content();
    for key_id in
        [minted.text("key_id"), other.owner_key_id(), "0123456789abcdefABCDEF", "no-key", "%00", "a%00b"]
    {
        let path = tenant.path(&format!("/api-keys/{key_id}"));
        assert_eq!(tenant.owner.delete(&path).await.refused(404), "api_key_not_found", "{key_id}");
        let rotate = tenant.owner.post(&format!("{path}/rotate"), json!({ "duration_days": 1 })).await;
        assert_eq!(rotate.refused(404), "api_key_not_found", "{key_id}");
        let viewer = tenant.service("viewer").await;
        assert_eq!(viewer.delete(&path).await.refused(403), "forbidden", "{key_id}");
    }
    other.owner.get("/v1/auth/me").await.ok();
});

// Ends

both!(a_deleted_key_is_gone_at_once, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 1 })).await;
    service.get("/v1/auth/me").await.ok();
    let path = key_path(&tenant, &minted, "");
    tenant.owner.delete(&path).await.no_content();
    service.get("/v1/auth/me").await.refused(401);
    let page = tenant.get("/api-keys").await.ok();
    assert_eq!(page["total"], 1);
    assert_eq!(page["items"][0]["key_id"], tenant.claimed["key_id"]);
    tenant.owner.delete(&path).await.refused_as(404, "api_key_not_found");
});

both!(a_key_lives_exactly_as_many_days_as_it_was_given, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (short, minted) = tenant.key(json!({ "duration_days": 3 })).await;
    let (long, _) = tenant.key(json!({ "duration_days": 4 })).await;
    let left = Duration::from_micros(
        u64::try_from(time(&minted["expires_at"]).micros() - server.clock.now().micros()).expect("ahead"),
    );
    server.clock.advance(left.saturating_sub(Duration::from_mins(1)));
    short.get("/v1/auth/me").await.ok();
    server.clock.advance(Duration::from_mins(1));
    short.get("/v1/auth/me").await.refused(401);
    long.get("/v1/auth/me").await.ok();
    // An expired key is still a key of the workspace: it is listed, and rotation revives it.
    let rotated =
        tenant.owner.post(&key_path(&tenant, &minted, "/rotate"), json!({ "duration_days": 1 })).await;
    let revived = server.bearing(rotated.ok().text("api_key"));
    revived.get("/v1/auth/me").await.ok();
});

both!(answers_warn_of_a_keys_end_in_its_last_fourteen_days, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 20 })).await;
    let warning = async || service.get("/v1/auth/me").await.header("x-api-key-expires").to_owned();
    assert_eq!(warning().await, "");
    server.clock.advance(DAY * 5 + Duration::from_hours(23));
    assert_eq!(warning().await, "");
    server.clock.advance(Duration::from_hours(1));
    assert_eq!(warning().await, minted.text("expires_at"));
    // A refusal carries the warning too if the credential was valid.
    let refused = service.patch(&tenant.workspace(""), json!({})).await;
    assert_eq!(refused.header("x-api-key-expires"), minted.text("expires_at"));
    server.clock.advance(DAY * 14);
    assert_eq!(warning().await, "", "an expired key gets no warning");
});

both!(the_last_use_is_written_with_the_next_flush_and_never_moves_back, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 20 })).await;
    let last_used = async || listed_key(&tenant, minted.text("key_id")).await["last_used_at"].clone();
    server.app.flush().await;
    assert_eq!(last_used().await, Value::Null);
    let before = server.clock.now();
    service.get("/v1/auth/me").await.ok();
    assert_eq!(last_used().await, Value::Null, "gathered, not yet written");
    server.app.flush().await;
    let first = last_used().await;
    assert!(time(&first) >= before);
    server.clock.set_back(DAY);
    tenant.owner.get("/v1/auth/me").await.ok();
    server.clock.advance(DAY);
    server.app.flush().await;
    assert_eq!(last_used().await, first);
    server.clock.advance(DAY);
    server.bearing(ward_test::wrong_secret_of(minted.text("key_id"))).get("/v1/auth/me").await.refused(401);
    server.app.flush().await;
    assert_eq!(last_used().await, first, "a failed authentication does not count as a use");
    service.get("/v1/auth/me").await.ok();
    server.app.flush().await;
    assert!(time(&last_used().await) > time(&first));
});

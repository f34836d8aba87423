//! Ceilings: the longest lives of new and rotated keys, by role and environment.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward::access::Role;
use ward::api_keys::ceilings::Ceiling;
use ward_test::{Answer, Fields as _, Server, Tenant, both, new_workspace};

const ROLES: [&str; 5] = ["viewer", "member", "operator", "admin", "owner"];

fn ceiling(environment: Option<&str>, role: Role, days: u64) -> Ceiling {
    Ceiling { environment: environment.map(str::to_owned), role, days }
}

/// Every role with these ceilings, and null for the others.
fn whole(some: &Value) -> Value {
    ROLES.iter().map(|role| ((*role).to_owned(), some[role].clone())).collect()
}

async fn choose(tenant: &Tenant, ceilings: Value) -> Value {
    tenant.put("/key-policy", json!({ "ceiling_days": ceilings })).await.ok()
}

/// Expects the refusal that names the field and the ceiling.
fn refused(answer: Answer, role: &str, most: u64) {
    let refusal = answer.expect(StatusCode::UNPROCESSABLE_ENTITY);
    let [problem] = refusal.list("detail").as_slice() else { panic!("one problem: {refusal}") };
    assert_eq!(problem["type"], "less_than_equal");
    assert_eq!(problem["loc"], json!(["body", "duration_days"]));
    assert_eq!(problem["ctx"], json!({ "le": most, "role": role }));
}

both!(a_ceiling_bounds_the_next_mint_and_rotation_on_every_replica, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let elsewhere = replica.bearing(tenant.owner.bearer.clone().expect("a key"));
    let (_, minted) = tenant.key(json!({ "duration_days": 60, "role": "admin" })).await;
    let policy = choose(&tenant, json!({ "admin": 30, "viewer": 7 })).await;
    assert_eq!(policy["ceiling_days"], whole(&json!({ "admin": 30, "viewer": 7 })));
    assert_eq!(policy["installation_ceiling_days"], whole(&json!({})));
    let in_force = json!({ "viewer": 7, "member": 90, "operator": 90, "admin": 30, "owner": 90 });
    assert_eq!(policy["ceiling_days_in_force"], in_force);
    // The existing key lives on, and the answer lists it.
    let beyond = json!([{
        "key_id": minted["key_id"], "name": minted["name"], "role": "admin", "expires_at": minted["expires_at"],
    }]);
    assert_eq!((&policy["keys_beyond"], &policy["more_keys_beyond"]), (&beyond, &json!(false)));
    assert_eq!(elsewhere.get(&tenant.path("/key-policy")).await.ok(), policy);
    for (role, most) in [("admin", 30), ("viewer", 7)] {
        let body = |days: u64| json!({ "duration_days": days, "role": role });
        refused(elsewhere.post(&tenant.path("/api-keys"), body(most + 1)).await, role, most);
        let made = elsewhere.post(&tenant.path("/api-keys"), body(most)).await.created();
        let rotation = tenant.path(&format!("/api-keys/{}/rotate", made.text("key_id")));
        refused(elsewhere.post(&rotation, json!({ "duration_days": most + 1 })).await, role, most);
        elsewhere.post(&rotation, json!({ "duration_days": most })).await.ok();
    }
    // The refused rotation changed nothing.
    let rotation = format!("/api-keys/{}/rotate", minted.text("key_id"));
    refused(tenant.post(&rotation, json!({ "duration_days": 60 })).await, "admin", 30);
    server.bearing(minted.text("api_key")).get("/v1/auth/me").await.ok();
    // A rotation within the ceiling takes the key out of the list.
    tenant.post(&rotation, json!({ "duration_days": 30 })).await.ok();
    let policy = tenant.get("/key-policy").await.ok();
    assert_eq!(policy["keys_beyond"], json!([]));
    // Without ceilings, every life that the document allows is possible again.
    choose(&tenant, json!({})).await;
    elsewhere
        .post(&tenant.path("/api-keys"), json!({ "duration_days": 90, "role": "admin" }))
        .await
        .created();
});

both!(the_installation_has_ceilings_by_role_and_environment, async || {
    let ceilings: Arc<[Ceiling]> = Arc::new([
        ceiling(None, Role::Owner, 60),
        ceiling(Some("production"), Role::Owner, 10),
        ceiling(Some("production"), Role::Member, 5),
    ]);
    let server = Server::with(|config| config.key_ceilings = ceilings).await;
    for (environment, owner, member) in [("production", 10, 5), ("staging", 60, 90)] {
        let slug = ward_test::fresh_slug();
        let mut new = new_workspace(&slug);
        new["environment"] = json!(environment);
        let made = server.anonymous().post("/v1/workspaces", new).await.created();
        let id = made.text("id").to_owned();
        let claim = format!("/v1/{id}/api-keys");
        refused(server.anonymous().post(&claim, json!({ "duration_days": owner + 1 })).await, "owner", owner);
        let claimed = server.anonymous().post(&claim, json!({ "duration_days": owner })).await.created();
        let tenant = Tenant { id, slug, owner: server.bearing(claimed.text("api_key")), claimed };
        let policy = tenant.get("/key-policy").await.ok();
        assert_eq!(policy["ceiling_days"], whole(&json!({})));
        assert_eq!(policy["installation_ceiling_days"]["owner"], owner);
        assert_eq!(policy["ceiling_days_in_force"]["member"], member);
        if member < 90 {
            let body = json!({ "duration_days": member + 1, "role": "member" });
            refused(tenant.post("/api-keys", body).await, "member", member);
        }
        tenant.key(json!({ "duration_days": member, "role": "member" })).await;
        // A workspace can be stricter than its installation, but not laxer.
        let policy = choose(&tenant, json!({ "owner": 90, "member": 2 })).await;
        assert_eq!(policy["ceiling_days_in_force"]["owner"], owner);
        assert_eq!(policy["ceiling_days_in_force"]["member"], 2);
        let slug = &tenant.slug;
        let too_long =
            ward::operator::issue_key(&server.app, slug, "owner", "too long", Some(owner + 1)).await;
        let told = too_long.err().expect("a refusal").to_string();
        assert!(told.contains(&format!("at most {owner} days")), "{told}");
        let issued =
            ward::operator::issue_key(&server.app, slug, "member", "as long as possible", None).await;
        let issued = serde_json::to_value(issued.expect("a key")).expect("JSON");
        let life =
            issued["expires_at"].as_str().expect("a time").parse::<ward_db::Timestamp>().expect("a time");
        let most = server.clock.now().saturating_add(std::time::Duration::from_hours(48));
        assert!(life <= most);
    }
});

both!(only_owners_choose_ceilings_and_a_change_is_recorded_once, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let admin = tenant.service("admin").await;
    let body = json!({ "ceiling_days": { "admin": 3 } });
    admin.put(&tenant.path("/key-policy"), body.clone()).await.refused_as(403, "owner_only");
    tenant.service("viewer").await.get(&tenant.path("/key-policy")).await.refused(403);
    for wrong in
        [json!({}), json!({ "ceiling_days": { "admin": 0 } }), json!({ "ceiling_days": { "owner": 91 } })]
    {
        tenant.put("/key-policy", wrong).await.refused(422);
    }
    for _ in 0..2 {
        tenant.put("/key-policy", body.clone()).await.ok();
    }
    let page = tenant.get("/audit?action=key_policy.update").await.ok();
    let [event] = page.list("events").as_slice() else { panic!("one event: {page}") };
    let changes = &event["metadata"]["changes"]["ceiling_days"];
    assert_eq!((&changes["from"]["admin"], &changes["to"]["admin"]), (&Value::Null, &json!(3)));
});

both!(a_retry_of_a_mint_gets_its_answer_under_a_later_ceiling, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let retry = "a-retry-of-a-mint";
    let body = json!({ "duration_days": 60, "role": "admin" });
    let minted = tenant.post_once("/api-keys", retry, body.clone()).await.created();
    choose(&tenant, json!({ "admin": 3 })).await;
    assert_eq!(tenant.post_once("/api-keys", retry, body.clone()).await.created(), minted);
    refused(tenant.post_once("/api-keys", "another-retry-of-a-mint", body).await, "admin", 3);
});

both!(the_list_of_keys_beyond_has_an_end, async || {
    let (_server, tenant) = Server::with_tenant().await;
    for _ in 0..101 {
        tenant.key(json!({ "duration_days": 9, "role": "viewer" })).await;
    }
    let policy = choose(&tenant, json!({ "viewer": 8, "owner": 5 })).await;
    assert_eq!((policy.list("keys_beyond").len(), &policy["more_keys_beyond"]), (100, &json!(true)));
    assert!(policy.list("keys_beyond").iter().all(|key| key["role"] == "viewer"));
});

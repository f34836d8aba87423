//! Ward as the gate of other services: its answers to a reverse proxy. `proxies` has real proxies that ask for them.

use reqwest::StatusCode;
use serde_json::json;
use ward_test::{Actor, Fields as _, Server, Tenant, both};

use crate::authorization::PERMISSIONS;

fn question(tenant: &Tenant, permission: &str) -> String {
    tenant.path(&format!("/authorize?permission={permission}"))
}

/// The permissions of the actor's only workspace.
async fn permissions(actor: &Actor) -> Vec<String> {
    let me = actor.get("/v1/me").await.ok();
    let own = me["memberships"]["items"][0]["permissions"].as_array().expect("permissions").clone();
    own.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

both!(a_permitted_caller_is_described_in_headers, async || {
    let (server, issuer) = Server::with_issuer().await;
    let tenant = server.tenant("clinic").await;
    let answer = tenant.owner.get(&question(&tenant, "ApiKey.create")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let me = tenant.owner.get("/v1/me").await.ok();
    for (header, value) in [
        ("x-ward-workspace-id", tenant.id.as_str()),
        ("x-ward-workspace-environment", "production"),
        ("x-ward-principal-id", me.text("entity_id")),
        ("x-ward-principal-kind", me.text("kind")),
        ("x-ward-role", "owner"),
        ("x-ward-key-id", tenant.owner_key_id()),
    ] {
        assert_eq!(answer.header(header), value, "{header}");
    }
    let person = server.bearing(issuer.token("ada"));
    let body = json!({ "slug": "adas", "name": "Ada's", "environment": "staging" });
    let own = person.post("/v1/me/workspaces", body).await.expect(StatusCode::CREATED);
    let answer = person.get(&format!("/v1/{}/authorize", own.text("id"))).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(
        (answer.header("x-ward-workspace-environment"), answer.header("x-ward-key-id")),
        ("staging", "")
    );
});

both!(the_answer_is_that_of_the_gate_for_every_role_and_permission, async || {
    let (server, tenant) = Server::with_tenant().await;
    let narrow = json!({ "duration_days": 3, "role": "member", "permissions": ["Call.view"] });
    let mut actors = vec![tenant.owner.clone(), tenant.key(narrow).await.0];
    for role in ["viewer", "member", "operator", "admin"] {
        actors.push(tenant.service(role).await);
    }
    for actor in actors {
        let own = permissions(&actor).await;
        for permission in PERMISSIONS {
            let answer = actor.get(&question(&tenant, permission)).await;
            let permitted = own.iter().any(|name| name == permission);
            assert_eq!(answer.status.as_u16(), if permitted { 204 } else { 403 }, "{permission} of {own:?}");
            assert_eq!(answer.header("x-ward-role").is_empty(), !permitted);
        }
    }
    let other = server.tenant("other").await;
    other.owner.get(&question(&tenant, "Call.view")).await.refused(404);
    server.anonymous().get(&question(&tenant, "Call.view")).await.refused(401);
    for unknown in ["call.view", "Call.sing", ""] {
        let answer = tenant.owner.get(&question(&tenant, unknown)).await;
        assert_eq!(answer.problem_locs(), ["query.permission"], "{unknown:?}");
    }
});

both!(a_revoked_key_is_refused_at_the_next_question_on_every_replica, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 3, "role": "member" })).await;
    let elsewhere = replica.bearing(service.bearer.clone().expect("a key"));
    assert_eq!(elsewhere.get(&question(&tenant, "Call.view")).await.status, StatusCode::NO_CONTENT);
    tenant.delete(&format!("/api-keys/{}", minted.text("key_id"))).await.no_content();
    elsewhere.get(&question(&tenant, "Call.view")).await.refused(401);
});

//! No act through the API ends the last access that the owners of a workspace have.

use serde_json::{Value, json};
use ward_test::{Actor, Fields as _, Server, Tenant, both, new_workspace};

/// Another workspace that the tenant's user owns. The user's only key belongs to the tenant's workspace.
async fn another(owner: &Actor, slug: &str) -> String {
    owner.post("/v1/me/workspaces", new_workspace(slug)).await.created().text("id").to_owned()
}

/// A further owner of the workspace, who is a user of another tenant.
async fn co_owner(server: &Server, owner: &Actor, workspace: &str, slug: &str) -> Tenant {
    let guest = server.tenant(slug).await;
    let link = owner
        .post(&format!("/v1/workspaces/{workspace}/invitations"), json!({ "role": "owner" }))
        .await
        .created();
    guest.owner.post("/v1/invitations/accept", json!({ "invitation": link["invitation"] })).await.created();
    guest
}

fn key_of(tenant: &Tenant, key: &Value) -> String {
    tenant.path(&format!("/api-keys/{}", key.text("key_id")))
}

fn owner_key(speaks_for: &str) -> Value {
    json!({ "duration_days": 1, "role": "owner", "speaks_for": speaks_for, "name": "another" })
}

both!(leaving_the_home_of_ones_only_key_keeps_the_way_into_the_others, async || {
    let (server, tenant) = Server::with_tenant().await;
    let other = another(&tenant.owner, "other").await;
    co_owner(&server, &tenant.owner, &tenant.id, "guest").await;
    let leave = tenant.workspace("/members/me");
    tenant.owner.delete(&leave).await.refused_as(409, "last_way_in");
    tenant.owner.get(&format!("/v1/workspaces/{other}")).await.ok();
    let second = tenant.owner.post(&format!("/v1/{other}/api-keys"), owner_key("self")).await.created();
    tenant.owner.delete(&leave).await.no_content();
    server.bearing(second.text("api_key")).get(&format!("/v1/workspaces/{other}")).await.ok();
});

both!(a_key_bound_to_networks_or_a_public_key_is_a_way_in_after_its_first_use, async || {
    for condition in [
        json!({ "networks": ["127.0.0.0/8"] }),
        json!({ "networks": ["203.0.113.0/24"] }),
        json!({ "bound_to": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } }),
    ] {
        let (server, tenant) = Server::with_tenant().await;
        let mut wanted = owner_key("self");
        wanted.as_object_mut().expect("an object").extend(condition.as_object().cloned().unwrap_or_default());
        let (second, _) = tenant.key(wanted).await;
        let first = key_of(&tenant, &tenant.claimed);
        tenant.owner.delete(&first).await.refused_as(409, "last_way_in");
        let is_usable = condition["networks"][0] == "127.0.0.0/8";
        assert_eq!(second.get("/v1/auth/me").await.status == 200, is_usable);
        server.app.flush().await;
        let ended = tenant.owner.delete(&first).await;
        if is_usable {
            ended.no_content();
            second.get(&tenant.workspace("")).await.ok();
        } else {
            ended.refused_as(409, "last_way_in");
        }
    }
});

both!(a_service_ends_neither_the_last_users_key_nor_the_last_services, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let (service, minted) = tenant.key(owner_key("service")).await;
    service.delete(&key_of(&tenant, &tenant.claimed)).await.refused_as(409, "last_way_in");
    tenant.owner.get(&tenant.workspace("")).await.ok();
    service.delete(&key_of(&tenant, &minted)).await.no_content();
});

both!(a_workspace_of_services_keeps_its_last_owner_key, async || {
    let server = Server::start().await;
    let made = ward::operator::create_workspace(&server.app, &new_workspace("operators"))
        .await
        .expect("a workspace");
    let id = serde_json::to_value(made).expect("JSON").text("id").to_owned();
    let issue = async || {
        ward::operator::issue_key(&server.app, "operators", "owner", "first", Some(30)).await.expect("a key")
    };
    let first = serde_json::to_value(issue().await).expect("JSON");
    let actor = server.bearing(first.text("api_key"));
    let path = |key: &Value| format!("/v1/{id}/api-keys/{}", key.text("key_id"));
    let leave = format!("/v1/workspaces/{id}/members/me");
    actor.delete(&path(&first)).await.refused_as(409, "last_way_in");
    actor.delete(&leave).await.refused_as(409, "last_way_in");
    let second = serde_json::to_value(issue().await).expect("JSON");
    actor.delete(&leave).await.no_content();
    let second_actor = server.bearing(second.text("api_key"));
    second_actor.delete(&path(&second)).await.refused_as(409, "last_way_in");
});

both!(of_two_keys_in_two_workspaces_that_end_at_once_one_stays, threads = 4, async || {
    let server = Server::start().await;
    for round in 0..10 {
        let tenant = server.tenant(&format!("acme-{round}")).await;
        let other = another(&tenant.owner, &format!("other-{round}")).await;
        let second = tenant.owner.post(&format!("/v1/{other}/api-keys"), owner_key("self")).await.created();
        let actor = server.bearing(second.text("api_key"));
        // Each workspace has another owner, so that only the other workspace could be lost.
        let third = another(&tenant.owner, &format!("third-{round}")).await;
        for (workspace, slug) in [(&tenant.id, "a"), (&other, "b")] {
            co_owner(&server, &tenant.owner, workspace, &format!("guest-{slug}-{round}")).await;
        }
        let (one, two) =
            (key_of(&tenant, &tenant.claimed), format!("/v1/{other}/api-keys/{}", second.text("key_id")));
        let (one, two) = tokio::join!(tenant.owner.delete(&one), actor.delete(&two));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 409], "round {round}");
        let open = if one.status == 204 { &actor } else { &tenant.owner };
        open.get(&format!("/v1/workspaces/{third}")).await.ok();
    }
});

both!(many_owners_without_keys_hide_no_last_way_in, async || {
    let (server, tenant) = Server::with_tenant().await;
    for number in 0..22 {
        co_owner(&server, &tenant.owner, &tenant.id, &format!("guest-{number}")).await;
    }
    server.sql(format!("UPDATE api_keys SET expires_at = created_at WHERE workspace_id <> (SELECT id FROM workspaces WHERE slug = '{}')", tenant.slug)).await;
    tenant.owner.delete(&key_of(&tenant, &tenant.claimed)).await.refused_as(409, "last_way_in");
    tenant.owner.get(&tenant.workspace("")).await.ok();
});

both!(an_owner_of_many_workspaces_keeps_the_way_into_each, async || {
    let (server, tenant) = Server::with_tenant().await;
    let guest = server.tenant("guest").await;
    for number in 0..22 {
        let other = another(&tenant.owner, &format!("other-{number}")).await;
        if number < 21 {
            let invite = format!("/v1/workspaces/{other}/invitations");
            let link = tenant.owner.post(&invite, json!({ "role": "owner" })).await.created();
            let accept = json!({ "invitation": link["invitation"] });
            guest.owner.post("/v1/invitations/accept", accept).await.created();
        }
    }
    co_owner(&server, &tenant.owner, &tenant.id, "another-guest").await;
    tenant.owner.delete(&key_of(&tenant, &tenant.claimed)).await.refused_as(409, "last_way_in");
});

both!(an_identity_of_a_removed_issuer_is_no_way_in, async || {
    let (server, issuer) = Server::with_issuer().await;
    let person = server.person(&issuer, "ada");
    let workspace = another(&person, "of-ada").await;
    let key = person.post(&format!("/v1/{workspace}/api-keys"), owner_key("self")).await.created();
    let path = format!("/v1/{workspace}/api-keys/{}", key.text("key_id"));
    let without = server.replica_with(|config| config.issuers.clear()).await;
    let actor = without.bearing(key.text("api_key"));
    actor.delete(&path).await.refused_as(409, "last_way_in");
    // Where the person still signs in, the key is not the last way.
    person.delete(&path).await.no_content();
});

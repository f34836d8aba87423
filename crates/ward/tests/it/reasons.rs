//! The reasons of a refusal: every 403 names the missing thing and the reason, and no 401 or 404 does.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use ward::config::Bootstrap;
use ward_test::{
    Answer, Fields as _, Server, both, fresh_slug, new_workspace, unknown_key, wanted_permission, wants_key,
};

use crate::authorization::PERMISSIONS;
use crate::calls::{post_form, with_twilio};
use crate::members::{Shared, accept, entity};

/// The kind and the name of the missing thing, and the word of the reason.
fn reasons(answer: &Answer) -> [String; 3] {
    assert_eq!(answer.status, 403, "{}", answer.text);
    let body: Value = serde_json::from_str(&answer.text).expect("JSON");
    let (missing, because) = (&body["missing"], &body["because"]);
    assert!(because.text("detail").ends_with('.'), "{body}");
    [missing.text("kind"), missing.text("name"), because.text("reason")].map(str::to_owned)
}

/// Neither reason is in the body, even as null.
fn has_no_reasons(answer: &Answer) {
    let body: Value = serde_json::from_str(&answer.text).expect("JSON");
    let body = body.as_object().expect("an object");
    assert!(!body.contains_key("missing") && !body.contains_key("because"), "{}", answer.text);
}

both!(every_operation_says_which_permission_is_missing_and_why, async || {
    let (shared, ada) = Shared::new().await;
    let server = &shared.server;
    let (viewer, _) = shared.member(&ada, "vic", "viewer").await;
    let mut asked = 0;
    for operation in server.app.contract.operations().filter(|operation| wants_key(operation)) {
        let target = ward_test::Target {
            workspace: shared.id.clone(),
            slug: "shared".to_owned(),
            key_id: "AAAAAAAAAAAA".to_owned(),
            integration: "00000000-0000-0000-0000-000000000000".to_owned(),
        };
        let dead = server.bearing(unknown_key()).call(operation, &target).await;
        assert_eq!(dead.status, 401, "{}", operation.id);
        has_no_reasons(&dead);
        if operation.path.contains("{workspace_id}") {
            let stranger = shared.person("stranger").call(operation, &target).await;
            assert_eq!(stranger.status, 404, "{}: {}", operation.id, stranger.text);
            has_no_reasons(&stranger);
        }
        let Some(needed) = wanted_permission(operation) else { continue };
        let rest: Vec<&str> = PERMISSIONS.into_iter().filter(|known| *known != needed).collect();
        let narrow =
            json!({ "duration_days": 3, "role": "owner", "permissions": rest, "speaks_for": "self" });
        let (narrow, _) = shared.mint(&ada, narrow).await;
        let answer = narrow.call(operation, &target).await;
        assert_eq!(reasons(&answer), ["permission", needed, "key_permissions"], "{}", operation.id);
        asked += 1;
        if ["Workspace.view", "Integration.view"].contains(&needed) {
            continue;
        }
        let (low, _) =
            shared.mint(&ada, json!({ "duration_days": 3, "role": "viewer", "speaks_for": "self" })).await;
        let answer = low.call(operation, &target).await;
        assert_eq!(reasons(&answer), ["permission", needed, "key_role"], "{}", operation.id);
        // A token has the whole authority of its user, so only the membership can lack it. Without a workspace, nothing does.
        if operation.path.contains("{workspace_id}") {
            let answer = viewer.call(operation, &target).await;
            assert_eq!(reasons(&answer), ["permission", needed, "membership_role"], "{}", operation.id);
        }
    }
    assert!(asked > 60, "only {asked} operations need a permission");
});

both!(a_role_and_a_kind_of_caller_are_missing_like_a_permission, async || {
    let (server, tenant) = Server::with_tenant().await;
    let path = tenant.workspace("/archive");
    let body = json!({ "slug": tenant.slug });
    let admin = tenant.service("admin").await;
    let answer = admin.post(&path, body.clone()).await;
    assert_eq!(reasons(&answer), ["role", "owner", "membership_role"]);
    let low = json!({ "duration_days": 3, "role": "admin", "speaks_for": "self" });
    let answer = tenant.key(low).await.0.post(&path, body).await;
    assert_eq!(reasons(&answer), ["role", "owner", "key_role"]);
    let target = tenant.target(tenant.owner_key_id());
    let robot = tenant.service("owner").await;
    let mut kinds = BTreeSet::new();
    for operation in server.app.contract.operations().filter(|operation| wants_key(operation)) {
        if let ward_contract::Access::Key { caller: Some(ward_contract::CallerKind::User), .. } =
            operation.access
        {
            let answer = robot.call(operation, &target).await;
            assert_eq!(reasons(&answer), ["rule", "user", "service"], "{}", operation.id);
            kinds.insert(operation.id.as_str());
        }
    }
    assert_eq!(kinds.len(), 6, "{kinds:?}");
});

both!(a_caller_who_would_exceed_itself_reads_what_it_lacks, async || {
    let (server, tenant) = Server::with_tenant().await;
    let keys = tenant.path("/api-keys");
    let admin = tenant.service("admin").await;
    let owner = json!({ "duration_days": 3, "role": "owner" });
    assert_eq!(reasons(&admin.post(&keys, owner.clone()).await), ["role", "owner", "membership_role"]);
    let narrow =
        json!({ "duration_days": 3, "role": "owner", "permissions": ["ApiKey.create", "Workspace.update"] });
    let (narrow, minted) = tenant.key(narrow).await;
    let answer = narrow.post(&keys, json!({ "duration_days": 3, "role": "member" })).await;
    assert_eq!(reasons(&answer), ["permission", "Workspace.view", "key_permissions"]);
    let invite = narrow.post(&tenant.workspace("/invitations"), json!({ "role": "viewer" })).await;
    assert_eq!(reasons(&invite), ["permission", "Workspace.view", "key_permissions"]);
    // A key of a service, and a key of another user.
    let mine = json!({ "duration_days": 3, "role": "viewer", "speaks_for": "self" });
    assert_eq!(reasons(&admin.post(&keys, mine.clone()).await), ["rule", "user", "service"]);
    let (_, personal) = tenant.key(mine).await;
    let rotate = |key: &Value| tenant.path(&format!("/api-keys/{}/rotate", key.text("key_id")));
    let days = json!({ "duration_days": 3 });
    let answer = admin.post(&rotate(&personal), days.clone()).await;
    assert_eq!(reasons(&answer), ["rule", "own_key", "another_user"]);
    // The secret that a rotation has replaced.
    let (old, rotated) = tenant.key(json!({ "duration_days": 3, "role": "admin" })).await;
    let with_overlap = json!({ "duration_days": 3, "grace_seconds": 600 });
    tenant.owner.post(&rotate(&rotated), with_overlap).await.ok();
    let answer = old.post(&rotate(&rotated), days).await;
    assert_eq!(reasons(&answer), ["rule", "current_secret", "replaced_secret"]);
    // A permission that only the query names.
    let question = tenant.path("/authorize?permission=Call.create");
    let answer = server.bearing(minted.text("api_key")).get(&question).await;
    assert_eq!(reasons(&answer), ["permission", "Call.create", "key_permissions"]);
});

both!(refusals_outside_of_the_gate_have_their_reasons_too, async || {
    let (shared, ada) = Shared::new().await;
    assert_eq!(reasons(&ada.get("/v1/auth/me").await), ["rule", "api_key", "access_token"]);
    let bound = shared.invite(&ada, json!({ "role": "viewer", "email": "bea@clinic.example" })).await;
    let bea = shared.person("bea");
    assert_eq!(reasons(&accept(&bea, &bound).await), ["rule", "verified_email", "unverified_address"]);
    bea.post("/v1/me/workspaces", new_workspace(&fresh_slug())).await.created();
    let low = json!({ "duration_days": 3, "role": "viewer", "speaks_for": "self" });
    let (low, _) = shared.mint(&ada, low).await;
    let link = shared.invite(&ada, json!({ "role": "admin" })).await;
    assert_eq!(reasons(&accept(&low, &link).await), ["role", "admin", "key_role"]);
    let (cleo, _) = shared.member(&ada, "cleo", "admin").await;
    let (_, dora) = shared.member(&ada, "dora", "member").await;
    ada.post(&shared.path("/ownership-transfer"), json!({ "entity_id": dora })).await.created();
    let answer = cleo.delete(&shared.path("/ownership-transfer")).await;
    assert_eq!(reasons(&answer), ["role", "owner", "membership_role"]);
    let member = shared.path(&format!("/members/{}", entity(&ada).await));
    let answer = cleo.delete(&member).await;
    assert_eq!(reasons(&answer), ["role", "owner", "membership_role"]);

    let closed = Server::with(|config| config.bootstrap = Bootstrap::Closed).await;
    let answer = closed.anonymous().post("/v1/workspaces", new_workspace("acme")).await;
    assert_eq!(reasons(&answer), ["rule", "open_bootstrap", "server_setting"]);
    let (server, tenant) = with_twilio().await;
    let callback =
        post_form(&server.anonymous(), &tenant.path("/twilio/status"), "", &[("CallSid", "CA1")]).await;
    assert_eq!(reasons(&callback), ["rule", "signature", "unsigned_callback"]);
});

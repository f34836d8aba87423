//! The design's table of roles and permissions, written out by hand and compared with the server.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use ward_test::{Fields as _, Server, both, fresh_slug, got_in, new_workspace, wants_key};

/// The roles; each has the permissions of those before it.
const ROLES: [&str; 5] = ["viewer", "member", "operator", "admin", "owner"];

// The lowest role of a service that may use an operation. Operations of `NO_SERVICE` are for users only.
const VIEWER: usize = 0;
const MEMBER: usize = 1;
const OPERATOR: usize = 2;
const ADMIN: usize = 3;
const OWNER: usize = 4;
const NO_SERVICE: usize = 5;

/// Every operation with the lowest role of a service that may use it, and the one permission that it needs. Operations
/// without a permission need only a key.
const TABLE: &[(&str, usize, Option<&str>)] = &[
    ("list-members", VIEWER, Some("Workspace.view")),
    ("set-member-role", ADMIN, Some("Workspace.update")),
    ("remove-member", ADMIN, Some("Workspace.update")),
    ("leave-workspace", VIEWER, Some("Workspace.view")),
    ("get-ownership-transfer", VIEWER, Some("Workspace.view")),
    ("nominate-owner", NO_SERVICE, Some("Workspace.update")),
    ("cancel-ownership-transfer", VIEWER, Some("Workspace.view")),
    ("accept-ownership", VIEWER, Some("Workspace.view")),
    ("list-invitations", ADMIN, Some("Workspace.update")),
    ("create-invitation", ADMIN, Some("Workspace.update")),
    ("revoke-invitation", ADMIN, Some("Workspace.update")),
    ("accept-invitation", NO_SERVICE, None),
    ("list-my-invitations", VIEWER, None),
    ("accept-my-invitation", NO_SERVICE, None),
    ("extend-invitation", ADMIN, Some("Workspace.update")),
    ("resend-invitation", ADMIN, Some("Workspace.update")),
    ("get-me", VIEWER, None),
    // Without a permission in its query.
    ("authorize", VIEWER, None),
    ("explain-access", ADMIN, Some("Audit.view")),
    ("list-workspaces", VIEWER, Some("Workspace.view")),
    ("create-self-service-workspace", NO_SERVICE, Some("Workspace.create")),
    ("create-my-workspace", NO_SERVICE, Some("Workspace.create")),
    ("get-workspace", VIEWER, Some("Workspace.view")),
    ("update-workspace", ADMIN, Some("Workspace.update")),
    ("provision-workspace", ADMIN, Some("Workspace.update")),
    ("archive-workspace", OWNER, Some("Workspace.update")),
    ("get-test-caller-numbers", VIEWER, Some("Workspace.view")),
    ("update-test-caller-numbers", ADMIN, Some("Workspace.update")),
    ("get-test-credential-ids", VIEWER, Some("Workspace.view")),
    ("update-test-credential-ids", ADMIN, Some("Workspace.update")),
    ("get-access-policy", VIEWER, Some("Workspace.view")),
    ("set-access-policy", OWNER, Some("Workspace.update")),
    ("check-environment-conversion", VIEWER, Some("Workspace.view")),
    ("convert-workspace-environment", OWNER, Some("Workspace.update")),
    ("get-workspace-by-slug", VIEWER, Some("Workspace.view")),
    ("rename-workspace", OWNER, Some("Workspace.update")),
    ("list-former-slugs", VIEWER, Some("Workspace.view")),
    ("list-archived-workspaces", VIEWER, Some("Workspace.view")),
    ("restore-archived-workspace", NO_SERVICE, Some("Workspace.update")),
    ("test-integration-connection", OPERATOR, Some("Integration.update")),
    ("list-integration-keys", VIEWER, Some("Integration.view")),
    ("create-integration-key", OPERATOR, Some("Integration.update")),
    ("activate-integration-key", OPERATOR, Some("Integration.update")),
    ("delete-integration-key", OPERATOR, Some("Integration.update")),
    ("get-auth-info", VIEWER, None),
    ("list-api-keys", MEMBER, Some("ApiKey.view")),
    ("create-api-key", ADMIN, Some("ApiKey.create")),
    ("delete-api-key", ADMIN, Some("ApiKey.delete")),
    ("rotate-api-key", ADMIN, Some("ApiKey.create")),
    ("finish-api-key-rotation", ADMIN, Some("ApiKey.create")),
    ("set-api-key-networks", ADMIN, Some("ApiKey.create")),
    ("list-trust-rules", MEMBER, Some("ApiKey.view")),
    ("create-trust-rule", ADMIN, Some("ApiKey.create")),
    ("get-trust-rule", MEMBER, Some("ApiKey.view")),
    ("delete-trust-rule", ADMIN, Some("ApiKey.delete")),
    ("create-handover", ADMIN, Some("ApiKey.create")),
    ("get-permission-catalog", MEMBER, Some("ApiKey.view")),
    ("get-leaked-key-policy", MEMBER, Some("ApiKey.view")),
    ("set-leaked-key-policy", OWNER, Some("Workspace.update")),
    ("get-key-policy", MEMBER, Some("ApiKey.view")),
    ("set-key-policy", OWNER, Some("Workspace.update")),
    ("list-integrations", VIEWER, Some("Integration.view")),
    ("create-integration", ADMIN, Some("Integration.create")),
    ("integration-health-check", VIEWER, Some("Integration.view")),
    ("get-integration", VIEWER, Some("Integration.view")),
    ("update-integration", OPERATOR, Some("Integration.update")),
    ("delete-integration", ADMIN, Some("Integration.delete")),
    // For a GET endpoint; other endpoints need the permission to update.
    ("test-integration-endpoint", VIEWER, Some("Integration.view")),
    ("list-audit-events", ADMIN, Some("Audit.view")),
    ("get-audit-summary", ADMIN, Some("Audit.view")),
    ("get-phi-access-report", ADMIN, Some("Audit.view")),
    ("get-entity-access-log", ADMIN, Some("Audit.view")),
    ("get-access-review", ADMIN, Some("Audit.view")),
    ("create-audit-export", ADMIN, Some("Audit.view")),
    ("list-audit-exports", ADMIN, Some("Audit.view")),
    ("download-audit-export", ADMIN, Some("Audit.view")),
    ("list-calls", MEMBER, Some("Call.view")),
    ("get-call", MEMBER, Some("Call.view")),
    ("report-call", OPERATOR, Some("Call.create")),
    ("get-twilio", VIEWER, Some("Integration.view")),
    ("set-twilio", OPERATOR, Some("Integration.update")),
    ("get-twilio-reconciliation", VIEWER, Some("Integration.view")),
    ("reconcile-twilio", OPERATOR, Some("Integration.update")),
    ("delete-twilio", OPERATOR, Some("Integration.update")),
    ("list-deliveries", MEMBER, Some("Call.view")),
    ("get-delivery", MEMBER, Some("Call.view")),
    ("retry-delivery", OPERATOR, Some("Integration.update")),
    ("resolve-delivery", OPERATOR, Some("Integration.update")),
    ("preview-delivery", MEMBER, Some("Call.view")),
    ("amend-delivery", OPERATOR, Some("Integration.update")),
    ("drop-delivery", OPERATOR, Some("Integration.update")),
    ("list-reviews", MEMBER, Some("Call.view")),
    ("get-review", MEMBER, Some("Call.view")),
    ("resolve-review", OPERATOR, Some("Integration.update")),
    ("correct-call", OPERATOR, Some("Integration.update")),
    ("backfill-deliveries", OPERATOR, Some("Integration.update")),
    ("retry-failed-deliveries", OPERATOR, Some("Integration.update")),
    ("get-sync-status", VIEWER, Some("Integration.view")),
    ("hold-integration", OPERATOR, Some("Integration.update")),
    ("get-usage", VIEWER, Some("Workspace.view")),
];

/// The order is that of answers: permissions of lower roles come first.
pub const PERMISSIONS: [&str; 13] = [
    "Workspace.view",
    "Integration.view",
    "ApiKey.view",
    "Call.view",
    "Integration.update",
    "Call.create",
    "Workspace.update",
    "Workspace.create",
    "Integration.create",
    "Integration.delete",
    "ApiKey.create",
    "ApiKey.delete",
    "Audit.view",
];

both!(the_table_names_every_operation, async || {
    let server = Server::start().await;
    let all: BTreeSet<&str> = server
        .app
        .contract
        .operations()
        .filter(|operation| wants_key(operation))
        .map(|operation| operation.id.as_str())
        .collect();
    assert_eq!(TABLE.iter().map(|(id, ..)| *id).collect::<BTreeSet<_>>(), all);
});

both!(each_role_may_do_what_the_table_says_and_nothing_else, async || {
    let server = Server::start().await;
    for &(id, lowest, _) in TABLE {
        let operation = server.app.contract.operation(id).expect("an operation");
        for (rank, role) in ROLES.iter().enumerate() {
            let tenant = server.tenant(&fresh_slug()).await;
            let service = tenant.service(role).await;
            let (_, other) = tenant.key(json!({ "duration_days": 30, "role": "viewer" })).await;
            let target = tenant.whole_target(other.text("key_id")).await;
            let answer = service.call(operation, &target).await;
            if rank >= lowest {
                assert!(got_in(&answer), "{role} {id}: {}", answer.text);
            } else {
                assert_eq!(answer.status, 403, "{role} {id}: {}", answer.text);
            }
        }
    }
});

both!(a_narrowed_key_may_do_what_its_one_permission_opens_and_nothing_else, async || {
    let server = Server::start().await;
    for &(id, _, opened_by) in TABLE {
        if (id.starts_with("create-") && id.ends_with("-workspace"))
            || ["nominate-owner", "accept-invitation", "accept-my-invitation", "restore-archived-workspace"]
                .contains(&id)
        {
            continue; // For users only; the tests of self-service, members and invitations cover these.
        }
        if id == "create-invitation" {
            continue; // An invitation grants a whole role, which a key of one permission may not do.
        }
        let operation = server.app.contract.operation(id).expect("an operation");
        for permission in PERMISSIONS {
            let tenant = server.tenant(&fresh_slug()).await;
            let narrow = json!({ "duration_days": 30, "role": "owner", "permissions": [permission] });
            let (service, _) = tenant.key(narrow.clone()).await;
            let (_, other) = tenant.key(narrow.clone()).await;
            let target = tenant.whole_target(other.text("key_id")).await;
            let answer = match id {
                "create-api-key" => service.post(&tenant.path("/api-keys"), narrow).await,
                _ => service.call(operation, &target).await,
            };
            if opened_by.is_none_or(|opening| opening == permission) {
                assert!(got_in(&answer), "{permission} {id}: {}", answer.text);
            } else {
                assert_eq!(answer.refused(403), "forbidden", "{permission} {id}");
            }
        }
    }
});

both!(the_catalog_is_the_table, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/api-keys/permission-catalog");
    tenant.service("viewer").await.get(&path).await.refused(403);
    let catalog = tenant.service("member").await.get(&path).await.ok();
    let names = |list: &Value, field: &str| -> Vec<String> {
        let entries = list.as_array().expect("a list").iter();
        entries.map(|entry| entry[field].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&catalog["permissions"], "permission"), PERMISSIONS);
    assert_eq!(names(&catalog["roles"], "role"), ROLES);
    for (role, how_many) in catalog.list("roles").iter().zip([2, 4, 6, 13, 13]) {
        assert_eq!(role["permissions"], json!(PERMISSIONS[..how_many]), "{}", role["role"]);
        // The platform's clients read the same values under other names.
        assert_eq!(role["permission_names"], role["permissions"]);
        assert_eq!(role["name"], role["role"]);
        assert!(role["description"].is_string());
    }
    let priorities: Vec<i64> =
        catalog.list("roles").iter().map(|role| role["priority"].as_i64().unwrap()).collect();
    assert!(priorities.is_sorted_by(|a, b| a < b), "{priorities:?}");
    for permission in catalog.list("permissions") {
        let text = |field: &str| permission[field].as_str().expect("a text").to_owned();
        assert_eq!(text("name"), text("permission"));
        assert_eq!(text("name"), format!("{}.{}", text("namespace"), text("action")));
    }
});

both!(only_owners_archive, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let archive = || (tenant.workspace("/archive"), json!({ "slug": "acme" }));
    let (path, body) = archive();
    tenant.service("admin").await.post(&path, body.clone()).await.refused_as(403, "owner_only");
    // Authorization comes before validation, so the wrong slug is not reported.
    tenant.service("admin").await.post(&path, json!({ "slug": "other" })).await.refused_as(403, "owner_only");
    let narrowed =
        json!({ "duration_days": 1, "role": "owner", "permissions": ["Workspace.view", "ApiKey.create"] });
    tenant.key(narrowed).await.0.post(&path, body.clone()).await.refused_as(403, "forbidden");
    tenant.owner.get(&tenant.workspace("")).await.ok();
    tenant.service("owner").await.post(&path, body).await.ok();
    tenant.owner.get(&tenant.workspace("")).await.refused(401);
});

both!(a_user_creates_workspaces_of_their_own_under_both_names, async || {
    let (server, tenant) = Server::with_tenant().await;
    for (path, slug) in [("/v1/workspaces/self-service", "first"), ("/v1/me/workspaces", "second")] {
        let created = tenant.owner.post(path, new_workspace(slug)).await.created();
        let id = created.text("id");
        // The creator is an owner: only owners may mint keys of owners.
        let body = json!({ "duration_days": 1, "role": "owner" });
        tenant.owner.post(&format!("/v1/{id}/api-keys"), body).await.created();
        // The workspace cannot be claimed.
        let claim = json!({ "duration_days": 1 });
        server.anonymous().post(&format!("/v1/{id}/api-keys"), claim).await.refused(401);
    }
    let listed = tenant.owner.get("/v1/workspaces").await.ok();
    let slugs: Vec<&str> = listed.texts("items", "slug");
    assert_eq!(slugs, ["acme", "first", "second"]);
    assert_eq!(listed["total"], 3);
});

both!(a_service_creates_no_workspace_whatever_its_role_and_body, async || {
    let (server, tenant) = Server::with_tenant().await;
    for path in ["/v1/workspaces/self-service", "/v1/me/workspaces"] {
        for role in ROLES {
            let service = tenant.service(role).await;
            let code = if ["admin", "owner"].contains(&role) { "unsupported_principal" } else { "forbidden" };
            assert_eq!(service.post(path, new_workspace(&fresh_slug())).await.refused(403), code, "{role}");
            // Authorization comes before validation.
            assert_eq!(service.post(path, json!({ "slug": "!" })).await.refused(403), code, "{role}");
            assert_eq!(service.post(path, new_workspace("acme")).await.refused(403), code, "{role}");
        }
    }
    assert_eq!(server.count("SELECT count(*) FROM workspaces").await, 1);
});

both!(a_user_creates_workspaces_whatever_their_memberships_unless_their_key_is_narrower, async || {
    let (server, tenant) = Server::with_tenant().await;
    server.sql("UPDATE memberships SET role = 'viewer'").await;
    tenant.owner.post("/v1/me/workspaces", new_workspace("one")).await.created();
    server.sql("UPDATE api_keys SET permissions = '[\"Workspace.view\"]'").await;
    tenant.owner.post("/v1/me/workspaces", new_workspace("two")).await.refused_as(403, "forbidden");
    tenant.owner.get("/v1/workspaces").await.ok();
});

both!(a_users_key_works_in_every_workspace_of_its_user_and_a_services_in_one, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let service = tenant.service("owner").await;
    let second = tenant.owner.post("/v1/me/workspaces", new_workspace("second")).await.created();
    let path = format!("/v1/workspaces/{}", second.text("id"));
    tenant.owner.patch(&path, json!({ "name": "Renamed" })).await.ok();
    service.get(&path).await.refused_as(404, "workspace_not_found");
    assert_eq!(service.get("/v1/workspaces").await.ok()["total"], 1);
});

both!(a_key_does_what_both_it_and_its_principals_membership_allow, async || {
    let (server, tenant) = Server::with_tenant().await;
    let second = tenant.owner.post("/v1/me/workspaces", new_workspace("second")).await.created();
    let second = second.text("id");
    // A lower role limits the member's keys too, in that workspace only.
    server.sql(format!("UPDATE memberships SET role = 'member' WHERE workspace_id = uuid '{second}'")).await;
    let path = format!("/v1/workspaces/{second}");
    tenant.owner.get(&path).await.ok();
    tenant.owner.get(&format!("/v1/{second}/api-keys")).await.ok();
    tenant.owner.patch(&path, json!({ "name": "x" })).await.refused_as(403, "forbidden");
    let mint = json!({ "duration_days": 1, "role": "viewer" });
    tenant.owner.post(&format!("/v1/{second}/api-keys"), mint).await.refused_as(403, "forbidden");
    tenant.owner.patch(&tenant.workspace(""), json!({ "name": "x" })).await.ok();
    // A higher role gives a key no more than the key itself allows.
    let viewer = tenant.service("viewer").await;
    server.sql("UPDATE memberships SET role = 'owner'").await;
    viewer.patch(&tenant.workspace(""), json!({ "name": "y" })).await.refused_as(403, "forbidden");
    // A membership that ended gives no access.
    server.sql(format!("DELETE FROM memberships WHERE workspace_id = uuid '{second}'")).await;
    tenant.owner.get(&path).await.refused_as(404, "workspace_not_found");
});

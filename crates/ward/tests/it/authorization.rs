//! Who may do what: the permission table of the design, written out again by hand.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_test::{Server, both, fresh_slug, got_in, new_workspace, wants_key};

/// The roles, lowest first.
const ROLES: [&str; 5] = ["viewer", "member", "operator", "admin", "owner"];

/// Which services get in, by role: viewer, member, operator, admin, owner.
const MATRIX: [(&str, [bool; 5]); 66] = [
    ("list-members", [true, true, true, true, true]),
    ("set-member-role", [false, false, false, true, true]),
    ("remove-member", [false, false, false, true, true]),
    ("leave-workspace", [true, true, true, true, true]),
    ("get-ownership-transfer", [true, true, true, true, true]),
    ("nominate-owner", [false, false, false, false, false]),
    ("cancel-ownership-transfer", [true, true, true, true, true]),
    ("accept-ownership", [true, true, true, true, true]),
    ("list-invitations", [false, false, false, true, true]),
    ("create-invitation", [false, false, false, true, true]),
    ("revoke-invitation", [false, false, false, true, true]),
    ("accept-invitation", [false, false, false, false, false]),
    ("list-my-invitations", [true, true, true, true, true]),
    ("accept-my-invitation", [false, false, false, false, false]),
    ("extend-invitation", [false, false, false, true, true]),
    ("resend-invitation", [false, false, false, true, true]),
    ("get-me", [true, true, true, true, true]),
    ("list-workspaces", [true, true, true, true, true]),
    ("create-self-service-workspace", [false, false, false, false, false]),
    ("create-my-workspace", [false, false, false, false, false]),
    ("get-workspace", [true, true, true, true, true]),
    ("update-workspace", [false, false, false, true, true]),
    ("provision-workspace", [false, false, false, true, true]),
    ("archive-workspace", [false, false, false, false, true]),
    ("get-test-caller-numbers", [true, true, true, true, true]),
    ("update-test-caller-numbers", [false, false, false, true, true]),
    ("get-test-credential-ids", [true, true, true, true, true]),
    ("update-test-credential-ids", [false, false, false, true, true]),
    ("check-environment-conversion", [true, true, true, true, true]),
    ("convert-workspace-environment", [false, false, false, false, true]),
    ("test-integration-connection", [false, false, true, true, true]),
    ("get-auth-info", [true, true, true, true, true]),
    ("list-api-keys", [false, true, true, true, true]),
    ("create-api-key", [false, false, false, true, true]),
    ("delete-api-key", [false, false, false, true, true]),
    ("rotate-api-key", [false, false, false, true, true]),
    ("get-permission-catalog", [false, true, true, true, true]),
    ("list-integrations", [true, true, true, true, true]),
    ("create-integration", [false, false, false, true, true]),
    ("integration-health-check", [true, true, true, true, true]),
    ("get-integration", [true, true, true, true, true]),
    ("update-integration", [false, false, true, true, true]),
    ("delete-integration", [false, false, false, true, true]),
    // Of a GET endpoint; the others want the permission to update.
    ("test-integration-endpoint", [true, true, true, true, true]),
    ("list-audit-events", [false, false, false, true, true]),
    ("get-audit-summary", [false, false, false, true, true]),
    ("get-phi-access-report", [false, false, false, true, true]),
    ("get-entity-access-log", [false, false, false, true, true]),
    ("get-access-review", [false, false, false, true, true]),
    ("create-audit-export", [false, false, false, true, true]),
    ("list-audit-exports", [false, false, false, true, true]),
    ("download-audit-export", [false, false, false, true, true]),
    ("list-calls", [false, true, true, true, true]),
    ("get-call", [false, true, true, true, true]),
    ("report-call", [false, false, true, true, true]),
    ("get-twilio", [true, true, true, true, true]),
    ("set-twilio", [false, false, true, true, true]),
    ("delete-twilio", [false, false, true, true, true]),
    ("list-deliveries", [false, true, true, true, true]),
    ("get-delivery", [false, true, true, true, true]),
    ("retry-delivery", [false, false, true, true, true]),
    ("resolve-delivery", [false, false, true, true, true]),
    ("retry-failed-deliveries", [false, false, true, true, true]),
    ("get-sync-status", [true, true, true, true, true]),
    ("hold-integration", [false, false, true, true, true]),
    ("get-usage", [true, true, true, true, true]),
];

/// The one permission that opens each operation; none where any key will do.
const OPENED_BY: [(&str, Option<&str>); 66] = [
    ("list-members", Some("Workspace.view")),
    ("set-member-role", Some("Workspace.update")),
    ("remove-member", Some("Workspace.update")),
    ("leave-workspace", Some("Workspace.view")),
    ("get-ownership-transfer", Some("Workspace.view")),
    ("nominate-owner", Some("Workspace.update")),
    ("cancel-ownership-transfer", Some("Workspace.view")),
    ("accept-ownership", Some("Workspace.view")),
    ("list-invitations", Some("Workspace.update")),
    ("create-invitation", Some("Workspace.update")),
    ("revoke-invitation", Some("Workspace.update")),
    ("accept-invitation", None),
    ("list-my-invitations", None),
    ("accept-my-invitation", None),
    ("extend-invitation", Some("Workspace.update")),
    ("resend-invitation", Some("Workspace.update")),
    ("get-me", None),
    ("list-workspaces", Some("Workspace.view")),
    ("create-self-service-workspace", Some("Workspace.create")),
    ("create-my-workspace", Some("Workspace.create")),
    ("get-workspace", Some("Workspace.view")),
    ("update-workspace", Some("Workspace.update")),
    ("provision-workspace", Some("Workspace.update")),
    ("archive-workspace", Some("Workspace.update")),
    ("get-test-caller-numbers", Some("Workspace.view")),
    ("update-test-caller-numbers", Some("Workspace.update")),
    ("get-test-credential-ids", Some("Workspace.view")),
    ("update-test-credential-ids", Some("Workspace.update")),
    ("check-environment-conversion", Some("Workspace.view")),
    ("convert-workspace-environment", Some("Workspace.update")),
    ("test-integration-connection", Some("Integration.update")),
    ("get-auth-info", None),
    ("list-api-keys", Some("ApiKey.view")),
    ("create-api-key", Some("ApiKey.create")),
    ("delete-api-key", Some("ApiKey.delete")),
    ("rotate-api-key", Some("ApiKey.create")),
    ("get-permission-catalog", Some("ApiKey.view")),
    ("list-integrations", Some("Integration.view")),
    ("create-integration", Some("Integration.create")),
    ("integration-health-check", Some("Integration.view")),
    ("get-integration", Some("Integration.view")),
    ("update-integration", Some("Integration.update")),
    ("delete-integration", Some("Integration.delete")),
    ("test-integration-endpoint", Some("Integration.view")),
    ("list-audit-events", Some("Audit.view")),
    ("get-audit-summary", Some("Audit.view")),
    ("get-phi-access-report", Some("Audit.view")),
    ("get-entity-access-log", Some("Audit.view")),
    ("get-access-review", Some("Audit.view")),
    ("create-audit-export", Some("Audit.view")),
    ("list-audit-exports", Some("Audit.view")),
    ("download-audit-export", Some("Audit.view")),
    ("list-calls", Some("Call.view")),
    ("get-call", Some("Call.view")),
    ("report-call", Some("Call.create")),
    ("get-twilio", Some("Integration.view")),
    ("set-twilio", Some("Integration.update")),
    ("delete-twilio", Some("Integration.update")),
    ("list-deliveries", Some("Call.view")),
    ("get-delivery", Some("Call.view")),
    ("retry-delivery", Some("Integration.update")),
    ("resolve-delivery", Some("Integration.update")),
    ("retry-failed-deliveries", Some("Integration.update")),
    ("get-sync-status", Some("Integration.view")),
    ("hold-integration", Some("Integration.update")),
    ("get-usage", Some("Workspace.view")),
];

/// In the order in which answers list them, which is the order in which roles come to have them.
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

both!(the_tables_speak_of_every_operation);
async fn the_tables_speak_of_every_operation() {
    let server = Server::start().await;
    let all: BTreeSet<&str> = server
        .app
        .contract
        .operations()
        .filter(|operation| wants_key(operation))
        .map(|operation| operation.id.as_str())
        .collect();
    assert_eq!(MATRIX.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), all);
    assert_eq!(OPENED_BY.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), all);
}

both!(each_role_may_do_what_the_table_says_and_nothing_else);
async fn each_role_may_do_what_the_table_says_and_nothing_else() {
    let server = Server::start().await;
    for (id, row) in &MATRIX {
        let operation = server.app.contract.operation(id).expect("an operation");
        for (role, allowed) in ROLES.iter().zip(row) {
            let tenant = server.tenant(&fresh_slug()).await;
            let service = tenant.service(role).await;
            let (_, other) = tenant.key(json!({ "duration_days": 30, "role": "viewer" })).await;
            let target = tenant.whole_target(other["key_id"].as_str().expect("a key id")).await;
            let answer = service.call(operation, &target).await;
            if *allowed {
                assert!(got_in(&answer), "{role} {id}: {}", answer.text);
            } else {
                assert_eq!(answer.status, 403, "{role} {id}: {}", answer.text);
            }
        }
    }
}

both!(a_narrowed_key_may_do_what_its_one_permission_opens_and_nothing_else);
async fn a_narrowed_key_may_do_what_its_one_permission_opens_and_nothing_else() {
    let server = Server::start().await;
    for (id, opened_by) in OPENED_BY {
        if (id.starts_with("create-") && id.ends_with("-workspace"))
            || ["nominate-owner", "accept-invitation", "accept-my-invitation"].contains(&id)
        {
            continue; // For users only. See the self-service tests and those of members and invitations.
        }
        if id == "create-invitation" {
            continue; // It gives a whole role away, which no key of one permission may do.
        }
        let operation = server.app.contract.operation(id).expect("an operation");
        for permission in PERMISSIONS {
            let tenant = server.tenant(&fresh_slug()).await;
            let narrow = json!({ "duration_days": 30, "role": "owner", "permissions": [permission] });
            let (service, _) = tenant.key(narrow.clone()).await;
            let (_, other) = tenant.key(narrow.clone()).await;
            let target = tenant.whole_target(other["key_id"].as_str().expect("a key id")).await;
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
}

both!(the_catalog_is_the_table);
async fn the_catalog_is_the_table() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let path = tenant.path("/api-keys/permission-catalog");
    tenant.service("viewer").await.get(&path).await.refused(403);
    let catalog = tenant.service("member").await.get(&path).await.expect(StatusCode::OK);
    let names = |list: &Value, field: &str| -> Vec<String> {
        let entries = list.as_array().expect("a list").iter();
        entries.map(|entry| entry[field].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&catalog["permissions"], "permission"), PERMISSIONS);
    assert_eq!(names(&catalog["roles"], "role"), ROLES);
    for (role, how_many) in catalog["roles"].as_array().expect("roles").iter().zip([2, 4, 6, 13, 13]) {
        assert_eq!(role["permissions"], json!(PERMISSIONS[..how_many]), "{}", role["role"]);
        // The platform's clients read the same under other names.
        assert_eq!(role["permission_names"], role["permissions"]);
        assert_eq!(role["name"], role["role"]);
        assert!(role["description"].is_string());
    }
    let priorities: Vec<i64> = catalog["roles"]
        .as_array()
        .expect("roles")
        .iter()
        .map(|role| role["priority"].as_i64().unwrap())
        .collect();
    assert!(priorities.is_sorted_by(|a, b| a < b), "{priorities:?}");
    for permission in catalog["permissions"].as_array().expect("permissions") {
        let text = |field: &str| permission[field].as_str().expect("a text").to_owned();
        assert_eq!(text("name"), text("permission"));
        assert_eq!(text("name"), format!("{}.{}", text("namespace"), text("action")));
    }
}

both!(only_owners_archive);
async fn only_owners_archive() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let archive = || (tenant.workspace("/archive"), json!({ "slug": "acme" }));
    let (path, body) = archive();
    assert_eq!(tenant.service("admin").await.post(&path, body.clone()).await.refused(403), "owner_only");
    // All that an admin may do, and a wrong slug: what may not be done is not even judged.
    assert_eq!(
        tenant.service("admin").await.post(&path, json!({ "slug": "other" })).await.refused(403),
        "owner_only"
    );
    let narrowed =
        json!({ "duration_days": 1, "role": "owner", "permissions": ["Workspace.view", "ApiKey.create"] });
    assert_eq!(tenant.key(narrowed).await.0.post(&path, body.clone()).await.refused(403), "forbidden");
    tenant.owner.get(&tenant.workspace("")).await.expect(StatusCode::OK);
    tenant.service("owner").await.post(&path, body).await.expect(StatusCode::OK);
    tenant.owner.get(&tenant.workspace("")).await.refused(401);
}

both!(a_user_creates_workspaces_of_their_own_under_both_names);
async fn a_user_creates_workspaces_of_their_own_under_both_names() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    for (path, slug) in [("/v1/workspaces/self-service", "first"), ("/v1/me/workspaces", "second")] {
        let created = tenant.owner.post(path, new_workspace(slug)).await.expect(StatusCode::CREATED);
        let id = created["id"].as_str().expect("an id");
        // An owner: nobody else may mint owners or archive.
        let body = json!({ "duration_days": 1, "role": "owner" });
        tenant.owner.post(&format!("/v1/{id}/api-keys"), body).await.expect(StatusCode::CREATED);
        // There is nothing to claim.
        let claim = json!({ "duration_days": 1 });
        server.anonymous().post(&format!("/v1/{id}/api-keys"), claim).await.refused(401);
    }
    let listed = tenant.owner.get("/v1/workspaces").await.expect(StatusCode::OK);
    let slugs: Vec<&str> = listed["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["slug"].as_str().expect("a slug"))
        .collect();
    assert_eq!(slugs, ["acme", "first", "second"]);
    assert_eq!(listed["total"], 3);
}

both!(a_service_of_any_role_creates_no_workspace_whatever_it_sends);
async fn a_service_of_any_role_creates_no_workspace_whatever_it_sends() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    for path in ["/v1/workspaces/self-service", "/v1/me/workspaces"] {
        for role in ROLES {
            let service = tenant.service(role).await;
            let code = if ["admin", "owner"].contains(&role) { "unsupported_principal" } else { "forbidden" };
            assert_eq!(service.post(path, new_workspace(&fresh_slug())).await.refused(403), code, "{role}");
            // May it? is asked before: is it right?
            assert_eq!(service.post(path, json!({ "slug": "!" })).await.refused(403), code, "{role}");
            assert_eq!(service.post(path, new_workspace("acme")).await.refused(403), code, "{role}");
        }
    }
    assert_eq!(server.count("SELECT count(*) FROM workspaces").await, 1);
}

both!(a_user_creates_workspaces_whatever_their_memberships_unless_their_key_is_narrower);
async fn a_user_creates_workspaces_whatever_their_memberships_unless_their_key_is_narrower() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    server.sql("UPDATE memberships SET role = 'viewer'").await;
    tenant.owner.post("/v1/me/workspaces", new_workspace("one")).await.expect(StatusCode::CREATED);
    server.sql("UPDATE api_keys SET permissions = '[\"Workspace.view\"]'").await;
    let refused = tenant.owner.post("/v1/me/workspaces", new_workspace("two")).await;
    assert_eq!(refused.refused(403), "forbidden");
    tenant.owner.get("/v1/workspaces").await.expect(StatusCode::OK);
}

both!(a_users_key_works_in_every_workspace_of_its_user_and_a_services_in_one);
async fn a_users_key_works_in_every_workspace_of_its_user_and_a_services_in_one() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let service = tenant.service("owner").await;
    let second =
        tenant.owner.post("/v1/me/workspaces", new_workspace("second")).await.expect(StatusCode::CREATED);
    let path = format!("/v1/workspaces/{}", second["id"].as_str().expect("an id"));
    tenant.owner.patch(&path, json!({ "name": "Renamed" })).await.expect(StatusCode::OK);
    assert_eq!(service.get(&path).await.refused(404), "workspace_not_found");
    assert_eq!(service.get("/v1/workspaces").await.expect(StatusCode::OK)["total"], 1);
}

both!(a_key_does_what_both_it_and_its_principals_membership_allow);
async fn a_key_does_what_both_it_and_its_principals_membership_allow() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let second =
        tenant.owner.post("/v1/me/workspaces", new_workspace("second")).await.expect(StatusCode::CREATED);
    let second = second["id"].as_str().expect("an id");
    // A membership that shrank takes its keys with it, in that workspace only.
    server.sql(format!("UPDATE memberships SET role = 'member' WHERE workspace_id = uuid '{second}'")).await;
    let path = format!("/v1/workspaces/{second}");
    tenant.owner.get(&path).await.expect(StatusCode::OK);
    tenant.owner.get(&format!("/v1/{second}/api-keys")).await.expect(StatusCode::OK);
    assert_eq!(tenant.owner.patch(&path, json!({ "name": "x" })).await.refused(403), "forbidden");
    let mint = json!({ "duration_days": 1, "role": "viewer" });
    assert_eq!(tenant.owner.post(&format!("/v1/{second}/api-keys"), mint).await.refused(403), "forbidden");
    tenant.owner.patch(&tenant.workspace(""), json!({ "name": "x" })).await.expect(StatusCode::OK);
    // A membership that grew lifts no key above itself.
    let viewer = tenant.service("viewer").await;
    server.sql("UPDATE memberships SET role = 'owner'").await;
    assert_eq!(viewer.patch(&tenant.workspace(""), json!({ "name": "y" })).await.refused(403), "forbidden");
    // A membership that ended is none.
    server.sql(format!("DELETE FROM memberships WHERE workspace_id = uuid '{second}'")).await;
    assert_eq!(tenant.owner.get(&path).await.refused(404), "workspace_not_found");
}

//! Names in every request of the document: characters that cannot be seen are refused, and stored names are served.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward_contract::Operation;
use ward_test::{Actor, Answer, Fields as _, Sending, Server, both, fresh_slug, new_integration};

/// The paths of the fields that hold a name, in a schema of the document.
fn names(document: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        return names(document, document.pointer(&target[1..]).unwrap(), at, found);
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        names(document, choice, at, found);
    }
    if !schema["items"].is_null() {
        names(document, &schema["items"], &format!("{at}/0"), found);
    }
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}/{field}");
        if field == "name" || field.ends_with("_name") {
            found.push(at.clone());
        }
        names(document, schema, &at, found);
    }
}

/// A body of the operation that has the field at `path`.
fn body_with(operation: &Operation, path: &str, tenant: &ward_test::Tenant, value: &str) -> Value {
    let mut body = tenant.target(tenant.owner_key_id()).body(operation).unwrap();
    let auth =
        json!({ "type": "api_key_header", "header_name": "x-key", "api_key_value": { "value": "a-key" } });
    if path.starts_with("/endpoints/") && body["endpoints"].is_null() {
        body["endpoints"] = new_integration("of-a-name")["endpoints"].clone();
    }
    if let Some((parent, _)) = path.split_once("/auth/") {
        body.pointer_mut(parent).unwrap()["auth"] = auth;
    }
    let (parent, field) = path.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[field] = json!(value);
    body
}

async fn send(actor: &Actor, operation: &Operation, path: &str, body: &Value) -> Answer {
    let method = Method::from_bytes(operation.method.as_str().as_bytes()).unwrap();
    actor.send(method, path, Sending::json(body)).await
}

both!(no_name_of_the_document_hides_a_character, async || {
    let (server, tenant) = Server::with_tenant().await;
    let target = tenant.whole_target(tenant.owner_key_id()).await;
    let document: Value = serde_json::from_slice(server.app.contract.document()).unwrap();
    let mut fields = Vec::new();
    for operation in server.app.contract.operations().filter(|operation| operation.body.is_some()) {
        let declared = &document["paths"][&operation.path][operation.method.as_str().to_lowercase()];
        let schema = &declared["requestBody"]["content"]["application/json"]["schema"];
        let mut found = Vec::new();
        names(&document, schema, "", &mut found);
        for path in found {
            let loc = format!("body{}", path.replace('/', "."));
            let of_workspace = operation.id.contains("workspace");
            for unfit in
                ["x\ny", "a\u{7}b", "a\u{202e}b", "a\u{2066}b", "Ac\u{ad}me", "Ac\u{200d}me", "\u{200b}"]
            {
                // The reference's recorded answer accepts this name of a workspace.
                if of_workspace && unfit == "\u{200b}" {
                    continue;
                }
                let body = body_with(operation, &path, &tenant, unfit);
                let answer = send(&tenant.owner, operation, &target.path(operation), &body).await;
                assert_eq!(
                    answer.status,
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "{} {path} {unfit:?}",
                    operation.id
                );
                assert!(answer.problem_locs().contains(&loc), "{} {unfit:?}: {}", operation.id, answer.text);
            }
            let plain = path.ends_with("/display_name") || of_workspace || operation.id == "create-api-key";
            for fit in [
                "École Ste-Anne",
                "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
                "\u{1f469}\u{200d}\u{2695}\u{fe0f}",
            ] {
                if plain {
                    let body = body_with(operation, &path, &tenant, fit);
                    let answer = send(&tenant.owner, operation, &target.path(operation), &body).await;
                    assert!(answer.status.is_success(), "{} {path} {fit:?}: {}", operation.id, answer.text);
                    assert!(answer.text.contains(fit), "{} {fit:?}: {}", operation.id, answer.text);
                }
            }
            fields.push(format!("{}{path}", operation.id));
        }
    }
    for known in [
        "create-workspace/name",
        "update-workspace/name",
        "create-api-key/name",
        "create-integration/display_name",
    ] {
        assert!(fields.iter().any(|field| field == known), "{known} is not among {fields:?}");
    }
    assert!(fields.len() > 10, "{fields:?}");
});

both!(a_name_that_was_stored_before_is_served, async || {
    let (server, tenant) = Server::with_tenant().await;
    tenant.post("/integrations", new_integration("ehr")).await.created();
    for table in ["workspaces", "api_keys"] {
        assert!(server.sql(format!("UPDATE {table} SET name = 'a\u{202e}b'")).await > 0);
    }
    assert_eq!(tenant.owner.get(&tenant.workspace("")).await.ok().text("name"), "a\u{202e}b");
    let keys = tenant.get("/api-keys").await.ok();
    assert_eq!(keys["items"][0].text("name"), "a\u{202e}b");
    // Another field can still change.
    let other = json!({ "environment": "staging" });
    assert_eq!(tenant.owner.patch(&tenant.workspace(""), other).await.ok().text("name"), "a\u{202e}b");
});

both!(the_operator_names_no_key_with_hidden_characters, async || {
    let (server, tenant) = Server::with_tenant().await;
    let issue = async |name: &str| {
        ward::operator::issue_key(&server.app, &tenant.id, "viewer", name, Some(7))
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    for (name, named) in [("\u{200b}", "U+200B"), ("x\ny", "U+000A"), ("a\u{202e}b", "U+202E")] {
        assert!(issue(name).await.unwrap_err().contains(named), "{name:?}");
    }
    for (name, named) in [("a\u{7}b", "U+0007"), ("\u{200b}", "U+200B")] {
        let wanted = json!({ "slug": fresh_slug(), "name": name, "environment": "development" });
        let refused = ward::operator::create_workspace(&server.app, &wanted).await.unwrap_err().to_string();
        assert!(refused.contains(named), "{refused}");
    }
    assert_eq!(issue("Ticket 7").await, Ok(()));
});

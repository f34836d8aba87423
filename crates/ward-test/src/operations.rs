//! A valid call for every operation, so that a test can walk the whole document.

use std::collections::HashMap;
use std::sync::LazyLock;

use reqwest::Method;
use serde_json::{Value, json};
use ward::api_keys::secret::{KeyId, NewSecret};
use ward_contract::{Access, Operation};

use crate::conformance::DOCUMENT;
use crate::{Actor, Answer, Sending, fresh_slug, new_workspace};

/// An id that does not exist.
const UNKNOWN: &str = "01900000-0000-7000-8000-000000000000";

/// The document's examples of bodies, by `operationId`.
static EXAMPLES: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(DOCUMENT).expect("the document is JSON");
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(_, path)| path.as_object().into_iter().flatten());
    let named = operations.filter_map(|(_, it)| Some((it["operationId"].as_str()?, it.get("x-example")?)));
    named.map(|(id, example)| (id.to_owned(), example.clone())).collect()
});

/// The objects that a walk over the operations uses.
#[derive(Clone, Debug)]
pub struct Target {
    /// The value of `workspace_id` in paths.
    pub workspace: String,
    /// The slug that confirms an archive.
    pub slug: String,
    /// The value of `key_id` in paths.
    pub key_id: String,
    /// The `integration_id` of paths. Its endpoint is [`ENDPOINT`].
    pub integration: String,
}

/// The name of the only endpoint of [`new_integration`].
pub const ENDPOINT: &str = "find";

/// A valid `CreateIntegrationRequest`, for an integration at an unreachable address.
pub fn new_integration(name: &str) -> Value {
    json!({
        "name": name,
        "display_name": format!("The {name} service"),
        "base_url": "https://127.0.0.1:1",
        "endpoints": [{ "name": ENDPOINT, "description": "Finds.", "path": "/{id}", "method": "GET" }],
    })
}

impl Target {
    /// The path of this operation with the target's ids.
    pub fn path(&self, operation: &Operation) -> String {
        // Unknown members and invitations: an authorized call gets 404 for them and changes nothing.
        let path =
            operation.path.replace("{workspace_id}", &self.workspace).replace("{key_id}", &self.key_id);
        // The walk does not create these: an authorized call is told that they do not exist.
        let path = path.replace("{slug}", &self.slug);
        let path = path.replace("{call_sid}", "CA-of-the-walk").replace("{delivery_id}", UNKNOWN);
        let path = path.replace("{entity_id}", NOBODY).replace("{invitation_id}", NOBODY);
        let path = path.replace("{archived_id}", NOBODY);
        let path = path.replace("{kid}", "a-key-of-nobody").replace("{rule_id}", NOBODY);
        let path = path.replace("{filename}", &format!("audit-{UNKNOWN}.ndjson"));
        path.replace("{integration_id}", &self.integration).replace("{endpoint_name}", ENDPOINT)
    }

    /// A body that this operation accepts: the document's example, unless the tests need another. If the operation
    /// changes something, the body does too.
    ///
    /// # Panics
    ///
    /// The document has no example for the operation.
    pub fn body(&self, operation: &Operation) -> Option<Value> {
        operation.body.as_ref()?;
        Some(match operation.id.as_str() {
            "create-workspace" | "create-self-service-workspace" | "create-my-workspace" => {
                new_workspace(&fresh_slug())
            }
            "update-workspace" => json!({ "name": format!("Renamed to {}", fresh_slug()) }),
            "archive-workspace" => json!({ "slug": self.slug }),
            "update-test-caller-numbers" => json!({ "numbers": [fresh_number()] }),
            "set-access-policy" => json!({ "networks": ["127.0.0.0/8"], "issuers": [] }),
            "set-api-key-networks" => json!({ "networks": ["127.0.0.0/8"] }),
            "convert-workspace-environment" => {
                json!({ "target": "staging", "confirm_slug": self.slug, "accept": ["real_calls_present"] })
            }
            "rename-workspace" => json!({ "slug": fresh_slug(), "confirm_slug": self.slug }),
            "create-api-key" => json!({ "duration_days": 7, "role": "viewer" }),
            // A key of the one permission that the operation needs can give that one.
            "create-trust-rule" => json!({
                "name": "of a walk", "issuer": "https://id.example", "audience": "https://ward.example",
                "conditions": [{ "claim": "sub", "equals": fresh_slug() }], "role": "admin", "permissions": ["ApiKey.create"],
            }),
            "report-call" => {
                json!({ "status": "completed", "caller_id": fresh_number(), "direction": "inbound" })
            }
            "set-twilio" => {
                json!({ "account_sid": format!("AC{:0>32}", 7), "auth_token": "a-token-of-a-walk" })
            }
            "retry-failed-deliveries" => json!({}),
            "create-audit-export" | "backfill-deliveries" => {
                json!({ "date_from": "2020-01-01T00:00:00Z", "date_to": "2100-01-01T00:00:00Z" })
            }
            "resolve-delivery" => json!({ "in_ehr": false }),
            "create-integration-key" => json!({ "algorithm": "ES384" }),
            "drop-delivery" => json!({ "reason": "for a walk" }),
            "correct-call" | "amend-delivery" => json!({ "patient_id": "pat-1" }),
            "hold-integration" => json!({ "held": true }),
            "rotate-api-key" | "extend-invitation" | "resend-invitation" => json!({ "duration_days": 7 }),
            "nominate-owner" => json!({ "entity_id": NOBODY }),
            "set-member-role" | "create-invitation" => json!({ "role": "viewer" }),
            "open-handover" => json!({ "token": "no token" }),
            "set-key-policy" => json!({ "ceiling_days": { "viewer": 80 } }),
            "revoke-presented-api-key" => json!({ "api_key": "no key" }),
            "report-leaked-keys" => json!([{ "token": "no key" }]),
            "set-leaked-key-policy" => json!({ "action": "quarantine" }),
            "explain-access" => json!({ "caller": NOBODY, "operation": "get-workspace" }),
            "accept-invitation" => json!({ "invitation": format!("ward_invite_{}", fresh_slug()) }),
            "create-integration" => new_integration(&fresh_slug()),
            "update-integration" => json!({ "display_name": format!("Renamed to {}", fresh_slug()) }),
            "test-integration-endpoint" => json!({ "params": { "id": "1" } }),
            other => EXAMPLES.get(other).expect("a body has an example in the document").clone(),
        })
    }
}

/// An id that does not exist.
const NOBODY: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

/// Whether the call passed the authorization: it succeeded, or only its object was missing.
pub fn got_in(answer: &Answer) -> bool {
    let missing = [
        "member_not_found",
        "invitation_not_found",
        "transfer_not_found",
        "call_not_found",
        "delivery_not_found",
        "review_not_found",
        "integration_not_found",
        "entity_not_found",
        "export_not_found",
        "trust_rule_not_found",
        "key_not_found",
        "archived_workspace_not_found",
    ];
    // The walk's integration has no `auth` that signs, and its workspace no Twilio account.
    let unsuited = answer.status == 409
        && ["\"integration_signs_nothing\"", "\"twilio_not_configured\""]
            .iter()
            .any(|code| answer.text.contains(code));
    unsuited
        || answer.status.is_success()
        || (answer.status == 404 && missing.iter().any(|code| answer.text.contains(&format!("\"{code}\""))))
}

impl Actor {
    /// Sends a valid call of this operation.
    pub async fn call(&self, operation: &Operation, target: &Target) -> Answer {
        self.call_with(operation, target, &[]).await
    }

    /// Sends a valid call of this operation with further headers.
    pub async fn call_with(
        &self,
        operation: &Operation,
        target: &Target,
        headers: &[(&str, &str)],
    ) -> Answer {
        let body = target.body(operation);
        let sending = body.as_ref().map(Sending::json).unwrap_or_default();
        let method = Method::from_bytes(operation.method.as_str().as_bytes()).expect("a method");
        self.send(method, &target.path(operation), Sending { headers, ..sending }).await
    }
}

/// Whether the operation requires a key.
pub fn wants_key(operation: &Operation) -> bool {
    matches!(operation.access, Access::Key { .. })
}

/// The permission that the operation requires, if any.
pub fn wanted_permission(operation: &Operation) -> Option<&str> {
    match &operation.access {
        Access::Key { permission, .. } => permission.as_deref(),
        Access::Anonymous => None,
    }
}

/// A well-formed key with a valid checksum and this id, but with another secret.
pub fn wrong_secret_of(key_id: &str) -> String {
    let key_id = KeyId::parse(key_id).expect("a key id");
    NewSecret::for_key(key_id).expect("random bits").text.to_string()
}

/// A well-formed key that was never issued.
pub fn unknown_key() -> String {
    NewSecret::generate().expect("random bits").text.to_string()
}

/// A phone number that no other call in this process returns.
pub fn fresh_number() -> String {
    let number = fresh_slug();
    format!("+1555{:0>7}", number.trim_start_matches("clinic-"))
}

//! Explanations: the answer to a question about another caller is what that caller's real request gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ward_contract::Operation;
use ward_test::{Actor, Answer, Cost, Fields as _, Prover, SigningKey, Target, both, unknown_key, wants_key};

use crate::members::{Shared, entity};
use crate::trust_rules::{begins, is, job, path as rule_path, rule, scene, trust};

/// An id that no principal has.
const NOBODY: &str = "01900000-0000-7000-8000-00000000abcd";

/// One kind of caller: its name for messages, the way to ask about it, and the caller itself.
struct Kind {
    what: &'static str,
    named: String,
    actor: Actor,
}

/// A workspace with callers of every kind.
struct Scene {
    shared: Shared,
    ada: Actor,
    kinds: Vec<Kind>,
    target: Target,
}

impl Scene {
    async fn new() -> Self {
        let (shared, ada) = Shared::new().await;
        let mut kinds = Vec::new();
        let mut kind = |what, named: String, actor: Actor| kinds.push(Kind { what, named, actor });
        kind("an owner by token", entity(&ada).await, ada.clone());
        for (what, role) in [("an admin by token", "admin"), ("a viewer by token", "viewer")] {
            let (person, id) = shared.member(&ada, role, role).await;
            kind(what, id, person);
        }
        for (what, body) in [
            ("a full key of a user", json!({ "role": "owner", "speaks_for": "self" })),
            ("a low key of a user", json!({ "role": "viewer", "speaks_for": "self" })),
            (
                "a narrowed key of a user",
                json!({ "role": "owner", "speaks_for": "self",
                        "permissions": ["Workspace.view", "Integration.view", "ApiKey.view", "ApiKey.create"] }),
            ),
            ("a service's key", json!({ "role": "operator" })),
            ("an owner's service", json!({ "role": "owner" })),
            ("an expired key", json!({ "role": "owner", "duration_days": 1 })),
            ("a revoked key", json!({ "role": "admin" })),
            ("a key in quarantine", json!({ "role": "owner", "speaks_for": "self" })),
            ("a key outside of its networks", json!({ "role": "owner", "networks": ["192.0.2.0/24"] })),
        ] {
            let mut body = body;
            if body["duration_days"].is_null() {
                body["duration_days"] = json!(60);
            }
            let (actor, minted) = shared.mint(&ada, body).await;
            kind(what, minted.text("key_id").to_owned(), actor);
        }
        // An explanation is about a request with the key's proof, as it is about one with the key's present secret.
        let prover = Arc::new(Prover::new(&shared.server, "ES256"));
        let bound = json!({ "role": "owner", "duration_days": 60, "bound_to": { "jkt": prover.jkt() } });
        let (actor, minted) = shared.mint(&ada, bound).await;
        let key_id = minted.text("key_id").to_owned();
        kinds.push(Kind { what: "a bound key", named: key_id, actor: actor.proving(&prover) });
        let leaked = kinds.iter().find(|kind| kind.what == "a key in quarantine").expect("a kind");
        let quarantine = "UPDATE api_keys SET quarantined_at = created_at WHERE key_id";
        shared.server.sql(format!("{quarantine} = '{}'", leaked.named)).await;
        let mut kind = |what, named: String, actor: Actor| kinds.push(Kind { what, named, actor });
        let (gone, gone_id) = shared.member(&ada, "gone", "admin").await;
        let own = json!({ "role": "viewer", "speaks_for": "self", "duration_days": 60 });
        let (left, minted) = shared.mint(&gone, own).await;
        kind("a key of a former member", minted.text("key_id").to_owned(), left);
        kind("a former member", gone_id.clone(), gone);
        shared.remove(&ada, &gone_id).await.no_content();
        let revoked = kinds.iter().find(|kind| kind.what == "a revoked key").expect("a kind");
        ada.delete(&format!("{}/{}", shared.keys(), revoked.named)).await.no_content();
        let target = target(&shared, &ada).await;
        let stranger = shared.server.tenant("stranger").await;
        kinds.push(Kind {
            what: "a stranger's key",
            named: stranger.owner_key_id().to_owned(),
            actor: stranger.owner.clone(),
        });
        shared.server.clock.advance(Duration::from_hours(25));
        // Tokens have expired with the clock's move; each person signs in again.
        let ada = shared.person("ada");
        for (kind, subject) in
            kinds.iter_mut().filter(|kind| kind.what.ends_with("by token")).zip(["ada", "admin", "viewer"])
        {
            kind.actor = shared.person(subject);
        }
        for kind in kinds.iter_mut().filter(|kind| kind.what == "a former member") {
            kind.actor = shared.person("gone");
        }
        Self { shared, ada, kinds, target }
    }

    async fn explain(&self, caller: &str, operation: &str) -> Answer {
        let path = format!("/v1/{}/access/explain", self.shared.id);
        self.ada.post(&path, json!({ "caller": caller, "operation": operation })).await
    }
}

/// Objects that a call of every kind can use: a key of few permissions, and an integration.
async fn target(shared: &Shared, ada: &Actor) -> Target {
    let few = json!({ "role": "viewer", "permissions": ["Workspace.view"], "duration_days": 60 });
    let (_, minted) = shared.mint(ada, few).await;
    let integrations = format!("/v1/{}/integrations", shared.id);
    let new = ward_test::new_integration(&ward_test::fresh_slug());
    let made = ada.post(&integrations, new).await.created();
    Target {
        workspace: shared.id.clone(),
        slug: "shared".to_owned(),
        key_id: minted.text("key_id").to_owned(),
        integration: made.text("id").to_owned(),
    }
}

/// The parts of an answer that the gate decides: nothing if it lets the request in.
fn decided(answer: &Answer) -> Value {
    let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    let status = answer.status.as_u16();
    let refused =
        matches!(status, 401 | 403) || (status == 404 && body["error_code"] == "workspace_not_found");
    if !refused {
        return json!([true, null, null, null, null]);
    }
    json!([false, status, body["error_code"], body["missing"], body["because"]])
}

fn predicted(explained: &Value) -> Value {
    explained.fields(["admitted", "status", "error_code", "missing", "because"])
}

/// Operations that end the scene, each with a scene of its own.
const ENDING: [&str; 2] = ["leave-workspace", "archive-workspace"];

/// Compares the explanation with the answer of the real request.
async fn compare(scene: &Scene, operation: &Operation, kind: &Kind, seen: &mut BTreeMap<String, u32>) {
    let target = &scene.target;
    let what = format!("{} by {}", operation.id, kind.what);
    let before = scene.explain(&kind.named, &operation.id).await;
    let answer = kind.actor.call(operation, target).await;
    if ["a stranger's key", "a former member"].contains(&kind.what) {
        // The workspace's admin learns nothing of a stranger, who learns nothing of the workspace.
        let code = if kind.what == "a former member" { "entity_not_found" } else { "api_key_not_found" };
        before.refused_as(404, code);
        if operation.path.contains("{workspace_id}") && wants_key(operation) {
            assert_eq!(answer.refused(404), "workspace_not_found", "{what}");
        }
        return;
    }
    let explained = before.ok();
    assert_eq!(predicted(&explained), decided(&answer), "{what}: {explained} {}", answer.text);
    assert_eq!(explained["operation_id"], operation.id.as_str());
    let last = explained.list("checks").last().expect("a check");
    assert_eq!(last["passed"], explained["admitted"], "{what}: {explained}");
    if let Some(because) = explained["because"].as_object() {
        assert_eq!(last["reason"], because["reason"], "{what}");
    }
    let outcome = format!("{} {}", explained["status"], last["check"]);
    *seen.entry(outcome).or_default() += 1;
}

both!(the_gate_explains_exactly_what_a_real_request_gets, async || {
    let scene = Scene::new().await;
    let operations: Vec<Arc<Operation>> = scene.shared.server.app.contract.operations().cloned().collect();
    let mut seen = BTreeMap::new();
    for operation in &operations {
        // The credential of this one is a signature that no member and no key has.
        if operation.id == "receive-twilio-status" || ENDING.contains(&operation.id.as_str()) {
            continue;
        }
        for kind in &scene.kinds {
            compare(&scene, operation, kind, &mut seen).await;
        }
    }
    for outcome in ["null \"credential\"", "null \"permission\"", "null \"role\"", "null \"caller\""] {
        assert!(seen.contains_key(outcome), "{outcome} is missing in {seen:#?}");
    }
    for outcome in
        ["401 \"credential\"", "403 \"quarantine\"", "403 \"permission\"", "403 \"role\"", "403 \"caller\""]
    {
        assert!(seen.contains_key(outcome), "{outcome} is missing in {seen:#?}");
    }
});

both!(the_gate_explains_what_ends_a_membership_or_the_workspace, async || {
    for id in ENDING {
        let mut seen = BTreeMap::new();
        let scene = Scene::new().await;
        let operation = scene.shared.server.app.contract.operation(id).expect("an operation").clone();
        // The owner by token comes last, because the workspace ends with it.
        for kind in scene.kinds.iter().rev() {
            compare(&scene, &operation, kind, &mut seen).await;
            if scene.ada.get(&scene.shared.path("")).await.status == 404 {
                break;
            }
        }
        assert!(seen.len() > 1, "{id}: {seen:?}");
    }
});

both!(a_question_changes_nothing_and_charges_nobody, async || {
    let scene = Scene::new().await;
    scene.shared.server.app.flush().await;
    // The question's own credential is used and noted before.
    scene.explain(NOBODY, "get-workspace").await.refused(404);
    let before = scene.shared.server.dump().await;
    for kind in &scene.kinds {
        for operation in ["update-workspace", "create-api-key", "archive-workspace", "get-me"] {
            let (_, cost) = scene.shared.server.costs(scene.explain(&kind.named, operation)).await;
            assert_eq!(cost.writes, 0, "{operation} by {}", kind.what);
        }
    }
    scene.shared.server.app.flush().await;
    let after = scene.shared.server.dump().await;
    let changed: Vec<_> = after.iter().filter(|row| !before.contains(row)).collect();
    // Ada's token leaves no trace either, so nothing at all has changed: no last use, no refusal in the audit.
    assert!(changed.is_empty(), "{changed:#?}");
});

both!(a_caller_of_elsewhere_is_like_one_that_does_not_exist, async || {
    let scene = Scene::new().await;
    let server = &scene.shared.server;
    let other = server.tenant("other").await;
    let theirs = other.claimed.text("created_by_entity_id");
    let unknown = &unknown_key()[5..27];
    for (elsewhere, absent) in [(theirs, NOBODY), (other.owner_key_id(), unknown)] {
        let mut faces = Vec::new();
        for caller in [elsewhere, absent] {
            let (answer, cost) = server.costs(scene.explain(caller, "get-workspace")).await;
            assert_eq!(answer.status, 404, "{}", answer.text);
            faces.push((answer.anonymized(), cost));
        }
        assert_eq!(faces[0], faces[1]);
        assert_ne!(faces[0].1, Cost::NOTHING);
    }
    for nonsense in ["", "x", "not a key", &"z".repeat(64), &unknown_key()] {
        scene.explain(nonsense, "get-workspace").await.refused_as(404, "api_key_not_found");
    }
    // A caller without membership learns nothing, and one without the permission learns only that.
    let path = format!("/v1/{}/access/explain", scene.shared.id);
    let asked = json!({ "caller": entity(&scene.ada).await, "operation": "get-workspace" });
    other.owner.post(&path, asked.clone()).await.refused_as(404, "workspace_not_found");
    server.anonymous().post(&path, asked.clone()).await.refused_as(401, "unauthorized");
    scene.shared.person("viewer").post(&path, asked).await.refused_as(403, "forbidden");
});

both!(an_operation_is_named_by_its_id_or_by_a_request, async || {
    let scene = Scene::new().await;
    let id = &scene.shared.id;
    let caller = entity(&scene.shared.person("viewer")).await;
    for (named, operation) in [
        (format!("GET /v1/workspaces/{id}"), "get-workspace"),
        (format!("PATCH /v1/workspaces/{id}"), "update-workspace"),
        (format!("HEAD /v1/{id}/api-keys?limit=3"), "list-api-keys"),
        (format!("GET /v1/{id}/api-keys/permission-catalog"), "get-permission-catalog"),
        ("POST /v1/workspaces/self-service".to_owned(), "create-self-service-workspace"),
    ] {
        let explained = scene.explain(&caller, &named).await.ok();
        assert_eq!(explained["operation_id"], operation, "{named}");
    }
    for operation in scene.shared.server.app.contract.operations() {
        let by_id = scene.explain(&caller, &operation.id).await.ok();
        let request = format!("{} {}", operation.method, scene.target.path(operation));
        assert_eq!(scene.explain(&caller, &request).await.ok(), by_id, "{request}");
    }
    for unknown in [
        "get-workspaces".to_owned(),
        "GET".to_owned(),
        "GET /v1".to_owned(),
        format!("DELETE /v1/workspaces/{id}"),
        format!("HEAD /v1/workspaces/{id}"),
        format!("GET  /v1/workspaces/{id}"),
        format!("GET /v1/workspaces/{id}/"),
        "GET /v1/workspaces/by-slug/a-slug-of-nobody".to_owned(),
        "GET /v1/workspaces/01900000-0000-7000-8000-00000000abcd".to_owned(),
    ] {
        scene.explain(&caller, &unknown).await.refused_as(404, "operation_not_found");
    }
    // The permission in the query of `authorize` counts as it does for the real request.
    for (query, admitted) in
        [("", true), ("?permission=Workspace.view", true), ("?permission=Call.create", false)]
    {
        let explained = scene.explain(&caller, &format!("GET /v1/{id}/authorize{query}")).await.ok();
        assert_eq!(explained["admitted"], admitted, "{query}");
        let real = scene.shared.person("viewer").get(&format!("/v1/{id}/authorize{query}")).await;
        assert_eq!(predicted(&explained), decided(&real), "{query}");
    }
    // A misspelt or repeated parameter would ask for less than its author means.
    for query in
        ["?Permission=Call.create", "?permission=Workspace.view&permission=Call.create", "?permission=Nope"]
    {
        scene.explain(&caller, &format!("GET /v1/{id}/authorize{query}")).await.refused(422);
        scene.shared.person("viewer").get(&format!("/v1/{id}/authorize{query}")).await.refused(422);
    }
});

both!(a_key_that_was_rotated_is_explained_with_its_present_secret, async || {
    let (shared, ada) = Shared::new().await;
    let (old, minted) = shared.mint(&ada, json!({ "role": "viewer", "duration_days": 9 })).await;
    let key_id = minted.text("key_id");
    ada.post(&format!("{}/{key_id}/rotate", shared.keys()), json!({ "duration_days": 9 })).await.ok();
    old.get("/v1/auth/me").await.refused(401);
    let target = target(&shared, &ada).await;
    let scene = Scene { shared, ada, kinds: Vec::new(), target };
    assert_eq!(scene.explain(key_id, "get-auth-info").await.ok()["admitted"], true);
    // A member whose issuer is not configured, or who never had a token, can present none.
    let replica = scene.shared.server.replica_with(|config| config.issuers.clear()).await;
    let owner = json!({ "role": "owner", "speaks_for": "self", "duration_days": 9 });
    let (_, owner) = scene.shared.mint(&scene.ada, owner).await;
    let path = format!("/v1/{}/access/explain", scene.shared.id);
    let asked = json!({ "caller": entity(&scene.ada).await, "operation": "get-workspace" });
    let explained = replica.bearing(owner.text("api_key")).post(&path, asked).await.ok();
    assert_eq!(explained.fields(["admitted", "status", "missing"]), json!([false, 401, null]));
    assert_eq!(explained["checks"][0]["reason"], "no_identity");
});

both!(networks_and_accepted_issuers_are_explained_as_they_decide, async || {
    let scene = Scene::new().await;
    let (shared, inside, outside) = (&scene.shared, "127.0.0.1", "192.0.2.7");
    let path = format!("/v1/{}/access/explain", shared.id);
    let own = json!({ "role": "viewer", "duration_days": 9, "networks": [outside] });
    let (bound, minted) = shared.mint(&scene.ada, own).await;
    let ask = async |caller: &str, address: &str| {
        let asked = json!({ "caller": caller, "operation": "get-workspace", "address": address });
        scene.ada.post(&path, asked).await.ok()
    };
    let key_id = minted.text("key_id");
    let refused = ask(key_id, inside).await;
    assert_eq!(refused["checks"][0]["reason"], "key_network", "{refused}");
    assert_eq!(predicted(&refused), decided(&bound.get(&shared.path("")).await));
    for same in [outside, "::ffff:192.0.2.7"] {
        assert_eq!(ask(key_id, same).await["admitted"], true, "{same}");
    }
    // Without an address, the question is about the asker's own.
    assert_eq!(predicted(&scene.explain(key_id, "get-workspace").await.ok()), predicted(&refused));
    // The workspace admits its own address only, so a member from elsewhere is like a stranger.
    let policy = json!({ "networks": [inside], "issuers": [] });
    scene.ada.put(&shared.path("/access-policy"), policy).await.ok();
    let viewer = entity(&shared.person("viewer")).await;
    assert_eq!(ask(&viewer, inside).await["admitted"], true);
    let refused = ask(&viewer, outside).await;
    assert_eq!(
        refused.fields(["status", "error_code", "missing"]),
        json!([404, "workspace_not_found", null])
    );
    assert_eq!(refused["checks"][1].fields(["check", "reason"]), json!(["workspace", "workspace_network"]));
    for wrong in ["", "here", "192.0.2.0/24", "192.0.2"] {
        let asked = json!({ "caller": viewer, "operation": "get-workspace", "address": wrong });
        assert_eq!(scene.ada.post(&path, asked).await.problem_locs(), ["body.address"], "{wrong}");
    }
});

both!(a_workload_is_explained_by_its_rule, async || {
    let (server, issuer, tenant) = scene().await;
    issuer.serve_keys(vec![SigningKey::new("RS256", Some("first"))]);
    let conditions = json!([is("repository_id", "74231904"), begins("ref", "refs/heads/")]);
    let made = trust(&tenant, rule(issuer.url(), conditions, "operator")).await;
    let workload = job(&server, &issuer);
    let target = tenant.target(tenant.owner_key_id());
    let ask = async |operation: &str| {
        let asked = json!({ "caller": made.text("id"), "operation": operation });
        tenant.post("/access/explain", asked).await
    };
    for operation in server.app.contract.operations().filter(|operation| wants_key(operation)) {
        if ENDING.contains(&operation.id.as_str()) {
            continue;
        }
        let explained = ask(&operation.id).await.ok();
        let answer = workload.call(operation, &target).await;
        assert_eq!(predicted(&explained), decided(&answer), "{}: {explained} {}", operation.id, answer.text);
    }
    tenant.owner.delete(&rule_path(&tenant, &made)).await.no_content();
    ask("get-workspace").await.refused_as(404, "entity_not_found");
    workload.get(&tenant.workspace("")).await.refused(401);
});

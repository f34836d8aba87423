//! Every operation of the document through `ward api`, with the same outcome as a direct request.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use ward_contract::Operation;
use ward_test::{Answer, Fields as _, Server, Target, Tenant, both, fresh_slug, wants_key};

use super::{Person, Ran};

/// The texts that the command takes from files only.
const SECRET: [&str; 3] = ["auth_token", "invitation", "token"];

async fn target(server: &Server) -> (Tenant, Target) {
    let tenant = server.tenant(&fresh_slug()).await;
    let (_, minted) = tenant.key(json!({ "duration_days": 30 })).await;
    let target = tenant.whole_target(minted.text("key_id")).await;
    (tenant, target)
}

/// The arguments of the command for the request that a direct call sends.
fn arguments(person: &Person, operation: &Operation, target: &Target) -> Vec<String> {
    let path = target.path(operation);
    let placeholders = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = placeholders
        .filter(|name| *name != "workspace_id")
        .map(|name| format!("{name}={}", operation.path_parameter(&path, name).unwrap()));
    let mut arguments: Vec<String> = in_path.collect();
    match target.body(operation) {
        None => {}
        Some(Value::Object(fields)) => arguments.extend(fields.iter().map(|(name, value)| match value {
            Value::String(text) if SECRET.contains(&name.as_str()) => {
                format!("{name}=@{}", person.file("secret", text).display())
            }
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}:={other}"),
        })),
        Some(other) => arguments.push(format!("@{}", person.file("body.json", other.to_string()).display())),
    }
    arguments
}

/// The exit code that the documentation names for a status.
fn exit_of(status: u16) -> i32 {
    match status {
        200..=299 => 0,
        401 | 403 => 3,
        404 => 4,
        409 => 5,
        422 => 6,
        other => panic!("a walk does not get {other}"),
    }
}

fn compare(operation: &Operation, direct: &Answer, ran: &Ran) {
    let status = direct.status.as_u16();
    assert_eq!(ran.exit, exit_of(status), "{}: {ran:?} and {}", operation.id, direct.text);
    let answer: Value = serde_json::from_str(&direct.text).unwrap_or_default();
    if ran.exit != 0 {
        assert_eq!(ran.error()["code"], answer["error_code"], "{}", operation.id);
        return;
    }
    let fields = |value: &Value| -> Vec<String> {
        value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    match (status, direct.header("content-type")) {
        (204, _) => assert_eq!(ran.out, "", "{}", operation.id),
        (_, "application/json") => assert_eq!(fields(&ran.json()), fields(&answer), "{}", operation.id),
        _ => assert_eq!(ran.out, direct.text, "{}", operation.id),
    }
}

both!(every_operation_has_the_same_outcome_as_a_direct_request, async || {
    let server = Arc::new(Server::start().await);
    let places = Arc::new(Semaphore::new(4));
    let operations: Vec<Arc<Operation>> = server.app.contract.operations().cloned().collect();
    let mut walks = JoinSet::new();
    for operation in &operations {
        let (server, places, operation) = (server.clone(), places.clone(), operation.clone());
        walks.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let (tenant, other) = target(&server).await;
            let actor = if wants_key(&operation) { tenant.owner.clone() } else { server.anonymous() };
            let direct = actor.call(&operation, &other).await;
            let (tenant, target) = target(&server).await;
            let person = Person::at(&server.url(), tenant.owner.bearer.as_deref().unwrap(), &tenant.id);
            let given = arguments(&person, &operation, &target);
            let given: Vec<&str> = given.iter().map(String::as_str).collect();
            let ran = person.run(&[&["api", &operation.id, "--json"], &given[..]].concat()).await;
            compare(&operation, &direct, &ran);
            ran.exit
        });
    }
    let exits = walks.join_all().await;
    assert_eq!(exits.len(), operations.len());
    let well = exits.iter().filter(|exit| **exit == 0).count();
    assert!(well * 2 > operations.len(), "{well} of {} operations succeeded", operations.len());
});

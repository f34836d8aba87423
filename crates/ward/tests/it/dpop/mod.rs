//! Credentials that are bound to a public key, and DPoP proofs of its possession (RFC 9449).

mod audited;
mod gate;
mod keys;
mod nonces;
mod proofs;
mod published;
mod replays;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_test::{Actor, Answer, Prover, Server, Tenant};

/// A key of the tenant that is bound to a new key pair, with an actor who proves its possession.
async fn bound(server: &Server, tenant: &Tenant, role: &str) -> (Actor, Arc<Prover>, Value) {
    let prover = Arc::new(Prover::new(server, "ES256"));
    let body = json!({ "duration_days": 30, "role": role, "bound_to": { "jkt": prover.jkt() } });
    let (actor, minted) = tenant.key(body).await;
    (actor.proving(&prover), prover, minted)
}

/// The text of an actor's credential.
fn credential(actor: &Actor) -> &str {
    actor.bearer.as_deref().expect("a credential")
}

/// Sends a GET with this credential and exactly this proof.
async fn get_with(server: &Server, path: &str, credential: &str, proof: &str) -> Answer {
    let authorization = format!("DPoP {credential}");
    server.anonymous().with(&[("authorization", &authorization), ("dpop", proof)]).get(path).await
}

/// The parts of a refusal by which a client can tell it from another.
fn face(answer: &Answer) -> (StatusCode, Value, BTreeMap<String, String>) {
    let own_to_a_request = ["x-request-id", "date"];
    let headers = answer.headers.iter().filter(|(name, _)| !own_to_a_request.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    (answer.status, answer.anonymized(), headers.collect())
}

//! Access tokens that their issuer has bound to a key (`cnf.jkt`).

use std::sync::Arc;

use serde_json::{Value, json};
use ward_test::{Cost, Fields as _, Prover, Server, both, new_workspace};

use super::{credential, face, get_with};

const ME: &str = "/v1/me";

both!(a_bound_token_needs_a_proof_of_its_key, async || {
    let (server, issuer) = Server::with_issuer().await;
    let prover = Arc::new(Prover::new(&server, "EdDSA"));
    let token = issuer.token_with("ada", &json!({ "cnf": { "jkt": prover.jkt() } }));
    let ada = server.bearing(&token).proving(&prover);
    let created = ada.post("/v1/me/workspaces", new_workspace("ada")).await.created();
    let path = format!("/v1/workspaces/{}", created.text("id"));
    ada.patch(&path, json!({ "name": "Renamed" })).await.ok();
    assert_eq!(ada.get(ME).await.ok()["credential"]["type"], "token");
    ada.get("/v1/me/invitations").await.ok();

    // The token says itself that it is bound, so the challenge may ask for a proof.
    let (stolen, cost) = server.costs(server.bearing(&token).get(&path)).await;
    assert!(stolen.header("www-authenticate").starts_with("DPoP "), "{}", stolen.header("www-authenticate"));
    assert_eq!((stolen.refused(401).as_str(), cost), ("unauthorized", Cost::NOTHING));
    let thief = Prover::new(&server, "EdDSA");
    for proof in
        [thief.proof("GET", ME, &token), thief.key.sign(&prover.header(), &prover.claims("GET", ME, &token))]
    {
        let (answer, cost) = server.costs(get_with(&server, ME, &token, &proof)).await;
        assert_eq!((answer.refused(401).as_str(), cost), ("unauthorized", Cost::NOTHING));
    }
    let proof = prover.proof("GET", ME, &token);
    get_with(&server, ME, &token, &proof).await.ok();
    get_with(&server, ME, &token, &proof).await.refused_as(401, "unauthorized");
    // The proof of one token is none of another.
    let second = issuer.token_with("ada", &json!({ "cnf": { "jkt": prover.jkt() } , "scope": "x" }));
    let of_first = prover.proof("GET", ME, credential(&ada));
    get_with(&server, ME, &second, &of_first).await.refused_as(401, "invalid_dpop_proof");
});

both!(a_token_without_a_binding_takes_no_proof, async || {
    let (server, issuer) = Server::with_issuer().await;
    let prover = Arc::new(Prover::new(&server, "ES256"));
    let plain = server.person(&issuer, "ada");
    plain.get(ME).await.ok();
    plain.proving(&prover).get(ME).await.refused_as(401, "unauthorized");
});

both!(a_token_that_is_bound_to_something_else_is_refused_with_and_without_a_proof, async || {
    let (server, issuer) = Server::with_issuer().await;
    let prover = Arc::new(Prover::new(&server, "ES256"));
    let jkt = prover.jkt();
    let certificate = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2";
    let invalid = server.bearing(format!("{}x", issuer.token("ada"))).get(ME).await;
    for confirmation in [
        json!({}),
        json!({ "x5t#S256": certificate }),
        json!({ "jkt": jkt, "x5t#S256": certificate }),
        json!({ "jkt": [jkt] }),
        json!({ "jkt": &jkt[1..] }),
        json!({ "jwk": prover.jwk() }),
        json!({ "kid": "one" }),
        json!(jkt),
        json!([]),
        Value::Null,
    ] {
        let token = issuer.token_with("ada", &json!({ "cnf": confirmation }));
        let (answer, cost) = server.costs(server.bearing(&token).get(ME)).await;
        assert_eq!((face(&answer), cost), (face(&invalid), Cost::NOTHING), "{confirmation}");
        let proven = server.bearing(&token).proving(&prover);
        let (answer, cost) = server.costs(proven.get(ME)).await;
        assert_eq!((answer.refused(401).as_str(), cost), ("unauthorized", Cost::NOTHING), "{confirmation}");
    }
});

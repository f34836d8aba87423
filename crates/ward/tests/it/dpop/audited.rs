//! Malformed proofs in the audit of the key's workspace.

use serde_json::{Value, json};
use ward_test::{Cost, Fields as _, Server, Tenant, both, unknown_key, wrong_secret_of};

use super::{bound, credential, get_with};

const ME: &str = "/v1/me";

/// The refused credentials in the tenant's audit: reason, count and key.
async fn refused(server: &Server, tenant: &Tenant) -> Vec<(String, u64, Value)> {
    server.app.flush().await;
    let listed = tenant.get("/audit?action=access.unauthorized&limit=100").await.ok();
    let mut events: Vec<_> = listed
        .list("events")
        .iter()
        .map(|event| {
            let told = &event["metadata"];
            assert_eq!(told["operation"], "get-me");
            assert_eq!(event["ip_address"], "127.0.0.1");
            (told.text("reason").to_owned(), told["count"].as_u64().unwrap(), event["resource_id"].clone())
        })
        .collect();
    events.sort_by(|one, other| one.0.cmp(&other.0));
    events
}

both!(a_malformed_proof_is_an_event_of_the_keys_workspace_and_costs_no_query, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, prover, minted) = bound(&server, &tenant, "owner").await;
    let key = credential(&actor);
    let page = tenant.get("/api-keys?limit=20").await.ok();
    let id = page.list("items").iter().find(|it| it["key_id"] == minted["key_id"]).unwrap()["id"].clone();
    let wrong = wrong_secret_of(minted.text("key_id"));
    let unknown = unknown_key();
    for presented in [key, key, &wrong, &unknown, "no key"] {
        let proof = prover.proof("POST", ME, presented);
        let (answer, cost) = server.costs(get_with(&server, ME, presented, &proof)).await;
        answer.refused_as(401, "invalid_dpop_proof");
        assert_eq!(cost, Cost::NOTHING);
    }
    let expected =
        vec![("proof_malformed".to_owned(), 2, id.clone()), ("wrong_secret".to_owned(), 1, id.clone())];
    assert_eq!(refused(&server, &tenant).await, expected);
    // Nothing is told twice, and a key that has ended meanwhile gets its own reason.
    assert_eq!(refused(&server, &tenant).await, expected);
    tenant.delete(&format!("/api-keys/{}", minted.text("key_id"))).await.no_content();
    get_with(&server, ME, key, "garbage").await.refused_as(401, "invalid_dpop_proof");
    let events = refused(&server, &tenant).await;
    assert_eq!(events[1], ("revoked".to_owned(), 1, id), "{events:?}");
});

both!(a_flood_of_malformed_proofs_is_bounded, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, _, _) = bound(&server, &tenant, "owner").await;
    for _ in 0..150 {
        get_with(&server, ME, &unknown_key(), "garbage").await.refused_as(401, "invalid_dpop_proof");
    }
    // The address has used up its places, so this one is only counted.
    get_with(&server, ME, credential(&actor), "garbage").await.refused_as(401, "invalid_dpop_proof");
    assert_eq!(refused(&server, &tenant).await, []);
    // After the flush, the address has its places again.
    get_with(&server, ME, credential(&actor), "garbage").await.refused_as(401, "invalid_dpop_proof");
    assert_eq!(refused(&server, &tenant).await.len(), 1);
    assert_eq!(json!(refused(&server, &tenant).await[0].0), "proof_malformed");
});

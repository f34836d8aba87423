//! A new master key while servers run: in the right order nothing is refused, and in a wrong order nothing is
//! lost.

use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::StatusCode;
use serde_json::{Value, json};
use ward::app::App;
use ward::config::{Config, FormerKey, MasterKey};
use ward::operator::rotate_secrets;
use ward_test::ehr::Act;
use ward_test::vendor::patients::patient;
use ward_test::{Fields as _, Server, Tenant, both, fresh_slug};

use crate::calls::{ACCOUNT, PUBLIC_URL, TOKEN, callback, event, finished, put};
use crate::deliveries::{PATIENT, Scene};
use crate::outbound::{Peer, answer, endpoint, open_outbound, run};

/// The keys of a server: the current one, and the previous ones. By default a server has key 7.
pub fn keys(current: u8, former: &[u8]) -> impl FnOnce(&mut Config) {
    let former = former.iter().map(|key| FormerKey([*key; 32].into())).collect();
    move |config| {
        config.master_key = MasterKey::Given([current; 32].into());
        config.former_master_keys = former;
    }
}

/// A process beside the servers that has these keys.
pub fn beside(server: &Server, current: u8, former: &[u8]) -> Arc<App> {
    let mut config = server.app.config.clone();
    keys(current, former)(&mut config);
    App::on(config, server.app.db.clone(), server.clock.clone()).unwrap()
}

async fn start() -> (Server, Tenant, Peer) {
    let server = Server::with(|config| {
        open_outbound(config);
        config.public_url = Some(PUBLIC_URL.to_owned());
    })
    .await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|head, _| {
        let right = head.contains("authorization: Bearer the-bearer-of-this-test\r\n");
        Some(answer(200, if right { "\"right\"" } else { "\"wrong\"" }))
    })
    .await;
    (server, tenant, peer)
}

/// The same tenant at another server.
fn at(server: &Server, tenant: &Tenant) -> Tenant {
    let owner = server.bearing(tenant.claimed.text("api_key"));
    Tenant { id: tenant.id.clone(), slug: tenant.slug.clone(), owner, claimed: tenant.claimed.clone() }
}

fn twilio() -> Value {
    json!({ "account_sid": ACCOUNT, "auth_token": TOKEN, "secondary_auth_token": "a-second-token-of-twilio" })
}

async fn works(tenant: &Tenant, path: &str) {
    let told = run(&tenant.owner, path, json!({})).await;
    assert_eq!(told["raw_response"], "right", "{told}");
}

const REPEAT: &str = "repeated-after-the-rotation";

both!(everything_is_sealed_anew_while_servers_work, threads = 4, async || {
    let (server, tenant, peer) = start().await;
    let mut paths = Vec::new();
    for _ in 0..3 {
        paths.push(endpoint(&tenant, &peer.url(), json!({})).await);
    }
    tenant.put("/twilio", twilio()).await.ok();
    let new_key = json!({ "duration_days": 1, "role": "viewer" });
    let minted = tenant.post_once("/api-keys", REPEAT, new_key.clone()).await;
    beside(&server, 8, &[]).check_master_key().await.unwrap_err();

    let renewed = server.replica_with(keys(8, &[7])).await;
    let there = at(&renewed, &tenant);
    let steps = Mutex::new(Vec::new());
    let working = async {
        let mut made = Vec::new();
        for _ in 0..10 {
            let path = endpoint(&there, &peer.url(), json!({})).await;
            works(&there, &path).await;
            works(&there, &paths[0]).await;
            there.owner.put(&there.path("/twilio"), twilio()).await.ok();
            there.key(new_key.clone()).await;
            made.push(path);
        }
        made
    };
    let rotating = rotate_secrets(&renewed.app, |progress| steps.lock().push(progress.done));
    let (rotated, made) = tokio::join!(rotating, working);
    let rotated = rotated.unwrap();
    assert_eq!((rotated.left, rotated.unopened.len()), (0, 0), "{rotated:?}");
    // Twilio's tokens may have been stored again under the new key before they were counted.
    assert!((4..=6).contains(&rotated.of), "{rotated:?}");
    assert_eq!(steps.into_inner().last(), Some(&rotated.done));
    assert_eq!(rotate_secrets(&renewed.app, |_| ()).await.unwrap().done, 0);

    // With the new key alone, all older and newer secrets work.
    let new = server.replica_with(keys(8, &[])).await;
    let there = at(&new, &tenant);
    for path in paths.iter().chain(&made) {
        works(&there, path).await;
    }
    callback(&new, &tenant, &event("CA1", "ringing", "+15550100001")).await.no_content();
    let again = there.owner.post_once(&there.path("/api-keys"), REPEAT, new_key).await;
    assert_eq!((again.header("idempotency-replayed"), &again.text), ("true", &minted.text));
    beside(&server, 7, &[]).check_master_key().await.unwrap_err();
});

both!(a_server_without_the_new_key_loses_nothing, threads = 4, async || {
    let (old, tenant, peer) = start().await;
    let path = endpoint(&tenant, &peer.url(), json!({})).await;
    let with_secret = || {
        let auth =
            json!({ "type": "bearer_token", "bearer_token_value": { "value": "the-bearer-of-this-test" } });
        let endpoint = json!({ "name": "e", "description": "E", "path": "/", "method": "GET" });
        json!({ "name": fresh_slug(), "display_name": "T", "base_url": peer.url(), "auth": auth, "endpoints": [endpoint] })
    };
    // The wrong order: this server is not given the new key, and accepts secrets while the others are
    // re-sealed.
    let rotating = beside(&old, 8, &[7]);
    rotating.check_master_key().await.unwrap();
    let working = async {
        let mut made = vec![path];
        for _ in 0..30 {
            let answer = tenant.post("/integrations", with_secret()).await;
            if answer.status == StatusCode::CREATED {
                let id = answer.created().text("id").to_owned();
                made.push(tenant.path(&format!("/integrations/{id}/endpoints/e/test")));
            } else {
                answer.refused_as(503, "master_key_replaced");
            }
        }
        made
    };
    let (rotated, made) = tokio::join!(rotate_secrets(&rotating, |_| ()), working);
    if rotated.unwrap().left > 0 {
        assert_eq!(rotate_secrets(&rotating, |_| ()).await.unwrap().left, 0);
    }
    // Its secrets are kept. From now on it accepts none, and says why.
    let new = old.replica_with(keys(8, &[])).await;
    for path in &made {
        works(&at(&new, &tenant), path).await;
    }
    let integrations = tenant.path("/integrations");
    tenant.owner.post(&integrations, with_secret()).await.refused_as(503, "master_key_replaced");
    tenant.put("/twilio", twilio()).await.refused_as(503, "master_key_replaced");
    let plain = json!({ "name": "plain", "display_name": "P" });
    tenant.owner.post(&integrations, plain).await.created();
    let told = run(&tenant.owner, &made[0], json!({})).await;
    assert!(told.text("error").contains("cannot be opened"), "{told}");
    // A secret that is kept in a remembered answer counts too. Without an idempotency key nothing is sealed.
    let new_key = json!({ "duration_days": 1, "role": "viewer" });
    let keys = tenant.path("/api-keys");
    tenant.owner.post_once(&keys, REPEAT, new_key.clone()).await.refused_as(503, "master_key_replaced");
    tenant
        .owner
        .post_once(&tenant.workspace("/invitations"), REPEAT, json!({ "role": "viewer" }))
        .await
        .refused_as(503, "master_key_replaced");
    let rotated = tenant.path(&format!("/api-keys/{}/rotate", tenant.owner_key_id()));
    tenant
        .owner
        .post_once(&rotated, REPEAT, json!({ "duration_days": 1 }))
        .await
        .refused_as(503, "master_key_replaced");
    let body = json!({ "params": {} });
    tenant.owner.post_once(&made[0], REPEAT, body).await.refused_as(503, "master_key_replaced");
    let waiting = old.anonymous().create_workspace(&fresh_slug()).await;
    let claim = format!("/v1/{}/api-keys", waiting.text("id"));
    old.anonymous()
        .post_once(&claim, REPEAT, json!({ "duration_days": 1 }))
        .await
        .refused_as(503, "master_key_replaced");
    tenant.owner.post(&keys, new_key.clone()).await.created();
    at(&new, &tenant).owner.post_once(&keys, REPEAT, new_key).await.created();
});

both!(values_that_cannot_be_opened_are_named_and_keep_the_previous_key, async || {
    let (server, tenant, peer) = start().await;
    let mut paths = Vec::new();
    for _ in 0..3 {
        paths.push(endpoint(&tenant, &peer.url(), json!({})).await);
    }
    tenant.put("/twilio", twilio()).await.ok();
    let broken = paths[1].split('/').nth(4).unwrap();
    let damage = format!(
        "UPDATE integration_secrets SET sealed = substr(sealed, 1, 30) WHERE integration_id = uuid '{broken}'"
    );
    assert_eq!(server.sql(damage).await, 1);
    let renewed = server.replica_with(keys(8, &[7])).await;
    let rotated = rotate_secrets(&renewed.app, |_| ()).await.unwrap();
    assert_eq!((rotated.done, rotated.of, rotated.left), (4, 4, 1));
    let named = format!("auth/bearer_token of integration {broken} of workspace {}", tenant.id);
    assert_eq!(rotated.unopened, [named]);
    beside(&server, 8, &[]).check_master_key().await.unwrap_err();
    // After it is stored again, it is no longer in the way.
    let integration = tenant.path(&format!("/integrations/{broken}"));
    let auth = json!({ "auth": { "type": "bearer_token", "bearer_token_value": { "value": "the-bearer-of-this-test" } } });
    at(&renewed, &tenant).owner.put(&integration, auth).await.ok();
    assert_eq!(rotate_secrets(&renewed.app, |_| ()).await.unwrap().left, 0);
    let new = server.replica_with(keys(8, &[])).await;
    for path in &paths {
        works(&at(&new, &tenant), path).await;
    }
    callback(&new, &tenant, &event("CA1", "ringing", "+15550100001")).await.no_content();
});

both!(answers_of_ehrs_and_corrections_are_sealed_anew, async || {
    let scene = Scene::of("fhir_store").await;
    scene.ehr.script([Act::Say(422, json!({ "told": "no such patient" }), "")]);
    let id = scene.owe("CA1").await;
    scene.worker.turn().await;
    scene.tenant.post("/calls/CA1/correct", json!({ "patient_id": "pat-2" })).await.ok();
    let answer = scene.delivery(&id).await["attempts"][0]["answer"].clone();
    let corrections = scene.tenant.get("/calls/CA1").await.ok()["corrections"].clone();
    assert!(answer.to_string().contains("no such patient"), "{answer}");
    assert_eq!(corrections[0]["values"]["new"]["patient_id"], "pat-2");

    let renewed = scene.server.replica_with(keys(8, &[7])).await;
    let rotated = rotate_secrets(&renewed.app, |_| ()).await.unwrap();
    assert!(rotated.done >= 2 && rotated.left == 0, "{rotated:?}");
    let alone = scene.server.replica_with(keys(8, &[])).await;
    let there = at(&alone, &scene.tenant);
    let delivery = there.get(&format!("/deliveries/{id}")).await.ok();
    assert_eq!(delivery["attempts"][0]["answer"], answer);
    assert_eq!(there.get("/calls/CA1").await.ok()["corrections"], corrections);
});

both!(facts_about_patients_matches_and_candidates_are_sealed_anew, async || {
    let scene = Scene::of("fhir_store").await;
    let id = scene.tenant.get("/integrations").await.ok()["items"][0].text("id").to_owned();
    let setting = json!({ "delivery": { "patient": "search" } });
    scene.tenant.put(&format!("/integrations/{id}"), setting).await.ok();
    let found = |ids: &[&str]| {
        let people = ids.iter().map(|id| json!({ "resource": patient(id, PATIENT, "1980-02-29") }));
        let entry: Vec<Value> = people.collect();
        Some(Act::Say(200, json!({ "resourceType": "Bundle", "type": "searchset", "entry": entry }), ""))
    };
    let mut body = finished(PATIENT);
    body["patient_birth_date"] = json!("1980-02-29");
    let mut deliveries = Vec::new();
    for (sid, ids) in [("CA1", &["p1"][..]), ("CA2", &["p1", "p2"])] {
        scene.ehr.on_search(found(ids));
        let call = put(&scene.tenant, sid, body.clone()).await;
        scene.worker.turn().await;
        deliveries.push(call["sync"].text("delivery_id").to_owned());
    }
    let renewed = scene.server.replica_with(keys(8, &[7])).await;
    let rotated = rotate_secrets(&renewed.app, |_| ()).await.unwrap();
    assert!(rotated.done >= 4 && rotated.left == 0, "{rotated:?}");
    let alone = scene.server.replica_with(keys(8, &[])).await;
    let there = at(&alone, &scene.tenant);
    assert_eq!(there.get("/calls/CA1").await.ok()["patient_birth_date"], "1980-02-29");
    let matched = there.get(&format!("/deliveries/{}", deliveries[0])).await.ok();
    assert_eq!(matched.fields(["state", "matched_patient_id"]), json!(["synced", "p1"]));
    let review = there.get(&format!("/reviews/{}", deliveries[1])).await.ok();
    assert_eq!(review.texts("candidates", "id"), ["p1", "p2"]);
});

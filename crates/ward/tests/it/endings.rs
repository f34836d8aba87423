//! What was begun with an authority ends with it: invitations and offers of ownership, with the key, the role or the
//! membership of whoever made them.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_test::{Actor, Answer, both, new_workspace};

use super::members::Shared;

const UNKNOWN: &str = "invitation_not_found";

/// A key, and its public part.
async fn mint(shared: &Shared, by: &Actor, body: Value) -> (Actor, String) {
    let minted = by.post(&keys(shared), body).await.expect(StatusCode::CREATED);
    let key = shared.server.bearing(minted["api_key"].as_str().unwrap());
    (key, minted["key_id"].as_str().unwrap().to_owned())
}

fn keys(shared: &Shared) -> String {
    format!("/v1/{}/api-keys", shared.id)
}

async fn invite(shared: &Shared, by: &Actor, role: &str) -> Value {
    by.post(&shared.path("/invitations"), json!({ "role": role })).await.expect(StatusCode::CREATED)
}

async fn accept(actor: &Actor, link: &Value) -> Answer {
    actor.post("/v1/invitations/accept", json!({ "invitation": link["invitation"] })).await
}

async fn open(shared: &Shared, seen_by: &Actor) -> Value {
    seen_by.get(&shared.path("/invitations")).await.expect(StatusCode::OK)["total"].clone()
}

/// A way in which a key ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Deleted,
    RevokedByTheOperator,
    Rotated,
    Expired,
}

const ENDS: [End; 4] = [End::Deleted, End::RevokedByTheOperator, End::Rotated, End::Expired];

/// Ends a key that lives for a day; the owner is signed in anew, for time may have passed.
async fn end(shared: &Shared, key: &Actor, key_id: &str, how: End) -> Actor {
    let path = format!("{}/{key_id}", keys(shared));
    match how {
        End::Deleted => {
            let ada = shared.server.person(&shared.issuer, "ada");
            assert_eq!(ada.delete(&path).await.status, StatusCode::NO_CONTENT);
        }
        End::RevokedByTheOperator => {
            ward::operator::revoke_key(&shared.server.app, key_id).await.unwrap();
        }
        End::Rotated => {
            let again = json!({ "duration_days": 90 });
            key.post(&format!("{path}/rotate"), again).await.expect(StatusCode::OK);
        }
        End::Expired => shared.server.clock.advance(Duration::from_hours(24)),
    }
    key.get("/v1/me").await.refused(401);
    shared.server.person(&shared.issuer, "ada")
}

both!(an_invitation_ends_with_the_key_that_it_was_made_with);
async fn an_invitation_ends_with_the_key_that_it_was_made_with() {
    let (shared, mut ada) = Shared::new().await;
    for how in ENDS {
        for speaks_for in ["service", "self"] {
            let case = format!("{how:?} {speaks_for}");
            let body = json!({ "duration_days": 1, "role": "owner", "speaks_for": speaks_for });
            let (key, key_id) = mint(&shared, &ada, body).await;
            let link = invite(&shared, &key, "owner").await;
            let by_token = invite(&shared, &ada, "viewer").await;
            assert_eq!(open(&shared, &ada).await, 2);
            ada = end(&shared, &key, &key_id, how).await;
            assert_eq!(open(&shared, &ada).await, 1, "{case}");
            let thief = shared.server.person(&shared.issuer, &case);
            assert_eq!(accept(&thief, &link).await.refused(404), UNKNOWN, "{case}");
            let path = shared.path(&format!("/invitations/{}", link["id"].as_str().unwrap()));
            assert_eq!(ada.delete(&path).await.refused(404), UNKNOWN, "{case}");
            accept(&thief, &by_token).await.expect(StatusCode::CREATED);
        }
    }
}

both!(what_a_key_makes_says_that_it_ends_with_the_key);
async fn what_a_key_makes_says_that_it_ends_with_the_key() {
    let (shared, ada) = Shared::new().await;
    let (_, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let body = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
    let minted = ada.post(&keys(&shared), body).await.expect(StatusCode::CREATED);
    let key = shared.server.bearing(minted["api_key"].as_str().unwrap());
    assert_eq!(invite(&shared, &key, "viewer").await["expires_at"], minted["expires_at"]);
    let offer = json!({ "entity_id": bea_id });
    let offered = key.post(&shared.path("/ownership-transfer"), offer).await.expect(StatusCode::CREATED);
    assert_eq!(offered["expires_at"], minted["expires_at"]);
    assert_ne!(invite(&shared, &ada, "viewer").await["expires_at"], minted["expires_at"]);
}

both!(what_was_accepted_is_no_longer_the_keys_matter);
async fn what_was_accepted_is_no_longer_the_keys_matter() {
    let (shared, ada) = Shared::new().await;
    let (key, key_id) = mint(&shared, &ada, json!({ "duration_days": 1, "role": "admin" })).await;
    let body = json!({ "invitation": invite(&shared, &key, "viewer").await["invitation"] });
    let bea = shared.server.person(&shared.issuer, "bea");
    let join = async || bea.post_once("/v1/invitations/accept", "once-and-for-all", body.clone()).await;
    let joined = join().await.expect(StatusCode::CREATED);
    end(&shared, &key, &key_id, End::Deleted).await;
    bea.get(&shared.path("")).await.expect(StatusCode::OK);
    assert_eq!(join().await.expect(StatusCode::CREATED), joined);
}

both!(a_personal_key_takes_along_what_it_began_in_other_workspaces);
async fn a_personal_key_takes_along_what_it_began_in_other_workspaces() {
    let (shared, ada) = Shared::new().await;
    let (_, bea_id) = shared.member(&ada, "bea", "admin").await;
    let home = ada.post("/v1/me/workspaces", new_workspace("home")).await.expect(StatusCode::CREATED);
    let keys = format!("/v1/{}/api-keys", home["id"].as_str().unwrap());
    let body = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
    let minted = ada.post(&keys, body).await.expect(StatusCode::CREATED);
    let key = shared.server.bearing(minted["api_key"].as_str().unwrap());
    let link = invite(&shared, &key, "owner").await;
    key.post(&shared.path("/ownership-transfer"), json!({ "entity_id": bea_id }))
        .await
        .expect(StatusCode::CREATED);
    let path = format!("{keys}/{}", minted["key_id"].as_str().unwrap());
    assert_eq!(ada.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(open(&shared, &ada).await, 0);
    assert_eq!(accept(&shared.server.person(&shared.issuer, "thief"), &link).await.refused(404), UNKNOWN);
    assert_eq!(ada.get(&shared.path("/ownership-transfer")).await.refused(404), "transfer_not_found");
}

both!(an_offer_of_ownership_ends_with_the_key_that_it_was_made_with);
async fn an_offer_of_ownership_ends_with_the_key_that_it_was_made_with() {
    let (shared, mut ada) = Shared::new().await;
    let (_, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (transfer, offer) = (shared.path("/ownership-transfer"), json!({ "entity_id": bea_id }));
    let accept = shared.path("/ownership-transfer/accept");
    for how in ENDS {
        let personal = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
        let (key, key_id) = mint(&shared, &ada, personal).await;
        key.post(&transfer, offer.clone()).await.expect(StatusCode::CREATED);
        ada.get(&transfer).await.expect(StatusCode::OK);
        ada = end(&shared, &key, &key_id, how).await;
        assert_eq!(ada.get(&transfer).await.refused(404), "transfer_not_found", "{how:?}");
        let bea = shared.server.person(&shared.issuer, "bea");
        assert_eq!(bea.post(&accept, json!({})).await.refused(404), "transfer_not_found", "{how:?}");
    }
    // One that was made with a token knows no key.
    ada.post(&transfer, offer).await.expect(StatusCode::CREATED);
    shared.server.person(&shared.issuer, "bea").post(&accept, json!({})).await.expect(StatusCode::OK);
}

both!(whoever_accepts_the_maker_is_judged_again);
async fn whoever_accepts_the_maker_is_judged_again() {
    let (shared, ada) = Shared::new().await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "owner").await;
    let link = invite(&shared, &cleo, "owner").await;
    let dora = shared.server.person(&shared.issuer, "dora");
    // As no call leaves it: each that ends an authority settles what was made with it.
    let set = async |what: &str, of: &str| {
        let sql = format!("UPDATE memberships SET {what} WHERE principal_id = '{of}'");
        assert_eq!(shared.server.sql(sql).await, 1);
    };
    for role in ["admin", "viewer"] {
        set(&format!("role = '{role}'"), &cleo_id).await;
        assert_eq!(accept(&dora, &link).await.refused(404), UNKNOWN, "{role}");
    }
    set("role = 'owner'", &cleo_id).await;
    let nobody = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    set(&format!("principal_id = '{nobody}'"), &cleo_id).await;
    assert_eq!(accept(&dora, &link).await.refused(404), UNKNOWN);
    set(&format!("principal_id = '{cleo_id}'"), nobody).await;
    accept(&dora, &link).await.expect(StatusCode::CREATED);
}

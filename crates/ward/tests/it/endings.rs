//! What was begun with an authority ends with it: invitations and offers of ownership, with the key, the role or the
//! membership of whoever made them.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use ward_test::{Actor, Answer, both, new_workspace};

use super::members::{Shared, entity};

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
        let sql = format!("UPDATE memberships SET {what} WHERE principal_id = uuid '{of}'");
        assert_eq!(shared.server.sql(sql).await, 1);
    };
    for role in ["admin", "viewer"] {
        set(&format!("role = '{role}'"), &cleo_id).await;
        assert_eq!(accept(&dora, &link).await.refused(404), UNKNOWN, "{role}");
    }
    set("role = 'owner'", &cleo_id).await;
    let nobody = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    set(&format!("principal_id = uuid '{nobody}'"), &cleo_id).await;
    assert_eq!(accept(&dora, &link).await.refused(404), UNKNOWN);
    set(&format!("principal_id = uuid '{cleo_id}'"), nobody).await;
    accept(&dora, &link).await.expect(StatusCode::CREATED);
}

// Keys that allow less than their user may do

both!(a_narrow_key_does_to_its_user_nothing_that_it_may_not_do_to_others);
async fn a_narrow_key_does_to_its_user_nothing_that_it_may_not_do_to_others() {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
    let (transfer, me) = (shared.path("/ownership-transfer"), shared.path("/members/me"));
    let accept = shared.path("/ownership-transfer/accept");
    let narrow = json!({
        "duration_days": 1, "role": "admin", "speaks_for": "self",
        "permissions": ["Workspace.view", "Workspace.update"],
    });
    let (beas, _) = mint(&shared, &bea, narrow.clone()).await;
    let viewing = json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" });
    let (beas_eyes, _) = mint(&shared, &bea, viewing).await;
    let mut narrow_owner = narrow;
    narrow_owner["role"] = json!("owner");
    let (adas, _) = mint(&shared, &ada, narrow_owner.clone()).await;
    assert_eq!(beas.delete(&me).await.refused(403), "beyond_caller");

    ada.post(&transfer, json!({ "entity_id": bea_id })).await.expect(StatusCode::CREATED);
    for key in [&beas, &beas_eyes, &adas] {
        assert_eq!(key.delete(&transfer).await.refused(403), "beyond_caller");
    }
    // Bea is an owner elsewhere, where keys of an owner's role are minted.
    let home = bea.post("/v1/me/workspaces", new_workspace("home")).await.expect(StatusCode::CREATED);
    let keys = format!("/v1/{}/api-keys", home["id"].as_str().unwrap());
    let minted = bea.post(&keys, narrow_owner).await.expect(StatusCode::CREATED);
    let narrow = shared.server.bearing(minted["api_key"].as_str().unwrap());
    for key in [&beas, &beas_eyes, &narrow] {
        assert_eq!(key.post(&accept, json!({})).await.refused(403), "beyond_caller");
    }
    // A key that allows all that she may do declines for her, though it could not accept.
    let (whole, _) =
        mint(&shared, &bea, json!({ "duration_days": 1, "role": "admin", "speaks_for": "self" })).await;
    assert_eq!(whole.post(&accept, json!({})).await.refused(403), "beyond_caller");
    assert_eq!(whole.delete(&transfer).await.status, StatusCode::NO_CONTENT);
    assert_eq!(whole.delete(&me).await.status, StatusCode::NO_CONTENT);
    // A service has no other key to go with.
    let permissions = json!(["Workspace.view"]);
    let service = json!({ "duration_days": 1, "role": "admin", "permissions": permissions });
    let (service, _) = mint(&shared, &ada, service).await;
    assert_eq!(service.delete(&me).await.status, StatusCode::NO_CONTENT);
}

both!(a_personal_key_shrinks_and_ends_with_its_users_membership);
async fn a_personal_key_shrinks_and_ends_with_its_users_membership() {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
    let (key, _) =
        mint(&shared, &bea, json!({ "duration_days": 1, "role": "admin", "speaks_for": "self" })).await;
    key.patch(&shared.path(""), json!({ "name": "By key" })).await.expect(StatusCode::OK);
    shared.set_role(&ada, &bea_id, "viewer").await.expect(StatusCode::OK);
    assert_eq!(key.patch(&shared.path(""), json!({ "name": "x" })).await.refused(403), "forbidden");
    key.get(&shared.path("")).await.expect(StatusCode::OK);
    let me = key.get("/v1/me").await.expect(StatusCode::OK);
    assert_eq!(me["memberships"]["items"][0]["permissions"], json!(["Workspace.view", "Integration.view"]));
    assert_eq!(bea.delete(&shared.path("/members/me")).await.status, StatusCode::NO_CONTENT);
    key.get("/v1/me").await.refused(401);
}

both!(a_key_that_may_not_view_workspaces_learns_no_names_of_them);
async fn a_key_that_may_not_view_workspaces_learns_no_names_of_them() {
    let (shared, ada) = Shared::new().await;
    let body = json!({
        "duration_days": 1, "role": "owner", "speaks_for": "self", "permissions": ["Call.view"],
    });
    let (key, _) = mint(&shared, &ada, body).await;
    let me = key.get("/v1/me").await.expect(StatusCode::OK);
    let listed = &me["memberships"]["items"][0];
    assert_eq!((&listed["workspace_id"], &listed["role"]), (&json!(shared.id), &json!("owner")));
    assert_eq!((&listed["slug"], &listed["name"]), (&Value::Null, &Value::Null));
}

both!(mine_only_is_about_whoever_asks);
async fn mine_only_is_about_whoever_asks() {
    let (shared, ada) = Shared::new().await;
    let (bea, _) = shared.member(&ada, "bea", "admin").await;
    let (_, adas) = mint(&shared, &ada, json!({ "duration_days": 1 })).await;
    let (_, beas) =
        mint(&shared, &bea, json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" })).await;
    for (who, own) in [(&ada, adas), (&bea, beas)] {
        let mine = who.get(&format!("{}?mine_only=true", keys(&shared))).await.expect(StatusCode::OK);
        assert_eq!((&mine["total"], &mine["items"][0]["key_id"]), (&json!(1), &json!(own)));
        assert_eq!(who.get(&keys(&shared)).await.expect(StatusCode::OK)["total"], 2);
    }
}

// The audit

/// The events of this action, newest first.
async fn events(shared: &Shared, seen_by: &Actor, action: &str) -> Vec<Value> {
    let path = format!("/v1/{}/audit?limit=100&action={action}", shared.id);
    seen_by.get(&path).await.expect(StatusCode::OK)["events"].as_array().unwrap().clone()
}

both!(however_an_offer_of_ownership_ends_the_audit_says_so);
async fn however_an_offer_of_ownership_ends_the_audit_says_so() {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "owner").await;
    let (_, dora_id) = shared.member(&ada, "dora", "viewer").await;
    let transfer = shared.path("/ownership-transfer");
    let offer = async |by: &Actor, to: &str| {
        by.post(&transfer, json!({ "entity_id": to })).await.expect(StatusCode::CREATED);
    };
    offer(&ada, &bea_id).await;
    assert_eq!(cleo.delete(&transfer).await.status, StatusCode::NO_CONTENT);
    offer(&ada, &bea_id).await;
    assert_eq!(bea.delete(&transfer).await.status, StatusCode::NO_CONTENT);
    offer(&ada, &bea_id).await;
    offer(&ada, &dora_id).await;
    shared.set_role(&ada, &dora_id, "owner").await.expect(StatusCode::OK);
    offer(&cleo, &bea_id).await;
    shared.set_role(&ada, &cleo_id, "admin").await.expect(StatusCode::OK);
    offer(&ada, &bea_id).await;
    assert_eq!(bea.delete(&shared.path("/members/me")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.get(&transfer).await.refused(404), "transfer_not_found");

    let ended = events(&shared, &ada, "ownership.cancel").await;
    let told: Vec<_> =
        ended.iter().rev().map(|it| (it["resource_id"].clone(), it["metadata"]["reason"].clone())).collect();
    let expected = [
        (&bea_id, Value::Null),
        (&bea_id, json!("replaced by another")),
        (&dora_id, json!("the nominee is now an owner")),
        (&bea_id, json!("the nominator is no longer an owner")),
        (&bea_id, json!("one of the two is no longer a member")),
    ];
    assert_eq!(told, expected.map(|(who, why)| (json!(who), why)));
    assert_eq!(ended[4]["actor_entity_id"], cleo_id.as_str());
    let declined = events(&shared, &ada, "ownership.decline").await;
    assert_eq!((declined.len(), &declined[0]["actor_entity_id"]), (1, &json!(bea_id)));
    let left = events(&shared, &ada, "member.leave").await;
    assert_eq!((&left[0]["resource_id"], &left[0]["actor_entity_id"]), (&json!(bea_id), &json!(bea_id)));
}

both!(the_audit_knows_who_ended_an_invitation_and_whom_one_refused);
async fn the_audit_knows_who_ended_an_invitation_and_whom_one_refused() {
    let (shared, ada) = Shared::new().await;
    let link = invite(&shared, &ada, "viewer").await;
    let path = shared.path(&format!("/invitations/{}", link["id"].as_str().unwrap()));
    let robot = shared.server.bearing(shared.issuer.machine("robot"));
    assert_eq!(accept(&robot, &link).await.refused(403), "unsupported_principal");
    let bound = json!({ "role": "admin", "email": "bea@clinic.example" });
    let bound = ada.post(&shared.path("/invitations"), bound).await.expect(StatusCode::CREATED);
    let eve = shared.server.person(&shared.issuer, "eve");
    assert_eq!(accept(&eve, &bound).await.refused(403), "email_not_verified");
    let other = shared.server.tenant("other").await;
    let narrow = json!({ "duration_days": 1, "role": "member", "speaks_for": "self" });
    let (narrow, _) = other.key(narrow).await;
    let admins = invite(&shared, &ada, "admin").await;
    assert_eq!(accept(&narrow, &admins).await.refused(403), "beyond_caller");
    assert_eq!(accept(&eve, &json!({ "invitation": "ward_invite_none" })).await.refused(404), UNKNOWN);
    assert_eq!(ada.delete(&path).await.status, StatusCode::NO_CONTENT);
    // A link that is over is nobody's matter any more.
    assert_eq!(accept(&robot, &link).await.refused(403), "unsupported_principal");
    shared.server.app.flush().await;

    let revoked = events(&shared, &ada, "invitation.revoke").await;
    assert_eq!((revoked.len(), &revoked[0]["resource_id"]), (1, &link["id"]));
    let refused = events(&shared, &ada, "access.forbidden").await;
    let operations: Vec<_> = refused.iter().map(|it| &it["metadata"]["operation"]).collect();
    assert_eq!(operations, ["accept-invitation"; 3], "{refused:#?}");
    assert!(refused.iter().any(|it| it["actor_entity_id"] == json!(other.claimed["created_by_entity_id"])));
}

// Repeats and races

both!(who_was_removed_gets_no_answer_repeated);
async fn who_was_removed_gets_no_answer_repeated() {
    let (shared, ada) = Shared::new().await;
    let link = invite(&shared, &ada, "viewer").await;
    let bea = shared.server.person(&shared.issuer, "bea");
    let body = json!({ "invitation": link["invitation"] });
    let join = async || bea.post_once("/v1/invitations/accept", "once-and-for-all", body.clone()).await;
    join().await.expect(StatusCode::CREATED);
    join().await.expect(StatusCode::CREATED);
    let id = entity(&bea).await;
    assert_eq!(shared.remove(&ada, &id).await.status, StatusCode::NO_CONTENT);
    assert_eq!(join().await.refused(404), UNKNOWN);
}

both!(an_invitation_is_accepted_or_revoked_and_never_both, threads = 4);
async fn an_invitation_is_accepted_or_revoked_and_never_both() {
    let (shared, ada) = Shared::new().await;
    for round in 0..10 {
        let link = invite(&shared, &ada, "viewer").await;
        let path = shared.path(&format!("/invitations/{}", link["id"].as_str().unwrap()));
        let bea = shared.server.person(&shared.issuer, &format!("person-{round}"));
        let start = Arc::new(Barrier::new(2));
        let joining = tokio::spawn({
            let start = start.clone();
            async move {
                start.wait().await;
                accept(&bea, &link).await.status.as_u16()
            }
        });
        let ending = tokio::spawn({
            let ada = ada.clone();
            async move {
                start.wait().await;
                ada.delete(&path).await.status.as_u16()
            }
        });
        let outcome = (joining.await.unwrap(), ending.await.unwrap());
        assert!([(201, 404), (404, 204)].contains(&outcome), "{outcome:?}");
    }
}

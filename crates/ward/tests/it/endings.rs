//! Invitations and offers of ownership end with the key, the role or the membership of their maker.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Barrier;
use ward_test::{Actor, Fields as _, both, new_workspace};

use super::members::{Shared, accept, entity};

const UNKNOWN: &str = "invitation_not_found";

/// A new key and its public part.
async fn mint(shared: &Shared, by: &Actor, body: Value) -> (Actor, String) {
    let (key, minted) = shared.mint(by, body).await;
    (key, minted.text("key_id").to_owned())
}

async fn open(shared: &Shared, seen_by: &Actor) -> Value {
    seen_by.get(&shared.path("/invitations")).await.ok()["total"].clone()
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

/// Ends a key that is valid for a day. Returns the owner signed in again, because time may have passed.
async fn end(shared: &Shared, key: &Actor, key_id: &str, how: End) -> Actor {
    let path = format!("{}/{key_id}", shared.keys());
    match how {
        End::Deleted => {
            let ada = shared.person("ada");
            ada.delete(&path).await.no_content();
        }
        End::RevokedByTheOperator => {
            ward::operator::revoke_key(&shared.server.app, key_id).await.unwrap();
        }
        End::Rotated => {
            key.post(&format!("{path}/rotate"), json!({ "duration_days": 90 })).await.ok();
        }
        End::Expired => shared.server.clock.advance(Duration::from_hours(24)),
    }
    key.get("/v1/me").await.refused(401);
    shared.person("ada")
}

both!(an_invitation_ends_with_the_key_that_it_was_made_with, async || {
    let (shared, mut ada) = Shared::new().await;
    for how in ENDS {
        for speaks_for in ["service", "self"] {
            let case = format!("{how:?} {speaks_for}");
            let body = json!({ "duration_days": 1, "role": "owner", "speaks_for": speaks_for });
            let (key, key_id) = mint(&shared, &ada, body).await;
            let link = shared.invite(&key, json!({ "role": "owner" })).await;
            let by_token = shared.invite(&ada, json!({ "role": "viewer" })).await;
            assert_eq!(open(&shared, &ada).await, 2);
            ada = end(&shared, &key, &key_id, how).await;
            assert_eq!(open(&shared, &ada).await, 1, "{case}");
            let thief = shared.person(&case);
            assert_eq!(accept(&thief, &link).await.refused(404), UNKNOWN, "{case}");
            let path = shared.path(&format!("/invitations/{}", link.text("id")));
            assert_eq!(ada.delete(&path).await.refused(404), UNKNOWN, "{case}");
            accept(&thief, &by_token).await.created();
        }
    }
});

both!(invitations_and_offers_made_with_a_key_expire_with_the_key, async || {
    let (shared, ada) = Shared::new().await;
    let (_, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let body = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
    let (key, minted) = shared.mint(&ada, body).await;
    assert_eq!(shared.invite(&key, json!({ "role": "viewer" })).await["expires_at"], minted["expires_at"]);
    let offer = json!({ "entity_id": bea_id });
    let offered = key.post(&shared.path("/ownership-transfer"), offer).await.created();
    assert_eq!(offered["expires_at"], minted["expires_at"]);
    assert_ne!(shared.invite(&ada, json!({ "role": "viewer" })).await["expires_at"], minted["expires_at"]);
});

both!(an_accepted_invitation_survives_the_key_it_was_made_with, async || {
    let (shared, ada) = Shared::new().await;
    let (key, key_id) = mint(&shared, &ada, json!({ "duration_days": 1, "role": "admin" })).await;
    let body = json!({ "invitation": shared.invite(&key, json!({ "role": "viewer" })).await["invitation"] });
    let bea = shared.person("bea");
    let join = async || bea.post_once("/v1/invitations/accept", "once-and-for-all", body.clone()).await;
    let joined = join().await.created();
    end(&shared, &key, &key_id, End::Deleted).await;
    bea.get(&shared.path("")).await.ok();
    assert_eq!(join().await.created(), joined);
});

both!(a_personal_key_ends_its_invitations_and_offers_in_other_workspaces, async || {
    let (shared, ada) = Shared::new().await;
    let (_, bea_id) = shared.member(&ada, "bea", "admin").await;
    let home = ada.post("/v1/me/workspaces", new_workspace("home")).await.created();
    let keys = format!("/v1/{}/api-keys", home.text("id"));
    let body = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
    let minted = ada.post(&keys, body).await.created();
    let key = shared.server.bearing(minted.text("api_key"));
    let link = shared.invite(&key, json!({ "role": "owner" })).await;
    key.post(&shared.path("/ownership-transfer"), json!({ "entity_id": bea_id })).await.created();
    let path = format!("{keys}/{}", minted.text("key_id"));
    ada.delete(&path).await.no_content();
    assert_eq!(open(&shared, &ada).await, 0);
    accept(&shared.person("thief"), &link).await.refused_as(404, UNKNOWN);
    ada.get(&shared.path("/ownership-transfer")).await.refused_as(404, "transfer_not_found");
});

both!(an_offer_of_ownership_ends_with_the_key_that_it_was_made_with, async || {
    let (shared, mut ada) = Shared::new().await;
    let (_, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (transfer, offer) = (shared.path("/ownership-transfer"), json!({ "entity_id": bea_id }));
    let accept = shared.path("/ownership-transfer/accept");
    for how in ENDS {
        let personal = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
        let (key, key_id) = mint(&shared, &ada, personal).await;
        key.post(&transfer, offer.clone()).await.created();
        ada.get(&transfer).await.ok();
        ada = end(&shared, &key, &key_id, how).await;
        assert_eq!(ada.get(&transfer).await.refused(404), "transfer_not_found", "{how:?}");
        let bea = shared.person("bea");
        assert_eq!(bea.post(&accept, json!({})).await.refused(404), "transfer_not_found", "{how:?}");
    }
    // An offer that was made with a token depends on no key.
    ada.post(&transfer, offer).await.created();
    shared.person("bea").post(&accept, json!({})).await.ok();
});

both!(accepting_checks_the_makers_authority_again, async || {
    let (shared, ada) = Shared::new().await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "owner").await;
    let link = shared.invite(&cleo, json!({ "role": "owner" })).await;
    let dora = shared.person("dora");
    // No request leaves this state: a request that ends an authority also settles its invitations.
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
    accept(&dora, &link).await.refused_as(404, UNKNOWN);
    set(&format!("principal_id = uuid '{cleo_id}'"), nobody).await;
    accept(&dora, &link).await.created();
});

// Keys that allow less than their user may do

both!(a_narrow_key_does_not_act_for_its_user_beyond_its_permissions, async || {
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
    beas.delete(&me).await.refused_as(403, "beyond_caller");

    ada.post(&transfer, json!({ "entity_id": bea_id })).await.created();
    for key in [&beas, &beas_eyes, &adas] {
        key.delete(&transfer).await.refused_as(403, "beyond_caller");
    }
    // Bea is an owner of another workspace, where she can mint keys of an owner's role.
    let home = bea.post("/v1/me/workspaces", new_workspace("home")).await.created();
    let keys = format!("/v1/{}/api-keys", home.text("id"));
    let minted = bea.post(&keys, narrow_owner).await.created();
    let narrow = shared.server.bearing(minted.text("api_key"));
    for key in [&beas, &beas_eyes, &narrow] {
        key.post(&accept, json!({})).await.refused_as(403, "beyond_caller");
    }
    // A key with all of her permissions can decline for her, though it cannot accept.
    let (whole, _) =
        mint(&shared, &bea, json!({ "duration_days": 1, "role": "admin", "speaks_for": "self" })).await;
    whole.post(&accept, json!({})).await.refused_as(403, "beyond_caller");
    whole.delete(&transfer).await.no_content();
    whole.delete(&me).await.no_content();
    // A service has no other key to leave with.
    let permissions = json!(["Workspace.view"]);
    let service = json!({ "duration_days": 1, "role": "admin", "permissions": permissions });
    let (service, _) = mint(&shared, &ada, service).await;
    service.delete(&me).await.no_content();
});

both!(a_personal_key_shrinks_and_ends_with_its_users_membership, async || {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
    let (key, _) =
        mint(&shared, &bea, json!({ "duration_days": 1, "role": "admin", "speaks_for": "self" })).await;
    key.patch(&shared.path(""), json!({ "name": "By key" })).await.ok();
    shared.set_role(&ada, &bea_id, "viewer").await.ok();
    key.patch(&shared.path(""), json!({ "name": "x" })).await.refused_as(403, "forbidden");
    key.get(&shared.path("")).await.ok();
    let me = key.get("/v1/me").await.ok();
    assert_eq!(me["memberships"]["items"][0]["permissions"], json!(["Workspace.view", "Integration.view"]));
    bea.delete(&shared.path("/members/me")).await.no_content();
    key.get("/v1/me").await.refused(401);
});

both!(a_key_that_may_not_view_workspaces_learns_no_names_of_them, async || {
    let (shared, ada) = Shared::new().await;
    let body = json!({
        "duration_days": 1, "role": "owner", "speaks_for": "self", "permissions": ["Call.view"],
    });
    let (key, _) = mint(&shared, &ada, body).await;
    let me = key.get("/v1/me").await.ok();
    let listed = &me["memberships"]["items"][0];
    assert_eq!(listed.fields(["workspace_id", "role"]), json!([shared.id, "owner"]));
    assert_eq!(listed.fields(["slug", "name"]), json!([null, null]));
});

both!(mine_only_lists_the_callers_own_keys, async || {
    let (shared, ada) = Shared::new().await;
    let (bea, _) = shared.member(&ada, "bea", "admin").await;
    let (_, adas) = mint(&shared, &ada, json!({ "duration_days": 1 })).await;
    let (_, beas) =
        mint(&shared, &bea, json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" })).await;
    for (who, own) in [(&ada, adas), (&bea, beas)] {
        let mine = who.get(&format!("{}?mine_only=true", shared.keys())).await.ok();
        assert_eq!((&mine["total"], &mine["items"][0]["key_id"]), (&json!(1), &json!(own)));
        assert_eq!(who.get(&shared.keys()).await.ok()["total"], 2);
    }
});

// The audit

/// The events of this action, newest first.
async fn events(shared: &Shared, seen_by: &Actor, action: &str) -> Vec<Value> {
    let path = format!("/v1/{}/audit?limit=100&action={action}", shared.id);
    seen_by.get(&path).await.ok().list("events").clone()
}

both!(the_audit_records_every_end_of_an_offer_of_ownership, async || {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "owner").await;
    let (_, dora_id) = shared.member(&ada, "dora", "viewer").await;
    let transfer = shared.path("/ownership-transfer");
    let offer = async |by: &Actor, to: &str| {
        by.post(&transfer, json!({ "entity_id": to })).await.created();
    };
    offer(&ada, &bea_id).await;
    cleo.delete(&transfer).await.no_content();
    offer(&ada, &bea_id).await;
    bea.delete(&transfer).await.no_content();
    offer(&ada, &bea_id).await;
    offer(&ada, &dora_id).await;
    shared.set_role(&ada, &dora_id, "owner").await.ok();
    offer(&cleo, &bea_id).await;
    shared.set_role(&ada, &cleo_id, "admin").await.ok();
    offer(&ada, &bea_id).await;
    bea.delete(&shared.path("/members/me")).await.no_content();
    ada.get(&transfer).await.refused_as(404, "transfer_not_found");

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
    assert_eq!(left[0].fields(["resource_id", "actor_entity_id"]), json!([bea_id, bea_id]));
});

both!(the_audit_records_revoked_and_refused_invitations, async || {
    let (shared, ada) = Shared::new().await;
    let link = shared.invite(&ada, json!({ "role": "viewer" })).await;
    let path = shared.path(&format!("/invitations/{}", link.text("id")));
    let robot = shared.server.bearing(shared.issuer.machine("robot"));
    accept(&robot, &link).await.refused_as(403, "unsupported_principal");
    let bound = json!({ "role": "admin", "email": "bea@clinic.example" });
    let bound = ada.post(&shared.path("/invitations"), bound).await.created();
    let eve = shared.person("eve");
    accept(&eve, &bound).await.refused_as(403, "email_not_verified");
    let other = shared.server.tenant("other").await;
    let narrow = json!({ "duration_days": 1, "role": "member", "speaks_for": "self" });
    let (narrow, _) = other.key(narrow).await;
    let admins = shared.invite(&ada, json!({ "role": "admin" })).await;
    accept(&narrow, &admins).await.refused_as(403, "beyond_caller");
    accept(&eve, &json!({ "invitation": "ward_invite_none" })).await.refused_as(404, UNKNOWN);
    ada.delete(&path).await.no_content();
    // The refusal of an ended link is not recorded.
    accept(&robot, &link).await.refused_as(403, "unsupported_principal");
    shared.server.app.flush().await;

    let revoked = events(&shared, &ada, "invitation.revoke").await;
    assert_eq!((revoked.len(), &revoked[0]["resource_id"]), (1, &link["id"]));
    let refused = events(&shared, &ada, "access.forbidden").await;
    let operations: Vec<_> = refused.iter().map(|it| &it["metadata"]["operation"]).collect();
    assert_eq!(operations, ["accept-invitation"; 3], "{refused:#?}");
    assert!(refused.iter().any(|it| it["actor_entity_id"] == json!(other.claimed["created_by_entity_id"])));
});

// Repeats and races

both!(a_removed_member_gets_no_replayed_answer, async || {
    let (shared, ada) = Shared::new().await;
    let link = shared.invite(&ada, json!({ "role": "viewer" })).await;
    let bea = shared.person("bea");
    let body = json!({ "invitation": link["invitation"] });
    let join = async || bea.post_once("/v1/invitations/accept", "once-and-for-all", body.clone()).await;
    join().await.created();
    join().await.created();
    let id = entity(&bea).await;
    shared.remove(&ada, &id).await.no_content();
    join().await.refused_as(404, UNKNOWN);
});

both!(an_invitation_is_accepted_or_revoked_and_never_both, threads = 4, async || {
    let (shared, ada) = Shared::new().await;
    for round in 0..10 {
        let link = shared.invite(&ada, json!({ "role": "viewer" })).await;
        let path = shared.path(&format!("/invitations/{}", link.text("id")));
        let bea = shared.person(&format!("person-{round}"));
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
});

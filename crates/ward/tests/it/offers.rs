//! Invitations after their creation: extended, sent again, and read by the invited person.

use std::time::Duration;

use serde_json::{Value, json};
use ward_test::{Actor, Fields as _, both, new_workspace};

use super::members::{Shared, accept};
use crate::support::pages;

impl Shared {
    fn one(&self, invitation: &Value, rest: &str) -> String {
        self.path(&format!("/invitations/{}{rest}", invitation.text("id")))
    }

    /// A person whose issuer has verified this address.
    fn verified(&self, subject: &str, email: &str) -> Actor {
        let claims = json!({ "email": email, "email_verified": true });
        self.server.bearing(self.issuer.token_with(subject, &claims))
    }
}

fn accept_own(invitation: &Value) -> String {
    format!("/v1/me/invitations/{}/accept", invitation.text("id"))
}

async fn offered(actor: &Actor) -> Vec<Value> {
    let listed = actor.get("/v1/me/invitations?limit=20").await.ok();
    listed.list("items").clone()
}

both!(an_extended_invitation_keeps_its_link_and_gets_a_new_end, async || {
    let (shared, ada) = Shared::new().await;
    let link = shared.invite(&ada, json!({ "duration_days": 1 })).await;
    let extended = ada.patch(&shared.one(&link, ""), json!({ "duration_days": 10 })).await.ok();
    assert!(extended["expires_at"].as_str() > link["expires_at"].as_str());
    assert_eq!(extended.get("invitation"), None, "the link is shown once");
    assert_eq!(
        extended.fields(["id", "created_at", "created_by_entity_id"]),
        json!([link["id"], link["created_at"], link["created_by_entity_id"]])
    );
    shared.server.clock.advance(Duration::from_hours(24 * 9));
    let ada = shared.person("ada");
    let bea = shared.person("bea");
    accept(&bea, &link).await.created();
    // A used or expired invitation cannot be extended.
    ada.patch(&shared.one(&link, ""), json!({ "duration_days": 1 }))
        .await
        .refused_as(404, "invitation_not_found");
    let old = shared.invite(&ada, json!({ "duration_days": 1 })).await;
    shared.server.clock.advance(Duration::from_hours(24));
    let ada = shared.person("ada");
    for (path, send) in [(shared.one(&old, ""), true), (shared.one(&old, "/resend"), false)] {
        let body = json!({ "duration_days": 1 });
        let answer = if send { ada.patch(&path, body).await } else { ada.post(&path, body).await };
        answer.refused_as(404, "invitation_not_found");
    }
    for wrong in [json!({}), json!({ "duration_days": 0 }), json!({ "duration_days": 31 })] {
        assert_eq!(ada.patch(&shared.one(&old, ""), wrong).await.problem_locs(), ["body.duration_days"]);
    }
    assert_eq!(
        shared.actions(&ada).await[1..],
        ["invitation.create", "invitation.extend", "invitation.accept", "invitation.create"]
    );
});

both!(a_resent_invitation_has_a_new_link_and_a_new_maker, async || {
    let (shared, ada) = Shared::new().await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "admin").await;
    let former = shared.invite(&ada, json!({ "role": "operator" })).await;
    let resend = shared.one(&former, "/resend");
    let key = "a-link-that-is-sent-again";
    let link = cleo.post_once(&resend, key, json!({})).await.ok();
    assert_eq!(cleo.post_once(&resend, key, json!({})).await.ok(), link);
    assert_eq!(link.fields(["id", "role"]), json!([former["id"], former["role"]]));
    assert_eq!(link["created_by_entity_id"], *cleo_id);
    assert_ne!(link["invitation"], former["invitation"]);
    let bea = shared.person("bea");
    accept(&bea, &former).await.refused_as(404, "invitation_not_found");
    let text = link.text("invitation");
    assert!(!String::from_utf8_lossy(&shared.server.at_rest().await).contains(text));
    // It now ends with the authority of the member who sent it last.
    shared.set_role(&ada, &cleo_id, "viewer").await.ok();
    accept(&bea, &link).await.refused_as(404, "invitation_not_found");

    let again = shared.invite(&ada, json!({})).await;
    accept(&bea, &ada.post(&shared.one(&again, "/resend"), json!({})).await.ok()).await.created();
    ada.post(&shared.one(&again, "/resend"), json!({})).await.refused_as(404, "invitation_not_found");
});

both!(a_member_extends_and_resends_within_their_own_reach, async || {
    let (shared, ada) = Shared::new().await;
    let (cleo, _) = shared.member(&ada, "cleo", "admin").await;
    let (dora, _) = shared.member(&ada, "dora", "operator").await;
    let for_owner = shared.invite(&ada, json!({ "role": "owner" })).await;
    let body = json!({ "duration_days": 2 });
    for (actor, code) in [(&cleo, "beyond_caller"), (&dora, "forbidden")] {
        actor.patch(&shared.one(&for_owner, ""), body.clone()).await.refused_as(403, code);
        actor.post(&shared.one(&for_owner, "/resend"), body.clone()).await.refused_as(403, code);
    }
    // An invitation of another workspace does not exist here.
    let other = shared.server.tenant("other").await;
    let path = other.workspace(&format!("/invitations/{}", for_owner.text("id")));
    other.owner.patch(&path, body.clone()).await.refused_as(404, "invitation_not_found");
    other.owner.post(&format!("{path}/resend"), body.clone()).await.refused_as(404, "invitation_not_found");
    // An invitation that a key extended does not outlast the key.
    let (key, minted) = other.key(json!({ "duration_days": 1, "role": "owner" })).await;
    let link =
        other.owner.post(&other.workspace("/invitations"), json!({ "duration_days": 1 })).await.created();
    let path = other.workspace(&format!("/invitations/{}", link.text("id")));
    let extended = key.patch(&path, json!({ "duration_days": 30 })).await.ok();
    assert_eq!(extended["expires_at"], minted["expires_at"]);
    let resent = key.post(&format!("{path}/resend"), json!({})).await.ok();
    assert_eq!(resent["expires_at"], minted["expires_at"]);
    other.delete(&format!("/api-keys/{}", minted.text("key_id"))).await;
    let bea = shared.person("bea");
    accept(&bea, &resent).await.refused_as(404, "invitation_not_found");
});

both!(a_person_sees_the_invitations_for_their_verified_address_and_accepts_one, async || {
    let (shared, ada) = Shared::new().await;
    let bound = json!({ "role": "operator", "email": "Bea@Clinic.example" });
    let first = shared.invite(&ada, bound.clone()).await;
    shared.invite(&ada, json!({ "role": "viewer" })).await;
    shared.invite(&ada, json!({ "email": "eve@clinic.example" })).await;
    let other = shared.server.tenant("other").await;
    let second = other.owner.post(&other.workspace("/invitations"), bound).await.created();

    let bea = shared.verified("bea", "bea@clinic.EXAMPLE");
    let offers = offered(&bea).await;
    assert_eq!(
        offers,
        [
            json!({
                "id": first["id"], "workspace_id": shared.id, "slug": "shared", "name": offers[0]["name"],
                "role": "operator", "expires_at": first["expires_at"], "created_at": first["created_at"],
            }),
            json!({
                "id": second["id"], "workspace_id": other.id, "slug": "other", "name": offers[1]["name"],
                "role": "operator", "expires_at": second["expires_at"], "created_at": second["created_at"],
            }),
        ]
    );
    // Without the address the person sees no invitation and can accept none.
    shared.issuer.set_userinfo(Some(json!({ "sub": "fay" })));
    let unverified = json!({ "email": "bea@clinic.example", "email_verified": false });
    for stranger in [
        shared.verified("eva", "eva@clinic.example"),
        shared.server.bearing(shared.issuer.token_with("fay", &unverified)),
        shared.person("gil"),
        other.owner.clone(),
    ] {
        assert_eq!(offered(&stranger).await, [] as [Value; 0]);
        stranger.post(&accept_own(&first), json!({})).await.refused_as(404, "invitation_not_found");
    }
    let robot = shared.server.bearing(shared.issuer.machine("robot"));
    robot.post(&accept_own(&first), json!({})).await.refused_as(403, "unsupported_principal");

    let key = "an-offer-that-is-accepted-once";
    let joined = bea.post_once(&accept_own(&first), key, json!({})).await.created();
    assert_eq!(joined.fields(["workspace_id", "role"]), json!([shared.id, "operator"]));
    assert_eq!(bea.post_once(&accept_own(&first), key, json!({})).await.created(), joined);
    bea.post(&accept_own(&first), json!({})).await.refused_as(404, "invitation_not_found");
    bea.get(&shared.path("")).await.ok();
    let left: Vec<_> = offered(&bea).await.iter().map(|offer| offer["id"].clone()).collect();
    assert_eq!(left, [second["id"].clone()]);
    let third = shared.invite(&ada, json!({ "email": "bea@clinic.example" })).await;
    bea.post(&accept_own(&third), json!({})).await.refused_as(409, "already_member");
    // The issuer's userinfo may provide the address too.
    shared.issuer.set_userinfo(Some(json!({
        "sub": "hal", "email": "bea@clinic.example", "email_verified": "true"
    })));
    let hal = shared.person("hal");
    hal.post(&accept_own(&third), json!({})).await.created();
    assert!(shared.actions(&ada).await.ends_with(&["invitation.accept".to_owned()]));
});

both!(an_offer_is_gone_when_its_invitation_can_no_longer_be_accepted, async || {
    let (shared, ada) = Shared::new().await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "owner").await;
    let bound = |role: &str| json!({ "role": role, "email": "bea@clinic.example", "duration_days": 2 });
    let bea = shared.verified("bea", "bea@clinic.example");
    let gone = async |what: &str, invitation: &Value| {
        assert_eq!(offered(&bea).await, [] as [Value; 0], "{what}");
        bea.post(&accept_own(invitation), json!({})).await.refused_as(404, "invitation_not_found");
    };
    let revoked = shared.invite(&ada, bound("viewer")).await;
    assert_eq!(offered(&bea).await.len(), 1);
    ada.delete(&shared.one(&revoked, "")).await;
    gone("revoked", &revoked).await;

    let beyond = shared.invite(&cleo, bound("owner")).await;
    shared.set_role(&ada, &cleo_id, "admin").await.ok();
    gone("its maker is no longer an owner", &beyond).await;
    let by_cleo = shared.invite(&cleo, bound("admin")).await;
    assert_eq!(offered(&bea).await.len(), 1);
    shared.remove(&ada, &cleo_id).await;
    gone("its maker is no longer a member", &by_cleo).await;

    let other = shared.server.tenant("other").await;
    let (key, minted) = other.key(json!({ "duration_days": 1, "role": "admin" })).await;
    let by_key = key.post(&other.workspace("/invitations"), bound("viewer")).await.created();
    assert_eq!(offered(&bea).await.len(), 1);
    other.delete(&format!("/api-keys/{}", minted.text("key_id"))).await;
    gone("the key that made it is revoked", &by_key).await;

    let archived = shared.invite(&ada, bound("viewer")).await;
    assert_eq!(offered(&bea).await.len(), 1);
    ada.post(&shared.path("/archive"), json!({ "slug": "shared" })).await.ok();
    gone("its workspace is archived", &archived).await;

    let old = other.owner.post(&other.workspace("/invitations"), bound("viewer")).await.created();
    shared.server.clock.advance(Duration::from_hours(48));
    let bea = shared.verified("bea", "bea@clinic.example");
    assert_eq!(offered(&bea).await, [] as [Value; 0], "it is over");
    bea.post(&accept_own(&old), json!({})).await.refused_as(404, "invitation_not_found");
});

both!(offers_come_in_pages_and_none_is_skipped_at_equal_positions, async || {
    let (shared, ada) = Shared::new().await;
    let mut made = Vec::new();
    for index in 0..7 {
        let slug = format!("clinic-{index}");
        let own = ada.post("/v1/me/workspaces", new_workspace(&slug)).await.created();
        let path = format!("/v1/workspaces/{}/invitations", own.text("id"));
        made.push(ada.post(&path, json!({ "email": "bea@clinic.example" })).await.created()["id"].clone());
    }
    // Workspaces do not share a guard row, so invitations of two workspaces can have the same position.
    let places: [i64; 7] = [10, 20, 20, 20, 30, 40, 40];
    for (id, place) in made.iter().zip(places) {
        let sql =
            format!("UPDATE invitations SET position = {place} WHERE id = uuid '{}'", id.as_str().unwrap());
        assert_eq!(shared.server.sql(sql).await, 1);
    }
    let bea = shared.verified("bea", "bea@clinic.example");
    for limit in [1, 2, 3, 4, 5, 20] {
        if limit < 3 {
            // Three rows with the same position need a page of three.
            continue;
        }
        let pages = pages(&bea, &format!("/v1/me/invitations?limit={limit}")).await;
        assert!(pages.iter().all(|page| page["total"] == 7), "{pages:?}");
        let offers = pages.iter().flat_map(|page| page.list("items"));
        let seen: Vec<Value> = offers.map(|offer| offer["id"].clone()).collect();
        assert_eq!(seen, made, "limit {limit}");
    }
});

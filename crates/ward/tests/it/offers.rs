//! Invitations after their creation: extended, sent again, and read by the invited person.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_test::{Actor, both, new_workspace};

use super::members::Shared;

impl Shared {
    /// An invitation by Ada or another member.
    async fn invited(&self, by: &Actor, body: Value) -> Value {
        by.post(&self.path("/invitations"), body).await.expect(StatusCode::CREATED)
    }

    fn one(&self, invitation: &Value, rest: &str) -> String {
        self.path(&format!("/invitations/{}{rest}", invitation["id"].as_str().unwrap()))
    }

    /// A person whose issuer has verified this address.
    fn verified(&self, subject: &str, email: &str) -> Actor {
        let claims = json!({ "email": email, "email_verified": true });
        self.server.bearing(self.issuer.token_with(subject, &claims))
    }
}

async fn accept(actor: &Actor, link: &Value) -> ward_test::Answer {
    actor.post("/v1/invitations/accept", json!({ "invitation": link["invitation"] })).await
}

fn accept_own(invitation: &Value) -> String {
    format!("/v1/me/invitations/{}/accept", invitation["id"].as_str().unwrap())
}

async fn offered(actor: &Actor) -> Vec<Value> {
    let listed = actor.get("/v1/me/invitations?limit=20").await.expect(StatusCode::OK);
    listed["items"].as_array().unwrap().clone()
}

both!(an_extended_invitation_keeps_its_link_and_gets_a_new_end);
async fn an_extended_invitation_keeps_its_link_and_gets_a_new_end() {
    let (shared, ada) = Shared::new().await;
    let link = shared.invited(&ada, json!({ "duration_days": 1 })).await;
    let extended =
        ada.patch(&shared.one(&link, ""), json!({ "duration_days": 10 })).await.expect(StatusCode::OK);
    assert!(extended["expires_at"].as_str() > link["expires_at"].as_str());
    assert_eq!(extended.get("invitation"), None, "the link is shown once");
    assert_eq!(
        (&extended["id"], &extended["created_at"], &extended["created_by_entity_id"]),
        (&link["id"], &link["created_at"], &link["created_by_entity_id"])
    );
    shared.server.clock.advance(Duration::from_hours(24 * 9));
    let ada = shared.server.person(&shared.issuer, "ada");
    let bea = shared.server.person(&shared.issuer, "bea");
    accept(&bea, &link).await.expect(StatusCode::CREATED);
    // A used or expired invitation cannot be extended.
    let extend = ada.patch(&shared.one(&link, ""), json!({ "duration_days": 1 })).await;
    assert_eq!(extend.refused(404), "invitation_not_found");
    let old = shared.invited(&ada, json!({ "duration_days": 1 })).await;
    shared.server.clock.advance(Duration::from_hours(24));
    let ada = shared.server.person(&shared.issuer, "ada");
    for (path, send) in [(shared.one(&old, ""), true), (shared.one(&old, "/resend"), false)] {
        let body = json!({ "duration_days": 1 });
        let answer = if send { ada.patch(&path, body).await } else { ada.post(&path, body).await };
        assert_eq!(answer.refused(404), "invitation_not_found");
    }
    for wrong in [json!({}), json!({ "duration_days": 0 }), json!({ "duration_days": 31 })] {
        let answer = ada.patch(&shared.one(&old, ""), wrong).await;
        assert_eq!(answer.problem_locs(), ["body.duration_days"]);
    }
    assert_eq!(
        shared.actions(&ada).await[1..],
        ["invitation.create", "invitation.extend", "invitation.accept", "invitation.create"]
    );
}

both!(a_resent_invitation_has_a_new_link_and_a_new_maker);
async fn a_resent_invitation_has_a_new_link_and_a_new_maker() {
    let (shared, ada) = Shared::new().await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "admin").await;
    let former = shared.invited(&ada, json!({ "role": "operator" })).await;
    let resend = shared.one(&former, "/resend");
    let key = "a-link-that-is-sent-again";
    let link = cleo.post_once(&resend, key, json!({})).await.expect(StatusCode::OK);
    assert_eq!(cleo.post_once(&resend, key, json!({})).await.expect(StatusCode::OK), link);
    assert_eq!((&link["id"], &link["role"]), (&former["id"], &former["role"]));
    assert_eq!(link["created_by_entity_id"], *cleo_id);
    assert_ne!(link["invitation"], former["invitation"]);
    let bea = shared.server.person(&shared.issuer, "bea");
    assert_eq!(accept(&bea, &former).await.refused(404), "invitation_not_found");
    let text = link["invitation"].as_str().unwrap();
    assert!(!String::from_utf8_lossy(&shared.server.at_rest().await).contains(text));
    // It now ends with the authority of the member who sent it last.
    shared.set_role(&ada, &cleo_id, "viewer").await.expect(StatusCode::OK);
    assert_eq!(accept(&bea, &link).await.refused(404), "invitation_not_found");

    let again = shared.invited(&ada, json!({})).await;
    let link = ada.post(&shared.one(&again, "/resend"), json!({})).await.expect(StatusCode::OK);
    accept(&bea, &link).await.expect(StatusCode::CREATED);
    assert_eq!(
        ada.post(&shared.one(&again, "/resend"), json!({})).await.refused(404),
        "invitation_not_found"
    );
}

both!(a_member_extends_and_resends_within_their_own_reach);
async fn a_member_extends_and_resends_within_their_own_reach() {
    let (shared, ada) = Shared::new().await;
    let (cleo, _) = shared.member(&ada, "cleo", "admin").await;
    let (dora, _) = shared.member(&ada, "dora", "operator").await;
    let for_owner = shared.invited(&ada, json!({ "role": "owner" })).await;
    let body = json!({ "duration_days": 2 });
    for (actor, code) in [(&cleo, "beyond_caller"), (&dora, "forbidden")] {
        assert_eq!(actor.patch(&shared.one(&for_owner, ""), body.clone()).await.refused(403), code);
        assert_eq!(actor.post(&shared.one(&for_owner, "/resend"), body.clone()).await.refused(403), code);
    }
    // An invitation of another workspace does not exist here.
    let other = shared.server.tenant("other").await;
    let path = other.workspace(&format!("/invitations/{}", for_owner["id"].as_str().unwrap()));
    assert_eq!(other.owner.patch(&path, body.clone()).await.refused(404), "invitation_not_found");
    assert_eq!(
        other.owner.post(&format!("{path}/resend"), body.clone()).await.refused(404),
        "invitation_not_found"
    );
    // An invitation that a key extended does not outlast the key.
    let (key, minted) = other.key(json!({ "duration_days": 1, "role": "owner" })).await;
    let link = other
        .owner
        .post(&other.workspace("/invitations"), json!({ "duration_days": 1 }))
        .await
        .expect(StatusCode::CREATED);
    let path = other.workspace(&format!("/invitations/{}", link["id"].as_str().unwrap()));
    let extended = key.patch(&path, json!({ "duration_days": 30 })).await.expect(StatusCode::OK);
    assert_eq!(extended["expires_at"], minted["expires_at"]);
    let resent = key.post(&format!("{path}/resend"), json!({})).await.expect(StatusCode::OK);
    assert_eq!(resent["expires_at"], minted["expires_at"]);
    other.owner.delete(&other.path(&format!("/api-keys/{}", minted["key_id"].as_str().unwrap()))).await;
    let bea = shared.server.person(&shared.issuer, "bea");
    assert_eq!(accept(&bea, &resent).await.refused(404), "invitation_not_found");
}

both!(a_person_sees_the_invitations_for_their_verified_address_and_accepts_one);
async fn a_person_sees_the_invitations_for_their_verified_address_and_accepts_one() {
    let (shared, ada) = Shared::new().await;
    let bound = json!({ "role": "operator", "email": "Bea@Clinic.example" });
    let first = shared.invited(&ada, bound.clone()).await;
    shared.invited(&ada, json!({ "role": "viewer" })).await;
    shared.invited(&ada, json!({ "email": "eve@clinic.example" })).await;
    let other = shared.server.tenant("other").await;
    let second = other.owner.post(&other.workspace("/invitations"), bound).await.expect(StatusCode::CREATED);

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
        shared.server.person(&shared.issuer, "gil"),
        other.owner.clone(),
    ] {
        assert_eq!(offered(&stranger).await, [] as [Value; 0]);
        assert_eq!(stranger.post(&accept_own(&first), json!({})).await.refused(404), "invitation_not_found");
    }
    let robot = shared.server.bearing(shared.issuer.machine("robot"));
    assert_eq!(robot.post(&accept_own(&first), json!({})).await.refused(403), "unsupported_principal");

    let key = "an-offer-that-is-accepted-once";
    let joined = bea.post_once(&accept_own(&first), key, json!({})).await.expect(StatusCode::CREATED);
    assert_eq!((&joined["workspace_id"], &joined["role"]), (&json!(shared.id), &json!("operator")));
    assert_eq!(bea.post_once(&accept_own(&first), key, json!({})).await.expect(StatusCode::CREATED), joined);
    assert_eq!(bea.post(&accept_own(&first), json!({})).await.refused(404), "invitation_not_found");
    bea.get(&shared.path("")).await.expect(StatusCode::OK);
    let left: Vec<_> = offered(&bea).await.iter().map(|offer| offer["id"].clone()).collect();
    assert_eq!(left, [second["id"].clone()]);
    let third = shared.invited(&ada, json!({ "email": "bea@clinic.example" })).await;
    assert_eq!(bea.post(&accept_own(&third), json!({})).await.refused(409), "already_member");
    // The issuer's userinfo may provide the address too.
    shared.issuer.set_userinfo(Some(json!({
        "sub": "hal", "email": "bea@clinic.example", "email_verified": "true"
    })));
    let hal = shared.server.person(&shared.issuer, "hal");
    hal.post(&accept_own(&third), json!({})).await.expect(StatusCode::CREATED);
    assert!(shared.actions(&ada).await.ends_with(&["invitation.accept".to_owned()]));
}

both!(an_offer_is_gone_when_its_invitation_can_no_longer_be_accepted);
async fn an_offer_is_gone_when_its_invitation_can_no_longer_be_accepted() {
    let (shared, ada) = Shared::new().await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "owner").await;
    let bound = |role: &str| json!({ "role": role, "email": "bea@clinic.example", "duration_days": 2 });
    let bea = shared.verified("bea", "bea@clinic.example");
    let gone = async |what: &str, invitation: &Value| {
        assert_eq!(offered(&bea).await, [] as [Value; 0], "{what}");
        assert_eq!(bea.post(&accept_own(invitation), json!({})).await.refused(404), "invitation_not_found");
    };
    let revoked = shared.invited(&ada, bound("viewer")).await;
    assert_eq!(offered(&bea).await.len(), 1);
    ada.delete(&shared.one(&revoked, "")).await;
    gone("revoked", &revoked).await;

    let beyond = shared.invited(&cleo, bound("owner")).await;
    shared.set_role(&ada, &cleo_id, "admin").await.expect(StatusCode::OK);
    gone("its maker is no longer an owner", &beyond).await;
    let by_cleo = shared.invited(&cleo, bound("admin")).await;
    assert_eq!(offered(&bea).await.len(), 1);
    shared.remove(&ada, &cleo_id).await;
    gone("its maker is no longer a member", &by_cleo).await;

    let other = shared.server.tenant("other").await;
    let (key, minted) = other.key(json!({ "duration_days": 1, "role": "admin" })).await;
    let by_key =
        key.post(&other.workspace("/invitations"), bound("viewer")).await.expect(StatusCode::CREATED);
    assert_eq!(offered(&bea).await.len(), 1);
    other.owner.delete(&other.path(&format!("/api-keys/{}", minted["key_id"].as_str().unwrap()))).await;
    gone("the key that made it is revoked", &by_key).await;

    let archived = shared.invited(&ada, bound("viewer")).await;
    assert_eq!(offered(&bea).await.len(), 1);
    ada.post(&shared.path("/archive"), json!({ "slug": "shared" })).await.expect(StatusCode::OK);
    gone("its workspace is archived", &archived).await;

    let old =
        other.owner.post(&other.workspace("/invitations"), bound("viewer")).await.expect(StatusCode::CREATED);
    shared.server.clock.advance(Duration::from_hours(48));
    let bea = shared.verified("bea", "bea@clinic.example");
    assert_eq!(offered(&bea).await, [] as [Value; 0], "it is over");
    assert_eq!(bea.post(&accept_own(&old), json!({})).await.refused(404), "invitation_not_found");
}

both!(offers_come_in_pages_and_none_is_skipped_at_equal_positions);
async fn offers_come_in_pages_and_none_is_skipped_at_equal_positions() {
    let (shared, ada) = Shared::new().await;
    let mut made = Vec::new();
    for index in 0..7 {
        let slug = format!("clinic-{index}");
        let own = ada.post("/v1/me/workspaces", new_workspace(&slug)).await.expect(StatusCode::CREATED);
        let path = format!("/v1/workspaces/{}/invitations", own["id"].as_str().unwrap());
        let body = json!({ "email": "bea@clinic.example" });
        made.push(ada.post(&path, body).await.expect(StatusCode::CREATED)["id"].clone());
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
        let (mut seen, mut token) = (Vec::new(), json!(0));
        loop {
            let path = format!("/v1/me/invitations?limit={limit}&continuation_token={token}");
            let page = bea.get(&path).await.expect(StatusCode::OK);
            assert_eq!(page["total"], 7);
            seen.extend(page["items"].as_array().unwrap().iter().map(|offer| offer["id"].clone()));
            token = page["continuation_token"].clone();
            if page["has_more"] == false {
                break;
            }
        }
        assert_eq!(seen, made, "limit {limit}");
    }
}

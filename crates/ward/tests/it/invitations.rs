//! Invitations: links that let somebody in, once.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward_test::{Actor, Answer, Server, both, new_workspace};

use super::members::{Shared, entity};

async fn invite(shared: &Shared, by: &Actor, body: Value) -> Value {
    by.post(&shared.path("/invitations"), body).await.expect(StatusCode::CREATED)
}

async fn accept(actor: &Actor, link: &Value) -> Answer {
    actor.post("/v1/invitations/accept", json!({ "invitation": link["invitation"] })).await
}

both!(an_invitation_lets_one_person_in_with_its_role);
async fn an_invitation_lets_one_person_in_with_its_role() {
    let (shared, ada) = Shared::new().await;
    let link = invite(&shared, &ada, json!({ "role": "operator" })).await;
    let text = link["invitation"].as_str().unwrap();
    assert!(text.starts_with("ward_invite_") && text.len() == 55, "{text}");
    let listed = ada.get(&shared.path("/invitations")).await.expect(StatusCode::OK);
    assert_eq!(listed["items"][0]["id"], link["id"]);
    assert_eq!(listed["items"][0]["created_by_entity_id"], entity(&ada).await);
    assert!(!listed.to_string().contains(text));

    let bea = shared.server.person(&shared.issuer, "bea");
    let joined = accept(&bea, &link).await.expect(StatusCode::CREATED);
    assert_eq!((&joined["workspace_id"], &joined["role"]), (&json!(shared.id), &json!("operator")));
    assert_eq!(joined["permissions"].as_array().unwrap().len(), 6);
    bea.get(&shared.path("")).await.expect(StatusCode::OK);
    assert_eq!(bea.get("/v1/workspaces").await.expect(StatusCode::OK)["items"][0]["slug"], "shared");
    // Once.
    let cleo = shared.server.person(&shared.issuer, "cleo");
    assert_eq!(accept(&cleo, &link).await.refused(404), "invitation_not_found");
    assert_eq!(accept(&bea, &link).await.refused(404), "invitation_not_found");
    assert_eq!(ada.get(&shared.path("/invitations")).await.expect(StatusCode::OK)["total"], 0);
    let actions = shared.actions(&ada).await;
    assert_eq!(actions, ["workspace.create", "invitation.create", "invitation.accept"]);
    // Neither the link nor who was invited is kept or told.
    assert!(!String::from_utf8_lossy(&shared.server.at_rest().await).contains(text));
}

both!(of_many_who_accept_one_invitation_one_does, threads = 4);
async fn of_many_who_accept_one_invitation_one_does() {
    let (shared, ada) = Shared::new().await;
    let link = invite(&shared, &ada, json!({})).await;
    let running: Vec<_> = (0..20)
        .map(|index| {
            let (actor, link) =
                (shared.server.person(&shared.issuer, &format!("person-{index}")), link.clone());
            tokio::spawn(async move { accept(&actor, &link).await.status.as_u16() })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in running {
        statuses.push(one.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1]), (201, 404));
    assert_eq!(shared.server.count("SELECT count(*) FROM memberships").await, 2);
    assert_eq!(
        shared.server.count("SELECT count(*) FROM principals").await,
        2,
        "who did not get in is nobody"
    );
}

both!(an_invitation_is_over_when_it_is_old_revoked_or_its_workspace_gone);
async fn an_invitation_is_over_when_it_is_old_revoked_or_its_workspace_gone() {
    let (shared, ada) = Shared::new().await;
    let bea = shared.server.person(&shared.issuer, "bea");
    let revoked = invite(&shared, &ada, json!({})).await;
    let path = shared.path(&format!("/invitations/{}", revoked["id"].as_str().unwrap()));
    assert_eq!(ada.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.delete(&path).await.refused(404), "invitation_not_found");
    let mut faces = vec![accept(&bea, &revoked).await.anonymized()];
    let old = invite(&shared, &ada, json!({ "duration_days": 1 })).await;
    shared.server.clock.advance(Duration::from_hours(24));
    let (ada, bea) =
        (shared.server.person(&shared.issuer, "ada"), shared.server.person(&shared.issuer, "bea"));
    faces.push(accept(&bea, &old).await.anonymized());
    assert_eq!(ada.get(&shared.path("/invitations")).await.expect(StatusCode::OK)["total"], 0);
    let path = shared.path(&format!("/invitations/{}", old["id"].as_str().unwrap()));
    assert_eq!(ada.delete(&path).await.refused(404), "invitation_not_found");
    let of_archived = invite(&shared, &ada, json!({})).await;
    ada.post(&shared.path("/archive"), json!({ "slug": "shared" })).await.expect(StatusCode::OK);
    faces.push(accept(&bea, &of_archived).await.anonymized());
    faces.push(accept(&bea, &json!({ "invitation": "ward_invite_no" })).await.anonymized());
    assert!(faces.windows(2).all(|pair| pair[0] == pair[1]), "{faces:#?}");
    shared.server.clock.advance(Duration::from_hours(24 * 10));
    shared.server.app.sweep().await;
    assert_eq!(
        shared.server.count("SELECT count(*) FROM invitations").await,
        0,
        "what is long over is forgotten"
    );
}

both!(nobody_invites_above_themselves_and_an_invitation_does_not_outlive_its_makers_authority);
async fn nobody_invites_above_themselves_and_an_invitation_does_not_outlive_its_makers_authority() {
    let (shared, ada) = Shared::new().await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "admin").await;
    let (dora, _) = shared.member(&ada, "dora", "operator").await;
    let path = shared.path("/invitations");
    assert_eq!(dora.post(&path, json!({ "role": "viewer" })).await.refused(403), "forbidden");
    assert_eq!(cleo.post(&path, json!({ "role": "owner" })).await.refused(403), "beyond_caller");
    let for_owner = invite(&shared, &ada, json!({ "role": "owner" })).await;
    let revoke = shared.path(&format!("/invitations/{}", for_owner["id"].as_str().unwrap()));
    assert_eq!(cleo.delete(&revoke).await.refused(403), "beyond_caller");
    let by_cleo = invite(&shared, &cleo, json!({ "role": "admin" })).await;
    shared.set_role(&ada, &cleo_id, "owner").await.expect(StatusCode::OK);
    let as_owner = invite(&shared, &cleo, json!({ "role": "owner" })).await;
    shared.set_role(&ada, &cleo_id, "admin").await.expect(StatusCode::OK);
    let bea = shared.server.person(&shared.issuer, "bea");
    assert_eq!(accept(&bea, &as_owner).await.refused(404), "invitation_not_found");
    shared.set_role(&ada, &cleo_id, "operator").await.expect(StatusCode::OK);
    assert_eq!(accept(&bea, &by_cleo).await.refused(404), "invitation_not_found");
    accept(&bea, &for_owner).await.expect(StatusCode::CREATED);
}

both!(who_is_a_member_already_does_not_use_an_invitation_up);
async fn who_is_a_member_already_does_not_use_an_invitation_up() {
    let (shared, ada) = Shared::new().await;
    let link = invite(&shared, &ada, json!({ "role": "viewer" })).await;
    assert_eq!(accept(&ada, &link).await.refused(409), "already_member");
    let bea = shared.server.person(&shared.issuer, "bea");
    accept(&bea, &link).await.expect(StatusCode::CREATED);
}

both!(invitations_are_for_users_and_for_credentials_that_reach_that_far);
async fn invitations_are_for_users_and_for_credentials_that_reach_that_far() {
    let (shared, ada) = Shared::new().await;
    let link = invite(&shared, &ada, json!({ "role": "admin" })).await;
    let robot = shared.server.bearing(shared.issuer.machine("robot"));
    assert_eq!(accept(&robot, &link).await.refused(403), "unsupported_principal");
    let other = shared.server.tenant("other").await;
    assert_eq!(accept(&other.service("owner").await, &link).await.refused(403), "unsupported_principal");
    let narrow = json!({ "duration_days": 1, "role": "operator", "speaks_for": "self" });
    let (narrow, _) = other.key(narrow).await;
    assert_eq!(accept(&narrow, &link).await.refused(403), "beyond_caller");
    // A user with a whole key of their own, as a claim gives it.
    accept(&other.owner, &link).await.expect(StatusCode::CREATED);
    other.owner.get(&shared.path("")).await.expect(StatusCode::OK);
}

both!(an_invitation_bound_to_an_address_wants_that_address_verified);
async fn an_invitation_bound_to_an_address_wants_that_address_verified() {
    let (shared, ada) = Shared::new().await;
    let (server, issuer) = (&shared.server, &shared.issuer);
    let bound = json!({ "role": "viewer", "email": " Bea@Clinic.Example " });
    let link = invite(&shared, &ada, bound.clone()).await;
    assert_eq!(link["email"], "Bea@Clinic.Example");
    let told = |subject: &str, claims: Value| server.bearing(issuer.token_with(subject, &claims));
    for claims in [
        json!({}),
        json!({ "email": "bea@clinic.example" }),
        json!({ "email": "bea@clinic.example", "email_verified": false }),
        json!({ "email": "bea@clinic.example", "email_verified": "True" }),
        json!({ "email": "bea@clinic.example", "email_verified": "false" }),
        json!({ "email": "bea@clinic.example", "email_verified": 1 }),
        json!({ "email": "bea@clinic.example", "email_verified": ["true"] }),
        json!({ "email": "eve@clinic.example", "email_verified": true }),
        json!({ "email": "eve@clinic.example", "email_verified": "true" }),
    ] {
        assert_eq!(accept(&told("bea", claims), &link).await.refused(403), "email_not_verified");
    }
    // A key proves no address, not even its owner's.
    let tenant = server.tenant("other").await;
    assert_eq!(accept(&tenant.owner, &link).await.refused(403), "email_not_verified");
    let bea = told("bea", json!({ "email": "bea@clinic.example", "email_verified": true }));
    accept(&bea, &link).await.expect(StatusCode::CREATED);

    // Some providers write the flag as text, in the token and in userinfo.
    let link = invite(&shared, &ada, bound.clone()).await;
    let fay = told("fay", json!({ "email": "Bea@clinic.example", "email_verified": "true" }));
    accept(&fay, &link).await.expect(StatusCode::CREATED);
    let link = invite(&shared, &ada, bound.clone()).await;
    issuer
        .set_userinfo(Some(json!({ "sub": "gil", "email": "bea@clinic.example", "email_verified": "true" })));
    accept(&server.person(issuer, "gil"), &link).await.expect(StatusCode::CREATED);

    // From the issuer's userinfo, if it is about the same subject.
    let link = invite(&shared, &ada, bound).await;
    let verified = json!({ "sub": "dora", "email": "bea@clinic.example", "email_verified": true });
    issuer.set_userinfo(Some(json!({ "sub": "eve", "email": "bea@clinic.example", "email_verified": true })));
    assert_eq!(accept(&server.person(issuer, "dora"), &link).await.refused(403), "email_not_verified");
    issuer.set_down(true);
    let refused = accept(&server.person(issuer, "dora"), &link).await;
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(refused.refused(503), "identity_unavailable");
    issuer.set_down(false);
    issuer.set_userinfo(Some(verified));
    accept(&server.person(issuer, "dora"), &link).await.expect(StatusCode::CREATED);
    // The audit tells that there was an address, not which.
    let audit =
        ada.get(&format!("/v1/{}/audit?limit=100", shared.id)).await.expect(StatusCode::OK).to_string();
    assert!(audit.contains("\"bound_to_email\":true") && !audit.to_lowercase().contains("bea@"), "{audit}");
}

both!(repeats_of_invitations_are_answered_as_the_first_time);
async fn repeats_of_invitations_are_answered_as_the_first_time() {
    let (shared, ada) = Shared::new().await;
    let path = shared.path("/invitations");
    let key = "an-invitation-made-once";
    let link = ada.post_once(&path, key, json!({})).await.expect(StatusCode::CREATED);
    assert_eq!(ada.post_once(&path, key, json!({})).await.expect(StatusCode::CREATED), link);
    assert_eq!(shared.server.count("SELECT count(*) FROM invitations").await, 1);
    let bea = shared.server.person(&shared.issuer, "bea");
    let body = json!({ "invitation": link["invitation"] });
    let joined = bea.post_once("/v1/invitations/accept", key, body.clone()).await.expect(StatusCode::CREATED);
    let again = bea.post_once("/v1/invitations/accept", key, body.clone()).await.expect(StatusCode::CREATED);
    assert_eq!(again, joined);
    let cleo = shared.server.person(&shared.issuer, "cleo");
    assert_eq!(
        cleo.post_once("/v1/invitations/accept", key, body.clone()).await.refused(404),
        "invitation_not_found"
    );
    shared.server.clock.advance(Duration::from_mins(10));
    let late = shared.server.person(&shared.issuer, "ada").post_once(&path, key, json!({})).await;
    assert_eq!(late.refused(409), "secret_no_longer_shown");
}

both!(each_mistake_in_an_invitation_is_named_and_its_secret_not_repeated);
async fn each_mistake_in_an_invitation_is_named_and_its_secret_not_repeated() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let path = tenant.workspace("/invitations");
    for (body, locs) in [
        (
            json!({ "role": "king", "email": "nobody", "duration_days": 31 }),
            vec!["body.role", "body.email", "body.duration_days"],
        ),
        (json!({ "email": "a b@c" }), vec!["body.email"]),
        (json!({ "duration_days": 0 }), vec!["body.duration_days"]),
    ] {
        assert_eq!(tenant.owner.post(&path, body.clone()).await.problem_locs(), locs, "{body}");
    }
    let long = format!("ward_invite_{}", "s".repeat(200));
    let refused = tenant.owner.post("/v1/invitations/accept", json!({ "invitation": long })).await;
    assert!(!refused.text.contains("sss"), "{}", refused.text);
    assert_eq!(refused.problem_locs(), ["body.invitation"]);
    tenant.owner.post("/v1/me/workspaces", new_workspace("unharmed")).await.expect(StatusCode::CREATED);
}

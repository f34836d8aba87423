//! Invitations: links that admit one person to a workspace.

use std::time::Duration;

use serde_json::{Value, json};
use ward_test::{Fields as _, Server, both, new_workspace};

use super::members::{Shared, accept, entity};
use crate::support::together;

both!(an_invitation_lets_one_person_in_with_its_role, async || {
    let (shared, ada) = Shared::new().await;
    let link = shared.invite(&ada, json!({ "role": "operator" })).await;
    let text = link.text("invitation");
    assert!(text.starts_with("ward_invite_") && text.len() == 55, "{text}");
    let listed = ada.get(&shared.path("/invitations")).await.ok();
    assert_eq!(listed["items"][0]["id"], link["id"]);
    assert_eq!(listed["items"][0]["created_by_entity_id"], entity(&ada).await);
    assert!(!listed.to_string().contains(text));

    let bea = shared.person("bea");
    let joined = accept(&bea, &link).await.created();
    assert_eq!(joined.fields(["workspace_id", "role"]), json!([shared.id, "operator"]));
    assert_eq!(joined.list("permissions").len(), 6);
    bea.get(&shared.path("")).await.ok();
    assert_eq!(bea.get("/v1/workspaces").await.ok()["items"][0]["slug"], "shared");
    // The link works once.
    let cleo = shared.person("cleo");
    accept(&cleo, &link).await.refused_as(404, "invitation_not_found");
    accept(&bea, &link).await.refused_as(404, "invitation_not_found");
    assert_eq!(ada.get(&shared.path("/invitations")).await.ok()["total"], 0);
    let actions = shared.actions(&ada).await;
    assert_eq!(actions, ["workspace.create", "invitation.create", "invitation.accept"]);
    // The database holds neither the link nor the invited address.
    assert!(!String::from_utf8_lossy(&shared.server.at_rest().await).contains(text));
});

both!(one_of_many_concurrent_acceptances_succeeds, threads = 4, async || {
    let (shared, ada) = Shared::new().await;
    let link = shared.invite(&ada, json!({})).await;
    let mut statuses = together((0..20).map(|index| {
        let (actor, link) = (shared.person(&format!("person-{index}")), link.clone());
        async move { accept(&actor, &link).await.status.as_u16() }
    }))
    .await;
    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1]), (201, 404));
    assert_eq!(shared.server.count("SELECT count(*) FROM memberships").await, 2);
    assert_eq!(
        shared.server.count("SELECT count(*) FROM principals").await,
        2,
        "refused people get no principal"
    );
});

both!(an_invitation_ends_when_it_expires_is_revoked_or_its_workspace_is_archived, async || {
    let (shared, ada) = Shared::new().await;
    let bea = shared.person("bea");
    let revoked = shared.invite(&ada, json!({})).await;
    let path = shared.path(&format!("/invitations/{}", revoked.text("id")));
    ada.delete(&path).await.no_content();
    ada.delete(&path).await.refused_as(404, "invitation_not_found");
    let mut faces = vec![accept(&bea, &revoked).await.anonymized()];
    let old = shared.invite(&ada, json!({ "duration_days": 1 })).await;
    shared.server.clock.advance(Duration::from_hours(24));
    let (ada, bea) = (shared.person("ada"), shared.person("bea"));
    faces.push(accept(&bea, &old).await.anonymized());
    assert_eq!(ada.get(&shared.path("/invitations")).await.ok()["total"], 0);
    let path = shared.path(&format!("/invitations/{}", old.text("id")));
    ada.delete(&path).await.refused_as(404, "invitation_not_found");
    let of_archived = shared.invite(&ada, json!({})).await;
    ada.post(&shared.path("/archive"), json!({ "slug": "shared" })).await.ok();
    faces.push(accept(&bea, &of_archived).await.anonymized());
    faces.push(accept(&bea, &json!({ "invitation": "ward_invite_no" })).await.anonymized());
    assert!(faces.windows(2).all(|pair| pair[0] == pair[1]), "{faces:#?}");
    shared.server.clock.advance(Duration::from_hours(24 * 10));
    shared.server.app.sweep().await;
    assert_eq!(
        shared.server.count("SELECT count(*) FROM invitations").await,
        0,
        "invitations that ended long ago are deleted"
    );
});

both!(an_invitation_is_bounded_by_its_makers_role_at_all_times, async || {
    let (shared, ada) = Shared::new().await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "admin").await;
    let (dora, _) = shared.member(&ada, "dora", "operator").await;
    let path = shared.path("/invitations");
    dora.post(&path, json!({ "role": "viewer" })).await.refused_as(403, "forbidden");
    cleo.post(&path, json!({ "role": "owner" })).await.refused_as(403, "beyond_caller");
    let for_owner = shared.invite(&ada, json!({ "role": "owner" })).await;
    let revoke = shared.path(&format!("/invitations/{}", for_owner.text("id")));
    cleo.delete(&revoke).await.refused_as(403, "beyond_caller");
    let by_cleo = shared.invite(&cleo, json!({ "role": "admin" })).await;
    shared.set_role(&ada, &cleo_id, "owner").await.ok();
    let as_owner = shared.invite(&cleo, json!({ "role": "owner" })).await;
    shared.set_role(&ada, &cleo_id, "admin").await.ok();
    let bea = shared.person("bea");
    accept(&bea, &as_owner).await.refused_as(404, "invitation_not_found");
    shared.set_role(&ada, &cleo_id, "operator").await.ok();
    accept(&bea, &by_cleo).await.refused_as(404, "invitation_not_found");
    accept(&bea, &for_owner).await.created();
});

both!(a_member_does_not_use_up_an_invitation, async || {
    let (shared, ada) = Shared::new().await;
    let link = shared.invite(&ada, json!({ "role": "viewer" })).await;
    accept(&ada, &link).await.refused_as(409, "already_member");
    let bea = shared.person("bea");
    accept(&bea, &link).await.created();
});

both!(only_users_with_sufficient_credentials_accept_invitations, async || {
    let (shared, ada) = Shared::new().await;
    let link = shared.invite(&ada, json!({ "role": "admin" })).await;
    let robot = shared.server.bearing(shared.issuer.machine("robot"));
    accept(&robot, &link).await.refused_as(403, "unsupported_principal");
    let other = shared.server.tenant("other").await;
    accept(&other.service("owner").await, &link).await.refused_as(403, "unsupported_principal");
    let narrow = json!({ "duration_days": 1, "role": "operator", "speaks_for": "self" });
    let (narrow, _) = other.key(narrow).await;
    accept(&narrow, &link).await.refused_as(403, "beyond_caller");
    // The claiming user's key has all permissions.
    accept(&other.owner, &link).await.created();
    other.owner.get(&shared.path("")).await.ok();
});

both!(an_invitation_bound_to_an_address_needs_that_address_verified, async || {
    let (shared, ada) = Shared::new().await;
    let (server, issuer) = (&shared.server, &shared.issuer);
    let bound = json!({ "role": "viewer", "email": " Bea@Clinic.Example " });
    let link = shared.invite(&ada, bound.clone()).await;
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
        accept(&told("bea", claims), &link).await.refused_as(403, "email_not_verified");
    }
    // A key proves no address.
    let tenant = server.tenant("other").await;
    accept(&tenant.owner, &link).await.refused_as(403, "email_not_verified");
    let bea = told("bea", json!({ "email": "bea@clinic.example", "email_verified": true }));
    accept(&bea, &link).await.created();

    // Some providers send the flag as text, in the token and in userinfo.
    let link = shared.invite(&ada, bound.clone()).await;
    let fay = told("fay", json!({ "email": "Bea@clinic.example", "email_verified": "true" }));
    accept(&fay, &link).await.created();
    let link = shared.invite(&ada, bound.clone()).await;
    issuer
        .set_userinfo(Some(json!({ "sub": "gil", "email": "bea@clinic.example", "email_verified": "true" })));
    accept(&server.person(issuer, "gil"), &link).await.created();

    // The issuer's userinfo counts if its subject is the same.
    let link = shared.invite(&ada, bound).await;
    let verified = json!({ "sub": "dora", "email": "bea@clinic.example", "email_verified": true });
    issuer.set_userinfo(Some(json!({ "sub": "eve", "email": "bea@clinic.example", "email_verified": true })));
    accept(&server.person(issuer, "dora"), &link).await.refused_as(403, "email_not_verified");
    issuer.set_down(true);
    let refused = accept(&server.person(issuer, "dora"), &link).await;
    assert!(!refused.header("retry-after").is_empty());
    refused.refused_as(503, "identity_unavailable");
    issuer.set_down(false);
    issuer.set_userinfo(Some(verified));
    accept(&server.person(issuer, "dora"), &link).await.created();
    // The audit records that there was an address, but not the address.
    let audit = ada.get(&format!("/v1/{}/audit?limit=100", shared.id)).await.ok().to_string();
    assert!(audit.contains("\"bound_to_email\":true") && !audit.to_lowercase().contains("bea@"), "{audit}");
});

both!(replayed_requests_of_invitations_get_the_first_answer, async || {
    let (shared, ada) = Shared::new().await;
    let path = shared.path("/invitations");
    let key = "an-invitation-made-once";
    let link = ada.post_once(&path, key, json!({})).await.created();
    assert_eq!(ada.post_once(&path, key, json!({})).await.created(), link);
    assert_eq!(shared.server.count("SELECT count(*) FROM invitations").await, 1);
    let bea = shared.person("bea");
    let body = json!({ "invitation": link["invitation"] });
    let joined = bea.post_once("/v1/invitations/accept", key, body.clone()).await.created();
    assert_eq!(bea.post_once("/v1/invitations/accept", key, body.clone()).await.created(), joined);
    let cleo = shared.person("cleo");
    cleo.post_once("/v1/invitations/accept", key, body.clone()).await.refused_as(404, "invitation_not_found");
    shared.server.clock.advance(Duration::from_mins(10));
    shared.person("ada").post_once(&path, key, json!({})).await.refused_as(409, "secret_no_longer_shown");
});

both!(each_mistake_in_an_invitation_is_named_and_its_secret_not_repeated, async || {
    let (_server, tenant) = Server::with_tenant().await;
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
    tenant.owner.post("/v1/me/workspaces", new_workspace("unharmed")).await.created();
});

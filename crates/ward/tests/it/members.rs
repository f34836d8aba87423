//! Members: who is one, as what, for how long; and how ownership is handed over.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use ward_test::{Actor, Answer, Sending, Server, TestIssuer, both, new_workspace};

/// The writes that are about somebody in particular, so that no walk over all operations can do them.
pub const NEED_SOMEBODY: [&str; 11] = [
    "set-member-role",
    "remove-member",
    "leave-workspace",
    "nominate-owner",
    "cancel-ownership-transfer",
    "accept-ownership",
    "revoke-invitation",
    "accept-invitation",
    "accept-my-invitation",
    "extend-invitation",
    "resend-invitation",
];

/// A workspace that people share, all of them signed in by token.
pub struct Shared {
    pub server: Server,
    pub issuer: TestIssuer,
    pub id: String,
}

/// The id of whoever calls.
pub async fn entity(actor: &Actor) -> String {
    actor.get("/v1/me").await.expect(StatusCode::OK)["entity_id"].as_str().unwrap().to_owned()
}

impl Shared {
    /// A workspace of Ada's.
    pub async fn new() -> (Self, Actor) {
        let (server, issuer) = Server::with_issuer().await;
        let ada = server.person(&issuer, "ada");
        let created =
            ada.post("/v1/me/workspaces", new_workspace("shared")).await.expect(StatusCode::CREATED);
        let id = created["id"].as_str().unwrap().to_owned();
        (Self { server, issuer, id }, ada)
    }

    pub fn path(&self, rest: &str) -> String {
        format!("/v1/workspaces/{}{rest}", self.id)
    }

    /// Somebody invited by this owner, who has accepted.
    pub async fn member(&self, owner: &Actor, subject: &str, role: &str) -> (Actor, String) {
        let link =
            owner.post(&self.path("/invitations"), json!({ "role": role })).await.expect(StatusCode::CREATED);
        let actor = self.server.person(&self.issuer, subject);
        let accept = json!({ "invitation": link["invitation"] });
        actor.post("/v1/invitations/accept", accept).await.expect(StatusCode::CREATED);
        let id = entity(&actor).await;
        (actor, id)
    }

    pub async fn set_role(&self, by: &Actor, of: &str, role: &str) -> Answer {
        by.patch(&self.path(&format!("/members/{of}")), json!({ "role": role })).await
    }

    pub async fn remove(&self, by: &Actor, whom: &str) -> Answer {
        by.delete(&self.path(&format!("/members/{whom}"))).await
    }

    /// What the members are called and their roles, in the order of the list.
    pub async fn roles(&self, seen_by: &Actor) -> Vec<(String, String)> {
        let listed = seen_by.get(&self.path("/members?limit=20")).await.expect(StatusCode::OK);
        let items = listed["items"].as_array().unwrap().iter();
        items
            .map(|member| {
                let name = member["display_name"].as_str().unwrap_or("nobody");
                (name.trim_end_matches(" the tester").to_owned(), member["role"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    /// The actions of the audit, oldest first, from the third on: after the creation of the workspace and what follows.
    pub async fn actions(&self, seen_by: &Actor) -> Vec<String> {
        let listed = seen_by.get(&format!("/v1/{}/audit?limit=100", self.id)).await.expect(StatusCode::OK);
        let events = listed["events"].as_array().unwrap().iter().rev();
        events.map(|event| event["action"].as_str().unwrap().to_owned()).collect()
    }
}

// Listing

both!(the_list_has_every_member_with_role_and_kind_in_order);
async fn the_list_has_every_member_with_role_and_kind_in_order() {
    let (shared, ada) = Shared::new().await;
    shared.member(&ada, "bea", "viewer").await;
    let keys = format!("/v1/{}/api-keys", shared.id);
    ada.post(&keys, json!({ "duration_days": 1, "role": "operator", "name": "robot" }))
        .await
        .expect(StatusCode::CREATED);
    let (cleo, _) = shared.member(&ada, "cleo", "admin").await;
    let expected = [("ada", "owner"), ("bea", "viewer"), ("robot", "operator"), ("cleo", "admin")];
    assert_eq!(shared.roles(&cleo).await, expected.map(|(name, role)| (name.to_owned(), role.to_owned())));
    let first = cleo.get(&shared.path("/members?limit=3")).await.expect(StatusCode::OK);
    assert_eq!((&first["total"], &first["has_more"]), (&json!(4), &json!(true)));
    assert_eq!(first["items"][2]["kind"], "service");
    let next = shared.path(&format!("/members?limit=3&continuation_token={}", first["continuation_token"]));
    let rest = cleo.get(&next).await.expect(StatusCode::OK);
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["has_more"]), (1, &json!(false)));
    assert_eq!(rest["items"][0]["kind"], "user");
    assert_eq!(rest["items"][0]["entity_id"], entity(&cleo).await);
}

// Roles

both!(a_role_holds_from_the_next_request_on_and_nobody_grants_above_themselves);
async fn a_role_holds_from_the_next_request_on_and_nobody_grants_above_themselves() {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "admin").await;
    let ada_id = entity(&ada).await;
    assert_eq!(shared.set_role(&bea, &bea_id, "owner").await.refused(403), "forbidden");
    let changed = shared.set_role(&cleo, &bea_id, "admin").await.expect(StatusCode::OK);
    assert_eq!((&changed["entity_id"], &changed["role"]), (&json!(bea_id), &json!("admin")));
    bea.patch(&shared.path(""), json!({ "name": "Bea was here" })).await.expect(StatusCode::OK);
    for (by, of, role) in [
        (&cleo, &bea_id, "owner"),
        (&cleo, &cleo_id, "owner"),
        (&cleo, &ada_id, "admin"),
        (&cleo, &ada_id, "owner"),
    ] {
        assert_eq!(shared.set_role(by, of, role).await.refused(403), "beyond_caller", "{role}");
    }
    shared.set_role(&ada, &bea_id, "owner").await.expect(StatusCode::OK);
    shared.set_role(&bea, &ada_id, "viewer").await.expect(StatusCode::OK);
    assert_eq!(ada.patch(&shared.path(""), json!({ "name": "x" })).await.refused(403), "forbidden");
    // The same role again is no change.
    shared.set_role(&bea, &ada_id, "viewer").await.expect(StatusCode::OK);
    let updates = shared.actions(&bea).await;
    assert_eq!(updates.iter().filter(|action| *action == "member.update").count(), 3);
    let unknown = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    for nobody in [unknown, "nobody", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(shared.set_role(&bea, nobody, "viewer").await.refused(404), "member_not_found");
    }
    assert_eq!(shared.set_role(&bea, &ada_id, "king").await.problem_locs(), ["body.role"]);
}

both!(a_narrow_key_grants_nothing_it_may_not_do_itself);
async fn a_narrow_key_grants_nothing_it_may_not_do_itself() {
    let (shared, ada) = Shared::new().await;
    let (_, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let keys = format!("/v1/{}/api-keys", shared.id);
    let narrow =
        json!({ "duration_days": 1, "role": "owner", "permissions": ["Workspace.update", "Workspace.view"] });
    let minted = ada.post(&keys, narrow).await.expect(StatusCode::CREATED);
    let narrow = shared.server.bearing(minted["api_key"].as_str().unwrap());
    assert_eq!(shared.set_role(&narrow, &bea_id, "member").await.refused(403), "beyond_caller");
    assert_eq!(shared.remove(&narrow, &bea_id).await.refused(403), "beyond_caller");
    let invite = narrow.post(&shared.path("/invitations"), json!({ "role": "viewer" })).await;
    assert_eq!(invite.refused(403), "beyond_caller");
    // Nor may a key that only looks make its owner go.
    let look = json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" });
    let look = ada.post(&keys, look).await.expect(StatusCode::CREATED);
    let look = shared.server.bearing(look["api_key"].as_str().unwrap());
    assert_eq!(look.delete(&shared.path("/members/me")).await.refused(403), "beyond_caller");
}

// Ends

both!(who_is_removed_is_out_at_once_with_all_their_keys);
async fn who_is_removed_is_out_at_once_with_all_their_keys() {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
    let own = bea.post("/v1/me/workspaces", new_workspace("bea")).await.expect(StatusCode::CREATED);
    let own = format!("/v1/workspaces/{}", own["id"].as_str().unwrap());
    let keys = format!("/v1/{}/api-keys", shared.id);
    let personal = json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" });
    let personal = bea.post(&keys, personal).await.expect(StatusCode::CREATED);
    let phone = shared.server.bearing(personal["api_key"].as_str().unwrap());
    let service = bea.post(&keys, json!({ "duration_days": 1 })).await.expect(StatusCode::CREATED);
    let service = shared.server.bearing(service["api_key"].as_str().unwrap());
    let link =
        bea.post(&shared.path("/invitations"), json!({ "role": "viewer" })).await.expect(StatusCode::CREATED);
    phone.get(&own).await.expect(StatusCode::OK);

    assert_eq!(shared.remove(&ada, &bea_id).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bea.get(&shared.path("")).await.refused(404), "workspace_not_found");
    phone.get("/v1/me").await.refused(401);
    bea.get(&own).await.expect(StatusCode::OK);
    // A service is a member of its own.
    service.get(&shared.path("")).await.expect(StatusCode::OK);
    let cleo = shared.server.person(&shared.issuer, "cleo");
    let accept = json!({ "invitation": link["invitation"] });
    assert_eq!(cleo.post("/v1/invitations/accept", accept).await.refused(404), "invitation_not_found");
    assert_eq!(shared.remove(&ada, &bea_id).await.refused(404), "member_not_found");

    let audit =
        ada.get(&format!("/v1/{}/audit?action=member.remove", shared.id)).await.expect(StatusCode::OK);
    let event = &audit["events"][0];
    assert_eq!(event["resource_id"], bea_id.as_str());
    assert_eq!(event["metadata"]["revoked_key_ids"], json!([personal["key_id"]]));
    // They can come back, by a new invitation.
    shared.member(&ada, "bea", "viewer").await;
    phone.get("/v1/me").await.refused(401);
}

both!(a_service_that_is_removed_or_leaves_takes_its_key_along);
async fn a_service_that_is_removed_or_leaves_takes_its_key_along() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let (one, two) = (tenant.service("operator").await, tenant.service("viewer").await);
    let id = entity(&one).await;
    assert_eq!(tenant.owner.delete(&tenant.workspace(&format!("/members/{id}"))).await.status, 204);
    one.get("/v1/me").await.refused(401);
    assert_eq!(two.delete(&tenant.workspace("/members/me")).await.status, 204);
    two.get("/v1/me").await.refused(401);
    assert_eq!(tenant.owner.get(&tenant.workspace("/members")).await.expect(StatusCode::OK)["total"], 1);
}

both!(a_user_who_is_owner_remains);
async fn a_user_who_is_owner_remains() {
    let (shared, ada) = Shared::new().await;
    let ada_id = entity(&ada).await;
    let keys = format!("/v1/{}/api-keys", shared.id);
    // A service that is owner does not count: nobody could sign in as it.
    let service =
        ada.post(&keys, json!({ "duration_days": 1, "role": "owner" })).await.expect(StatusCode::CREATED);
    let service = shared.server.bearing(service["api_key"].as_str().unwrap());
    assert_eq!(ada.delete(&shared.path("/members/me")).await.refused(409), "last_owner");
    for by in [&ada, &service] {
        assert_eq!(shared.set_role(by, &ada_id, "admin").await.refused(409), "last_owner");
        assert_eq!(shared.remove(by, &ada_id).await.refused(409), "last_owner");
    }
    let (bea, _) = shared.member(&ada, "bea", "owner").await;
    assert_eq!(ada.delete(&shared.path("/members/me")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bea.delete(&shared.path("/members/me")).await.refused(409), "last_owner");
    assert_eq!(ada.get(&shared.path("")).await.refused(404), "workspace_not_found");
    // Not being owner, one may always go.
    let (cleo, _) = shared.member(&bea, "cleo", "viewer").await;
    assert_eq!(cleo.delete(&shared.path("/members/me")).await.status, StatusCode::NO_CONTENT);
}

both!(of_two_owners_who_end_each_other_at_the_same_moment_one_remains, threads = 4);
async fn of_two_owners_who_end_each_other_at_the_same_moment_one_remains() {
    for round in 0..12 {
        let (shared, ada) = Shared::new().await;
        let (bea, bea_id) = shared.member(&ada, "bea", "owner").await;
        let ada_id = entity(&ada).await;
        let me = shared.path("/members/me");
        let (to_ada, to_bea) =
            (shared.path(&format!("/members/{ada_id}")), shared.path(&format!("/members/{bea_id}")));
        let demote = Some(json!({ "role": "viewer" }).to_string().into_bytes());
        let calls = match round % 3 {
            0 => [(ada.clone(), Method::DELETE, to_bea, None), (bea.clone(), Method::DELETE, to_ada, None)],
            1 => [
                (ada.clone(), Method::PATCH, to_bea, demote.clone()),
                (bea.clone(), Method::PATCH, to_ada, demote),
            ],
            _ => [(ada.clone(), Method::DELETE, me.clone(), None), (bea.clone(), Method::DELETE, me, None)],
        };
        let start = Arc::new(Barrier::new(2));
        let running = calls.map(|(actor, method, path, body)| {
            let start = start.clone();
            tokio::spawn(async move {
                start.wait().await;
                let sending = Sending { body, content_type: Some("application/json"), ..Sending::default() };
                actor.send(method, &path, sending).await.status.as_u16()
            })
        });
        let mut statuses = Vec::new();
        for one in running {
            statuses.push(one.await.unwrap());
        }
        let done = statuses.iter().filter(|status| [200, 204].contains(*status)).count();
        assert_eq!(done, 1, "{statuses:?}");
        let owners = "SELECT count(*) FROM memberships WHERE role = 'owner'";
        assert_eq!(shared.server.count(owners).await, 1, "{statuses:?}");
    }
}

// Transfer of ownership

both!(ownership_is_offered_and_accepted);
async fn ownership_is_offered_and_accepted() {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (cleo, _) = shared.member(&ada, "cleo", "admin").await;
    let transfer = shared.path("/ownership-transfer");
    let accept = shared.path("/ownership-transfer/accept");
    assert_eq!(bea.get(&transfer).await.refused(404), "transfer_not_found");
    assert_eq!(bea.post(&accept, json!({})).await.refused(404), "transfer_not_found");
    let nominate = json!({ "entity_id": bea_id });
    assert_eq!(cleo.post(&transfer, nominate.clone()).await.refused(403), "owner_only");
    let pending = ada.post(&transfer, nominate.clone()).await.expect(StatusCode::CREATED);
    assert_eq!(pending["nominee_entity_id"], bea_id.as_str());
    assert_eq!(bea.get(&transfer).await.expect(StatusCode::OK), pending);
    // Nothing has changed yet, and nobody else can take it.
    assert_eq!(cleo.post(&accept, json!({})).await.refused(404), "transfer_not_found");
    assert_eq!(bea.patch(&shared.path(""), json!({ "name": "x" })).await.refused(403), "forbidden");

    let accepted = bea.post_once(&accept, "accept-once-and-for-all", json!({})).await.expect(StatusCode::OK);
    assert_eq!((&accepted["entity_id"], &accepted["role"]), (&json!(bea_id), &json!("owner")));
    let again = bea.post_once(&accept, "accept-once-and-for-all", json!({})).await.expect(StatusCode::OK);
    assert_eq!(again, accepted);
    let expected = [("ada", "admin"), ("bea", "owner"), ("cleo", "admin")];
    assert_eq!(shared.roles(&ada).await, expected.map(|(name, role)| (name.to_owned(), role.to_owned())));
    assert_eq!(bea.post(&accept, json!({})).await.refused(404), "transfer_not_found");
    let actions = shared.actions(&bea).await;
    assert!(
        actions.ends_with(&["ownership.nominate".to_owned(), "ownership.accept".to_owned()]),
        "{actions:?}"
    );
}

both!(an_offer_of_ownership_ends);
async fn an_offer_of_ownership_ends() {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "owner").await;
    let transfer = shared.path("/ownership-transfer");
    let accept = shared.path("/ownership-transfer/accept");
    let offer = async |to: &str| {
        let body = json!({ "entity_id": to, "duration_days": 2 });
        ada.post(&transfer, body).await
    };
    // Cancelled by an owner, declined by the nominee, never by others.
    let (dora, dora_id) = shared.member(&ada, "dora", "admin").await;
    offer(&bea_id).await.expect(StatusCode::CREATED);
    assert_eq!(dora.delete(&transfer).await.refused(403), "owner_only");
    assert_eq!(cleo.delete(&transfer).await.status, 204);
    assert_eq!(bea.post(&accept, json!({})).await.refused(404), "transfer_not_found");
    offer(&bea_id).await.expect(StatusCode::CREATED);
    assert_eq!(bea.delete(&transfer).await.status, 204);
    assert_eq!(bea.delete(&transfer).await.refused(404), "transfer_not_found");
    // Replaced.
    offer(&bea_id).await.expect(StatusCode::CREATED);
    offer(&dora_id).await.expect(StatusCode::CREATED);
    assert_eq!(bea.post(&accept, json!({})).await.refused(404), "transfer_not_found");
    // With the nominee, and with the nominator's ownership.
    shared.remove(&cleo, &dora_id).await;
    assert_eq!(ada.get(&transfer).await.refused(404), "transfer_not_found");
    offer(&bea_id).await.expect(StatusCode::CREATED);
    shared.set_role(&ada, &bea_id, "member").await.expect(StatusCode::OK);
    bea.get(&transfer).await.expect(StatusCode::OK);
    shared.set_role(&cleo, &entity(&ada).await, "admin").await.expect(StatusCode::OK);
    assert_eq!(bea.post(&accept, json!({})).await.refused(404), "transfer_not_found");
    shared.set_role(&cleo, &entity(&ada).await, "owner").await.expect(StatusCode::OK);
    // With time.
    offer(&bea_id).await.expect(StatusCode::CREATED);
    shared.server.clock.advance(Duration::from_hours(48));
    let bea = shared.server.person(&shared.issuer, "bea");
    assert_eq!(bea.post(&accept, json!({})).await.refused(404), "transfer_not_found");
    assert_eq!(bea.get(&transfer).await.refused(404), "transfer_not_found");
    let ada = shared.server.person(&shared.issuer, "ada");
    let to = async |id: &str| ada.post(&transfer, json!({ "entity_id": id })).await;
    assert_eq!(to(&cleo_id).await.refused(409), "already_owner");
    let service = json!({ "duration_days": 1, "role": "admin" });
    let service = ada.post(&format!("/v1/{}/api-keys", shared.id), service).await.expect(StatusCode::CREATED);
    let service = shared.server.bearing(service["api_key"].as_str().unwrap());
    assert_eq!(to(&entity(&service).await).await.refused(409), "not_a_user");
    assert_eq!(to("6ba7b810-9dad-41d1-80b4-00c04fd430c8").await.refused(404), "member_not_found");
}

both!(a_key_below_owner_takes_no_ownership);
async fn a_key_below_owner_takes_no_ownership() {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
    let body = json!({ "duration_days": 1, "role": "admin", "speaks_for": "self" });
    let key = bea.post(&format!("/v1/{}/api-keys", shared.id), body).await.expect(StatusCode::CREATED);
    ada.post(&shared.path("/ownership-transfer"), json!({ "entity_id": bea_id }))
        .await
        .expect(StatusCode::CREATED);
    let by_key = shared.server.bearing(key["api_key"].as_str().unwrap());
    let accept = shared.path("/ownership-transfer/accept");
    assert_eq!(by_key.post(&accept, json!({})).await.refused(403), "beyond_caller");
    bea.post(&accept, json!({})).await.expect(StatusCode::OK);
}

// The audit

both!(what_cannot_be_recorded_of_members_is_not_done);
async fn what_cannot_be_recorded_of_members_is_not_done() {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (_, cleo_id) = shared.member(&ada, "cleo", "viewer").await;
    let link = ada.post(&shared.path("/invitations"), json!({})).await.expect(StatusCode::CREATED);
    let other = ada.post(&shared.path("/invitations"), json!({})).await.expect(StatusCode::CREATED);
    let dora = shared.server.person(&shared.issuer, "dora");
    let path = |rest: &str| shared.path(rest);
    let body = |value: Value| Some(value.to_string().into_bytes());
    let bea_path = path(&format!("/members/{bea_id}"));
    let revoke = path(&format!("/invitations/{}", other["id"].as_str().unwrap()));
    let nominate = body(json!({ "entity_id": bea_id }));
    let calls = [
        (&ada, Method::PATCH, bea_path, body(json!({ "role": "member" }))),
        (&ada, Method::DELETE, path(&format!("/members/{cleo_id}")), None),
        (&ada, Method::DELETE, revoke, None),
        (
            &dora,
            Method::POST,
            "/v1/invitations/accept".to_owned(),
            body(json!({ "invitation": link["invitation"] })),
        ),
        (&dora, Method::DELETE, path("/members/me"), None),
        (&ada, Method::POST, path("/ownership-transfer"), nominate.clone()),
        (&ada, Method::DELETE, path("/ownership-transfer"), None),
        (&ada, Method::POST, path("/ownership-transfer"), nominate),
        (&bea, Method::POST, path("/ownership-transfer/accept"), body(json!({}))),
    ];
    for (actor, method, path, body) in calls {
        let send = async || {
            let sending =
                Sending { body: body.clone(), content_type: Some("application/json"), ..Sending::default() };
            actor.send(method.clone(), &path, sending).await.status
        };
        let before = shared.server.dump().await;
        shared.server.sql("ALTER TABLE audit_events RENAME TO hidden").await;
        let refused = send().await;
        shared.server.sql("ALTER TABLE hidden RENAME TO audit_events").await;
        assert!(refused.is_server_error(), "{method} {path}: {refused}");
        assert!(shared.server.dump().await == before, "{method} {path} left something behind");
        let done = send().await;
        assert!(done.is_success(), "{method} {path}: {done}");
        assert!(shared.server.dump().await != before, "{method} {path} changes something");
    }
}

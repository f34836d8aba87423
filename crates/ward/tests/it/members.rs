//! Members: listing, roles, removal, and the transfer of ownership.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use ward_test::{Actor, Answer, Fields as _, Sending, Server, TestIssuer, both, new_workspace};

/// Writes that need a particular member or invitation, so no loop over all operations can make them.
pub const NEED_A_MEMBER: [&str; 11] = [
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

/// Accepts an invitation by its link.
pub async fn accept(actor: &Actor, link: &Value) -> Answer {
    actor.post("/v1/invitations/accept", json!({ "invitation": link["invitation"] })).await
}

/// A workspace whose members sign in with tokens.
pub struct Shared {
    pub server: Server,
    pub issuer: TestIssuer,
    pub id: String,
}

/// The entity id of the caller.
pub async fn entity(actor: &Actor) -> String {
    actor.get("/v1/me").await.ok().text("entity_id").to_owned()
}

impl Shared {
    /// A new workspace, and Ada, who owns it.
    pub async fn new() -> (Self, Actor) {
        let (server, issuer) = Server::with_issuer().await;
        let ada = server.person(&issuer, "ada");
        let created = ada.post("/v1/me/workspaces", new_workspace("shared")).await.created();
        let id = created.text("id").to_owned();
        (Self { server, issuer, id }, ada)
    }

    pub fn path(&self, rest: &str) -> String {
        format!("/v1/workspaces/{}{rest}", self.id)
    }

    /// The person of this name, signed in with a token.
    pub fn person(&self, subject: &str) -> Actor {
        self.server.person(&self.issuer, subject)
    }

    /// The path of the workspace's keys.
    pub fn keys(&self) -> String {
        format!("/v1/{}/api-keys", self.id)
    }

    /// A new key, and the answer to minting it.
    pub async fn mint(&self, by: &Actor, body: Value) -> (Actor, Value) {
        let minted = by.post(&self.keys(), body).await.created();
        (self.server.bearing(minted.text("api_key")), minted)
    }

    pub async fn invite(&self, by: &Actor, body: Value) -> Value {
        by.post(&self.path("/invitations"), body).await.created()
    }

    /// A member who has accepted this owner's invitation, and the member's entity id.
    pub async fn member(&self, owner: &Actor, subject: &str, role: &str) -> (Actor, String) {
        let link = self.invite(owner, json!({ "role": role })).await;
        let actor = self.person(subject);
        accept(&actor, &link).await.created();
        let id = entity(&actor).await;
        (actor, id)
    }

    pub async fn set_role(&self, by: &Actor, of: &str, role: &str) -> Answer {
        by.patch(&self.path(&format!("/members/{of}")), json!({ "role": role })).await
    }

    pub async fn remove(&self, by: &Actor, whom: &str) -> Answer {
        by.delete(&self.path(&format!("/members/{whom}"))).await
    }

    /// The names and roles of the members, in the order of the list.
    pub async fn roles(&self, seen_by: &Actor) -> Vec<(String, String)> {
        let listed = seen_by.get(&self.path("/members?limit=20")).await.ok();
        let items = listed.list("items").iter();
        items
            .map(|member| {
                let name = member["display_name"].as_str().unwrap_or("unnamed");
                (name.trim_end_matches(" the tester").to_owned(), member.text("role").to_owned())
            })
            .collect()
    }

    /// The actions of the audit, oldest first.
    pub async fn actions(&self, seen_by: &Actor) -> Vec<String> {
        let listed = seen_by.get(&format!("/v1/{}/audit?limit=100", self.id)).await.ok();
        let events = listed.list("events").iter().rev();
        events.map(|event| event.text("action").to_owned()).collect()
    }
}

// Listing

both!(the_list_has_every_member_with_role_and_kind_in_order, async || {
    let (shared, ada) = Shared::new().await;
    shared.member(&ada, "bea", "viewer").await;
    let keys = shared.keys();
    ada.post(&keys, json!({ "duration_days": 1, "role": "operator", "name": "robot" })).await.created();
    let (cleo, _) = shared.member(&ada, "cleo", "admin").await;
    let expected = [("ada", "owner"), ("bea", "viewer"), ("robot", "operator"), ("cleo", "admin")];
    assert_eq!(shared.roles(&cleo).await, expected.map(|(name, role)| (name.to_owned(), role.to_owned())));
    let first = cleo.get(&shared.path("/members?limit=3")).await.ok();
    assert_eq!(first.fields(["total", "has_more"]), json!([4, true]));
    assert_eq!(first["items"][2]["kind"], "service");
    let next = shared.path(&format!("/members?limit=3&continuation_token={}", first["continuation_token"]));
    let rest = cleo.get(&next).await.ok();
    assert_eq!((rest.list("items").len(), &rest["has_more"]), (1, &json!(false)));
    assert_eq!(rest["items"][0]["kind"], "user");
    assert_eq!(rest["items"][0]["entity_id"], entity(&cleo).await);
});

// Roles

both!(a_role_applies_from_the_next_request_and_no_caller_grants_above_its_own, async || {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "admin").await;
    let ada_id = entity(&ada).await;
    shared.set_role(&bea, &bea_id, "owner").await.refused_as(403, "forbidden");
    let changed = shared.set_role(&cleo, &bea_id, "admin").await.ok();
    assert_eq!(changed.fields(["entity_id", "role"]), json!([bea_id, "admin"]));
    bea.patch(&shared.path(""), json!({ "name": "Bea was here" })).await.ok();
    for (by, of, role) in [
        (&cleo, &bea_id, "owner"),
        (&cleo, &cleo_id, "owner"),
        (&cleo, &ada_id, "admin"),
        (&cleo, &ada_id, "owner"),
    ] {
        assert_eq!(shared.set_role(by, of, role).await.refused(403), "beyond_caller", "{role}");
    }
    shared.set_role(&ada, &bea_id, "owner").await.ok();
    shared.set_role(&bea, &ada_id, "viewer").await.ok();
    ada.patch(&shared.path(""), json!({ "name": "x" })).await.refused_as(403, "forbidden");
    // Setting the same role again changes nothing.
    shared.set_role(&bea, &ada_id, "viewer").await.ok();
    let updates = shared.actions(&bea).await;
    assert_eq!(updates.iter().filter(|action| *action == "member.update").count(), 3);
    let unknown = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    for nobody in [unknown, "nobody", "00000000-0000-0000-0000-000000000000"] {
        shared.set_role(&bea, nobody, "viewer").await.refused_as(404, "member_not_found");
    }
    assert_eq!(shared.set_role(&bea, &ada_id, "king").await.problem_locs(), ["body.role"]);
});

both!(a_narrow_key_grants_nothing_beyond_its_own_permissions, async || {
    let (shared, ada) = Shared::new().await;
    let (_, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let narrow =
        json!({ "duration_days": 1, "role": "owner", "permissions": ["Workspace.update", "Workspace.view"] });
    let (narrow, _) = shared.mint(&ada, narrow).await;
    shared.set_role(&narrow, &bea_id, "member").await.refused_as(403, "beyond_caller");
    shared.remove(&narrow, &bea_id).await.refused_as(403, "beyond_caller");
    narrow
        .post(&shared.path("/invitations"), json!({ "role": "viewer" }))
        .await
        .refused_as(403, "beyond_caller");
    // A key with read access only cannot remove its owner.
    let look = json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" });
    let (look, _) = shared.mint(&ada, look).await;
    look.delete(&shared.path("/members/me")).await.refused_as(403, "beyond_caller");
});

// Ends

both!(a_removed_member_loses_access_and_all_keys_at_once, async || {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
    let own = bea.post("/v1/me/workspaces", new_workspace("bea")).await.created();
    let own = format!("/v1/workspaces/{}", own.text("id"));
    let personal = json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" });
    let (phone, personal) = shared.mint(&bea, personal).await;
    let (service, _) = shared.mint(&bea, json!({ "duration_days": 1 })).await;
    let link = shared.invite(&bea, json!({ "role": "viewer" })).await;
    phone.get(&own).await.ok();

    shared.remove(&ada, &bea_id).await.no_content();
    bea.get(&shared.path("")).await.refused_as(404, "workspace_not_found");
    phone.get("/v1/me").await.refused(401);
    bea.get(&own).await.ok();
    // A service is a separate member.
    service.get(&shared.path("")).await.ok();
    let cleo = shared.person("cleo");
    accept(&cleo, &link).await.refused_as(404, "invitation_not_found");
    shared.remove(&ada, &bea_id).await.refused_as(404, "member_not_found");

    let audit = ada.get(&format!("/v1/{}/audit?action=member.remove", shared.id)).await.ok();
    let event = &audit["events"][0];
    assert_eq!(event["resource_id"], bea_id.as_str());
    assert_eq!(event["metadata"]["revoked_key_ids"], json!([personal["key_id"]]));
    // A removed member can return with a new invitation.
    shared.member(&ada, "bea", "viewer").await;
    phone.get("/v1/me").await.refused(401);
});

both!(a_service_that_is_removed_or_leaves_loses_its_key, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let (one, two) = (tenant.service("operator").await, tenant.service("viewer").await);
    let id = entity(&one).await;
    tenant.owner.delete(&tenant.workspace(&format!("/members/{id}"))).await.no_content();
    one.get("/v1/me").await.refused(401);
    two.delete(&tenant.workspace("/members/me")).await.no_content();
    two.get("/v1/me").await.refused(401);
    assert_eq!(tenant.owner.get(&tenant.workspace("/members")).await.ok()["total"], 1);
});

both!(the_last_user_who_is_an_owner_stays, async || {
    let (shared, ada) = Shared::new().await;
    let ada_id = entity(&ada).await;
    // An owner that is a service does not count, because no person can sign in as it.
    let (service, _) = shared.mint(&ada, json!({ "duration_days": 1, "role": "owner" })).await;
    ada.delete(&shared.path("/members/me")).await.refused_as(409, "last_owner");
    for by in [&ada, &service] {
        shared.set_role(by, &ada_id, "admin").await.refused_as(409, "last_owner");
        shared.remove(by, &ada_id).await.refused_as(409, "last_owner");
    }
    let (bea, _) = shared.member(&ada, "bea", "owner").await;
    ada.delete(&shared.path("/members/me")).await.no_content();
    bea.delete(&shared.path("/members/me")).await.refused_as(409, "last_owner");
    ada.get(&shared.path("")).await.refused_as(404, "workspace_not_found");
    // A member who is no owner may always leave.
    let (cleo, _) = shared.member(&bea, "cleo", "viewer").await;
    cleo.delete(&shared.path("/members/me")).await.no_content();
});

both!(one_of_two_owners_who_remove_each_other_concurrently_stays, threads = 4, async || {
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
});

// Transfer of ownership

both!(ownership_is_offered_and_accepted, async || {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (cleo, _) = shared.member(&ada, "cleo", "admin").await;
    let transfer = shared.path("/ownership-transfer");
    let accept = shared.path("/ownership-transfer/accept");
    bea.get(&transfer).await.refused_as(404, "transfer_not_found");
    bea.post(&accept, json!({})).await.refused_as(404, "transfer_not_found");
    let nominate = json!({ "entity_id": bea_id });
    cleo.post(&transfer, nominate.clone()).await.refused_as(403, "owner_only");
    let pending = ada.post(&transfer, nominate.clone()).await.created();
    assert_eq!(pending["nominee_entity_id"], bea_id.as_str());
    assert_eq!(bea.get(&transfer).await.ok(), pending);
    // Nothing has changed yet, and only the nominee can accept.
    cleo.post(&accept, json!({})).await.refused_as(404, "transfer_not_found");
    bea.patch(&shared.path(""), json!({ "name": "x" })).await.refused_as(403, "forbidden");

    let accepted = bea.post_once(&accept, "accept-once-and-for-all", json!({})).await.ok();
    assert_eq!(accepted.fields(["entity_id", "role"]), json!([bea_id, "owner"]));
    assert_eq!(bea.post_once(&accept, "accept-once-and-for-all", json!({})).await.ok(), accepted);
    let expected = [("ada", "admin"), ("bea", "owner"), ("cleo", "admin")];
    assert_eq!(shared.roles(&ada).await, expected.map(|(name, role)| (name.to_owned(), role.to_owned())));
    bea.post(&accept, json!({})).await.refused_as(404, "transfer_not_found");
    let actions = shared.actions(&bea).await;
    assert!(
        actions.ends_with(&["ownership.nominate".to_owned(), "ownership.accept".to_owned()]),
        "{actions:?}"
    );
});

both!(an_offer_of_ownership_ends, async || {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (cleo, cleo_id) = shared.member(&ada, "cleo", "owner").await;
    let transfer = shared.path("/ownership-transfer");
    let accept = shared.path("/ownership-transfer/accept");
    let offer = async |to: &str| {
        let body = json!({ "entity_id": to, "duration_days": 2 });
        ada.post(&transfer, body).await
    };
    // An owner can cancel it, the nominee can decline it, and other members can do neither.
    let (dora, dora_id) = shared.member(&ada, "dora", "admin").await;
    offer(&bea_id).await.created();
    dora.delete(&transfer).await.refused_as(403, "owner_only");
    cleo.delete(&transfer).await.no_content();
    bea.post(&accept, json!({})).await.refused_as(404, "transfer_not_found");
    offer(&bea_id).await.created();
    bea.delete(&transfer).await.no_content();
    bea.delete(&transfer).await.refused_as(404, "transfer_not_found");
    // A new offer replaces the old one.
    offer(&bea_id).await.created();
    offer(&dora_id).await.created();
    bea.post(&accept, json!({})).await.refused_as(404, "transfer_not_found");
    // It ends with the nominee's membership and with the nominator's ownership.
    shared.remove(&cleo, &dora_id).await;
    ada.get(&transfer).await.refused_as(404, "transfer_not_found");
    offer(&bea_id).await.created();
    shared.set_role(&ada, &bea_id, "member").await.ok();
    bea.get(&transfer).await.ok();
    shared.set_role(&cleo, &entity(&ada).await, "admin").await.ok();
    bea.post(&accept, json!({})).await.refused_as(404, "transfer_not_found");
    shared.set_role(&cleo, &entity(&ada).await, "owner").await.ok();
    // It ends when it expires.
    offer(&bea_id).await.created();
    shared.server.clock.advance(Duration::from_hours(48));
    let bea = shared.person("bea");
    bea.post(&accept, json!({})).await.refused_as(404, "transfer_not_found");
    bea.get(&transfer).await.refused_as(404, "transfer_not_found");
    let ada = shared.person("ada");
    let to = async |id: &str| ada.post(&transfer, json!({ "entity_id": id })).await;
    to(&cleo_id).await.refused_as(409, "already_owner");
    let service = json!({ "duration_days": 1, "role": "admin" });
    let (service, _) = shared.mint(&ada, service).await;
    to(&entity(&service).await).await.refused_as(409, "not_a_user");
    to("6ba7b810-9dad-41d1-80b4-00c04fd430c8").await.refused_as(404, "member_not_found");
});

both!(a_key_below_owner_takes_no_ownership, async || {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
    let body = json!({ "duration_days": 1, "role": "admin", "speaks_for": "self" });
    let key = bea.post(&shared.keys(), body).await.created();
    ada.post(&shared.path("/ownership-transfer"), json!({ "entity_id": bea_id })).await.created();
    let by_key = shared.server.bearing(key.text("api_key"));
    let accept = shared.path("/ownership-transfer/accept");
    by_key.post(&accept, json!({})).await.refused_as(403, "beyond_caller");
    bea.post(&accept, json!({})).await.ok();
});

// The audit

both!(a_change_of_members_that_cannot_be_recorded_is_not_made, async || {
    let (shared, ada) = Shared::new().await;
    let (bea, bea_id) = shared.member(&ada, "bea", "viewer").await;
    let (_, cleo_id) = shared.member(&ada, "cleo", "viewer").await;
    let link = shared.invite(&ada, json!({})).await;
    let other = shared.invite(&ada, json!({})).await;
    let dora = shared.person("dora");
    let path = |rest: &str| shared.path(rest);
    let body = |value: Value| Some(value.to_string().into_bytes());
    let bea_path = path(&format!("/members/{bea_id}"));
    let revoke = path(&format!("/invitations/{}", other.text("id")));
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
});

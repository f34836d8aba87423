//! A workspace names the issuers whose users may be its members.

use serde_json::{Value, json};
use ward::operator;
use ward::workspaces::access_policy::actions::Lifted;
use ward_test::{Actor, Fields as _, Server, TestIssuer, both, new_workspace};

/// A workspace with an owner of each of two issuers.
struct Shared {
    server: Server,
    one: TestIssuer,
    two: TestIssuer,
    id: String,
    /// The owner of the issuer `one`, who made the workspace.
    ada: Actor,
    /// The owner of the issuer `two`.
    bob: Actor,
}

impl Shared {
    async fn new() -> Self {
        let (one, two) = (TestIssuer::start().await, TestIssuer::start().await);
        let server = Server::with(|config| config.issuers = vec![one.config(), two.config()]).await;
        let (ada, bob) = (server.person(&one, "ada"), server.person(&two, "bob"));
        let id = ada.post("/v1/me/workspaces", new_workspace("shared")).await.created().text("id").to_owned();
        let shared = Self { server, one, two, id, ada, bob };
        let link = shared.invite(&shared.ada, "owner").await;
        shared.accept(&shared.bob, &link).await.created();
        shared
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/workspaces/{}{rest}", self.id)
    }

    async fn invite(&self, maker: &Actor, role: &str) -> Value {
        let made = maker.post(&self.path("/invitations"), json!({ "role": role })).await.created();
        json!({ "invitation": made["invitation"] })
    }

    async fn accept(&self, actor: &Actor, link: &Value) -> ward_test::Answer {
        actor.post("/v1/invitations/accept", link.clone()).await
    }

    /// Sets the accepted issuers as this caller.
    async fn pin(&self, actor: &Actor, issuers: &[&str]) -> ward_test::Answer {
        let body = json!({ "networks": [], "issuers": issuers });
        actor.put(&self.path("/access-policy"), body).await
    }

    /// A key of this workspace or of another one, as a bearer.
    async fn key(&self, maker: &Actor, workspace: &str, speaks_for: &str) -> Actor {
        let body = json!({ "duration_days": 5, "role": "owner", "speaks_for": speaks_for });
        let made = maker.post(&format!("/v1/{workspace}/api-keys"), body).await.created();
        self.server.bearing(made.text("api_key"))
    }
}

both!(users_of_other_issuers_are_out_at_the_next_request_until_the_list_is_lifted, async || {
    let shared = Shared::new().await;
    let (ada, bob) = (&shared.ada, &shared.bob);
    let own = bob.post("/v1/me/workspaces", new_workspace("bobs")).await.created().text("id").to_owned();
    let personal = shared.key(bob, &shared.id, "self").await;
    let elsewhere = shared.key(bob, &own, "self").await;
    let service = shared.key(bob, &shared.id, "service").await;
    let of_ada = shared.key(ada, &shared.id, "self").await;
    let replica = shared.server.replica().await;
    let there = |actor: &Actor| replica.bearing(actor.bearer.clone().unwrap());
    let path = shared.path("");
    let others = [bob, &personal, &elsewhere];
    for actor in others {
        there(actor).get(&path).await.ok();
    }
    let set = shared.pin(ada, &[shared.one.url()]).await.ok();
    assert_eq!(set, json!({ "networks": [], "issuers": [shared.one.url()] }));
    there(bob).get(&path).await.refused_as(404, "workspace_not_found");
    there(bob).patch(&path, json!({ "name": "Bob's" })).await.refused_as(404, "workspace_not_found");
    there(&elsewhere).get(&path).await.refused_as(404, "workspace_not_found");
    there(&elsewhere).get(&format!("/v1/workspaces/{own}")).await.ok();
    // The personal key is the workspace's own, so it stops everywhere.
    for path in [path.clone(), format!("/v1/workspaces/{own}"), "/v1/me".to_owned()] {
        there(&personal).get(&path).await.refused_as(401, "unauthorized");
    }
    for actor in [ada, &of_ada, &service] {
        there(actor).get(&path).await.ok();
    }
    for (actor, seen) in [(bob, 1), (&elsewhere, 1), (ada, 1), (&service, 1)] {
        let (listed, me) = (actor.get("/v1/workspaces").await.ok(), actor.get("/v1/me").await.ok());
        for list in [&listed, &me["memberships"]] {
            assert_eq!((list.list("items").len(), &list["total"]), (seen, &json!(seen)), "{list}");
        }
    }
    shared.server.app.flush().await;
    replica.app.flush().await;
    let refusals = ada.get(&format!("/v1/{}/audit?action=access.unauthorized", shared.id)).await.ok();
    let told: Vec<&Value> =
        refusals.list("events").iter().map(|event| &event["metadata"]["reason"]).collect();
    assert!(told.len() >= 4 && told.iter().all(|reason| **reason == "workspace_issuer"), "{told:?}");

    shared.pin(ada, &[]).await.ok();
    for actor in others {
        there(actor).get(&path).await.ok();
    }
    let events = ada.get(&format!("/v1/{}/audit?action=workspace.access_policy", shared.id)).await.ok();
    let changes: Vec<&Value> =
        events.list("events").iter().map(|event| &event["metadata"]["changes"]["issuers"]).collect();
    let one = shared.one.url();
    assert_eq!(changes, [&json!({ "from": [one], "to": [] }), &json!({ "from": [], "to": [one] })]);
});

both!(nobody_pins_the_own_issuer_out, async || {
    let shared = Shared::new().await;
    let personal = shared.key(&shared.bob, &shared.id, "self").await;
    for actor in [&shared.bob, &personal] {
        shared.pin(actor, &[shared.one.url()]).await.refused_as(409, "would_lock_out");
    }
    // A user with keys only is no user of any issuer.
    let keyed = shared.server.tenant("keyed").await;
    let link = shared.invite(&shared.ada, "owner").await;
    shared.accept(&keyed.owner, &link).await.created();
    shared.pin(&keyed.owner, &[shared.one.url(), shared.two.url()]).await.refused_as(409, "would_lock_out");
    let unknown = shared.pin(&shared.ada, &[shared.one.url(), "https://id.example"]).await;
    assert_eq!(unknown.problem_locs(), ["body.issuers.1"]);
    assert_eq!(shared.ada.get(&shared.path("/access-policy")).await.ok()["issuers"], json!([]));
    shared.pin(&shared.bob, &[shared.two.url(), shared.one.url(), shared.two.url()]).await.ok();
    keyed.owner.get(&shared.path("")).await.refused_as(404, "workspace_not_found");
    // An issuer that left the settings stays in the list, so that the list can still be changed.
    let without = shared.server.replica_with(|config| config.issuers.truncate(1)).await;
    let ada = without.bearing(shared.ada.bearer.clone().unwrap());
    shared.pin(&ada, &[shared.one.url(), shared.two.url()]).await.ok();
    shared.pin(&ada, &[shared.one.url()]).await.ok();
    shared.pin(&ada, &[shared.one.url(), shared.two.url()]).await.refused(422);
});

both!(only_users_of_accepted_issuers_become_members, async || {
    let shared = Shared::new().await;
    let by_bob = shared.invite(&shared.bob, "viewer").await;
    shared.pin(&shared.ada, &[shared.one.url()]).await.ok();
    let link = shared.invite(&shared.ada, "viewer").await;
    let cyd = shared.server.person(&shared.two, "cyd");
    let keyed = shared.server.tenant("keyed").await;
    let of_dan = shared.server.person(&shared.two, "dan");
    let home = of_dan.post("/v1/me/workspaces", new_workspace("dans")).await.created().text("id").to_owned();
    let dan = shared.key(&of_dan, &home, "self").await;
    for actor in [&cyd, &keyed.owner, &dan, &shared.bob] {
        shared.accept(actor, &link).await.refused_as(403, "issuer_not_accepted");
    }
    let eve = shared.server.person(&shared.one, "eve");
    // The maker of the first invitation is out, and its authority with it.
    shared.accept(&eve, &by_bob).await.refused_as(404, "invitation_not_found");
    shared.accept(&eve, &link).await.created();
    eve.get(&shared.path("")).await.ok();
    let refusals = {
        shared.server.app.flush().await;
        shared.ada.get(&format!("/v1/{}/audit?action=access.forbidden", shared.id)).await.ok()
    };
    assert!(refusals["total"].as_i64().unwrap() >= 4, "{refusals}");
    shared.pin(&shared.ada, &[]).await.ok();
    let fay = shared.server.person(&shared.one, "fay");
    shared.accept(&fay, &by_bob).await.created();
});

both!(an_owner_who_is_out_is_no_way_in_and_hands_nothing_over, async || {
    let shared = Shared::new().await;
    let link = shared.invite(&shared.ada, "admin").await;
    let eve = shared.server.person(&shared.one, "eve");
    shared.accept(&eve, &link).await.created();
    let eves = eve.get("/v1/me").await.ok().text("entity_id").to_owned();
    let nomination = json!({ "entity_id": eves });
    shared.bob.post(&shared.path("/ownership-transfer"), nomination).await.created();
    shared.pin(&shared.ada, &[shared.one.url()]).await.ok();
    eve.post(&shared.path("/ownership-transfer/accept"), json!({}))
        .await
        .refused_as(404, "transfer_not_found");
    let leave = shared.path("/members/me");
    shared.ada.delete(&leave).await.refused_as(409, "last_way_in");
    shared.pin(&shared.ada, &[]).await.ok();
    shared.ada.delete(&leave).await.no_content();
});

both!(a_service_leaves_an_owner_of_the_accepted_issuers, async || {
    let shared = Shared::new().await;
    let service = shared.key(&shared.ada, &shared.id, "service").await;
    let bobs = shared.bob.get("/v1/me").await.ok().text("entity_id").to_owned();
    let role = json!({ "role": "admin" });
    service.patch(&shared.path(&format!("/members/{bobs}")), role).await.ok();
    // The service itself is the way in that stays.
    shared.pin(&service, &[shared.two.url()]).await.ok();
    shared.ada.get(&shared.path("")).await.refused(404);
    shared.bob.get(&shared.path("")).await.ok();
    service.delete(&shared.path("/members/me")).await.refused_as(409, "last_way_in");
    shared.pin(&service, &[]).await.ok();
    // A narrow key of an owner is none.
    let body =
        json!({ "duration_days": 5, "role": "owner", "permissions": ["Workspace.view", "Workspace.update"] });
    let narrow = shared.ada.post(&format!("/v1/{}/api-keys", shared.id), body).await.created();
    let narrow = shared.server.bearing(narrow.text("api_key"));
    service.delete(&shared.path("/members/me")).await.no_content();
    shared.pin(&narrow, &[shared.two.url()]).await.refused_as(409, "last_way_in");
    shared.pin(&narrow, &[shared.one.url()]).await.ok();
});

both!(the_operator_lifts_the_list_of_issuers, async || {
    let shared = Shared::new().await;
    shared.pin(&shared.ada, &[shared.one.url()]).await.ok();
    shared.bob.get(&shared.path("")).await.refused(404);
    let lifted = Lifted { networks: false, issuers: true };
    let left = operator::workspace_access(&shared.server.app, "shared", lifted).await.unwrap();
    assert_eq!(serde_json::to_value(left).unwrap(), json!({ "networks": [], "issuers": [] }));
    shared.bob.get(&shared.path("")).await.ok();
    let path = format!("/v1/{}/audit?action=workspace.access_policy&limit=1", shared.id);
    let events = shared.bob.get(&path).await.ok();
    let told = &events["events"][0]["metadata"];
    let change = json!({ "from": [shared.one.url()], "to": [] });
    assert_eq!((&told["operator"], &told["changes"]["issuers"]), (&json!(true), &change));
});

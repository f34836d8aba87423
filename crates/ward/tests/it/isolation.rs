//! Two tenants use every operation on their own workspace and on each other's. Neither learns anything of the other.

use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use ward_test::{Actor, Answer, Fields as _, Sending, Server, Tenant, both, wants_key};

const ONCE: (&str, &str) = ("idempotency-key", "both-use-the-very-same-key");

/// A tenant's actors, and every answer that they got.
struct Side {
    name: &'static str,
    tenant: Tenant,
    service: Actor,
    key_id: String,
    number: String,
    told: Mutex<Vec<String>>,
}

impl Side {
    async fn of(server: &Server, name: &'static str, number: &str) -> Self {
        let tenant = server.tenant(&format!("{name}-clinic")).await;
        let (service, minted) = tenant
            .key(json!({ "duration_days": 9, "role": "admin", "name": format!("{name} service") }))
            .await;
        let key_id = minted.text("key_id").to_owned();
        Self { name, tenant, service, key_id, number: number.to_owned(), told: Mutex::default() }
    }

    async fn hears(&self, call: impl Future<Output = Answer>) -> Answer {
        let answer = call.await;
        self.told.lock().push(format!("{:?}\n{}", answer.headers, answer.text));
        answer
    }

    /// A tenant's requests in its own workspace.
    async fn lives(&self, server: &Server) {
        let Self { name, tenant, number, .. } = self;
        for actor in [&tenant.owner, &self.service] {
            let patch = json!({ "name": format!("{name} private practice"), "connector_type": "epic" });
            self.hears(actor.patch(&tenant.workspace(""), patch)).await.ok();
            self.hears(actor.post_once(&tenant.workspace("/provision"), ONCE.1, json!({}))).await.ok();
            let numbers = json!({ "numbers": [number] });
            self.hears(actor.put(&tenant.workspace("/test-caller-numbers"), numbers)).await.ok();
            let mint = json!({ "duration_days": 1, "name": format!("{name} minted") });
            let minted = self.hears(actor.post_once(&tenant.path("/api-keys"), ONCE.1, mint)).await.created();
            let key = tenant.path(&format!("/api-keys/{}", minted.text("key_id")));
            let days = json!({ "duration_days": 2 });
            self.hears(actor.post_once(&format!("{key}/rotate"), ONCE.1, days)).await.ok();
            self.hears(actor.delete(&key)).await.no_content();
        }
        let twilio =
            json!({ "account_sid": self.account(), "auth_token": format!("{name}-twilio-auth-token") });
        self.hears(tenant.put("/twilio", twilio)).await.ok();
        let summary = format!("{name} asked for a refill");
        for (sid, status, caller) in [
            ("real", "ringing", format!("{}9", self.number)),
            ("real", "completed", format!("{}9", self.number)),
            ("test", "completed", self.number.clone()),
        ] {
            let body = json!({ "status": status, "caller_id": caller, "direction": "inbound",
                               "summary": summary, "patient_id": format!("{name}-patient") });
            let path = tenant.path(&format!("/calls/{}", self.sid(sid)));
            self.hears(self.service.put(&path, body)).await.ok();
        }
        let own = json!({ "slug": format!("{name}-second"), "name": format!("{name} second"), "environment": "staging",
                          "backend_org_id": format!("{name}-org") });
        self.hears(tenant.owner.post_once("/v1/me/workspaces", ONCE.1, own)).await.created();
        self.reads().await;
        server.app.flush().await;
        self.reads().await;
    }

    /// Reads every list and every resource.
    async fn reads(&self) {
        let tenant = &self.tenant;
        for actor in [&tenant.owner, &self.service] {
            for path in [
                "/v1/workspaces?limit=20".to_owned(),
                "/v1/auth/me".to_owned(),
                tenant.workspace(""),
                tenant.workspace("/test-caller-numbers"),
                tenant.path("/api-keys?limit=20"),
                tenant.path("/api-keys?mine_only=true"),
                tenant.path("/api-keys/permission-catalog"),
                tenant.path("/audit?limit=100"),
                tenant.path("/audit/summary"),
                tenant.path("/integrations"),
                tenant.path("/twilio"),
                tenant.path("/calls?include_test=true"),
                tenant.path(&format!("/calls/{}", self.sid("real"))),
                tenant.path(&format!("/calls/{}", self.sid("test"))),
                tenant.path("/deliveries"),
                tenant.path(&format!("/deliveries/{}", self.delivery().await)),
                tenant.path("/sync"),
            ] {
                self.hears(actor.get(&path)).await.ok();
            }
        }
    }

    /// Every operation, on the other's workspace, and with the other's ids in the tenant's own workspace.
    async fn tries(&self, server: &Server, other: &Self) {
        let theirs = other.tenant.target(&other.key_id);
        let mixed = self.tenant.target(&other.key_id);
        for operation in server.app.contract.operations().filter(|operation| wants_key(operation)) {
            for actor in [&self.tenant.owner, &self.service] {
                if operation.path.contains("{workspace_id}") {
                    let answer = self.hears(actor.call_with(operation, &theirs, &[ONCE])).await;
                    assert_eq!(answer.status, 404, "{}", operation.id);
                }
                if operation.path.contains("{key_id}") {
                    let answer = self.hears(actor.call_with(operation, &mixed, &[ONCE])).await;
                    // The Idempotency-Key is the same, but the caller is another, so there is nothing to replay.
                    assert_eq!(answer.refused(404), "api_key_not_found", "{}", operation.id);
                }
            }
        }
        let id_of_theirs = other.entity_of_owner();
        for filter in [
            format!("actor_entity_id={id_of_theirs}"),
            format!("resource_id={}", other.tenant.id),
            format!("resource_id={}", other.credential().await),
        ] {
            let listed = self.hears(self.tenant.get(&format!("/audit?{filter}"))).await;
            assert_eq!(listed.ok()["total"], 0, "{filter}");
        }
        // The other's calls and deliveries, requested in the tenant's own workspace.
        let (theirs, mine) = (other.delivery().await, &self.tenant);
        for (path, code) in [
            (format!("/calls/{}", other.sid("real")), "call_not_found"),
            (format!("/deliveries/{theirs}"), "delivery_not_found"),
        ] {
            self.hears(mine.owner.get(&mine.path(&path))).await;
            mine.owner.get(&mine.path(&path)).await.refused_as(404, code);
        }
        for (path, body) in [("retry", json!({})), ("resolve", json!({ "in_ehr": true }))] {
            let path = mine.path(&format!("/deliveries/{theirs}/{path}"));
            self.hears(mine.owner.post(&path, body)).await.refused_as(404, "delivery_not_found");
        }
        let hold = mine.path(&format!("/sync/{}/hold", other.lane().await));
        self.hears(mine.owner.put(&hold, json!({ "held": true })))
            .await
            .refused_as(404, "integration_not_found");
        let of_theirs = mine.path(&format!("/deliveries?integration_id={}", other.lane().await));
        let listed = self.hears(mine.owner.get(&of_theirs)).await.ok();
        assert_eq!(listed["total"], 0);
        let taken = json!({ "slug": other.tenant.slug, "name": "x", "environment": "staging" });
        for (actor, path) in
            [(&self.tenant.owner, "/v1/me/workspaces"), (&server.anonymous(), "/v1/workspaces")]
        {
            self.hears(actor.post(path, taken.clone())).await.refused(409);
        }
        let claim = other.tenant.path("/api-keys");
        self.hears(server.anonymous().post(&claim, json!({ "duration_days": 1 }))).await.refused(401);
        // The other's list positions are not valid tokens here.
        let page = other.tenant.get("/api-keys?limit=1").await.ok();
        let path = self.tenant.path(&format!("/api-keys?continuation_token={}", page["continuation_token"]));
        self.hears(self.tenant.owner.get(&path)).await.ok();
    }

    fn account(&self) -> String {
        format!("AC{:0>32}", self.number.trim_start_matches('+'))
    }

    fn sid(&self, which: &str) -> String {
        format!("CA-{}-{which}", self.name)
    }

    /// The id of the tenant's one delivery.
    async fn delivery(&self) -> String {
        let listed = self.tenant.get("/deliveries").await.ok();
        listed["items"][0].text("id").to_owned()
    }

    /// The id of the integration that gets the delivery.
    async fn lane(&self) -> String {
        let status = self.tenant.get("/sync").await.ok();
        status["integrations"][0].text("integration_id").to_owned()
    }

    async fn keys(&self) -> Vec<Value> {
        let page = self.tenant.get("/api-keys?limit=20").await.ok();
        page.list("items").clone()
    }

    async fn credential(&self) -> String {
        self.keys().await[0].text("id").to_owned()
    }

    /// Every value that belongs to this tenant alone.
    async fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![self.name.to_owned(), self.tenant.id.clone(), self.number.clone()];
        secrets.push(self.entity_of_owner());
        for key in self.keys().await {
            secrets.extend(["id", "key_id"].map(|field| key[field].as_str().expect("text").to_owned()));
        }
        let workspaces = self.tenant.owner.get("/v1/workspaces?limit=20").await.ok();
        let workspaces = workspaces.list("items").clone();
        secrets.extend(workspaces.iter().map(|workspace| workspace.text("id").to_owned()));
        for event in self.tenant.audit().await {
            secrets.push(event.text("id").to_owned());
            secrets.extend(event["actor_entity_id"].as_str().map(str::to_owned));
            secrets.extend(event["actor_credential_id"].as_str().map(str::to_owned));
        }
        let integrations = self.tenant.get("/integrations").await.ok();
        let integrations = integrations.list("items").clone();
        secrets.extend([self.delivery().await, self.sid("real"), self.account()]);
        secrets.extend(integrations.iter().map(|one| one.text("id").to_owned()));
        secrets
    }

    fn entity_of_owner(&self) -> String {
        self.tenant.claimed.text("created_by_entity_id").to_owned()
    }
}

both!(no_answer_to_one_tenant_holds_anything_of_the_other, async || {
    let server = Server::start().await;
    let ada = Side::of(&server, "adalia", "+15550170001").await;
    let bea = Side::of(&server, "beatrix", "+15550180002").await;
    tokio::join!(ada.lives(&server), bea.lives(&server));
    ada.tries(&server, &bea).await;
    bea.tries(&server, &ada).await;
    server.app.flush().await;
    tokio::join!(ada.reads(), bea.reads());

    for (side, other) in [(&ada, &bea), (&bea, &ada)] {
        let told = side.told.lock().join("\n");
        for own in [side.name, &side.tenant.id, &side.number, &side.key_id] {
            assert!(told.contains(own), "the search can find: {own}");
        }
        for secret in other.secrets().await {
            assert!(!told.contains(&secret), "{} was told of {}: {secret}", side.name, other.name);
        }
    }
});

both!(a_strangers_requests_leave_no_trace_and_change_nothing, async || {
    let server = Server::start().await;
    let ada = Side::of(&server, "adalia", "+15550170001").await;
    let bea = Side::of(&server, "beatrix", "+15550180002").await;
    server.app.flush().await;
    let about_ada =
        |rows: Vec<String>| rows.into_iter().filter(|row| row.contains(&ada.tenant.id)).collect::<Vec<_>>();
    let before = about_ada(server.dump().await);
    assert!(before.len() > 5);
    let target = ada.tenant.target(&ada.key_id);
    let on_workspaces = |operation: &&std::sync::Arc<ward_contract::Operation>| {
        operation.path.contains("{workspace_id}") && wants_key(operation)
    };
    for operation in server.app.contract.operations().filter(on_workspaces) {
        bea.tenant.owner.call_with(operation, &target, &[ONCE]).await.refused(404);
        let sending = Sending { headers: &[ONCE], ..Sending::json_bytes(b"{") };
        let method = Method::from_bytes(operation.method.as_str().as_bytes()).expect("a method");
        let answer = bea.service.send(method, &target.path(operation), sending).await;
        assert!([404, 422].contains(&answer.status.as_u16()), "{}: {}", operation.id, answer.text);
    }
    server.app.flush().await;
    assert_eq!(about_ada(server.dump().await), before);
});

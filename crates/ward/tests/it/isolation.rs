//! Two tenants who do everything there is to do, to their own and to each other's; neither ever learns anything.

use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward_test::{Actor, Answer, Sending, Server, Tenant, both, wants_key};

const ONCE: (&str, &str) = ("idempotency-key", "both-use-the-very-same-key");

/// A tenant's people, and all that they were ever told.
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
        let key_id = minted["key_id"].as_str().expect("a key id").to_owned();
        Self { name, tenant, service, key_id, number: number.to_owned(), told: Mutex::default() }
    }

    async fn hears(&self, call: impl Future<Output = Answer>) -> Answer {
        let answer = call.await;
        self.told.lock().push(format!("{:?}\n{}", answer.headers, answer.text));
        answer
    }

    /// Everything a tenant does in its own workspace.
    async fn lives(&self, server: &Server) {
        let Self { name, tenant, number, .. } = self;
        for actor in [&tenant.owner, &self.service] {
            let patch = json!({ "name": format!("{name} private practice"), "connector_type": "epic" });
            self.hears(actor.patch(&tenant.workspace(""), patch)).await.expect(StatusCode::OK);
            self.hears(actor.post_once(&tenant.workspace("/provision"), ONCE.1, json!({})))
                .await
                .expect(StatusCode::OK);
            let numbers = json!({ "numbers": [number] });
            self.hears(actor.put(&tenant.workspace("/test-caller-numbers"), numbers))
                .await
                .expect(StatusCode::OK);
            let mint = json!({ "duration_days": 1, "name": format!("{name} minted") });
            let minted = self.hears(actor.post_once(&tenant.path("/api-keys"), ONCE.1, mint)).await;
            let minted = minted.expect(StatusCode::CREATED);
            let key = tenant.path(&format!("/api-keys/{}", minted["key_id"].as_str().expect("a key id")));
            let days = json!({ "duration_days": 2 });
            self.hears(actor.post_once(&format!("{key}/rotate"), ONCE.1, days)).await.expect(StatusCode::OK);
            self.hears(actor.delete(&key)).await.expect(StatusCode::NO_CONTENT);
        }
        let twilio =
            json!({ "account_sid": self.account(), "auth_token": format!("{name}-twilio-auth-token") });
        self.hears(tenant.owner.put(&tenant.path("/twilio"), twilio)).await.expect(StatusCode::OK);
        let summary = format!("{name} asked for a refill");
        for (sid, status, caller) in [
            ("real", "ringing", format!("{}9", self.number)),
            ("real", "completed", format!("{}9", self.number)),
            ("test", "completed", self.number.clone()),
        ] {
            let body = json!({ "status": status, "caller_id": caller, "direction": "inbound",
                               "summary": summary, "patient_id": format!("{name}-patient") });
            let path = tenant.path(&format!("/calls/{}", self.sid(sid)));
            self.hears(self.service.put(&path, body)).await.expect(StatusCode::OK);
        }
        let own = json!({ "slug": format!("{name}-second"), "name": format!("{name} second"), "environment": "staging",
                          "backend_org_id": format!("{name}-org") });
        self.hears(tenant.owner.post_once("/v1/me/workspaces", ONCE.1, own))
            .await
            .expect(StatusCode::CREATED);
        self.reads().await;
        server.app.flush().await;
        self.reads().await;
    }

    /// Every list and every thing that there is to see.
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
                self.hears(actor.get(&path)).await.expect(StatusCode::OK);
            }
        }
    }

    /// Every operation, aimed at the other's workspace, and at the other's things in one's own.
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
                    // The same Idempotency-Key, but another's key: nothing to repeat.
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
            let listed =
                self.hears(self.tenant.owner.get(&self.tenant.path(&format!("/audit?{filter}")))).await;
            assert_eq!(listed.expect(StatusCode::OK)["total"], 0, "{filter}");
        }
        // The other's calls and deliveries, asked for in one's own workspace.
        let (theirs, mine) = (other.delivery().await, &self.tenant);
        for (path, code) in [
            (format!("/calls/{}", other.sid("real")), "call_not_found"),
            (format!("/deliveries/{theirs}"), "delivery_not_found"),
        ] {
            self.hears(mine.owner.get(&mine.path(&path))).await;
            assert_eq!(mine.owner.get(&mine.path(&path)).await.refused(404), code);
        }
        for (path, body) in [("retry", json!({})), ("resolve", json!({ "in_ehr": true }))] {
            let path = mine.path(&format!("/deliveries/{theirs}/{path}"));
            let refused = self.hears(mine.owner.post(&path, body)).await;
            assert_eq!(refused.refused(404), "delivery_not_found");
        }
        let hold = mine.path(&format!("/sync/{}/hold", other.lane().await));
        let refused = self.hears(mine.owner.put(&hold, json!({ "held": true }))).await;
        assert_eq!(refused.refused(404), "integration_not_found");
        let of_theirs = mine.path(&format!("/deliveries?integration_id={}", other.lane().await));
        let listed = self.hears(mine.owner.get(&of_theirs)).await.expect(StatusCode::OK);
        assert_eq!(listed["total"], 0);
        let taken = json!({ "slug": other.tenant.slug, "name": "x", "environment": "staging" });
        for (actor, path) in
            [(&self.tenant.owner, "/v1/me/workspaces"), (&server.anonymous(), "/v1/workspaces")]
        {
            self.hears(actor.post(path, taken.clone())).await.refused(409);
        }
        let claim = other.tenant.path("/api-keys");
        self.hears(server.anonymous().post(&claim, json!({ "duration_days": 1 }))).await.refused(401);
        // Their places in lists are no tokens here.
        let page =
            other.tenant.owner.get(&other.tenant.path("/api-keys?limit=1")).await.expect(StatusCode::OK);
        let path = self.tenant.path(&format!("/api-keys?continuation_token={}", page["continuation_token"]));
        self.hears(self.tenant.owner.get(&path)).await.expect(StatusCode::OK);
    }

    fn account(&self) -> String {
        format!("AC{:0>32}", self.number.trim_start_matches('+'))
    }

    fn sid(&self, which: &str) -> String {
        format!("CA-{}-{which}", self.name)
    }

    /// The one delivery that it owes.
    async fn delivery(&self) -> String {
        let path = self.tenant.path("/deliveries");
        let listed = self.tenant.owner.get(&path).await.expect(StatusCode::OK);
        listed["items"][0]["id"].as_str().expect("a delivery").to_owned()
    }

    /// The integration that it is owed to.
    async fn lane(&self) -> String {
        let status = self.tenant.owner.get(&self.tenant.path("/sync")).await.expect(StatusCode::OK);
        status["integrations"][0]["integration_id"].as_str().expect("an id").to_owned()
    }

    async fn keys(&self) -> Vec<Value> {
        let page =
            self.tenant.owner.get(&self.tenant.path("/api-keys?limit=20")).await.expect(StatusCode::OK);
        page["items"].as_array().expect("items").clone()
    }

    async fn credential(&self) -> String {
        self.keys().await[0]["id"].as_str().expect("an id").to_owned()
    }

    /// Everything that is this tenant's alone.
    async fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![self.name.to_owned(), self.tenant.id.clone(), self.number.clone()];
        secrets.push(self.entity_of_owner());
        for key in self.keys().await {
            secrets.extend(["id", "key_id"].map(|field| key[field].as_str().expect("text").to_owned()));
        }
        let workspaces = self.tenant.owner.get("/v1/workspaces?limit=20").await.expect(StatusCode::OK);
        let workspaces = workspaces["items"].as_array().expect("items").clone();
        secrets
            .extend(workspaces.iter().map(|workspace| workspace["id"].as_str().expect("an id").to_owned()));
        for event in self.tenant.audit().await {
            secrets.push(event["id"].as_str().expect("an id").to_owned());
            secrets.extend(event["actor_entity_id"].as_str().map(str::to_owned));
            secrets.extend(event["actor_credential_id"].as_str().map(str::to_owned));
        }
        let integrations =
            self.tenant.owner.get(&self.tenant.path("/integrations")).await.expect(StatusCode::OK);
        let integrations = integrations["items"].as_array().expect("items").clone();
        secrets.extend([self.delivery().await, self.sid("real"), self.account()]);
        secrets.extend(integrations.iter().map(|one| one["id"].as_str().expect("an id").to_owned()));
        secrets
    }

    fn entity_of_owner(&self) -> String {
        self.tenant.claimed["created_by_entity_id"].as_str().expect("an entity").to_owned()
    }
}

both!(no_answer_to_one_tenant_holds_anything_of_the_other);
async fn no_answer_to_one_tenant_holds_anything_of_the_other() {
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
}

both!(what_a_stranger_tries_leaves_no_trace_and_changes_nothing);
async fn what_a_stranger_tries_leaves_no_trace_and_changes_nothing() {
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
        let sending =
            Sending { body: Some(b"{".to_vec()), content_type: Some("application/json"), headers: &[ONCE] };
        let method = Method::from_bytes(operation.method.as_str().as_bytes()).expect("a method");
        let answer = bea.service.send(method, &target.path(operation), sending).await;
        assert!([404, 422].contains(&answer.status.as_u16()), "{}: {}", operation.id, answer.text);
    }
    server.app.flush().await;
    assert_eq!(about_ada(server.dump().await), before);
}

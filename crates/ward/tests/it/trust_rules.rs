//! Tokens of CI jobs and pods act by the trust rules of a workspace.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use ward_test::{
    Actor, Answer, Fields as _, Sending, Server, SigningKey, Tenant, TestIssuer, both, got_in, new_workspace,
};

use crate::outbound::open_outbound;
use crate::support::insert_rows;

pub const WARD: &str = "https://ward.example";
pub const MAIN: &str = "refs/heads/main";
const SPIFFE: &str = "spiffe://prod.example/ns/payments/sa/api";
const UID: &str = "/kubernetes.io/serviceaccount/uid";

/// A server that may call this machine, an issuer whose keys it can fetch, and a tenant.
pub async fn scene() -> (Server, TestIssuer, Tenant) {
    let mut issuer = TestIssuer::start().await;
    let server = Server::with(open_outbound).await;
    issuer.follow(&server.clock);
    let tenant = server.tenant("acme").await;
    (server, issuer, tenant)
}

/// The claims of a job of GitHub Actions, by GitHub's reference of its OIDC tokens.
pub fn github(issuer: &TestIssuer) -> Value {
    json!({
        "iss": issuer.url(), "aud": WARD, "sub": format!("repo:octo-org/app:ref:{MAIN}"), "jti": "0d1f2c3e",
        "repository": "octo-org/app", "repository_id": "74231904", "repository_owner": "octo-org",
        "repository_owner_id": "65010", "actor": "octocat", "actor_id": "12", "ref": MAIN, "ref_type": "branch",
        "workflow": "deploy", "job_workflow_ref": format!("octo-org/app/.github/workflows/deploy.yml@{MAIN}"),
        "run_id": "30433642", "environment": "prod", "event_name": "push", "runner_environment": "github-hosted",
        "nbf": issuer.seconds(-5), "iat": issuer.seconds(0), "exp": issuer.seconds(300),
    })
}

/// The claims of a projected service account token of Kubernetes.
fn kubernetes(issuer: &TestIssuer) -> Value {
    json!({
        "iss": issuer.url(), "aud": [WARD], "sub": "system:serviceaccount:prod:deployer", "jti": "6b1f",
        "kubernetes.io": {
            "namespace": "prod", "node": { "name": "node-1", "uid": "n-1" }, "pod": { "name": "deployer-7d9", "uid": "p-1" },
            "serviceaccount": { "name": "deployer", "uid": "5b5a2f8c" },
        },
        "nbf": issuer.seconds(0), "iat": issuer.seconds(0), "exp": issuer.seconds(3600),
    })
}

/// The claims of a JWT-SVID of SPIFFE.
fn spiffe(issuer: &TestIssuer) -> Value {
    json!({ "iss": issuer.url(), "aud": [WARD], "sub": SPIFFE, "iat": issuer.seconds(0), "exp": issuer.seconds(300) })
}

/// Signs claims with the header of their shape.
pub fn sign(issuer: &TestIssuer, typ: Option<&str>, claims: &Value) -> String {
    let key = issuer.key();
    let mut header = json!({ "alg": key.algorithm(), "kid": "first" });
    if let Some(typ) = typ {
        header["typ"] = json!(typ);
    }
    key.sign(&header, claims)
}

pub fn job(server: &Server, issuer: &TestIssuer) -> Actor {
    server.bearing(sign(issuer, Some("JWT"), &github(issuer)))
}

pub fn with(claims: &Value, more: Value) -> Value {
    let mut claims = claims.clone();
    let Value::Object(more) = more else { panic!("no object: {more}") };
    claims.as_object_mut().unwrap().extend(more);
    claims
}

pub fn is(claim: &str, value: &str) -> Value {
    json!({ "claim": claim, "equals": value })
}

pub fn begins(claim: &str, value: &str) -> Value {
    json!({ "claim": claim, "starts_with": value })
}

/// A request for a rule with these conditions.
pub fn rule(issuer: &str, conditions: Value, role: &str) -> Value {
    let mut request = json!({ "name": "deploy", "issuer": issuer, "audience": WARD, "role": role });
    request["conditions"] = conditions;
    request
}

pub async fn trust(tenant: &Tenant, request: Value) -> Value {
    tenant.post("/trust-rules", request).await.created()
}

async fn of_repository(tenant: &Tenant, issuer: &TestIssuer, role: &str) -> Value {
    trust(tenant, rule(issuer.url(), json!([is("repository_id", "74231904")]), role)).await
}

pub fn path(tenant: &Tenant, rule: &Value) -> String {
    tenant.path(&format!("/trust-rules/{}", rule.text("id")))
}

// Acting

both!(tokens_of_each_shape_act_as_the_service_of_their_rule_and_no_more, async || {
    let (server, issuer, tenant) = scene().await;
    issuer.serve_keys(vec![SigningKey::new("RS256", Some("first"))]);
    for (shape, typ, claims, conditions) in [
        (
            "github_actions",
            Some("JWT"),
            github(&issuer),
            json!([
                is("repository_id", "74231904"),
                is("ref", MAIN),
                begins("job_workflow_ref", "octo-org/app/")
            ]),
        ),
        (
            "kubernetes",
            None,
            kubernetes(&issuer),
            json!([is(UID, "5b5a2f8c"), is("/kubernetes.io/namespace", "prod")]),
        ),
        ("spiffe", Some("JOSE"), spiffe(&issuer), json!([is("sub", SPIFFE)])),
    ] {
        let made = trust(&tenant, rule(issuer.url(), conditions.clone(), "operator")).await;
        assert_eq!((made.text("shape"), &made["conditions"]), (shape, &conditions));
        assert_eq!(tenant.owner.get(&path(&tenant, &made)).await.ok(), made);
        let workload = server.bearing(sign(&issuer, typ, &claims));
        let gate = workload.get(&tenant.path("/authorize")).await;
        let told =
            ["x-ward-principal-id", "x-ward-principal-kind", "x-ward-role"].map(|name| gate.header(name));
        assert_eq!(told, [made.text("id"), "service", "operator"], "{shape}: {}", gate.text);
        workload.get(&tenant.path("/integrations")).await.ok();
        let report = json!({ "status": "completed", "caller_id": "+15550100001", "direction": "inbound" });
        workload.put(&tenant.path(&format!("/calls/CA-{shape}")), report).await.ok();
        workload.patch(&tenant.workspace(""), json!({ "name": "Mine" })).await.refused_as(403, "forbidden");
        // The service is a member like any other.
        let members = tenant.owner.get(&tenant.workspace("/members")).await.ok();
        let service = members.list("items").iter().find(|member| member["entity_id"] == made["id"]);
        assert_eq!(
            service.expect("a member").fields(["kind", "display_name", "role"]),
            json!(["service", "deploy", "operator"])
        );
    }
    let listed = tenant.get("/trust-rules?limit=2").await.ok();
    assert_eq!(
        (listed.list("items").len(), &listed["total"], &listed["has_more"]),
        (2, &json!(3), &json!(true))
    );
    let next =
        tenant.get(&format!("/trust-rules?continuation_token={}", listed["continuation_token"])).await.ok();
    assert_eq!((next["items"][0].text("shape"), &next["has_more"]), ("spiffe", &json!(false)));
});

both!(a_workload_does_nothing_that_is_for_users_or_for_owners, async || {
    let (server, issuer, tenant) = scene().await;
    let made = of_repository(&tenant, &issuer, "admin").await;
    let workload = job(&server, &issuer);
    workload.get(&tenant.path("/audit")).await.ok();
    for (method, path, body) in [
        (Method::POST, "/v1/me/workspaces".to_owned(), new_workspace("mine")),
        (Method::POST, "/v1/workspaces/self-service".to_owned(), new_workspace("mine")),
        (Method::GET, "/v1/workspaces".to_owned(), json!(null)),
        (Method::GET, "/v1/auth/me".to_owned(), json!(null)),
        (Method::POST, "/v1/invitations/accept".to_owned(), json!({ "invitation": "ward_invite_x" })),
        (
            Method::POST,
            tenant.path("/api-keys"),
            json!({ "duration_days": 1, "speaks_for": "self", "role": "viewer" }),
        ),
        (Method::POST, tenant.path("/api-keys"), json!({ "duration_days": 1, "role": "owner" })),
        (Method::POST, tenant.workspace("/archive"), json!({ "slug": "acme" })),
        (Method::POST, tenant.workspace("/ownership-transfer"), json!({ "entity_id": made["id"] })),
        (
            Method::PATCH,
            tenant.workspace(&format!("/members/{}", made.text("id"))),
            json!({ "role": "owner" }),
        ),
    ] {
        let sending = if body.is_null() { Sending::default() } else { Sending::json(&body) };
        let answer = workload.send(method, &path, sending).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text);
    }
    // An owner can raise the service's membership, and the rule still bounds its tokens.
    let member = tenant.workspace(&format!("/members/{}", made.text("id")));
    tenant.owner.patch(&member, json!({ "role": "owner" })).await.ok();
    workload.post(&tenant.workspace("/archive"), json!({ "slug": "acme" })).await.refused(403);
    // A lower membership bounds them at once.
    tenant.owner.patch(&member, json!({ "role": "viewer" })).await.ok();
    workload.get(&tenant.path("/audit")).await.refused_as(403, "forbidden");
});

both!(two_workspaces_that_trust_the_same_token_do_not_meet, async || {
    let (server, issuer, acme) = scene().await;
    let (other, third) = (server.tenant("other").await, server.tenant("third").await);
    let workload = job(&server, &issuer);
    workload.get("/v1/me").await.refused(401);
    let first = of_repository(&acme, &issuer, "viewer").await;
    let narrow = json!({ "permissions": ["Call.view"] });
    let second =
        trust(&other, with(&rule(issuer.url(), json!([is("repository_id", "74231904")]), "member"), narrow))
            .await;
    let gate = async |tenant: &Tenant| workload.get(&tenant.path("/authorize")).await;
    assert_eq!(gate(&acme).await.header("x-ward-principal-id"), first.text("id"));
    assert_eq!(gate(&other).await.header("x-ward-principal-id"), second.text("id"));
    assert_eq!(gate(&third).await.refused(401), "unauthorized");
    workload.get(&acme.workspace("")).await.ok();
    workload.get(&other.workspace("")).await.refused(403);
    // Without a workspace, the token acts for none of them and is only shown what it could enter.
    let me = workload.get("/v1/me").await.ok();
    assert_eq!(me.fields(["entity_id", "kind", "display_name"]), json!([null, "service", null]));
    assert_eq!(
        me["credential"].fields(["type", "key_id", "issuer"]),
        json!(["workload", null, issuer.url()])
    );
    let shown: Value = me["memberships"]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.fields(["workspace_id", "slug", "role", "permissions"]))
        .collect();
    assert_eq!(
        shown,
        json!([
            [acme.id, "acme", "viewer", ["Workspace.view", "Integration.view"]],
            [other.id, null, "member", ["Call.view"]]
        ])
    );
    let page = workload.get("/v1/me?limit=1&continuation_token=1").await.ok();
    assert_eq!(page["memberships"].fields(["has_more", "total"]), json!([false, 2]));
    assert_eq!(page["memberships"]["items"][0]["workspace_id"], other.id);
});

both!(several_rules_for_one_token_are_never_combined, async || {
    let (server, issuer, tenant) = scene().await;
    let role = async || {
        let gate = job(&server, &issuer).get(&tenant.path("/authorize")).await;
        (gate.header("x-ward-principal-id").to_owned(), gate.header("x-ward-role").to_owned())
    };
    let wide = trust(&tenant, rule(issuer.url(), json!([is("repository_owner_id", "65010")]), "admin")).await;
    assert_eq!(role().await, (wide.text("id").to_owned(), "admin".to_owned()));
    let repository = is("repository_id", "74231904");
    // A condition on the beginning counts less than an exact one.
    let prefix = json!([repository, begins("ref", "refs/heads/")]);
    let beginning = trust(&tenant, rule(issuer.url(), prefix, "operator")).await;
    assert_eq!(role().await.1, "operator");
    let exact = json!([repository, is("ref", MAIN)]);
    let narrow = trust(&tenant, rule(issuer.url(), exact.clone(), "viewer")).await;
    let twin = trust(&tenant, rule(issuer.url(), exact, "member")).await;
    assert_eq!(role().await, (narrow.text("id").to_owned(), "viewer".to_owned()), "the older of two alike");
    for (ended, left) in [(&narrow, "member"), (&twin, "operator"), (&beginning, "admin")] {
        tenant.owner.delete(&path(&tenant, ended)).await.no_content();
        assert_eq!(role().await.1, left);
    }
});

// Ends

both!(a_deleted_rule_trusts_nothing_from_the_next_request_on_on_every_replica, async || {
    let (server, issuer, tenant) = scene().await;
    let replica = server.replica().await;
    let made = of_repository(&tenant, &issuer, "admin").await;
    let token = sign(&issuer, Some("JWT"), &github(&issuer));
    let both = [server.bearing(&token), replica.bearing(&token)];
    for workload in &both {
        workload.get(&tenant.workspace("")).await.ok();
    }
    let owner = tenant.owner.bearer.clone().unwrap();
    replica.bearing(owner).delete(&path(&tenant, &made)).await.no_content();
    for workload in &both {
        for (method, path) in [
            (Method::GET, tenant.workspace("")),
            (Method::PATCH, tenant.workspace("")),
            (Method::GET, "/v1/me".to_owned()),
        ] {
            let body = json!({ "name": "Late" });
            let sending = if method == Method::PATCH { Sending::json(&body) } else { Sending::default() };
            assert_eq!(workload.send(method, &path, sending).await.refused(401), "unauthorized");
        }
    }
    tenant.owner.delete(&path(&tenant, &made)).await.refused_as(404, "trust_rule_not_found");
    tenant.owner.get(&path(&tenant, &made)).await.refused_as(404, "trust_rule_not_found");
    assert_eq!(members(&tenant).await, 1, "the service left with its rule");
});

pub async fn members(tenant: &Tenant) -> i64 {
    let usage = tenant.get("/usage").await.ok();
    let quotas = usage.list("quotas").iter();
    quotas.filter(|it| it["name"] == "members").map(|it| it["used"].as_i64().unwrap()).sum()
}

both!(a_rule_ends_with_its_time_its_service_and_its_workspace, async || {
    let (server, issuer, tenant) = scene().await;
    let now = server.clock.now();
    server.clock.stop_at(now);
    let end = now.saturating_add(Duration::from_mins(4));
    let timed = with(
        &rule(issuer.url(), json!([is("repository_id", "74231904")]), "admin"),
        json!({ "expires_at": end }),
    );
    let made = trust(&tenant, timed.clone()).await;
    let workload = job(&server, &issuer);
    let here = tenant.workspace("");
    server.clock.advance(Duration::from_micros(4 * 60 * 1_000_000 - 1));
    workload.get(&here).await.ok();
    server.clock.advance(Duration::from_micros(1));
    workload.get(&here).await.refused(401);
    tenant.post("/trust-rules", timed).await.refused_as(422, "expires_in_the_past");
    assert_eq!(
        tenant.get("/trust-rules").await.ok()["items"][0]["expires_at"],
        json!(end),
        "it stays in the list"
    );
    tenant.owner.delete(&path(&tenant, &made)).await.no_content();

    let removed = of_repository(&tenant, &issuer, "admin").await;
    job(&server, &issuer).get(&here).await.ok();
    let member = tenant.workspace(&format!("/members/{}", removed.text("id")));
    tenant.owner.delete(&member).await.no_content();
    job(&server, &issuer).get(&here).await.refused(401);
    of_repository(&tenant, &issuer, "admin").await;
    job(&server, &issuer).delete(&tenant.workspace("/members/me")).await.no_content();
    job(&server, &issuer).get(&here).await.refused(401);
    assert_eq!(tenant.get("/trust-rules").await.ok()["total"], 0);
    let mut actions = tenant.actions().await;
    actions.retain(|action| action == "trust_rule.delete");
    assert_eq!(actions.len(), 3);

    of_repository(&tenant, &issuer, "admin").await;
    job(&server, &issuer).get(&here).await.ok();
    tenant.owner.post(&tenant.workspace("/archive"), json!({ "slug": "acme" })).await.ok();
    job(&server, &issuer).get(&here).await.refused(401);
    job(&server, &issuer).get("/v1/me").await.refused(401);
});

both!(the_networks_of_a_workspace_hold_for_its_workloads, async || {
    let mut issuer = TestIssuer::start().await;
    let server = Server::with(|config| {
        open_outbound(config);
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    issuer.follow(&server.clock);
    let tenant = server.tenant("acme").await;
    of_repository(&tenant, &issuer, "viewer").await;
    let from = |actor: &Actor, address: &str| actor.with(&[("x-forwarded-for", address)]);
    let (inside, outside) = ("192.0.2.7", "198.51.100.9");
    let policy = json!({ "networks": ["192.0.2.0/24"], "issuers": [] });
    from(&tenant.owner, inside).put(&tenant.workspace("/access-policy"), policy).await.ok();
    let workload = job(&server, &issuer);
    for path in [tenant.workspace(""), "/v1/me".to_owned()] {
        assert_eq!(from(&workload, outside).get(&path).await.refused(401), "unauthorized");
    }
    assert_eq!(issuer.discoveries(), 0, "a refused address causes no fetch");
    from(&workload, inside).get(&tenant.workspace("")).await.ok();
    from(&workload, inside).get("/v1/me").await.ok();
    from(&workload, outside).get(&tenant.workspace("")).await.refused(401);
    from(&workload, outside).get("/v1/me").await.refused(401);
});

// Tokens

both!(whatever_is_wrong_with_a_workloads_token_it_is_the_same_401, async || {
    let (server, issuer, tenant) = scene().await;
    let conditions = json!([
        is("repository_id", "74231904"),
        is("ref", MAIN),
        begins("job_workflow_ref", "octo-org/app/"),
        is("environment", "prod")
    ]);
    trust(&tenant, rule(issuer.url(), conditions, "viewer")).await;
    let claims = github(&issuer);
    let said = |more: Value| sign(&issuer, Some("JWT"), &with(&claims, more));
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().shift_remove(name);
        sign(&issuer, Some("JWT"), &claims)
    };
    let key = issuer.key();
    let header = |more: Value| {
        key.sign(&with(&json!({ "alg": "ES256", "kid": "first", "typ": "JWT" }), more), &claims)
    };
    let thief = SigningKey::new("ES256", Some("first"));
    let status = async |token: String| server.bearing(token).get(&tenant.workspace("")).await;
    status(said(json!({}))).await.ok();
    status(said(json!({ "exp": issuer.seconds(-20), "nbf": issuer.seconds(20), "iat": issuer.seconds(20) })))
        .await
        .ok();
    status(said(json!({ "aud": [WARD] }))).await.ok();
    for optional in ["iat", "nbf", "jti"] {
        status(without(optional)).await.ok();
    }
    let expected = status(ward_test::unknown_key()).await.anonymized();
    for (what, token) in [
        ("expired", said(json!({ "exp": issuer.seconds(-31) }))),
        ("without an end", without("exp")),
        ("not yet good", said(json!({ "nbf": issuer.seconds(60) }))),
        ("issued in the future", said(json!({ "iat": issuer.seconds(60) }))),
        ("issued at a word", said(json!({ "iat": "now" }))),
        ("living too long", said(json!({ "exp": issuer.seconds(25 * 3600) }))),
        (
            "living too long without its beginning",
            sign(
                &issuer,
                None,
                &with(&json!({ "exp": issuer.seconds(25 * 3600) }), {
                    let mut rest = claims.clone();
                    rest.as_object_mut().unwrap().retain(|name, _| name != "exp" && name != "iat");
                    rest
                }),
            ),
        ),
        ("for another audience", said(json!({ "aud": "https://other.example" }))),
        ("for a longer audience", said(json!({ "aud": format!("{WARD}/") }))),
        ("for two audiences", said(json!({ "aud": [WARD, "https://other.example"] }))),
        ("for no audience", without("aud")),
        ("without a subject", without("sub")),
        ("of another repository", said(json!({ "repository_id": "74231905" }))),
        ("of no repository", without("repository_id")),
        ("of several repositories", said(json!({ "repository_id": ["74231904"] }))),
        ("of another branch", said(json!({ "ref": "refs/heads/main2" }))),
        ("of another workflow", said(json!({ "job_workflow_ref": "octo-org/apps/x" }))),
        ("of no environment", without("environment")),
        ("of another issuer", said(json!({ "iss": "https://token.actions.githubusercontent.com" }))),
        ("bound to a key", said(json!({ "cnf": { "jkt": "x" } }))),
        ("unsigned", header(json!({ "alg": "none" }))),
        ("symmetric", header(json!({ "alg": "HS256" }))),
        ("of another algorithm than its key's", header(json!({ "alg": "RS256" }))),
        ("with a critical extension", header(json!({ "crit": ["exp"] }))),
        ("a log-out token", header(json!({ "typ": "logout+jwt" }))),
        ("signed by somebody else", thief.sign(&json!({ "alg": "ES256", "kid": "first" }), &claims)),
        ("of an unknown key", header(json!({ "kid": "second" }))),
    ] {
        let answer = status(token).await;
        assert_eq!(answer.anonymized(), expected, "{what}");
        assert_eq!(answer.refused(401), "unauthorized", "{what}");
    }
});

// Audit

both!(the_audit_names_the_rule_issuer_subject_and_token_of_a_workload, async || {
    let (server, issuer, tenant) = scene().await;
    let made = of_repository(&tenant, &issuer, "admin").await;
    let workload = job(&server, &issuer);
    workload.patch(&tenant.workspace(""), json!({ "name": "By a job" })).await.ok();
    let refused = server.bearing(sign(&issuer, None, &with(&github(&issuer), json!({ "aud": "x" }))));
    refused.get(&tenant.workspace("")).await.refused(401);
    let key = json!({ "duration_days": 1, "role": "owner" });
    workload.post(&tenant.path("/api-keys"), key).await.refused_as(403, "beyond_caller");
    tenant.owner.delete(&path(&tenant, &made)).await.no_content();
    let strict = json!([is("repository_id", "74231904"), is("ref", "refs/heads/release")]);
    trust(&tenant, rule(issuer.url(), strict, "admin")).await;
    workload.get(&tenant.workspace("")).await.refused(401);
    server.app.flush().await;
    let events = tenant.audit().await;
    let told =
        |action: &str| events.iter().find(|event| event["action"] == action).expect("an event").clone();
    let update = told("workspace.update");
    assert_eq!(update.fields(["actor_entity_id", "actor_credential_id"]), json!([made["id"], null]));
    assert_eq!(
        update["metadata"]["workload"],
        json!({ "rule_id": made["id"], "rule_name": "deploy", "issuer": issuer.url(), "subject": github(&issuer)["sub"], "jti": "0d1f2c3e" })
    );
    assert_eq!(told("access.forbidden")["actor_entity_id"], made["id"]);
    assert_eq!(told("access.unauthorized")["metadata"]["reason"], "trust_rule_conditions");
    let created = told("trust_rule.create");
    assert_eq!(
        created.fields(["service", "resource_type", "resource_name"]),
        json!(["trust_rules", "trust_rule", "deploy"])
    );
    assert_eq!(
        created["metadata"].fields(["issuer", "audience", "role"]),
        json!([issuer.url(), WARD, "admin"])
    );
    assert_eq!(told("trust_rule.delete")["resource_id"], made["id"]);
});

both!(a_deletion_that_cannot_be_recorded_is_not_made, async || {
    let (server, issuer, tenant) = scene().await;
    let made = of_repository(&tenant, &issuer, "admin").await;
    let before = server.dump().await;
    server.sql("ALTER TABLE audit_events RENAME TO hidden").await;
    let refused: Answer = tenant.owner.delete(&path(&tenant, &made)).await;
    server.sql("ALTER TABLE hidden RENAME TO audit_events").await;
    assert!(!got_in(&refused), "{}", refused.text);
    assert!(server.dump().await == before);
    job(&server, &issuer).get(&tenant.workspace("")).await.ok();
});

// Cost

both!(ten_thousand_rules_cost_one_look_up, async || {
    let (server, issuer, tenant) = scene().await;
    let service = tenant.service("viewer").await;
    let workload = job(&server, &issuer);
    of_repository(&tenant, &issuer, "viewer").await;
    workload.get(&tenant.workspace("")).await.ok();
    let (_, of_a_key) = server.costs(service.get(&tenant.workspace(""))).await;
    let rows = format!(
        "$ID, uuid '{}', 'n', 'https://ci.example', 'a', '[{{\"claim\": \"sub\", \"equals\": \"a\"}}]', $HASH, $HASH, 'viewer', '[]', $ID, \
         i, $NOW",
        tenant.id
    );
    let columns = "id, workspace_id, name, issuer, audience, conditions, look_up, anchor, role, permissions, created_by_entity_id, \
                   position, created_at";
    insert_rows(&server, 1..=10_000, "trust_rules", columns, &rows).await;
    let (answer, cost) = server.costs(workload.get(&tenant.workspace(""))).await;
    answer.ok();
    assert_eq!(cost, of_a_key, "a workload costs what a key costs");
    let (answer, cost) = server.costs(workload.get("/v1/me")).await;
    answer.ok();
    assert_eq!((cost.reads, cost.statements), (1, 1));
});

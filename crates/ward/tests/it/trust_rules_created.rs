//! The creation of trust rules: refused conditions and values, authority, quotas and repeats.

use serde_json::{Value, json};
use ward_test::{Server, both, fresh_slug};

use crate::trust_rules::{MAIN, begins, is, members, path, rule, scene, trust, with};

both!(conditions_on_mutable_claims_alone_are_refused, async || {
    let (_server, issuer, tenant) = scene().await;
    let url = issuer.url();
    let github = "`repository_id` or `repository_owner_id`";
    for (conditions, immutable) in [
        (json!([is("repository", "octo-org/app")]), github),
        (
            json!([
                is("repository_owner", "octo-org"),
                is("ref", MAIN),
                is("repository_visibility", "private")
            ]),
            github,
        ),
        (json!([is("sub", "repo:octo-org/app:ref:refs/heads/main")]), github),
        (json!([is("sub", "repo:octo-org/app:ref:refs/heads/main"), is("actor", "octocat")]), github),
        (json!([begins("repository_id", "7423")]), github),
        (
            json!([is("job_workflow_ref", "octo-org/app/.github/workflows/deploy.yml@refs/heads/main")]),
            github,
        ),
        (json!([is("sub", "system:serviceaccount:prod:deployer")]), "`/kubernetes.io/serviceaccount/uid`"),
        (
            json!([
                is("/kubernetes.io/namespace", "prod"),
                is("/kubernetes.io/serviceaccount/name", "deployer")
            ]),
            "`/kubernetes.io/serviceaccount/uid`",
        ),
        (
            json!([is("sub", "project_path:octo/app:ref_type:branch:ref:main")]),
            "`project_id` or `namespace_id`",
        ),
        (json!([begins("sub", "spiffe://prod.example/ns/payments/")]), "`sub`"),
        (json!([is("email", "ci@octo.example"), is("groups", "admins")]), "`sub`"),
        (json!([is("ref", MAIN)]), "`sub`"),
    ] {
        let refused = tenant.post("/trust-rules", rule(url, conditions.clone(), "viewer")).await;
        let problems = refused.problems();
        let [(at, message)] = problems.as_slice() else { panic!("{conditions}: {problems:?}") };
        assert_eq!(at, "body.conditions");
        assert!(message.contains(&format!("Add `equals` for {immutable}:")), "{conditions}: {message}");
    }
    // The issuer of GitHub is known by its address, whatever the subject looks like.
    for known in ["https://token.actions.githubusercontent.com", "https://ghes.example/_services/token"] {
        let refused = tenant.post("/trust-rules", rule(known, json!([is("sub", "any")]), "viewer")).await;
        assert!(refused.problems()[0].1.contains(github), "{}", refused.text);
    }
    assert_eq!(tenant.get("/trust-rules").await.ok()["total"], 0);
});

both!(each_wrong_value_of_a_rule_is_named, async || {
    let (_server, issuer, tenant) = scene().await;
    let sub = || json!([is("sub", "a")]);
    let good = rule(issuer.url(), sub(), "viewer");
    for (more, at) in [
        (json!({ "issuer": "ftp://id.example" }), "body.issuer"),
        (json!({ "issuer": "https://id.example?x" }), "body.issuer"),
        (json!({ "issuer": "https://a@id.example" }), "body.issuer"),
        (json!({ "issuer": "" }), "body.issuer"),
        (json!({ "audience": "" }), "body.audience"),
        (json!({ "audience": " ward\n" }), "body.audience"),
        (json!({ "audience": "wa\u{200b}rd" }), "body.audience"),
        (json!({ "name": " " }), "body.name"),
        (json!({ "role": "owner" }), "body.role"),
        (json!({ "role": "king" }), "body.role"),
        (json!({ "permissions": ["Audit.view"] }), "body.permissions.0"),
        (json!({ "permissions": ["Call.sing"] }), "body.permissions.0"),
        (json!({ "expires_at": "soon" }), "body.expires_at"),
        (json!({ "conditions": [] }), "body.conditions"),
        (json!({ "conditions": vec![is("sub", "a"); 17] }), "body.conditions"),
        (json!({ "conditions": [is("sub", "a"), begins("/sub", "a")] }), "body.conditions"),
        (json!({ "conditions": [{ "claim": "sub" }] }), "body.conditions.0"),
        (
            json!({ "conditions": [{ "claim": "sub", "equals": "a", "starts_with": "a" }] }),
            "body.conditions.0",
        ),
        (json!({ "conditions": [is("sub", "a"), is("aud", "a")] }), "body.conditions.1.claim"),
        (json!({ "conditions": [is("sub", "a"), is("/", "a")] }), "body.conditions.1.claim"),
        (json!({ "conditions": [is("sub", "a"), is("/a//b", "a")] }), "body.conditions.1.claim"),
        (json!({ "conditions": [is("sub", "a"), is("ref ", "a")] }), "body.conditions.1.claim"),
        (json!({ "conditions": [is("sub", " a")] }), "body.conditions.0.equals"),
        (json!({ "conditions": [is("sub", "a\u{200b}")] }), "body.conditions.0.equals"),
    ] {
        let refused = tenant.post("/trust-rules", with(&good, more.clone())).await;
        assert_eq!(refused.problem_locs(), [at], "{more}: {}", refused.text);
    }
    trust(&tenant, good).await;
});

both!(issuers_of_the_operator_and_issuers_without_tls_are_refused, async || {
    let (server, issuer) = Server::with_issuer().await;
    let tenant = server.tenant("acme").await;
    let sub = || json!([is("sub", "a")]);
    tenant
        .post("/trust-rules", rule(issuer.url(), sub(), "viewer"))
        .await
        .refused_as(422, "issuer_configured");
    tenant
        .post("/trust-rules", rule("http://id.example", sub(), "viewer"))
        .await
        .refused_as(422, "issuer_without_tls");
    trust(&tenant, rule("https://id.example", sub(), "viewer")).await;
});

both!(a_rule_gives_no_more_than_its_creator_has, async || {
    let (server, issuer, tenant) = scene().await;
    let rules = tenant.path("/trust-rules");
    let request = |role: &str, permissions: Value| {
        with(
            &rule(issuer.url(), json!([is("sub", &fresh_slug())]), role),
            json!({ "permissions": permissions }),
        )
    };
    let narrow = json!({ "duration_days": 9, "role": "admin", "permissions": ["ApiKey.create", "ApiKey.delete", "Call.view"] });
    let (narrow, _) = tenant.key(narrow).await;
    tenant
        .service("operator")
        .await
        .post(&rules, request("viewer", json!([])))
        .await
        .refused_as(403, "forbidden");
    for (role, permissions) in [("viewer", json!([])), ("admin", json!([])), ("admin", json!(["Audit.view"]))]
    {
        narrow.post(&rules, request(role, permissions)).await.refused_as(403, "beyond_caller");
    }
    let own = narrow.post(&rules, request("member", json!(["Call.view"]))).await.created();
    assert_eq!(own["permissions"], json!(["Call.view"]));
    let wide = tenant.service("admin").await.post(&rules, request("admin", json!([]))).await.created();
    narrow.delete(&path(&tenant, &wide)).await.refused_as(403, "beyond_caller");
    narrow.delete(&path(&tenant, &own)).await.no_content();
    // A rule of another workspace is none of this one.
    let elsewhere = server.tenant("other").await;
    elsewhere.owner.get(&path(&elsewhere, &wide)).await.refused_as(404, "trust_rule_not_found");
    elsewhere.owner.delete(&path(&elsewhere, &wide)).await.refused_as(404, "trust_rule_not_found");
});

both!(rules_are_counted_bounded_and_made_once, async || {
    let (server, issuer, tenant) = scene().await;
    let request = rule(issuer.url(), json!([is("sub", "a")]), "viewer");
    let once = "a-key-that-is-long-enough";
    let made = tenant.post_once("/trust-rules", once, request.clone()).await.created();
    assert_eq!(tenant.post_once("/trust-rules", once, request.clone()).await.created(), made);
    assert_eq!(members(&tenant).await, 2);
    for _ in 0..19 {
        trust(&tenant, request.clone()).await;
    }
    tenant.post("/trust-rules", request.clone()).await.refused_as(409, "too_many_trust_rules");
    assert_eq!(
        (members(&tenant).await, tenant.get("/trust-rules").await.ok()["total"].clone()),
        (21, json!(20))
    );
    // Another workspace has rules of its own for the same claim.
    trust(&server.tenant("other").await, request).await;
});

both!(rules_count_as_members_in_the_quota, async || {
    let server = Server::with(|config| config.quotas.set(ward::quotas::Quota::Members, 2)).await;
    let tenant = server.tenant("acme").await;
    let request = |value: &str| rule("https://id.example", json!([is("sub", value)]), "viewer");
    let made = trust(&tenant, request("a")).await;
    tenant.post("/trust-rules", request("b")).await.refused_as(409, "quota_exceeded");
    tenant.owner.delete(&path(&tenant, &made)).await.no_content();
    trust(&tenant, request("b")).await;
});

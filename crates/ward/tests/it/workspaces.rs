//! The nine given operations, as their callers see them.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward::config::Bootstrap;
use ward_test::{Fields as _, Sending, Server, Tenant, both, fresh_slug, new_workspace};

use crate::calls::connect;
use crate::support::{insert_rows, pages};

const HOUR: Duration = Duration::from_hours(1);

both!(a_new_workspace_is_what_was_asked_for, async || {
    let server = Server::start().await;
    let asked = json!({
        "slug": "acme-health", "name": "  Acme Health ", "environment": "staging", "region": "eu-central-1",
        "backend_org_id": " org_1 "
    });
    let created = server.anonymous().post("/v1/workspaces", asked).await.created();
    assert_eq!(created["name"], "Acme Health");
    assert_eq!(created["backend_org_id"], "org_1");
    assert_eq!(created["created_at"], created["updated_at"]);
    insta::assert_json_snapshot!(created, {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]"
    }, @r#"
    {
      "id": "[id]",
      "slug": "acme-health",
      "name": "Acme Health",
      "environment": "staging",
      "backend_org_id": "org_1",
      "region": "eu-central-1",
      "connector_type": null,
      "provisioned_at": null,
      "created_at": "[time]",
      "updated_at": "[time]"
    }
    "#);
});

both!(bootstrap_ignores_any_bearer, async || {
    let server = Server::start().await;
    for bearer in
        ["", "nonsense", "ward_0000000000000000000000000000000000000000000000000000000000000000000000"]
    {
        server.bearing(bearer).create_workspace(&fresh_slug()).await;
    }
});

both!(a_slug_is_taken_for_ever_once_claimed, async || {
    let (server, tenant) = Server::with_tenant().await;
    server.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused_as(409, "slug_taken");
    tenant.owner.post("/v1/me/workspaces", new_workspace("acme")).await.refused_as(409, "slug_taken");
    tenant.owner.post(&tenant.workspace("/archive"), json!({ "slug": "acme" })).await.ok();
    server.clock.advance(1000 * HOUR);
    server.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused_as(409, "slug_taken");
});

both!(an_unclaimed_workspace_lapses_and_frees_its_slug, async || {
    let server = Server::start().await;
    let first = server.anonymous().create_workspace("acme").await;
    server.clock.advance(23 * HOUR);
    server.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused_as(409, "slug_taken");
    server.clock.advance(2 * HOUR);
    let second = server.anonymous().create_workspace("acme").await;
    assert_ne!(first["id"], second["id"]);

    let claim = |id: &Value| format!("/v1/{}/api-keys", id.as_str().unwrap());
    let body = json!({ "duration_days": 1 });
    server.anonymous().post(&claim(&first["id"]), body.clone()).await.refused_as(401, "unauthorized");
    server.anonymous().post(&claim(&second["id"]), body).await.created();
});

both!(sweeping_lapses_what_is_due, async || {
    let server = Server::start().await;
    let created = server.anonymous().create_workspace("acme").await;
    server.app.sweep().await;
    server.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused_as(409, "slug_taken");
    server.clock.advance(25 * HOUR);
    server.app.sweep().await;
    let found = ward::operator::show_workspace(&server.app, created.text("id")).await.unwrap();
    assert_eq!(found.state.name(), "lapsed");
    server.anonymous().create_workspace("acme").await;
});

both!(one_sweep_does_all_that_is_due_however_much_it_is, async || {
    let (server, tenant) = Server::with_tenant().await;
    let long_ago = "timestamptz '2020-04-18T12:00:00.123456Z'";
    let values = format!("'old-' || i, $BYTES, 201, false, {long_ago}");
    let columns = "scope, request, status, sealed, created_at";
    insert_rows(&server, 1..=1_200, "idempotency", columns, &values).await;
    let mint = json!({ "duration_days": 1 });
    tenant.post_once("/api-keys", "sixteen-or-more-characters", mint).await.created();
    server.clock.advance(Duration::from_mins(11));
    server.app.sweep().await;
    assert_eq!(server.count("SELECT count(*) FROM idempotency").await, 1);
    let at_rest = "SELECT count(*) FROM idempotency WHERE body IS NOT NULL OR former_secret IS NOT NULL";
    assert_eq!(server.count(at_rest).await, 0, "a secret is kept ten minutes");
});

both!(the_operator_finds_a_workspace_whose_slug_looks_like_an_id, async || {
    let server = Server::start().await;
    let slug = "a2c4e6a8-0000-4000-8000-00000000abcd";
    let created = server.anonymous().create_workspace(slug).await;
    for name in [slug, created.text("id")] {
        assert_eq!(ward::operator::show_workspace(&server.app, name).await.unwrap().workspace.slug, slug);
    }
});

both!(concurrent_creations_do_not_wait_for_one_counter, async || {
    let server = Server::start().await;
    for _ in 0..48 {
        server.anonymous().create_workspace(&fresh_slug()).await;
    }
    let rows = server.count("SELECT count(*) FROM bootstrap_slots WHERE used > 0").await;
    assert!(rows >= 8, "all are counted in {rows} of 16 rows");
});

both!(only_so_many_are_unclaimed_at_once, async || {
    let server = Server::with(|config| config.unclaimed_limit = 3).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(server.anonymous().create_workspace(&fresh_slug()).await);
    }
    let refused = server.anonymous().post("/v1/workspaces", new_workspace("one-more")).await;
    assert_eq!(refused.header("retry-after"), "60");
    refused.refused_as(503, "too_many_unclaimed");

    let id = made[0].text("id");
    server.anonymous().post(&format!("/v1/{id}/api-keys"), json!({ "duration_days": 1 })).await.created();
    server.anonymous().create_workspace("one-more").await;
    server
        .anonymous()
        .post("/v1/workspaces", new_workspace("another"))
        .await
        .refused_as(503, "too_many_unclaimed");

    server.clock.advance(25 * HOUR);
    server.anonymous().create_workspace("another").await;
});

both!(the_operator_may_close_bootstrap_or_ask_for_a_token, async || {
    let closed = Server::with(|config| config.bootstrap = Bootstrap::Closed).await;
    closed
        .anonymous()
        .post("/v1/workspaces", new_workspace("acme"))
        .await
        .refused_as(403, "bootstrap_closed");

    let guarded =
        Server::with(|config| config.bootstrap = Bootstrap::Token("let-me-in".to_owned().into())).await;
    guarded.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused_as(401, "unauthorized");
    guarded
        .bearing("wrong")
        .post("/v1/workspaces", new_workspace("acme"))
        .await
        .refused_as(401, "unauthorized");
    guarded.bearing("let-me-in").create_workspace("acme").await;
    // The scheme is case-insensitive (RFC 9110, section 11.1).
    let headers = [("authorization", "bearer let-me-in")];
    let sending = Sending { headers: &headers, ..Sending::json(&new_workspace("other")) };
    guarded.anonymous().send(Method::POST, "/v1/workspaces", sending).await.created();
});

both!(self_service_makes_the_user_an_owner, async || {
    let server = Server::start().await;
    let tenant = server.tenant("first").await;
    for (path, slug) in [("/v1/workspaces/self-service", "second"), ("/v1/me/workspaces", "third")] {
        let made = tenant.owner.post(path, new_workspace(slug)).await.created();
        let id = made.text("id");
        assert_eq!(tenant.owner.get(&format!("/v1/workspaces/{id}")).await.ok(), made);
        tenant.owner.patch(&format!("/v1/workspaces/{id}"), json!({ "name": "Mine" })).await.ok();
    }
    assert_eq!(slugs(&tenant, "").await, ["first", "second", "third"]);
    let service = tenant.service("admin").await;
    service
        .post("/v1/workspaces/self-service", new_workspace("fourth"))
        .await
        .refused_as(403, "unsupported_principal");
    server.anonymous().create_workspace("fourth").await;
});

async fn slugs(tenant: &Tenant, query: &str) -> Vec<String> {
    let listed = tenant.owner.get(&format!("/v1/workspaces{query}")).await.ok();
    let items = listed.list("items");
    items.iter().map(|item| item.text("slug").to_owned()).collect()
}

both!(a_list_is_paged_without_gap_or_repeat, async || {
    let server = Server::start().await;
    let tenant = server.tenant("w-0").await;
    for index in 1..25 {
        tenant.owner.post("/v1/me/workspaces", new_workspace(&format!("w-{index}"))).await.created();
    }
    let mut seen = Vec::new();
    let mut token = 0;
    loop {
        let page = tenant.owner.get(&format!("/v1/workspaces?limit=7&continuation_token={token}")).await.ok();
        assert_eq!(page["total"], 25);
        seen.extend(page.list("items").iter().map(|item| item.text("slug").to_owned()));
        if page["has_more"] == false {
            assert_eq!(page["continuation_token"], Value::Null);
            break;
        }
        token = page["continuation_token"].as_i64().unwrap();
        assert!(token < 1 << 53);
        // An entry created while a client pages comes at the end, once.
        if seen.len() == 7 {
            tenant.owner.post("/v1/me/workspaces", new_workspace("late")).await.created();
            break;
        }
    }
    seen.extend(slugs(&tenant, &format!("?limit=20&continuation_token={token}")).await);
    let expected: Vec<String> =
        (0..25).map(|index| format!("w-{index}")).chain(["late".to_owned()]).collect();
    assert_eq!(seen, expected);
    assert_eq!(slugs(&tenant, "").await.len(), 10);
});

both!(tokens_outside_the_list_are_its_ends, async || {
    let (_server, tenant) = Server::with_tenant().await;
    for token in ["-5", "-99999999999999999999999999", "0"] {
        assert_eq!(slugs(&tenant, &format!("?continuation_token={token}")).await, ["acme"], "{token}");
    }
    for token in ["9007199254740991", "9223372036854775807", "99999999999999999999999999"] {
        let page = tenant.owner.get(&format!("/v1/workspaces?continuation_token={token}")).await.ok();
        assert_eq!(page["items"], json!([]), "{token}");
        assert_eq!(page["has_more"], false);
    }
});

both!(an_archived_workspace_is_gone_but_kept, async || {
    let server = Server::start().await;
    let tenant = server.tenant("first").await;
    let made = tenant.owner.post("/v1/me/workspaces", new_workspace("second")).await.created();
    let id = made.text("id");
    let path = format!("/v1/workspaces/{id}/archive");

    let wrong =
        tenant.owner.post(&path, json!({ "slug": "first" })).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    insta::assert_json_snapshot!(wrong, @r#"
    {
      "detail": [
        {
          "type": "value_error",
          "loc": [
            "body",
            "slug"
          ],
          "msg": "Value error, Workspace slug confirmation did not match",
          "input": "first",
          "ctx": {
            "error": {}
          }
        }
      ]
    }
    "#);
    let archived = tenant.owner.post(&path, json!({ "slug": "second" })).await.ok();
    assert_eq!(archived["slug"], "second");
    assert!(archived["updated_at"].as_str() > made["updated_at"].as_str());
    tenant.owner.get(&format!("/v1/workspaces/{id}")).await.refused_as(404, "workspace_not_found");
    assert_eq!(slugs(&tenant, "").await, ["first"]);

    let minted = tenant.service("viewer").await;
    tenant.owner.post(&tenant.workspace("/archive"), json!({ "slug": "first" })).await.ok();
    for actor in [&tenant.owner, &minted] {
        actor.get("/v1/workspaces").await.refused_as(401, "unauthorized");
    }

    ward::operator::restore_workspace(&server.app, "first").await.unwrap();
    server.app.sweep().await;
    assert_eq!(slugs(&tenant, "").await, ["first"]);
    minted.get(&tenant.workspace("")).await.ok();
    assert!(ward::operator::restore_workspace(&server.app, "first").await.is_err());
    ward::operator::restore_workspace(&server.app, id).await.unwrap();
    server.app.sweep().await;
    assert_eq!(slugs(&tenant, "").await, ["first", "second"]);
});

both!(a_patch_changes_what_it_names_and_nothing_else, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.workspace("");
    let before = tenant.owner.get(&path).await.ok();

    for nothing in [
        json!({}),
        json!({ "name": null, "environment": null, "region": null }),
        json!({ "connector_type": null }),
        json!({ "slug": "other", "id": "mine" }),
        json!({ "name": before["name"], "region": "us-east-1" }),
    ] {
        let after = tenant.owner.patch(&path, nothing.clone()).await.ok();
        assert_eq!(after, before, "{nothing}");
    }
    assert!(!tenant.actions().await.contains(&"workspace.update".to_owned()));

    let change = json!({ "name": " New ", "region": "ca-central-1", "connector_type": "epic" });
    let after = tenant.owner.patch(&path, change).await.ok();
    assert_eq!(after["name"], "New");
    assert_eq!(after["region"], "ca-central-1");
    assert_eq!(after["environment"], before["environment"]);
    assert_eq!(after["connector_type"], "epic");
    assert_eq!(after["created_at"], before["created_at"]);
    assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
    let cleared = tenant.owner.patch(&path, json!({ "connector_type": null })).await.ok();
    assert_eq!(cleared["connector_type"], Value::Null);

    let audit = tenant.audit().await;
    assert_eq!(audit[0]["metadata"]["changes"], json!({ "connector_type": { "from": "epic", "to": null } }));
    assert_eq!(audit[1]["metadata"]["changes"]["name"], json!({ "from": before["name"], "to": "New" }));
});

both!(updated_at_grows_when_the_clock_does_not, async || {
    let (server, tenant) = Server::with_tenant().await;
    server.clock.advance(HOUR);
    let path = tenant.workspace("");
    let ahead = tenant.owner.patch(&path, json!({ "name": "A" })).await.ok();
    server.clock.set_back(HOUR);
    let behind = tenant.owner.patch(&path, json!({ "name": "B" })).await.ok();
    assert!(behind["updated_at"].as_str() > ahead["updated_at"].as_str());
});

both!(provisioning_seeds_once_and_marks_once, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let provision = tenant.workspace("/provision");
    let first = tenant.owner.post(&provision, json!({})).await.ok()["workspace"].clone();
    assert!(first["provisioned_at"].is_string());
    let integrations = tenant.path("/integrations");
    let none = tenant.owner.get(&integrations).await.ok();
    assert_eq!(none["items"], json!([]));

    tenant.owner.patch(&tenant.workspace(""), json!({ "connector_type": "epic" })).await.ok();
    for _ in 0..3 {
        let again = tenant.owner.post(&provision, json!({})).await.ok()["workspace"].clone();
        assert_eq!(again["provisioned_at"], first["provisioned_at"]);
    }
    let listed = tenant.owner.get(&integrations).await.ok();
    let row = &listed["items"][0];
    assert_eq!(
        json!([
            listed["total"],
            row["name"],
            row["protocol"],
            row["enabled"],
            row["builtin"],
            row["base_url"]
        ]),
        json!([1, "epic", "fhir", false, true, "https://{host}/{instance}/api/FHIR/R4"])
    );
    let provisions =
        tenant.actions().await.into_iter().filter(|action| action == "workspace.provision").count();
    assert_eq!(provisions, 2, "once for the mark, once for the seed");
});

both!(every_connector_can_be_provisioned_and_listed, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let connectors = [
        "revolution",
        "epic",
        "cerner",
        "allscripts",
        "fhir_store",
        "hubspot",
        "athenahealth",
        "charmhealth",
        "eclinicalworks",
        "meditab",
    ];
    for connector in connectors {
        connect(&tenant, connector).await;
    }
    let names = |query: &'static str| {
        let tenant = &tenant;
        async move {
            let listed = tenant.get(&format!("/integrations?limit=20{query}")).await.ok();
            let items = listed.list("items").clone();
            items.iter().map(|item| item.text("name").to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(names("").await, connectors);
    assert_eq!(names("&protocol=rest").await, ["hubspot", "athenahealth"]);
    assert_eq!(names("&search=HEALTH").await, ["cerner", "athenahealth", "charmhealth"]);
    assert_eq!(names("&enabled=true").await, Vec::<String>::new());
    let mut sorted = connectors.to_vec();
    sorted.sort_unstable();
    assert_eq!(names("&sort_by=name").await, sorted);
    sorted.reverse();
    assert_eq!(names("&sort_by=-name").await, sorted);
    tenant.get("/integrations?sort_by=colour").await.expect(StatusCode::UNPROCESSABLE_ENTITY);

    let pages = pages(&tenant.owner, &tenant.path("/integrations?sort_by=name&limit=3")).await;
    let paged: Vec<&str> = pages.iter().flat_map(|page| page.texts("items", "name")).collect();
    sorted.reverse();
    assert_eq!(paged, sorted);
});

both!(test_callers_are_kept_in_order_and_in_one_form, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.workspace("/test-caller-numbers");
    assert_eq!(tenant.owner.get(&path).await.ok(), json!({ "numbers": [] }));

    let sent = json!({ "numbers": [" +1 (555) 010-0002 ", "+15550100001", "+1.555.010.0002"] });
    let stored = tenant.owner.put(&path, sent).await.ok();
    assert_eq!(stored, json!({ "numbers": ["+15550100002", "+15550100001"] }));
    assert_eq!(tenant.owner.get(&path).await.ok(), stored);

    let mixed = json!({ "numbers": ["+15550100001", "5550100001", 7, "tel:+15550100001"] });
    let refused = tenant.owner.put(&path, mixed).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    let locs: Vec<&Value> = refused.list("detail").iter().map(|problem| &problem["loc"][2]).collect();
    assert_eq!(locs, [1, 2, 3], "value rules stand among schema problems, in order");
    assert_eq!(tenant.owner.get(&path).await.ok(), stored);

    // Twenty numbers are counted as sent, before duplicates are removed.
    let same = |count: usize| json!({ "numbers": vec!["+15550100001"; count] });
    assert_eq!(tenant.owner.put(&path, same(20)).await.ok(), json!({ "numbers": ["+15550100001"] }));
    tenant.owner.put(&path, same(21)).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    let audit = tenant.audit().await;
    assert_eq!(
        audit[0]["metadata"]["changes"]["numbers"],
        json!({ "from": ["+15550100002", "+15550100001"], "to": ["+15550100001"] })
    );
});

both!(text_that_could_do_harm_is_kept_as_text_or_refused, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.workspace("");
    for name in [
        "'; DROP TABLE workspaces; --",
        "<script>alert(1)</script>",
        "\u{1f3e5} Клиника 診所",
        "a\\u0000b",
        "%00%s{}",
    ] {
        let after = tenant.owner.patch(&path, json!({ "name": name })).await.ok();
        assert_eq!(after["name"], name);
    }
    let refused = tenant.owner.patch(&path, json!({ "name": "nul\u{0}" })).await;
    let refused = refused.expect(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused["detail"][0]["type"], "value_error");
});

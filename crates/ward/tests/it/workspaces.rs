//! The nine given operations, as their callers see them.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward::config::Bootstrap;
use ward_test::{Engine, Sending, Server, Tenant, both, fresh_slug, new_workspace};

const HOUR: Duration = Duration::from_hours(1);

both!(a_new_workspace_is_what_was_asked_for);
async fn a_new_workspace_is_what_was_asked_for() {
    let server = Server::start().await;
    let asked = json!({
        "slug": "acme-health", "name": "  Acme Health ", "environment": "staging", "region": "eu-central-1",
        "backend_org_id": " org_1 "
    });
    let created = server.anonymous().post("/v1/workspaces", asked).await.expect(StatusCode::CREATED);
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
}

both!(bootstrap_ignores_any_bearer);
async fn bootstrap_ignores_any_bearer() {
    let server = Server::start().await;
    for bearer in
        ["", "nonsense", "ward_0000000000000000000000000000000000000000000000000000000000000000000000"]
    {
        server.bearing(bearer).create_workspace(&fresh_slug()).await;
    }
}

both!(a_slug_is_taken_for_ever_once_claimed);
async fn a_slug_is_taken_for_ever_once_claimed() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    assert_eq!(
        server.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused(409),
        "slug_taken"
    );
    assert_eq!(
        tenant.owner.post("/v1/me/workspaces", new_workspace("acme")).await.refused(409),
        "slug_taken"
    );
    tenant.owner.post(&tenant.workspace("/archive"), json!({ "slug": "acme" })).await.expect(StatusCode::OK);
    server.clock.advance(1000 * HOUR);
    assert_eq!(
        server.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused(409),
        "slug_taken"
    );
}

both!(an_unclaimed_workspace_lapses_and_frees_its_slug);
async fn an_unclaimed_workspace_lapses_and_frees_its_slug() {
    let server = Server::start().await;
    let first = server.anonymous().create_workspace("acme").await;
    server.clock.advance(23 * HOUR);
    assert_eq!(
        server.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused(409),
        "slug_taken"
    );
    server.clock.advance(2 * HOUR);
    let second = server.anonymous().create_workspace("acme").await;
    assert_ne!(first["id"], second["id"]);

    let claim = |id: &Value| format!("/v1/{}/api-keys", id.as_str().unwrap());
    let body = json!({ "duration_days": 1 });
    assert_eq!(
        server.anonymous().post(&claim(&first["id"]), body.clone()).await.refused(401),
        "unauthorized"
    );
    server.anonymous().post(&claim(&second["id"]), body).await.expect(StatusCode::CREATED);
}

both!(sweeping_lapses_what_is_due);
async fn sweeping_lapses_what_is_due() {
    let server = Server::start().await;
    let created = server.anonymous().create_workspace("acme").await;
    server.app.sweep().await;
    assert_eq!(
        server.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused(409),
        "slug_taken"
    );
    server.clock.advance(25 * HOUR);
    server.app.sweep().await;
    let found = ward::operator::show_workspace(&server.app, created["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(found.state.name(), "lapsed");
    server.anonymous().create_workspace("acme").await;
}

both!(one_sweep_does_all_that_is_due_however_much_it_is);
async fn one_sweep_does_all_that_is_due_however_much_it_is() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let long_ago = "timestamptz '2020-04-18T12:00:00.123456Z'";
    let bytes = if Engine::current() == Engine::Sqlite { "blob" } else { "bytea" };
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)";
    let rows = format!("SELECT 'old-' || i, CAST('' AS {bytes}), 201, false, {long_ago} FROM n");
    let columns = "INSERT INTO idempotency (scope, request, status, sealed, created_at)";
    let insert = match Engine::current() {
        Engine::Sqlite => format!("{columns} {numbers} {rows}"),
        Engine::Postgres => format!("{numbers} {columns} {rows}"),
    };
    assert_eq!(server.sql(insert).await, 1_200);
    let mint = json!({ "duration_days": 1 });
    let minted = tenant.owner.post_once(&tenant.path("/api-keys"), "sixteen-or-more-characters", mint).await;
    minted.expect(StatusCode::CREATED);
    server.clock.advance(Duration::from_mins(11));
    server.app.sweep().await;
    assert_eq!(server.count("SELECT count(*) FROM idempotency").await, 1);
    let at_rest = "SELECT count(*) FROM idempotency WHERE body IS NOT NULL OR former_secret IS NOT NULL";
    assert_eq!(server.count(at_rest).await, 0, "a secret is kept ten minutes");
}

both!(the_operator_finds_a_workspace_whose_slug_looks_like_an_id);
async fn the_operator_finds_a_workspace_whose_slug_looks_like_an_id() {
    let server = Server::start().await;
    let slug = "a2c4e6a8-0000-4000-8000-00000000abcd";
    let created = server.anonymous().create_workspace(slug).await;
    for name in [slug, created["id"].as_str().unwrap()] {
        let found = ward::operator::show_workspace(&server.app, name).await.unwrap();
        assert_eq!(found.workspace.slug, slug);
    }
}

both!(concurrent_creations_do_not_wait_for_one_counter);
async fn concurrent_creations_do_not_wait_for_one_counter() {
    let server = Server::start().await;
    for _ in 0..48 {
        server.anonymous().create_workspace(&fresh_slug()).await;
    }
    let rows = server.count("SELECT count(*) FROM bootstrap_slots WHERE used > 0").await;
    assert!(rows >= 8, "all are counted in {rows} of 16 rows");
}

both!(only_so_many_are_unclaimed_at_once);
async fn only_so_many_are_unclaimed_at_once() {
    let server = Server::with(|config| config.unclaimed_limit = 3).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(server.anonymous().create_workspace(&fresh_slug()).await);
    }
    let refused = server.anonymous().post("/v1/workspaces", new_workspace("one-more")).await;
    assert_eq!(refused.header("retry-after"), "60");
    assert_eq!(refused.refused(503), "too_many_unclaimed");

    let id = made[0]["id"].as_str().unwrap();
    let claim = server.anonymous().post(&format!("/v1/{id}/api-keys"), json!({ "duration_days": 1 })).await;
    claim.expect(StatusCode::CREATED);
    server.anonymous().create_workspace("one-more").await;
    assert_eq!(
        server.anonymous().post("/v1/workspaces", new_workspace("another")).await.refused(503),
        "too_many_unclaimed"
    );

    server.clock.advance(25 * HOUR);
    server.anonymous().create_workspace("another").await;
}

both!(the_operator_may_close_bootstrap_or_ask_for_a_token);
async fn the_operator_may_close_bootstrap_or_ask_for_a_token() {
    let closed = Server::with(|config| config.bootstrap = Bootstrap::Closed).await;
    assert_eq!(
        closed.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused(403),
        "bootstrap_closed"
    );

    let guarded =
        Server::with(|config| config.bootstrap = Bootstrap::Token("let-me-in".to_owned().into())).await;
    assert_eq!(
        guarded.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused(401),
        "unauthorized"
    );
    assert_eq!(
        guarded.bearing("wrong").post("/v1/workspaces", new_workspace("acme")).await.refused(401),
        "unauthorized"
    );
    guarded.bearing("let-me-in").create_workspace("acme").await;
    // The scheme is case-insensitive (RFC 9110, section 11.1).
    let headers = [("authorization", "bearer let-me-in")];
    let sending = Sending { headers: &headers, ..Sending::json(&new_workspace("other")) };
    let made = guarded.anonymous().send(Method::POST, "/v1/workspaces", sending).await;
    made.expect(StatusCode::CREATED);
}

both!(self_service_makes_the_user_an_owner);
async fn self_service_makes_the_user_an_owner() {
    let server = Server::start().await;
    let tenant = server.tenant("first").await;
    for (path, slug) in [("/v1/workspaces/self-service", "second"), ("/v1/me/workspaces", "third")] {
        let made = tenant.owner.post(path, new_workspace(slug)).await.expect(StatusCode::CREATED);
        let id = made["id"].as_str().unwrap();
        let read = tenant.owner.get(&format!("/v1/workspaces/{id}")).await.expect(StatusCode::OK);
        assert_eq!(read, made);
        tenant
            .owner
            .patch(&format!("/v1/workspaces/{id}"), json!({ "name": "Mine" }))
            .await
            .expect(StatusCode::OK);
    }
    assert_eq!(slugs(&tenant, "").await, ["first", "second", "third"]);
    let service = tenant.service("admin").await;
    let refused = service.post("/v1/workspaces/self-service", new_workspace("fourth")).await;
    assert_eq!(refused.refused(403), "unsupported_principal");
    server.anonymous().create_workspace("fourth").await;
}

async fn slugs(tenant: &Tenant, query: &str) -> Vec<String> {
    let listed = tenant.owner.get(&format!("/v1/workspaces{query}")).await.expect(StatusCode::OK);
    let items = listed["items"].as_array().unwrap();
    items.iter().map(|item| item["slug"].as_str().unwrap().to_owned()).collect()
}

both!(a_list_is_paged_without_gap_or_repeat);
async fn a_list_is_paged_without_gap_or_repeat() {
    let server = Server::start().await;
    let tenant = server.tenant("w-0").await;
    for index in 1..25 {
        tenant
            .owner
            .post("/v1/me/workspaces", new_workspace(&format!("w-{index}")))
            .await
            .expect(StatusCode::CREATED);
    }
    let mut seen = Vec::new();
    let mut token = 0;
    loop {
        let page = tenant.owner.get(&format!("/v1/workspaces?limit=7&continuation_token={token}")).await;
        let page = page.expect(StatusCode::OK);
        assert_eq!(page["total"], 25);
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap().to_owned()),
        );
        if page["has_more"] == false {
            assert_eq!(page["continuation_token"], Value::Null);
            break;
        }
        token = page["continuation_token"].as_i64().unwrap();
        assert!(token < 1 << 53);
        // An entry created while a client pages comes at the end, once.
        if seen.len() == 7 {
            tenant.owner.post("/v1/me/workspaces", new_workspace("late")).await.expect(StatusCode::CREATED);
            break;
        }
    }
    let rest = slugs(&tenant, &format!("?limit=20&continuation_token={token}")).await;
    seen.extend(rest);
    let expected: Vec<String> =
        (0..25).map(|index| format!("w-{index}")).chain(["late".to_owned()]).collect();
    assert_eq!(seen, expected);
    assert_eq!(slugs(&tenant, "").await.len(), 10);
}

both!(tokens_outside_the_list_are_its_ends);
async fn tokens_outside_the_list_are_its_ends() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    for token in ["-5", "-99999999999999999999999999", "0"] {
        assert_eq!(slugs(&tenant, &format!("?continuation_token={token}")).await, ["acme"], "{token}");
    }
    for token in ["9007199254740991", "9223372036854775807", "99999999999999999999999999"] {
        let page = tenant
            .owner
            .get(&format!("/v1/workspaces?continuation_token={token}"))
            .await
            .expect(StatusCode::OK);
        assert_eq!(page["items"], json!([]), "{token}");
        assert_eq!(page["has_more"], false);
    }
}

both!(an_archived_workspace_is_gone_but_kept);
async fn an_archived_workspace_is_gone_but_kept() {
    let server = Server::start().await;
    let tenant = server.tenant("first").await;
    let made =
        tenant.owner.post("/v1/me/workspaces", new_workspace("second")).await.expect(StatusCode::CREATED);
    let id = made["id"].as_str().unwrap();
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
    let archived = tenant.owner.post(&path, json!({ "slug": "second" })).await.expect(StatusCode::OK);
    assert_eq!(archived["slug"], "second");
    assert!(archived["updated_at"].as_str() > made["updated_at"].as_str());
    assert_eq!(tenant.owner.get(&format!("/v1/workspaces/{id}")).await.refused(404), "workspace_not_found");
    assert_eq!(slugs(&tenant, "").await, ["first"]);

    let minted = tenant.service("viewer").await;
    tenant.owner.post(&tenant.workspace("/archive"), json!({ "slug": "first" })).await.expect(StatusCode::OK);
    for actor in [&tenant.owner, &minted] {
        assert_eq!(actor.get("/v1/workspaces").await.refused(401), "unauthorized");
    }

    ward::operator::restore_workspace(&server.app, "first").await.unwrap();
    assert_eq!(slugs(&tenant, "").await, ["first"]);
    minted.get(&tenant.workspace("")).await.expect(StatusCode::OK);
    assert!(ward::operator::restore_workspace(&server.app, "first").await.is_err());
    ward::operator::restore_workspace(&server.app, id).await.unwrap();
    assert_eq!(slugs(&tenant, "").await, ["first", "second"]);
}

both!(a_patch_changes_what_it_names_and_nothing_else);
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let path = tenant.workspace("");
    let before = tenant.owner.get(&path).await.expect(StatusCode::OK);

    for nothing in [
        json!({}),
        json!({ "name": null, "environment": null, "region": null }),
        json!({ "connector_type": null }),
        json!({ "slug": "other", "id": "mine" }),
        json!({ "name": before["name"], "region": "us-east-1" }),
    ] {
        let after = tenant.owner.patch(&path, nothing.clone()).await.expect(StatusCode::OK);
        assert_eq!(after, before, "{nothing}");
    }
    assert!(!tenant.actions().await.contains(&"workspace.update".to_owned()));

    let change = json!({ "name": " New ", "region": "ca-central-1", "connector_type": "epic" });
    let after = tenant.owner.patch(&path, change).await.expect(StatusCode::OK);
    assert_eq!(after["name"], "New");
    assert_eq!(after["region"], "ca-central-1");
    assert_eq!(after["environment"], before["environment"]);
    assert_eq!(after["connector_type"], "epic");
    assert_eq!(after["created_at"], before["created_at"]);
    assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
    let cleared = tenant.owner.patch(&path, json!({ "connector_type": null })).await.expect(StatusCode::OK);
    assert_eq!(cleared["connector_type"], Value::Null);

    let audit = tenant.audit().await;
    assert_eq!(audit[0]["metadata"]["changes"], json!({ "connector_type": { "from": "epic", "to": null } }));
    assert_eq!(audit[1]["metadata"]["changes"]["name"], json!({ "from": before["name"], "to": "New" }));
}

both!(updated_at_grows_when_the_clock_does_not);
async fn updated_at_grows_when_the_clock_does_not() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    server.clock.advance(HOUR);
    let path = tenant.workspace("");
    let ahead = tenant.owner.patch(&path, json!({ "name": "A" })).await.expect(StatusCode::OK);
    server.clock.set_back(HOUR);
    let behind = tenant.owner.patch(&path, json!({ "name": "B" })).await.expect(StatusCode::OK);
    assert!(behind["updated_at"].as_str() > ahead["updated_at"].as_str());
}

both!(provisioning_seeds_once_and_marks_once);
async fn provisioning_seeds_once_and_marks_once() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let provision = tenant.workspace("/provision");
    let first = tenant.owner.post(&provision, json!({})).await.expect(StatusCode::OK)["workspace"].clone();
    assert!(first["provisioned_at"].is_string());
    let integrations = tenant.path("/integrations");
    let none = tenant.owner.get(&integrations).await.expect(StatusCode::OK);
    assert_eq!(none["items"], json!([]));

    tenant
        .owner
        .patch(&tenant.workspace(""), json!({ "connector_type": "epic" }))
        .await
        .expect(StatusCode::OK);
    for _ in 0..3 {
        let again =
            tenant.owner.post(&provision, json!({})).await.expect(StatusCode::OK)["workspace"].clone();
        assert_eq!(again["provisioned_at"], first["provisioned_at"]);
    }
    let listed = tenant.owner.get(&integrations).await.expect(StatusCode::OK);
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
}

both!(every_connector_can_be_provisioned_and_listed);
async fn every_connector_can_be_provisioned_and_listed() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
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
        tenant
            .owner
            .patch(&tenant.workspace(""), json!({ "connector_type": connector }))
            .await
            .expect(StatusCode::OK);
        tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.expect(StatusCode::OK);
    }
    let names = |query: &'static str| {
        let tenant = &tenant;
        async move {
            let listed = tenant.owner.get(&tenant.path(&format!("/integrations?limit=20{query}"))).await;
            let listed = listed.expect(StatusCode::OK);
            let items = listed["items"].as_array().unwrap().clone();
            items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
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
    tenant
        .owner
        .get(&tenant.path("/integrations?sort_by=colour"))
        .await
        .expect(StatusCode::UNPROCESSABLE_ENTITY);

    let mut paged = Vec::new();
    let mut token = 0;
    while paged.len() < 10 {
        let path = tenant.path(&format!("/integrations?sort_by=name&limit=3&continuation_token={token}"));
        let page = tenant.owner.get(&path).await.expect(StatusCode::OK);
        let items = page["items"].as_array().unwrap();
        paged.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        token = page["continuation_token"].as_i64().unwrap_or_default();
    }
    sorted.reverse();
    assert_eq!(paged, sorted);
}

both!(test_callers_are_kept_in_order_and_in_one_form);
async fn test_callers_are_kept_in_order_and_in_one_form() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let path = tenant.workspace("/test-caller-numbers");
    assert_eq!(tenant.owner.get(&path).await.expect(StatusCode::OK), json!({ "numbers": [] }));

    let sent = json!({ "numbers": [" +1 (555) 010-0002 ", "+15550100001", "+1.555.010.0002"] });
    let stored = tenant.owner.put(&path, sent).await.expect(StatusCode::OK);
    assert_eq!(stored, json!({ "numbers": ["+15550100002", "+15550100001"] }));
    assert_eq!(tenant.owner.get(&path).await.expect(StatusCode::OK), stored);

    let mixed = json!({ "numbers": ["+15550100001", "5550100001", 7, "tel:+15550100001"] });
    let refused = tenant.owner.put(&path, mixed).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    let locs: Vec<&Value> =
        refused["detail"].as_array().unwrap().iter().map(|problem| &problem["loc"][2]).collect();
    assert_eq!(locs, [1, 2, 3], "value rules stand among schema problems, in order");
    assert_eq!(tenant.owner.get(&path).await.expect(StatusCode::OK), stored);

    // Twenty numbers are counted as sent, before duplicates are removed.
    let same = |count: usize| json!({ "numbers": vec!["+15550100001"; count] });
    assert_eq!(
        tenant.owner.put(&path, same(20)).await.expect(StatusCode::OK),
        json!({ "numbers": ["+15550100001"] })
    );
    tenant.owner.put(&path, same(21)).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    let audit = tenant.audit().await;
    assert_eq!(
        audit[0]["metadata"]["changes"]["numbers"],
        json!({ "from": ["+15550100002", "+15550100001"], "to": ["+15550100001"] })
    );
}

both!(text_that_could_do_harm_is_kept_as_text_or_refused);
async fn text_that_could_do_harm_is_kept_as_text_or_refused() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let path = tenant.workspace("");
    for name in [
        "'; DROP TABLE workspaces; --",
        "<script>alert(1)</script>",
        "\u{1f3e5} Клиника 診所",
        "a\\u0000b",
        "%00%s{}",
    ] {
        let after = tenant.owner.patch(&path, json!({ "name": name })).await.expect(StatusCode::OK);
        assert_eq!(after["name"], name);
    }
    let refused = tenant.owner.patch(&path, json!({ "name": "nul\u{0}" })).await;
    let refused = refused.expect(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused["detail"][0]["type"], "value_error");
}

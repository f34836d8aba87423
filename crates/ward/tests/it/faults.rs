//! Faults of the machine: the answers that clients get meanwhile, and service afterwards.

use reqwest::StatusCode;
use serde_json::json;
use ward_db::Options;
use ward_test::{Server, both, fresh_slug, new_workspace, sqlite_only};

sqlite_only!(on_a_full_disk_writes_wait_and_reads_go_on, async || {
    let options = Options { flush: false, max_page_count: Some(120), ..Options::default() };
    let server = Server::on(|_| {}, options).await;
    let tenant = server.tenant("acme").await;
    let mut made = vec!["acme".to_owned()];
    let refused = loop {
        let slug = fresh_slug();
        let answer = tenant.owner.post("/v1/me/workspaces", new_workspace(&slug)).await;
        if answer.status != StatusCode::CREATED {
            break answer;
        }
        made.push(slug);
        assert!(made.len() < 2_000, "the disk never fills");
    };
    assert_eq!(refused.header("retry-after"), "1");
    refused.refused_as(503, "unavailable");

    let listed = tenant.owner.get("/v1/workspaces?limit=20").await.ok();
    assert_eq!(listed["total"], made.len(), "every acknowledged workspace, and no refused one");
    server.anonymous().get("/readyz").await.ok();
});

both!(a_closed_database_is_503_and_not_ready, async || {
    let (server, tenant) = Server::with_tenant().await;
    server.app.db.close();
    tenant.owner.get(&tenant.workspace("")).await.refused_as(503, "unavailable");
    tenant.owner.patch(&tenant.workspace(""), json!({ "name": "New" })).await.refused_as(503, "unavailable");
    server.anonymous().get("/readyz").await.refused_as(503, "not_ready");
    server.anonymous().get("/healthz").await.ok();
});

both!(a_panic_is_a_500_without_details_and_the_server_keeps_running, async || {
    let (server, tenant) = Server::with_tenant().await;
    let outcome = server
        .app
        .db
        .write("test.panic", |_| -> Result<(), ward::error::ApiError> { panic!("a secret detail") })
        .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!String::from_utf8(error.body("id")).unwrap().contains("secret"));
    tenant.owner.patch(&tenant.workspace(""), json!({ "name": "New" })).await.ok();
});

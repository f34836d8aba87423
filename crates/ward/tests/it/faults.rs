//! What a client is told when the machine fails, and that it goes on when the machine does.

use reqwest::StatusCode;
use serde_json::json;
use ward_db::Options;
use ward_test::{Server, both, fresh_slug, new_workspace, sqlite_only};

sqlite_only!(on_a_full_disk_writes_wait_and_reads_go_on);
async fn on_a_full_disk_writes_wait_and_reads_go_on() {
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
    assert_eq!(refused.refused(503), "unavailable");

    let listed = tenant.owner.get("/v1/workspaces?limit=20").await.expect(StatusCode::OK);
    assert_eq!(listed["total"], made.len(), "all that was acknowledged, and nothing that was refused");
    server.anonymous().get("/readyz").await.expect(StatusCode::OK);
}

both!(a_closed_database_is_503_and_not_ready);
async fn a_closed_database_is_503_and_not_ready() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    server.app.db.close();
    assert_eq!(tenant.owner.get(&tenant.workspace("")).await.refused(503), "unavailable");
    assert_eq!(
        tenant.owner.patch(&tenant.workspace(""), json!({ "name": "New" })).await.refused(503),
        "unavailable"
    );
    assert_eq!(server.anonymous().get("/readyz").await.refused(503), "not_ready");
    server.anonymous().get("/healthz").await.expect(StatusCode::OK);
}

both!(a_panic_is_a_500_that_tells_nothing_and_the_server_goes_on);
async fn a_panic_is_a_500_that_tells_nothing_and_the_server_goes_on() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let outcome = server
        .app
        .db
        .write("test.panic", |_| -> Result<(), ward::error::ApiError> { panic!("a secret detail") })
        .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!String::from_utf8(error.body("id")).unwrap().contains("secret"));
    tenant.owner.patch(&tenant.workspace(""), json!({ "name": "New" })).await.expect(StatusCode::OK);
}

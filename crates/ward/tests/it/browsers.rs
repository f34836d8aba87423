//! What a browser sees: CORS, and the page.

use reqwest::{Method, StatusCode};
use ward_test::{Sending, Server, both};

both!(without_configured_origins_no_page_elsewhere_may_read_an_answer);
async fn without_configured_origins_no_page_elsewhere_may_read_an_answer() {
    let server = Server::start().await;
    let headers = [("origin", "https://console.example")];
    let answer = server
        .anonymous()
        .send(Method::GET, "/healthz", Sending { headers: &headers, ..Sending::default() })
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

both!(a_configured_origin_may_and_others_may_not);
async fn a_configured_origin_may_and_others_may_not() {
    let server =
        Server::with(|config| config.cors_origins = vec!["https://console.example".to_owned()]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (origin, allowed) in
        [("https://console.example", "https://console.example"), ("https://evil.example", "")]
    {
        let preflight = client
            .request(Method::OPTIONS, format!("{}/v1/workspaces", server.url()))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,idempotency-key")
            .send()
            .await
            .unwrap();
        let header = |name: &str| {
            preflight.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        assert_eq!(header("access-control-allow-origin"), allowed);
        assert_eq!(preflight.status(), StatusCode::OK);
        if !allowed.is_empty() {
            assert!(header("access-control-allow-headers").contains("idempotency-key"));
            assert!(header("access-control-allow-methods").contains("PATCH"));
        }
    }
}

both!(the_docs_page_comes_with_a_policy_that_allows_nothing_from_elsewhere);
async fn the_docs_page_comes_with_a_policy_that_allows_nothing_from_elsewhere() {
    let server = Server::start().await;
    let answer = server.anonymous().get("/v1/docs").await;
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let elsewhere =
        answer.text.split('"').find(|part| part.starts_with("https://") || part.starts_with("//"));
    assert_eq!(elsewhere, None, "the page asks another host");
}

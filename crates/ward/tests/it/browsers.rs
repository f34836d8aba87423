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
        assert_ne!(header("x-request-id"), "");
        assert_eq!(header("allow"), "");
        if !allowed.is_empty() {
            assert!(header("access-control-allow-headers").contains("idempotency-key"));
            assert!(header("access-control-allow-methods").contains("PATCH"));
        }
    }
}

both!(an_options_that_is_no_preflight_is_a_wrong_method_and_an_unknown_path_stays_unknown);
async fn an_options_that_is_no_preflight_is_a_wrong_method_and_an_unknown_path_stays_unknown() {
    let server =
        Server::with(|config| config.cors_origins = vec!["https://console.example".to_owned()]).await;
    let origin = ("origin", "https://console.example");
    let asks = ("access-control-request-method", "POST");
    for (path, headers, code) in [
        ("/v1/workspaces", vec![], (405, "method_not_allowed")),
        ("/v1/workspaces", vec![origin], (405, "method_not_allowed")),
        ("/v1/nowhere", vec![], (404, "not_found")),
        ("/v1/nowhere", vec![origin, asks], (404, "not_found")),
    ] {
        let sending = Sending { headers: &headers, ..Sending::default() };
        let answer = server.anonymous().send(Method::OPTIONS, path, sending).await;
        assert_eq!(answer.refused(code.0), code.1, "{path} {headers:?}");
    }
    let sending = Sending { headers: &[origin], ..Sending::default() };
    let read = server.anonymous().send(Method::GET, "/v1/workspaces", sending).await;
    assert_eq!(read.header("access-control-allow-origin"), "https://console.example");
    assert_eq!(read.refused(401), "unauthorized");
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

//! CORS, the redirect to the documentation page, and the page itself.

use reqwest::{Method, StatusCode};
use ward_test::{Sending, Server, both};

both!(without_configured_origins_no_page_elsewhere_may_read_an_answer, async || {
    let server = Server::start().await;
    let answer = server.anonymous().with(&[("origin", "https://console.example")]).get("/healthz").await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
});

both!(a_configured_origin_may_and_others_may_not, async || {
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
});

both!(an_options_that_is_no_preflight_is_a_wrong_method_and_an_unknown_path_stays_unknown, async || {
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
        let actor = server.anonymous().with(&headers);
        let answer = actor.send(Method::OPTIONS, path, Sending::default()).await;
        if headers.contains(&origin) {
            assert_eq!(answer.header("access-control-allow-origin"), origin.1, "{path} {headers:?}");
        }
        assert_eq!(answer.refused(code.0), code.1, "{path} {headers:?}");
    }
    for method in [Method::GET, Method::HEAD, Method::POST] {
        for (from, allowed) in [(origin.1, origin.1), ("https://evil.example", "")] {
            let actor = server.anonymous().with(&[("origin", from)]);
            let answer = actor.send(method.clone(), "/v1/nowhere/at/all", Sending::default()).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
            assert_eq!(answer.header("access-control-allow-origin"), allowed, "{method} {from}");
        }
    }
    let read = server.anonymous().with(&[origin]).get("/v1/workspaces").await;
    assert_eq!(read.header("access-control-allow-origin"), "https://console.example");
    read.refused_as(401, "unauthorized");
});

both!(a_page_may_read_the_headers_that_a_client_needs, async || {
    let server =
        Server::with(|config| config.cors_origins = vec!["https://console.example".to_owned()]).await;
    let answer = server.anonymous().with(&[("origin", "https://console.example")]).get("/v1/me").await;
    let exposed = answer.header("access-control-expose-headers");
    for name in [
        "x-request-id",
        "retry-after",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-api-key-expires",
        "idempotency-replayed",
    ] {
        assert!(exposed.split(',').any(|one| one.trim() == name), "{name} is not in {exposed}");
    }
});

both!(the_root_leads_to_the_page_for_people, async || {
    for (prefix, roots) in
        [("", vec!["/"]), ("/behind/a-proxy", vec!["/", "/behind/a-proxy", "/behind/a-proxy/"])]
    {
        let server = Server::with(|config| {
            config.public_url = (!prefix.is_empty()).then(|| format!("https://example.com{prefix}"));
        })
        .await;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        for root in roots {
            let answer = client.get(format!("{}{root}", server.url())).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{root}");
            assert!(answer.headers().contains_key("x-request-id"));
            let to = answer.headers()["location"].to_str().unwrap().to_owned();
            let to = answer.url().join(&to).unwrap();
            assert_eq!(to.path(), format!("{prefix}/v1/docs"));
            let page = client.get(to).send().await.unwrap();
            assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        }
        let wrong = client.post(format!("{}/", server.url())).send().await.unwrap();
        assert_eq!(
            (wrong.status().as_u16(), &wrong.headers()["allow"]),
            (405, &"GET, HEAD".parse().unwrap())
        );
    }
});

both!(a_path_prefix_is_served_with_and_without_it, async || {
    let server = Server::with(|config| config.public_url = Some("https://example.com/ward".to_owned())).await;
    let tenant = server.tenant("acme").await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| {
        let key = tenant.owner.bearer.as_deref().unwrap();
        let answer = client.get(format!("{}{path}", server.url())).bearer_auth(key).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for path in ["/v1/workspaces", &tenant.path("/api-keys"), "/v1/openapi.json", "/v1/docs", "/healthz"] {
        let bare = get(path).await;
        assert_eq!(bare.0, 200);
        assert_eq!(get(&format!("/ward{path}")).await, bare, "{path}");
    }
    assert_eq!(get("/ward/v1/nowhere").await.0, 404);
    assert_eq!(get("/other/v1/workspaces").await.0, 404);
    let document: serde_json::Value = serde_json::from_str(&get("/v1/openapi.json").await.1).unwrap();
    assert_eq!(document["servers"], serde_json::json!([{ "url": "/ward" }]));
    assert_eq!(document["paths"].as_object().unwrap().len(), {
        let plain: serde_json::Value =
            serde_json::from_slice(ward::contract::load(&[]).unwrap().document()).unwrap();
        plain["paths"].as_object().unwrap().len()
    });
});

both!(the_docs_page_comes_with_a_policy_that_allows_nothing_from_elsewhere, async || {
    let server = Server::start().await;
    let answer = server.anonymous().get("/v1/docs").await;
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let elsewhere =
        answer.text.split('"').find(|part| part.starts_with("https://") || part.starts_with("//"));
    assert_eq!(elsewhere, None, "the page asks another host");
});

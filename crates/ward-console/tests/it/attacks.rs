//! Attacks by another page, with a stolen form, and with a forged cookie. None of them has an effect.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode, header};
use serde_json::json;
use ward_test::{Server, Tenant, sqlite_only};

use crate::desk;

/// A browser without a person: it keeps its cookie itself.
struct Robot {
    client: Client,
    url: String,
    cookie: String,
}

impl Robot {
    fn new(server: &Server) -> Self {
        let client =
            Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        Self { client, url: server.url(), cookie: String::new() }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, header::HeaderMap, String) {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body.to_owned());
        if !self.cookie.is_empty() {
            request = request.header("cookie", &self.cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        (status, headers, answer.text().await.unwrap())
    }

    /// Signs in and keeps the cookie. Returns the whole `set-cookie`.
    async fn sign_in(&mut self, key: &str) -> String {
        let origin = self.url.clone();
        let (status, headers, text) =
            self.ask(Method::POST, "/console/sign-in", &format!("key={key}"), &[("origin", &origin)]).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
        let set = headers["set-cookie"].to_str().unwrap().to_owned();
        set.split(';').next().unwrap().clone_into(&mut self.cookie);
        set
    }

    async fn csrf(&self) -> String {
        let (_, _, page) = self.ask(Method::GET, "/console/workspaces", "", &[]).await;
        let token = page.split("name=\"csrf\" value=\"").nth(1).expect("a token").split('"').next().unwrap();
        token.to_owned()
    }
}

fn key_of(tenant: &Tenant) -> &str {
    tenant.claimed["api_key"].as_str().unwrap()
}

sqlite_only!(a_form_counts_only_from_a_page_of_its_own_session, async || {
    let server = desk::server().await;
    let tenant = server.tenant("harbour").await;
    let other = server.tenant("hill").await;
    let mut robot = Robot::new(&server);
    robot.sign_in(key_of(&tenant)).await;
    let csrf = robot.csrf().await;
    let mut stranger = Robot::new(&server);
    stranger.sign_in(key_of(&other)).await;
    let foreign = stranger.csrf().await;
    assert_ne!(csrf, foreign);

    let path = format!("/console/w/{}/keys/new", tenant.id);
    let own = server.url();
    let form = |csrf: &str| format!("csrf={csrf}&role=viewer&duration_days=1&name=forged");
    let count = async || tenant.owner.get(&format!("/v1/{}/api-keys", tenant.id)).await.ok()["total"].clone();
    let before = count().await;
    for (why, token, headers) in [
        ("another origin", csrf.as_str(), vec![("origin", "https://evil.example")]),
        ("a sandboxed page", &csrf, vec![("origin", "null")]),
        ("another site, says the browser", &csrf, vec![("origin", &own), ("sec-fetch-site", "cross-site")]),
        ("a neighbour of the same site", &csrf, vec![("sec-fetch-site", "same-site")]),
        ("no origin at all", &csrf, vec![]),
        ("no token", "", vec![("origin", &own)]),
        ("the token of another session", &foreign, vec![("origin", &own)]),
    ] {
        let (status, _, page) = robot.ask(Method::POST, &path, &form(token), &headers).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{why}: {page}");
        assert_eq!(count().await, before, "{why}");
    }
    let (status, _, page) = robot.ask(Method::POST, &path, &form(&csrf), &[("origin", &own)]).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_ne!(count().await, before);

    // A page elsewhere cannot sign a visitor in or out either.
    for path in ["/console/sign-in", "/console/sign-out", "/console/start"] {
        let (status, headers, _) =
            robot.ask(Method::POST, path, "key=x", &[("origin", "https://evil.example")]).await;
        assert_eq!((status, headers.get("set-cookie")), (StatusCode::FORBIDDEN, None), "{path}");
    }
});

sqlite_only!(the_cookie_is_sealed_and_ends, async || {
    let server = desk::server().await;
    let tenant = server.tenant("harbour").await;
    let key = key_of(&tenant);
    let mut robot = Robot::new(&server);
    let set = robot.sign_in(key).await;
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=43200"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Secure") && !set.contains(key), "{set}");
    let status = async |robot: &Robot| robot.ask(Method::GET, "/console/workspaces", "", &[]).await.0;
    assert_eq!(status(&robot).await, StatusCode::OK);

    // One changed letter, and a cookie that another server sealed.
    let sealed = robot.cookie.clone();
    let last = if sealed.ends_with('A') { "B" } else { "A" };
    robot.cookie = format!("{}{last}", &sealed[..sealed.len() - 1]);
    assert_eq!(status(&robot).await, StatusCode::SEE_OTHER);
    let elsewhere = desk::server_with(|config| {
        config.master_key = ward::config::MasterKey::Given([9; 32].into());
        config.public_url = Some("https://ward.example/behind".to_owned());
    })
    .await;
    let abroad = elsewhere.tenant("abroad").await;
    let mut other = Robot::new(&elsewhere);
    let origin = [("origin", "https://ward.example")];
    let form = format!("key={}", key_of(&abroad));
    let (_, headers, _) = other.ask(Method::POST, "/behind/console/sign-in", &form, &origin).await;
    let set = headers["set-cookie"].to_str().unwrap();
    assert!(set.contains("; Secure") && set.contains("Path=/behind/console;"), "{set}");
    assert_eq!(headers["location"], "/behind/console/workspaces");
    set.split(';').next().unwrap().clone_into(&mut robot.cookie);
    other.cookie.clone_from(&robot.cookie);
    assert_eq!(status(&robot).await, StatusCode::SEE_OTHER);
    assert_eq!(status(&other).await, StatusCode::OK, "a proxy may strip the prefix");

    // A session ends after twelve hours, and at once when its key's secret is no longer accepted.
    robot.cookie = sealed;
    assert_eq!(status(&robot).await, StatusCode::OK);
    server.clock.advance(Duration::from_hours(12));
    assert_eq!(status(&robot).await, StatusCode::SEE_OTHER);
    robot.sign_in(key).await;
    assert_eq!(status(&robot).await, StatusCode::OK);
    let rotate = format!("/v1/{}/api-keys/{}/rotate", tenant.id, tenant.claimed["key_id"].as_str().unwrap());
    tenant.owner.post(&rotate, json!({ "duration_days": 1 })).await.ok();
    let (status, headers, _) = robot.ask(Method::GET, "/console/workspaces", "", &[]).await;
    assert_eq!(
        (status, headers["location"].to_str().unwrap()),
        (StatusCode::SEE_OTHER, "/console/sign-in?why=ended")
    );
    assert!(headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
});

sqlite_only!(every_answer_has_the_headers_that_protect_its_page, async || {
    let server = desk::server().await;
    let tenant = server.tenant("harbour").await;
    let mut robot = Robot::new(&server);
    robot.sign_in(key_of(&tenant)).await;
    for path in ["/console", "/console/", "/console/sign-in", "/console/workspaces", "/console/nowhere"] {
        let (status, headers, page) = robot.ask(Method::GET, path, "", &[]).await;
        assert!(!status.is_server_error(), "{path}: {page}");
        if path == "/console/" {
            continue;
        }
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert!(!headers["x-request-id"].is_empty());
        for inline in [" style=", "<style", "onclick", "onload", "javascript:", "<script>"] {
            assert!(!page.contains(inline), "{path} has {inline}");
        }
    }
    // No words of an address come onto a page.
    let (_, _, page) = robot
        .ask(Method::GET, "/console/workspaces?done=Call+us&q=%3Cscript%3Ealert(1)%3C/script%3E", "", &[])
        .await;
    assert!(!page.contains("Call us") && !page.contains("<script>alert"), "{page}");
});

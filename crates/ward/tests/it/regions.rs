//! A Ward of one region, and the limits of the platform's later contract.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use ward_test::{Fields as _, Server, both, new_workspace};

const OWN: &str = "eu-central-1";
const OTHER: &str = "us-east-1";

async fn regional() -> Server {
    Server::with(|config| {
        config.platform.region = Some(OWN.to_owned());
        config.platform.region_hosts = vec![(OTHER.to_owned(), "https://us.ward.example".to_owned())];
        config.cors_origins = vec!["https://app.example.com".to_owned()];
    })
    .await
}

fn in_region(slug: &str, region: &str) -> Value {
    let mut body = new_workspace(slug);
    body["region"] = json!(region);
    body
}

both!(a_ward_of_a_region_creates_only_workspaces_of_it, async || {
    let server = regional().await;
    let tenant = server.tenant("acme").await;
    let shown = tenant.owner.get(&tenant.workspace("")).await.ok();
    assert_eq!(shown["region"], OWN, "without a region in the request it is this Ward's");
    for (path, actor) in [
        ("/v1/workspaces", &server.anonymous()),
        ("/v1/workspaces/self-service", &tenant.owner),
        ("/v1/me/workspaces", &tenant.owner),
    ] {
        let refused = actor.post(path, in_region("other", OTHER)).await;
        assert!(refused.text.contains("https://us.ward.example serves us-east-1"), "{}", refused.text);
        refused.refused_as(422, "wrong_region");
        // For a region without a known host, the refusal names only the region.
        let refused = actor.post(path, in_region("other", "ca-central-1")).await;
        assert!(!refused.text.contains("https://"), "{}", refused.text);
        refused.refused_as(422, "wrong_region");
        actor.post(path, in_region(&ward_test::fresh_slug(), OWN)).await.created();
    }
    // The operator's command cannot do it either.
    let wanted = in_region("other", OTHER);
    let refused = ward::operator::create_workspace(&server.app, &wanted).await.unwrap_err();
    assert!(refused.to_string().contains("https://us.ward.example"), "{refused}");
    assert_eq!(server.count("SELECT count(*) FROM workspaces").await, 4);
    assert_eq!(server.count("SELECT count(*) FROM slugs WHERE slug = 'other'").await, 0);
});

both!(a_region_is_never_changed_where_there_is_only_one, async || {
    let server = regional().await;
    let tenant = server.tenant("acme").await;
    let path = tenant.workspace("");
    let both = json!({ "region": OTHER, "name": "Another name" });
    tenant.owner.patch(&path, both).await.refused_as(422, "region_immutable");
    let shown = tenant.owner.get(&path).await.ok();
    assert_eq!((&shown["region"], shown["name"] == "Another name"), (&json!(OWN), false));
    let same = json!({ "region": OWN, "name": "Another name" });
    assert_eq!(tenant.owner.patch(&path, same).await.ok()["name"], "Another name");
    // Without the setting, the given contract applies.
    let (_server, tenant) = Server::with_tenant().await;
    let moved = tenant.owner.patch(&tenant.workspace(""), json!({ "region": OWN })).await;
    assert_eq!(moved.ok()["region"], OWN);
});

both!(every_answer_names_the_region, async || {
    let server = regional().await;
    let tenant = server.tenant("acme").await;
    let anonymous = server.anonymous();
    for (answer, status) in [
        (tenant.owner.get(&tenant.workspace("")).await, 200),
        (tenant.delete("/twilio").await, 204),
        (anonymous.get(&tenant.workspace("")).await, 401),
        (tenant.owner.get("/v1/nowhere").await, 404),
        (anonymous.delete("/readyz").await, 405),
        (tenant.owner.post("/v1/me/workspaces", json!({})).await, 422),
        (anonymous.get("/v1/openapi.json").await, 200),
        (anonymous.get("/v1/docs").await, 200),
    ] {
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-ward-region")),
            (status, OWN),
            "{}",
            answer.text
        );
    }
    let ready = anonymous.get("/readyz").await.ok();
    assert_eq!(ready, json!({ "status": "ready", "region": OWN }));
    let everywhere = Server::start().await;
    let ready = everywhere.anonymous().get("/readyz").await;
    assert!(!ready.headers.contains_key("x-ward-region"));
    assert_eq!(ready.ok(), json!({ "status": "ready" }));
});

/// All that the server answers to these bytes.
async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses a connection may close it before the request is out.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

both!(answers_below_the_router_name_the_region_and_pages_may_read_them, async || {
    const MOST: usize = 4;
    let server = Server::with(|config| {
        config.platform.region = Some(OWN.to_owned());
        config.cors_origins = vec!["https://console.example".to_owned()];
        config.limits.connections = MOST;
        config.limits.header_bytes = 8192;
    })
    .await;
    let named = format!("\r\nx-ward-region: {OWN}\r\n");
    let close = "connection: close\r\n\r\n";
    let origin = "origin: https://console.example\r\n";
    let asks = format!("{origin}access-control-request-method: PATCH\r\n");
    let long = "a".repeat(20_000);
    for (request, status) in [
        ("no http at all\r\n\r\n".to_owned(), 400),
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("OPTIONS /v1/workspaces HTTP/1.1\r\nhost: w\r\n{asks}{close}"), 200),
        (format!("OPTIONS /nowhere HTTP/1.1\r\nhost: w\r\n{asks}{close}"), 404),
        (format!("PATCH /v1/workspaces HTTP/1.1\r\nhost: w\r\n{origin}{close}"), 405),
        (format!("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n{origin}\r\n"), 400),
        (format!("GET /healthz HTTP/1.1\r\nhost: w\r\nx-long: {long}\r\n\r\n"), 431),
        (format!("GET /{} HTTP/1.1\r\nhost: w\r\n\r\n", "a".repeat(70_000)), 414),
        (format!("GET /nowhere HTTP/1.1\r\nhost: w\r\n{origin}{close}"), 404),
        (
            format!(
                "POST /v1/workspaces HTTP/1.1\r\nhost: w\r\n{origin}content-length: 999999999\r\n{close}"
            ),
            413,
        ),
        (format!("GET /healthz HTTP/1.1\r\nhost: w\r\n{origin}{close}"), 200),
    ] {
        let answer = raw(server.address, request.as_bytes()).await;
        let what = &request[..request.len().min(60)];
        if status == 414 {
            // The head's bound may be found first.
            assert!(
                answer.starts_with("HTTP/1.1 414 ") || answer.starts_with("HTTP/1.1 431 "),
                "{what}: {answer}"
            );
        } else {
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        }
        let head = answer.split("\r\n\r\n").next().unwrap();
        assert_eq!(head.matches(named.trim_end()).count(), 1, "{what}: {answer}");
        let reader = if matches!(status, 400 | 414 | 431) { "*" } else { "https://console.example" };
        let allowed = format!("\r\naccess-control-allow-origin: {reader}");
        assert_eq!(head.matches("access-control-allow-origin").count(), 1, "{what}: {answer}");
        assert!(format!("{head}\r\n").contains(&format!("{allowed}\r\n")), "{what}: {answer}");
        let request_id_is_shown = head
            .lines()
            .any(|line| line.starts_with("access-control-expose-headers: ") && line.contains("x-request-id"));
        assert!(request_id_is_shown || matches!(status, 200 | 404 | 405), "{what}: {answer}");
    }
    let get = format!("GET /healthz HTTP/1.1\r\nhost: w\r\n{close}");
    let mut held = Vec::new();
    let refused = loop {
        // An ended connection may still count for a short time. One of the held connections may then be refused instead.
        assert!(held.len() < 10 * MOST, "no connection was refused");
        for _ in 0..MOST {
            held.push(TcpStream::connect(server.address).await.unwrap());
        }
        let answer = raw(server.address, get.as_bytes()).await;
        if answer.starts_with("HTTP/1.1 503 ") {
            break answer;
        }
    };
    assert!(refused.contains(&named), "{refused}");
    assert!(refused.contains("\r\naccess-control-allow-origin: *\r\n"), "{refused}");
});

both!(the_operator_can_prove_that_no_workspace_has_another_region, async || {
    let server = Server::start().await;
    assert!(ward::operator::check_regions(&server.app).await.unwrap().is_none());
    for index in 0..3 {
        let region = if index == 0 { OTHER } else { OWN };
        let body = in_region(&ward_test::fresh_slug(), region);
        server.anonymous().post("/v1/workspaces", body).await.created();
    }
    let mut config = server.app.config.clone();
    config.platform.region = Some(OWN.to_owned());
    let beside = ward::app::App::on(config, server.app.db.clone(), server.clock.clone()).unwrap();
    let check = ward::operator::check_regions(&beside).await.unwrap().unwrap();
    assert_eq!((check.checked, check.misplaced, check.named.len()), (3, 1, 1));
    assert_eq!(check.named[0].workspace.region, OTHER);
});

both!(the_bounds_of_twenty_are_raised_in_document_and_validator_together, async || {
    let server = Server::with(|config| {
        config.platform.list_limit_max = 100;
        config.platform.test_caller_limit = 100;
    })
    .await;
    let tenant = server.tenant("acme").await;
    let numbers = |count: usize| json!({ "numbers": (0..count).map(|it| format!("+1555010{it:04}")).collect::<Vec<_>>() });
    let path = tenant.workspace("/test-caller-numbers");
    assert_eq!(tenant.owner.put(&path, numbers(100)).await.ok().list("numbers").len(), 100);
    assert_eq!(tenant.owner.put(&path, numbers(101)).await.problem_locs(), ["body.numbers"]);
    for list in ["/v1/workspaces".to_owned(), tenant.path("/api-keys"), tenant.path("/integrations")] {
        tenant.owner.get(&format!("{list}?limit=100")).await.ok();
        assert_eq!(tenant.owner.get(&format!("{list}?limit=101")).await.problem_locs(), ["query.limit"]);
    }
    let document = server.anonymous().get("/v1/openapi.json").await.ok();
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["TestCallerNumbersRequest"]["properties"]["numbers"]["maxItems"], 100);
    assert_eq!(document["paths"]["/v1/workspaces"]["get"]["parameters"][0]["schema"]["maximum"], 100);
    // By default the given contract applies in both.
    let (_server, tenant) = Server::with_tenant().await;
    assert_eq!(tenant.owner.get("/v1/workspaces?limit=21").await.problem_locs(), ["query.limit"]);
    let path = tenant.workspace("/test-caller-numbers");
    assert_eq!(tenant.owner.put(&path, numbers(21)).await.problem_locs(), ["body.numbers"]);
});

both!(where_environments_are_converted_an_update_does_not_change_them, async || {
    let server = Server::with(|config| config.platform.environment_by_conversion = true).await;
    let tenant = server.tenant("acme").await;
    let path = tenant.workspace("");
    let now = tenant.owner.get(&path).await.ok()["environment"].clone();
    for other in ["production", "staging", "development"] {
        let answer = tenant.owner.patch(&path, json!({ "environment": other })).await;
        if now == other {
            answer.ok();
        } else {
            assert_eq!(answer.refused(422), "environment_conversion_required", "{other}");
        }
    }
    assert_eq!(tenant.owner.get(&path).await.ok()["environment"], now);
});

//! The exact bytes that an endpoint test sends, and its results for broken connections.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use ward_test::{Fields as _, Server, both};

use crate::outbound::{Peer, answer, endpoint, open_server, run};

both!(a_body_is_json_or_a_form_of_the_parameters_that_the_path_does_not_use, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    // The peer echoes the request, its head and its body.
    let peer = Peer::start(|heard, _| Some(answer(200, &json!(heard).to_string()))).await;
    let params = json!({ "id": "7", "text": "a b&c=ü", "count": 2, "list": [1, "x"], "none": null });
    for (method, format, kind) in [
        ("POST", "json", "application/json"),
        ("PUT", "json", "application/json"),
        ("PATCH", "json", "application/json"),
        ("POST", "form", "application/x-www-form-urlencoded"),
    ] {
        let schema = json!({ "properties": { "text": {}, "count": {}, "list": {}, "none": {} } });
        let more =
            json!({ "method": method, "path": "/notes/{id}", "body_format": format, "input_schema": schema });
        let told = run(&tenant.owner, &endpoint(&tenant, &peer.url(), more).await, params.clone()).await;
        let (head, body) = told.text("raw_response").split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("{method} /notes/7 HTTP/1.1\r\n")), "{head}");
        assert!(head.contains(&format!("content-type: {kind}\r\n")), "{head}");
        assert!(head.to_lowercase().contains(&format!("content-length: {}", body.len())), "{head}");
        if format == "json" {
            let sent: Value = serde_json::from_str(body).unwrap();
            assert_eq!(sent, json!({ "text": "a b&c=ü", "count": 2, "list": [1, "x"], "none": null }));
        } else {
            let mut sent: Vec<_> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
            sent.sort();
            let wanted = [("count", "2"), ("list", "[1,\"x\"]"), ("none", "null"), ("text", "a b&c=ü")];
            assert_eq!(sent, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
    }
});

both!(a_reset_a_tls_that_hangs_and_a_packed_body_are_results, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let resetting = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = resetting.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = resetting.accept().await {
            let _ = stream.read(&mut [0; 16]).await;
            let _ = stream.set_zero_linger();
        }
    });
    let told =
        run(&tenant.owner, &endpoint(&tenant, &format!("http://{address}"), json!({})).await, json!({}))
            .await;
    assert_eq!(told["status_code"], Value::Null);
    assert!(told.text("error").contains("reset"), "{told}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let url = format!("https://{address}");
    let told = run(&tenant.owner, &endpoint(&tenant, &url, json!({})).await, json!({})).await;
    assert!(told.text("error").contains("in time"), "{told}");

    // The client did not ask for a compressed body. The result shows it as it came, because decompression
    // could produce any size.
    let packed = Peer::start(|_, _| {
        let mut bytes =
            b"HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: 14\r\nconnection: close\r\n\r\n"
                .to_vec();
        bytes.extend_from_slice(b"\x1f\x8b\x08\0\0\0\0\0\0\x03abcd");
        Some(bytes)
    })
    .await;
    let told = run(&tenant.owner, &endpoint(&tenant, &packed.url(), json!({})).await, json!({})).await;
    assert_eq!(told.fields(["status_code", "error"]), json!([200, null]));
    assert!(told.text("raw_response").ends_with("abcd"), "{told}");
});

both!(no_token_is_fetched_from_the_operators_network, async || {
    let server = Server::with(|config| config.outbound.time = Duration::from_secs(2)).await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|_, _| Some(answer(200, r#"{"access_token":"t"}"#))).await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let secret = json!({ "value": "a-secret-to-get-a-token" });
    let base = "https://ehr.example.com";
    for (token_url, plain) in [(peer.url().replace("http:", "https:"), false), (peer.url(), true)] {
        for auth in [
            json!({ "type": "oauth2_client_credentials", "client_id": "c", "token_url": token_url, "client_secret_value": secret }),
            json!({
                "type": "smart_backend_services", "client_id": "c", "token_url": token_url,
                "assertion_algorithm": "ES384", "private_key_value": { "value": key },
            }),
            json!({
                "type": "oauth2_jwt_bearer", "client_id": "c", "token_url": token_url,
                "assertion_algorithm": "ES384", "private_key_value": { "value": key },
            }),
        ] {
            let endpoint = json!({ "name": "e", "description": "E", "path": "/", "method": "GET" });
            let body = json!({
                "name": ward_test::fresh_slug(), "display_name": "T", "base_url": base, "auth": auth,
                "endpoints": [endpoint],
            });
            let made = tenant.post("/integrations", body).await.created();
            let path = format!("/integrations/{}/endpoints/e/test", made.text("id"));
            let told = run(&tenant.owner, &tenant.path(&path), json!({})).await;
            let error = told.text("error");
            assert!(error.contains(if plain { "plain http" } else { "may connect to" }), "{error}");
        }
    }
    let health = tenant.get("/integrations/health-check").await.ok();
    for report in health.list("integrations") {
        assert_eq!(report["status"], "misconfigured", "{report}");
    }
    assert_eq!(peer.asked(), 0);
});

both!(the_audit_tells_where_a_change_redirects_calls_to, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let body = json!({
        "name": "a", "display_name": "A", "base_url": "https://ehr.example.com/base/a-token-in-the-path",
        "endpoints": [{ "name": "e", "description": "E", "path": "/", "base_url": "https://own.example.com:8443/x" }],
    });
    let made = tenant.post("/integrations", body).await.created();
    let path = tenant.path(&format!("/integrations/{}", made.text("id")));
    let before = json!({ "base_url": "https://ehr.example.com", "endpoints/e/base_url": "https://own.example.com:8443" });
    assert_eq!(tenant.audit().await[0]["metadata"]["destinations"], before);
    let auth = json!({ "type": "oauth2_client_credentials", "client_id": "c", "token_url": "https://login.example.net/t?x=y" });
    let change = json!({ "base_url": "https://evil.example.org/base", "auth": auth });
    tenant.owner.put(&path, change).await.ok();
    let event = tenant.audit().await.remove(0);
    assert_eq!(event["metadata"]["destinations_before"], before);
    let after = json!({
        "base_url": "https://evil.example.org", "token_url": "https://login.example.net",
        "endpoints/e/base_url": "https://own.example.com:8443",
    });
    assert_eq!(event["metadata"]["destinations"], after);
    assert!(!event.to_string().contains("a-token-in-the-path"), "a path or a query can hold a secret");
    // A change that moves no destination does not mention one.
    tenant.owner.put(&path, json!({ "display_name": "B" })).await.ok();
    assert_eq!(tenant.audit().await[0]["metadata"].get("destinations"), None);
});

both!(no_stray_space_becomes_part_of_a_secret, async || {
    let (server, tenant) = Server::with_tenant().await;
    let auth = |kind: &str, field: &str, value: String| {
        json!({ "type": kind, "header_name": (kind == "api_key_header").then_some("x-key"), "client_id": "c",
                "token_url": "https://login.example.com/t", field: { "value": value } })
    };
    for (kind, field) in [
        ("api_key_header", "api_key_value"),
        ("bearer_token", "bearer_token_value"),
        ("oauth2_client_credentials", "client_secret_value"),
    ] {
        for (before, after) in [
            (" ", ""),
            ("", "\n"),
            ("\t", ""),
            ("", "\r\n"),
            ("", "\u{A0}"),
            ("\u{FEFF}", ""),
            ("", "\u{200B}"),
        ] {
            let auth = auth(kind, field, format!("{before}a-secret{after}"));
            let body = json!({ "name": "a", "display_name": "A", "base_url": "https://ehr.example.com", "auth": auth });
            let refused = tenant.post("/integrations", body).await;
            let locs = refused.problem_locs();
            assert!(
                locs.contains(&format!("body.auth.{field}.value")),
                "{kind} {before:?} {after:?}: {locs:?}"
            );
        }
        for inner in ['\n', '\r', '\t', '\u{200B}', '\u{202E}', '\u{2028}'] {
            let auth = auth(kind, field, format!("one{inner}two"));
            let body = json!({ "name": "a", "display_name": "A", "base_url": "https://ehr.example.com", "auth": auth });
            let refused = tenant.post("/integrations", body).await;
            assert_eq!(refused.problem_locs(), [format!("body.auth.{field}.value")], "{kind} {inner:?}");
        }
    }
    // Identifiers that are pasted beside a secret, headers that hold one, and Twilio's tokens are of the same kind.
    for (before, after) in [(" ", ""), ("", "\n"), ("\u{FEFF}", ""), ("", "\u{200B}")] {
        let pasted = format!("{before}a-value{after}");
        for field in ["client_id", "assertion_issuer", "assertion_subject", "assertion_kid"] {
            let auth = json!({ "type": "oauth2_client_credentials", "client_id": "c", "token_url": "https://login.example.com/t",
                               "client_secret_value": { "value": "a-secret" }, (field): pasted });
            let body = json!({ "name": "a", "display_name": "A", "base_url": "https://ehr.example.com", "auth": auth });
            let refused = tenant.post("/integrations", body).await;
            assert_eq!(refused.problem_locs(), [format!("body.auth.{field}")], "{before:?} {after:?}");
        }
        let endpoint =
            json!({ "name": "e", "description": "E", "path": "/", "headers": { "x-key": pasted } });
        for (field, value, loc) in [
            ("endpoints", json!([endpoint]), "body.endpoints.0.headers.x-key"),
            ("mcp_headers", json!({ "x-key": pasted }), "body.mcp_headers.x-key"),
        ] {
            let body = json!({ "name": "a", "display_name": "A", "base_url": "https://ehr.example.com", (field): value });
            let refused = tenant.post("/integrations", body).await;
            assert_eq!(refused.problem_locs(), [loc], "{before:?} {after:?}");
        }
    }
    assert_eq!(server.count("SELECT count(*) FROM integrations").await, 0);
    for field in ["auth_token", "secondary_auth_token"] {
        let mut body =
            json!({ "account_sid": format!("AC{}", "0".repeat(32)), "auth_token": "0".repeat(32) });
        let half = "1".repeat(16);
        for token in [format!("{half}\u{200B}"), format!("{half} {half}"), format!("{half}\n{half}")] {
            body[field] = json!(token);
            let refused = tenant.put("/twilio", body.clone()).await;
            assert_eq!(refused.problem_locs(), [format!("body.{field}")], "{token:?}");
        }
    }
    assert_eq!(server.count("SELECT count(*) FROM twilio_accounts").await, 0);
});

both!(private_keys_are_taken_in_their_usual_forms_and_up_to_a_size, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let auth = |key: &str| json!({ "type": "smart_backend_services", "client_id": "c", "private_key_value": { "value": key } });
    let rsa = ward_test::rsa_pem();
    for (index, key) in [rsa.clone(), rsa.replace('\n', "\\n"), rsa.replace('\n', " "), format!("\n{rsa}\n")]
        .iter()
        .enumerate()
    {
        let body = json!({ "name": format!("i{index}"), "display_name": "A", "base_url": "https://ehr.example.com", "auth": auth(key) });
        tenant.post("/integrations", body).await.created();
    }
    let large = include_str!("../../../ward-ehr/tests/rsa-8192.pem");
    let endpoint = |index: usize| json!({ "name": format!("e{index}"), "description": "E", "path": "/", "auth": auth(large) });
    let endpoints: Vec<Value> = (0..10).map(endpoint).collect();
    let body = json!({ "name": "x", "display_name": "X", "base_url": "https://ehr.example.com", "endpoints": endpoints });
    let refused = tenant.post("/integrations", body).await;
    assert!(!refused.text.contains("BEGIN"));
    let problems = refused.problems();
    // No more of them are parsed than a request may have.
    assert_eq!(problems.len(), 9);
    assert!(problems[7].1.contains("2048 to 4096 bits"), "{problems:?}");
    assert_eq!(problems[8].0, "body.endpoints.8.auth.private_key_value.value");
    assert!(problems[8].1.contains("at most 8"), "{problems:?}");
    let endpoint = |index: usize| json!({ "name": format!("e{index}"), "description": "E", "path": "/", "auth": auth(&rsa) });
    for (count, status) in [(7, 200), (8, 422)] {
        let endpoints: Vec<Value> = (0..count).map(endpoint).collect();
        let listed = tenant.get("/integrations?limit=1").await.ok();
        let path = format!("/integrations/{}", listed["items"][0].text("id"));
        let body = json!({ "auth": auth(&rsa), "endpoints": endpoints });
        assert_eq!(tenant.put(&path, body).await.status, status, "{count} and one more");
    }
    // Where the client's secret stands is said for the kind that has one, and for no other.
    let post = json!({ "type": "oauth2_client_credentials", "client_id": "c", "token_url": "https://login.example.com/t",
                       "client_auth_method": "client_secret_post", "client_secret_value": { "value": "a-client-secret" } });
    let body =
        json!({ "name": "p", "display_name": "P", "base_url": "https://ehr.example.com", "auth": post });
    let made = tenant.post("/integrations", body).await.created();
    assert_eq!(made["auth"]["client_auth_method"], "client_secret_post");
    let other = json!({ "type": "bearer_token", "client_auth_method": "client_secret_post" });
    let body = json!({ "name": "q", "display_name": "Q", "auth": other });
    assert_eq!(tenant.post("/integrations", body).await.problem_locs(), ["body.auth.client_auth_method"]);
});

both!(a_client_secret_goes_into_the_form_where_that_is_configured, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|heard, _| {
        let asked = heard.starts_with("POST /token ");
        let fine = heard.contains("client_id=the-client&client_secret=a-client-secret")
            && !heard.contains("authorization:");
        Some(match (asked, fine) {
            (true, true) => answer(200, r#"{"access_token":"a-token-that-was-got"}"#),
            (true, false) => answer(401, "{}"),
            (false, _) => answer(200, "\"here\""),
        })
    })
    .await;
    let auth = |method: Value| {
        json!({ "type": "oauth2_client_credentials", "client_id": "the-client", "token_url": format!("{}/token", peer.url()),
                "client_auth_method": method, "client_secret_value": { "value": "a-client-secret" } })
    };
    let path = endpoint(&tenant, &peer.url(), json!({ "auth": auth(json!("client_secret_post")) })).await;
    assert_eq!(run(&tenant.owner, &path, json!({})).await["raw_response"], "here");
    for basic in [json!("client_secret_basic"), Value::Null] {
        let path = endpoint(&tenant, &peer.url(), json!({ "auth": auth(basic) })).await;
        let told = run(&tenant.owner, &path, json!({})).await;
        assert!(told.text("error").contains("refused"), "{told}");
    }
});

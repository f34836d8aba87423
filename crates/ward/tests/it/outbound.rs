//! The endpoint test and the health check, against real listeners that misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use ward::config::Config;
use ward_test::{Actor, Fields as _, Server, Tenant, both, fresh_slug};

/// A listener that counts its requests.
pub struct Peer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Peer {
    /// Answers each request's head with these bytes, then closes; `None` sends nothing.
    pub async fn start(respond: impl Fn(&str, usize) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (counted, respond) = (asked.clone(), Arc::new(respond));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (counted, respond) = (counted.clone(), respond.clone());
                tokio::spawn(async move {
                    let mut heard = vec![0; 65_536];
                    let mut read = stream.read(&mut heard).await.unwrap_or_default();
                    while read > 0 && lacks_body(&heard[..read]) {
                        match stream.read(&mut heard[read..]).await.unwrap_or_default() {
                            0 => break,
                            more => read += more,
                        }
                    }
                    let index = counted.fetch_add(1, Ordering::SeqCst);
                    match respond(&String::from_utf8_lossy(&heard[..read]), index) {
                        Some(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                            let _ = stream.shutdown().await;
                            let _ = stream.read(&mut heard).await;
                        }
                        None => tokio::time::sleep(Duration::from_mins(10)).await,
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Whether a request's body has not arrived yet.
fn lacks_body(heard: &[u8]) -> bool {
    let text = String::from_utf8_lossy(heard);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() < length.unwrap_or(0)
}

pub fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Allows outbound requests to this machine.
pub fn open_outbound(config: &mut Config) {
    config.outbound.allow = vec!["127.0.0.0/8".parse().unwrap()];
    config.outbound.plain_http = true;
}

pub async fn open_server() -> Server {
    Server::with(|config| {
        open_outbound(config);
        config.outbound.time = Duration::from_secs(2);
    })
    .await
}

/// An integration at `base_url` with an endpoint `e` of these properties, and the path of its test.
pub async fn endpoint(tenant: &Tenant, base_url: &str, more: Value) -> String {
    let mut endpoint = json!({ "name": "e", "description": "E", "path": "/", "method": "GET", "retry_config": { "max_retries": 0 } });
    endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let auth =
        json!({ "type": "bearer_token", "bearer_token_value": { "value": "the-bearer-of-this-test" } });
    let body = json!({ "name": fresh_slug(), "display_name": "T", "base_url": base_url, "auth": auth, "endpoints": [endpoint] });
    let made = tenant.post("/integrations", body).await.created();
    tenant.path(&format!("/integrations/{}/endpoints/e/test", made.text("id")))
}

pub async fn run(actor: &Actor, path: &str, params: Value) -> Value {
    actor.post(path, json!({ "params": params })).await.ok()
}

both!(a_test_tells_every_step, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|head, index| {
        assert!(head.starts_with("GET /patients/a%2F..%2Fb/notes?day=2026-04-18 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("authorization: Bearer the-bearer-of-this-test\r\n"), "{head}");
        assert!(head.contains("x-own: yes\r\n"), "{head}");
        let body = r#"{"notes":[{"id":1,"text":"Well","by":"the-bearer-of-this-test"},{"id":2,"text":"Better"}],"more":true}"#;
        Some(if index == 0 { answer(503, "") } else { answer(200, body) })
    })
    .await;
    let path = endpoint(
        &tenant,
        &peer.url(),
        json!({
            "path": "/patients/{id}/notes", "headers": { "x-own": "yes" }, "allow_reserved": true,
            "input_schema": { "type": "object", "properties": { "day": { "type": "string" } } },
            "retry_config": { "max_retries": 2, "retry_on_status": [503] },
            "response_filter": ["notes.text", "notes.by"], "response_mapping": { "texts": "notes.text" },
            "result_template": "Notes: {texts.0}, {texts.1}", "max_result_length": 13,
        }),
    )
    .await;
    let told = run(&tenant.owner, &path, json!({ "id": "a/../b", "day": "2026-04-18" })).await;
    assert_eq!(told.fields(["status_code", "retries", "error"]), json!([200, 1, null]));
    assert_eq!(told["raw_response"]["notes"][0]["by"], "**********", "an echoed secret is masked");
    assert_eq!(
        told["after_filter"],
        json!({ "notes": [{ "text": "Well", "by": "**********" }, { "text": "Better" }] })
    );
    assert_eq!(told["after_mapping"], json!({ "texts": ["Well", "Better"] }));
    assert_eq!(told["final_result"], "Notes: Well, ");
    assert!(told["duration_ms"].as_f64().unwrap() > 0.0);
    let event = &tenant.audit().await[0];
    assert_eq!((&event["action"], &event["metadata"]["endpoint"]), (&json!("integration.test"), &json!("e")));
    assert!(!event.to_string().contains("a/../b"), "parameters may be a patient's");
    for params in [json!({}), json!({ "id": ".." }), json!({ "id": "" }), json!({ "id": [1] })] {
        let refused = tenant.owner.post(&path, json!({ "params": params })).await;
        assert_eq!(refused.problem_locs(), ["body.params.id"], "{params}");
    }
    assert_eq!(peer.asked(), 2);
});

both!(every_behaviour_of_the_other_side_gives_a_result, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let big = format!("\"{}\"", "x".repeat(10 << 20));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, bytes, status, error) in [
        ("garbage", Some(b"\0\xff\xfe no http\r\n\r\n".to_vec()), None, "not HTTP"),
        ("nothing", Some(Vec::new()), None, "not HTTP"),
        ("a half", Some(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec()), None, "ended before"),
        ("silence", None, None, "in time"),
        ("10 MB", Some(answer(200, &big)), None, "larger than"),
        (
            "a redirect away",
            Some(
                b"HTTP/1.1 302 X\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".to_vec(),
            ),
            Some(302),
            "answered 302",
        ),
        ("an error", Some(answer(500, "no")), Some(500), "answered 500"),
    ] {
        let peer = Peer::start(move |_, _| bytes.clone()).await;
        let path = endpoint(&tenant, &peer.url(), json!({})).await;
        let started = Instant::now();
        let told = run(&tenant.owner, &path, json!({})).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        assert_eq!(told["status_code"].as_u64(), status, "{what}");
        assert!(told.text("error").contains(error), "{what}: {told}");
        assert_eq!(told["final_result"], Value::Null, "{what}");
    }
    for (body, raw) in [
        ("not json", json!("not json")),
        ("", Value::Null),
        ("\"a\\ud800\"", json!("\"a\\ud800\"")),
        (&deep, json!(deep)),
    ] {
        let bytes = answer(200, body);
        let peer = Peer::start(move |_, _| Some(bytes.clone())).await;
        let told = run(&tenant.owner, &endpoint(&tenant, &peer.url(), json!({})).await, json!({})).await;
        assert_eq!(told.fields(["raw_response", "error"]), json!([raw, null]));
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let told =
        run(&tenant.owner, &endpoint(&tenant, &format!("http://{gone}"), json!({})).await, json!({})).await;
    assert!(told.text("error").contains("refused"));
});

both!(a_retry_after_that_no_clock_holds_is_not_waited_for, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    for after in ["18446744073709551615", "99999999999999999999999", "86400", "-1", "soon"] {
        let head = format!("HTTP/1.1 429 X\r\nretry-after: {after}\r\ncontent-length: 0\r\n\r\n");
        let peer = Peer::start(move |_, index| {
            Some(if index == 0 { head.clone().into_bytes() } else { answer(200, "1") })
        })
        .await;
        let retry = json!({ "retry_config": { "max_retries": 1, "retry_on_status": [429] } });
        let told = run(&tenant.owner, &endpoint(&tenant, &peer.url(), retry).await, json!({})).await;
        // A number of seconds counts, and there is no time for it. Any other text is ignored.
        let number = after.parse::<u64>().is_ok();
        let wanted = if number { (json!(429), json!(0)) } else { (json!(200), json!(1)) };
        assert_eq!((told["status_code"].clone(), told["retries"].clone()), wanted, "{after}: {told}");
    }
});

both!(an_echoed_secret_is_masked_however_it_is_written, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|_, _| {
        let body = r#"{"plain":"a/key/of+this=test","slash":"a\/key\/of+this=test","code":"\u0061/key/of\u002bthis=test",
            "percent":"a%2fkey%2Fof%2Bthis%3Dtest","base64":"YS9rZXkvb2YrdGhpcz10ZXN0","a\/key/of+this=test":1}"#;
        Some(answer(200, body))
    })
    .await;
    let auth = json!({ "type": "api_key_header", "header_name": "x-key", "api_key_value": { "value": "a/key/of+this=test" } });
    let path = endpoint(&tenant, &peer.url(), json!({ "auth": auth })).await;
    let told = tenant.owner.post(&path, json!({})).await;
    assert!(!told.text.contains("key/of") && !told.text.contains("key\\/of"), "{}", told.text);
    for (name, value) in told.ok()["raw_response"].as_object().unwrap() {
        assert!(value == "**********" || (name == "**********" && *value == 1), "{name}: {value}");
    }
});

both!(the_results_of_an_answer_have_fixed_limits, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let refused = async |more: Value| {
        let mut endpoint = json!({ "name": "e", "description": "E", "path": "/" });
        endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = json!({ "name": "a", "display_name": "A", "endpoints": [endpoint] });
        tenant.post("/integrations", body).await.problem_locs()
    };
    let many = |count: usize| -> Value {
        (0..count).map(|index| (format!("n{index}"), json!("a"))).collect::<serde_json::Map<_, _>>().into()
    };
    let dots = ".".repeat(15_000);
    for (field, wrong) in [
        ("result_key", json!(dots)),
        ("result_key", json!("")),
        ("result_key", json!(vec!["a"; 33].join("."))),
        ("result_key", json!("a".repeat(257))),
        ("response_filter", json!([dots])),
        ("response_filter", json!(vec!["a"; 101])),
        ("response_mapping", json!({ "x": dots })),
        ("response_mapping", many(101)),
        ("result_template", json!("{a}".repeat(101))),
    ] {
        assert_eq!(refused(json!({ field: wrong })).await, [format!("body.endpoints.0.{field}")], "{field}");
    }
    // The first is at the limits. The second is in the database already, with more dots than a stack can
    // hold.
    let large = json!({ "a": "x".repeat(900_000) }).to_string();
    let large = Peer::start(move |_, _| Some(answer(200, &large))).await;
    let empty = Peer::start(|_, _| Some(answer(200, "[]"))).await;
    let mapped = endpoint(&tenant, &large.url(), json!({ "response_mapping": many(100) })).await;
    let filled = json!({ "result_template": "{a}".repeat(100) });
    let filled = endpoint(&tenant, &large.url(), filled).await;
    for path in [mapped, filled] {
        let answer = tenant.owner.post(&path, json!({})).await;
        assert!(answer.text.len() < 4_000_000, "{}", answer.text.len());
        let told = answer.ok();
        assert_eq!(told.fields(["status_code", "final_result"]), json!([200, null]));
        assert!(told.text("error").contains("the result of the answer would exceed"), "{}", told["error"]);
    }
    let cut = json!({ "result_template": "{a}".repeat(100), "max_result_length": 5 });
    let cut = run(&tenant.owner, &endpoint(&tenant, &large.url(), cut).await, json!({})).await;
    assert_eq!(cut["final_result"], "xxxxx");
    let deep = endpoint(&tenant, &empty.url(), json!({ "result_key": "to-be-replaced" })).await;
    let statement = "UPDATE integrations SET endpoints = CAST(replace(CAST(endpoints AS text), 'to-be-replaced', '{}') AS jsonb) \
                     WHERE CAST(endpoints AS text) LIKE '%to-be-replaced%'";
    let statement = if ward_test::Engine::current() == ward_test::Engine::Sqlite {
        statement.replace("AS jsonb", "AS text")
    } else {
        statement.to_owned()
    };
    assert_eq!(server.sql(statement.replace("{}", &dots)).await, 1);
    assert_eq!(run(&tenant.owner, &deep, json!({})).await["final_result"], "");
});

both!(urls_of_tenants_do_not_reach_the_operators_network, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let peer = Peer::start(|_, _| Some(answer(200, "{}"))).await;
    let port = peer.address.port();
    for base in [
        format!("http://127.0.0.1:{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("https://localhost:{port}"),
        format!("https://[::ffff:127.0.0.1]:{port}"),
        format!("https://2130706433:{port}"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
    ] {
        let told = run(&tenant.owner, &endpoint(&tenant, &base, json!({})).await, json!({})).await;
        assert_eq!(told["status_code"], Value::Null, "{base}");
        assert!(
            told.text("error").contains("allowed") || told.text("error").contains("may connect"),
            "{told}"
        );
    }
    let health = tenant.get("/integrations/health-check").await.ok();
    for report in health.list("integrations") {
        assert_eq!(report["status"], "misconfigured");
    }
    assert_eq!(peer.asked(), 0);
});

both!(an_endpoint_elsewhere_gets_only_its_own_credentials, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let bearer =
        |head: &str| head.lines().find(|line| line.starts_with("authorization")).unwrap_or("none").to_owned();
    let home = Peer::start(move |head, _| Some(answer(200, &json!(bearer(head)).to_string()))).await;
    let elsewhere = Peer::start(move |head, _| Some(answer(200, &json!(bearer(head)).to_string()))).await;
    let plain = endpoint(&tenant, &home.url(), json!({ "base_url": elsewhere.url() })).await;
    assert_eq!(run(&tenant.owner, &plain, json!({})).await["raw_response"], "none");
    let near = endpoint(&tenant, &home.url(), json!({ "base_url": format!("{}/v2", home.url()) })).await;
    assert_eq!(
        run(&tenant.owner, &near, json!({})).await["raw_response"],
        "authorization: Bearer **********"
    );
    let empty = endpoint(&tenant, &home.url(), json!({ "base_url": "" })).await;
    assert_eq!(
        run(&tenant.owner, &empty, json!({})).await["raw_response"],
        "authorization: Bearer **********",
        "an empty base_url is none of its own"
    );
    let own = json!({ "type": "api_key_header", "header_name": "authorization", "api_key_value": { "value": "an-own-key" } });
    let own = endpoint(&tenant, &home.url(), json!({ "base_url": elsewhere.url(), "auth": own })).await;
    assert_eq!(run(&tenant.owner, &own, json!({})).await["raw_response"], "authorization: **********");
});

both!(anything_but_a_get_needs_the_permission_to_update_and_is_made_once, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(|_, index| Some(answer(200, &index.to_string()))).await;
    let get = endpoint(&tenant, &peer.url(), json!({})).await;
    let post = endpoint(
        &tenant,
        &peer.url(),
        json!({ "method": "POST", "body_format": "form", "input_schema": { "properties": { "a": {} } } }),
    )
    .await;
    let viewer = tenant.service("viewer").await;
    run(&viewer, &get, json!({})).await;
    viewer.post(&post, json!({})).await.refused_as(403, "forbidden");
    assert_eq!(peer.asked(), 1);
    let operator = tenant.service("operator").await;
    let body = json!({ "params": { "a": "b" } });
    let first = operator.post_once(&post, "a-key-of-16-chars", body.clone()).await;
    let again = operator.post_once(&post, "a-key-of-16-chars", body.clone()).await;
    assert_eq!((again.header("idempotency-replayed"), &again.text), ("true", &first.text));
    assert_eq!(peer.asked(), 2);
    server.clock.advance(Duration::from_mins(11));
    operator.post_once(&post, "a-key-of-16-chars", body).await.refused_as(409, "secret_no_longer_shown");
    let nowhere = get.replace("/endpoints/e/", "/endpoints/f/");
    operator.post(&nowhere, json!({})).await.refused_as(404, "endpoint_not_found");
});

both!(health_is_told_in_one_word_for_each_and_in_bounded_time, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let capable = Peer::start(|head, _| {
        let fine = head.starts_with("GET /fhir/metadata ");
        Some(answer(if fine { 200 } else { 404 }, r#"{"resourceType":"CapabilityStatement"}"#))
    })
    .await;
    let refusing = Peer::start(|_, _| Some(answer(401, ""))).await;
    let broken = Peer::start(|_, _| Some(answer(503, ""))).await;
    let silent = Peer::start(|_, _| None).await;
    let no_tls = Peer::start(|_, _| Some(answer(400, ""))).await;
    // As in most APIs, nothing is at the root, and only the right credentials work below.
    let api = Peer::start(|head, _| {
        let fine = head.starts_with("GET /v1/list?limit=1 ") && head.contains("x-own: yes\r\n");
        let asked_for_calls = head.starts_with("GET /v1/list?") || head.starts_with("GET /v2/list?");
        Some(answer(
            if fine {
                200
            } else if asked_for_calls {
                401
            } else {
                404
            },
            "{}",
        ))
    })
    .await;
    let mut wanted = Vec::new();
    for (url, protocol, enabled, status) in [
        (format!("{}/fhir", capable.url()), "fhir", true, "healthy"),
        (format!("{}/rest", capable.url()), "rest", true, "healthy"),
        (format!("{}/wrong", capable.url()), "fhir", true, "misconfigured"),
        (refusing.url(), "rest", true, "auth_failed"),
        (broken.url(), "fhir", true, "unreachable"),
        (no_tls.url().replace("http:", "https:"), "rest", true, "ssl_error"),
        (String::new(), "rest", true, "misconfigured"),
        (format!("{}/v1", api.url()), "rest with an endpoint", true, "healthy"),
        (format!("{}/v2", api.url()), "rest with an endpoint", true, "auth_failed"),
        (format!("{}/v3", api.url()), "rest with an endpoint", true, "misconfigured"),
        (silent.url(), "rest", false, ""),
        (String::new(), "mcp", true, ""),
    ]
    .into_iter()
    .chain((0..60).map(|_| (silent.url(), "rest", true, "timeout")))
    // The last integration is not reported late because of the others.
    .chain([(format!("{}/fhir", capable.url()), "fhir", true, "healthy")])
    {
        let name = fresh_slug();
        let mut body = json!({ "name": name, "display_name": "H", "protocol": protocol, "base_url": url, "enabled": enabled });
        if protocol == "rest with an endpoint" {
            let endpoint = |name: &str, path: &str| json!({ "name": name, "description": "E", "method": "GET", "path": path, "headers": { "x-own": "yes" } });
            body["protocol"] = json!("rest");
            body["endpoints"] = json!([endpoint("one", "/list/{id}"), endpoint("list", "/list?limit=1")]);
        }
        tenant.post("/integrations", body).await.created();
        if !status.is_empty() {
            wanted.push((name, status.to_owned()));
        }
    }
    let started = Instant::now();
    let told = tenant.get("/integrations/health-check").await.ok();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let reports = told.list("integrations");
    let told: Vec<_> = reports
        .iter()
        .map(|report| (report.text("name").to_owned(), report.text("status").to_owned()))
        .collect();
    assert_eq!(told, wanted);
});

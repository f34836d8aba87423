//! The front door through real sockets: whatever is sent is answered, and the server goes on.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use ward_contract::Operation;
use ward_test::{Sending, Server, Tenant, both};

use crate::instances::{Tape, body_schema, document, instance};

/// Operations that would end the tenant's own access, and so the test.
const ENDING: [&str; 4] = ["archive-workspace", "leave-workspace", "rotate-api-key", "delete-api-key"];

/// Says which case a test was at when it failed.
struct Case(String);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the case: {}", self.0);
        }
    }
}

fn draw<T: std::fmt::Debug>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).unwrap().current()
}

/// Bytes for a body: nearly JSON, JSON of no schema, or anything.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        any::<String>().prop_map(String::into_bytes),
        "[\\[\\]{},:\"a0.eE+\\-\\\\u \\n]{0,60}".prop_map(String::into_bytes),
        (1..300_usize, "[\\[{]").prop_map(|(depth, open)| open.repeat(depth).into_bytes()),
    ]
}

fn text_of_a_header() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,40}", "[\\t -~\u{80}-\u{ff}]{0,20}", "(Bearer|Basic|bearer) [ -~]{0,90}"]
}

both!(whatever_comes_over_http_gets_an_answer_that_the_document_declares, async || {
    let server = Server::start().await;
    let tenant = server.tenant("fuzzed").await;
    let target = tenant.whole_target(tenant.owner_key_id()).await;
    let document = document();
    let operations: Vec<_> = server.app.contract.operations().cloned().collect();
    let mut runner = crate::runner(300);
    let query =
        prop::collection::vec("(limit|continuation_token|search|date_from|\\PC{0,6})=?[ -~\\PC]{0,14}", 0..3);
    let header = prop::sample::select(
        &[
            "idempotency-key",
            "x-request-id",
            "content-encoding",
            "accept",
            "x-forwarded-for",
            "origin",
            "cookie",
            "user-agent",
            "x-twilio-signature",
            "expect-ct",
        ][..],
    );
    let headers = prop::collection::vec((header, text_of_a_header()), 0..3);
    for _ in 0..runner.config().cases {
        let operation: &Operation = &operations[draw(&mut runner, &(0..operations.len()))];
        let tape = draw(&mut runner, &prop::collection::vec(any::<u32>(), 0..100));
        let body = if operation.body.is_some() && draw(&mut runner, &any::<bool>()) {
            let schema = body_schema(&document, &operation.path, operation.method.as_str());
            instance(&document, schema, &mut Tape::new(&tape), 12).to_string().into_bytes()
        } else {
            draw(&mut runner, &bytes())
        };
        let kind = draw(
            &mut runner,
            &prop::option::weighted(
                0.9,
                prop_oneof![4 => Just("application/json".to_owned()), 1 => text_of_a_header()],
            ),
        );
        let headers = draw(&mut runner, &headers);
        let mut path = target.path(operation);
        if draw(&mut runner, &any::<bool>()) {
            path = format!("{path}?{}", draw(&mut runner, &query).join("&"));
        }
        let mut actor =
            if ENDING.contains(&operation.id.as_str()) { server.anonymous() } else { tenant.owner.clone() };
        if draw(&mut runner, &prop::bool::weighted(0.1)) {
            actor.bearer = Some(draw(&mut runner, &"[ -~]{0,90}"));
        }
        let case = Case(format!(
            "{} {path} {kind:?} {headers:?} {:?}",
            operation.method,
            String::from_utf8_lossy(&body)
        ));
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let bare = operation.method == Method::GET || operation.method == Method::DELETE;
        let sending =
            Sending { body: (!bare).then_some(body), content_type: kind.as_deref(), headers: &headers };
        // Checks what every answer has: a request id, an envelope where it is an error, a declared status.
        let answer = actor.send(operation.method.clone(), &path, sending).await;
        assert!(answer.status.as_u16() < 500, "{} {}", answer.status, answer.text);
        drop(case);
    }
    still_serves(&server, &tenant).await;
});

/// Sends bytes on a connection of their own; answers what came back until the server closed.
async fn exchange(server: &Server, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // The server may refuse, and close, before it has read all.
    let _ = stream.write_all(sent).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

both!(bytes_that_are_no_http_harm_nobody, async || {
    let server = Server::start().await;
    let tenant = server.tenant("fuzzed").await;
    let mut runner = crate::runner(150);
    let line = prop_oneof![
        Just("GET /v1/workspaces HTTP/1.1".to_owned()),
        "(GET|POST|PATCH|get|G T|\\PC{0,5}) [ -~\\PC]{0,30} (HTTP/1.1|HTTP/1.0|HTTP/2.0|HTTP/9.9|\\PC{0,8})",
        "PRI \\* HTTP/2.0",
    ];
    let header = prop_oneof![
        "(content-length|transfer-encoding|host|connection|authorization|content-type|expect|te|upgrade): ?[ -~\u{80}-\u{ff}]{0,30}",
        Just("transfer-encoding: chunked".to_owned()),
        "content-length: [0-9]{1,20}",
        "\\PC{0,20}",
    ];
    let request = (line, prop::collection::vec(header, 0..6), bytes());
    for _ in 0..runner.config().cases {
        let (line, headers, body) = draw(&mut runner, &request);
        let mut sent = format!("{line}\r\n{}\r\n\r\n", headers.join("\r\n")).into_bytes();
        sent.extend(body);
        if draw(&mut runner, &prop::bool::weighted(0.3)) {
            let at = draw(&mut runner, &(0..sent.len()));
            sent[at] = draw(&mut runner, &any::<u8>());
        }
        let case = Case(format!("{:?}", String::from_utf8_lossy(&sent)));
        let answer = exchange(&server, &sent).await;
        let text = String::from_utf8_lossy(&answer);
        if let Some(rest) = text.strip_prefix("HTTP/1.") {
            let status: u16 = rest[2..5].parse().unwrap();
            assert!((100..500).contains(&status), "{text}");
        }
        drop(case);
    }
    still_serves(&server, &tenant).await;
});

both!(a_query_or_header_of_any_bytes_that_http_allows_gets_the_envelope, async || {
    let server = Server::start().await;
    let tenant = server.tenant("fuzzed").await;
    let mut runner = crate::runner(150);
    let query = "([a-z_]{0,8}=)?([!$-;=?-Z_a-z~|]|%[0-9A-Fa-f]{2}|%[g-z]?){0,30}";
    // RFC 9110, section 5.5: visible characters, spaces, tabs and bytes beyond ASCII.
    let value = prop::collection::vec(prop_oneof![Just(b'\t'), 0x20..0x7f_u8, 0x80..=0xff_u8], 0..40);
    for _ in 0..runner.config().cases {
        let (query, bearer, agent) = draw(&mut runner, &(query, value.clone(), value.clone()));
        let mut sent = format!(
            "GET /v1/workspaces?{query} HTTP/1.1\r\nhost: ward\r\nconnection: close\r\nauthorization: "
        )
        .into_bytes();
        sent.extend([&bearer[..], b"\r\nuser-agent: ", &agent, b"\r\n\r\n"].concat());
        let case = Case(format!("{:?}", String::from_utf8_lossy(&sent)));
        let answer = String::from_utf8_lossy(&exchange(&server, &sent).await).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 401 "), "{answer}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let id = body["request_id"].as_str().unwrap();
        assert!(!id.is_empty() && head.contains(&format!("x-request-id: {id}")), "{answer}");
        assert_eq!(body["error_code"], "unauthorized");
        drop(case);
    }
    still_serves(&server, &tenant).await;
});

async fn still_serves(server: &Server, tenant: &Tenant) {
    let me = tenant.owner.get(&tenant.workspace("")).await.expect(StatusCode::OK);
    assert_eq!(me["slug"], "fuzzed");
    server.anonymous().create_workspace("afterwards").await;
}

//! The effect of one tenant's outbound calls on another: unanswered names, large answers, loops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use ward::ids::WorkspaceId;
use ward::quotas::Quota;
use ward::shares::Holder;
use ward_test::{Fields as _, Server, Tenant, both, fresh_slug};

use crate::outbound::{Peer, answer, endpoint, open_outbound, open_server, run};

/// A name server that answers names in `known.example` with 127.0.0.1 and never answers any other.
async fn name_server() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        let mut question = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            counted.fetch_add(1, Ordering::SeqCst);
            if let Some(reply) = reply_to(&question[..length]) {
                let _ = socket.send_to(&reply, from).await;
            }
        }
    });
    (address, asked)
}

/// The reply to a question (RFC 1035 section 4.1): an address for A, none for other types.
fn reply_to(question: &[u8]) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
        at = end;
    }
    let end = at + 5;
    if labels.iter().rev().take(2).rev().map(String::as_str).ne(["known", "example"]) {
        return None;
    }
    let is_address = question[at + 1..at + 3] == [0, 1];
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    reply.extend(&question[12..end]);
    if is_address {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(reply)
}

async fn server_asking(name_server: SocketAddr) -> Server {
    Server::with(|config| {
        open_outbound(config);
        config.outbound.time = Duration::from_secs(2);
        config.outbound.name_servers = vec![name_server];
    })
    .await
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

async fn silent_integrations(tenant: &Tenant, count: usize) {
    for index in 0..count {
        let base_url = format!("http://ehr-{index}.{}.silent.example", fresh_slug());
        let body = json!({ "name": format!("i{index}"), "display_name": "S", "base_url": base_url });
        tenant.post("/integrations", body).await.created();
    }
}

both!(names_that_are_never_answered_cost_others_nothing, async || {
    let (name_server, asked) = name_server().await;
    let server = server_asking(name_server).await;
    let (slow, quiet) = (server.tenant("slow").await, server.tenant("quiet").await);
    silent_integrations(&slow, 30).await;
    let peer = Peer::start(|_, _| Some(answer(200, "\"here\""))).await;
    let by_name = format!("http://ehr.known.example:{}", peer.url().rsplit(':').next().unwrap());
    let path = endpoint(&quiet, &by_name, json!({})).await;
    run(&quiet.owner, &path, json!({})).await;
    let before = threads();
    let mut checks = tokio::task::JoinSet::new();
    for check in 0..6 {
        let (owner, path) = (slow.owner.clone(), slow.path("/integrations/health-check"));
        checks.spawn(async move { owner.get(&path).await });
        // The first check has its calls before the others compete with it, so it is never refused.
        while check == 0 && asked.load(Ordering::SeqCst) < 25 {
            tokio::task::yield_now().await;
        }
    }
    while asked.load(Ordering::SeqCst) < 40 {
        tokio::task::yield_now().await;
    }
    // All of them are waiting for the silent zone now.
    for _ in 0..5 {
        assert_eq!(run(&quiet.owner, &path, json!({})).await["raw_response"], "here");
        quiet.get("/calls").await.ok();
        quiet.get("/audit").await.ok();
    }
    assert!(threads() < before + 40, "{} threads, {before} before", threads());
    let mut reports = 0;
    while let Some(checked) = checks.join_next().await {
        let checked = checked.unwrap();
        if checked.status == StatusCode::TOO_MANY_REQUESTS {
            assert_ne!(checked.header("retry-after"), "");
            continue;
        }
        for report in checked.ok().list("integrations") {
            assert!(["timeout", "unreachable"].contains(&report.text("status")), "{report}");
            reports += 1;
        }
    }
    assert!(reports >= 30, "{reports}");
});

both!(a_full_share_of_calls_concerns_its_workspace_alone, async || {
    let server = Server::with(|config| {
        open_outbound(config);
        config.outbound.calls = 6;
        config.quotas.set(Quota::OutboundCalls, 2);
        config.outbound.concurrency = 100;
    })
    .await;
    let (busy, quiet) = (server.tenant("busy").await, server.tenant("quiet").await);
    let silent = Peer::start(|_, _| None).await;
    let path = endpoint(&busy, &silent.url(), json!({})).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..80 {
        let (owner, path) = (busy.owner.clone(), path.clone());
        waiting.spawn(async move { owner.post(&path, json!({})).await });
    }
    let mut refused = 0;
    while let Some(ended) = waiting.join_next().await {
        let ended = ended.unwrap();
        assert_eq!(ended.header("retry-after"), "1", "{}", ended.text);
        ended.refused_as(429, "quota_exceeded");
        refused += 1;
        if refused == 78 {
            break;
        }
    }
    assert_eq!(silent.asked(), 2, "no more than its share is under way");
    let calls = async || {
        let usage = busy.owner.get(&busy.path("/usage")).await.expect(StatusCode::OK);
        let line =
            usage["quotas"].as_array().unwrap().iter().find(|it| it["name"] == "outbound_calls").cloned();
        line.unwrap()
    };
    assert_eq!(calls().await, json!({ "name": "outbound_calls", "used": 2, "limit": 2 }));
    let peer = Peer::start(|_, _| Some(answer(200, "1"))).await;
    let path = endpoint(&quiet, &peer.url(), json!({})).await;
    for _ in 0..3 {
        assert_eq!(run(&quiet.owner, &path, json!({})).await["raw_response"], 1);
    }
});

both!(a_check_without_a_free_call_reads_no_integration, async || {
    let server = Server::with(|config| {
        open_outbound(config);
        config.quotas.set(Quota::OutboundCalls, 1);
        config.outbound.concurrency = 100;
    })
    .await;
    let tenant = server.tenant("acme").await;
    let silent = Peer::start(|_, _| None).await;
    let path = endpoint(&tenant, &silent.url(), json!({})).await;
    let workspace = WorkspaceId::of_path(&tenant.id);
    let check = async || {
        let path = tenant.path("/integrations/health-check");
        let (answer, cost) = server.costs(async { tenant.owner.get(&path).await }).await;
        assert_eq!(answer.expect(StatusCode::TOO_MANY_REQUESTS)["quota"], "outbound_calls");
        cost
    };
    let call = async |running: &mut tokio::task::JoinSet<StatusCode>| {
        let (owner, path, asked) = (tenant.owner.clone(), path.clone(), silent.asked());
        running.spawn(async move { owner.post(&path, json!({})).await.status });
        while silent.asked() == asked {
            tokio::task::yield_now().await;
        }
    };
    let stop = async |running: &mut tokio::task::JoinSet<StatusCode>| {
        running.shutdown().await;
        while server.app.wire.calls_of(workspace) > 0 {
            tokio::task::yield_now().await;
        }
    };
    let mut running = tokio::task::JoinSet::new();
    // The workspace's only call is under way, so the check waits in vain.
    call(&mut running).await;
    let with_one = check().await;
    stop(&mut running).await;
    silent_integrations(&tenant, 29).await;
    call(&mut running).await;
    assert_eq!(check().await, with_one, "the cost of a refused check depends on no number of integrations");
    assert_eq!((with_one.reads, with_one.writes), (1, 0), "the check of the credential");
    stop(&mut running).await;
    // The first check has the only call. The next ones are refused, and those behind them never begin.
    let cost = check().await;
    assert_eq!((cost.reads, cost.writes), (3, 0), "the credential, the list and one integration");
});

both!(the_operator_lets_a_workspace_make_more_calls_at_once, async || {
    let server = Server::with(|config| {
        open_outbound(config);
        config.outbound.concurrency = 100;
        config.quotas.set(Quota::OutboundCalls, 1);
    })
    .await;
    let tenant = server.tenant("acme").await;
    let silent = Peer::start(|_, _| None).await;
    let path = endpoint(&tenant, &silent.url(), json!({})).await;
    for limit in [3, 5] {
        let new = vec![(Quota::OutboundCalls, Some(limit))];
        ward::operator::workspace_limits(&server.app, "acme", new).await.unwrap();
        let begun = silent.asked();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (owner, path) = (tenant.owner.clone(), path.clone());
            calls.spawn(async move { owner.post(&path, json!({})).await });
        }
        let mut refused = 0;
        while let Some(ended) = calls.join_next().await {
            let ended = ended.unwrap().expect(StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(ended["quota"], "outbound_calls");
            refused += 1;
            if refused == 8 - limit {
                break;
            }
        }
        assert_eq!(i64::try_from(silent.asked() - begun).unwrap(), limit);
        calls.shutdown().await;
        while server.app.wire.calls_of(WorkspaceId::of_path(&tenant.id)) > 0 {
            tokio::task::yield_now().await;
        }
    }
});

both!(beside_many_hostile_workspaces_a_quiet_one_calls_at_once, async || {
    let server = Server::with(|config| {
        open_outbound(config);
        config.outbound.calls = 128;
        config.outbound.concurrency = 100;
        config.quotas.set(Quota::OutboundCalls, 8);
    })
    .await;
    let quiet = server.tenant("quiet").await;
    let peer = Peer::start(|_, _| Some(answer(200, "1"))).await;
    let own = endpoint(&quiet, &peer.url(), json!({})).await;
    let silent = Peer::start(|_, _| None).await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..24 {
        let hostile = server.tenant(&format!("hostile-{number}")).await;
        let path = endpoint(&hostile, &silent.url(), json!({})).await;
        for _ in 0..12 {
            let (owner, path) = (hostile.owner.clone(), path.clone());
            waiting.spawn(async move { owner.post(&path, json!({})).await.status });
        }
        // After each that comes, the quiet one is served.
        assert_eq!(run(&quiet.owner, &own, json!({})).await["raw_response"], 1, "beside {number} others");
    }
    // Half of the places are for first calls, and each of the hostile workspaces has its two of those.
    assert!((48..128).contains(&silent.asked()), "{}", silent.asked());
    for _ in 0..5 {
        assert_eq!(run(&quiet.owner, &own, json!({})).await["raw_response"], 1);
    }
});

both!(an_answer_is_weighed_as_the_tree_that_it_becomes, async || {
    let server = Server::with(|config| {
        open_outbound(config);
        config.outbound.memory = 32 << 20;
    })
    .await;
    let tenant = server.tenant("acme").await;
    let swelling = format!("[{}{{}}]", "{},".repeat(300_000));
    let peer = Peer::start(move |_, _| Some(answer(200, &swelling))).await;
    let told = run(&tenant.owner, &endpoint(&tenant, &peer.url(), json!({})).await, json!({})).await;
    assert_eq!(told.fields(["status_code", "raw_response"]), json!([200, null]));
    assert!(told.text("error").contains("too many values"), "{}", told["error"]);
    let long = json!("x".repeat(900_000)).to_string();
    let peer = Peer::start(move |_, _| Some(answer(200, &long))).await;
    let told = run(&tenant.owner, &endpoint(&tenant, &peer.url(), json!({})).await, json!({})).await;
    assert_eq!(told.text("final_result").len(), 900_000, "a long text is no large tree");
});

/// Forwards every byte to `target`, as a proxy under another name would.
async fn relay(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(target).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

both!(no_tenant_makes_ward_call_itself, async || {
    let (name_server, _) = name_server().await;
    let server = Server::with(|config| {
        open_outbound(config);
        config.outbound.name_servers = vec![name_server];
        config.public_url = Some("https://ward.known.example".to_owned());
    })
    .await;
    let tenant = server.tenant("acme").await;
    let viewer = tenant.service("viewer").await;
    let key = json!({ "type": "bearer_token", "bearer_token_value": { "value": viewer.bearer.as_deref().unwrap() } });
    let port = server.address.port();
    let calls_itself = json!({ "path": tenant.path("/integrations/health-check"), "auth": key });
    for base in [
        server.url(),
        format!("http://localhost:{port}"),
        format!("http://self.known.example:{port}"),
        format!("http://127.1:{port}"),
        "https://ward.known.example".to_owned(),
        "https://WARD.known.example:443".to_owned(),
    ] {
        let path = endpoint(&tenant, &base, calls_itself.clone()).await;
        let told = run(&tenant.owner, &path, json!({})).await;
        assert_eq!(told["status_code"], Value::Null, "{base}");
        assert!(told.text("error").contains("this server itself"), "{base}: {told}");
    }
    // A redirect within its own origin cannot lead here either. Through a proxy, Ward recognizes its own
    // request.
    let proxy = format!("http://{}", relay(server.address).await);
    for more in [calls_itself.clone(), json!({ "path": "/healthz" }), json!({ "path": "/v1/docs" })] {
        let told = run(&tenant.owner, &endpoint(&tenant, &proxy, more).await, json!({})).await;
        assert_eq!(told["status_code"], 508, "{told}");
        assert_eq!(told["raw_response"]["error_code"], "loop_detected");
    }
    // A request of another installation is not one of its own.
    let other =
        Server::with(|config| config.master_key = ward::config::MasterKey::Given([8; 32].into())).await;
    let path = endpoint(&tenant, &other.url(), json!({ "path": "/healthz" })).await;
    assert_eq!(run(&tenant.owner, &path, json!({})).await["status_code"], 200);
    // An endpoint cannot remove the mark.
    let headers = json!({ "name": "e", "description": "E", "path": "/", "headers": { "X-Ward-Hop": "0" } });
    let body = json!({ "name": "x", "display_name": "X", "endpoints": [headers] });
    let refused = tenant.post("/integrations", body).await;
    assert_eq!(refused.problem_locs(), ["body.endpoints.0.headers.X-Ward-Hop"]);
});

both!(one_health_check_causes_a_bounded_number_of_bytes, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    let headers: serde_json::Map<String, Value> =
        (0..3).map(|index| (format!("x-h{index}"), json!("y".repeat(4000)))).collect();
    let endpoints =
        json!([{ "name": "e", "description": "E", "path": "/", "method": "GET", "headers": headers }]);
    let body = json!({ "name": "a", "display_name": "A", "endpoints": endpoints });
    assert_eq!(tenant.post("/integrations", body).await.problem_locs(), ["body.endpoints.0.headers"]);
});

both!(a_share_of_cpu_work_is_given_back, async || {
    let server = Server::start().await;
    let holder = Holder::Workspace(WorkspaceId::of_path("6ba7b810-9dad-41d1-80b4-00c04fd430c8"));
    for _ in 0..50 {
        assert_eq!(server.app.work.run(holder, || 7).await.unwrap(), 7);
    }
    let failed = server.app.work.run(holder, || -> i32 { panic!("a fault of the work") }).await;
    assert_eq!(failed.unwrap_err().status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(server.app.work.run(holder, || 8).await.unwrap(), 8, "a panic gives its share back too");
});

both!(a_page_is_all_that_a_list_reads, async || {
    let (server, tenant) = Server::with_tenant().await;
    let filler = "z".repeat(4_000);
    for index in 0..9 {
        let endpoint = json!({ "name": "e", "description": filler, "path": "/" });
        let body = json!({ "name": format!("i{index}"), "display_name": "I", "endpoints": [endpoint] });
        tenant.post("/integrations", body).await.created();
    }
    // The last row cannot be parsed; a page without it is not affected.
    let statement = "UPDATE integrations SET endpoints = CAST('{\"a\": 1}' AS jsonb) WHERE name = 'i8'";
    let sqlite = ward_test::Engine::current() == ward_test::Engine::Sqlite;
    let statement = if sqlite { statement.replace("AS jsonb", "AS text") } else { statement.to_owned() };
    assert_eq!(server.sql(statement).await, 1);
    for query in ["limit=5", "limit=5&sort_by=name", "limit=5&search=I", "limit=5&protocol=rest&enabled=true"]
    {
        let page = tenant.get(&format!("/integrations?{query}")).await.ok();
        let names: Vec<&str> = page.texts("items", "name");
        assert_eq!(names, ["i0", "i1", "i2", "i3", "i4"], "{query}");
        assert_eq!(page.fields(["has_more", "total"]), json!([true, 9]), "{query}");
        let next = format!("/integrations?{query}&continuation_token={}", page["continuation_token"]);
        let next = tenant.get(&next.replace("limit=5", "limit=3")).await.ok();
        assert_eq!(next["items"][0]["name"], "i5", "{query}");
    }
});

/// Sends a test's request and reads nothing of its answer.
async fn unread(server: &Server, tenant: &Tenant, path: &str, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let bearer = tenant.owner.bearer.as_deref().unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {bearer}\r\ncontent-type: application/json\r\n\
         {more}content-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

both!(an_answer_that_no_client_reads_keeps_its_shares, async || {
    let server = open_server().await;
    let (busy, quiet) = (server.tenant("busy").await, server.tenant("quiet").await);
    let controls = "\u{1}".repeat(1 << 20);
    let peer = Peer::start(move |_, _| Some(answer(200, &controls))).await;
    let path = endpoint(&busy, &peer.url(), json!({})).await;
    let (wire, id) = (&server.app.wire, WorkspaceId::of_path(&busy.id));
    let until = async |done: &dyn Fn() -> bool| {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    // Escaped, the text is 24 times as long as what the EHR sent.
    let first = unread(&server, &busy, &path, "").await;
    until(&|| wire.calls_of(id) == 1 && wire.memory_used() > 20 * 1024).await;
    let second = unread(&server, &busy, &path, "idempotency-key: a-key-of-16-chars\r\n").await;
    until(&|| wire.calls_of(id) == 2 && wire.memory_used() > 40 * 1024).await;
    busy.owner.post(&path, json!({})).await.refused_as(429, "share_used_up");
    let own = endpoint(&quiet, &peer.url(), json!({})).await;
    assert_eq!(run(&quiet.owner, &own, json!({})).await["status_code"], 200);
    drop((first, second));
    until(&|| wire.calls_of(id) == 0 && wire.memory_used() == 0).await;
    // The answer was too large to be stored, so its retry is refused.
    let again = busy.owner.post_once(&path, "a-key-of-16-chars", json!({})).await;
    again.refused_as(409, "secret_no_longer_shown");
});

/// Redirects to the same path with a body that never ends, three times of four.
#[expect(clippy::unnecessary_wraps, reason = "the form of a script of a peer, which may also give no answer")]
fn turning(_: &str, index: usize) -> Option<Vec<u8>> {
    let moved = "HTTP/1.1 302 X\r\nlocation: /\r\ncontent-length: 1000000\r\n\r\nhalf";
    Some(if index % 4 == 3 { answer(503, "\"no\"") } else { moved.as_bytes().to_vec() })
}

both!(one_request_causes_a_bounded_number_of_outbound_requests, async || {
    let server = Server::with(open_outbound).await;
    let tenant = server.tenant("acme").await;
    let peer = Peer::start(turning).await;
    let once = endpoint(&tenant, &peer.url(), json!({})).await;
    let told = run(&tenant.owner, &once, json!({})).await;
    assert_eq!(told["status_code"], 503, "the body of a redirect is not waited for: {told}");
    assert_eq!(peer.asked(), 4);
    let retry = json!({ "retry_config": { "max_retries": 5, "retry_on_status": [503] } });
    let often = endpoint(&tenant, &peer.url(), retry).await;
    let told = run(&tenant.owner, &often, json!({})).await;
    assert!(peer.asked() <= 4 + 16, "{}: {told}", peer.asked());
    assert!(told.text("error").contains("no outbound request is left"), "{told}");
    for _ in 0..90 {
        let body = json!({ "name": fresh_slug(), "display_name": "T", "base_url": peer.url() });
        tenant.post("/integrations", body).await.created();
    }
    let before = peer.asked();
    tenant.get("/integrations/health-check").await.ok();
    assert!(peer.asked() - before <= 300, "{}", peer.asked() - before);
});

//! The server's outer layer against real sockets: how it treats slow, greedy and broken clients.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint takes for product code")]

mod http2;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::HeaderMap;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use ward_server::tls::{self, TlsFiles};
use ward_server::{Limits, Peer, ServeOptions, serve};

use http2::{asking, http2};

/// A limit for every wait: longer than any step of these tests needs, and bearable for a person who waits.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGE: usize = 64 * 1024 * 1024;
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: w\r\n\r\n";

struct Server {
    address: SocketAddr,
    held: Arc<HeldRequests>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<std::io::Result<()>>,
}

/// The requests of `/held`: each reports its arrival, and is answered when the test allows it.
#[derive(Default)]
struct HeldRequests {
    come: Notify,
    may_go: Notify,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        Self::start_with(ServeOptions {
            limits,
            tls: None,
            trusted_proxies: Vec::new(),
            fields: HeaderMap::new(),
            early_fields: HeaderMap::new(),
        })
        .await
    }

    async fn start_with(options: ServeOptions) -> Self {
        let held = Arc::new(HeldRequests::default());
        let hold = |Extension(held): Extension<Arc<HeldRequests>>| async move {
            held.come.notify_one();
            held.may_go.notified().await;
            "done"
        };
        let keep = |Extension(held): Extension<Arc<HeldRequests>>, body: Body| async move {
            held.come.notify_one();
            held.may_go.notified().await;
            drop(body);
            "done"
        };
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/unread", post(|| async { (http::StatusCode::FORBIDDEN, "refused") }))
            .route("/echo", post(|body: String| async { body }))
            .route("/peer", get(|Extension(Peer(peer)): Extension<Peer>| async move { peer.to_string() }))
            .route("/large", get(|| async { vec![b'x'; LARGE].into_response() }))
            .route("/held", get(hold).layer(Extension(held.clone())))
            .route("/never-read", post(keep).layer(Extension(held.clone())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let ended = tokio::spawn(serve(listener, router, options, shutdown));
        Self { address, held, stop: Some(stop), ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that was answered once.
    async fn greeted(&self) -> TcpStream {
        let mut client = self.connect().await;
        client.write_all(GET).await.unwrap();
        until(&mut client, "hello").await;
        client
    }

    /// Whether a further connection gets the refusal for too many connections.
    async fn turned_away(&self) -> bool {
        let mut client = self.connect().await;
        let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await;
        let answer = rest(&mut client).await;
        assert!(answer.ends_with("hello") || answer.starts_with("HTTP/1.1 503 "), "{answer}");
        !answer.ends_with("hello")
    }

    fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }
}

/// Limits that a test reaches and waits for.
fn quick() -> Limits {
    Limits {
        header_time: Duration::from_millis(400),
        write_idle: Duration::from_millis(400),
        request_time: Duration::from_secs(2),
        ..patient()
    }
}

/// Time limits that no test reaches, even on a slow machine.
fn patient() -> Limits {
    let long = 2 * PATIENCE;
    Limits {
        header_time: long,
        write_idle: long,
        request_time: long,
        shutdown_time: long,
        header_bytes: 8192,
        ..Limits::default()
    }
}

/// Everything until the server closes; a reset counts as closing.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ =
        timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for one answer, which ends with `ending`.
async fn until(stream: &mut TcpStream, ending: &str) {
    one_answer(stream, ending).await;
}

/// One complete answer, which ends with `ending`.
async fn one_answer(stream: &mut TcpStream, ending: &str) -> String {
    let mut text = String::new();
    let mut chunk = [0; 4096];
    while !text.ends_with(ending) {
        let count = timeout(PATIENCE, stream.read(&mut chunk)).await.expect("an answer").unwrap();
        assert_ne!(count, 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    text
}

/// The body of an answer that Ward gave without its router.
fn json_of(answer: &str) -> serde_json::Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(head.contains(&format!("x-request-id: {}", body["request_id"].as_str().unwrap())), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(body["detail"].as_str().unwrap().ends_with('.'), "{body}");
    body
}

#[tokio::test]
async fn requests_know_their_peer() {
    let server = Server::start(patient()).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /peer HTTP/1.1\r\nhost: w\r\n\r\n").await.unwrap();
    let own = client.local_addr().unwrap().to_string();
    until(&mut client, &own).await;
}

#[tokio::test]
async fn silence_and_slow_heads_are_cut() {
    let server = Server::start(quick()).await;
    for start in ["", "PRI * HT", "GET / HTTP/1.1\r\nhost:"] {
        let mut client = server.connect().await;
        client.write_all(start.as_bytes()).await.unwrap();
        let began = Instant::now();
        assert_eq!(rest(&mut client).await, "", "after {start:?}");
        assert!(began.elapsed() > Duration::from_millis(200), "cut too early after {start:?}");
    }
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_all_the_same() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    let began = Instant::now();
    client.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    while began.elapsed() < PATIENCE && client.write_all(b"x").await.is_ok() {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test]
async fn idle_keep_alive_is_cut() {
    let server = Server::start(quick()).await;
    let mut client = server.greeted().await;
    client.write_all(GET).await.unwrap();
    until(&mut client, "hello").await;
    assert_eq!(rest(&mut client).await, "");
}

#[tokio::test]
async fn a_large_head_is_431_in_json() {
    let server = Server::start(patient()).await;
    let mut client = server.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: w\r\nx-large: {}\r\n\r\n", "x".repeat(20_000));
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(json_of(&answer)["error_code"], "headers_too_large");
}

#[tokio::test]
async fn a_request_that_is_not_http_gets_400_in_json() {
    let server = Server::start(patient()).await;
    for garbage in ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n", "\u{1}\u{2}\u{3}\r\n\r\n"] {
        let mut client = server.connect().await;
        client.write_all(garbage.as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{garbage:?}: {answer}");
        assert_eq!(json_of(&answer)["error_code"], "malformed_request");
    }
}

#[tokio::test]
async fn a_request_names_one_host_and_sends_a_credential_once() {
    let server = Server::start(patient()).await;
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: w\r\nhost: w\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a@w\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: w/\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: w\r\nauthorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: w\r\nidempotency-key: a\r\nidempotency-key: a\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: w\r\nhost: w\r\n\r\n",
    ] {
        let mut client = server.connect().await;
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "),
            "{head:?}: {answer}"
        );
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(json_of(&answer)["error_code"], "malformed_request");
    }
    let mut old = server.connect().await;
    old.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(rest(&mut old).await.ends_with("hello"), "HTTP/1.0 has no Host");
    let mut sender = http2(server.connect().await).await;
    let mut twice = asking("/");
    for _ in 0..2 {
        twice.headers_mut().append("authorization", "Bearer a".parse().unwrap());
    }
    assert_eq!(sender.send_request(twice).await.unwrap().status(), 400);
    assert_eq!(sender.send_request(asking("/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_that_ends_its_sending_half_gets_its_answer() {
    let server = Server::start(patient()).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /held HTTP/1.1\r\nhost: w\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    server.held.come.notified().await;
    server.held.may_go.notify_one();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer}");
    let mut quick = server.connect().await;
    quick.write_all(GET).await.unwrap();
    quick.shutdown().await.unwrap();
    assert!(rest(&mut quick).await.ends_with("hello"));
}

/// The head of a POST that is answered without reading its body.
fn unread(length: usize) -> String {
    format!("POST /unread HTTP/1.1\r\nhost: w\r\ncontent-length: {length}\r\n\r\n")
}

#[tokio::test]
async fn a_short_body_that_is_not_read_leaves_the_connection_usable() {
    let server = Server::start(patient()).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.write_all(unread(20_000).as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; 20_000]).await.unwrap();
        let answer = one_answer(&mut client, "refused").await;
        assert!(!answer.contains("connection: close"), "{answer}");
    }
    client.write_all(GET).await.unwrap();
    until(&mut client, "hello").await;
}

#[tokio::test]
async fn a_body_that_is_not_read_to_its_end_ends_the_connection_and_the_answer_says_so() {
    let server = Server::start(patient()).await;
    // One body is too long, one is not finished, and one waits for permission.
    let waiting = unread(10).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    let chunked = "POST /unread HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for (head, body) in [
        (unread(1 << 30), vec![b'x'; 1 << 20]),
        (unread(1_000), vec![b'x'; 10]),
        (waiting, vec![]),
        (chunked.to_owned(), vec![]),
    ] {
        let mut client = server.connect().await;
        client.write_all(head.as_bytes()).await.unwrap();
        let _ = client.write_all(&body).await;
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("refused"), "{head:?}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{head:?}: {answer}");
    }
}

#[tokio::test]
async fn silent_addresses_do_not_keep_others_out() {
    let limits = Limits { connections: 8, connections_per_address: 4, ..patient() };
    let server = Server::start(limits).await;
    let connect = async |address: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        socket.connect(server.address).await.unwrap()
    };
    let mut silent = Vec::new();
    for address in ["127.0.0.2", "127.0.0.3"] {
        for _ in 0..4 {
            silent.push(connect(address).await);
        }
    }
    // One client sends half a request, and one waits with the rest of a body.
    silent[0].write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    silent[4].write_all(format!("{}x", unread(10).replace("/unread", "/echo")).as_bytes()).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = connect("127.0.0.4").await;
        other.write_all(GET).await.unwrap();
        until(&mut other, "hello").await;
        others.push(other);
    }
    // A client that is being served keeps its connection.
    for other in &mut others {
        other.write_all(GET).await.unwrap();
        until(other, "hello").await;
    }
}

#[tokio::test]
async fn connections_of_one_address_are_bounded() {
    let server = Server::start(Limits { connections_per_address: 2, ..patient() }).await;
    let held = (server.greeted().await, server.greeted().await);
    let mut third = server.connect().await;
    third.write_all(GET).await.unwrap();
    let answer = rest(&mut third).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("\r\nretry-after: 1\r\n") && answer.contains("\r\nconnection: close\r\n"),
        "{answer}"
    );
    assert_eq!(json_of(&answer)["error_code"], "too_many_connections");

    drop(held);
    let began = Instant::now();
    while server.turned_away().await {
        assert!(began.elapsed() < PATIENCE, "the two that left still count");
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_bounded_by_the_total_only() {
    let limits = Limits { connections: 3, connections_per_address: 1, ..patient() };
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let server = Server::start_with(ServeOptions {
        limits,
        tls: None,
        trusted_proxies,
        fields: HeaderMap::new(),
        early_fields: HeaderMap::new(),
    })
    .await;
    let _held = (server.greeted().await, server.greeted().await, server.greeted().await);
    assert!(rest(&mut server.connect().await).await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /large HTTP/1.1\r\nhost: w\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(1500)).await;
    assert!(rest(&mut client).await.len() < LARGE, "the server waited for a client that did not read");
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_gets_it_all() {
    let limits = Limits { write_idle: Duration::from_secs(1), ..patient() };
    let server = Server::start(limits).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /large HTTP/1.1\r\nhost: w\r\n\r\n").await.unwrap();
    let began = Instant::now();
    let mut chunk = vec![0; 1024 * 1024];
    let mut seen = 0;
    while seen < LARGE {
        sleep(Duration::from_millis(25)).await;
        let count = timeout(PATIENCE, client.read(&mut chunk)).await.unwrap().unwrap();
        assert_ne!(count, 0, "cut after {seen} bytes");
        seen += count;
    }
    assert!(began.elapsed() > Duration::from_secs(1), "it took no longer than a pause may");
}

#[tokio::test]
async fn shutdown_finishes_the_request_at_hand_and_closes_the_idle() {
    let mut server = Server::start(patient()).await;
    let mut idle = server.greeted().await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /held HTTP/1.1\r\nhost: w\r\n\r\n").await.unwrap();
    server.held.come.notified().await;
    server.stop();
    assert_eq!(rest(&mut idle).await, "", "the idle connection is closed while the other is busy");
    server.held.may_go.notify_one();
    let answer = rest(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer}");
    timeout(PATIENCE, server.ended).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "the server listens no more");
}

#[tokio::test]
async fn shutdown_ends_connections_that_do_not_end() {
    let limits = Limits { shutdown_time: Duration::from_millis(200), ..patient() };
    let mut server = Server::start(limits).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /held HTTP/1.1\r\nhost: w\r\n\r\n").await.unwrap();
    server.held.come.notified().await;
    server.stop();
    assert_eq!(rest(&mut busy).await, "");
    timeout(PATIENCE, server.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_made_just_before_shutdown_is_still_served() {
    let mut server = Server::start(patient()).await;
    let mut client = server.connect().await;
    server.stop();
    sleep(Duration::from_millis(50)).await;
    client.write_all(GET).await.unwrap();
    assert!(rest(&mut client).await.ends_with("hello"));
    timeout(PATIENCE, server.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_cuts_no_client_that_connects_at_the_same_moment() {
    /// The number of answers until the first refused connection.
    async fn answers(address: SocketAddr) -> usize {
        for answered in 0.. {
            let connecting = timeout(Duration::from_millis(500), TcpStream::connect(address)).await;
            let Ok(Ok(mut client)) = connecting else { return answered };
            client.write_all(b"GET / HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            timeout(PATIENCE, client.read_to_end(&mut answer))
                .await
                .unwrap()
                .expect("an answer, not a reset");
            assert!(answer.ends_with(b"hello"), "{}", String::from_utf8_lossy(&answer));
        }
        unreachable!("the server stops")
    }
    let mut answered = 0;
    for _ in 0..40 {
        let mut server = Server::start(patient()).await;
        let clients: Vec<_> = (0..16).map(|_| tokio::spawn(answers(server.address))).collect();
        sleep(Duration::from_millis(20)).await;
        server.stop();
        timeout(PATIENCE, server.ended).await.unwrap().unwrap().unwrap();
        for client in clients {
            answered += client.await.unwrap();
        }
    }
    assert!(answered > 0, "no client was answered before a stop");
}

/// A self-signed identity on disk, and a client configuration that trusts it.
fn identity(folder: &std::path::Path) -> (TlsFiles, rustls::ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    for file in [&files.certificate, &files.key] {
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (files, client)
}

#[tokio::test]
async fn tls_speaks_both_versions_and_cuts_silence() {
    let folder = tempfile::tempdir().unwrap();
    let (files, client) = identity(folder.path());
    let tls = Some(tls::load(&files).unwrap());
    let limits = Limits { header_time: Duration::from_secs(2), ..patient() };
    let server = Server::start_with(ServeOptions {
        limits,
        tls,
        trusted_proxies: Vec::new(),
        fields: HeaderMap::new(),
        early_fields: HeaderMap::new(),
    })
    .await;
    let connect = async |alpn: &str| {
        let mut client = client.clone();
        client.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, server.connect().await).await.unwrap()
    };

    let mut sender = http2(connect("h2").await).await;
    assert_eq!(sender.send_request(asking("/")).await.unwrap().version(), http::Version::HTTP_2);

    let mut stream = connect("http/1.1").await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");

    let mut silent = server.connect().await;
    rest(&mut silent).await;
}

#[tokio::test]
async fn unusable_tls_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = identity(folder.path());
    let swapped = TlsFiles { certificate: files.key.clone(), key: files.certificate.clone() };
    let error = tls::load(&swapped).unwrap_err().to_string();
    assert!(error.contains("key.pem") && error.contains("certificate"), "{error}");
    std::fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let shared = tls::load(&files).unwrap_err().to_string();
    assert!(shared.contains("key.pem") && shared.contains("chmod 600"), "{shared}");
    std::fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let pipe = folder.path().join("pipe.pem");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for files in [
        TlsFiles { key: pipe.clone(), ..files.clone() },
        TlsFiles { certificate: pipe.clone(), ..files.clone() },
    ] {
        let refused = tls::load(&files).unwrap_err().to_string();
        assert!(refused.contains("pipe.pem") && refused.contains("not an ordinary file"), "{refused}");
    }
    let missing = TlsFiles { key: folder.path().join("nowhere.pem"), ..files.clone() };
    assert!(tls::load(&missing).unwrap_err().to_string().contains("nowhere.pem"));
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let mixed = TlsFiles { key: identity(&other).0.key, ..files };
    assert!(tls::load(&mixed).unwrap_err().to_string().contains("do not make a TLS identity"));
}

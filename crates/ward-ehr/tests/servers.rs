//! Credentials against published servers of other projects: oidc-provider (npm), Authlib and devpi-server
//! (`PyPI`).
//!
//! The first run installs them at the pinned versions. If that is not possible, the tests report that they
//! are LEFT OUT. `WARD_TEST_SERVERS=require` makes that a failure; `off` leaves them out without an attempt.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use support::{open, outbound, soon};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use ward_ehr::auth::{Algorithm, Grant, Signer, TokenAuth};
use ward_ehr::{Answer, Auth, Failure, FailureKind, Limits, Request, Secret, Tokens};

const SCOPE: &str = "system/DocumentReference.c";

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers")
}

fn built() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("servers")
}

fn setting(wanted: &str) -> bool {
    std::env::var("WARD_TEST_SERVERS").is_ok_and(|value| value == wanted)
}

/// Writes past the test harness, which hides the output of passing tests.
fn left_out(what: &str) {
    use std::io::Write as _;
    assert!(!setting("require"), "{what}");
    let _ = std::io::stderr().write_all(format!("\nLEFT OUT: {what}\n").as_bytes());
}

async fn runs(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().await.is_ok_and(|status| status.success())
}

/// Installs oidc-provider and returns its folder.
async fn node() -> Option<&'static Path> {
    static INSTALLED: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let installed = INSTALLED.get_or_init(|| async {
        if setting("off") {
            left_out("WARD_TEST_SERVERS=off, so nothing is proved against oidc-provider");
            return None;
        }
        let folder = built().join("node");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["package.json", "package-lock.json", "oidc.mjs"] {
            std::fs::copy(files().join(name), folder.join(name)).unwrap();
        }
        let done = folder.join("node_modules/oidc-provider/package.json").exists()
            || runs(
                Command::new("npm")
                    .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                    .current_dir(&folder),
            )
            .await;
        if !done {
            left_out("npm ci does not work here, so nothing is proved against oidc-provider");
        }
        done.then_some(folder)
    });
    installed.await.as_deref()
}

/// Installs Authlib and devpi-server and returns the folder of their commands.
async fn python() -> Option<&'static Path> {
    static INSTALLED: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let installed = INSTALLED.get_or_init(|| async {
        if setting("off") {
            left_out("WARD_TEST_SERVERS=off, so nothing is proved against Authlib and devpi-server");
            return None;
        }
        let folder = built().join("python");
        let (commands, done) = (folder.join("bin"), folder.join("installed"));
        if !done.exists() {
            let requirements = files().join("requirements.txt");
            let mut install = Command::new(commands.join("pip"));
            install.args(["install", "--quiet", "--no-deps", "--require-hashes", "-r"]).arg(requirements);
            if !runs(Command::new("python3").args(["-m", "venv"]).arg(&folder)).await
                || !runs(&mut install).await
            {
                left_out(
                    "pip install does not work here, so nothing is proved against Authlib and devpi-server",
                );
                return None;
            }
            std::fs::write(done, "").unwrap();
        }
        Some(commands)
    });
    installed.await.as_deref()
}

/// A server that prints one line of JSON when it listens. It ends with the test.
struct Server {
    said: Value,
    _child: Child,
}

impl Server {
    /// A foreign runtime sometimes hangs before its first line. That is not a fault of Ward, so the start is
    /// tried three times.
    async fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        for _ in 0..3 {
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            let mut lines = BufReader::new(child.stdout.take().unwrap());
            let read = tokio::time::timeout(Duration::from_secs(40), lines.read_line(&mut line)).await;
            if let Ok(read) = read {
                read.unwrap();
                return Self { said: serde_json::from_str(&line).unwrap(), _child: child };
            }
        }
        panic!("{command:?} printed no line within 40 seconds, three times")
    }

    fn text(&self, name: &str) -> &str {
        self.said[name].as_str().unwrap()
    }

    fn signer(&self, algorithm: Algorithm, kid: Option<&str>) -> Signer {
        let pem = self.text(if algorithm == Algorithm::Es384 { "ec" } else { "rsa" });
        Signer::new(algorithm, &Secret::new(pem), kid.map(str::to_owned)).unwrap()
    }
}

async fn oidc() -> Option<Server> {
    let folder = node().await?;
    Some(Server::start(Command::new("node").arg("oidc.mjs").current_dir(folder)).await)
}

fn slow() -> Limits {
    Limits { total_time: Duration::from_secs(20), ..open() }
}

async fn token(grant: Grant, token_url: Option<String>) -> Result<Secret, Failure> {
    let how = TokenAuth {
        grant,
        token_url: token_url.map(|url| url.parse().unwrap()),
        assumed_lifetime: Duration::from_hours(1),
    };
    Tokens::default().get(&outbound(slow()), &how, None, soon()).await
}

#[track_caller]
fn refused(got: Result<Secret, Failure>, reason: &str) {
    let failure = got.unwrap_err();
    assert_eq!(failure.kind, FailureKind::AuthFailed, "{failure}");
    assert!(failure.message.ends_with(reason), "{failure}");
}

#[tokio::test]
async fn oauth2_client_credentials_against_oidc_provider() {
    let Some(server) = oidc().await else { return };
    let url = || Some(format!("{}/token", server.text("issuer")));
    let grant = |id: &str, secret: &str, scope: &str| Grant::ClientCredentials {
        client_id: id.into(),
        client_secret: Secret::new(secret),
        in_form: false,
        scopes: vec![scope.into()],
    };
    let (id, secret) = ("by secret:1", "p@ss word:+%&/~");
    let got = token(grant(id, secret, SCOPE), url()).await.unwrap();
    assert!(introspects_as_active(&server, &got, id, secret).await);
    refused(token(grant(id, "wrong", SCOPE), url()).await, "invalid_client");
    refused(token(grant("nobody", secret, SCOPE), url()).await, "invalid_client");
    refused(token(grant(id, secret, "system/Everything.*"), url()).await, "invalid_scope");
}

/// Asks the server itself whether it issued the token.
async fn introspects_as_active(server: &Server, token: &Secret, id: &str, secret: &str) -> bool {
    use base64::Engine as _;
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let basic =
        base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(&format!("Basic {basic}")).unwrap());
    headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
    let url = format!("{}/token/introspection", server.text("issuer")).parse().unwrap();
    let request =
        Request { method: Method::POST, url, headers, body: format!("token={}", token.expose()).into() };
    let answer = outbound(slow()).send(&request, soon()).await.unwrap();
    serde_json::from_slice::<Value>(&answer.body).unwrap()["active"] == true
}

#[tokio::test]
async fn smart_backend_services_against_oidc_provider() {
    let Some(server) = oidc().await else { return };
    let issuer = server.text("issuer");
    let url = || Some(format!("{issuer}/token"));
    let grant =
        |client: &str, signer: Signer, audience: Option<String>, scope: &str| Grant::SmartBackendServices {
            signer,
            client_id: client.into(),
            audience,
            scopes: vec![scope.into()],
            fhir_base: "http://127.0.0.1:1/fhir".parse().unwrap(),
        };
    // This server expects its own name as the audience. Others expect their token endpoint, as SMART says.
    let its_name = || Some(issuer.to_owned());
    for (client, algorithm, kid) in
        [("rs384", Algorithm::Rs384, "rsa-1"), ("es384", Algorithm::Es384, "ec-1")]
    {
        for kid in [Some(kid), None] {
            let signer = server.signer(algorithm, kid);
            let got = token(grant(client, signer.clone(), its_name(), SCOPE), url()).await.unwrap();
            assert!(introspects_as_active(&server, &got, "by secret:1", "p@ss word:+%&/~").await, "{client}");
            // Each assertion is a new one: this server remembers every jti and accepts none twice.
            token(grant(client, signer.clone(), its_name(), SCOPE), url()).await.unwrap();
            let elsewhere = Some("https://another.example/token".to_owned());
            refused(token(grant(client, signer.clone(), elsewhere, SCOPE), url()).await, "invalid_client");
            refused(
                token(grant(client, signer.clone(), its_name(), "system/Everything.*"), url()).await,
                "invalid_scope",
            );
            refused(token(grant("nobody", signer, its_name(), SCOPE), url()).await, "invalid_client");
        }
    }
    // The first signer has another key, the second one the right key with the wrong algorithm.
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let other = Signer::new(Algorithm::Es384, &Secret::new(other), Some("ec-1".into())).unwrap();
    refused(token(grant("es384", other, its_name(), SCOPE), url()).await, "invalid_client");
    let crossed = server.signer(Algorithm::Es384, Some("ec-1"));
    refused(token(grant("rs384", crossed, its_name(), SCOPE), url()).await, "invalid_client");
}

async fn send(auth: &Auth, method: Method, url: String, body: &'static str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("accept", HeaderValue::from_static("application/json"));
    let request =
        Request { method, url: url.parse().unwrap(), headers, body: Bytes::from_static(body.as_bytes()) };
    Auth::send(Some(auth), &outbound(slow()), &Tokens::default(), request, soon()).await.unwrap().answer
}

#[tokio::test]
async fn bearer_token_against_oidc_provider() {
    let Some(server) = oidc().await else { return };
    // The registration of a client needs an initial access token (RFC 7591 section 3), which is a fixed
    // bearer token.
    let register = async |token: &str| {
        let url = format!("{}/reg", server.text("issuer"));
        let body = r#"{"redirect_uris":["https://client.example/cb"]}"#;
        send(&Auth::BearerToken(Secret::new(token)), Method::POST, url, body).await.status.as_u16()
    };
    assert_eq!(register("an-initial-access-token").await, 201);
    assert_eq!(register("another-token").await, 401);
}

#[tokio::test]
async fn oauth2_jwt_bearer_against_authlib() {
    let Some(commands) = python().await else { return };
    let server =
        Server::start(Command::new(commands.join("python")).arg(files().join("jwt_bearer.py"))).await;
    let url = || Some(format!("{}/token", server.text("issuer")));
    let grant =
        |signer: Signer, issuer: &str, subject: &str, audience: Option<&str>, scope: &str| Grant::JwtBearer {
            signer,
            issuer: issuer.into(),
            subject: Some(subject.into()),
            audience: audience.map(str::to_owned),
            scopes: vec![scope.into()],
            scopes_in_jwt: false,
        };
    for (issuer, algorithm) in [("rsa", Algorithm::Rs384), ("ec", Algorithm::Es384)] {
        let signer = server.signer(algorithm, None);
        token(grant(signer.clone(), issuer, "clinic", None, "notes:write"), url()).await.unwrap();
        let elsewhere = Some("https://another.example/token");
        refused(
            token(grant(signer.clone(), issuer, "clinic", elsewhere, "notes:write"), url()).await,
            "invalid_grant",
        );
        refused(
            token(grant(signer.clone(), issuer, "nobody", None, "notes:write"), url()).await,
            "invalid_grant",
        );
        refused(
            token(grant(signer, "stranger", "clinic", None, "notes:write"), url()).await,
            "invalid_grant",
        );
    }
    let crossed = server.signer(Algorithm::Rs384, None);
    refused(token(grant(crossed, "ec", "clinic", None, "notes:write"), url()).await, "invalid_grant");
}

#[tokio::test]
async fn api_key_header_against_devpi_server() {
    use base64::Engine as _;
    let Some(commands) = python().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let serving = folder.path().join("data");
    let init = runs(
        Command::new(commands.join("devpi-init")).arg("--serverdir").arg(&serving).arg("--no-root-pypi"),
    )
    .await;
    assert!(init, "devpi-init");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _child = Command::new(commands.join("devpi-server"))
        .arg("--serverdir")
        .arg(&serving)
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--restrict-modify",
            "root",
            "--offline-mode",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let base = format!("http://127.0.0.1:{port}");
    for _ in 0..300 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The answer to a login holds the token from which the key is made.
    let none = Auth::ApiKeyHeader { name: "x-nothing".parse().unwrap(), key: Secret::new("-") };
    let login = send(&none, Method::POST, format!("{base}/+login"), r#"{"user":"root","password":""}"#).await;
    let login: Value = serde_json::from_slice(&login.body).unwrap();
    let key = |token: &str| base64::engine::general_purpose::STANDARD.encode(format!("root:{token}"));
    let right = key(login["result"]["password"].as_str().unwrap());
    for (name, key, status) in [
        ("x-devpi-auth", right.clone(), 201),
        ("x-devpi-auth", key("wrong"), 403),
        ("x-another-header", right.clone(), 403),
    ] {
        let auth = Auth::ApiKeyHeader { name: name.parse().unwrap(), key: Secret::new(key) };
        let user = format!("{base}/user{status}");
        let answer = send(&auth, Method::PUT, user, r#"{"password":"a-password-of-a-user"}"#).await;
        let status_class = |status: u16| if status == 401 { 403 } else { status };
        assert_eq!(status_class(answer.status.as_u16()), status, "{}", String::from_utf8_lossy(&answer.body));
    }
}

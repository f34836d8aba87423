//! The operator's master key: its source, its rotation and loss, and the absence of secrets from the log.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::json;
use ward_test_db::postgres_only;

use crate::client::Call;
use crate::fleet::{Fleet, MASTER_KEY, Tenant};
use crate::support::{Server, text, ward};

#[test]
fn a_laptop_gets_a_key_file_of_its_own_and_is_told() {
    let server = Server::start(&["--metrics-listen", "off"]);
    let file = server.folder.path().join("ward.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(file).unwrap();
    assert_eq!(STANDARD.decode(key.trim()).unwrap().len(), 32);
    let log = server.stopped();
    assert!(log.contains("created a new master key: keep a copy of it"), "{log}");
    assert!(!log.contains(key.trim()), "the log holds the key");
}

postgres_only!(where_others_can_connect_or_share_the_database_nobody_makes_a_key, blocking);
fn where_others_can_connect_or_share_the_database_nobody_makes_a_key() {
    let refused = |listen: &str, database: Option<&str>, code: i32| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = ward(folder.path(), &["serve", "--metrics-listen", "off", "--listen", listen]);
        if let Some(url) = database {
            command.env("WARD_DATABASE", url);
        }
        let done = command.output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        assert!(!folder.path().join("ward.key").exists());
        text(&done.stderr)
    };
    let said = refused("0.0.0.0:0", None, 1);
    assert!(
        said.contains("ward.key is not there")
            && said.contains("create-key")
            && said.contains("WARD_MASTER_KEY"),
        "{said}"
    );
    let database = ward_test_db::postgres::shared().database();
    let said = refused("127.0.0.1:0", Some(&database.url), 2);
    assert!(said.contains("master_key") && said.contains("this database is shared"), "{said}");
}

fn rotate(folder: &Path, database: &str) -> Output {
    std::fs::write(folder.join("former.key"), MASTER_KEY).unwrap();
    std::fs::set_permissions(folder.join("former.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    ward(folder, &["secrets", "--former-master-key-files", "former.key", "rotate"])
        .env("WARD_DATABASE", database)
        .env("WARD_MASTER_KEY", STANDARD.encode([9; 32]))
        .output()
        .unwrap()
}

postgres_only!(a_rotation_that_leaves_something_names_it_and_fails, blocking);
fn a_rotation_that_leaves_something_names_it_and_fails() {
    let fleet = Fleet::start(&[0]);
    let tenant = Tenant::new(fleet.at(0), "acme");
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let auth = json!({ "type": "bearer_token", "bearer_token_value": { "value": "a-bearer-to-seal" } });
        let body =
            json!({ "name": name, "display_name": "A", "base_url": "https://ehr.example.com", "auth": auth });
        let made =
            Call::post(format!("/v1/{}/integrations", tenant.id), body).by(&tenant.key).ask(fleet.at(0));
        assert_eq!(made.status, 201, "{made:?}");
        ids.push(made.text("id").to_owned());
    }
    let twilio =
        json!({ "account_sid": format!("AC{}", "0".repeat(32)), "auth_token": "a-token-of-twilios-to-seal" });
    let set = Call::put(format!("/v1/{}/twilio", tenant.id), twilio).by(&tenant.key).ask(fleet.at(0));
    assert_eq!(set.status, 200, "{set:?}");
    fleet.database.run(&format!(
        "UPDATE integration_secrets SET sealed = substr(sealed, 1, 30) WHERE integration_id = '{}'",
        ids[0]
    ));

    let folder = tempfile::tempdir().unwrap();
    let done = rotate(folder.path(), &fleet.database.url);
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("auth/bearer_token of integration {}", ids[0])), "{said}");
    assert!(
        said.contains("2 of 3 values sealed under the current key")
            && said.contains("stay under a previous key"),
        "{said}"
    );
    // The previous key still opens the remaining values, so a server with only that key may run.
    assert_eq!(
        fleet.count("SELECT count(DISTINCT value) FROM settings WHERE name LIKE 'master_key_check%'"),
        2
    );
    let delete = Call::delete(format!("/v1/{}/integrations/{}", tenant.id, ids[0])).by(&tenant.key);
    assert_eq!(delete.ask(fleet.at(0)).status, 204);
    let done = rotate(folder.path(), &fleet.database.url);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(
        fleet.count("SELECT count(DISTINCT value) FROM settings WHERE name LIKE 'master_key_check%'"),
        1
    );
}

const API_KEY: &str = "an-api-key-that-no-log-may-hold";
const BEARER: &str = "a-bearer-that-no-log-may-hold";
const CLIENT_SECRET: &str = "a-client-secret-that-no-log-may-hold";
const ISSUED: &str = "an-issued-token-that-no-log-may-hold";
const DELIVERED_WITH: &str = "a-bearer-of-deliveries-that-no-log-may-hold";
const CALLER: &str = "+15550107777";
const SUMMARY: &str = "a refill that only the patient knows of";

/// A token endpoint, an API that echoes every request, and a FHIR server. It keeps the received requests.
fn peer() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, told) = (stream.unwrap(), told.clone());
            std::thread::spawn(move || {
                let request = hear(&mut stream);
                told.lock().push(request.clone());
                let (status, head, body) = respond(&request);
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\n{head}content-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            });
        }
    });
    (address, heard)
}

fn hear(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).unwrap_or(0);
        bytes.extend_from_slice(&chunk[..read]);
        let text = text(&bytes);
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            body.len() >= length.unwrap_or(0)
        });
        if read == 0 || whole {
            return text;
        }
    }
}

fn respond(request: &str) -> (u16, &'static str, String) {
    if request.starts_with("POST /token ") {
        let token = json!({ "access_token": ISSUED, "token_type": "Bearer", "expires_in": 300 });
        (200, "", token.to_string())
    } else if request.starts_with("POST /refuse ") {
        (400, "", json!({ "error": "invalid_client", "error_description": request }).to_string())
    } else if request.starts_with("GET /fhir/metadata ") {
        (200, "", json!({ "resourceType": "CapabilityStatement" }).to_string())
    } else if request.starts_with("GET /fhir/") {
        (200, "", json!({ "resourceType": "Bundle", "type": "searchset" }).to_string())
    } else if request.starts_with("POST /fhir/") {
        (201, "location: /fhir/Communication/1/_history/1\r\n", json!({ "echo": request }).to_string())
    } else {
        (200, "", json!(request).to_string())
    }
}

#[test]
fn no_secret_of_an_integration_is_ever_logged() {
    let (peer, heard) = peer();
    let folder = tempfile::tempdir().unwrap();
    let mut command = ward(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"]);
    command
        .env("WARD_LOG_FILTER", "trace")
        .env("WARD_OUTBOUND_ALLOW", "127.0.0.0/8")
        .env("WARD_OUTBOUND_PLAIN_HTTP", "on");
    let server = Server::of(command, folder);
    let at = server.address;
    let tenant = Tenant::new(at, "acme");
    let ask = |call: Call, status: u16| {
        let answer = call.by(&tenant.key).ask(at);
        assert_eq!(answer.status, status, "{answer:?}");
        answer
    };
    let path = |rest: &str| format!("/v1/{}/integrations{rest}", tenant.id);
    let private = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let (base, token_url) = (format!("http://{peer}"), format!("http://{peer}/token"));
    let by_secret = |token_url: &str| {
        json!({ "type": "oauth2_client_credentials", "client_id": "c", "token_url": token_url,
                "client_secret_value": { "value": CLIENT_SECRET } })
    };
    for (name, auth) in [
        (
            "key",
            json!({ "type": "api_key_header", "header_name": "x-key", "api_key_value": { "value": API_KEY } }),
        ),
        ("bearer", json!({ "type": "bearer_token", "bearer_token_value": { "value": BEARER } })),
        ("secret", by_secret(&token_url)),
        ("refused", by_secret(&format!("http://{peer}/refuse"))),
        (
            "signed",
            json!({ "type": "smart_backend_services", "client_id": "c", "token_url": token_url,
                    "assertion_algorithm": "ES384", "private_key_value": { "value": private } }),
        ),
    ] {
        let endpoint = json!({ "name": "e", "description": "E", "path": "/echo", "method": "GET",
                              "input_schema": { "properties": { "patient": {} } } });
        let body = json!({ "name": name, "display_name": "T", "base_url": base, "auth": auth, "endpoints": [endpoint] });
        let made = ask(Call::post(path(""), body), 201);
        let test = path(&format!("/{}/endpoints/e/test", made.text("id")));
        let told = ask(Call::post(test, json!({ "params": { "patient": SUMMARY } })), 200);
        assert_eq!(told.body["error"].is_null(), name != "refused", "{told:?}");
    }
    ask(Call::get(path("/health-check")), 200);

    let workspace = format!("/v1/workspaces/{}", tenant.id);
    ask(Call::patch(&*workspace, json!({ "connector_type": "fhir_store" })), 200);
    ask(Call::post(format!("{workspace}/provision"), json!({})), 200);
    let listed = ask(Call::get(path("?search=fhir_store")), 200);
    let id = listed.body["items"][0]["id"].as_str().unwrap().to_owned();
    let auth = json!({ "type": "bearer_token", "bearer_token_value": { "value": DELIVERED_WITH } });
    let live = json!({ "base_url": format!("{base}/fhir"), "auth": auth, "enabled": true });
    ask(Call::put(path(&format!("/{id}")), live), 200);
    let call =
        json!({ "status": "completed", "caller_id": CALLER, "direction": "inbound", "summary": SUMMARY });
    ask(Call::put(format!("/v1/{}/calls/CA1", tenant.id), call), 200);
    // This is not a time measurement, but a limit on a wait that ends with the delivery.
    let delivered = (0..3_000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        heard.lock().iter().any(|request| request.starts_with("POST /fhir/Communication "))
    });
    assert!(delivered, "the call is never delivered");
    ask(Call::get(path("/health-check")), 200);
    let log = server.stopped();

    let sent = heard.lock().join("\n");
    let assertion = sent.split("client_assertion=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let basic = STANDARD.encode(format!("c:{CLIENT_SECRET}"));
    let mut secrets = vec![API_KEY, BEARER, CLIENT_SECRET, ISSUED, DELIVERED_WITH, &basic];
    for secret in &secrets {
        assert!(sent.contains(*secret) || *secret == CLIENT_SECRET, "{secret} was never of use");
    }
    secrets.extend([&*assertion, CALLER, SUMMARY]);
    secrets.extend(private.lines().filter(|line| !line.starts_with("---")));
    for needed in ["test-integration-endpoint", "integration-health-check", "report-call", "\"TRACE\""] {
        assert!(log.contains(needed), "the log says nothing of {needed}");
    }
    let encoded = SUMMARY.replace(' ', "+");
    for secret in secrets.into_iter().chain([&*encoded]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "the log holds {secret}");
    }
}

//! The binary with a token issuer in its settings, as operators write them.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;
use ward_test::{AUDIENCE, SigningKey, TestIssuer};

use crate::client::Call;
use crate::support::{Server, run, text, ward};

const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"];

fn people_come_in(server: &Server, issuer: &TestIssuer) {
    // The keys are fetched at the start, so that the first caller does not wait.
    let began = Instant::now();
    while issuer.discoveries() == 0 {
        assert!(began.elapsed() < Duration::from_secs(15), "the server does not ask the issuer");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ada = issuer.token("ada");
    let body = json!({ "slug": "acme", "name": "Acme", "environment": "development" });
    let created = Call::post("/v1/workspaces/self-service", body.clone()).by(&ada);
    assert_eq!(created.attempt(server.address).unwrap().status, 201);
    let me = Call::get("/v1/me").by(&ada).attempt(server.address).unwrap();
    assert_eq!((me.status, me.text("kind")), (200, "user"));
    assert_eq!(me.body["memberships"]["items"][0]["role"], "owner");
    let robot = issuer.token_with("robot", &json!({ "kind": "machine" }));
    let refused = Call::post("/v1/workspaces/self-service", body).by(&robot).attempt(server.address).unwrap();
    assert_eq!((refused.status, refused.text("error_code")), (403, "unsupported_principal"));
    let forged = SigningKey::new("ES256", Some("first")).sign(&issuer.key().header(), &issuer.claims("ada"));
    for nobody in [forged, issuer.token_with("ada", &json!({ "aud": "https://other.test" }))] {
        assert_eq!(Call::get("/v1/me").by(&nobody).attempt(server.address).unwrap().status, 401);
    }
    assert_eq!(issuer.discoveries(), 2, "at the start, and once for the forged token");
}

#[test]
fn an_issuer_is_configured_in_the_environment() {
    let runtime = Runtime::new().unwrap();
    let issuer = runtime.block_on(TestIssuer::start());
    let folder = tempfile::tempdir().unwrap();
    let entry = json!([{
        "issuer": issuer.url(), "audience": AUDIENCE, "machine_claim": "kind", "machine_value": "machine",
    }]);
    let mut command = ward(folder.path(), &SERVE);
    command.env("WARD_ISSUERS", entry.to_string());
    let server = Server::of(command, folder);
    people_come_in(&server, &issuer);
    let log = server.stopped();
    assert!(!log.contains("\"level\":\"ERROR\""), "{log}");
}

#[test]
fn an_issuer_is_configured_in_the_file() {
    let runtime = Runtime::new().unwrap();
    let issuer = runtime.block_on(TestIssuer::start());
    let folder = tempfile::tempdir().unwrap();
    let file = format!(
        "bootstrap = 'open'\n\n[[issuers]]\nissuer = '{}'\naudience = ['https://more.test', '{AUDIENCE}']\n\
         machine_claim = 'kind'\nmachine_value = 'machine'\n",
        issuer.url()
    );
    std::fs::write(folder.path().join("ward.toml"), file).unwrap();
    let server = Server::of(ward(folder.path(), &[&SERVE[..], &["--config", "ward.toml"]].concat()), folder);
    people_come_in(&server, &issuer);
}

#[test]
fn a_mistake_about_an_issuer_stops_the_start_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = "[[issuers]]\nissuer = 'http://id.example.com'\naudience = 'ward'\n";
    std::fs::write(folder.path().join("ward.toml"), file).unwrap();
    let refused = run(folder.path(), &[&SERVE[..], &["--config", "ward.toml"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("issuers in ward.toml is wrong: issuer 1: issuer must be an https URL"), "{said}");
}

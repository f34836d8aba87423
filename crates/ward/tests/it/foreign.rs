//! One run against a FHIR R4 server that is not ours: Medplum's router, repository and validator (npm).
//!
//! It is installed, at the pinned versions, on the first run. Where that is not possible the test says that it is LEFT
//! OUT; `WARD_TEST_SERVERS=require` makes that a failure.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use ward_test::{Server, both};

use crate::calls::{finished, put};
use crate::crash::{finish, killed_at};
use crate::deliveries::{PATIENT, TESTER, connected};

/// The server's folder, with all that it needs.
async fn installed() -> bool {
    static INSTALLED: OnceCell<bool> = OnceCell::const_new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fhir");
    *INSTALLED
        .get_or_init(|| async {
            std::fs::create_dir_all(&folder).unwrap();
            let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fhir");
            for name in ["package.json", "package-lock.json", "server.mjs"] {
                std::fs::copy(files.join(name), folder.join(name)).unwrap();
            }
            if folder.join("node_modules/@medplum/fhir-router/package.json").exists() {
                return true;
            }
            let mut install = Command::new("npm");
            install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
            let done = install.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
            done.is_ok_and(|status| status.success())
        })
        .await
}

/// The server, and its base URL. It ends with the test.
async fn start() -> Option<(Child, String)> {
    if !installed().await {
        let required = std::env::var("WARD_TEST_SERVERS").is_ok_and(|value| value == "require");
        assert!(!required, "the FHIR server cannot be installed");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fhir");
    let mut server = Command::new("node");
    server.arg("server.mjs").current_dir(folder).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = server.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line =
        tokio::time::timeout(Duration::from_mins(1), lines.next_line()).await.unwrap().unwrap().unwrap();
    let port = line.split(' ').nth(1).unwrap().to_owned();
    Some((child, format!("http://127.0.0.1:{port}/fhir")))
}

both!(a_server_that_is_not_ours_ends_with_one_resource_per_real_call, threads = 2);
async fn a_server_that_is_not_ours_ends_with_one_resource_per_real_call() {
    let Some((_child, url)) = start().await else {
        #[expect(clippy::print_stderr, reason = "what is left out must be seen")]
        {
            eprintln!("LEFT OUT: npm cannot install the FHIR server");
        }
        return;
    };
    for (connector, kind) in [("fhir_store", "Communication"), ("cerner", "DocumentReference")] {
        let server = Server::start().await;
        let tenant = connected(&server, connector, &url).await;
        for index in 0..12 {
            let mut body = finished(if index % 3 == 0 { TESTER } else { PATIENT });
            body["patient_id"] = "pat-1".into();
            body["status"] = ["completed", "no-answer", "busy"][index % 3].into();
            put(&tenant, &format!("CA{index}"), body).await;
        }
        // Killed with answers in hand and unwritten, twice; then one lives.
        assert!(!killed_at(&server, "Sent", 2, 0).await.success());
        assert!(!killed_at(&server, "Sent", 1, 2).await.success());
        finish(&server, 4).await;
        assert_eq!(server.count("SELECT count(*) FROM deliveries WHERE state = 'synced'").await, 8);
        let client = reqwest::Client::new();
        let mut real = 0;
        for index in 0..12 {
            let call = tenant.owner.get(&tenant.path(&format!("/calls/CA{index}"))).await;
            let call = call.expect(reqwest::StatusCode::OK);
            let identifier = format!("urn:uuid:{}|{}", tenant.id, call["entity_id"].as_str().unwrap());
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("identifier", &identifier)
                .finish();
            let found: Value =
                client.get(format!("{url}/{kind}?{query}")).send().await.unwrap().json().await.unwrap();
            let expected = u64::from(call["direction"] != "test");
            assert_eq!(found["total"].as_u64().unwrap(), expected, "{call} {found}");
            real += expected;
        }
        assert_eq!(real, 8);
    }
}

//! Exports of audit events: what is in the file, who writes it, and what happens when its place fails.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::OnceCell;
use ward::audit::exports::worker;
use ward::config::{Bucket, Exports};
use ward::ids::WorkspaceId;
use ward::shares::Holder;
use ward_test::{Sending, Server, Tenant, both};

fn all_time() -> Value {
    json!({ "date_from": "2020-01-01T00:00:00Z", "date_to": "2100-01-01T00:00:00Z" })
}

async fn order(tenant: &Tenant, body: Value) -> Value {
    tenant.owner.post(&tenant.path("/audit/export"), body).await.expect(StatusCode::OK)
}

async fn listed(tenant: &Tenant) -> Vec<Value> {
    let page = tenant.owner.get(&tenant.path("/audit/exports")).await.expect(StatusCode::OK);
    page["exports"].as_array().expect("exports").clone()
}

/// The events of a finished export.
async fn download(tenant: &Tenant, export: &Value) -> Vec<Value> {
    let url = export["download_url"].as_str().expect("a download_url");
    let answer = tenant.owner.send(Method::GET, url, Sending::default()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert!(answer.header("content-disposition").starts_with("attachment; filename=\"audit-"));
    assert_eq!(export["size"].as_u64(), u64::try_from(answer.text.len()).ok());
    assert!(answer.text.is_empty() || answer.text.ends_with('\n'));
    answer.text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// Events of a call's reading, at one moment, numbered.
async fn add(server: &Server, tenant: &Tenant, count: u32) {
    let row = |number: u32| {
        format!(
            "(uuid '{}', timestamptz '2026-01-01T00:00:00.{:06}Z', uuid '00000000-0000-4000-8000-{number:012x}', \
             'calls', 'call.read', 'call', true)",
            tenant.id,
            number / 700
        )
    };
    let rows: Vec<String> = (1..=count).map(row).collect();
    let columns = "workspace_id, at, id, service, action, resource_type, phi_accessed";
    server.sql(format!("INSERT INTO audit_events ({columns}) VALUES {}", rows.join(", "))).await;
}

both!(an_export_holds_the_events_of_its_period_oldest_first);
async fn an_export_holds_the_events_of_its_period_oldest_first() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let other = server.tenant("other").await;
    add(&server, &tenant, 2_345).await;
    let ordered = order(&tenant, all_time()).await;
    assert_eq!(ordered["row_count"], 2_345 + 2, "the creation, the claim, and the reads");
    let waiting = listed(&tenant).await;
    assert_eq!((&waiting[0]["state"], &waiting[0]["download_url"]), (&json!("queued"), &Value::Null));
    assert_eq!(waiting[0]["key"], ordered["s3_key"]);
    tenant.owner.get(ordered["download_url"].as_str().unwrap()).await.refused(404);
    let second = tenant.owner.post(&tenant.path("/audit/export"), all_time()).await;
    assert_eq!(
        (second.status.as_u16(), second.text.contains("export_running")),
        (409, true),
        "{}",
        second.text
    );

    worker::turn(&server.app).await;
    let export = listed(&tenant).await.remove(0);
    assert_eq!((&export["state"], &export["row_count"]), (&json!("done"), &json!(2_347)));
    assert_eq!(export["export_id"], ordered["export_id"]);
    let events = download(&tenant, &export).await;
    assert_eq!(events.len(), 2_347);
    let places: Vec<(&str, &str)> = events
        .iter()
        .map(|event| (event["timestamp"].as_str().unwrap(), event["id"].as_str().unwrap()))
        .collect();
    assert!(places.is_sorted() && places.windows(2).all(|pair| pair[0] != pair[1]), "in order, each once");
    assert!(events.iter().all(|event| event["workspace_id"] == tenant.id));

    // The order and the download are events themselves, and of no earlier export.
    let after = tenant.audit().await;
    let actions: Vec<&str> = after.iter().take(2).map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["audit.download", "audit.export"]);
    assert_eq!(after[1]["resource_id"], ordered["export_id"]);

    // Filters, and what no other workspace sees.
    let mut narrow = all_time();
    narrow["action"] = json!("workspace.claim");
    assert_eq!(order(&tenant, narrow).await["row_count"], 1);
    worker::turn(&server.app).await;
    let export = listed(&tenant).await.remove(0);
    assert_eq!(download(&tenant, &export).await[0]["action"], "workspace.claim");
    let foreign = export["download_url"].as_str().unwrap().replace(&tenant.id, &other.id);
    other.owner.get(&foreign).await.refused(404);
    assert_eq!(listed(&other).await.len(), 0);
    for filename in
        ["audit-.ndjson", "..%2F..%2Fetc%2Fpasswd", "audit-00000000-0000-0000-0000-000000000000.ndjson"]
    {
        tenant.owner.get(&tenant.path(&format!("/audit/exports/download/{filename}"))).await.refused(404);
    }
    let backwards = json!({ "date_from": "2026-02-01T00:00:00Z", "date_to": "2026-01-01T00:00:00Z" });
    tenant.owner.post(&tenant.path("/audit/export"), backwards).await.refused(422);
}

both!(a_repeated_order_is_one_export);
async fn a_repeated_order_is_one_export() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let path = tenant.path("/audit/export");
    let first = tenant.owner.post_once(&path, "one-export-and-no-more", all_time()).await;
    let first = first.expect(StatusCode::OK);
    worker::turn(&server.app).await;
    let again = tenant.owner.post_once(&path, "one-export-and-no-more", all_time()).await;
    assert_eq!(again.expect(StatusCode::OK)["export_id"], first["export_id"]);
    assert_eq!(listed(&tenant).await.len(), 1);
}

both!(one_worker_writes_an_export_and_another_takes_over_from_one_that_died, threads = 4);
async fn one_worker_writes_an_export_and_another_takes_over_from_one_that_died() {
    let server = Server::start().await;
    let beside = server.replica().await;
    let tenant = server.tenant("acme").await;
    order(&tenant, all_time()).await;
    // A worker took it and died.
    let lease =
        "UPDATE audit_export_queue SET lease = uuid '00000000-0000-4000-8000-000000000001', attempts = 1";
    server.sql(lease).await;
    let due = server.clock.now().saturating_add(Duration::from_mins(2)).to_string();
    server.sql(format!("UPDATE audit_export_queue SET due_at = timestamptz '{due}'")).await;
    worker::turn(&server.app).await;
    assert_eq!(listed(&tenant).await[0]["state"], "queued", "it may be alive");
    server.clock.advance(Duration::from_mins(3));
    let (one, two) = (server.app.clone(), beside.app.clone());
    let both = [
        tokio::spawn(async move { worker::turn(&one).await }),
        tokio::spawn(async move { worker::turn(&two).await }),
    ];
    for turn in both {
        turn.await.unwrap();
    }
    let export = listed(&tenant).await.remove(0);
    assert_eq!(export["state"], "done");
    assert_eq!(download(&tenant, &export).await.len(), 2);
    assert_eq!(server.count("SELECT count(*) FROM audit_export_queue").await, 0);
}

both!(a_long_export_holds_up_no_other_workspace, threads = 4);
async fn a_long_export_holds_up_no_other_workspace() {
    let server = Server::start().await;
    let (long, short) = (server.tenant("long").await, server.tenant("short").await);
    order(&long, all_time()).await;
    server.clock.advance(Duration::from_secs(1));
    order(&short, all_time()).await;
    // The long export, ordered first, does not come on: other reads of its workspace have all of the workspace's share.
    let pool = &server.app.long_reads;
    let holder = Holder::Workspace(WorkspaceId(long.id.parse().unwrap()));
    let share = pool.take(holder, pool.limits().each).await.unwrap();
    let app = server.app.clone();
    let writing = tokio::spawn(async move { worker::turn(&app).await });
    let short_is_done = async {
        while listed(&short).await[0]["state"] != "done" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), short_is_done).await.expect("the short export is done");
    assert_eq!(listed(&long).await[0]["state"], "queued");
    drop(share);
    writing.await.unwrap();
    assert_eq!(listed(&long).await[0]["state"], "done");
}

both!(what_an_earlier_attempt_left_is_removed_and_nothing_else);
async fn what_an_earlier_attempt_left_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("exports");
    let server = Server::with(|config| config.exports = Some(Exports::Folder(place.clone()))).await;
    let tenant = server.tenant("acme").await;
    let export = order(&tenant, all_time()).await;
    let file = place.join(export["s3_key"].as_str().unwrap());
    let beside = |name: &str| file.with_file_name(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let finished = file.file_name().unwrap().to_str().unwrap();
    let another = "audit-0198a4c2-5b1e-7c3d-9a40-6f2b1c8d7e55.ndjson";
    let left = [beside(&format!("{finished}#1")), beside(&format!("{finished}#2"))];
    let kept = [beside(&format!("{another}#1")), beside(another), beside("notes.txt#1")];
    for file in left.iter().chain(&kept) {
        std::fs::write(file, "half").unwrap();
    }
    worker::turn(&server.app).await;
    assert_eq!(download(&tenant, &listed(&tenant).await[0]).await.len(), 2);
    assert!(left.iter().all(|file| !file.exists()) && kept.iter().all(|file| file.exists()));

    // A server that starts removes the unfinished files of other exports whose last change is a day ago.
    let yesterday = std::time::SystemTime::now() - Duration::from_hours(25);
    std::fs::write(&left[0], "half").unwrap();
    for file in &kept {
        std::fs::File::options().write(true).open(file).unwrap().set_modified(yesterday).unwrap();
    }
    server.app.sync.stop();
    worker::keep_going(server.app.clone()).await;
    assert_eq!(kept.map(|file| file.exists()), [false, true, true]);
    assert!(left[0].exists(), "it may be another replica's, at work");
}

both!(a_place_that_fails_is_tried_again_and_then_given_up);
async fn a_place_that_fails_is_tried_again_and_then_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("exports");
    let server = Server::with(|config| config.exports = Some(Exports::Folder(place.clone()))).await;
    let tenant = server.tenant("acme").await;
    std::fs::remove_dir(&place).unwrap();
    std::fs::write(&place, "no folder").unwrap();
    order(&tenant, all_time()).await;
    worker::turn(&server.app).await;
    assert_eq!(listed(&tenant).await[0]["state"], "queued");
    // Repaired between two attempts.
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    server.clock.advance(Duration::from_mins(10));
    worker::turn(&server.app).await;
    let export = listed(&tenant).await.remove(0);
    assert_eq!(download(&tenant, &export).await.len(), 2);

    std::fs::remove_dir_all(&place).unwrap();
    std::fs::write(&place, "no folder").unwrap();
    let gone = tenant.owner.get(export["download_url"].as_str().unwrap()).await;
    gone.refused(503);
    order(&tenant, all_time()).await;
    for _ in 0..5 {
        worker::turn(&server.app).await;
        server.clock.advance(Duration::from_mins(10));
    }
    let export = listed(&tenant).await.remove(0);
    assert_eq!((&export["state"], &export["download_url"]), (&json!("failed"), &Value::Null));
    // The workspace may order another one.
    order(&tenant, all_time()).await;
}

both!(without_a_place_there_are_no_exports);
async fn without_a_place_there_are_no_exports() {
    let server = Server::with(|config| config.exports = None).await;
    let tenant = server.tenant("acme").await;
    let refused = tenant.owner.post(&tenant.path("/audit/export"), all_time()).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("no_export_place"), "{}", refused.text);
}

/// The S3-compatible server (npm), installed at its pinned version on the first run.
async fn installed() -> bool {
    static INSTALLED: OnceCell<bool> = OnceCell::const_new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("s3");
    *INSTALLED
        .get_or_init(|| async {
            std::fs::create_dir_all(&folder).unwrap();
            let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3");
            for name in ["package.json", "package-lock.json", "server.mjs"] {
                std::fs::copy(files.join(name), folder.join(name)).unwrap();
            }
            if folder.join("node_modules/s3rver/package.json").exists() {
                return true;
            }
            let mut install = Command::new("npm");
            install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
            let done = install.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
            done.is_ok_and(|status| status.success())
        })
        .await
}

both!(an_s3_compatible_store_holds_exports_too, threads = 2);
async fn an_s3_compatible_store_holds_exports_too() {
    if !installed().await {
        let required = std::env::var("WARD_TEST_SERVERS").is_ok_and(|value| value == "require");
        assert!(!required, "the S3-compatible server cannot be installed");
        #[expect(clippy::print_stderr, reason = "what is left out must be seen")]
        {
            eprintln!("LEFT OUT: npm cannot install the S3-compatible server");
        }
        return;
    }
    let kept = tempfile::tempdir().unwrap();
    let mut node = Command::new("node");
    node.arg("server.mjs").arg(kept.path()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = node.current_dir(Path::new(env!("CARGO_TARGET_TMPDIR")).join("s3")).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line =
        tokio::time::timeout(Duration::from_mins(1), lines.next_line()).await.unwrap().unwrap().unwrap();
    let bucket = Bucket {
        name: "ward-exports".to_owned(),
        endpoint: Some(format!("http://127.0.0.1:{}", line.split(' ').nth(1).unwrap())),
        region: None,
        access_key_id: Some("S3RVER".to_owned()),
        secret_access_key: Some("S3RVER".to_owned().into()),
    };
    let with = |bucket: Bucket| Server::with(move |config| config.exports = Some(Exports::Bucket(bucket)));
    let server = with(bucket.clone()).await;
    let tenant = server.tenant("acme").await;
    add(&server, &tenant, 25_000).await;
    let ordered = order(&tenant, all_time()).await;
    worker::turn(&server.app).await;
    let export = listed(&tenant).await.remove(0);
    assert_eq!((&export["state"], &export["row_count"]), (&json!("done"), &json!(25_002)));
    assert_eq!(download(&tenant, &export).await.len(), 25_002);
    assert_eq!(export["key"], ordered["s3_key"]);

    // In a bucket that is not there nothing is written.
    let other = with(Bucket { name: "no-such-bucket".to_owned(), ..bucket }).await;
    let tenant = other.tenant("acme").await;
    order(&tenant, all_time()).await;
    worker::turn(&other.app).await;
    assert_eq!(listed(&tenant).await[0]["state"], "queued");
}

//! Exports of audit events: the content of the file, the workers that write it, and failures of the storage.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use ward::audit::exports::worker;
use ward::config::{Bucket, Exports};
use ward::ids::WorkspaceId;
use ward::shares::Holder;
use ward_test::{Fields as _, Sending, Server, Tenant, both};

use crate::support::{PublishedServer, insert_reads, together};

fn all_time() -> Value {
    json!({ "date_from": "2020-01-01T00:00:00Z", "date_to": "2100-01-01T00:00:00Z" })
}

async fn order(tenant: &Tenant, body: Value) -> Value {
    tenant.post("/audit/export", body).await.ok()
}

async fn listed(tenant: &Tenant) -> Vec<Value> {
    let page = tenant.get("/audit/exports").await.ok();
    page.list("exports").clone()
}

/// The events of a finished export.
async fn download(tenant: &Tenant, export: &Value) -> Vec<Value> {
    let answer = tenant.owner.send(Method::GET, export.text("download_url"), Sending::default()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert!(answer.header("content-disposition").starts_with("attachment; filename=\"audit-"));
    assert_eq!(export["size"].as_u64(), u64::try_from(answer.text.len()).ok());
    assert!(answer.text.is_empty() || answer.text.ends_with('\n'));
    answer.text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// Inserts numbered events for reads of calls.
async fn add(server: &Server, tenant: &Tenant, count: u32) {
    insert_reads(server, tenant, 1..=count, |number| format!("00.{:06}", number / 700)).await;
}

both!(an_export_holds_the_events_of_its_period_oldest_first, async || {
    let (server, tenant) = Server::with_tenant().await;
    let other = server.tenant("other").await;
    add(&server, &tenant, 2_345).await;
    let ordered = order(&tenant, all_time()).await;
    assert_eq!(ordered["row_count"], 2_345 + 2, "the creation, the claim, and the reads");
    let waiting = listed(&tenant).await;
    assert_eq!(waiting[0].fields(["state", "download_url"]), json!(["queued", null]));
    assert_eq!(waiting[0]["key"], ordered["s3_key"]);
    tenant.owner.get(ordered.text("download_url")).await.refused(404);
    let second = tenant.post("/audit/export", all_time()).await;
    assert_eq!(
        (second.status.as_u16(), second.text.contains("export_running")),
        (409, true),
        "{}",
        second.text
    );

    worker::turn(&server.app).await;
    let export = listed(&tenant).await.remove(0);
    assert_eq!(export.fields(["state", "row_count"]), json!(["done", 2_347]));
    assert_eq!(export["export_id"], ordered["export_id"]);
    let events = download(&tenant, &export).await;
    assert_eq!(events.len(), 2_347);
    let places: Vec<(&str, &str)> =
        events.iter().map(|event| (event.text("timestamp"), event.text("id"))).collect();
    assert!(places.is_sorted() && places.windows(2).all(|pair| pair[0] != pair[1]), "in order, each once");
    assert!(events.iter().all(|event| event["workspace_id"] == tenant.id));

    // The export and the download are events too, but of no earlier export.
    let after = tenant.audit().await;
    let actions: Vec<&str> = after.iter().take(2).map(|event| event.text("action")).collect();
    assert_eq!(actions, ["audit.download", "audit.export"]);
    assert_eq!(after[1]["resource_id"], ordered["export_id"]);

    // Filters apply, and no other workspace sees the export.
    let mut narrow = all_time();
    narrow["action"] = json!("workspace.claim");
    assert_eq!(order(&tenant, narrow).await["row_count"], 1);
    worker::turn(&server.app).await;
    let export = listed(&tenant).await.remove(0);
    assert_eq!(download(&tenant, &export).await[0]["action"], "workspace.claim");
    let foreign = export.text("download_url").replace(&tenant.id, &other.id);
    other.owner.get(&foreign).await.refused(404);
    assert_eq!(listed(&other).await.len(), 0);
    for filename in
        ["audit-.ndjson", "..%2F..%2Fetc%2Fpasswd", "audit-00000000-0000-0000-0000-000000000000.ndjson"]
    {
        tenant.get(&format!("/audit/exports/download/{filename}")).await.refused(404);
    }
    let backwards = json!({ "date_from": "2026-02-01T00:00:00Z", "date_to": "2026-01-01T00:00:00Z" });
    tenant.post("/audit/export", backwards).await.refused(422);
});

both!(a_replayed_request_is_one_export, async || {
    let (server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/audit/export");
    let first = tenant.owner.post_once(&path, "one-export-and-no-more", all_time()).await.ok();
    worker::turn(&server.app).await;
    let again = tenant.owner.post_once(&path, "one-export-and-no-more", all_time()).await;
    assert_eq!(again.ok()["export_id"], first["export_id"]);
    assert_eq!(listed(&tenant).await.len(), 1);
});

both!(one_worker_writes_an_export_and_another_takes_over_from_one_that_died, threads = 4, async || {
    let server = Server::start().await;
    let beside = server.replica().await;
    let tenant = server.tenant("acme").await;
    order(&tenant, all_time()).await;
    // A worker took the export and died.
    let lease =
        "UPDATE audit_export_queue SET lease = uuid '00000000-0000-4000-8000-000000000001', attempts = 1";
    server.sql(lease).await;
    let due = server.clock.now().saturating_add(Duration::from_mins(2)).to_string();
    server.sql(format!("UPDATE audit_export_queue SET due_at = timestamptz '{due}'")).await;
    worker::turn(&server.app).await;
    assert_eq!(listed(&tenant).await[0]["state"], "queued", "the first worker may still be running");
    server.clock.advance(Duration::from_mins(3));
    let (one, two) = (server.app.clone(), beside.app.clone());
    together([one, two].map(|app| async move { worker::turn(&app).await })).await;
    let export = listed(&tenant).await.remove(0);
    assert_eq!(export["state"], "done");
    assert_eq!(download(&tenant, &export).await.len(), 2);
    assert_eq!(server.count("SELECT count(*) FROM audit_export_queue").await, 0);
});

both!(a_long_export_holds_up_no_other_workspace, threads = 4, async || {
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
});

both!(what_an_earlier_attempt_left_is_removed_and_nothing_else, async || {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("exports");
    let server = Server::with(|config| config.exports = Some(Exports::Folder(place.clone()))).await;
    let tenant = server.tenant("acme").await;
    let export = order(&tenant, all_time()).await;
    let file = place.join(export.text("s3_key"));
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
});

both!(a_failing_storage_is_retried_and_the_export_then_fails, async || {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("exports");
    let server = Server::with(|config| config.exports = Some(Exports::Folder(place.clone()))).await;
    let tenant = server.tenant("acme").await;
    std::fs::remove_dir(&place).unwrap();
    std::fs::write(&place, "no folder").unwrap();
    order(&tenant, all_time()).await;
    worker::turn(&server.app).await;
    assert_eq!(listed(&tenant).await[0]["state"], "queued");
    // The storage is repaired between two attempts.
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    server.clock.advance(Duration::from_mins(10));
    worker::turn(&server.app).await;
    let export = listed(&tenant).await.remove(0);
    assert_eq!(download(&tenant, &export).await.len(), 2);

    std::fs::remove_dir_all(&place).unwrap();
    std::fs::write(&place, "no folder").unwrap();
    let gone = tenant.owner.get(export.text("download_url")).await;
    gone.refused(503);
    order(&tenant, all_time()).await;
    for _ in 0..5 {
        worker::turn(&server.app).await;
        server.clock.advance(Duration::from_mins(10));
    }
    let export = listed(&tenant).await.remove(0);
    assert_eq!(export.fields(["state", "download_url"]), json!(["failed", null]));
    // The workspace may request another export.
    order(&tenant, all_time()).await;
});

both!(without_a_storage_there_are_no_exports, async || {
    let server = Server::with(|config| config.exports = None).await;
    let tenant = server.tenant("acme").await;
    let refused = tenant.post("/audit/export", all_time()).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("no_export_place"), "{}", refused.text);
});

both!(an_s3_compatible_store_holds_exports_too, threads = 2, async || {
    let kept = tempfile::tempdir().unwrap();
    let Some(s3) = PublishedServer::start("s3", "s3rver", Some(kept.path())).await else { return };
    let bucket = Bucket {
        name: "ward-exports".to_owned(),
        endpoint: Some(format!("http://127.0.0.1:{}", s3.port)),
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
    assert_eq!(export.fields(["state", "row_count"]), json!(["done", 25_002]));
    assert_eq!(download(&tenant, &export).await.len(), 25_002);
    assert_eq!(export["key"], ordered["s3_key"]);

    // Nothing is written if the bucket does not exist.
    let other = with(Bucket { name: "no-such-bucket".to_owned(), ..bucket }).await;
    let tenant = other.tenant("acme").await;
    order(&tenant, all_time()).await;
    worker::turn(&other.app).await;
    assert_eq!(listed(&tenant).await[0]["state"], "queued");
});

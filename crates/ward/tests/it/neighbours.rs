//! The influence of one tenant's writes and bodies on another tenant.

use std::sync::mpsc;

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use ward::ids::WorkspaceId;
use ward::shares::Holder;
use ward_test::{Sending, Server, Tenant, both, postgres_only};

/// More than the connections that a server has.
const CLIENTS: usize = 60;

postgres_only!(a_workspace_whose_writes_wait_leaves_connections_to_others, threads = 4, async || {
    let server = Server::start().await;
    let (loud, quiet) = (server.tenant("loud").await, server.tenant("quiet").await);
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let (release, released) = mpsc::channel::<()>();
    let lock = format!("SELECT 1::bigint FROM workspaces WHERE id = uuid '{}' FOR UPDATE", loud.id);
    let (db, mut locked) = (server.app.db.clone(), Some(locked));
    let holder = tokio::spawn(async move {
        db.write("test.lock", move |tx| {
            tx.one(&lock, &[], ward_db::decode::<i64>)?;
            let _ = locked.take().map(|locked| locked.send(()));
            // The test drops its end when it fails.
            let _ = released.recv();
            Ok::<_, ward_db::Error>(())
        })
        .await
    });
    is_locked.await.unwrap();
    let mut waiting = JoinSet::new();
    for number in 0..CLIENTS {
        let (owner, path) = (loud.owner.clone(), loud.workspace(""));
        waiting.spawn(
            async move { owner.patch(&path, json!({ "name": format!("Loud {number}") })).await.status },
        );
    }
    // The other tenant writes and reads many times while all of the first one's writes wait for the lock.
    for number in 0..20 {
        let name = json!({ "name": format!("Quiet {number}") });
        quiet.owner.patch(&quiet.workspace(""), name).await.ok();
        quiet.owner.get(&quiet.workspace("")).await.ok();
    }
    assert!(waiting.try_join_next().is_none(), "the lock is held");
    drop(release);
    holder.await.unwrap().unwrap();
    while let Some(status) = waiting.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
});

/// Sends the head of a change of the workspace and the first byte of its body.
async fn begun(server: &Server, tenant: &Tenant, length: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PATCH {} HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{length}\r\n\r\n",
        tenant.workspace(""),
        tenant.owner.bearer.as_deref().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

both!(the_bodies_of_requests_have_a_share_of_memory, async || {
    let server = Server::start().await;
    let (busy, quiet) = (server.tenant("busy").await, server.tenant("quiet").await);
    let (bodies, holder) = (&server.app.bodies, Holder::Workspace(WorkspaceId::of_path(&busy.id)));
    let until_used = async |kib: u32| {
        while bodies.used_by(holder) != kib {
            tokio::task::yield_now().await;
        }
    };
    until_used(0).await;
    // A body without a length may become as long as any. One with a length takes that.
    let endless = begun(&server, &busy, "transfer-encoding: chunked").await;
    until_used(256).await;
    let short = begun(&server, &busy, "content-length: 2000").await;
    until_used(258).await;
    drop((endless, short));
    until_used(0).await;
    let all = bodies.take(holder, u32::MAX).await.unwrap();
    let rename = json!({ "name": "New" });
    busy.owner.patch(&busy.workspace(""), rename.clone()).await.refused_as(429, "share_used_up");
    quiet.owner.patch(&quiet.workspace(""), rename.clone()).await.ok();
    drop(all);
    busy.owner.patch(&busy.workspace(""), rename).await.ok();
    until_used(0).await;
});

both!(a_large_body_is_parsed_and_validated_in_one_piece_of_work, async || {
    let (server, tenant) = Server::with_tenant().await;
    let nested = vec![r#"{"":{"":{"":0}}}"#; 10_000].join(",");
    let (body, cut) =
        (format!(r#"{{"name":"New","x":[{nested}]}}"#), format!(r#"{{"name":"New","x":[{nested}"#));
    let path = tenant.workspace("");
    let send = async |path: &str, body: &str| {
        let before = server.app.work.begun();
        let answer = tenant.owner.send(Method::PATCH, path, Sending::json_bytes(body)).await;
        (answer, server.app.work.begun() - before)
    };
    let (changed, pieces) = send(&path, &body).await;
    assert_eq!((changed.ok()["name"].as_str(), pieces), (Some("New"), 1));
    let (refused, pieces) = send(&path, &cut).await;
    assert_eq!((refused.problem_locs().len(), pieces), (1, 1));
    // The syntax is checked before the workspace is looked for.
    let (refused, pieces) = send("/v1/workspaces/unknown", &cut).await;
    assert_eq!((refused.problem_locs().len(), pieces), (1, 1));
    let (refused, pieces) = send("/v1/workspaces/unknown", &body).await;
    assert_eq!((refused.refused(404).as_str(), pieces), ("workspace_not_found", 1));
});

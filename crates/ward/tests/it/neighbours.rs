//! The influence of one tenant's writes on another tenant.

use std::sync::mpsc;

use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;
use ward_test::{Server, postgres_only};

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
            tx.one(&lock, &[], |row| row.get::<i64>(0))?;
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

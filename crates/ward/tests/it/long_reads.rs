//! Long reads: a tenant's searches cost only that tenant time.

use serde_json::json;
use ward::ids::WorkspaceId;
use ward::shares::Holder;
use ward_test::{Fields as _, Server, Tenant, both};

use crate::support::insert_reads;

/// The number of rows that one step of a search reads.
const STEP: u32 = 10_000;

fn holder(tenant: &Tenant) -> Holder {
    Holder::Workspace(WorkspaceId(tenant.id.parse().unwrap()))
}

/// Fills the workspace's audit with this number of events, older than all others.
async fn fill(server: &Server, tenant: &Tenant, events: u32) {
    insert_reads(server, tenant, 0..=events - 1, |number| format!("{:02}.000000", number % 60)).await;
}

both!(a_search_looks_at_a_bounded_number_of_rows_at_a_time, async || {
    let (server, tenant) = Server::with_tenant().await;
    let ask = async |query: &str| {
        let path = tenant.path(&format!("/audit{query}"));
        server.costs(async { tenant.owner.get(&path).await.ok() }).await
    };
    let (_, small) = ask("?service=none&resource_type=none").await;
    fill(&server, &tenant, 2 * STEP + 5_000).await;
    let (found, large) = ask("?service=none&resource_type=none").await;
    assert_eq!(found.fields(["total", "events", "has_more"]), json!([0, [], false]));
    assert_eq!(large.reads, small.reads + 2, "each step is a read of its own");
    // The answer does not depend on the boundaries of the steps.
    let (oldest, _) = ask("?service=calls&limit=3&offset=24998").await;
    assert_eq!((oldest.list("events").len(), &oldest["has_more"]), (2, &json!(false)));
    let (across, _) = ask(&format!("?service=calls&limit=100&offset={}", STEP - 60)).await;
    let (first, _) = ask(&format!("?service=calls&limit=50&offset={}", STEP - 60)).await;
    let (second, _) = ask(&format!("?service=calls&limit=50&offset={}", STEP - 10)).await;
    let joined = [first.list("events").clone(), second.list("events").clone()];
    assert_eq!(across["events"], json!(joined.concat()));
    assert_eq!(across.fields(["total", "has_more"]), json!([10_000, true]));
    let (summary, cost) = ask("/summary").await;
    assert_eq!(summary.fields(["total_events", "phi_access_events"]), json!([25_002, 25_000]));
    assert_eq!(cost.reads, large.reads);
    let (period, _) = ask("/summary?date_from=2026-01-01T00:00:30Z&date_to=2026-01-01T00:00:30Z").await;
    assert_eq!(period.fields(["total_events", "services_with_events"]), json!([417, 1]));
    // The first page of everything is found in the first step.
    let (page, cost) = ask("?limit=10").await;
    assert_eq!((&page["total"], cost.reads), (&json!(10_000), small.reads));
});

both!(a_tenant_whose_share_of_long_readers_is_used_up_waits_alone, threads = 2, async || {
    let server = Server::start().await;
    let (busy, quiet) = (server.tenant("busy").await, server.tenant("quiet").await);
    let pool = &server.app.long_reads;
    let mut held = Vec::new();
    while let Ok(share) = pool.try_take(holder(&busy), 1) {
        held.push(share);
    }
    // Every list that may be long waits for its workspace's share.
    let lists = ["/audit", "/audit/summary", "/calls", "/deliveries", "/deliveries?state=failed", "/sync"];
    let mut asked = tokio::task::JoinSet::new();
    for index in 0..33 {
        let (owner, path) = (busy.owner.clone(), busy.path(lists[index % lists.len()]));
        asked.spawn(async move { owner.get(&path).await });
    }
    // The waiting places are full, so one request is refused, and so are the workspace's next ones.
    let refused = asked.join_next().await.unwrap().unwrap();
    assert_eq!(refused.headers["retry-after"], "1");
    refused.refused_as(429, "share_used_up");
    for path in lists {
        assert_eq!(busy.get(path).await.refused(429), "share_used_up", "{path}");
        quiet.get(path).await.ok();
    }
    drop(held);
    while let Some(answer) = asked.join_next().await {
        answer.unwrap().ok();
    }
});

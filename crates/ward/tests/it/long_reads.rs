//! Long reads: one tenant's searches cost that tenant time, and no other.

use reqwest::StatusCode;
use serde_json::json;
use ward::ids::WorkspaceId;
use ward::shares::Holder;
use ward_test::{Server, Tenant, both};

/// Rows that one step of a search looks at.
const STEP: u32 = 10_000;

fn holder(tenant: &Tenant) -> Holder {
    Holder::Workspace(WorkspaceId(tenant.id.parse().unwrap()))
}

/// Fills the workspace's audit with so many events, older than all others.
async fn fill(server: &Server, tenant: &Tenant, events: u32) {
    for from in (0..events).step_by(5_000) {
        let rows: Vec<String> = (from..events.min(from + 5_000))
            .map(|number| {
                format!(
                    "(uuid '{}', timestamptz '2026-01-01T00:00:{:02}.000000Z', uuid '00000000-0000-4000-8000-{number:012x}', \
                     'calls', 'call.read', 'call', true)",
                    tenant.id,
                    number % 60
                )
            })
            .collect();
        let columns = "workspace_id, at, id, service, action, resource_type, phi_accessed";
        server.sql(format!("INSERT INTO audit_events ({columns}) VALUES {}", rows.join(", "))).await;
    }
}

both!(a_search_looks_at_a_bounded_number_of_rows_at_a_time);
async fn a_search_looks_at_a_bounded_number_of_rows_at_a_time() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let ask = async |query: &str| {
        let path = tenant.path(&format!("/audit{query}"));
        server.costs(async { tenant.owner.get(&path).await.expect(StatusCode::OK) }).await
    };
    let (_, small) = ask("?service=none&resource_type=none").await;
    fill(&server, &tenant, 2 * STEP + 5_000).await;
    let (found, large) = ask("?service=none&resource_type=none").await;
    assert_eq!(
        (&found["total"], &found["events"], &found["has_more"]),
        (&json!(0), &json!([]), &json!(false))
    );
    assert_eq!(large.reads, small.reads + 2, "each step gives the long reader back");
    // The answer does not depend on where steps begin and end.
    let (oldest, _) = ask("?service=calls&limit=3&offset=24998").await;
    assert_eq!((oldest["events"].as_array().unwrap().len(), &oldest["has_more"]), (2, &json!(false)));
    let (across, _) = ask(&format!("?service=calls&limit=100&offset={}", STEP - 60)).await;
    let (first, _) = ask(&format!("?service=calls&limit=50&offset={}", STEP - 60)).await;
    let (second, _) = ask(&format!("?service=calls&limit=50&offset={}", STEP - 10)).await;
    let joined = [first["events"].as_array().unwrap().clone(), second["events"].as_array().unwrap().clone()];
    assert_eq!(across["events"], json!(joined.concat()));
    assert_eq!((&across["total"], &across["has_more"]), (&json!(10_000), &json!(true)));
    let (summary, cost) = ask("/summary").await;
    assert_eq!((&summary["total_events"], &summary["phi_access_events"]), (&json!(25_002), &json!(25_000)));
    assert_eq!(cost.reads, large.reads);
    let (period, _) = ask("/summary?date_from=2026-01-01T00:00:30Z&date_to=2026-01-01T00:00:30Z").await;
    assert_eq!((&period["total_events"], &period["services_with_events"]), (&json!(417), &json!(1)));
    // The first page of everything is found in the first step.
    let (page, cost) = ask("?limit=10").await;
    assert_eq!((&page["total"], cost.reads), (&json!(10_000), small.reads));
}

both!(a_tenant_whose_share_of_long_readers_is_used_up_waits_alone, threads = 2);
async fn a_tenant_whose_share_of_long_readers_is_used_up_waits_alone() {
    let server = Server::start().await;
    let (busy, quiet) = (server.tenant("busy").await, server.tenant("quiet").await);
    let pool = &server.app.long_reads;
    let mut held = Vec::new();
    while let Ok(share) = pool.try_take(holder(&busy), 1) {
        held.push(share);
    }
    // Every list that may be long waits for its workspace's own turn.
    let lists = ["/audit", "/audit/summary", "/calls", "/deliveries", "/deliveries?state=failed", "/sync"];
    let mut asked = tokio::task::JoinSet::new();
    for index in 0..33 {
        let (owner, path) = (busy.owner.clone(), busy.path(lists[index % lists.len()]));
        asked.spawn(async move { owner.get(&path).await });
    }
    // As many wait as may, so one is refused, and the workspace's next ones too.
    let refused = asked.join_next().await.unwrap().unwrap();
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.refused(429), "share_used_up");
    for path in lists {
        assert_eq!(busy.owner.get(&busy.path(path)).await.refused(429), "share_used_up", "{path}");
        quiet.owner.get(&quiet.path(path)).await.expect(StatusCode::OK);
    }
    drop(held);
    while let Some(answer) = asked.join_next().await {
        answer.unwrap().expect(StatusCode::OK);
    }
}

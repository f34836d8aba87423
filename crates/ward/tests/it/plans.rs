//! Every statement of a request is a look-up by an index, for any content of the tables and any statistics.
//!
//! The statements are not copied here: the database records the statements of a walk over the API, and those
//! are explained.

mod skewed;
mod sources;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use regex::{Captures, Regex};
use serde_json::json;
use ward_db::{Options, PLANS, Recorder, Tx, Value};
use ward_test::{Engine, Fields as _, Server, both, new_workspace};
use ward_test_db::postgres::lines;

use crate::support::insert_rows;

/// A table of this size must never be read as a whole.
const MANY: u32 = 100_000;

/// Filling a table is one statement, which takes a busy machine longer than any of the product's statements
/// may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Columns that find one row alone, or the few rows of one call or key: further conditions then cost nothing.
const UNIQUE: [&str; 8] =
    ["id", "key_id", "scope", "slug", "call_sid", "call_id", "delivery_id", "secret_hash"];

/// Columns that find one row or a list: an index must serve them, and no scan of another column's rows.
const LOOKED_UP_BY: [&str; 13] = [
    "id",
    "workspace_id",
    "key_id",
    "scope",
    "slug",
    "principal_id",
    "created_by_entity_id",
    "integration_id",
    "call_sid",
    "call_id",
    "delivery_id",
    "secret_hash",
    "number",
];

async fn walk() -> (Server, Vec<String>) {
    let recorder = Arc::new(Recorder::default());
    let options = Options {
        flush: false,
        recorder: Some(Arc::clone(&recorder)),
        statement_time: PATIENCE,
        closure_time: PATIENCE,
        ..Options::default()
    };
    let server = Server::on(|_| {}, options).await;
    // Migrating the schema reads small tables as a whole, once.
    let starting = recorder.texts();
    server.app.check_master_key().await.unwrap();
    let tenant = server.tenant("acme").await;
    let owner = &tenant.owner;
    let repeat = "sixteen-or-more-characters";
    for _ in 0..2 {
        owner.post_once("/v1/me/workspaces", repeat, new_workspace("own")).await.created();
        owner.post_once(&tenant.path("/api-keys"), repeat, json!({ "duration_days": 1 })).await;
    }
    let (service, minted) = tenant.key(json!({ "duration_days": 1, "role": "viewer" })).await;
    let key = tenant.path(&format!("/api-keys/{}", minted.text("key_id")));
    service.post("/v1/me/workspaces", new_workspace("refused")).await.refused(403);
    service.post(&tenant.path("/api-keys"), json!({ "duration_days": 1 })).await.refused(403);
    for path in ["/v1/workspaces", "/v1/workspaces?continuation_token=7", "/v1/auth/me"] {
        owner.get(path).await.ok();
    }
    owner.get(&tenant.workspace("")).await.ok();
    owner.get(&tenant.workspace("/test-caller-numbers")).await.ok();
    for path in [
        "/api-keys",
        "/api-keys?mine_only=true",
        "/integrations",
        "/audit",
        "/audit?service=workspaces&action=workspace.create",
        "/audit/summary",
        "/audit/phi-access",
        "/compliance/access-review",
    ] {
        owner.get(&tenant.path(path)).await.ok();
    }
    let entity = tenant.claimed.text("created_by_entity_id");
    for caller in [entity, tenant.owner_key_id()] {
        let asked = json!({ "caller": caller, "operation": "get-workspace" });
        owner.post(&tenant.path("/access/explain"), asked).await.ok();
    }
    owner.get(&tenant.path(&format!("/audit/entity/{entity}/access-log"))).await.ok();
    let period = json!({ "date_from": "2020-01-01T00:00:00Z", "date_to": "2100-01-01T00:00:00Z" });
    owner.post(&tenant.path("/audit/export"), period).await.ok();
    ward::audit::exports::worker::turn(&server.app).await;
    owner.get(&tenant.path("/audit/exports")).await.ok();
    owner.patch(&tenant.workspace(""), json!({ "connector_type": "hubspot" })).await.ok();
    owner.post(&tenant.workspace("/provision"), json!({})).await.ok();
    let signing = json!({
        "name": "signing", "display_name": "S", "base_url": "https://ehr.example",
        "auth": { "type": "smart_backend_services", "client_id": "c" },
    });
    let made = owner.post(&tenant.path("/integrations"), signing).await.created();
    let keys = tenant.path(&format!("/integrations/{}/keys", made.text("id")));
    let first = owner.post(&keys, json!({ "algorithm": "ES384" })).await.created();
    let second = owner.post(&keys, json!({ "algorithm": "ES384" })).await.created();
    owner.get(&keys).await.ok();
    owner.get(&keys.replace("/keys", "/jwks.json")).await.ok();
    owner.post(&format!("{keys}/{}/activate", second.text("kid")), json!({})).await.ok();
    owner.delete(&format!("{keys}/{}", first.text("kid"))).await.no_content();
    let numbers = json!({ "numbers": ["+15550100"] });
    owner.put(&tenant.workspace("/test-caller-numbers"), numbers).await.ok();
    owner.post_once(&format!("{key}/rotate"), repeat, json!({ "duration_days": 1 })).await.ok();
    service.post_once(&format!("{key}/rotate"), repeat, json!({ "duration_days": 1 })).await;
    owner.delete(&key).await;
    // A workspace that is not claimed in time gives way to a new owner of its slug, and to the sweep.
    server.anonymous().create_workspace("late").await;
    server.anonymous().create_workspace("later").await;
    server.clock.advance(Duration::from_hours(25));
    server.anonymous().create_workspace("late").await;
    server.app.sweep().await;
    server.app.flush().await;
    let gone = server.tenant("gone").await;
    gone.archive().await;
    let statements = recorder.texts().into_iter().filter(|sql| !starting.contains(sql));
    let statements: Vec<String> = statements.collect();
    assert!(statements.len() > 30, "{statements:#?}");
    (server, statements)
}

async fn insert(server: &Server, table: &str, columns: &str, values: &str) {
    insert_rows(server, 1..=MANY, table, columns, values).await;
}

/// The number of parameters of a statement.
fn parameters(sql: &str) -> usize {
    let numbers = sql.split('$').skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<usize>().ok()
    });
    numbers.max().unwrap_or(0)
}

/// Statements with their plans, line by line.
async fn plans(server: &Server, statements: &[String]) -> Vec<(String, Vec<String>)> {
    if Engine::current() == Engine::Postgres {
        let mut script = PLANS.to_owned();
        for (index, sql) in statements.iter().enumerate() {
            let nulls = vec!["NULL"; parameters(sql)].join(", ");
            let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
            let _ = write!(
                script,
                "; SELECT '== {index}'; PREPARE p{index} AS {sql}; EXPLAIN (COSTS OFF) EXECUTE p{index}{nulls}"
            );
        }
        let mut plans: Vec<(String, Vec<String>)> = Vec::new();
        for line in lines(&server.app.config.database, &script) {
            match line.strip_prefix("== ") {
                Some(index) => plans.push((statements[index.parse::<usize>().unwrap()].clone(), Vec::new())),
                None => plans.last_mut().unwrap().1.push(as_earlier(&line)),
            }
        }
        return plans;
    }
    let statements = statements.to_vec();
    let explain = move |tx: &mut Tx<'_>| {
        let explained = statements.iter().map(|sql| {
            let nulls = vec![Value::Null; parameters(sql)];
            let plan = tx.all(&format!("EXPLAIN QUERY PLAN {sql}"), &nulls, |row| {
                let (_, _, _, step): (i64, i64, i64, String) = row.read()?;
                Ok(step)
            })?;
            Ok((sql.clone(), plan))
        });
        explained.collect::<Result<_, ward_db::Error>>()
    };
    server.app.db.write("test.explain", explain).await.unwrap()
}

/// A line of a plan in the words of `PostgreSQL` before 17, which calls the result of a first step `$0`.
fn as_earlier(line: &str) -> String {
    let result = Regex::new(r"\(InitPlan (\d+)\)\.col1").unwrap();
    let line = result.replace_all(line, |found: &Captures<'_>| format!("${}", number_of(found) - 1));
    let step = Regex::new(r"^( *)InitPlan (\d+)$").unwrap();
    let named = |found: &Captures<'_>| {
        let number: u32 = found[2].parse().unwrap();
        format!("{}InitPlan {number} (returns ${})", &found[1], number - 1)
    };
    step.replace(&line, named).into_owned()
}

fn number_of(found: &Captures<'_>) -> u32 {
    found[1].parse().unwrap()
}

#[test]
fn plans_of_later_versions_are_read_like_earlier_ones() {
    assert_eq!(as_earlier("    Index Cond: (slug = (InitPlan 1).col1)"), "    Index Cond: (slug = $0)");
    assert_eq!(as_earlier("  InitPlan 2"), "  InitPlan 2 (returns $1)");
    assert_eq!(as_earlier("  InitPlan 1 (returns $0)"), "  InitPlan 1 (returns $0)");
}

fn wrong(sql: &str, plan: &[String]) -> Option<String> {
    // Half of a pair must not be searched among the rows of the other half.
    if sql.contains("principal_id = ") && sql.contains("workspace_id = ") {
        let by_both = |line: &String| {
            let searched = line.contains("SEARCH ") || line.trim_start().starts_with("Index Cond: ");
            searched && line.contains("workspace_id") && line.contains("principal_id")
        };
        if !plan.iter().any(by_both) {
            return Some("not found by the pair".to_owned());
        }
    }
    if Engine::current() == Engine::Sqlite {
        let bad = |line: &&String| {
            // The rows of a subquery are those that it found by an index.
            (line.starts_with("SCAN ")
                && !["SCAN counted", "SCAN found", "SCAN CONSTANT ROW"].contains(&line.as_str()))
                || line.contains("ORDER BY")
                || line.contains("AUTOMATIC")
        };
        return plan.iter().find(bad).cloned();
    }
    for (index, line) in plan.iter().enumerate() {
        let node = line.trim_start().trim_start_matches("->").trim_start();
        if ["Seq Scan", "Bitmap", "Hash Join", "Merge Join", "Sort", "Incremental Sort", "Materialize"]
            .iter()
            .any(|kind| node.starts_with(kind))
        {
            return Some(line.clone());
        }
        let details = plan[index + 1..].iter().take_while(|line| !line.contains("->"));
        let mut details = details.map(|line| line.trim_start());
        if node.starts_with("Index")
            && node.contains("Scan")
            && !details.any(|line| line.starts_with("Index Cond: "))
        {
            return Some(format!("{line}: all of it"));
        }
        let found_by = |line: &str, columns: &[&str]| {
            columns.iter().any(|column| line.contains(&format!("({column} = $")))
        };
        let found_already = index > 0 && found_by(&plan[index - 1], &UNIQUE);
        if node.starts_with("Filter: ") && !found_already && found_by(node, &LOOKED_UP_BY) {
            return Some(line.clone());
        }
    }
    None
}

#[track_caller]
fn all_are_look_ups(state: &str, plans: &[(String, Vec<String>)]) {
    // A quota limits a workspace's integrations, so either of their indexes finds one among few.
    let bounded = |sql: &str| {
        sql.contains("FROM integrations WHERE workspace_id = $1")
            || sql.starts_with("UPDATE integrations SET")
    };
    let wrong: Vec<String> = plans
        .iter()
        .filter(|(sql, _)| !bounded(sql))
        .filter_map(|(sql, plan)| Some(format!("{}\n  {sql}\n  {}", wrong(sql, plan)?, plan.join("\n  "))))
        .collect();
    assert!(wrong.is_empty(), "{state}:\n{}", wrong.join("\n\n"));
}

async fn with_and_without_statistics(server: &Server, statements: &[String], state: &str) {
    all_are_look_ups(&format!("{state}, not analyzed"), &plans(server, statements).await);
    if Engine::current() == Engine::Postgres {
        // The engine analyzes a sample, which often lacks rare values. Here it always lacks them.
        lines(&server.app.config.database, "SET default_statistics_target = 1; ANALYZE");
        let state = format!("{state}, analyzed by a few rows");
        all_are_look_ups(&state, &plans(server, statements).await);
    }
    server.sql("ANALYZE").await;
    all_are_look_ups(&format!("{state}, analyzed"), &plans(server, statements).await);
}

both!(with_many_workspaces_and_few_keys_every_statement_is_a_look_up, async || {
    let (server, statements) = walk().await;
    with_and_without_statistics(&server, &statements, "hardly anything there").await;
    let now = "timestamptz '2026-04-18T12:00:00.123456Z'";
    insert(
        &server,
        "workspaces",
        "id, slug, name, environment, region, state, last_position, created_at, updated_at",
        &format!("$ID, 's' || i, 'n', 'production', 'us', 'active', 0, {now}, {now}"),
    )
    .await;
    insert(&server, "slugs", "slug, workspace_id", "'s' || i, $ID").await;
    // All of these belong to one user.
    let user = "(SELECT principal_id FROM memberships WHERE role = 'owner' AND position > 0 LIMIT 1)";
    insert(
        &server,
        "memberships",
        "workspace_id, principal_id, role, position, created_at",
        &format!("$ID, {user}, 'owner', i, {now}"),
    )
    .await;
    with_and_without_statistics(&server, &statements, "many workspaces, few keys").await;
});

both!(with_few_workspaces_and_many_keys_every_statement_is_a_look_up, async || {
    let (server, statements) = walk().await;
    let now = "timestamptz '2026-04-18T12:00:00.123456Z'";
    let one = "(SELECT id FROM workspaces WHERE slug = 'acme')";
    insert(
        &server,
        "api_keys",
        "key_id, id, workspace_id, principal_id, principal_kind, created_by_entity_id, role, permissions, secret_hash, \
         position, expires_at, created_at, updated_at",
        &format!("'k' || i, $ID, {one}, $ID, 'service', {one}, 'viewer', '[]', (SELECT secret_hash FROM api_keys LIMIT 1), i, {now}, {now}, {now}"),
    )
    .await;
    insert(
        &server,
        "principals",
        "id, kind, last_position, created_at",
        &format!("$ID, 'service', 0, {now}"),
    )
    .await;
    insert(
        &server,
        "audit_events",
        "workspace_id, at, id, service, action, resource_type, phi_accessed",
        &format!("{one}, {now}, $ID, 'workspaces', 'workspace.update', 'workspace', false"),
    )
    .await;
    insert(
        &server,
        "idempotency",
        "scope, request, status, sealed, created_at",
        &format!("'i' || i, $BYTES, 201, false, {now}"),
    )
    .await;
    with_and_without_statistics(&server, &statements, "few workspaces, many keys").await;
});

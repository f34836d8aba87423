//! Every statement in the sources, with one workspace that has most rows of everything, among many workspaces
//! with one row of each. Planners err there: an average workspace has little more than one row. So reading
//! all rows of "a workspace" seems as cheap as looking one up.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use regex::Regex;
use reqwest::StatusCode;
use serde_json::json;
use ward::config::Config;
use ward::operator;
use ward_db::{Options, PLANS, Recorder};
use ward_test::{Engine, Fields as _, Scanner, Server, Tenant, TestIssuer, both, new_workspace, unknown_key};
use ward_test_db::postgres::lines;
use ward_test_db::sqlite;

use super::sources::{self, SourceStatement};
use super::{PATIENCE, parameters, plans, wrong};
use crate::support::{insert_rows, row_id};

/// The number of workspaces with one row of everything, and the number of further rows of the workspace
/// `slug`.
#[derive(Clone, Copy)]
struct Sizes {
    small: u32,
    giant: u32,
    slug: &'static str,
}

/// The distribution that statistics see: most workspaces have one row.
const TYPICAL: Sizes = Sizes { small: 20_000, giant: 150, slug: "acme" };
/// The distribution that the large workspace's own requests meet. It is the first, so the rows that its id
/// selects come first.
const LARGE: Sizes = Sizes { small: 100, giant: 20_000, slug: "s1" };
/// A position shortly before the end of the large workspace's lists.
const END: &str = "20095";

/// The major version of `PostgreSQL` whose plans are in the snapshot: the one of Debian 12.
const RECORDED: &str = "15";

/// The maximum number of pages that a statement reads: several look-ups, and a list's longest page.
const PAGES: u64 = 100;
/// The same limit in steps of `SQLite`'s virtual machine, which takes several for each row and some for each
/// column.
const STEPS: u64 = 3_000;

/// Statements that read more than one row's worth, and the reason for each.
const ALLOWED: [(&str, &str); 32] = [
    ("(h.issuers IS NULL OR h.id = $6)", "one workspace, found by its id"),
    (
        "SELECT created_at FROM workspaces ORDER BY id DESC LIMIT 1",
        "the operator's: the last entry of an index",
    ),
    (
        "m.owned_workspace_id = $6 AND m.role = 'owner' AND m.principal_id <> $7 LIMIT",
        "a workspace's owners, a thousand at most",
    ),
    ("AND CASE WHEN d.integration_id = $", "one step of a list, which looks at 10,000 rows"),
    ("SELECT DISTINCT", "one step of the audit's figures, which names each principal and room once"),
    ("FROM integrations WHERE workspace_id = $1", "a workspace has a hundred at most"),
    ("UPDATE integrations SET", "the same"),
    ("JOIN integrations i ON i.workspace_id = l.workspace_id", "the same"),
    ("FROM integration_secrets WHERE key_id <> $1", "the operator's, after a rotation of keys"),
    ("FROM twilio_accounts WHERE substr(", "the operator's, after a rotation of keys"),
    ("FROM idempotency WHERE sealed AND", "the operator's, after a rotation of keys"),
    ("FROM call_corrections WHERE substr(", "the operator's, after a rotation of keys"),
    ("FROM call_corrections WHERE (call_id, number", "one page of a rotation of keys"),
    ("FROM call_patients WHERE substr(", "the operator's, after a rotation of keys"),
    ("FROM call_patients WHERE (call_id", "one page of a rotation of keys"),
    ("FROM delivery_matches WHERE (delivery_id", "one page of a rotation of keys"),
    ("FROM delivery_matches m WHERE opened_at IS NOT NULL", "counts no further than it is told to"),
    ("FROM handovers WHERE substr(", "the operator's, after a rotation of keys"),
    ("FROM handovers WHERE key_id > $1", "one page of a rotation of keys"),
    ("FROM delivery_attempts WHERE answer IS NOT NULL", "the operator's, after a rotation of keys"),
    ("FROM delivery_attempts WHERE (workspace_id, delivery_id", "one page of a rotation of keys"),
    ("UPDATE deliveries SET maybe_sent = true WHERE state", "the operator's, after a restore from a backup"),
    ("FROM delivery_queue WHERE purpose IS NULL LIMIT $1", "counts no further than it is told to"),
    ("FROM sync_lanes WHERE waits_because IS NOT NULL LIMIT $1", "the same"),
    ("FROM deliveries WHERE stuck_since IS NOT NULL LIMIT $1", "the same"),
    (
        "FROM calls WHERE unfinished_since < $1 AND updated_at < $1",
        "the same, and the first entry of an index",
    ),
    (
        "FROM twilio_reconciliations WHERE calls_missing IS NOT NULL LIMIT $1",
        "counts no further than it is told to",
    ),
    ("FROM twilio_reconciliations WHERE failing_since IS NOT NULL LIMIT $1", "the same"),
    (
        "FROM twilio_accounts a LEFT JOIN twilio_reconciliations r",
        "a long read every quarter of an hour, one row per account",
    ),
    ("(l.workspace_id, l.integration_id) > ($1, $2)", "the operator's: one page of all queues"),
    ("FROM delivery_queue WHERE purpose IS NULL ORDER BY created_at LIMIT 1", "the first entry of an index"),
    ("d.call_id = $2", "sorts the deliveries of one call: one row per integration"),
];

/// Statements that read all of a workspace's rows of a kind, and the reason for each.
const THROUGH: [(&str, &str); 12] = [
    (
        "AND k.principal_kind = 'service' AND k.principal_id <> $7",
        "ends at the first live key of a service that owns the workspace; a workspace has a bounded number of keys",
    ),
    (
        "FROM audit_events WHERE workspace_id = $1 AND at <= $2 AND at >= $3 ORDER BY at, id",
        "one step of an export, which looks at a stated number of rows",
    ),
    (
        "SELECT count(*) FROM audit_events WHERE workspace_id = $1",
        "one step of a list, which looks at 10,000 rows",
    ),
    ("SELECT count(*) FROM calls WHERE workspace_id = $1", "the same"),
    (
        "SELECT id, sync FROM calls WHERE workspace_id = $1",
        "one step of a backfill, which looks at 10,000 rows",
    ),
    ("FROM deliveries d WHERE d.workspace_id = $1 AND d.position > $2", "the same"),
    ("FROM audit_events WHERE workspace_id = $1 AND service", "a filter reads the rows that it leaves out"),
    ("FROM calls WHERE workspace_id = $1 AND status", "the same"),
    ("FROM deliveries d WHERE d.workspace_id = $1 AND d.state = $2", "the same, to count them"),
    ("count(CASE WHEN phi_accessed THEN 1 END)", "the figures of a period"),
    ("c.direction NOT IN ('inbound', 'outbound')", "the proof that no test was owed"),
    ("AND direction IN ('inbound', 'outbound') LIMIT 1", "a long read before a conversion, seldom"),
];

/// Calls whose statements are built at run time, with all possible parts.
async fn walk(server: &Server, issuer: &TestIssuer, tenant: &Tenant) {
    let stranger = server.person(issuer, "dana");
    stranger.get(&tenant.workspace("")).await.expect(StatusCode::NOT_FOUND);
    let link = tenant.owner.post(&tenant.workspace("/invitations"), json!({ "role": "viewer" })).await;
    let accepted = json!({ "invitation": link.created()["invitation"] });
    stranger.post("/v1/invitations/accept", accepted).await.created();
    let any = "00000000-0000-4000-8000-000000000001";
    for path in [
        "/calls".to_owned(),
        "/calls?status=completed&include_simulated=true".to_owned(),
        "/audit".to_owned(),
        "/audit?service=workspaces&action=workspace.create&phi_only=true".to_owned(),
        "/audit/summary".to_owned(),
        format!("/audit/phi-access?entity_id={any}"),
        "/compliance/access-review".to_owned(),
        "/deliveries".to_owned(),
        format!("/deliveries?state=failed&integration_id={any}"),
        format!("/deliveries?call_id={any}"),
    ] {
        tenant.get(&path).await.ok();
    }
    let period = json!({ "date_from": "2020-01-01T00:00:00Z", "date_to": "2100-01-01T00:00:00Z" });
    tenant.post("/audit/export", period).await.ok();
    ward::audit::exports::worker::turn(&server.app).await;
    tenant.get("/audit/exports").await.ok();
    tenant.post("/deliveries/retry-failed", json!({})).await.ok();
    for path in ["/api-keys", "/api-keys?mine_only=true"] {
        tenant.get(path).await.ok();
    }
    tenant.owner.get(&tenant.workspace("/invitations")).await.ok();
    tenant.owner.get(&tenant.workspace("/test-credential-ids")).await.ok();
    tenant.owner.get(&tenant.workspace("/ownership-transfer")).await.refused(404);
    tenant.owner.delete(&tenant.workspace(&format!("/invitations/{any}"))).await.refused(404);
    let claims = json!({ "email": "dana@clinic.example", "email_verified": true });
    let verified = server.bearing(issuer.token_with("dana", &claims));
    verified.get("/v1/me/invitations").await.ok();
    verified.delete(&tenant.workspace("/members/me")).await;
    let foreign = json!({ "iss": "https://ci.example", "aud": "a", "sub": "s", "exp": issuer.seconds(60) });
    let workload = server.bearing(issuer.sign(&foreign));
    for path in ["/v1/me", &tenant.workspace("")] {
        workload.get(path).await.refused(401);
    }
    let connector = json!({ "connector_type": "hubspot" });
    tenant.owner.patch(&tenant.workspace(""), connector).await.ok();
    tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.ok();
    let integration = tenant.path(&format!("/integrations/{}", tenant.integration().await));
    tenant.owner.put(&integration, json!({ "display_name": "Another" })).await.ok();
    operator::prove_exclusion(&server.app, "acme", "2026-01-01", "2026-12-31").await.unwrap();
    keep_the_last_ways_in(server, tenant).await;
}

/// The searches for another way in: of a user, and of the only service that owns a workspace.
async fn keep_the_last_ways_in(server: &Server, tenant: &Tenant) {
    tenant.owner.post("/v1/me/workspaces", new_workspace("another")).await.created();
    let key = tenant.path(&format!("/api-keys/{}", tenant.owner_key_id()));
    tenant.owner.delete(&key).await.refused_as(409, "last_way_in");
    operator::create_workspace(&server.app, &new_workspace("services")).await.unwrap();
    let issued = operator::issue_key(&server.app, "services", "owner", "first", Some(1)).await.unwrap();
    let issued = serde_json::to_value(issued).unwrap();
    let service = server.bearing(issued.text("api_key"));
    let home = service.get("/v1/auth/me").await.ok();
    let key = format!("/v1/{}/api-keys/{}", home.text("workspace_id"), issued.text("key_id"));
    service.delete(&key).await.refused_as(409, "last_way_in");
}

/// Lists that need more than one step, so that a step starts after a row and ends with one.
async fn walk_long_lists(server: &Server) {
    let long = server.tenant("long").await;
    let sizes = Sizes { small: 1, giant: 10_001, slug: "long" };
    let tables = ["audit_events", "calls", "deliveries"];
    for (table, columns, values) in ROWS.into_iter().filter(|(table, ..)| tables.contains(table)) {
        insert(server, sizes, table, columns, values).await;
    }
    for path in [
        "/calls?limit=100&offset=9950",
        "/audit?limit=100&offset=9950",
        "/audit?service=none",
        "/audit/summary",
        "/deliveries",
        "/deliveries?state=pending",
        "/deliveries?state=synced",
        "/deliveries?integration_id=00000000-0000-4000-8000-000000000001",
    ] {
        long.owner.get(&long.path(path)).await.ok();
    }
}

/// The statements that are complete in the source, and the sent forms of the others.
fn known(written: &[SourceStatement], sent: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for one in written {
        if !one.is_open() {
            all.push(one.sql.clone());
            continue;
        }
        let became: Vec<String> = sent.iter().filter(|sql| one.became(sql)).cloned().collect();
        assert!(!became.is_empty(), "nothing here sends what {} writes: {}", one.file, one.sql);
        all.extend(became);
    }
    all.sort();
    all.dedup();
    all
}

async fn insert(server: &Server, sizes: Sizes, table: &str, columns: &str, values: &str) {
    let Sizes { small, giant, slug } = sizes;
    let one = format!("(SELECT id FROM workspaces WHERE slug = '{slug}')");
    for ((from, to), workspace) in [((1, small), row_id()), ((small + 1, small + giant), &one)] {
        // Tables with one row per workspace get that row for the large one too.
        if table.starts_with("once ") && from > small {
            continue;
        }
        let table = table.trim_start_matches("once ");
        insert_rows(server, from..=to, table, columns, &values.replace("$WS", workspace)).await;
    }
}

/// The rows of every table: its columns, and their values with a number.
const ROWS: [(&str, &str, &str); 31] = [
    (
        "once workspaces",
        "id, slug, name, environment, region, state, last_position, created_at, updated_at",
        "$ID, 's' || i, 'n', 'production', 'us', 'active', 0, $NOW, $NOW",
    ),
    ("once slugs", "slug, workspace_id", "'s' || i, $ID"),
    ("once unclaimed", "workspace_id, slot, lapses_at", "$ID, 0, $NOW"),
    ("principals", "id, kind, last_position, created_at", "$ID, 'user', i, $NOW"),
    (
        "once identities",
        "issuer, subject, principal_id, kind, created_at",
        "'i', 's' || i, $ID, 'user', $NOW",
    ),
    (
        "memberships",
        "workspace_id, principal_id, role, position, seat, created_at",
        "$WS, $ID, 'owner', i, i, $NOW",
    ),
    ("seats", "workspace_id, seat, principal_id", "$WS, i, $ID"),
    (
        "api_keys",
        "key_id, id, workspace_id, principal_id, principal_kind, created_by_entity_id, role, permissions, secret_hash, \
         position, expires_at, created_at, updated_at",
        "'k' || i, $ID, $WS, $ID, 'service', $ID, 'viewer', '[]', $BYTES, i, $NOW, $NOW, $NOW",
    ),
    (
        "trust_rules",
        "id, workspace_id, name, issuer, audience, conditions, look_up, anchor, role, permissions, created_by_entity_id, \
         position, created_at",
        "$ID, $WS, 'n', 'i', 'a', '[]', $HASH, $HASH, 'viewer', '[]', $ID, i, $NOW",
    ),
    (
        "audit_events",
        "workspace_id, at, id, service, action, resource_type, phi_accessed",
        "$WS, $NOW, $ID, 'workspaces', 'workspace.update', 'workspace', false",
    ),
    ("idempotency", "scope, request, status, sealed, created_at", "'i' || i, $BYTES, 201, false, $NOW"),
    ("once leaked_key_policies", "workspace_id, action, updated_at", "$ID, 'revoke', $NOW"),
    ("once test_callers", "workspace_id, ordinal, number", "$ID, 0, '+15550100'"),
    ("once test_credentials", "workspace_id, credential_id, ordinal", "$ID, $ID, 0"),
    ("call_legs", "workspace_id, parent_sid, callee, created_at", "$WS, 'p' || i, '+15550100', $NOW"),
    ("once test_caller_lists", "workspace_id, version, numbers, set_at", "$ID, 0, '[]', $NOW"),
    (
        "once integrations",
        "workspace_id, id, name, display_name, protocol, base_url, endpoints, enabled, builtin, position, created_at, \
         updated_at",
        "$ID, $ID, 'n', 'n', 'rest', 'u', '[]', false, false, i, $NOW, $NOW",
    ),
    (
        "once integration_secrets",
        "workspace_id, integration_id, field, reference, origins, key_id, sealed, created_at",
        "$ID, $ID, 'f', 'r', 'o', 'k', $BYTES, $NOW",
    ),
    (
        "invitations",
        "workspace_id, id, secret_hash, role, created_by_entity_id, position, expires_at, created_at",
        "$WS, $ID, 'h' || i, 'viewer', $ID, i, $NOW, $NOW",
    ),
    (
        "endings",
        "workspace_id, principal_id, kind, position, done_until, due_at, request_id",
        "$WS, $ID, 'keys', i, $ID, $NOW, 'r'",
    ),
    (
        "once ownership_transfers",
        "workspace_id, nominee_entity_id, nominated_by_entity_id, expires_at, created_at",
        "$ID, $ID, $ID, $NOW, $NOW",
    ),
    (
        "calls",
        "workspace_id, id, call_sid, direction, reported_direction, reported_by, caller_form, list_version, status, \
         finished, started_at, details, first_reported_at, updated_at",
        "$WS, $ID, 'c' || i, 'inbound', 'inbound', 'runtime', 'withheld', 0, 'completed', true, $NOW, '{}', $NOW, $NOW",
    ),
    (
        "once twilio_accounts",
        "workspace_id, account_sid, auth_token, created_at, updated_at",
        "$ID, 'a', $BYTES, $NOW, $NOW",
    ),
    ("once twilio_reconciliations", "workspace_id, due_at, attempts", "$ID, $NOW, 0"),
    (
        "once sync_lanes",
        "workspace_id, integration_id, due_at, not_before, lease_until, held, failures",
        "$ID, $ID, $NOW, $NOW, $NOW, false, 0",
    ),
    (
        "deliveries",
        "workspace_id, id, integration_id, call_id, direction, state, attempts, maybe_sent, position, created_at",
        "$WS, $ID, $WS, $ID, 'inbound', 'pending', 0, false, i, $NOW",
    ),
    (
        "delivery_queue",
        "workspace_id, integration_id, delivery_id, due_at, created_at",
        "$WS, $WS, $ID, $NOW, $NOW",
    ),
    (
        "delivery_attempts",
        "workspace_id, delivery_id, number, outcome, started_at, ended_at",
        "$WS, $ID, 1, 'lost', $NOW, $NOW",
    ),
    ("call_corrections", "workspace_id, call_id, number, corrected_at, sealed", "$WS, $ID, 1, $NOW, $BYTES"),
    ("call_patients", "workspace_id, call_id, sealed, changed_at", "$WS, $ID, $BYTES, $NOW"),
    (
        "delivery_matches",
        "workspace_id, delivery_id, review_id, needs, because, candidates, position, opened_at",
        "$WS, $ID, $ID, 'patient', 'none', 0, i, $NOW",
    ),
];

async fn fill(server: &Server, sizes: Sizes) {
    for (table, columns, values) in ROWS {
        insert(server, sizes, table, columns, values).await;
    }
}

#[track_caller]
fn judge(state: &str, plans: &[(String, Vec<String>)]) {
    let allowed = |sql: &str| ALLOWED.iter().any(|(part, _)| sql.contains(part));
    let bad = plans
        .iter()
        .filter(|(sql, _)| !allowed(sql))
        .filter_map(|(sql, plan)| Some(format!("{}\n  {sql}\n  {}", wrong(sql, plan)?, plan.join("\n  "))));
    let bad: Vec<String> = bad.collect();
    assert!(bad.is_empty(), "{state}:\n{}", bad.join("\n\n"));
}

/// A server, and all statements in the sources.
async fn walked() -> (Server, Vec<String>) {
    let recorder = Arc::new(Recorder::default());
    let options = Options {
        flush: false,
        recorder: Some(Arc::clone(&recorder)),
        statement_time: PATIENCE,
        closure_time: PATIENCE,
        ..Options::default()
    };
    // This uses a database of its own, because the extra rows would change the plans of the other.
    walk_long_lists(&Server::on(|_| {}, options.clone()).await).await;
    let mut issuer = TestIssuer::start().await;
    let scanner = Scanner::new("scanner");
    let configure = |config: &mut Config| {
        config.issuers = vec![issuer.config()];
        config.leak_report_keys = vec![scanner.key()];
    };
    let server = Server::on(configure, options).await;
    issuer.follow(&server.clock);
    let tenant = server.tenant("acme").await;
    walk(&server, &issuer, &tenant).await;
    scanner.report(&server, &[&unknown_key()]).await.ok();
    let statements = known(&sources::statements(), &recorder.texts());
    (server, statements)
}

both!(with_one_giant_among_small_workspaces_every_statement_that_is_written_is_a_look_up, async || {
    let (server, statements) = walked().await;
    judge("hardly anything there", &plans(&server, &statements).await);
    fill(&server, TYPICAL).await;
    judge("filled, not analyzed", &plans(&server, &statements).await);
    if Engine::current() == Engine::Postgres {
        lines(&server.app.config.database, "SET default_statistics_target = 1; ANALYZE");
        judge("filled, analyzed by a few rows", &plans(&server, &statements).await);
    }
    server.sql("ANALYZE").await;
    let plans = plans(&server, &statements).await;
    judge("filled, analyzed", &plans);
    for (part, why) in ALLOWED.iter().chain(&THROUGH) {
        assert!(statements.iter().any(|sql| sql.contains(part)), "nothing has {part} any more: {why}");
    }
    let shown: BTreeSet<String> = plans
        .iter()
        .map(|(sql, plan)| format!("{}\n    {}\n\n", sources::without_columns(sql), plan.join("\n    ")))
        .collect();
    let text: String = shown.into_iter().collect();
    match Engine::current() {
        Engine::Sqlite => insta::assert_snapshot!("plans_on_sqlite", text),
        Engine::Postgres => {
            let version = lines(&server.app.config.database, "SHOW server_version_num");
            if version[0].starts_with(RECORDED) {
                insta::assert_snapshot!("plans_on_postgres", text);
            } else {
                // The rules above hold on every version. The words of a plan differ between versions.
                let what =
                    format!("the snapshot of plans is of PostgreSQL {RECORDED}; this is {}", version[0]);
                let _ = std::io::stderr().write_all(format!("\nLEFT OUT: {what}\n").as_bytes());
            }
        }
    }
});

/// The value of a parameter: the large workspace's id, a position at the end of its lists, or a value that
/// fits the column.
fn value(sql: &str, number: usize) -> &'static str {
    let beside = Regex::new(&format!(r"(\w+) ?(?:=|<>|<|<=|>|>=)? ?\${number}\b")).unwrap();
    let named: Vec<&str> = beside.captures_iter(sql).map(|found| found.get(1).unwrap().as_str()).collect();
    let is = |words: &[&str]| named.iter().any(|name| words.iter().any(|word| name.ends_with(word)));
    if is(&["LIMIT", "OFFSET"]) {
        "5"
    } else if is(&["position", "seat"]) {
        END
    } else if is(&["at", "lease_until"]) {
        "2026-04-18T12:00:00.123456Z"
    } else if is(&["key_id"]) {
        "k1"
    } else {
        "00000001-0000-4000-8000-000000000001"
    }
}

/// Runs a statement, undoes its changes, and returns it with its plan if it read too many pages.
fn too_many_pages(url: &str, sql: &str) -> Option<String> {
    let types = lines(
        url,
        &format!(
            "{PLANS}; PREPARE p AS {sql}; SELECT unnest(parameter_types)::text FROM pg_prepared_statements"
        ),
    );
    assert_eq!(types.len(), parameters(sql), "{sql}");
    let values = types.iter().enumerate().map(|(index, of)| {
        let text = match (of.as_str(), value(sql, index + 1)) {
            ("bigint", text) if text.parse::<i64>().is_err() => "5",
            ("boolean", _) => "true",
            ("jsonb", _) => "[]",
            ("bytea", _) => "",
            ("timestamp with time zone", _) => "2026-04-18T12:00:00Z",
            (_, text) => text,
        };
        format!("'{text}'::{of}")
    });
    let values = values.collect::<Vec<_>>().join(", ");
    let values = if values.is_empty() { values } else { format!("({values})") };
    let plan = lines(
        url,
        &format!(
            "{PLANS}; PREPARE p AS {sql}; BEGIN; \
             EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE p{values}; ROLLBACK"
        ),
    );
    let pages = Regex::new(r"shared hit=(\d+)(?: read=(\d+))?|shared read=(\d+)").unwrap();
    // The first line with a count is that of the whole statement.
    let read = plan.iter().find_map(|line| pages.captures(line)).map_or(0, |found| {
        found.iter().skip(1).flatten().map(|number| number.as_str().parse::<u64>().unwrap()).sum()
    });
    (read > PAGES).then(|| format!("{read} pages\n  {sql}\n  {}", plan.join("\n  ")))
}

/// Runs a query, and returns it if it took too many steps of `SQLite`'s virtual machine.
fn too_many_steps(url: &str, sql: &str) -> Option<String> {
    let values: Vec<&str> = (1..=parameters(sql)).map(|number| value(sql, number)).collect();
    let file = Path::new(url.trim_start_matches("sqlite:"));
    let taken = sqlite::steps(file, &sql.replace('$', "?"), &values);
    (taken > STEPS).then(|| format!("{taken} steps\n  {sql}"))
}

// A plan names the index that is searched, but not where the search starts and ends. So these statements
// run, and their reads are counted.
both!(no_statement_reads_through_a_giant, async || {
    let (server, statements) = walked().await;
    fill(&server, LARGE).await;
    // The owner of the large workspace is a member everywhere. The last position stays free, because a
    // statement inserts a row there.
    let everywhere = format!(
        "INSERT INTO memberships (workspace_id, principal_id, role, position, seat, created_at) \
         SELECT id, (SELECT id FROM workspaces WHERE slug = 's1'), 'viewer', last_position, 0, created_at \
         FROM principals WHERE last_position > 100 AND last_position <> {END}"
    );
    server.sql(everywhere).await;
    server.sql("ANALYZE").await;
    let url = &server.app.config.database;
    let of_postgres = Engine::current() == Engine::Postgres;
    if of_postgres {
        // A statement that writes here must not pass.
        lines(
            url,
            "DO $$ DECLARE c record; BEGIN \
               FOR c IN SELECT conrelid::regclass AS t, conname AS n FROM pg_constraint WHERE contype IN ('c', 'f') \
                        AND connamespace = 'public'::regnamespace \
               LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.n); END LOOP; END $$",
        );
    }
    let mut bad = Vec::new();
    for sql in &statements {
        // An INSERT found nothing to read, and statements that may read more are listed. On a file, changes
        // cannot be undone here.
        let left_out = sql.starts_with("INSERT") || !of_postgres && !sql.starts_with("SELECT");
        if left_out || ALLOWED.iter().chain(&THROUGH).any(|(part, _)| sql.contains(part)) {
            continue;
        }
        bad.extend(if of_postgres { too_many_pages(url, sql) } else { too_many_steps(url, sql) });
    }
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
});

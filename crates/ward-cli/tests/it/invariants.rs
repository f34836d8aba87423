//! Rules that hold for a database after any history of its servers: every write is complete.
//!
//! Each rule is a query in portable SQL that counts the violations.

use std::time::Duration;

use tokio::runtime::Runtime;
use ward_db::{Db, Options, decode};
use ward_test_db::postgres;

use crate::replicas::report;

/// Each rule's statement, and the query that counts its violations.
const RULES: &[(&str, &str)] = &[
    (
        "a workspace has the event that made it",
        "SELECT count(*) FROM workspaces w WHERE NOT EXISTS (SELECT 1 FROM audit_events e \
           WHERE e.workspace_id = w.id AND e.action = 'workspace.create' AND e.resource_id = w.id)",
    ),
    (
        "an event is about a workspace that is there",
        "SELECT count(*) FROM audit_events e WHERE e.action IN ('workspace.create', 'workspace.claim', 'api_key.create') \
           AND NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.id = e.workspace_id)",
    ),
    (
        "a workspace holds its slug",
        "SELECT count(*) FROM workspaces w WHERE w.state <> 'lapsed' AND NOT EXISTS (SELECT 1 FROM slugs s \
           WHERE s.slug = w.slug AND s.workspace_id = w.id)",
    ),
    (
        "a slug is held by a workspace that has or had it",
        "SELECT count(*) FROM slugs s WHERE NOT EXISTS (SELECT 1 FROM workspaces w \
           WHERE w.id = s.workspace_id AND w.slug = s.slug AND w.state <> 'lapsed') AND NOT EXISTS (SELECT 1 FROM former_slugs f \
           WHERE f.slug = s.slug AND f.workspace_id = s.workspace_id)",
    ),
    (
        "an unclaimed workspace waits for its claim",
        "SELECT count(*) FROM workspaces w WHERE w.state = 'unclaimed' AND NOT EXISTS (SELECT 1 FROM unclaimed u \
           WHERE u.workspace_id = w.id)",
    ),
    (
        "only an unclaimed workspace waits for its claim",
        "SELECT count(*) FROM unclaimed u WHERE NOT EXISTS (SELECT 1 FROM workspaces w \
           WHERE w.id = u.workspace_id AND w.state = 'unclaimed')",
    ),
    (
        "the slots count the unclaimed",
        "SELECT count(*) FROM bootstrap_slots b WHERE b.used <> (SELECT count(*) FROM unclaimed u WHERE u.slot = b.slot)",
    ),
    (
        "a claimed workspace has an owner",
        "SELECT count(*) FROM workspaces w WHERE w.state IN ('active', 'archived') AND NOT EXISTS (\
           SELECT 1 FROM memberships m WHERE m.workspace_id = w.id AND m.role = 'owner')",
    ),
    (
        "an archived workspace has the event that ended it, and is in no member's list",
        "SELECT count(*) FROM workspaces w WHERE w.state = 'archived' AND (NOT EXISTS (SELECT 1 FROM audit_events e \
           WHERE e.workspace_id = w.id AND e.action = 'workspace.archive') \
           OR EXISTS (SELECT 1 FROM memberships m WHERE m.workspace_id = w.id AND m.position > 0))",
    ),
    (
        "a key speaks for a principal of its kind",
        "SELECT count(*) FROM api_keys k WHERE NOT EXISTS (SELECT 1 FROM principals p \
           WHERE p.id = k.principal_id AND p.kind = k.principal_kind)",
    ),
    (
        "a live key's principal is a member",
        "SELECT count(*) FROM api_keys k WHERE k.revoked_at IS NULL AND NOT EXISTS (SELECT 1 FROM memberships m \
           WHERE m.workspace_id = k.workspace_id AND m.principal_id = k.principal_id)",
    ),
    (
        "a revoked service key's principal is none",
        "SELECT count(*) FROM api_keys k WHERE k.revoked_at IS NOT NULL AND k.principal_kind = 'service' AND EXISTS (\
           SELECT 1 FROM memberships m WHERE m.workspace_id = k.workspace_id AND m.principal_id = k.principal_id)",
    ),
    (
        "a key has the event that made it",
        "SELECT count(*) FROM api_keys k WHERE (k.workspace_id, k.id) NOT IN (SELECT e.workspace_id, e.resource_id \
           FROM audit_events e WHERE e.action IN ('api_key.create', 'workspace.claim') AND e.resource_id IS NOT NULL)",
    ),
    (
        "a revoked key has the event that ended it, and a live one has none",
        "SELECT count(*) FROM api_keys k LEFT JOIN (SELECT workspace_id, resource_id, count(*) AS times FROM audit_events \
             WHERE action = 'api_key.revoke' GROUP BY workspace_id, resource_id) e \
           ON e.workspace_id = k.workspace_id AND e.resource_id = k.id \
         WHERE coalesce(e.times, 0) <> CASE WHEN k.revoked_at IS NULL THEN 0 ELSE 1 END",
    ),
    (
        "a membership has its seat",
        "SELECT count(*) FROM memberships m WHERE NOT EXISTS (SELECT 1 FROM seats s \
           WHERE s.workspace_id = m.workspace_id AND s.seat = m.seat AND s.principal_id = m.principal_id)",
    ),
    (
        "a seat has its membership",
        "SELECT count(*) FROM seats s WHERE NOT EXISTS (SELECT 1 FROM memberships m \
           WHERE m.workspace_id = s.workspace_id AND m.principal_id = s.principal_id AND m.seat = s.seat)",
    ),
    (
        "a member is a principal",
        "SELECT count(*) FROM memberships m WHERE NOT EXISTS (SELECT 1 FROM principals p WHERE p.id = m.principal_id)",
    ),
    (
        "no position in a list is behind its guard row",
        "SELECT (SELECT count(*) FROM api_keys k JOIN workspaces w ON w.id = k.workspace_id WHERE k.position > w.last_position) \
              + (SELECT count(*) FROM seats s JOIN workspaces w ON w.id = s.workspace_id WHERE s.seat > w.last_position) \
              + (SELECT count(*) FROM memberships m JOIN principals p ON p.id = m.principal_id WHERE m.position > p.last_position)",
    ),
    (
        "a provisioned workspace has the event of it",
        "SELECT count(*) FROM workspaces w WHERE w.provisioned_at IS NOT NULL AND NOT EXISTS (\
           SELECT 1 FROM audit_events e WHERE e.workspace_id = w.id AND e.action = 'workspace.provision')",
    ),
    (
        "every version of a list of test callers has its event",
        "SELECT count(*) FROM workspaces w WHERE (SELECT coalesce(max(l.version), 0) FROM test_caller_lists l \
             WHERE l.workspace_id = w.id) \
           <> (SELECT count(*) FROM audit_events e WHERE e.workspace_id = w.id AND e.action = 'test_callers.update')",
    ),
    (
        "a call has the event of its beginning",
        "SELECT count(*) FROM calls c WHERE (c.workspace_id, c.id) NOT IN (SELECT e.workspace_id, e.resource_id \
           FROM audit_events e WHERE e.action = 'call.create' AND e.resource_id IS NOT NULL)",
    ),
    (
        "a finished call was decided, and has the event of it; no other has",
        "SELECT count(*) FROM calls c LEFT JOIN (SELECT workspace_id, resource_id, count(*) AS times FROM audit_events \
             WHERE action = 'call.finish' GROUP BY workspace_id, resource_id) e \
           ON e.workspace_id = c.workspace_id AND e.resource_id = c.id \
         WHERE (c.finished AND c.sync IS NULL) OR (NOT c.finished AND c.sync IS NOT NULL) \
           OR coalesce(e.times, 0) <> CASE WHEN c.finished THEN 1 ELSE 0 END",
    ),
    (
        "a call's delivery is there, once, and there is no other delivery",
        "SELECT count(*) FROM calls c WHERE CASE WHEN c.sync = 'owed' THEN 1 ELSE 0 END <> (SELECT count(*) FROM deliveries d \
           WHERE d.workspace_id = c.workspace_id AND d.call_id = c.id)",
    ),
    (
        "a delivery is of a real call",
        "SELECT count(*) FROM deliveries d WHERE NOT EXISTS (SELECT 1 FROM calls c WHERE c.workspace_id = d.workspace_id \
           AND c.id = d.call_id AND c.finished AND c.direction = d.direction AND c.direction IN ('inbound', 'outbound'))",
    ),
    (
        "a delivery that is still to be sent is in an integration queue",
        "SELECT count(*) FROM deliveries d WHERE d.state IN ('pending', 'sending') AND (NOT EXISTS (\
           SELECT 1 FROM delivery_queue q WHERE q.workspace_id = d.workspace_id AND q.integration_id = d.integration_id \
             AND q.delivery_id = d.id) \
           OR NOT EXISTS (SELECT 1 FROM sync_lanes l WHERE l.workspace_id = d.workspace_id \
             AND l.integration_id = d.integration_id))",
    ),
    (
        "only deliveries that are still to be sent are in a queue",
        "SELECT count(*) FROM delivery_queue q WHERE NOT EXISTS (SELECT 1 FROM deliveries d \
           WHERE d.workspace_id = q.workspace_id AND d.id = q.delivery_id AND (d.state IN ('pending', 'sending') OR (d.state = 'synced' AND q.purpose = 'check')))",
    ),
    (
        "a remembered request has its answer",
        "SELECT count(*) FROM idempotency i WHERE i.status = 0 OR (i.body IS NULL AND NOT i.sealed)",
    ),
];

/// Reads a database beside its servers, or without one.
pub enum Look {
    File {
        db: Db,
        runtime: Runtime,
    },
    /// Uses sessions of its own that plan freely: Ward's planner settings suit look-ups, and these queries
    /// are not.
    Server {
        url: String,
    },
}

impl Look {
    pub fn at(url: &str) -> Self {
        if url.starts_with("postgres") {
            return Self::Server { url: url.to_owned() };
        }
        let options =
            Options { create: false, long_read_time: Duration::from_mins(10), ..Options::default() };
        let db = Db::open(url, options).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self::File { db, runtime }
    }

    /// The number that a query returns.
    pub fn number(&self, sql: &str) -> i64 {
        let found = self.lines(&format!("SELECT CAST(({sql}) AS text)"));
        found[0].parse().unwrap()
    }

    /// The rows of a query with one text column.
    pub fn lines(&self, sql: &str) -> Vec<String> {
        match self {
            Self::Server { url } => postgres::lines(url, sql),
            Self::File { db, runtime } => {
                let sql = sql.to_owned();
                let look = db.read_long("test.lines", move |tx| tx.all(&sql, &[], decode::<String>));
                runtime.block_on(async { look.await as Result<_, ward_db::Error> }).unwrap()
            }
        }
    }

    /// Changes rows without any of Ward's rules.
    pub fn run(&self, sql: &str) {
        match self {
            Self::Server { url } => drop(postgres::lines(url, sql)),
            Self::File { db, runtime } => {
                let sql = sql.to_owned();
                let change = db.write("test.run", move |tx| tx.execute(&sql, &[]));
                runtime.block_on(async { change.await as Result<_, ward_db::Error> }).unwrap();
            }
        }
    }

    /// Checks that every rule holds and that the engine itself finds no damage. A failure names `when`.
    #[track_caller]
    pub fn assert_whole(&self, when: &str) {
        match self {
            Self::Server { url } => amcheck(url, when),
            Self::File { .. } => {
                let said = self.lines(
                    "SELECT integrity_check FROM pragma_integrity_check UNION ALL \
                     SELECT \"table\" || ' refers to nothing' FROM pragma_foreign_key_check",
                );
                assert_eq!(said, ["ok"], "{when}: the file is corrupt");
            }
        }
        for (rule, broken) in RULES {
            assert_eq!(self.number(broken), 0, "{when}: not so everywhere: {rule}");
        }
        assert!(self.number("SELECT count(*) FROM workspaces") > 0, "{when}: there is nothing to look at");
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Self::File { db, .. } = self {
            let db = db.clone();
            // Closing joins threads, which would block a thread of the runtime.
            let _ = std::thread::spawn(move || db.close()).join();
        }
    }
}

/// Compares every table with its indexes, using PostgreSQL's own extension.
fn amcheck(url: &str, when: &str) {
    if postgres::lines(url, "SELECT name FROM pg_available_extensions WHERE name = 'amcheck'").is_empty() {
        return report(
            "WARNING: this PostgreSQL has no amcheck: its tables and indexes are NOT looked into.",
        );
    }
    postgres::lines(url, "CREATE EXTENSION IF NOT EXISTS amcheck");
    let broken = "SELECT c.relname || ': ' || h.msg FROM pg_class c, LATERAL verify_heapam(c.oid) h \
                  WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace";
    assert_eq!(postgres::lines(url, broken), Vec::<String>::new(), "{when}: tables are corrupt");
    // Each raises an error if its index does not match its table.
    postgres::lines(
        url,
        "SELECT bt_index_check(i.indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
         WHERE c.relnamespace = 'public'::regnamespace",
    );
}

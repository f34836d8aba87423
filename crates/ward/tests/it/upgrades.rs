//! A database of older Wards, with their data, becomes equal to a new one.

use ward::schema::{MIGRATIONS, VERSION};
use ward_db::{Db, Error, Options, decode};
use ward_test::{Engine, both};
use ward_test_db::postgres::{Database, shared};
use ward_test_db::sqlite;

/// An empty database on the test's engine, which is deleted with this value.
struct Empty {
    db: Db,
    _folder: Option<tempfile::TempDir>,
    _database: Option<Database>,
}

impl Empty {
    fn new() -> Self {
        let options = Options { flush: false, ..Options::default() };
        let open = |url: &str| Db::open(url, options).unwrap();
        match Engine::current() {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let db = open(&format!("sqlite:{}", folder.path().join("ward.db").display()));
                Self { db, _folder: Some(folder), _database: None }
            }
            Engine::Postgres => {
                let database = shared().database();
                Self { db: open(&database.url), _folder: None, _database: Some(database) }
            }
        }
    }

    /// Migrates the database to the state of a Ward with this many migrations.
    fn migrate(&self, count: usize) {
        self.db.migrate(&MIGRATIONS[..count], VERSION).unwrap();
    }

    async fn texts(&self, sql: &'static str) -> Vec<String> {
        let read = self.db.read_long("test.texts", move |tx| tx.all(sql, &[], decode));
        read.await.unwrap_or_else(|error: Error| panic!("{sql}: {error}"))
    }

    /// The engine's description of all tables, indexes and constraints.
    async fn shape(&self) -> Vec<String> {
        self.texts(match Engine::current() {
            Engine::Sqlite => {
                "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1"
            }
            Engine::Postgres => {
                "SELECT table_name || ' ' || ordinal_position || ' ' || column_name || ' ' || data_type || ' ' || \
                        is_nullable || ' ' || coalesce(column_default, '') || ' ' || coalesce(collation_name, '') \
                 FROM information_schema.columns WHERE table_schema = 'public' \
                 UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' \
                 UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) \
                 FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1"
            }
        })
        .await
    }

    /// The data of the first Ward: two workspaces, one with three members. Two of these joined at the same
    /// time.
    async fn fill(&self) {
        const A: &str = "a0000000-0000-4000-8000-000000000000";
        const B: &str = "b0000000-0000-4000-8000-000000000000";
        let member = |number: u8| format!("{number}0000000-0000-4000-8000-000000000000");
        let mut rows = Vec::new();
        for (id, slug) in [(A, "acme"), (B, "beta")] {
            rows.push(format!(
                "INSERT INTO workspaces (id, slug, name, environment, region, state, last_position, created_at, updated_at) \
                 VALUES (uuid '{id}', '{slug}', 'A clinic', 'production', 'us-east-1', 'active', 0, {T1}, {T1})"
            ));
            rows.push(format!("INSERT INTO slugs (slug, workspace_id) VALUES ('{slug}', uuid '{id}')"));
        }
        for number in 1..=4 {
            let id = member(number);
            rows.push(format!(
                "INSERT INTO principals (id, kind, last_position, created_at) VALUES (uuid '{id}', 'user', 9, {T1})"
            ));
        }
        for (workspace, number, at) in [(A, 3, T2), (A, 1, T2), (A, 2, T1), (B, 4, T1)] {
            rows.push(format!(
                "INSERT INTO memberships (workspace_id, principal_id, role, position, created_at) \
                 VALUES (uuid '{workspace}', uuid '{}', 'owner', 9, {at})",
                member(number)
            ));
        }
        if Engine::current() == Engine::Sqlite {
            for row in &mut rows {
                *row = sqlite::spelled(row);
            }
        }
        let write = self
            .db
            .write("test.fill", move |tx| rows.iter().try_for_each(|row| tx.execute(row, &[]).map(drop)));
        write.await.unwrap_or_else(|error: Error| panic!("{error}"));
    }
}

const T1: &str = "timestamptz '2026-01-01T00:00:00.000000Z'";
const T2: &str = "timestamptz '2026-01-02T00:00:00.000000Z'";

both!(a_database_of_every_older_version_becomes_that_of_the_newest, async || {
    let fresh = Empty::new();
    fresh.migrate(MIGRATIONS.len());
    let wanted = fresh.shape().await;
    assert!(wanted.iter().any(|line| line.to_lowercase().contains("check")), "{wanted:?}");
    assert!(wanted.iter().any(|line| line.to_lowercase().contains("foreign key")), "{wanted:?}");
    for older in 1..MIGRATIONS.len() {
        let grown = Empty::new();
        // Its rows are of the first version, and stay in the older database.
        grown.migrate(1);
        grown.fill().await;
        grown.migrate(older);
        grown.migrate(MIGRATIONS.len());
        assert_eq!(grown.shape().await, wanted, "from {}", MIGRATIONS[older - 1].name);
        // Members have seats in the order of joining: 2 before 1 and 3, and 4 elsewhere.
        let seats = "FROM seats s \
                     JOIN memberships m ON m.workspace_id = s.workspace_id AND m.principal_id = s.principal_id \
                      AND m.seat = s.seat \
                     ORDER BY s.workspace_id, s.seat";
        let principal = match Engine::current() {
            Engine::Sqlite => sqlite::shown("m.principal_id"),
            Engine::Postgres => "CAST(m.principal_id AS text)".to_owned(),
        };
        let seats = format!("SELECT s.seat || ' ' || substr({principal}, 1, 1) {seats}").leak();
        assert_eq!(grown.texts(seats).await, ["1 2", "2 1", "3 3", "1 4"]);
        for table in ["workspaces", "slugs", "principals", "memberships"] {
            let rows = format!("SELECT CAST(count(*) AS text) FROM {table}").leak();
            let expected = if table.ends_with("ships") || table == "principals" { "4" } else { "2" };
            assert_eq!(grown.texts(rows).await, [expected], "{table}");
        }
    }
});
